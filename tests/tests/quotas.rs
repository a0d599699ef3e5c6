//! Quotas: how much a sensor may send, what it is told of it, and the rates that are shown of it.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::time::Duration;
use tests::{Answer, Collector, assert_problem, catchment, gzip, said};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn set(collector: &Collector, id: &str, quota: &Value) -> Answer {
    let change = json!({ "quota": quota }).to_string();
    collector.ask(("PATCH", &format!("/api/v1/sensors/{id}")), &collector.token, &[], change.as_bytes())
}

/// A sensor with a quota, and its token.
#[track_caller]
fn sensor(collector: &Collector, id: &str, quota: &Value) -> String {
    let token = collector.sensor(id);
    assert_eq!(set(collector, id, quota).status, 200);
    token
}

fn events(count: usize) -> Vec<u8> {
    "{\"n\":1}\n".repeat(count).into_bytes()
}

/// A batch of one event with this many bytes.
fn bytes(count: usize) -> Vec<u8> {
    format!("{{\"x\":\"{}\"}}", "x".repeat(count - 8)).into_bytes()
}

/// A field that is a list of structured fields: the name of each item with a parameter of it.
#[track_caller]
fn parameter(answer: &Answer, field: &str, parameter: &str) -> Vec<(String, i64)> {
    let text = answer.header(field).unwrap_or_else(|| panic!("no {field}: {answer:?}"));
    let list: sfv::List = sfv::Parser::new(text).parse().expect("a list of structured fields");
    let item = |entry: &sfv::ListEntry| match entry {
        sfv::ListEntry::Item(item) => {
            let name = item.bare_item.as_string().expect("a text").as_str().to_owned();
            (name, item.params[parameter].as_integer().expect("a number").into())
        }
        sfv::ListEntry::InnerList(_) => panic!("{text}"),
    };
    list.iter().map(item).collect()
}

/// Checks what is left of the first quota, as the answer tells it: a little comes back each second.
#[track_caller]
fn assert_left(answer: &Answer, expected: i64) {
    let left = parameter(answer, "ratelimit", "r")[0].1;
    assert!((expected..expected + 60).contains(&left), "{left} are left, not {expected}: {answer:?}");
}

#[test]
fn who_waits_as_long_as_retry_after_says_gets_through() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = sensor(&collector, "roof", &json!({ "events_per_second": 1, "burst_seconds": 1 }));
    // Larger than a burst, and the bucket is full: it passes, and is owed.
    assert_eq!(collector.send(&token, &events(4)).status, 200);
    let refused = collector.send(&token, &events(1));
    assert_problem(&refused, 429, "quota_exceeded");
    let problem = refused.json();
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(problem["violated-policies"], json!(["events"]));
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    let wait: u64 = refused.header("retry-after").and_then(|seconds| seconds.parse().ok()).expect("whole seconds");
    assert!((1..=4).contains(&wait), "{refused:?}");
    assert_eq!(parameter(&refused, "ratelimit", "t"), [("events".to_owned(), wait as i64)], "the same moment");
    assert_left(&refused, 0);
    std::thread::sleep(Duration::from_secs(wait));
    assert_eq!(collector.send(&token, &events(1)).json()["accepted"], 1);
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(5)]]);
    assert!(collector.metric("catchment_server_turned_away_total{code=\"quota_exceeded\"}") >= 1.0);
    collector.assert_adds_up();
}

#[test]
fn a_quota_decides_on_the_whole_batch_and_what_is_turned_away_costs_nothing() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let quota = json!({ "events_per_second": 1, "bytes_per_second": 1, "burst_seconds": 3600 });
    let token = sensor(&collector, "roof", &quota);
    assert_left(&collector.send(&token, &events(300)), 3300);
    // 2400 bytes are gone.
    let refused = collector.send(&token, &bytes(1600));
    assert_problem(&refused, 429, "quota_exceeded");
    assert_eq!(refused.json()["violated-policies"], json!(["bytes"]));
    assert_eq!(collector.send(&token, &bytes(1000)).status, 200, "what was refused is there still");
    let refused = collector.send(&token, &events(3500));
    assert_eq!(refused.json()["violated-policies"], json!(["bytes"]), "bytes are looked at before events are read");
    assert_eq!(set(&collector, "roof", &json!({ "bytes_per_second": null })).status, 200);
    let refused = collector.send(&token, &events(3500));
    assert_eq!(refused.json()["violated-policies"], json!(["events"]));
    assert_left(&refused, 3299);
    assert_left(&collector.send(&token, &events(3299)), 0);
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(3600)]], "all of a batch or nothing");
    collector.assert_adds_up();
}

#[test]
fn bytes_are_counted_as_sent_and_refused_before_they_are() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = sensor(&collector, "roof", &json!({ "bytes_per_second": 1, "burst_seconds": 1000 }));
    let compressed = gzip(&events(1000));
    assert!(compressed.len() < 900);
    let kind = [("content-type", "application/x-ndjson"), ("content-encoding", "gzip")];
    let sent = collector.post("/api/v1/events", &token, &compressed, &kind);
    assert_eq!((sent.status, &sent.json()["accepted"]), (200, &json!(1000)), "8000 bytes, sent as less than 900");
    assert_left(&sent, 1000 - compressed.len() as i64);
    // Who waits to be told to send is turned away without sending.
    assert_eq!(collector.announced(&token, 1000), "HTTP/1.1 429");
    // A body that does not say its length is stopped where it is too much.
    let mut connection = collector.connect();
    let body = bytes(1000);
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
    let chunk = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(&chunk)).expect("sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("quota_exceeded"), "{answer}");
    assert_eq!(collector.send(&token, &bytes(100)).status, 200);
    collector.assert_adds_up();
}

#[test]
fn two_at_the_same_moment_do_not_both_pass_on_one_allowance() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = sensor(&collector, "roof", &json!({ "events_per_second": 1, "burst_seconds": 3600 }));
    let app = collector.add_token(&json!({ "role": "send_only", "name": "app", "sensor": "roof" }))["token"].clone();
    let app = app.as_str().expect("a token");
    let barrier = std::sync::Barrier::new(8);
    let passed = std::thread::scope(|scope| {
        // Half of them with the token that only sends: it is the same sensor, and the same quota.
        let tokens = [token.as_str(), app].into_iter().cycle().take(8);
        let sent = tokens.map(|token| {
            let (collector, barrier) = (&collector, &barrier);
            scope.spawn(move || {
                barrier.wait();
                collector.send(token, &events(2000)).status
            })
        });
        let sent: Vec<_> = sent.collect();
        sent.into_iter().map(|sent| sent.join().expect("no panic")).filter(|status| *status == 200).count()
    });
    assert_eq!(passed, 1);
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(2000)]]);
    assert_eq!(collector.send(app, &events(1600)).status, 200);
    assert_problem(&collector.send(&token, &events(1600)), 429, "quota_exceeded");
    collector.assert_adds_up();
}

#[test]
fn every_answer_tells_a_sensor_its_quota_and_nobody_else() {
    let dir = folder();
    let settings = [("CATCHMENT_HTTP__BODY_BYTES_MAX", "64KiB"), ("CATCHMENT_HTTP__BODY_STALL_SECONDS", "1s")];
    let collector = Collector::start_with(dir.path(), &settings);
    let quota = json!({ "events_per_second": 1000, "bytes_per_second": 1_000_000, "burst_seconds": 60 });
    let token = sensor(&collector, "roof", &quota);
    let text = |kind: &str, body: &[u8]| collector.post("/api/v1/events", &token, body, &[("content-type", kind)]);
    let key = [("idempotency-key", "a b")];
    let answers = [
        (200, collector.send(&token, &events(1))),
        (200, collector.send(&token, b"")),
        (400, collector.send(&token, b"1")),
        (400, text("application/json", b"[{]")),
        (400, collector.post("/api/v1/events?wrong=1", &token, b"{}", &[])),
        (400, collector.post("/api/v1/events", &token, b"{}", &key)),
        (413, collector.send(&token, &vec![b' '; 70_000])),
        (415, text("text/xml", b"<a/>")),
        (403, collector.get("/api/v1/events", &token)),
        (403, collector.get("/api/v1/sensor?sensorId=cellar", &token)),
        (200, collector.get("/api/v1/sensor", &token)),
        (200, collector.get("/api/v1/rejected", &token)),
    ];
    for (status, answer) in &answers {
        assert_eq!(answer.status, *status, "{answer:?}");
        let policy = "\"events\";q=60000;w=60;qu=\"events\", \"bytes\";q=60000000;w=60;qu=\"content-bytes\"";
        assert_eq!(answer.header("ratelimit-policy"), Some(policy), "{answer:?}");
        let names: Vec<String> = parameter(answer, "ratelimit", "r").into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["events", "bytes"]);
    }
    let mut stalled = collector.unfinished(&token, 100, b"{");
    let mut answer = String::new();
    stalled.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("ratelimit-policy: \"events\";q=60000"), "{answer}");

    let free = collector.sensor("free");
    let others = [
        collector.send(&free, &events(1)),
        collector.get("/api/v1/sensors", &collector.token),
        collector.get("/api/v1/sensor", ""),
    ];
    assert_eq!(others.each_ref().map(|answer| answer.header("ratelimit")), [None; 3]);
    assert_eq!(set(&collector, "free", &json!({ "events_per_second": 5 })).status, 200);
    let policy = collector.send(&free, &events(1)).header("ratelimit-policy").map(str::to_owned);
    assert_eq!(policy.as_deref(), Some("\"events\";q=50;w=10;qu=\"events\""), "ten seconds of burst by default");
    collector.assert_adds_up();
}

#[test]
fn an_answer_given_again_costs_no_event_and_rejected_and_duplicate_events_cost_one_each() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = sensor(&collector, "roof", &json!({ "events_per_second": 1, "burst_seconds": 3600 }));
    let with_key = || {
        let headers = [("content-type", "application/x-ndjson"), ("idempotency-key", "k1")];
        collector.post("/api/v1/events", &token, &events(1000), &headers)
    };
    assert_left(&with_key(), 2600);
    let with_ids =
        "{\"id\":\"1\",\"type\":\"a\",\"data\":1}\n{\"id\":\"1\",\"type\":\"a\",\"data\":1}\nbroken\n".repeat(200);
    assert_left(&collector.send(&token, with_ids.as_bytes()), 2000);
    assert_left(&collector.send(&token, &b"1\n".repeat(2000)), 0);
    assert_problem(&collector.send(&token, &events(1000)), 429, "quota_exceeded");
    let again = with_key();
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, Some("true")));
    assert_left(&again, 0);
    collector.assert_adds_up();
}

#[test]
fn a_quota_of_its_own_goes_before_the_default_and_null_goes_back_to_it() {
    let dir = folder();
    let settings = [("CATCHMENT_QUOTAS__EVENTS_PER_SECOND", "2"), ("CATCHMENT_QUOTAS__BURST_SECONDS", "1h")];
    let collector = Collector::start_with(dir.path(), &settings);
    let token = collector.sensor("roof");
    let me = || collector.get("/api/v1/sensor", &token).json();
    let quota = |events: Value, bytes: Value, burst: Value| json!({ "events_per_second": events, "bytes_per_second": bytes, "burst_seconds": burst });
    let (none, default) = (quota(Value::Null, Value::Null, Value::Null), quota(json!(2), Value::Null, json!(3600)));
    assert_eq!((&me()["quota"], &me()["quota_in_force"]), (&none, &default));
    assert_left(&collector.send(&token, &events(1)), 7199);
    let changed = set(&collector, "roof", &json!({ "events_per_second": 1, "bytes_per_second": 5000 })).json();
    assert_eq!(changed["quota"], quota(json!(1), json!(5000), Value::Null));
    assert_eq!(changed["quota_in_force"], quota(json!(1), json!(5000), json!(3600)));
    assert_eq!(me()["quota_in_force"], changed["quota_in_force"], "the sensor sees it too");
    assert_problem(&collector.send(&token, &events(3700)), 429, "quota_exceeded");
    let changed = set(&collector, "roof", &json!({ "events_per_second": null })).json();
    assert_eq!(changed["quota"], quota(Value::Null, json!(5000), Value::Null), "what is not named stays");
    assert_eq!(collector.send(&token, &events(3700)).status, 200, "at once");

    for wrong in [
        json!({ "events_per_second": 0 }),
        json!({ "burst_seconds": 90_000 }),
        json!({ "bytes_per_second": 1u64 << 50 }),
    ] {
        assert_problem(&set(&collector, "roof", &wrong), 400, "invalid_field");
    }
    for wrong in [
        json!(5),
        json!({}),
        json!({ "events": 5 }),
        json!({ "events_per_second": 1.5 }),
        json!({ "events_per_second": -1 }),
    ] {
        assert_problem(&set(&collector, "roof", &wrong), 400, "invalid_body");
    }
    assert_eq!(collector.terminate(), 0);
    let collector = Collector::start_with(dir.path(), &settings);
    let shown = || collector.get("/api/v1/sensors/roof", &collector.token).json();
    assert_eq!(shown()["quota"], quota(Value::Null, json!(5000), Value::Null), "after a restart too");
    assert_eq!(set(&collector, "roof", &Value::Null).json()["quota"], none);
    assert_eq!(shown()["quota_in_force"], default);
    let audit = collector.get("/api/v1/audit?limit=4", &collector.token).json();
    let told = |n: usize| (audit["entries"][n]["act"].clone(), audit["entries"][n]["detail"].clone());
    assert_eq!(told(0), (json!("sensor.change"), json!({ "quota": none })));
    assert_eq!(told(1), (json!("sensor.change"), json!({ "quota": { "events_per_second": null } })));
    assert_eq!(told(2).1, json!({ "quota": { "events_per_second": 1, "bytes_per_second": 5000 } }));
}

#[test]
fn a_changed_default_holds_after_sighup() {
    let dir = folder();
    let file = dir.path().join("catchment.toml");
    std::fs::write(&file, "[quotas]\nevents_per_second = 1\n").expect("written");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_CONFIG", file.to_str().expect("a path"))]);
    let token = collector.sensor("roof");
    let policy = |c: &Collector| c.get("/api/v1/sensor", &token).header("ratelimit-policy").map(str::to_owned);
    assert_eq!(policy(&collector).as_deref(), Some("\"events\";q=10;w=10;qu=\"events\""));
    std::fs::write(&file, "[quotas]\nbytes_per_second = \"1KiB\"\nburst_seconds = \"1s\"\n").expect("written");
    collector.signal_hup();
    let changed = Some("\"bytes\";q=1024;w=1;qu=\"content-bytes\"".to_owned());
    collector.wait_for("the changed quota", |c| policy(c) == changed);
}

#[test]
fn send_waits_as_it_is_told_and_sends_all() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    assert_eq!(catchment(dir.path(), &["sensor", "add", "roof"], b"").status.code(), Some(0));
    let changed =
        catchment(dir.path(), &["sensor", "change", "roof", "--events-per-second", "1000", "--burst", "1s"], b"");
    assert!(said(&changed).contains("quota       1000 events/s, at once those of 1 s"), "{changed:?}");
    let sent = catchment(dir.path(), &["send", "--sensor", "roof"], &events(4000));
    assert_eq!(said(&sent), "4000 accepted, 0 duplicates, 0 rejected\n");
    let told = String::from_utf8_lossy(&sent.stderr).into_owned();
    assert!(told.contains("turned away (429 quota_exceeded): trying again in 1 s"), "{told}");
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(4000)]]);
    let run = |args: &[&str]| catchment(dir.path(), args, b"");
    let changed =
        said(&run(&["sensor", "change", "roof", "--events-per-second", "default", "--bytes-per-second", "1KiB"]));
    assert!(changed.contains("quota       1024 bytes/s, at once those of 1 s"), "{changed}");
    for burst in ["soon", "5"] {
        assert_eq!(run(&["sensor", "change", "roof", "--burst", burst]).status.code(), Some(2));
    }
    collector.assert_adds_up();
}

#[test]
fn the_list_of_sensors_shows_what_each_sent_in_the_last_minute() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = sensor(&collector, "roof", &json!({ "events_per_second": 1, "burst_seconds": 900 }));
    collector.sensor("silent");
    assert_eq!(collector.send(&token, &events(600)).status, 200);
    assert_problem(&collector.send(&token, &events(600)), 429, "quota_exceeded");
    let list = collector.get("/api/v1/sensors", &collector.token).json();
    assert_eq!(list["sensors"][0]["rates"], json!({ "events_per_second": 10.0, "bytes_per_second": 80.0 }), "{list}");
    assert_eq!(list["sensors"][1]["rates"], json!({ "events_per_second": 0.0, "bytes_per_second": 0.0 }), "{list}");
    assert_eq!(collector.get("/api/v1/sensor", &token).json()["rates"]["events_per_second"], 10.0);
    let listed = said(&catchment(dir.path(), &["sensor", "list"], b""));
    assert!(listed.contains("events/s") && listed.contains("10.0") && listed.contains("80.0"), "{listed}");
    assert!(said(&catchment(dir.path(), &["sensor", "show", "roof"], b"")).contains("10.0 events/s, 80.0 bytes/s"));
}
