//! Promise 1 and 2 with the real program: killed with signal 9 under load, it has every accepted event exactly once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tests::Collector;

const ROUNDS: u64 = 20;
const CONNECTIONS: u64 = 4;
const BATCH: u64 = 50;

/// What the oracle knows: batches answered with 200, and batches in doubt when the process was killed.
#[derive(Default)]
struct Oracle {
    accepted: Vec<u64>,
    doubtful: Vec<u64>,
}

#[test]
fn killed_twenty_times_under_load_it_has_every_accepted_event_exactly_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = [("CATCHMENT_SEAL__AGE_SECONDS", "1s"), ("CATCHMENT_INGEST__SEGMENT_BYTES", "1MiB")];
    let mut oracle = Oracle::default();
    let mut collector = Collector::start_with(dir.path(), &settings);
    let token = collector.sensor("crash");
    let batches = AtomicU64::new(0);
    for round in 0..ROUNDS {
        let found = load_until_killed(collector, &token, &batches, round);
        oracle.accepted.extend(found.accepted);
        oracle.doubtful.extend(found.doubtful);
        collector = Collector::start_with(dir.path(), &settings);
        check(&collector, &oracle);
    }
    collector.wait_for("a seal", |c| c.metric("catchment_engine_live_rows") == 0.0);
    check(&collector, &oracle);
    assert!(oracle.accepted.len() > ROUNDS as usize, "the load reached the collector");
    assert_eq!(collector.terminate(), 0);
}

/// Loads from several connections; once enough batches were answered, the process is killed in the middle of it.
fn load_until_killed(collector: Collector, token: &str, batches: &AtomicU64, round: u64) -> Oracle {
    let found = Mutex::new(Oracle::default());
    let answered = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let address = collector.api.clone();
    let agent: Arc<ureq::Agent> =
        Arc::new(ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(20))).build().new_agent());
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let batch = batches.fetch_add(1, Ordering::Relaxed);
                    let request = agent
                        .post(format!("{address}/api/v1/events"))
                        .header("authorization", format!("Bearer {token}"))
                        .header("content-type", "application/x-ndjson");
                    let accepted = request.send(body(batch)).is_ok_and(|r| r.status() == 200);
                    let mut found = found.lock().expect("no thread panics");
                    if accepted {
                        found.accepted.push(batch);
                        answered.fetch_add(1, Ordering::Relaxed);
                    } else {
                        found.doubtful.push(batch);
                        break;
                    }
                }
            });
        }
        let deadline = Instant::now() + tests::PATIENCE;
        while answered.load(Ordering::Relaxed) < 20 + 13 * round && Instant::now() < deadline {
            std::thread::yield_now();
        }
        collector.kill();
        stop.store(true, Ordering::Relaxed);
    });
    found.into_inner().expect("no thread panics")
}

fn body(batch: u64) -> String {
    (0..BATCH).map(|n| format!("{{\"batch\":{batch},\"n\":{n},\"text\":\"some reading of some length\"}}\n")).collect()
}

fn check(collector: &Collector, oracle: &Oracle) {
    let sql = "select (data->>'batch')::bigint as batch, count(*), count(distinct (data->>'n')::bigint), min((data->>'n')::bigint), \
               max((data->>'n')::bigint) from events group by 1";
    let rows = collector.rows(sql);
    let n = |v: &serde_json::Value| v.as_u64().expect("a number");
    let found: HashMap<u64, [u64; 4]> =
        rows.iter().map(|r| (n(&r[0]), [n(&r[1]), n(&r[2]), n(&r[3]), n(&r[4])])).collect();
    let whole = [BATCH, BATCH, 0, BATCH - 1];
    for batch in &oracle.accepted {
        assert_eq!(found.get(batch), Some(&whole), "accepted batch {batch} is there once and whole");
    }
    for batch in &oracle.doubtful {
        let state = found.get(batch);
        assert!(
            state.is_none() || state == Some(&whole),
            "doubtful batch {batch} is there whole or not at all: {state:?}"
        );
    }
    assert!(found.len() <= oracle.accepted.len() + oracle.doubtful.len(), "nothing appeared that nobody sent");
    let positions =
        collector.rows("select count(*), count(distinct position), count(distinct id), max(position) from events");
    let [all, distinct, ids, last] = [0, 1, 2, 3].map(|i| positions[0][i].as_u64().unwrap_or(0));
    assert_eq!((distinct, ids), (all, all), "no position and no id is used twice");
    assert_eq!(last, all, "positions count up without a gap");
}
