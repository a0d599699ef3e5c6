//! Imports: what is noted before events of an export are stored.

use crate::audit::{self, Actor, Done};
use crate::error::RegistryError;
use crate::name::OWN_IDS;
use crate::registry::{Registry, now_micros};
use crate::sensors::target;
use serde_json::json;
use sqlx::SqliteConnection;

impl Registry {
    /// Notes that so many events of these sensors are about to be imported. Those that are not there are registered by their ids, disabled and
    /// without a token: nobody sends as them until somebody enables them. All of it or nothing.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn imports(&self, by: &Actor<'_>, sensors: &[&str], events: u64) -> Result<(), RegistryError> {
        let mut change = self.begin().await?;
        let mut registered = 0;
        // The collector's own events have no sensor in the registry.
        for id in sensors.iter().copied().filter(|id| !id.starts_with(OWN_IDS)) {
            if store(&mut change, id).await? {
                let detail = json!({ "name": id, "labels": {}, "disabled": true });
                audit::write(&mut change, Some(by), Done { act: "sensor.register", target: target(id), detail })
                    .await?;
                registered += 1;
            }
        }
        let detail = json!({ "events": events, "sensors": sensors.len() });
        audit::write(&mut change, Some(by), Done { act: "events.import", target: "events".to_owned(), detail }).await?;
        change.commit().await?;
        self.shared.metrics.sensors.inc_by(registered);
        Ok(())
    }
}

/// Whether the sensor was not there.
async fn store(change: &mut SqliteConnection, id: &str) -> Result<bool, sqlx::Error> {
    let sql = "INSERT INTO sensors (id, name, labels, created_at, disabled_at) VALUES (?1, ?1, '{}', ?2, ?2) ON CONFLICT (id) DO NOTHING";
    let made = sqlx::query(sql).bind(id).bind(now_micros()).execute(change).await?;
    Ok(made.rows_affected() == 1)
}
