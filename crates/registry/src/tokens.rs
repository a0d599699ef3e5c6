//! Tokens of people and programs: making, listing, revoking.

use crate::audit::{self, Actor, Done};
use crate::error::{RegistryError, TokenError};
use crate::identity::Role;
use crate::registry::{Registry, now_micros, token_target};
use crate::token::{Token, digest};
use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

/// The longest name of a token.
pub(crate) const TOKEN_NAME_BYTES_MAX: usize = 256;
/// Most sensors that one enrolment token may be made for.
pub const USES_MAX: u32 = 1_000_000;

/// A token that is to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// What it is for.
    pub role: Role,
    /// What it is called.
    pub name: String,
    /// Whose events it sends; for the roles that send.
    pub sensor: Option<String>,
    /// When it ends, in microseconds since the epoch.
    pub expires_at: Option<i64>,
    /// How many sensors it may register; for the role `enrol`.
    pub uses: Option<u32>,
}

/// What is known of a token; never the token. Times are microseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its number.
    pub id: i64,
    /// What it is for.
    pub role: Role,
    /// What it is called.
    pub name: String,
    /// Whose events it sends.
    pub sensor: Option<String>,
    /// When it was made.
    pub created_at: i64,
    /// When it ends.
    pub expires_at: Option<i64>,
    /// How many sensors it may still register.
    pub uses_left: Option<i64>,
    /// When it was last used.
    pub last_used_at: Option<i64>,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
}

/// What is stored of a new token beside its digest.
pub(crate) struct NewRow<'a> {
    pub(crate) role: Role,
    pub(crate) name: &'a str,
    pub(crate) sensor: Option<&'a str>,
    pub(crate) expires_at: Option<i64>,
    pub(crate) uses: Option<u32>,
}

impl Registry {
    /// Makes a token, which is shown only now.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn add_token(&self, by: &Actor<'_>, new: &NewToken) -> Result<(TokenInfo, Token), TokenError> {
        check(new)?;
        let token = Token::random()?;
        let mut change = self.begin().await?;
        if let Some(sensor) = &new.sensor {
            let sql = "SELECT 1 FROM sensors WHERE id = ?";
            let found = sqlx::query(sql).bind(sensor).fetch_optional(&mut *change).await?;
            found.ok_or_else(|| TokenError::SensorUnknown(sensor.chars().take(128).collect()))?;
        }
        let row = NewRow {
            role: new.role,
            name: new.name.trim(),
            sensor: new.sensor.as_deref(),
            expires_at: new.expires_at,
            uses: new.uses,
        };
        let id = insert(&mut change, &token, &row).await?;
        let ends = new.expires_at.and_then(|at| Timestamp::from_microsecond(at).ok()).map(|at| at.to_string());
        let (role, name, sensor, uses) = (new.role.name(), row.name, row.sensor, row.uses);
        let detail = json!({ "role": role, "name": name, "sensor": sensor, "expires_at": ends, "uses": uses });
        audit::write(&mut change, Some(by), Done { act: "token.add", target: token_target(id), detail }).await?;
        let made = sqlx::query("SELECT * FROM tokens WHERE id = ?").bind(id).fetch_one(&mut *change).await?;
        change.commit().await?;
        Ok((self.token_info(&made)?, token))
    }

    /// The newest tokens first, at most `limit`, those before the number `before`, of one sensor when one is named; also those that
    /// hold no more.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn tokens(
        &self,
        sensor: Option<&str>,
        limit: u32,
        before: Option<i64>,
    ) -> Result<Vec<TokenInfo>, RegistryError> {
        let sql = if sensor.is_some() {
            "SELECT * FROM tokens WHERE sensor_id = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3"
        } else {
            "SELECT * FROM tokens WHERE ?1 IS NULL AND id < ?2 ORDER BY id DESC LIMIT ?3"
        };
        let asked = sqlx::query(sql).bind(sensor).bind(before.unwrap_or(i64::MAX)).bind(limit);
        let rows = asked.fetch_all(&self.shared.pool).await?;
        Ok(rows.iter().map(|row| self.token_info(row)).collect::<Result<_, _>>()?)
    }

    /// What is known of one token.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn token(&self, id: i64) -> Result<Option<TokenInfo>, RegistryError> {
        let row = sqlx::query("SELECT * FROM tokens WHERE id = ?").bind(id).fetch_optional(&self.shared.pool).await?;
        Ok(row.map(|row| self.token_info(&row)).transpose()?)
    }

    /// Revokes a token: the next request with it, or with a session of it, is refused. One that is revoked already stays so.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn revoke(&self, by: &Actor<'_>, id: i64) -> Result<(), TokenError> {
        let mut change = self.begin().await?;
        let sql = "SELECT configured, revoked_at FROM tokens WHERE id = ?";
        let row = sqlx::query(sql).bind(id).fetch_optional(&mut *change).await?.ok_or(TokenError::Unknown(id))?;
        if row.try_get::<i64, _>("configured")? == 1 {
            return Err(TokenError::Configured(id));
        }
        if row.try_get::<Option<i64>, _>("revoked_at")?.is_some() {
            return Ok(());
        }
        let revoke = "UPDATE tokens SET revoked_at = ? WHERE id = ?";
        sqlx::query(revoke).bind(now_micros()).bind(id).execute(&mut *change).await?;
        sqlx::query("DELETE FROM sessions WHERE token_id = ?").bind(id).execute(&mut *change).await?;
        let done = Done { act: "token.revoke", target: token_target(id), detail: Value::Null };
        audit::write(&mut change, Some(by), done).await?;
        change.commit().await?;
        self.shared.remembered.forget(|_, identity| identity.token_id == Some(id));
        Ok(())
    }

    fn token_info(&self, row: &SqliteRow) -> Result<TokenInfo, sqlx::Error> {
        let id = row.try_get("id")?;
        let role: String = row.try_get("role")?;
        let used = self.pending().tokens.get(&id).copied();
        Ok(TokenInfo {
            id,
            role: Role::of_name(&role).ok_or_else(|| sqlx::Error::Decode(format!("no role {role}").into()))?,
            name: row.try_get("name")?,
            sensor: row.try_get("sensor_id")?,
            created_at: row.try_get("created_at")?,
            expires_at: row.try_get("expires_at")?,
            uses_left: row.try_get("uses_left")?,
            last_used_at: used.max(row.try_get("last_used_at")?),
            revoked_at: row.try_get("revoked_at")?,
        })
    }
}

/// Stores a token; its number.
pub(crate) async fn insert(change: &mut SqliteConnection, token: &Token, row: &NewRow<'_>) -> Result<i64, sqlx::Error> {
    let sql = "INSERT INTO tokens (sha256, role, name, sensor_id, created_at, expires_at, uses_left) VALUES (?, ?, ?, ?, ?, ?, ?)";
    let made = sqlx::query(sql)
        .bind(&digest(token.reveal())[..])
        .bind(row.role.name())
        .bind(row.name)
        .bind(row.sensor)
        .bind(now_micros())
        .bind(row.expires_at)
        .bind(row.uses)
        .execute(change)
        .await?;
    Ok(made.last_insert_rowid())
}

/// What can be said without the database.
fn check(new: &NewToken) -> Result<(), TokenError> {
    if !(1..=TOKEN_NAME_BYTES_MAX).contains(&new.name.trim().len()) {
        return Err(TokenError::Name);
    }
    match (new.role.sends(), &new.sensor) {
        (true, None) => return Err(TokenError::SensorMissing(new.role.name())),
        (false, Some(_)) => return Err(TokenError::SensorGiven(new.role.name())),
        _ => {}
    }
    if new.expires_at.is_some_and(|at| at <= now_micros()) {
        return Err(TokenError::Expired);
    }
    let uses_fit = new.uses.is_none_or(|uses| new.role == Role::Enrol && (1..=USES_MAX).contains(&uses));
    if uses_fit { Ok(()) } else { Err(TokenError::Uses) }
}
