//! Starting the engine, handing it batches, asking for its View, stopping it.
//!
//! [`Engine::start`] opens the lake, brings the log back, and starts the two loops. [`Engine::submit`] promises that every
//! batch handed in gets exactly one answer, and that its events are counted whatever happens to the caller.

use crate::admission::Admission;
use crate::answers::{Answers, Claimed, InUse, RequestKey};
use crate::ask::{Ask, Holds};
use crate::batch::{AcceptError, Outcome, Submission, Waiting};
use crate::clock::{Clock, Kept, Timekeeper};
use crate::commit::CommitLoop;
use crate::floor::Floor;
use crate::live::Live;
use crate::log::{EventLog, LocalLog, LogError};
use crate::maintain::{MaintainLoop, newest_micros};
use crate::metrics::EngineMetrics;
use crate::payload::Encoder;
use crate::recover::{RecoverError, Recovery, belong_together, checked, seal_lost};
use crate::seal::{SealLoop, SealNow};
use crate::window::Window;
use arrow::datatypes::SchemaRef;
use event::FieldRules;
use futures::FutureExt;
use lake::{Lake, Retention, View};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Where the engine keeps its data and how much of everything it may use.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of the wal.
    pub wal_dir: PathBuf,
    /// Folder of the lake.
    pub lake_dir: PathBuf,
    /// With fewer bytes free on the disk of the wal no events are taken.
    pub free_bytes_min: u64,
    /// Size of one wal segment.
    pub segment_bytes: u64,
    /// Bytes of requests in flight.
    pub in_flight_bytes_max: u64,
    /// A group takes no further batch beyond this.
    pub group_bytes_max: u64,
    /// Largest group in memory before compression; no frame of the wal is larger.
    pub payload_bytes_max: usize,
    /// Bound of the live rows.
    pub live_bytes_max: u64,
    /// Live rows of this size are sealed.
    pub seal_bytes: u64,
    /// Live rows of this age are sealed.
    pub seal_age_seconds: u64,
    /// Which fields of `data` get a column in the lake.
    pub fields: FieldRules,
    /// How long events stay in the lake.
    pub retention: Retention,
    /// The clocks.
    pub clock: Clock,
    /// A group waits this long for a seal to make room, then fails.
    pub room_wait_seconds: u64,
    /// Number of keys in the duplicate window.
    pub window_keys_max: usize,
    /// Number of keys that one group may bring.
    pub group_keys_max: usize,
    /// Age of the duplicate window, and of the remembered answers.
    pub window_seconds: u64,
    /// Memory of the remembered answers.
    pub answers_bytes_max: u64,
    /// Columns of the table `events`.
    pub schema: SchemaRef,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The wal could not be opened.
    #[error("wal: {0}")]
    Wal(#[from] wal::OpenError),
    /// The lake could not be opened.
    #[error("lake: {0}")]
    Lake(#[from] lake::OpenError),
    /// The wal could not be read back.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The operating system refused a thread or memory.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// What the start found.
#[derive(Clone, Debug, Default)]
pub struct Started {
    /// Events read back from the wal that were not in the lake.
    pub recovered_events: u64,
    /// How many of them went into the lake on the way, as more may not be live.
    pub sealed_events: u64,
    /// Time the start took.
    pub seconds: f64,
    /// Last position accepted before.
    pub last_position: u64,
    /// Position up to which the lake holds all events.
    pub sealed_position: u64,
    /// A torn tail that was cut, as a sentence.
    pub torn_tail: Option<String>,
    /// Ranges of positions, first and last, that a repair of the wal found no events of and that the wal still tells.
    pub lost: Vec<(u64, u64)>,
}

/// What a start does with the wal, and how far it is.
#[derive(Clone, Copy, Debug)]
pub enum Starting {
    /// It checks every frame, before anything is changed.
    Checks(wal::Read),
    /// It brings the frames back.
    Replays(wal::Read),
}

/// The engine's state of health, for whoever asks.
#[derive(Debug, Default)]
pub struct Status {
    poisoned: Mutex<Option<String>>,
    seal_failure: Mutex<Option<String>>,
    storage_full: Mutex<Option<String>>,
    window_seconds: AtomicU64,
    ended: tokio::sync::Notify,
}

impl Status {
    /// Why the log takes nothing any more, if so.
    pub fn poisoned(&self) -> Option<String> {
        self.poisoned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the last seal failed, if it did.
    pub fn seal_failure(&self) -> Option<String> {
        self.seal_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the last group found no room on the disk, if it did not.
    pub fn storage_full(&self) -> Option<String> {
        self.storage_full.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The true length of the duplicate window.
    pub fn window_seconds(&self) -> u64 {
        self.window_seconds.load(Ordering::Relaxed)
    }

    /// Returns when the log is poisoned: the process has to end, recovery decides.
    pub async fn poisoning(&self) {
        loop {
            let ended = self.ended.notified();
            if self.poisoned().is_some() {
                return;
            }
            ended.await;
        }
    }

    pub(crate) fn poison(&self, reason: &str) {
        *self.poisoned.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        self.ended.notify_waiters();
    }

    pub(crate) fn set_storage_full(&self, reason: Option<String>) {
        *self.storage_full.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    pub(crate) fn set_seal_failure(&self, reason: Option<String>) {
        *self.seal_failure.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    pub(crate) fn set_window_seconds(&self, seconds: u64) {
        self.window_seconds.store(seconds, Ordering::Relaxed);
    }
}

/// The running data path. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    admission: Admission,
    floor: Floor,
    queue: Mutex<Option<mpsc::UnboundedSender<Waiting>>>,
    pub(crate) lake: Lake,
    pub(crate) live: Arc<Live>,
    pub(crate) answers: Arc<Answers>,
    seal_now: mpsc::Sender<SealNow>,
    pub(crate) asks: mpsc::UnboundedSender<Ask>,
    pub(crate) holds: Holds,
    metrics: EngineMetrics,
    status: Arc<Status>,
    ended: watch::Receiver<Option<Result<(), LogError>>>,
}

impl Engine {
    /// Opens the folders, brings the log back and starts the loops on the current runtime.
    ///
    /// # Errors
    /// [`StartError`]: a folder that cannot be opened or is in use, corruption, a wal and a lake that do not belong together.
    pub async fn start(
        options: Options,
        metrics: EngineMetrics,
        lake_metrics: lake::LakeMetrics,
    ) -> Result<(Self, Started), StartError> {
        Self::start_telling(options, metrics, lake_metrics, |_| {}).await
    }

    /// The same; `told` hears how far reading the wal is, for each of its groups.
    ///
    /// # Errors
    /// See [`Engine::start`].
    pub async fn start_telling(
        options: Options,
        metrics: EngineMetrics,
        lake_metrics: lake::LakeMetrics,
        told: impl Fn(Starting) + Send + Sync + 'static,
    ) -> Result<(Self, Started), StartError> {
        let (began, told) = (Instant::now(), Arc::new(told));
        let checked = checked(&options, told.clone()).await?;
        let (wal_id, fields) = (checked.wal_id(), options.fields.clone());
        let lake = Lake::open(&options.lake_dir, &options.schema, wal_id, fields, lake_metrics).await?;
        let sealed = lake.snapshot().sealed;
        // Before the wal is changed.
        belong_together(&checked, lake.highest_position(), sealed)?;
        let (log, opened) = LocalLog::open(checked, &options)?;
        let wal_position = opened.last_position;
        let live = Live::new(lake.snapshot(), metrics.clone());
        let mut window =
            Window::new(options.window_keys_max, options.group_keys_max, Duration::from_secs(options.window_seconds));
        let answers = Arc::new(Answers::new(options.answers_bytes_max, Duration::from_secs(options.window_seconds)));
        let mut recovery = Recovery {
            lake: &lake,
            live: &live,
            window: &mut window,
            answers: &answers,
            log: log.id(),
            sealed,
            expected: sealed + 1,
            lost: log.lost().to_vec(),
            events: 0,
            options: &options,
            metrics: &metrics,
        };
        log.recover(&mut recovery, |read| told(Starting::Replays(read))).await?;
        recovery.pass_lost();
        if recovery.expected != wal_position + 1 {
            return Err(RecoverError::Gap { sealed, first: wal_position + 1 }.into());
        }
        // Their events are in the wal.
        lake.remove_unnamed().await.map_err(lake::OpenError::from)?;
        let recovered_events = recovery.events;
        metrics.torn_tails.inc_by(u64::from(opened.torn_tail.is_some()));
        metrics.last_position.set(wal_position as i64);
        metrics.wal_bytes.set(log.bytes() as i64);
        let sealed_position = live.view().lake.sealed;
        let started = Started {
            recovered_events,
            sealed_events: recovered_events - live.rows() as u64,
            seconds: began.elapsed().as_secs_f64(),
            last_position: wal_position,
            sealed_position,
            torn_tail: opened.torn_tail,
            lost: log.lost().to_vec(),
        };
        if log.lost().iter().any(|(_, last)| *last > sealed_position) {
            seal_lost(&lake, &live, (sealed_position + 1, wal_position)).await;
        }
        // What was sealed on the way need not stay in the wal.
        let trim_to = (sealed_position > sealed).then_some(sealed_position);
        let parts = Parts { log: Box::new(log), lake, live, window, answers, wal_position, trim_to };
        Ok((Self::run(parts, options, metrics)?, started))
    }

    fn run(parts: Parts, options: Options, metrics: EngineMetrics) -> Result<Self, StartError> {
        let (queue, waiting) = mpsc::unbounded_channel();
        let (seal_now, asked) = mpsc::channel(4);
        let (ask, asks) = mpsc::unbounded_channel();
        let holds = Holds::default();
        let (sealed_tx, sealed) = watch::channel(0);
        if let Some(trim_to) = parts.trim_to {
            sealed_tx.send_replace(trim_to);
        }
        let (ended_tx, ended) = watch::channel(None);
        let status = Arc::new(Status::default());
        status.set_window_seconds(options.window_seconds);
        metrics.window_seconds.set(options.window_seconds as i64);
        metrics.window_configured_seconds.set(options.window_seconds as i64);
        metrics.answers(&parts.answers, Instant::now());
        metrics.window_keys.set(parts.window.len() as i64);
        metrics.window_bytes.set(parts.window.bytes() as i64);
        let kept = Kept::of(&options.lake_dir);
        let time = Timekeeper::since(options.clock.clone(), kept, || newest_micros(&parts.live.view()));
        let (lake, live, retention) = (parts.lake.clone(), parts.live.clone(), options.retention);
        let maintain = MaintainLoop { lake, live, retention, time: time.clone(), sealed: sealed.clone() };
        tokio::spawn(maintain.run());
        let seal = SealLoop {
            lake: parts.lake.clone(),
            live: parts.live.clone(),
            sealed: sealed_tx,
            asked,
            metrics: metrics.clone(),
            options: options.clone(),
            status: status.clone(),
        };
        tokio::spawn(poisoning(status.clone(), "sealing", seal.run()));
        let admission = Admission::new(options.in_flight_bytes_max);
        let floor = Floor::new(options.wal_dir.clone(), options.free_bytes_min);
        let commit = CommitLoop {
            log: parts.log,
            queue: waiting,
            sealed,
            asks,
            holds: holds.clone(),
            live: parts.live.clone(),
            window: parts.window,
            answers: parts.answers.clone(),
            encoder: Encoder::new()?,
            last_position: parts.wal_position,
            metrics: metrics.clone(),
            options,
            time,
            status: status.clone(),
        };
        let runtime = tokio::runtime::Handle::current();
        let status_of_thread = status.clone();
        std::thread::Builder::new().name("commit".to_owned()).spawn(move || {
            let committed = runtime.block_on(poisoning(status_of_thread, "the commit loop", commit.run()));
            let panicked = || Err(LogError::Poisoned("the commit loop panicked".to_owned()));
            ended_tx.send_replace(Some(committed.unwrap_or_else(panicked)));
        })?;
        let queue = Mutex::new(Some(queue));
        let Parts { lake, live, answers, .. } = parts;
        let shared =
            Shared { admission, floor, queue, lake, live, answers, seal_now, asks: ask, holds, metrics, status, ended };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The byte budget of requests in flight.
    pub fn admission(&self) -> &Admission {
        &self.shared.admission
    }

    /// The engine's health.
    pub fn status(&self) -> &Arc<Status> {
        &self.shared.status
    }

    /// Why no events are taken for want of room, if so: the disk is below its floor, or had no room for the last group.
    pub fn storage_full(&self) -> Option<String> {
        self.shared.floor.missing().or_else(|| self.shared.status.storage_full())
    }

    /// Why nothing goes into the lake any more, if its folder is gone.
    pub fn lake_gone(&self) -> Option<String> {
        self.shared.lake.gone()
    }

    /// What a query sees now: everything answered before this call.
    pub fn view(&self) -> Arc<View> {
        self.shared.live.view()
    }

    /// The last position that a query sees, and when it grows.
    pub fn visible(&self) -> tokio::sync::watch::Receiver<u64> {
        self.shared.live.visible()
    }

    /// Claims the key of a request whose head has come: what it was answered before, or the right to run.
    ///
    /// # Errors
    /// [`InUse`] while a request with this key runs.
    pub fn claim(&self, key: RequestKey) -> Result<Claimed, InUse> {
        self.shared.answers.claim(key, Instant::now())
    }

    /// How long answers are remembered now.
    pub fn answers_seconds(&self) -> u64 {
        self.shared.answers.seconds(Instant::now())
    }

    /// Counts a request that got the answer of before; its events are not received again.
    pub fn replayed(&self) {
        self.shared.metrics.replayed.inc();
    }

    /// Counts a batch of which nothing is stored: all of it was rejected.
    pub fn rejected(&self, events: u64) {
        self.shared.metrics.received.inc_by(events);
        self.shared.metrics.rejected.inc_by(events);
    }

    /// Counts events that were stored before, as whoever hands in the others has found out.
    pub fn duplicates(&self, events: u64) {
        self.shared.metrics.received.inc_by(events);
        self.shared.metrics.duplicates.inc_by(events);
    }

    /// Counts events that were stored although their id was seen with other content, as whoever handed them in has found out.
    pub fn reused_ids(&self, events: u64) {
        self.shared.metrics.reused_ids.inc_by(events);
    }

    /// Counts a batch that failed before it was handed in.
    pub fn failed(&self, events: u64) {
        self.shared.metrics.received.inc_by(events);
        self.shared.metrics.failed.inc_by(events);
    }

    /// Hands a batch in and returns its answer: durable and visible, or not stored at all.
    ///
    /// The batch is counted and on its way when the future is first polled; dropping the future afterwards drops only the
    /// answer.
    ///
    /// # Errors
    /// [`AcceptError`]: nothing of the batch is stored.
    pub async fn submit(&self, submission: Submission) -> Result<Outcome, AcceptError> {
        let metrics = &self.shared.metrics;
        let events = submission.batch.columns.num_rows() as u64;
        metrics.received.inc_by(events + submission.batch.rejected_total);
        metrics.rejected.inc_by(submission.batch.rejected_total);
        if events == 0 {
            return Ok(Outcome::default());
        }
        if let Some(reason) = self.shared.floor.missing() {
            metrics.failed.inc_by(events);
            return Err(AcceptError::StorageFull { reason });
        }
        let (answer, answered) = oneshot::channel();
        let sent = {
            let queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.as_ref().is_some_and(|queue| queue.send(Waiting { submission, answer }).is_ok())
        };
        if !sent {
            metrics.failed.inc_by(events);
            return Err(self.refusal());
        }
        answered.await.unwrap_or_else(|_| Err(self.refusal()))
    }

    /// Writes all live rows to the lake now.
    ///
    /// # Errors
    /// The reason, when the lake did not take them; they stay live and durable.
    pub async fn seal(&self) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        self.shared.seal_now.send(answer).await.map_err(|_| "the engine has stopped".to_owned())?;
        answered.await.map_err(|_| "the engine has stopped".to_owned())?
    }

    /// Takes nothing more, answers what waits, syncs and ends the log. Live rows stay in the wal unless sealed before.
    ///
    /// # Errors
    /// [`LogError`] when the log could not be ended cleanly; the next start recovers.
    pub async fn close(&self) -> Result<(), LogError> {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut ended = self.shared.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(result) => result.clone().expect("waited for"),
            Err(_) => Err(LogError::Poisoned("the commit loop is gone".to_owned())),
        }
    }

    fn refusal(&self) -> AcceptError {
        match self.shared.status.poisoned() {
            Some(reason) => AcceptError::Poisoned { reason },
            None => AcceptError::Stopping,
        }
    }
}

/// Runs a loop on which everything depends. When it panics the engine is poisoned, so that the process ends and the next start
/// decides, instead of living on without it.
async fn poisoning<T>(status: Arc<Status>, what: &str, running: impl Future<Output = T>) -> Option<T> {
    let ended = AssertUnwindSafe(running).catch_unwind().await;
    if ended.is_err() {
        status.poison(&format!("{what} panicked"));
    }
    ended.ok()
}

struct Parts {
    log: Box<dyn EventLog>,
    lake: Lake,
    live: Arc<Live>,
    window: Window,
    answers: Arc<Answers>,
    wal_position: u64,
    /// What the log may let go of at once.
    trim_to: Option<u64>,
}

#[cfg(test)]
mod tests;
