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
    #[error("{} is damaged at offset {offset}: {what}; nothing was changed: restore the file, or ask for help with a copy of the folder", .file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The folder was written by another version of the format.
    #[error("{} has wal format version {found}; this program reads version {known}: use the version of the program that wrote it", .file.display())]
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The version known here.
        known: u32,
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

impl AppendError {
    /// Whether a later append can work.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::StorageFull { .. })
    }
}

/// Whether the disk (or the quota) is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
