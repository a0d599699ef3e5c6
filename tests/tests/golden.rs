//! Data folders of releases before are opened with all that is in them, and what a newer program wrote is turned away.
//!
//! `tests/golden/<version>.tar.gz` is the data folder of a collector of that version that was killed, with `told.json`: what it had answered.
//! `make release` adds the one of its version.

use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use tests::{Answer, Collector, catchment, complained, inspect, skipped};

const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");
const QUICK: [(&str, &str); 2] = [("CATCHMENT_SEAL__AGE_SECONDS", "1s"), ("CATCHMENT_INGEST__SEGMENT_BYTES", "1MiB")];
const SLOW: [(&str, &str); 2] = [("CATCHMENT_SEAL__AGE_SECONDS", "1h"), ("CATCHMENT_INGEST__SEGMENT_BYTES", "1MiB")];
const ERASED: &str = "/api/v1/sensors/gone/events";
const EVENTS: &str =
    "SELECT position, id, sensor, source, type, subject, time, received_at, data FROM events ORDER BY position";
const REJECTED: &str = "SELECT rejected_position, sensor, \"index\", code, reason, data FROM rejected ORDER BY 1";

/// Where Debian has it.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// What a release made here is called.
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn lines(prefix: &str, count: usize) -> Vec<u8> {
    let mut lines = String::new();
    for n in 0..count {
        let data = json!({"n": n, "word": format!("{prefix} ü \u{1f321}"), "deep": {"list": [n, null, true, 1.5e3]}});
        let _ = writeln!(lines, "{}", json!({"id": format!("{prefix}-{n}"), "type": "reading", "data": data}));
    }
    lines.into_bytes()
}

fn send(collector: &Collector, token: &str, body: &[u8], accepted: usize) {
    let answer = collector.send(token, body);
    assert_eq!((answer.status, &answer.json()["accepted"]), (200, &json!(accepted)), "{}", answer.text);
}

fn keyed(collector: &Collector, token: &str) -> Answer {
    collector.post("/api/v1/events", token, b"{\"keyed\":1}\n[4]\n", &[NDJSON, ("idempotency-key", "k")])
}

fn sealed(collector: &Collector) {
    collector.wait_for("a seal", |c| c.metric("catchment_engine_live_rows") == 0.0);
}

/// What of it can be told on another day.
fn told(collector: &Collector) -> Value {
    let sensors = collector.get("/api/v1/sensors", &collector.token).json();
    let sensors = sensors["sensors"].as_array().expect("sensors").iter();
    let mut sensors: Vec<_> = sensors.map(|sensor| json!([sensor["name"], sensor["sensorId"]])).collect();
    sensors.sort_by_key(Value::to_string);
    json!({"events": collector.rows(EVENTS), "rejected": collector.rows(REJECTED), "sensors": sensors})
}

/// A life with something of everything that a folder has, ended by signal 9: what it told.
fn lived(dir: &Path) -> Value {
    let collector = Collector::start_with(dir, &QUICK);
    let [roof, cellar, gone] = ["roof", "cellar", "gone"].map(|name| collector.sensor(name));
    let reader = collector.add_token(&json!({"name": "eyes", "role": "reader"}));
    send(&collector, &roof, &lines("first", 300), 300);
    let cloud = json!({"specversion": "1.0", "id": "c-1", "source": "/cellar", "type": "door", "subject": "north", "time": "2026-01-02T03:04:05.678901Z", "data": {"open": true}});
    let headers = [("content-type", "application/cloudevents+json")];
    let answer = collector.post("/api/v1/events", &cellar, cloud.to_string().as_bytes(), &headers);
    assert_eq!(answer.status, 200, "{}", answer.text);
    send(&collector, &gone, &lines("gone", 50), 50);
    send(&collector, &cellar, b"[3]\nnot JSON\n{\"without\":\"an id\"}\n", 1);
    sealed(&collector);
    let erased = collector.ask(("DELETE", ERASED), &collector.token, &[], b"");
    assert_eq!(erased.status, 202, "{}", erased.text);
    collector.wait_for("the erasure", |c| c.get(ERASED, &c.token).json()["state"] == "finished");
    send(&collector, &roof, &lines("second", 300), 300);
    sealed(&collector);
    assert_eq!(collector.terminate(), 0);
    let collector = Collector::start_with(dir, &SLOW);
    send(&collector, &cellar, &lines("live", 100), 100);
    let keyed = keyed(&collector, &roof);
    assert_eq!(keyed.status, 200, "{}", keyed.text);
    collector.wait_for("what was rejected", |c| c.rows("SELECT count(*) FROM rejected") == [[json!(3)]]);
    let mut told = told(&collector);
    told["tokens"] = json!({"roof": roof, "cellar": cellar, "reader": reader["token"], "admin": collector.token});
    told["keyed"] = json!(keyed.text);
    told["at"] = json!(unix_seconds());
    collector.kill();
    std::fs::write(dir.join("told.json"), serde_json::to_vec_pretty(&told).expect("JSON")).expect("written");
    told
}

fn tar(args: &[&str], dir: &Path) {
    let output = Command::new("tar").args(args).current_dir(dir).output().expect("tar is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Makes the folder of this program.
fn made(archive: &Path) {
    let dir = tempfile::tempdir().expect("a folder");
    lived(dir.path());
    let archive = archive.to_str().expect("a text");
    std::fs::create_dir_all(folder()).expect("made");
    tar(
        &["--create", "--gzip", "--sort=name", "--owner=0", "--group=0", "--file", archive, "data", "told.json"],
        dir.path(),
    );
}

/// Looks at what the folder held, as this program has it at its first start and at the next one.
fn opened(dir: &Path, told: &Value, clock: &[(&str, &str)]) {
    let collector = Collector::start_with(dir, &[&QUICK, clock].concat());
    let rows = told["events"].as_array().expect("rows").len();
    let now = self::told(&collector);
    assert_eq!((&now["events"], &now["sensors"]), (&told["events"], &told["sensors"]));
    let [roof, reader, admin] = ["roof", "reader", "admin"].map(|name| told["tokens"][name].as_str().expect("a token"));
    assert_eq!(collector.token, admin);
    assert_eq!(collector.get("/api/v1/fields", reader).status, 200, "tokens are those of before");
    if !clock.is_empty() {
        // On the day of then: later they are forgotten.
        assert_eq!(now["rejected"], told["rejected"]);
        let again = collector.send(roof, &[lines("first", 300), lines("second", 300)].concat()).json();
        assert_eq!((&again["accepted"], &again["duplicates"]), (&json!(0), &json!(600)));
        let again = keyed(&collector, roof);
        assert_eq!(
            (again.text.as_str(), again.header("idempotency-replayed")),
            (told["keyed"].as_str().expect("a text"), Some("true"))
        );
    }
    send(&collector, roof, b"{\"later\":1}\n", 1);
    collector.wait_for("the new one", |c| c.rows("SELECT count(*) FROM events") == [[json!(rows + 1)]]);
    assert_eq!(collector.rows("SELECT max(position) FROM events"), [[json!(last(told) + 1)]]);
    sealed(&collector);
    assert_eq!(collector.terminate(), 0);
    for what in ["wal", "lake"] {
        let output = catchment(dir, &["inspect", what, "--data-dir", "data"], b"");
        assert!(output.status.success(), "inspect {what}: {output:?}");
    }
    let collector = Collector::start_with(dir, clock);
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(rows + 1)]]);
    assert_eq!(collector.terminate(), 0);
}

fn last(told: &Value) -> u64 {
    told["events"].as_array().and_then(|rows| rows.last()?[0].as_u64()).expect("a position")
}

fn golden() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).expect("the folder of golden folders");
    let mut found: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    found.retain(|path| path.to_string_lossy().ends_with(".tar.gz"));
    found.sort();
    found
}

fn unpacked(archive: &Path) -> (tempfile::TempDir, Value) {
    let dir = tempfile::tempdir().expect("a folder");
    tar(&["--extract", "--no-same-owner", "--file", archive.to_str().expect("a text")], dir.path());
    let told = std::fs::read(dir.path().join("told.json")).expect("what it told");
    (dir, serde_json::from_slice(&told).expect("JSON"))
}

/// Every folder, at the time that the clock tells from the one of its making.
fn open_all(clock: impl Fn(&Value) -> Vec<(&'static str, String)>) {
    let golden = golden();
    assert!(!golden.is_empty());
    for archive in golden {
        let (dir, told) = unpacked(&archive);
        drop(writeln!(std::io::stderr(), "{}", archive.display()));
        let clock = clock(&told);
        let clock: Vec<_> = clock.iter().map(|(name, value)| (*name, value.as_str())).collect();
        opened(dir.path(), &told, &clock);
    }
}

#[test]
fn the_folder_of_every_version_before_opens_with_all_that_is_in_it() {
    open_all(|_| Vec::new());
}

#[test]
fn on_the_day_it_was_made_duplicates_and_rejected_events_are_known_too() {
    if !Path::new(FAKETIME).exists() {
        return skipped(&format!("{FAKETIME} is missing: apt-get install faketime"));
    }
    open_all(|told| {
        let shift = (unix_seconds() - told["at"].as_u64().expect("seconds")).saturating_sub(60);
        vec![
            ("LD_PRELOAD", FAKETIME.to_owned()),
            ("FAKETIME", format!("-{shift}s")),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    });
}

#[test]
fn the_folder_of_every_release_is_kept() {
    let changelog =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../CHANGELOG.md")).expect("the changelog");
    for line in changelog.lines() {
        let Some((release, _)) = line.strip_prefix("## [").and_then(|rest| rest.split_once("] - ")) else { continue };
        let archive = folder().join(format!("{release}.tar.gz"));
        if release == version() && !archive.exists() && std::env::var_os("UPDATE_GENERATED").is_some() {
            made(&archive);
        }
        assert!(archive.exists(), "{} is missing: `make generated` of that release makes it", archive.display());
    }
}

/// One file as a newer program would have written it.
struct Newer {
    what: &'static str,
    change: fn(&Path),
    told: &'static str,
}

/// A file of that ending in the folder, the first by name.
fn first(folder: &Path, ending: &str) -> PathBuf {
    let entries = std::fs::read_dir(folder).expect("the folder");
    let found = entries.map(|entry| entry.expect("an entry").path());
    let path = found.filter(|path| path.to_string_lossy().ends_with(ending)).min();
    path.unwrap_or_else(|| panic!("no {ending} in {}", folder.display()))
}

fn changed(path: &Path, change: impl FnOnce(&mut [u8])) {
    let mut bytes = std::fs::read(path).expect("read");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("written");
}

/// `PRAGMA user_version`, where SQLite has it.
fn user_version(path: &Path) {
    changed(path, |bytes| bytes[60..64].copy_from_slice(&99_u32.to_be_bytes()));
}

fn segment(data: &Path) {
    changed(&first(&data.join("wal"), ".wal"), |bytes| {
        bytes[8..12].copy_from_slice(&99_u32.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..4092]);
        bytes[4092..4096].copy_from_slice(&crc.to_le_bytes());
    });
}

fn newest(data: &Path) {
    changed(&data.join("wal/newest"), |bytes| {
        bytes[8..12].copy_from_slice(&99_u32.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    });
}

fn keys(data: &Path) {
    changed(&first(&data.join("wal"), ".keys"), |bytes| {
        bytes[8..12].copy_from_slice(&99_u32.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..32]), &bytes[36..]);
        bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    });
}

fn commit(data: &Path, action: &Value) {
    let log = data.join("lake/_delta_log");
    let commits = std::fs::read_dir(&log).expect("the log").filter_map(|entry| {
        let name = entry.expect("an entry").file_name().into_string().expect("a text");
        name.strip_suffix(".json")?.parse::<u64>().ok()
    });
    let newest = commits.max().expect("a commit");
    std::fs::write(log.join(format!("{:020}.json", newest + 1)), format!("{action}\n")).expect("written");
}

const NEWER: [Newer; 7] = [
    Newer { what: "which segment is the newest", change: newest, told: "newest has format version 99" },
    Newer { what: "a segment", change: segment, told: ".wal has format version 99" },
    Newer { what: "a file of keys", change: keys, told: ".keys has format version 99" },
    Newer {
        what: "the registry",
        change: |data| user_version(&data.join("registry.sqlite")),
        told: "registry.sqlite has format version 99",
    },
    Newer {
        what: "the rejected events",
        change: |data| user_version(&data.join("rejected.sqlite")),
        told: "rejected.sqlite has format version 99",
    },
    Newer {
        what: "the table, for readers",
        change: |data| commit(data, &json!({"protocol": {"minReaderVersion": 99, "minWriterVersion": 99}})),
        told: "lake has a format that this program does not know",
    },
    Newer {
        what: "the table, for writers",
        change: |data| commit(data, &json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 6}})),
        told: "lake has a format that this program does not know",
    },
];

#[test]
fn what_a_newer_program_wrote_is_turned_away_and_left_as_it_is() {
    for Newer { what, change, told } in NEWER {
        let dir = tempfile::tempdir().expect("a folder");
        drop(lived(dir.path()));
        change(&dir.path().join("data"));
        let before = contents(&dir.path().join("data"));
        let why = Collector::try_start_with(dir.path(), &[]).err().unwrap_or_else(|| panic!("{what}: it starts"));
        let advice =
            "a newer program wrote it: install that version again, or restore a backup made before the upgrade";
        assert!(why.contains("exit status: 1") && why.contains(told) && why.contains(advice), "{what}: {why}");
        let backup = catchment(dir.path(), &["backup", "copy", "--data-dir", "data"], b"");
        assert!(complained(&backup).contains(told) && !backup.status.success(), "{what}: {backup:?}");
        if what.starts_with("the table") {
            let shown = inspect(dir.path(), &["lake"]);
            assert!(complained(&shown).contains(told) && !shown.status.success(), "{what}: {shown:?}");
        }
        let after = contents(&dir.path().join("data"));
        let changed: Vec<_> = before.iter().filter(|file| !after.contains(file)).collect();
        assert!(changed.is_empty(), "{what}: {changed:?}");
    }
}

/// Names and checksums of what holds events.
fn contents(data: &Path) -> Vec<(PathBuf, u32)> {
    let mut all = Vec::new();
    let mut folders = vec![data.join("wal"), data.join("lake")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("lock") {
                all.push((path.clone(), crc32c::crc32c(&std::fs::read(path).expect("read"))));
            }
        }
    }
    all.sort();
    all
}
