//! Small files of the lake become larger ones while events come, and nobody sees an event twice or misses one: also when the process is
//! killed, and with other engines that read the table.

use serde_json::Value;
use std::collections::HashSet;
use std::path::Path;
use tests::{Collector, as_read_by, skipped};

/// Each of these batches is larger than `seal.bytes`: it is a seal of its own.
const BATCH: u64 = 2_000;
const SETTINGS: [(&str, &str); 2] = [("CATCHMENT_SEAL__BYTES", "1MiB"), ("CATCHMENT_INGEST__SEGMENT_BYTES", "4MiB")];

fn batch(number: u64) -> Vec<u8> {
    let filler = "x".repeat(500);
    let line = |n| format!("{{\"n\":{},\"text\":\"{filler}\"}}\n", number * BATCH + n);
    (0..BATCH).map(line).collect::<String>().into_bytes()
}

/// The files of the table, by the first word of their names.
fn files(dir: &Path, word: &str) -> HashSet<String> {
    let days = std::fs::read_dir(dir.join("data/lake")).into_iter().flatten().flatten();
    let names = days.flat_map(|day| std::fs::read_dir(day.path()).into_iter().flatten().flatten());
    names.map(|e| e.file_name().to_string_lossy().into_owned()).filter(|name| name.starts_with(word)).collect()
}

/// Every event that was sent is there once.
fn check(collector: &Collector, sent: u64) {
    let sql = "SELECT count(*), count(DISTINCT position), count(DISTINCT id), sum((data->>'n')::bigint) FROM events";
    assert_eq!(collector.rows(sql), [[sent, sent, sent, sent * (sent - 1) / 2].map(Value::from)]);
}

#[test]
fn killed_again_and_again_while_files_are_put_together_it_has_every_event_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut collector = Collector::start_with(dir.path(), &SETTINGS);
    let token = collector.sensor("roof");
    let mut batches = 0;
    for round in 0..6 {
        for _ in 0..9 {
            assert_eq!(collector.send(&token, &batch(batches)).status, 200);
            batches += 1;
            // Else several batches may share a seal. Some rounds end in a compaction, some after one.
            if round % 2 == 0 {
                collector.wait_for("a seal", |c| c.metric("catchment_engine_live_rows") == 0.0);
            }
        }
        if round == 5 {
            break;
        }
        collector.kill();
        collector = Collector::start_with(dir.path(), &SETTINGS);
        check(&collector, batches * BATCH);
    }
    collector.wait_for("the seals", |c| c.metric("catchment_engine_live_rows") == 0.0);
    collector.wait_for("a compaction", |_| !files(dir.path(), "merged-").is_empty());
    collector.wait_for("the end of compactions", |c| c.metric("catchment_lake_compaction_due_files") < 16.0);
    check(&collector, batches * BATCH);
    assert_eq!(collector.terminate(), 0);
}

/// What an independent reader finds in the table: how many events, and how many different ones.
const READERS: [(&str, &str); 3] = [
    (
        "deltalake",
        "import sys, json, deltalake, pyarrow.compute as c
t = deltalake.DeltaTable(sys.argv[1]).to_pyarrow_table()
print(json.dumps([t.num_rows, c.count_distinct(t['position']).as_py(), c.sum(c.binary_length(t['data'])).as_py()]))",
    ),
    (
        "polars",
        "import sys, json, polars as p
t = p.read_delta(sys.argv[1])
print(json.dumps([t.height, t['position'].n_unique(), t['data'].str.len_bytes().sum()]))",
    ),
    (
        "duckdb",
        "import sys, json, duckdb, deltalake
files = deltalake.DeltaTable(sys.argv[1]).file_uris()
print(json.dumps(duckdb.sql(f'SELECT count(*), count(DISTINCT position), sum(strlen(data))::bigint FROM read_parquet({files!r})').fetchall()[0]))",
    ),
];

#[test]
fn independent_readers_find_what_the_collector_counts_before_and_after_files_are_put_together() {
    let Some(python) = tests::readers_python() else {
        return skipped("no Python with deltalake, polars and duckdb: set CATCHMENT_READERS_PYTHON");
    };
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    let token = collector.sensor("roof");
    let mut next = 0;
    for batches in [5, 11, 16] {
        for _ in 0..batches {
            assert_eq!(collector.send(&token, &batch(next)).status, 200);
            next += 1;
            collector.wait_for("its seal", |c| c.metric("catchment_engine_live_rows") == 0.0);
        }
        collector.wait_for("the compactions", |c| c.metric("catchment_lake_compaction_due_files") < 16.0);
        let counted = collector.rows("SELECT count(*), count(DISTINCT position), sum(length(data)) FROM events");
        for (name, program) in READERS {
            let found = as_read_by(&python, (name, program), dir.path());
            assert_eq!(found, Value::from(counted[0].clone()), "{name} after {next} batches");
        }
    }
    collector.wait_for("a compaction", |c| c.metric("catchment_lake_compactions_total") >= 1.0);
    assert!(collector.metric("catchment_lake_dead_files") >= 16.0, "files that were put together stay for an hour");
    assert_eq!(collector.terminate(), 0);
}
