//! Promise 3 for requests: with an `Idempotency-Key`, the same request gets the same answer again and stores nothing twice.

use serde_json::json;
use std::io::{Read, Write};
use std::path::Path;
use tests::{Answer, Collector};

const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");
/// Two events that are stored and one that is rejected.
const BODY: &[u8] = b"{\"n\":1}\n{\"n\":2}\n[3]\n";

fn post(collector: &Collector, token: &str, key: &str, body: &[u8]) -> Answer {
    collector.post("/api/v1/events", token, body, &[NDJSON, ("idempotency-key", key)])
}

fn count(collector: &Collector) -> u64 {
    collector.rows("SELECT count(*) FROM events")[0][0].as_u64().expect("a number")
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{}", answer.text);
}

#[track_caller]
fn assert_replayed(again: &Answer, first: &Answer) {
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.header("catchment-rejected"), first.header("catchment-rejected"));
    assert!(again.header("catchment-idempotency-window").is_some());
}

#[test]
fn the_same_key_and_request_get_the_same_answer_again_and_nothing_is_counted_or_stored_twice() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let first = post(&collector, &token, "\"a\"", BODY);
    let told = json!({"accepted": 2, "duplicates": 0, "rejected_total": 1});
    assert_eq!((first.status, &first.json()["accepted"]), (200, &told["accepted"]), "{}", first.text);
    assert_eq!((first.header("idempotency-replayed"), first.header("catchment-rejected")), (None, Some("1")));
    assert_eq!(first.header("catchment-idempotency-window"), Some("600"));
    assert_eq!(first.json()["rejected"][0]["code"], "not_an_object");

    // Quoted or bare, plain or compressed: it is the same key and the same request.
    assert_replayed(&post(&collector, &token, "a", BODY), &first);
    let compressed = zstd::encode_all(BODY, 1).expect("compressed");
    let headers = [NDJSON, ("idempotency-key", "a"), ("content-encoding", "zstd")];
    assert_replayed(&collector.post("/api/v1/events", &token, &compressed, &headers), &first);
    assert_eq!(count(&collector), 2);
    assert_eq!(collector.metric("catchment_engine_events_received_total"), 3.0);
    assert_eq!(collector.metric("catchment_engine_replayed_requests_total"), 2.0);
    assert_eq!(collector.metric("catchment_engine_answers"), 1.0);
    assert_eq!(collector.rows("SELECT count(*) FROM rejected"), [[json!(1)]], "nor what was rejected");

    let other = collector.sensor("cellar");
    let others = post(&collector, &other, "a", BODY);
    assert_eq!((others.status, others.header("idempotency-replayed")), (200, None), "keys are those of one sensor");
    assert_eq!(count(&collector), 4);
    collector.assert_adds_up();
}

#[test]
fn the_same_key_with_another_body_parameters_or_content_type_is_refused_and_stores_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let first = post(&collector, &token, "a", BODY);
    assert_eq!(first.status, 200);
    let with = |path: &str, content_type: &str, body: &[u8]| {
        collector.post(path, &token, body, &[("content-type", content_type), ("idempotency-key", "a")])
    };
    refused(&with("/api/v1/events", NDJSON.1, b"{\"n\":3}\n"), 422, "idempotency_key_reused");
    refused(&with("/api/v1/events?time_field=/at", NDJSON.1, BODY), 422, "idempotency_key_reused");
    refused(&with("/api/v1/events", "application/json", BODY), 422, "idempotency_key_reused");
    assert_eq!(count(&collector), 2);
    assert_replayed(&post(&collector, &token, "a", BODY), &first);
    collector.assert_adds_up();
}

#[test]
fn while_a_request_runs_its_key_is_in_use_on_other_connections() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let mut connection = collector.connect();
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: {}\r\n\
         idempotency-key: \"a\"\r\ncontent-length: {}\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
        NDJSON.1,
        BODY.len()
    );
    connection.write_all(head.as_bytes()).expect("sent");
    // It is told to go on once its key is its own.
    let mut told = [0; 25];
    connection.read_exact(&mut told).expect("an answer");
    assert!(told.starts_with(b"HTTP/1.1 100"), "{told:?}");

    let second = post(&collector, &token, "a", BODY);
    refused(&second, 409, "idempotency_key_in_use");
    assert!(second.header("retry-after").is_some());
    assert_eq!(post(&collector, &token, "b", b"{\"n\":9}\n").status, 200, "other keys are free");

    connection.write_all(BODY).expect("sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let again = post(&collector, &token, "a", BODY);
    assert_eq!((again.text.as_str(), again.header("idempotency-replayed")), (body, Some("true")));
    assert_eq!(count(&collector), 3);
    collector.assert_adds_up();
}

#[test]
fn a_request_that_broke_off_or_stored_nothing_leaves_its_key_free() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nidempotency-key: a\r\ncontent-length: 100\r\n\r\n"
    );
    let mut connection = collector.connect();
    connection.write_all(head.as_bytes()).expect("sent");
    drop(connection);
    refused(&post(&collector, &token, "b", b"[1]\n"), 400, "all_rejected");
    assert_eq!(post(&collector, &token, "b", b"{\"n\":1}\n").json()["accepted"], 1, "mended under the same key");
    collector.wait_for("the broken one ends", |c| post(c, &token, "a", b"{\"n\":2}\n").status == 200);

    let with_id = b"{\"id\":\"1\",\"type\":\"t\",\"data\":1}\n";
    assert_eq!(collector.send(&token, with_id).json()["accepted"], 1);
    let first = post(&collector, &token, "c", with_id);
    assert_eq!(first.json()["duplicates"], 1);
    assert_eq!(post(&collector, &token, "c", with_id).text, first.text, "its events' ids answer it the same");
    assert_eq!(collector.metric("catchment_engine_replayed_requests_total"), 0.0);
    collector.assert_adds_up();
}

#[test]
fn what_is_no_key_is_refused_before_anything_is_stored() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    for key in ["", "\"\"", "\"open", "two words", &"k".repeat(256)] {
        refused(&post(&collector, &token, key, BODY), 400, "invalid_idempotency_key");
    }
    let twice = [NDJSON, ("idempotency-key", "a"), ("idempotency-key", "a")];
    refused(&collector.post("/api/v1/events", &token, BODY, &twice), 400, "invalid_idempotency_key");
    assert_eq!(count(&collector), 0);
    assert_eq!(post(&collector, &token, &"k".repeat(255), BODY).status, 200);
}

#[test]
fn an_answer_lists_no_more_rejections_than_can_be_told_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let body = format!("{{\"n\":1}}\n{}", "[1]\n".repeat(500));
    let all = collector.send(&token, body.as_bytes()).json();
    assert_eq!((all["rejected"].as_array().map(Vec::len), &all["rejected_total"]), (Some(500), &json!(500)));
    let first = post(&collector, &token, "a", body.as_bytes());
    let listed = first.json()["rejected"].as_array().expect("a list").len();
    assert!((10..500).contains(&listed), "{listed} fit in 4 KiB");
    assert_eq!((&first.json()["rejected_total"], first.header("catchment-rejected")), (&json!(500), Some("500")));
    assert_replayed(&post(&collector, &token, "a", body.as_bytes()), &first);
}

/// The collector over the same folder again, after signal 9 or an orderly stop.
#[derive(Clone, Copy)]
enum Ends {
    Killed,
    Stopped,
}

fn restarted(collector: Collector, dir: &Path, ends: Ends, settings: &[(&str, &str)]) -> Collector {
    match ends {
        Ends::Killed => collector.kill(),
        Ends::Stopped => assert_eq!(collector.terminate(), 0),
    }
    Collector::start_with(dir, settings)
}

#[test]
fn answers_are_known_again_after_kill_9_a_clean_stop_a_seal_and_the_trimming_of_the_wal() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = [("CATCHMENT_SEAL__AGE_SECONDS", "1s"), ("CATCHMENT_INGEST__SEGMENT_BYTES", "1MiB")];
    let mut collector = Collector::start_with(dir.path(), &settings);
    let token = collector.sensor("roof");
    let first = post(&collector, &token, "a", BODY);
    assert_eq!(first.status, 200);
    for ends in [Ends::Killed, Ends::Stopped, Ends::Killed] {
        collector = restarted(collector, dir.path(), ends, &settings);
        assert_replayed(&post(&collector, &token, "a", BODY), &first);
        refused(&post(&collector, &token, "a", b"{\"n\":3}\n"), 422, "idempotency_key_reused");
    }
    // Its segment goes once what came after it is sealed; no event has an id, so the answer alone is left of it.
    let wal = dir.path().join("data/wal");
    let segment = wal.join(format!("{:020}.wal", 1));
    let random: String = (0..40_000u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let filler = format!("{{\"x\":\"{random}\"}}\n");
    collector.wait_for("the trimming", |c| {
        assert_eq!(c.send(&token, filler.as_bytes()).status, 200);
        !segment.exists()
    });
    let key_files = std::fs::read_dir(&wal).expect("the wal").flatten();
    assert!(key_files.map(|f| f.file_name()).any(|n| n.to_string_lossy().ends_with(".keys")), "the answer is kept");
    for ends in [Ends::Killed, Ends::Stopped] {
        collector = restarted(collector, dir.path(), ends, &settings);
        assert_replayed(&post(&collector, &token, "a", BODY), &first);
    }
    let stored = collector.rows("SELECT count(*) FROM events WHERE data->>'n' IS NOT NULL");
    assert_eq!(stored, [[json!(2)]]);
}

#[test]
fn an_answer_is_forgotten_after_the_window_also_when_it_was_read_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = [("CATCHMENT_WINDOW__SECONDS", "2s")];
    let mut collector = Collector::start_with(dir.path(), &settings);
    let token = collector.sensor("roof");
    let first = post(&collector, &token, "a", BODY);
    assert_eq!(first.header("catchment-idempotency-window"), Some("2"));
    collector = restarted(collector, dir.path(), Ends::Killed, &settings);
    collector.wait_for("the end of the window", |c| {
        let again = post(c, &token, "a", BODY);
        assert_eq!((again.status, &again.text), (200, &first.text));
        again.header("idempotency-replayed").is_none()
    });
    assert_eq!(count(&collector), 4, "a new request");
}
