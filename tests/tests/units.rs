//! The units of systemd in `deploy/systemd`: understood, closely confined, and with room for the bound of memory.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tests::{Collector, program, said, skipped};

/// What `systemd-analyze security` may count at most, of 10.
const EXPOSURE_MAX: f64 = 2.0;

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("deploy/systemd")
}

/// The units, with the program under test in place of the installed one. None when systemd is not here.
fn analyze(folder: &Path, args: &[&str]) -> Option<Output> {
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        skipped("the package systemd is not installed");
        return None;
    };
    assert!(version.status.success());
    for unit in ["catchment.service", "catchment.socket", "catchment-admin.socket"] {
        let text = std::fs::read_to_string(units().join(unit)).expect("a unit");
        let text = text.replace("/usr/bin/catchment", &program().display().to_string());
        std::fs::write(folder.join(unit), text).expect("written");
    }
    Some(Command::new("systemd-analyze").args(args).current_dir(folder).output().expect("it runs"))
}

#[test]
fn systemd_understands_every_line_of_the_units() {
    let dir = tempfile::tempdir().expect("a folder");
    let args = ["verify", "--man=no", "./catchment.service", "./catchment.socket", "./catchment-admin.socket"];
    let Some(output) = analyze(dir.path(), &args) else { return };
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{complaints}");
    // Before 253 it keeps the type that stands above this one.
    let known = "Failed to parse service type, ignoring: notify-reload";
    let others: Vec<_> = complaints.lines().filter(|line| !line.contains(known)).collect();
    assert!(others.is_empty(), "{others:#?}");
}

#[test]
fn the_service_is_exposed_less_than_2_of_10() {
    let dir = tempfile::tempdir().expect("a folder");
    let args = ["security", "--offline=true", "--no-pager", "./catchment.service"];
    let Some(output) = analyze(dir.path(), &args) else { return };
    let report = said(&output);
    let level = report.lines().find_map(|line| line.split("exposure level for catchment.service:").nth(1));
    let level = level.and_then(|rest| rest.split_whitespace().next()).expect("a level");
    assert!(level.parse::<f64>().expect("a number") < EXPOSURE_MAX, "{report}");
}

#[test]
fn the_bound_of_memory_by_default_fits_into_what_the_unit_allows() {
    let dir = tempfile::tempdir().expect("a folder");
    let _collector = Collector::start(dir.path());
    // A thread of its own writes the log.
    let log = || std::fs::read_to_string(dir.path().join("log")).expect("the log");
    tests::wait_until("the bound is logged", || log().contains("\"memory_bound_bytes\":"));
    let log = log();
    let bound = log.split("\"memory_bound_bytes\":").nth(1).expect("the bound is logged");
    let bound: u64 = bound.split(['}', ',']).next().and_then(|n| n.parse().ok()).expect("a number");
    let unit = std::fs::read_to_string(units().join("catchment.service")).expect("the unit");
    let allowed =
        unit.lines().find_map(|line| line.strip_prefix("MemoryMax=")?.strip_suffix('M')).expect("MemoryMax= in MiB");
    let allowed = allowed.parse::<u64>().expect("a number") << 20;
    assert!(bound <= allowed, "{bound} bytes may be used, {allowed} are allowed");
}
