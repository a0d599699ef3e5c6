//! Reading lines of an export, as an import hands them in.
//!
//! Each line ends as a row or as a rejection; what is read is told from other events as it is when it is stored; and a row that is written as a line
//! again is the same row.

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::record_batch::RecordBatch;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use event::{Batch, EXPORTED, Limits, ReadError, format_time, read_exported, stored_keys};
use serde_json::Value;

/// Small, so that each bound is met.
const LIMITS: Limits = Limits { event_bytes_max: 512, nesting_max: 8, batch_events_max: 24, rejected_kept_max: 6 };
/// When events of the first half of the seventies are too old.
const SINCE: i64 = 157_766_400_000_000;

/// The input: a byte that says whether old events are turned away, and the lines.
pub fn exported(input: &[u8]) {
    let Some((first, body)) = input.split_first() else { return };
    let since = (first % 2 == 1).then_some(SINCE);
    let batch = match read_exported(body, since, &LIMITS) {
        Ok(batch) => batch,
        Err(ReadError::TooManyEvents { events_max }) => return assert_eq!(events_max, LIMITS.batch_events_max),
        Err(error) => panic!("each line stands for itself: {error}"),
    };
    let rows = batch.columns.num_rows();
    assert_eq!((batch.received, batch.keys.len()), (rows as u64 + batch.rejected_total, rows));
    assert_eq!(batch.rejected.len() as u64, batch.rejected_total.min(LIMITS.rejected_kept_max as u64));
    for rejection in &batch.rejected {
        assert!(body.get(rejection.text.clone()).is_some() && !rejection.reason.is_empty(), "{rejection:?}");
    }
    let again = read_exported(body, since, &LIMITS).expect("it was read before");
    assert!(again.columns == batch.columns && again.keys == batch.keys && again.rejected == batch.rejected);
    let keys: Vec<_> = batch.keys.iter().map(|key| key.expect("each has one")).collect();
    assert!(stored_keys(&batch.columns) == keys, "what is stored is known again");
    assert_is_written_again(&batch, since);
}

/// Its rows as lines of an export are the same rows.
fn assert_is_written_again(batch: &Batch, since: Option<i64>) {
    let lines: String = (0..batch.columns.num_rows()).map(|row| line(&batch.columns, row)).collect();
    let again = read_exported(lines.as_bytes(), since, &LIMITS).expect("no more lines than before");
    assert!(again.rejected.is_empty(), "{:?} in {lines}", again.rejected);
    assert!(again.columns == batch.columns && again.keys == batch.keys, "{lines}");
}

fn line(rows: &RecordBatch, row: usize) -> String {
    let mut line = String::from("{\"position\":1");
    for name in EXPORTED {
        // Data of bytes and of JSON have another name in the table.
        let column = match name {
            "position" | "data" => continue,
            "data_text" => "data",
            "data_base64" => "data_binary",
            name => name,
        };
        let column = rows.column_by_name(column).expect("a column of the table");
        if column.is_null(row) {
            continue;
        }
        let value = match name {
            "time" | "received_at" => {
                Value::from(format_time(column.as_primitive::<TimestampMicrosecondType>().value(row))).to_string()
            }
            "attributes" => column.as_string::<i32>().value(row).to_owned(),
            "data_base64" => Value::from(STANDARD.encode(column.as_binary::<i32>().value(row))).to_string(),
            _ => Value::from(column.as_string::<i32>().value(row)).to_string(),
        };
        line += &format!(",\"{name}\":{value}");
    }
    line + "}\n"
}
