//! What the running engine does when a part of it breaks.

use super::*;
use crate::log::{Appended, LogFrame, RememberedKeys};
use async_trait::async_trait;
use event::{FieldNames, Framing, Limits, ReadOptions};
use prometheus_client::registry::Registry;
use uuid::Uuid;

/// A log with a defect.
struct PanickingLog;

#[async_trait]
impl EventLog for PanickingLog {
    fn id(&self) -> Uuid {
        Uuid::from_u128(7)
    }
    async fn append(&mut self, _: LogFrame<'_>) -> Result<Appended, LogError> {
        panic!("a defect")
    }
    async fn trim(&mut self, _: u64, _: &dyn RememberedKeys) -> Result<u64, LogError> {
        Ok(0)
    }
    async fn close(self: Box<Self>) -> Result<(), LogError> {
        Ok(())
    }
}

fn options(dir: &std::path::Path) -> Options {
    Options {
        wal_dir: dir.join("wal"),
        lake_dir: dir.join("lake"),
        segment_bytes: 1 << 20,
        in_flight_bytes_max: 1 << 20,
        group_bytes_max: 1 << 20,
        payload_bytes_max: 1 << 20,
        live_bytes_max: 8 << 20,
        seal_bytes: 8 << 20,
        seal_age_seconds: 60,
        room_wait_seconds: 1,
        window_keys_max: 100,
        group_keys_max: 10,
        window_seconds: 600,
        schema: event::events_schema(),
    }
}

fn submission(engine: &Engine, body: &[u8]) -> Submission {
    let options = ReadOptions {
        sensor: "roof",
        received_at: 0,
        fields: FieldNames::default(),
        time_zone: None,
        limits: Limits::default(),
    };
    let batch = event::read(body, Framing::Ndjson, &options).expect("readable");
    Submission { batch, reservation: engine.admission().reserve(1).expect("room") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_defect_in_the_commit_loop_poisons_so_that_the_process_ends_instead_of_living_on_deaf() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = options(dir.path());
    let mut registry = Registry::default();
    let (metrics, lake_metrics) = (EngineMetrics::register(&mut registry), lake::LakeMetrics::register(&mut registry));
    let log = Box::new(PanickingLog);
    let lake = Lake::open(&options.lake_dir, &options.schema, log.id(), lake_metrics).await.expect("a lake");
    let live = Live::new(lake.snapshot(), metrics.clone());
    let window =
        Window::new(options.window_keys_max, options.group_keys_max, Duration::from_secs(options.window_seconds));
    let engine = Engine::run(Parts { log, lake, live, window, wal_position: 0 }, options, metrics).expect("it runs");
    let refused = engine.submit(submission(&engine, b"{\"n\":1}")).await.expect_err("nothing is stored");
    assert!(matches!(refused, AcceptError::Poisoned { .. } | AcceptError::Stopping), "{refused}");
    engine.status().poisoning().await;
    assert!(engine.status().poisoned().is_some_and(|why| why.contains("panicked")));
    let later = engine.submit(submission(&engine, b"{\"n\":2}")).await.expect_err("nothing is taken any more");
    assert!(matches!(later, AcceptError::Poisoned { .. }), "{later}");
    assert!(matches!(engine.close().await, Err(LogError::Poisoned(_))));
}
