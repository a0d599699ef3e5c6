//! Data files: Parquet, one for each day of receipt in the batches of a seal, in the [order](crate::sort) of all data files.

use crate::error::LakeError;
use crate::lake::Pace;
use crate::name;
use crate::sort::{ORDER, Part, parts, sorted};
use crate::stats::FileStats;
use crate::sums::{Summed, finish_summed};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Float64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use event::{FIELDS, Fields, Splitter, WHOLE, data_of, types_of};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{KeyValue, ParquetMetaData, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::collections::{BTreeMap, HashSet};
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
/// Fewer values do not tell whether they repeat.
const VALUES_MIN: usize = 64;
/// The longest row of each row group, separated by commas: how many a merge may read at once.
pub(crate) const WIDEST: &str = "catchment.widest_row_bytes";
/// The fields of `data`, by type of event.
pub(crate) const SEEN: &str = "catchment.fields";

/// What a data file notes under one of these keys.
pub(crate) fn noted<'a>(footer: &'a ParquetMetaData, key: &str) -> Option<&'a str> {
    let notes = footer.file_metadata().key_value_metadata()?;
    notes.iter().find(|note| note.key == key)?.value.as_deref()
}

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
    (wal, range): (Uuid, (u64, u64)),
    pace: Pace,
    fields: &Fields,
) -> Result<(Vec<Encoded>, bool), LakeError> {
    let mut days: BTreeMap<i64, Vec<RecordBatch>> = BTreeMap::new();
    for batch in batches {
        split(batch.clone(), &mut days)?;
    }
    let (mut files, mut saw_new) = (Vec::new(), false);
    for (n, (day, batches)) in days.into_iter().enumerate() {
        let mut file = DataFile::new(Vec::new(), batches[0].schema_ref(), fields);
        file.write_all(sorted(&batches), pace)?;
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
    writing: Writing<W>,
}

impl<W: Write + Send> DataFile<W> {
    /// Its rows have the columns of `table`; those of `fields` are made here.
    pub(crate) fn new(sink: W, table: &Schema, fields: &Fields) -> Self {
        let schema = Arc::new(fields.schema(table));
        let stats = FileStats { whole: WHOLE, ..FileStats::default() };
        let cutter = Cutter { schema, splitter: Splitter::new(fields.clone()), stats };
        Self { cutter, writing: Writing { sink: Some(sink), groups: None } }
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), LakeError> {
        self.cutter.cut(batch, |cut| self.writing.write(cut))
    }

    /// Writes these batches, pressed while the next ones are made and cut on a thread of their own.
    fn write_all(
        &mut self,
        mut batches: impl Iterator<Item = Result<RecordBatch, ArrowError>> + Send,
        pace: Pace,
    ) -> Result<(), LakeError> {
        if pace == Pace::Calm {
            return batches.try_for_each(|batch| self.write(&batch?));
        }
        let Self { cutter, writing } = self;
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
                writing.write(cut)?;
            }
            cutting.join().map_err(|_| LakeError::Interrupted)?
        })
    }

    /// What was written, and what is in it.
    pub(crate) fn finish(self) -> Result<(W, FileStats), LakeError> {
        let Self { cutter, writing } = self;
        Ok((writing.finish(cutter.splitter.seen().to_json())?, cutter.stats))
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
            let split = self.splitter.split(data_of(&rows), types_of(&rows));
            self.stats.whole = self.stats.whole.min(split.whole);
            let columns = rows.columns().iter().cloned().chain(split.columns).collect();
            take(Cut { rows: RecordBatch::try_new(self.schema.clone(), columns)?, bytes, widest })?;
        }
        Ok(())
    }
}

/// Where the rows of a data file go. How its columns are encoded, its first rows tell.
struct Writing<W: Write + Send> {
    /// Until there are row groups.
    sink: Option<W>,
    groups: Option<Groups<W>>,
}

impl<W: Write + Send> Writing<W> {
    fn write(&mut self, cut: Cut) -> Result<(), LakeError> {
        let groups = match &mut self.groups {
            Some(groups) => groups,
            none => none.insert(Groups::new(self.sink.take().ok_or(LakeError::Interrupted)?, &cut.rows)?),
        };
        groups.write(cut)
    }

    fn finish(self, seen: String) -> Result<W, LakeError> {
        self.groups.ok_or(LakeError::Interrupted)?.finish(seen)
    }
}

/// The row groups of a data file.
struct Groups<W: Write + Send> {
    writer: ArrowWriter<Summed<W>>,
    /// The longest row of each, the last one of which is being written.
    widest: Vec<usize>,
    /// Rows of that one, and their bytes.
    rows: usize,
    bytes: usize,
}

impl<W: Write + Send> Groups<W> {
    fn new(sink: W, first: &RecordBatch) -> Result<Self, LakeError> {
        // Without the Arrow schema in the file, every reader sees the plain Parquet types.
        let options = ArrowWriterOptions::new().with_properties(properties(first)).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Summed::new(sink), first.schema(), options)?;
        Ok(Self { writer, widest: vec![0], rows: 0, bytes: 0 })
    }

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

    fn finish(mut self, seen: String) -> Result<W, LakeError> {
        let widest: Vec<String> = self.widest.iter().filter(|bytes| **bytes > 0).map(usize::to_string).collect();
        self.writer.append_key_value_metadata(KeyValue::new(WIDEST.to_owned(), widest.join(",")));
        self.writer.append_key_value_metadata(KeyValue::new(SEEN.to_owned(), seen));
        Ok(finish_summed(self.writer)?)
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

fn properties(first: &RecordBatch) -> WriterProperties {
    let schema = first.schema_ref();
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
        .set_column_encoding(column("id"), Encoding::DELTA_BYTE_ARRAY)
        // Row groups that do not have an id are passed over. It is folded to what the row group needs.
        .set_column_bloom_filter_max_ndv(column("id"), ROW_GROUP_ROWS as u64)
        .set_column_bloom_filter_fpp(column("id"), 0.01);
    // Pages that a reader may pass over.
    let of_fields = schema.fields().iter().map(|field| field.name().as_str()).filter(|name| name.starts_with(FIELDS));
    for name in ["position", "sensor", "type", "time", "received_at"].into_iter().chain(of_fields) {
        properties =
            properties.set_column_statistics_enabled(ColumnPath::new(vec![name.to_owned()]), EnabledStatistics::Page);
    }
    // A dictionary of values that do not repeat costs time, and saves nothing.
    let fields = schema.fields().iter().zip(first.columns()).filter(|(field, _)| field.name().starts_with(FIELDS));
    for (field, values) in fields.filter(|(_, values)| seldom_repeats(values)) {
        let column = ColumnPath::new(vec![field.name().clone()]);
        properties = properties.set_column_dictionary_enabled(column.clone(), false);
        if values.data_type() == &DataType::Utf8 {
            properties = properties.set_column_encoding(column, Encoding::DELTA_BYTE_ARRAY);
        }
    }
    for name in ["id", "subject", "attributes", "data", "data_binary"] {
        properties = properties.set_column_statistics_enabled(column(name), EnabledStatistics::None);
    }
    for name in ["data", "data_binary"] {
        properties = properties.set_column_dictionary_enabled(column(name), false);
    }
    properties.build()
}

/// Whether of the first values of a column, when there are enough to tell, most are there once.
fn seldom_repeats(values: &ArrayRef) -> bool {
    let first = values.slice(0, values.len().min(PAGE_ROWS));
    let (count, distinct) = match first.data_type() {
        DataType::Utf8 => {
            let texts = first.as_string::<i32>().iter().flatten();
            (texts.clone().count(), texts.collect::<HashSet<_>>().len())
        }
        DataType::Float64 => {
            let bits = first.as_primitive::<Float64Type>().iter().flatten().map(f64::to_bits);
            (bits.clone().count(), bits.collect::<HashSet<_>>().len())
        }
        _ => return false,
    };
    count >= VALUES_MIN && distinct * 2 > count
}

fn day_text(day: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(day.saturating_mul(DAY_MICROS)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d").to_string()
}
