//! Real events, sent over HTTP and read back: by SQL byte for byte, and from the table by readers that are not ours.

use std::collections::BTreeMap;
use tests::{Collector, as_read_by, corpus, gunzipped_lines, skipped};

const CORPORA: [&str; 3] = ["nab", "access_logs", "github_webhooks"];

/// Sends the lines in batches of NDJSON.
fn send(collector: &Collector, token: &str, lines: &[String]) {
    for batch in lines.chunks(2000) {
        let answer = collector.send(token, (batch.join("\n") + "\n").as_bytes());
        assert_eq!(
            (answer.status, answer.json()["accepted"].as_u64()),
            (200, Some(batch.len() as u64)),
            "{}",
            answer.text
        );
    }
}

/// The data of one sensor in the order of acceptance.
fn data(collector: &Collector, sensor: &str) -> Vec<String> {
    let sql = format!("SELECT data FROM events WHERE sensor = '{sensor}' ORDER BY position");
    let rows = collector.rows(&sql);
    rows.into_iter().map(|row| row[0].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn the_three_corpora_come_back_byte_for_byte() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_SEAL__BYTES", "8MiB")]);
    for name in CORPORA {
        let Some(path) = corpus(&format!("{name}/events.ndjson.gz")) else { return };
        let lines = gunzipped_lines(&path);
        let token = collector.sensor(name);
        send(&collector, &token, &lines);
        assert!(
            data(&collector, &name.replace('_', "-")) == lines || data(&collector, name) == lines,
            "{name} came back different"
        );
    }
    collector.assert_adds_up();
    // Again after a clean stop and a start, when all of it rests in the lake.
    let api_rows = collector.rows("SELECT count(*), sum(position) FROM events");
    assert_eq!(collector.terminate(), 0);
    let collector = Collector::start(dir.path());
    assert_eq!(collector.rows("SELECT count(*), sum(position) FROM events"), api_rows);
}

/// What every reader must find: events by sensor, the sum of positions, and a sum over the bytes of data.
const READERS: [(&str, &str); 3] = [
    (
        "deltalake",
        "import sys, json, deltalake, pyarrow.compute as c
t = deltalake.DeltaTable(sys.argv[1]).to_pyarrow_table()
g = {r['values']: r['counts'] for r in c.value_counts(t['sensor']).to_pylist()}
print(json.dumps({'sensors': g, 'positions': c.sum(t['position']).as_py(), 'bytes': c.sum(c.binary_length(t['data'])).as_py()}))",
    ),
    (
        "polars",
        "import sys, json, polars as p
t = p.read_delta(sys.argv[1])
g = {r[0]: r[1] for r in t.group_by('sensor').len().iter_rows()}
print(json.dumps({'sensors': g, 'positions': t['position'].sum(), 'bytes': t['data'].str.len_bytes().sum()}))",
    ),
    (
        "duckdb",
        "import sys, json, duckdb, deltalake
files = deltalake.DeltaTable(sys.argv[1]).file_uris()
t = duckdb.sql(f'SELECT * FROM read_parquet({files!r}, hive_partitioning = true)')
g = dict(duckdb.sql('SELECT sensor, count(*) FROM t GROUP BY 1').fetchall())
p, b = duckdb.sql('SELECT sum(position)::bigint, sum(strlen(data))::bigint FROM t').fetchall()[0]
print(json.dumps({'sensors': g, 'positions': p, 'bytes': b}))",
    ),
];

#[test]
fn independent_readers_find_the_same_events_in_the_table() {
    let Some(python) = tests::readers_python() else {
        return skipped("no Python with deltalake, polars and duckdb: set CATCHMENT_READERS_PYTHON");
    };
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_SEAL__BYTES", "1MiB")]);
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    let (mut bytes, mut events) = (0, 0);
    for sensor in ["roof", "cellar"] {
        let token = collector.sensor(sensor);
        let lines: Vec<String> =
            (0..20_000).map(|n| format!("{{\"n\":{n},\"text\":\"ü {}\"}}", "x".repeat(n % 50))).collect();
        send(&collector, &token, &lines);
        expected.insert(sensor.to_owned(), lines.len() as u64);
        bytes += lines.iter().map(String::len).sum::<usize>();
        events += lines.len() as u64;
    }
    assert_eq!(collector.terminate(), 0);
    for (name, program) in READERS {
        let found = as_read_by(&python, (name, program), dir.path());
        assert_eq!(found["sensors"], serde_json::json!(expected), "{name}");
        assert_eq!(found["positions"], events * (events + 1) / 2, "{name}");
        assert_eq!(found["bytes"], bytes, "{name}");
    }
}
