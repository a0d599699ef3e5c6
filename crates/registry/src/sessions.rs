//! Sessions of people who signed in: each stands for a token, for some hours.
//!
//! **Promises:** a session is 256 random bits, shown once; the database holds its SHA-256. It is the token's identity, so that the audit names
//! whose it is, and ends with the token: also at the next request after that was revoked. It outlives a restart. Of one token the oldest
//! goes when there are too many.

use crate::audit::{self, Actor, Done};
use crate::error::{AuthError, RegistryError, SessionError};
use crate::identity::Identity;
use crate::registry::{Registry, identity_of, now_micros, token_target};
use crate::remembered::Shown;
use crate::token::{Token, digest, is_random};
use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::Row;
use std::sync::Arc;
use std::time::Duration;

/// How long a session lasts, unless its token ends before: 12 hours.
pub const SESSION_AGE_MAX: Duration = Duration::from_secs(12 * 3600);
/// Sessions of one token; of more, the oldest goes.
pub const SESSIONS_OF_TOKEN_MAX: i64 = 100;

/// What somebody signed in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedInBy {
    /// The token itself.
    Token,
    /// A code that the token had made.
    Code,
}

/// A session that was begun.
pub struct Begun {
    /// What is shown in each request, and known to nobody else.
    pub secret: Token,
    /// When it ends, in microseconds since the epoch.
    pub expires_at: i64,
}

impl Registry {
    /// Begins a session of the actor's token.
    ///
    /// # Errors
    /// [`AuthError`]; refused when the token has ended meanwhile, or it was no token.
    pub async fn begin_session(&self, by: &Actor<'_>, with: SignedInBy) -> Result<Begun, AuthError> {
        let token_id = by.identity.token_id.ok_or(AuthError::Refused)?;
        let (secret, now) = (Token::random()?, now_micros());
        let mut change = self.begin().await?;
        let holds = "SELECT expires_at FROM tokens WHERE id = ? AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)";
        let row = sqlx::query(holds).bind(token_id).bind(now).fetch_optional(&mut *change).await?;
        let ends: Option<i64> = row.ok_or(AuthError::Refused)?.try_get(0)?;
        let latest = now + SESSION_AGE_MAX.as_micros() as i64;
        let expires_at = ends.map_or(latest, |ends| ends.min(latest));
        let oldest = "DELETE FROM sessions WHERE sha256 IN (SELECT sha256 FROM sessions WHERE token_id = ? \
                      ORDER BY created_at DESC, sha256 LIMIT -1 OFFSET ?) RETURNING sha256";
        let oldest = sqlx::query(oldest).bind(token_id).bind(SESSIONS_OF_TOKEN_MAX - 1).fetch_all(&mut *change).await?;
        let oldest = oldest.iter().map(|row| row.try_get(0)).collect::<Result<Vec<Vec<u8>>, _>>()?;
        let make = "INSERT INTO sessions (sha256, token_id, created_at, expires_at) VALUES (?, ?, ?, ?)";
        let make = sqlx::query(make).bind(digest(secret.reveal()).to_vec()).bind(token_id);
        make.bind(now).bind(expires_at).execute(&mut *change).await?;
        let with = match with {
            SignedInBy::Token => "token",
            SignedInBy::Code => "code",
        };
        let ends = Timestamp::from_microsecond(expires_at).ok().map(|at| at.to_string());
        let detail = json!({ "by": with, "expires_at": ends });
        let done = Done { act: "session.begin", target: token_target(token_id), detail };
        audit::write(&mut change, Some(by), done).await?;
        change.commit().await?;
        if !oldest.is_empty() {
            let is_gone = |digest: &[u8; 32]| oldest.iter().any(|gone| gone == digest);
            self.shared.remembered.forget(|shown, _| matches!(shown, Shown::Session(digest) if is_gone(digest)));
        }
        Ok(Begun { secret, expires_at })
    }

    /// Who a session belongs to, which ends with it; from memory when it was looked up before.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn session(&self, secret: &str) -> Result<Arc<Identity>, SessionError> {
        let (remembered, metrics) = (&self.shared.remembered, &self.shared.metrics.sessions);
        if !is_random(secret) {
            metrics.refused.inc();
            return Err(SessionError::Ended);
        }
        let (digest, now) = (digest(secret), now_micros());
        let shown = Shown::Session(digest);
        if let Some(identity) = remembered.get(&shown, now) {
            metrics.remembered.inc();
            self.used(&identity, now);
            return Ok(identity);
        }
        // One after another: whoever comes with many that are not known leaves the other connections to the database to everybody else.
        let _turn = self.shared.suspects.acquire().await.expect("it is never closed");
        let generation = remembered.generation();
        let found = self.look_up(&digest, now).await.inspect_err(|_| {
            metrics.unavailable.inc();
        });
        let Some(identity) = found?.map(Arc::new) else {
            metrics.refused.inc();
            return Err(SessionError::Ended);
        };
        metrics.verified.inc();
        remembered.keep(shown, identity.clone(), generation);
        self.used(&identity, now);
        Ok(identity)
    }

    async fn look_up(&self, digest: &[u8; 32], now: i64) -> Result<Option<Identity>, sqlx::Error> {
        let sql = "SELECT tokens.id, tokens.name, role, sensor_id, time_zone, \
                   min(sessions.expires_at, coalesce(tokens.expires_at, sessions.expires_at)) AS expires_at, \
                   quota_events_per_second, quota_bytes_per_second, quota_burst_seconds \
                   FROM sessions JOIN tokens ON tokens.id = token_id LEFT JOIN sensors ON sensors.id = sensor_id \
                   WHERE sessions.sha256 = ?1 AND sessions.expires_at > ?2 AND revoked_at IS NULL AND disabled_at IS NULL \
                   AND (tokens.expires_at IS NULL OR tokens.expires_at > ?2)";
        let found = sqlx::query(sql).bind(&digest[..]).bind(now).fetch_optional(&self.shared.pool).await?;
        found.map_or(Ok(None), |row| identity_of(&row))
    }

    /// Ends a session, whose identity is the actor's: the next request with it is refused. One that has ended stays so.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn end_session(&self, by: &Actor<'_>, secret: &str) -> Result<(), RegistryError> {
        let digest = digest(secret);
        let mut change = self.begin().await?;
        let end = "DELETE FROM sessions WHERE sha256 = ? RETURNING token_id";
        let Some(row) = sqlx::query(end).bind(&digest[..]).fetch_optional(&mut *change).await? else {
            return Ok(());
        };
        let target = token_target(row.try_get(0)?);
        audit::write(&mut change, Some(by), Done { act: "session.end", target, detail: Value::Null }).await?;
        change.commit().await?;
        self.shared.remembered.forget(|shown, _| *shown == Shown::Session(digest));
        Ok(())
    }

    /// Lets go of sessions that have ended, with their tokens or before.
    pub(crate) async fn trim_sessions(&self) -> Result<(), RegistryError> {
        let sql = "DELETE FROM sessions WHERE expires_at <= ?1 OR token_id IN \
                   (SELECT id FROM tokens WHERE revoked_at IS NOT NULL OR expires_at <= ?1)";
        sqlx::query(sql).bind(now_micros()).execute(&self.shared.pool).await?;
        Ok(())
    }
}
