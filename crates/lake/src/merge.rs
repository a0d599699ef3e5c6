//! Several data files put together into one or two: rows in order, those whose time is far from the others' apart.
//!
//! It reads and writes in a stream: of each file it holds a page a column and some rows, of what it writes one row group.

use crate::checked::CheckedFile;
use crate::encode::{DataFile, WIDEST, noted, sorting_columns};
use crate::error::LakeError;
use crate::name::{self, Level};
use crate::plan::Merge;
use crate::snapshot::LakeFile;
use crate::sort::{Merged, Run};
use crate::store::Staged;
use arrow::array::{AsArray, BooleanArray};
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use event::Fields;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
use std::io::BufWriter;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// A row is late when its time is further than this from the time in which the files were received: it would widen the times of all others'
/// file.
const LATE_MICROS: i64 = 3_600_000_000;
/// Rows that are read at once of each file, and their bytes.
const READ_ROWS: usize = 1024;
const READ_BYTES: usize = 256 << 10;

/// Writes what becomes of a merge into the table's folder `root`, whose rows have the columns of `schema`, with those of `fields`. Nobody sees the
/// files yet.
///
/// # Errors
/// [`LakeError::Unmerged`] names a file that cannot be merged.
pub(crate) fn merge(
    root: &Path,
    schema: &SchemaRef,
    fields: &Fields,
    merge: &Merge,
) -> Result<Vec<LakeFile>, LakeError> {
    let files = &merge.files;
    let runs = files.iter().map(|file| run(root, file, schema)).collect::<Result<_, _>>()?;
    let received = || files.iter().map(|file| &file.stats.received_at);
    let (since, until) = (received().filter_map(|r| r.min).min(), received().filter_map(|r| r.max).max());
    let on_time =
        (since.unwrap_or(i64::MIN).saturating_sub(LATE_MICROS), until.unwrap_or(i64::MAX).saturating_add(LATE_MICROS));
    let folder = files[0].path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let output = || Output::new(root, folder, (schema, fields), merge.level);
    let (mut most, mut late) = (output(), output());
    let mut merged = Merged::<LakeError>::new(runs)?;
    while let Some(batch) = merged.next()? {
        let times = batch.column_by_name("time").expect("a column of the table");
        let times = times.as_primitive::<TimestampMicrosecondType>().values();
        let is_on_time: BooleanArray = times.iter().map(|time| Some((on_time.0..=on_time.1).contains(time))).collect();
        if is_on_time.true_count() == batch.num_rows() {
            most.write(&batch)?;
            continue;
        }
        most.write(&filter_record_batch(&batch, &is_on_time)?)?;
        late.write(&filter_record_batch(&batch, &not(&is_on_time)?)?)?;
    }
    let mut made: Vec<LakeFile> = most.finish()?.into_iter().collect();
    match late.finish() {
        Ok(late) => made.extend(late),
        Err(error) => {
            remove(root, &made);
            return Err(error);
        }
    }
    let (before, after) = (rows(files.iter().map(Arc::as_ref)), rows(&made));
    if before != after {
        remove(root, &made);
        return Err(LakeError::Rows { before, after });
    }
    Ok(made)
}

pub(crate) fn rows<'a>(files: impl IntoIterator<Item = &'a LakeFile>) -> u64 {
    files.into_iter().map(|file| file.stats.rows).sum()
}

/// Removes files that nobody saw.
pub(crate) fn remove(root: &Path, files: &[LakeFile]) {
    for file in files {
        // What is left is removed at the next start.
        drop(std::fs::remove_file(root.join(&file.path)));
    }
}

/// The rows of a file, a batch at a time.
pub(crate) type Rows<'a> = Run<'a, LakeError>;

/// The rows of a file in order.
pub(crate) fn run<'a>(root: &Path, file: &LakeFile, schema: &SchemaRef) -> Result<Rows<'a>, LakeError> {
    Ok(Box::new(groups(root, file, schema)?.flat_map(|(_, rows)| rows)))
}

/// The row groups of a file in order, each with its rows.
pub(crate) fn groups<'a>(
    root: &Path,
    file: &LakeFile,
    schema: &SchemaRef,
) -> Result<impl Iterator<Item = (RowGroupMetaData, Rows<'a>)> + use<'a>, LakeError> {
    let unmerged = |reason: String| LakeError::Unmerged { path: file.path.clone(), reason };
    let opened = CheckedFile::open(&root.join(&file.path)).map_err(|e| unmerged(e.to_string()))?;
    let read =
        ArrowReaderMetadata::load(&opened, ArrowReaderOptions::default()).map_err(|e| unmerged(e.to_string()))?;
    let found = read.schema();
    let same = |(a, b): (&Arc<arrow::datatypes::Field>, &Arc<arrow::datatypes::Field>)| {
        a.name() == b.name() && a.data_type() == b.data_type()
    };
    // The columns of fields come behind; they are made again.
    if found.fields().len() < schema.fields().len() || !found.fields().iter().zip(schema.fields()).all(same) {
        return Err(unmerged("its columns are not those that this program writes".to_owned()));
    }
    let order = sorting_columns(schema);
    let metadata = read.metadata();
    let widest = noted(metadata, WIDEST)
        .and_then(|widest| widest.split(',').map(|bytes| bytes.parse().ok()).collect::<Option<Vec<usize>>>());
    let widest = widest.filter(|widest| widest.len() == metadata.num_row_groups());
    let is_sorted = metadata.row_groups().iter().all(|group| group.sorting_columns() == Some(&order));
    let (Some(widest), true) = (widest, is_sorted) else {
        return Err(unmerged("it does not say that its rows are in order: it is of a program of before".to_owned()));
    };
    let (path, place, schema) = (file.path.clone(), root.join(&file.path), schema.clone());
    Ok(widest.into_iter().enumerate().map(move |(group, widest)| {
        // Each row group with as many rows at once as its longest row allows.
        let at_once = (READ_BYTES / widest.max(1)).clamp(1, READ_ROWS);
        let rows: Rows<'a> = match group_reader(&place, read.clone(), group, (at_once, schema.fields().len())) {
            Ok(reader) => Box::new(GroupRows { reader, path: path.clone(), schema: schema.clone() }),
            Err(e) => Box::new(std::iter::once(Err(LakeError::Unmerged { path: path.clone(), reason: e.to_string() }))),
        };
        (read.metadata().row_group(group).clone(), rows)
    }))
}

/// The first and last position in a row group.
pub(crate) fn positions(group: &RowGroupMetaData) -> Option<(i64, i64)> {
    let position = group.columns().iter().find(|column| column.column_path().string() == "position")?;
    match position.statistics()? {
        Statistics::Int64(told) => Some((*told.min_opt()?, *told.max_opt()?)),
        _ => None,
    }
}

/// Reads the first columns of a row group of a file whose footer was read before, some rows at once.
fn group_reader(
    place: &Path,
    read: ArrowReaderMetadata,
    group: usize,
    (at_once, columns): (usize, usize),
) -> parquet::errors::Result<ParquetRecordBatchReader> {
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(CheckedFile::open(place)?, read);
    let own = ProjectionMask::roots(builder.parquet_schema(), 0..columns);
    builder.with_projection(own).with_row_groups(vec![group]).with_batch_size(at_once).build()
}

/// The rows of a row group.
struct GroupRows {
    reader: ParquetRecordBatchReader,
    path: String,
    schema: SchemaRef,
}

impl Iterator for GroupRows {
    type Item = Result<RecordBatch, LakeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.reader.next()?;
        let batch = batch.and_then(|batch| RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec()));
        Some(batch.map_err(|e| LakeError::Unmerged { path: self.path.clone(), reason: e.to_string() }))
    }
}

/// One file that is made, once it has a row.
pub(crate) struct Output<'a> {
    root: &'a Path,
    folder: &'a str,
    schema: &'a SchemaRef,
    fields: &'a Fields,
    level: Level,
    open: Option<(String, DataFile<BufWriter<Staged>>)>,
}

impl<'a> Output<'a> {
    /// In this folder of the table.
    pub(crate) fn new(
        root: &'a Path,
        folder: &'a str,
        (schema, fields): (&'a SchemaRef, &'a Fields),
        level: Level,
    ) -> Self {
        Self { root, folder, schema, fields, level, open: None }
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), LakeError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let (_, file) = match &mut self.open {
            Some(open) => open,
            none => {
                let path = name::merged(self.folder, self.level);
                let staged = Staged::create(&self.root.join(&path), 0);
                let staged = staged.map_err(|source| LakeError::File { path: path.clone(), source })?;
                none.insert((path, DataFile::new(BufWriter::new(staged), self.schema, self.fields)))
            }
        };
        file.write(batch)
    }

    pub(crate) fn finish(self) -> Result<Option<LakeFile>, LakeError> {
        let Some((path, file)) = self.open else {
            return Ok(None);
        };
        let (sink, stats) = file.finish()?;
        let failed = |source| LakeError::File { path: path.clone(), source };
        let staged = sink.into_inner().map_err(|e| failed(e.into_error()))?;
        let bytes = staged.place(|staged, place| std::fs::rename(staged, place)).map_err(failed)?;
        Ok(Some(LakeFile { path, bytes, modified_millis: crate::lake::now_millis(), stats, known: OnceLock::new() }))
    }
}
