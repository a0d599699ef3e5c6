//! [`Registry`]: registering sensors, checking tokens, remembering who was seen.

use crate::metrics::RegistryMetrics;
use crate::name::{BadName, sensor_id_from};
use crate::schema::migrate;
use crate::token::{Token, digest};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use sqlx::{Row, SqlitePool};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const LABELS_MAX: usize = 32;
const LABEL_KEY_BYTES_MAX: usize = 64;
const LABEL_VALUE_BYTES_MAX: usize = 256;
/// Shortest admin token that may be configured.
pub const ADMIN_TOKEN_CHARS_MIN: usize = 16;
/// Verified tokens kept in memory; beyond it they are verified again.
const REMEMBERED_MAX: usize = 100_000;
const BUSY: Duration = Duration::from_secs(5);

/// What a token's owner may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Send events, see itself.
    Sensor,
    /// Everything.
    Admin,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Sensor => "sensor",
            Self::Admin => "admin",
        }
    }
}

/// Who a token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What it may do.
    pub role: Role,
    /// The sensor, when it is one.
    pub sensor: Option<Arc<str>>,
    expires_at: Option<i64>,
}

/// A sensor as it was just registered.
#[derive(Debug)]
pub struct Registered {
    /// Its id.
    pub sensor_id: Arc<str>,
    /// Its token, shown only now.
    pub token: Token,
}

/// What is known of a sensor. Times are microseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SensorInfo {
    /// Its id.
    pub id: Arc<str>,
    /// The name it was registered with.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it was registered.
    pub created_at: i64,
    /// When it last sent something.
    pub last_seen_at: Option<i64>,
    /// When it was disabled.
    pub disabled_at: Option<i64>,
}

/// Why the registry did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL names a database of a kind that is not known.
    #[error("registry.url is {0:?}: it begins with sqlite://")]
    Scheme(String),
    /// The database could not be opened.
    #[error("the registry {url} cannot be opened: {source}")]
    Database {
        /// Its URL.
        url: String,
        /// What the database said.
        source: sqlx::Error,
    },
    /// The database was written by a newer program.
    #[error("the registry {url} has schema version {found}, this program knows up to {known}: use the newer program")]
    Newer {
        /// Its URL.
        url: String,
        /// Its version.
        found: usize,
        /// The highest version known here.
        known: usize,
    },
    /// The configured admin token is too short.
    #[error("auth.admin_token is too short: it has at least {ADMIN_TOKEN_CHARS_MIN} characters")]
    WeakAdminToken,
}

/// The database did not answer; the same may work later.
#[derive(Debug, thiserror::Error)]
#[error("the registry did not answer: {0}")]
pub struct RegistryError(#[from] sqlx::Error);

/// Why a sensor was not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The name gives no id.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The labels are too many or too long.
    #[error(
        "labels: at most {LABELS_MAX}, keys of 1 to {LABEL_KEY_BYTES_MAX} bytes, values of at most {LABEL_VALUE_BYTES_MAX} bytes"
    )]
    Labels,
    /// Another sensor has the id.
    #[error("there is a sensor {sensor_id:?}: choose another name")]
    Taken {
        /// The id.
        sensor_id: String,
    },
    /// The database did not answer, or there was no randomness.
    #[error(transparent)]
    Unavailable(#[from] RegistryError),
}

/// Why a token was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// It is not known, revoked, expired, or its sensor is disabled.
    #[error("the token is not known, has expired or is revoked")]
    Refused,
    /// It could not be checked.
    #[error(transparent)]
    Unavailable(#[from] RegistryError),
}

/// The registry. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    pool: SqlitePool,
    remembered: RwLock<HashMap<[u8; 32], Arc<Identity>>>,
    seen: Mutex<HashMap<Arc<str>, i64>>,
    metrics: RegistryMetrics,
}

impl Registry {
    /// Opens the database of `url`, `sqlite://PATH`, made when missing, readable by its owner alone.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(url: &str, metrics: RegistryMetrics) -> Result<Self, OpenError> {
        let path = url.strip_prefix("sqlite://").ok_or_else(|| OpenError::Scheme(url.to_owned()))?;
        let failed = |source| OpenError::Database { url: url.to_owned(), source };
        private(Path::new(path)).map_err(|e| failed(sqlx::Error::Io(e)))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.map_err(failed)?;
        migrate(&pool, url).await?;
        let (remembered, seen) = (RwLock::default(), Mutex::default());
        let registry = Self { shared: Arc::new(Shared { pool, remembered, seen, metrics }) };
        registry.count().await.map_err(|e| failed(e.0))?;
        Ok(registry)
    }

    /// Makes `token` the configured admin token, in place of the one configured before.
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
            let mut change = self.shared.pool.begin().await?;
            sqlx::query("DELETE FROM tokens WHERE configured = 1 AND sha256 <> ?")
                .bind(&digest[..])
                .execute(&mut *change)
                .await?;
            sqlx::query("INSERT INTO tokens (sha256, role, created_at, configured) VALUES (?, 'admin', ?, 1) ON CONFLICT (sha256) DO NOTHING")
                .bind(&digest[..])
                .bind(now_micros())
                .execute(&mut *change)
                .await?;
            change.commit().await
        };
        store.await.map_err(|source| OpenError::Database { url: "database".to_owned(), source })?;
        self.forget();
        Ok(())
    }

    /// Registers a sensor and makes its token.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub async fn register(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<Registered, RegisterError> {
        let id = sensor_id_from(name)?;
        let fits = |(k, v): (&String, &String)| {
            (1..=LABEL_KEY_BYTES_MAX).contains(&k.len()) && v.len() <= LABEL_VALUE_BYTES_MAX
        };
        if labels.len() > LABELS_MAX || !labels.iter().all(fits) {
            return Err(RegisterError::Labels);
        }
        let token = Token::random().map_err(|e| RegistryError(sqlx::Error::Io(e)))?;
        let labels = serde_json::to_string(labels).expect("strings always serialize");
        let store = async {
            let mut change = self.shared.pool.begin_with("BEGIN IMMEDIATE").await?;
            let made = sqlx::query(
                "INSERT INTO sensors (id, name, labels, created_at) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
            )
            .bind(&id)
            .bind(name.trim())
            .bind(labels)
            .bind(now_micros())
            .execute(&mut *change)
            .await?;
            if made.rows_affected() == 0 {
                return Ok(false);
            }
            sqlx::query("INSERT INTO tokens (sha256, role, sensor_id, created_at) VALUES (?, ?, ?, ?)")
                .bind(&digest(token.reveal())[..])
                .bind(Role::Sensor.name())
                .bind(&id)
                .bind(now_micros())
                .execute(&mut *change)
                .await?;
            change.commit().await.map(|()| true)
        };
        if !store.await.map_err(RegistryError)? {
            return Err(RegisterError::Taken { sensor_id: id });
        }
        self.shared.metrics.sensors.inc();
        Ok(Registered { sensor_id: id.into(), token })
    }

    /// Who a token belongs to; from memory when it was verified before.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn authenticate(&self, token: &str) -> Result<Arc<Identity>, AuthError> {
        let metrics = &self.shared.metrics;
        let digest = digest(token);
        if let Some(identity) = self.remembered(&digest) {
            metrics.remembered.inc();
            return Ok(identity);
        }
        match self.verify(&digest).await {
            Ok(Some(identity)) => {
                metrics.verified.inc();
                let identity = Arc::new(identity);
                let mut remembered = self.shared.remembered.write().unwrap_or_else(PoisonError::into_inner);
                if remembered.len() >= REMEMBERED_MAX {
                    remembered.clear();
                }
                remembered.insert(digest, identity.clone());
                Ok(identity)
            }
            Ok(None) => {
                metrics.refused.inc();
                Err(AuthError::Refused)
            }
            Err(error) => {
                metrics.unavailable.inc();
                Err(AuthError::Unavailable(RegistryError(error)))
            }
        }
    }

    /// What is known of one sensor.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn sensor(&self, id: &str) -> Result<Option<SensorInfo>, RegistryError> {
        let row = sqlx::query("SELECT * FROM sensors WHERE id = ?").bind(id).fetch_optional(&self.shared.pool).await?;
        row.map(|row| self.info(&row)).transpose()
    }

    /// All sensors, by id.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn sensors(&self) -> Result<Vec<SensorInfo>, RegistryError> {
        let rows = sqlx::query("SELECT * FROM sensors ORDER BY id").fetch_all(&self.shared.pool).await?;
        rows.iter().map(|row| self.info(row)).collect()
    }

    /// Remembers that a sensor sent something; written with the next [`Registry::flush`].
    pub fn seen(&self, sensor: &Arc<str>, at_micros: i64) {
        let mut seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(sensor.clone(), at_micros);
    }

    /// Writes who was seen, in one transaction.
    ///
    /// # Errors
    /// [`RegistryError`]; what was not written is kept for the next time.
    pub async fn flush(&self) -> Result<(), RegistryError> {
        let seen = std::mem::take(&mut *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner));
        if seen.is_empty() {
            return Ok(());
        }
        let write = async {
            let mut change = self.shared.pool.begin_with("BEGIN IMMEDIATE").await?;
            for (sensor, at) in &seen {
                sqlx::query("UPDATE sensors SET last_seen_at = max(coalesce(last_seen_at, 0), ?) WHERE id = ?")
                    .bind(at)
                    .bind(&**sensor)
                    .execute(&mut *change)
                    .await?;
            }
            change.commit().await
        };
        let written: Result<(), sqlx::Error> = write.await;
        written.map_err(|error| {
            let mut now = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
            for (sensor, at) in seen {
                now.entry(sensor).or_insert(at);
            }
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

    fn remembered(&self, digest: &[u8; 32]) -> Option<Arc<Identity>> {
        let remembered = self.shared.remembered.read().unwrap_or_else(PoisonError::into_inner);
        let identity = remembered.get(digest)?;
        identity.expires_at.is_none_or(|at| at > now_micros()).then(|| identity.clone())
    }

    fn forget(&self) {
        self.shared.remembered.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    async fn verify(&self, digest: &[u8; 32]) -> Result<Option<Identity>, sqlx::Error> {
        let sql = "SELECT role, sensor_id, expires_at FROM tokens LEFT JOIN sensors ON sensors.id = sensor_id \
                   WHERE sha256 = ? AND revoked_at IS NULL AND disabled_at IS NULL AND (expires_at IS NULL OR expires_at > ?)";
        let found = sqlx::query(sql).bind(&digest[..]).bind(now_micros()).fetch_optional(&self.shared.pool).await?;
        let Some(row) = found else { return Ok(None) };
        let role = match row.try_get::<&str, _>("role")? {
            "sensor" => Role::Sensor,
            "admin" => Role::Admin,
            _ => return Ok(None),
        };
        let sensor = row.try_get::<Option<String>, _>("sensor_id")?.map(Arc::from);
        Ok(Some(Identity { role, sensor, expires_at: row.try_get("expires_at")? }))
    }

    async fn count(&self) -> Result<(), RegistryError> {
        let row = sqlx::query("SELECT count(*) FROM sensors").fetch_one(&self.shared.pool).await?;
        self.shared.metrics.sensors.set(row.try_get(0)?);
        Ok(())
    }

    fn info(&self, row: &SqliteRow) -> Result<SensorInfo, RegistryError> {
        let id: Arc<str> = row.try_get::<String, _>("id")?.into();
        let labels: String = row.try_get("labels")?;
        let seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied();
        let stored: Option<i64> = row.try_get("last_seen_at")?;
        Ok(SensorInfo {
            name: row.try_get("name")?,
            labels: serde_json::from_str(&labels).unwrap_or_default(),
            created_at: row.try_get("created_at")?,
            last_seen_at: seen.max(stored),
            disabled_at: row.try_get("disabled_at")?,
            id,
        })
    }
}

/// Makes the file, or keeps it, readable by its owner alone: it holds digests of tokens.
fn private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(drop)
}

fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
