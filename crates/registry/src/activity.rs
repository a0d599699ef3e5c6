//! When sensors were last seen, all of them together: how many lately, and which are silent the longest.
//!
//! Both read what is written: a sensor that is seen now is so after the next [`Registry::flush`]. Disabled sensors are in neither.

use crate::error::RegistryError;
use crate::registry::Registry;
use sqlx::Row;

impl Registry {
    /// How many sensors were seen at this time or later, in microseconds since the epoch.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn seen_since(&self, micros: i64) -> Result<u64, RegistryError> {
        let sql = "SELECT count(*) FROM sensors WHERE disabled_at IS NULL AND last_seen_at >= ?";
        let row = sqlx::query(sql).bind(micros).fetch_one(&self.shared.pool).await?;
        Ok(row.try_get::<i64, _>(0)? as u64)
    }

    /// Of the sensors that were seen at this time or later: those silent the longest, each with when it was last seen.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn silent_longest(&self, micros: i64, limit: u32) -> Result<Vec<(String, i64)>, RegistryError> {
        let sql = "SELECT id, last_seen_at FROM sensors WHERE disabled_at IS NULL AND last_seen_at >= ? \
                   ORDER BY last_seen_at LIMIT ?";
        let rows = sqlx::query(sql).bind(micros).bind(limit).fetch_all(&self.shared.pool).await?;
        Ok(rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, sqlx::Error>>()?)
    }
}
