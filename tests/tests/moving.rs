//! Events move: `catchment export` writes all of them into a file, `catchment import` makes the same events of it again, and never twice.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use tests::{Collector, catchment, corpus, gunzipped_lines, said};

/// Every column that makes an event; the position is given anew.
const ALL: &str = "SELECT id, sensor, source, type, subject, time, received_at, content_type, attributes, data, encode(data_binary, 'hex') \
                   FROM events ORDER BY position";
const SHORT_WINDOW: [(&str, &str); 2] = [("CATCHMENT_WINDOW__SECONDS", "1s"), ("CATCHMENT_SEAL__AGE_SECONDS", "1s")];
const STAYS_LIVE: [(&str, &str); 1] = [("CATCHMENT_SEAL__AGE_SECONDS", "1h")];

fn complaints(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn run(dir: &Path, args: &[&str]) -> Output {
    catchment(dir, args, b"")
}

fn export(dir: &Path, file: &Path, args: &[&str]) -> Value {
    let file = file.to_str().expect("a path");
    let exported = run(dir, &[&["export", file, "--json"], args].concat());
    assert!(exported.status.success(), "{exported:?}");
    serde_json::from_slice(&exported.stdout).expect("JSON")
}

/// Accepted, duplicates, reused ids and rejected.
fn import(dir: &Path, file: &Path) -> [u64; 4] {
    let imported = run(dir, &["import", file.to_str().expect("a path"), "--json"]);
    let told: Value = serde_json::from_slice(&imported.stdout).unwrap_or_else(|_| panic!("{imported:?}"));
    assert_eq!(imported.status.success(), told["rejected"] == 0, "{imported:?}");
    ["accepted", "duplicates", "reused_ids", "rejected"].map(|name| told[name].as_u64().expect("a number"))
}

fn events(collector: &Collector) -> u64 {
    collector.rows("SELECT count(*) FROM events")[0][0].as_u64().expect("a number")
}

/// Sends what is odd in plain JSON.
fn send_plain(collector: &Collector, sensor: &str) {
    let deep = format!("{{\"deep\":{}1{}}}", "[".repeat(100), "]".repeat(100));
    let lines = [
        r#"{"temperature":21.5,"temperature":22,"big":123456789012345678901234567890,"small":1e-400,"huge":1e400,"minus":-0.0}"#,
        r#"{ "time" : "0001-01-01T00:00:00Z",	"type":"a \"type\", =1+1", "text":"\u00e4\/\ud83d\ude00\u0000 \\n NaN", "":null}"#,
        r#"{"time":"9999-12-31T23:59:59.999999Z","type":"","nan":"NaN","umlaut":"Wetter in Köln 🌧","list":[[],{},""]}"#,
        r#"{"id":"it's","type":"x","subject":"","data":null}"#,
        r#"{"id":"two\nlines","type":"x","subject":"a,b","data":" text "}"#,
        r#"{"id":"7","type":"x","time":1769860800.000001,"data":[1.0,1,1e0]}"#,
        &deep,
    ];
    assert_eq!(collector.send(sensor, lines.join("\n").as_bytes()).json()["accepted"], lines.len() as u64);
    let on_lines = b"{\n  \"broken\":\r\n  [1,\r 2]\n}";
    let answer = collector.post("/api/v1/events", sensor, on_lines, &[("content-type", "application/json")]);
    assert_eq!(answer.json()["accepted"], 1, "{answer:?}");
}

/// Sends CloudEvents in their three modes.
fn send_cloud(collector: &Collector, sensor: &str) {
    let cloud = [
        r#"{"specversion":"1.0","id":"1","source":"/roof","type":"reading","site":"a\"b","n":-1,"yes":true,"subject":"s","time":"2026-01-31T12:00:00+02:00","data":{"b":1,"a":2}}"#,
        r#"{"specversion":"1.0","id":"1","source":"/other","type":"photo","datacontenttype":"image/png","data_base64":"iVBORwD/"}"#,
        r#"{"specversion":"1.0","id":"2","source":"/roof","type":"none","dataschema":"https://example.com/schema"}"#,
        r#"{"specversion":"1.0","id":"3","source":"/roof","type":"text","datacontenttype":"text/plain","data":"a,\n\"storm\""}"#,
    ];
    let batch = format!("[{}]", cloud.join(","));
    let kind = [("content-type", "application/cloudevents-batch+json")];
    let answer = collector.post("/api/v1/events", sensor, batch.as_bytes(), &kind);
    assert_eq!(answer.json()["accepted"], 4, "{answer:?}");
    let binary = [
        ("content-type", "application/octet-stream"),
        ("ce-specversion", "1.0"),
        ("ce-id", "b%20%C3%BC"),
        ("ce-source", "/roof"),
    ];
    let binary = [&binary[..], &[("ce-type", "note"), ("ce-site", "K%C3%B6ln")]].concat();
    let answer = collector.post("/api/v1/events", sensor, b"\xff\x00\n bytes", &binary);
    assert_eq!(answer.json()["accepted"], 1, "{answer:?}");
}

/// A collector with events of several sensors, of which some are sealed and some are live.
fn filled(dir: &Path) -> Collector {
    let collector = Collector::start_with(dir, &SHORT_WINDOW);
    let (roof, cellar) = (collector.sensor("roof"), collector.sensor("cellar"));
    send_plain(&collector, &roof);
    send_cloud(&collector, &roof);
    if let Some(path) = corpus("github_webhooks/events.ndjson.gz") {
        collector.send(&cellar, gunzipped_lines(&path).join("\n").as_bytes());
    }
    let stored = events(&collector);
    collector.wait_for("the seal", |c| c.metric("catchment_engine_sealed_position") == stored as f64);
    collector.terminate();
    let collector = Collector::start_with(dir, &STAYS_LIVE);
    send_plain(&collector, &cellar);
    send_cloud(&collector, &cellar);
    assert!(collector.metric("catchment_engine_live_rows") > 0.0);
    collector
}

fn every_form(dir: &Path) -> [PathBuf; 5] {
    ["all.ndjson", "all.ndjson.gz", "all.csv", "all.csv.zst", "all.parquet"].map(|name| dir.join(name))
}

#[test]
fn an_export_in_each_form_makes_the_same_events_again_and_never_twice() {
    let (from, to) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let original = filled(from.path());
    let (rows, count) = (original.rows(ALL), events(&original));
    for file in every_form(from.path()) {
        let told = export(from.path(), &file, &[]);
        assert_eq!([&told["events"], &told["last_position"]], [&json!(count), &json!(count)], "{}", file.display());
        assert_eq!(told["bytes"], file.metadata().expect("a file").len(), "{}", file.display());
        let dir = to.path().join(file.file_name().expect("a name"));
        std::fs::create_dir(&dir).expect("a folder");
        let copy = Collector::start_with(&dir, &SHORT_WINDOW);
        assert_eq!(import(&dir, &file), [count, 0, 0, 0], "{}", file.display());
        assert_eq!(copy.rows(ALL), rows, "{}: all are equal, in the same order", file.display());
        assert_eq!(import(&dir, &file), [0, count, 0, 0], "{}: again", file.display());
        copy.wait_for("the seal", |c| c.metric("catchment_engine_live_rows") == 0.0);
        copy.terminate();
        let copy = Collector::start_with(&dir, &SHORT_WINDOW);
        let sent = copy.sensor("another");
        copy.send(&sent, b"{}");
        assert_eq!(import(&dir, &file), [0, count, 0, 0], "{}: after a restart, from the lake", file.display());
        assert_eq!(events(&copy), count + 1);
        copy.assert_adds_up();
    }
    let file = from.path().join("all.csv");
    assert_eq!(import(from.path(), &file), [0, count, 0, 0], "where they came from");
    assert_eq!(original.rows(ALL), rows);
}

#[test]
fn an_export_beside_running_ingest_ends_with_the_events_that_were_there_when_it_began() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &SHORT_WINDOW);
    let sensor = collector.sensor("roof");
    let batch = (0..500).map(|n| format!("{{\"n\":{n}}}\n")).collect::<String>();
    collector.send(&sensor, batch.as_bytes());
    let ended = AtomicBool::new(false);
    let (before, told, lines) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                collector.send(&sensor, batch.as_bytes());
            }
        });
        let before = events(&collector);
        let file = dir.path().join("all.ndjson");
        let told = export(dir.path(), &file, &[]);
        ended.store(true, Ordering::Relaxed);
        (before, told, std::fs::read_to_string(file).expect("the export"))
    });
    let last = told["last_position"].as_u64().expect("a position");
    assert!(last >= before && last < events(&collector), "{before} before, {told}");
    let position = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["position"].as_u64();
    let positions: Vec<u64> = lines.lines().filter_map(position).collect();
    assert_eq!(positions, (1..=last).collect::<Vec<u64>>(), "each once, in order, without a gap");
}

#[test]
fn an_export_has_the_events_that_are_asked_for_and_writes_over_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = filled(dir.path());
    let file = dir.path().join("some.ndjson");
    let count = |args: &[&str], condition: &str| {
        let told = export(dir.path(), &file, &[&["--overwrite"], args].concat());
        let expected = collector.rows(&format!("SELECT count(*) FROM events WHERE {condition}"));
        assert_eq!(told["events"], expected[0][0], "{args:?}");
        assert!(told["events"] != 0, "{args:?}");
    };
    count(&["--sensor", "Cellar", "--type", "x"], "sensor = 'cellar' AND type = 'x'");
    count(&["--since", "2026-01-31T10:00:00Z", "--until", "2026-01-31T10:00:01Z"], "time = '2026-01-31T10:00:00Z'");
    count(&["--since", "9999-12-31T23:59:59+00:00"], "data->>'nan' = 'NaN'");
    let kept = std::fs::read(&file).expect("the export");
    let some = file.to_str().expect("a path");
    for (args, code, why) in [
        (&["export", some][..], 2, "is there already: choose another name, or write over it with --overwrite"),
        (&["export", "events.txt"], 2, "--format"),
        (&["export", "events.parquet.gz"], 2, "compressed in itself"),
        (&["export", "-", "--since", "yesterday"], 2, "--since"),
        (&["export", "missing/events.csv"], 2, "there is no folder missing for missing/events.csv"),
    ] {
        let refused = run(dir.path(), args);
        assert_eq!(refused.status.code(), Some(code), "{refused:?}");
        assert!(complaints(&refused).contains(why), "{refused:?}");
    }
    assert_eq!(std::fs::read(&file).expect("the export"), kept);
    // Nobody waits for a pipe.
    for (pipe, args) in [("new.csv.part", ["export", "new.csv"]), ("old.csv.sha256", ["import", "old.csv"])] {
        std::fs::write(dir.path().join("old.csv"), b"").expect("written");
        let pipe = dir.path().join(pipe);
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).expect("made");
        let refused = run(dir.path(), &args);
        assert!(!refused.status.success() && complaints(&refused).contains("is no file"), "{refused:?}");
        std::fs::remove_file(&pipe).expect("removed");
    }
    let streamed = run(dir.path(), &["export", "-", "--since", "9999-12-31T23:59:59Z"]);
    assert_eq!(streamed.stdout, kept, "on standard output the same");
    assert!(complaints(&streamed).starts_with("2 events up to position"), "{streamed:?}");
    let left: Vec<_> =
        dir.path().read_dir().expect("the folder").map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".part")), "{left:?}");
}

#[test]
fn sensors_of_an_import_are_registered_disabled_and_the_audit_tells_who_imported() {
    let (from, to) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let original = filled(from.path());
    let file = from.path().join("all.parquet");
    export(from.path(), &file, &[]);
    let copy = Collector::start(to.path());
    copy.sensor("roof");
    import(to.path(), &file);
    let sensor = |id: &str| copy.get(&format!("/api/v1/sensors/{id}"), &copy.token).json();
    assert!(sensor("cellar")["disabled_at"].is_string(), "{}", sensor("cellar"));
    assert!(sensor("roof")["disabled_at"].is_null(), "{}", sensor("roof"));
    let entries = copy.get("/api/v1/audit", &copy.token).json()["entries"].clone();
    let [imported, registered] = [&entries[0], &entries[1]];
    assert_eq!([&imported["act"], &imported["target"]], ["events.import", "events"]);
    assert_eq!(imported["detail"], json!({ "events": events(&original), "sensors": 2 }));
    assert_eq!([&registered["act"], &registered["target"]], ["sensor.register", "sensor/cellar"]);
    let path = "/api/v1/sensors/cellar";
    let enabled =
        copy.ask(("PATCH", path), &copy.token, &[("content-type", "application/json")], br#"{"disabled":false}"#);
    assert_eq!(enabled.status, 200, "{enabled:?}");
    let rotated = copy.ask(("POST", "/api/v1/sensors/cellar/token"), &copy.token, &[], b"").json();
    let sent = copy.send(rotated["token"].as_str().expect("a token"), b"{\"it\":\"sends again\"}");
    assert_eq!(sent.json()["accepted"], 1, "{sent:?}");
}

#[test]
fn what_of_a_file_is_no_event_is_told_by_its_place_and_the_rest_is_imported() {
    let (from, to) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let original = filled(from.path());
    let file = from.path().join("all.ndjson");
    export(from.path(), &file, &[]);
    let (text, count) = (std::fs::read_to_string(&file).expect("lines"), events(&original));
    let copy = Collector::start(to.path());
    let lines: Vec<&str> = text.lines().collect();
    let sensor = "\"sensor\":\"roof\"";
    let broken = lines[1].replace(sensor, "\"sensor\":\"Roof 1\"");
    let cut = &lines[2][..lines[2].len() - 1];
    let mixed = [lines[0], "", &broken, cut, lines[3]].join("\n");
    let path = to.path().join("mixed");
    std::fs::write(&path, mixed).expect("written");
    let imported = run(to.path(), &["import", "mixed"]);
    assert_eq!((imported.status.code(), said(&imported).as_str()), (Some(1), "2 accepted, 0 duplicates, 2 rejected\n"));
    let why = complaints(&imported);
    assert!(why.contains("line 3: not_exported: `sensor` is no id of a sensor"), "{why}");
    assert!(why.contains("line 4: invalid_json: the event is not JSON: expected"), "{why}");

    let gzip = tests::gzip(text.as_bytes());
    std::fs::write(&path, &gzip[..gzip.len() - 10]).expect("written");
    let cut = run(to.path(), &["import", "mixed"]);
    assert_eq!(cut.status.code(), Some(1), "{cut:?}");
    assert!(complaints(&cut).contains("2 duplicates, 0 rejected so far"), "{cut:?}");
    assert!(complaints(&cut).contains(&format!("cannot read line {}", events(&copy) + 1)), "{cut:?}");
    for (content, why) in [(&b"hello\n"[..], "it is no export"), (b"PAR1PAR1", "as Parquet")] {
        std::fs::write(&path, content).expect("written");
        let refused = run(to.path(), &["import", "mixed"]);
        assert!(!refused.status.success() && complaints(&refused).contains(why), "{refused:?}");
    }
    assert_eq!(import(to.path(), &file)[3], 0);
    assert_eq!(events(&copy), count, "what broke off was imported again, and not twice");
    copy.assert_adds_up();
}

#[test]
fn an_event_with_the_id_and_time_of_another_is_stored_and_told_and_one_that_is_too_old_is_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = [("CATCHMENT_RETENTION__AGE_SECONDS", "1h"), SHORT_WINDOW[1]];
    let collector = Collector::start_with(dir.path(), &settings);
    let line = |received_at: &str, data: &str| {
        format!(
            "{{\"id\":\"a\",\"sensor\":\"roof\",\"source\":\"\",\"type\":\"t\",\"time\":\"2026-01-31T12:00:00Z\",\"received_at\":\"{received_at}\",\
             \"data\":{data}}}\n"
        )
    };
    let now = collector.rows("SELECT now()")[0][0].as_str().expect("a time").to_owned();
    let file = dir.path().join("some.ndjson");
    let write = |lines: &str| std::fs::write(&file, lines).expect("written");
    write(&(line(&now, "1") + &line(&now, "1")));
    assert_eq!(import(dir.path(), &file), [1, 1, 0, 0], "twice in one file");
    collector.wait_for("the seal", |c| c.metric("catchment_engine_live_rows") == 0.0);
    write(&line(&now, "1.0"));
    assert_eq!(import(dir.path(), &file), [1, 0, 1, 0], "the same number, written otherwise, is other content");
    write(&line("2026-01-31T12:00:00Z", "2"));
    let refused = run(dir.path(), &["import", "some.ndjson"]);
    assert!(complaints(&refused).contains("line 1: too_old: it was received at 2026-01-31T12:00:00Z"), "{refused:?}");
    assert_eq!(events(&collector), 2);
    assert_eq!(collector.metric("catchment_engine_reused_ids_total"), 1.0);
    collector.assert_adds_up();
}
