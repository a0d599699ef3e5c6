//! Columns being filled, sized for the batch: a batch of one event must not cost the buffers of a thousand.

use crate::schema::batch_schema;
use arrow::array::{
    Array, ArrayRef, BinaryBuilder, StringArray, StringBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder,
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
    pub(crate) data: Option<&'a str>,
}

/// What only a CloudEvent has.
pub(crate) struct CloudRow<'a> {
    pub(crate) source: &'a str,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) attributes: Option<&'a str>,
    pub(crate) data_binary: Option<&'a [u8]>,
}

/// Where an event comes from that another collector had accepted.
pub(crate) struct Origin<'a> {
    pub(crate) sensor: &'a str,
    pub(crate) received_at: i64,
}

/// The columns that differ from row to row.
pub(crate) struct Columns {
    id: StringBuilder,
    event_type: StringBuilder,
    subject: StringBuilder,
    time: TimestampMicrosecondBuilder,
    data: StringBuilder,
    /// None until a CloudEvent comes; then every row is one.
    cloud: Option<CloudColumns>,
    /// None until an event of an export comes; then every row is one.
    origin: Option<OriginColumns>,
}

#[derive(Default)]
struct OriginColumns {
    sensor: StringBuilder,
    received_at: TimestampMicrosecondBuilder,
}

struct CloudColumns {
    source: StringBuilder,
    content_type: StringBuilder,
    attributes: StringBuilder,
    data_binary: BinaryBuilder,
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
            cloud: None,
            origin: None,
        }
    }

    pub(crate) fn push(&mut self, row: &Row<'_>) {
        self.id.append_option(row.id);
        self.event_type.append_value(row.event_type);
        self.subject.append_option(row.subject);
        self.time.append_value(row.time);
        self.data.append_option(row.data);
    }

    pub(crate) fn push_cloud(&mut self, row: &Row<'_>, cloud: &CloudRow<'_>) {
        self.push(row);
        self.cloud.get_or_insert_with(CloudColumns::new).push(cloud);
    }

    pub(crate) fn push_exported(&mut self, row: &Row<'_>, cloud: &CloudRow<'_>, from: &Origin<'_>) {
        self.push_cloud(row, cloud);
        let origin = self.origin.get_or_insert_default();
        origin.sensor.append_value(from.sensor);
        origin.received_at.append_value(from.received_at);
    }

    /// The batch: all of one sensor and one time of receipt, but for events of an export, which have their own.
    pub(crate) fn finish(mut self, sensor: &str, received_at: i64) -> RecordBatch {
        let rows = self.time.values_slice().len();
        let times = |t: TimestampMicrosecondArray| -> ArrayRef { Arc::new(t.with_timezone("UTC")) };
        // Data is a part of a CloudEvent: the room for all of the body is more than it needs.
        let tight = self.cloud.is_some();
        let [source, content_type, attributes, data_binary] = match self.cloud.take() {
            Some(cloud) => cloud.finish(),
            None => {
                let nothing = |kind: &DataType| arrow::array::new_null_array(kind, rows);
                [repeated("", rows), nothing(&DataType::Utf8), nothing(&DataType::Utf8), nothing(&DataType::Binary)]
            }
        };
        let (sensor, received_at) = match self.origin.take() {
            Some(mut origin) => (Arc::new(origin.sensor.finish()) as ArrayRef, origin.received_at.finish()),
            None => (repeated(sensor, rows), TimestampMicrosecondArray::from_value(received_at, rows)),
        };
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.id.finish()),
            sensor,
            source,
            Arc::new(self.event_type.finish()),
            Arc::new(self.subject.finish()),
            times(self.time.finish()),
            times(received_at),
            content_type,
            attributes,
            Arc::new(self.data.finish()),
            data_binary,
        ];
        for column in &mut columns {
            if tight || column.get_buffer_memory_size() > column.len() * 8 + 2 * used_bytes(column) {
                shrink(column);
            }
        }
        RecordBatch::try_new(batch_schema(), columns).expect("the columns are those of the schema")
    }
}

impl CloudColumns {
    fn new() -> Self {
        let text = || StringBuilder::with_capacity(0, 0);
        let data_binary = BinaryBuilder::with_capacity(0, 0);
        Self { source: text(), content_type: text(), attributes: text(), data_binary }
    }

    fn push(&mut self, row: &CloudRow<'_>) {
        self.source.append_value(row.source);
        self.content_type.append_option(row.content_type);
        self.attributes.append_option(row.attributes);
        self.data_binary.append_option(row.data_binary);
    }

    /// The columns source, content_type, attributes and data_binary.
    fn finish(mut self) -> [ArrayRef; 4] {
        [
            Arc::new(self.source.finish()),
            Arc::new(self.content_type.finish()),
            Arc::new(self.attributes.finish()),
            Arc::new(self.data_binary.finish()),
        ]
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
