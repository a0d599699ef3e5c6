//! All events of one sensor up to a position go, and nothing that tells of them stays: rows, files, statistics.
//!
//! File by file, each in one commit of the lane. A call that ended half-way is repeated: it finds what is left. Files without such a row stay as
//! they are.

use crate::checked::CheckedFile;
use crate::compact::{ROOM_BYTES, at_lowest_priority, room};
use crate::dead::remove_durably;
use crate::error::LakeError;
use crate::lake::{Lake, Shared};
use crate::merge::{self, Output};
use crate::name::{Level, level, sealed_range};
use crate::replace::{Replaced, Replacing};
use crate::snapshot::{LakeFile, Snapshot};
use crate::sort::sorted;
use crate::stats::FileStats;
use crate::table;
use arrow::array::{AsArray, BooleanArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use deltalake_core::DeltaTable;
use deltalake_core::protocol::DeltaOperation;
use event::Fields;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
use parquet::schema::types::TypePtr;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What is left free on the disk when the file that goes makes room at once.
const SPARE_BYTES: u64 = 16 << 20;
/// Rows that are read at once to be counted.
const COUNTED_ROWS: usize = 8192;
/// Rows that are read at once of a file of which is not known how long they are, and their bytes.
const READ_ROWS: usize = 1024;
const READ_BYTES: usize = 256 << 10;
/// Rows that are not in order are put in order so many bytes at a time: what becomes of them are several files.
const SORTED_BYTES: usize = 32 << 20;

/// Whose events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasing {
    /// The sensor.
    pub sensor: String,
    /// The last position that goes.
    pub until: u64,
}

impl Erasing {
    /// Whether a file with these statistics may have a row that goes.
    pub(crate) fn may_be_in(&self, stats: &FileStats) -> bool {
        let sensor = self.sensor.as_str();
        stats.sensor.min.as_deref().is_none_or(|min| min <= sensor)
            && stats.sensor.max.as_deref().is_none_or(|max| sensor <= max)
            && stats.position.min.is_none_or(|first| self.has(first))
    }

    /// Whether a row group with these statistics may.
    fn may_be_in_group(&self, group: &RowGroupMetaData) -> bool {
        let of = |name: &str| {
            let column = group.columns().iter().find(|c| c.column_path().string() == name)?;
            // Those of old engines put bytes in another order.
            column.statistics().filter(|told| !told.is_min_max_deprecated())
        };
        let sensor = self.sensor.as_bytes();
        let by_sensor = of("sensor").is_none_or(|told| {
            told.min_bytes_opt().is_none_or(|min| min <= sensor) && told.max_bytes_opt().is_none_or(|max| sensor <= max)
        });
        let by_position = match of("position") {
            Some(Statistics::Int64(told)) => told.min_opt().is_none_or(|first| self.has(*first)),
            _ => true,
        };
        by_sensor && by_position
    }

    fn has(&self, position: i64) -> bool {
        u64::try_from(position).is_ok_and(|position| position <= self.until)
    }

    /// Which of these rows stay; they have the columns `sensor` and `position`.
    fn stays(&self, rows: &RecordBatch) -> BooleanArray {
        let column = |name: &str| rows.column_by_name(name).expect("a column of the table");
        let positions = column("position").as_primitive::<Int64Type>().values();
        let sensors = column("sensor").as_string::<i32>().iter();
        let stays = |(sensor, position): (Option<&str>, &i64)| {
            Some(sensor != Some(self.sensor.as_str()) || !self.has(*position))
        };
        sensors.zip(positions).map(stays).collect()
    }

    fn kept(&self, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        filter_record_batch(rows, &self.stays(rows))
    }
}

/// What a data file is written anew with.
struct Rewriting<'a> {
    root: &'a Path,
    schema: &'a SchemaRef,
    fields: &'a Fields,
    file: &'a LakeFile,
    erasing: &'a Erasing,
    /// What is left free on the disk.
    spare_bytes: u64,
}

/// What becomes of a file.
struct Erased {
    /// Rows that go.
    rows: u64,
    /// What has the others.
    made: Vec<LakeFile>,
}

impl Lake {
    /// Takes the rows out of the table, and tells of the lake after each commit. Files that went are removed one by one, unless somebody reads
    /// them. A file that cannot be written anew keeps no other from it.
    ///
    /// # Errors
    /// The first [`LakeError`]: some rows are still there; it can be tried again.
    pub async fn erase(
        &self,
        erasing: &Erasing,
        mut relaid: impl FnMut(Arc<Snapshot>) + Send,
    ) -> Result<(), LakeError> {
        let (mut seen, mut erased) = (HashSet::new(), Ok(()));
        loop {
            // Nobody else writes rows anew meanwhile: a merge of before would bring them back to the disk.
            let _turn = self.shared.rewriting.lock().await;
            let may_have = |file: &&Arc<LakeFile>| erasing.may_be_in(&file.stats) && !seen.contains(&file.path);
            let Some(file) = self.snapshot().files.iter().find(may_have).cloned() else {
                return erased;
            };
            match self.erase_from(&file, erasing).await {
                Ok(Some(snapshot)) => {
                    relaid(snapshot);
                    let erasing = erasing.clone();
                    self.removing(move |shared| shared.dead.sweep_of(&shared.dir, &erasing)).await?;
                }
                Ok(None) => drop(seen.insert(file.path.clone())),
                Err(error) if error.is_of_file() => {
                    seen.insert(file.path.clone());
                    erased = erased.and(Err(error));
                }
                Err(error) => return erased.and(Err(error)),
            }
        }
    }

    /// Takes the rows out of one file. Returns the lake afterwards; none when the file has no such row.
    pub(crate) async fn erase_from(
        &self,
        file: &Arc<LakeFile>,
        erasing: &Erasing,
    ) -> Result<Option<Arc<Snapshot>>, LakeError> {
        let (dir, schema, fields) =
            (self.shared.dir.clone(), self.shared.schema.clone(), self.snapshot().fields.clone());
        let (from, what) = (file.clone(), erasing.clone());
        // Files that somebody reads make no room.
        let spare_bytes = if self.shared.dead.count_of(erasing) > 0 { ROOM_BYTES } else { SPARE_BYTES };
        let work = move || {
            let (root, schema, fields) = (dir.as_path(), &schema, fields.as_ref());
            Rewriting { root, schema, fields, file: &from, erasing: &what, spare_bytes }.run()
        };
        let Erased { rows, made } = at_lowest_priority("erase", work).await?;
        if rows == 0 {
            return Ok(None);
        }
        let written_bytes = made.iter().map(|f| f.bytes).sum();
        // Without a predicate: it would name the sensor.
        let operation = DeltaOperation::Delete { predicate: None };
        let gone = [file.clone()];
        let (expired_rows, erased_rows, lost_rows) = (rows, rows, 0);
        let replacing = Replacing { gone: &gone, made: &made, expired_rows, erased_rows, lost_rows, operation };
        Ok(Some(match self.replace(replacing).await? {
            Replaced::Done(snapshot) => {
                self.shared.metrics.written_bytes.inc_by(written_bytes);
                snapshot
            }
            Replaced::NotThere(snapshot) => snapshot,
        }))
    }

    /// Removes files from the disk that the table does not have any more and that may have such rows, and tells of the lake as it is. Returns how
    /// many stay because a reader of this process still has them.
    ///
    /// # Errors
    /// [`LakeError`]; it can be tried again.
    pub async fn remove_erased(
        &self,
        erasing: &Erasing,
        relaid: impl FnOnce(Arc<Snapshot>) + Send,
    ) -> Result<usize, LakeError> {
        // Kept to the end of the work, which goes on when nobody waits for it any more.
        let turn = self.shared.rewriting.clone().lock_owned().await;
        // In this order: a file that is listed and then committed is found in the table.
        let dir = self.shared.dir.clone();
        let listed = self.blocking(move || data_files(&dir)).await?;
        let snapshot = self.refresh().await?;
        relaid(snapshot.clone());
        let what = erasing.clone();
        self.removing(move |shared| {
            let _turn = turn;
            let left = left_behind(&listed, &snapshot, shared);
            drop(snapshot);
            Ok(remove_durably(&shared.dir, left)? + shared.dead.sweep_of(&shared.dir, &what)?)
        })
        .await?;
        Ok(self.shared.dead.count_of(erasing))
    }

    /// Writes a checkpoint and removes the log of the table before it: it has the statistics of files that went. Who reads an older version by
    /// its number finds it no more.
    ///
    /// # Errors
    /// [`LakeError`]; it can be tried again.
    pub async fn forget_history(&self) -> Result<(), LakeError> {
        let shared = &self.shared;
        let mut table = shared.lane.lock().await;
        self.update(&mut table).await?;
        let version = table.version().unwrap_or(0);
        deltalake_core::checkpoints::create_checkpoint(&table, None).await?;
        shared.checkpoint.store(version, Ordering::Relaxed);
        shared.metrics.checkpoints.inc();
        let dir = shared.dir.clone();
        let failed = |source| LakeError::File { path: dir.join("_delta_log").display().to_string(), source };
        if table::checkpoint(&dir) != version {
            return Err(failed(io::Error::other(format!("the checkpoint of version {version} is not there"))));
        }
        // What is in memory may read the log that goes.
        let mut fresh = DeltaTable::new(table.log_store());
        fresh.load().await?;
        *table = fresh;
        let log = dir.join("_delta_log");
        self.blocking(move || remove_log_before(&log, version)).await
    }
}

impl Rewriting<'_> {
    /// Writes what stays of the file; nobody sees it yet.
    fn run(&self) -> Result<Erased, LakeError> {
        let rows = self.count()?;
        if rows == 0 || rows == self.file.stats.rows {
            return Ok(Erased { rows, made: Vec::new() });
        }
        room(self.root, self.spare_bytes + 2 * self.file.bytes)?;
        let made = match merge::run(self.root, self.file, self.schema) {
            Ok(run) => self.in_order(run)?,
            // Of a program of before, or of another engine.
            Err(LakeError::Unmerged { .. }) => self.put_in_order()?,
            Err(error) => return Err(error),
        };
        let (before, after) = (self.file.stats.rows, rows + merge::rows(&made));
        if before != after {
            merge::remove(self.root, &made);
            return Err(LakeError::Rows { before, after });
        }
        Ok(Erased { rows, made })
    }

    /// How many rows go.
    fn count(&self) -> Result<u64, LakeError> {
        let position = self.schema.index_of("position")?;
        let columns = Arc::new(self.schema.project(&[position, self.schema.index_of("sensor")?])?);
        let mut gone = 0;
        for rows in self.plain(&columns, |_| COUNTED_ROWS, |group| self.erasing.may_be_in_group(group))? {
            gone += self.erasing.stays(&rows?).false_count() as u64;
        }
        Ok(gone)
    }

    fn in_order(&self, run: merge::Rows<'_>) -> Result<Vec<LakeFile>, LakeError> {
        let mut output = self.output(level(&self.file.path).filter(|level| *level == Level::Hour));
        for rows in run {
            output.write(&self.erasing.kept(&rows?)?)?;
        }
        Ok(output.finish()?.into_iter().collect())
    }

    /// The same for rows in any order.
    fn put_in_order(&self) -> Result<Vec<LakeFile>, LakeError> {
        let (mut made, mut waiting, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut write = || -> Result<(), LakeError> {
            let at_once = |average: usize| (READ_BYTES / average.max(1)).clamp(1, READ_ROWS);
            for rows in self.plain(self.schema, at_once, |_| true)? {
                let kept = self.erasing.kept(&rows?)?;
                if kept.num_rows() > 0 {
                    bytes += kept.get_array_memory_size();
                    waiting.push(kept);
                }
                if bytes > SORTED_BYTES {
                    made.extend(self.sort(&std::mem::take(&mut waiting))?);
                    bytes = 0;
                }
            }
            made.extend(self.sort(&waiting)?);
            Ok(())
        };
        match write() {
            Ok(()) => Ok(made),
            Err(error) => {
                merge::remove(self.root, &made);
                Err(error)
            }
        }
    }

    fn sort(&self, batches: &[RecordBatch]) -> Result<Option<LakeFile>, LakeError> {
        if batches.is_empty() {
            return Ok(None);
        }
        let mut output = self.output(None);
        for rows in sorted(batches) {
            output.write(&rows?)?;
        }
        output.finish()
    }

    /// The rows of the wanted row groups of the file, of whatever program it is, with these columns.
    fn plain(
        &self,
        columns: &SchemaRef,
        at_once: impl Fn(usize) -> usize,
        is_wanted: impl Fn(&RowGroupMetaData) -> bool,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, LakeError>>, LakeError> {
        let path = self.file.path.clone();
        let unread = move |reason: String| LakeError::Unread { path: path.clone(), reason };
        let opened = CheckedFile::open(&self.root.join(&self.file.path)).map_err(|e| unread(e.to_string()))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(opened).map_err(|e| unread(e.to_string()))?;
        let groups = builder.metadata().row_groups();
        let bytes: i64 = groups.iter().map(|group| group.total_byte_size()).sum();
        let average = usize::try_from(bytes).unwrap_or(0) / usize::try_from(self.file.stats.rows.max(1)).unwrap_or(1);
        let groups = (0..groups.len()).filter(|group| is_wanted(&groups[*group])).collect();
        let names = builder.parquet_schema().root_schema().get_fields();
        let is_asked = |(_, column): &(usize, &TypePtr)| columns.index_of(column.name()).is_ok();
        let asked = names.iter().enumerate().filter(is_asked).map(|(n, _)| n);
        let mask = ProjectionMask::roots(builder.parquet_schema(), asked);
        let reader = builder.with_projection(mask).with_row_groups(groups).with_batch_size(at_once(average)).build();
        let columns = columns.clone();
        let with_columns = {
            let unread = unread.clone();
            move |rows: Result<RecordBatch, ArrowError>| {
                let cast_to = |rows: &RecordBatch| {
                    let of = |field: &arrow::datatypes::FieldRef| {
                        let column = rows
                            .column_by_name(field.name())
                            .ok_or_else(|| ArrowError::SchemaError(format!("it has no column {}", field.name())))?;
                        cast(column, field.data_type())
                    };
                    RecordBatch::try_new(columns.clone(), columns.fields().iter().map(of).collect::<Result<_, _>>()?)
                };
                rows.and_then(|rows| cast_to(&rows)).map_err(|e| unread(e.to_string()))
            }
        };
        Ok(reader.map_err(|e| unread(e.to_string()))?.map(with_columns))
    }

    fn output(&self, level: Option<Level>) -> Output<'_> {
        let folder = self.file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        Output::new(self.root, folder, (self.schema, self.fields), level.unwrap_or(Level::Merged))
    }
}

/// The files below the folders of days, those that are being written included.
fn data_files(root: &Path) -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    for folder in fs::read_dir(root)? {
        let folder = folder?;
        let day = folder.file_name().to_string_lossy().into_owned();
        if !folder.path().is_dir() || !day.starts_with(table::RECEIVED_DATE) {
            continue;
        }
        for file in fs::read_dir(folder.path())? {
            files.push(format!("{day}/{}", file?.file_name().to_string_lossy()));
        }
    }
    Ok(files)
}

/// The listed files that are not and never will be in the table.
fn left_behind(listed: &[String], snapshot: &Snapshot, shared: &Shared) -> Vec<String> {
    let active: HashSet<&str> = snapshot.files.iter().map(|f| f.path.as_str()).collect();
    let dead = shared.dead.paths();
    let is_left_behind = |path: &&String| {
        let place = path.rsplit_once('#').map_or(path.as_str(), |(place, _)| place);
        let range = place.rsplit('/').next().and_then(|file| sealed_range(file, shared.wal));
        let is_being_sealed = range.is_some_and(|(first, _)| first > snapshot.sealed);
        let is_known = active.contains(path.as_str()) || dead.contains(path.as_str());
        !is_known && level(place).is_some() && !is_being_sealed
    };
    listed.iter().filter(is_left_behind).cloned().collect()
}

/// Removes the commits and checkpoints of versions before this one, and what was never finished.
fn remove_log_before(log: &Path, version: u64) -> io::Result<()> {
    for file in fs::read_dir(log)? {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        let of_version = name.split('.').next().and_then(|number| number.parse::<u64>().ok());
        let is_unfinished = name.contains('#') || name.starts_with("_commit_");
        if file.path().is_file() && (is_unfinished || of_version.is_some_and(|of| of < version)) {
            fs::remove_file(file.path())?;
        }
    }
    File::open(log)?.sync_all()
}

#[cfg(test)]
mod tests;
