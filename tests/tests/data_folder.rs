//! A data folder that cannot be used: the start says which path, why and what to do; one that goes while the program runs is noticed.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tests::{Collector, program, skipped};

const NOBODY: u32 = 65_534;

/// A folder that others may look into, with the program in it.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("opened");
    let copy = dir.path().join("catchment");
    std::fs::copy(program(), &copy).expect("copied");
    (dir, copy)
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skipped("this is not root, who alone mounts folders and becomes other users");
    }
    is_root
}

/// Serves by a command in front of the program, to its end.
fn served_by(command: &[&str], program: &Path, dir: &Path) -> Output {
    let serve = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", "data"];
    let (first, rest) = command.split_first().expect("a command");
    Command::new(first).args(rest).arg(program).args(serve).current_dir(dir).output().expect("it runs")
}

#[track_caller]
fn assert_told(output: &Output, parts: &[&str]) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for part in parts {
        assert!(told.contains(part), "{part} is not in {told}");
    }
}

#[test]
fn a_data_folder_on_a_disk_that_is_read_only_stops_the_start_which_says_so() {
    if !is_root() {
        return;
    }
    let (dir, program) = folder();
    assert_eq!(Collector::start(dir.path()).terminate(), 0);
    let data = dir.path().join("data");
    // In a namespace of its own: nothing is left mounted.
    let mount = "mount --bind data data && mount -o remount,bind,ro data && exec \"$@\"";
    let output = served_by(&["unshare", "--mount", "sh", "-c", mount, "sh"], &program, dir.path());
    let path = data.display().to_string();
    assert_told(&output, &[&format!("cannot write to {path}"), "read-only", "data.dir"]);
    assert_eq!(Collector::start(dir.path()).terminate(), 0);
}

#[test]
fn a_data_folder_of_another_user_stops_the_start_which_names_both_and_the_command() {
    if !is_root() {
        return;
    }
    let (dir, program) = folder();
    assert_eq!(Collector::start(dir.path()).terminate(), 0);
    let data = dir.path().join("data");
    let as_nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let output = served_by(&as_nobody, &program, dir.path());
    let command = format!("`chown -R 65534 {}`", data.display());
    assert_told(&output, &["belongs to uid 0 with mode 0700", "runs as uid 65534", &command]);

    // One start as root is enough to leave files that the owner of the folder cannot write.
    std::os::unix::fs::chown(&data, Some(NOBODY), Some(NOBODY)).expect("changed");
    let output = served_by(&as_nobody, &program, dir.path());
    let path = format!("cannot write to {}/", data.display());
    assert_told(&output, &[&path, "belongs to uid 0", "runs as uid 65534", &command]);

    // Its own, and closed.
    let chown = Command::new("chown").args(["-R", "65534"]).arg(&data).status().expect("it runs");
    assert!(chown.success());
    std::fs::set_permissions(data.join("wal"), std::fs::Permissions::from_mode(0o500)).expect("closed");
    let output = served_by(&as_nobody, &program, dir.path());
    assert_told(&output, &[&format!("cannot write to {}/wal", data.display()), "mode 0500", "chmod -R u+rwX"]);
}

#[test]
fn a_folder_of_another_user_is_not_used_by_root_who_is_told_as_whom_to_run() {
    if !is_root() {
        return;
    }
    let (dir, program) = folder();
    assert_eq!(Collector::start(dir.path()).terminate(), 0);
    let data = dir.path().join("data");
    let chown = Command::new("chown").args(["-R", "65534"]).arg(&data).status().expect("it runs");
    assert!(chown.success());
    let output = served_by(&["env"], &program, dir.path());
    let command = format!("`chown -R root {}`", data.display());
    assert_told(&output, &["belongs to nobody", "`sudo -u nobody catchment", &command]);
    assert!(!data.join("addresses.json").exists(), "nothing of root's is left there");
}

#[test]
fn a_data_folder_that_is_removed_while_it_runs_ends_it_and_nothing_more_is_accepted() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    assert_eq!(collector.send(&token, b"{\"n\":1}\n").status, 200);
    // Again when the program has just made a file there.
    tests::wait_until("the removal", || std::fs::remove_dir_all(&collector.dir).is_ok());
    // It may have ended before it answers.
    let answer = collector.try_send(&token, b"{\"n\":2}\n");
    assert!(!answer.as_ref().is_ok_and(|answer| answer.status == 200), "{answer:?}");
    assert_eq!(collector.wait(), 1);
    let log = std::fs::read_to_string(dir.path().join("log")).expect("the log");
    assert!(log.contains(".wal was removed while it was written to"), "{log}");
}
