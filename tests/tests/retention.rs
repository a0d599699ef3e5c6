//! Events stay as long as is said, and what goes is counted.

use std::fmt::Write;
use tests::Collector;

/// A batch that takes about a megabyte in a data file, too: it does not compress.
fn batch(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut lines = String::new();
    for n in 0..1_000 {
        let _ = write!(lines, "{{\"batch\":{number},\"n\":{n},\"text\":\"");
        for _ in 0..140 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let _ = write!(lines, "{state:016x}");
        }
        lines.push_str("\"}\n");
    }
    lines.into_bytes()
}

#[test]
fn the_oldest_events_go_when_they_take_more_room_than_is_said_and_are_counted_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = [("CATCHMENT_RETENTION__BYTES_MAX", "4MiB"), ("CATCHMENT_SEAL__BYTES", "1MiB")];
    let collector = Collector::start_with(dir.path(), &settings);
    let token = collector.sensor("roof");
    for number in 0..8 {
        assert_eq!(collector.send(&token, &batch(number)).status, 200);
        collector.wait_for("a seal", |c| c.metric("catchment_engine_live_rows") == 0.0);
    }
    collector.wait_for("that old events go", |c| c.metric("catchment_lake_bytes") <= (4 << 20) as f64);
    let kept = |collector: &Collector| {
        collector.rows("SELECT count(*), count(DISTINCT position), max((data->>'batch')::int) FROM events")
    };
    let (expired, before) = (collector.metric("catchment_lake_expired_rows"), kept(&collector));
    assert!(expired >= 2_000.0, "{expired}");
    assert_eq!(
        before,
        [[8_000 - expired as i64, 8_000 - expired as i64, 7]].map(|row| row.map(serde_json::Value::from))
    );
    let oldest = collector.rows("SELECT min((data->>'batch')::int) FROM events");
    assert!(oldest[0][0].as_i64() > Some(0), "the oldest went: {oldest:?}");
    collector.assert_adds_up();
    assert_eq!(collector.terminate(), 0);
    let collector = Collector::start_with(dir.path(), &settings);
    assert_eq!((collector.metric("catchment_lake_expired_rows"), kept(&collector)), (expired, before));
}
