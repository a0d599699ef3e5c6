//! What readers see: the lake at one version, and the View that adds the live rows after it.

use crate::stats::FileStats;
use arrow::record_batch::RecordBatch;
use std::path::PathBuf;
use std::sync::Arc;

/// One data file of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct LakeFile {
    /// Its path under [`Snapshot::root`].
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// When it was written, in milliseconds since the epoch.
    pub modified_millis: i64,
    /// What it holds.
    pub stats: FileStats,
}

/// The lake at one version. It never changes; a newer one replaces it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Version of the Delta table.
    pub version: u64,
    /// All events of this wal up to this position are in it.
    pub sealed: u64,
    /// The table's folder.
    pub root: PathBuf,
    /// Its data files.
    pub files: Vec<Arc<LakeFile>>,
}

/// What one query sees: each accepted event once.
#[derive(Clone, Debug)]
pub struct View {
    /// The lake.
    pub lake: Arc<Snapshot>,
    /// Events after [`Snapshot::sealed`], in order.
    pub live: Vec<Arc<RecordBatch>>,
}
