//! Rows of the table `events` as columns of Arrow, which become lines, and the same as they come in files of others.

use crate::line::{COLUMNS, Line, base64_text};
use anyhow::{Context, bail, ensure};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use std::sync::Arc;

/// The columns of the table, with their types.
pub(crate) fn schema() -> SchemaRef {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let field = |name: &str| match name {
        "position" => Field::new(name, DataType::Int64, false),
        "time" | "received_at" => Field::new(name, micros.clone(), false),
        "data_base64" => Field::new("data_binary", DataType::Binary, true),
        "subject" | "content_type" | "attributes" | "data" => Field::new(name, DataType::Utf8, true),
        _ => Field::new(name, DataType::Utf8, false),
    };
    Arc::new(Schema::new(COLUMNS.map(field).to_vec()))
}

/// What every event has.
const NEEDED: [&str; 6] = ["id", "sensor", "source", "type", "time", "received_at"];

/// Rows with the columns of the table, whatever order and kin of types they came in; the position may be missing.
///
/// # Errors
/// A column that an event needs is missing, of another kind, or one that would be lost.
pub(crate) fn of_table(batch: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let (schema, given) = (schema(), batch.schema());
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    if let Some(other) = given.fields().iter().find(|field| !names.contains(&field.name().as_str())) {
        bail!("the column {:?} is none of an export's: leave it out", other.name());
    }
    for (n, field) in given.fields().iter().enumerate() {
        let is_twice = given.fields()[..n].iter().any(|before| before.name() == field.name());
        ensure!(!is_twice, "the column {:?} is there twice", field.name());
    }
    let column = |field: &Arc<Field>| -> anyhow::Result<ArrayRef> {
        let name = field.name().as_str();
        let Some(column) = batch.column_by_name(name) else {
            if NEEDED.contains(&name) {
                bail!("the column {name:?} is missing: an export has {}", names.join(", "));
            }
            return Ok(new_null_array(field.data_type(), batch.num_rows()));
        };
        let is_time = |kind: &DataType| matches!(kind, DataType::Timestamp(..));
        if is_time(field.data_type()) && !matches!(column.data_type(), DataType::Timestamp(_, Some(_))) {
            bail!("the column {name:?} has times without a zone, or none: an export has them in UTC");
        }
        let (found, expected) = (column.data_type(), field.data_type());
        ensure!(
            found.is_null() || kind_of(found) == kind_of(expected),
            "the column {name:?} is of the type {found}, and an export has {} there",
            kind_of(expected)
        );
        cast(column, expected).with_context(|| format!("the column {name:?} is not what an export has"))
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    let may_be_null = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(may_be_null.collect::<Vec<_>>())), columns)?)
}

/// What a type of Arrow is made of, in words.
fn kind_of(kind: &DataType) -> &'static str {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "texts",
        DataType::Dictionary(_, value) => kind_of(value),
        DataType::Timestamp(..) => "times",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "bytes",
        kind if kind.is_integer() => "whole numbers",
        _ => "something else",
    }
}

/// Rows of the table, to be read one by one.
pub(crate) struct Rows<'a> {
    batch: &'a RecordBatch,
}

impl<'a> Rows<'a> {
    /// Those of a batch that has the columns of [`schema`], in their order.
    pub(crate) fn of(batch: &'a RecordBatch) -> Self {
        Self { batch }
    }

    /// A row as a line.
    pub(crate) fn line(&self, row: usize) -> Line<'a> {
        let mut line = Line::default();
        for (value, column) in line.0.iter_mut().zip(self.batch.columns()) {
            if column.is_null(row) {
                continue;
            }
            *value = Some(match column.data_type() {
                DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string().into(),
                DataType::Timestamp(..) => {
                    engine::format_time(column.as_primitive::<TimestampMicrosecondType>().value(row)).into()
                }
                DataType::Binary => base64_text(column.as_binary::<i32>().value(row)).into(),
                _ => {
                    let texts: &'a StringArray = column.as_string::<i32>();
                    texts.value(row).into()
                }
            });
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{LargeStringArray, TimestampNanosecondArray};

    fn rows(change: impl FnOnce(&mut Vec<(&'static str, ArrayRef)>)) -> anyhow::Result<String> {
        let text = |text: &str| -> ArrayRef { Arc::new(LargeStringArray::from(vec![text])) };
        let time: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1_500_000_000]).with_timezone("UTC"));
        let mut columns = vec![
            ("received_at", time.clone()),
            ("time", time),
            ("type", text("t")),
            ("id", text("a")),
            ("sensor", text("roof")),
            ("source", text("")),
        ];
        change(&mut columns);
        let batch = of_table(&RecordBatch::try_from_iter(columns)?)?;
        let mut out = Vec::new();
        Rows::of(&batch).line(0).csv(&mut out);
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn rows_are_known_by_their_names_and_what_would_be_lost_is_refused() {
        let line = ",a,roof,\"\",t,,1970-01-01T00:00:01.5Z,1970-01-01T00:00:01.5Z,,,,\r\n";
        assert_eq!(rows(|_| {}).expect("a row"), line);
        let refused = |change: fn(&mut Vec<(&'static str, ArrayRef)>)| rows(change).expect_err("refused").to_string();
        let missing = refused(|columns| drop(columns.remove(3)));
        assert!(missing.contains("\"id\" is missing"), "{missing}");
        let other = refused(|columns| columns[3].0 = "identifier");
        assert!(other.contains("\"identifier\" is none"), "{other}");
        let number = refused(|columns| columns[3].1 = Arc::new(arrow::array::Int64Array::from(vec![7])));
        assert!(number.contains("\"id\" is of the type Int64, and an export has texts there"), "{number}");
        let twice = refused(|columns| columns.push(columns[3].clone()));
        assert!(twice.contains("\"id\" is there twice"), "{twice}");
        let zoneless = refused(|columns| columns[1].1 = Arc::new(TimestampNanosecondArray::from(vec![1])));
        assert!(zoneless.contains("\"time\" has times without a zone"), "{zoneless}");
    }
}
