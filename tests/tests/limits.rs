//! Every bound on what comes from outside, hit.

use serde_json::json;
use std::io::{Read, Write};
use tests::{Answer, Collector, gzip};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn blanks(count: usize) -> Vec<u8> {
    vec![b' '; count]
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert_eq!(answer.json()["code"], code, "{}", answer.text);
    let retryable = matches!(status, 429 | 503 | 408);
    assert_eq!(answer.header("retry-after").is_some(), retryable, "{answer:?}");
}

#[test]
fn bodies_batches_and_events_have_their_bounds() {
    let dir = folder();
    let settings = [
        ("CATCHMENT_HTTP__BODY_BYTES_MAX", "64KiB"),
        ("CATCHMENT_EVENTS__BATCH_EVENTS_MAX", "10"),
        ("CATCHMENT_EVENTS__EVENT_BYTES_MAX", "1KiB"),
        ("CATCHMENT_EVENTS__NESTING_MAX", "8"),
    ];
    let collector = Collector::start_with(dir.path(), &settings);
    let token = collector.sensor("roof");
    refused(&collector.send(&token, &vec![b' '; 70_000]), 413, "body_too_large");
    let bomb = zstd::encode_all(vec![b' '; 70_000].as_slice(), 19).expect("compressed");
    refused(&collector.post("/api/v1/events", &token, &bomb, &[("content-encoding", "zstd")]), 413, "body_too_large");
    refused(&collector.send(&token, "{}\n".repeat(11).as_bytes()), 413, "too_many_events");
    let long = format!("{{\"x\":\"{}\"}}\n{{\"n\":1}}\n{}{}\n", "x".repeat(2000), "[".repeat(9), "]".repeat(9));
    let deep = format!("{long}{{\"a\":{}1{}}}\n", "[".repeat(8), "]".repeat(8));
    let answer = collector.send(&token, deep.as_bytes()).json();
    let codes: Vec<&str> =
        answer["rejected"].as_array().expect("a list").iter().filter_map(|r| r["code"].as_str()).collect();
    assert_eq!(codes, ["event_too_large", "not_an_object", "nesting_too_deep"], "{answer}");
    assert_eq!(answer["accepted"], 1, "the others stay");
    refused(
        &collector.post("/api/v1/events", &token, b"<a/>", &[("content-type", "text/xml")]),
        415,
        "unsupported_media_type",
    );
    collector.assert_adds_up();
}

#[test]
fn a_body_that_grows_a_thousandfold_is_refused_although_there_is_room() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let sent = |bytes: usize| {
        let body = zstd::encode_all(vec![b' '; bytes].as_slice(), 19).expect("compressed");
        assert!(body.len() < 1000, "{}", body.len());
        let kind = [("content-type", "application/x-ndjson"), ("content-encoding", "zstd")];
        collector.post("/api/v1/events", &token, &body, &kind)
    };
    assert_eq!(sent(60_000).json()["accepted"], 0, "small ones may");
    refused(&sent(8 << 20), 413, "body_too_large");
    collector.assert_adds_up();
}

#[test]
fn who_waits_to_be_told_to_send_is_refused_before_it_sends() {
    let dir = folder();
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_HTTP__BODY_BYTES_MAX", "64KiB")]);
    let token = collector.sensor("roof");
    assert_eq!(collector.announced("nobody", 100), "HTTP/1.1 401");
    assert_eq!(collector.announced(&token, 70_000), "HTTP/1.1 413");
    assert_eq!(collector.announced(&token, 100), "HTTP/1.1 100");
}

#[test]
fn too_many_bytes_in_flight_are_turned_away_before_they_are_read() {
    let dir = folder();
    let settings = [("CATCHMENT_HTTP__BODY_BYTES_MAX", "1MiB"), ("CATCHMENT_INGEST__IN_FLIGHT_BYTES_MAX", "1MiB")];
    let collector = Collector::start_with(dir.path(), &settings);
    let token = collector.sensor("roof");
    // One request is alone, takes almost all of the budget, and owes a byte.
    let first = collector.unfinished(&token, 1_000_000, &blanks(999_999));
    let line = format!("{{\"x\":\"{}\"}}\n", "x".repeat(100_000));
    collector.wait_for("its bytes", |c| c.announced(&token, line.len()) == "HTTP/1.1 503");
    refused(&collector.send(&token, line.as_bytes()), 503, "in_flight_full");
    // Who waits to be told to send is turned away without sending.
    assert_eq!(collector.announced(&token, 1_000_000), "HTTP/1.1 503");
    drop(first);
    collector.wait_for("the budget", |c| c.send(&token, line.as_bytes()).status == 200);
}

#[test]
fn an_event_may_have_as_many_attributes_in_headers_as_it_may_have_at_all() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let names: Vec<String> = (0..900).map(|n| format!("ce-a{n}")).collect();
    let mut headers = vec![("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
    headers.extend(names.iter().map(|name| (name.as_str(), "1")));
    headers.push(("content-type", "application/json"));
    let answer = collector.post("/api/v1/events", &token, b"{}", &headers);
    assert_eq!((answer.status, &answer.json()["accepted"]), (200, &json!(1)), "{answer:?}");
    assert_eq!(collector.rows("SELECT attributes->>'a899' FROM events"), [["1"]]);
}

#[test]
fn one_sensor_that_keeps_its_bodies_open_does_not_stop_the_others() {
    let dir = folder();
    let settings = [("CATCHMENT_HTTP__BODY_BYTES_MAX", "1MiB"), ("CATCHMENT_INGEST__IN_FLIGHT_BYTES_MAX", "2MiB")];
    let collector = Collector::start_with(dir.path(), &settings);
    let (slow, other) = (collector.sensor("slow"), collector.sensor("other"));
    let event = format!("{{\"x\":\"{}\"}}\n", "x".repeat(100_000));
    // What is announced and does not come takes nothing.
    let announced: Vec<_> = (0..2).map(|_| collector.unfinished(&slow, 1 << 20, &blanks(1))).collect();
    collector.wait_for("the requests", |c| c.metric("http_requests_in_flight") == 2.0);
    assert_eq!(collector.send(&other, event.as_bytes()).status, 200);
    drop(announced);
    // Nor may one sensor hold all with what comes: some of these are turned away, which ends them.
    let open: Vec<_> = (0..10).map(|_| collector.unfinished(&slow, 200_001, &blanks(200_000))).collect();
    collector.wait_for("its share to be used up", |c| c.metric("http_requests_in_flight") <= 7.0);
    refused(&collector.send(&slow, &vec![b' '; 400_000]), 503, "in_flight_full");
    assert_eq!(collector.send(&other, event.as_bytes()).status, 200);
    drop(open);
    collector.wait_for("room", |c| c.send(&slow, event.as_bytes()).status == 200);
    collector.assert_adds_up();
}

#[test]
fn seven_slow_sensors_that_hold_what_they_can_do_not_keep_an_eighth_out() {
    let dir = folder();
    let settings = [
        ("CATCHMENT_HTTP__BODY_BYTES_MAX", "4MiB"),
        ("CATCHMENT_INGEST__IN_FLIGHT_BYTES_MAX", "4MiB"),
        ("CATCHMENT_HTTP__BODY_STALL_SECONDS", "2m"),
    ];
    let collector = Collector::start_with(dir.path(), &settings);
    let eighth = collector.sensor("eighth");
    let slow: Vec<_> = (0..7).map(|n| collector.sensor(&format!("slow-{n}"))).collect();
    let mut free = 4 << 20;
    let mut held = Vec::new();
    for token in slow {
        let bytes = free * 7 / 10;
        held.push(collector.unfinished(&token, bytes + 1, &blanks(bytes)));
        free -= bytes;
        // More than three quarters of what is left do not fit: all of it came.
        collector.wait_for("its bytes", |c| c.announced(&eighth, free * 3 / 4 + 1) == "HTTP/1.1 503");
    }
    let batch = format!("{{\"x\":\"{}\"}}", "x".repeat(1024));
    refused(&collector.send(&eighth, batch.as_bytes()), 503, "in_flight_full");
    collector.wait_for("room", |c| c.send(&eighth, batch.as_bytes()).status == 200);
    let mut told = String::new();
    held[0].read_to_string(&mut told).expect("an answer");
    assert!(told.starts_with("HTTP/1.1 503") && told.contains("in_flight_full"), "{told}");
    // Of the others none had to go: they may be slow.
    assert_eq!(collector.metric("http_requests_in_flight"), held.len() as f64 - 1.0);
    drop(held);
    collector.assert_adds_up();
}

#[test]
fn small_events_take_the_room_of_their_columns_before_they_are_read() {
    let dir = folder();
    let settings = [("CATCHMENT_HTTP__BODY_BYTES_MAX", "1MiB"), ("CATCHMENT_INGEST__IN_FLIGHT_BYTES_MAX", "8MiB")];
    let collector = Collector::start_with(dir.path(), &settings);
    let token = collector.sensor(&"long-name".repeat(13));
    // 300 KB of text, 30 MB of columns: never to be had, so that trying again would not help.
    refused(&collector.send(&token, "{}\n".repeat(100_000).as_bytes()), 413, "body_too_large");
    assert_eq!(collector.send(&token, "{}\n".repeat(10_000).as_bytes()).json()["accepted"], 10_000);
    // Compressed senders beside each other are taken, though each could become large.
    let body = gzip("{\"reading\":1}\n".repeat(10_000).as_bytes());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let headers = [("content-type", "application/x-ndjson"), ("content-encoding", "gzip")];
            let (collector, token, body) = (&collector, &token, &body);
            scope.spawn(move || {
                tests::wait_until("an answer", || {
                    collector.post("/api/v1/events", token, body, &headers).status == 200
                });
            });
        }
    });
    collector.assert_adds_up();
}

#[test]
fn a_body_that_stalls_is_given_up_and_a_head_that_never_comes_as_well() {
    let dir = folder();
    let settings = [("CATCHMENT_HTTP__BODY_STALL_SECONDS", "1s"), ("CATCHMENT_HTTP__HEAD_SECONDS", "1s")];
    let collector = Collector::start_with(dir.path(), &settings);
    let token = collector.sensor("roof");
    let mut stalled = collector.unfinished(&token, 100, b"{");
    let mut answer = String::new();
    stalled.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_timeout"), "{answer}");
    let mut silent = collector.connect();
    let mut nothing = Vec::new();
    silent.write_all(b"POST /api").expect("sent");
    drop(silent.read_to_end(&mut nothing));
    assert!(!String::from_utf8_lossy(&nothing).contains("200"), "closed, without an answer that pleases");
}

#[test]
fn a_refusal_stays_what_it_is_when_its_client_goes_on_to_drip() {
    let dir = folder();
    let settings = [("CATCHMENT_HTTP__BODY_STALL_SECONDS", "1s"), ("CATCHMENT_HTTP__BODY_BYTES_MAX", "64KiB")];
    let collector = Collector::start_with(dir.path(), &settings);
    let token = collector.sensor("roof");
    for (token, bytes, status) in [("cat_nobody", 60_000, "401"), (token.as_str(), 100_000, "413")] {
        let mut connection = collector.unfinished(token, bytes, b"{");
        let mut answer = String::new();
        std::thread::scope(|scope| {
            let mut drips = connection.try_clone().expect("another handle");
            // Until the collector ends the connection.
            scope.spawn(move || {
                while drips.write_all(b" ").is_ok() {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
            });
            let mut head = [0; 12];
            connection.read_exact(&mut head).expect("an answer");
            answer = String::from_utf8_lossy(&head).into_owned();
            drop(connection.shutdown(std::net::Shutdown::Both));
        });
        assert_eq!(answer, format!("HTTP/1.1 {status}"));
    }
    assert_eq!(collector.metric("catchment_server_turned_away_total{code=\"invalid_token\"}"), 1.0);
}

#[test]
fn one_connection_too_many_is_told_so() {
    let dir = folder();
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_HTTP__CONNECTIONS_MAX", "2")]);
    let open: Vec<_> = (0..2).map(|_| collector.connect()).collect();
    collector.wait_for("the connections", |c| c.metric("http_connections") >= 3.0);
    let mut third = collector.connect();
    let mut answer = String::new();
    drop(third.read_to_string(&mut answer));
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
    assert!(collector.metric("http_connections_refused_total") >= 1.0);
    drop(open);
    collector.wait_for("room", |c| c.metric("http_connections") <= 1.0);
    assert_eq!(collector.get("/livez", "").status, 200);
}

#[test]
fn when_sealing_falls_behind_senders_are_asked_to_wait_and_reading_goes_on() {
    let dir = folder();
    let settings = [
        ("CATCHMENT_SEAL__LIVE_BYTES_MAX", "8MiB"),
        ("CATCHMENT_SEAL__BYTES", "8MiB"),
        ("CATCHMENT_INGEST__ROOM_WAIT_SECONDS", "1s"),
    ];
    let collector = Collector::start_with(dir.path(), &settings);
    let token = collector.sensor("roof");
    // A lake that cannot be written.
    let lake = collector.dir.join("lake");
    let aside = collector.dir.join("lake-aside");
    std::fs::rename(&lake, &aside).expect("moved");
    std::fs::write(&lake, "in the way").expect("written");
    let line = format!("{{\"x\":\"{}\"}}\n", "x".repeat(500_000));
    let mut accepted = 0;
    let last = loop {
        let answer = collector.send(&token, line.as_bytes());
        if answer.status != 200 {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 100, "the bound of the live rows holds");
    };
    refused(&last, 503, "seal_behind");
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(accepted)]], "reading goes on");
    assert!(collector.get_admin("/readyz").text.contains("\"seal\""), "the reason can be read");
    std::fs::remove_file(&lake).expect("removed");
    std::fs::rename(&aside, &lake).expect("moved back");
    collector.wait_for("room", |c| c.send(&token, line.as_bytes()).status == 200);
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(accepted + 1)]]);
    collector.assert_adds_up();
}
