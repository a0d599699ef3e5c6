//! [`Registry`]: opening the database, checking tokens, remembering who was seen.

use crate::audit::{self, Done};
use crate::codes::Codes;
use crate::error::{AuthError, OpenError, RegistryError};
use crate::failures::Failures;
use crate::identity::{Identity, Role};
use crate::metrics::RegistryMetrics;
use crate::quota::Quota;
use crate::remembered::{REMEMBERED_BYTES, REMEMBERED_MAX, Remembered, Shown};
use crate::schema::migrate;
use crate::token::{digest, is_random};
use jiff::tz::TimeZone;
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use sqlx::{Connection as _, Row, Sqlite, SqlitePool, Transaction};
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;

/// Shortest admin token that may be configured.
pub const ADMIN_TOKEN_CHARS_MIN: usize = 32;
/// Sensors and tokens of which the last use waits to be written; of more, a use is not noted.
const SEEN_MAX: usize = REMEMBERED_MAX;
/// Memory of one of each, in maps that are half empty at worst; twice, as those that are being written stay.
const SEEN_BYTES: usize = 512;
/// Memory of all tokens and names that are remembered, and of who was seen.
pub const REGISTRY_BYTES_MAX: u64 = (REMEMBERED_MAX * REMEMBERED_BYTES + SEEN_MAX * SEEN_BYTES) as u64;
const BUSY: Duration = Duration::from_secs(5);

/// What a registry is told at its start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The database: `sqlite://PATH`, made when missing.
    pub url: String,
    /// Unknown tokens that one address may try in a minute.
    pub failures_per_minute_max: u32,
}

/// The registry. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    url: String,
    pub(crate) pool: SqlitePool,
    pub(crate) remembered: Remembered,
    failures: Failures,
    /// Tokens of suspect addresses, and sessions, are looked up one after another: of the connections to the database, the others stay for everybody else.
    pub(crate) suspects: Semaphore,
    pub(crate) codes: Codes,
    seen: Mutex<Seen>,
    pub(crate) metrics: RegistryMetrics,
}

/// When sensors last sent and tokens were last used, in microseconds since the epoch, as far as it is not written yet.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) sensors: HashMap<Arc<str>, i64>,
    pub(crate) tokens: HashMap<i64, i64>,
}

impl Seen {
    /// Adds what could not be written; what came since is newer.
    fn take_back(&mut self, older: Self) {
        let Self { sensors, tokens } = std::mem::replace(self, older);
        sensors.into_iter().for_each(|(sensor, at)| note(&mut self.sensors, sensor, at));
        tokens.into_iter().for_each(|(token, at)| note(&mut self.tokens, token, at));
    }
}

/// Looks through the file: a damaged page is found here, and not by who needs it first.
async fn check(pool: &SqlitePool, url: &str) -> Result<(), OpenError> {
    let failed = |source| OpenError::of(url, source);
    let row = sqlx::query("PRAGMA quick_check(1)").fetch_one(pool).await.map_err(failed)?;
    let said: String = row.try_get(0).map_err(failed)?;
    let damaged = |said| OpenError::Damaged { url: url.to_owned(), source: sqlx::Error::Protocol(said) };
    if said == "ok" { Ok(()) } else { Err(damaged(said.replace('\n', " "))) }
}

/// Notes when something was used, when there is room.
fn note<K: Eq + Hash>(used: &mut HashMap<K, i64>, key: K, at: i64) {
    if used.len() < SEEN_MAX || used.contains_key(&key) {
        used.insert(key, at);
    }
}

impl Registry {
    /// Opens the database, readable by its owner alone.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(options: &Options, metrics: RegistryMetrics) -> Result<Self, OpenError> {
        let url = options.url.as_str();
        let path = url.strip_prefix("sqlite://").ok_or_else(|| OpenError::Scheme(url.to_owned()))?;
        let failed = |source| OpenError::of(url, source);
        private(Path::new(path)).map_err(|e| failed(sqlx::Error::Io(e)))?;
        let connect = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        // What SQLite rolled back by itself, as on a full disk, sqlx takes for a transaction that goes on: there is no other after it.
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }));
        let pool = pool.connect_with(connect).await.map_err(failed)?;
        check(&pool, url).await?;
        migrate(&pool, url).await?;
        let failures = Failures::new(options.failures_per_minute_max);
        let (remembered, suspects, seen) = (Remembered::default(), Semaphore::new(1), Mutex::default());
        let (url, codes) = (url.to_owned(), Codes::default());
        let shared = Shared { url, pool, remembered, failures, suspects, codes, seen, metrics };
        let registry = Self { shared: Arc::new(shared) };
        registry.count().await.map_err(|e| OpenError::of(&registry.shared.url, e.0))?;
        Ok(registry)
    }

    /// Makes `token` the configured admin token, in place of the one configured before, which is revoked.
    ///
    /// # Errors
    /// [`OpenError`] when it is too short or cannot be stored.
    pub async fn ensure_admin(&self, token: &str) -> Result<(), OpenError> {
        if token.chars().count() < ADMIN_TOKEN_CHARS_MIN {
            return Err(OpenError::WeakAdminToken);
        }
        let digest = digest(token);
        let store = async {
            // A start that changes nothing writes nothing: it also works on a full disk.
            let known = "SELECT count(*), sum(sha256 = ? AND role = 'admin') FROM tokens WHERE configured = 1";
            let row = sqlx::query(known).bind(&digest[..]).fetch_one(&self.shared.pool).await?;
            if (row.try_get::<i64, _>(0)?, row.try_get::<Option<i64>, _>(1)?) == (1, Some(1)) {
                return Ok(());
            }
            let mut change = self.begin().await?;
            // Kept as revoked: the numbers of tokens in the audit stay those of one token each.
            let revoke = "UPDATE tokens SET configured = 0, revoked_at = ? WHERE configured = 1 AND sha256 <> ?";
            sqlx::query(revoke).bind(now_micros()).bind(&digest[..]).execute(&mut *change).await?;
            // Should it be configured again, they do not come back.
            let end = "DELETE FROM sessions WHERE token_id IN (SELECT id FROM tokens WHERE revoked_at IS NOT NULL)";
            sqlx::query(end).execute(&mut *change).await?;
            let make = "INSERT INTO tokens (sha256, role, name, created_at, configured) VALUES (?, 'admin', 'configured', ?, 1) \
                 ON CONFLICT (sha256) DO UPDATE SET role = 'admin', name = 'configured', configured = 1, sensor_id = NULL, \
                 revoked_at = NULL, expires_at = NULL, uses_left = NULL RETURNING id";
            let row = sqlx::query(make).bind(&digest[..]).bind(now_micros()).fetch_one(&mut *change).await?;
            let target = token_target(row.try_get("id")?);
            audit::write(&mut change, None, Done { act: "token.configure", target, detail: Value::Null }).await?;
            change.commit().await
        };
        store.await.map_err(|source| OpenError::of(&self.shared.url, source))?;
        self.shared.remembered.forget(|_, _| true);
        Ok(())
    }

    /// Who a token belongs to; from memory when it was verified before. `from` is the address that sent it: after too many that are not
    /// known, further unknown ones are told to wait. A token that was made here and is known is never told so, whoever else has that
    /// address, nor does one count that has ended: it was no guess. Any other, such as a configured admin token, takes turns with the guesses
    /// of its address.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn authenticate(&self, token: &str, from: Option<IpAddr>) -> Result<Arc<Identity>, AuthError> {
        if is_random(token) {
            return self.known(token, from).await;
        }
        let Shared { metrics, failures, .. } = &*self.shared;
        let now = Instant::now();
        let Some(turn) = failures.turn(from, now) else {
            metrics.turned_away.inc();
            return Err(AuthError::TooManyFailures { wait_seconds: 1 });
        };
        if turn > now {
            tokio::time::sleep_until(turn.into()).await;
        }
        self.known(token, from).await.inspect(|_| failures.was_no_guess(from))
    }

    async fn known(&self, token: &str, from: Option<IpAddr>) -> Result<Arc<Identity>, AuthError> {
        let Shared { metrics, remembered, failures, suspects, .. } = &*self.shared;
        let (digest, now) = (digest(token), now_micros());
        let shown = Shown::Token(digest);
        if let Some(identity) = remembered.get(&shown, now) {
            metrics.remembered.inc();
            self.used(&identity, now);
            return Ok(identity);
        }
        let _turn = match failures.is_suspect(from, Instant::now()) {
            true => Some(suspects.acquire().await.expect("it is never closed")),
            false => None,
        };
        let generation = remembered.generation();
        match self.verify(&digest, now).await {
            Ok(Some(identity)) => {
                metrics.verified.inc();
                let identity = Arc::new(identity);
                remembered.keep(shown, identity.clone(), generation);
                self.used(&identity, now);
                Ok(identity)
            }
            Ok(None) => match self.has_ended(&digest).await {
                Ok(true) => {
                    metrics.refused.inc();
                    Err(AuthError::Refused)
                }
                Ok(false) => self.failed(from),
                Err(error) => self.unavailable(error),
            },
            Err(error) => self.unavailable(error),
        }
    }

    /// A token that is not known.
    fn failed(&self, from: Option<IpAddr>) -> Result<Arc<Identity>, AuthError> {
        let Shared { metrics, failures, .. } = &*self.shared;
        match failures.count(from, Instant::now()) {
            None => {
                metrics.refused.inc();
                Err(AuthError::Refused)
            }
            Some(wait) => {
                metrics.turned_away.inc();
                Err(AuthError::TooManyFailures { wait_seconds: wait.as_secs() + 1 })
            }
        }
    }

    fn unavailable(&self, error: sqlx::Error) -> Result<Arc<Identity>, AuthError> {
        self.shared.metrics.unavailable.inc();
        Err(error.into())
    }

    pub(crate) fn used(&self, identity: &Identity, now: i64) {
        if let Some(token_id) = identity.token_id {
            note(&mut self.pending().tokens, token_id, now);
        }
    }

    /// Remembers that a sensor sent something; written with the next [`Registry::flush`].
    pub fn seen(&self, sensor: &Arc<str>, at_micros: i64) {
        note(&mut self.pending().sensors, sensor.clone(), at_micros);
    }

    /// Writes who was seen and which tokens were used, in one transaction.
    ///
    /// # Errors
    /// [`RegistryError`]; what was not written is kept for the next time.
    pub async fn flush(&self) -> Result<(), RegistryError> {
        let seen = std::mem::take(&mut *self.pending());
        if seen.sensors.is_empty() && seen.tokens.is_empty() {
            return Ok(());
        }
        let write = async {
            let mut change = self.begin().await?;
            for (sensor, at) in &seen.sensors {
                sqlx::query("UPDATE sensors SET last_seen_at = max(coalesce(last_seen_at, 0), ?) WHERE id = ?")
                    .bind(at)
                    .bind(&**sensor)
                    .execute(&mut *change)
                    .await?;
            }
            for (token, at) in &seen.tokens {
                sqlx::query("UPDATE tokens SET last_used_at = max(coalesce(last_used_at, 0), ?) WHERE id = ?")
                    .bind(at)
                    .bind(token)
                    .execute(&mut *change)
                    .await?;
            }
            change.commit().await
        };
        let written: Result<(), sqlx::Error> = write.await;
        written.map_err(|error| {
            self.pending().take_back(seen);
            RegistryError(error)
        })
    }

    /// Writes what is left and closes the database.
    ///
    /// # Errors
    /// [`RegistryError`] when the last write failed; the database is closed all the same.
    pub async fn close(&self) -> Result<(), RegistryError> {
        let flushed = self.flush().await;
        self.shared.pool.close().await;
        flushed
    }

    /// A change that excludes all others from its first statement on.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.shared.pool.begin_with("BEGIN IMMEDIATE").await
    }

    /// What is not written yet.
    pub(crate) fn pending(&self) -> MutexGuard<'_, Seen> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn verify(&self, digest: &[u8; 32], now: i64) -> Result<Option<Identity>, sqlx::Error> {
        let sql = "SELECT tokens.id, tokens.name, role, sensor_id, expires_at, last_used_at, time_zone, enrolled_by, \
                   quota_events_per_second, quota_bytes_per_second, quota_burst_seconds \
                   FROM tokens LEFT JOIN sensors ON sensors.id = sensor_id \
                   WHERE sha256 = ? AND revoked_at IS NULL AND disabled_at IS NULL AND (expires_at IS NULL OR expires_at > ?)";
        let found = sqlx::query(sql).bind(&digest[..]).bind(now).fetch_optional(&self.shared.pool).await?;
        let Some(row) = found else { return Ok(None) };
        let Some(identity) = identity_of(&row)? else { return Ok(None) };
        let token_id = row.try_get("id")?;
        let is_enrolled = row.try_get::<Option<i64>, _>("enrolled_by")?.is_some();
        let is_first_use = row.try_get::<Option<i64>, _>("last_used_at")?.is_none();
        if is_enrolled && is_first_use && self.mark_used(token_id, now).await == Mark::Revoked {
            return Ok(None);
        }
        Ok(Some(identity))
    }

    /// Whether a token that is not valid was made here once: it is revoked, has expired, or its sensor is disabled.
    async fn has_ended(&self, digest: &[u8; 32]) -> Result<bool, sqlx::Error> {
        let sql = "SELECT count(*) FROM tokens WHERE sha256 = ?";
        let row = sqlx::query(sql).bind(&digest[..]).fetch_one(&self.shared.pool).await?;
        Ok(row.try_get::<i64, _>(0)? > 0)
    }

    /// The first use of a token of an enrolled sensor is written at once: from then on, registering the sensor again gives no other one.
    async fn mark_used(&self, token_id: i64, now: i64) -> Mark {
        let sql = "UPDATE tokens SET last_used_at = coalesce(last_used_at, ?) WHERE id = ? AND revoked_at IS NULL";
        match sqlx::query(sql).bind(now).bind(token_id).execute(&self.shared.pool).await {
            Ok(done) if done.rows_affected() == 0 => Mark::Revoked,
            Ok(_) => Mark::Used,
            Err(error) => {
                // On a full disk nobody registers again either.
                tracing::warn!(error = error.to_string(), "first use of a token not stored, will be tried again");
                Mark::Used
            }
        }
    }

    async fn count(&self) -> Result<(), RegistryError> {
        let row = sqlx::query("SELECT count(*) FROM sensors").fetch_one(&self.shared.pool).await?;
        self.shared.metrics.sensors.set(row.try_get(0)?);
        Ok(())
    }
}

/// Whom a row of a token with its sensor names; nobody when its role is not known here.
pub(crate) fn identity_of(row: &SqliteRow) -> Result<Option<Identity>, sqlx::Error> {
    let Some(role) = Role::of_name(row.try_get("role")?) else { return Ok(None) };
    let zone: Option<String> = row.try_get("time_zone")?;
    Ok(Some(Identity {
        token_id: row.try_get("id")?,
        name: row.try_get("name")?,
        role,
        sensor: row.try_get::<Option<String>, _>("sensor_id")?.map(Arc::from),
        time_zone: zone.and_then(|zone| TimeZone::get(&zone).ok()),
        quota: Quota::of_row(row)?,
        expires_at: row.try_get("expires_at")?,
    }))
}

/// What became of a token at its first use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Used,
    Revoked,
}

/// A token as the audit names it.
pub(crate) fn token_target(id: i64) -> String {
    format!("token/{id}")
}

/// Makes the file, or keeps it, readable by its owner alone: it holds digests of tokens.
fn private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(drop)
}

/// Now, in microseconds since the epoch.
pub(crate) fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_seen_is_bounded_also_when_it_cannot_be_written() {
        let mut seen = Seen::default();
        let name = |n: usize| -> Arc<str> { n.to_string().into() };
        (0..SEEN_MAX + 10).for_each(|n| note(&mut seen.sensors, name(n), 1));
        note(&mut seen.sensors, name(0), 2);
        assert_eq!((seen.sensors.len(), seen.sensors[&name(0)]), (SEEN_MAX, 2), "those that are known go on");
        let older = std::mem::take(&mut seen);
        note(&mut seen.sensors, name(1), 3);
        note(&mut seen.sensors, name(SEEN_MAX + 1), 3);
        seen.take_back(older);
        assert_eq!((seen.sensors.len(), seen.sensors[&name(1)]), (SEEN_MAX, 3), "what came since is newer");
        let sensor = (size_of::<(Arc<str>, i64)>() + 1) * 16 / 7 + 128 + 32;
        let token = (size_of::<(i64, i64)>() + 1) * 16 / 7;
        assert!((SEEN_BYTES / 2..=SEEN_BYTES).contains(&(2 * (sensor + token))), "{sensor} {token}");
    }
}
