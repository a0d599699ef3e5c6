//! Answers as bytes: JSON, NDJSON, CSV; Arrow and Parquet in `columnar`.
//!
//! The bytes come as the rows come. An error after the first of them ends the stream with an error, never as a body that looks
//! complete. JSON says `truncated` at its end; the others cannot, so that there an answer beyond the server's bound fails.

use crate::columnar::{self, Columnar};
use crate::error::QueryError;
use crate::run::{Answer, Column};
use crate::value::{BytesAs, value};
use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use serde_json::{Value, json};

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `{"columns": [{"name", "type"}], "rows": [[...]], "truncated": false}`.
    Json,
    /// One object a row.
    Ndjson,
    /// RFC 4180, with a header.
    Csv,
    /// The same for a spreadsheet, which runs texts that look like formulas: those have a `'` before them.
    Spreadsheet,
    /// Arrow IPC, the streaming format.
    Arrow,
    /// A Parquet file.
    Parquet,
}

impl Format {
    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv | Self::Spreadsheet => "text/csv; charset=utf-8; header=present",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// Rows as lists of values, in the order of the columns.
///
/// # Errors
/// [`QueryError`] for a value that has no text.
pub fn json_rows(batch: &RecordBatch, bytes_as: BytesAs) -> Result<Vec<Vec<Value>>, QueryError> {
    let row = |row: usize| batch.columns().iter().map(|column| value(column, row, bytes_as)).collect();
    let rows: Result<_, arrow::error::ArrowError> = (0..batch.num_rows()).map(row).collect();
    rows.map_err(|e| QueryError::Failed(e.to_string()))
}

/// An answer leaves in parts of about this size, however large its rows are.
pub(crate) const PART_BYTES: usize = 256 << 10;

/// How many rows of a batch, from one on, have about so many bytes of text; at least one.
pub(crate) fn rows_of_bytes(batch: &RecordBatch, from: usize, bytes: usize) -> usize {
    let of_row = |row: usize| -> usize { batch.columns().iter().map(|column| text_bytes(column, row)).sum() };
    let mut total = 0;
    let rows = (from..batch.num_rows()).take_while(|row| {
        let before = total;
        total += of_row(*row);
        before < bytes
    });
    rows.count().max(1)
}

fn text_bytes(column: &ArrayRef, row: usize) -> usize {
    match column.data_type() {
        DataType::Utf8View => column.as_string_view().value(row).len(),
        DataType::Utf8 => column.as_string::<i32>().value(row).len(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(row).len(),
        DataType::BinaryView => column.as_binary_view().value(row).len(),
        _ => 16,
    }
}

enum Step {
    Head,
    Rows,
    /// A batch, and its first row that was not encoded yet.
    Batch(RecordBatch, usize),
    Done,
}

/// How rows are written as text.
#[derive(Clone, Copy)]
enum Text {
    Json,
    Ndjson,
    Csv,
    Spreadsheet,
}

/// The answer as a stream of bytes.
pub fn encode(answer: Answer, format: Format) -> impl Stream<Item = Result<Bytes, QueryError>> + Send {
    match format {
        Format::Json => text(answer, Text::Json).left_stream(),
        Format::Ndjson => text(answer, Text::Ndjson).left_stream(),
        Format::Csv => text(answer, Text::Csv).left_stream(),
        Format::Spreadsheet => text(answer, Text::Spreadsheet).left_stream(),
        Format::Arrow => columnar::encode(answer, Columnar::Arrow).right_stream(),
        Format::Parquet => columnar::encode(answer, Columnar::Parquet).right_stream(),
    }
}

fn text(answer: Answer, format: Text) -> impl Stream<Item = Result<Bytes, QueryError>> + Send {
    let begin = (answer, Step::Head, true);
    stream::try_unfold(begin, move |(mut answer, step, first): (Answer, Step, bool)| async move {
        match step {
            Step::Head => {
                let head = head(&answer.columns, format);
                Ok(Some((head, (answer, Step::Rows, true))))
            }
            Step::Rows => match answer.next().await {
                Some(batch) => Ok(Some((Bytes::new(), (answer, Step::Batch(batch?, 0), first)))),
                None => {
                    let tail = tail(&answer, format)?;
                    Ok(Some((tail, (answer, Step::Done, first))))
                }
            },
            Step::Batch(batch, from) if from < batch.num_rows() => {
                let count = rows_of_bytes(&batch, from, PART_BYTES);
                let part = json_rows(&batch.slice(from, count), BytesAs::Hexadecimal)?;
                let bytes = rows(&part, &answer.columns, (format, first));
                Ok(Some((Bytes::from(bytes), (answer, Step::Batch(batch, from + count), false))))
            }
            Step::Batch(..) => Ok(Some((Bytes::new(), (answer, Step::Rows, first)))),
            Step::Done => Ok(None),
        }
    })
}

fn head(columns: &[Column], format: Text) -> Bytes {
    match format {
        Text::Json => {
            let columns: Vec<Value> = columns.iter().map(|c| json!({ "name": c.name, "type": c.kind })).collect();
            format!("{{\"columns\":{},\"rows\":[", Value::from(columns)).into()
        }
        Text::Ndjson => Bytes::new(),
        Text::Csv => csv_line(names(columns)).into(),
        Text::Spreadsheet => csv_line(names(columns).map(no_formula)).into(),
    }
}

fn names(columns: &[Column]) -> impl Iterator<Item = Value> {
    columns.iter().map(|column| Value::from(column.name.as_str()))
}

fn rows(rows: &[Vec<Value>], columns: &[Column], (format, first): (Text, bool)) -> Vec<u8> {
    let mut out = Vec::new();
    for row in rows {
        match format {
            Text::Json => {
                if !(first && out.is_empty()) {
                    out.push(b',');
                }
                serde_json::to_writer(&mut out, row).expect("plain data always serializes");
            }
            Text::Ndjson => {
                for (n, (column, value)) in columns.iter().zip(row).enumerate() {
                    out.push(if n == 0 { b'{' } else { b',' });
                    serde_json::to_writer(&mut out, &column.name).expect("plain data always serializes");
                    out.push(b':');
                    serde_json::to_writer(&mut out, value).expect("plain data always serializes");
                }
                out.extend(if columns.is_empty() { b"{}\n".as_slice() } else { b"}\n" });
            }
            Text::Csv => out.extend(csv_line(row.iter().cloned()).into_bytes()),
            Text::Spreadsheet => out.extend(csv_line(row.iter().cloned().map(no_formula)).into_bytes()),
        }
    }
    out
}

fn tail(answer: &Answer, format: Text) -> Result<Bytes, QueryError> {
    match format {
        Text::Json => Ok(format!("],\"truncated\":{}}}\n", answer.truncated()).into()),
        Text::Ndjson | Text::Csv | Text::Spreadsheet => match answer.beyond_bound() {
            Some(rows_max) => Err(QueryError::TooManyRows { rows_max }),
            None => Ok(Bytes::new()),
        },
    }
}

/// A text that a spreadsheet would run gets a `'` before it, as OWASP's page on CSV injection has it. Numbers stay what they are.
fn no_formula(value: Value) -> Value {
    match value {
        Value::String(text)
            if text.starts_with([
                '=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}',
            ]) =>
        {
            Value::String(format!("'{text}"))
        }
        other => other,
    }
}

/// A line by RFC 4180; null is an empty field, an empty text is `""`.
fn csv_line(values: impl Iterator<Item = Value>) -> String {
    let field = |value: Value| match value {
        Value::Null => String::new(),
        Value::String(text) => {
            let plain = !text.is_empty() && !text.contains([',', '"', '\r', '\n']) && text.trim() == text;
            if plain { text } else { format!("\"{}\"", text.replace('"', "\"\"")) }
        }
        value @ (Value::Array(_) | Value::Object(_)) => {
            format!("\"{}\"", value.to_string().replace('"', "\"\""))
        }
        other => other.to_string(),
    };
    values.map(field).collect::<Vec<_>>().join(",") + "\r\n"
}
