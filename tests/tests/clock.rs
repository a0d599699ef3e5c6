//! The machine's clock set ahead and back, under the real program and between its starts.
//!
//! `libfaketime` moves what the program takes for the time of day, and leaves alone the clock that measures how long things take. Each test
//! looks whether the clock moved.

use serde_json::json;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tests::{Collector, skipped};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const EVENTS: i64 = 10;

/// The clock of the collectors of a test.
struct Wall {
    library: PathBuf,
    file: PathBuf,
    ahead_seconds: i64,
}

impl Wall {
    /// A clock that is right; none when nothing here can move it.
    fn new(dir: &Path) -> Option<Self> {
        let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
        let folders = folders.chain(["/usr/lib", "/usr/lib64"].map(PathBuf::from));
        let library = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists());
        if library.is_none() {
            skipped("libfaketime is missing, which moves a program's clock: apt-get install faketime");
        }
        let mut wall = Self { library: library?, file: dir.join("ahead"), ahead_seconds: 0 };
        wall.set(0);
        Some(wall)
    }

    fn set(&mut self, ahead_seconds: i64) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{ahead_seconds:+}\n")).expect("written");
        std::fs::rename(&new, &self.file).expect("in its place");
        self.ahead_seconds = ahead_seconds;
    }

    fn start(&self, dir: &Path, settings: &[(&str, &str)]) -> Collector {
        let path = |path: &Path| path.to_str().expect("a text").to_owned();
        let (library, file) = (path(&self.library), path(&self.file));
        let clock = [
            ("LD_PRELOAD", &*library),
            ("FAKETIME_TIMESTAMP_FILE", &*file),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
            ("CATCHMENT_SEAL__AGE_SECONDS", "1s"),
        ];
        Collector::start_with(dir, &[&clock, settings].concat())
    }

    /// The collector's time of a batch is what this clock said.
    #[track_caller]
    fn assert_told(&self, collector: &Collector, batch: i64) {
        let sql = format!("SELECT max(received_at)::bigint FROM events WHERE (data->>'batch')::bigint = {batch}");
        let told = collector.rows(&sql)[0][0].as_i64().expect("a time") / 1_000_000;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64;
        let ahead = told - now;
        assert!((ahead - self.ahead_seconds).abs() < 120, "{ahead} is not {}", self.ahead_seconds);
    }
}

fn lines(batch: i64) -> Vec<u8> {
    let mut lines = String::new();
    for n in 0..EVENTS {
        let _ =
            writeln!(lines, "{{\"id\":\"{batch}-{n}\",\"type\":\"reading\",\"data\":{{\"batch\":{batch},\"n\":{n}}}}}");
    }
    lines.into_bytes()
}

/// Sends a batch: what was accepted, and what known.
fn send(collector: &Collector, token: &str, batch: i64) -> (i64, i64) {
    let answer = collector.send(token, &lines(batch)).json();
    let number = |name: &str| answer[name].as_i64().unwrap_or_else(|| panic!("{answer}"));
    (number("accepted"), number("duplicates"))
}

/// All batches are there once, in the order in which they came.
#[track_caller]
fn assert_all_once(collector: &Collector, batches: i64) {
    let sql = "SELECT (data->>'batch')::bigint, count(*), count(DISTINCT id), min(position), max(position) FROM events GROUP BY 1 ORDER BY 1";
    let expected: Vec<_> = (0..batches)
        .map(|n| [n, EVENTS, EVENTS, EVENTS * n + 1, EVENTS * (n + 1)].map(serde_json::Value::from).to_vec())
        .collect();
    assert_eq!(collector.rows(sql), expected);
}

fn wait_for_seals(collector: &Collector) {
    collector.wait_for("a seal", |c| c.metric("catchment_engine_live_rows") == 0.0);
}

#[test]
fn set_ahead_and_back_while_it_runs_events_are_there_once_in_order_and_seals_go_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(mut wall) = Wall::new(dir.path()) else { return };
    let collector = wall.start(dir.path(), &[]);
    let token = collector.sensor("roof");
    let moves = [0, -HOUR, HOUR, -400 * DAY, 400 * DAY, -20_000 * DAY, 0];
    for (batch, ahead) in (0..).zip(moves) {
        wall.set(ahead);
        let seals = collector.metric("catchment_engine_seals_total");
        assert_eq!(send(&collector, &token, batch), (EVENTS, 0));
        wall.assert_told(&collector, batch);
        for before in 0..=batch {
            assert_eq!(send(&collector, &token, before), (0, EVENTS), "batch {before} at {ahead}");
        }
        wait_for_seals(&collector);
        collector.wait_for("one seal more", |c| c.metric("catchment_engine_seals_total") > seals);
        assert_all_once(&collector, batch + 1);
    }
    assert_eq!(collector.terminate(), 0);
    wall.set(-DAY);
    let collector = wall.start(dir.path(), &[]);
    assert_all_once(&collector, moves.len() as i64);
    assert_eq!(collector.terminate(), 0);
}

#[test]
fn a_start_with_a_clock_that_is_an_hour_or_a_year_ahead_or_back_has_everything_and_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(mut wall) = Wall::new(dir.path()) else { return };
    let settings = [("CATCHMENT_WINDOW__SECONDS", "1d")];
    let mut collector = wall.start(dir.path(), &settings);
    let token = collector.sensor("roof");
    let mut stored_at = Vec::new();
    for (round, ahead) in (0..).zip([0, -HOUR, 0, HOUR, -365 * DAY, 365 * DAY, 0, -365 * DAY]) {
        // Killed with live rows, or stopped.
        if round % 2 == 0 {
            collector.kill()
        } else {
            assert_eq!(collector.terminate(), 0)
        }
        wall.set(ahead);
        collector = wall.start(dir.path(), &settings);
        assert_all_once(&collector, round);
        for (before, stored_at) in (0..).zip(&stored_at) {
            // The window of ids goes by this clock across a start.
            if ahead - stored_at < DAY / 2 {
                assert_eq!(send(&collector, &token, before), (0, EVENTS), "batch {before} of {stored_at} at {ahead}");
            }
        }
        assert_eq!(send(&collector, &token, round), (EVENTS, 0));
        stored_at.push(ahead);
        wall.assert_told(&collector, round);
        assert_all_once(&collector, round + 1);
    }
    wait_for_seals(&collector);
    assert_eq!(collector.terminate(), 0);
}

#[test]
fn a_clock_that_is_a_year_ahead_lets_no_events_go_also_over_starts_until_it_was_so_for_a_day() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(mut wall) = Wall::new(dir.path()) else { return };
    let settings = [("CATCHMENT_RETENTION__AGE_SECONDS", "30d")];
    let mut collector = wall.start(dir.path(), &settings);
    let token = collector.sensor("roof");
    let mut batches = 0;
    let mut sealed = |collector: &Collector| {
        assert_eq!(send(collector, &token, batches), (EVENTS, 0));
        batches += 1;
        wait_for_seals(collector);
        batches
    };
    sealed(&collector);
    wall.set(365 * DAY);
    // Retention looks after each seal.
    sealed(&collector);
    assert_all_once(&collector, sealed(&collector));
    wall.assert_told(&collector, 2);
    for is_killed in [false, true, false] {
        if is_killed {
            collector.kill()
        } else {
            assert_eq!(collector.terminate(), 0)
        }
        collector = wall.start(dir.path(), &settings);
        sealed(&collector);
        assert_all_once(&collector, sealed(&collector));
    }
    assert_eq!(collector.metric("catchment_lake_expired_rows"), 0.0);
    let log = std::fs::read_to_string(dir.path().join("log")).expect("the log");
    assert!(log.contains("the clock leapt"), "{log}");
    wall.set(0);
    assert_all_once(&collector, sealed(&collector));
    assert_eq!(collector.terminate(), 0);
}

#[test]
fn quotas_do_not_follow_the_clock_and_tokens_end_by_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(mut wall) = Wall::new(dir.path()) else { return };
    // Ten events come at once, and it takes them ten minutes to come back.
    let collector = wall
        .start(dir.path(), &[("CATCHMENT_QUOTAS__EVENTS_PER_SECOND", "1"), ("CATCHMENT_QUOTAS__BURST_SECONDS", "10m")]);
    let token = collector.sensor("roof");
    let many: String = "{\"n\":1}\n".repeat(600);
    assert_eq!(collector.send(&token, many.as_bytes()).status, 200);
    let made = collector.add_token(&json!({ "role": "reader", "name": "report", "expires_in_seconds": HOUR }));
    let reader = made["token"].as_str().expect("a token");
    let asked = || collector.post("/api/v1/query", reader, b"{\"sql\": \"SELECT 1\"}", &[]).status;
    assert_eq!(asked(), 200);
    for ahead in [400 * DAY, -400 * DAY] {
        wall.set(ahead);
        assert_eq!(collector.send(&token, many.as_bytes()).status, 429, "at {ahead}");
    }
    assert_eq!(asked(), 200, "not ended yet");
    wall.set(2 * HOUR);
    assert_eq!(asked(), 401, "ended");
    assert_eq!(collector.terminate(), 0);
}
