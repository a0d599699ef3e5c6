//! A disk without room: senders are told, reading goes on, a start goes on, all of it recovers by itself, and `catchment doctor` says so.

use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::{Collector, catchment_with, skipped};

/// Events are taken until nothing is free, and nothing is sealed meanwhile.
const UNTIL_FULL: [(&str, &str); 3] = [
    ("CATCHMENT_DATA__FREE_BYTES_MIN", "0"),
    ("CATCHMENT_INGEST__SEGMENT_BYTES", "1MiB"),
    ("CATCHMENT_SEAL__AGE_SECONDS", "1h"),
];

/// A small disk of its own, gone with the test.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// Mounts it in a folder that is made; without one the test is skipped.
    fn mount(at: &'a Path, size: &str) -> Option<Self> {
        std::fs::create_dir(at).expect("made");
        let size = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            skipped("a tmpfs cannot be mounted: only root may");
            return None;
        }
        Some(Self(at))
    }

    /// Fills it, but for so many KiB.
    fn fill(&self, but_kib: u64) -> PathBuf {
        let (filler, room) = (self.0.join("filler"), self.0.join("room"));
        let kib = |path: &Path, count: &str| {
            Command::new("dd").arg("if=/dev/zero").arg(format!("of={}", path.display())).args(["bs=1k", count]).output()
        };
        let made = kib(&room, &format!("count={but_kib}"));
        assert!(made.is_ok_and(|output| output.status.success()), "there is as much");
        let filled = kib(&filler, "count=1048576");
        assert!(filled.is_ok_and(|output| !output.status.success()), "the disk is full");
        std::fs::remove_file(room).expect("removed");
        filler
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(self.0).output());
    }
}

#[test]
fn on_a_full_disk_senders_are_told_reading_and_starting_go_on_and_room_is_noticed() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let Some(disk) = SmallDisk::mount(&data, "16m") else { return };
    let collector = Collector::start_with(dir.path(), &UNTIL_FULL);
    let token = collector.sensor("roof");
    assert_eq!(collector.send(&token, b"{\"n\":1}\n").json()["accepted"], 1);
    let filler = disk.fill(0);
    let line = format!("{{\"x\":\"{}\"}}\n", "x".repeat(3000));
    let mut accepted = 1;
    let refused = loop {
        let answer = collector.send(&token, line.as_bytes());
        if answer.status != 200 {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 10_000, "the disk is full at last");
    };
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("storage_full")), "{}", refused.text);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(accepted)]], "reading goes on");
    let rejected = format!("[\"{}\"]\n", "x".repeat(60_000));
    let unkept = collector.send(&token, rejected.as_bytes());
    assert_eq!((unkept.status, &unkept.json()["code"]), (503, &json!("rejected_unavailable")), "{}", unkept.text);
    assert_eq!(collector.rows("SELECT count(*) FROM rejected"), [[json!(0)]]);
    let reasons = |collector: &Collector| collector.get_admin("/readyz").json()["reasons"].to_string();
    assert!(reasons(&collector).contains("\"storage\""), "the reason can be read");
    collector.assert_adds_up();
    collector.kill();

    // A start on the full disk: what is there can be read.
    let collector = Collector::start_with(dir.path(), &UNTIL_FULL);
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(accepted)]]);
    std::fs::remove_file(&filler).expect("removed");
    collector.wait_for("room", |c| c.send(&token, b"{\"n\":2}\n").status == 200);
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(accepted + 1)]]);
    assert!(!reasons(&collector).contains("\"storage\""));
    assert_eq!(collector.send(&token, rejected.as_bytes()).json()["code"], "all_rejected");
    assert_eq!(collector.rows("SELECT count(*) FROM rejected"), [[json!(1)]]);
    collector.assert_adds_up();
}

#[test]
fn below_the_floor_events_are_turned_away_and_all_else_goes_on_until_there_is_room_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let Some(disk) = SmallDisk::mount(&data, "96m") else { return };
    let settings = [("CATCHMENT_DATA__FREE_BYTES_MIN", "32MiB"), ("CATCHMENT_INGEST__SEGMENT_BYTES", "1MiB")];
    let collector = Collector::start_with(dir.path(), &settings);
    let token = collector.sensor("roof");
    let reasons = || collector.get_admin("/readyz").json()["reasons"].to_string();
    let send = || collector.send(&token, b"{\"n\":1}\n");
    assert_eq!((send().json()["accepted"].clone(), reasons()), (json!(1), "[]".to_owned()));
    let filler = disk.fill(20 << 10);
    collector.wait_for("the floor", |_| send().status == 503);
    let refused = send();
    assert_eq!((&refused.json()["code"], refused.header("retry-after").is_some()), (&json!("storage_full"), true));
    assert!(reasons().contains("\"storage\"") && reasons().contains("less than data.free_bytes_min"), "{}", reasons());
    let before = collector.rows("SELECT count(*) FROM events")[0][0].as_u64().expect("a number");
    let erased = collector.ask(("DELETE", "/api/v1/sensors/roof/events"), &collector.token, &[], b"");
    assert_eq!(erased.status, 202, "{}", erased.text);
    collector.wait_for("the erasure", |c| c.rows("SELECT count(*) FROM events") == [[json!(0)]]);
    std::fs::remove_file(&filler).expect("removed");
    // Also when nobody sends.
    collector.wait_for("room", |_| !reasons().contains("\"storage\""));
    assert_eq!(send().json()["accepted"], 1);
    assert!(before > 0);
    collector.assert_adds_up();
}

#[test]
fn below_the_floor_live_events_are_sealed_and_old_ones_go() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let Some(disk) = SmallDisk::mount(&data, "96m") else { return };
    let floor = [("CATCHMENT_DATA__FREE_BYTES_MIN", "32MiB"), ("CATCHMENT_INGEST__SEGMENT_BYTES", "1MiB")];
    let collector = Collector::start_with(dir.path(), &[&floor[..], &[("CATCHMENT_SEAL__AGE_SECONDS", "1h")]].concat());
    let token = collector.sensor("roof");
    // It does not compress.
    let text =
        |n: u64| (0..140).map(move |m| format!("{:016x}", (140 * n + m + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let lines: String = (0..1500).map(|n| format!("{{\"text\":\"{}\"}}\n", text(n).collect::<String>())).collect();
    assert_eq!(collector.send(&token, lines.as_bytes()).json()["accepted"], 1500);
    assert_eq!(collector.metric("catchment_engine_live_rows"), 1500.0, "none is sealed yet");
    collector.kill();
    disk.fill(20 << 10);
    let limits = [("CATCHMENT_SEAL__AGE_SECONDS", "1s"), ("CATCHMENT_RETENTION__BYTES_MAX", "1MiB")];
    let collector = Collector::start_with(dir.path(), &[&floor[..], &limits].concat());
    collector.wait_for("the seal", |c| c.metric("catchment_engine_sealed_rows_total") == 1500.0);
    collector.wait_for("that old events go", |c| c.metric("catchment_lake_expired_rows") > 0.0);
    assert!(collector.metric("catchment_lake_bytes") <= (1 << 20) as f64);
    let refused = collector.send(&token, b"{\"n\":1}\n");
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("storage_full")), "{}", refused.text);
    collector.assert_adds_up();
}

#[test]
fn of_a_batch_with_many_rejected_events_all_are_kept_or_none_and_each_is_counted_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let Some(disk) = SmallDisk::mount(&data, "64m") else { return };
    let collector = Collector::start_with(dir.path(), &UNTIL_FULL);
    let token = collector.sensor("roof");
    let count = || collector.rows("SELECT count(*) FROM rejected")[0][0].clone();
    let bad = format!("[\"{}\"]\n", "x".repeat(1500)).repeat(6000);
    let filler = disk.fill(4 << 10);
    for _ in 0..2 {
        let unkept = collector.send(&token, bad.as_bytes());
        assert_eq!((unkept.status, &unkept.json()["code"]), (503, &json!("rejected_unavailable")), "{}", unkept.text);
        assert_eq!((count(), collector.metric("catchment_rejected_stored_total")), (json!(0), 0.0));
        collector.assert_adds_up();
    }
    std::fs::remove_file(&filler).expect("removed");
    assert_eq!(collector.send(&token, bad.as_bytes()).json()["code"], "all_rejected");
    assert_eq!((count(), collector.metric("catchment_rejected_stored_total")), (json!(6000), 6000.0));
    collector.assert_adds_up();
}

#[test]
fn where_a_new_folder_cannot_be_filled_the_start_fails_and_doctor_says_so_before() {
    let dir = tempfile::tempdir().expect("a folder");
    let place = dir.path().join("place");
    let Some(disk) = SmallDisk::mount(&place, "16m") else { return };
    let data = place.join("data");
    let settings = [("CATCHMENT_HTTP__LISTEN", "127.0.0.1:0"), ("CATCHMENT_ADMIN__LISTEN", "127.0.0.1:0")];
    let run = |command: &[&str]| {
        let folder = ["--data-dir", data.to_str().expect("a path of text")];
        let output = catchment_with(dir.path(), &[command, &folder[..]].concat(), b"", &settings);
        let (found, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), format!("{found}{said}"))
    };
    let (_, little) = run(&["doctor"]);
    assert!(little.contains("LOOK  disk") && little.contains("less than 1 GiB is free"), "{little}");
    let assert_both_fail = |why: &str, why_serve: &str| {
        let (code, found) = run(&["doctor"]);
        assert!(found.contains("BAD   disk") && found.contains("cannot write in ") && found.contains(why), "{found}");
        let (serve, said) = run(&["serve"]);
        assert!(said.contains(why_serve), "{said}");
        assert_eq!((code, serve), (Some(1), Some(1)));
    };
    disk.fill(0);
    assert_both_fail("No space left on device", "full");
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&place).output();
    assert!(remounted.is_ok_and(|output| output.status.success()), "it can be mounted once, so it can be again");
    assert_both_fail("Read-only file system", "Read-only file system");
}

#[test]
fn a_backup_that_finds_no_room_leaves_the_one_before_and_nothing_of_itself() {
    let dir = tempfile::tempdir().expect("a folder");
    let (data, copies) = (dir.path().join("data"), dir.path().join("copies"));
    let (Some(of_data), Some(of_copies)) = (SmallDisk::mount(&data, "16m"), SmallDisk::mount(&copies, "16m")) else {
        return;
    };
    let collector = Collector::start_with(dir.path(), &UNTIL_FULL);
    let token = collector.sensor("roof");
    let send = |n: u64| assert_eq!(collector.send(&token, format!("{{\"n\":{n}}}").as_bytes()).status, 200);
    let backup = || catchment_with(dir.path(), &["backup", "copies/roof", "--data-dir", "data"], b"", &[]);
    let refused = |why: &str| {
        let output = backup();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && told.contains(why) && told.contains("is whole"), "{told}");
        let sets = std::fs::read_dir(copies.join("roof")).expect("a folder").flatten();
        let sets = sets.filter(|entry| entry.file_name().to_string_lossy().starts_with("set-")).count();
        assert_eq!((sets, data.join("snapshot").exists()), (1, false), "nothing of it is left");
    };
    send(1);
    assert!(backup().status.success());
    send(2);
    // The disk of the backup, and that of the collector.
    let filler = of_copies.fill(16);
    refused("No space left on device");
    std::fs::remove_file(filler).expect("removed");
    let filler = of_data.fill(4);
    refused("full");
    let new = dir.path().join("new").display().to_string();
    let restored = catchment_with(dir.path(), &["restore", "copies/roof", "--data-dir", &new], b"", &[]);
    assert!(
        String::from_utf8_lossy(&restored.stdout).starts_with("restored 1 events up to position 1 "),
        "{restored:?}"
    );
    std::fs::remove_file(filler).expect("removed");
    assert!(backup().status.success());
    send(3);
    assert_eq!(collector.terminate(), 0);
}
