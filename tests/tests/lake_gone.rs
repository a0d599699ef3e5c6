//! A lake that is removed or moved under the running program, or between its starts: it is noticed, nothing that the wal has is lost, and the start
//! and `catchment inspect repair` say and do what can be done.

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use tests::{Collector, complained, inspect, refused_start, said};

const SETTINGS: [(&str, &str); 1] = [("CATCHMENT_SEAL__AGE_SECONDS", "1s")];
const ALL: &str = "SELECT position, id FROM events ORDER BY position";

fn send(collector: &Collector, token: &str, id: &str) {
    let line = format!("{{\"id\":\"{id}\",\"type\":\"t\",\"data\":{{}}}}\n");
    assert_eq!(collector.send(token, line.as_bytes()).json()["accepted"], 1, "{id}");
}

fn sealed(collector: &Collector) {
    collector.wait_for("it is in the lake", |c| c.metric("catchment_engine_live_rows") == 0.0);
}

fn row(position: u64, id: &str) -> Vec<Value> {
    vec![json!(position), json!(id)]
}

/// A collector whose wal has let go of the first three events, of which there are keys; the fourth is in the lake.
fn let_go(dir: &Path) -> (Collector, String) {
    let collector = Collector::start_with(dir, &SETTINGS);
    let token = collector.sensor("roof");
    ["a", "b", "c"].iter().for_each(|id| send(&collector, &token, id));
    sealed(&collector);
    assert_eq!(collector.terminate(), 0);
    let collector = Collector::start_with(dir, &SETTINGS);
    send(&collector, &token, "d");
    sealed(&collector);
    let has_let_go = |_: &Collector| {
        let told: Value = serde_json::from_str(&said(&inspect(dir, &["wal", "--json"]))).expect("JSON");
        told["segments"][0]["position"]["min"] == json!(4)
    };
    collector.wait_for("it has let go", has_let_go);
    (collector, token)
}

#[test]
fn a_lake_or_its_log_that_is_moved_away_is_told_at_once_and_all_goes_on_when_it_is_back() {
    for name in ["lake", "lake/_delta_log"] {
        let dir = tempfile::tempdir().expect("a folder");
        let collector = Collector::start_with(dir.path(), &SETTINGS);
        let token = collector.sensor("roof");
        send(&collector, &token, "a");
        sealed(&collector);
        let (place, away) = (collector.dir.join(name), dir.path().join("away"));
        fs::rename(&place, &away).expect("moved");
        let ready = collector.get_admin("/readyz");
        let reasons = ready.json()["reasons"].to_string();
        let gone = format!("{} was removed or moved", place.display());
        assert!(ready.status == 503 && reasons.contains(&gone), "{} {reasons}", ready.status);
        // What comes meanwhile is in the wal.
        send(&collector, &token, "b");
        collector.wait_for("a seal that fails", |c| c.metric("catchment_engine_seal_failures_total") > 0.0);
        let is_logged = || fs::read_to_string(dir.path().join("log")).is_ok_and(|log| log.contains(&gone));
        tests::wait_until("its line of the log", is_logged);
        assert!(!place.exists(), "none is begun anew");
        fs::rename(&away, &place).expect("moved back");
        sealed(&collector);
        assert_eq!(collector.get_admin("/readyz").status, 200);
        assert_eq!(collector.rows(ALL), [row(1, "a"), row(2, "b")]);
        assert_eq!(collector.terminate(), 0);
        let collector = Collector::start(dir.path());
        assert_eq!(collector.rows(ALL), [row(1, "a"), row(2, "b")]);
    }
}

#[test]
fn a_lake_that_was_removed_is_told_by_the_start_and_a_repair_begins_another_with_what_the_wal_has() {
    let dir = tempfile::tempdir().expect("a folder");
    let (collector, token) = let_go(dir.path());
    fs::remove_dir_all(collector.dir.join("lake")).expect("removed");
    send(&collector, &token, "e");
    // It stops, and what was not sealed stays in the wal.
    assert_eq!(collector.terminate(), 0);
    let lake = dir.path().join("data/lake");
    for _ in 0..2 {
        let refused = refused_start(dir.path());
        for told in ["lake_gone", &lake.display().to_string(), "begins at position 4", "`catchment inspect repair`"] {
            assert!(refused.contains(told), "{told} is not in {refused}");
        }
        assert!(!lake.exists(), "none is begun anew in silence");
    }
    let shown = inspect(dir.path(), &["lake"]);
    assert!(shown.status.code() == Some(1) && complained(&shown).contains("lake_gone"), "{}", complained(&shown));
    let repaired: Value = serde_json::from_str(&said(&inspect(dir.path(), &["repair", "--json"]))).expect("a report");
    assert_eq!(repaired["lake"]["lost"], json!({"min": 1, "max": 3}), "{repaired}");
    let again = inspect(dir.path(), &["repair"]);
    assert!(again.status.success() && said(&again).contains("nothing was changed"), "{}", said(&again));
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    assert_eq!(collector.rows(ALL), [row(4, "d"), row(5, "e")]);
    assert_eq!(collector.metric("catchment_lake_lost_rows"), 3.0);
    // What is lost is taken when it comes again, what is there is known.
    send(&collector, &token, "a");
    let known = collector.send(&token, b"{\"id\":\"e\",\"type\":\"t\",\"data\":{}}\n").json();
    assert_eq!(known["duplicates"], 1, "{known}");
    sealed(&collector);
    assert_eq!(collector.terminate(), 0);
    let collector = Collector::start(dir.path());
    assert_eq!(collector.rows(ALL), [row(4, "d"), row(5, "e"), row(6, "a")]);
}

#[test]
fn a_lake_without_its_log_is_named_and_takes_in_again_what_was_sealed_since_the_log_of_a_backup() {
    let dir = tempfile::tempdir().expect("a folder");
    let (collector, _) = let_go(dir.path());
    assert_eq!(collector.terminate(), 0);
    let (log, older) = (dir.path().join("data/lake/_delta_log"), dir.path().join("older"));
    fs::rename(&log, &older).expect("moved");
    let refused = refused_start(dir.path());
    for told in [&log.display().to_string(), "with all of the log", "bring `_delta_log` back"] {
        assert!(refused.contains(told), "{told} is not in {refused}");
    }
    let repaired = inspect(dir.path(), &["repair"]);
    assert!(repaired.status.code() == Some(1) && complained(&repaired).contains("nothing was changed"), "{repaired:?}");
    // As a backup of before the last seal has it.
    let versions: Vec<_> = fs::read_dir(&older).expect("the log").flatten().map(|entry| entry.path()).collect();
    fs::remove_file(versions.iter().max().expect("a commit")).expect("removed");
    assert!(Command::new("cp").arg("-r").arg(&older).arg(&log).status().expect("it runs").success());
    let repaired = inspect(dir.path(), &["repair"]);
    assert!(repaired.status.success(), "{repaired:?}");
    let collector = Collector::start(dir.path());
    assert_eq!(collector.rows(ALL), [row(1, "a"), row(2, "b"), row(3, "c"), row(4, "d")]);
    assert_eq!(collector.terminate(), 0);
    // Or without it: the wal has the fourth.
    fs::rename(dir.path().join("data/lake"), dir.path().join("aside")).expect("moved");
    assert!(self::refused_start(dir.path()).contains("lake_gone"));
    let repaired = inspect(dir.path(), &["repair"]);
    assert!(repaired.status.success() && said(&repaired).contains("lost     positions 1 to "), "{repaired:?}");
    let collector = Collector::start(dir.path());
    assert!(collector.rows(ALL).len() <= 1);
}

#[test]
fn a_lake_that_is_gone_beside_a_wal_that_has_all_events_is_made_anew_of_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "1h")]);
    let token = collector.sensor("roof");
    ["a", "b"].iter().for_each(|id| send(&collector, &token, id));
    collector.kill();
    fs::remove_dir_all(dir.path().join("data/lake")).expect("removed");
    let collector = Collector::start(dir.path());
    assert_eq!(collector.rows(ALL), [row(1, "a"), row(2, "b")]);
    let log = fs::read_to_string(dir.path().join("log")).expect("the log");
    assert!(log.contains("the lake is missing beside a wal that has all events"), "{log}");
}
