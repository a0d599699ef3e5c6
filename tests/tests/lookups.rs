//! Questions that read little of the lake, an event by its id and the latest of a sensor, answer what a look at every row answers.

use serde_json::{Value, json};
use tests::Collector;

/// More than a row group of a data file takes.
const EVENTS: u64 = 140_000;
const BATCH: u64 = 20_000;
/// The event whose field is a text, and has to be read from there.
const ODD: u64 = 500;
/// More ids than are looked for.
const MANY: u64 = 40;

/// Events in the lake, of two row groups and more, and some that are live.
fn filled() -> (tempfile::TempDir, Collector) {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "5s")]);
    let tokens = [collector.sensor("a"), collector.sensor("b")];
    let send = |token: &str, prefix: &str, numbers: std::ops::Range<u64>| {
        // Times repeat, and their order is not that of the events.
        let line = |n: u64| {
            let time = 1_700_000_000_000_000 + n * 7919 % 1000 * 1_000_000;
            // One is no number.
            let value = if n == ODD { format!("\"{n}\"") } else { n.to_string() };
            format!("{{\"id\":\"{prefix}-{n}\",\"type\":\"t\",\"time\":{time},\"data\":{{\"n\":{value}}}}}\n")
        };
        let lines: String = numbers.clone().map(line).collect();
        assert_eq!(collector.send(token, lines.as_bytes()).json()["accepted"], numbers.end - numbers.start);
    };
    for (n, first) in (0..EVENTS).step_by(BATCH as usize).enumerate() {
        send(&tokens[n / 4 % 2], "k", first..first + BATCH);
    }
    collector.wait_for("all are in the lake", |c| c.metric("catchment_engine_live_rows") == 0.0);
    send(&tokens[0], "live", 0..50);
    (dir, collector)
}

#[test]
fn an_event_is_found_by_its_id_however_it_is_asked_for() {
    let (_dir, collector) = filled();
    let many: Vec<String> = (0..MANY).map(|n| format!("'k-{}'", n * 3001)).collect();
    let in_many = format!("id IN ({})", many.join(", "));
    for (condition, count) in [
        ("id = 'k-5'", 1),
        ("id = 'k-139999'", 1),
        ("id = 'live-7'", 1),
        ("id = 'nobody'", 0),
        ("id IN ('k-1', 'k-139998', 'live-1', 'nobody')", 3),
        ("id IN ('k-1', NULL)", 1),
        (in_many.as_str(), MANY),
        ("id = 'k-1' OR sensor = 'b'", 60_001),
        ("id = 'k-1' OR id = 'k-2'", 2),
        ("id = 'k-1' AND id = 'k-2'", 0),
        ("id = 'k-7' AND sensor = 'a' AND data.n = 7", 1),
        ("id = 'k-7' AND sensor = 'b'", 0),
        ("NOT id = 'k-1'", EVENTS + 49),
        ("id <> 'k-1' AND id <> 'live-1'", EVENTS + 48),
        ("id LIKE 'k-13999%'", 11),
        ("id = lower('K-9')", 1),
        ("id IN (SELECT id FROM events WHERE data.n = 77)", 1),
        ("(SELECT max(id) FROM events WHERE id = 'k-8') = id", 1),
    ] {
        let asked = |condition: &str| {
            let rows =
                collector.rows(&format!("SELECT count(*), min(position), sum(data.n) FROM events WHERE {condition}"));
            rows[0].clone()
        };
        let found = asked(condition);
        assert_eq!(found[0], count, "{condition}");
        // Of what is computed from the id nothing is known before it is read.
        assert_eq!(found, asked(&condition.replace("id ", "substr(id, 1) ")), "{condition}");
    }
    let rows = collector.rows("SELECT a.data.n FROM events a JOIN events b ON a.id = b.id WHERE b.id = 'k-100003'");
    assert_eq!(rows, [[json!(100_003.0)]]);
    let skipped = || collector.metric("catchment_query_files_skipped_total");
    let before = skipped();
    assert!(collector.rows("SELECT data FROM events WHERE id = 'nobody at all'").is_empty());
    assert!(skipped() > before, "no file is read for an id that none has");
}

#[test]
fn the_first_rows_of_an_order_are_those_of_all_rows() {
    let (_dir, collector) = filled();
    let mut all = collector.rows("SELECT time, position FROM events WHERE sensor = 'b' AND data.n < 70000");
    assert_eq!(all.len(), 0, "b has the last events but some");
    let sql = |order: &str, more: &str| {
        format!("SELECT time, position FROM events WHERE sensor = 'a' AND data.n < 9000 ORDER BY {order} {more}")
    };
    all.extend(collector.rows(&sql("position", "")));
    assert_eq!(all.len(), 9050);
    let text = |row: &[Value]| (row[0].as_str().expect("a time").to_owned(), row[1].as_u64().expect("a position"));
    let all: Vec<(String, u64)> = all.iter().map(|row| text(row)).collect();
    for (order, turned) in [
        ("time DESC, position DESC", [true, true]),
        ("time, position", [false, false]),
        ("time DESC, position", [true, false]),
        ("time, position DESC", [false, true]),
    ] {
        let mut expected = all.clone();
        expected.sort_by(|x, y| {
            let (time, position) = (x.0.cmp(&y.0), x.1.cmp(&y.1));
            let of = |order: std::cmp::Ordering, turned: bool| if turned { order.reverse() } else { order };
            of(time, turned[0]).then(of(position, turned[1]))
        });
        for (limit, offset) in [(1, 0), (100, 0), (100, 70), (8192, 0), (9000, 49), (20_000, 0)] {
            let found = collector.rows(&sql(order, &format!("LIMIT {limit} OFFSET {offset}")));
            let found: Vec<_> = found.iter().map(|row| text(row)).collect();
            let end = (offset + limit).min(expected.len());
            assert_eq!(found, expected[offset..end], "{order} LIMIT {limit} OFFSET {offset}");
        }
    }
    let plan = |order: &str| {
        let plan = collector.rows(&format!("EXPLAIN SELECT data FROM events WHERE sensor = 'a' ORDER BY {order}"));
        plan[1][1].as_str().expect("a plan").contains("NearestExec: fetch=")
    };
    assert!(plan("time DESC LIMIT 10") && plan("time DESC, position DESC LIMIT 10 OFFSET 5"));
    assert!(!plan("time DESC") && !plan("id LIMIT 10") && !plan("position % 7 LIMIT 10"));
}

#[test]
fn one_odd_value_leaves_the_columns_of_the_other_row_groups() {
    let (_dir, collector) = filled();
    let all: u64 = (0..EVENTS).sum::<u64>() + (0..50).sum::<u64>();
    assert_eq!(
        collector.rows("SELECT sum(data.n), count(data.n) FROM events"),
        [[json!(all as f64), json!(EVENTS + 50)]]
    );
    assert_eq!(collector.rows("SELECT count(*) FROM (SELECT data.n FROM events)"), [[json!(EVENTS + 50)]]);
    assert_eq!(collector.rows("SELECT count(*) FROM events WHERE data.n = 500 AND id = 'k-500'"), [[json!(1)]]);
    assert_eq!(collector.rows("SELECT count(*) FROM events WHERE data.n = 501 AND id = 'k-501'"), [[json!(1)]]);
    let sums = "SELECT (SELECT count(*) FROM events), sum(data.n), min(data.n), max(position) FROM events";
    assert_eq!(collector.rows(sums), [[json!(EVENTS + 50), json!(all as f64), json!(0.0), json!(EVENTS + 50)]]);
    let by_sensor = "SELECT sensor, count(data.n) FROM events GROUP BY sensor ORDER BY sensor";
    assert_eq!(collector.rows(by_sensor), [[json!("a"), json!(80_050)], [json!("b"), json!(60_000)]]);
    let around =
        "SELECT data.n FROM events WHERE data.n BETWEEN 499 AND 501 AND id LIKE 'k-%' ORDER BY position DESC LIMIT 2";
    assert_eq!(collector.rows(around), [[json!(501.0)], [json!(500.0)]]);
    let many: Vec<String> = (480..480 + MANY).map(|n| format!("'k-{n}'")).collect();
    let many = format!("SELECT count(*) FROM events WHERE data.n > 5 AND id IN ({})", many.join(", "));
    assert_eq!(collector.rows(&many), [[json!(MANY)]]);
    let plan = collector.rows("EXPLAIN SELECT avg(data.n) FROM events WHERE data.n > 5")[1][1].to_string();
    let scans: Vec<&str> = plan.split("DataSourceExec").skip(1).collect();
    assert_eq!(scans.len(), 2, "{plan}");
    assert_eq!(scans.iter().filter(|scan| scan.contains("CASE WHEN data_rest")).count(), 1, "{plan}");
}
