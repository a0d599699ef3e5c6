//! Who may do what: every route of the table in `docs/API.md`, which is that of the code, asked with every role and without a token.

use serde_json::json;
use std::collections::BTreeMap;
use tests::{Answer, Collector};

const NO_TOKEN: &str = "no token";

/// One row of the table: a route, and what each column says.
struct Row {
    method: String,
    path: String,
    allowed: BTreeMap<String, bool>,
}

impl Row {
    /// Asks for it; what its path names is not there.
    fn ask(&self, collector: &Collector, token: &str) -> Answer {
        let file = if self.path.starts_with("/docs") { "start.js" } else { "main.js" };
        let path = self.path.replace("{id}", "nobody").replace("{version}", "1").replace("{file}", file);
        // An unknown parameter, and what is no position, end answers that would go on for ever.
        let path = if path.ends_with("/live") { path + "?until=never" } else { path };
        let body: &[u8] = if ["POST", "PATCH"].contains(&self.method.as_str()) { b"{}" } else { b"" };
        let headers = [("webhook-request-origin", "webhooks.example.com"), ("last-event-id", "none")];
        collector.ask((&self.method, &path), token, &headers, body)
    }

    fn roles(&self) -> impl Iterator<Item = &str> {
        self.allowed.iter().filter(|(role, allowed)| **allowed && *role != NO_TOKEN).map(|(role, _)| role.as_str())
    }
}

fn table() -> Vec<Row> {
    let text = include_str!("../../docs/API.md").split_once("<!-- generated: roles -->\n").expect("the table").1;
    let text = text.split_once("<!-- end -->").expect("its end").0;
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect()
    };
    let mut lines = text.lines();
    let columns = cells(lines.next().expect("a head"));
    lines
        .skip(1)
        .map(|line| {
            let row = cells(line);
            let (method, path) = row[0].split_once(' ').expect("a method and a path");
            let allowed = columns.iter().cloned().zip(row.iter().map(|cell| cell == "yes")).skip(1).collect();
            Row { method: method.to_owned(), path: path.to_owned(), allowed }
        })
        .collect()
}

/// A token of each role.
fn tokens(collector: &Collector) -> BTreeMap<String, String> {
    collector.sensor("roof");
    let with_sensor = ["sensor", "send_only"].map(|role| json!({ "role": role, "name": role, "sensor": "roof" }));
    let without = ["enrol", "reader", "operator", "admin"].map(|role| json!({ "role": role, "name": role }));
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    with_sensor
        .iter()
        .chain(&without)
        .map(|fields| collector.add_token(fields))
        .map(|made| (text(&made["role"]), text(&made["token"])))
        .collect()
}

#[test]
fn every_route_takes_the_roles_of_the_table_and_refuses_all_others() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let (table, tokens) = (table(), tokens(&collector));
    assert!(table.len() > 15 && tokens.len() == 6, "{} routes, {} roles", table.len(), tokens.len());
    for row in &table {
        assert_eq!(row.allowed.len(), 7, "each row has all roles");
        for (role, allowed) in row.allowed.iter().filter(|(role, _)| *role != NO_TOKEN) {
            let answer = row.ask(&collector, &tokens[role]);
            let case = format!("{} {} as {role}: {answer:?}", row.method, row.path);
            if *allowed {
                assert!(answer.status < 500 && ![401, 403, 405, 429].contains(&answer.status), "{case}");
                assert!(!answer.text.contains("no route answers"), "{case}");
            } else {
                assert_eq!((answer.status, &answer.json()["code"]), (403, &json!("insufficient_scope")), "{case}");
                let challenge = answer.header("www-authenticate").expect("a challenge");
                assert!(challenge.contains("error=\"insufficient_scope\""), "{case}");
                let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
                assert!(row.roles().all(|needed| detail.contains(needed)), "it names who may: {case}");
            }
        }
    }
}

#[test]
fn every_route_refuses_who_has_no_token_or_one_that_is_not_known() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_AUTH__FAILURES_PER_MINUTE_MAX", "1000")]);
    for row in &table() {
        let answers = [("", "missing_token"), ("cat_of_nobody", "invalid_token")];
        for (token, code) in answers {
            let answer = row.ask(&collector, token);
            let case = format!("{} {} with {token:?}: {answer:?}", row.method, row.path);
            if row.allowed[NO_TOKEN] {
                // Who signs in with nothing is told what to send; who signs out was not there.
                let status = match (row.method.as_str(), row.path.as_str()) {
                    ("POST", "/api/v1/session") => 400,
                    ("DELETE", "/api/v1/session") => 204,
                    _ => 200,
                };
                assert_eq!(answer.status, status, "{case}");
            } else {
                assert_eq!((answer.status, &answer.json()["code"]), (401, &json!(code)), "{case}");
            }
        }
    }
}

#[test]
fn a_request_with_two_tokens_is_refused_whichever_comes_first() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let valid = format!("Bearer {}", collector.token);
    for route in [("GET", "/api/v1/sensors"), ("POST", "/api/v1/events")] {
        for (first, second) in [(collector.token.as_str(), "Bearer other"), ("other", &*valid)] {
            let answer = collector.ask(route, first, &[("authorization", second)], b"{}");
            assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("several_tokens")), "{}", answer.text);
            let challenge = answer.header("www-authenticate").expect("a challenge");
            assert!(challenge.contains("error=\"invalid_request\""), "{challenge}");
        }
    }
}
