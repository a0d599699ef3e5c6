//! What the table of rejected events promises.

use bytes::Bytes;
use rejected::{Filter, NewRow, Options, Order, Origin, Rejected, RejectedMetrics};
use std::path::Path;
use std::time::Duration;

const ALL: usize = usize::MAX >> 1;

fn options(dir: &Path) -> Options {
    Options {
        path: dir.join("rejected.sqlite"),
        bytes_max: 1 << 20,
        event_bytes_max: 1000,
        age_max: Duration::from_secs(3600),
    }
}

async fn open(options: Options) -> Rejected {
    Rejected::open(options, RejectedMetrics::default()).await.expect("opens")
}

fn origin(sensor: &str, received_at: i64) -> Origin {
    let request_id = "request".to_owned();
    Origin { sensor: sensor.to_owned(), request_id, received_at, content_type: None, headers: None }
}

fn row(index: u64, data: &[u8]) -> NewRow {
    let reason = "because".to_owned();
    NewRow { index, code: "invalid_json", pointer: None, reason, data: Bytes::copy_from_slice(data) }
}

async fn data(table: &Rejected, filter: Filter) -> Vec<String> {
    let rows = table.read(&filter, 100_000, ALL).await.expect("reads");
    rows.iter().map(|row| String::from_utf8_lossy(&row.data).into_owned()).collect()
}

fn of(sensor: &str) -> Filter {
    Filter { sensor: Some(sensor.to_owned()), order: Order::Oldest, ..Filter::default() }
}

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_micros() as i64
}

#[tokio::test]
async fn rows_are_there_again_after_another_opening_and_their_positions_are_never_used_twice() {
    let dir = tempfile::tempdir().expect("a folder");
    let table = open(options(dir.path())).await;
    table.keep(origin("roof", 7), vec![row(0, b"{a"), row(3, b"\xff")]).await.expect("kept");
    // No close: what is kept is kept.
    drop(table);
    let table = open(Options { age_max: Duration::ZERO, ..options(dir.path()) }).await;
    let rows = table.read(&Filter::default(), 10, ALL).await.expect("reads");
    let shown: Vec<_> = rows.iter().map(|r| (r.position, r.index, r.received_at, &r.data[..], r.is_cut())).collect();
    assert_eq!(shown, [(2, 3, 7, &b"\xff"[..], false), (1, 0, 7, b"{a", false)], "newest first");
    table.expire().await.expect("expires");
    assert_eq!(data(&table, Filter::default()).await, [""; 0]);
    table.keep(origin("roof", 8), vec![row(0, b"b")]).await.expect("kept");
    assert_eq!(table.last_position().await.expect("reads"), 3);
}

#[tokio::test]
async fn rows_are_found_by_sensor_code_time_and_position_in_both_orders() {
    let dir = tempfile::tempdir().expect("a folder");
    let table = open(options(dir.path())).await;
    for (n, sensor) in ["a", "b", "a", "b"].iter().enumerate() {
        table.keep(origin(sensor, n as i64), vec![row(0, n.to_string().as_bytes())]).await.expect("kept");
    }
    assert_eq!(data(&table, of("a")).await, ["0", "2"]);
    assert_eq!(data(&table, Filter { since: Some(1), until: Some(3), ..Filter::default() }).await, ["2", "1"]);
    assert_eq!(data(&table, Filter { beyond: Some(3), ..Filter::default() }).await, ["1", "0"]);
    assert_eq!(data(&table, Filter { beyond: Some(3), order: Order::Oldest, ..Filter::default() }).await, ["3"]);
    assert_eq!(data(&table, Filter { code: Some("other".to_owned()), ..Filter::default() }).await, [""; 0]);
    assert_eq!(table.read(&Filter::default(), 3, ALL).await.expect("reads").len(), 3);
    assert_eq!(table.read(&Filter::default(), 3, 1).await.expect("reads").len(), 1, "bounded by memory too");
}

#[tokio::test]
async fn a_sensor_that_floods_the_table_pushes_out_its_own_rows_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let limited = Options { bytes_max: 100_000, ..options(dir.path()) };
    let table = open(limited.clone()).await;
    table.keep(origin("quiet", 1), vec![row(0, b"first"), row(1, b"second")]).await.expect("kept");
    let flood: Vec<NewRow> = (0..2000).map(|n| row(n, format!("{n}").as_bytes())).collect();
    table.keep(origin("loud", 2), flood.clone()).await.expect("kept");
    assert_eq!(data(&table, of("quiet")).await, ["first", "second"]);
    let loud = data(&table, of("loud")).await;
    assert!((100..1000).contains(&loud.len()), "{} fit in 100 kB", loud.len());
    assert_eq!(loud.last().map(String::as_str), Some("1999"), "the oldest went");

    // What each holds is known again after an opening.
    let table = {
        drop(table);
        open(limited).await
    };
    table.keep(origin("loud", 3), flood[..10].to_vec()).await.expect("kept");
    assert_eq!(data(&table, of("quiet")).await, ["first", "second"]);
    assert!(data(&table, of("loud")).await.len() <= loud.len() + 1);
}

#[tokio::test]
async fn long_data_is_cut_between_characters_and_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let table = open(options(dir.path())).await;
    let text = format!("{}é", "x".repeat(999));
    table.keep(origin("roof", 1), vec![row(0, text.as_bytes()), row(1, &[0xff; 2000])]).await.expect("kept");
    let rows = table.read(&of("roof"), 10, ALL).await.expect("reads");
    let shown: Vec<_> = rows.iter().map(|r| (r.data.len(), r.bytes, r.is_cut())).collect();
    assert_eq!(shown, [(999, 1001, true), (1000, 2000, true)]);
}

#[tokio::test]
async fn rows_go_when_they_are_too_old_and_younger_ones_stay() {
    let dir = tempfile::tempdir().expect("a folder");
    let table = open(options(dir.path())).await;
    let old: Vec<NewRow> = (0..1200).map(|n| row(n, b"old")).collect();
    table.keep(origin("roof", now() - 3601 * 1_000_000), old).await.expect("kept");
    table.keep(origin("roof", now()), vec![row(0, b"young")]).await.expect("kept");
    table.expire().await.expect("expires");
    assert_eq!(data(&table, of("roof")).await, ["young"]);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(
        dir.path().join("rejected.sqlite"),
        b"this is no database, and long enough to be looked at".repeat(40),
    )
    .expect("written");
    let refused = Rejected::open(options(dir.path()), RejectedMetrics::default()).await.expect_err("no database");
    assert!(refused.to_string().contains("rejected.sqlite"), "{refused}");
}

#[tokio::test]
async fn what_is_handed_in_is_kept_although_its_caller_is_gone_and_many_at_once_keep_all() {
    let dir = tempfile::tempdir().expect("a folder");
    let table = open(options(dir.path())).await;
    let mut gone = Box::pin(table.keep(origin("gone", 1), vec![row(0, b"a")]));
    assert!(futures::poll!(gone.as_mut()).is_pending());
    drop(gone);
    let many = (0..50).map(|n| table.keep(origin(&format!("s{}", n % 5), n), vec![row(0, b"b")]));
    assert!(futures::future::join_all(many).await.iter().all(Result::is_ok));
    assert_eq!(table.read(&Filter::default(), 100, ALL).await.expect("reads").len(), 51);
}
