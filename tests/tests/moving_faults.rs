//! Exports that are damaged, asked for a sensor that nobody knows, or odd: nothing of a damaged one becomes events, and what can be kept is kept.

use serde_json::{Value, json};
use std::path::Path;
use std::process::Output;
use tests::{Collector, catchment, said};

fn complaints(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn run(dir: &Path, args: &[&str]) -> Output {
    catchment(dir, args, b"")
}

/// A collector with some events.
fn filled(dir: &Path) -> Collector {
    let collector = Collector::start(dir);
    let lines: String =
        (0..500).map(|n| format!("{{\"type\":\"t\",\"data\":{{\"n\":{n},\"of\":\"a text\"}}}}\n")).collect();
    assert_eq!(collector.send(&collector.sensor("roof"), lines.as_bytes()).json()["accepted"], 500);
    collector
}

#[test]
fn a_flipped_bit_of_an_export_in_any_form_is_noticed_and_changes_no_event() {
    let (from, to) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let original = filled(from.path());
    let copy = Collector::start(to.path());
    for name in ["all.parquet", "all.ndjson", "all.csv", "all.ndjson.gz", "all.csv.zst"] {
        let path = from.path().join(name);
        assert!(run(from.path(), &["export", name]).status.success());
        let whole = std::fs::read(&path).expect("the export");
        assert_eq!(from.path().join(format!("{name}.sha256")).exists(), name != "all.parquet", "{name}");
        for place in [whole.len() / 3, whole.len() / 2, whole.len() - 40] {
            let mut flipped = whole.clone();
            flipped[place] ^= 1;
            std::fs::write(&path, flipped).expect("written");
            let imported = run(to.path(), &["import", path.to_str().expect("text")]);
            assert_eq!(imported.status.code(), Some(1), "{name} at {place}: {imported:?}");
            assert!(complaints(&imported).contains("nothing was imported"), "{name}: {imported:?}");
            assert_eq!(copy.rows("SELECT count(*) FROM events"), [[0]], "{name}");
        }
        std::fs::write(&path, whole).expect("written");
    }
    let empty = from.path().join("empty.parquet");
    std::fs::write(&empty, "").expect("written");
    let imported = run(to.path(), &["import", empty.to_str().expect("text")]);
    assert!(imported.status.code() == Some(1) && complaints(&imported).contains("is empty"), "{imported:?}");
    let path = from.path().join("all.ndjson");
    // Other tools write it in capitals.
    let beside = from.path().join("all.ndjson.sha256");
    let told = std::fs::read_to_string(&beside).expect("a checksum");
    std::fs::write(&beside, told.to_ascii_uppercase()).expect("written");
    assert!(run(to.path(), &["import", path.to_str().expect("text")]).status.success());
    let all = "SELECT id, data FROM events ORDER BY id";
    assert_eq!(copy.rows(all), original.rows(all));
    // Lines that were changed on purpose are taken once their checksum is away.
    let text = std::fs::read_to_string(&path).expect("lines");
    std::fs::write(&path, text.lines().take(10).collect::<Vec<_>>().join("\n")).expect("written");
    assert!(complaints(&run(to.path(), &["import", path.to_str().expect("text")])).contains("remove that file"));
    std::fs::remove_file(from.path().join("all.ndjson.sha256")).expect("removed");
    let imported = run(to.path(), &["import", path.to_str().expect("text")]);
    assert_eq!(said(&imported), "0 accepted, 10 duplicates, 0 rejected\n", "{imported:?}");
}

#[test]
fn an_export_of_a_sensor_that_nobody_knows_says_so_and_of_one_without_events_is_empty() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = filled(dir.path());
    collector.sensor("cellar");
    let unknown = run(dir.path(), &["export", "none.ndjson", "--sensor", "celler"]);
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    assert!(complaints(&unknown).contains("there is no sensor \"celler\""), "{unknown:?}");
    assert!(!dir.path().join("none.ndjson").exists());
    for args in [["--sensor", "cellar"], ["--type", "other"]] {
        let empty = run(dir.path(), &["export", "-", args[0], args[1]]);
        assert!(empty.status.success() && empty.stdout.is_empty(), "{empty:?}");
    }
    let none = run(dir.path(), &["export", "-", "--sensor", "roof", "--type", "other"]);
    assert!(none.status.success(), "the sensor is known by its events: {none:?}");
}

#[test]
fn blank_lines_before_the_first_event_are_passed_over_and_a_time_of_receipt_that_lies_ahead_is_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let event = json!({
        "id": "a", "sensor": "roof", "source": "", "type": "t", "time": "2026-01-31T10:00:00Z", "received_at": "2199-12-31T23:59:59.999999Z",
        "data": {"n": 1},
    });
    for (n, begin) in ["\n", " \r\n\t\n", "\u{feff}\n\n"].into_iter().enumerate() {
        let mut event = event.clone();
        event["id"] = json!(n.to_string());
        std::fs::write(dir.path().join("lines"), format!("{begin}{event}\n")).expect("written");
        let imported = run(dir.path(), &["import", "lines"]);
        assert_eq!(said(&imported), "1 accepted, 0 duplicates, 0 rejected\n", "{begin:?}: {imported:?}");
    }
    let rows: Vec<Vec<Value>> = vec![vec![json!("2199-12-31T23:59:59.999999Z")]; 3];
    assert_eq!(collector.rows("SELECT received_at FROM events"), rows);
    assert_eq!(collector.terminate(), 0);
    assert_eq!(Collector::start(dir.path()).rows("SELECT received_at FROM events"), rows, "also once it is sealed");
}
