//! The one writer of the table: keeps the rows of all requests that wait in one transaction, and lets rows go.
//!
//! What the sensors hold is known in memory, and changes only with what is committed.

use crate::metrics::RejectedMetrics;
use crate::row::{NewRow, Origin};
use crate::table::{Options, RejectedError};
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection, SqlitePool};
use std::collections::HashMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};

/// Rows of one statement.
const STEP: usize = 500;
/// A transaction takes no further request beyond this.
const GROUP_ROWS_MAX: usize = 10_000;

/// Where the end of a job is told.
pub(crate) type Done = oneshot::Sender<Result<(), RejectedError>>;

/// What the writer is asked for.
pub(crate) enum Job {
    Keep(Keeping),
    Expire(Done),
}

/// The rejected events of a request.
pub(crate) struct Keeping {
    pub(crate) origin: Origin,
    pub(crate) rows: Vec<NewRow>,
    pub(crate) done: Done,
}

pub(crate) struct Writer {
    pool: SqlitePool,
    options: Options,
    held: Held,
    metrics: RejectedMetrics,
}

/// What each sensor holds.
#[derive(Debug, Default)]
struct Held {
    sensors: HashMap<String, Share>,
    total: Share,
}

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    rows: i64,
    bytes: i64,
}

impl Held {
    /// Takes a change over: rows that came, or, negative, rows that went.
    fn add(&mut self, sensor: &str, change: Share) {
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

    /// Who holds most.
    fn largest(&self) -> Option<String> {
        self.sensors.iter().max_by_key(|(_, share)| share.bytes).map(|(sensor, _)| sensor.clone())
    }
}

impl Share {
    fn gone(self) -> Self {
        Self { rows: -self.rows, bytes: -self.bytes }
    }
}

impl Writer {
    pub(crate) async fn new(pool: SqlitePool, options: Options, metrics: RejectedMetrics) -> Result<Self, sqlx::Error> {
        let held = held(&pool).await?;
        metrics.found.inc_by(held.total.rows as u64);
        let writer = Self { pool, options, held, metrics };
        writer.tell();
        Ok(writer)
    }

    /// Runs until the table is dropped.
    pub(crate) async fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        let mut next = jobs.recv().await;
        while let Some(job) = next.take() {
            match job {
                Job::Expire(done) => drop(done.send(self.expire().await.map_err(RejectedError::of))),
                Job::Keep(first) => {
                    let (mut rows, mut group) = (first.rows.len(), vec![first]);
                    while rows < GROUP_ROWS_MAX
                        && next.is_none()
                        && let Ok(job) = jobs.try_recv()
                    {
                        match job {
                            Job::Keep(keeping) => {
                                rows += keeping.rows.len();
                                group.push(keeping);
                            }
                            other => next = Some(other),
                        }
                    }
                    let kept = self.keep(&group).await.map_err(RejectedError::of);
                    for keeping in group {
                        drop(keeping.done.send(kept.clone()));
                    }
                }
            }
            if next.is_none() {
                next = jobs.recv().await;
            }
        }
    }

    async fn keep(&mut self, group: &[Keeping]) -> Result<(), sqlx::Error> {
        let began = Instant::now();
        let mut changes = Vec::new();
        let written = self.write(group, &mut changes).await;
        if written.is_err() {
            for (sensor, change) in changes {
                self.held.add(&sensor, change.gone());
            }
            return written;
        }
        let count = |way: i64| changes.iter().map(|(_, change)| (change.rows * way).max(0) as u64).sum();
        self.metrics.stored.inc_by(count(1));
        self.metrics.pushed_out.inc_by(count(-1));
        self.metrics.keep_seconds.observe(began.elapsed().as_secs_f64());
        self.tell();
        Ok(())
    }

    /// Writes the rows of a group and removes what is too much, in one transaction; `changes` are taken over as they are made.
    async fn write(&mut self, group: &[Keeping], changes: &mut Vec<(String, Share)>) -> Result<(), sqlx::Error> {
        let bytes_max = i64::try_from(self.options.bytes_max).unwrap_or(i64::MAX);
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for Keeping { origin, rows, .. } in group {
            for step in rows.chunks(STEP) {
                let bytes = insert(&mut transaction, origin, step, self.options.event_bytes_max).await?;
                let come = Share { rows: step.len() as i64, bytes };
                self.held.add(&origin.sensor, come);
                changes.push((origin.sensor.clone(), come));
            }
        }
        while self.held.total.bytes > bytes_max
            && let Some(sensor) = self.held.largest()
        {
            let too_much = self.held.total.bytes - bytes_max;
            let mut gone = push_out(&mut transaction, &sensor, too_much).await?.gone();
            if gone.rows == 0 {
                // Somebody else has removed them.
                gone = self.held.sensors.get(&sensor).copied().unwrap_or_default().gone();
            }
            self.held.add(&sensor, gone);
            changes.push((sensor, gone));
        }
        transaction.commit().await
    }

    /// Lets the rows go that are too old now.
    async fn expire(&mut self) -> Result<(), sqlx::Error> {
        let age_micros = i64::try_from(self.options.age_max.as_micros()).unwrap_or(i64::MAX);
        let oldest_micros = now_micros().saturating_sub(age_micros);
        loop {
            // In order of position, which is that of receipt but for requests beside each other.
            let select = "SELECT position, received_at, sensor, bytes FROM rejected ORDER BY position LIMIT ?";
            let rows = sqlx::query(select).bind(STEP as i64).fetch_all(&self.pool).await?;
            let (mut gone, mut last) = (Vec::new(), None);
            for row in &rows {
                if row.try_get::<i64, _>("received_at")? >= oldest_micros {
                    break;
                }
                last = Some(row.try_get::<i64, _>("position")?);
                let share = Share { rows: 1, bytes: row.try_get("bytes")? };
                gone.push((row.try_get::<String, _>("sensor")?, share));
            }
            let Some(last) = last else { return Ok(()) };
            sqlx::query("DELETE FROM rejected WHERE position <= ?").bind(last).execute(&self.pool).await?;
            self.metrics.expired.inc_by(gone.len() as u64);
            for (sensor, share) in gone {
                self.held.add(&sensor, share.gone());
            }
            self.tell();
        }
    }

    fn tell(&self) {
        self.metrics.rows.set(self.held.total.rows);
        self.metrics.bytes.set(self.held.total.bytes);
    }
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

/// Writes rows in one statement; returns what they take of the table.
async fn insert(
    change: &mut SqliteConnection,
    origin: &Origin,
    rows: &[NewRow],
    data_bytes_max: usize,
) -> Result<i64, sqlx::Error> {
    let mut bytes = 0;
    let mut sql = QueryBuilder::<Sqlite>::new(
        "INSERT INTO rejected (received_at, sensor, request_id, batch_index, code, pointer, reason, content_type, headers, data, \
         data_bytes, bytes) ",
    );
    sql.push_values(rows, |mut values, row| {
        let data = row.cut(data_bytes_max);
        let row_bytes = row.bytes(origin, data.len());
        bytes += row_bytes;
        values
            .push_bind(origin.received_at)
            .push_bind(origin.sensor.clone())
            .push_bind(origin.request_id.clone())
            .push_bind(row.index as i64)
            .push_bind(row.code)
            .push_bind(row.pointer.clone())
            .push_bind(row.reason.clone())
            .push_bind(origin.content_type.clone())
            .push_bind(origin.headers.clone())
            .push_bind(data.to_vec())
            .push_bind(row.data.len() as i64)
            .push_bind(row_bytes);
    });
    sql.build().execute(change).await?;
    Ok(bytes)
}

/// Removes the oldest rows of a sensor, about `bytes` of them and at most one step.
async fn push_out(change: &mut SqliteConnection, sensor: &str, bytes: i64) -> Result<Share, sqlx::Error> {
    let select = "SELECT position, bytes FROM rejected WHERE sensor = ? ORDER BY position LIMIT ?";
    let rows = sqlx::query(select).bind(sensor).bind(STEP as i64).fetch_all(&mut *change).await?;
    let (mut gone, mut last) = (Share::default(), 0);
    for row in &rows {
        if gone.bytes >= bytes {
            break;
        }
        last = row.try_get::<i64, _>("position")?;
        gone.bytes += row.try_get::<i64, _>("bytes")?;
        gone.rows += 1;
    }
    let delete = "DELETE FROM rejected WHERE sensor = ? AND position <= ?";
    sqlx::query(delete).bind(sensor).bind(last).execute(change).await?;
    Ok(gone)
}

fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
