//! Erasures: whose events are to go, up to where, and how far that is. Each is stored before it begins, so that it goes on after a restart.
//!
//! A sensor has one, the last that was asked for. What the events are and how they go is its caller's affair.

use crate::audit::{self, Actor, Done};
use crate::error::{RegistryError, SensorError};
use crate::registry::{Registry, now_micros};
use crate::sensors::target;
use serde_json::json;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

/// Up to where events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    /// The last position of accepted ones.
    pub position: u64,
    /// The last position of rejected ones.
    pub rejected_position: i64,
}

/// An erasure. Times are microseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// Whose events go.
    pub sensor: String,
    /// Up to where.
    pub until: Until,
    /// When it was last asked for.
    pub requested_at: i64,
    /// When all of it was done.
    pub finished_at: Option<i64>,
    /// How many had gone before the turn that runs, or in all.
    pub erased_events: u64,
    /// How many events of all sensors had gone when its turn began; none between two turns.
    pub turn_since: Option<u64>,
    /// Why its last turn failed.
    pub failure: Option<String>,
}

impl Erasure {
    /// How many events have gone, when `all` of all sensors have.
    pub fn erased_events(&self, all: u64) -> u64 {
        self.erased_events + self.turn_since.map_or(0, |since| all.saturating_sub(since))
    }
}

impl Registry {
    /// Asks for the events of a sensor to be erased. One that runs goes up to the later of the two places.
    ///
    /// # Errors
    /// [`SensorError`].
    pub async fn erase(&self, by: &Actor<'_>, id: &str, until: Until) -> Result<Erasure, SensorError> {
        let mut change = self.begin().await?;
        let known = sqlx::query("SELECT 1 FROM sensors WHERE id = ?").bind(id).fetch_optional(&mut *change).await?;
        if known.is_none() {
            return Err(SensorError::Unknown(id.chars().take(128).collect()));
        }
        let sql = "INSERT INTO erasures (sensor_id, until_position, rejected_until, requested_at) VALUES (?, ?, ?, ?) \
                   ON CONFLICT (sensor_id) DO UPDATE SET until_position = max(until_position, excluded.until_position), \
                   rejected_until = max(rejected_until, excluded.rejected_until), requested_at = excluded.requested_at, \
                   erased_events = iif(finished_at IS NULL, erased_events, 0), finished_at = NULL, failure = NULL RETURNING *";
        let row = sqlx::query(sql)
            .bind(id)
            .bind(i64::try_from(until.position).unwrap_or(i64::MAX))
            .bind(until.rejected_position)
            .bind(now_micros())
            .fetch_one(&mut *change)
            .await?;
        let detail = json!({ "until_position": until.position });
        audit::write(&mut change, Some(by), Done { act: "sensor.erase", target: target(id), detail }).await?;
        change.commit().await?;
        Ok(erasure(&row)?)
    }

    /// The last erasure of a sensor.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn erasure(&self, id: &str) -> Result<Option<Erasure>, RegistryError> {
        let asked = sqlx::query("SELECT * FROM erasures WHERE sensor_id = ?").bind(id);
        let row = asked.fetch_optional(&self.shared.pool).await?;
        Ok(row.as_ref().map(erasure).transpose()?)
    }

    /// The erasures that are not finished, the one whose turn began first.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn unfinished_erasures(&self) -> Result<Vec<Erasure>, RegistryError> {
        let sql = "SELECT * FROM erasures WHERE finished_at IS NULL ORDER BY turn_since IS NULL, requested_at";
        let rows = sqlx::query(sql).fetch_all(&self.shared.pool).await?;
        Ok(rows.iter().map(erasure).collect::<Result<_, _>>()?)
    }

    /// Notes that the turn of an erasure begins, after events of all sensors have gone. One that was interrupted goes on with its own.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn begin_erasure(&self, id: &str, all: u64) -> Result<(), RegistryError> {
        let sql = "UPDATE erasures SET turn_since = coalesce(turn_since, ?) WHERE sensor_id = ?";
        sqlx::query(sql).bind(all as i64).bind(id).execute(&self.shared.pool).await?;
        Ok(())
    }

    /// Notes how a turn ended: with a failure, or with all of `erasure` done. When more was asked for meanwhile, it is not finished.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn end_erasure(&self, erasure: &Erasure, all: u64, failure: Option<&str>) -> Result<(), RegistryError> {
        let sql = "UPDATE erasures SET erased_events = erased_events + max(?1 - coalesce(turn_since, ?1), 0), turn_since = NULL, failure = ?2, \
                   finished_at = iif(?2 IS NULL AND until_position = ?3 AND rejected_until = ?4, ?5, NULL) WHERE sensor_id = ?6";
        sqlx::query(sql)
            .bind(all as i64)
            .bind(failure)
            .bind(erasure.until.position as i64)
            .bind(erasure.until.rejected_position)
            .bind(now_micros())
            .bind(&erasure.sensor)
            .execute(&self.shared.pool)
            .await?;
        Ok(())
    }
}

fn erasure(row: &SqliteRow) -> Result<Erasure, sqlx::Error> {
    let number = |name: &str| Ok::<_, sqlx::Error>(row.try_get::<i64, _>(name)? as u64);
    Ok(Erasure {
        sensor: row.try_get("sensor_id")?,
        until: Until { position: number("until_position")?, rejected_position: row.try_get("rejected_until")? },
        requested_at: row.try_get("requested_at")?,
        finished_at: row.try_get("finished_at")?,
        erased_events: number("erased_events")?,
        turn_since: row.try_get::<Option<i64>, _>("turn_since")?.map(|since| since as u64),
        failure: row.try_get("failure")?,
    })
}
