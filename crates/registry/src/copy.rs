//! Copies of the database, whole and without what was deleted.

use crate::error::{OpenError, RegistryError};
use crate::registry::Registry;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use std::path::Path;

impl Registry {
    /// Writes a copy, as the database is at one moment, to a new file. Others go on meanwhile.
    ///
    /// # Errors
    /// [`RegistryError`]; a part may be there.
    pub async fn copy_to(&self, path: &Path) -> Result<(), RegistryError> {
        let copy = sqlx::query("VACUUM INTO ?").bind(path.to_string_lossy().into_owned());
        copy.execute(&self.shared.pool).await?;
        Ok(())
    }

    /// The same of a database that nobody has open. What it had not taken over from its log yet is taken over, in its folder.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn copy_of(file: &Path, to: &Path) -> Result<(), OpenError> {
        let failed = |source| OpenError::of(&file.display().to_string(), source);
        let mut database = SqliteConnectOptions::new().filename(file).connect().await.map_err(failed)?;
        let copy = sqlx::query("VACUUM INTO ?").bind(to.to_string_lossy().into_owned());
        copy.execute(&mut database).await.map_err(failed)?;
        database.close().await.map_err(failed)
    }
}
