//! A disk without room: senders are told, reading goes on, a start goes on, and all of it recovers by itself.

use serde_json::json;
use std::path::Path;
use std::process::Command;
use tests::{Collector, skipped};

/// A small disk of its own, gone with the test.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(at))
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
    std::fs::create_dir(&data).expect("made");
    let Some(_disk) = SmallDisk::mount(&data) else {
        return skipped("a tmpfs cannot be mounted: only root may");
    };
    let settings = [("CATCHMENT_INGEST__SEGMENT_BYTES", "1MiB"), ("CATCHMENT_SEAL__AGE_SECONDS", "1h")];
    let collector = Collector::start_with(dir.path(), &settings);
    let token = collector.sensor("roof");
    assert_eq!(collector.send(&token, b"{\"n\":1}\n").json()["accepted"], 1);
    let filler = data.join("filler");
    let fill = || {
        let room =
            Command::new("dd").arg("if=/dev/zero").arg(format!("of={}", filler.display())).arg("bs=64k").output();
        assert!(room.is_ok_and(|output| !output.status.success()), "the disk is full");
    };
    fill();
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
    let collector = Collector::start_with(dir.path(), &settings);
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(accepted)]]);
    std::fs::remove_file(&filler).expect("removed");
    collector.wait_for("room", |c| c.send(&token, b"{\"n\":2}\n").status == 200);
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(accepted + 1)]]);
    assert!(!reasons(&collector).contains("\"storage\""));
    assert_eq!(collector.send(&token, rejected.as_bytes()).json()["code"], "all_rejected");
    assert_eq!(collector.rows("SELECT count(*) FROM rejected"), [[json!(1)]]);
    collector.assert_adds_up();
}
