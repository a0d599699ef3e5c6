//! SQL over the API: what is understood, what is refused, what its limits are.

use serde_json::{Value, json};
use tests::{Answer, Collector};

fn filled(settings: &[(&str, &str)]) -> (tempfile::TempDir, Collector) {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), settings);
    let token = collector.sensor("roof");
    let values = [r#"10"#, r#"9.5"#, r#""warm""#, r#"1e2"#, r#"null"#, r#"{"deep":[1,{"x":"y"}]}"#];
    let lines: String = values.iter().map(|v| format!("{{\"type\":\"t\",\"data\":{{\"v\":{v}}}}}\n")).collect();
    assert_eq!(collector.send(&token, lines.as_bytes()).json()["accepted"], 6);
    (dir, collector)
}

fn ask(collector: &Collector, body: &Value) -> Answer {
    collector.post("/api/v1/query", &collector.token, body.to_string().as_bytes(), &[])
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str, says: &str) {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert_eq!(answer.json()["code"], code, "{}", answer.text);
    assert!(answer.text.contains(says), "{says:?} is not in {}", answer.text);
}

#[test]
fn fields_of_data_can_be_asked_in_every_clause() {
    let (_dir, collector) = filled(&[]);
    let one = |sql: &str| collector.rows(sql)[0][0].clone();
    assert_eq!(one("SELECT count(*) FROM events WHERE data->>'v' > 9.7"), 2, "as numbers, not as texts");
    assert_eq!(one("SELECT count(*) FROM events WHERE data->>'v' = 'warm'"), 1);
    assert_eq!(one("SELECT data->>'v' FROM events WHERE data->>'v' = 100"), "1e2", "the text as it was sent");
    assert_eq!(
        one("SELECT avg((data->>'v')::double) FROM events"),
        json!((10.0 + 9.5 + 100.0) / 3.0),
        "what is no number is null"
    );
    assert_eq!(one("SELECT sum((data->>'v') + 1) FROM events WHERE data->>'v' < 50"), 21.5);
    assert_eq!(one("SELECT data->'v'->'deep'->1->>'x' FROM events WHERE data->'v'->'deep'->1->>'x' IS NOT NULL"), "y");
    let groups = collector.rows("SELECT data->>'v' AS v, count(*) FROM events GROUP BY data->>'v' HAVING data->>'v' = 'warm' ORDER BY data->>'v'");
    assert_eq!(groups, [[json!("warm"), json!(1)]]);
    let ordered =
        collector.rows("SELECT data->>'v' FROM events WHERE data->>'v' > 0 ORDER BY (data->>'v')::double DESC");
    assert_eq!(ordered, [["1e2"], ["10"], ["9.5"]]);
    let first = collector.rows("SELECT DISTINCT ON (type) position FROM events ORDER BY type, position, position DESC");
    assert_eq!(first, [[1]], "what is sorted by twice");
    assert_eq!(one("SELECT first_value(position ORDER BY position DESC, position) FROM events GROUP BY type"), 6);
    let joined = "SELECT count(*) FROM events a JOIN events b ON a.data->>'v' = b.data->>'v'";
    assert_eq!(one(joined), 5);
    assert_eq!(one("SELECT count(*) FROM events WHERE (data->>'v')::int BETWEEN 1 AND 10"), 1, "9.5 is no int");
    // One text among numbers breaks no query, wherever the number comes from.
    for (condition, count) in [
        ("data->>'v' > 4 + 5.6", 2),
        ("data->>'v' > abs(-9.7)", 2),
        ("data->>'v' > (SELECT 9.7)", 2),
        ("data->>'v' IN (SELECT 10)", 1),
        ("data->>'v' > position + 9", 1),
        ("(data->>'v') + position > 11", 2),
        ("data->'v' > 9.7", 2),
        ("data->'v' = 9.5", 1),
        ("coalesce(data->>'v', 0) > 9.7", 2),
        ("data->>'v' BETWEEN 9 AND 9 + 1", 2),
    ] {
        assert_eq!(one(&format!("SELECT count(*) FROM events WHERE {condition}")), count, "{condition}");
    }
    assert_eq!(one("SELECT count(*) FROM (SELECT data->>'v' AS v FROM events) WHERE v > 9.7"), 2);
    let both = collector.rows("SELECT data->>'v', (data->>'v')::double, data->'v' FROM events ORDER BY position");
    assert_eq!(both[0], [json!("10"), json!(10.0), json!(10)]);
    assert_eq!(both[2], [json!("warm"), Value::Null, json!("warm")]);
    assert_eq!(both[5][2], json!({"deep": [1, {"x": "y"}]}));
    assert_eq!(one("SELECT extract(hour FROM time) - extract(hour FROM time AT TIME ZONE 'UTC') FROM events"), 0);
}

#[test]
fn parameters_limits_and_formats() {
    let (_dir, collector) = filled(&[]);
    let answer = ask(
        &collector,
        &json!({"sql": "SELECT position, type, time > $2::timestamptz AS later FROM events WHERE data->>'v' > $1 ORDER BY position", "params": [9, "2020-01-01T00:00:00Z"], "limit": 2}),
    );
    assert_eq!(
        answer.json(),
        json!({
            "columns": [{"name": "position", "type": "bigint"}, {"name": "type", "type": "text"}, {"name": "later", "type": "boolean"}],
            "rows": [[1, "t", true], [2, "t", true]],
            "truncated": true
        })
    );
    let in_form = |accept: &str| {
        let body = json!({"sql": "SELECT position AS p, data FROM events ORDER BY 1 LIMIT 2"}).to_string();
        collector.post("/api/v1/query", &collector.token, body.as_bytes(), &[("accept", accept)])
    };
    assert_eq!(in_form("text/csv").text, "p,data\r\n1,\"{\"\"v\"\":10}\"\r\n2,\"{\"\"v\"\":9.5}\"\r\n");
    let lines = in_form("application/x-ndjson").text;
    assert_eq!(lines, "{\"p\":1,\"data\":\"{\\\"v\\\":10}\"}\n{\"p\":2,\"data\":\"{\\\"v\\\":9.5}\"}\n");
    let nothing = ask(&collector, &json!({"sql": "SELECT position FROM events WHERE false"})).json();
    assert_eq!(nothing, json!({"columns": [{"name": "position", "type": "bigint"}], "rows": [], "truncated": false}));
}

#[test]
fn the_format_is_the_one_that_is_wanted_most_and_none_that_is_forbidden() {
    let (_dir, collector) = filled(&[]);
    let of = |accept: &[&str]| {
        let headers: Vec<(&str, &str)> = accept.iter().map(|accept| ("accept", *accept)).collect();
        collector.post("/api/v1/query", &collector.token, br#"{"sql": "SELECT 1 AS one"}"#, &headers)
    };
    let (json, lines, csv) = ("application/json", "application/x-ndjson", "text/csv; charset=utf-8; header=present");
    for (accept, kind) in [
        ("application/json, text/csv;q=0.1", json),
        ("text/csv;q=0.1, application/json;q=0.9", json),
        ("text/csv;q=0, application/json", json),
        ("application/json, text/plain, */*", json),
        ("*/*", json),
        ("", json),
        ("application/x-ndjson;q=0, */*", json),
        ("application/json;q=0, application/x-ndjson;q=0, */*", csv),
        ("text/*", csv),
        ("text/csv, application/json", csv),
        ("text/csv, */*;q=0.8", csv),
        ("application/ndjson", lines),
        ("text/csv;q=0.5, Application/X-NDJSON", lines),
    ] {
        let answer = of(&[accept]);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{accept}: {}", answer.text);
    }
    assert_eq!(of(&["text/csv;q=0.1", "application/x-ndjson;q=0.2"]).header("content-type"), Some(lines));
    for accept in
        ["application/xml", "application/vnd.apache.arrow.file", "application/json;q=0", "text/csv;q=0, text/*"]
    {
        refused(&of(&[accept]), 406, "not_acceptable", "application/x-ndjson");
    }
}

#[test]
fn a_pattern_that_is_no_regular_expression_is_the_askers_mistake() {
    let (_dir, collector) = filled(&[]);
    let sql = |sql: &str| ask(&collector, &json!({ "sql": sql }));
    refused(&sql("SELECT data->>'a' ~ '(' FROM events"), 400, "invalid_sql", "no regular expression: unclosed group");
    refused(&sql("SELECT regexp_replace(sensor, '[', 'x') FROM events"), 400, "invalid_sql", "no regular expression");
    refused(&sql(r"SELECT sensor ~ '(\w{100}){100}' FROM events"), 400, "invalid_sql", "too large");
    refused(&sql(r"SELECT regexp_replace(sensor, '(\w{100}){100}', '') FROM events"), 400, "invalid_sql", "too large");
    refused(&sql("SELECT count(*) FROM events WHERE sensor ~ 'error: ('"), 400, "invalid_sql", "unclosed group");
    assert_eq!(collector.terminate(), 0);
}

#[test]
fn only_reading_is_allowed_and_errors_say_what_is_wrong() {
    let (_dir, collector) = filled(&[]);
    let sql = |sql: &str| ask(&collector, &json!({ "sql": sql }));
    for statement in [
        "INSERT INTO events VALUES (1)",
        "DROP TABLE events",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "COPY events TO '/tmp/stolen.csv'",
        "SET datafusion.execution.target_partitions = 100",
        "SELECT 1; SELECT 2",
        "SELECT * FROM range(1, 100000000000)",
        "SELECT * FROM generate_series(1, 100000000000)",
    ] {
        refused(&sql(statement), 400, "statement_not_allowed", "only one reading statement");
    }
    refused(&sql("SELECT * FROM '/etc/passwd'"), 400, "invalid_sql", "");
    refused(&sql("SELECT * FROM read_parquet('/etc/passwd')"), 400, "statement_not_allowed", "");
    refused(&sql("SELEC 1"), 400, "invalid_sql", "SELEC");
    refused(&sql("SELECT temperature FROM events"), 400, "invalid_sql", "temperature");
    refused(&sql("SELECT data.list[1] FROM events"), 400, "invalid_sql", "data->'list'->0");
    refused(&sql(""), 400, "invalid_sql", "empty");
    refused(&sql("SELECT $1"), 400, "invalid_sql", "");
    refused(
        &ask(&collector, &json!({"sql": "SELECT $1", "params": [[1]]})),
        400,
        "invalid_parameter",
        "a parameter is a text",
    );
    refused(&ask(&collector, &json!({"sq": "SELECT 1"})), 400, "invalid_body", "sql");
    refused(&sql("SELECT 1/0"), 400, "invalid_sql", "");
    refused(&sql("SELECT data #>> '{a,b}' FROM events"), 400, "invalid_sql", "data->'a'->>'b'");
    // What makes much from little is not there; what nests too deep is refused; nothing of it ends the process.
    for many in [
        "repeat('x', 1000000000)",
        "cardinality(range(0, 200000000))",
        "array_repeat(1, 1000000000)",
        "lpad('x', 900000000)",
    ] {
        refused(&sql(&format!("SELECT {many}")), 400, "invalid_sql", "");
    }
    let chain =
        |n: usize, term: &str, op: &str| format!("SELECT count(*) FROM events WHERE {}", vec![term; n].join(op));
    for long in [chain(1000, "id = 'x'", " OR "), chain(800, "data->>'a' = 1", " AND "), chain(1000, "1 = 1", " AND ")]
    {
        assert_eq!(sql(&long).status, 200, "a long chain is answered");
    }
    refused(&sql(&chain(20_000, "1", "+")), 400, "invalid_sql", "words and signs");
    refused(&sql(&vec!["SELECT 1"; 6000].join(" UNION ALL ")), 400, "invalid_sql", "words and signs");
    refused(&sql(&format!("SELECT data{} FROM events", "->'a'".repeat(1000))), 400, "invalid_sql", "steps");
    assert_eq!(
        sql(&format!("SELECT data{} FROM events", "->'a'".repeat(100))).status,
        200,
        "a long path is planned at once"
    );
    refused(
        &sql("WITH RECURSIVE t AS (SELECT 'x' AS s UNION ALL SELECT s || s FROM t) SELECT s FROM t"),
        400,
        "invalid_sql",
        "",
    );
    for statement in
        ["EXPLAIN SELECT 1", "SHOW TABLES", "DESCRIBE events", "SELECT table_name FROM information_schema.tables"]
    {
        assert_eq!(sql(statement).status, 200, "{statement}");
    }
}

#[test]
fn an_error_tells_its_place_in_the_text_as_it_was_sent() {
    let (_dir, collector) = filled(&[]);
    for (sql, line, column) in [
        ("SELEC 1", 1, 1),
        ("SELECT data.v FROM events\nWHERE )", 2, 7),
        ("SELECT 'open", 1, 8),
        ("SELECT \"ä\" x, data.v,", 1, 22),
        ("SELECT *\nFROM events\nWHERE   \n", 3, 6),
        ("SELECT data.v, temperature FROM events", 1, 16),
        ("SELECT data.v\n  FROM events\n  WHERE data.v > 1 AND nothing = 'ü'", 3, 24),
        ("SELECT avg(data.v) FROM events e WHERE e.nothing > 1", 1, 40),
        ("SELECT data.a, sum(nothing) FROM events GROUP BY data.a", 1, 20),
        ("SELECT 1 FROM events GROUP BY nothing", 1, 31),
        ("SELECT 'é', data.v FROM events ORDER BY nothing", 1, 41),
        ("SELECT e.id FROM events e JOIN events f ON e.id = f.id WHERE type = 'a'", 1, 62),
        ("SELECT data.a FROM (SELECT 1 AS b)", 1, 8),
        ("SELECT data.a, data.b, no_such(data.c) FROM events", 1, 24),
        ("SELECT data.a,\n\tdata.b FROM event", 2, 14),
        ("SELECT data.v FROM events WHERE id IN (SELECT x FROM nowhere)", 1, 54),
        ("EXPLAIN SELECT data.a, nothing FROM events", 1, 24),
        ("SELECT data.list[1] FROM events", 1, 8),
        ("SELECT data #>> '{a,b}' FROM events", 1, 8),
        ("SELECT lpad('x', 900000000)", 1, 8),
    ] {
        let answer = ask(&collector, &json!({ "sql": sql }));
        refused(&answer, 400, "invalid_sql", "");
        assert_eq!(answer.json()["place"], json!({ "line": line, "column": column }), "{sql}: {}", answer.text);
    }
    let nowhere = ask(&collector, &json!({ "sql": "SELECT 1/0" }));
    assert_eq!((nowhere.status, nowhere.json().get("place")), (400, None), "a value has none");
    assert_eq!(collector.terminate(), 0);
}

#[test]
fn json_is_compared_like_its_text_and_one_text_among_numbers_breaks_no_condition() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "1s")]);
    let token = collector.sensor("roof");
    let values = ["1", "\"n/a\"", "2.5", "null", "\"5\"", "-3", "7.9"];
    let lines: String = values.iter().map(|v| format!("{{\"v\":{v},\"time\":0}}\n")).collect();
    let one = |n: usize| [format!("{{\"w\":{n}}}\n"), "{\"time\":\"0001-01-01T00:00:00Z\"}\n".to_owned()].concat();
    assert_eq!(collector.send(&token, (lines + &one(1)).as_bytes()).json()["accepted"], 9);
    let found = |condition: &str| -> Vec<i64> {
        let sql = format!("SELECT position FROM events WHERE {condition} ORDER BY position");
        collector.rows(&sql).iter().map(|row| row[0].as_i64().expect("a position")).collect()
    };
    let check = || {
        for (condition, positions) in [
            ("data->'v' BETWEEN 1 AND 6", [1, 3, 5].as_slice()),
            ("data->'v' IN (2.5, 1)", &[1, 3]),
            ("data->'v' > position - 2", &[1, 3, 5, 7]),
            ("data->'v' > abs(1)", &[3, 5, 7]),
            ("data->'v' > CAST(1 AS int)", &[3, 5, 7]),
            ("data->'v' > 1 + 0", &[3, 5, 7]),
            ("data->'v' > (SELECT 1)", &[3, 5, 7]),
            ("greatest(data->'v', 0) > 2", &[3, 5, 7]),
            ("data->'q' = data->'r'", &[]),
            ("data->'v' = 'n/a'", &[2]),
            ("data->'v' <> 1", &[3, 5, 6, 7]),
            ("data->>'v' IS NOT DISTINCT FROM 5", &[5]),
            ("CASE data->>'v' WHEN 5 THEN true ELSE false END", &[5]),
            ("data->>'v' IN (5, 'n/a')", &[2, 5]),
            ("data->>'v' NOT IN (5, 'n/a', 1)", &[3, 6, 7]),
            ("5 IN (data->>'v')", &[5]),
            ("3 BETWEEN data->>'v' AND 6 AND data->>'v' > 0", &[1, 3]),
            ("data->>'v' BETWEEN position AND '6'", &[1, 5]),
            ("type = 5", &[]),
            ("coalesce(type, 'x') = 'event' AND coalesce(data->>'v', position) = '5'", &[5]),
            ("now() - time < interval '1 hour'", &[8]),
            ("date_trunc('day', time) IS NULL", &[9]),
        ] {
            assert_eq!(found(condition), positions, "{condition}");
        }
        let body = json!({"sql": "SELECT count(*) FROM events WHERE type = $1", "params": [5]});
        assert_eq!(ask(&collector, &body).json()["rows"], json!([[0]]));
        for (sql, says) in [
            ("SELECT * FROM events WHERE arrow_cast(type, 'Int64') > 5", "Cannot cast string 'event'"),
            ("SELECT count(*) FROM events WHERE 1 / (position - 1) > 0", "ivide by zero"),
            ("SELECT max(data->'v') FROM events", "data->>'field'"),
        ] {
            refused(&ask(&collector, &json!({ "sql": sql })), 400, "invalid_sql", says);
        }
    };
    check();
    collector.wait_for("a seal", |c| c.metric("catchment_engine_sealed_position") == 9.0);
    check();
}

#[test]
fn clients_that_do_not_read_keep_nobody_from_asking_beyond_their_time() {
    let settings = [("CATCHMENT_QUERY__CONCURRENT_MAX", "1"), ("CATCHMENT_QUERY__WAIT_SECONDS", "0s")];
    let (_dir, collector) = filled(&settings);
    let tables = (0..9).map(|n| format!("events e{n}")).collect::<Vec<_>>().join(", ");
    let sql = format!("SELECT e0.id, e1.id, e2.id, e3.id, e4.id FROM {tables}");
    let body = json!({"sql": sql, "timeout_seconds": 1, "limit": 1_000_000}).to_string();
    let _reads_nothing = collector.post_and_leave("/api/v1/query", body.as_bytes());
    collector.wait_for("the query", |c| c.metric("catchment_query_running") == 1.0);
    collector.wait_for("another question's turn", |c| c.query("SELECT 1").status == 200);
    assert_eq!(collector.metric("catchment_query_queries_total{result=\"query_timeout\"}"), 1.0);
}

#[test]
fn a_page_of_large_events_ends_early_and_goes_on_with_its_cursor() {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = [("CATCHMENT_QUERY__MEMORY_BYTES_MAX", "16MiB"), ("CATCHMENT_SEAL__AGE_SECONDS", "1s")];
    let collector = Collector::start_with(dir.path(), &settings);
    let token = collector.sensor("roof");
    let line = format!("{{\"x\":\"{}\"}}\n", "x".repeat(900_000));
    for _ in 0..4 {
        assert_eq!(collector.send(&token, line.repeat(10).as_bytes()).json()["accepted"], 10);
    }
    collector.wait_for("a seal", |c| c.metric("catchment_engine_sealed_position") == 40.0);
    let (mut cursor, mut positions) = (String::new(), Vec::new());
    loop {
        let page = collector.get(&format!("/api/v1/events?limit=40{cursor}"), &collector.token);
        assert_eq!(page.status, 200, "{:.300}", page.text);
        let page = page.json();
        positions.extend(page["events"].as_array().expect("events").iter().map(|e| e["position"].as_u64()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let all: Vec<Option<u64>> = (1..=40).rev().map(Some).collect();
    assert_eq!(positions, all);
}

#[test]
fn a_query_ends_at_its_limits_of_time_memory_rows_and_text() {
    let settings = [
        ("CATCHMENT_QUERY__MEMORY_BYTES_MAX", "16MiB"),
        ("CATCHMENT_QUERY__SPILL_BYTES_MAX", "0"),
        ("CATCHMENT_QUERY__ROWS_MAX", "100"),
        ("CATCHMENT_QUERY__BYTES_MAX", "2KiB"),
    ];
    let (_dir, collector) = filled(&settings);
    let seven = "events a, events b, events c, events d, events e, events f, events g, events h, events i, events j, events k, events l";
    let slow = json!({"sql": format!("SELECT count(*) FROM {seven} WHERE a.data->>'v' || b.id <> c.id || l.id"), "timeout_seconds": 1});
    refused(&ask(&collector, &slow), 503, "query_timeout", "longer than 1 s");
    let wide = format!(
        "SELECT count(*) FROM (SELECT a.id || b.id || c.id || d.id || e.id || f.id || g.id || h.id AS x FROM {seven}) GROUP BY x"
    );
    refused(&ask(&collector, &json!({ "sql": wide })), 413, "query_too_large", "memory");
    let many = "SELECT a.id FROM events a, events b, events c";
    let answer = ask(&collector, &json!({ "sql": many })).json();
    assert_eq!((answer["rows"].as_array().map(Vec::len), &answer["truncated"]), (Some(100), &json!(true)));
    let long = format!("SELECT '{}'", "x".repeat(3000));
    refused(&ask(&collector, &json!({ "sql": long })), 413, "query_too_large", "2048");
    // In a format that cannot say that it is cut, the answer must not look complete: refused while its head is not sent yet,
    // else broken off.
    let body = json!({ "sql": many }).to_string();
    let csv = [("accept", "text/csv")];
    let cut = collector.try_post("/api/v1/query", body.as_bytes(), &csv).expect("an answer");
    refused(&cut, 413, "too_many_rows", "more than 100 rows");
    let wide = "SELECT lpad(a.id, 1000), lpad(b.id, 1000), lpad(c.id, 1000), lpad(a.id, 999) FROM events a, events b, events c";
    let body = json!({ "sql": wide }).to_string();
    let cut = collector.try_post("/api/v1/query", body.as_bytes(), &csv);
    assert!(cut.is_err(), "{cut:?}");
    assert!(collector.metric("catchment_query_queries_total{result=\"query_timeout\"}") >= 1.0);
}

#[test]
fn too_many_queries_are_turned_away_and_a_query_whose_client_is_gone_stops() {
    let settings = [("CATCHMENT_QUERY__CONCURRENT_MAX", "1"), ("CATCHMENT_QUERY__WAIT_SECONDS", "0s")];
    let (_dir, collector) = filled(&settings);
    let seven = (0..16).map(|n| format!("events e{n}")).collect::<Vec<_>>().join(", ");
    let slow = json!({"sql": format!("SELECT count(*) FROM {seven} WHERE e0.data->>'v' || e1.id <> e2.id || e15.id"), "timeout_seconds": 60}).to_string();
    let gone = collector.post_and_leave("/api/v1/query", slow.as_bytes());
    collector.wait_for("the query", |c| c.metric("catchment_query_running") == 1.0);
    collector.wait_for("its memory", |c| c.metric("catchment_query_memory_bytes") > 0.0);
    let turned_away = collector.query("SELECT 1");
    refused(&turned_away, 429, "too_many_queries", "1 queries are running");
    assert_eq!(turned_away.header("retry-after"), Some("1"));
    drop(gone);
    collector.wait_for("the end of the query", |c| c.metric("catchment_query_running") == 0.0);
    collector.wait_for("its memory again", |c| c.metric("catchment_query_memory_bytes") == 0.0);
    assert_eq!(collector.rows("SELECT 1"), [[json!(1)]]);
    assert_eq!(collector.metric("catchment_query_queries_total{result=\"dropped\"}"), 1.0);
}

#[test]
fn live_rows_and_the_lake_are_one_table() {
    let (_dir, collector) = filled(&[("CATCHMENT_SEAL__AGE_SECONDS", "1s")]);
    collector.wait_for("a seal", |c| c.metric("catchment_engine_sealed_position") == 6.0);
    let token = collector.sensor("cellar");
    for n in 0..3 {
        assert_eq!(collector.send(&token, format!("{{\"n\":{n}}}").as_bytes()).json()["accepted"], 1);
        assert_eq!(
            collector.rows("SELECT count(*), count(DISTINCT position), max(position) FROM events"),
            [[json!(7 + n), json!(7 + n), json!(7 + n)]]
        );
    }
    assert_eq!(collector.rows("SELECT count(*) FROM events WHERE sensor = 'roof'"), [[json!(6)]]);
    let newest = collector.rows("SELECT data FROM events ORDER BY position DESC LIMIT 1");
    assert_eq!(newest, [["{\"n\":2}"]]);
    let skipped = collector.metric("catchment_query_files_skipped_total");
    assert_eq!(collector.rows("SELECT count(*) FROM events WHERE sensor = 'no such'"), [[json!(0)]]);
    assert!(collector.metric("catchment_query_files_skipped_total") > skipped, "files are skipped by their statistics");
}

#[test]
fn a_query_that_never_ends_by_itself_keeps_no_other_from_its_answer_and_no_sealed_rows_in_memory() {
    let settings =
        [("CATCHMENT_SEAL__BYTES", "1MiB"), ("CATCHMENT_SEAL__AGE_SECONDS", "1h"), ("CATCHMENT_QUERY__THREADS", "1")];
    let (_dir, collector) = filled(&settings);
    let tables = (0..16).map(|n| format!("events e{n}")).collect::<Vec<_>>().join(", ");
    let sql = format!("SELECT count(*) FROM {tables} WHERE e0.type || e1.id <> e2.id || e15.id");
    let slow =
        collector.post_and_leave("/api/v1/query", json!({"sql": sql, "timeout_seconds": 60}).to_string().as_bytes());
    collector.wait_for("the query", |c| c.metric("catchment_query_running") == 1.0);
    let token = collector.sensor("cellar");
    let line = format!("{{\"x\":\"{}\"}}\n", "x".repeat(200_000));
    for events in 7..20 {
        assert_eq!(collector.send(&token, line.as_bytes()).status, 200);
        assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(events)]]);
    }
    collector.wait_for("a seal", |c| c.metric("catchment_engine_sealed_position") >= 6.0);
    assert_eq!(collector.rows("SELECT count(*), count(DISTINCT position) FROM events"), [[json!(19), json!(19)]]);
    drop(slow);
    collector.wait_for("the end of the query", |c| c.metric("catchment_query_running") == 0.0);
}

#[test]
fn a_question_that_may_take_no_time_is_refused_with_the_range() {
    let (_dir, collector) = filled(&[]);
    let answer = ask(&collector, &json!({"sql": "SELECT 1", "timeout_seconds": 0}));
    refused(&answer, 400, "invalid_parameter", "timeout_seconds is 0: it goes from 1 to 600");
    assert_eq!(ask(&collector, &json!({"sql": "SELECT 1", "timeout_seconds": 1_000_000})).status, 200);
}
