//! What operators do with sensors, and what is kept of it: labels, zones, disabling, new tokens, the audit.

use serde_json::{Value, json};
use tests::{Answer, Collector, assert_problem, catchment, said};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn patch(collector: &Collector, id: &str, change: &Value) -> Answer {
    let path = format!("/api/v1/sensors/{id}");
    collector.ask(("PATCH", &path), &collector.token, &[], change.to_string().as_bytes())
}

fn rotate(collector: &Collector, id: &str, body: &Value) -> Answer {
    collector.post(&format!("/api/v1/sensors/{id}/token"), &collector.token, body.to_string().as_bytes(), &[])
}

fn lines(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

#[test]
fn the_zone_of_a_sensor_reads_its_times_unless_the_request_names_another() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let event = br#"{"time":"2026-07-01 12:00:00"}"#;
    assert_problem(&collector.send(&token, event), 400, "all_rejected");
    let changed = patch(&collector, "roof", &json!({ "time_zone": "Europe/Berlin" }));
    assert_eq!((changed.status, &changed.json()["time_zone"]), (200, &json!("Europe/Berlin")), "{changed:?}");
    assert_eq!(collector.send(&token, event).json()["accepted"], 1, "at once");
    let path = "/api/v1/events?time_zone=America/New_York";
    assert_eq!(collector.post(path, &token, event, &[]).json()["accepted"], 1);
    let times = collector.rows("SELECT time FROM events ORDER BY position");
    assert_eq!(times, [["2026-07-01T10:00:00Z"], ["2026-07-01T16:00:00Z"]]);
    for (zone, write) in [("Berlin", "a name such as Europe/Berlin"), ("posixrules", "a name"), ("utc", "UTC")] {
        let refused = patch(&collector, "roof", &json!({ "time_zone": zone }));
        assert_problem(&refused, 400, "invalid_field");
        assert!(refused.text.contains(&format!("is not a time zone: write {write}")), "{refused:?}");
    }
    assert_eq!(patch(&collector, "roof", &json!({ "time_zone": null })).json()["time_zone"], Value::Null);
    let rejected = collector.send(&token, event);
    assert_eq!(rejected.json()["rejected"][0]["code"], "time_without_zone", "{rejected:?}");
    collector.assert_adds_up();
}

#[test]
fn labels_change_as_a_whole_and_what_is_not_named_stays() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    collector.sensor("roof");
    let change = json!({ "labels": { "site": "a", "floor": "3" }, "time_zone": "UTC" });
    assert_eq!(patch(&collector, "roof", &change).status, 200);
    let sensor = patch(&collector, "roof", &json!({ "labels": { "site": "b" } })).json();
    assert_eq!((&sensor["labels"], &sensor["time_zone"]), (&json!({ "site": "b" }), &json!("UTC")));
    assert_eq!(collector.get("/api/v1/sensors/roof", &collector.token).json(), sensor);
    assert_problem(&patch(&collector, "roof", &json!({ "labels": { "": "b" } })), 400, "invalid_field");
    assert_problem(&patch(&collector, "roof", &json!({})), 400, "invalid_body");
    assert_problem(&patch(&collector, "roof", &json!({ "name": "x" })), 400, "invalid_body");
    assert_problem(&patch(&collector, "cellar", &change), 404, "not_found");
    assert_problem(&collector.get("/api/v1/sensors/cellar", &collector.token), 404, "not_found");
    assert_problem(&rotate(&collector, "cellar", &json!({})), 404, "not_found");
}

#[test]
fn sensors_come_in_pages_by_id() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    (0..5).for_each(|n| drop(collector.sensor(&format!("meter {n}"))));
    let page = |path: &str| {
        let page = collector.get(path, &collector.token).json();
        let ids = page["sensors"].as_array().expect("sensors").iter().map(|s| text(&s["sensorId"])).collect::<Vec<_>>();
        (ids, page["next_after"].clone())
    };
    let ids = |numbers: std::ops::Range<u32>| numbers.map(|n| format!("meter-{n}")).collect::<Vec<_>>();
    assert_eq!(page("/api/v1/sensors?limit=2"), (ids(0..2), json!("meter-1")));
    assert_eq!(page("/api/v1/sensors?limit=2&after=meter-1"), (ids(2..4), json!("meter-3")));
    assert_eq!(page("/api/v1/sensors?limit=2&after=meter-3"), (ids(4..5), Value::Null));
    assert_eq!(page("/api/v1/sensors"), (ids(0..5), Value::Null));
    assert_problem(&collector.get("/api/v1/sensors?limit=0", &collector.token), 400, "invalid_parameter");
}

#[test]
fn a_disabled_sensor_is_refused_at_once_and_its_events_stay() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    assert_eq!(collector.send(&token, &lines("{\"n\":1}")).status, 200);
    let disabled = collector.ask(("DELETE", "/api/v1/sensors/roof"), &collector.token, &[], b"");
    assert_eq!((disabled.status, disabled.text.as_str()), (204, ""));
    assert_problem(&collector.send(&token, &lines("{\"n\":2}")), 401, "invalid_token");
    let sensor = collector.get("/api/v1/sensors/roof", &collector.token).json();
    assert!(sensor["disabled_at"].is_string(), "{sensor}");
    assert_eq!(collector.rows("SELECT data FROM events"), [["{\"n\":1}"]]);
    let again = json!({ "name": "roof" }).to_string();
    assert_problem(&collector.post("/api/v1/sensor", &collector.token, again.as_bytes(), &[]), 409, "name_taken");
    assert_eq!(patch(&collector, "roof", &json!({ "disabled": false })).json()["disabled_at"], Value::Null);
    assert_eq!(collector.send(&token, &lines("{\"n\":3}")).status, 200);
    collector.assert_adds_up();
}

#[test]
fn a_new_token_of_a_sensor_lets_the_old_ones_end_after_the_overlap() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let first = collector.sensor("roof");
    let app = collector.add_token(&json!({ "role": "send_only", "name": "app", "sensor": "roof" }));
    let status = |token: &str| collector.send(token, b"{}").status;
    assert_eq!(status(&first), 200);

    let made = rotate(&collector, "roof", &json!({}));
    assert_eq!((made.status, made.header("cache-control")), (201, Some("no-store")), "{made:?}");
    let second = text(&made.json()["token"]);
    assert_eq!((status(&first), status(&second)), (200, 200), "an hour of overlap by default");

    let third = text(&rotate(&collector, "roof", &json!({ "overlap_seconds": 1 })).json()["token"]);
    collector.wait_for("the end of the overlap", |_| status(&second) == 401);
    assert_eq!((status(&first), status(&third)), (401, 200));
    let fourth = text(&rotate(&collector, "roof", &json!({ "overlap_seconds": 0 })).json()["token"]);
    assert_eq!((status(&third), status(&fourth)), (401, 200), "without an overlap it ends at once");
    assert_eq!(status(&text(&app["token"])), 200, "what only sends is no token of the device");
    let long = json!({ "overlap_seconds": 1u64 << 40 });
    assert_problem(&rotate(&collector, "roof", &long), 400, "invalid_field");
}

#[test]
fn every_change_stands_in_the_audit_with_who_and_where_and_without_a_token() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let operator = collector.add_token(&json!({ "role": "operator", "name": "anna" }));
    let ends = "2999-01-01T00:00:00Z";
    let enrol = collector.add_token(&json!({ "role": "enrol", "name": "field", "uses": 5, "expires_at": ends }));
    let (operator_token, enrol_token) = (text(&operator["token"]), text(&enrol["token"]));
    let name = json!({ "name": "Roof", "labels": { "site": "a" } }).to_string();
    let registered = collector.post("/api/v1/sensor", &enrol_token, name.as_bytes(), &[("x-request-id", "reg-1")]);
    assert_eq!(collector.post("/api/v1/sensor", &enrol_token, name.as_bytes(), &[]).status, 201);
    let change = json!({ "time_zone": "Europe/Berlin" }).to_string();
    let by_operator = |method: &str, path: &str, body: &[u8]| {
        let answer = collector.ask((method, path), &operator_token, &[("x-request-id", "op-1")], body);
        assert!(answer.status < 300, "{answer:?}");
    };
    by_operator("PATCH", "/api/v1/sensors/roof", change.as_bytes());
    by_operator("POST", "/api/v1/sensors/roof/token", b"{\"overlap_seconds\": 60}");
    by_operator("DELETE", "/api/v1/sensors/roof", b"");
    // What is disabled or revoked already is no further entry.
    by_operator("DELETE", "/api/v1/sensors/roof", b"");
    by_operator("PATCH", "/api/v1/sensors/roof", b"{\"disabled\": true}");
    let path = format!("/api/v1/tokens/{}", enrol["id"]);
    for _ in 0..2 {
        assert_eq!(collector.ask(("DELETE", &path), &collector.token, &[], b"").status, 204);
    }
    // What is refused changes nothing.
    assert_eq!(collector.ask(("DELETE", "/api/v1/sensors/cellar"), &operator_token, &[], b"").status, 404);

    let audit = collector.get("/api/v1/audit", &collector.token);
    let entries = audit.json()["entries"].as_array().expect("entries").clone();
    let told: Vec<_> = entries.iter().rev().map(|e| (text(&e["act"]), e["token_name"].clone())).collect();
    let expected = [
        ("token.configure", Value::Null),
        ("token.add", json!("configured")),
        ("token.add", json!("configured")),
        ("sensor.register", json!("field")),
        ("sensor.register_again", json!("field")),
        ("sensor.change", json!("anna")),
        ("sensor.rotate", json!("anna")),
        ("sensor.disable", json!("anna")),
        ("token.revoke", json!("configured")),
    ];
    assert_eq!(told, expected.map(|(act, who)| (act.to_owned(), who)));
    let first = entries.iter().find(|e| e["act"] == "sensor.register").expect("it");
    assert_eq!((&first["target"], &first["client"]), (&json!("sensor/roof"), &json!("127.0.0.1")), "{first}");
    assert_eq!((&first["request_id"], &first["role"]), (&json!("reg-1"), &json!("enrol")), "{first}");
    assert_eq!(first["token_id"], enrol["id"]);
    assert_eq!(first["detail"], json!({ "name": "Roof", "labels": { "site": "a" } }));
    let added = entries.iter().find(|e| e["act"] == "token.add").expect("it");
    let detail = json!({ "role": "enrol", "name": "field", "sensor": null, "expires_at": ends, "uses": 5 });
    assert_eq!(added["detail"], detail);
    let changed = entries.iter().find(|e| e["act"] == "sensor.change").expect("it");
    assert_eq!(changed["detail"], json!({ "time_zone": "Europe/Berlin" }));
    for token in [&operator_token, &enrol_token, &text(&registered.json()["token"]), &collector.token] {
        assert!(!audit.text.contains(token.as_str()), "no token in it");
    }
    assert!(!audit.text.contains("cat_"), "no token in it: {}", audit.text);

    let page = collector.get("/api/v1/audit?limit=4", &collector.token).json();
    assert_eq!((page["entries"].as_array().map(Vec::len), &page["next_before"]), (Some(4), &entries[3]["id"]));
    let next =
        collector.get(&format!("/api/v1/audit?limit=100&before={}", page["next_before"]), &collector.token).json();
    assert_eq!((next["entries"].as_array().map(Vec::len), &next["next_before"]), (Some(5), &Value::Null));
    assert_problem(&collector.get("/api/v1/audit?limit=0", &collector.token), 400, "invalid_parameter");
}

#[test]
fn sensors_are_shown_changed_disabled_and_given_tokens_on_the_command_line() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let run = |args: &[&str]| catchment(dir.path(), args, b"");
    let first: Value = serde_json::from_str(&said(&run(&["sensor", "add", "Roof 1", "--json"]))).expect("JSON");
    let changed = said(&run(&["sensor", "change", "roof-1", "--label", "site=a", "--time-zone", "Europe/Berlin"]));
    assert!(changed.contains("site=a") && changed.contains("Europe/Berlin"), "{changed}");
    assert_eq!(run(&["sensor", "change", "roof-1"]).status.code(), Some(2));
    let shown: Value = serde_json::from_str(&said(&run(&["sensor", "show", "Roof 1", "--json"]))).expect("JSON");
    assert_eq!((&shown["sensorId"], &shown["labels"]), (&json!("roof-1"), &json!({ "site": "a" })));

    let rotated: Value =
        serde_json::from_str(&said(&run(&["sensor", "rotate", "roof-1", "--overlap", "0s", "--json"]))).expect("JSON");
    assert_eq!(collector.get("/api/v1/sensor", &text(&first["token"])).status, 401);
    assert_eq!(collector.get("/api/v1/sensor", &text(&rotated["token"])).status, 200);
    let sent = catchment(dir.path(), &["send", "--sensor", "roof-1"], b"{\"n\":1}\n");
    assert_eq!(sent.status.code(), Some(0), "the new token lies where send finds it: {sent:?}");

    assert!(!said(&run(&["sensor", "disable", "roof-1"])).contains("disabled    no"));
    assert!(said(&run(&["sensor", "list"])).contains("roof-1 (disabled)"));
    assert_eq!(collector.get("/api/v1/sensor", &text(&rotated["token"])).status, 401);
    assert!(said(&run(&["sensor", "enable", "roof-1"])).contains("disabled    no"));
    assert_eq!(collector.get("/api/v1/sensor", &text(&rotated["token"])).status, 200);
    assert_eq!(run(&["sensor", "show", "nobody"]).status.code(), Some(1));
    assert_eq!(run(&["sensor", "show", "---"]).status.code(), Some(2));
}

#[test]
fn a_token_that_cannot_be_kept_is_shown_all_the_same() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    // A file is written under this ending first; where a folder is, not even root can.
    for name in ["roof.new", "cellar.new"] {
        std::fs::create_dir_all(dir.path().join("data/sensors").join(name)).expect("made");
    }
    let token_of = |args: &[&str]| {
        let output = catchment(dir.path(), args, b"");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && told.contains("not kept for `catchment send --sensor roof`"), "{output:?}");
        let made: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        made["token"].as_str().expect("a token").to_owned()
    };
    let first = token_of(&["sensor", "add", "roof", "--json"]);
    assert_eq!(collector.send(&first, b"{}\n").status, 200);
    let second = token_of(&["sensor", "rotate", "roof", "--overlap", "0s", "--json"]);
    assert_eq!((collector.send(&first, b"{}\n").status, collector.send(&second, b"{}\n").status), (401, 200));

    let sent = catchment(dir.path(), &["send", "--sensor", "cellar"], b"{}\n");
    let told = String::from_utf8_lossy(&sent.stderr).into_owned();
    assert!(said(&sent) == "1 accepted, 0 duplicates, 0 rejected\n" && told.contains("sensor rotate"), "{sent:?}");
}
