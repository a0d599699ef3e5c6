//! The log of the lake's table with a file that is damaged or gone, with the real program: the start and `catchment inspect lake` name the file and
//! say what to do, and `catchment inspect repair` mends what can be mended.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tests::{Collector, catchment, complained, inspect, refused_start, said};

const SETTINGS: [(&str, &str); 1] = [("CATCHMENT_SEAL__AGE_SECONDS", "1s")];

/// A folder whose collector has stopped, with these seals in the lake.
fn filled(dir: &Path, seals: u64) {
    let collector = Collector::start_with(dir, &SETTINGS);
    let token = collector.sensor("roof");
    for seal in 0..seals {
        assert_eq!(collector.send(&token, format!("{{\"n\":{seal}}}\n").as_bytes()).json()["accepted"], 1);
        collector.wait_for("it is in the lake", |c| c.metric("catchment_engine_live_rows") == 0.0);
    }
    assert_eq!(collector.terminate(), 0);
}

fn commit(dir: &Path, version: u64) -> PathBuf {
    dir.join(format!("data/lake/_delta_log/{version:020}.json"))
}

#[test]
fn a_damaged_commit_stops_the_start_and_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a folder");
    filled(dir.path(), 3);
    let path = commit(dir.path(), 2);
    let whole = fs::read(&path).expect("a commit");
    for what in ["cut", "empty", "gone"] {
        match what {
            "cut" => fs::write(&path, &whole[..whole.len() / 2]).expect("cut"),
            "empty" => fs::write(&path, "").expect("emptied"),
            _ => fs::remove_file(&path).expect("removed"),
        }
        let shown = inspect(dir.path(), &["lake"]);
        let refused = refused_start(dir.path());
        for (told, more) in [(&refused, "`catchment inspect repair`"), (&said(&shown), "BAD      ")] {
            assert!(told.contains(&path.display().to_string()) && told.contains(more), "{what}: {told}");
            assert!(!told.contains("Generic") && !told.contains("Error {"), "{what}: {told}");
        }
        assert!(
            shown.status.code() == Some(1) && complained(&shown).contains("from a backup"),
            "{}",
            complained(&shown)
        );
        let json: Value = serde_json::from_str(&said(&inspect(dir.path(), &["lake", "--json"]))).expect("JSON");
        assert_eq!((&json["log_damage"][0]["path"], &json["log_damage"][0]["needed"]), (&json!(path), &json!(true)));
        let repaired = inspect(dir.path(), &["repair"]);
        assert!(
            repaired.status.code() == Some(1) && complained(&repaired).contains("nothing was changed"),
            "{repaired:?}"
        );
        let backup = catchment(dir.path(), &["backup", "copy", "--data-dir", "data"], b"");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(complained(&backup).contains(&format!("{name} is damaged")), "{}", complained(&backup));
    }
    fs::write(&path, &whole).expect("brought back");
    assert_eq!(Collector::start(dir.path()).rows("SELECT count(*) FROM events"), [[3]]);
}

#[test]
fn a_newest_version_that_is_gone_loses_no_data_file_and_is_taken_in_again_by_a_repair() {
    let dir = tempfile::tempdir().expect("a folder");
    filled(dir.path(), 3);
    // The wal lets go of what is sealed, once there is another segment.
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    let token = collector.sensor("cellar");
    assert_eq!(collector.send(&token, b"{\"n\":3}\n").json()["accepted"], 1);
    let has_let_go = |_: &Collector| {
        let told: Value = serde_json::from_str(&said(&inspect(dir.path(), &["wal", "--json"]))).expect("JSON");
        told["segments"][0]["position"]["min"] == json!(4)
    };
    collector.wait_for("it has let go", has_let_go);
    assert_eq!(collector.terminate(), 0);
    [3, 4].iter().for_each(|version| fs::remove_file(commit(dir.path(), *version)).expect("removed"));
    for _ in 0..2 {
        let refused = refused_start(dir.path());
        assert!(refused.contains("wal_gap") && refused.contains("`catchment inspect repair`"), "{refused}");
    }
    let shown = said(&inspect(dir.path(), &["lake"]));
    assert!(shown.contains("unnamed  2 data files of positions 3 to 4"), "{shown}");
    let repaired = inspect(dir.path(), &["repair"]);
    assert!(repaired.status.success() && said(&repaired).contains("taken in positions 3 to 3"), "{repaired:?}");
    let collector = Collector::start(dir.path());
    let datas: Vec<Vec<Value>> = (0..4).map(|n| vec![json!(n + 1), json!(format!("{{\"n\":{n}}}"))]).collect();
    assert_eq!(collector.rows("SELECT position, data FROM events ORDER BY position"), datas);
    assert_eq!(collector.send(&token, b"{}").json()["accepted"], 1);
    assert_eq!(collector.rows("SELECT max(position) FROM events"), [[5]]);
}

/// A collector whose table has a checkpoint, with how many events it has, and where that lies.
fn with_checkpoint(dir: &Path) -> (Collector, u64, PathBuf) {
    let collector = Collector::start_with(dir, &SETTINGS);
    let token = collector.sensor("roof");
    let mut sent = 0;
    while collector.metric("catchment_lake_checkpoints_total") == 0.0 {
        assert_eq!(collector.send(&token, b"{}").json()["accepted"], 1);
        collector.wait_for("it is in the lake", |c| c.metric("catchment_engine_live_rows") == 0.0);
        sent += 1;
        assert!(sent < 100, "no checkpoint");
    }
    let mut log = fs::read_dir(dir.join("data/lake/_delta_log")).expect("the log").flatten().map(|entry| entry.path());
    let checkpoint = log.find(|path| path.to_string_lossy().ends_with(".checkpoint.parquet")).expect("a checkpoint");
    (collector, sent, checkpoint)
}

#[test]
fn a_damaged_commit_that_a_checkpoint_stands_for_is_told_as_not_needed_and_a_backup_does_without_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let (collector, sent, checkpoint) = with_checkpoint(dir.path());
    let backup = |to: &str| catchment(dir.path(), &["backup", to, "--data-dir", "data"], b"");
    let before = backup("of-before");
    assert!(before.status.success(), "{before:?}");
    let commit = PathBuf::from(checkpoint.to_string_lossy().replace(".checkpoint.parquet", ".json"));
    fs::write(&commit, "{").expect("damaged");
    let shown = inspect(dir.path(), &["lake"]);
    let told = format!("BAD      {}: ", commit.display());
    assert!(said(&shown).contains(&told) && said(&shown).contains("(nothing needs it)"), "{}", said(&shown));
    let running = backup("of-running");
    assert!(running.status.success(), "{running:?}");
    assert_eq!(collector.terminate(), 0);
    let stopped = backup("of-stopped");
    assert!(stopped.status.success(), "{stopped:?}");
    let again = backup("of-before");
    assert!(again.status.success(), "{again:?}");
    for copy in ["of-running", "of-stopped", "of-before"] {
        let back = tempfile::tempdir().expect("a folder");
        let from = dir.path().join(copy).display().to_string();
        let restored = catchment(back.path(), &["restore", &from, "--data-dir", "data"], b"");
        assert!(restored.status.success(), "{restored:?}");
        assert!(inspect(back.path(), &["lake"]).status.success(), "{copy}");
        assert_eq!(Collector::start(back.path()).rows("SELECT count(*) FROM events"), [[sent]], "{copy}");
    }
}

#[test]
fn a_damaged_checkpoint_is_named_and_a_repair_reads_the_table_without_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let (collector, sent, checkpoint) = with_checkpoint(dir.path());
    assert_eq!(collector.terminate(), 0);
    let whole = fs::read(&checkpoint).expect("a checkpoint");
    fs::write(&checkpoint, &whole[..whole.len() - 100]).expect("cut");
    let refused = refused_start(dir.path());
    assert!(refused.contains(&checkpoint.display().to_string()), "{refused}");
    let repaired = inspect(dir.path(), &["repair"]);
    assert!(repaired.status.success() && said(&repaired).contains("the table is read without it"), "{repaired:?}");
    assert!(inspect(dir.path(), &["lake"]).status.success());
    assert_eq!(Collector::start(dir.path()).rows("SELECT count(*) FROM events"), [[sent]]);
}
