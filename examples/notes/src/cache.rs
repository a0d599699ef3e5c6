//! Redis, which keeps notes that were read, for a while.
//!
//! Nothing here fails a request: a cache that is away costs its time limit, and Postgres is asked. What is kept is forgotten when the
//! note changes; a change that Redis missed, or a read that crosses a change, may be seen for the time to live.

use crate::note::Note;
use nowwhat::config::Url;
use nowwhat::metrics::{Counter, Family, Registry};
use nowwhat::{CallError, Dependency, error_chain};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Cmd, FromRedisValue, RedisError};
use std::fmt;
use std::time::Duration;

nowwhat::label! {
    /// What a look into the cache found.
    enum Found {
        /// The note.
        Hit = "hit",
        /// No note.
        Miss = "miss",
        /// No cache.
        Away = "away",
    }
}

nowwhat::labels! {
    /// What reads are counted by.
    struct Read { found: Found }
}

/// Metrics of the cache.
#[derive(Clone, Debug)]
pub(crate) struct CacheMetrics {
    reads: Family<Read, Counter>,
}

impl CacheMetrics {
    /// Makes the metrics and adds them to `registry`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let reads: Family<Read, Counter> = Family::default();
        for found in Found::ALL {
            drop(reads.get_or_create(&Read { found }));
        }
        registry.register("notes_cache_reads", "Reads of a note by what the cache held", reads.clone());
        Self { reads }
    }
}

/// What the cache says of a note.
pub(crate) enum Kept {
    /// It is this.
    Note(Note),
    /// Nothing; it should be told.
    Nothing,
    /// It does not answer.
    Away,
}

/// The cache. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cache {
    redis: Dependency,
    connection: ConnectionManager,
    ttl: Duration,
    metrics: CacheMetrics,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("redis", &self.redis).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

impl Cache {
    /// Opens no connection yet.
    ///
    /// # Errors
    /// An address that is none of Redis.
    pub(crate) fn new(url: &Url, redis: Dependency, ttl: Duration, metrics: CacheMetrics) -> Result<Self, RedisError> {
        // One attempt for each call: the next call is the next attempt.
        let config = ConnectionManagerConfig::new().set_number_of_retries(0);
        let client = redis::Client::open(url.reveal())?;
        let connection = ConnectionManager::new_lazy_with_config(client, config)?;
        Ok(Self { redis, connection, ttl, metrics })
    }

    /// Whether Redis answers.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) async fn check(&self) -> Result<(), CallError<RedisError>> {
        self.ask(redis::cmd("PING")).await
    }

    /// Looks a note up.
    pub(crate) async fn find(&self, id: i64) -> Kept {
        let mut get = redis::cmd("GET");
        get.arg(key(id));
        let (found, kept) = match self.ask::<Option<Vec<u8>>>(get).await {
            // What another version of the service wrote is nothing.
            Ok(Some(text)) => match serde_json::from_slice(&text) {
                Ok(note) => (Found::Hit, Kept::Note(note)),
                Err(_) => (Found::Miss, Kept::Nothing),
            },
            Ok(None) => (Found::Miss, Kept::Nothing),
            Err(error) => {
                away(&error);
                (Found::Away, Kept::Away)
            }
        };
        self.metrics.reads.get_or_create(&Read { found }).inc();
        kept
    }

    /// Keeps a note for a while.
    pub(crate) async fn keep(&self, note: &Note) {
        let text = serde_json::to_vec(note).expect("plain data always serializes");
        let mut set = redis::cmd("SET");
        set.arg(key(note.id)).arg(text).arg("EX").arg(self.ttl.as_secs());
        self.told(self.ask(set).await);
    }

    /// Forgets a note that changed.
    pub(crate) async fn forget(&self, id: i64) {
        let mut del = redis::cmd("DEL");
        del.arg(key(id));
        self.told(self.ask(del).await);
    }

    fn told(&self, result: Result<(), CallError<RedisError>>) {
        if let Err(error) = result {
            away(&error);
        }
    }

    async fn ask<T: FromRedisValue>(&self, command: Cmd) -> Result<T, CallError<RedisError>> {
        let mut connection = self.connection.clone();
        self.redis.call(command.query_async(&mut connection)).await
    }
}

fn away(error: &CallError<RedisError>) {
    tracing::warn!(error = error_chain(error), "the cache does not answer, the request goes on without it");
}

fn key(id: i64) -> String {
    format!("notes:note:{id}")
}
