//! The request log as events: off by default, never in the way, and each question of `docs/REQUESTS.md` has its answer.

use serde_json::{Value, json};
use std::path::Path;
use tests::{Collector, blocks, skipped};

const COLLECT: (&str, &str) = ("CATCHMENT_REQUEST_LOG__COLLECT", "true");

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// The questions of the document, by their first words.
fn question(begin: &str) -> String {
    let document = include_str!("../../docs/REQUESTS.md");
    let (_, rest) = document.split_once(begin).unwrap_or_else(|| panic!("the document says {begin:?}"));
    blocks(rest, "sql").swap_remove(0)
}

/// Waits until nothing waits to be collected, and returns how many requests are.
fn collected(collector: &Collector) -> f64 {
    collector.wait_for("all is collected", |c| c.metric("catchment_server_request_log_waiting") == 0.0);
    collector.metric("catchment_server_request_log_ends_total{end=\"stored\"}")
}

/// The event of a request, once it is there.
fn event(collector: &Collector, request_id: &str) -> Value {
    let path = format!("/api/v1/events/{request_id}");
    collector.wait_for(request_id, |c| c.get(&path, &c.token).status == 200);
    collector.get(&path, &collector.token).json()
}

#[test]
fn nothing_is_collected_unless_it_is_asked_for() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    collector.sensor("roof");
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(0)]]);
    assert_eq!(collector.metric("catchment_server_request_log_requests_total"), 0.0);
    assert_eq!(collector.metric("catchment_engine_events_received_total"), 0.0);
}

#[test]
fn each_request_is_one_event_and_that_event_makes_no_other() {
    let dir = folder();
    let collector = Collector::start_with(dir.path(), &[COLLECT]);
    let token = collector.sensor("roof");
    for _ in 0..5 {
        assert_eq!(collector.send(&token, b"{\"n\":1}\n").status, 200);
    }
    collector.get("/nowhere", "");
    collector.get("/livez", "");
    // Scrapes and probes of the admin listener are no requests of it.
    (0..20).for_each(|_| drop(collector.get_admin("/readyz")));
    assert_eq!(collected(&collector), 8.0);
    let count = "SELECT count(*) FROM events WHERE sensor = 'catchment.requests'";
    assert_eq!(collector.rows(count), [[json!(8)]]);
    // That question was the ninth.
    assert_eq!(collected(&collector), 9.0);
    assert_eq!(collector.rows(count), [[json!(9)]]);
    assert_eq!(collector.metric("catchment_engine_window_keys"), 0.0, "they take no place of others");
    collector.assert_adds_up();
    assert_eq!(collector.terminate(), 0);

    // Also after a start, which reads what was asked last from where the stop left it.
    let collector = Collector::start(dir.path());
    assert_eq!(collector.rows(count), [[json!(10)]], "what waited at the end was stored");
}

#[test]
fn an_event_tells_what_the_line_in_the_log_tells_who_asked_and_what_and_no_secret() {
    let dir = folder();
    let collector = Collector::start_with(dir.path(), &[COLLECT]);
    let token = collector.sensor("roof");
    let body = b"{\"n\":1}\nno\n{\"id\":\"a\",\"type\":\"t\",\"data\":1}\n{\"id\":\"a\",\"type\":\"t\",\"data\":1}\n";
    let with = |id: &'static str| [("x-request-id", id), ("content-type", "application/x-ndjson")];
    let sent = collector.post("/api/v1/events?type_field=secret_parameter", &token, body, &with("sent-1"));
    assert_eq!(sent.status, 200, "{}", sent.text);
    let asked = json!({ "sql": "SELECT $1 AS \"ä\"", "params": ["secret_value"] }).to_string();
    collector.post("/api/v1/query", &collector.token, asked.as_bytes(), &[("x-request-id", "asked-1")]);
    collector.ask(("GET", "/api/v1/audit"), &token, &[("x-request-id", "forbidden-1")], b"");
    collector.ask(("GET", "/api/v1/audit"), "cat_secret_and_unknown", &[("x-request-id", "unknown-1")], b"");
    let [sent, asked, forbidden, unknown] =
        ["sent-1", "asked-1", "forbidden-1", "unknown-1"].map(|id| event(&collector, id));
    assert_eq!((&sent["sensor"], &sent["type"]), (&json!("catchment.requests"), &json!("catchment.request")));

    let log = std::fs::read_to_string(dir.path().join("log")).expect("the log");
    for event in [&sent, &asked, &forbidden, &unknown] {
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = lines.rfind(|line| line["request_id"] == event["id"] && line["target"] == "nowwhat::request");
        let line = line.unwrap_or_else(|| panic!("{} has a line in {log}", event["id"]));
        for name in ["method", "path", "controller", "action", "format", "status", "duration", "view", "db"]
            .iter()
            .chain(&["request_bytes", "response_bytes", "client", "code"])
        {
            assert_eq!(event["data"][name], line[name], "{name} of {}", event["id"]);
        }
    }
    let who = |event: &Value| ["role", "token_name", "sensor"].map(|name| event["data"][name].clone());
    assert_eq!(who(&sent), ["sensor", "registration", "roof"]);
    assert_eq!(who(&asked), [json!("admin"), json!("configured"), Value::Null]);
    assert_eq!(who(&forbidden), ["sensor", "registration", "roof"], "also who may not");
    assert_eq!(who(&unknown), [Value::Null, Value::Null, Value::Null]);
    let of = |names: [&str; 4]| names.map(|name| sent["data"][name].clone());
    assert_eq!(of(["events", "accepted", "duplicates", "rejected"]), [4, 2, 1, 1]);
    let [first, last] =
        ["first_position", "last_position"].map(|name| sent["data"][name].as_u64().expect("it is told"));
    let stored = format!("SELECT count(*) FROM events WHERE sensor = 'roof' AND position BETWEEN {first} AND {last}");
    assert_eq!((collector.rows(&stored), last), (vec![vec![json!(2)]], first + 1));
    assert_eq!((&asked["data"]["sql"], &asked["data"]["sql_bytes"]), (&json!("SELECT $1 AS \"ä\""), &json!(17)));
    assert_eq!(forbidden["data"]["code"], "insufficient_scope");
    let all = collector.rows("SELECT data FROM events WHERE sensor = 'catchment.requests'");
    let all = format!("{all:?}");
    for secret in ["secret", token.as_str(), &collector.token] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
}

#[test]
fn the_questions_of_the_document_are_answered() {
    let dir = folder();
    let collector = Collector::start_with(dir.path(), &[COLLECT]);
    let token = collector.sensor("roof");
    let headers = [("x-request-id", "order-17"), ("content-type", "application/x-ndjson")];
    collector.post("/api/v1/events", &token, b"{\"n\":1}\nno\n{\"n\":2}\n", &headers);
    collector.send(&token, b"{\"n\":3}\n");
    (0..3).for_each(|_| drop(collector.send("cat_nobody", b"{}\n")));
    collector.rows("SELECT 'who asked this'");
    collected(&collector);

    // What is collected is of today: the question is asked as if it was tomorrow.
    let slowest = question("The slowest routes of yesterday").replace("now()", "(now() + INTERVAL '1 day')");
    let routes = collector.rows(&slowest);
    let send = routes.iter().find(|row| row[..2] == ["POST", "/api/v1/events"]).expect("it is among them");
    assert_eq!(send[2], 5, "{routes:?}");
    assert!(send[3].as_f64() <= send[4].as_f64() && send[4].as_f64() > Some(0.0), "{routes:?}");
    assert!(routes.is_sorted_by(|a, b| a[3].as_f64() >= b[3].as_f64()), "{routes:?}");

    let asked = collector.rows(&question("Who asked what"));
    let row = asked.iter().find(|row| row[5] == "SELECT 'who asked this'").expect("it is among them");
    assert_eq!(row[1..4], ["configured", "127.0.0.1", "200"], "{asked:?}");

    let errors = collector.rows(&question("Errors by client"));
    assert_eq!(errors[0][..5], [json!("127.0.0.1"), Value::Null, json!("401"), json!("invalid_token"), json!(3)]);

    let came = collector.rows(&question("Which events came with the request"));
    assert_eq!(came.iter().map(|row| row[4].as_str().expect("a text")).collect::<Vec<_>>(), ["{\"n\":1}", "{\"n\":2}"]);
}

#[test]
fn an_id_that_a_client_uses_again_is_an_event_each_time_and_no_duplicate() {
    let dir = folder();
    let collector = Collector::start_with(dir.path(), &[COLLECT]);
    for _ in 0..3 {
        collector.ask(("GET", "/api/v1/sensors"), &collector.token, &[("x-request-id", "mine")], b"");
    }
    assert_eq!(collected(&collector), 3.0);
    assert_eq!(collector.rows("SELECT count(*) FROM events WHERE id = 'mine'"), [[json!(3)]]);
    assert_eq!(collector.metric("catchment_engine_events_total{end=\"duplicate\"}"), 0.0);
    assert_eq!(collector.metric("catchment_engine_reused_ids_total"), 0.0);
}

#[test]
fn nobody_else_can_send_as_the_sensor_of_requests() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    for name in ["catchment.requests", "Catchment.Requests", "catchment.other"] {
        let body = json!({ "name": name }).to_string();
        let refused = collector.post("/api/v1/sensor", &collector.token, body.as_bytes(), &[]);
        assert_eq!((refused.status, &refused.json()["code"]), (400, &json!("invalid_name")), "{}", refused.text);
        assert!(refused.text.contains("only those of the collector's own events do"), "{}", refused.text);
    }
    let of_sensor = collector.add_token(&json!({ "role": "enrol", "name": "gate" }));
    let enrol = of_sensor["token"].as_str().expect("a token");
    assert_eq!(collector.post("/api/v1/sensor", enrol, b"{\"name\":\"catchment.requests\"}", &[]).status, 400);
    let sent = tests::catchment(dir.path(), &["send", "--sensor", "catchment.requests"], b"{\"n\":1}\n");
    assert_eq!(sent.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&sent.stderr).contains("choose another name"), "{sent:?}");
    collector.sensor("catchment");
}

#[test]
fn requests_beyond_what_may_wait_are_left_out_and_counted_and_answered_all_the_same() {
    let dir = folder();
    let small = ("CATCHMENT_REQUEST_LOG__WAITING_BYTES_MAX", "1KiB");
    let collector = Collector::start_with(dir.path(), &[COLLECT, small]);
    let token = collector.sensor("roof");
    let left_out = "catchment_server_request_log_ends_total{end=\"left_out\"}";
    let mut sent = 1.0;
    while collector.metric(left_out) == 0.0 {
        assert_eq!(collector.send(&token, b"{\"n\":1}\n").status, 200);
        sent += 1.0;
    }
    let stored = collected(&collector);
    assert_eq!(stored + collector.metric(left_out), sent);
    let log = || std::fs::read_to_string(dir.path().join("log")).expect("the log");
    collector.wait_for("the log says so", |_| log().contains("requests left out of the request log"));
    collector.assert_adds_up();
}

/// A small disk of its own, gone with the test.
struct SmallDisk<'a>(&'a Path);

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("--lazy").arg(self.0).output());
    }
}

#[test]
fn on_a_full_disk_requests_are_answered_as_without_it_and_those_that_cannot_be_collected_are_counted() {
    let dir = folder();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).expect("made");
    let mount =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(&data).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        return skipped("a tmpfs cannot be mounted: only root may");
    }
    let _disk = SmallDisk(&data);
    let settings = [
        COLLECT,
        ("CATCHMENT_DATA__FREE_BYTES_MIN", "0"),
        ("CATCHMENT_INGEST__SEGMENT_BYTES", "1MiB"),
        ("CATCHMENT_SEAL__AGE_SECONDS", "1h"),
    ];
    let collector = Collector::start_with(dir.path(), &settings);
    let filler = data.join("filler");
    let filled = std::process::Command::new("dd").arg("if=/dev/zero").arg(format!("of={}", filler.display())).output();
    assert!(filled.is_ok_and(|output| !output.status.success()), "the disk is full");
    let failed = "catchment_server_request_log_ends_total{end=\"failed\"}";
    // What is stored is compressed: only a text without a pattern fills the disk.
    let mut state: u64 = 17;
    let mut question = || {
        let text = (0..250).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            format!("{state:016x}")
        });
        format!("SELECT '{}'", text.collect::<String>())
    };
    let mut asked = 0;
    while collector.metric(failed) == 0.0 {
        (0..50).for_each(|_| assert_eq!(collector.query(&question()).status, 200, "reading goes on"));
        asked += 50;
        assert!(asked < 10_000, "there is no room for them at last");
    }
    collector.assert_adds_up();
    std::fs::remove_file(&filler).expect("removed");
    let before = collected(&collector);
    collector.wait_for("it goes on once there is room", |c| c.query("SELECT 1").status == 200 && collected(c) > before);
    collector.assert_adds_up();
}
