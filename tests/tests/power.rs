//! The real program on a disk whose power goes: what was synced is there afterwards, of the rest what a seed says.

use std::path::Path;
use testkit::{Fault, Lie, Mounted, Random, SimDisk, mount};
use tests::{Collector, Oracle, assert_problem, rounds, skipped};

/// Power cuts of a disk.
const CUTS: u64 = 10;
const SETTINGS: [(&str, &str); 2] =
    [("CATCHMENT_SEAL__AGE_SECONDS", "1s"), ("CATCHMENT_INGEST__SEGMENT_BYTES", "1MiB")];

/// The data folder of a collector in `dir`, on the disk.
fn plugged(disk: &SimDisk, dir: &Path) -> Option<Mounted> {
    let data = dir.join("data");
    std::fs::create_dir_all(&data).expect("made");
    let mounted = mount(disk, &data);
    if let Err(error) = &mounted {
        skipped(&format!("no disk can be mounted ({error}): it takes /dev/fuse and the right to mount"));
    }
    mounted.ok()
}

/// Rounds of load, each ended by a power cut. Nothing when no disk can be mounted.
fn power_cuts(seed: u64, lie: Option<Lie>) -> Option<Result<(), String>> {
    let (mut random, mut oracle, mut disk) = (Random::new(seed), Oracle::default(), SimDisk::new());
    let dir = tempfile::tempdir().expect("a folder");
    let mut token = None;
    for round in 0..CUTS {
        let dir = dir.path().join(round.to_string());
        let _mounted = plugged(&disk, &dir)?;
        if let Some(lie) = lie {
            disk.lie_about(lie);
        }
        let collector = match Collector::try_start_with(&dir, &SETTINGS) {
            Ok(collector) => collector,
            Err(why) => return Some(Err(format!("round {round}: {why}"))),
        };
        if let Err(what) = oracle.check(&collector) {
            return Some(Err(format!("round {round}: {what}")));
        }
        let token = token.get_or_insert_with(|| collector.sensor("roof"));
        let mut after = None;
        oracle.load_until((collector, token), random.below(200), |collector| {
            after = Some(disk.after_power_cut(random.number()));
            collector.kill();
        });
        disk = after?;
    }
    Some(Ok(()))
}

#[test]
fn after_power_cuts_under_load_every_accepted_event_is_there_exactly_once() {
    for seed in 0..rounds() / CUTS {
        if let Some(ended) = power_cuts(seed, None) {
            ended.unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        }
    }
}

#[test]
fn a_program_that_does_not_sync_its_files_is_caught() {
    assert!(power_cuts(1, Some(Lie::Files)).is_none_or(|ended| ended.is_err()));
}

#[test]
fn a_program_that_does_not_sync_its_folders_is_caught() {
    assert!(power_cuts(1, Some(Lie::Folders)).is_none_or(|ended| ended.is_err()));
}

/// Writes or a sync fail under load: those who wait are told, the program ends, and the next start has all that was accepted.
fn fails(fault: impl Fn(&SimDisk)) {
    let (mut oracle, disk) = (Oracle::default(), SimDisk::new());
    let dir = tempfile::tempdir().expect("a folder");
    let before = dir.path().join("before");
    let Some(mounted) = plugged(&disk, &before) else {
        return;
    };
    // Nothing but groups is synced.
    let collector = Collector::start_with(&before, &[("CATCHMENT_SEAL__AGE_SECONDS", "1h")]);
    let token = collector.sensor("roof");
    oracle.load_until((collector, &token), 30, |collector| {
        fault(&disk);
        assert_eq!(collector.wait(), 1, "it ends by itself");
    });
    assert!(!oracle.errors.is_empty(), "those who wait are told");
    oracle.errors.iter().for_each(|answer| assert_problem(answer, 503, "log_poisoned"));
    drop(mounted);
    let disk = disk.after_power_cut(7);
    let after = dir.path().join("after");
    let _mounted = plugged(&disk, &after);
    let collector = Collector::start_with(&after, &SETTINGS);
    oracle.check(&collector).expect("as answered");
    assert_eq!(collector.terminate(), 0);
}

#[test]
fn a_sync_that_fails_ends_the_program_and_the_next_start_has_all_that_was_accepted() {
    fails(|disk| disk.fail_sync(0, Fault::Broken));
}

#[test]
fn writes_that_fail_end_the_program_and_the_next_start_has_all_that_was_accepted() {
    // Also those of the databases, which may come first and end nothing.
    fails(|disk| disk.fail_writes(0, u64::MAX, Fault::Broken));
}
