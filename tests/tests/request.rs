//! `catchment request ID`: what is known of one request, from the collector and from a log.

use serde_json::{Value, json};
use tests::{Collector, catchment, catchment_with, said};

const COLLECT: (&str, &str) = ("CATCHMENT_REQUEST_LOG__COLLECT", "true");

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn failed(output: &std::process::Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Sends events of which one is rejected, registers a sensor, and asks, each in a request of its own.
fn requests(collector: &Collector) {
    let token = collector.sensor("roof");
    let headers = [("x-request-id", "sent-1"), ("content-type", "application/x-ndjson")];
    assert_eq!(collector.post("/api/v1/events", &token, b"{\"n\":1}\nno\n{\"n\":2}\n", &headers).status, 200);
    let made =
        collector.post("/api/v1/sensor", &collector.token, b"{\"name\":\"door\"}", &[("x-request-id", "made-1")]);
    assert_eq!(made.status, 201);
    let sql = b"{\"sql\":\"SELECT 'of order 17'\"}";
    collector.post("/api/v1/query", &collector.token, sql, &[("x-request-id", "asked-1")]);
}

#[test]
fn all_that_the_collector_knows_of_a_request_is_told_in_the_order_of_time() {
    let dir = folder();
    let collector = Collector::start_with(dir.path(), &[COLLECT]);
    requests(&collector);
    let path = "/api/v1/events/asked-1";
    collector.wait_for("they are collected", |c| c.get(path, &c.token).status == 200);
    let shown = |id: &str| {
        let output = catchment(dir.path(), &["request", id], b"");
        assert!(output.status.success(), "{output:?}");
        said(&output)
    };
    let sent = shown("sent-1");
    let lines: Vec<&str> = sent.lines().collect();
    let what: Vec<&str> = lines.iter().map(|line| line[29..].split_whitespace().next().expect("a word")).collect();
    assert_eq!(what, ["events", "rejected", "request"], "{sent}");
    for (line, part) in [
        (0, "2 stored of sensor roof, positions"),
        (1, "event 1 of sensor roof: invalid_json"),
        (2, "POST /api/v1/events 200 in "),
        (
            2,
            "from 127.0.0.1, token registration, role sensor, sensor roof, events 3, accepted 2, duplicates 0, rejected 1",
        ),
    ] {
        assert!(lines[line].contains(part), "{part} in {}", lines[line]);
    }
    let made = shown("made-1");
    assert!(made.contains("audit     sensor.register sensor/door"), "{made}");
    assert!(made.contains("request   POST /api/v1/sensor 201 in "), "{made}");
    assert!(shown("asked-1\r\n").contains("role admin, asked SELECT 'of order 17'"), "with the end of its line");

    let json = catchment(dir.path(), &["request", "sent-1", "--json"], b"");
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!((&json["request_id"], &json["not_looked_at"]), (&json!("sent-1"), &json!([])));
    let known = json["known"].as_array().expect("a list");
    assert_eq!(known.iter().filter_map(|known| known["what"].as_str()).collect::<Vec<_>>(), what);
    assert_eq!((&known[1]["known"]["code"], &known[2]["known"]["status"]), (&json!("invalid_json"), &json!(200)));
    assert_eq!(known[0]["known"]["events"], 2);
}

#[test]
fn the_lines_of_a_log_are_among_it_from_a_file_and_from_standard_input() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    requests(&collector);
    let log = dir.path().join("log");
    let text = || std::fs::read_to_string(&log).expect("the log");
    collector.wait_for("the line", |_| text().contains("\"request_id\":\"made-1\""));
    let of_file = catchment(dir.path(), &["request", "made-1", "--log", "log"], b"");
    let of_input = catchment(dir.path(), &["request", "made-1", "--log", "-"], text().as_bytes());
    assert_eq!(said(&of_file), said(&of_input));
    let told = said(&of_file);
    assert!(told.contains("log       INFO [201] POST /api/v1/sensor (sensors#post_sensor)"), "{told}");
    assert!(told.contains("audit     sensor.register sensor/door"), "{told}");
    assert!(told.lines().is_sorted(), "by time: {told}");
    assert_eq!(collector.terminate(), 0);

    // Without a collector the log is looked at all the same, and the rest is said.
    let alone = catchment(dir.path(), &["request", "made-1", "--log", "log"], b"");
    assert!(said(&alone).contains("[201] POST /api/v1/sensor"), "{alone:?}");
    let why = failed(&alone, 1);
    assert!(why.contains("not all could be looked at: the collector: no running collector found"), "{why}");
    let missing = failed(&catchment(dir.path(), &["request", "made-1", "--log", "no-log"], b""), 1);
    assert!(missing.contains("cannot open no-log"), "{missing}");
}

#[test]
fn of_an_unknown_request_it_says_what_to_do_and_what_is_no_id_is_refused() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    requests(&collector);
    let unknown = |id: &str| failed(&catchment(dir.path(), &["request", id], b""), 1);
    let off = unknown("asked-1");
    for part in ["nothing is known of the request asked-1", "collect = true", "[request_log]", "--log FILE"] {
        assert!(off.contains(part), "{part} in {off}");
    }
    let log = failed(&catchment(dir.path(), &["request", "nobody-1", "--log", "log"], b""), 1);
    assert!(log.contains("no line of log has it"), "{log}");
    for id in ["", "two words", "\"quoted\"", "back\\slash", "ä", &"x".repeat(129)] {
        let refused = failed(&catchment(dir.path(), &["request", id], b""), 2);
        assert!(refused.contains("is no id of a request") && refused.contains("X-Request-Id"), "{refused}");
    }
    assert_eq!(collector.terminate(), 0);

    let collector = Collector::start_with(dir.path(), &[COLLECT]);
    collector.rows("SELECT 1");
    let stored = "catchment_server_request_log_ends_total{end=\"stored\"}";
    collector.wait_for("something is collected", |c| c.metric(stored) > 0.0);
    let on = unknown("nobody-1");
    assert!(on.contains("requests that ended from ") && !on.contains("from the next start on"), "{on}");
    assert_eq!(collector.terminate(), 0);

    // That some were collected once does not say that those of today are.
    let collector = Collector::start(dir.path());
    let off_again = unknown("nobody-1");
    let last = collector.rows("SELECT max(time) FROM events WHERE sensor = 'catchment.requests'");
    let last = last[0][0].as_str().expect("a time");
    assert!(off_again.contains(&format!(" to {last} are collected")), "{last} in {off_again}");
}

#[test]
fn what_a_token_may_not_read_is_said_and_hides_nothing_else() {
    let dir = folder();
    let collector = Collector::start_with(dir.path(), &[COLLECT]);
    requests(&collector);
    collector.wait_for("they are collected", |c| c.get("/api/v1/events/made-1", &c.token).status == 200);
    let reader = collector.add_token(&json!({ "role": "reader", "name": "someone" }));
    let token = [("CATCHMENT_TOKEN", reader["token"].as_str().expect("a token"))];
    let output = catchment_with(dir.path(), &["request", "made-1"], b"", &token);
    assert!(said(&output).contains("request   POST /api/v1/sensor 201"), "{output:?}");
    let why = failed(&output, 1);
    assert!(why.contains("not all could be looked at: the audit: ") && why.contains("insufficient_scope"), "{why}");
}

#[test]
fn the_audit_is_read_by_the_id_of_a_request() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    requests(&collector);
    let entries =
        |id: &str| collector.get(&format!("/api/v1/audit?request_id={id}"), &collector.token).json()["entries"].clone();
    let made = entries("made-1");
    assert_eq!((made.as_array().map(Vec::len), &made[0]["target"]), (Some(1), &json!("sensor/door")));
    assert_eq!(entries("asked-1"), json!([]), "it changed nothing");
}
