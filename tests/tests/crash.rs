//! Promise 1 and 2 with the real program: killed with signal 9 at random moments, it has every accepted event exactly once.
//!
//! What a kill hit is seen from what it left behind, and only those are counted that hit what they are about.

use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use testkit::Random;
use tests::{Collector, Oracle, PATIENCE, program, rounds};

/// Small seals and segments, so that there is always one to be hit.
const SETTINGS: [(&str, &str); 3] = [
    ("CATCHMENT_SEAL__AGE_SECONDS", "1s"),
    ("CATCHMENT_SEAL__BYTES", "1MiB"),
    ("CATCHMENT_INGEST__SEGMENT_BYTES", "1MiB"),
];

/// So many kills of each kind hit.
fn hits_min() -> u64 {
    rounds().div_ceil(4)
}

/// What lies in a data folder.
#[derive(Default)]
struct Left {
    /// Data files that no commit names.
    unnamed: BTreeSet<String>,
    /// Whether segments are there of which the lake has everything.
    has_sealed_segments: bool,
}

impl Left {
    fn of(data: &Path) -> Self {
        let commits = commits(data);
        let commits = commits.iter().map(|path| std::fs::read_to_string(path).unwrap_or_default() + "\n");
        let commits: String = commits.collect();
        let unnamed = data_files(data).into_iter().filter(|name| !commits.contains(name.as_str())).collect();
        let lines = commits.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let sealed = lines.filter(|line| line["txn"]["appId"].as_str().is_some_and(|id| id.len() == 36));
        let sealed = sealed.filter_map(|line| line["txn"]["version"].as_u64()).max().unwrap_or(0);
        let firsts: Vec<u64> =
            wal_files(data).iter().filter_map(|(name, _)| name.strip_suffix(".wal")?.parse().ok()).collect();
        Self { unnamed, has_sealed_segments: firsts.iter().skip(1).any(|next| next - 1 <= sealed) }
    }
}

fn commits(data: &Path) -> BTreeSet<std::path::PathBuf> {
    let log = std::fs::read_dir(data.join("lake/_delta_log")).into_iter().flatten().flatten();
    log.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|kind| kind == "json")).collect()
}

/// Also those that are still being written.
fn data_files(data: &Path) -> BTreeSet<String> {
    let days = std::fs::read_dir(data.join("lake")).into_iter().flatten().flatten();
    let days = days.filter(|day| day.file_name().to_string_lossy().starts_with("received_date="));
    let files = days.flat_map(|day| std::fs::read_dir(day.path()).into_iter().flatten().flatten());
    let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    files.map(name).map(|name| name.split('#').next().unwrap_or_default().to_owned()).collect()
}

fn wal_files(data: &Path) -> BTreeSet<(String, u64)> {
    let files = std::fs::read_dir(data.join("wal")).into_iter().flatten().flatten();
    files.filter_map(|e| Some((e.file_name().to_string_lossy().into_owned(), e.metadata().ok()?.ino()))).collect()
}

fn is_merged(name: &str) -> bool {
    name.starts_with("merged-") || name.starts_with("hour-")
}

/// Waits for what passes soon: the look is more often than [`tests::wait_until`]'s.
fn wait_closely(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        sleep(Duration::from_micros(100));
    }
}

/// A kill at a moment that is to be hit.
struct Kill<'a> {
    /// Returns when it begins.
    begins: &'a dyn Fn(&Collector),
    /// It is killed up to so much later.
    within: Duration,
    /// Whether that was hit, by what lay there before and lies there now.
    was_hit: &'a dyn Fn(&Left, &Left) -> bool,
}

impl Kill<'_> {
    /// Until enough have hit: load, a kill in the middle of it, a start, and everything that was accepted is there once.
    fn again_and_again(&self) {
        let (dir, mut random) = (tempfile::tempdir().expect("a folder"), Random::new(1));
        let mut oracle = Oracle::with_text(400);
        let mut collector = Collector::start_with(dir.path(), &SETTINGS);
        let token = collector.sensor("crash");
        let (mut hits, mut kills) = (0, 0);
        while hits < hits_min() {
            assert!(kills < 20 * hits_min(), "{hits} of {kills} kills hit");
            let (before, mut ran) = (Left::of(&collector.dir), false);
            oracle.load_until((collector, &token), 1 + random.below(20), |collector| {
                (self.begins)(&collector);
                sleep(self.within.mul_f64(random.below(1000) as f64 / 1000.0));
                ran = collector.kill_running();
            });
            hits += u64::from(ran && (self.was_hit)(&before, &Left::of(&dir.path().join("data"))));
            kills += 1;
            collector = started_again(dir.path(), &oracle, &token);
        }
        collector.wait_for("a seal", |c| c.metric("catchment_engine_live_rows") == 0.0);
        oracle.check(&collector).expect("as answered");
        assert_eq!(collector.terminate(), 0);
    }
}

/// Over what a kill left: all that was accepted is there once, and known when it is sent again.
fn started_again(dir: &Path, oracle: &Oracle, token: &str) -> Collector {
    let collector = Collector::start_with(dir, &SETTINGS);
    oracle.check(&collector).and_then(|()| oracle.send_again(&collector, token)).expect("as answered");
    collector
}

#[test]
fn killed_twenty_times_under_load_it_has_every_accepted_event_exactly_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut oracle = Oracle::default();
    let mut collector = Collector::start_with(dir.path(), &SETTINGS);
    let token = collector.sensor("crash");
    for round in 0..rounds() {
        oracle.load_until((collector, &token), 20 + 13 * (round % 20), Collector::kill);
        collector = started_again(dir.path(), &oracle, &token);
    }
    collector.wait_for("a seal", |c| c.metric("catchment_engine_live_rows") == 0.0);
    oracle.check(&collector).expect("as answered");
    assert!(oracle.accepted.len() > 20, "the load reached the collector");
    assert_eq!(collector.terminate(), 0);
}

#[test]
fn killed_while_it_seals_it_has_every_accepted_event_exactly_once() {
    let begins = |collector: &Collector| {
        let before = data_files(&collector.dir);
        let is_new = |name: &String| !is_merged(name) && !before.contains(name);
        wait_closely("a seal", || data_files(&collector.dir).iter().any(is_new));
    };
    let was_hit = |_: &Left, left: &Left| left.unnamed.iter().any(|name| !is_merged(name));
    Kill { begins: &begins, within: Duration::from_millis(10), was_hit: &was_hit }.again_and_again();
}

#[test]
fn killed_while_files_are_put_together_it_has_every_accepted_event_exactly_once() {
    let begins = |collector: &Collector| {
        let before = data_files(&collector.dir);
        let is_new = |name: &String| is_merged(name) && !before.contains(name);
        wait_closely("a compaction", || data_files(&collector.dir).iter().any(is_new));
    };
    // What a compaction leaves is removed an hour later.
    let was_hit = |before: &Left, left: &Left| left.unnamed.difference(&before.unnamed).any(|name| is_merged(name));
    Kill { begins: &begins, within: Duration::from_millis(40), was_hit: &was_hit }.again_and_again();
}

#[test]
fn killed_while_the_wal_is_trimmed_it_has_every_accepted_event_exactly_once() {
    let begins = |collector: &Collector| {
        let before = commits(&collector.dir);
        wait_closely("a commit", || !commits(&collector.dir).is_subset(&before));
    };
    let was_hit = |_: &Left, left: &Left| left.has_sealed_segments;
    Kill { begins: &begins, within: Duration::from_millis(3), was_hit: &was_hit }.again_and_again();
}

#[test]
fn killed_while_it_stops_it_has_every_accepted_event_exactly_once() {
    // In the drain, in the last seal and at the end of the wal.
    let begins = |collector: &Collector| collector.signal_term();
    Kill { begins: &begins, within: Duration::from_millis(100), was_hit: &|_, _| true }.again_and_again();
}

#[test]
fn killed_while_a_backup_is_made_it_has_every_accepted_event_exactly_once() {
    let command = RefCell::new(None);
    let begins = |collector: &Collector| {
        let dir = collector.dir.parent().expect("a folder");
        let mut backup = Command::new(program());
        backup.args(["backup", "copy", "--data-dir", "data"]).current_dir(dir);
        let child = backup.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        *command.borrow_mut() = Some(child.expect("the program runs"));
        wait_closely("a backup", || collector.dir.join("snapshot").exists());
    };
    let was_hit = |_: &Left, _: &Left| {
        let ended = command.borrow_mut().take().expect("one was begun").wait().expect("it ends");
        !ended.success()
    };
    Kill { begins: &begins, within: Duration::from_millis(40), was_hit: &was_hit }.again_and_again();
}

#[test]
fn killed_while_it_starts_it_has_every_accepted_event_exactly_once() {
    let (dir, mut random) = (tempfile::tempdir().expect("a folder"), Random::new(1));
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let mut oracle = Oracle::with_text(400);
    let mut collector = Collector::start_with(dir.path(), &SETTINGS);
    let token = collector.sensor("crash");
    let (mut hits, mut kills) = (0, 0);
    while hits < hits_min() {
        assert!(kills < 20 * hits_min(), "{hits} of {kills} kills hit");
        oracle.load_until((collector, &token), 10 + random.below(50), Collector::kill);
        for _ in 0..1 + random.below(3) {
            let out = std::fs::File::create(&log).expect("a log");
            let mut serve = Command::new(program());
            serve.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
            let (out, before) =
                (serve.envs(SETTINGS).stdout(out.try_clone().expect("a file")).stderr(out), wal_files(&data));
            let mut child = out.current_dir(dir.path()).spawn().expect("the program starts");
            // Some also before the wal is opened.
            if !random.once_in(3) {
                wait_closely("the wal", || wal_files(&data) != before);
            }
            sleep(Duration::from_micros(random.below(30_000)));
            child.kill().expect("the child is ours");
            child.wait().expect("it ends");
            let told = std::fs::read_to_string(&log).expect("the log");
            hits += u64::from(!told.contains("\"message\":\"ready\""));
            kills += 1;
        }
        collector = started_again(dir.path(), &oracle, &token);
    }
    assert_eq!(collector.terminate(), 0);
}
