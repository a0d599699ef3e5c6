//! The table `audit`: who changed what, from where, in which request.
//!
//! A row is written in the transaction of its change, so that there is never one without the other. It holds no token.

use crate::error::RegistryError;
use crate::identity::{Identity, Role};
use crate::registry::{Registry, now_micros};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use std::net::IpAddr;

/// Who changes something.
#[derive(Clone, Debug)]
pub struct Actor<'a> {
    /// Whose token it is.
    pub identity: &'a Identity,
    /// The address of the client.
    pub client: Option<IpAddr>,
    /// The id of the request.
    pub request_id: Option<String>,
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    /// Its number; it only grows.
    pub id: i64,
    /// When, in microseconds since the epoch.
    pub at: i64,
    /// The number of the token that did it; none when it was the configuration.
    pub token_id: Option<i64>,
    /// What that token was called.
    pub token_name: Option<String>,
    /// Its role.
    pub role: Option<Role>,
    /// The address of the client.
    pub client: Option<String>,
    /// What was done, such as `sensor.register`.
    pub act: String,
    /// To what, such as `sensor/roof`.
    pub target: String,
    /// What it was set to; null when there is nothing to tell.
    pub detail: Value,
    /// The id of the request.
    pub request_id: Option<String>,
}

/// What was done, and to what.
pub(crate) struct Done {
    pub(crate) act: &'static str,
    pub(crate) target: String,
    pub(crate) detail: Value,
}

impl Registry {
    /// Notes that somebody made a backup of all that is there.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn note_backup(&self, by: &Actor<'_>, id: u64, last_position: u64) -> Result<(), RegistryError> {
        let mut change = self.begin().await?;
        let (target, detail) = (format!("backup/{id}"), json!({ "last_position": last_position }));
        write(&mut change, Some(by), Done { act: "backup.make", target, detail }).await?;
        Ok(change.commit().await?)
    }

    /// The newest changes first, at most `limit`, those before the number `before`, of one request or of all.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn audit(
        &self,
        limit: u32,
        before: Option<i64>,
        request_id: Option<&str>,
    ) -> Result<Vec<AuditEntry>, RegistryError> {
        let sql = "SELECT * FROM audit WHERE id < ?1 AND (?2 IS NULL OR request_id = ?2) ORDER BY id DESC LIMIT ?3";
        let rows = sqlx::query(sql)
            .bind(before.unwrap_or(i64::MAX))
            .bind(request_id)
            .bind(limit)
            .fetch_all(&self.shared.pool)
            .await?;
        Ok(rows.iter().map(entry).collect::<Result<_, _>>()?)
    }
}

/// Writes one row; `by` is none when the configuration changed something.
pub(crate) async fn write(
    change: &mut SqliteConnection,
    by: Option<&Actor<'_>>,
    done: Done,
) -> Result<(), sqlx::Error> {
    let detail = if done.detail.is_null() { None } else { Some(done.detail.to_string()) };
    let sql = "INSERT INTO audit (at, token_id, token_name, role, client, act, target, detail, request_id) \
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    sqlx::query(sql)
        .bind(now_micros())
        .bind(by.and_then(|by| by.identity.token_id))
        .bind(by.map(|by| by.identity.name.as_str()))
        .bind(by.map(|by| by.identity.role.name()))
        .bind(by.and_then(|by| by.client).map(|client| client.to_string()))
        .bind(done.act)
        .bind(done.target)
        .bind(detail)
        .bind(by.and_then(|by| by.request_id.as_deref()))
        .execute(change)
        .await?;
    Ok(())
}

fn entry(row: &SqliteRow) -> Result<AuditEntry, sqlx::Error> {
    let role: Option<String> = row.try_get("role")?;
    let detail: Option<String> = row.try_get("detail")?;
    Ok(AuditEntry {
        id: row.try_get("id")?,
        at: row.try_get("at")?,
        token_id: row.try_get("token_id")?,
        token_name: row.try_get("token_name")?,
        role: role.as_deref().and_then(Role::of_name),
        client: row.try_get("client")?,
        act: row.try_get("act")?,
        target: row.try_get("target")?,
        detail: detail.and_then(|detail| serde_json::from_str(&detail).ok()).unwrap_or_default(),
        request_id: row.try_get("request_id")?,
    })
}
