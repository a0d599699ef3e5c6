//! A lake with few columns, and what is in it.

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use event::FieldRules;
use lake::{Lake, LakeMetrics, Pace, Sealing};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// The second day of the epoch, in microseconds.
pub(crate) const DAY: i64 = 86_400_000_000;
pub(crate) const WAL: Uuid = Uuid::from_u128(0x1234);

pub(crate) fn schema() -> SchemaRef {
    let micros = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("position", DataType::Int64, false),
        Field::new("id", DataType::Utf8, false),
        Field::new("sensor", DataType::Utf8, false),
        Field::new("type", DataType::Utf8, false),
        Field::new("time", micros(), false),
        Field::new("received_at", micros(), false),
        Field::new("data", DataType::Utf8, true),
        Field::new("data_binary", DataType::Binary, true),
    ]))
}

/// One event.
pub(crate) struct Event {
    position: i64,
    sensor: &'static str,
    received_at: i64,
    time: i64,
}

pub(crate) fn event(position: i64, sensor: &'static str, received_at: i64, time: i64) -> Event {
    Event { position, sensor, received_at, time }
}

/// A seal of these events, whose positions have no gap.
pub(crate) fn sealing_of(events: Vec<Event>) -> Sealing {
    let texts = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text; events.len()])) };
    let times = |of: fn(&Event) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(events.iter().map(of)).with_timezone("UTC"))
    };
    let columns = vec![
        Arc::new(Int64Array::from_iter_values(events.iter().map(|e| e.position))) as ArrayRef,
        texts("id"),
        Arc::new(StringArray::from_iter_values(events.iter().map(|e| e.sensor))),
        texts("reading"),
        times(|e| e.time),
        times(|e| e.received_at),
        texts("{\"t\": 1}"),
        new_null_array(&DataType::Binary, events.len()),
    ];
    let batch = RecordBatch::try_new(schema(), columns).expect("the columns fit");
    let position = |e: Option<&Event>| e.expect("events").position as u64;
    Sealing {
        first: position(events.first()),
        last: position(events.last()),
        batches: vec![batch],
        pace: Pace::Pressed,
    }
}

pub(crate) async fn open(dir: &Path) -> Lake {
    Lake::open(dir, &schema(), WAL, FieldRules::default(), LakeMetrics::default()).await.expect("the lake opens")
}

/// The rows of a data file.
pub(crate) fn read(path: &Path) -> Vec<RecordBatch> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).expect("a file")).expect("Parquet");
    builder.build().expect("a reader").collect::<Result<_, _>>().expect("rows")
}

/// Sensor, time and position of each row.
pub(crate) fn rows_of(batch: &RecordBatch) -> Vec<(String, i64, i64)> {
    let column = |name: &str| batch.column_by_name(name).expect("a column");
    let (sensor, position) = (column("sensor").as_string::<i32>(), column("position").as_primitive::<Int64Type>());
    let time = column("time").as_primitive::<TimestampMicrosecondType>();
    (0..batch.num_rows()).map(|n| (sensor.value(n).to_owned(), time.value(n), position.value(n))).collect()
}

/// The positions of all rows in the files that the lake names, sorted.
pub(crate) fn positions(lake: &Lake) -> Vec<i64> {
    let snapshot = lake.snapshot();
    let rows = snapshot.files.iter().flat_map(|f| read(&snapshot.root.join(&f.path))).flat_map(|b| rows_of(&b));
    let mut positions: Vec<i64> = rows.map(|(_, _, position)| position).collect();
    positions.sort_unstable();
    positions
}
