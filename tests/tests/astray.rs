//! What stands in the place of something else: a folder whose name the library of the lake would misread, a registry with nothing in it, a data
//! folder in the place of another one, a token that none is, and what a repair leaves that ends half-way.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use tests::{Collector, catchment, complained, inspect, refused_start, said, wait_until};

/// All files below a folder, with what is in them; of a pipe nothing is read.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut all, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() && !path.ends_with("lock") {
                all.push((path.clone(), fs::read(path).expect("read")));
            }
        }
    }
    all.sort();
    all
}

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
        let mut asides: Vec<_> = data.filter(|path| path.to_string_lossy().contains("/damaged-")).collect();
        asides.sort();
        asides
    };
    // The new file of the first cannot be made, then that of the second.
    let in_the_way = |n: usize| segments[n].with_extension("wal.new");
    fs::create_dir(in_the_way(0)).expect("made");
    assert!(!inspect(dir.path(), &["repair"]).status.success());
    let first = asides().pop().expect("a report");
    assert!(first.join("report.json").exists() && !first.join("wal").exists(), "nothing was moved aside");
    fs::rename(in_the_way(0), in_the_way(1)).expect("moved");
    let failed = inspect(dir.path(), &["repair"]);
    assert!(!failed.status.success() && said(&failed).is_empty(), "{failed:?}");
    assert_eq!(asides().len(), 2);
    let aside = asides().pop().expect("what was kept");
    let report = fs::read_to_string(aside.join("report.json")).expect("a report");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["wal"]["lost"], json!([{"min": 1, "max": 50}, {"min": 201, "max": 201}]), "{report}");
    assert_eq!(report["state"], json!("begun"));
    fs::remove_dir(in_the_way(1)).expect("removed");
    assert!(inspect(dir.path(), &["repair"]).status.success());
    assert_eq!(Collector::start(dir.path()).rows("SELECT count(*) FROM events"), [[151]]);
}

#[test]
fn what_has_the_name_of_a_file_and_is_none_is_named_and_nothing_is_changed() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "1s")]);
    let token = collector.sensor("roof");
    assert_eq!(collector.send(&token, b"{\"id\":\"one\",\"n\":1}\n").json()["accepted"], 1);
    let data = dir.path().join("data");
    let inside = |folder: &Path| {
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let data_file = || {
        let days =
            inside(&data.join("lake")).into_iter().filter(|day| day.to_string_lossy().contains("/received_date="));
        days.flat_map(|day| inside(&day)).find(|path| path.extension().is_some_and(|end| end == "parquet"))
    };
    wait_until("a seal", || data_file().is_some());
    assert_eq!(collector.terminate(), 0);
    let named = |name: &str| data.join(name);
    let files = ["wal/00000000000000000001.wal", "wal/newest", "lake/_delta_log/00000000000000000001.json"].map(named);
    let files =
        files.into_iter().chain(["registry.sqlite", "rejected.sqlite", "admin.token"].map(named)).chain(data_file());
    let kept = dir.path().join("kept");
    let others = ["lake/_clock", "addresses.json", "registry.sqlite-wal"].map(named);
    let day = data_file().and_then(|file| Some(file.parent()?.to_owned()));
    let folders = ["wal", "lake", "lake/_delta_log", "sensors", "spill"].map(named).into_iter().chain(day);
    // Of a user, who may have what has no place of the collector's.
    fs::create_dir(named("export.parquet")).expect("made");
    for path in files.chain(others).chain(folders) {
        let is_folder = path.is_dir() || ["spill", "sensors"].iter().any(|name| path.ends_with(name));
        let name = path.strip_prefix(dir.path()).expect("below").display().to_string();
        let is_there = path.exists();
        if is_there {
            fs::rename(&path, &kept).expect("moved");
        }
        let before = contents(&data);
        for what in if is_folder { &["a file"][..] } else { &["a folder", "a pipe", "a link that leads nowhere"] } {
            match *what {
                "a folder" => fs::create_dir(&path).expect("made"),
                "a file" => fs::write(&path, b"").expect("written"),
                "a link that leads nowhere" => std::os::unix::fs::symlink("/nowhere/at/all", &path).expect("linked"),
                _ => rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
                    .expect("made"),
            }
            let start = &["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"][..];
            for command in
                [start, &["inspect", "wal"], &["inspect", "lake"], &["inspect", "repair"], &["backup", "copy"]]
            {
                let refused = catchment(dir.path(), &[command, &["--data-dir", "data"]].concat(), b"");
                let told = complained(&refused);
                let is_named = told.contains(&name) && told.contains(&format!("is {what}, and"));
                assert!(!refused.status.success() && is_named && told.contains("move it away"), "{command:?}: {told}");
            }
            let doctor = said(&catchment(dir.path(), &["doctor", "--data-dir", "data"], b""));
            assert!(doctor.contains("BAD") && doctor.contains(&format!("is {what}, and")), "{doctor}");
            drop(if *what == "a folder" { fs::remove_dir(&path) } else { fs::remove_file(&path) });
            assert!(contents(&data) == before, "{}: nothing is changed", path.display());
        }
        if is_there {
            fs::rename(&kept, &path).expect("moved back");
        }
    }
    assert_eq!(Collector::start(dir.path()).rows("SELECT count(*) FROM events"), [[1]]);
}

#[test]
fn a_database_in_the_place_of_the_other_one_is_not_taken_for_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    collector.sensor("roof");
    assert_eq!(collector.terminate(), 0);
    let [registry, rejected, kept] =
        ["registry.sqlite", "rejected.sqlite", "kept"].map(|name| dir.path().join("data").join(name));
    fs::rename(&registry, &kept).expect("moved");
    fs::copy(&rejected, &registry).expect("copied");
    let told = refused_start(dir.path());
    assert!(
        told.contains("registry.sqlite is damaged") && told.contains("it is the database of something else"),
        "{told}"
    );
    fs::rename(&kept, &registry).expect("moved back");
    // Rejected events keep nobody from taking others: as any damaged one it is moved aside.
    fs::copy(&registry, &rejected).expect("copied");
    let backup = complained(&catchment(dir.path(), &["backup", "copy", "--data-dir", "data"], b""));
    assert!(
        backup.contains("data/rejected.sqlite cannot be copied") && backup.contains("the database of something else"),
        "{backup}"
    );
    let collector = Collector::start(dir.path());
    let ready = collector.get_admin("/readyz").text;
    assert!(
        ready.contains("rejected.sqlite.damaged-") && ready.contains("it is the database of something else"),
        "{ready}"
    );
    assert_eq!(collector.get("/api/v1/sensors/roof", &collector.token).status, 200);
}

#[test]
fn what_is_no_folder_of_data_and_no_folder_of_a_backup_is_named_and_nobody_waits_for_it() {
    let dir = tempfile::tempdir().expect("a folder");
    assert_eq!(Collector::start(dir.path()).terminate(), 0);
    let run = |args: &[&str]| catchment(dir.path(), args, b"");
    assert!(run(&["backup", "good", "--data-dir", "data"]).status.success());
    let pipe = |path: &Path| rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RUSR).expect("made");
    pipe(&dir.path().join("pipe"));
    fs::write(dir.path().join("file"), b"").expect("written");
    std::os::unix::fs::symlink("nowhere", dir.path().join("dangling")).expect("linked");
    for name in ["pipe", "file", "dangling"] {
        for (args, why) in [
            (&["backup", name, "--data-dir", "data"][..], "folder"),
            (&["restore", name, "--data-dir", "new"], "cannot open the folder"),
            (&["inspect", "backup", name], "cannot open the folder"),
            (&["restore", "good", "--data-dir", name], "is no folder"),
            (
                &["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", name],
                "is no folder",
            ),
        ] {
            let refused = run(args);
            let told = complained(&refused);
            assert_eq!(refused.status.code(), Some(1), "{args:?}: {told}");
            assert!(told.contains(name) && told.contains(why), "{args:?}: {told}");
        }
    }
    assert!(!dir.path().join("nowhere").exists() && !dir.path().join("new").exists());
    // Of a user, who may have what has no place in a backup.
    let mine = dir.path().join("good/set-mine");
    fs::create_dir(&mine).expect("made");
    assert!(run(&["backup", "good", "--data-dir", "data"]).status.success() && mine.exists());
    let manifest = dir.path().join("good/backup.json");
    fs::remove_file(&manifest).expect("removed");
    pipe(&manifest);
    for args in [
        &["backup", "good", "--data-dir", "data"][..],
        &["restore", "good", "--data-dir", "new"],
        &["inspect", "backup", "good"],
    ] {
        let told = complained(&run(args));
        assert!(told.contains("backup.json: it is no file"), "{args:?}: {told}");
    }
}
