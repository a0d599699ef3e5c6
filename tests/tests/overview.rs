//! How the collector is, told to those who look: the same numbers that its metrics have, as it changes and as it was.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write as _};
use tests::{Collector, wait_until};

fn collector() -> (tempfile::TempDir, Collector) {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    (dir, collector)
}

fn overview(collector: &Collector) -> Value {
    collector.get("/api/v1/overview", &collector.token).json()
}

/// A batch with every end that an event can have but a failed one.
fn send(collector: &Collector) {
    let token = collector.sensor("roof");
    let event = json!({ "id": "a", "type": "reading", "data": { "n": 1 } });
    let body = json!([event, event, { "n": 2 }, { "time": "yesterday" }]).to_string();
    let answer = collector.post("/api/v1/events", &token, body.as_bytes(), &[]);
    assert_eq!((answer.status, answer.json()["accepted"].as_u64()), (200, Some(2)), "{}", answer.text);
}

#[test]
fn it_has_the_ends_of_events_the_storage_and_the_health_within_a_second() {
    let (_dir, collector) = collector();
    assert_eq!(overview(&collector)["events"]["accepted_total"], 0, "it answers from the first moment on");
    send(&collector);
    wait_until("the ends are told", || overview(&collector)["events"]["received_total"] == 4);
    let told = overview(&collector);
    let events = &told["events"];
    assert_eq!(
        (&events["accepted_total"], &events["duplicates_total"], &events["rejected_total"]),
        (&json!(2), &json!(1), &json!(1))
    );
    assert_eq!((&events["live"], &events["last_position"]), (&json!(2), &json!(2)), "{told}");
    assert_eq!((&told["health"]["ready"], &told["health"]["reasons"]), (&json!(true), &json!([])), "{told}");
    assert_eq!(told["sensors"]["registered"], 1);
    for name in ["wal_bytes", "disk_free_bytes", "disk_bytes", "rejected_bytes"] {
        assert!(told["storage"][name].as_u64().is_some_and(|bytes| bytes > 0), "{name}: {told}");
    }
    let bound = collector.metric("catchment_memory_bound_bytes");
    assert_eq!(told["memory"]["bound_bytes"].as_f64(), Some(bound), "{told}");
}

#[test]
fn the_history_has_a_row_a_second_and_says_what_its_columns_are() {
    let (_dir, collector) = collector();
    send(&collector);
    let history = |seconds: &str| collector.get(&format!("/api/v1/overview/history{seconds}"), &collector.token).json();
    let column = |history: &Value, name: &str| -> Vec<Value> {
        let columns = history["columns"].as_array().expect("columns");
        let at = columns.iter().position(|column| column == name).expect("the column");
        history["rows"].as_array().expect("rows").iter().map(|row| row[at].clone()).collect()
    };
    let rates = |history: &Value| column(history, "accepted_per_second").iter().filter_map(Value::as_f64).sum::<f64>();
    wait_until("the second in which they came", || rates(&history("?seconds=60")) > 1.0);
    let told = history("?seconds=60");
    assert_eq!(told["step_seconds"], 1);
    let latencies = column(&told, "answer_p99_seconds");
    assert!(latencies.iter().any(|p99| p99.as_f64().is_some_and(|seconds| seconds > 0.0)), "{latencies:?}");
    assert_eq!(history("?seconds=2592000")["step_seconds"], 1, "all that is kept, as finely as it is kept");
    for wrong in ["?seconds=0", "?seconds=2592001", "?seconds=long", "?minutes=1"] {
        let answer = collector.get(&format!("/api/v1/overview/history{wrong}"), &collector.token);
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("invalid_parameter")), "{wrong}");
    }
}

#[test]
fn it_is_told_each_second_until_the_token_is_revoked() {
    let (_dir, collector) = collector();
    let made = collector.add_token(&json!({ "role": "operator", "name": "watch" }));
    let mut stream = collector.connect();
    let token = made["token"].as_str().expect("a token");
    write!(stream, "GET /api/v1/overview/live HTTP/1.0\r\nauthorization: Bearer {token}\r\n\r\n").expect("sent");
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("a line"));
    assert!(lines.next().expect("a status").contains(" 200 "));
    let heads: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    assert!(heads.contains(&"content-type: text/event-stream".to_owned()), "{heads:?}");
    let mut told = || -> Option<Value> {
        let line = lines.find(|line| line.starts_with("data: "))?;
        Some(serde_json::from_str(&line["data: ".len()..]).expect("JSON"))
    };
    let (first, second) = (told().expect("told"), told().expect("told again"));
    assert_ne!(first["at"], second["at"]);
    let path = format!("/api/v1/tokens/{}", made["id"]);
    let answer = collector.ask(("DELETE", &path), &collector.token, &[], b"");
    assert_eq!(answer.status, 204);
    assert!((0..60).any(|_| told().is_none()), "it ends");
}
