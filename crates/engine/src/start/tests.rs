//! What the running engine does when a part of it breaks.

use super::*;
use crate::answers::Request;
use crate::log::{Appended, LogFrame, RememberedKeys};
use async_trait::async_trait;
use event::{FieldNames, FieldRules, Framing, Limits, ReadOptions};
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
    async fn roll(&mut self) -> Result<(), LogError> {
        Ok(())
    }
    async fn rewrite_keys(&mut self, _: &dyn RememberedKeys) -> Result<(), LogError> {
        Ok(())
    }
    fn first_position(&self) -> u64 {
        1
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
        fields: FieldRules::default(),
        seal_age_seconds: 60,
        retention: lake::Retention::default(),
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
    let lake = Lake::open(&options.lake_dir, &options.schema, log.id(), FieldRules::default(), lake_metrics)
        .await
        .expect("a lake");
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
    /// Told the events of each append when it begins.
    began: mpsc::UnboundedSender<u32>,
}

#[async_trait]
impl EventLog for ScriptedLog {
    fn id(&self) -> Uuid {
        Uuid::from_u128(8)
    }
    async fn append(&mut self, frame: LogFrame<'_>) -> Result<Appended, LogError> {
        self.began.send(frame.event_count).ok();
        self.turns.recv().await.expect("the test tells").map(|()| Appended::default())
    }
    async fn trim(&mut self, _: u64, _: &dyn RememberedKeys) -> Result<u64, LogError> {
        Ok(0)
    }
    async fn roll(&mut self) -> Result<(), LogError> {
        Ok(())
    }
    async fn rewrite_keys(&mut self, _: &dyn RememberedKeys) -> Result<(), LogError> {
        Ok(())
    }
    fn first_position(&self) -> u64 {
        1
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
    let engine = engine_over(Box::new(ScriptedLog { turns, began: mpsc::unbounded_channel().0 }), dir.path()).await;
    let key = RequestKey::new("roof", "a");

    turn.send(Err(LogError::StorageFull("no room".to_owned()))).expect("taken");
    let refused = engine.submit(keyed(&engine, &key, b"{\"n\":1}")).await.expect_err("nothing is stored");
    assert!(matches!(refused, AcceptError::StorageFull { .. }), "{refused}");

    turn.send(Ok(())).expect("taken");
    let stored = engine.submit(keyed(&engine, &key, b"{\"n\":1}")).await.expect("the key was free again");
    let Ok(Claimed::Answered(answer)) = engine.claim(key) else { panic!("it is answered") };
    let known = Outcome { first_position: None, ..stored };
    assert_eq!((answer.outcome(), answer.content(), answer.told()), (known, 3, &b"told"[..]), "but where it lies");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stays_taken_while_its_batch_is_on_its_way_although_its_caller_is_gone() {
    let dir = tempfile::tempdir().expect("a folder");
    let (turn, turns) = mpsc::unbounded_channel();
    let engine = engine_over(Box::new(ScriptedLog { turns, began: mpsc::unbounded_channel().0 }), dir.path()).await;
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
    let engine = engine_over(Box::new(ScriptedLog { turns, began: mpsc::unbounded_channel().0 }), dir.path()).await;
    let event = b"{\"id\":\"1\",\"type\":\"a\",\"data\":1}";
    turn.send(Ok(())).expect("taken");
    engine.submit(submission(&engine, event)).await.expect("stored");
    let key = RequestKey::new("roof", "a");
    let outcome = engine.submit(keyed(&engine, &key, event)).await.expect("answered");
    assert_eq!((outcome.accepted, outcome.duplicates), (0, 1));
    assert!(matches!(engine.claim(key), Ok(Claimed::First(_))), "its events' ids answer a retry");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_batch_of_a_group_is_told_where_its_own_events_lie() {
    let dir = tempfile::tempdir().expect("a folder");
    let (turn, turns) = mpsc::unbounded_channel();
    let (began, mut appends) = mpsc::unbounded_channel();
    let engine = engine_over(Box::new(ScriptedLog { turns, began }), dir.path()).await;
    let submit = |body: &str| {
        let (engine, submission) = (engine.clone(), submission(&engine, body.as_bytes()));
        let mut submitting = Box::pin(async move { engine.submit(submission).await });
        assert!(submitting.as_mut().now_or_never().is_none(), "handed in");
        submitting
    };
    let before = submit("{\"n\":0}");
    assert_eq!(appends.recv().await, Some(1));
    let same = "{\"id\":\"same\",\"type\":\"a\",\"data\":1}\n";
    let (beside, others) = (format!("{{\"n\":1}}\n{same}{{\"n\":1}}\n"), format!("{same}{{\"n\":3}}\n{same}"));
    let group = [&*beside, same, &others, "{\"n\":4}\n"].map(submit);
    turn.send(Ok(())).expect("taken");
    assert_eq!(appends.recv().await, Some(5), "they are written at once");
    turn.send(Ok(())).expect("taken");
    let mut told = vec![before.await];
    for batch in group {
        told.push(batch.await);
    }
    let told: Vec<_> = told.into_iter().map(|o| o.map(|o| (o.first_position, o.accepted))).collect();
    assert_eq!(told, [(Some(1), 1), (Some(2), 3), (None, 0), (Some(5), 1), (Some(6), 1)].map(Ok));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_id_from_two_at_the_same_moment_one_is_stored_and_the_second_takes_the_place_of_a_first_that_fails() {
    let dir = tempfile::tempdir().expect("a folder");
    let (turn, turns) = mpsc::unbounded_channel();
    let (began, mut appends) = mpsc::unbounded_channel();
    let engine = engine_over(Box::new(ScriptedLog { turns, began }), dir.path()).await;
    let full = || Err(LogError::StorageFull("no room".to_owned()));
    let submit = |id: &str| {
        let body = format!("{{\"id\":\"{id}\",\"type\":\"a\",\"data\":1}}");
        let (engine, submission) = (engine.clone(), submission(&engine, body.as_bytes()));
        let mut submitting = Box::pin(async move { engine.submit(submission).await });
        assert!(submitting.as_mut().now_or_never().is_none(), "handed in");
        submitting
    };
    let told = |outcome: Result<Outcome, AcceptError>| outcome.map(|o| (o.accepted, o.duplicates)).ok();

    // The second comes while the first one's group is on its way, which fails, or is stored.
    for (end, expected) in [(full(), [None, Some((1, 0))]), (Ok(()), [Some((1, 0)), Some((0, 1))])] {
        let id = if end.is_ok() { "stored" } else { "failed" };
        let first = submit(id);
        assert_eq!(appends.recv().await, Some(1));
        let second = submit(id);
        let (is_stored, first) = (end.is_ok(), tokio::spawn(first));
        turn.send(end).expect("taken");
        if !is_stored {
            assert_eq!(appends.recv().await, Some(1), "the second one is written");
            turn.send(Ok(())).expect("taken");
        }
        assert_eq!([told(first.await.expect("it ends")), told(second.await)], expected, "{id}");
    }

    // Both in one group, which fails: neither is stored, and neither keeps the other out when it comes again.
    let before = submit("before");
    assert_eq!(appends.recv().await, Some(1));
    let both = [submit("both"), submit("both")];
    turn.send(Ok(())).expect("taken");
    assert_eq!(appends.recv().await, Some(1), "of two the first is written");
    turn.send(full()).expect("taken");
    assert_eq!(told(before.await), Some((1, 0)));
    for failed in both {
        assert_eq!(told(failed.await), None);
    }
    let again = submit("both");
    turn.send(Ok(())).expect("taken");
    assert_eq!(told(again.await), Some((1, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_keys_go_when_their_answers_are_too_old_although_no_request_with_a_key_comes_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options { segment_bytes: 4096, window_seconds: 1, ..options(dir.path()) };
    let mut registry = Registry::default();
    let (metrics, lake_metrics) = (EngineMetrics::register(&mut registry), lake::LakeMetrics::register(&mut registry));
    let (engine, _) = Engine::start(options, metrics, lake_metrics).await.expect("starts");
    let files = || {
        let files = std::fs::read_dir(dir.path().join("wal")).expect("a folder");
        files.filter(|file| file.as_ref().is_ok_and(|f| f.path().extension().is_some_and(|e| e == "keys"))).count()
    };
    let event =
        format!("{{\"n\":\"{}\"}}", (0..8000).map(|n| char::from(b'a' + (n * n % 25) as u8)).collect::<String>());
    engine.submit(keyed(&engine, &RequestKey::new("roof", "a"), event.as_bytes())).await.expect("stored");
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut held = false;
    while !held || files() > 0 {
        assert!(Instant::now() < deadline, "{} files of keys stay, or there were none: {held}", files());
        engine.submit(submission(&engine, event.as_bytes())).await.expect("stored");
        engine.seal().await.expect("sealed");
        held |= files() > 0;
    }
    engine.close().await.expect("ends");
}
