//! Why the registry did not do what it was asked, one enum for each kind of operation.

use crate::name::{BadName, OWN_IDS};
use crate::registry::ADMIN_TOKEN_CHARS_MIN;
use crate::sensors::{LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, OVERLAP_SECONDS_MAX};
use crate::tokens::{TOKEN_NAME_BYTES_MAX, USES_MAX};

/// Why the registry did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL names a database of a kind that is not known.
    #[error("registry.url is {0:?}: it begins with sqlite://")]
    Scheme(String),
    /// The database could not be opened.
    #[error("the registry {url} cannot be opened: {source}")]
    Database {
        /// Its URL.
        url: String,
        /// What the database said.
        source: sqlx::Error,
    },
    /// The file is damaged, or none of a registry.
    #[error(
        "the registry {url} is damaged: {source}. Put a copy from a backup in its place. Without one, move it away, and its files -wal and \
         -shm with it, and start again: all events stay, the admin token too, and sensors and other tokens have to be made anew"
    )]
    Damaged {
        /// Its URL.
        url: String,
        /// What the database said.
        source: sqlx::Error,
    },
    /// The database was written by a newer program.
    #[error(
        "the registry {url} has format version {found}, and this program reads up to {known}: a newer program wrote it: install that \
         version again, or restore a backup made before the upgrade"
    )]
    Newer {
        /// Its URL.
        url: String,
        /// Its version.
        found: usize,
        /// The highest version known here.
        known: usize,
    },
    /// The configured admin token is too short.
    #[error(
        "auth.admin_token is too short: it has at least {ADMIN_TOKEN_CHARS_MIN} characters; `openssl rand -hex 32` makes one"
    )]
    WeakAdminToken,
}

impl OpenError {
    /// A file that is none of a registry.
    pub(crate) fn none_of_ours(url: &str, what: &str) -> Self {
        Self::Damaged { url: url.to_owned(), source: sqlx::Error::Protocol(what.to_owned()) }
    }

    pub(crate) fn of(url: &str, source: sqlx::Error) -> Self {
        let url = url.to_owned();
        if is_damage(&source) { Self::Damaged { url, source } } else { Self::Database { url, source } }
    }
}

/// Whether the database says that its file is damaged.
fn is_damage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<u32>().ok());
    // The lowest byte of a code says what it is: 11 a damaged file, 26 one that is no database.
    code.is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

/// The database did not answer; the same may work later.
#[derive(Debug, thiserror::Error)]
#[error("the registry did not answer: {0}")]
pub struct RegistryError(#[from] pub(crate) sqlx::Error);

impl RegistryError {
    /// Whether its file is damaged: it does not work later either.
    pub fn is_damage(&self) -> bool {
        is_damage(&self.0)
    }
}

/// Why a token was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// It is not known, revoked, expired, or its sensor is disabled.
    #[error("the token is not known, has expired or is revoked")]
    Refused,
    /// It is not known, as too many before it.
    #[error("too many tokens from this address were not known: wait for {wait_seconds} seconds")]
    TooManyFailures {
        /// How long the address has to wait.
        wait_seconds: u64,
    },
    /// It could not be checked.
    #[error(transparent)]
    Unavailable(#[from] RegistryError),
}

/// Why a session is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// It is not known, has expired, was ended, or its token was.
    #[error("the session has ended, or its token was revoked or has expired: sign in again")]
    Ended,
    /// It could not be checked.
    #[error(transparent)]
    Unavailable(#[from] RegistryError),
}

/// Why a sensor was not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The name gives no id.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The id is one of the collector's own.
    #[error(
        "the id {sensor_id:?} begins with {OWN_IDS:?}, as only those of the collector's own events do: choose another name"
    )]
    Own {
        /// The id.
        sensor_id: String,
    },
    /// The labels are too many or too long.
    #[error("{}", labels_rule())]
    Labels,
    /// Another sensor has the id.
    #[error("there is a sensor {sensor_id:?}: choose another name")]
    Taken {
        /// The id.
        sensor_id: String,
    },
    /// The enrolment token was revoked or expired meanwhile.
    #[error("the token is not known, has expired or is revoked")]
    Refused,
    /// The enrolment token has registered as many sensors as it may.
    #[error("the enrolment token has registered as many sensors as it may: an admin makes another")]
    UsedUp,
    /// The database did not answer, or there was no randomness.
    #[error(transparent)]
    Unavailable(#[from] RegistryError),
}

/// Why a sensor was not changed.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// There is none of this id.
    #[error("there is no sensor {0:?}")]
    Unknown(String),
    /// The labels are too many or too long.
    #[error("{}", labels_rule())]
    Labels,
    /// The zone is none of the IANA list.
    #[error("time_zone: {name:?} is not a time zone: write {listed}")]
    Zone {
        /// What was given.
        name: String,
        /// What it is in the list, or what to look for there.
        listed: String,
    },
    /// A part of the quota is nothing or too much.
    #[error("quota.{field}: it goes from 1 to {max}, or is null for what all sensors have")]
    Quota {
        /// The part.
        field: &'static str,
        /// Its largest value.
        max: u64,
    },
    /// The overlap is too long.
    #[error("overlap_seconds: it goes from 0 to {OVERLAP_SECONDS_MAX}")]
    Overlap,
    /// The database did not answer, or there was no randomness.
    #[error(transparent)]
    Unavailable(#[from] RegistryError),
}

/// Why a token was not made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The name is empty or too long.
    #[error("name: it has 1 to {TOKEN_NAME_BYTES_MAX} bytes")]
    Name,
    /// The role sends events, and nothing says whose.
    #[error("sensor: a token with the role {0} says whose events it sends: the id of a sensor")]
    SensorMissing(&'static str),
    /// The role sends no events.
    #[error("sensor: a token with the role {0} belongs to no sensor: leave it out")]
    SensorGiven(&'static str),
    /// There is no such sensor.
    #[error("sensor: there is no sensor {0:?}")]
    SensorUnknown(String),
    /// It would have expired already.
    #[error("expires_at: it lies in the future")]
    Expired,
    /// Only enrolment tokens count down.
    #[error("uses: a token with the role enrol may have it, from 1 to {USES_MAX}")]
    Uses,
    /// There is none of this number.
    #[error("there is no token {0}")]
    Unknown(i64),
    /// It comes from the configuration, or lies beside the data.
    #[error(
        "token {0} is the configured admin token: change `auth.admin_token`, or remove the file `admin.token` and start again"
    )]
    Configured(i64),
    /// The database did not answer, or there was no randomness.
    #[error(transparent)]
    Unavailable(#[from] RegistryError),
}

macro_rules! unavailable {
    ($($error:ty),*) => {$(
        impl From<sqlx::Error> for $error {
            fn from(error: sqlx::Error) -> Self {
                Self::Unavailable(RegistryError(error))
            }
        }
        impl From<std::io::Error> for $error {
            fn from(error: std::io::Error) -> Self {
                sqlx::Error::Io(error).into()
            }
        }
    )*};
}
unavailable!(AuthError, SessionError, RegisterError, SensorError, TokenError);

fn labels_rule() -> String {
    format!(
        "labels: at most {LABELS_MAX}, keys of 1 to {LABEL_KEY_BYTES_MAX} bytes, values of at most {LABEL_VALUE_BYTES_MAX} bytes"
    )
}
