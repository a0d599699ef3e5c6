//! What the running engine does when a part of it breaks.

mod replay;

use super::*;
use crate::answers::Request;
use crate::clock::Reading;
use crate::log::{Appended, LogFrame, RememberedKeys};
use async_trait::async_trait;
use event::{FieldNames, FieldRules, Framing, Limits, ReadOptions};
use prometheus_client::registry::Registry;
use std::path::Path;
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
    async fn link_into(&mut self, _: &Path) -> Result<wal::Parts, LogError> {
        Err(LogError::NotDone("it has no files".to_owned()))
    }
    fn first_position(&self) -> u64 {
        1
    }
    async fn close(self: Box<Self>) -> Result<(), LogError> {
        Ok(())
    }
}

fn options(dir: &Path) -> Options {
    Options {
        wal_dir: dir.join("wal"),
        lake_dir: dir.join("lake"),
        free_bytes_min: 0,
        segment_bytes: 1 << 20,
        in_flight_bytes_max: 1 << 20,
        group_bytes_max: 1 << 20,
        payload_bytes_max: 1 << 20,
        live_bytes_max: 8 << 20,
        seal_bytes: 8 << 20,
        fields: FieldRules::default(),
        seal_age_seconds: 60,
        retention: lake::Retention::default(),
        clock: Clock::default(),
        room_wait_seconds: 1,
        window_keys_max: 100,
        group_keys_max: 10,
        window_seconds: 600,
        answers_bytes_max: 1 << 20,
        schema: event::events_schema(),
    }
}

/// An engine over a log of a test.
async fn engine_over(log: Box<dyn EventLog>, dir: &Path) -> Engine {
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
    Engine::run(Parts { log, lake, live, window, answers, wal_position: 0, trim_to: None }, options, metrics)
        .expect("it runs")
}

fn submission(engine: &Engine, body: &[u8]) -> Submission {
    submission_of(("roof", 0), engine, body)
}

fn submission_of((sensor, received_at): (&str, i64), engine: &Engine, body: &[u8]) -> Submission {
    let options =
        ReadOptions { sensor, received_at, fields: FieldNames::default(), time_zone: None, limits: Limits::default() };
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
    async fn link_into(&mut self, _: &Path) -> Result<wal::Parts, LogError> {
        Err(LogError::NotDone("it has no files".to_owned()))
    }
    fn first_position(&self) -> u64 {
        1
    }
    async fn close(self: Box<Self>) -> Result<(), LogError> {
        Ok(())
    }
}

/// Woken, it tells whether the engine counts as poisoned.
struct Looks {
    status: Arc<Status>,
    seen: mpsc::UnboundedSender<bool>,
}

impl std::task::Wake for Looks {
    fn wake(self: Arc<Self>) {
        self.seen.send(self.status.poisoned().is_some()).ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_told_of_a_poisoned_log_finds_the_engine_poisoned() {
    let dir = tempfile::tempdir().expect("a folder");
    let (turn, turns) = mpsc::unbounded_channel();
    let engine = engine_over(Box::new(ScriptedLog { turns, began: mpsc::unbounded_channel().0 }), dir.path()).await;
    let (seen, mut saw) = mpsc::unbounded_channel();
    let waker = std::task::Waker::from(Arc::new(Looks { status: engine.shared.status.clone(), seen }));
    let mut submitting = Box::pin(engine.submit(submission(&engine, b"{\"n\":1}")));
    assert!(submitting.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending(), "on its way");

    turn.send(Err(LogError::Poisoned("a sync failed".to_owned()))).expect("taken");
    assert_eq!(saw.recv().await, Some(true), "when it is told");
    let refused = submitting.await.expect_err("nothing is stored");
    assert!(matches!(refused, AcceptError::Poisoned { .. }), "{refused}");
}

/// An engine with all of its parts.
async fn started(options: Options) -> Engine {
    let mut registry = Registry::default();
    let (metrics, lake_metrics) = (EngineMetrics::register(&mut registry), lake::LakeMetrics::register(&mut registry));
    Engine::start(options, metrics, lake_metrics).await.expect("starts").0
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
    let engine = started(Options { segment_bytes: 4096, window_seconds: 1, ..options(dir.path()) }).await;
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

/// An event of each sensor.
async fn one_each(engine: &Engine, received_at: i64) {
    for sensor in ["cellar", "roof"] {
        engine.submit(submission_of((sensor, received_at), engine, b"{\"n\":1}")).await.expect("stored");
    }
}

fn of_cellar(until: u64) -> lake::Erasing {
    lake::Erasing { sensor: "cellar".to_owned(), until }
}

/// How many rows lie in the lake, and how many are live.
fn rows(engine: &Engine) -> (u64, usize) {
    let view = engine.view();
    (view.lake.files.iter().map(|file| file.stats.rows).sum(), view.live.iter().map(lake::LiveChunk::count).sum())
}

fn segments(dir: &Path) -> usize {
    let files = std::fs::read_dir(dir.join("wal")).expect("a folder").flatten();
    files.filter(|file| file.path().extension().is_some_and(|e| e == "wal")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_after_a_seal_that_failed_is_erased_as_well() {
    let dir = tempfile::tempdir().expect("a folder");
    let engine = started(options(dir.path())).await;
    let day = dir.path().join("lake/received_date=1970-01-01");
    std::fs::write(&day, "no folder").expect("written");
    one_each(&engine, 0).await;
    engine.seal().await.expect_err("its files find no place");
    one_each(&engine, 0).await;
    std::fs::remove_file(&day).expect("removed");
    // The seal that comes now has the rows of the one that failed, and no others.
    engine.erase(&of_cellar(engine.last_position()), <[u8]>::to_vec).await.expect("erased");
    assert_eq!((rows(&engine), engine.erased_events(), segments(dir.path())), ((2, 0), 2, 1));
    engine.close().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_waits_for_who_reads_what_it_erases() {
    let dir = tempfile::tempdir().expect("a folder");
    let engine = started(options(dir.path())).await;
    one_each(&engine, 0).await;
    engine.seal().await.expect("sealed");
    let (reader, until) = (engine.view(), engine.last_position());
    let erasing = tokio::spawn({
        let engine = engine.clone();
        async move { engine.erase(&of_cellar(until), <[u8]>::to_vec).await }
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    while engine.erased_events() == 0 {
        assert!(Instant::now() < deadline, "it begins");
        tokio::task::yield_now().await;
    }
    assert_eq!(rows(&engine), (1, 0), "a question that begins now does not see them");
    let (root, file) = (reader.lake.root.clone(), reader.lake.files[0].path.clone());
    assert!(!erasing.is_finished() && root.join(&file).exists(), "who reads them has them");
    drop(reader);
    erasing.await.expect("no panic").expect("erased");
    assert!(!root.join(file).exists());
    engine.close().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_of_an_erasure_fails_keeps_nothing_else_from_being_erased() {
    let dir = tempfile::tempdir().expect("a folder");
    let engine = started(options(dir.path())).await;
    // Files of an hour that is over are put together.
    let (now, mut files) = (Clock::default().wall_micros(), Vec::new());
    for _ in 0..3 {
        one_each(&engine, now).await;
        engine.seal().await.expect("sealed");
        let view = engine.view();
        files.push(view.lake.root.join(&view.lake.files.last().expect("a file").path));
    }
    let whole = std::fs::read(&files[0]).expect("readable");
    std::fs::write(&files[0], "not Parquet").expect("written");
    let until = engine.last_position();
    one_each(&engine, now).await;
    let error = engine.erase(&of_cellar(until), <[u8]>::to_vec).await.expect_err("nobody knows what is in that file");
    assert!(error.to_string().contains("received_date="), "{error}");
    assert_eq!((engine.erased_events(), segments(dir.path())), (2, 1));
    assert!(!files[1].exists() && !files[2].exists(), "the others are gone");
    std::fs::write(&files[0], whole).expect("written");
    engine.erase(&of_cellar(until), <[u8]>::to_vec).await.expect("erased");
    let (in_lake, live) = rows(&engine);
    assert_eq!((engine.erased_events(), in_lake + live as u64), (3, 5), "what came later stays");
    engine.close().await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_linked_starts_with_all_that_was_answered_and_the_log_lets_go_of_nothing_while_it_is_held() {
    let (dir, copy) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let engine = started(options(dir.path())).await;
    let sealed_in_a_segment_of_its_own = async || {
        one_each(&engine, 0).await;
        engine.ask(Ask::Roll).await.expect("it runs").expect("rolled");
        engine.seal().await.expect("sealed");
        // What was told of the seal has been heard when the next group is stored.
        one_each(&engine, 0).await;
    };
    let held = engine.shared.holds.hold();
    sealed_in_a_segment_of_its_own().await;
    assert_eq!(segments(dir.path()), 2, "both are there");
    let lake = engine.shared.lake.link_into(&copy.path().join("lake")).await.expect("linked");
    // Between the two the lake goes on.
    sealed_in_a_segment_of_its_own().await;
    let to = copy.path().join("wal");
    let wal = engine.ask(|answer| Ask::Link(to, answer)).await.expect("it runs").expect("linked");
    assert_eq!((lake.sealed, lake.events, wal.last_position), (2, 2, 8));
    drop(held);
    sealed_in_a_segment_of_its_own().await;
    assert_eq!(segments(dir.path()), 1, "and then they go");
    engine.close().await.expect("ends");

    // Of the segment that was written, more came.
    for wal::Part { name, bytes } in wal.files {
        let file = std::fs::File::options().write(true).open(copy.path().join("wal").join(name));
        file.and_then(|file| file.set_len(bytes)).expect("cut");
    }
    let other = started(options(copy.path())).await;
    assert_eq!((rows(&other), other.last_position()), ((2, 6), 8));
    other.close().await.expect("ends");
}

#[tokio::test]
async fn a_clock_that_was_set_back_is_kept_before_what_comes_then_is_stored() {
    const BEGIN: i64 = 1_800_000_000_000_000;
    const YEAR: i64 = 365 * 86_400_000_000;
    let dir = tempfile::tempdir().expect("a folder");
    let clock = testkit::SimClock::new(BEGIN);
    let read = clock.clone();
    let clocks = Clock::new(move || Reading { wall_micros: read.wall_micros(), passed: read.passed() });
    let engine = started(Options { clock: clocks, ..options(dir.path()) }).await;
    let send = |body: &'static [u8]| engine.submit(submission(&engine, body));
    let kept = || Kept::of(&dir.path().join("lake")).read().expect("one is kept").micros;
    assert_eq!(send(b"{\"n\":1}").await.expect("stored").accepted, 1);
    assert_eq!(kept(), BEGIN, "also at the first event");
    clock.leap(-2 * YEAR);
    assert_eq!(send(b"{\"n\":2}").await.expect("stored").accepted, 1);
    assert_eq!(kept(), BEGIN - 2 * YEAR);
    // Nothing is stored when there is no room for it.
    let new = dir.path().join("lake/_clock.new");
    std::os::unix::fs::symlink("/dev/full", &new).expect("linked");
    clock.leap(-2 * YEAR);
    let refused = send(b"{\"n\":3}").await.expect_err("there is no room");
    assert!(
        matches!(&refused, AcceptError::StorageFull { reason } if reason.contains("the time cannot be kept")),
        "{refused:?}"
    );
    assert_eq!((engine.last_position(), kept()), (2, BEGIN - 2 * YEAR));
    std::fs::remove_file(&new).expect("removed");
    assert_eq!(send(b"{\"n\":3}").await.expect("stored").accepted, 1);
    assert_eq!((engine.last_position(), kept()), (3, BEGIN - 4 * YEAR));
    // With another error it is for the operator to see in the log.
    std::fs::create_dir(&new).expect("made");
    clock.leap(-2 * YEAR);
    assert_eq!(send(b"{\"n\":4}").await.expect("stored").accepted, 1);
}
