//! The description of the API, and the page to try it: what is served, and that a stranger's tool finds the collector as it is described.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::{Collector, skipped};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

#[test]
fn the_description_is_served_as_it_is_committed_to_whoever_asks_and_kept_by_its_etag() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let answer = collector.get("/openapi.json", "");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let committed = std::fs::read_to_string(root().join("docs/openapi.json")).expect("the committed description");
    assert!(answer.text == committed, "docs/openapi.json is not what is served: run `make generated`");
    let etag = answer.header("etag").expect("a version").to_owned();
    for known in [etag.clone(), format!("\"other\", W/{etag}"), "*".to_owned()] {
        let again = collector.ask(("GET", "/openapi.json"), "", &[("if-none-match", &known)], b"");
        assert_eq!((again.status, again.text.as_str(), again.header("etag")), (304, "", Some(&*etag)), "{known}");
    }
    assert_eq!(collector.ask(("GET", "/openapi.json"), "", &[("if-none-match", "\"other\"")], b"").status, 200);
    let head = collector.ask(("HEAD", "/openapi.json"), "", &[], b"");
    let length = committed.len().to_string();
    assert_eq!((head.status, head.text.as_str(), head.header("content-length")), (200, "", Some(&*length)));
    assert_eq!(collector.get_admin("/openapi.json").status, 404, "it describes the public listener");
}

#[test]
fn the_page_to_try_it_needs_nothing_from_another_address() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let page = collector.get("/docs", "");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let links = |attribute: &str| {
        let begin = format!(" {attribute}=\"");
        let parts = page.text.split(&begin).skip(1);
        parts.map(|part| part.split('"').next().expect("a quote").to_owned()).collect::<Vec<_>>()
    };
    let named: Vec<String> = [links("src"), links("href")].concat();
    assert_eq!(named.len(), 5, "{named:?}");
    for name in named.iter().filter(|name| !name.starts_with("data:")) {
        let file = collector.get(&format!("/{name}"), "");
        assert_eq!(file.status, 200, "{name}");
        let imported = file.text.contains("@import") || file.text.contains("url(http") || file.text.contains("url(//");
        assert!(name.ends_with(".js") || !imported, "{name} asks for a file of its own");
    }
    assert!(
        collector.get("/docs/start.js", "").text.contains("validatorUrl: null"),
        "its maker's validator is not asked"
    );
    for path in ["/docs", "/docs/start.js", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js"] {
        let answer = collector.ask(("HEAD", path), "", &[], b"");
        let policy = answer.header("content-security-policy").expect("a policy").to_owned();
        assert!(answer.status == 200 && answer.header("etag").is_some(), "{path}: {answer:?}");
        for allowed in policy.split("; ") {
            let (what, sources) = allowed.split_once(' ').expect("a directive");
            let here = sources.split(' ').all(|s| ["'none'", "'self'", "data:"].contains(&s));
            assert!(here, "{what} may come from {sources}");
            assert!(what == "img-src" || !sources.contains("data:"), "{what} are files");
        }
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    }
}

#[test]
fn files_of_the_page_come_compressed_to_whoever_takes_that_and_unknown_ones_are_problems() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let length = |encoding: &str| {
        let head = collector.ask(("HEAD", "/docs/swagger-ui-bundle.js"), "", &[("accept-encoding", encoding)], b"");
        assert_eq!((head.status, head.header("vary")), (200, Some("accept-encoding")));
        let is_packed = head.header("content-encoding") == Some("gzip");
        (is_packed, head.header("content-length").and_then(|l| l.parse::<usize>().ok()).expect("a length"))
    };
    let (packed, plain) = (length("br, gzip;q=0.5"), length("gzip;q=0"));
    assert!(packed.0 && !plain.0 && packed.1 * 3 < plain.1, "{packed:?}, {plain:?}");
    for path in ["/docs/", "/docs/swagger-ui.js", "/docs/../openapi.json", "/docs/%2e%2e/x", "/docs/a/b"] {
        let answer = collector.get(path, "");
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (404, Some("not_found")),
            "{path}: {}",
            answer.text
        );
    }
}

#[test]
fn a_whole_number_is_one_however_json_writes_it() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    collector.sensor("roof");
    let rotate = |seconds: &str| {
        let body = format!("{{\"overlap_seconds\": {seconds}}}");
        collector.post("/api/v1/sensors/roof/token", &collector.token, body.as_bytes(), &[]).status
    };
    for (seconds, status) in [("60.0", 201), ("6e1", 201), ("null", 201), ("0.5", 400), ("-1", 400), ("\"60\"", 400)] {
        assert_eq!(rotate(seconds), status, "{seconds}");
    }
}

/// A Python that has `schemathesis` and `openapi-spec-validator`; none, with a word, when this machine has none.
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("CATCHMENT_SCHEMATHESIS_PYTHON").map(PathBuf::from);
    let python = named.unwrap_or_else(|| PathBuf::from("python3"));
    let imports = Command::new(&python).args(["-c", "import schemathesis, openapi_spec_validator"]).output();
    if imports.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    skipped(
        "there is no schemathesis: set CATCHMENT_SCHEMATHESIS_PYTHON to a Python that has it and openapi-spec-validator",
    );
    None
}

#[test]
fn the_description_is_valid_openapi_3_1() {
    let Some(python) = python() else { return };
    let checked = Command::new(python)
        .args(["-m", "openapi_spec_validator", "--schema", "3.1", "docs/openapi.json"])
        .current_dir(root())
        .output()
        .expect("it runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

/// What a client that was made from the description meets: it is asked with what fits the description and what does not, in every way that
/// schemathesis knows, and its answers are held to the description.
#[test]
fn schemathesis_finds_nothing() {
    let Some(python) = python() else { return };
    let dir = folder();
    // It comes with tokens that nobody knows, over and over.
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_AUTH__FAILURES_PER_MINUTE_MAX", "1000000")]);
    let sensor = collector.sensor("roof");
    let output = Command::new(python)
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(root().join("tests/schemathesis.toml"))
        .args(["run", &format!("{}/openapi.json", collector.api), "--no-color"])
        .env("SCHEMATHESIS_HOOKS", root().join("tests/schemathesis_hooks.py"))
        .env("CATCHMENT_TOKEN", &collector.token)
        .env("SENSOR_TOKEN", &sensor)
        .current_dir(dir.path())
        .output()
        .expect("it runs");
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_str(&collector.get("/openapi.json", "").text).expect("JSON");
    let paths = document["paths"].as_object().expect("paths").values();
    let all: usize = paths.map(|path| path.as_object().expect("operations").len()).sum();
    // The one that gave the description has had its question, and the two whose answers have no end have tests of their own.
    let operations = all - 3;
    assert!(report.contains(&format!("Tested: {operations}\n")), "all {operations} are asked: {report}");
    assert!(collector.metric("catchment_engine_events_total{end=\"accepted\"}") > 0.0, "its events came in: {report}");
    collector.assert_adds_up();
}
