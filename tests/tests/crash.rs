//! Promise 1 and 2 with the real program: killed with signal 9 under load, it has every accepted event exactly once.

use tests::{Collector, Oracle, rounds};

#[test]
fn killed_twenty_times_under_load_it_has_every_accepted_event_exactly_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = [("CATCHMENT_SEAL__AGE_SECONDS", "1s"), ("CATCHMENT_INGEST__SEGMENT_BYTES", "1MiB")];
    let mut oracle = Oracle::default();
    let mut collector = Collector::start_with(dir.path(), &settings);
    let token = collector.sensor("crash");
    for round in 0..rounds() {
        oracle.load_until((collector, &token), 20 + 13 * (round % 20), Collector::kill);
        collector = Collector::start_with(dir.path(), &settings);
        oracle.check(&collector).expect("as answered");
    }
    collector.wait_for("a seal", |c| c.metric("catchment_engine_live_rows") == 0.0);
    oracle.check(&collector).expect("as answered");
    assert!(oracle.accepted.len() > 20, "the load reached the collector");
    assert_eq!(collector.terminate(), 0);
}
