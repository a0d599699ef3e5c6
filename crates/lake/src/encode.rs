//! Data files: Parquet, one for each day of receipt in the batches of a seal, in the [order](crate::sort) of all data files.

use crate::error::LakeError;
use crate::name;
use crate::sort::{ORDER, sorted};
use crate::stats::FileStats;
use arrow::array::{AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::collections::BTreeMap;
use std::io::Write;
use uuid::Uuid;

/// Rows of a row group: small enough that a reader's memory stays small, large enough to compress well.
const ROW_GROUP_ROWS: usize = 128 * 1024;
/// And its encoded bytes: a writer holds them.
const ROW_GROUP_BYTES: usize = 16 << 20;
/// A page of a column has about this size.
const PAGE_BYTES: usize = 1 << 20;
const PAGE_ROWS_MIN: usize = 4;
const PAGE_ROWS_MAX: usize = 1024;
const DAY_MICROS: i64 = 86_400_000_000;

/// An encoded file that is not stored yet.
pub(crate) struct Encoded {
    pub(crate) path: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) stats: FileStats,
}

/// Encodes the batches of one seal.
pub(crate) fn encode(batches: Vec<RecordBatch>, wal: Uuid, range: (u64, u64)) -> Result<Vec<Encoded>, LakeError> {
    let mut days: BTreeMap<i64, Vec<RecordBatch>> = BTreeMap::new();
    for batch in batches {
        split(batch, &mut days)?;
    }
    let files = days.into_iter().enumerate().map(|(n, (day, batches))| {
        let day = day_text(day);
        let (bytes, stats) = file(&batches)?;
        Ok(Encoded { path: name::path(&day, wal, range, n), bytes, stats })
    });
    files.collect()
}

fn split(batch: RecordBatch, days: &mut BTreeMap<i64, Vec<RecordBatch>>) -> Result<(), LakeError> {
    let received = batch.column_by_name("received_at").expect("a column of the table");
    let of_row: Vec<i64> =
        received.as_primitive::<TimestampMicrosecondType>().values().iter().map(|t| t.div_euclid(DAY_MICROS)).collect();
    let Some(&first) = of_row.first() else {
        return Ok(());
    };
    if of_row.iter().all(|day| *day == first) {
        days.entry(first).or_default().push(batch);
        return Ok(());
    }
    let mut each = of_row.clone();
    each.sort_unstable();
    each.dedup();
    for day in each {
        let mask: BooleanArray = of_row.iter().map(|d| Some(*d == day)).collect();
        days.entry(day).or_default().push(filter_record_batch(&batch, &mask)?);
    }
    Ok(())
}

fn file(batches: &[RecordBatch]) -> Result<(Vec<u8>, FileStats), LakeError> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    let mut file = DataFile::new(Vec::new(), batches[0].schema(), bytes / rows.max(1))?;
    for batch in sorted(batches)? {
        file.write(&batch?)?;
    }
    file.finish()
}

/// A data file being written: its rows come in order.
pub(crate) struct DataFile<W: Write + Send> {
    writer: ArrowWriter<W>,
    stats: FileStats,
}

impl<W: Write + Send> DataFile<W> {
    /// A file whose rows have about `row_bytes` each.
    pub(crate) fn new(sink: W, schema: SchemaRef, row_bytes: usize) -> Result<Self, LakeError> {
        // Without the Arrow schema in the file, every reader sees the plain Parquet types.
        let options =
            ArrowWriterOptions::new().with_properties(properties(&schema, row_bytes)).with_skip_arrow_metadata(true);
        Ok(Self { writer: ArrowWriter::try_new_with_options(sink, schema, options)?, stats: FileStats::default() })
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), LakeError> {
        self.stats.add(batch);
        self.writer.write(batch)?;
        if self.writer.in_progress_size() > ROW_GROUP_BYTES {
            self.writer.flush()?;
        }
        Ok(())
    }

    /// What was written, and what is in it.
    pub(crate) fn finish(self) -> Result<(W, FileStats), LakeError> {
        Ok((self.writer.into_inner()?, self.stats))
    }
}

/// How many rows are written before the size of a page is looked at: few when they are large, because a reader holds a whole page.
fn rows_of_a_page(row_bytes: usize) -> usize {
    (PAGE_BYTES / row_bytes.max(1)).clamp(PAGE_ROWS_MIN, PAGE_ROWS_MAX)
}

/// The order of the rows, as Parquet says it.
pub(crate) fn sorting_columns(schema: &Schema) -> Vec<SortingColumn> {
    let column = |name: &str| {
        let column_idx = schema.index_of(name).expect("a column of the table") as i32;
        SortingColumn { column_idx, descending: false, nulls_first: false }
    };
    ORDER.into_iter().map(column).collect()
}

fn properties(schema: &Schema, row_bytes: usize) -> WriterProperties {
    let column = |name: &str| ColumnPath::from(name);
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_write_batch_size(rows_of_a_page(row_bytes))
        .set_sorting_columns(Some(sorting_columns(schema)))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_column_dictionary_enabled(column("position"), false)
        .set_column_encoding(column("position"), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(column("time"), false)
        .set_column_encoding(column("time"), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(column("id"), false)
        .set_column_encoding(column("id"), Encoding::DELTA_BYTE_ARRAY);
    // Pages that a reader may pass over.
    for name in ["position", "sensor", "type", "time", "received_at"] {
        properties = properties.set_column_statistics_enabled(column(name), EnabledStatistics::Page);
    }
    for name in ["id", "subject", "attributes", "data", "data_binary"] {
        properties = properties.set_column_statistics_enabled(column(name), EnabledStatistics::None);
    }
    for name in ["data", "data_binary"] {
        properties = properties.set_column_dictionary_enabled(column(name), false);
    }
    properties.build()
}

fn day_text(day: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(day.saturating_mul(DAY_MICROS)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d").to_string()
}
