//! Copies of the database, whole but for sessions, and without what was deleted.
//!
//! A session is somebody's at this collector now: who brings a copy back does not bring back who was signed in.

use crate::error::{OpenError, RegistryError};
use crate::registry::Registry;
use crate::schema::version;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use std::path::Path;

impl Registry {
    /// Writes a copy, as the database is at one moment, to a new file. Others go on meanwhile.
    ///
    /// # Errors
    /// [`RegistryError`]; a part may be there.
    pub async fn copy_to(&self, path: &Path) -> Result<(), RegistryError> {
        let copy = sqlx::query("VACUUM INTO ?").bind(path.to_string_lossy().into_owned());
        copy.execute(&self.shared.pool).await?;
        Ok(without_sessions(path).await?)
    }

    /// The same of a database that nobody has open. What it had not taken over from its log yet is taken over, in its folder.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn copy_of(file: &Path, to: &Path) -> Result<(), OpenError> {
        let failed = |source| OpenError::of(&file.display().to_string(), source);
        let mut database = SqliteConnectOptions::new().filename(file).connect().await.map_err(failed)?;
        has_tables(&mut database, &file.display().to_string()).await?;
        let copy = sqlx::query("VACUUM INTO ?").bind(to.to_string_lossy().into_owned());
        copy.execute(&mut database).await.map_err(failed)?;
        database.close().await.map_err(failed)?;
        without_sessions(to).await.map_err(|source| OpenError::of(&to.display().to_string(), source))
    }

    /// Whether a database that was there before is one of a registry.
    ///
    /// # Errors
    /// [`OpenError`]: it has nothing, or is of a newer program.
    pub async fn check_file(file: &Path) -> Result<(), OpenError> {
        let told = file.display().to_string();
        // Opening it would remove what the log beside it has.
        if file.metadata().is_ok_and(|found| found.len() == 0) {
            return Err(nothing_in(&told));
        }
        let failed = |source| OpenError::of(&told, source);
        let mut database = SqliteConnectOptions::new().filename(file).connect().await.map_err(failed)?;
        has_tables(&mut database, &told).await?;
        database.close().await.map_err(failed)
    }
}

fn nothing_in(told: &str) -> OpenError {
    OpenError::none_of_ours(told, "there is nothing in it")
}

/// Whether it has the tables of a registry that is known here.
async fn has_tables(database: &mut SqliteConnection, told: &str) -> Result<(), OpenError> {
    match version(&mut *database, told).await? {
        0 => Err(nothing_in(told)),
        _ => Ok(()),
    }
}

/// Takes the sessions out of a copy, and their bytes; a database of a program before may have none.
async fn without_sessions(copy: &Path) -> Result<(), sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(copy).journal_mode(SqliteJournalMode::Memory);
    let mut copy = options.pragma("secure_delete", "ON").connect().await?;
    let known = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'sessions'";
    if sqlx::query(known).fetch_one(&mut copy).await?.try_get::<i64, _>(0)? > 0 {
        sqlx::query("DELETE FROM sessions").execute(&mut copy).await?;
    }
    copy.close().await
}
