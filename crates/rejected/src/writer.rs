//! The one writer of the table: keeps the rows of the requests that wait, those of one request in one transaction, and lets rows go.
//!
//! What the sensors hold is known in memory, and changes only with what is committed. Nothing but a step of a request is written before what is
//! too much goes, so that the file stays inside its bound whatever one request brings.

use crate::erase::Erased;
use crate::metrics::RejectedMetrics;
use crate::row::{NewRow, Origin};
use crate::table::{Options, RejectedError};
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection, SqlitePool};
use std::collections::{HashMap, VecDeque};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};

/// Rows and bytes of a step: what is written of a request before what is too much goes.
pub(crate) const STEP_ROWS: usize = 500;
const STEP_BYTES: i64 = 1 << 20;
/// A transaction takes no further request beyond this.
const GROUP_BYTES_MAX: i64 = 4 << 20;
/// No more is kept of one request.
const REQUEST_BYTES_MAX: i64 = 16 << 20;

/// Where the end of a job is told.
pub(crate) type Done = oneshot::Sender<Result<(), RejectedError>>;

/// What the writer is asked for.
pub(crate) enum Job {
    Keep(Keeping),
    Expire(Done),
    Erase(Erasing),
    Ask(Question),
}

/// Whose rows go, and up to which position.
pub(crate) struct Erasing {
    pub(crate) sensor: String,
    pub(crate) until: i64,
    pub(crate) done: oneshot::Sender<Result<Erased, RejectedError>>,
}

/// What is asked of the rows, and answered between two transactions.
pub(crate) enum Question {
    /// Who holds most, at most so many.
    Most(usize, oneshot::Sender<Most>),
    Extent(oneshot::Sender<Extent>),
}

/// How many rows there are, and how many there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The rows of all sensors.
    pub rows: i64,
    /// The last position that a row got, also when that row is gone: rows are counted by it, so that these many came and all but
    /// [`Extent::rows`] were pushed out or have expired.
    pub last_position: i64,
}

/// Sensors, each with the bytes that it holds, most first.
pub(crate) type Most = Vec<(String, i64)>;

/// The rejected events of a request.
pub(crate) struct Keeping {
    origin: Origin,
    rows: Vec<NewRow>,
    left_out: u64,
    done: Done,
}

/// What waits for its turn. Requests of one step wait for no more than one longer request.
#[derive(Default)]
struct Waiting {
    short: VecDeque<Keeping>,
    long: VecDeque<Keeping>,
    expiring: Vec<Done>,
    erasing: VecDeque<Erasing>,
    asking: Vec<Question>,
}

pub(crate) struct Writer {
    pub(crate) pool: SqlitePool,
    options: Options,
    pub(crate) held: Held,
    /// The last position given, also to a row that is gone.
    last_position: i64,
    pub(crate) metrics: RejectedMetrics,
}

/// What each sensor holds.
#[derive(Debug, Default)]
pub(crate) struct Held {
    sensors: HashMap<String, Share>,
    total: Share,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Share {
    pub(crate) rows: i64,
    pub(crate) bytes: i64,
}

/// What changes in a transaction, sensor by sensor.
type Changes = Vec<(String, Share)>;

impl Keeping {
    pub(crate) fn new(origin: Origin, rows: Vec<NewRow>, done: Done) -> Self {
        Self { origin, rows, left_out: 0, done }
    }

    /// Lets go of what is more than is kept of one request.
    fn bounded(mut self, data_bytes_max: usize) -> Self {
        let fitting = self.fitting(&self.rows, REQUEST_BYTES_MAX, data_bytes_max);
        self.left_out = (self.rows.len() - fitting) as u64;
        self.rows.truncate(fitting);
        self
    }

    /// How many of these rows are the next step, at least one when there are any.
    fn step(&self, rows: &[NewRow], data_bytes_max: usize) -> usize {
        self.fitting(rows, STEP_BYTES, data_bytes_max).clamp(1, STEP_ROWS).min(rows.len())
    }

    /// How many of these rows fit into so many bytes.
    fn fitting(&self, rows: &[NewRow], bytes_max: i64, data_bytes_max: usize) -> usize {
        let bytes = rows.iter().scan(0, |bytes, row| {
            *bytes += row.bytes(&self.origin.sensor, data_bytes_max);
            Some(*bytes)
        });
        bytes.take_while(|bytes| *bytes <= bytes_max).count()
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        let Self { short, long, expiring, erasing, asking } = self;
        short.is_empty() && long.is_empty() && expiring.is_empty() && erasing.is_empty() && asking.is_empty()
    }

    fn push(&mut self, job: Job, data_bytes_max: usize) {
        match job {
            Job::Keep(keeping) => {
                let keeping = keeping.bounded(data_bytes_max);
                let is_short = keeping.step(&keeping.rows, data_bytes_max) == keeping.rows.len();
                let queue = if is_short { &mut self.short } else { &mut self.long };
                queue.push_back(keeping);
            }
            Job::Expire(done) => self.expiring.push(done),
            Job::Erase(erasing) => self.erasing.push_back(erasing),
            Job::Ask(question) => self.asking.push(question),
        }
    }
}

impl Held {
    /// Takes a change over: rows that came, or, negative, rows that went.
    pub(crate) fn add(&mut self, sensor: &str, change: Share) {
        self.total.rows += change.rows;
        self.total.bytes += change.bytes;
        let share = match self.sensors.get_mut(sensor) {
            Some(share) => share,
            None => self.sensors.entry(sensor.to_owned()).or_default(),
        };
        share.rows += change.rows;
        share.bytes += change.bytes;
        if share.rows <= 0 {
            self.sensors.remove(sensor);
        }
    }

    /// Who holds most, at most `count`.
    fn most(&self, count: usize) -> Most {
        let mut all: Vec<_> = self.sensors.iter().map(|(sensor, share)| (share.bytes, sensor)).collect();
        if all.len() > count {
            all.select_nth_unstable_by(count, |a, b| b.cmp(a));
            all.truncate(count);
        }
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.into_iter().map(|(bytes, sensor)| (sensor.clone(), bytes)).collect()
    }

    /// When there is more than `bytes_max`: who holds most, and how much of it may go before the sensor has no more than an equal share.
    fn too_much(&self, bytes_max: i64) -> Option<(String, i64)> {
        let (sensor, share) = self.sensors.iter().max_by_key(|(_, share)| share.bytes)?;
        let beyond_share = share.bytes - bytes_max / self.sensors.len() as i64;
        (self.total.bytes > bytes_max).then(|| (sensor.clone(), beyond_share.min(self.total.bytes - bytes_max)))
    }
}

impl Share {
    pub(crate) fn gone(self) -> Self {
        Self { rows: -self.rows, bytes: -self.bytes }
    }
}

impl Writer {
    pub(crate) async fn new(pool: SqlitePool, options: Options, metrics: RejectedMetrics) -> Result<Self, sqlx::Error> {
        let held = held(&pool).await?;
        metrics.found.inc_by(held.total.rows as u64);
        let given = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'rejected'";
        let last_position = sqlx::query(given).fetch_one(&pool).await?.try_get(0)?;
        let writer = Self { pool, options, held, last_position, metrics };
        writer.tell();
        Ok(writer)
    }

    /// Runs until the table is dropped.
    pub(crate) async fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        let data_bytes_max = self.options.event_bytes_max;
        let mut waiting = Waiting::default();
        loop {
            if waiting.is_empty() {
                let Some(job) = jobs.recv().await else { return };
                waiting.push(job, data_bytes_max);
            }
            while let Ok(job) = jobs.try_recv() {
                waiting.push(job, data_bytes_max);
            }
            for question in waiting.asking.drain(..) {
                self.answer(question);
            }
            if !waiting.short.is_empty() {
                self.keep(&mut waiting.short).await;
            }
            if let Some(long) = waiting.long.pop_front() {
                self.keep(&mut VecDeque::from([long])).await;
            }
            self.erase_next(&mut waiting.erasing).await;
            if !waiting.expiring.is_empty() {
                let ended = match self.expire().await {
                    Ok(Expired::SomeMore) => continue,
                    Ok(Expired::All) => Ok(()),
                    Err(error) => Err(RejectedError::of(error)),
                };
                for done in waiting.expiring.drain(..) {
                    drop(done.send(ended.clone()));
                }
            }
        }
    }

    fn answer(&self, question: Question) {
        match question {
            Question::Most(count, answer) => drop(answer.send(self.held.most(count))),
            Question::Extent(answer) => {
                let (rows, last_position) = (self.held.total.rows, self.last_position);
                // Who asked may be gone.
                let _ = answer.send(Extent { rows, last_position });
            }
        }
    }

    /// One transaction: all of each request that waits, as many requests as fit. When it fails nothing of them is kept.
    async fn keep(&mut self, waiting: &mut VecDeque<Keeping>) {
        let (began, last_position) = (Instant::now(), self.last_position);
        let (mut group, mut changes) = (Vec::new(), Changes::new());
        let written = self.write(waiting, &mut group, &mut changes).await;
        if let Err(error) = written {
            self.last_position = last_position;
            for (sensor, change) in changes {
                self.held.add(&sensor, change.gone());
            }
            let error = RejectedError::of(error);
            for keeping in group {
                drop(keeping.done.send(Err(error.clone())));
            }
            return;
        }
        let count = |way: i64| changes.iter().map(|(_, change)| (change.rows * way).max(0) as u64).sum();
        self.metrics.stored.inc_by(count(1));
        self.metrics.pushed_out.inc_by(count(-1));
        self.metrics.keep_seconds.observe(began.elapsed().as_secs_f64());
        self.tell();
        for keeping in group {
            self.metrics.left_out.inc_by(keeping.left_out);
            drop(keeping.done.send(Ok(())));
        }
    }

    /// Writes requests step by step and removes what is too much after each step; `changes` are taken over as they are made.
    async fn write(
        &mut self,
        waiting: &mut VecDeque<Keeping>,
        group: &mut Vec<Keeping>,
        changes: &mut Changes,
    ) -> Result<(), sqlx::Error> {
        let data_bytes_max = self.options.event_bytes_max;
        // Also those whose turn cannot begin have to be told.
        group.extend(waiting.pop_front());
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let (mut next, mut bytes) = (0, 0);
        while let Some(keeping) = group.get(next) {
            let (mut rows, sensor) = (&keeping.rows[..], &keeping.origin.sensor);
            while !rows.is_empty() {
                let (step, others) = rows.split_at(keeping.step(rows, data_bytes_max));
                let come =
                    insert(&mut transaction, self.last_position, (&keeping.origin, step), data_bytes_max).await?;
                self.last_position += come.rows;
                self.held.add(sensor, come);
                changes.push((sensor.clone(), come));
                bytes += come.bytes;
                self.push_out(&mut transaction, changes).await?;
                rows = others;
            }
            next += 1;
            if bytes < GROUP_BYTES_MAX {
                group.extend(waiting.pop_front());
            }
        }
        transaction.commit().await
    }

    /// Removes the oldest rows of who holds most, until all fit. Nobody loses a row who holds no more than an equal share.
    async fn push_out(&mut self, change: &mut SqliteConnection, changes: &mut Changes) -> Result<(), sqlx::Error> {
        let bytes_max = i64::try_from(self.options.bytes_max).unwrap_or(i64::MAX);
        while let Some((sensor, bytes)) = self.held.too_much(bytes_max) {
            let mut gone = push_out(change, &sensor, bytes).await?.gone();
            if gone.rows == 0 {
                // Somebody else has removed them.
                gone = self.held.sensors.get(&sensor).copied().unwrap_or_default().gone();
            }
            self.held.add(&sensor, gone);
            changes.push((sensor, gone));
        }
        Ok(())
    }

    /// Lets a step of the rows go that are too old now.
    async fn expire(&mut self) -> Result<Expired, sqlx::Error> {
        let age_micros = i64::try_from(self.options.age_max.as_micros()).unwrap_or(i64::MAX);
        let oldest_micros = now_micros().saturating_sub(age_micros);
        // In order of position, which is that of receipt but for requests beside each other.
        let select = "SELECT position, received_at, sensor, bytes FROM rejected JOIN requests ON last_position = request \
                      ORDER BY position LIMIT ?";
        let rows = sqlx::query(select).bind(STEP_ROWS as i64).fetch_all(&self.pool).await?;
        let (mut gone, mut last) = (Changes::new(), None);
        for row in &rows {
            if row.try_get::<i64, _>("received_at")? >= oldest_micros {
                break;
            }
            last = Some(row.try_get::<i64, _>("position")?);
            let share = Share { rows: 1, bytes: row.try_get("bytes")? };
            gone.push((row.try_get::<String, _>("sensor")?, share));
        }
        let Some(last) = last else { return Ok(Expired::All) };
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for delete in ["DELETE FROM rejected WHERE position <= ?", "DELETE FROM requests WHERE last_position <= ?"] {
            sqlx::query(delete).bind(last).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        self.metrics.expired.inc_by(gone.len() as u64);
        for (sensor, share) in gone {
            self.held.add(&sensor, share.gone());
        }
        self.tell();
        Ok(Expired::SomeMore)
    }

    pub(crate) fn tell(&self) {
        self.metrics.rows.set(self.held.total.rows);
        self.metrics.bytes.set(self.held.total.bytes);
    }
}

/// How far letting go has come.
enum Expired {
    SomeMore,
    All,
}

/// What the sensors hold, as it was found.
async fn held(pool: &SqlitePool) -> Result<Held, sqlx::Error> {
    let mut held = Held::default();
    let sums = "SELECT sensor, count(*), sum(bytes) FROM rejected GROUP BY sensor";
    for row in sqlx::query(sums).fetch_all(pool).await? {
        held.add(row.try_get(0)?, Share { rows: row.try_get(1)?, bytes: row.try_get(2)? });
    }
    Ok(held)
}

/// Writes a step, behind `last_position`: what its rows have in common, then the rows in one statement. The last of them counts for both: it is the
/// last to go.
async fn insert(
    change: &mut SqliteConnection,
    last_position: i64,
    (origin, rows): (&Origin, &[NewRow]),
    data_bytes_max: usize,
) -> Result<Share, sqlx::Error> {
    let last = last_position + rows.len() as i64;
    let request = "INSERT INTO requests (last_position, of_sensor, received_at, request_id, mode, parameters, content_type, headers, is_cut) \
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    sqlx::query(request)
        .bind(last)
        .bind(&origin.sensor)
        .bind(origin.received_at)
        .bind(&origin.request_id)
        .bind(origin.mode)
        .bind(&origin.parameters)
        .bind(&origin.content_type)
        .bind(&origin.headers)
        .bind(origin.is_cut)
        .execute(&mut *change)
        .await?;
    let mut sql = QueryBuilder::<Sqlite>::new(
        "INSERT INTO rejected (position, request, sensor, batch_index, code, pointer, reason, data, data_bytes, bytes) ",
    );
    let mut bytes = 0;
    sql.push_values((last_position + 1..).zip(rows), |mut values, (position, row)| {
        let of_request = if position == last { origin.bytes() } else { 0 };
        let row_bytes = row.bytes(&origin.sensor, data_bytes_max) + of_request;
        bytes += row_bytes;
        values
            .push_bind(position)
            .push_bind(last)
            .push_bind(origin.sensor.clone())
            .push_bind(row.index as i64)
            .push_bind(row.code)
            .push_bind(row.pointer.clone())
            .push_bind(row.reason.clone())
            .push_bind(row.cut(data_bytes_max).to_vec())
            .push_bind(row.data.len() as i64)
            .push_bind(row_bytes);
    });
    sql.build().execute(change).await?;
    Ok(Share { rows: rows.len() as i64, bytes })
}

/// Removes the oldest rows of a sensor, about `bytes` of them and at most one step.
async fn push_out(change: &mut SqliteConnection, sensor: &str, bytes: i64) -> Result<Share, sqlx::Error> {
    let select = "SELECT position, bytes FROM rejected WHERE sensor = ? ORDER BY position LIMIT ?";
    let rows = sqlx::query(select).bind(sensor).bind(STEP_ROWS as i64).fetch_all(&mut *change).await?;
    let (mut gone, mut last) = (Share::default(), 0);
    for row in &rows {
        if gone.bytes >= bytes {
            break;
        }
        last = row.try_get::<i64, _>("position")?;
        gone.bytes += row.try_get::<i64, _>("bytes")?;
        gone.rows += 1;
    }
    for delete in [
        "DELETE FROM rejected WHERE sensor = ? AND position <= ?",
        "DELETE FROM requests WHERE of_sensor = ? AND last_position <= ?",
    ] {
        sqlx::query(delete).bind(sensor).bind(last).execute(&mut *change).await?;
    }
    Ok(gone)
}

pub(crate) fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
