//! What a batch that was read must be like, whatever was sent.

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use event::{Batch, Limits};
use serde_json::value::RawValue;

/// The row of a batch in words, to be compared with another.
#[derive(Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) id: Option<String>,
    pub(crate) source: String,
    pub(crate) event_type: String,
    pub(crate) subject: Option<String>,
    pub(crate) time: i64,
    pub(crate) content_type: Option<String>,
    pub(crate) attributes: Option<String>,
    pub(crate) data: Option<String>,
    pub(crate) data_binary: Option<Vec<u8>>,
}

/// The rows of a batch.
pub(crate) fn rows(batch: &Batch) -> Vec<Row> {
    let column = |name: &str| batch.columns.column_by_name(name).expect("a column of the schema");
    let text = |name: &str, row: usize| {
        let texts = column(name).as_string::<i32>();
        texts.is_valid(row).then(|| texts.value(row).to_owned())
    };
    let bytes = column("data_binary").as_binary::<i32>();
    let row = |n: usize| Row {
        id: text("id", n),
        source: text("source", n).expect("never null"),
        event_type: text("type", n).expect("never null"),
        subject: text("subject", n),
        time: column("time").as_primitive::<TimestampMicrosecondType>().value(n),
        content_type: text("content_type", n),
        attributes: text("attributes", n),
        data: text("data", n),
        data_binary: bytes.is_valid(n).then(|| bytes.value(n).to_vec()),
    };
    (0..batch.columns.num_rows()).map(row).collect()
}

/// Every event has one end; rejections are told in order with their bytes; texts are those that came.
pub(crate) fn assert_sound(batch: &Batch, body: &[u8], limits: &Limits) {
    let rows = rows(batch);
    assert_eq!(batch.received, rows.len() as u64 + batch.rejected_total, "every event has one end");
    assert_eq!(batch.keys.len(), rows.len(), "a key or none for each row");
    assert!(batch.received as usize <= limits.batch_events_max);
    let told = batch.rejected.len() as u64;
    assert_eq!(told, batch.rejected_total.min(limits.rejected_kept_max as u64), "all that may be told is told");
    for pair in batch.rejected.windows(2) {
        assert!(pair[0].index < pair[1].index && pair[0].text.end <= pair[1].text.start, "in order: {pair:?}");
    }
    for rejection in &batch.rejected {
        assert!(rejection.index < batch.received && rejection.text.end <= body.len(), "{rejection:?}");
        assert!(!rejection.reason.is_empty());
    }
    let mut from = 0;
    for (row, key) in rows.iter().zip(&batch.keys) {
        assert_eq!(key.is_some(), row.id.is_some(), "a given id has a key");
        assert!(row.id.as_deref() != Some(""), "an id is not empty");
        assert_eq!(event::parse_time(&event::format_time(row.time)), Ok(row.time), "a time is shown as it is");
        for json in [&row.data, &row.attributes].into_iter().flatten() {
            assert!(serde_json::from_str::<&RawValue>(json).is_ok(), "no JSON: {json:?}");
        }
        assert!(row.data.is_none() || row.data_binary.is_none(), "one of them");
        if let Some(data) = &row.data {
            let at = find(&body[from..], data.as_bytes()).expect("data is the text that came, in the order it came");
            from += at + data.len();
        }
    }
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() {
        return Some(0);
    }
    hay.windows(needle.len()).position(|window| window == needle)
}
