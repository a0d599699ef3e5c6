//! What the request log promises when there is no room, no engine, or no end to what comes.

use super::*;
use engine::{EngineMetrics, Options};
use lake::LakeMetrics;
use nowwhat::metrics::Registry;
use std::time::Instant;

const MIB: u64 = 1 << 20;
const LIMITS: RequestLogLimits = RequestLogLimits { waiting_bytes_max: MIB, batch_bytes: 64 << 10 };

fn line(n: usize) -> String {
    format!("{{\"id\":\"r-{n}\",\"type\":\"{TYPE}\",\"time\":\"2026-11-26T12:00:00Z\",\"data\":{{\"n\":{n}}}}}\n")
}

async fn engine(dir: &tempfile::TempDir) -> Engine {
    let options = Options {
        wal_dir: dir.path().join("wal"),
        lake_dir: dir.path().join("lake"),
        free_bytes_min: 0,
        segment_bytes: MIB,
        in_flight_bytes_max: MIB,
        group_bytes_max: MIB,
        payload_bytes_max: 16 << 20,
        live_bytes_max: 8 * MIB,
        seal_bytes: 4 * MIB,
        fields: engine::FieldRules::default(),
        seal_age_seconds: 3600,
        retention: engine::Retention::default(),
        clock: engine::Clock::default(),
        room_wait_seconds: 1,
        window_keys_max: 10_000,
        answers_bytes_max: MIB,
        group_keys_max: 10_000,
        window_seconds: 600,
        schema: event::events_schema(),
    };
    let (engine, _) = Engine::start(options, EngineMetrics::default(), LakeMetrics::default()).await.expect("started");
    engine
}

fn metrics() -> ServerMetrics {
    ServerMetrics::register(&mut Registry::default())
}

/// Requests, those stored, failed and left out, and those that wait.
fn counts(metrics: &ServerMetrics) -> [u64; 5] {
    let log = &metrics.request_log;
    let [stored, failed, left_out] = RequestEnd::ALL.map(|end| log.ended(end));
    [log.requests.get(), stored, failed, left_out, log.waiting.get() as u64]
}

fn rows(engine: &Engine) -> usize {
    let view = engine.view();
    view.live.iter().filter_map(|chunk| chunk.rows.upgrade()).map(|rows| rows.num_rows()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_at_the_end_is_stored_in_order_and_what_comes_later_is_left_out() {
    let (dir, metrics) = (tempfile::tempdir().expect("a folder"), metrics());
    let engine = engine(&dir).await;
    let (log, storing) = RequestLog::new(engine.clone(), LIMITS, metrics.clone());
    let began = Instant::now();
    // More than is stored at once.
    (0..2000).for_each(|n| log.push(line(n)));
    let stored = tokio::spawn(storing.run());
    log.clone().close().await;
    log.push(line(2000));
    stored.await.expect("no panic");
    assert!(began.elapsed() < 10 * PERIOD, "nobody waits for others at the end");
    assert_eq!((rows(&engine), counts(&metrics)), (2000, [2001, 2000, 0, 1, 0]));
    assert_eq!(metrics.events_read.get(), 2000);
    engine.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_come_first_and_what_finds_no_room_beside_them_waits_up_to_its_bound() {
    let (dir, metrics) = (tempfile::tempdir().expect("a folder"), metrics());
    let engine = engine(&dir).await;
    let limits = RequestLogLimits { waiting_bytes_max: 1000, ..LIMITS };
    let (log, storing) = RequestLog::new(engine.clone(), limits, metrics.clone());
    let mut slow = engine.admission().expect("slow".into(), 0).expect("it fits");
    slow.resize(MIB).expect("it is alone");
    let gives_way = slow.slows();
    (0..10).for_each(|n| log.push(line(n)));
    let [requests, _, _, left_out, waiting] = counts(&metrics);
    assert_eq!((requests, left_out + waiting), (10, 10));
    assert!(left_out > 0 && waiting > 0, "{left_out} and {waiting}");
    let first = storing.shared.waiting().batch(1);
    match storing.store(first).await {
        Err(Unstored::NoRoom(lines)) => storing.shared.waiting().put_back(lines),
        _ => panic!("there is no room"),
    }
    let told = tokio::time::timeout(Duration::ZERO, gives_way.notified()).await;
    assert!(told.is_err(), "no request goes for the request log");
    drop(slow);
    let stored = tokio::spawn(storing.run());
    log.close().await;
    stored.await.expect("no panic");
    assert_eq!((rows(&engine) as u64, counts(&metrics)), (waiting, [10, waiting, 0, left_out, 0]));
    engine.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_does_not_take_is_gone_and_counted() {
    let (dir, metrics) = (tempfile::tempdir().expect("a folder"), metrics());
    let engine = engine(&dir).await;
    let (log, storing) = RequestLog::new(engine.clone(), LIMITS, metrics.clone());
    let stored = tokio::spawn(storing.run());
    engine.close().await.expect("closed");
    (0..3).for_each(|n| log.push(line(n)));
    log.close().await;
    stored.await.expect("no panic");
    assert_eq!((rows(&engine), counts(&metrics)), (0, [3, 0, 3, 0, 0]));
}

#[test]
fn a_question_is_cut_at_a_character_and_its_length_is_told() {
    let long = format!("SELECT '{}'", "\u{e4}".repeat(SQL_BYTES_MAX));
    let asked = Asked::of(&long);
    assert!(asked.sql.len() <= SQL_BYTES_MAX && asked.sql.len() > SQL_BYTES_MAX - 2 && long.starts_with(&asked.sql));
    assert_eq!(asked.sql_bytes, long.len());
    assert_eq!(Asked::of("SELECT 1").sql, "SELECT 1");
}

#[test]
fn nobody_can_register_the_sensor_of_requests() {
    assert!(REQUESTS_SENSOR.starts_with(registry::OWN_IDS));
}
