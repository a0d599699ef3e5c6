//! What can go wrong with the lake.

use deltalake_core::DeltaTableError;
use std::path::PathBuf;

/// Why the lake could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses the folder.
    #[error("{} is in use by another process: stop it first, or use another data folder", .0.display())]
    InUse(PathBuf),
    /// The folder cannot be used.
    #[error("cannot {action} {}: {source}", .path.display())]
    Folder {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The table in the folder is not one of ours.
    #[error("{} holds a Delta table with other columns ({difference}): use another data folder", .path.display())]
    OtherTable {
        /// The folder.
        path: PathBuf,
        /// The first difference.
        difference: String,
    },
    /// The table cannot be read.
    #[error(transparent)]
    Table(#[from] LakeError),
}

/// Why an operation on the lake failed. What it was to put in stays where it was and can be tried again.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The Delta table could not be read or written.
    #[error("the table failed: {0}")]
    Delta(Box<DeltaTableError>),
    /// The table was written by a newer program, or brought to another protocol by another one.
    #[error(
        "{} has a format that this program does not know ({what}): a newer program wrote it: install that version again, or restore a \
         backup made before the upgrade",
        .path.display()
    )]
    Newer {
        /// The folder.
        path: PathBuf,
        /// What is not known here.
        what: String,
    },
    /// The folder has a name under which another one would be read.
    #[error("{path:?}: {flaw}")]
    Name {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        flaw: String,
    },
    /// A file of the log of the table that is needed is damaged or gone.
    #[error(
        "{} is damaged: {what}. Without it the table is not what it was: stop the collector; `catchment inspect lake` names all such files, \
         `catchment inspect repair` mends the log where the table can be read without them, else bring the folder back from a backup",
        .path.display()
    )]
    Log {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The folder of the lake, or of its log, is not where it was when it was opened.
    #[error(
        "{} was removed or moved while the collector uses it: nothing more goes into the lake, and what is accepted stays in the wal. Move it back, \
         then all goes on; if it is gone for good, stop the collector: its next start says what can be done",
        .path.display()
    )]
    Gone {
        /// The folder.
        path: PathBuf,
    },
    /// A file could not be encoded.
    #[error("a data file could not be encoded: {0}")]
    Encode(#[from] parquet::errors::ParquetError),
    /// A file that is written could not take its bytes.
    #[error("a data file could not be written: {0}")]
    Write(#[from] std::io::Error),
    /// Rows could not be arranged.
    #[error("rows could not be arranged: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// A file could not be stored.
    #[error("a file could not be stored: {0}")]
    Store(#[from] object_store::Error),
    /// A file of a merge could not be written.
    #[error("cannot write {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file cannot be merged. It stays as it is.
    #[error("{path} is not merged: {reason}")]
    Unmerged {
        /// The file.
        path: String,
        /// What is in the way.
        reason: String,
    },
    /// A file cannot be read, so that rows of it cannot be erased.
    #[error("{path} cannot be read: {reason}")]
    Unread {
        /// The file.
        path: String,
        /// What is in the way.
        reason: String,
    },
    /// What was written anew does not have all rows of its files. Nothing of it is in the table.
    #[error("of {before} rows {after} were written anew")]
    Rows {
        /// Rows of its files.
        before: u64,
        /// Rows that were written.
        after: u64,
    },
    /// The disk has no room to write data files anew.
    #[error("writing data files anew needs {needed_bytes} bytes of room and the disk has {free_bytes}")]
    NoRoom {
        /// What it takes.
        needed_bytes: u64,
        /// What there is.
        free_bytes: u64,
    },
    /// A part of the range is sealed and a part is not: two writers, or a caller that does not repeat itself.
    #[error("positions {first} to {last} are to be sealed, but those up to {sealed} already are")]
    Overlap {
        /// First position of the seal.
        first: u64,
        /// Last position of the seal.
        last: u64,
        /// What is sealed.
        sealed: u64,
    },
    /// A file of the table has statistics that cannot be read.
    #[error("the statistics of {path} cannot be read: {reason}")]
    Statistics {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A task ended before its work was done.
    #[error("interrupted: the program is stopping, or a task panicked")]
    Interrupted,
}

impl LakeError {
    /// Whether it is of one data file, so that others may go better.
    pub(crate) fn is_of_file(&self) -> bool {
        matches!(self, Self::Unread { .. } | Self::Unmerged { .. } | Self::NoRoom { .. } | Self::Rows { .. })
    }

    /// Whether the table does not take its columns, whatever the disk does.
    pub(crate) fn is_of_schema(&self) -> bool {
        use DeltaTableError as E;
        let Self::Delta(error) = self else {
            return false;
        };
        matches!(
            **error,
            E::SchemaMismatch { .. }
                | E::MetadataError(_)
                | E::NoSchema
                | E::MissingFeature { .. }
                | E::InvalidData { .. }
                | E::CommitValidation { .. }
                | E::KernelError(_)
                | E::Kernel { .. }
        )
    }
}

impl From<DeltaTableError> for LakeError {
    fn from(error: DeltaTableError) -> Self {
        Self::Delta(Box::new(error))
    }
}
