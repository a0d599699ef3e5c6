//! The table `rejected` as DataFusion asks for it: read a page at a time while the question runs.
//!
//! A question sees the rows that were there when it began to read, but for those that were pushed out meanwhile.

use ::rejected::{Filter, Order, Rejected, Row};
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use std::sync::{Arc, LazyLock};

/// Rows of a page, and the memory after which it has no more.
const PAGE_ROWS: usize = 1024;
const PAGE_BYTES: usize = 1 << 20;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("rejected_position", DataType::Int64, false),
        Field::new("received_at", micros, false),
        Field::new("sensor", DataType::Utf8, false),
        Field::new("request_id", DataType::Utf8, false),
        Field::new("index", DataType::Int64, false),
        Field::new("code", DataType::Utf8, false),
        Field::new("pointer", DataType::Utf8, true),
        Field::new("reason", DataType::Utf8, false),
        Field::new("mode", DataType::Utf8, false),
        Field::new("parameters", DataType::Utf8, true),
        Field::new("content_type", DataType::Utf8, true),
        Field::new("headers", DataType::Utf8, true),
        Field::new("data", DataType::Utf8, true),
        Field::new("data_binary", DataType::Binary, true),
        Field::new("bytes", DataType::Int64, false),
        Field::new("cut", DataType::Boolean, false),
    ]))
});

/// The table.
pub(crate) fn table(rejected: &Rejected) -> Result<Arc<dyn TableProvider>> {
    let pages: Arc<dyn PartitionStream> = Arc::new(Pages(rejected.clone()));
    Ok(Arc::new(StreamingTable::try_new(SCHEMA.clone(), vec![pages])?))
}

#[derive(Debug)]
struct Pages(Rejected);

impl PartitionStream for Pages {
    fn schema(&self) -> &SchemaRef {
        &SCHEMA
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let start = (self.0.clone(), None, 0);
        let pages =
            futures::stream::try_unfold(start, async |(rejected, last, after): (Rejected, Option<i64>, i64)| {
                let failed = |e| DataFusionError::External(Box::new(e));
                let last = match last {
                    Some(last) => last,
                    None => rejected.last_position().await.map_err(failed)?,
                };
                let filter = Filter { beyond: Some(after), order: Order::Oldest, ..Filter::default() };
                let mut rows = rejected.read(&filter, PAGE_ROWS, PAGE_BYTES).await.map_err(failed)?;
                rows.retain(|row| row.position <= last);
                let Some(after) = rows.last().map(|row| row.position) else { return Ok(None) };
                Ok(Some((batch(&rows)?, (rejected, Some(last), after))))
            });
        Box::pin(RecordBatchStreamAdapter::new(SCHEMA.clone(), pages))
    }
}

fn batch(rows: &[Row]) -> Result<RecordBatch> {
    let numbers = |of: fn(&Row) -> i64| Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) as ArrayRef;
    let texts = |of: fn(&Row) -> Option<&str>| Arc::new(rows.iter().map(of).collect::<StringArray>()) as ArrayRef;
    let received =
        TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.received_at)).with_timezone("UTC");
    let binary: BinaryArray = rows.iter().map(|row| text_of(row).is_none().then_some(&row.data[..])).collect();
    let cut: BooleanArray = rows.iter().map(|row| Some(row.is_cut())).collect();
    let columns = vec![
        numbers(|row| row.position),
        Arc::new(received),
        texts(|row| Some(&row.sensor)),
        texts(|row| Some(&row.request_id)),
        numbers(|row| row.index),
        texts(|row| Some(&row.code)),
        texts(|row| row.pointer.as_deref()),
        texts(|row| Some(&row.reason)),
        texts(|row| Some(&row.mode)),
        texts(|row| row.parameters.as_deref()),
        texts(|row| row.content_type.as_deref()),
        texts(|row| row.headers.as_deref()),
        texts(text_of),
        Arc::new(binary),
        numbers(|row| row.bytes),
        Arc::new(cut),
    ];
    Ok(RecordBatch::try_new(SCHEMA.clone(), columns)?)
}

fn text_of(row: &Row) -> Option<&str> {
    std::str::from_utf8(&row.data).ok()
}
