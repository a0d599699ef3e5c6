//! What may not become a backup, or take the place of one: other events under the same wal, damaged files, what was interrupted; and folders with odd
//! names and places.

use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tests::{Collector, catchment, program, said};

const SETTINGS: [(&str, &str); 2] =
    [("CATCHMENT_SEAL__AGE_SECONDS", "1s"), ("CATCHMENT_INGEST__SEGMENT_BYTES", "1MiB")];
const BATCH: u64 = 100;

/// Sends a batch, and waits until it is in the lake.
fn sealed(collector: &Collector, token: &str, name: &str) {
    let lines: String =
        (0..BATCH).map(|n| format!("{{\"id\":\"{name}-{n}\",\"type\":\"t\",\"data\":{{\"n\":{n}}}}}\n")).collect();
    assert_eq!(collector.send(token, lines.as_bytes()).json()["accepted"], json!(BATCH));
    collector.wait_for("a seal", |c| c.metric("catchment_engine_live_rows") == 0.0);
}

fn backup(dir: &Path, to: &Path) -> Output {
    catchment(dir, &["backup", to.to_str().expect("text"), "--data-dir", "data", "--json"], b"")
}

fn backed_up(dir: &Path, to: &Path) -> Value {
    let output = backup(dir, to);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn restored(dir: &Path, from: &Path) -> tempfile::TempDir {
    let new = tempfile::tempdir().expect("a folder");
    let data = new.path().join("data").display().to_string();
    let output = catchment(dir, &["restore", from.to_str().expect("text"), "--data-dir", &data], b"");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    new
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn data_file(folder: &Path) -> PathBuf {
    let found = files(&folder.join("lake")).into_iter().find(|path| path.extension() == Some(OsStr::new("parquet")));
    found.expect("a data file")
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("read");
    let middle = bytes.len() / 3;
    bytes[middle] ^= 4;
    fs::write(path, bytes).expect("written");
}

/// How many events a backup has, once it is restored.
fn events_of(dir: &Path, from: &Path) -> u64 {
    let new = restored(dir, from);
    Collector::start_with(new.path(), &SETTINGS).rows("SELECT count(*) FROM events")[0][0].as_u64().expect("a number")
}

#[test]
fn a_collector_that_went_on_by_itself_does_not_take_the_place_of_another_in_a_backup() {
    let dir = tempfile::tempdir().expect("a folder");
    let copy = dir.path().join("copy");
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    let roof = collector.sensor("roof");
    sealed(&collector, &roof, "both");
    backed_up(dir.path(), &copy);
    let new = restored(dir.path(), &copy);
    let other = Collector::start_with(new.path(), &SETTINGS);
    // What was backed up goes on, and so does what was restored, further.
    sealed(&collector, &roof, "one");
    assert_eq!(backed_up(dir.path(), &copy)["last_position"], json!(2 * BATCH));
    ["x", "y"].iter().for_each(|name| sealed(&other, &roof, name));
    let refused = complaint(&backup(new.path(), &copy));
    assert!(refused.contains("has events that the data folder does not have"), "{refused}");
    assert_eq!(events_of(dir.path(), &copy), 2 * BATCH, "the one before is whole");
    // Nor the other way round.
    let second = dir.path().join("second");
    backed_up(new.path(), &second);
    sealed(&collector, &roof, "two");
    sealed(&collector, &roof, "three");
    assert!(complaint(&backup(dir.path(), &second)).contains("has events that the data folder does not have"));
    assert_eq!((collector.terminate(), other.terminate()), (0, 0));
    // A folder that was copied, without a restore, is known by the versions of its table.
    let clone = tempfile::tempdir().expect("a folder");
    let copied = Command::new("cp").arg("-a").arg(dir.path().join("data")).arg(clone.path()).status();
    assert!(copied.expect("it runs").success());
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    sealed(&collector, &roof, "here");
    backed_up(dir.path(), &copy);
    let other = Collector::start_with(clone.path(), &SETTINGS);
    ["there", "and on"].iter().for_each(|name| sealed(&other, &roof, name));
    assert!(complaint(&backup(clone.path(), &copy)).contains("has events that the data folder does not have"));
    assert_eq!((collector.terminate(), other.terminate()), (0, 0));
}

#[test]
fn a_damaged_file_of_the_lake_is_named_and_the_backup_of_before_stays() {
    let dir = tempfile::tempdir().expect("a folder");
    let copy = dir.path().join("copy");
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    let roof = collector.sensor("roof");
    sealed(&collector, &roof, "a");
    backed_up(dir.path(), &copy);
    let before = data_file(&dir.path().join("data"));
    sealed(&collector, &roof, "b");
    let after =
        files(&dir.path().join("data/lake")).into_iter().filter(|path| path.extension() == Some(OsStr::new("parquet")));
    let new = after.into_iter().find(|path| *path != before).expect("another data file");
    let commit = dir.path().join("data/lake/_delta_log/00000000000000000002.json");
    let refused = |damaged: &Path| {
        let whole = fs::read(damaged).expect("read");
        flip(damaged);
        let refused = complaint(&backup(dir.path(), &copy));
        let name = damaged.file_name().expect("a name").to_string_lossy();
        assert!(refused.contains(&*name) && refused.contains("is damaged"), "{refused}");
        assert!(refused.contains("is whole") && !refused.contains("Generic"), "{refused}");
        fs::write(damaged, &whole).expect("written");
    };
    [&new, &commit].into_iter().for_each(|damaged| refused(damaged));
    collector.kill();
    [&new, &commit].into_iter().for_each(|damaged| refused(damaged));
    let _collector = Collector::start_with(dir.path(), &SETTINGS);
    assert_eq!(events_of(dir.path(), &copy), BATCH);
    assert_eq!(backed_up(dir.path(), &copy)["events"], json!(2 * BATCH));
}

#[test]
fn a_damaged_segment_or_file_of_keys_is_named_and_the_backup_of_before_stays() {
    let dir = tempfile::tempdir().expect("a folder");
    let (copy, wal) = (dir.path().join("copy"), dir.path().join("data/wal"));
    let of = |ending: &str| {
        let found = files(&wal).into_iter().filter(|path| path.extension() == Some(OsStr::new(ending)));
        found.collect::<Vec<_>>()
    };
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    let roof = collector.sensor("roof");
    sealed(&collector, &roof, "a");
    collector.kill();
    // The start begins a segment; the one before it goes, and its keys stay.
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    sealed(&collector, &roof, "b");
    collector.wait_for("the trim", |_| of("keys").len() == 1 && of("wal").len() == 1);
    backed_up(dir.path(), &copy);
    sealed(&collector, &roof, "c");
    let (segment, keys) = (of("wal").remove(0), of("keys").remove(0));
    let refused = |damaged: &Path, at: usize| {
        let whole = fs::read(damaged).expect("read");
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs::write(damaged, bytes).expect("written");
        let refused = complaint(&backup(dir.path(), &copy));
        let name = damaged.file_name().expect("a name").to_string_lossy();
        assert!(refused.contains(&*name), "{name}: {refused}");
        fs::write(damaged, &whole).expect("written");
        assert_eq!(events_of(dir.path(), &copy), 2 * BATCH, "the one before is whole");
    };
    // In the first frame, which others follow.
    let both = || [(&segment, 4096 + 60), (&keys, 60)];
    both().into_iter().for_each(|(damaged, at)| refused(damaged, at));
    collector.kill();
    both().into_iter().for_each(|(damaged, at)| refused(damaged, at));
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    assert_eq!(backed_up(dir.path(), &copy)["events"], json!(3 * BATCH));
    assert_eq!(collector.terminate(), 0);
}

#[test]
fn a_backup_is_checked_without_being_restored_and_what_is_removed_is_copied_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    let copy = dir.path().join("copy");
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    sealed(&collector, &collector.sensor("roof"), "a");
    let inspect = |more: &[&str]| catchment(dir.path(), &[&["inspect", "backup", "copy"], more].concat(), b"");
    assert!(complaint(&inspect(&[])).contains("copy"));
    backed_up(dir.path(), &copy);
    let whole = said(&inspect(&[]));
    assert!(whole.contains(&format!("events   {BATCH}, up to position {BATCH}\n")), "{whole}");
    assert!(whole.ends_with("good     all files are there and as they were written\n"), "{whole}");
    let kept = data_file(&copy);
    flip(&kept);
    let output = inspect(&[]);
    let name = kept.file_name().expect("a name").to_string_lossy();
    assert!(said(&output).contains(&format!("{name}: its checksum does not hold")), "{output:?}");
    assert!(complaint(&output).contains("remove those that are there"), "{output:?}");
    let told: Value = serde_json::from_str(&said(&inspect(&["--json"]))).expect("JSON");
    assert_eq!((&told["events"], told["damage"].as_array().map(Vec::len)), (&json!(BATCH), Some(1)), "{told}");
    fs::remove_file(&kept).expect("removed");
    backed_up(dir.path(), &copy);
    assert!(inspect(&[]).status.success());
    assert_eq!(collector.terminate(), 0);
}

#[test]
fn a_backup_that_is_interrupted_is_let_go_at_once_and_leaves_the_one_before() {
    let dir = tempfile::tempdir().expect("a folder");
    let copy = dir.path().join("copy");
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    let roof = collector.sensor("roof");
    sealed(&collector, &roof, "a");
    backed_up(dir.path(), &copy);
    let mut interrupted = 0;
    for millis in [2, 5, 8, 12, 16, 20, 25, 30, 40, 60, 90, 140] {
        let lines = format!("{{\"n\":\"{}\"}}\n", "x".repeat(900)).repeat(2000);
        assert_eq!(collector.send(&roof, lines.as_bytes()).status, 200);
        let mut command = Command::new(program());
        command.args(["backup", "copy", "--data-dir", "data"]).current_dir(dir.path()).stdout(Stdio::null());
        let mut running = command.stderr(Stdio::null()).spawn().expect("it runs");
        std::thread::sleep(Duration::from_millis(millis));
        let pid = rustix::process::Pid::from_raw(i32::try_from(running.id()).expect("a pid")).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::INT).ok();
        let ended = running.wait().expect("it ends");
        interrupted += u32::from(!ended.success());
        assert_eq!(collector.metric("catchment_server_backups_held"), 0.0, "let go before it ends");
    }
    assert!(interrupted > 0, "it was never interrupted");
    assert!(catchment(dir.path(), &["inspect", "backup", "copy"], b"").status.success());
    assert_eq!(backed_up(dir.path(), &copy)["events"], json!(BATCH + 24_000));
    assert_eq!(collector.terminate(), 0);
}

#[test]
fn folders_of_any_name_are_taken_and_those_in_one_another_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    sealed(&collector, &collector.sensor("roof"), "a");
    let odd = dir.path().join(OsStr::from_bytes(b"of \xff name"));
    let run = |arguments: &[&OsStr]| {
        Command::new(program()).args(arguments).current_dir(dir.path()).output().expect("it runs")
    };
    let [backup, restore, data_dir, data] = ["backup", "restore", "--data-dir", "data"].map(OsStr::new);
    let output = run(&[backup, odd.join("copy").as_os_str(), data_dir, data]);
    assert!(output.status.success(), "{output:?}");
    let new = tempfile::tempdir().expect("a folder");
    let to = new.path().join("data");
    let output = run(&[restore, odd.join("copy").as_os_str(), data_dir, to.as_os_str()]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(Collector::start_with(new.path(), &SETTINGS).rows("SELECT count(*) FROM events"), [[BATCH]]);
    let refused = run(&[restore, odd.join("copy").as_os_str(), data_dir, odd.join("new").as_os_str()]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && told.contains("is no UTF-8"), "a data folder has to be: {told}");
    let around = dir.path().join("around");
    fs::create_dir(&around).expect("made");
    let output = run(&[backup, around.join("copy").as_os_str(), data_dir, data]);
    assert!(output.status.success(), "{output:?}");
    let refused = |place: &Path| {
        let refused = complaint(&run(&[restore, around.join("copy").as_os_str(), data_dir, place.as_os_str()]));
        assert!(refused.contains("lie in one another") && around.join("copy/backup.json").exists(), "{refused}");
    };
    for place in ["copy", "copy/new", "copy/lake/new", ""] {
        refused(&around.join(place));
    }
    // Also one around it in which a restore did not come to its end, which begins by removing what is there.
    fs::write(around.join("restore.unfinished"), "").expect("written");
    refused(&around);
}

#[test]
fn a_folder_that_is_not_wholly_restored_is_neither_looked_at_nor_repaired() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(dir.path().join("data/wal")).expect("made");
    fs::write(dir.path().join("data/restore.unfinished"), "").expect("written");
    for what in ["lake", "wal", "repair"] {
        let refused = complaint(&catchment(dir.path(), &["inspect", what, "--data-dir", "data"], b""));
        assert!(refused.contains("is not whole") && refused.contains("`catchment restore`"), "{refused}");
    }
}

#[test]
fn a_repaired_wal_is_backed_up_with_the_number_of_events_that_it_has() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = [("CATCHMENT_SEAL__AGE_SECONDS", "1h")];
    let collector = Collector::start_with(dir.path(), &settings);
    let roof = collector.sensor("roof");
    for _ in 0..3 {
        assert_eq!(collector.send(&roof, b"{\"n\":1}\n{\"n\":2}\n").json()["accepted"], 2);
    }
    collector.kill();
    let inspect = |more: &[&str]| catchment(dir.path(), &[&["inspect"], more, &["--data-dir", "data"]].concat(), b"");
    let shown: Value = serde_json::from_str(&said(&inspect(&["wal", "--json", "--frames"]))).expect("JSON");
    let segment = &shown["segments"][0];
    let path = PathBuf::from(segment["path"].as_str().expect("a path"));
    let at = usize::try_from(segment["frames"][1]["offset"].as_u64().expect("a number")).expect("small") + 40;
    let mut bytes = fs::read(&path).expect("read");
    bytes[at] ^= 1;
    fs::write(&path, bytes).expect("written");
    assert!(inspect(&["repair"]).status.success());
    let copy = dir.path().join("copy");
    let told = backed_up(dir.path(), &copy);
    assert_eq!((&told["events"], &told["last_position"]), (&json!(4), &json!(6)));
    assert_eq!(events_of(dir.path(), &copy), 4);
    let collector = Collector::start_with(dir.path(), &settings);
    assert_eq!(backed_up(dir.path(), &copy)["events"], json!(4), "also of a running collector");
    assert_eq!(collector.terminate(), 0);
}
