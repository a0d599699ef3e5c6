//! What the running engine does when a part of it breaks.

use super::*;
use crate::answers::Request;
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
        answers_bytes_max: 1 << 20,
        schema: event::events_schema(),
    }
}

/// An engine over a log of a test.
async fn engine_over(log: Box<dyn EventLog>, dir: &std::path::Path) -> Engine {
    let options = options(dir);
    let mut registry = Registry::default();
    let (metrics, lake_metrics) = (EngineMetrics::register(&mut registry), lake::LakeMetrics::register(&mut registry));
    let lake = Lake::open(&options.lake_dir, &options.schema, log.id(), lake_metrics).await.expect("a lake");
    let live = Live::new(lake.snapshot(), metrics.clone());
    let window =
        Window::new(options.window_keys_max, options.group_keys_max, Duration::from_secs(options.window_seconds));
    let answers = Arc::new(Answers::new(options.answers_bytes_max, Duration::from_secs(options.window_seconds)));
    Engine::run(Parts { log, lake, live, window, answers, wal_position: 0 }, options, metrics).expect("it runs")
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
    Submission { batch, reservation: engine.admission().reserve(1).expect("room"), request: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_defect_in_the_commit_loop_poisons_so_that_the_process_ends_instead_of_living_on_deaf() {
    let dir = tempfile::tempdir().expect("a folder");
    let engine = engine_over(Box::new(PanickingLog), dir.path()).await;
    let refused = engine.submit(submission(&engine, b"{\"n\":1}")).await.expect_err("nothing is stored");
    assert!(matches!(refused, AcceptError::Poisoned { .. } | AcceptError::Stopping), "{refused}");
    engine.status().poisoning().await;
    assert!(engine.status().poisoned().is_some_and(|why| why.contains("panicked")));
    let later = engine.submit(submission(&engine, b"{\"n\":2}")).await.expect_err("nothing is taken any more");
    assert!(matches!(later, AcceptError::Poisoned { .. }), "{later}");
    assert!(matches!(engine.close().await, Err(LogError::Poisoned(_))));
}

/// A log whose appends wait for their turn and end as the test says.
struct ScriptedLog {
    turns: mpsc::UnboundedReceiver<Result<(), LogError>>,
}

#[async_trait]
impl EventLog for ScriptedLog {
    fn id(&self) -> Uuid {
        Uuid::from_u128(8)
    }
    async fn append(&mut self, _: LogFrame<'_>) -> Result<Appended, LogError> {
        self.turns.recv().await.expect("the test tells").map(|()| Appended::default())
    }
    async fn trim(&mut self, _: u64, _: &dyn RememberedKeys) -> Result<u64, LogError> {
        Ok(0)
    }
    async fn close(self: Box<Self>) -> Result<(), LogError> {
        Ok(())
    }
}

/// A submission with a key, which must be free.
fn keyed(engine: &Engine, key: &RequestKey, body: &[u8]) -> Submission {
    let Ok(Claimed::First(claim)) = engine.claim(key.clone()) else { panic!("the key is free") };
    Submission { request: Some(Request { claim, content: 3, told: b"told".to_vec() }), ..submission(engine, body) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_fails_leaves_no_answer_and_gives_its_key_back_before_its_caller_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let (turn, turns) = mpsc::unbounded_channel();
    let engine = engine_over(Box::new(ScriptedLog { turns }), dir.path()).await;
    let key = RequestKey::new("roof", "a");

    turn.send(Err(LogError::StorageFull("no room".to_owned()))).expect("taken");
    let refused = engine.submit(keyed(&engine, &key, b"{\"n\":1}")).await.expect_err("nothing is stored");
    assert!(matches!(refused, AcceptError::StorageFull { .. }), "{refused}");

    turn.send(Ok(())).expect("taken");
    let stored = engine.submit(keyed(&engine, &key, b"{\"n\":1}")).await.expect("the key was free again");
    let Ok(Claimed::Answered(answer)) = engine.claim(key) else { panic!("it is answered") };
    assert_eq!((answer.outcome(), answer.content(), answer.told()), (stored, 3, &b"told"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stays_taken_while_its_batch_is_on_its_way_although_its_caller_is_gone() {
    let dir = tempfile::tempdir().expect("a folder");
    let (turn, turns) = mpsc::unbounded_channel();
    let engine = engine_over(Box::new(ScriptedLog { turns }), dir.path()).await;
    let key = RequestKey::new("roof", "a");

    let submission = keyed(&engine, &key, b"{\"n\":1}");
    let mut submitting = Box::pin(engine.submit(submission));
    assert!(futures::poll!(submitting.as_mut()).is_pending(), "on its way");
    drop(submitting);
    assert!(engine.claim(key.clone()).is_err(), "nobody waits for it, and it runs");
    turn.send(Ok(())).expect("taken");
    let deadline = Instant::now() + Duration::from_secs(60);
    while engine.claim(key.clone()).is_err() {
        assert!(Instant::now() < deadline, "it ends");
        tokio::task::yield_now().await;
    }
    assert!(matches!(engine.claim(key), Ok(Claimed::Answered(_))), "and is remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_stores_nothing_is_not_remembered() {
    let dir = tempfile::tempdir().expect("a folder");
    let (turn, turns) = mpsc::unbounded_channel();
    let engine = engine_over(Box::new(ScriptedLog { turns }), dir.path()).await;
    let event = b"{\"id\":\"1\",\"type\":\"a\",\"data\":1}";
    turn.send(Ok(())).expect("taken");
    engine.submit(submission(&engine, event)).await.expect("stored");
    let key = RequestKey::new("roof", "a");
    let outcome = engine.submit(keyed(&engine, &key, event)).await.expect("answered");
    assert_eq!((outcome.accepted, outcome.duplicates), (0, 1));
    assert!(matches!(engine.claim(key), Ok(Claimed::First(_))), "its events' ids answer a retry");
}
