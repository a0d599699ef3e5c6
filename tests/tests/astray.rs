//! What stands in the place of something else: a folder whose name the library of the lake would misread, a registry with nothing in it, a data
//! folder in the place of another one, a token that none is, and what a repair leaves that ends half-way.

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Output;
use tests::{Collector, catchment, complained, inspect, refused_start, said};

fn serve(dir: &Path, data: &str) -> Output {
    catchment(dir, &["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", data], b"")
}

/// A folder with 200 events, whose collector was killed.
fn filled(dir: &Path) {
    let collector = Collector::start(dir);
    let token = collector.sensor("roof");
    for n in 0..4 {
        let lines: String = (0..50).map(|m| format!("{{\"n\":{}}}\n", n * 50 + m)).collect();
        assert_eq!(collector.send(&token, lines.as_bytes()).json()["accepted"], 50);
    }
    collector.kill();
}

#[test]
fn a_folder_whose_name_would_be_misread_is_refused_by_whatever_uses_it() {
    let dir = tempfile::tempdir().expect("a folder");
    filled(dir.path());
    let backup = catchment(dir.path(), &["backup", "copy", "--data-dir", "data"], b"");
    assert!(backup.status.success(), "{backup:?}");
    for (name, sign) in
        [("%41", "`%` before two hexadecimal digits"), ("a\\b", "'\\\\'"), ("a\nb", "'\\n'"), ("in%2F/data", "`%`")]
    {
        let restore = catchment(dir.path(), &["restore", "copy", "--data-dir", name], b"");
        for refused in [serve(dir.path(), name), restore] {
            let told = complained(&refused);
            assert_eq!(refused.status.code(), Some(2), "{name}: {told}");
            assert!(told.contains(sign) && told.contains("choose another name"), "{name}: {told}");
        }
        assert!(!dir.path().join(name).exists(), "{name}");
    }
    // Also through a link, and where no configuration is asked.
    fs::create_dir(dir.path().join("%42")).expect("made");
    fs::rename(dir.path().join("data"), dir.path().join("%42/data")).expect("moved");
    std::os::unix::fs::symlink("%42/data", dir.path().join("link")).expect("linked");
    for (command, code) in [
        (&["serve", "--listen", "127.0.0.1:0"][..], 2),
        (&["inspect", "lake"], 2),
        (&["inspect", "wal"], 2),
        (&["inspect", "repair"], 2),
        (&["backup", "of-link"], 1),
    ] {
        let refused = catchment(dir.path(), &[command, &["--data-dir", "link"]].concat(), b"");
        let told = complained(&refused);
        assert_eq!(refused.status.code(), Some(code), "{command:?}: {told}");
        assert!(told.contains("choose another name"), "{command:?}: {told}");
    }
    for name in ["100%", "a b", "%4", "ä#?", "50%off"] {
        let restored = catchment(dir.path(), &["restore", "copy", "--data-dir", name], b"");
        assert!(restored.status.success(), "{name}: {restored:?}");
        let looked = catchment(dir.path(), &["inspect", "wal", "--data-dir", name, "--json"], b"");
        let found: Value = serde_json::from_slice(&looked.stdout).expect("JSON");
        assert_eq!(found["events"], json!(200), "{name}: {found}");
    }
}

#[test]
fn a_registry_with_nothing_in_it_stops_the_start_and_the_backup_of_before_stays() {
    let dir = tempfile::tempdir().expect("a folder");
    filled(dir.path());
    let backup = || catchment(dir.path(), &["backup", "copy", "--data-dir", "data"], b"");
    assert!(backup().status.success());
    let registry = dir.path().join("data/registry.sqlite");
    for end in ["-wal", "-shm"] {
        drop(fs::remove_file(dir.path().join(format!("data/registry.sqlite{end}"))));
    }
    fs::write(&registry, b"").expect("emptied");
    let refused = refused_start(dir.path());
    assert!(refused.contains("registry.sqlite is damaged") && refused.contains("there is nothing in it"), "{refused}");
    let again = backup();
    assert!(!again.status.success() && complained(&again).contains("there is nothing in it"), "{again:?}");
    let checked = catchment(dir.path(), &["inspect", "backup", "copy"], b"");
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn a_collector_whose_folder_another_one_took_over_leaves_that_one_its_addresses() {
    let dir = tempfile::tempdir().expect("a folder");
    let old = Collector::start(dir.path());
    fs::rename(dir.path().join("data"), dir.path().join("moved")).expect("moved");
    let new = Collector::start(dir.path());
    let api = new.api.clone();
    assert_eq!(old.terminate(), 0);
    let listed = catchment(dir.path(), &["sensor", "list", "--data-dir", "data"], b"");
    assert!(listed.status.success(), "{listed:?}");
    let addresses = fs::read_to_string(dir.path().join("data/addresses.json")).expect("they are there");
    assert!(api.ends_with(serde_json::from_str::<Value>(&addresses).expect("JSON")["api"].as_str().expect("a text")));
    assert_eq!(new.terminate(), 0);
    assert!(!dir.path().join("data/addresses.json").exists());
}

#[test]
fn a_file_of_a_token_that_no_request_can_send_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    assert_eq!(Collector::start(dir.path()).terminate(), 0);
    let path = dir.path().join("data/admin.token");
    for text in [&[0; 48][..], b"two lines of a token, each of them long\nof which one is the second\n"] {
        fs::write(&path, text).expect("written");
        let refused = refused_start(dir.path());
        let named = format!("{} has no token that a request can send", path.display());
        assert!(refused.contains(&named), "{refused}");
    }
}

/// As when it is killed: what it knew is told before anything is changed.
#[test]
fn a_repair_that_ends_half_way_leaves_its_report() {
    let dir = tempfile::tempdir().expect("a folder");
    filled(dir.path());
    let collector = Collector::start(dir.path());
    let token = collector.sensor("cellar");
    for _ in 0..2 {
        assert_eq!(collector.send(&token, b"{\"n\":1}\n").json()["accepted"], 1);
    }
    collector.kill();
    let wal = dir.path().join("data/wal");
    let segments = fs::read_dir(&wal).expect("the wal").flatten().map(|entry| entry.path());
    let mut segments: Vec<_> = segments.filter(|path| path.extension().is_some_and(|e| e == "wal")).collect();
    segments.sort();
    for segment in &segments[..2] {
        let mut bytes = fs::read(segment).expect("read");
        bytes[4096 + 40] ^= 1;
        fs::write(segment, bytes).expect("damaged");
    }
    let asides = || {
        let data = fs::read_dir(dir.path().join("data")).expect("the folder").flatten().map(|entry| entry.path());
        data.filter(|path| path.to_string_lossy().contains("/damaged-")).collect::<Vec<_>>()
    };
    // The new file of the first cannot be made: nothing is changed. Then that of the second.
    let in_the_way = |n: usize| segments[n].with_extension("wal.new");
    fs::create_dir(in_the_way(0)).expect("made");
    assert!(!inspect(dir.path(), &["repair"]).status.success());
    assert_eq!(asides(), Vec::<std::path::PathBuf>::new());
    fs::rename(in_the_way(0), in_the_way(1)).expect("moved");
    let failed = inspect(dir.path(), &["repair"]);
    assert!(!failed.status.success() && said(&failed).is_empty(), "{failed:?}");
    let aside = asides().pop().expect("what was kept");
    let report = fs::read_to_string(aside.join("report.json")).expect("a report");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["wal"]["lost"], json!([{"min": 1, "max": 50}, {"min": 201, "max": 201}]), "{report}");
    assert_eq!(report["state"], json!("begun"));
    fs::remove_dir(in_the_way(1)).expect("removed");
    assert!(inspect(dir.path(), &["repair"]).status.success());
    assert_eq!(Collector::start(dir.path()).rows("SELECT count(*) FROM events"), [[151]]);
}
