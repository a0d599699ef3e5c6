//! Promise 2: what was rejected can be read again, with its bytes as they came: in SQL and by its sensor. How it is mended and sent again: `mending.rs`.

use serde_json::{Value, json};
use tests::{Answer, Collector};

const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

/// One event that is stored, and three that are not: broken, without a zone, no text.
const BODY: &[u8] = b"{\"n\":1}\n{oops\n{\"time\":\"2026-01-31 12:00:00\",\"n\":2}\n\xff\xfe\n";

fn rejected(collector: &Collector, token: &str, query: &str) -> Vec<Value> {
    let answer = collector.get(&format!("/api/v1/rejected{query}"), token);
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["rejected"].as_array().expect("a list").clone()
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{}", answer.text);
}

#[test]
fn what_was_rejected_is_a_table_with_the_bytes_as_they_came_also_after_kill_9() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let answer = collector.post("/api/v1/events", &token, BODY, &[NDJSON, ("x-request-id", "request-7")]);
    assert_eq!((answer.status, &answer.json()["rejected_total"]), (200, &json!(3)), "{}", answer.text);
    collector.kill();

    let collector = Collector::start(dir.path());
    let sql = "SELECT rejected_position, sensor, request_id, index, code, content_type, headers, data, \
               encode(data_binary, 'hex'), bytes, cut FROM rejected ORDER BY rejected_position";
    let row = |position: u64, code: &str, data: Value, binary: Value, bytes: u64| {
        let origin = ["roof", "request-7"].map(Value::from).to_vec();
        let rest = vec![json!(code), json!(NDJSON.1), Value::Null, data, binary, json!(bytes), json!(false)];
        [vec![json!(position)], origin, vec![json!(position)], rest].concat()
    };
    let expected = [
        row(1, "invalid_json", json!("{oops"), Value::Null, 5),
        row(2, "time_without_zone", json!("{\"time\":\"2026-01-31 12:00:00\",\"n\":2}"), Value::Null, 36),
        row(3, "invalid_utf8", Value::Null, json!("fffe"), 2),
    ];
    assert_eq!(collector.rows(sql), expected);
    let counted = collector.rows("SELECT code, count(*) FROM rejected WHERE received_at > now() - interval '1 hour' AND index > 1 GROUP BY 1 ORDER BY 1");
    assert_eq!(counted, [[json!("invalid_utf8"), json!(1)], [json!("time_without_zone"), json!(1)]]);
    assert_eq!(collector.rows("SELECT data->>'n' FROM rejected WHERE data->>'n' > 1"), [[json!("2")]]);
    // A condition finds the same rows wherever it is decided.
    for (condition, count) in [
        ("rejected_position < 3", 2),
        ("rejected_position BETWEEN 2 AND 3", 2),
        ("rejected_position = 2", 1),
        ("sensor = 'roof' AND code = 'invalid_utf8'", 1),
        ("sensor = 'roof' AND sensor = 'cellar'", 0),
        ("code IN ('invalid_utf8', 'invalid_json')", 2),
        ("received_at < now() AND received_at::date <= now()::date", 3),
        ("received_at >= (SELECT max(received_at) FROM rejected)", 3),
        ("received_at < (SELECT min(received_at) FROM rejected)", 0),
        ("received_at > '2000-01-01T00:00:00Z' AND received_at <= '2000-01-02T00:00:00Z'", 0),
        ("data IS NULL", 1),
    ] {
        let counted = collector.rows(&format!("SELECT count(*) FROM rejected WHERE {condition}"));
        assert_eq!(counted, [[json!(count)]], "{condition}");
    }
    assert_eq!(collector.rows("SELECT count(*), 'x' FROM rejected"), [[json!(3), json!("x")]]);
    assert_eq!(collector.rows("SELECT 1 FROM rejected LIMIT 2"), [[json!(1)], [json!(1)]]);
    assert_eq!(collector.metric("catchment_rejected_rows"), 3.0);
    assert!(collector.metric("catchment_rejected_kept_bytes") > 41.0);
}

#[test]
fn a_batch_of_which_nothing_is_stored_is_kept_before_it_is_answered() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let answer = collector.post("/api/v1/events", &token, b"[{\"a\":1}, 2]", &[]);
    assert_eq!(answer.status, 200);
    refused(&collector.post("/api/v1/events", &token, b"[ 3 , [4]]", &[]), 400, "all_rejected");
    refused(&collector.post("/api/v1/events?atomic=true", &token, b"[{\"a\":1},5]", &[]), 400, "atomic_rejected");
    collector.kill();
    let collector = Collector::start(dir.path());
    let data = |row: &Value| row["data"].clone();
    let newest_first: Vec<Value> = rejected(&collector, &collector.token, "").iter().map(data).collect();
    assert_eq!(newest_first, ["5", "[4]", "3", "2"]);
    collector.assert_adds_up();
}

#[test]
fn the_body_and_headers_of_a_binary_cloudevent_are_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let headers = [("content-type", "text/plain"), ("ce-specversion", "0.3"), ("ce-id", "7")];
    refused(&collector.post("/api/v1/events", &token, b"a storm", &headers), 400, "all_rejected");
    let row = rejected(&collector, &collector.token, "").remove(0);
    assert_eq!((&row["data"], &row["content_type"]), (&json!("a storm"), &json!("text/plain")));
    assert_eq!(row["headers"], json!({"ce-id": "7", "ce-specversion": "0.3"}));
    assert_eq!((&row["code"], row["pointer"].is_string()), (&json!("invalid_specversion"), true), "{row}");
}

#[test]
fn an_admin_reads_all_pages_and_a_sensor_reads_its_own_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let (roof, cellar) = (collector.sensor("roof"), collector.sensor("cellar"));
    for n in 0..5 {
        let token = if n % 2 == 0 { &roof } else { &cellar };
        assert_eq!(collector.send(token, format!("[{n}]\n").as_bytes()).status, 400);
    }
    assert_eq!(collector.send(&roof, b"{oops\n").status, 400);
    let shown = |query: &str, token: &str| -> Vec<String> {
        rejected(&collector, token, query).iter().map(|r| r["data"].as_str().expect("text").to_owned()).collect()
    };
    assert_eq!(shown("", &cellar), ["[3]", "[1]"]);
    assert_eq!(shown("?sensor=roof&code=not_an_object&order=oldest", &roof), ["[0]", "[2]", "[4]"]);
    assert_eq!(shown("?sensor=cellar", &collector.token), ["[3]", "[1]"]);
    let page = collector.get("/api/v1/rejected?limit=4", &collector.token).json();
    let cursor = page["next_cursor"].as_str().expect("there is more");
    assert_eq!(shown(&format!("?limit=4&cursor={cursor}"), &collector.token), ["[1]", "[0]"]);
    let at = page["rejected"][0]["received_at"].as_str().expect("a time").to_owned();
    assert_eq!(shown(&format!("?since={at}"), &collector.token), ["{oops"]);
    assert_eq!(shown(&format!("?until={at}"), &collector.token).len(), 5);

    refused(&collector.get("/api/v1/rejected?sensor=roof", &cellar), 403, "insufficient_scope");
    refused(&collector.get("/api/v1/rejected", ""), 401, "missing_token");
    for wrong in ["?code=oops", "?sensor=%ff", "?limit=0", "?cursor=x", "?since=yesterday", "?order=loudest", "?what=1"]
    {
        refused(&collector.get(&format!("/api/v1/rejected{wrong}"), &collector.token), 400, "invalid_parameter");
    }
    let zoneless = collector.get("/api/v1/rejected?since=2026-01-31T12:00:00", &collector.token);
    refused(&zoneless, 400, "invalid_parameter");
    assert!(zoneless.text.contains("add Z or an offset") && !zoneless.text.contains("time_zone="), "{}", zoneless.text);
}

#[test]
fn rejected_events_stay_inside_their_bounds_and_who_holds_least_loses_none() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = [("CATCHMENT_REJECTED__BYTES_MAX", "1MiB"), ("CATCHMENT_REJECTED__EVENT_BYTES_MAX", "1KiB")];
    let collector = Collector::start_with(dir.path(), &settings);
    let (quiet, loud) = (collector.sensor("quiet"), collector.sensor("loud"));
    assert_eq!(collector.send(&quiet, b"[\"quiet\"]\n").status, 400);
    let long = format!("[\"{}\"]\n", "x".repeat(5000));
    assert_eq!(collector.send(&loud, long.as_bytes()).status, 400);
    let cut = rejected(&collector, &loud, "").remove(0);
    assert_eq!((&cut["cut"], &cut["bytes"]), (&json!(true), &json!(5004)));
    assert_eq!(cut["data"].as_str().map(str::len), Some(1024));

    let flood = "[\"loud\"]\n".repeat(9000);
    for _ in 0..3 {
        assert_eq!(collector.send(&loud, flood.as_bytes()).status, 400);
    }
    assert_eq!(rejected(&collector, &quiet, "").len(), 1, "the loud one pushed out its own");
    assert!(collector.metric("catchment_rejected_kept_bytes") <= f64::from(1 << 20));
    let (kept, gone) =
        (collector.metric("catchment_rejected_rows"), collector.metric("catchment_rejected_pushed_out_total"));
    assert_eq!(kept + gone, 27_002.0);
    assert_eq!(collector.metric("catchment_rejected_left_out_total"), 0.0);
    assert_eq!(collector.send(&loud, "1\n".repeat(10_005).as_bytes()).json()["rejected_total"], 10_005);
    assert_eq!(collector.metric("catchment_rejected_left_out_total"), 5.0);
    let kept = collector.metric("catchment_rejected_rows");
    assert_eq!(collector.rows("SELECT count(*) FROM rejected"), [[json!(kept as u64)]]);
    collector.assert_adds_up();
}

#[test]
fn what_a_request_said_is_kept_once_and_cut_so_that_a_small_one_does_not_fill_the_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let long = "a".repeat(60_000);
    let (ndjson, batch) = (format!("application/x-ndjson; x={long}"), "application/cloudevents-batch+json");
    let many = "1\n".repeat(10_000);
    refused(
        &collector.post("/api/v1/events", &token, many.as_bytes(), &[("content-type", &ndjson)]),
        400,
        "all_rejected",
    );
    let many = format!("[{}]", vec!["1"; 10_000].join(","));
    let headers = [("content-type", batch), ("ce-specversion", "1.0"), ("ce-x", &long)];
    refused(&collector.post("/api/v1/events", &token, many.as_bytes(), &headers), 400, "all_rejected");
    let bytes: u64 = ["rejected.sqlite", "rejected.sqlite-wal"]
        .iter()
        .filter_map(|name| std::fs::metadata(collector.dir.join(name)).ok())
        .map(|file| file.len())
        .sum();
    assert!(bytes < 24 << 20, "{bytes} bytes for 20,000 events of one byte");
    let kept = rejected(&collector, &token, "?limit=1").remove(0);
    assert_eq!((&kept["mode"], &kept["headers"], &kept["cut"]), (&json!("batched"), &Value::Null, &json!(false)));
    let first = rejected(&collector, &token, "?limit=1&order=oldest").remove(0);
    assert_eq!(
        (&first["mode"], &first["cut"], first["content_type"].as_str().map(str::len)),
        (&json!("plain"), &json!(false), Some(1024))
    );

    // Of a CloudEvent in binary mode headers are the event: without their ends it is not whole.
    let headers =
        [("content-type", "text/plain"), ("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-x", &long), ("ce-x", "b")];
    refused(&collector.post("/api/v1/events?time_zone=UTC", &token, b"a", &headers), 400, "all_rejected");
    let cut = rejected(&collector, &token, "?limit=1").remove(0);
    assert_eq!(
        (&cut["mode"], &cut["cut"], &cut["parameters"]),
        (&json!("binary"), &json!(true), &json!("time_zone=UTC"))
    );
    assert_eq!(
        (cut["headers"]["ce-x"][0].as_str().map(str::len), &cut["headers"]["ce-x"][1]),
        (Some(1024), &json!("b"))
    );
    assert_eq!(
        collector.rows("SELECT mode, parameters, count(*) FROM rejected GROUP BY 1, 2 ORDER BY 1"),
        [
            vec![json!("batched"), Value::Null, json!(10_000)],
            vec![json!("binary"), json!("time_zone=UTC"), json!(1)],
            vec![json!("plain"), Value::Null, json!(10_000)]
        ]
    );
    collector.assert_adds_up();
}

#[test]
fn a_binary_cloudevent_that_lacks_its_version_is_rejected_and_not_stored_without_its_attributes() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let headers = [("content-type", "application/json"), ("ce-id", "7"), ("ce-type", "t"), ("ce-source", "/roof")];
    refused(&collector.post("/api/v1/events", &token, b"{\"n\":1}", &headers), 400, "all_rejected");
    let row = rejected(&collector, &token, "").remove(0);
    assert_eq!((&row["code"], &row["pointer"]), (&json!("missing_attribute"), &json!("ce-specversion")), "{row}");
}

#[test]
fn killed_under_load_every_answered_rejection_is_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut answered: Vec<u64> = Vec::new();
    let mut sent = 0;
    let mut collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    for round in 1..=5 {
        let done = std::sync::Mutex::new(Vec::new());
        let next = std::sync::atomic::AtomicU64::new(sent);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        let body = format!("[{n}]\n{{\"n\":{n}}}\n");
                        match collector.try_send(&token, body.as_bytes()) {
                            Ok(answer) if answer.status == 200 => done.lock().expect("whole").push(n),
                            _ => break,
                        }
                    }
                });
            }
            tests::wait_until("some answers", || done.lock().expect("whole").len() > 30 * round);
            collector.signal_kill();
        });
        sent = next.into_inner();
        answered.extend(done.into_inner().expect("whole"));
        drop(collector);
        collector = Collector::start(dir.path());
        let rows = collector.rows("SELECT data FROM rejected");
        let kept: std::collections::HashSet<&str> = rows.iter().filter_map(|row| row[0].as_str()).collect();
        for n in &answered {
            assert!(kept.contains(format!("[{n}]").as_str()), "{n} was answered and is not kept");
        }
        let stored = collector.rows("SELECT count(DISTINCT data->>'n') FROM events")[0][0].as_u64().expect("a number");
        assert!(
            stored >= answered.len() as u64 && stored <= kept.len() as u64,
            "{stored} of {} answered",
            answered.len()
        );
    }
}
