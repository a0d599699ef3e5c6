//! Who changed what: as a command shows it, and how much of it is kept.

use serde_json::{Value, json};
use tests::{Collector, catchment, said};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn a_command_shows_who_changed_what_the_newest_first_and_goes_on_where_it_ended() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    for n in 0..1005 {
        collector.sensor(&format!("sensor-{n}"));
    }
    let audit = |args: &[&str]| {
        let output = catchment(dir.path(), &[&["audit"], args].concat(), b"");
        assert!(output.status.success(), "{output:?}");
        said(&output)
    };
    let json = |args: &[&str]| -> Value { serde_json::from_str(&audit(&[&["--json"], args].concat())).expect("JSON") };
    let acts = |page: &Value| page["entries"].as_array().expect("entries").len();
    let (some, all) = (json(&["--limit", "1003"]), json(&["--limit", "5000"]));
    assert_eq!((acts(&some), acts(&all)), (1003, 1006), "more than a page, and one entry for the configured token");
    assert!(some["next_before"].is_u64() && all["next_before"].is_null(), "{}", some["next_before"]);
    assert_eq!(all["entries"][0]["target"], "sensor/sensor-1004");
    let rest = json(&["--limit", "5000", "--before", &some["next_before"].to_string()]);
    assert_eq!(rest["entries"].as_array().expect("entries")[..], all["entries"].as_array().expect("entries")[1003..]);

    let shown = audit(&["--limit", "2"]);
    for part in ["sensor.register", "sensor/sensor-1004", "sensor/sensor-1003", "configured", "admin", "127.0.0.1"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(!shown.contains("sensor-1002") && shown.contains("older ones: --before "), "{shown}");
    assert!(audit(&[]).contains("sensor-905") && !audit(&[]).contains("sensor-904"), "100 by default");
    let wrong = catchment(dir.path(), &["audit", "--limit", "0"], b"");
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn the_audit_is_trimmed_when_it_is_full_and_says_so() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let other = collector.add_token(&json!({ "role": "admin", "name": "other" }));
    let other = other["token"].as_str().expect("a token");
    let made = collector.post("/api/v1/sensor", other, b"{\"name\":\"kept\"}", &[]);
    assert_eq!(made.status, 201);
    for n in 0..120 {
        collector.sensor(&format!("sensor-{n}"));
    }
    assert_eq!(collector.terminate(), 0);
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_AUDIT__ENTRIES_MAX", "100")]);
    let entries = || collector.get("/api/v1/audit?limit=1000", &collector.token).json()["entries"].clone();
    collector.wait_for("the trimming", |_| entries()[0]["act"] == "audit.trim");
    let entries = entries().as_array().expect("entries").clone();
    assert!(entries.len() <= 100 && entries.iter().any(|entry| entry["target"] == "sensor/kept"), "{entries:?}");
    let gone = entries[0]["detail"]["entries"].as_f64().expect("a number");
    assert_eq!(collector.metric("catchment_registry_audit_trimmed_total"), gone);
    assert!(entries[0]["token_id"].is_null() && entries[0]["target"] == "audit", "{}", entries[0]);
}

#[test]
fn another_token_for_a_sensor_is_asked_for_without_a_body_too() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let first = collector.sensor("roof");
    let route = ("POST", "/api/v1/sensors/roof/token");
    let made = collector.ask(route, &collector.token, &[], b"");
    assert_eq!((made.status, &made.json()["sensorId"]), (201, &json!("roof")), "{made:?}");
    let second = made.json()["token"].as_str().expect("a token").to_owned();
    for token in [&first, &second] {
        assert_eq!(collector.get("/api/v1/sensor", token).status, 200, "both, for an hour");
    }
    assert_eq!(collector.ask(route, &collector.token, &[], b" ").status, 400, "blanks are no body");
}
