//! Data files: Parquet, one for each day of receipt in the batches of a seal, in the [order](crate::sort) of all data files.

use crate::error::LakeError;
use crate::name;
use crate::sort::{ORDER, Part, parts, sorted};
use crate::stats::FileStats;
use arrow::array::{AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use event::{FIELDS, Fields, Splitter, WHOLE, data_of};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, mpsc};
use uuid::Uuid;

/// Rows of a row group: small enough that a reader's memory stays small, large enough to compress well.
const ROW_GROUP_ROWS: usize = 128 * 1024;
/// And its bytes, encoded, which a writer holds, and as they are.
const ROW_GROUP_BYTES: usize = 16 << 20;
const ROW_GROUP_PLAIN_BYTES: usize = 256 << 20;
/// And what the writer holds for it: many columns hold more than they have encoded.
const WRITER_BYTES: usize = 48 << 20;
/// A page of a column has no more than about twice this: rows are handed on in parts of it, and a reader holds a whole page.
const PAGE_BYTES: usize = 1 << 20;
/// Cuts that wait to be written.
const CUTS_WAITING: usize = 2;
/// Rows after which the size of a page is looked at.
const PAGE_ROWS: usize = 1024;
/// The longest row of each row group, separated by commas: how many a merge may read at once.
pub(crate) const WIDEST: &str = "catchment.widest_row_bytes";
const DAY_MICROS: i64 = 86_400_000_000;

/// An encoded file that is not stored yet.
pub(crate) struct Encoded {
    pub(crate) path: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) stats: FileStats,
}

/// Encodes the batches of one seal, with a column for each of `fields`. Whether there are fields that have no column and may get one.
pub(crate) fn encode(
    batches: &[RecordBatch],
    wal: Uuid,
    range: (u64, u64),
    fields: &Fields,
) -> Result<(Vec<Encoded>, bool), LakeError> {
    let mut days: BTreeMap<i64, Vec<RecordBatch>> = BTreeMap::new();
    for batch in batches {
        split(batch.clone(), &mut days)?;
    }
    let (mut files, mut saw_new) = (Vec::new(), false);
    for (n, (day, batches)) in days.into_iter().enumerate() {
        let mut file = DataFile::new(Vec::new(), batches[0].schema(), fields)?;
        file.write_all(sorted(&batches)?)?;
        saw_new |= file.cutter.splitter.saw_new();
        let (bytes, stats) = file.finish()?;
        files.push(Encoded { path: name::path(&day_text(day), wal, range, n), bytes, stats });
    }
    Ok((files, saw_new))
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

/// A data file being written: its rows come in order.
pub(crate) struct DataFile<W: Write + Send> {
    cutter: Cutter,
    groups: Groups<W>,
}

impl<W: Write + Send> DataFile<W> {
    /// Its rows have the columns of `table`; those of `fields` are made here.
    pub(crate) fn new(sink: W, table: SchemaRef, fields: &Fields) -> Result<Self, LakeError> {
        let schema = Arc::new(fields.schema(&table));
        // Without the Arrow schema in the file, every reader sees the plain Parquet types.
        let options = ArrowWriterOptions::new().with_properties(properties(&schema)).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(sink, schema.clone(), options)?;
        let stats = FileStats { whole: WHOLE, ..FileStats::default() };
        let cutter = Cutter { schema, splitter: Splitter::new(fields.clone()), stats };
        Ok(Self { cutter, groups: Groups { writer, widest: vec![0], rows: 0, bytes: 0 } })
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), LakeError> {
        self.cutter.cut(batch, |cut| self.groups.write(cut))
    }

    /// Writes these batches, while the next ones are made and cut on a thread of their own.
    fn write_all(
        &mut self,
        batches: impl Iterator<Item = Result<RecordBatch, ArrowError>> + Send,
    ) -> Result<(), LakeError> {
        let Self { cutter, groups } = self;
        std::thread::scope(|scope| {
            let (sender, cuts) = mpsc::sync_channel(CUTS_WAITING);
            let cutting = scope.spawn(move || -> Result<(), LakeError> {
                for batch in batches {
                    // Nobody takes them when one could not be written, which tells why.
                    cutter.cut(&batch?, |cut| sender.send(cut).map_err(|_| LakeError::Interrupted))?;
                }
                Ok(())
            });
            for cut in cuts {
                groups.write(cut)?;
            }
            cutting.join().map_err(|_| LakeError::Interrupted)?
        })
    }

    /// What was written, and what is in it.
    pub(crate) fn finish(self) -> Result<(W, FileStats), LakeError> {
        Ok((self.groups.finish()?, self.cutter.stats))
    }
}

/// Rows that are written at once, with the columns of fields.
struct Cut {
    rows: RecordBatch,
    /// Of the table's own columns.
    bytes: usize,
    widest: usize,
}

/// Cuts batches into what is written at once.
struct Cutter {
    /// The columns of the table with those of the fields.
    schema: SchemaRef,
    splitter: Splitter,
    stats: FileStats,
}

impl Cutter {
    fn cut(
        &mut self,
        batch: &RecordBatch,
        mut take: impl FnMut(Cut) -> Result<(), LakeError>,
    ) -> Result<(), LakeError> {
        self.stats.add(batch);
        let fields_bytes = self.splitter.fields().len() * size_of::<f64>();
        for Part { rows, bytes, widest } in parts(batch, PAGE_BYTES, fields_bytes) {
            let split = self.splitter.split(data_of(&rows));
            self.stats.whole = self.stats.whole.min(split.whole);
            let columns = rows.columns().iter().cloned().chain(split.columns).collect();
            take(Cut { rows: RecordBatch::try_new(self.schema.clone(), columns)?, bytes, widest })?;
        }
        Ok(())
    }
}

/// The row groups of a data file.
struct Groups<W: Write + Send> {
    writer: ArrowWriter<W>,
    /// The longest row of each, the last one of which is being written.
    widest: Vec<usize>,
    /// Rows of that one, and their bytes.
    rows: usize,
    bytes: usize,
}

impl<W: Write + Send> Groups<W> {
    fn write(&mut self, Cut { rows, bytes, widest }: Cut) -> Result<(), LakeError> {
        if self.rows + rows.num_rows() > ROW_GROUP_ROWS || self.bytes + bytes > ROW_GROUP_PLAIN_BYTES {
            self.end()?;
        }
        self.writer.write(&rows)?;
        self.rows += rows.num_rows();
        self.bytes += bytes;
        let at = self.widest.len() - 1;
        self.widest[at] = self.widest[at].max(widest);
        if self.writer.in_progress_size() > ROW_GROUP_BYTES || self.writer.memory_size() > WRITER_BYTES {
            self.end()?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), LakeError> {
        if self.rows > 0 {
            self.writer.flush()?;
            (self.rows, self.bytes) = (0, 0);
            self.widest.push(0);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<W, LakeError> {
        let widest: Vec<String> = self.widest.iter().filter(|bytes| **bytes > 0).map(usize::to_string).collect();
        self.writer.append_key_value_metadata(KeyValue::new(WIDEST.to_owned(), widest.join(",")));
        Ok(self.writer.into_inner()?)
    }
}

/// The order of the rows, as Parquet says it.
pub(crate) fn sorting_columns(schema: &Schema) -> Vec<SortingColumn> {
    let column = |name: &str| {
        let column_idx = schema.index_of(name).expect("a column of the table") as i32;
        SortingColumn { column_idx, descending: false, nulls_first: false }
    };
    ORDER.into_iter().map(column).collect()
}

fn properties(schema: &Schema) -> WriterProperties {
    let column = |name: &str| ColumnPath::from(name);
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(None)
        .set_write_batch_size(PAGE_ROWS)
        .set_sorting_columns(Some(sorting_columns(schema)))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_column_dictionary_enabled(column("position"), false)
        .set_column_encoding(column("position"), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(column("time"), false)
        .set_column_encoding(column("time"), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(column("id"), false)
        .set_column_encoding(column("id"), Encoding::DELTA_BYTE_ARRAY);
    // Pages that a reader may pass over.
    let of_fields = schema.fields().iter().map(|field| field.name().as_str()).filter(|name| name.starts_with(FIELDS));
    for name in ["position", "sensor", "type", "time", "received_at"].into_iter().chain(of_fields) {
        properties =
            properties.set_column_statistics_enabled(ColumnPath::new(vec![name.to_owned()]), EnabledStatistics::Page);
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
