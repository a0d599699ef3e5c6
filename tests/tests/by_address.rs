//! SQL in an address alone: for whatever fetches files, such as browsers, spreadsheets and `curl -G`.

use serde_json::{Value, json};
use tests::{Answer, Collector};

/// A collector with events whose texts a spreadsheet would run.
fn filled() -> (tempfile::TempDir, Collector) {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "plain", "=\"a\",b", "\u{ff1d}1", "a=1"];
    let lines: String =
        texts.iter().map(|text| json!({ "data": { "v": text }, "type": "t" }).to_string() + "\n").collect();
    assert_eq!(collector.send(&token, lines.as_bytes()).json()["accepted"], texts.len());
    (dir, collector)
}

fn ask(collector: &Collector, parameters: &[(&str, &str)]) -> Answer {
    let pairs: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    collector.get(&format!("/api/v1/query?{}", pairs.join("&")), &collector.token)
}

/// Each byte by its number, which is right for any.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn it_is_answered_as_the_same_question_in_a_body() {
    let (_dir, collector) = filled();
    let sql = "SELECT type, count(*) AS events FROM events WHERE sensor = $1 AND position > $2 GROUP BY 1";
    let question = json!({ "sql": sql, "params": ["roof", 3] }).to_string();
    let body = collector.post("/api/v1/query", &collector.token, question.as_bytes(), &[]);
    let address = ask(&collector, &[("sql", sql), ("params", "[\"roof\",3]")]);
    assert_eq!((address.status, address.json()), (200, body.json()));
    let lines = ask(&collector, &[("sql", sql), ("params", "[\"roof\",3]"), ("format", "ndjson")]);
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(lines.text, "{\"type\":\"t\",\"events\":7}\n");
    let cut = ask(&collector, &[("sql", "SELECT 1 FROM events"), ("limit", "2")]).json();
    assert_eq!((cut["rows"].as_array().map(Vec::len), &cut["truncated"]), (Some(2), &json!(true)));
    let head = collector.ask(("HEAD", "/api/v1/query?sql=SELECT%201&format=parquet"), &collector.token, &[], b"");
    assert_eq!((head.status, head.header("content-type")), (200, Some("application/vnd.apache.parquet")));
}

#[test]
fn in_a_spreadsheet_no_text_is_a_formula_and_a_number_stays_one() {
    let (_dir, collector) = filled();
    let sql = "SELECT data.v AS \"=v\", -position AS n FROM events ORDER BY position";
    let told = ask(&collector, &[("sql", sql), ("format", "spreadsheet")]);
    assert_eq!(told.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
    let expected = "'=v,n\r\n'=1+1,-1\r\n'+1,-2\r\n'-1,-3\r\n'@SUM(A1),-4\r\n'\t=1,-5\r\n\"'\r=1\",-6\r\nplain,-7\r\n\"'=\"\"a\"\",b\",-8\r\n'\u{ff1d}1,-9\r\na=1,-10\r\n";
    assert_eq!(told.text, expected);
    let exact = ask(&collector, &[("sql", sql), ("format", "csv")]).text;
    assert!(exact.contains("\r\n=1+1,-1\r\n"), "what is no spreadsheet gets the texts as they are: {exact}");
}

#[test]
fn what_is_wrong_in_an_address_is_named() {
    let (_dir, collector) = filled();
    for (parameters, code, says) in [
        (vec![], "invalid_parameter", "sql is missing"),
        (vec![("format", "csv")], "invalid_parameter", "sql is missing"),
        (vec![("sql", "SELECT 1"), ("format", "xml")], "invalid_parameter", "spreadsheet"),
        (vec![("sql", "SELECT 1"), ("params", "roof")], "invalid_parameter", "array of JSON"),
        (vec![("sql", "SELECT 1"), ("params", "{}")], "invalid_parameter", "array of JSON"),
        (vec![("sql", "SELECT 1"), ("sql", "SELECT 2")], "invalid_parameter", "twice"),
        (vec![("sql", "SELECT 1"), ("row", "2")], "invalid_parameter", "row"),
        (vec![("sql", "DROP TABLE events")], "statement_not_allowed", "read"),
        (vec![("sql", "SELEC 1")], "invalid_sql", "SELEC"),
    ] {
        let answer = ask(&collector, &parameters);
        let problem: Value = answer.json();
        assert_eq!((answer.status, &problem["code"]), (400, &json!(code)), "{parameters:?}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(says)), "{says}: {problem}");
    }
}
