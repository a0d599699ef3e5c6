//! `catchment request ID`: what is known of one request, from the collector and from a log.

use serde_json::{Value, json};
use tests::{Collector, blocks, catchment, catchment_with, said};

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
    let text = b"2026-11-26T12:00:00.5Z  INFO sold request_id=made-1\n";
    let unread = failed(&catchment(dir.path(), &["request", "made-1", "--log", "-"], text), 1);
    assert!(unread.contains("cannot read -: no line names a request"), "{unread}");
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
    assert!(
        on.contains("collected are requests that ended from ") && !on.contains("requests are not collected"),
        "{on}"
    );
    assert_eq!(collector.terminate(), 0);

    let _collector = Collector::start(dir.path());
    let after = unknown("nobody-1");
    assert!(after.contains("collected are requests that ended from "), "{after}");
    assert!(after.contains("`collect = true` in [request_log] still holds") && after.contains("left out"), "{after}");
}

/// Sends lines in a request of this id and key; how many were accepted.
fn sent(collector: &Collector, token: &str, id: &str, key: &str, lines: &str) -> u64 {
    let headers = [("x-request-id", id), ("idempotency-key", key), ("content-type", "application/x-ndjson")];
    let answer = collector.post("/api/v1/events", token, lines.as_bytes(), &headers);
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["accepted"].as_u64().expect("a number")
}

#[test]
fn each_of_many_requests_at_once_leads_to_its_own_events_and_to_no_others() {
    let dir = folder();
    let collector = Collector::start_with(dir.path(), &[COLLECT]);
    let token = collector.sensor("roof");
    let same = "{\"id\":\"same\",\"type\":\"t\",\"data\":1}\n";
    assert_eq!(sent(&collector, &token, "first", "first", same), 1);
    let threads = 20;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (collector, token) = (&collector, &token);
            scope.spawn(move || {
                for n in (thread..200).step_by(threads) {
                    // Of six three are stored: beside them are a rejected one, one that was stored before, and one that comes twice.
                    let twice = format!("{{\"id\":\"e-{n}\",\"type\":\"t\",\"data\":{{\"n\":{n}}}}}\n").repeat(2);
                    let lines = format!("{{\"n\":{n}}}\n{same}{twice}no\n{{\"n\":{n}}}\n");
                    let key = format!("many-{n}");
                    assert_eq!(sent(collector, token, &key, &key, &lines), 3);
                    // Given again, and nothing but duplicates: both store nothing.
                    assert_eq!(sent(collector, token, &format!("again-{n}"), &key, &lines), 3);
                    assert_eq!(sent(collector, token, &format!("twice-{n}"), &format!("twice-{n}"), &twice), 0);
                }
            });
        }
    });
    let count = "SELECT count(*) FROM events WHERE sensor = 'catchment.requests' AND data->>'path' = '/api/v1/events'";
    collector.wait_for("all are collected", |c| c.rows(count) == [[json!(601)]]);

    // The question of the document, of all of them at once.
    let document = include_str!("../../docs/REQUESTS.md");
    let (_, rest) = document.split_once("Which events came with the request").expect("it is asked there");
    let question = blocks(rest, "sql").swap_remove(0);
    let question = question.replace("SELECT ", "SELECT r.id, ").replace("r.id = 'order-17'", "r.id <> 'first'");
    let mut found = std::collections::BTreeMap::<String, Vec<(u64, String)>>::new();
    for row in collector.rows(&question) {
        let text = |at: usize| row[at].as_str().expect("a text").to_owned();
        found.entry(text(0)).or_default().push((row[1].as_u64().expect("a position"), text(5)));
    }
    assert_eq!(found.len(), 200, "{found:?}");
    for (id, events) in &found {
        let n = id.strip_prefix("many-").expect("only these stored something");
        let (first, own) = (events[0].0, format!("{{\"n\":{n}}}"));
        assert_eq!(events, &[0, 1, 2].map(|next| (first + next, own.clone())), "{id}");
    }

    let told = |id: &str| {
        let output = catchment(dir.path(), &["request", id, "--json"], b"");
        assert!(output.status.success(), "{output:?}");
        let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let known = json["known"].as_array().expect("a list");
        known.iter().filter(|known| known["what"] == "events").map(|known| known["known"].clone()).collect::<Vec<_>>()
    };
    for id in ["many-0", "many-99", "many-199"] {
        let (events, first) = (told(id), found[id][0].0);
        let of = |name: &str| events[0][name].clone();
        assert_eq!((events.len(), of("events"), of("sensor")), (1, json!(3), json!("roof")));
        assert_eq!((of("first_position"), of("last_position")), (json!(first), json!(first + 2)));
    }
    assert_eq!((told("again-99"), told("twice-99")), (vec![], vec![]));
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
