//! What readers see: the lake at one version, and the View that adds the live rows after it.

use crate::encode::{SEEN, noted};
use crate::stats::FileStats;
use ::event::{Fields, SeenFields};
use arrow::record_batch::RecordBatch;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

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
    /// See [`LakeFile::data_bytes`].
    pub(crate) data_bytes: OnceLock<u64>,
}

impl LakeFile {
    /// The day of receipt of its events, as the partition has it.
    pub(crate) fn day(&self) -> &str {
        let folder = self.path.split('/').next().unwrap_or_default();
        folder.split_once('=').map_or("", |(_, day)| day)
    }

    /// How large the data and attributes of an event are on the average, before compression; read from the file once. 0 when it cannot be
    /// read.
    pub fn data_bytes(&self, root: &Path) -> u64 {
        *self.data_bytes.get_or_init(|| {
            let footer = self.footer(root);
            let columns = footer.iter().flat_map(|f| f.row_groups()).flat_map(|group| group.columns());
            let large =
                columns.filter(|c| ["attributes", "data", "data_binary"].contains(&c.column_path().string().as_str()));
            let bytes: i64 = large.map(|c| c.uncompressed_size()).sum();
            u64::try_from(bytes).unwrap_or(0) / self.stats.rows.max(1)
        })
    }

    /// The fields of its events, read from the file each time; unknown when the file does not say, none when it cannot be read.
    pub fn seen_fields(&self, root: &Path) -> Option<SeenFields> {
        let footer = self.footer(root)?;
        Some(noted(&footer, SEEN).map_or_else(SeenFields::unknown, SeenFields::from_json))
    }

    /// What is wrong with it, by its size and its footer; none when nothing is.
    pub fn damage(&self, root: &Path) -> Option<String> {
        let path = root.join(&self.path);
        match std::fs::metadata(&path) {
            Err(error) => return Some(error.to_string()),
            Ok(found) if found.len() != self.bytes => {
                return Some(format!("it has {} bytes, and the table says {}", found.len(), self.bytes));
            }
            Ok(_) => {}
        }
        let read = File::open(&path).map_err(|error| error.to_string());
        let footer = read
            .and_then(|file| ParquetMetaDataReader::new().parse_and_finish(&file).map_err(|error| error.to_string()));
        match footer {
            Err(error) => Some(error),
            Ok(footer) => {
                let rows = footer.file_metadata().num_rows();
                (u64::try_from(rows) != Ok(self.stats.rows))
                    .then(|| format!("it has {rows} events, and the table says {}", self.stats.rows))
            }
        }
    }

    fn footer(&self, root: &Path) -> Option<ParquetMetaData> {
        let file = File::open(root.join(&self.path)).ok()?;
        ParquetMetaDataReader::new().parse_and_finish(&file).ok()
    }
}

/// The lake at one version. It never changes; a newer one replaces it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Version of the Delta table.
    pub version: u64,
    /// All events of this wal up to this position are in it.
    pub sealed: u64,
    /// Events that were in it and went by [`Retention`](crate::Retention) or because they were erased.
    pub expired_rows: u64,
    /// Of these, those that were erased.
    pub erased_rows: u64,
    /// The table's folder.
    pub root: PathBuf,
    /// Its data files, by their first position.
    pub files: Vec<Arc<LakeFile>>,
    /// The fields of `data` that have a column.
    pub fields: Arc<Fields>,
}

impl Snapshot {
    pub(crate) fn new(version: u64, sealed: u64, root: PathBuf, files: Vec<Arc<LakeFile>>) -> Self {
        let fields = Arc::default();
        Self { version, sealed, expired_rows: 0, erased_rows: 0, root, files: Vec::new(), fields }.with_files(files)
    }

    /// With these files instead of its own.
    pub(crate) fn with_files(self, mut files: Vec<Arc<LakeFile>>) -> Self {
        files.sort_by_key(|f| f.stats.position.min);
        Self { files, ..self }
    }
}

/// What one query sees: each accepted event once.
#[derive(Clone, Debug)]
pub struct View {
    /// The lake.
    pub lake: Arc<Snapshot>,
    /// Events after [`Snapshot::sealed`], in order.
    pub live: Vec<LiveChunk>,
    /// Where live rows are found that have moved since.
    pub newest: Newest,
}

impl View {
    /// The lake alone.
    pub fn of_lake(lake: Arc<Snapshot>) -> Self {
        let alone = lake.clone();
        let newest = Newest(Arc::new(move || Arc::new(Self::of_lake(alone.clone()))));
        Self { lake, live: Vec::new(), newest }
    }
}

/// Live rows as a View knows them: it names them and does not hold them, so that a slow query keeps nothing in memory that was
/// sealed since.
#[derive(Clone, Debug)]
pub struct LiveChunk {
    /// The rows, as long as they are live in this chunk. Afterwards they are in one larger chunk, or in the lake.
    pub rows: Weak<RecordBatch>,
    /// First position.
    pub first: u64,
    /// Last position; there is no gap between.
    pub last: u64,
}

impl LiveChunk {
    /// Number of rows.
    pub fn count(&self) -> usize {
        (self.last - self.first + 1) as usize
    }
}

/// Gives the View of this moment.
#[derive(Clone)]
pub struct Newest(pub Arc<dyn Fn() -> Arc<View> + Send + Sync>);

impl Newest {
    /// The View.
    pub fn view(&self) -> Arc<View> {
        (self.0)()
    }

    /// The View with all of its live rows, held as long as the answer is.
    pub fn with_rows(&self) -> (Arc<View>, Vec<Arc<RecordBatch>>) {
        loop {
            let view = self.view();
            // Rows that were sealed meanwhile are in the lake of the next View.
            if let Some(rows) = view.live.iter().map(|chunk| chunk.rows.upgrade()).collect() {
                return (view, rows);
            }
        }
    }
}

impl fmt::Debug for Newest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Newest")
    }
}
