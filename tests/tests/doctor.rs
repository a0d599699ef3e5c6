//! `catchment doctor` says what is well and what has to be mended, and leaves nothing behind.

use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use tests::{Collector, catchment_with, program, skipped};

/// What it found, and its exit code.
fn doctor(dir: &Path, settings: &[(&str, &str)]) -> (Vec<Value>, Option<i32>) {
    let data = dir.to_str().expect("a path of text");
    let output = catchment_with(Path::new("/"), &["doctor", "--json", "--data-dir", data], b"", settings);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    (answer["findings"].as_array().expect("a list").clone(), output.status.code())
}

#[track_caller]
fn assert_found(findings: &[Value], about: &str, mark: &str, says: &str) {
    let found = findings.iter().find(|f| f["about"] == about).unwrap_or_else(|| panic!("{about} in {findings:#?}"));
    assert!(found["mark"] == mark && found["text"].as_str().expect("text").contains(says), "{mark} {says:?}: {found}");
}

#[test]
fn a_collector_that_is_well_is_found_well_and_nothing_is_left_in_its_folder() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let collector = Collector::start(dir.path());
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(&data).expect("readable").map(|e| e.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let (findings, _) = doctor(&data, &[]);
    assert_found(&findings, "configuration", "good", "valid, environment ");
    assert_found(&findings, "folder", "good", "mode 0700");
    assert_found(&findings, "collector", "good", &format!("ready at {}", collector.api));
    assert_found(&findings, "version", "good", "runs, as this program");
    for about in ["file system", "room", "fsync", "disk", "descriptors", "memory", "clock"] {
        assert!(findings.iter().any(|f| f["about"] == about), "{about} in {findings:#?}");
    }
    assert_eq!(names(), before);
}

#[test]
fn what_keeps_a_collector_from_starting_is_named_and_fails_the_command() {
    let (dir, taken) = (tempfile::tempdir().expect("a folder"), TcpListener::bind("127.0.0.1:0").expect("a port"));
    let address = taken.local_addr().expect("bound").to_string();
    let settings = [("CATCHMENT_HTTP__LISTEN", address.as_str()), ("CATCHMENT_ADMIN__LISTEN", "127.0.0.1:0")];
    let (findings, code) = doctor(dir.path(), &settings);
    assert_found(&findings, "port", "bad", &address);
    assert_found(&findings, "admin port", "good", "is free");
    assert_eq!(code, Some(1));
    let (findings, code) = doctor(dir.path(), &[("CATCHMENT_SEAL__BYTES", "2TiB")]);
    assert_found(&findings, "configuration", "bad", "seal.bytes");
    assert_eq!((findings.len(), code), (2, Some(1)), "the program and that: {findings:#?}");
    let much = [("CATCHMENT_QUERY__MEMORY_BYTES_MAX", "64GiB"), ("CATCHMENT_SEAL__LIVE_BYTES_MAX", "16GiB")];
    let (findings, code) = doctor(dir.path(), &much);
    assert_found(&findings, "memory", "bad", "the bound of the collector is");
    assert_eq!(code, Some(1));
}

#[test]
fn a_folder_that_others_can_read_or_that_is_memory_is_told() {
    let open = tempfile::tempdir().expect("a folder");
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755)).expect("set");
    assert_found(&doctor(open.path(), &[]).0, "folder", "look", "chmod 0700");
    let memory = tempfile::tempdir_in("/dev/shm").expect("Linux has it");
    let (findings, code) = doctor(memory.path(), &[]);
    assert_found(&findings, "file system", "bad", "a restart of the machine loses every event");
    assert_eq!(code, Some(1));
    let (findings, _) = doctor(&open.path().join("not/yet"), &[]);
    assert_found(&findings, "folder", "good", "is not there yet");
    std::os::unix::fs::symlink("nowhere", open.path().join("link")).expect("linked");
    for below in ["link", "link/not/yet"] {
        let (findings, code) = doctor(&open.path().join(below), &[]);
        assert_found(&findings, "folder", "bad", "link is a link to what is not there");
        assert_eq!(code, Some(1));
    }
}

#[test]
fn a_port_that_systemd_holds_for_the_collector_is_found_well() {
    let dir = tempfile::tempdir().expect("a folder");
    let systemctl = dir.path().join("systemctl");
    fs::write(&systemctl, "#!/bin/sh\n[ \"$*\" = 'is-active --quiet catchment.socket' ]\n").expect("written");
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).expect("set");
    let held = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = held.local_addr().expect("an address").to_string();
    let path = format!("{}:/usr/bin:/bin", dir.path().display());
    let data = dir.path().join("data");
    let settings =
        [("CATCHMENT_HTTP__LISTEN", &*address), ("CATCHMENT_ADMIN__LISTEN", "127.0.0.1:0"), ("PATH", &*path)];
    assert_found(&doctor(&data, &settings).0, "port", "good", "catchment.socket of systemd is active");
    let settings =
        [("CATCHMENT_HTTP__LISTEN", "127.0.0.1:0"), ("CATCHMENT_ADMIN__LISTEN", &*address), ("PATH", &*path)];
    assert_found(&doctor(&data, &settings).0, "admin port", "bad", "cannot be listened at");
}

#[test]
fn who_may_not_look_into_the_folder_is_told_so_and_not_that_no_collector_runs() {
    if !rustix::process::getuid().is_root() {
        return skipped("only root can be somebody else");
    }
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    // The program may lie where only its owner looks.
    let copy = dir.path().join("program");
    fs::copy(program(), &copy).expect("copied");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("set");
    let (data, address) = (dir.path().join("data"), collector.api.trim_start_matches("http://"));
    let other = |args: &[&str]| {
        let mut command = Command::new(&copy);
        command.args(args).arg("--data-dir").arg(&data).current_dir("/").uid(65534).gid(65534);
        let output = command.env("CATCHMENT_HTTP__LISTEN", address).output().expect("it runs");
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        (output.status.code(), said)
    };
    let (code, found) = other(&["doctor"]);
    assert!(found.contains("LOOK  collector") && found.contains("whether one runs cannot be told"), "{found}");
    assert!(found.contains("addresses.json: Permission denied"), "{found}");
    assert!(!found.contains("none runs") && !found.contains("cannot be listened at"), "{found}");
    assert_eq!(code, Some(1), "the folder is another's: {found}");
    let (code, said) = other(&["request", "some-1"]);
    assert!(said.contains("run this as the user of the collector") && said.contains("Permission denied"), "{said}");
    assert!(!said.contains("no running collector"), "{said}");
    assert_eq!(code, Some(1));
}
