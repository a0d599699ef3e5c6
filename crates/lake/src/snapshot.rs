//! What readers see: the lake at one version, and the View that adds the live rows after it.

use crate::checked::{CheckedFile, damage};
use crate::encode::{SEEN, noted};
use crate::stats::FileStats;
use ::event::{Fields, REST, SeenFields};
use arrow::record_batch::RecordBatch;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use std::fmt;
use std::io::ErrorKind;
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
    /// What its footer says, read once.
    pub(crate) known: OnceLock<Known>,
}

/// What is remembered of a footer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Known {
    data_bytes: u64,
    row_groups: Vec<RowGroup>,
}

/// A row group of a data file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowGroup {
    /// Number of events.
    pub rows: u64,
    /// As [`FileStats::whole`], of these events.
    pub whole: i32,
}

impl RowGroup {
    fn of(group: &RowGroupMetaData) -> Self {
        let rest = group.columns().iter().find(|column| column.column_path().parts() == [REST]);
        let whole = match rest.and_then(|column| column.statistics()) {
            Some(Statistics::Int32(rest)) if rest.null_count_opt() == Some(0) => rest.min_opt().copied(),
            _ => None,
        };
        Self { rows: u64::try_from(group.num_rows()).unwrap_or(0), whole: whole.unwrap_or(0) }
    }
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
        self.known(root).data_bytes
    }

    /// Its row groups, read from the file once; none when it cannot be read.
    pub fn row_groups(&self, root: &Path) -> &[RowGroup] {
        &self.known(root).row_groups
    }

    fn known(&self, root: &Path) -> &Known {
        self.known.get_or_init(|| {
            let Some(footer) = self.footer(root) else {
                return Known::default();
            };
            let columns = footer.row_groups().iter().flat_map(|group| group.columns());
            let large =
                columns.filter(|c| ["attributes", "data", "data_binary"].contains(&c.column_path().string().as_str()));
            let bytes: i64 = large.map(|c| c.uncompressed_size()).sum();
            Known {
                data_bytes: u64::try_from(bytes).unwrap_or(0) / self.stats.rows.max(1),
                row_groups: footer.row_groups().iter().map(RowGroup::of).collect(),
            }
        })
    }

    /// The fields of its events, read from the file each time; unknown when the file does not say, none when it cannot be read.
    pub fn seen_fields(&self, root: &Path) -> Option<SeenFields> {
        let footer = self.footer(root)?;
        Some(noted(&footer, SEEN).map_or_else(SeenFields::unknown, SeenFields::from_json))
    }

    /// What is wrong with it, by its size, its footer and its checksums; none when nothing is.
    ///
    /// # Errors
    /// Whatever keeps it from being read, but that it is gone.
    pub fn damage(&self, root: &Path) -> std::io::Result<Option<String>> {
        let path = root.join(&self.path);
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some("it is gone".to_owned())),
            Ok(found) if found.len() != self.bytes => {
                return Ok(Some(format!("it has {} bytes, and the table says {}", found.len(), self.bytes)));
            }
            found => found.map(drop)?,
        }
        let (file, footer) = match CheckedFile::open(&path).map(|file| (file.clone(), footer(&file))) {
            Err(error) => return damage(&error).map(Some).ok_or(error),
            Ok((_, Err(error))) => return Ok(Some(error.to_string())),
            Ok((file, Ok(footer))) => (file, footer),
        };
        let rows = footer.file_metadata().num_rows();
        if u64::try_from(rows) != Ok(self.stats.rows) {
            return Ok(Some(format!("it has {rows} events, and the table says {}", self.stats.rows)));
        }
        match file.check() {
            Err(error) => damage(&error).map(Some).ok_or(error),
            Ok(_) => Ok(None),
        }
    }

    fn footer(&self, root: &Path) -> Option<ParquetMetaData> {
        footer(&CheckedFile::open(&root.join(&self.path)).ok()?).ok()
    }
}

fn footer(file: &CheckedFile) -> parquet::errors::Result<ParquetMetaData> {
    ParquetMetaDataReader::new().parse_and_finish(file)
}

/// The lake at one version. It never changes; a newer one replaces it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Version of the Delta table.
    pub version: u64,
    /// All events of this wal up to this position are in it.
    pub sealed: u64,
    /// Events that are not in it any more: they went by [`Retention`](crate::Retention), were erased, or were lost.
    pub expired_rows: u64,
    /// Of these, those that were erased.
    pub erased_rows: u64,
    /// Of [`Snapshot::expired_rows`], those that were lost to damage.
    pub lost_rows: u64,
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
        let (expired_rows, erased_rows, lost_rows, none) = (0, 0, 0, Vec::new());
        Self { version, sealed, expired_rows, erased_rows, lost_rows, root, files: none, fields }.with_files(files)
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
