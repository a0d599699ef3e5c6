//! The tables, as a list of steps that is only ever appended to.

use crate::error::OpenError;
use sqlx::{Row, SqliteExecutor, SqlitePool};

/// Each entry brings the schema from its index to the next version, in one transaction.
const STEPS: &[&str] = &[
    "
    CREATE TABLE sensors (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, labels TEXT NOT NULL, created_at INTEGER NOT NULL,
        last_seen_at INTEGER, disabled_at INTEGER
    ) STRICT;
    CREATE TABLE tokens (
        id INTEGER PRIMARY KEY, sha256 BLOB NOT NULL UNIQUE, role TEXT NOT NULL, sensor_id TEXT REFERENCES sensors(id),
        created_at INTEGER NOT NULL, expires_at INTEGER, revoked_at INTEGER, configured INTEGER NOT NULL DEFAULT 0
    ) STRICT;
",
    "
    ALTER TABLE sensors ADD COLUMN time_zone TEXT;
    ALTER TABLE sensors ADD COLUMN enrolled_by INTEGER;
    ALTER TABLE tokens ADD COLUMN name TEXT NOT NULL DEFAULT '';
    ALTER TABLE tokens ADD COLUMN uses_left INTEGER;
    ALTER TABLE tokens ADD COLUMN last_used_at INTEGER;
    CREATE INDEX tokens_sensor_id ON tokens (sensor_id);
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY, at INTEGER NOT NULL, token_id INTEGER, token_name TEXT, role TEXT, client TEXT,
        act TEXT NOT NULL, target TEXT NOT NULL, detail TEXT, request_id TEXT
    ) STRICT;
",
    "CREATE INDEX audit_token_id ON audit (token_id)",
    "
    ALTER TABLE sensors ADD COLUMN quota_events_per_second INTEGER;
    ALTER TABLE sensors ADD COLUMN quota_bytes_per_second INTEGER;
    ALTER TABLE sensors ADD COLUMN quota_burst_seconds INTEGER;
",
    "
    CREATE TABLE erasures (
        sensor_id TEXT PRIMARY KEY REFERENCES sensors(id), until_position INTEGER NOT NULL, rejected_until INTEGER NOT NULL,
        requested_at INTEGER NOT NULL, finished_at INTEGER, erased_events INTEGER NOT NULL DEFAULT 0, turn_since INTEGER,
        failure TEXT
    ) STRICT;
",
    "
    CREATE TABLE sessions (
        sha256 BLOB PRIMARY KEY NOT NULL, token_id INTEGER NOT NULL REFERENCES tokens(id) ON DELETE CASCADE,
        created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX sessions_token_id ON sessions (token_id);
",
];

/// The version of the schema that a database has, 0 when it has none.
pub(crate) async fn version<'e>(database: impl SqliteExecutor<'e>, url: &str) -> Result<usize, OpenError> {
    let failed = |source| OpenError::of(url, source);
    let asked = "SELECT user_version, (user_version > 0 OR EXISTS (SELECT 1 FROM sqlite_master)) \
                 AND NOT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'tokens') FROM pragma_user_version";
    let row = sqlx::query(asked).fetch_one(database).await.map_err(failed)?;
    let found = row.try_get::<i64, _>(0).map_err(failed)? as usize;
    if row.try_get::<bool, _>(1).map_err(failed)? {
        return Err(OpenError::none_of_ours(url, "it is the database of something else"));
    }
    if found > STEPS.len() {
        return Err(OpenError::Newer { url: url.to_owned(), found, known: STEPS.len() });
    }
    Ok(found)
}

/// Brings the schema up to what this program knows.
pub(crate) async fn migrate(pool: &SqlitePool, url: &str) -> Result<(), OpenError> {
    let failed = |source| OpenError::of(url, source);
    let found = version(pool, url).await?;
    for (version, step) in STEPS.iter().enumerate().skip(found) {
        let script = format!("BEGIN IMMEDIATE; {step}; PRAGMA user_version = {}; COMMIT;", version + 1);
        sqlx::raw_sql(sqlx::AssertSqlSafe(script)).execute(pool).await.map_err(failed)?;
    }
    Ok(())
}
