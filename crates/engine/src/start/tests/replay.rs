//! A start that reads back more than may be live.

use super::*;
use std::sync::Mutex;

/// An engine whose start tells. One that was closed just now may hold its lake for a moment.
async fn started_telling(options: Options) -> (Result<(Engine, Started), StartError>, Vec<wal::Read>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let told = Arc::new(Mutex::new(Vec::new()));
        let hears = told.clone();
        let (metrics, lake_metrics) = (EngineMetrics::default(), lake::LakeMetrics::default());
        let started = Engine::start_telling(options.clone(), metrics, lake_metrics, move |starting| {
            if let Starting::Replays(read) = starting {
                hears.lock().expect("no panic").push(read);
            }
        });
        match started.await {
            Err(StartError::Lake(lake::OpenError::InUse(_))) if Instant::now() < deadline => {
                tokio::task::yield_now().await;
            }
            started => return (started, told.lock().expect("no panic").clone()),
        }
    }
}

/// So many groups of about 20 KB each, which stay in the wal.
async fn unsealed(options: Options, groups: u64) {
    let engine = started(options).await;
    let mut state = 1u64;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + (state >> 33) as u8 % 26)
    };
    for group in 0..groups {
        let text: String = (0..20_000).map(|_| letter()).collect();
        let event = format!("{{\"id\":\"{group}\",\"type\":\"a\",\"data\":\"{text}\"}}");
        engine.submit(submission(&engine, event.as_bytes())).await.expect("stored");
    }
    engine.close().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_under_a_smaller_bound_seals_on_the_way_and_has_every_event_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let larger = Options { segment_bytes: 64 << 10, window_keys_max: 1000, ..options(dir.path()) };
    unsealed(larger.clone(), 100).await;
    let smaller = Options {
        live_bytes_max: 200_000,
        seal_bytes: 100_000,
        seal_age_seconds: 3600,
        in_flight_bytes_max: 20_000,
        group_bytes_max: 20_000,
        ..larger.clone()
    };
    let (engine, told) = started_telling(smaller.clone()).await;
    let (engine, found) = engine.expect("starts");
    assert_eq!((found.recovered_events, found.last_position), (100, 100));
    assert!(found.sealed_events >= 80 && found.sealed_position >= 80, "{found:?}");
    let (in_lake, live) = rows(&engine);
    assert_eq!(in_lake + live as u64, 100);
    assert!(engine.shared.live.bytes() <= 200_000, "{}", engine.shared.live.bytes());
    let last = told.last().expect("it tells");
    assert!(told.len() == 100 && last.events == 100 && last.bytes <= last.of_bytes, "{last:?}");
    assert!(last.of_bytes - last.bytes < 100, "room that was not used counts nothing: {last:?}");
    assert!(told.windows(2).all(|two| two[0].bytes < two[1].bytes));
    // What is sealed need not stay in the wal.
    assert!(segments(dir.path()) > 10, "{}", segments(dir.path()));
    let again =
        engine.submit(submission(&engine, b"{\"id\":\"new\",\"type\":\"a\",\"data\":1}")).await.expect("stored");
    assert_eq!((again.accepted, again.last_position), (1, 101));
    assert!(segments(dir.path()) < 6, "{}", segments(dir.path()));
    engine.close().await.expect("ends");
    drop(engine);
    let (engine, found) = started_telling(smaller).await.0.expect("starts");
    assert_eq!(found.recovered_events, 101 - found.sealed_position, "the rest is in the lake: {found:?}");
    engine.close().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_needs_the_lake_and_cannot_have_it_says_so_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    unsealed(options(dir.path()), 100).await;
    let day = dir.path().join("lake/received_date=1970-01-01");
    std::fs::write(&day, "no folder").expect("written");
    // The bound under which they were taken needs no lake.
    let (engine, _) = started_telling(options(dir.path())).await.0.expect("starts");
    assert_eq!(rows(&engine), (0, 100));
    engine.close().await.expect("ends");
    drop(engine);
    let smaller = Options {
        live_bytes_max: 200_000,
        in_flight_bytes_max: 20_000,
        group_bytes_max: 20_000,
        ..options(dir.path())
    };
    let refused = started_telling(smaller.clone()).await.0.err().expect("refused");
    assert!(matches!(refused, StartError::Recover(RecoverError::NoRoom { .. })), "{refused}");
    assert!(refused.to_string().contains("seal.live_bytes_max"), "{refused}");
    std::fs::remove_file(&day).expect("removed");
    let (engine, _) = started_telling(smaller).await.0.expect("starts");
    let (in_lake, live) = rows(&engine);
    assert_eq!(in_lake + live as u64, 100);
    engine.close().await.expect("ends");
}
