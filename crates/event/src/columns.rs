//! Columns being filled, sized for the batch: a batch of one event must not cost the buffers of a thousand.

use crate::schema::batch_schema;
use arrow::array::{
    Array, ArrayRef, StringArray, StringBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use std::sync::Arc;

/// One event, its texts borrowed from the body.
pub(crate) struct Row<'a> {
    pub(crate) id: Option<&'a str>,
    pub(crate) event_type: &'a str,
    pub(crate) subject: Option<&'a str>,
    pub(crate) time: i64,
    pub(crate) data: &'a str,
}

/// The columns that differ from row to row.
pub(crate) struct Columns {
    id: StringBuilder,
    event_type: StringBuilder,
    subject: StringBuilder,
    time: TimestampMicrosecondBuilder,
    data: StringBuilder,
}

impl Columns {
    /// Room for about `rows` rows of a body of `bytes`.
    pub(crate) fn with_capacity(rows: usize, bytes: usize) -> Self {
        Self {
            id: StringBuilder::with_capacity(rows, 0),
            event_type: StringBuilder::with_capacity(rows, rows * 8),
            subject: StringBuilder::with_capacity(rows, 0),
            time: TimestampMicrosecondBuilder::with_capacity(rows),
            data: StringBuilder::with_capacity(rows, bytes),
        }
    }

    pub(crate) fn push(&mut self, row: &Row<'_>) {
        self.id.append_option(row.id);
        self.event_type.append_value(row.event_type);
        self.subject.append_option(row.subject);
        self.time.append_value(row.time);
        self.data.append_value(row.data);
    }

    /// The batch, all of one sensor and one time of receipt.
    pub(crate) fn finish(mut self, sensor: &str, received_at: i64) -> RecordBatch {
        let rows = self.time.values_slice().len();
        let times = |t: TimestampMicrosecondArray| -> ArrayRef { Arc::new(t.with_timezone("UTC")) };
        let nothing = |kind: &DataType| arrow::array::new_null_array(kind, rows);
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.id.finish()),
            repeated(sensor, rows),
            repeated("", rows),
            Arc::new(self.event_type.finish()),
            Arc::new(self.subject.finish()),
            times(self.time.finish()),
            times(TimestampMicrosecondArray::from_value(received_at, rows)),
            nothing(&DataType::Utf8),
            nothing(&DataType::Utf8),
            Arc::new(self.data.finish()),
            nothing(&DataType::Binary),
        ];
        for column in &mut columns {
            if column.get_buffer_memory_size() > column.len() * 8 + 2 * used_bytes(column) {
                shrink(column);
            }
        }
        RecordBatch::try_new(batch_schema(), columns).expect("the columns are those of the schema")
    }
}

/// Bytes of the slices a column really uses.
fn used_bytes(column: &ArrayRef) -> usize {
    column.to_data().get_slice_memory_size().unwrap_or(0)
}

fn shrink(column: &mut ArrayRef) {
    if let Some(column) = Arc::get_mut(column) {
        column.shrink_to_fit();
    }
}

fn repeated(text: &str, rows: usize) -> ArrayRef {
    let offsets: Vec<i32> = (0..=rows).map(|row| (row * text.len()) as i32).collect();
    let values = Buffer::from_vec(text.as_bytes().repeat(rows));
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    Arc::new(StringArray::new(offsets, values, None))
}
