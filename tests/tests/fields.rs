//! Fields of `data` are asked as columns, and the answer is the same whether they are one or not: in live rows, in the lake, in files put
//! together, after a start; and other engines read the columns.

use serde_json::{Value, json};
use std::path::Path;
use tests::{Collector, as_read_by, corpus, gunzipped_lines, skipped};

/// Seals are small, so that there are many and they are put together.
const SETTINGS: [(&str, &str); 2] = [("CATCHMENT_SEAL__BYTES", "1MiB"), ("CATCHMENT_INGEST__SEGMENT_BYTES", "4MiB")];

/// The columns of fields in the table, each with its type, as the Delta log has them.
fn columns(dir: &Path) -> Vec<(String, String)> {
    let log = std::fs::read_dir(dir.join("data/lake/_delta_log")).expect("the log").flatten();
    let mut commits: Vec<_> = log.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "json")).collect();
    commits.sort();
    let texts = commits.iter().map(|path| std::fs::read_to_string(path).expect("a commit"));
    let lines: Vec<Value> =
        texts.flat_map(|t| t.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect::<Vec<_>>()).collect();
    let schema = lines.iter().rev().find_map(|line| line["metaData"]["schemaString"].as_str()).expect("a schema");
    let schema: Value = serde_json::from_str(schema).expect("JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let all = schema["fields"].as_array().expect("columns").iter();
    let named = all.map(|column| (text(&column["name"]), text(&column["type"])));
    named.filter(|(name, _)| name.starts_with("data.")).collect()
}

/// The field of a column as it is asked, and the same from the text, which no column answers.
fn both_ways(column: &str, kind: &str) -> [String; 2] {
    let steps: Vec<&str> = column.split('.').skip(1).collect();
    let quoted: Vec<String> = steps.iter().map(|step| format!("\"{step}\"")).collect();
    let (last, before) = steps.split_last().expect("a path");
    let before: String = before.iter().map(|step| format!("->'{step}'")).collect();
    let text = format!("(concat(data, ''){before}->>'{last}')");
    let text = match kind {
        "string" => text,
        kind => format!("{text}::{kind}"),
    };
    [format!("data.{}", quoted.join(".")), text]
}

/// Every field says the same both ways, in every row.
fn agree(collector: &Collector, dir: &Path) -> usize {
    let columns = columns(dir);
    for some in columns.chunks(16) {
        let differ = |(column, kind): &(String, String)| {
            let [field, text] = both_ways(column, kind);
            format!("count(*) FILTER (WHERE {field} IS DISTINCT FROM {text})")
        };
        let sql = format!("SELECT {} FROM events", some.iter().map(differ).collect::<Vec<_>>().join(", "));
        assert_eq!(collector.rows(&sql), [vec![json!(0); some.len()]], "{sql}");
    }
    // And where they are compared.
    for (column, kind) in columns.iter().take(20) {
        let [field, text] = both_ways(column, kind);
        let value =
            collector.rows(&format!("SELECT {text} FROM events WHERE {text} IS NOT NULL ORDER BY position LIMIT 1"));
        let Some(value) = value.first().map(|row| &row[0]) else { continue };
        let literal = match value {
            Value::String(text) => format!("'{}'", text.replace('\'', "''")),
            other => other.to_string(),
        };
        let counted = |expr: &str| collector.rows(&format!("SELECT count(*) FROM events WHERE {expr} = {literal}"));
        assert_eq!(counted(&field), counted(&text), "{field} = {literal}");
    }
    columns.len()
}

fn all_sealed(collector: &Collector) {
    collector.wait_for("the seals", |c| c.metric("catchment_engine_live_rows") == 0.0);
}

#[test]
fn a_field_is_the_same_in_live_rows_in_the_lake_and_after_a_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "3s")]);
    let token = collector.sensor("roof");
    let lines = r#"{"temperature":21.5,"unit":"C","ok":true,"room":{"name":"a","Floor":2,"lift":{"up":false}}}
{"temperature":"n/a","unit":"C","ok":true,"room":{"name":"b","Floor":3}}
{"temperature":"19.5","unit":7,"ok":"yes","tags":[1,2]}
{"temperature":12345678901234567890,"humidity":5e1,"room":5}
{"Temperature":1,"temperature":[1],"unit":{"of":"C"}}
{"temperature":1,"temperature":2,"a.b":3,"odd name":4}
{"tempera\u0074ure":7}
{"temperature":"nan","humidity":1e400,"unit":"D"}
"#;
    let long = format!("{lines}{{\"v\":{},\"temperature\":5}}\n", "9".repeat(4301));
    assert_eq!(collector.send(&token, long.as_bytes()).json()["accepted"], 9);
    let questions = [
        "SELECT data.temperature, data.unit, data.ok, data.room.name, data.room.Floor, data.room.lift.up, data.humidity FROM events ORDER BY position",
        r#"SELECT data.tags, data.Temperature, data."a.b", data."odd name", data.none, data.room FROM events ORDER BY position"#,
        "SELECT count(*), avg(data.temperature), min(data.temperature), sum(data.room.Floor), avg(data.none) FROM events",
        "SELECT data.unit AS unit, count(*) FROM events GROUP BY data.unit HAVING count(*) > 0 ORDER BY data.unit",
        "SELECT position FROM events WHERE data.temperature > 20 AND data.unit = 'C' AND data.ok ORDER BY 1",
        "SELECT a.position, b.position FROM events a JOIN events b ON a.data.room.Floor = b.data.room.Floor + 1",
        "SELECT position FROM events ORDER BY data.temperature DESC NULLS LAST, position LIMIT 2",
        "SELECT (data->>'temperature')::double, data->>'temperature', (data.temperature)::bigint FROM events ORDER BY position",
        "SELECT DISTINCT data.ok FROM events ORDER BY data.ok",
        "SELECT CASE data.room.Floor WHEN 2 THEN 'two' ELSE 'other' END, coalesce(data.humidity, -1) FROM events ORDER BY position",
        "SELECT position FROM events WHERE data.temperature = 'n/a' OR data.temperature IN (21.5, 'n/a') ORDER BY 1",
        "SELECT position FROM events WHERE data.temperature = '1e400' OR data.temperature = 'nan' ORDER BY 1",
        "SELECT coalesce(data.temperature, 'none') FROM events ORDER BY position",
        "SELECT max(t) FROM (SELECT data.temperature AS t FROM events WHERE data.temperature IN (21.5, 19.5)) x",
        "WITH data AS (SELECT data.temperature AS n FROM events) SELECT sum(data.n), count(*) FROM data",
        "SELECT e.data.unit, f.data.unit FROM events e JOIN events f ON e.position = f.position ORDER BY e.position",
        "SELECT data.unit FROM events UNION SELECT data.room.name FROM events ORDER BY data.unit",
    ];
    let ask = |collector: &Collector| questions.map(|sql| (sql, collector.query(sql).text));
    let live = ask(&collector);
    assert!(collector.metric("catchment_engine_live_rows") > 0.0, "the rows are still live");
    for (sql, answer) in &live {
        assert!(answer.contains("\"rows\""), "{sql}: {answer}");
    }
    let first = collector.rows(questions[0]);
    assert_eq!(first[0], [json!(21.5), json!("C"), json!(true), json!("a"), json!(2.0), json!(false), json!(null)]);
    assert_eq!(first[2][..3], [json!(19.5), json!("7"), json!(true)], "texts that read as the type, read as it");
    assert_eq!(first[7][..2], [json!(null), json!("D")], "what JSON has no number for is null");
    for (sql, said) in [
        ("SELECT count(*) FROM events WHERE data.ok BETWEEN 0 AND 1", "cast one of them"),
        (
            "SELECT position FROM events e WHERE data.room.Floor = (SELECT max(f.data.room.Floor) FROM events f WHERE f.data.unit = e.data.unit)",
            "join it",
        ),
    ] {
        let answer = collector.query(sql);
        assert!(answer.status == 400 && answer.text.contains(said), "{sql}: {}", answer.text);
    }
    all_sealed(&collector);
    assert_eq!(ask(&collector), live);
    assert_eq!(agree(&collector, dir.path()), 8);
    assert_eq!(collector.metric("catchment_lake_field_columns"), 8.0);
    assert_eq!(collector.terminate(), 0);
    let collector = Collector::start(dir.path());
    assert_eq!(ask(&collector), live);
    assert_eq!(collector.terminate(), 0);
}

#[test]
fn questions_use_the_columns_and_leave_the_text_unread() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "1s")]);
    let token = collector.sensor("roof");
    collector.send(&token, b"{\"temperature\":1,\"unit\":\"C\"}\n{\"temperature\":2,\"unit\":\"F\"}\n");
    all_sealed(&collector);
    let scan = |sql: &str| {
        let plan = collector.rows(&format!("EXPLAIN {sql}"));
        let physical = plan.iter().find(|row| row[0] == "physical_plan").expect("a plan");
        let physical = physical[1].as_str().expect("a text");
        physical.lines().find(|line| line.contains("DataSourceExec")).expect("a scan").to_owned()
    };
    for sql in [
        "SELECT sensor, avg(data.temperature) FROM events GROUP BY sensor",
        "SELECT sum((data->>'temperature')::double) FROM events",
        "SELECT count(*) FROM events WHERE data.temperature > 1 AND data->>'unit' = 'F'",
        "SELECT count(*) FROM events WHERE data->>'temperature' > 1",
        "SELECT t * 2 FROM (SELECT data.temperature AS t FROM events) x WHERE t > 1 ORDER BY t LIMIT 1",
    ] {
        let scan = scan(sql);
        assert!(scan.contains("data.temperature@") && !scan.contains("data@"), "{sql}: {scan}");
    }
    // A row is asked a condition once, although files are chosen by it as well.
    let filtered = scan("SELECT count(*) FROM events WHERE data.temperature > 1");
    let asked = filtered.split(", ").find(|part| part.starts_with("predicate=")).expect("a condition");
    assert_eq!(asked.matches("data.temperature@").count(), 1, "{filtered}");
    let twice = "SELECT a = b, a = c FROM (SELECT a, a AS b, a AS c, concat(data, '')->>'x' FROM (SELECT random() AS a, data FROM events) t) u";
    assert_eq!(collector.rows(&format!("{twice} LIMIT 1")), [[json!(true), json!(true)]]);
    // What was sent is in the text alone.
    assert!(scan("SELECT data->>'temperature' FROM events").contains("data@"));
    // One event whose field is no number: only its file is read that way.
    collector.send(&token, b"{\"temperature\":\"n/a\"}\n");
    all_sealed(&collector);
    let plan = collector.rows("EXPLAIN SELECT avg(data.temperature) FROM events")[1][1].to_string();
    assert_eq!((plan.matches("DataSourceExec").count(), plan.matches("data_rest@").count()), (2, 1), "{plan}");
    assert_eq!(collector.rows("SELECT avg(data.temperature), count(*) FROM events"), [[json!(1.5), json!(3)]]);
    assert_eq!(collector.rows("SELECT * FROM events LIMIT 1")[0].len(), 12, "the columns of the table, and no more");
    assert_eq!(collector.terminate(), 0);
}

/// Events of all kinds: names, types and shapes change from one to the next.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn name(&mut self) -> String {
        let names = ["a", "b", "c", "d", "A", "x_1", "\\u0061", "odd name", "p.q", "é", "deep"];
        let at = self.below(names.len() + 4);
        names.get(at).map_or_else(|| format!("k{}", self.below(400)), |name| (*name).to_owned())
    }

    fn value(&mut self, depth: usize) -> String {
        let scalars = r#"1 2.50 -0 1e3 9007199254740993 0.1 1e400 true false null "text" "21.5" "" "a\nb" "\u0000" "yes" [1,2] [] {} "NaN" 0.30000000000000004"#;
        let scalars: Vec<&str> = scalars.split(' ').collect();
        match self.below(12) {
            0 | 1 if depth < 10 => {
                let count = self.below(4);
                self.object(count, depth + 1)
            }
            2 => format!("\"{}\"", "long ".repeat(self.below(80))),
            _ => scalars[self.below(scalars.len())].to_owned(),
        }
    }

    fn object(&mut self, members: usize, depth: usize) -> String {
        let members: Vec<String> =
            (0..members).map(|_| format!("\"{}\": {}", self.name(), self.value(depth))).collect();
        format!("{{{}}}", members.join(" ,"))
    }
}

#[test]
fn whatever_the_events_are_every_field_says_the_same_both_ways() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    let token = collector.sensor("roof");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..36 {
        let lines: String = (0..400).map(|n| random.object(n % 6, 0) + "\n").collect();
        let answer = collector.send(&token, lines.as_bytes());
        assert_eq!(answer.json()["rejected_total"], 0, "{}", answer.text);
        collector.send(&token, format!("{{\"filler\":\"{}\"}}\n", "x".repeat(1_000_000)).as_bytes());
        all_sealed(&collector);
    }
    all_sealed(&collector);
    collector.wait_for("the compactions", |c| c.metric("catchment_lake_compaction_due_files") < 16.0);
    assert!(collector.metric("catchment_lake_compactions_total") >= 1.0, "some files were put together");
    assert_eq!(agree(&collector, dir.path()), 256, "as many fields as may have a column");
    assert_eq!(collector.terminate(), 0);
}

#[test]
fn the_fields_of_the_corpora_say_the_same_both_ways() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    for name in ["nab", "access_logs", "github_webhooks"] {
        let Some(path) = corpus(&format!("{name}/events.ndjson.gz")) else { return };
        let token = collector.sensor(name);
        for batch in gunzipped_lines(&path).chunks(500).take(6) {
            assert_eq!(collector.send(&token, (batch.join("\n") + "\n").as_bytes()).status, 200);
        }
    }
    all_sealed(&collector);
    collector.wait_for("the compactions", |c| c.metric("catchment_lake_compaction_due_files") < 16.0);
    assert!(agree(&collector, dir.path()) > 20);
    assert_eq!(collector.terminate(), 0);
}

#[test]
fn columns_are_bounded_and_chosen_by_configuration() {
    let dir = tempfile::tempdir().expect("a folder");
    let event: &[u8] = b"{\"a\":1,\"b\":{\"c\":2,\"d\":3},\"e\":4}\n";
    let names = || columns(dir.path()).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    for (settings, expected) in [
        ([("CATCHMENT_FIELDS__ALLOW", "b"), ("CATCHMENT_FIELDS__DENY", "b.c")], vec!["data.b.d"]),
        ([("CATCHMENT_FIELDS__COLUMNS_MAX", "2"), ("CATCHMENT_FIELDS__DENY", "e")], vec!["data.b.d", "data.a"]),
    ] {
        let collector =
            Collector::start_with(dir.path(), &[settings[0], settings[1], ("CATCHMENT_SEAL__AGE_SECONDS", "1s")]);
        let token = collector.sensor(&format!("roof-{}", expected.len()));
        collector.send(&token, event);
        all_sealed(&collector);
        assert_eq!(names(), expected);
        let all = "SELECT sum(data.a), sum(data.b.c), sum(data.b.d), sum(data.e) FROM events";
        let rows = collector.rows("SELECT count(*) FROM events")[0][0].as_f64().expect("a number");
        assert_eq!(collector.rows(all), [[1.0, 2.0, 3.0, 4.0].map(|n| json!(n * rows))]);
        assert_eq!(collector.terminate(), 0);
    }
}

/// What independent readers find in the columns.
const READERS: [(&str, &str); 3] = [
    (
        "deltalake",
        "import sys, json, deltalake, pyarrow.compute as c
t = deltalake.DeltaTable(sys.argv[1]).to_pyarrow_table()
print(json.dumps([t.num_rows, c.sum(t['data.value']).as_py(), c.count_distinct(t['data.room.name']).as_py(), c.sum(t['data.ok']).as_py()]))",
    ),
    (
        "polars",
        "import sys, json, polars as p
t = p.read_delta(sys.argv[1])
print(json.dumps([t.height, t['data.value'].sum(), t['data.room.name'].drop_nulls().n_unique(), t['data.ok'].sum()]))",
    ),
    (
        "duckdb",
        "import sys, json, duckdb, deltalake
files = deltalake.DeltaTable(sys.argv[1]).file_uris()
print(json.dumps(duckdb.sql(f'''SELECT count(*), sum(\"data.value\"), count(DISTINCT \"data.room.name\"), (count(*) FILTER (\"data.ok\"))::bigint
FROM read_parquet({files!r}, union_by_name = true)''').fetchall()[0]))",
    ),
];

#[test]
fn independent_readers_have_the_columns() {
    let Some(python) = tests::readers_python() else {
        return skipped("no Python with deltalake, polars and duckdb: set CATCHMENT_READERS_PYTHON");
    };
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "1s")]);
    let token = collector.sensor("roof");
    // The columns come one after another: older files have fewer.
    for lines in [
        "{\"value\":1.5}\n{\"value\":\"n/a\"}\n",
        "{\"value\":2,\"room\":{\"name\":\"a\"}}\n{\"room\":{\"name\":\"b\"},\"ok\":true}\n",
        "{\"ok\":false,\"value\":3}\n{\"ok\":true,\"room\":[1]}\n",
    ] {
        collector.send(&token, lines.as_bytes());
        all_sealed(&collector);
    }
    let expected = json!([6, 6.5, 2, 2]);
    assert_eq!(
        Value::from(collector.rows("SELECT count(*), sum(data.value), count(DISTINCT data.room.name), count(*) FILTER (WHERE data.ok) FROM events")[0].clone()),
        expected
    );
    for (name, program) in READERS {
        let found = as_read_by(&python, (name, program), dir.path());
        assert_eq!(found, expected, "{name}");
    }
    assert_eq!(collector.terminate(), 0);
}

#[test]
fn the_fields_that_there_are_are_told_by_type_of_event() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = [("CATCHMENT_SEAL__AGE_SECONDS", "1h"), ("CATCHMENT_FIELDS__COLUMNS_MAX", "2")];
    let collector = Collector::start_with(dir.path(), &settings);
    let token = collector.sensor("roof");
    let lines = r#"{"type":"reading","t":21.5,"room":{"Floor":2,"tags":["a"]}}
{"type":"reading","t":"n/a","odd name":1,"none":null}
{"type":"alarm","on":true}
"#;
    assert_eq!(collector.send(&token, lines.as_bytes()).json()["accepted"], 3);
    let token = collector.add_token(&json!({ "role": "reader", "name": "eyes" }));
    let token = token["token"].as_str().expect("a token").to_owned();
    let told = |path: &str| collector.get(path, &token).json();
    let field = |name: &str, kind: &str, column: bool, values: &[&str]| json!({ "name": name, "type": kind, "column": column, "values": values });
    let expected = |columns: bool| {
        let reading = [
            field("data.room.Floor", "double", columns, &["number"]),
            field("data.room.tags", "text", false, &["list"]),
            field("data.t", "double", columns, &["number", "text"]),
            field("data.type", "text", false, &["text"]),
        ];
        let alarm = [field("data.on", "text", false, &["boolean"]), field("data.type", "text", false, &["text"])];
        json!({ "types": [{ "type": "alarm", "fields": alarm }, { "type": "reading", "fields": reading }], "partial": false })
    };
    assert_eq!(told("/api/v1/fields"), expected(false), "live");
    assert_eq!(collector.terminate(), 0);
    let collector = Collector::start_with(dir.path(), &settings);
    let told = |path: &str| collector.get(path, &token).json();
    all_sealed(&collector);
    assert_eq!(told("/api/v1/fields"), expected(true), "in the lake");
    assert_eq!(told("/api/v1/fields?type=alarm")["types"], json!([expected(true)["types"][0]]));
    assert_eq!(told("/api/v1/fields?type=none")["types"], json!([]));
    assert_eq!(told("/api/v1/fields?typ=alarm")["code"], "invalid_parameter");
    let [type_of, fields] =
        ["t", "on"].map(|field| collector.rows(&format!("SELECT data.{field} FROM events ORDER BY position")));
    assert_eq!(
        (&type_of[0], &fields[2]),
        (&vec![json!(21.5)], &vec![json!("true")]),
        "the types are those of questions"
    );
    assert_eq!(collector.terminate(), 0);
}
