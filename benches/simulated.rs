//! A lake over simulated time, and who asks it: what benchmarks of both share.

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use event::FieldRules;
use lake::{Lake, LakeMetrics, Pace, Sealing, Snapshot, View};
use query::{Queries, Query, QueryMetrics};
use rejected::{Rejected, RejectedMetrics};
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

const SECOND: i64 = 1_000_000;
pub(crate) const DAY: i64 = 86_400 * SECOND;
/// When the first event came: 2026-01-01.
pub(crate) const BEGIN: i64 = 1_767_225_600 * SECOND;
/// An event comes so often.
pub(crate) const EVERY: i64 = SECOND / 20;
const SENSORS: i64 = 40;

pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A lake below a folder, and who answers questions of it.
pub(crate) async fn lake(dir: &Path) -> (Lake, Queries) {
    let (folder, schema) = (dir.join("lake"), event::events_schema());
    let lake = Lake::open(&folder, &schema, Uuid::from_u128(1), FieldRules::default(), LakeMetrics::default());
    (lake.await.expect("the lake opens"), queries(dir).await)
}

/// These events, 20 a second; one in a thousand is a day late.
pub(crate) fn sealing(events: Range<i64>) -> Sealing {
    let numbers = || events.clone();
    let received = |n: i64| BEGIN + n * EVERY;
    let texts = |of: &dyn Fn(i64) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(numbers().map(of))) };
    let times = |of: &dyn Fn(i64) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(numbers().map(of)).with_timezone("UTC"))
    };
    let nothing = |kind: &DataType| new_null_array(kind, events.clone().count());
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
    Sealing { first: (events.start + 1) as u64, last: events.end as u64, batches: vec![batch], pace: Pace::Pressed }
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
pub(crate) async fn best(queries: &Queries, snapshot: &Arc<Snapshot>, sql: &str) -> Duration {
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
