//! Files beside the events that are damaged: what is only beside does not stop the collector, and what is needed says what to do.

use serde_json::Value;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::{Collector, program};

/// The reason that the check of the rejected events gives.
fn reason(collector: &Collector) -> Option<String> {
    let ready = collector.get_admin("/readyz").json();
    assert_eq!(ready["status"], "ready", "{ready}");
    let reasons = ready["reasons"].as_array().expect("reasons");
    let of_rejected = reasons.iter().find(|reason| reason["check"] == "rejected")?;
    of_rejected["reason"].as_str().map(str::to_owned)
}

fn moved_aside(data: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(data).expect("the data folder").map(|file| file.expect("a file").path());
    files.filter(|file| file.to_string_lossy().contains("rejected.sqlite.damaged-")).collect()
}

/// Rejected events enough for many pages.
fn lines() -> Vec<u8> {
    (0..3000).map(|n| format!("[{n}]\n")).collect::<String>().into_bytes()
}

fn damage(file: &Path, offset: u64) {
    let file = std::fs::File::options().write(true).open(file).expect("the file");
    file.write_all_at(&[0xa5; 60_000], offset).expect("written");
}

#[test]
fn a_damaged_table_of_rejected_events_is_moved_aside_and_events_are_taken() {
    // In its head: it is no database. Behind it: it is one, with pages that cannot be read.
    for offset in [0, 8192] {
        let dir = tempfile::tempdir().expect("a folder");
        let collector = Collector::start(dir.path());
        let token = collector.sensor("roof");
        assert_eq!(collector.send(&token, &lines()).status, 400);
        assert_eq!(reason(&collector), None);
        assert_eq!(collector.terminate(), 0);
        let file = dir.path().join("data/rejected.sqlite");
        damage(&file, offset);
        let damaged = std::fs::read(&file).expect("the file");

        let collector = Collector::start(dir.path());
        let told = reason(&collector).expect("a reason");
        let aside = moved_aside(&collector.dir);
        let kept = aside.iter().find(|file| !file.to_string_lossy().ends_with("-wal")).expect("the file");
        assert!(told.contains(&kept.display().to_string()), "{told}");
        assert_eq!(std::fs::read(kept).expect("the file"), damaged, "nothing is deleted");
        assert_eq!(collector.metric("catchment_rejected_moved_aside_total"), 1.0);
        let log = std::fs::read_to_string(dir.path().join("log")).expect("the log");
        assert!(log.lines().any(|line| line.contains("\"ERROR\"") && line.contains(".damaged-")), "{log}");
        let answer = collector.send(&token, b"{\"n\":1}\n7\n").json();
        assert_eq!((&answer["accepted"], &answer["rejected_total"]), (&Value::from(1), &Value::from(1)));
        assert_eq!(collector.rows("SELECT data FROM rejected"), [["7"]]);
        assert_eq!(collector.terminate(), 0);
        let collector = Collector::start(dir.path());
        assert_eq!(reason(&collector), None, "the new one is whole");
    }
}

#[test]
fn a_table_of_rejected_events_that_is_removed_while_it_is_open_is_noticed() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    assert_eq!(reason(&collector), None);
    std::fs::remove_file(collector.dir.join("rejected.sqlite")).expect("removed");
    let told = reason(&collector).expect("a reason");
    assert!(told.contains("removed or replaced") && told.contains("restart"), "{told}");
}

#[test]
fn a_damaged_registry_stops_the_start_and_says_what_to_do() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    assert_eq!(collector.send(&token, b"{\"n\":1}").status, 200);
    assert_eq!(collector.terminate(), 0);
    let file = dir.path().join("data/registry.sqlite");
    damage(&file, 0);
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let output = Command::new(program()).args(serve).current_dir(dir.path()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    for said in ["registry.sqlite", "is damaged", "backup", "move it away"] {
        assert!(told.contains(said), "{said} is not in {told}");
    }
    assert!(file.exists(), "it is left as it is");
    // As it says.
    std::fs::rename(&file, dir.path().join("aside")).expect("moved");
    let collector = Collector::start(dir.path());
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[1]], "all events stay");
}

#[test]
fn a_registry_with_a_damaged_page_stops_the_start_and_not_its_first_caller() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    collector.sensor("roof");
    assert_eq!(collector.terminate(), 0);
    let file = dir.path().join("data/registry.sqlite");
    let whole = std::fs::read(&file).expect("the file");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let mut stopped = 0;
    for page in 1..whole.len() / 4096 {
        let mut damaged = whole.clone();
        damaged[page * 4096..(page + 1) * 4096].fill(0xa5);
        std::fs::write(&file, &damaged).expect("written");
        let checked = tests::catchment(dir.path(), &serve, b"");
        assert_eq!(checked.status.code(), Some(1), "page {page}");
        let told = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(told.contains("registry.sqlite") && told.contains("is damaged") && told.contains("backup"), "{told}");
        stopped += 1;
    }
    assert!(stopped > 3, "{stopped} pages");
    std::fs::write(&file, &whole).expect("brought back");
    Collector::start(dir.path());
}
