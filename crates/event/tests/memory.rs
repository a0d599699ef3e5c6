//! How much memory a batch takes, told before it is read and after.

use event::{Batch, FieldNames, Framing, Key, Limits, ReadOptions, Rejection, columns_bytes_max, read};

fn lines(body: &[u8]) -> Batch {
    let fields = FieldNames::default();
    let options =
        ReadOptions { sensor: "s", received_at: 1_000_000, fields, time_zone: None, limits: Limits::default() };
    read(body, Framing::Ndjson, &options).expect("lines never fail as a whole")
}

#[test]
fn a_batch_tells_its_newest_time_and_the_memory_it_takes() {
    let batch = lines(b"{\"time\": 5}\n{\"time\": 9}\n{\"time\": 7}\n");
    assert_eq!(batch.newest_time_micros(), Some(9_000_000));
    assert_eq!(lines(b"oops").newest_time_micros(), None);
    let bare = batch.columns.get_array_memory_size();
    assert_eq!(batch.memory_bytes(), bare + batch.keys.capacity() * size_of::<Option<Key>>());
    let mut batch = lines(b"{\"a\": \"\\ud800\"}\n[]\n");
    batch.keys.shrink_to_fit();
    let mut told = batch.rejected.capacity() * size_of::<Rejection>();
    for rejection in &batch.rejected {
        told += rejection.reason.capacity() + rejection.pointer.as_ref().map_or(0, String::capacity);
    }
    assert!(batch.rejected.len() == 2 && batch.rejected[0].pointer.is_some());
    assert_eq!(batch.memory_bytes(), batch.columns.get_array_memory_size() + told);
}

/// What a body may take is told before it is read: its bytes, and a row for each event that it may hold.
#[test]
fn the_memory_of_a_body_is_bounded_by_its_bytes_and_by_the_events_that_fit_into_it() {
    let told = |body: &str, framing: Framing<'_>, limits: &Limits| {
        columns_bytes_max(body.as_bytes(), &framing, 3, limits) - body.len()
    };
    let row = 3 + 64 + size_of::<Option<Key>>();
    let ten = "{\"a\":1}\n".repeat(10);
    assert_eq!(told(&ten, Framing::Ndjson, &Limits::default()), 11 * row);
    assert_eq!(told(&ten, Framing::Ndjson, &Limits { batch_events_max: 5, ..Limits::default() }), 5 * row);
    assert_eq!(told("{{{{{{", Framing::Ndjson, &Limits::default()), 4 * row, "no event has one byte");
    assert_eq!(told("{{{{{{", Framing::CloudEvent, &Limits::default()), row);
}

#[test]
fn a_small_batch_costs_little_memory() {
    let batch = lines(br#"{"a":1}"#);
    assert!(batch.columns.get_array_memory_size() < 4096, "{}", batch.columns.get_array_memory_size());
}

#[test]
fn a_batch_of_blanks_with_little_data_keeps_no_room_for_them() {
    let body = format!("{{\"type\":\"a\",\"data\":1{}}}\n", " ".repeat(1000)).repeat(1000);
    let batch = lines(body.as_bytes());
    let bytes = batch.columns.get_array_memory_size();
    assert!(batch.columns.num_rows() == 1000 && bytes < body.len() / 4, "{bytes} of {} bytes", body.len());
}
