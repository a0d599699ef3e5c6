//! A month of seals, one every 30 seconds: how many files it leaves, and whether questions take longer for it.
//!
//! `make month` (`MONTH="--days 2"`). The clock is simulated; seals, compactions, commits and questions are real. Each seal has 600 events of 40 sensors, 20 a second;
//! one in a thousand is a day late. After each day it tells the files, their bytes and the time of three questions about the last day and about all, best of five.
//!
//! It fails when a day leaves 200 files or more, when an event is missing or there twice, or when a question about the last day takes more than three times as long as
//! after the first day.

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use event::FieldRules;
use lake::{Lake, LakeMetrics, Sealing, Snapshot, View};
use query::{Queries, Query, QueryMetrics};
use rejected::{Rejected, RejectedMetrics};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

const DAYS: i64 = 30;
const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
const SEAL: i64 = 30 * SECOND;
const SEALS_A_DAY: i64 = DAY / SEAL;
const EVENTS_A_SEAL: i64 = 600;
const SENSORS: i64 = 40;
/// 2026-01-01.
const BEGIN: i64 = 1_767_225_600 * SECOND;
const FILES_A_DAY_MAX: usize = 200;
const SLOWER_MAX: f64 = 3.0;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let days = args.iter().position(|a| a == "--days").and_then(|at| args.get(at + 1)?.parse().ok()).unwrap_or(DAYS);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(month(days))
}

async fn month(days: i64) -> ExitCode {
    let dir = tempfile::tempdir().expect("a folder");
    let (folder, schema) = (dir.path().join("lake"), event::events_schema());
    let lake = Lake::open(&folder, &schema, Uuid::from_u128(1), FieldRules::default(), LakeMetrics::default())
        .await
        .expect("the lake opens");
    let queries = queries(dir.path()).await;
    say(
        "| day | seals | files | MiB | seconds | last day by type, ms | latest 100 of a sensor, ms | all events, ms |\n|---|---|---|---|---|---|---|---|",
    );
    let (mut first, mut flaws) = (None, Vec::new());
    for day in 0..days {
        let began = Instant::now();
        for seal in day * SEALS_A_DAY..(day + 1) * SEALS_A_DAY {
            lake.seal(sealing(seal)).await.expect("sealed");
            while lake.compact(BEGIN + (seal + 1) * SEAL).await.expect("compacted").is_some() {}
            lake.sweep().await.expect("swept");
            lake.checkpoint().await.expect("a checkpoint");
        }
        let snapshot = lake.snapshot();
        let since = BEGIN + day * DAY;
        let questions = [
            format!("SELECT type, count(*) FROM events WHERE received_at >= to_timestamp_micros({since}) GROUP BY 1"),
            format!(
                "SELECT * FROM events WHERE sensor = 's7' AND time >= to_timestamp_micros({since}) ORDER BY time DESC LIMIT 100"
            ),
            "SELECT count(*) FROM events".to_owned(),
        ];
        let mut times = Vec::new();
        for sql in &questions {
            times.push(best(&queries, &snapshot, sql).await);
        }
        let bytes: u64 = snapshot.files.iter().map(|f| f.bytes).sum();
        let [a, b, c] = [0, 1, 2].map(|n: usize| times[n].as_secs_f64() * 1e3);
        let (files, mib, seconds) = (snapshot.files.len(), bytes as f64 / (1 << 20) as f64, began.elapsed().as_secs());
        let (day, seals) = (day + 1, (day + 1) * SEALS_A_DAY);
        say(&format!("| {day} | {seals} | {files} | {mib:.1} | {seconds} | {a:.1} | {b:.1} | {c:.1} |"));
        let rows: u64 = snapshot.files.iter().map(|f| f.stats.rows).sum();
        if rows as i64 != seals * EVENTS_A_SEAL {
            flaws.push(format!("day {day}: {rows} events"));
        }
        if files >= day as usize * FILES_A_DAY_MAX {
            flaws.push(format!("day {day}: {files} files"));
        }
        let (a0, b0) = *first.get_or_insert((a, b));
        if a > SLOWER_MAX * a0 || b > SLOWER_MAX * b0 {
            flaws.push(format!(
                "day {}: questions about the last day took {a0:.1} and {b0:.1} ms on the first",
                day + 1
            ));
        }
    }
    for flaw in &flaws {
        say(flaw);
    }
    if flaws.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The events of one seal.
fn sealing(seal: i64) -> Sealing {
    let numbers = || seal * EVENTS_A_SEAL..(seal + 1) * EVENTS_A_SEAL;
    let received = |n: i64| BEGIN + n * (SEAL / EVENTS_A_SEAL);
    let texts = |of: &dyn Fn(i64) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(numbers().map(of))) };
    let times = |of: &dyn Fn(i64) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(numbers().map(of)).with_timezone("UTC"))
    };
    let nothing = |kind: &DataType| new_null_array(kind, EVENTS_A_SEAL as usize);
    let columns = vec![
        Arc::new(Int64Array::from_iter_values(numbers().map(|n| n + 1))) as ArrayRef,
        texts(&|n| Uuid::from_u128((received(n) as u128 / 1000) << 80 | 7 << 76 | 2 << 62 | n as u128).to_string()),
        texts(&|n| format!("s{}", n % SENSORS)),
        texts(&|_| String::new()),
        texts(&|n| ["reading", "alarm", "status"][usize::from(n % 50 == 0) + usize::from(n % 100 == 0)].to_owned()),
        nothing(&DataType::Utf8),
        times(&|n| received(n) - if n % 1000 == 0 { DAY } else { n % 7 * SECOND }),
        times(&received),
        nothing(&DataType::Utf8),
        nothing(&DataType::Utf8),
        texts(&|n| format!("{{\"temperature\":{}.{},\"humidity\":{}}}", 15 + n % 11, n % 10, 40 + n % 30)),
        nothing(&DataType::Binary),
    ];
    let batch = RecordBatch::try_new(event::events_schema(), columns).expect("the columns fit");
    Sealing {
        first: (seal * EVENTS_A_SEAL + 1) as u64,
        last: ((seal + 1) * EVENTS_A_SEAL) as u64,
        batches: vec![batch],
    }
}

async fn queries(dir: &Path) -> Queries {
    let kept = rejected::Options {
        path: dir.join("rejected.sqlite"),
        bytes_max: 1 << 20,
        age_max: Duration::from_secs(60),
        event_bytes_max: 1 << 10,
    };
    let kept = Rejected::open(kept, RejectedMetrics::default()).await.expect("a table");
    let options = query::Options {
        lake_dir: dir.join("lake"),
        spill_dir: dir.join("spill"),
        threads: 2,
        memory_bytes_max: 192 << 20,
        spill_bytes_max: 0,
        concurrent_max: 1,
        wait_seconds: 10,
        timeout_seconds: 60,
        timeout_seconds_max: 60,
        rows_max: 1_000,
    };
    Queries::new(options, kept, QueryMetrics::default()).expect("threads")
}

/// The time of a question, the best of five.
async fn best(queries: &Queries, snapshot: &Arc<Snapshot>, sql: &str) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        let turn = queries.turn().await.expect("a turn");
        let question = Query { sql: sql.to_owned(), ..Query::default() };
        let view = Arc::new(View::of_lake(snapshot.clone()));
        let mut answer = queries.run(turn, view, question).await.expect("an answer");
        while let Some(rows) = answer.next().await {
            rows.expect("rows");
        }
        best = best.min(began.elapsed());
    }
    best
}
