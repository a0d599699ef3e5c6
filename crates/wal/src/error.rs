//! What can go wrong, each with what to do.

use std::io;
use std::path::PathBuf;

/// Why a wal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses the folder.
    #[error("{} is in use by another process{}: stop it first, or use another data folder", .dir.display(), of_pid(.pid))]
    InUse {
        /// The wal's folder.
        dir: PathBuf,
        /// The process that holds the lock, as far as its file tells.
        pid: Option<u32>,
    },
    /// Bytes that were durable are not what was written. Nothing was changed.
    #[error("{} is damaged at offset {offset}: {what}; nothing was changed{}; `catchment inspect wal` shows what is there, and \
             `catchment inspect repair` keeps what can be read and moves the rest aside", .file.display(), of_saved(.saved))]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
        /// What can be saved of the wal, as far as that was looked at.
        saved: Option<Saved>,
    },
    /// The folder was written by another version of the format.
    #[error(
        "{} has format version {found}, and this program reads up to {known}: a newer program wrote it: install that version again, or \
         restore a backup made before the upgrade",
        .file.display()
    )]
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The version known here.
        known: u32,
    },
    /// A folder lies in the place of a file.
    #[error("{} is a folder, and a file of the wal has this name: move it away and try again", .path.display())]
    NotAFile {
        /// The folder.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

/// What of a damaged wal can be read, and what cannot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Events that can be read before the first damage.
    pub events_before: u64,
    /// Events that can be read after it.
    pub events_after: u64,
    /// Events that cannot be read, at most: those of `lost`.
    pub lost_events_max: u64,
    /// Their positions, from the first to the last.
    pub lost: Option<(u64, u64)>,
}

fn of_saved(saved: &Option<Saved>) -> String {
    let Some(Saved { events_before, events_after, lost_events_max, lost }) = saved else {
        return String::new();
    };
    let lost = match lost {
        Some((first, last)) => {
            format!(
                "{lost_events_max} at most cannot, of positions {first} to {last}, unless they are in the lake already"
            )
        }
        None => "none is missing".to_owned(),
    };
    format!(": {events_before} events before it and {events_after} after it can be read, {lost}")
}

fn of_pid(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

/// Why frames could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError<E> {
    /// The wal could not be read.
    #[error(transparent)]
    Wal(#[from] OpenError),
    /// The caller did not take the frame.
    #[error(transparent)]
    Refused(E),
}

/// Why a frame was not appended. Nothing of it will ever be read back.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// No space; the wal is as it was before, later appends may work.
    #[error("no space for {bytes} bytes in {}: {source}", .file.display())]
    StorageFull {
        /// The segment.
        file: PathBuf,
        /// Bytes that did not fit.
        bytes: u64,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A write or a sync failed, now or before: nobody knows what is on the disk. The process has to end; opening decides.
    #[error("the wal is poisoned: {reason}")]
    Poisoned {
        /// The first failure.
        reason: String,
    },
    /// The frame is larger than a frame may be.
    #[error("a frame of {bytes} bytes is larger than {bytes_max}")]
    TooLarge {
        /// Bytes of the frame.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
}

/// Whether the disk (or the quota) is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
