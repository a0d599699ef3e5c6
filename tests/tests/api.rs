//! The API of a real collector: what a sender and an asker see.

use serde_json::{Value, json};
use std::io::Write;
use tests::{Answer, Collector, gzip};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[track_caller]
fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    let problem = answer.json();
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(problem["status"], status);
    let documented = include_str!("../../docs/API.md").lines().find(|line| line.starts_with(&format!("| `{code}` |")));
    let cells: Vec<&str> = documented.expect("a documented code").split('|').map(str::trim).collect();
    assert_eq!((cells[2], cells[4]), (status.to_string().as_str(), problem["title"].as_str().expect("a title")));
    assert_eq!(problem["type"], format!("/problems/{code}"));
    assert_eq!(problem["request_id"].as_str(), answer.header("x-request-id"), "{answer:?}");
    assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
}

#[test]
fn an_event_is_there_for_the_first_query_after_its_answer() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let plain = br#"{"type":"reading", "time":"2026-01-31T12:00:00+01:00",  "temperature": 1e2}"#;
    let answer = collector.post("/api/v1/events", &token, plain, &[]);
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"accepted": 1, "duplicates": 0, "rejected": [], "rejected_total": 0}))
    );
    assert_eq!(answer.header("catchment-duplicate-window"), Some("600"));
    assert_eq!(answer.header("catchment-rejected"), None);
    let rows = collector.rows(
        "SELECT position, sensor, source, type, subject, time, content_type, attributes, data, data_binary FROM events",
    );
    let data = std::str::from_utf8(plain).expect("text");
    assert_eq!(
        Value::from(rows),
        json!([[1, "roof", "", "reading", null, "2026-01-31T11:00:00Z", null, null, data, null]])
    );
    collector.assert_adds_up();
}

#[test]
fn envelopes_arrays_and_lines_are_understood_and_duplicates_are_told() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let envelope = r#"{"id":"a","type":"reading","subject":"s","time":1700000000,"data":{"v": 1}}"#;
    let sent = |body: String| {
        collector.post("/api/v1/events", &token, body.as_bytes(), &[("content-type", "application/json")]).json()
    };
    assert_eq!(sent(envelope.to_owned())["accepted"], 1);
    let again = sent(format!("[{envelope}, {{\"plain\": true}}]"));
    assert_eq!((&again["accepted"], &again["duplicates"]), (&json!(1), &json!(1)));
    let other = sent(envelope.replace("\"v\": 1", "\"v\": 2"));
    assert_eq!((&other["accepted"], &other["reused_ids"]), (&json!(1), &json!(1)));
    let lines = collector.send(&token, format!("{envelope}\n\n{{\"n\":1}}\n{{\"n\":2}}").as_bytes()).json();
    assert_eq!((&lines["accepted"], &lines["duplicates"]), (&json!(2), &json!(1)));
    let rows = collector.rows("SELECT id, type, subject, time, data FROM events WHERE id = 'a' ORDER BY position");
    assert_eq!(rows[0], [json!("a"), json!("reading"), json!("s"), json!("2023-11-14T22:13:20Z"), json!("{\"v\": 1}")]);
    assert_eq!(rows.len(), 2);
    collector.assert_adds_up();
}

#[test]
fn every_compression_is_understood() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let body = b"{\"n\":1}\n{\"n\":2}\n";
    let level = flate2::Compression::fast();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), level);
    let zlib = zlib.write_all(body).and_then(|()| zlib.finish()).expect("compressed");
    let zstd = zstd::encode_all(body.as_slice(), 1).expect("compressed");
    for (encoding, bytes) in
        [("gzip", gzip(body)), ("deflate", zlib), ("zstd", zstd.clone()), ("zstd, gzip", gzip(&zstd))]
    {
        let headers = [("content-type", "application/x-ndjson"), ("content-encoding", encoding)];
        let answer = collector.post("/api/v1/events", &token, &bytes, &headers);
        assert_eq!(answer.json()["accepted"], 2, "{encoding}: {answer:?}");
    }
    let broken = collector.post("/api/v1/events", &token, b"no gzip", &[("content-encoding", "gzip")]);
    assert_problem(&broken, 400, "invalid_body");
    let unknown = collector.post("/api/v1/events", &token, body, &[("content-encoding", "br")]);
    assert_problem(&unknown, 415, "unsupported_media_type");
    // A header on two lines is one list.
    let lines = [("content-type", "application/x-ndjson"), ("content-encoding", "zstd"), ("content-encoding", "gzip")];
    assert_eq!(collector.post("/api/v1/events", &token, &gzip(&zstd), &lines).json()["accepted"], 2);
    collector.assert_adds_up();
}

#[test]
fn nothing_behind_the_end_of_a_compressed_body_is_lost_in_silence() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let level = flate2::Compression::fast();
    let zlib = |bytes: &[u8]| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
        encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("compressed")
    };
    let bare = |bytes: &[u8]| {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
        encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("compressed")
    };
    let (three, seven) = (b"{\"n\":1}\n".repeat(3), b"{\"n\":2}\n".repeat(7));
    let bodies = [
        [zlib(&three), zlib(&seven)].concat(),
        [bare(&three), bare(&seven)].concat(),
        [&zlib(&three)[..], b"x"].concat(),
    ];
    for body in bodies {
        let headers = [("content-type", "application/x-ndjson"), ("content-encoding", "deflate")];
        assert_problem(&collector.post("/api/v1/events", &token, &body, &headers), 400, "invalid_body");
    }
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(0)]]);
    collector.assert_adds_up();
}

#[test]
fn rejections_come_one_by_one_and_atomic_takes_all_or_none() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let lines = b"{\"n\":1}\nnot json\n{\"time\":\"yesterday\"}\n{\"n\":2}\n";
    let answer = collector.send(&token, lines);
    assert_eq!((answer.status, answer.header("catchment-rejected")), (200, Some("2")));
    let json = answer.json();
    assert_eq!((&json["accepted"], &json["rejected_total"]), (&json!(2), &json!(2)));
    let first = &json["rejected"][0];
    assert_eq!((&first["index"], &first["code"]), (&json!(1), &json!("invalid_json")), "{json}");
    let second = &json["rejected"][1];
    assert_eq!(
        (&second["index"], &second["code"], &second["pointer"]),
        (&json!(2), &json!("invalid_time"), &json!("/time"))
    );
    assert!(second["reason"].as_str().expect("a reason").contains("RFC 3339"), "{second}");

    let path = "/api/v1/events?atomic=true";
    let atomic = collector.post(path, &token, lines, &[("content-type", "application/x-ndjson")]);
    assert_problem(&atomic, 400, "atomic_rejected");
    assert_eq!(atomic.json()["rejected_total"], 2);
    let all = collector.send(&token, b"nothing\nof it\n");
    assert_problem(&all, 400, "all_rejected");
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(2)]]);
    collector.assert_adds_up();
}

#[test]
fn parameters_name_the_fields_and_the_zone() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("gateway");
    let path = "/api/v1/events?type_field=/kind&time_field=/meta/at&id_field=/meta/n&subject_field=device&time_zone=Europe/Berlin";
    let body = br#"{"kind":"t","meta":{"at":"2026-07-01 12:00:00","n":7},"device":"d1"}"#;
    assert_eq!(collector.post(path, &token, body, &[]).json()["accepted"], 1);
    let rows = collector.rows("SELECT id, type, subject, time FROM events");
    assert_eq!(rows, [[json!("7"), json!("t"), json!("d1"), json!("2026-07-01T10:00:00Z")]]);
    for (path, named) in [
        ("/api/v1/events?time_zone=Mars/Base", "Mars/Base"),
        ("/api/v1/events?time_zone=posixrules", "use a name such as Europe/Berlin"),
        ("/api/v1/events?time_zone=europe/berlin", "write Europe/Berlin"),
        ("/api/v1/events?type_feld=x", "there is no parameter \\\"type_feld\\\"; known: type_field, "),
        ("/api/v1/events?type_feld=x", "type_field"),
        ("/api/v1/events?id_field=/a~2", "/a~2"),
        ("/api/v1/events?atomic=maybe", "atomic"),
    ] {
        let answer = collector.post(path, &token, body, &[]);
        assert_problem(&answer, 400, "invalid_parameter");
        assert!(answer.text.contains(named), "{}", answer.text);
    }
}

#[test]
fn a_sensors_token_sends_and_reads_itself_and_nothing_else() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let (roof, cellar) = (collector.sensor("Roof 1"), collector.sensor("cellar"));
    let me = collector.get("/api/v1/sensor", &roof);
    assert_eq!((me.status, &me.json()["sensorId"], &me.json()["name"]), (200, &json!("roof-1"), &json!("Roof 1")));
    assert_eq!(collector.get("/api/v1/sensor?sensorId=roof-1", &roof).status, 200);
    assert_problem(&collector.get("/api/v1/sensor?sensorId=roof-1", &cellar), 403, "insufficient_scope");
    for path in ["/api/v1/sensors", "/api/v1/events", "/api/v1/events/x"] {
        assert_problem(&collector.get(path, &roof), 403, "insufficient_scope");
        assert_problem(&collector.get(path, ""), 401, "missing_token");
        assert_problem(&collector.get(path, "cat_wrong"), 401, "invalid_token");
    }
    assert_problem(&collector.post("/api/v1/query", &roof, b"{\"sql\":\"SELECT 1\"}", &[]), 403, "insufficient_scope");
    assert_problem(&collector.post("/api/v1/sensor", &roof, b"{\"name\":\"x\"}", &[]), 403, "insufficient_scope");
    assert_problem(&collector.post("/api/v1/events", "", b"{}", &[]), 401, "missing_token");
    let unknown = collector.post("/api/v1/events", "cat_wrong", b"{}", &[]);
    assert_problem(&unknown, 401, "invalid_token");
    assert!(unknown.header("www-authenticate").is_some_and(|h| h.contains("error=\"invalid_token\"")), "{unknown:?}");
    assert_problem(&collector.post("/api/v1/events", &collector.token, b"{}", &[]), 403, "insufficient_scope");
    assert_eq!(
        collector.metric("catchment_engine_events_received_total"),
        0.0,
        "requests turned away are not received"
    );
}

#[test]
fn registering_answers_once_with_a_token_and_refuses_names_that_cannot_be() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let post = |body: &str| collector.post("/api/v1/sensor", &collector.token, body.as_bytes(), &[]);
    let made = post(r#"{"name":"Roof Süd","labels":{"site":"a"}}"#);
    assert_eq!((made.status, made.header("cache-control")), (201, Some("no-store")), "{}", made.text);
    let id = made.json()["sensorId"].as_str().expect("an id").to_owned();
    assert_eq!(made.header("location"), Some(format!("/api/v1/sensor?sensorId={id}").as_str()));
    assert_problem(&post(r#"{"name":"Roof Süd"}"#), 409, "name_taken");
    assert_problem(&post(r#"{"name":""}"#), 400, "invalid_name");
    assert_problem(&post(r#"{"nam":"x"}"#), 400, "invalid_body");
    assert_problem(&post("nothing"), 400, "invalid_body");
    let list = collector.get("/api/v1/sensors", &collector.token).json();
    assert_eq!((&list["sensors"][0]["sensorId"], &list["sensors"][0]["labels"]), (&json!(id), &json!({"site": "a"})));
}

#[test]
fn events_come_in_pages_newest_first() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let lines: String = (1..=25)
        .map(|n| format!("{{\"id\":\"e{n}\",\"type\":\"t{}\",\"time\":{},\"data\":{n}}}\n", n % 2, 1_700_000_000 + n))
        .collect();
    assert_eq!(collector.send(&token, lines.as_bytes()).json()["accepted"], 25);
    let mut path = "/api/v1/events?limit=10".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = collector.get(&path, &collector.token).json();
        let events = page["events"].as_array().expect("events").clone();
        seen.extend(events.iter().map(|e| e["data"].as_u64().expect("a number")));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/v1/events?limit=10&cursor={cursor}");
    }
    assert_eq!(seen, (1..=25).rev().collect::<Vec<u64>>());
    let filtered = collector.get(
        "/api/v1/events?sensor=roof&type=t1&since=2023-11-14T22:13:25Z&until=2023-11-14T22:13:30Z",
        &collector.token,
    );
    let found: Vec<Value> =
        filtered.json()["events"].as_array().expect("events").iter().map(|e| e["id"].clone()).collect();
    assert_eq!(found, ["e9", "e7", "e5"]);
    assert_eq!(collector.get("/api/v1/events/e7", &collector.token).json()["data"], 7);
    let exact = r#"{"big": 123456789012345678901234567890, "exponent": 1E400, "twice": 1, "twice": 2.50}"#;
    assert_eq!(collector.post("/api/v1/events", &token, exact.as_bytes(), &[]).status, 200);
    let newest = collector.get("/api/v1/events?limit=1", &collector.token).text;
    assert!(newest.contains(&format!("\"data\":{exact}")), "data is the JSON as it was sent: {newest}");
    assert_problem(&collector.get("/api/v1/events/none", &collector.token), 404, "not_found");
    for path in
        ["/api/v1/events?limit=0", "/api/v1/events?since=then", "/api/v1/events?cursor=x", "/api/v1/events?sort=up"]
    {
        assert_problem(&collector.get(path, &collector.token), 400, "invalid_parameter");
    }
    let many = collector.get("/api/v1/events?sensor=roof&limit=many", &collector.token);
    assert_problem(&many, 400, "invalid_parameter");
    assert!(many.json()["detail"].as_str().is_some_and(|d| d.starts_with("limit: \"many\" is nothing")), "{many:?}");
    let no_text = collector.get("/api/v1/events/%ff", &collector.token);
    assert_problem(&no_text, 400, "invalid_path");
    assert!(no_text.text.contains("of the path is no UTF-8 once its percent signs are decoded"), "{no_text:?}");
}

#[test]
fn a_small_body_that_cannot_be_read_is_told_in_plain_words() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    for (body, says) in [
        ("not json", "the body is no JSON, at line 1, column 2; send {"),
        ("{\"name\":", "the body ends before its JSON does, at line 1, column 8; send {"),
        ("{}", "missing field `name`; send {"),
        ("{\"name\":1}", "invalid type: integer `1`, expected a string; send {"),
        ("5", "the body is no object; send {"),
    ] {
        let answer = collector.post("/api/v1/sensor", &collector.token, body.as_bytes(), &[]);
        assert_problem(&answer, 400, "invalid_body");
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.starts_with(says)), "{answer:?}");
    }
    let long = collector.post("/api/v1/sensor", &collector.token, "x".repeat(70_000).as_bytes(), &[]);
    assert_problem(&long, 413, "body_too_large");
    assert!(long.text.contains("a body may have 65536 bytes here"), "{long:?}");
}

#[test]
fn unknown_paths_and_methods_are_problems_too() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let nowhere = collector.get("/api/v2/events", &collector.token);
    assert_problem(&nowhere, 404, "not_found");
    assert_eq!(nowhere.json()["detail"], "no route answers GET /api/v2/events");
    let wrong = collector.get("/api/v1/import", &collector.token);
    assert_eq!(wrong.json()["detail"], "GET is not answered at /api/v1/import; see the header Allow");
    assert_problem(&wrong, 405, "method_not_allowed");
    assert_eq!(wrong.header("allow"), Some("POST"));
    assert_eq!(collector.get("/readyz", "").status, 200);
    assert_eq!(collector.get("/livez", "").status, 200);
    assert_eq!(collector.get("/metrics", "").status, 404, "metrics are on the admin listener alone");
    let given = collector.post("/api/v1/query", "", b"", &[("x-request-id", "mine-1")]);
    assert_eq!(given.header("x-request-id"), Some("mine-1"));
}

#[test]
fn an_array_is_never_read_as_an_object_member_by_member() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let json = [("content-type", "application/json")];
    let bodies: [(&str, &str, &[u8]); 6] = [
        ("POST", "/api/v1/sensor", br#"["Door"]"#),
        ("PATCH", "/api/v1/sensors/roof", br#"[{"site":"north"}]"#),
        ("POST", "/api/v1/sensors/roof/token", b"[60]"),
        ("POST", "/api/v1/tokens", br#"["ops", "operator"]"#),
        ("POST", "/api/v1/query", br#"["SELECT 1"]"#),
        ("POST", "/api/v1/query", b" \n"),
    ];
    for (method, path, body) in bodies {
        let answer = collector.ask((method, path), &collector.token, &json, body);
        assert_problem(&answer, 400, "invalid_body");
        assert!(answer.json()["detail"].as_str().is_some_and(|told| told.contains("; send ")), "{path}: {answer:?}");
    }
    assert_eq!(collector.ask(("GET", "/api/v1/sensors/door"), &collector.token, &[], b"").status, 404);
    assert_eq!(collector.ask(("GET", "/api/v1/sensor"), &token, &[], b"").status, 200, "its token still is the one");
}
