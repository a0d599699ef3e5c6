//! `logs/`: the index template and `props.conf`, applied to more than a thousand real lines of a real service, and to lines and files
//! that they must refuse.

mod elastic;
#[path = "../running/mod.rs"]
mod running;
mod splunk;

use axum::Router;
use axum::extract::State;
use elastic::Index;
use http::StatusCode;
use jiff::Timestamp;
use nowwhat::client::{CallLimits, Client};
use nowwhat::extract::Json;
use nowwhat::routing::{get, post};
use nowwhat::testkit::{PATIENCE, TestConfig, TestServer};
use nowwhat::{Problem, Service, bind};
use running::{Hello, LOCAL, ask};
use rustix::process::Signal;
use serde_json::Value;
use splunk::Props;
use std::collections::BTreeSet;

const TEMPLATE: &str = include_str!("../../logs/elastic/index-template.json");
const PROPS: &str = include_str!("../../logs/splunk/props.conf");
const DATA_STREAM: &str = "logs-nowwhat-hello";
const SOURCETYPE: &str = "nowwhat";
const LINES_MIN: usize = 1000;

fn index() -> Index {
    Index::new(TEMPLATE, DATA_STREAM).unwrap_or_else(|flaw| panic!("{flaw}"))
}

fn props() -> Props {
    Props::read(PROPS, SOURCETYPE).unwrap_or_else(|flaw| panic!("{flaw}"))
}

/// What clients ask for: right, wrong, odd and hostile.
fn ask_all(hello: &Hello) {
    let long = "x".repeat(9_000);
    let names = [
        "moon",
        "m%C3%B8n",
        "%E6%9C%88",
        "%F0%9F%8C%99",
        "a%20b",
        "%22%5C%22",
        "%00%01%1F%7F",
        "%0A%7B%22status%22%3A1%7D",
        "%FF%FE",
        "2026-11-24",
        "2026-11-24T14:33:49Z",
        "17",
        "0.5",
        "true",
        "null",
        "127.0.0.1",
        "%E2%80%A8",
        "møn",
        &long,
    ];
    let paths = ["/", "/livez", "/none", "/none/%00", "/hello/", "/hello/a/b", "//", "/?q=1", "*"];
    let long_id = "i".repeat(300);
    let ids = ["order-17", "with blank", "\"quoted\"", "back\\slash", "", "{}", &long_id];
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let methods = ["GET", "GET", "GET", "HEAD", "POST", "DELETE", "OPTIONS", "PROPFIND"];
    let all: Vec<String> = names.iter().map(|n| format!("/hello/{n}")).chain(paths.map(str::to_owned)).collect();
    for n in 0..LINES_MIN {
        let (method, path) = (methods[n % methods.len()], &all[n / methods.len() % all.len()]);
        let mut headers = vec![("x-request-id", ids[n % ids.len()]), ("accept", "application/json, */*;q=0.1")];
        if n % 5 == 0 {
            headers.push(("traceparent", trace));
        }
        if n % 7 == 0 {
            headers.push(("x-forwarded-for", "2001:db8::17"));
        }
        ask(hello.address, LOCAL, &format!("{method} {path}"), &headers);
    }
    let longest = "%01".repeat(20_000);
    ask(hello.address, LOCAL, &format!("GET /hello/{longest}"), &[]);
    ask(hello.address, LOCAL, &format!("GET /{longest}"), &[]);
    ask(hello.address, LOCAL, "NO REQUEST AT ALL", &[]);
}

/// Everything that a hello wrote from its start to its end, at level debug.
fn real_lines() -> String {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("hello.toml");
    let config = |text: &str| std::fs::write(&file, text).expect("a file");
    config("[log]\nlevel = \"debug\"\n");
    let path = file.to_str().expect("UTF-8");
    let hello = Hello::start(&[("HELLO_CONFIG", path), ("HELLO_HTTP__TRUSTED_PROXIES", "127.0.0.1")]);
    ask_all(&hello);
    config("[log]\nlevel = \"loud\"\n[hello]\nwort = \"Hallo\"\n");
    hello.signal(Signal::HUP);
    hello.line("not reloaded");
    config("[log]\nlevel = \"debug\"\n[hello]\nword = \"Hallo\"\n[stop]\ngrace_seconds = \"5s\"\n");
    hello.signal(Signal::HUP);
    hello.line("reloaded");
    hello.stop()
}

fn seen<'a>(lines: &'a [Value], field: &str) -> BTreeSet<&'a str> {
    lines.iter().filter_map(|line| line[field].as_str()).collect()
}

#[test]
fn a_thousand_real_lines_fit_the_index_template_and_props_conf() {
    let text = real_lines();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() > LINES_MIN, "{} lines", lines.len());
    let objects: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let statuses: BTreeSet<u64> = objects.iter().filter_map(|line| line["status"].as_u64()).collect();
    assert!([200, 400, 404, 405].iter().all(|status| statuses.contains(status)), "{statuses:?}");
    let severities = seen(&objects, "severity");
    assert!(["DEBUG", "INFO", "WARN", "ERROR"].iter().all(|s| severities.contains(s)), "{severities:?}");
    assert!(seen(&objects, "client").contains("2001:db8::17"));

    let mut index = index();
    for line in &lines {
        index.take(line).unwrap_or_else(|flaws| panic!("{flaws:#?} in {line:.2000}"));
    }
    let fields: BTreeSet<&str> = index.fields().collect();
    let of_the_talk = [
        "@timestamp",
        "@version",
        "message",
        "method",
        "path",
        "format",
        "controller",
        "action",
        "status",
        "duration",
        "view",
        "db",
        "severity",
        "host",
        "type",
    ];
    assert!(of_the_talk.iter().all(|field| fields.contains(field)), "{fields:?}");
    assert!(["request_id", "trace_id", "guest"].iter().all(|field| fields.contains(field)), "{fields:?}");

    let props = props();
    assert_eq!(props.events(&text), lines);
    let mut made = BTreeSet::new();
    for (line, object) in lines.iter().zip(&objects) {
        let told: Timestamp = object["@timestamp"].as_str().and_then(|time| time.parse().ok()).expect("a time");
        assert_eq!(props.time(line), Ok(told), "{line:.200}");
        let fields = props.fields(line).unwrap_or_else(|flaw| panic!("{flaw}"));
        assert!(object.as_object().expect("an object").iter().all(|(name, value)| fields.get(name) == Some(value)));
        made.extend(props.made().filter(|name| fields.contains_key(*name)).map(str::to_owned));
    }
    assert_eq!(made, props.made().map(str::to_owned).collect(), "each alias and sum stands for a field of real lines");
}

async fn panics() -> StatusCode {
    panic!("no \"flour\"\n left")
}

async fn fails() -> Problem {
    let cause = std::io::Error::other("the oven is off".repeat(2000));
    Problem::new(StatusCode::BAD_GATEWAY, "oven", "The oven is off").cause(cause)
}

async fn logs() -> &'static str {
    bind("customer", "c-17");
    tracing::warn!(hash = u64::MAX, ratio = f64::NAN, load = f64::INFINITY, rows = i64::MIN, "numbers");
    tracing::warn!(hash = u64::MAX, ratio = 1e300, load = 3.0, rows = 3, wait_seconds = 3, open = true, "more numbers");
    tracing::error!(error = "é".repeat(40_000), status_ = "x", host = "other", "texts");
    "logged"
}

async fn calls(State((bank, url)): State<(Client, String)>) -> StatusCode {
    nowwhat::db(bank.get(&url)).await.expect("it asks itself").status
}

async fn orders(Json(_): Json<Value>) -> &'static str {
    nowwhat::view(|| "ordered")
}

#[test]
fn lines_of_failures_panics_and_calls_fit_the_index_template() {
    let service = Service::new(nowwhat::version!("shop"), Vec::new());
    let limited = |config: TestConfig| config.set("http.body_bytes_max", "1KiB");
    let server = TestServer::start(&service, limited, async |boot| {
        let limits = CallLimits { timeout: PATIENCE, body_bytes_max: 1000 };
        let bank = (boot.client("bank", limits), format!("http://{}/livez", boot.address));
        let routes = Router::new().route("/panics", get(panics)).route("/fails", get(fails)).route("/logs", get(logs));
        Ok(routes.route("/orders", post(orders)).route("/calls", get(calls)).with_state(bank))
    });
    for (path, status) in [("/panics", 500), ("/fails", 502), ("/logs", 200), ("/calls", 200)] {
        assert_eq!(server.get(path).send().status, status, "{path}");
    }
    let order = |kind: &str, body: String| server.post("/orders").header("content-type", kind).body(body).send().status;
    assert_eq!(order("application/json", "{}".to_owned()), 200);
    assert_eq!(order("application/json", "{".to_owned()), 400);
    assert_eq!(order("text/csv", "a;b".to_owned()), 415);
    assert_eq!(order("application/json", format!("[{}1]", "1,".repeat(1000))), 413);
    server.line("[413]");
    let mut index = index();
    for line in server.lines() {
        index.take(&line.to_string()).unwrap_or_else(|flaws| panic!("{flaws:#?} in {line:#.2000}"));
    }
    let fields: BTreeSet<&str> = index.fields().collect();
    let of_failures = ["cause", "code", "customer", "hash", "host_", "dependency", "outcome", "duration_ms"];
    assert!(of_failures.iter().all(|field| fields.contains(field)), "{fields:?}");
}

/// A line such as hello writes.
const LINE: &str = r#"{"@timestamp":"2026-11-24T14:33:49.626645Z","@version":"1","message":"[200] GET /hello/moon (hello#hello)","severity":"INFO","host":"vm","type":"hello","target":"nowwhat::request","request_id":"order-17","guest":"moon","method":"GET","path":"/hello/moon","format":"json","controller":"hello","action":"hello","status":200,"duration":0.093,"view":0.0,"db":0.0,"request_bytes":0,"response_bytes":23,"client":"127.0.0.1"}"#;

fn changed(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} is not there");
    text.replacen(from, to, 1)
}

#[test]
fn a_line_of_a_wrong_type_is_refused_by_the_index() {
    assert_eq!(index().take(LINE), Ok(()));
    let long = format!("\"path\":\"/{}\"", "x".repeat(256));
    for (from, to, field) in [
        ("\"status\":200", "\"status\":\"200\"", "status"),
        ("\"status\":200", "\"status\":200.0", "status"),
        ("\"status\":200", "\"status\":40000", "status"),
        ("\"status\":200", "\"status\":null", "status"),
        ("\"status\":200", "\"status\":[200]", "status"),
        ("\"status\":200", "\"status\":200,\"status\":200", "status is there twice"),
        ("\"duration\":0.093", "\"duration\":\"0.093\"", "duration"),
        ("\"response_bytes\":23", "\"response_bytes\":23.5", "response_bytes"),
        ("\"response_bytes\":23", "\"response_bytes\":18446744073709551615", "response_bytes"),
        ("\"client\":\"127.0.0.1\"", "\"client\":\"localhost\"", "client"),
        ("14:33:49.626645Z", "14:33:49,626645Z", "@timestamp"),
        ("2026-11-24T", "2026-13-24T", "@timestamp"),
        ("\"2026-11-24T14:33:49.626645Z\"", "1795444429626", "@timestamp"),
        ("@timestamp", "timestamp", "@timestamp is missing"),
        ("\"severity\":\"INFO\"", "\"severity\":6", "severity"),
        ("\"path\":\"/hello/moon\"", &long, "path"),
        ("\"guest\":\"moon\"", "\"guest\":{\"name\":\"moon\"}", "guest: no mapping covers"),
        ("\"guest\":\"moon\"", "\"guest.name\":\"moon\"", "guest.name"),
    ] {
        let flaws = index().take(&changed(LINE, from, to)).expect_err(to);
        assert!(flaws.len() == 1 && flaws[0].starts_with(field), "{to}: {flaws:?}");
    }
    assert!(index().take(&LINE[1..]).is_err(), "no JSON");
    let mut index = index();
    assert_eq!(index.take(LINE), Ok(()));
    let flaws = index.take(&changed(LINE, "\"guest\":\"moon\"", "\"guest\":17")).expect_err("guest was a text");
    assert!(flaws[0].starts_with("guest: it was a String before"), "{flaws:?}");
}

#[test]
fn a_template_with_a_wrong_type_or_a_gap_refuses_real_lines() {
    let short = "\"status\": { \"type\": \"short\" }";
    let double = "\"duration\": { \"type\": \"double\" }";
    let texts = "{ \"match_mapping_type\": \"string\", ";
    for (from, to, field) in [
        (short, "\"status\": { \"type\": \"keyword\", \"ignore_above\": 3 }", "status"),
        (short, "\"status\": { \"type\": \"ip\" }", "status"),
        (double, "\"duration\": { \"type\": \"long\" }", "duration"),
        ("\"client\": { \"type\": \"ip\" }", "\"client\": { \"type\": \"boolean\" }", "client"),
        ("\"ignore_above\": 128 }", "\"ignore_above\": 7 }", "request_id"),
        (texts, "{ \"match\": \"*_name\", \"match_mapping_type\": \"string\", ", "guest: no mapping covers"),
    ] {
        let mut index = Index::new(&changed(TEMPLATE, from, to), DATA_STREAM).expect(to);
        let flaws = index.take(LINE).expect_err(to);
        assert!(flaws.len() == 1 && flaws[0].starts_with(field), "{to}: {flaws:?}");
    }
    for (from, to) in [
        ("\"short\"", "\"shirt\""),
        ("\"date_detection\": false", "\"date_detection\": true"),
        ("\"ignore_malformed\": false", "\"ignore_malformed\": true"),
        ("\"priority\": 200", "\"priority\": 100"),
        ("logs-nowwhat-*", "logs-other-*"),
        ("\"ignore_above\": 8191", "\"ignore_above\": 32766"),
        ("\"@timestamp\": {", "\"time\": {"),
    ] {
        assert!(Index::new(&changed(TEMPLATE, from, to), DATA_STREAM).is_err(), "{to}");
    }
}

#[test]
fn props_conf_with_a_flaw_is_found_out() {
    let with = |from: &str, to: &str| Props::read(&changed(PROPS, from, to), SOURCETYPE);
    assert!(props().time(LINE).is_ok() && props().fields(LINE).is_ok());
    for (from, to) in [
        ("KV_MODE = json", "KV_MODE = json\nINDEXED_EXTRACTIONS = json"),
        ("KV_MODE = json", "KV_MODE = auto"),
        ("SHOULD_LINEMERGE = false", ""),
        ("TZ = UTC", "TZ = Europe/Berlin"),
        ("method AS http_method", "method http_method"),
        ("[nowwhat]", "[other]"),
    ] {
        assert!(with(from, to).is_err(), "{to}");
    }
    for (from, to) in [
        ("%6NZ", "%6N+"),
        ("%Y-%m-%d", "%d-%m-%Y"),
        ("%6N", "%3N"),
        ("LOOKAHEAD = 27", "LOOKAHEAD = 26"),
        ("^\\{\"@timestamp\":\"", "^\\{\"timestamp\":\""),
    ] {
        assert!(with(from, to).expect(to).time(LINE).is_err(), "{to}");
    }
    for (from, to) in [
        ("TRUNCATE = 1000000", "TRUNCATE = 100"),
        ("AS http_method", "AS status"),
        ("request_bytes + response_bytes", "request_bytes + format"),
    ] {
        assert!(with(from, to).expect(to).fields(LINE).is_err(), "{to}");
    }
    let stream = format!("{LINE}\n{LINE}\n");
    assert_eq!(props().events(&stream), [LINE, LINE]);
    assert_ne!(with("([\\r\\n]+)", "(,)").expect("a pattern").events(&stream), [LINE, LINE]);
    let hours = changed(LINE, "T14:33", "T33:14");
    assert!(props().time(&hours).is_err() && props().time(&format!(" {LINE}")).is_err());
    assert!(props().fields(&LINE[..100]).is_err(), "half a line is no object");
}
