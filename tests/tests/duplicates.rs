//! Promise 2: an event that comes from several at the same moment is stored once, and each sender is told what became of its own.

use serde_json::json;
use std::sync::Barrier;
use tests::Collector;

const SENDERS: u64 = 8;
const EVENTS: u64 = 200;

#[test]
fn the_same_ids_from_several_connections_at_the_same_moment_are_stored_once_also_after_kill_9() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let mut known = 0;
    for round in 0..5 {
        let body: String =
            (0..EVENTS).map(|n| format!("{{\"id\":\"{round}-{n}\",\"type\":\"t\",\"data\":{n}}}\n")).collect();
        let start = Barrier::new(SENDERS as usize);
        let ends: Vec<[u64; 3]> = std::thread::scope(|scope| {
            let send = || {
                start.wait();
                let answer = collector.send(&token, body.as_bytes()).json();
                ["accepted", "duplicates", "rejected_total"].map(|name| answer[name].as_u64().expect("a number"))
            };
            let senders: Vec<_> = (0..SENDERS).map(|_| scope.spawn(send)).collect();
            senders.into_iter().map(|sender| sender.join().expect("answered")).collect()
        });
        let total = |at: usize| ends.iter().map(|end| end[at]).sum::<u64>();
        assert_eq!([total(0), total(1), total(2)], [EVENTS, (SENDERS - 1) * EVENTS, 0], "{ends:?}");
        known += EVENTS;
    }
    assert_eq!(collector.rows("SELECT count(*), count(DISTINCT id) FROM events"), [[json!(known), json!(known)]]);
    assert_eq!(collector.metric("catchment_engine_window_keys"), known as f64);
    let bytes = collector.metric("catchment_engine_window_bytes");
    // 48 of the ring, and two indexes that grow by doubling.
    assert!((50.0..80.0).contains(&(bytes / known as f64)), "{bytes} bytes of {known} keys");
    collector.assert_adds_up();
    collector.kill();

    let collector = Collector::start(dir.path());
    assert_eq!(collector.metric("catchment_engine_window_keys"), known as f64, "they are remembered");
    let again = collector.send(&token, b"{\"id\":\"0-0\",\"type\":\"t\",\"data\":0}\n").json();
    assert_eq!((&again["accepted"], &again["duplicates"]), (&json!(0), &json!(1)));
}
