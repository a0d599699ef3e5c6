//! Tokens of people and programs, and enrolment: shown once, ended at once, counted exactly.

use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use tests::{Answer, Collector, assert_problem, catchment, said};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn register(collector: &Collector, token: &str, name: &str) -> Answer {
    collector.post("/api/v1/sensor", token, json!({ "name": name }).to_string().as_bytes(), &[])
}

fn revoke(collector: &Collector, made: &Value) -> Answer {
    collector.ask(("DELETE", &format!("/api/v1/tokens/{}", made["id"])), &collector.token, &[], b"")
}

fn uses_left(collector: &Collector, made: &Value) -> Value {
    let path = format!("/api/v1/tokens/{}", made["id"]);
    collector.get(&path, &collector.token).json()["uses_left"].clone()
}

#[test]
fn a_token_is_shown_once_and_known_by_all_but_itself_afterwards() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let body = json!({ "role": "reader", "name": "report", "expires_at": "2999-01-01T00:00:00+01:00" }).to_string();
    let answer = collector.post("/api/v1/tokens", &collector.token, body.as_bytes(), &[]);
    assert_eq!((answer.status, answer.header("cache-control")), (201, Some("no-store")), "{answer:?}");
    let made = answer.json();
    let token = text(&made["token"]);
    assert_eq!(collector.get("/api/v1/events", &token).status, 200);

    let location = answer.header("location").expect("a place").to_owned();
    let one = collector.get(&location, &collector.token).json();
    assert_eq!((&one["id"], &one["name"], &one["role"]), (&made["id"], &json!("report"), &json!("reader")));
    assert_eq!((&one["expires_at"], &one["revoked_at"]), (&json!("2998-12-31T23:00:00Z"), &Value::Null));
    assert!(one["created_at"].is_string() && one["last_used_at"].is_string(), "it was used: {one}");
    let list = collector.get("/api/v1/tokens", &collector.token);
    let names: Vec<Value> =
        list.json()["tokens"].as_array().expect("tokens").iter().map(|t| t["name"].clone()).collect();
    assert_eq!(names, [json!("report"), json!("configured")]);
    assert!(!list.text.contains(&token) && !list.text.contains(&collector.token));

    assert_eq!(collector.terminate(), 0);
    let collector = Collector::start(dir.path());
    let kept = collector.get(&location, &collector.token).json();
    assert_eq!(kept["last_used_at"], one["last_used_at"], "the last use outlives a restart");
    let database = std::fs::read(dir.path().join("data/registry.sqlite")).expect("the database");
    assert!(!database.windows(token.len()).any(|part| part == token.as_bytes()), "only its digest is kept");
}

#[test]
fn tokens_come_in_pages_and_of_one_sensor_alone() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    collector.sensor("roof");
    collector.sensor("cellar");
    for n in 0..5 {
        collector.add_token(&json!({ "role": "send_only", "name": format!("app {n}"), "sensor": "roof" }));
    }
    let names = |path: &str| -> (Vec<String>, Value) {
        let page = collector.get(path, &collector.token).json();
        (
            page["tokens"].as_array().expect("tokens").iter().map(|t| text(&t["name"])).collect(),
            page["next_before"].clone(),
        )
    };
    let (newest, before) = names("/api/v1/tokens?sensor=roof&limit=4");
    assert_eq!(newest, ["app 4", "app 3", "app 2", "app 1"]);
    let rest = names(&format!("/api/v1/tokens?sensor=roof&limit=4&before={before}"));
    assert_eq!(rest, (vec!["app 0".to_owned(), "registration".to_owned()], Value::Null));
    assert_eq!(names("/api/v1/tokens").0.len(), 8, "with the admin's own and that of the cellar");
    assert_problem(&collector.get("/api/v1/tokens?limit=1001", &collector.token), 400, "invalid_parameter");
    let listed = said(&catchment(dir.path(), &["token", "list", "--sensor", "cellar"], b""));
    assert!(listed.contains("cellar") && !listed.contains("roof"), "{listed}");
}

#[test]
fn a_revoked_token_is_refused_by_the_very_next_request() {
    let dir = folder();
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_AUTH__FAILURES_PER_MINUTE_MAX", "1000000")]);
    for round in 0..15 {
        let made = collector.add_token(&json!({ "role": "operator", "name": format!("round {round}") }));
        let (token, done) = (text(&made["token"]), AtomicBool::new(false));
        let status = || collector.get("/api/v1/sensors", &token).status;
        std::thread::scope(|scope| {
            // Others ask with it meanwhile: what they were told before must not be remembered after.
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        assert!([200, 401].contains(&status()))
                    }
                });
            }
            assert_eq!(revoke(&collector, &made).status, 204);
            assert_eq!(status(), 401, "round {round}");
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(status(), 401, "round {round}");
        assert_eq!(revoke(&collector, &made).status, 204, "a second time changes nothing");
    }
    assert_problem(&collector.ask(("DELETE", "/api/v1/tokens/4711"), &collector.token, &[], b""), 404, "not_found");
    let list = collector.get("/api/v1/tokens", &collector.token).json();
    let own = list["tokens"].as_array().expect("tokens").iter().find(|t| t["name"] == "configured").expect("its own");
    assert_problem(&revoke(&collector, own), 409, "token_configured");
    assert_eq!(collector.get("/api/v1/tokens", &collector.token).status, 200);
}

#[test]
fn a_token_ends_at_its_time_also_when_it_is_remembered() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let made = collector.add_token(&json!({ "role": "reader", "name": "short", "expires_in_seconds": 2 }));
    let token = text(&made["token"]);
    assert_eq!(collector.get("/api/v1/events", &token).status, 200);
    collector.wait_for("its end", |collector| collector.get("/api/v1/events", &token).status == 401);
}

#[test]
fn what_a_token_needs_is_told() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    collector.sensor("roof");
    let refused = |fields: Value| {
        let answer = collector.post("/api/v1/tokens", &collector.token, fields.to_string().as_bytes(), &[]);
        assert_problem(&answer, 400, "invalid_field");
        text(&answer.json()["detail"])
    };
    let cases = [
        (json!({ "role": "boss", "name": "x" }), "role: known are sensor, send_only, enrol"),
        (json!({ "role": "reader", "name": " " }), "name: "),
        (json!({ "role": "send_only", "name": "x" }), "sensor: a token with the role send_only says whose"),
        (json!({ "role": "sensor", "name": "x", "sensor": "cellar" }), "sensor: there is no sensor \"cellar\""),
        (json!({ "role": "reader", "name": "x", "sensor": "roof" }), "sensor: a token with the role reader"),
        (json!({ "role": "reader", "name": "x", "uses": 3 }), "uses: "),
        (json!({ "role": "enrol", "name": "x", "uses": 0 }), "uses: "),
        (json!({ "role": "enrol", "name": "x", "expires_in_seconds": 0 }), "expires_in_seconds: "),
        (json!({ "role": "enrol", "name": "x", "expires_at": "2020-01-01T00:00:00Z" }), "expires_at: "),
        (json!({ "role": "enrol", "name": "x", "expires_at": "soon" }), "expires_at: "),
    ];
    for (fields, begin) in cases {
        let detail = refused(fields.clone());
        assert!(detail.starts_with(begin), "{fields}: {detail}");
    }
    let odd = json!({ "role": "reader", "name": "x", "color": "red" }).to_string();
    assert_problem(&collector.post("/api/v1/tokens", &collector.token, odd.as_bytes(), &[]), 400, "invalid_body");
}

#[test]
fn a_token_that_only_sends_sends_as_its_sensor() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    collector.sensor("app");
    let made = collector.add_token(&json!({ "role": "send_only", "name": "in the app", "sensor": "app" }));
    let token = text(&made["token"]);
    assert_eq!(collector.send(&token, b"{\"n\":1}").json()["accepted"], 1);
    assert_eq!(collector.rows("SELECT sensor FROM events"), [["app"]]);
    assert_problem(&collector.get("/api/v1/sensor", &token), 403, "insufficient_scope");
    collector.assert_adds_up();
}

#[test]
fn an_enrolment_token_counts_down_exactly_when_many_register_at_once() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let made = collector.add_token(&json!({ "role": "enrol", "name": "field", "uses": 3 }));
    let token = text(&made["token"]);
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let register = |n: usize| register(&collector, &token, &format!("meter {n}"));
        let threads: Vec<_> = (0..12).map(|n| scope.spawn(move || register(n))).collect();
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    let (good, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
    assert_eq!(good.len(), 3, "{answers:?}");
    refused.iter().for_each(|answer| assert_problem(answer, 403, "enrolment_used_up"));
    assert_eq!(uses_left(&collector, &made), 0);
    assert_eq!(collector.get("/api/v1/sensors", &collector.token).json()["sensors"].as_array().map(Vec::len), Some(3));

    // What is taken costs no use.
    let other = collector.add_token(&json!({ "role": "enrol", "name": "other", "uses": 1 }));
    let id = text(&good[0].json()["sensorId"]);
    assert_problem(&register(&collector, &text(&other["token"]), &id), 409, "name_taken");
    assert_eq!(uses_left(&collector, &other), 1);
    assert_eq!(revoke(&collector, &other).status, 204);
    assert_problem(&register(&collector, &text(&other["token"]), "late"), 401, "invalid_token");
}

#[test]
fn a_device_that_lost_its_answer_repeats_the_request_until_it_has_used_its_token() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let made = collector.add_token(&json!({ "role": "enrol", "name": "field", "uses": 1 }));
    let enrol = text(&made["token"]);
    let lost = register(&collector, &enrol, "Meter 1").json();
    let again = register(&collector, &enrol, "Meter 1");
    assert_eq!((again.status, &again.json()["sensorId"]), (201, &lost["sensorId"]), "{}", again.text);
    let (lost, fresh) = (text(&lost["token"]), text(&again.json()["token"]));
    assert_eq!(collector.get("/api/v1/sensor", &lost).status, 401, "the lost one is refused");
    assert_eq!(uses_left(&collector, &made), 0, "counted once");
    assert_problem(&register(&collector, &enrol, "meter-1"), 409, "name_taken");
    assert_problem(&register(&collector, &collector.token, "Meter 1"), 409, "name_taken");

    assert_eq!(collector.send(&fresh, b"{\"n\":1}").json()["accepted"], 1);
    assert_problem(&register(&collector, &enrol, "Meter 1"), 409, "name_taken");
    // The first use is known at once, also after a crash.
    collector.kill();
    let collector = Collector::start(dir.path());
    assert_problem(&register(&collector, &enrol, "Meter 1"), 409, "name_taken");
    assert_eq!(collector.send(&fresh, b"{\"n\":2}").json()["accepted"], 1);
}

#[test]
fn a_registration_repeated_over_and_over_leaves_one_token_and_two_entries_in_the_audit() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let enrol = text(&collector.add_token(&json!({ "role": "enrol", "name": "field", "uses": 1 }))["token"]);
    let answers: Vec<Answer> = (0..30).map(|_| register(&collector, &enrol, "Meter 1")).collect();
    assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
    let tokens = collector.get("/api/v1/tokens?sensor=meter-1", &collector.token).json()["tokens"].clone();
    assert_eq!(tokens.as_array().map(Vec::len), Some(1), "{tokens}");
    assert_eq!(tokens[0]["revoked_at"], Value::Null);
    let audit = collector.get("/api/v1/audit", &collector.token).json();
    let entries = audit["entries"].as_array().expect("entries").iter().filter(|e| e["target"] == "sensor/meter-1");
    let acts: Vec<&Value> = entries.map(|entry| &entry["act"]).collect();
    assert_eq!(acts, ["sensor.register_again", "sensor.register"]);
    for (n, answer) in answers.iter().enumerate() {
        // Few at a time: too many tokens that are not known have to wait.
        if n % 5 == 4 {
            let expected = if n == 29 { 200 } else { 401 };
            assert_eq!(collector.get("/api/v1/sensor", &text(&answer.json()["token"])).status, expected, "{n}");
        }
    }
}

#[test]
fn an_enrolment_token_ends_at_its_time() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let made = collector.add_token(&json!({ "role": "enrol", "name": "field", "expires_in_seconds": 2 }));
    let enrol = text(&made["token"]);
    let ended = |answer: &Answer| answer.status == 401;
    assert_eq!(register(&collector, &enrol, "Meter 1").status, 201);
    // Repeating a registration ends with it, too.
    collector.wait_for("its end", |collector| ended(&register(collector, &enrol, "Meter 1")));
    assert_problem(&register(&collector, &enrol, "Meter 2"), 401, "invalid_token");
    let sensors = collector.get("/api/v1/sensors", &collector.token).json()["sensors"].clone();
    assert_eq!(sensors.as_array().map(Vec::len), Some(1), "{sensors}");
}

#[test]
fn tokens_are_made_listed_and_revoked_on_the_command_line() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let run = |args: &[&str]| catchment(dir.path(), args, b"");
    let made = run(&["token", "add", "field", "--role", "enrol", "--uses", "2", "--expires-in", "30d", "--json"]);
    let made: Value = serde_json::from_str(&said(&made)).expect("JSON");
    let bare = run(&["token", "add", "field", "--role", "enrol", "--expires-in", "5"]);
    let told = String::from_utf8_lossy(&bare.stderr).into_owned();
    assert!(bare.status.code() == Some(2) && told.contains("its unit, s, m, h or d"), "5 of what: {told}");
    assert_eq!((&made["role"], &made["uses_left"]), (&json!("enrol"), &json!(2)));
    assert_eq!(register(&collector, &text(&made["token"]), "roof").status, 201);
    let shown = said(&run(&["token", "add", "app", "--role", "send_only", "--sensor", "roof"]));
    assert!(shown.contains("token  cat_") && shown.contains("shown only now"), "{shown}");
    let list = said(&run(&["token", "list"]));
    assert!(["field", "app", "send_only", "roof", "configured"].iter().all(|w| list.contains(w)), "{list}");
    assert!(!list.contains("cat_"), "{list}");
    let id = made["id"].to_string();
    assert_eq!(run(&["token", "revoke", &id]).status.code(), Some(0));
    assert_problem(&register(&collector, &text(&made["token"]), "cellar"), 401, "invalid_token");
    let listed: Value = serde_json::from_str(&said(&run(&["token", "list", "--json"]))).expect("JSON");
    let field = listed["tokens"].as_array().expect("tokens").iter().find(|t| t["id"] == made["id"]).expect("it");
    assert!(field["revoked_at"].is_string(), "{field}");
    assert_eq!(run(&["token", "revoke", "4711"]).status.code(), Some(1));
    assert_eq!(run(&["token", "add", "x", "--role", "boss"]).status.code(), Some(2));
    assert_eq!(run(&["token", "add", "x", "--role", "sensor"]).status.code(), Some(1));
}
