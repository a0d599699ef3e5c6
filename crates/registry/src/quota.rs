//! How much a sensor may send: what an operator set for it.

use crate::error::SensorError;
use serde_json::{Value, json};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

/// The largest number of events or bytes in a second.
pub const PER_SECOND_MAX: u64 = 1_000_000_000_000;
/// The longest burst: a day.
pub const BURST_SECONDS_MAX: u64 = 86_400;

/// How much one sensor may send. What is none is as it is for all sensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Events in a second.
    pub events_per_second: Option<u64>,
    /// Bytes of bodies in a second, as they are sent.
    pub bytes_per_second: Option<u64>,
    /// How many seconds of both may come at once.
    pub burst_seconds: Option<u64>,
}

/// What is to change of a quota: what is none stays, `Some(None)` is as for all sensors again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaChange {
    /// Events in a second.
    pub events_per_second: Option<Option<u64>>,
    /// Bytes in a second.
    pub bytes_per_second: Option<Option<u64>>,
    /// Seconds of both at once.
    pub burst_seconds: Option<Option<u64>>,
}

impl QuotaChange {
    /// All is as for all sensors again.
    pub fn to_default() -> Self {
        Self { events_per_second: Some(None), bytes_per_second: Some(None), burst_seconds: Some(None) }
    }

    fn fields(&self) -> [(&'static str, Option<Option<u64>>, u64); 3] {
        [
            ("events_per_second", self.events_per_second, PER_SECOND_MAX),
            ("bytes_per_second", self.bytes_per_second, PER_SECOND_MAX),
            ("burst_seconds", self.burst_seconds, BURST_SECONDS_MAX),
        ]
    }

    pub(crate) fn check(&self) -> Result<(), SensorError> {
        for (field, value, max) in self.fields() {
            if value.flatten().is_some_and(|value| !(1..=max).contains(&value)) {
                return Err(SensorError::Quota { field, max });
            }
        }
        Ok(())
    }

    /// For each column, in the order of the fields: whether it is set, and to what.
    pub(crate) fn columns(&self) -> [(bool, Option<i64>); 3] {
        self.fields().map(|(_, value, _)| (value.is_some(), value.flatten().map(|value| value as i64)))
    }

    /// As the audit tells it; none when nothing is to change.
    pub(crate) fn detail(&self) -> Option<Value> {
        let named = self.fields().into_iter().filter_map(|(name, value, _)| Some((name.to_owned(), json!(value?))));
        let named: serde_json::Map<String, Value> = named.collect();
        (!named.is_empty()).then(|| named.into())
    }
}

impl Quota {
    /// Of a row that has the columns of `sensors`.
    pub(crate) fn of_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let value = |column: &str| row.try_get::<Option<i64>, _>(column).map(|value| value.map(|value| value as u64));
        Ok(Self {
            events_per_second: value("quota_events_per_second")?,
            bytes_per_second: value("quota_bytes_per_second")?,
            burst_seconds: value("quota_burst_seconds")?,
        })
    }

    /// This quota, and what it leaves open as `default` has it.
    pub fn or(self, default: Self) -> Self {
        Self {
            events_per_second: self.events_per_second.or(default.events_per_second),
            bytes_per_second: self.bytes_per_second.or(default.bytes_per_second),
            burst_seconds: self.burst_seconds.or(default.burst_seconds),
        }
    }
}
