//! Sensors: registering, listing, changing, disabling, new tokens for them.

use crate::audit::{self, Actor, Done};
use crate::error::{RegisterError, RegistryError, SensorError};
use crate::identity::Role;
use crate::name::{OWN_IDS, sensor_id_from};
use crate::quota::{Quota, QuotaChange};
use crate::registry::{Registry, now_micros};
use crate::token::Token;
use crate::tokens::{NewRow, insert};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) const LABELS_MAX: usize = 32;
pub(crate) const LABEL_KEY_BYTES_MAX: usize = 64;
pub(crate) const LABEL_VALUE_BYTES_MAX: usize = 256;
/// What the token is called that a sensor is registered with.
const REGISTRATION: &str = "registration";
/// What it is called when the registration was repeated, which is audited once.
const REGISTRATION_AGAIN: &str = "registration again";
/// Longest time for which a sensor's old tokens are still taken beside a new one: 30 days.
pub const OVERLAP_SECONDS_MAX: u64 = 30 * 86_400;

/// What an operator knows a sensor by.
pub type Labels = BTreeMap<String, String>;

/// A sensor as it was just registered.
#[derive(Debug)]
pub struct Registered {
    /// Its id.
    pub sensor_id: Arc<str>,
    /// Its token, shown only now.
    pub token: Token,
}

/// A sensor with a new token.
#[derive(Debug)]
pub struct Rotated {
    /// The number of the new token.
    pub token_id: i64,
    /// The new token, shown only now.
    pub token: Token,
    /// When the old ones end, in microseconds since the epoch.
    pub old_expire_at: i64,
}

/// What is known of a sensor. Times are microseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SensorInfo {
    /// Its id.
    pub id: Arc<str>,
    /// The name it was registered with.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// The zone in which its times without one are read.
    pub time_zone: Option<String>,
    /// How much it may send.
    pub quota: Quota,
    /// When it was registered.
    pub created_at: i64,
    /// When it last sent something.
    pub last_seen_at: Option<i64>,
    /// When it was disabled.
    pub disabled_at: Option<i64>,
}

/// What is to change of a sensor; what is none stays.
#[derive(Clone, Debug, Default)]
pub struct SensorChange {
    /// All its labels.
    pub labels: Option<Labels>,
    /// Its zone; `Some(None)` removes it.
    pub time_zone: Option<Option<String>>,
    /// Its quota.
    pub quota: QuotaChange,
    /// Whether its tokens are refused.
    pub disabled: Option<bool>,
}

/// What is stored of a registration.
struct Registration<'a> {
    id: &'a str,
    name: &'a str,
    labels: &'a str,
}

impl Registry {
    /// Registers a sensor and makes its token. The same enrolment token gets another one for the same name, as long as the sensor's token was
    /// never used: the device may have lost the answer.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub async fn register(&self, by: &Actor<'_>, name: &str, labels: &Labels) -> Result<Registered, RegisterError> {
        let id = sensor_id_from(name)?;
        if id.starts_with(OWN_IDS) {
            return Err(RegisterError::Own { sensor_id: id });
        }
        let given = labels;
        let labels = labels_text(given).ok_or(RegisterError::Labels)?;
        let registration = Registration { id: &id, name: name.trim(), labels: &labels };
        let token = Token::random()?;
        let has_sent = self.pending().sensors.contains_key(id.as_str());
        let mut change = self.begin().await?;
        let enrolled_by = by.identity.token_id.filter(|_| by.identity.role == Role::Enrol);
        let is_new = store(&mut change, &registration, enrolled_by).await?;
        if let Some(enrolled_by) = enrolled_by {
            check_enrolment(&mut change, enrolled_by).await?;
        }
        let act = match (is_new, enrolled_by) {
            (Stored::New, Some(token)) => {
                count_down(&mut change, token).await?;
                "sensor.register"
            }
            (Stored::New, None) => "sensor.register",
            (Stored::Taken, Some(token))
                if !has_sent && take_back(&mut change, &registration, token).await? == Stored::New =>
            {
                "sensor.register_again"
            }
            (Stored::Taken, _) => return Err(RegisterError::Taken { sensor_id: id }),
        };
        let name = if is_new == Stored::New { REGISTRATION } else { REGISTRATION_AGAIN };
        let row = NewRow { role: Role::Sensor, name, sensor: Some(&id), expires_at: None, uses: None };
        let token_id = insert(&mut change, &token, &row).await?;
        let replaced = replace_registrations(&mut change, &id, token_id).await?;
        // Who repeats a registration over and over makes no more of the registry than who does it once.
        if !replaced.iter().any(|name| name == REGISTRATION_AGAIN) {
            let detail = json!({ "name": registration.name, "labels": given });
            audit::write(&mut change, Some(by), Done { act, target: target(&id), detail }).await?;
        }
        change.commit().await?;
        match is_new {
            Stored::New => drop(self.shared.metrics.sensors.inc()),
            Stored::Taken => self.forget_sensor(&id),
        }
        Ok(Registered { sensor_id: id.into(), token })
    }

    /// What is known of one sensor.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn sensor(&self, id: &str) -> Result<Option<SensorInfo>, RegistryError> {
        let row = sqlx::query("SELECT * FROM sensors WHERE id = ?").bind(id).fetch_optional(&self.shared.pool).await?;
        Ok(row.map(|row| self.info(&row)).transpose()?)
    }

    /// Sensors by id, at most `limit`, those after the id `after`.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn sensors(&self, limit: u32, after: Option<&str>) -> Result<Vec<SensorInfo>, RegistryError> {
        let sql = "SELECT * FROM sensors WHERE id > ? ORDER BY id LIMIT ?";
        let asked = sqlx::query(sql).bind(after.unwrap_or_default()).bind(limit);
        let rows = asked.fetch_all(&self.shared.pool).await?;
        Ok(rows.iter().map(|row| self.info(row)).collect::<Result<_, _>>()?)
    }

    /// Changes a sensor; what it is afterwards.
    ///
    /// # Errors
    /// [`SensorError`].
    pub async fn change(&self, by: &Actor<'_>, id: &str, to: &SensorChange) -> Result<SensorInfo, SensorError> {
        let labels = to.labels.as_ref().map(|labels| labels_text(labels).ok_or(SensorError::Labels)).transpose()?;
        if let Some(Some(zone)) = &to.time_zone {
            check_zone(zone)?;
        }
        to.quota.check()?;
        let [(sets_events, events), (sets_bytes, bytes), (sets_burst, burst)] = to.quota.columns();
        let sql = "UPDATE sensors SET labels = coalesce(?, labels), time_zone = iif(?, ?, time_zone), \
                   quota_events_per_second = iif(?, ?, quota_events_per_second), \
                   quota_bytes_per_second = iif(?, ?, quota_bytes_per_second), quota_burst_seconds = iif(?, ?, quota_burst_seconds), \
                   disabled_at = CASE ? WHEN 1 THEN coalesce(disabled_at, ?) WHEN 0 THEN NULL ELSE disabled_at END \
                   WHERE id = ? RETURNING *";
        let mut change = self.begin().await?;
        let was = sqlx::query("SELECT disabled_at IS NOT NULL FROM sensors WHERE id = ?").bind(id);
        let was_disabled = was.fetch_optional(&mut *change).await?.map(|row| row.try_get::<bool, _>(0)).transpose()?;
        let row = sqlx::query(sql)
            .bind(labels)
            .bind(to.time_zone.is_some())
            .bind(to.time_zone.as_ref().and_then(Option::as_deref))
            .bind(sets_events)
            .bind(events)
            .bind(sets_bytes)
            .bind(bytes)
            .bind(sets_burst)
            .bind(burst)
            .bind(to.disabled)
            .bind(now_micros())
            .bind(id)
            .fetch_optional(&mut *change)
            .await?;
        let Some(row) = row else { return Err(SensorError::Unknown(id.chars().take(128).collect())) };
        // Who disables what is disabled has changed nothing.
        if to.is_switch() && to.disabled == was_disabled {
            return Ok(self.info(&row)?);
        }
        let done = Done { act: to.act(), target: target(id), detail: to.detail() };
        audit::write(&mut change, Some(by), done).await?;
        change.commit().await?;
        self.forget_sensor(id);
        Ok(self.info(&row)?)
    }

    /// Makes another token for a sensor. Its old ones of the role `sensor` end after the overlap.
    ///
    /// # Errors
    /// [`SensorError`].
    pub async fn rotate(&self, by: &Actor<'_>, id: &str, overlap_seconds: u64) -> Result<Rotated, SensorError> {
        if overlap_seconds > OVERLAP_SECONDS_MAX {
            return Err(SensorError::Overlap);
        }
        let token = Token::random()?;
        let old_expire_at = now_micros() + overlap_seconds as i64 * 1_000_000;
        let mut change = self.begin().await?;
        let known = sqlx::query("SELECT 1 FROM sensors WHERE id = ?").bind(id).fetch_optional(&mut *change).await?;
        if known.is_none() {
            return Err(SensorError::Unknown(id.chars().take(128).collect()));
        }
        let end =
            "UPDATE tokens SET expires_at = min(coalesce(expires_at, ?1), ?1) WHERE sensor_id = ?2 AND role = 'sensor'";
        sqlx::query(end).bind(old_expire_at).bind(id).execute(&mut *change).await?;
        let row = NewRow { role: Role::Sensor, name: "rotation", sensor: Some(id), expires_at: None, uses: None };
        let token_id = insert(&mut change, &token, &row).await?;
        let detail = json!({ "token": token_id, "overlap_seconds": overlap_seconds });
        audit::write(&mut change, Some(by), Done { act: "sensor.rotate", target: target(id), detail }).await?;
        change.commit().await?;
        self.forget_sensor(id);
        Ok(Rotated { token_id, token, old_expire_at })
    }

    fn forget_sensor(&self, id: &str) {
        self.shared.remembered.forget(|_, identity| identity.sensor.as_deref() == Some(id));
    }

    fn info(&self, row: &SqliteRow) -> Result<SensorInfo, sqlx::Error> {
        let id: Arc<str> = row.try_get::<String, _>("id")?.into();
        let labels: String = row.try_get("labels")?;
        let seen = self.pending().sensors.get(&id).copied();
        let stored: Option<i64> = row.try_get("last_seen_at")?;
        Ok(SensorInfo {
            name: row.try_get("name")?,
            labels: serde_json::from_str(&labels).unwrap_or_default(),
            time_zone: row.try_get("time_zone")?,
            quota: Quota::of_row(row)?,
            created_at: row.try_get("created_at")?,
            last_seen_at: seen.max(stored),
            disabled_at: row.try_get("disabled_at")?,
            id,
        })
    }
}

impl SensorChange {
    /// The change that refuses a sensor's tokens.
    pub fn disable() -> Self {
        Self { disabled: Some(true), ..Self::default() }
    }

    /// Whether it disables or enables, and nothing else.
    fn is_switch(&self) -> bool {
        self.labels.is_none() && self.time_zone.is_none() && self.quota.detail().is_none()
    }

    fn act(&self) -> &'static str {
        match self.disabled.filter(|_| self.is_switch()) {
            Some(true) => "sensor.disable",
            Some(false) => "sensor.enable",
            None => "sensor.change",
        }
    }

    fn detail(&self) -> Value {
        let fields = [
            ("labels", self.labels.as_ref().map(|labels| json!(labels))),
            ("time_zone", self.time_zone.as_ref().map(|zone| json!(zone))),
            ("quota", self.quota.detail()),
            ("disabled", self.disabled.map(Value::from)),
        ];
        fields
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

/// Whether a sensor is there because it was just stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    New,
    Taken,
}

async fn store(
    change: &mut SqliteConnection,
    registration: &Registration<'_>,
    enrolled_by: Option<i64>,
) -> Result<Stored, sqlx::Error> {
    let sql = "INSERT INTO sensors (id, name, labels, created_at, enrolled_by) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING";
    let made = sqlx::query(sql)
        .bind(registration.id)
        .bind(registration.name)
        .bind(registration.labels)
        .bind(now_micros())
        .bind(enrolled_by)
        .execute(change)
        .await?;
    Ok(if made.rows_affected() == 1 { Stored::New } else { Stored::Taken })
}

/// The enrolment token may have been revoked since it was verified.
async fn check_enrolment(change: &mut SqliteConnection, token: i64) -> Result<(), RegisterError> {
    let sql = "SELECT 1 FROM tokens WHERE id = ? AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)";
    let found = sqlx::query(sql).bind(token).bind(now_micros()).fetch_optional(change).await?;
    found.map(drop).ok_or(RegisterError::Refused)
}

async fn count_down(change: &mut SqliteConnection, token: i64) -> Result<(), RegisterError> {
    let sql = "UPDATE tokens SET uses_left = uses_left - 1 WHERE id = ? AND (uses_left IS NULL OR uses_left > 0)";
    match sqlx::query(sql).bind(token).execute(change).await?.rows_affected() {
        0 => Err(RegisterError::UsedUp),
        _ => Ok(()),
    }
}

/// Gives a sensor to the enrolment token that registered it once more, when nobody ever used a token of it or sent with its certificate.
async fn take_back(
    change: &mut SqliteConnection,
    registration: &Registration<'_>,
    enrolled_by: i64,
) -> Result<Stored, sqlx::Error> {
    let sql = "UPDATE sensors SET labels = ?1 WHERE id = ?2 AND name = ?3 AND enrolled_by = ?4 AND disabled_at IS NULL \
               AND last_seen_at IS NULL \
               AND NOT EXISTS (SELECT 1 FROM tokens WHERE sensor_id = ?2 AND last_used_at IS NOT NULL)";
    let taken = sqlx::query(sql)
        .bind(registration.labels)
        .bind(registration.id)
        .bind(registration.name)
        .bind(enrolled_by)
        .execute(&mut *change)
        .await?;
    if taken.rows_affected() == 0 {
        return Ok(Stored::Taken);
    }
    let revoke = "UPDATE tokens SET revoked_at = ? WHERE sensor_id = ? AND revoked_at IS NULL";
    sqlx::query(revoke).bind(now_micros()).bind(registration.id).execute(change).await?;
    Ok(Stored::New)
}

/// Deletes the tokens of a sensor's registrations before this one, which nobody used; what they were called. As the newer token is stored
/// already, none has the number of a deleted one.
async fn replace_registrations(
    change: &mut SqliteConnection,
    sensor: &str,
    newer: i64,
) -> Result<Vec<String>, sqlx::Error> {
    let sql = "DELETE FROM tokens WHERE sensor_id = ? AND id < ? AND role = 'sensor' AND name IN (?, ?) RETURNING name";
    let asked = sqlx::query(sql).bind(sensor).bind(newer).bind(REGISTRATION).bind(REGISTRATION_AGAIN);
    asked.fetch_all(change).await?.iter().map(|row| row.try_get("name")).collect()
}

/// Labels as they are stored; none when they are too many or too long.
fn labels_text(labels: &Labels) -> Option<String> {
    let fits =
        |(k, v): (&String, &String)| (1..=LABEL_KEY_BYTES_MAX).contains(&k.len()) && v.len() <= LABEL_VALUE_BYTES_MAX;
    let all_fit = labels.len() <= LABELS_MAX && labels.iter().all(fits);
    all_fit.then(|| serde_json::to_string(labels).expect("strings always serialize"))
}

/// Whether a zone is one of the IANA list, written as it is there.
fn check_zone(name: &str) -> Result<(), SensorError> {
    let zone = TimeZone::get(name).ok().filter(|zone| zone.primary_iana_name().is_some());
    match zone.as_ref().and_then(TimeZone::iana_name) {
        Some(listed) if listed == name => Ok(()),
        listed => {
            let listed = listed.unwrap_or("a name such as Europe/Berlin or UTC").to_owned();
            Err(SensorError::Zone { name: name.chars().take(64).collect(), listed })
        }
    }
}

/// A sensor as the audit names it.
pub(crate) fn target(id: &str) -> String {
    format!("sensor/{id}")
}
