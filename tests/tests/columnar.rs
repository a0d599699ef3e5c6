//! Answers as Arrow IPC and Parquet, as programs read them that are not ours.

use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use tests::{Collector, as_read_by, readers_python, skipped};

const KINDS: [&str; 2] = ["application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"];
const READ: &str = "import sys, json, pyarrow.ipc, pyarrow.parquet
dir = sys.argv[1][:-len('/data/lake')]
tables = [pyarrow.ipc.open_stream(dir + '/arrow.stream').read_all(), pyarrow.parquet.read_table(dir + '/parquet')]
print(json.dumps([{'types': [str(t) for t in t.schema.types], 'rows': [[str(v) for v in row.values()] for row in t.to_pylist()]} for t in tables]))";

/// The status of the answer, whose bytes are in a file of its format's name.
fn ask(collector: &Collector, dir: &Path, kind: &str, sql: &str) -> String {
    let file = dir.join(kind.rsplit_once("apache.").expect("of Apache").1);
    let output = Command::new("curl")
        .args(["-s", "-w", "%{http_code} %{content_type}", "-H", &format!("Authorization: Bearer {}", collector.token)])
        .args(["-H", &format!("Accept: {kind}"), "-d", &json!({ "sql": sql }).to_string(), "-o"])
        .arg(file)
        .arg(format!("{}/api/v1/query", collector.api))
        .output();
    String::from_utf8(output.expect("curl runs").stdout).expect("text")
}

fn read(collector: &Collector, dir: &Path, sql: &str) -> Option<[Value; 2]> {
    let python = readers_python().or_else(|| {
        skipped("there is no Python with the readers");
        None
    })?;
    for kind in KINDS {
        assert_eq!(ask(collector, dir, kind, sql), format!("200 {kind}"));
    }
    let tables = as_read_by(&python, ("pyarrow", READ), dir);
    Some([tables[0].clone(), tables[1].clone()])
}

#[test]
fn answers_as_arrow_and_parquet_are_read_by_others_with_the_types_of_the_table() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    collector.send(&collector.sensor("roof"), b"{\"v\":1.5,\"o\":{\"a\":[1]}}\n{\"v\":\"ten\"}");
    let sql = "SELECT position, sensor, subject, time > received_at AS later, data.v, data->'o' AS o, data_binary, NULL AS nothing, \
               1.5::decimal(4,2) AS d, date '2026-01-31' AS day, interval '1 day' AS i, ARRAY[1,2] AS list, ARRAY[data->'v'] AS json, \
               time '12:00' AS noon FROM events ORDER BY position";
    let Some([arrow, parquet]) = read(&collector, dir.path(), sql) else { return };
    let types = |interval: &str| {
        let list = if interval == "string" { "list<element: int64>" } else { "list<item: int64>" };
        let list = [list, "list<item: int64>"];
        let before = [
            "int64",
            "string",
            "string",
            "bool",
            "double",
            "string",
            "binary",
            "null",
            "decimal128(4, 2)",
            "date32[day]",
        ];
        (before.map(str::to_owned).to_vec(), interval.to_owned(), list)
    };
    for (table, interval) in [(&arrow, "month_day_nano_interval"), (&parquet, "string")] {
        let (before, interval, lists) = types(interval);
        let found: Vec<&str> = table["types"].as_array().expect("types").iter().filter_map(Value::as_str).collect();
        assert_eq!((&found[..10], found[10]), (&before.iter().map(String::as_str).collect::<Vec<_>>()[..], &*interval));
        assert!(lists.contains(&found[11]) && found[12..] == ["string", "time64[ns]"], "{found:?}");
        let rows = table["rows"].as_array().expect("rows");
        let row = |n: usize| {
            [&rows[n][0], &rows[n][1], &rows[n][2], &rows[n][4], &rows[n][5], &rows[n][8], &rows[n][11], &rows[n][12]]
        };
        assert_eq!(row(0), ["1", "roof", "None", "1.5", "{\"a\":[1]}", "1.50", "[1, 2]", "[1.5]"]);
        assert_eq!(row(1), ["2", "roof", "None", "None", "None", "1.50", "[1, 2]", "[\"ten\"]"]);
    }
    let Some(nothing) = read(&collector, dir.path(), "SELECT id, data FROM events WHERE false") else { return };
    assert_eq!(nothing, [(); 2].map(|()| json!({ "types": ["string", "string"], "rows": [] })), "columns without rows");
}

#[test]
fn an_answer_in_columns_that_is_cut_never_looks_complete() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_QUERY__ROWS_MAX", "100")]);
    let lines = "{\"n\":1}\n".repeat(101);
    collector.send(&collector.sensor("roof"), lines.as_bytes());
    for kind in KINDS {
        let whole = ask(&collector, dir.path(), kind, "SELECT id FROM events LIMIT 100");
        assert_eq!(whole, format!("200 {kind}"));
        let cut = ask(&collector, dir.path(), kind, "SELECT id FROM events");
        assert_eq!(cut, "413 application/problem+json", "{kind}");
    }
}
