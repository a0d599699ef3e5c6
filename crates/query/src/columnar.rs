//! Answers as columns: Arrow IPC (a stream) and Parquet, part by part.
//!
//! Types are those that other readers know: texts and bytes are no views, and what only this program can read, a value of `data->'field'`, is
//! text in JSON. Parquet has no intervals: there they are text as well.

use crate::encode::{PART_BYTES, rows_of_bytes};
use crate::error::QueryError;
use crate::run::Answer;
use crate::value::{BytesAs, value};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_ipc::writer::StreamWriter;
use bytes::Bytes;
use futures::stream::{self, Stream};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde_json::Value;
use std::sync::Arc;

/// What the writer of a row group holds at most, about.
pub const ROW_GROUP_BYTES: usize = 4 << 20;

/// The form of an answer as columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Columnar {
    Arrow,
    Parquet,
}

impl Columnar {
    /// What a column becomes.
    fn plain(self, kind: &DataType) -> DataType {
        match kind {
            DataType::Utf8View => DataType::Utf8,
            DataType::BinaryView => DataType::Binary,
            DataType::Interval(_) | DataType::Duration(_) if self == Self::Parquet => DataType::Utf8,
            kind if has_union(kind) => DataType::Utf8,
            kind => kind.clone(),
        }
    }

    fn schema(self, of: &Schema) -> SchemaRef {
        let fields = of.fields().iter().map(|f| f.as_ref().clone().with_data_type(self.plain(f.data_type())));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

fn has_union(kind: &DataType) -> bool {
    match kind {
        DataType::Union(..) => true,
        DataType::List(item) | DataType::LargeList(item) => has_union(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_union(field.data_type())),
        _ => false,
    }
}

/// Rows whose texts and bytes are no views, as the table `events` has them.
///
/// # Errors
/// [`QueryError`] for a value that has no text.
pub fn plain_rows(batch: &RecordBatch) -> Result<RecordBatch, QueryError> {
    let schema = Columnar::Arrow.schema(batch.schema_ref());
    plain(batch, &schema).map_err(|error| failed(&error))
}

fn plain(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| plain_column(column, field.data_type())).collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}

fn plain_column(column: &ArrayRef, kind: &DataType) -> Result<ArrayRef, ArrowError> {
    match column.data_type() {
        same if same == kind => Ok(column.clone()),
        DataType::Utf8View | DataType::BinaryView => cast(column, kind),
        _ => {
            let text = |row: usize| {
                Ok(match value(column, row, BytesAs::Hexadecimal)? {
                    Value::Null => None,
                    Value::String(text) => Some(text),
                    other => Some(other.to_string()),
                })
            };
            let texts = (0..column.len()).map(text).collect::<Result<StringArray, ArrowError>>()?;
            Ok(Arc::new(texts))
        }
    }
}

fn failed(error: &dyn std::error::Error) -> QueryError {
    QueryError::Failed(error.to_string())
}

enum Writer {
    Arrow(Box<StreamWriter<Vec<u8>>>),
    Parquet(Box<ArrowWriter<Vec<u8>>>),
}

impl Writer {
    fn new(form: Columnar, schema: &SchemaRef) -> Result<Self, QueryError> {
        Ok(match form {
            Columnar::Arrow => {
                Self::Arrow(Box::new(StreamWriter::try_new(Vec::new(), schema).map_err(|e| failed(&e))?))
            }
            Columnar::Parquet => {
                let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
                let writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties.build()));
                Self::Parquet(Box::new(writer.map_err(|e| no_parquet(&e))?))
            }
        })
    }

    fn write(&mut self, rows: &RecordBatch) -> Result<(), QueryError> {
        match self {
            Self::Arrow(writer) => writer.write(rows).map_err(|e| failed(&e)),
            Self::Parquet(writer) => {
                writer.write(rows).map_err(|e| failed(&e))?;
                let is_full = writer.memory_size() > ROW_GROUP_BYTES;
                if is_full { writer.flush().map_err(|e| failed(&e)) } else { Ok(()) }
            }
        }
    }

    /// What was written since the last call.
    fn written(&mut self) -> Bytes {
        match self {
            Self::Arrow(writer) => std::mem::take(writer.get_mut()).into(),
            Self::Parquet(writer) => std::mem::take(writer.inner_mut()).into(),
        }
    }

    fn finish(self) -> Result<Bytes, QueryError> {
        match self {
            Self::Arrow(writer) => writer.into_inner().map(Bytes::from).map_err(|e| failed(&e)),
            Self::Parquet(writer) => writer.into_inner().map(Bytes::from).map_err(|e| failed(&e)),
        }
    }
}

/// A column that Parquet cannot hold: the asker can cast it.
fn no_parquet(error: &ParquetError) -> QueryError {
    QueryError::invalid(format!("Parquet cannot hold a column of the answer, cast it to text: {error}"))
}

struct Encoding {
    answer: Answer,
    schema: SchemaRef,
    writer: Writer,
    /// Rows that were not written yet: a batch, and its first one.
    rows: Option<(RecordBatch, usize)>,
}

/// The answer as a stream of bytes.
pub(crate) fn encode(answer: Answer, form: Columnar) -> impl Stream<Item = Result<Bytes, QueryError>> + Send {
    let fields: Vec<_> = answer.columns.iter().map(|column| column.field.clone()).collect();
    let schema = form.schema(&Schema::new(fields));
    let begun = Writer::new(form, &schema).map(|writer| Some(Encoding { answer, schema, writer, rows: None }));
    stream::try_unfold(begun, |state| async {
        let Some(mut encoding) = state? else { return Ok(None) };
        let rows = match encoding.rows.take() {
            Some(rows) => Some(rows),
            None => encoding.answer.next().await.transpose()?.map(|batch| (batch, 0)),
        };
        let Some((batch, from)) = rows else {
            if let Some(rows_max) = encoding.answer.beyond_bound() {
                return Err(QueryError::TooManyRows { rows_max });
            }
            return Ok(Some((encoding.writer.finish()?, Ok(None))));
        };
        if from < batch.num_rows() {
            let count = rows_of_bytes(&batch, from, PART_BYTES);
            let part = plain(&batch.slice(from, count), &encoding.schema).map_err(|error| failed(&error))?;
            encoding.writer.write(&part)?;
            encoding.rows = Some((batch, from + count));
        }
        Ok(Some((encoding.writer.written(), Ok(Some(encoding)))))
    })
}
