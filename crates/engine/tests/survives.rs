//! What is accepted is kept, whatever happens to the disk: the whole engine on a simulated one.
//!
//! A seed chooses the load, the faults, when the power goes and what it leaves. An oracle knows what was answered, and looks at all events
//! after each start. `SEEDS=from..to` runs others, `SEEDS=n..n+1` one again.

mod survives {
    pub(crate) mod life;
    pub(crate) mod oracle;
    pub(crate) mod run;
}

use std::io::Write;
use survives::run::{Done, Plan, run};
use testkit::Lie;

/// Seeds in each run of the tests; `make sim` has ten times as many.
const SEEDS: std::ops::Range<u64> = 0..1000;

fn seeds() -> std::ops::Range<u64> {
    let Ok(asked) = std::env::var("SEEDS") else {
        return SEEDS;
    };
    let (from, to) = asked.split_once("..").expect("SEEDS is from..to");
    from.parse().expect("a number")..to.parse().expect("a number")
}

/// Whether a disk can be mounted here. Where it cannot, the test says so; with `REQUIRE_SERVERS=1` that is a failure.
fn can_mount() -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let Err(error) = testkit::mount(&testkit::SimDisk::new(), folder.path()) else {
        return true;
    };
    assert!(std::env::var("REQUIRE_SERVERS").is_err(), "no disk can be mounted: {error}");
    let told = format!("skipped: no disk can be mounted ({error}): it takes /dev/fuse and the right to mount");
    drop(writeln!(std::io::stderr(), "{told}"));
    false
}

/// Runs seeds side by side until one fails: much of their time is waiting. Without a failure it says what happened.
fn all(plan: Plan) -> Result<Done, String> {
    let seeds = seeds();
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let (failed, all) = (std::sync::Mutex::new(None), std::sync::Mutex::new(Done::default()));
    std::thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= seeds.end || failed.lock().expect("no panic").is_some() {
                        return;
                    }
                    match run(seed, plan) {
                        Ok(done) => *all.lock().expect("no panic") += done,
                        Err(what) => {
                            let told = format!("seed {seed}: {what}\nagain: SEEDS={seed}..{}", seed + 1);
                            *failed.lock().expect("no panic") = Some(told);
                        }
                    }
                }
            });
        }
    });
    failed.into_inner().expect("no panic").map_or_else(|| Ok(all.into_inner().expect("no panic")), Err)
}

#[test]
fn whatever_happens_to_the_disk_accepted_events_are_there_once_and_others_are_not() {
    if !can_mount() {
        return;
    }
    let done = all(Plan::default()).unwrap_or_else(|failure| panic!("{failure}"));
    drop(writeln!(std::io::stderr(), "{done:?}"));
    let Done { merges, trims, trims_without_keys, torn_tails, erasures, expired } = done;
    let seeds = seeds();
    let is_all = [merges, trims, trims_without_keys, torn_tails, erasures, expired].iter().all(|count| *count > 0);
    assert!(is_all || seeds.end - seeds.start < 100, "not everything happened: {done:?}");
}

#[test]
fn a_disk_that_does_not_sync_files_is_caught() {
    if !can_mount() {
        return;
    }
    let failure = all(Plan { lie: Some(Lie::Files) });
    assert!(failure.is_err(), "no seed noticed");
}

#[test]
fn a_disk_that_does_not_sync_folders_is_caught() {
    if !can_mount() {
        return;
    }
    let failure = all(Plan { lie: Some(Lie::Folders) });
    assert!(failure.is_err(), "no seed noticed");
}
