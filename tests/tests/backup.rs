//! Backups: made while events come and with a collector that is stopped, restored into another folder, and compared event by event; what a kill,
//! a flipped byte and a wrong folder do to them.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tests::{Collector, catchment, program, said};

/// A batch of the roof is larger than `seal.bytes`: it is a seal of its own.
const SETTINGS: [(&str, &str); 3] = [
    ("CATCHMENT_SEAL__BYTES", "1MiB"),
    ("CATCHMENT_SEAL__AGE_SECONDS", "1s"),
    ("CATCHMENT_INGEST__SEGMENT_BYTES", "1MiB"),
];
const BATCH: u64 = 2_000;

fn batch(sensor: &str, number: u64) -> Vec<u8> {
    let (filler, mut lines) = ("x".repeat(500), String::new());
    for n in 0..BATCH {
        let data = format!("{{\"n\":{n},\"text\":\"{filler}\"}}");
        let _ = writeln!(lines, "{{\"id\":\"{sensor}-{number}-{n}\",\"type\":\"t\",\"data\":{data}}}");
    }
    lines.into_bytes()
}

fn send(collector: &Collector, token: &str, body: &[u8]) {
    let answer = collector.send(token, body);
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// Sends, and waits until it is in the lake.
fn sealed(collector: &Collector, token: &str, number: u64) {
    send(collector, token, &batch("roof", number));
    collector.wait_for("a seal", |c| c.metric("catchment_engine_live_rows") == 0.0);
}

/// All of the events up to a position, in order, as the API tells them.
fn events(collector: &Collector, until: u64) -> Vec<Value> {
    let mut all = Vec::new();
    while (all.len() as u64) < until {
        let (after, columns) = (all.len(), "position, id, sensor, source, type, subject, time, received_at, data");
        let sql = format!("SELECT {columns} FROM events WHERE position > {after} ORDER BY position LIMIT 10000");
        let page = collector.rows(&sql);
        assert!(!page.is_empty(), "{after} of {until} are there");
        all.extend(page.into_iter().map(Value::from));
    }
    all.truncate(until as usize);
    let positions = all.iter().map(|row| row[0].as_u64().expect("a position"));
    assert!(positions.eq(1..=until), "each position once");
    all
}

fn last_position(collector: &Collector) -> u64 {
    collector.rows("SELECT max(position) FROM events")[0][0].as_u64().expect("a position")
}

/// A folder of backups beside the data folder of a test.
fn backup(dir: &Path, to: &str) -> Output {
    catchment(dir, &["backup", to, "--data-dir", "data", "--json"], b"")
}

fn backed_up(dir: &Path, to: &str) -> Value {
    let output = backup(dir, to);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn restore(dir: &Path, from: &str, data: &Path) -> Output {
    catchment(dir, &["restore", from, "--data-dir", &data.display().to_string()], b"")
}

/// A collector over what is restored into a new folder.
fn restored(dir: &Path, from: &str) -> (tempfile::TempDir, Collector) {
    let new = tempfile::tempdir().expect("a folder");
    let output = restore(dir, from, &new.path().join("data"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let collector = Collector::start_with(new.path(), &SETTINGS);
    (new, collector)
}

fn complaint(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// All files below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The folder has the files that its manifest names, and no others.
fn assert_clean(folder: &Path) {
    let text = fs::read_to_string(folder.join("backup.json")).expect("a manifest");
    let manifest: Value = serde_json::from_str(&text).expect("JSON");
    let entries = manifest["backup"]["files"].as_array().expect("files");
    let mut named: BTreeSet<PathBuf> =
        entries.iter().map(|entry| folder.join(entry["stored"].as_str().expect("a path"))).collect();
    named.insert(folder.join("backup.json"));
    assert_eq!(files(folder).into_iter().collect::<BTreeSet<_>>(), named);
}

/// Lets go of what a killed command left held, as time would.
fn let_go(collector: &Collector) {
    let audit = collector.get("/api/v1/audit", &collector.token).json();
    let made = audit["entries"].as_array().expect("entries").iter().find(|entry| entry["act"] == "backup.make");
    if let Some(id) = made.and_then(|entry| entry["target"].as_str()?.strip_prefix("backup/")) {
        let path = format!("/api/v1/backups/{id}");
        let answer = collector.ask(("PATCH", &path), &collector.token, &[], br#"{"state": "failed"}"#);
        assert!([200, 404].contains(&answer.status), "{}", answer.text);
    }
    collector.wait_for("nothing held", |c| c.metric("catchment_server_backups_held") == 0.0);
}

/// No token in clear is in any file: none of these, and nothing that looks like one.
fn assert_no_token(folder: &Path, tokens: &[&str]) {
    for path in files(folder) {
        let bytes = fs::read(&path).expect("read");
        for token in tokens {
            assert!(!bytes.windows(token.len()).any(|part| part == token.as_bytes()), "a token in {}", path.display());
        }
        let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
        let is_token = |part: &[u8]| part.starts_with(b"cat_") && part[4..].iter().all(is_of_token);
        assert!(!bytes.windows(47).any(is_token), "what looks like a token in {}", path.display());
    }
}

#[test]
fn made_twice_while_events_come_it_restores_each_of_them_with_sensors_rejections_and_duplicates() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    let (roof, cellar) = (collector.sensor("roof"), collector.sensor("cellar"));
    (0..20).for_each(|number| sealed(&collector, &roof, number));
    collector.wait_for("a compaction", |c| c.metric("catchment_lake_compactions_total") >= 1.0);
    send(&collector, &cellar, b"{\"n\":1}\n{\"time\":\"yesterday\"}\n");
    let sent = catchment(dir.path(), &["send", "--data-dir", "data"], b"{\"n\":2}\n");
    assert!(sent.status.success() && dir.path().join("data/sensors/cli.token").exists(), "{sent:?}");
    let stop = AtomicBool::new(false);
    let (first, second, until) = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                send(&collector, &cellar, &batch("cellar", number));
                number += 1;
            }
        });
        let first = backed_up(dir.path(), "copy");
        sealed_on(&collector, &roof, 100);
        let until = last_position(&collector);
        let second = backed_up(dir.path(), "copy");
        stop.store(true, Ordering::Relaxed);
        load.join().expect("it sends");
        (first, second, until)
    });
    assert!(first["files"]["kept"] == 0 && second["files"]["kept"].as_u64() > Some(0), "{first} {second}");
    assert!(second["last_position"].as_u64() >= Some(until), "{second} {until}");
    assert!(collector.metric("catchment_server_backup_last_success_timestamp_seconds") > 1.7e9);
    assert_clean(&dir.path().join("copy"));
    let until = second["last_position"].as_u64().expect("a position");
    assert_eq!(second["events"], json!(until), "each event is in it once");
    let rejected = |c: &Collector| c.get("/api/v1/rejected", &c.token).json()["rejected"].clone();
    let (expected, expected_rejected) = (events(&collector, until), rejected(&collector));
    let kept = fs::read_to_string(dir.path().join("data/sensors/cli.token")).expect("a token");
    assert_no_token(&dir.path().join("copy"), &[&collector.token, &roof, &cellar, kept.trim()]);
    let admin = collector.token.clone();
    collector.kill();

    let (new, collector) = restored(dir.path(), "copy");
    assert_eq!(last_position(&collector), until);
    assert_eq!(events(&collector, until), expected);
    assert_eq!(rejected(&collector), expected_rejected);
    assert!(collector.token != admin && collector.get("/api/v1/tokens", &admin).status == 401, "another admin token");
    let again = collector.send(&cellar, &batch("cellar", 0)).json();
    assert_eq!((&again["accepted"], &again["duplicates"]), (&json!(0), &json!(BATCH)), "its sensors, its duplicates");
    sealed(&collector, &roof, 1000);
    assert_eq!(last_position(&collector), until + BATCH);
    // It goes on with the same backup, and copies what is new alone.
    let text = fs::canonicalize(dir.path().join("copy")).expect("the backup").display().to_string();
    let third = backed_up(new.path(), &text);
    assert!(third["files"]["kept"].as_u64().is_some(), "{third}");
    assert_eq!(collector.terminate(), 0);
}

/// The same beside others who send.
fn sealed_on(collector: &Collector, token: &str, number: u64) {
    let seals = collector.metric("catchment_engine_seals_total");
    send(collector, token, &batch("roof", number));
    collector.wait_for("two seals", |c| c.metric("catchment_engine_seals_total") >= seals + 2.0);
}

#[test]
fn what_is_there_already_is_not_copied_again_and_what_the_lake_has_no_more_goes() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    let roof = collector.sensor("roof");
    (0..3).for_each(|number| sealed(&collector, &roof, number));
    let first = backed_up(dir.path(), "copy");
    let second = backed_up(dir.path(), "copy");
    let kept = second["files"]["kept"].as_u64().expect("a number");
    assert_eq!((kept as f64, &first["files"]["kept"]), (collector.metric("catchment_lake_files"), &json!(0)));
    let copied = |summary: &Value| summary["files"]["copied"].as_u64().expect("a number");
    assert_eq!(copied(&second), copied(&first) - kept);
    (3..20).for_each(|number| sealed(&collector, &roof, number));
    collector.wait_for("a compaction", |c| c.metric("catchment_lake_compactions_total") >= 1.0);
    backed_up(dir.path(), "copy");
    assert_clean(&dir.path().join("copy"));
    let in_copy = files(&dir.path().join("copy/lake")).len();
    assert!(in_copy < 20, "{in_copy} data files");
    assert!(!dir.path().join("data/snapshot").exists(), "nothing is held any more");
    let lines = said(&catchment(dir.path(), &["backup", "copy", "--data-dir", "data"], b""));
    assert!(lines.starts_with("backup of 40000 events up to position 40000 in "), "{lines}");
    assert_eq!(collector.terminate(), 0);
}

/// A backup that runs.
fn begin(dir: &Path) -> Child {
    let mut command = Command::new(program());
    command.args(["backup", "copy", "--data-dir", "data"]).current_dir(dir);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program runs")
}

#[test]
fn killed_at_any_moment_it_leaves_the_backup_of_before_whole() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut collector = Collector::start_with(dir.path(), &SETTINGS);
    let roof = collector.sensor("roof");
    (0..4).for_each(|number| sealed(&collector, &roof, number));
    let mut whole = backed_up(dir.path(), "copy")["last_position"].as_u64().expect("a position");
    let (mut interrupted, mut number) = (0, 4);
    for (round, millis) in [4, 12, 20, 30, 45, 60, 90, 140].into_iter().enumerate() {
        send(&collector, &roof, &batch("roof", number));
        number += 1;
        let mut command = begin(dir.path());
        std::thread::sleep(Duration::from_millis(millis));
        if round % 2 == 0 {
            command.kill().expect("it is ours");
        } else {
            // The collector goes instead.
            collector.kill();
            collector = Collector::start_with(dir.path(), &SETTINGS);
            assert!(!dir.path().join("data/snapshot").exists(), "a start removes what was held");
        }
        let ended = command.wait().expect("it ends");
        interrupted += u32::from(!ended.success());
        let new = tempfile::tempdir().expect("a folder");
        let output = restore(dir.path(), "copy", &new.path().join("data"));
        let told = said(&output);
        let position =
            told.split("up to position ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        let position = position.unwrap_or_else(|| panic!("{output:?}"));
        assert!(position >= whole && (!ended.success() || position == number * BATCH), "in round {round}: {told}");
        whole = position;
        let_go(&collector);
    }
    assert!(interrupted > 0, "it was never interrupted");
    assert_eq!(backed_up(dir.path(), "copy")["last_position"], json!(number * BATCH));
    assert_clean(&dir.path().join("copy"));
    let expected = events(&collector, number * BATCH);
    let (_new, other) = restored(dir.path(), "copy");
    assert_eq!(events(&other, number * BATCH), expected);
    assert_eq!((collector.terminate(), other.terminate()), (0, 0));
}

#[test]
fn a_first_backup_that_is_killed_is_none_and_the_next_one_begins_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    sealed(&collector, &collector.sensor("roof"), 0);
    let mut command = begin(dir.path());
    tests::wait_until("its beginning", || dir.path().join("copy/backup.json").exists());
    command.kill().expect("it is ours");
    command.wait().expect("it ends");
    let new = dir.path().join("new");
    let output = restore(dir.path(), "copy", &new);
    if !output.status.success() {
        assert!(complaint(&output, 1).contains("no whole backup"), "{output:?}");
        assert!(!new.exists());
    }
    let_go(&collector);
    assert_eq!(backed_up(dir.path(), "copy")["events"], json!(BATCH));
    assert_clean(&dir.path().join("copy"));
}

#[test]
fn a_backup_with_a_flipped_byte_or_without_a_file_is_refused_by_its_name_and_nothing_is_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    sealed(&collector, &collector.sensor("roof"), 0);
    backed_up(dir.path(), "copy");
    let (copy, new) = (dir.path().join("copy"), dir.path().join("new"));
    let all = files(&copy);
    assert!(all.len() > 5, "{all:?}");
    for path in all {
        let whole = fs::read(&path).expect("read");
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 4;
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        for damaged in [Some(flipped), None] {
            match damaged {
                Some(bytes) => fs::write(&path, bytes).expect("written"),
                None => fs::remove_file(&path).expect("removed"),
            }
            let why = complaint(&restore(dir.path(), "copy", &new), 1);
            assert!(why.contains(&name) && !new.exists(), "{why}");
            fs::write(&path, &whole).expect("written");
        }
    }
    assert!(restore(dir.path(), "copy", &new).status.success(), "and it is whole again");
}

#[test]
fn folders_that_are_no_place_for_a_backup_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    let roof = collector.sensor("roof");
    sealed(&collector, &roof, 0);
    fs::create_dir(dir.path().join("full")).expect("made");
    fs::write(dir.path().join("full/letter"), "dear").expect("written");
    for (folder, why) in
        [("full", "letter"), ("data/copy", "inside the data folder"), ("data", "inside the data folder")]
    {
        let refused = complaint(&backup(dir.path(), folder), 1);
        assert!(refused.contains(why), "{folder}: {refused}");
    }
    assert!(!dir.path().join("data/copy").exists());
    backed_up(dir.path(), "old");
    assert!(complaint(&backup(dir.path(), "old/set-mine"), 1).contains("lies inside the backup"));
    sealed(&collector, &roof, 1);
    backed_up(dir.path(), "copy");
    // A backup that has more than what would take its place.
    let (new, other) = restored(dir.path(), "old");
    let copy = dir.path().join("copy").display().to_string();
    assert!(complaint(&backup(new.path(), &copy), 1).contains("would lose events"));
    assert_eq!(other.terminate(), 0);
    // One of another collector.
    let strange = tempfile::tempdir().expect("a folder");
    let stranger = Collector::start_with(strange.path(), &SETTINGS);
    sealed(&stranger, &stranger.sensor("roof"), 0);
    sealed(&stranger, &stranger.sensor("cellar"), 1);
    assert!(complaint(&backup(strange.path(), &copy), 1).contains("another data folder"));
    // Where something is, nothing is restored.
    let refused = complaint(&restore(dir.path(), "copy", &dir.path().join("full")), 1);
    assert!(refused.contains("letter"), "{refused}");
    let refused = complaint(&restore(dir.path(), "copy", &dir.path().join("data")), 1);
    assert!(refused.contains("empty folder"), "{refused}");
    assert!(complaint(&restore(dir.path(), "full", &dir.path().join("new")), 1).contains("no backup"));
    assert_clean(&dir.path().join("copy"));
}

#[test]
fn a_stopped_collector_and_a_killed_one_are_backed_up_without_a_byte_written_to_their_folder() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    let roof = collector.sensor("roof");
    (0..3).for_each(|number| sealed(&collector, &roof, number));
    send(&collector, &roof, b"{\"n\":1}\n{\"time\":\"yesterday\"}\n");
    let until = 3 * BATCH + 1;
    let expected = events(&collector, until);
    let stopped = |wal: fn(&Path) -> bool| {
        let before = listed(&dir.path().join("data"));
        let summary = backed_up(dir.path(), "copy");
        assert_eq!((&summary["events"], &summary["last_position"]), (&json!(until), &json!(until)));
        let after = listed(&dir.path().join("data"));
        assert_eq!(before, after);
        assert!(after.iter().any(|(path, _)| wal(path)));
        assert_clean(&dir.path().join("copy"));
        let (_new, other) = restored(dir.path(), "copy");
        assert_eq!(events(&other, until), expected);
        assert_eq!(other.get("/api/v1/rejected", &other.token).json()["kept_total"], json!(1));
        assert_eq!(other.terminate(), 0);
    };
    collector.kill();
    stopped(|path| path.to_string_lossy().ends_with(".sqlite-wal"));
    assert_eq!(Collector::start_with(dir.path(), &SETTINGS).terminate(), 0);
    stopped(|path| path.to_string_lossy().ends_with(".wal"));
}

/// The files below a folder with their bytes, but for the lock, which names who has it.
fn listed(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = files(dir).into_iter().filter(|path| !path.ends_with("wal/lock")).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).expect("read"))).collect()
}

#[test]
fn an_erasure_waits_while_a_backup_is_held_which_is_let_go_when_nobody_copies_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    let roof = collector.sensor("roof");
    sealed(&collector, &roof, 0);
    let take = || collector.ask(("POST", "/api/v1/backups"), &collector.token, &[], b"");
    let held = take();
    assert_eq!((held.status, &held.json()["events"]), (201, &json!(BATCH)), "{}", held.text);
    assert_eq!(take().json()["code"], "backup_busy");
    let path = "/api/v1/sensors/roof/events";
    assert_eq!(collector.ask(("DELETE", path), &collector.token, &[], b"").status, 202);
    let state = || collector.get(path, &collector.token).json()["state"].clone();
    let location = held.header("location").expect("where it is told of").to_owned();
    let say = |state: &str| {
        let body = json!({ "state": state }).to_string();
        collector.ask(("PATCH", &location), &collector.token, &[], body.as_bytes()).status
    };
    assert_eq!((say("copying"), say("sleeping"), state()), (200, 400, json!("running")));
    assert!(dir.path().join("data/snapshot/registry.sqlite").exists());
    // Nothing more is heard of it.
    collector.wait_for("the end of the erasure", |_| state() == "finished");
    assert_eq!((say("done"), dir.path().join("data/snapshot").exists()), (404, false));
    // What was erased is in no backup that is made afterwards; one that was asked for is done again after a restore.
    backed_up(dir.path(), "copy");
    let (_new, other) = restored(dir.path(), "copy");
    assert_eq!(other.rows("SELECT count(*) FROM events"), [[json!(0)]]);
    assert_eq!((collector.terminate(), other.terminate()), (0, 0));
}

#[test]
fn a_folder_that_is_not_wholly_restored_does_not_start_and_is_restored_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    sealed(&collector, &collector.sensor("roof"), 0);
    backed_up(dir.path(), "copy");
    let new = tempfile::tempdir().expect("a folder");
    let data = new.path().join("data");
    fs::create_dir_all(data.join("wal")).expect("made");
    fs::write(data.join("restore.unfinished"), "").expect("written");
    fs::write(data.join("wal/00000000000000000001.wal"), "half").expect("written");
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", "data"];
    let refused = catchment(new.path(), &arguments, b"");
    assert!(!refused.status.success() && format!("{refused:?}").contains("restore"), "{refused:?}");
    assert!(!data.join("registry.sqlite").exists(), "nothing was made");
    let output = restore(dir.path(), "copy", &data);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let other = Collector::start_with(new.path(), &SETTINGS);
    assert_eq!(events(&other, BATCH), events(&collector, BATCH));
}
