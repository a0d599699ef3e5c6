//! The commit loop, the heart of the engine: durable, then remembered and visible, then answered.
//!
//! [`CommitLoop::run`] is that order. It runs on a thread of its own, so the log may block it; one loop owns the log, the
//! window and the next position, so none of them needs a lock.

use crate::admission::Reservation;
use crate::answers::{self, AgedAnswer, Answers, Request};
use crate::ask::{Ask, Holds};
use crate::batch::{AcceptError, Outcome, Waiting};
use crate::clock::Timekeeper;
use crate::live::Live;
use crate::log::{EventLog, LogError, LogFrame, RememberedKeys};
use crate::metrics::EngineMetrics;
use crate::payload::Encoder;
use crate::start::{Options, Status};
use crate::window::{self, LOOK_AHEAD, Verdict, Window};
use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, StringArray, StringBuilder, TimestampMicrosecondArray};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use event::Key;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Owns what the order of a commit needs.
pub(crate) struct CommitLoop {
    pub(crate) log: Box<dyn EventLog>,
    pub(crate) queue: mpsc::UnboundedReceiver<Waiting>,
    pub(crate) sealed: watch::Receiver<u64>,
    pub(crate) asks: mpsc::UnboundedReceiver<Ask>,
    pub(crate) holds: Holds,
    pub(crate) live: Arc<Live>,
    pub(crate) window: Window,
    pub(crate) answers: Arc<Answers>,
    pub(crate) encoder: Encoder,
    pub(crate) last_position: u64,
    pub(crate) metrics: EngineMetrics,
    pub(crate) options: Options,
    pub(crate) time: Timekeeper,
    pub(crate) status: Arc<Status>,
}

/// A batch of the group, once its duplicates are known.
struct Member {
    answer: oneshot::Sender<Result<Outcome, AcceptError>>,
    outcome: Outcome,
    events: u64,
    /// Its key is given back when the batch is answered.
    request: Option<Request>,
    /// Held until the batch is answered.
    _reservation: Reservation,
}

/// One group on its way.
struct Group {
    members: Vec<Member>,
    /// What is to be stored, in order and without positions; `None` when all were duplicates.
    rows: Option<RecordBatch>,
    keys: Vec<Option<Key>>,
    /// What requests with a key are answered; none where nothing is stored.
    answers: Vec<AgedAnswer>,
    first_position: u64,
    /// Where the window stood before this group.
    mark: usize,
}

impl Group {
    /// What is to be remembered of the requests that came with a key. One that stores nothing is answered the same without it.
    fn answers(&self) -> Vec<AgedAnswer> {
        let stored = self.rows.as_ref().map_or(0, |rows| rows.num_rows() as u64);
        let last_position = self.first_position + stored.saturating_sub(1);
        let storing = self.members.iter().filter(|member| member.outcome.accepted > 0);
        let answer = |member: &Member| {
            let outcome = Outcome { last_position, first_position: None, ..member.outcome };
            let answer = Arc::new(member.request.as_ref()?.answer(outcome));
            Some(AgedAnswer { answer, age_seconds: 0 })
        };
        storing.filter_map(answer).collect()
    }
}

impl CommitLoop {
    /// Runs until the queue is closed and empty, or the log is poisoned; then ends the log.
    pub(crate) async fn run(mut self) -> Result<(), LogError> {
        while let Some(waiting) = self.next_group().await {
            let mut group = self.prepare(waiting);
            if let Err(error) = self.append(&group).await {
                // Before anyone is told: who then looks is told the same.
                match &error {
                    AcceptError::StorageFull { reason } => self.status.set_storage_full(Some(reason.clone())),
                    AcceptError::Poisoned { reason } => self.status.poison(reason),
                    _ => {}
                }
                self.fail(group, &error);
                if let AcceptError::Poisoned { reason } = &error {
                    self.fail_waiting(&error);
                    return Err(LogError::Poisoned(reason.clone()));
                }
                continue;
            }
            self.remember(&mut group);
            self.publish(&group);
            self.answer(group);
        }
        self.log.close().await
    }

    /// All that waits, up to the bound of one group; meanwhile the log is trimmed when a seal is through, or what it is asked for is done.
    async fn next_group(&mut self) -> Option<Vec<Waiting>> {
        let first = loop {
            tokio::select! {
                biased;
                Some(ask) = self.asks.recv() => self.answer_ask(ask).await,
                changed = self.sealed.changed() => if changed.is_ok() { self.trim().await } else { break self.queue.recv().await? },
                first = self.queue.recv() => break first?,
            }
        };
        let mut bytes = first.submission.reservation.bytes();
        let mut group = vec![first];
        while bytes < self.options.group_bytes_max {
            let Ok(next) = self.queue.try_recv() else {
                break;
            };
            bytes += next.submission.reservation.bytes();
            group.push(next);
        }
        Some(group)
    }

    async fn trim(&mut self) {
        let sealed = *self.sealed.borrow_and_update();
        if let Err(error) = self.try_trim(sealed).await {
            tracing::error!(sealed, %error, "wal not trimmed, will be tried after the next seal");
        }
    }

    pub(crate) async fn try_trim(&mut self, sealed: u64) -> Result<(), LogError> {
        if self.is_held() {
            return Ok(());
        }
        let now = Instant::now();
        self.window.keep(now);
        let wall_micros = self.options.clock.wall_micros();
        let keys = KeysOfWindow { window: &self.window, answers: &self.answers, now, wall_micros };
        let trimmed = self.log.trim(sealed, &keys).await;
        self.remembered(now);
        self.metrics.wal_bytes.set(trimmed? as i64);
        Ok(())
    }

    /// Drops duplicates and merges the batches into one.
    fn prepare(&mut self, waiting: Vec<Waiting>) -> Group {
        // What is too old now is no duplicate any more, however long ago the group before was.
        self.window.keep(Instant::now());
        let mark = self.window.len();
        let first_position = self.last_position + 1;
        let members = Vec::with_capacity(waiting.len());
        let mut group = Group { members, rows: None, keys: Vec::new(), answers: Vec::new(), first_position, mark };
        let mut parts = Vec::with_capacity(waiting.len());
        for Waiting { submission, answer } in waiting {
            let batch = submission.batch;
            let mut outcome = Outcome::default();
            let first = first_position + group.keys.len() as u64;
            let stored = self.without_duplicates(batch.columns, batch.keys, &mut group.keys, &mut outcome);
            outcome.accepted = stored.num_rows() as u64;
            outcome.first_position = (outcome.accepted > 0).then_some(first);
            let events = outcome.accepted + outcome.duplicates;
            let (request, _reservation) = (submission.request, submission.reservation);
            group.members.push(Member { answer, outcome, events, request, _reservation });
            if stored.num_rows() > 0 {
                parts.push(stored);
            }
        }
        group.rows = match parts.len() {
            0 => None,
            1 => parts.pop(),
            _ => Some(
                concat_batches(&parts[0].schema(), &parts).expect("batches share one schema and a group is bounded"),
            ),
        };
        group.answers = group.answers();
        group
    }

    fn without_duplicates(
        &mut self,
        rows: RecordBatch,
        keys: Vec<Option<Key>>,
        stored_keys: &mut Vec<Option<Key>>,
        outcome: &mut Outcome,
    ) -> RecordBatch {
        let now = Instant::now();
        let mut stays: Vec<bool> = Vec::new();
        for (row, key) in keys.iter().enumerate() {
            if row.is_multiple_of(LOOK_AHEAD) {
                self.window.look_ahead(keys[row..].iter().take(LOOK_AHEAD).flatten().copied());
            }
            let position = self.last_position + 1 + stored_keys.len() as u64;
            let verdict = key.map_or(Verdict::New, |key| self.window.note(key, position, now));
            outcome.reused_ids += u64::from(verdict == Verdict::ReusedId);
            if verdict == Verdict::Duplicate {
                outcome.duplicates += 1;
                if stays.is_empty() {
                    stays = vec![true; keys.len()];
                }
                stays[row] = false;
            } else {
                stored_keys.push(*key);
            }
        }
        if stays.is_empty() {
            return rows;
        }
        filter_record_batch(&rows, &BooleanArray::from(stays)).expect("the mask has one entry for each row")
    }

    /// Step one: durable. A group without rows has nothing to write: what it repeats is durable.
    async fn append(&mut self, group: &Group) -> Result<(), AcceptError> {
        let Some(rows) = &group.rows else {
            return Ok(());
        };
        self.wait_for_room(rows.get_array_memory_size() as u64).await?;
        // With another error than room the loop that maintains the lake says so, and goes on trying.
        if let Err(error) = self.time.keep_if_behind()
            && matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
        {
            return Err(AcceptError::StorageFull {
                reason: format!("the time cannot be kept for the next start: {error}"),
            });
        }
        let started = Instant::now();
        let answers = answers::encode(&group.answers, self.options.clock.wall_micros());
        let payload = self.encoder.encode(rows, &group.keys, &answers).expect("rows of our own schema always encode");
        let frame = LogFrame { first_position: group.first_position, event_count: rows.num_rows() as u32, payload };
        let appended = self.log.append(frame).await.map_err(AcceptError::from)?;
        self.status.set_storage_full(None);
        self.encoder.shrink();
        self.metrics.groups.inc();
        self.metrics.group_batches.observe(group.members.len() as f64);
        self.metrics.append_seconds.observe(started.elapsed().as_secs_f64());
        self.metrics.sync_seconds.observe(appended.sync_seconds);
        self.metrics.wal_written_bytes.inc_by(appended.bytes);
        Ok(())
    }

    /// The wal that is not sealed must never exceed the bound of the live rows, so that a restart need not seal to replay.
    async fn wait_for_room(&self, group_bytes: u64) -> Result<(), AcceptError> {
        let max = self.options.live_bytes_max;
        // A group that is larger than the bound has the live rows for itself.
        let full = || self.live.rows() > 0 && self.live.bytes() as u64 + group_bytes > max;
        let waited = async {
            while full() {
                let room = self.live.room.notified();
                if full() {
                    self.live.want_room();
                    room.await;
                }
            }
        };
        if full() && tokio::time::timeout(Duration::from_secs(self.options.room_wait_seconds), waited).await.is_err() {
            return Err(AcceptError::SealBehind { live_bytes: self.live.bytes() as u64, live_bytes_max: max });
        }
        Ok(())
    }

    /// Step two: remembered.
    fn remember(&mut self, group: &mut Group) {
        let now = Instant::now();
        for AgedAnswer { answer, .. } in group.answers.drain(..) {
            self.answers.remember(answer, now, Duration::ZERO);
        }
        self.last_position += group.rows.as_ref().map_or(0, |r| r.num_rows() as u64);
        self.window.keep(now);
        self.remembered(now);
    }

    /// Tells what is remembered.
    fn remembered(&self, now: Instant) {
        self.metrics.answers(&self.answers, now);
        self.metrics.window_keys.set(self.window.len() as i64);
        self.metrics.window_bytes.set(self.window.bytes() as i64);
        self.metrics.window_seconds.set(self.window.seconds(now) as i64);
        self.status.set_window_seconds(self.window.seconds(now));
    }

    /// Step three: visible.
    fn publish(&self, group: &Group) {
        let Some(rows) = &group.rows else { return };
        let rows = with_positions(rows, group.first_position, self.log.id(), &self.options.schema)
            .expect("positions and ids fit the schema");
        self.live.publish(rows);
    }

    /// Step four: answered.
    fn answer(&self, group: Group) {
        for member in group.members {
            let outcome = Outcome { last_position: self.last_position, ..member.outcome };
            self.metrics.accepted.inc_by(outcome.accepted);
            self.metrics.duplicates.inc_by(outcome.duplicates);
            self.metrics.reused_ids.inc_by(outcome.reused_ids);
            drop(member.request);
            drop(member.answer.send(Ok(outcome)));
        }
    }

    /// Instead of the four steps: nothing of the group is stored, and none of its keys stays.
    fn fail(&mut self, group: Group, error: &AcceptError) {
        self.window.take_back(group.mark);
        for member in group.members {
            self.metrics.failed.inc_by(member.events);
            // Who is told may send again at once.
            drop(member.request);
            drop(member.answer.send(Err(error.clone())));
        }
    }

    /// Takes nothing more, and tells all that waits why.
    fn fail_waiting(&mut self, error: &AcceptError) {
        self.queue.close();
        while let Ok(waiting) = self.queue.try_recv() {
            self.metrics.failed.inc_by(waiting.submission.batch.columns.num_rows() as u64);
            drop(waiting.answer.send(Err(error.clone())));
        }
    }
}

/// The window's keys and the remembered answers, for the log that lets go of their frames.
pub(crate) struct KeysOfWindow<'a> {
    pub(crate) window: &'a Window,
    pub(crate) answers: &'a Answers,
    pub(crate) now: Instant,
    pub(crate) wall_micros: i64,
}

impl RememberedKeys for KeysOfWindow<'_> {
    fn of_range(&self, first: u64, last: u64) -> Vec<u8> {
        let answers = answers::encode(&self.answers.of_positions(first, last, self.now), self.wall_micros);
        window::encode(&self.window.of_positions(first, last, self.now), &answers, self.wall_micros)
    }

    fn oldest_position(&self) -> u64 {
        let oldest = [self.window.oldest_position(), self.answers.oldest_position(self.now)];
        oldest.into_iter().flatten().min().unwrap_or(u64::MAX)
    }
}

impl From<LogError> for AcceptError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::StorageFull(reason) => Self::StorageFull { reason },
            LogError::TooLarge { bytes, bytes_max } => Self::TooLarge { bytes, bytes_max },
            // The second is none of an append's.
            LogError::Poisoned(reason) | LogError::NotDone(reason) => Self::Poisoned { reason },
        }
    }
}

/// The rows as the table shows them: with positions, and with a made id where none was given.
pub(crate) fn with_positions(
    rows: &RecordBatch,
    first_position: u64,
    log: uuid::Uuid,
    schema: &SchemaRef,
) -> Result<RecordBatch, ArrowError> {
    let count = rows.num_rows();
    let first = first_position as i64;
    let positions: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + count as i64));
    let mut columns = Vec::with_capacity(rows.num_columns() + 1);
    columns.push(positions);
    columns.push(ids(rows, first_position, log));
    columns.extend(rows.columns().iter().skip(1).cloned());
    RecordBatch::try_new(schema.clone(), columns)
}

fn ids(rows: &RecordBatch, first_position: u64, log: uuid::Uuid) -> ArrayRef {
    let given = rows.column(0).as_any().downcast_ref::<StringArray>().expect("the first column is the id");
    if given.null_count() == 0 {
        return rows.column(0).clone();
    }
    let received = rows
        .column_by_name("received_at")
        .and_then(|c| c.as_any().downcast_ref::<TimestampMicrosecondArray>())
        .expect("received_at is a column of timestamps");
    let salt = log.as_u64_pair().1;
    let mut ids = StringBuilder::with_capacity(rows.num_rows(), 36 * rows.num_rows());
    for row in 0..rows.num_rows() {
        match given.is_null(row) {
            false => ids.append_value(given.value(row)),
            true => {
                let id = event::made_id(received.value(row), salt, first_position + row as u64);
                ids.append_value(std::str::from_utf8(&id).expect("a UUID is ASCII"));
            }
        }
    }
    Arc::new(ids.finish())
}
