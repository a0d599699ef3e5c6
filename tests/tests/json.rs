//! JSON as it is: what was sent comes back byte for byte, by SQL and by GET, from live rows and from the lake; what is no JSON is rejected
//! by name.

use serde_json::{Value, json};
use tests::Collector;

const SEALING: [(&str, &str); 1] = [("CATCHMENT_SEAL__AGE_SECONDS", "1s")];

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Sends lines of which none is rejected.
fn accept(collector: &Collector, token: &str, lines: &[String]) {
    let answer = collector.send(token, lines.join("\n").as_bytes());
    assert_eq!((answer.status, answer.json()["accepted"].as_u64()), (200, Some(lines.len() as u64)), "{}", answer.text);
}

/// Runs a check on live rows, and again when they are in the lake.
fn live_and_at_rest(collector: &Collector, check: impl Fn()) {
    check();
    let last = collector.metric("catchment_engine_last_position");
    collector.wait_for("a seal", |c| c.metric("catchment_engine_sealed_position") == last);
    check();
}

/// What is in each value between `{"v":` and `}`.
fn values() -> Vec<String> {
    let values = [
        // Beyond 2^53, beyond 2^64, and more digits than a float has.
        "9007199254740993",
        "-9223372036854775809",
        "18446744073709551616",
        "123456789012345678901234567890",
        "0.1000000000000000055511151231257827",
        "1e2",
        "1E+2",
        "1.50e-07",
        "1e400",
        "-0",
        "-0.0",
        "0.0",
        "10.00",
        // Escapes stay escapes.
        r#""\u0000""#,
        r#""a\u0000b\u0041\/\b\f\n\r\t\"\\""#,
        r#""\ud83d\ude00 \uD834\uDD1E""#,
        // Every language: right to left, joined emoji, combining, composed and not, outside of the basic plane, private, no character.
        "\"\u{645}\u{631}\u{62d}\u{628}\u{627} \u{202e}\u{5e9}\u{5dc}\u{5d5}\u{5dd}\"",
        "\"\u{1f469}\u{200d}\u{1f680}\u{1f1e9}\u{1f1ea}\u{1f44b}\u{1f3fd}\"",
        "\"e\u{301} \u{e9} n\u{303} \u{1e9b}\u{323}\"",
        "\"\u{6e29}\u{5ea6} \u{c628}\u{b3c4} \u{e2d}\u{e38}\u{e13} \u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947} \u{10348}\u{20bb7}\"",
        "\"\u{e000}\u{fffd}\u{fffe}\u{10ffff}\u{2028}\u{2029}\u{feff}\u{7f}\u{85}\"",
        // Blanks and empty things.
        " [ 1 ,\t2 ] ",
        "{\"\":{\"\":\"\"}}",
        "[]",
        "null",
    ];
    let mut values = values.map(str::to_owned).to_vec();
    // One level is the event itself.
    values.push(["[".repeat(127), "]".repeat(127)].concat());
    values.push(["{\"a\":".repeat(126), "[1]".to_owned(), "}".repeat(126)].concat());
    values
}

#[test]
fn every_value_comes_back_byte_for_byte_by_sql_and_by_get_live_and_at_rest() {
    let dir = folder();
    let collector = Collector::start_with(dir.path(), &SEALING);
    let token = collector.sensor("roof");
    let mut lines: Vec<String> = values().iter().map(|value| format!("{{\"v\":{value}}}")).collect();
    // The same key twice, and keys that differ only in how they are written.
    lines.push(r#"{"v":1,"v":2,"\u0076":3,"V":4}"#.to_owned());
    accept(&collector, &token, &lines);
    live_and_at_rest(&collector, || {
        let rows = collector.rows("SELECT data FROM events ORDER BY position");
        let texts: Vec<&str> = rows.iter().map(|row| row[0].as_str().expect("a text")).collect();
        assert_eq!(texts, lines);
        let page = collector.get("/api/v1/events?limit=1000", &collector.token);
        for line in &lines {
            assert!(page.text.contains(&format!("\"data\":{line}")), "{line} is not in {}", page.text);
        }
        let numbers = collector.rows("SELECT data->>'v' FROM events WHERE position <= 13 ORDER BY position");
        let sent: Vec<Vec<Value>> = values()[..13].iter().map(|value| vec![json!(value)]).collect();
        assert_eq!(numbers, sent, "a number is the text that was sent");
        assert_eq!(
            collector.rows("SELECT position FROM events WHERE data->>'v' = 100 ORDER BY position"),
            [[json!(6)], [json!(7)]],
            "and compared it is a number"
        );
    });
}

#[test]
fn what_is_no_json_is_rejected_by_name_with_its_index_and_place() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let deep = ["{\"v\":", &"[".repeat(128), &"]".repeat(128), "}"].concat();
    let lines: [(&[u8], &str, Option<&str>, &str); 11] = [
        (b"{\"v\":1}", "", None, ""),
        (b"{\"a\":{\"b/c\":[0,\"\\ud800\"]}}", "lone_surrogate", Some("/a/b~1c/1"), "byte 16"),
        (b"{\"a\":\"\\ude00\\ud83d\"}", "lone_surrogate", Some("/a"), "byte 6"),
        (b"{\"\\udead\":1}", "lone_surrogate", None, "byte 2"),
        (b"{\"a\":[\"ok\",\"\xff\"]}", "invalid_utf8", Some("/a/1"), "byte 12"),
        (b"{\"a\":\"\xed\xa0\x80\"}", "invalid_utf8", Some("/a"), "byte 6"),
        (b"{\"a\":\"\xc0\x80\"}", "invalid_utf8", Some("/a"), "byte 6"),
        (deep.as_bytes(), "nesting_too_deep", None, "deeper than 128"),
        (b"{\"v\":01}", "invalid_json", None, "byte 6"),
        (b"{\"v\":NaN}", "invalid_json", None, "expected a value"),
        (b"\xef\xbb\xbf{\"v\":1}", "invalid_json", None, "byte order mark"),
    ];
    let body = lines.map(|(line, ..)| line).join(&b'\n');
    let answer = collector.send(&token, &body);
    assert_eq!((answer.status, &answer.json()["accepted"]), (200, &json!(1)), "{}", answer.text);
    let rejected = answer.json()["rejected"].as_array().expect("rejections").clone();
    assert_eq!(rejected.len(), lines.len() - 1);
    for (index, (line, code, pointer, says)) in lines.iter().enumerate().skip(1) {
        let told = &rejected[index - 1];
        assert_eq!((&told["index"], &told["code"]), (&json!(index), &json!(code)), "{told}");
        assert!(told["reason"].as_str().is_some_and(|reason| reason.contains(*says)), "{says:?} is not in {told}");
        match (pointer, *code) {
            (None, "nesting_too_deep") => {
                let pointer = told["pointer"].as_str().expect("where it is too deep");
                assert_eq!(pointer, format!("/v{}", "/0".repeat(127)));
            }
            (pointer, _) => assert_eq!(told["pointer"].as_str(), *pointer, "{told} of {}", line.escape_ascii()),
        }
    }
    assert_eq!(collector.rows("SELECT count(*) FROM rejected"), [[json!(10)]], "with their bytes");
}

#[test]
fn a_field_that_changes_its_type_loses_nothing_and_breaks_no_query_over_both() {
    let dir = folder();
    let collector = Collector::start_with(dir.path(), &SEALING);
    let token = collector.sensor("roof");
    let days = [
        ["{\"v\":10}", "{\"v\":2.5}", "{\"v\":9007199254740993}"],
        ["{\"v\":\"warm\"}", "{\"v\":\"7\"}", "{\"v\":true}"],
        ["{\"v\":{\"celsius\":10}}", "{\"v\":[10,20]}", "{\"w\":null}"],
    ];
    let mut sent = Vec::new();
    for day in days {
        let lines = day.map(str::to_owned);
        accept(&collector, &token, &lines);
        sent.extend(lines);
        let count = sent.len();
        live_and_at_rest(&collector, || {
            let rows = collector.rows("SELECT data FROM events ORDER BY position");
            assert_eq!(rows.iter().map(|row| row[0].as_str().expect("a text")).collect::<Vec<_>>(), sent);
            assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(count)]]);
            assert_queries_run(&collector, count);
        });
    }
    // And back, beside all that is in the lake.
    accept(&collector, &token, &["{\"v\":11}".to_owned()]);
    assert_eq!(collector.rows("SELECT count(*) FROM events WHERE data->>'v' > 9"), [[json!(3)]]);
}

/// Queries over numbers, texts, objects and arrays in one field: what is not of the kind asked for is not found, or null.
fn assert_queries_run(collector: &Collector, count: usize) {
    let one = |sql: &str| collector.rows(sql)[0][0].clone();
    assert_eq!(one("SELECT count(*) FROM events WHERE data->>'v' BETWEEN 1 AND 11"), if count < 6 { 2 } else { 3 });
    assert_eq!(one("SELECT min((data->>'v')::double) FROM events"), 2.5);
    assert_eq!(one("SELECT count(CAST(data->>'v' AS bigint)) FROM events"), if count < 6 { 2 } else { 3 });
    assert_eq!(one("SELECT max(CAST(data->>'v' AS bigint)) FROM events"), 9_007_199_254_740_993_i64);
    assert_eq!(one("SELECT count(*) FROM events WHERE data->>'v' = 'warm'"), u8::from(count > 3));
    assert_eq!(one("SELECT count(*) FROM events WHERE data->'v'->>'celsius' = 10"), u8::from(count > 6));
    assert_eq!(one("SELECT count(*) FROM events WHERE data->'v'->>1 = 20"), u8::from(count > 6));
    let every = collector.rows("SELECT data->>'v', count(*) FROM events GROUP BY data->>'v' ORDER BY data->>'v'");
    assert_eq!(every.len(), count, "{every:?}");
    for clause in [
        "ORDER BY (data->>'v')::double DESC",
        "ORDER BY data->>'v'",
        "WHERE (data->>'v')::timestamp IS NULL",
        "WHERE (data->>'v')::boolean",
        "WHERE data->'v' > 5 OR data->'v' = 'warm'",
    ] {
        let answer = collector.query(&format!("SELECT position, data->'v' FROM events {clause}"));
        assert_eq!(answer.status, 200, "{clause}: {}", answer.text);
    }
}
