//! What reading the configuration promises.

use super::*;
use nowwhat::Environment;
use nowwhat::cli::ConfigCommand;
use nowwhat::config::{Problems, Sources};
use std::path::Path;

fn read(pairs: &[(&str, &str)]) -> Result<Loaded, Problems> {
    service().load(&service().sources(), &pairs.iter().copied().collect())
}

fn problems(pairs: &[(&str, &str)]) -> String {
    read(pairs).expect_err("there are problems").to_string()
}

#[test]
fn defaults_are_valid_and_their_memory_bound_leaves_a_tenth_of_what_the_unit_may_have() {
    let loaded = read(&[]).expect("valid");
    let (settings, foundation) = (Settings::from_loaded(&loaded), Foundation::from_loaded(&loaded));
    // `MemoryMax=1664M` in deploy/systemd.
    assert!(crate::memory::bound(&settings, &foundation).0 < (1664 << 20) / 10 * 9);
    assert_eq!(foundation.http.body_bytes_max, BODY_BYTES_MAX);
}

#[test]
fn beyond_loopback_needs_to_be_asked_for() {
    for key in ["CATCHMENT_HTTP__LISTEN", "CATCHMENT_ADMIN__LISTEN"] {
        let found = problems(&[(key, "0.0.0.0:4713")]);
        assert!(found.contains("http.insecure = true") && found.contains(key), "{found}");
        let allowed = [(key, "0.0.0.0:4713"), ("CATCHMENT_HTTP__INSECURE", "true")];
        assert!(read(&allowed).is_ok());
    }
}

#[test]
fn bounds_that_contradict_each_other_are_named() {
    assert!(problems(&[("CATCHMENT_SEAL__BYTES", "1GiB")]).contains("seal.bytes"));
    assert!(problems(&[("CATCHMENT_INGEST__IN_FLIGHT_BYTES_MAX", "1MiB")]).contains("http.body_bytes_max"));
    assert!(problems(&[("CATCHMENT_LOG__FORMAT", "xml")]).contains("allowed are text, json, journal and auto"));
}

/// `UPDATE_GENERATED=1` writes what is generated; without it, a difference is an error.
fn same(path: &str, generated: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    if kept != generated && Environment::of_process().get("UPDATE_GENERATED").is_some() {
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        std::fs::write(&file, generated).expect("written");
        return;
    }
    assert!(kept == generated, "{path} is not what the code says: run `make generated`");
}

/// The text with what stands between the marks `<!-- generated: NAME -->` and `<!-- end -->` replaced.
fn with_generated(text: &str, name: &str, generated: &str) -> String {
    let begin = format!("<!-- generated: {name} -->\n");
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("no mark for {name}"));
    let (_, after) = rest.split_once("<!-- end -->").unwrap_or_else(|| panic!("no end for {name}"));
    format!("{before}{begin}{generated}<!-- end -->{after}")
}

fn document(path: &str, parts: &[(&str, String)]) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{path}: {e}"));
    let generated = parts.iter().fold(text, |text, (name, part)| with_generated(&text, name, part));
    same(path, &generated);
}

#[test]
fn the_committed_file_of_defaults_is_current_and_valid() {
    let text = ConfigCommand::Default.run(&service(), &Environment::default()).expect("written");
    same("config/catchment.toml", &text);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/catchment.toml");
    let sources = Sources { config: Some(file), ..service().sources() };
    assert!(service().load(&sources, &Environment::default()).is_ok());
}

#[test]
fn the_generated_tables_of_the_documents_are_current() {
    let service = service();
    let specs = service.specs();
    let default_of = |key: &str| {
        let spec = specs.iter().find(|s| s.name() == key).unwrap_or_else(|| panic!("{key} is no setting"));
        if spec.default.is_empty() { "none".to_owned() } else { spec.default.to_owned() }
    };
    document("docs/LIMITS.md", &[("limits", server::limits_table(default_of))]);
    let parts = [
        ("errors", server::codes_table()),
        ("rejections", server::rejections_table()),
        ("roles", server::roles_table()),
        ("sensor", test_of_the_server("as_a_sensor_fetch_info_about_itself")),
    ];
    document("docs/API.md", &parts);
    document("docs/METRICS.md", &[("metrics", metrics_table())]);
    document("docs/OPERATIONS.md", &[("bound", bound_by_default())]);
}

#[test]
fn the_committed_description_of_the_api_is_current() {
    same("docs/openapi.json", server::openapi());
}

/// A test as documentation: its text, which runs with all tests.
fn test_of_the_server(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../server/tests/sensor.rs");
    let text = std::fs::read_to_string(file).expect("the test");
    let (_, rest) = text.split_once(&format!("fn {name}() {{\n")).expect("the test is there");
    let (body, _) = rest.split_once("\n}\n").expect("it ends");
    format!("```rust\nfn {name}() {{\n{body}\n}}\n```\n")
}

fn bound_by_default() -> String {
    let loaded = read(&[]).expect("valid");
    let bound = crate::memory::bound(&Settings::from_loaded(&loaded), &Foundation::from_loaded(&loaded));
    format!("By its defaults it stays inside {} MiB, the bound that it prints at its start.\n", bound.0 >> 20)
}

fn metrics_table() -> String {
    // The runtime has metrics as well.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let mut registry = service().registry();
    crate::serve::Metrics::register(&mut registry);
    let mut text = String::new();
    nowwhat::metrics::table(&registry, &mut text);
    text
}
