//! `catchment inspect`: what lies in the data folder is told as it is, and what is damaged there is named.

use serde_json::Value;
use tests::{Collector, catchment, complained};

/// A collector whose events are in the lake.
fn filled() -> (tempfile::TempDir, Collector) {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "1s")]);
    let token = collector.sensor("roof");
    let lines: String =
        (0..50).map(|n| format!("{{\"type\":\"t\",\"data\":{{\"n\":{n},\"ok\":true,\"unit\":\"C\"}}}}\n")).collect();
    for _ in 0..2 {
        assert_eq!(collector.send(&token, lines.as_bytes()).json()["accepted"], 50);
        collector.wait_for("they are in the lake", |c| c.metric("catchment_engine_live_rows") == 0.0);
    }
    (dir, collector)
}

#[test]
fn the_lake_is_told_while_a_collector_runs_and_afterwards() {
    let (dir, collector) = filled();
    let data = dir.path().join("data");
    let inspect = |more: &[&str]| {
        let arguments = [&["inspect", "lake", "--data-dir", data.to_str().expect("a text")], more].concat();
        let output = catchment(dir.path(), &arguments, b"");
        assert!(output.status.success(), "{}", complained(&output));
        String::from_utf8(output.stdout).expect("a text")
    };
    let told = inspect(&[]);
    assert!(told.contains("events   100, positions 1 to 100; 0 expired, 0 erased before\n"), "{told}");
    assert!(told.contains("columns  3 of 256 for fields of data\n"), "{told}");
    assert!(told.contains("\n         data.n double\n         data.ok boolean\n         data.unit text\n"), "{told}");
    assert!(told.ends_with("good     all data files are there and as they were written\n"), "{told}");
    let json: Value = serde_json::from_str(&inspect(&["--json"])).expect("JSON");
    assert_eq!((&json["rows"], &json["columns_max"], &json["expired_rows"]), (&100.into(), &256.into(), &0.into()));
    assert!(json["version"].as_u64().is_some_and(|version| version > 0), "{json}");
    assert_eq!(json["fields"][0], serde_json::json!({"name": "data.n", "type": "double"}));
    let files = json["files"].as_array().expect("files");
    assert_eq!(files.iter().map(|file| file["rows"].as_u64().expect("a number")).sum::<u64>(), 100);
    assert!(files.iter().all(|file| file["damage"].is_null() && file["time"]["min"].as_str().is_some()), "{json}");

    assert_eq!(collector.terminate(), 0);
    let paths = inspect(&["--files"]);
    assert_eq!(paths.lines().count(), files.len());
    assert!(paths.lines().all(|path| path.ends_with(".parquet") && std::path::Path::new(path).is_file()), "{paths}");
}

#[test]
fn a_data_file_that_is_damaged_or_gone_is_named_and_fails_the_command() {
    let (dir, collector) = filled();
    assert_eq!(collector.terminate(), 0);
    let inspect = |data: &str| catchment(dir.path(), &["inspect", "lake", "--data-dir", data], b"");
    let paths = catchment(dir.path(), &["inspect", "lake", "--files", "--data-dir", "data"], b"");
    let path = String::from_utf8(paths.stdout).expect("a text").lines().next().expect("a file").to_owned();
    let whole = std::fs::read(&path).expect("a file");
    let mut flipped = whole.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    for (damaged, why) in [
        (Some(&whole[..whole.len() / 2]), "and the table says"),
        (Some(&flipped), "are not what was written"),
        (None, "it is gone"),
    ] {
        match damaged {
            Some(bytes) => std::fs::write(&path, bytes).expect("written"),
            None => std::fs::remove_file(&path).expect("removed"),
        }
        let output = inspect("data");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        let line = told.lines().find(|line| line.starts_with("BAD ")).unwrap_or_else(|| panic!("{told}"));
        assert!(line.contains(&path) && line.contains(why), "{line}");
        assert!(complained(&output).contains("1 data file is damaged"), "{}", complained(&output));
    }
    let nowhere = inspect("elsewhere");
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(complained(&nowhere).contains("there is no lake in"), "{}", complained(&nowhere));
}
