//! A file that is damaged is moved aside, so that it does not keep the collector from taking events; nothing of it is deleted.

use crate::writer::now_micros;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The result codes of SQLite for a file that is damaged, and for one that is none of its own.
const CORRUPT_AND_NOT_A_DATABASE: [u32; 2] = [11, 26];

/// A file that was moved aside.
#[derive(Clone, Debug)]
pub(crate) struct Aside {
    pub(crate) path: PathBuf,
    pub(crate) why: String,
}

/// Whether the database says that its file is damaged.
pub(crate) fn is_damage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    let code = code.and_then(|code| code.parse::<u32>().ok());
    // The lowest byte says what it is, the others tell more of it.
    code.is_some_and(|code| CORRUPT_AND_NOT_A_DATABASE.contains(&(code & 0xff)))
}

/// Looks through the file, and moves it aside when it is damaged.
pub(crate) async fn look(path: &Path) -> Result<Option<Aside>, sqlx::Error> {
    if !path.exists() {
        return Ok(None);
    }
    let why = match checked(path).await {
        Ok(None) => return Ok(None),
        Ok(Some(why)) => why,
        Err(error) if is_damage(&error) => error.to_string(),
        Err(error) => return Err(error),
    };
    let aside = with(path, &format!(".damaged-{}", now_micros()));
    // With the changes that are not in the file yet: whoever mends it needs them.
    for part in ["-wal", "-shm", ""] {
        match std::fs::rename(with(path, part), with(&aside, part)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(sqlx::Error::Io(error)),
            _ => {}
        }
    }
    Ok(Some(Aside { path: aside, why }))
}

/// The path with an end of its name.
fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    PathBuf::from(name)
}

/// What is wrong with the file.
async fn checked(path: &Path) -> Result<Option<String>, sqlx::Error> {
    let mut connection: SqliteConnection = SqliteConnectOptions::new().filename(path).connect().await?;
    let said = wrong(&mut connection).await;
    drop(connection.close().await);
    said
}

async fn wrong(connection: &mut SqliteConnection) -> Result<Option<String>, sqlx::Error> {
    let said: String = sqlx::query("PRAGMA quick_check(1)").fetch_one(&mut *connection).await?.try_get(0)?;
    if said != "ok" {
        return Ok(Some(said));
    }
    Ok(is_other(connection).await?.then(|| "it is the database of something else".to_owned()))
}

/// Whether it is the database of something else, as one that was put in the wrong place.
pub(crate) async fn is_other(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let asked = "SELECT (user_version > 0 OR EXISTS (SELECT 1 FROM sqlite_master)) \
                 AND NOT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'rejected') FROM pragma_user_version";
    sqlx::query(asked).fetch_one(connection).await?.try_get(0)
}
