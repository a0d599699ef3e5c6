//! [`Rejected`]: opening the table, handing rows to its writer, reading them.

use crate::damage::{self, Aside, is_damage};
use crate::erase::Erased;
use crate::metrics::RejectedMetrics;
use crate::row::{Column, Filter, NewRow, Origin, Row};
use crate::writer::{Done, Erasing, Extent, Job, Keeping, Question, Writer};
use futures::TryStreamExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteExecutor, SqlitePool};
use std::fs::Metadata;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

pub(crate) const BUSY: Duration = Duration::from_secs(5);
/// Version of the tables.
pub(crate) const VERSION: i64 = 3;
/// The same tables, whose file may have bytes of rows that are gone.
pub(crate) const VERSION_BEFORE: i64 = 2;
/// What rows of one request have in common is kept once, under the position of the last of them: with it the request goes.
const TABLES: &str = "
    CREATE TABLE requests (
        last_position INTEGER PRIMARY KEY, of_sensor TEXT NOT NULL, received_at INTEGER NOT NULL, request_id TEXT NOT NULL,
        mode TEXT NOT NULL, parameters TEXT, content_type TEXT, headers TEXT, is_cut INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX requests_of_sensor ON requests (of_sensor, last_position);
    CREATE TABLE rejected (
        position INTEGER PRIMARY KEY AUTOINCREMENT, request INTEGER NOT NULL, sensor TEXT NOT NULL, batch_index INTEGER NOT NULL,
        code TEXT NOT NULL, pointer TEXT, reason TEXT NOT NULL, data BLOB NOT NULL, data_bytes INTEGER NOT NULL,
        bytes INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX rejected_of_sensor ON rejected (sensor, position, bytes);
";

/// Where the table is and what it may hold.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file.
    pub path: PathBuf,
    /// Bytes of all rows.
    pub bytes_max: u64,
    /// Bytes of one event; longer ones are cut.
    pub event_bytes_max: usize,
    /// Rows are kept this long.
    pub age_max: Duration,
}

/// Why the table did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file could not be opened.
    #[error("the table of rejected events {path} cannot be opened: {source}")]
    Database {
        /// The file.
        path: String,
        /// What the database said.
        source: sqlx::Error,
    },
    /// It is the database of something else.
    #[error(
        "{path} is no table of rejected events, but the database of something else: put the right file in its place, or move it away"
    )]
    Other {
        /// The file.
        path: String,
    },
    /// The file was written by a newer program.
    #[error(
        "the table of rejected events {path} has format version {found}, and this program reads up to {VERSION}: a newer program wrote \
         it: install that version again, or restore a backup made before the upgrade"
    )]
    Version {
        /// The file.
        path: String,
        /// Its version.
        found: i64,
    },
}

/// The table did not answer, or has no room; the same may work later.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the table of rejected events did not answer: {0}")]
pub struct RejectedError(#[source] Arc<sqlx::Error>);

impl RejectedError {
    pub(crate) fn of(error: sqlx::Error) -> Self {
        Self(Arc::new(error))
    }
}

impl From<sqlx::Error> for RejectedError {
    fn from(error: sqlx::Error) -> Self {
        Self::of(error)
    }
}

/// The table. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rejected {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: SqlitePool,
    jobs: mpsc::UnboundedSender<Job>,
    metrics: RejectedMetrics,
    path: PathBuf,
    /// Number of the file that is open.
    inode: u64,
    /// What was found in its place at the start.
    aside: Option<Aside>,
    is_damaged: AtomicBool,
}

impl Rejected {
    /// Opens the table, made when missing, readable by its owner alone, and starts its writer on the current runtime. One that is damaged
    /// is moved aside, and a new one is made.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(options: Options, metrics: RejectedMetrics) -> Result<Self, OpenError> {
        let path = options.path.display().to_string();
        let failed = |source| OpenError::Database { path: path.clone(), source };
        let aside = damage::look(&options.path).await.map_err(failed)?;
        if aside.is_some() {
            metrics.moved_aside.inc();
        }
        let file = private(&options.path).map_err(|e| failed(sqlx::Error::Io(e)))?;
        let connect = SqliteConnectOptions::new()
            .filename(&options.path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // What is gone is overwritten: an erasure has nothing to look for.
            .pragma("secure_delete", "ON")
            .busy_timeout(BUSY);
        // What SQLite rolled back by itself, as on a full disk, sqlx takes for a transaction that goes on: there is no other after it.
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }));
        let pool = pool.connect_with(connect).await.map_err(failed)?;
        if version(&pool, &path).await? == 0 {
            let script = format!("BEGIN IMMEDIATE; {TABLES}; PRAGMA user_version = {VERSION}; COMMIT;");
            sqlx::raw_sql(sqlx::AssertSqlSafe(script)).execute(&pool).await.map_err(failed)?;
        }
        let (jobs, waiting) = mpsc::unbounded_channel();
        let path = options.path.clone();
        let writer = Writer::new(pool.clone(), options, metrics.clone()).await.map_err(failed)?;
        tokio::spawn(writer.run(waiting));
        let (inode, is_damaged) = (file.ino(), AtomicBool::default());
        let shared = Shared { pool, jobs, metrics, path, inode, aside, is_damaged };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What an operator has to know of the file, and to do. Quick: it looks whether the file is there.
    pub fn trouble(&self) -> Option<String> {
        let Shared { path, inode, aside, is_damaged, .. } = &*self.shared;
        let path = path.display();
        if is_damaged.load(Ordering::Relaxed) {
            return Some(format!("{path} is damaged: restart the collector, which moves it aside and makes a new one"));
        }
        if std::fs::metadata(&self.shared.path).map_or(0, |file| file.ino()) != *inode {
            return Some(format!(
                "{path} was removed or replaced while it is open, and what is kept now is gone with the next start: restart the collector"
            ));
        }
        let Aside { path: aside, why } = aside.as_ref()?;
        Some(format!(
            "{path} could not be used at the start ({why}) and lies in {} now: what was rejected before is not listed",
            aside.display()
        ))
    }

    /// Keeps the rejected events of a request, the first 16 MiB of them; the others are counted as left out. They are on stable storage when
    /// this returns; a caller that goes away stops nothing.
    ///
    /// # Errors
    /// [`RejectedError`]; then none of them is kept.
    pub async fn keep(&self, origin: Origin, rows: Vec<NewRow>) -> Result<(), RejectedError> {
        self.done(|done| Job::Keep(Keeping::new(origin, rows, done))).await
    }

    /// Lets the rows go that are too old now.
    ///
    /// # Errors
    /// [`RejectedError`]; what was not removed is removed the next time.
    pub async fn expire(&self) -> Result<(), RejectedError> {
        self.done(Job::Expire).await
    }

    /// Erases the rows of a sensor up to a position. Others are kept between the steps.
    ///
    /// # Errors
    /// [`RejectedError`]; it can be tried again.
    pub async fn erase(&self, sensor: &str, until: i64) -> Result<Erased, RejectedError> {
        let sensor = sensor.to_owned();
        let ended = self.answer(|done| Job::Erase(Erasing { sensor, until, done })).await.flatten();
        ended.inspect_err(|error| self.look_at(error))
    }

    async fn done(&self, job: impl FnOnce(Done) -> Job) -> Result<(), RejectedError> {
        let ended = self.answer(job).await.flatten();
        ended.inspect_err(|error| self.look_at(error))
    }

    /// What the writer answers.
    async fn answer<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, RejectedError> {
        let (answer, answered) = oneshot::channel();
        // Without a writer nobody answers.
        drop(self.shared.jobs.send(job(answer)));
        answered.await.map_err(|_| RejectedError::of(sqlx::Error::WorkerCrashed))
    }

    fn look_at(&self, RejectedError(error): &RejectedError) {
        if is_damage(error) {
            self.shared.is_damaged.store(true, Ordering::Relaxed);
        }
    }

    /// Counts rejected events that are not kept because their request has too many.
    pub fn left_out(&self, events: u64) {
        self.shared.metrics.left_out.inc_by(events);
    }

    /// The sensors that have most bytes here, at most `count`, each with them, most first.
    ///
    /// # Errors
    /// [`RejectedError`].
    pub async fn most(&self, count: usize) -> Result<Vec<(String, i64)>, RejectedError> {
        self.answer(|answer| Job::Ask(Question::Most(count, answer))).await
    }

    /// The rows of a filter with these columns, at most `limit`, and no more after they take `bytes_max` of memory.
    ///
    /// # Errors
    /// [`RejectedError`].
    pub async fn read(
        &self,
        filter: &Filter,
        columns: &[Column],
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<Row>, RejectedError> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let read = self.each(filter, columns, limit, |row| {
            bytes += row.memory_bytes();
            rows.push(row);
            if bytes < bytes_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        read.await?;
        Ok(rows)
    }

    /// Gives the rows of a filter with these columns, at most `limit`, to `take` until it wants no more.
    ///
    /// # Errors
    /// [`RejectedError`].
    pub async fn each(
        &self,
        filter: &Filter,
        columns: &[Column],
        limit: usize,
        mut take: impl FnMut(Row) -> ControlFlow<()>,
    ) -> Result<(), RejectedError> {
        let mut select = filter.select(columns, limit);
        let mut found = select.build().fetch(&self.shared.pool);
        let all = async {
            while let Some(row) = found.try_next().await?
                && take(Row::of(&row, columns)?).is_continue()
            {}
            Ok(())
        };
        all.await.inspect_err(|error| self.look_at(error))
    }

    /// How many rows a filter has.
    ///
    /// # Errors
    /// [`RejectedError`].
    pub async fn count(&self, filter: &Filter) -> Result<u64, RejectedError> {
        let mut count = filter.count();
        let found = async { Ok(count.build().fetch_one(&self.shared.pool).await?.try_get::<i64, _>(0)? as u64) };
        found.await.inspect_err(|error| self.look_at(error))
    }

    /// Position of the last row; 0 before the first.
    ///
    /// # Errors
    /// [`RejectedError`].
    pub async fn last_position(&self) -> Result<i64, RejectedError> {
        let row = sqlx::query("SELECT coalesce(max(position), 0) FROM rejected").fetch_one(&self.shared.pool).await?;
        Ok(row.try_get(0)?)
    }

    /// How many rows there are, and how many there were. It is no older than what was read before.
    ///
    /// # Errors
    /// [`RejectedError`].
    pub async fn extent(&self) -> Result<Extent, RejectedError> {
        self.answer(|answer| Job::Ask(Question::Extent(answer))).await
    }

    /// Writes a copy, as the table is at one moment, to a new file. Others go on meanwhile.
    ///
    /// # Errors
    /// [`RejectedError`]; a part may be there.
    pub async fn copy_to(&self, path: &Path) -> Result<(), RejectedError> {
        let copy = sqlx::query("VACUUM INTO ?").bind(path.to_string_lossy().into_owned());
        let copied = copy.execute(&self.shared.pool).await.map(drop).map_err(RejectedError::from);
        copied.inspect_err(|error| self.look_at(error))
    }

    /// The same of a file that nobody has open.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn copy_of(file: &Path, to: &Path) -> Result<(), OpenError> {
        let path = file.display().to_string();
        let failed = |source| OpenError::Database { path: path.clone(), source };
        let mut table = SqliteConnectOptions::new().filename(file).connect().await.map_err(failed)?;
        if damage::is_other(&mut table).await.map_err(failed)? {
            return Err(OpenError::Other { path });
        }
        version(&mut table, &path).await?;
        let copy = sqlx::query("VACUUM INTO ?").bind(to.to_string_lossy().into_owned());
        copy.execute(&mut table).await.map_err(failed)?;
        table.close().await.map_err(failed)
    }

    /// Closes the file.
    pub async fn close(&self) {
        self.shared.pool.close().await;
    }
}

/// The version of the layout of a file, 0 when it has none.
async fn version<'e>(table: impl SqliteExecutor<'e>, path: &str) -> Result<i64, OpenError> {
    let failed = |source| OpenError::Database { path: path.to_owned(), source };
    let row = sqlx::query("PRAGMA user_version").fetch_one(table).await.map_err(failed)?;
    match row.try_get(0).map_err(failed)? {
        found @ (0 | VERSION | VERSION_BEFORE) => Ok(found),
        found => Err(OpenError::Version { path: path.to_owned(), found }),
    }
}

/// Makes the file, or keeps it, readable by its owner alone: it holds what sensors sent.
fn private(path: &Path) -> std::io::Result<Metadata> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?.metadata()
}
