//! Postgres, which keeps the notes.
//!
//! No call takes longer than its time limit, whatever the server does: waiting for a connection, opening one, the statement. A
//! connection whose call was given up is closed and never used again. A server that comes back is taken up at the next call. After a
//! call that was given up the note may have been written all the same.

use crate::note::{Draft, Note, Page, Window};
use crate::settings::Database;
use http::StatusCode;
use nowwhat::{CallError, Dependency, Problem};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, Postgres};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// When a client should ask again.
const RETRY_AFTER_SECONDS: u64 = 2;

/// The columns of a [`Row`]. A time is text here and in the answers.
macro_rules! columns {
    () => {
        "id, title, text, to_char(changed_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    };
}

type Row = (i64, String, String, String);

fn note((id, title, text, changed_at): Row) -> Note {
    Note { id, title, text, changed_at }
}

/// The notes. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pool: PgPool,
    postgres: Dependency,
    migrated: Arc<OnceCell<()>>,
}

/// Why Postgres did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct StoreError(#[from] CallError<sqlx::Error>);

impl StoreError {
    /// Whether it is the server or the way to it, not what was asked.
    fn is_retryable(&self) -> bool {
        let CallError::Failed { source, .. } = &self.0 else { return true };
        match source {
            // Classes of https://www.postgresql.org/docs/current/errcodes-appendix.html: connection, authorization, catalog name,
            // rollback, resources, operator.
            sqlx::Error::Database(error) => error
                .code()
                .is_some_and(|code| ["08", "28", "3D", "40", "53", "57"].iter().any(|c| code.starts_with(c))),
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => true,
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
            _ => false,
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let problem = match error.is_retryable() {
            true => Self::of_status(StatusCode::SERVICE_UNAVAILABLE).retry_after(RETRY_AFTER_SECONDS),
            false => Self::of_status(StatusCode::INTERNAL_SERVER_ERROR),
        };
        problem.cause(error)
    }
}

impl Store {
    /// Opens no connection yet.
    ///
    /// # Errors
    /// An address that is none of Postgres.
    pub(crate) fn new(database: &Database, postgres: Dependency) -> Result<Self, sqlx::Error> {
        let timeout = database.timeout_seconds.duration();
        let options: PgConnectOptions = database.url.reveal().parse()?;
        // The server gives up as well: what nobody waits for must not hold locks.
        let options =
            options.application_name("notes").options([("statement_timeout", timeout.as_millis().to_string())]);
        let pool = PgPoolOptions::new().max_connections(database.connections_max);
        // The limit of the whole call comes first, so that there is one way to be late.
        let pool = pool.acquire_timeout(2 * timeout);
        Ok(Self { pool: pool.connect_lazy_with(options), postgres, migrated: Arc::default() })
    }

    /// Whether Postgres answers and the table is there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn check(&self) -> Result<(), StoreError> {
        let answer = self.postgres.call(async {
            let mut lease = self.lease().await?;
            let answer = sqlx::query("select from notes limit 1").execute(lease.connection()).await?;
            Ok(lease.done(answer))
        });
        Ok(answer.await.map(drop)?)
    }

    /// A note.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn find(&self, id: i64) -> Result<Option<Note>, StoreError> {
        let found = self.postgres.call(async {
            let mut lease = self.lease().await?;
            let row = sqlx::query_as(concat!("select ", columns!(), " from notes where id = $1")).bind(id);
            let row = row.fetch_optional(lease.connection()).await?;
            Ok(lease.done(row))
        });
        Ok(found.await?.map(note))
    }

    /// Some notes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn list(&self, window: &Window) -> Result<Page, StoreError> {
        let limit = usize::from(window.limit.0);
        let found = self.postgres.call(async {
            let mut lease = self.lease().await?;
            let sql = concat!("select ", columns!(), " from notes where id > $1 order by id limit $2");
            // One more tells whether there is a next page.
            let rows = sqlx::query_as(sql).bind(window.after).bind(i64::from(window.limit.0) + 1);
            let rows: Vec<Row> = rows.fetch_all(lease.connection()).await?;
            Ok(lease.done(rows))
        });
        let mut notes: Vec<Note> = found.await?.into_iter().map(note).collect();
        let more = notes.len() > limit;
        notes.truncate(limit);
        let next = notes.last().filter(|_| more).map(|note| note.id);
        Ok(Page { notes, next })
    }

    /// Writes a new note.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn create(&self, draft: &Draft) -> Result<Note, StoreError> {
        let created = self.postgres.call(async {
            let mut lease = self.lease().await?;
            let sql = concat!("insert into notes (title, text) values ($1, $2) returning ", columns!());
            let row = sqlx::query_as(sql).bind(&draft.title.0).bind(&draft.text.0);
            let row = row.fetch_one(lease.connection()).await?;
            Ok(lease.done(row))
        });
        Ok(note(created.await?))
    }

    /// Writes a note again; none when there is no such note.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn replace(&self, id: i64, draft: &Draft) -> Result<Option<Note>, StoreError> {
        let replaced = self.postgres.call(async {
            let mut lease = self.lease().await?;
            let sql = concat!(
                "update notes set title = $2, text = $3, changed_at = now() where id = $1 returning ",
                columns!()
            );
            let row = sqlx::query_as(sql).bind(id).bind(&draft.title.0).bind(&draft.text.0);
            let row = row.fetch_optional(lease.connection()).await?;
            Ok(lease.done(row))
        });
        Ok(replaced.await?.map(note))
    }

    /// Removes a note, and tells whether it was there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn remove(&self, id: i64) -> Result<bool, StoreError> {
        let removed = self.postgres.call(async {
            let mut lease = self.lease().await?;
            let done = sqlx::query("delete from notes where id = $1").bind(id).execute(lease.connection()).await?;
            Ok(lease.done(done.rows_affected() > 0))
        });
        Ok(removed.await?)
    }

    /// Closes the connections.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    /// A connection to a database that has the table: made at the first one, so that the service starts without Postgres.
    async fn lease(&self) -> Result<Lease, sqlx::Error> {
        let mut lease = Lease { connection: self.pool.acquire().await?, end: End::GivenUp };
        self.migrated.get_or_try_init(|| migrate(lease.connection())).await?;
        Ok(lease)
    }
}

async fn migrate(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(include_str!("../schema.sql")).execute(connection).await?;
    tracing::info!("the table is there");
    Ok(())
}

/// A connection that goes back to the pool only after an answer. The pool would wait for the lost answer of any other, without a limit.
struct Lease {
    connection: PoolConnection<Postgres>,
    end: End,
}

#[derive(PartialEq, Eq)]
enum End {
    GivenUp,
    Answered,
}

impl Lease {
    fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Gives the connection back and passes the answer on.
    fn done<T>(mut self, answer: T) -> T {
        self.end = End::Answered;
        answer
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.end == End::GivenUp {
            self.connection.close_on_drop();
        }
    }
}
