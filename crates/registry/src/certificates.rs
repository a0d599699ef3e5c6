//! Sensors that come with a certificate: the name in it is the id of one.
//!
//! Whether the certificate is valid was found out by who asks here; the registry keeps none.

use crate::error::RegistryError;
use crate::identity::{Identity, Role};
use crate::quota::Quota;
use crate::registry::{Registry, now_micros};
use crate::remembered::Shown;
use jiff::tz::TimeZone;
use sqlx::Row;
use std::sync::Arc;

/// Whom the name in a certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A sensor, which comes in as with a token of the role `sensor`.
    Sensor(Arc<Identity>),
    /// A sensor that is disabled.
    Disabled,
    /// No sensor.
    Unknown,
}

impl Registry {
    /// The sensor that a verified certificate names; from memory when it was looked up before.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn sensor_named(&self, name: &str) -> Result<Named, RegistryError> {
        let (remembered, metrics) = (&self.shared.remembered, &self.shared.metrics.certificates);
        let shown = Shown::Certificate(name.to_owned());
        if let Some(identity) = remembered.get(&shown, now_micros()) {
            metrics.remembered.inc();
            return Ok(Named::Sensor(identity));
        }
        let generation = remembered.generation();
        let sql = "SELECT id, time_zone, disabled_at, quota_events_per_second, quota_bytes_per_second, quota_burst_seconds \
                   FROM sensors WHERE id = ?";
        let found = sqlx::query(sql).bind(name).fetch_optional(&self.shared.pool).await.inspect_err(|_| {
            metrics.unavailable.inc();
        });
        let Some(row) = found? else {
            metrics.refused.inc();
            return Ok(Named::Unknown);
        };
        if row.try_get::<Option<i64>, _>("disabled_at")?.is_some() {
            metrics.refused.inc();
            return Ok(Named::Disabled);
        }
        let zone: Option<String> = row.try_get("time_zone")?;
        let identity = Arc::new(Identity {
            token_id: None,
            name: name.to_owned(),
            role: Role::Sensor,
            sensor: Some(row.try_get::<String, _>("id")?.into()),
            time_zone: zone.and_then(|zone| TimeZone::get(&zone).ok()),
            quota: Quota::of_row(&row)?,
            expires_at: None,
        });
        metrics.verified.inc();
        remembered.keep(shown, identity.clone(), generation);
        Ok(Named::Sensor(identity))
    }
}
