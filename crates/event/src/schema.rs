//! The columns of the table `events`, as `docs/SCHEMA.md` describes them.

use arrow::array::{AsArray, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use std::sync::{Arc, LazyLock};

fn micros() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

static BATCH: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, true),
        Field::new("sensor", DataType::Utf8, false),
        Field::new("source", DataType::Utf8, false),
        Field::new("type", DataType::Utf8, false),
        Field::new("subject", DataType::Utf8, true),
        Field::new("time", micros(), false),
        Field::new("received_at", micros(), false),
        Field::new("content_type", DataType::Utf8, true),
        Field::new("attributes", DataType::Utf8, true),
        Field::new("data", DataType::Utf8, true),
        Field::new("data_binary", DataType::Binary, true),
    ]))
});

static EVENTS: LazyLock<SchemaRef> = LazyLock::new(|| {
    let mut fields = vec![Arc::new(Field::new("position", DataType::Int64, false))];
    fields.push(Arc::new(Field::new("id", DataType::Utf8, false)));
    fields.extend(BATCH.fields().iter().skip(1).cloned());
    Arc::new(Schema::new(fields))
});

/// The table `events`: position, id, sensor, source, type, subject, time, received_at, content_type, attributes, data,
/// data_binary.
pub fn events_schema() -> SchemaRef {
    EVENTS.clone()
}

/// The texts of `data` in rows of the table.
///
/// # Panics
/// When the rows are of another table.
pub fn data_of(rows: &RecordBatch) -> &StringArray {
    texts_of(rows, "data")
}

/// The types of the events in rows of the table.
///
/// # Panics
/// When the rows are of another table.
pub fn types_of(rows: &RecordBatch) -> &StringArray {
    texts_of(rows, "type")
}

fn texts_of<'a>(rows: &'a RecordBatch, column: &str) -> &'a StringArray {
    rows.column_by_name(column).expect("a column of the table").as_string()
}

/// A batch as it was read: the table without positions; an id is null where none was given.
pub fn batch_schema() -> SchemaRef {
    BATCH.clone()
}
