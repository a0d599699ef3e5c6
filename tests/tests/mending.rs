//! Promise 2: what was rejected can be exported, mended and sent again, and is then the event that its sender meant, however it was sent.

use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tests::{Collector, catchment, program, said};

const EVENTS: &str = "/api/v1/events";

fn export(dir: &Path, args: &[&str]) -> Output {
    let exported = catchment(dir, &[&["rejected", "export"], args].concat(), b"");
    assert!(exported.status.success(), "{exported:?}");
    exported
}

fn send(dir: &Path, sensor: &str, lines: &str) -> Output {
    catchment(dir, &["send", "--sensor", sensor], lines.as_bytes())
}

/// A sensor whose token is on this machine.
fn sensor(dir: &Path, name: &str) -> String {
    let added = catchment(dir, &["sensor", "add", name], b"");
    assert!(added.status.success(), "{added:?}");
    let token = std::fs::read_to_string(dir.join(format!("data/sensors/{name}.token"))).expect("its token");
    token.trim().to_owned()
}

fn complaints(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Sends events of every kind, each rejected for what it lacks.
fn send_all_kinds(collector: &Collector, token: &str) {
    let post = |path: &str, headers: &[(&str, &str)], body: &str| {
        let answer = collector.post(path, token, body.as_bytes(), headers);
        assert_eq!(answer.json()["rejected_total"], 1, "{}", answer.text);
    };
    let cloud = |id: &str| {
        format!(
            "{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"/roof\",\"type\":\"t\",\"time\":\"2026-01-31T12:00:00\",\"site\":\"a\",\
             \n\"data\":{{\"n\":12345678901234567890123}}}}"
        )
    };
    post(EVENTS, &[("content-type", "application/x-ndjson")], "[3]\n");
    let named = format!("{EVENTS}?time_field=/at&id_field=/dev");
    post(
        &named,
        &[("content-type", "application/json")],
        "[{\"at\":\"2026-01-31T12:00:00\",\n\"dev\":\"d1\"},{\"n\":1}]",
    );
    post(EVENTS, &[("content-type", "application/cloudevents+json")], &cloud("c1"));
    post(EVENTS, &[("content-type", "application/cloudevents-batch+json")], &format!("[{}]", cloud("c2")));
    let binary = [
        ("content-type", "text/plain"),
        ("ce-specversion", "1.0"),
        ("ce-id", "b1"),
        ("ce-source", "/roof"),
        ("ce-type", "note"),
        ("ce-time", "2026-01-31T12:00:00"),
        ("ce-subject", "Wetter%20in%20K%C3%B6ln"),
    ];
    post(EVENTS, &binary, "a storm\n is coming");
    post(EVENTS, &[("content-type", "application/json")], "{\"broken\":\n  1,}");
}

#[test]
fn mended_and_sent_again_each_event_is_what_its_sender_meant_in_whatever_order_its_line_comes() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = sensor(dir.path(), "roof");
    send_all_kinds(&collector, &token);

    let lines = said(&export(dir.path(), &["--sensor", "roof"]));
    assert!(lines.starts_with("{\"catchment_rejected\":1,"), "the array cannot be taken for a batch: {lines}");
    let mended = lines.replace(":00\"", ":00Z\"").replace("[3]", "{\"value\":3}").replace("1,}", "1}");
    let turned: String = mended.lines().rev().flat_map(|line| [line, "\n"]).collect();
    let sent = send(dir.path(), "roof", &turned);
    assert_eq!(said(&sent), "6 accepted, 0 duplicates, 0 rejected\n", "{sent:?}");

    let sql = "SELECT CASE WHEN id LIKE '%-%' THEN 'made' ELSE id END, source, type, subject, to_char(time, '%Y-%m-%dT%H:%M:%S'), \
               content_type, attributes, data, encode(data_binary, 'hex') FROM events WHERE position > 1 ORDER BY position DESC";
    let none = Value::Null;
    let cloud = |id: &str| {
        let (data, site) = ("{\"n\":12345678901234567890123}", "{\"site\":\"a\"}");
        [
            json!(id),
            json!("/roof"),
            json!("t"),
            none.clone(),
            json!("2026-01-31T12:00:00"),
            none.clone(),
            json!(site),
            json!(data),
            none.clone(),
        ]
        .to_vec()
    };
    let rows = collector.rows(sql);
    let expected_dev = ["{\"at\":\"2026-01-31T12:00:00Z\", \"dev\":\"d1\"}", "{\"value\":3}", "{\"broken\":\n  1}"];
    assert_eq!(rows.len(), 6, "{rows:?}");
    assert_eq!((&rows[0][0], &rows[0][2], &rows[0][7]), (&json!("made"), &json!("event"), &json!(expected_dev[1])));
    let dev = [
        json!("d1"),
        json!(""),
        json!("event"),
        none.clone(),
        json!("2026-01-31T12:00:00"),
        none.clone(),
        none.clone(),
        json!(expected_dev[0]),
        none.clone(),
    ];
    assert_eq!(rows[1], dev);
    assert_eq!([&rows[2], &rows[3]], [&cloud("c1"), &cloud("c2")]);
    let storm: String = "a storm\n is coming".bytes().map(|b| format!("{b:02x}")).collect();
    let note = [
        json!("b1"),
        json!("/roof"),
        json!("note"),
        json!("Wetter in Köln"),
        json!("2026-01-31T12:00:00"),
        json!("text/plain"),
        none.clone(),
        none.clone(),
        json!(storm),
    ];
    assert_eq!(rows[4], note);
    assert_eq!((&rows[5][0], &rows[5][7]), (&json!("made"), &json!(expected_dev[2])));

    let again = send(dir.path(), "roof", &mended);
    assert!(said(&again).starts_with("2 accepted, 4 duplicates"), "those with an id are known: {again:?}");
}

#[test]
fn what_is_sent_again_as_it_was_is_rejected_as_it_was_bytes_that_are_no_text_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = sensor(dir.path(), "roof");
    send_all_kinds(&collector, &token);
    assert_eq!(collector.send(&token, b"\xff\xfe\n").status, 400);
    let ways = "SELECT code, pointer, mode, parameters, headers, data, data_binary, bytes FROM rejected ORDER BY rejected_position";
    let before = collector.rows(ways);
    assert_eq!(before.len(), 7);
    let lines = said(&export(dir.path(), &[]));
    let sent = send(dir.path(), "roof", &lines);
    assert_eq!(
        (sent.status.code(), said(&sent).as_str()),
        (Some(1), "0 accepted, 0 duplicates, 7 rejected\n"),
        "{sent:?}"
    );
    let after = collector.rows(ways);
    // Events that stand on several lines come back on one, and those of a batch alone.
    let same = |row: &Vec<Value>| [row[0].clone(), row[1].clone(), row[4].clone(), row[6].clone(), row[7].clone()];
    assert_eq!(after[7..].iter().map(same).collect::<Vec<_>>(), before.iter().map(same).collect::<Vec<_>>());
    collector.assert_adds_up();
}

#[test]
fn what_a_line_cannot_carry_is_named_and_counted_and_nothing_is_sent_as_another_event() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_REJECTED__EVENT_BYTES_MAX", "1KiB")]);
    let token = sensor(dir.path(), "roof");
    let zoneless = b"{\"time\":\"2026-01-31T12:00:00\"}";
    assert_eq!(collector.send(&token, zoneless).status, 400);
    assert_eq!(collector.send(&token, format!("[\"{}\"]", "x".repeat(2000)).as_bytes()).status, 400);
    assert_eq!(collector.post(&format!("{EVENTS}?atomic=true"), &token, b"[1,{\"a\":1}]", &[]).status, 400);

    let exported = export(dir.path(), &["--sensor", "roof"]);
    let (lines, complaint) = (said(&exported), complaints(&exported));
    assert_eq!(lines.lines().count(), 1);
    for left_out in [
        "1 left out, the first at rejected_position 2, cut",
        "1 left out, the first at rejected_position 3, of batches with atomic",
    ] {
        assert!(complaint.contains(left_out), "{complaint}");
    }
    let whole = export(dir.path(), &["--json"]);
    assert_eq!((said(&whole).lines().count(), complaints(&whole).as_str()), (3, ""));
    assert_eq!(said(&export(dir.path(), &["--since", "2100-01-01T00:00:00Z"])), "");
    assert_eq!(catchment(dir.path(), &["rejected", "export", "--code", "oops"], b"").status.code(), Some(1));

    let other = send(dir.path(), "cellar", &lines);
    assert!(!other.status.success() && complaints(&other).contains("--sensor roof"), "{other:?}");
    let broken = send(dir.path(), "roof", "{\"catchment_rejected\":1,\n");
    assert!(!broken.status.success() && complaints(&broken).contains("line 1"), "{broken:?}");
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(0)]]);
    // What a parameter mends needs no other tool.
    let zoned = catchment(dir.path(), &["send", "--sensor", "roof", "--time-zone", "Europe/Berlin"], lines.as_bytes());
    assert_eq!(said(&zoned), "1 accepted, 0 duplicates, 0 rejected\n", "{zoned:?}");
    let at = collector.rows("SELECT to_char(time, '%H:%M') FROM events");
    assert_eq!(at, [[json!("11:00")]]);
}

#[test]
fn an_export_that_is_sent_as_it_is_ends_with_what_was_rejected_when_it_began() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = sensor(dir.path(), "roof");
    assert_eq!(collector.send(&token, "[1]\n".repeat(5000).as_bytes()).status, 400);
    let piped = "\"$0\" rejected export --sensor roof | \"$0\" send --sensor roof";
    let piped =
        Command::new("sh").args(["-c", piped]).arg(program()).current_dir(dir.path()).output().expect("sh runs");
    assert_eq!(said(&piped), "0 accepted, 0 duplicates, 5000 rejected\n", "{piped:?}");
    assert_eq!(collector.rows("SELECT count(*) FROM rejected"), [[json!(10_000)]]);
}

#[test]
fn a_sensor_is_named_by_its_name_or_its_id_and_one_that_there_is_not_is_an_error() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let sent = send(dir.path(), "Roof Nord", "{\"n\":1}\n[1]\n");
    assert_eq!(said(&sent), "1 accepted, 0 duplicates, 1 rejected\n", "{sent:?}");
    let again = send(dir.path(), "roof-nord", "{\"n\":2}\n");
    assert_eq!(said(&again), "1 accepted, 0 duplicates, 0 rejected\n", "the same sensor: {again:?}");
    for name in ["Roof Nord", "roof-nord"] {
        assert_eq!(said(&export(dir.path(), &["--sensor", name])).lines().count(), 1, "{name}");
    }
    let none = catchment(dir.path(), &["rejected", "export", "--sensor", "cellar"], b"");
    assert!(none.status.code() == Some(1) && complaints(&none).contains("\"cellar\""), "{none:?}");
    let by_reader = collector.add_token(&json!({ "role": "reader", "name": "report" }));
    let by_reader = by_reader["token"].as_str().expect("a token");
    assert_eq!(collector.get("/api/v1/rejected?sensor=cellar", by_reader).status, 404);

    let outside = send(dir.path(), "../../x", "{}\n");
    assert_eq!(said(&outside), "1 accepted, 0 duplicates, 0 rejected\n", "{outside:?}");
    let kept = std::fs::read_dir(collector.dir.join("sensors")).expect("a folder");
    let mut kept: Vec<String> = kept.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    kept.sort();
    assert_eq!(kept, ["..-..-x.token", "roof-nord.token"]);
    assert!(!dir.path().join("x.token").exists());
    for no_name in ["..", "-", ""] {
        let refused = send(dir.path(), no_name, "{}\n");
        assert!(refused.status.code() == Some(2) && complaints(&refused).contains("cannot be used"), "{refused:?}");
    }
}

#[test]
fn an_event_without_a_body_is_exported_mended_and_sent_like_every_other() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = sensor(dir.path(), "roof");
    let headers = |id: &'static str| {
        [
            ("ce-specversion", "1.0"),
            ("ce-id", id),
            ("ce-source", "/roof"),
            ("ce-type", "t"),
            ("ce-time", "2026-01-31T12:00:00"),
        ]
    };
    for (id, body) in [("before", &b"x"[..]), ("empty", b""), ("after", b"y"), ("last", b"")] {
        let answer = collector.ask(("POST", EVENTS), &token, &headers(id), body);
        assert_eq!(answer.json()["rejected_total"], 1, "{}", answer.text);
    }
    let mended = said(&export(dir.path(), &[])).replace("12:00:00\"", "12:00:00Z\"");
    let sent = send(dir.path(), "roof", &mended);
    assert!(sent.status.success() && said(&sent).contains("4 accepted"), "{sent:?}");
    let rows = collector.rows("SELECT id FROM events ORDER BY position");
    assert_eq!(rows, [[json!("before")], [json!("empty")], [json!("after")], [json!("last")]]);
}

#[test]
fn rows_that_are_pushed_out_while_others_are_exported_are_counted() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_REJECTED__BYTES_MAX", "1MiB")]);
    let token = sensor(dir.path(), "roof");
    let lines = |count: usize| "[1]\n".repeat(count);
    assert_eq!(collector.send(&token, lines(3000).as_bytes()).status, 400);
    let exporting = |args: &[&str]| {
        let mut child = Command::new(program())
            .args(["rejected", "export"])
            .args(args)
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        // It has read a page, and waits for somebody who reads the lines.
        let mut out = child.stdout.take().expect("piped");
        out.read_exact(&mut [0]).expect("a byte");
        assert_eq!(collector.send(&token, lines(9000).as_bytes()).status, 400);
        let mut rest = String::new();
        out.read_to_string(&mut rest).expect("text");
        let ended = child.wait_with_output().expect("it ends");
        assert!(ended.status.success(), "{ended:?}");
        (rest.lines().count(), complaints(&ended))
    };
    let (came, complaint) = exporting(&[]);
    assert_eq!(came, 1000);
    assert!(complaint.contains("up to 2000 left out: pushed out or expired"), "{complaint}");
    let (_, complaint) = exporting(&["--sensor", "roof"]);
    assert!(complaint.contains("up to ") && complaint.contains("pushed out or expired"), "{complaint}");
    assert_eq!(complaints(&export(dir.path(), &[])), "", "nothing went meanwhile");
}
