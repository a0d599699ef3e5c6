//! Live rows are found wherever they are by the time they are read.

use super::*;
use crate::{Options, Queries, Query, QueryMetrics};
use event::{FieldNames, FieldRules, Framing, Limits, ReadOptions};
use lake::{Lake, LakeMetrics, Pace, Sealing};
use std::sync::{Mutex, Weak};
use std::time::Duration;

/// Rows with the positions `first..=last`, as the engine would publish them.
fn rows((first, last): (u64, u64)) -> RecordBatch {
    let options = ReadOptions {
        sensor: "roof",
        received_at: 1_700_000_000_000_000,
        fields: FieldNames { id_field: "/n".into(), ..FieldNames::default() },
        time_zone: None,
        limits: Limits::default(),
    };
    let lines: String = (first..=last).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let batch = event::read(lines.as_bytes(), Framing::Ndjson, &options).expect("readable").columns;
    let positions = Int64Array::from_iter_values(first as i64..=last as i64);
    let mut columns = batch.columns().to_vec();
    columns.insert(0, Arc::new(positions));
    RecordBatch::try_new(event::events_schema(), columns).expect("the table's columns")
}

fn chunk(rows: &Arc<RecordBatch>, (first, last): (u64, u64)) -> LiveChunk {
    LiveChunk { rows: Arc::downgrade(rows), first, last }
}

async fn data(queries: &Queries, view: &View, sql: &str) -> Vec<serde_json::Value> {
    let turn = queries.turn().await.expect("a turn");
    let query = Query { sql: sql.to_owned(), ..Query::default() };
    let mut answer = queries.run(turn, Arc::new(view.clone()), query).await.expect("an answer");
    let mut values = Vec::new();
    while let Some(batch) = answer.next().await {
        let rows = crate::json_rows(&batch.expect("rows"), crate::BytesAs::Hexadecimal).expect("values");
        values.extend(rows.into_iter().flatten());
    }
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_merged_or_sealed_since_the_view_was_taken_are_read_once_from_where_they_are() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake_dir = dir.path().join("lake");
    let wal = uuid::Uuid::from_u128(7);
    let lake = Lake::open(&lake_dir, &event::events_schema(), wal, FieldRules::default(), LakeMetrics::default())
        .await
        .expect("a lake");
    let options = Options {
        lake_dir,
        spill_dir: dir.path().join("spill"),
        threads: 2,
        memory_bytes_max: 64 << 20,
        spill_bytes_max: 0,
        concurrent_max: 2,
        wait_seconds: 1,
        timeout_seconds: 60,
        timeout_seconds_max: 60,
        rows_max: 1000,
    };
    let table = rejected::Options {
        path: dir.path().join("rejected.sqlite"),
        bytes_max: 1 << 20,
        event_bytes_max: 1000,
        age_max: Duration::from_secs(60),
    };
    let rejected = rejected::Rejected::open(table, rejected::RejectedMetrics::default()).await.expect("opens");
    let queries = Queries::new(options, rejected, QueryMetrics::default()).expect("queries");

    // As it was: three chunks. As it is now: the first sealed, the other two merged.
    let (first, rest) = ((1, 40), Arc::new(rows((41, 70))));
    let gone = |range: (u64, u64)| LiveChunk { rows: Weak::new(), first: range.0, last: range.1 };
    let before = lake.snapshot();
    let now = Arc::new(Mutex::new(Arc::new(View::of_lake(before.clone()))));
    let newest = {
        let now = now.clone();
        Newest(Arc::new(move || now.lock().expect("unpoisoned").clone()))
    };
    let view = View { lake: before, live: vec![gone(first), gone((41, 50)), gone((51, 70))], newest: newest.clone() };
    let sealed = lake
        .seal(Sealing { first: 1, last: 40, batches: vec![rows(first)], pace: Pace::Pressed })
        .await
        .expect("sealed");
    *now.lock().expect("unpoisoned") =
        Arc::new(View { lake: sealed, live: vec![chunk(&rest, (41, 70))], newest: newest.clone() });

    let all: Vec<serde_json::Value> = (1..=70).map(|n| format!("{{\"n\":{n}}}").into()).collect();
    assert_eq!(data(&queries, &view, "SELECT data FROM events ORDER BY position").await, all);
    assert_eq!(data(&queries, &view, "SELECT count(*) FROM events").await, [70]);
    let last = data(
        &queries,
        &view,
        "SELECT id, type, data->>'n' FROM events WHERE data->>'n' > 39 ORDER BY position LIMIT 2",
    )
    .await;
    assert_eq!(last, ["40", "event", "40", "41", "event", "41"]);

    // And when all of it is sealed, in files that hold more than was asked for.
    let all_of_it = lake
        .seal(Sealing { first: 41, last: 90, batches: vec![rows((41, 90))], pace: Pace::Pressed })
        .await
        .expect("sealed");
    *now.lock().expect("unpoisoned") = Arc::new(View { lake: all_of_it, live: Vec::new(), newest });
    assert_eq!(data(&queries, &view, "SELECT data FROM events ORDER BY position").await, all);
}
