//! Every JSON that the text of `docs/API.md` shows is what a real collector takes or answers. Its blocks of commands run in `commands.rs`.
//!
//! In the text a name alone stands for a member with any value, `…` for anything, `<code>` for any code.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use tests::{Answer, Collector};

/// What the text shows of a value.
#[derive(Debug)]
enum Shape {
    Anything,
    /// The parts of a text around what may be anything.
    Text(Vec<String>),
    Exactly(Value),
    Array(Vec<Shape>),
    Object(BTreeMap<String, Shape>),
    /// The same, and whatever else.
    SomeObject,
}

/// Reads a shape from the text.
struct Reader<'a>(&'a str);

impl Reader<'_> {
    fn eat(&mut self, sign: &str) -> bool {
        self.0 = self.0.trim_start();
        let rest = self.0.strip_prefix(sign);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn text(&mut self) -> String {
        let (text, rest) = self.0.split_once('"').expect("the text ends");
        self.0 = rest;
        text.to_owned()
    }

    fn value(&mut self) -> Shape {
        if self.eat("…") {
            Shape::Anything
        } else if self.eat("\"") {
            let text = self.text().replace("<code>", "…");
            Shape::Text(text.split('…').map(str::to_owned).collect())
        } else if self.eat("[") {
            Shape::Array(self.list("]", Self::value))
        } else if self.eat("{") {
            if self.eat("…}") {
                return Shape::SomeObject;
            }
            Shape::Object(self.list("}", Self::member).into_iter().collect())
        } else {
            let end = self.0.find([',', ']', '}']).unwrap_or(self.0.len());
            let (literal, rest) = self.0.split_at(end);
            self.0 = rest;
            Shape::Exactly(serde_json::from_str(literal.trim()).unwrap_or_else(|e| panic!("{e}: {literal:?}")))
        }
    }

    fn member(&mut self) -> (String, Shape) {
        assert!(self.eat("\""), "a name is missing before {:?}", self.0);
        let name = self.text();
        let shape = if self.eat(":") { self.value() } else { Shape::Anything };
        (name, shape)
    }

    fn list<T>(&mut self, end: &str, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let mut items = Vec::new();
        while !self.eat(end) {
            items.push(item(self));
            self.eat(",");
        }
        items
    }
}

impl Shape {
    fn fits(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Anything, _) | (Self::SomeObject, Value::Object(_)) => true,
            (Self::Exactly(shown), value) => shown == value,
            (Self::Text(parts), Value::String(text)) => {
                let (first, last) = (&parts[0], &parts[parts.len() - 1]);
                if parts.len() == 1 { text == first } else { text.starts_with(first) && text.ends_with(last) }
            }
            // One shown item stands for all of a list.
            (Self::Array(shown), Value::Array(items)) if shown.len() == 1 => {
                !items.is_empty() && items.iter().all(|item| shown[0].fits(item))
            }
            (Self::Array(shown), Value::Array(items)) => {
                shown.len() == items.len() && shown.iter().zip(items).all(|(shape, item)| shape.fits(item))
            }
            (Self::Object(shown), Value::Object(members)) => {
                let same = shown.keys().eq(members.keys());
                same && shown.iter().all(|(name, shape)| shape.fits(&members[name]))
            }
            _ => false,
        }
    }
}

#[track_caller]
fn with_status(answer: Answer, status: u16) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text);
    answer.json()
}

/// What is sent to a real collector and what it answers, beginning with a sensor of the text's name.
fn told(collector: &Collector) -> Vec<Value> {
    let mut told = Vec::new();
    let mut exchange = |(method, path): (&str, &str), token: &str, body: Option<Value>, status: u16| {
        let text = body.as_ref().map(Value::to_string).unwrap_or_default();
        let answer = with_status(collector.ask((method, path), token, &[], text.as_bytes()), status);
        told.extend(body);
        told.push(answer.clone());
        answer
    };
    let admin = &*collector.token;
    let registration = json!({ "name": "Roof 1", "labels": { "site": "a" } });
    let made = exchange(("POST", "/api/v1/sensor"), admin, Some(registration), 201);
    let sensor = made["token"].as_str().expect("a token");
    let event = |data: u64| json!({ "id": "a", "type": "reading", "data": data });
    exchange(("POST", "/api/v1/events"), sensor, Some(json!([event(1)])), 200);
    let batch = json!([event(1), event(2), { "n": 1 }, { "time": "yesterday" }]);
    exchange(("POST", "/api/v1/events"), sensor, Some(batch), 200);
    let exported = json!({
        "id": "b", "sensor": "roof-1", "source": "", "type": "t", "time": "2026-01-31T12:00:00Z", "received_at": "2026-01-31T12:00:00Z",
    });
    exchange(("POST", "/api/v1/import"), admin, Some(exported), 200);
    let question =
        json!({ "sql": "SELECT $1 AS a, $2 AS b", "params": ["a", 1], "limit": 1000, "timeout_seconds": 30 });
    exchange(("POST", "/api/v1/query"), admin, Some(question), 200);
    exchange(("POST", "/api/v1/query"), admin, Some(json!({ "sql": "SELECT nothing FROM events" })), 400);
    exchange(("GET", "/api/v1/events?limit=1"), admin, None, 200);
    exchange(("GET", "/api/v1/fields"), admin, None, 200);
    exchange(("GET", "/api/v1/rejected"), admin, None, 200);
    exchange(("GET", "/api/v1/overview"), admin, None, 200);
    exchange(("GET", "/api/v1/overview/history"), admin, None, 200);
    exchange(("GET", "/api/v1/sensors?limit=1"), admin, None, 200);
    let quota = json!({ "events_per_second": 100_000, "burst_seconds": 60 });
    let change = json!({ "labels": {}, "time_zone": "Europe/Berlin", "quota": quota, "disabled": false });
    exchange(("PATCH", "/api/v1/sensors/roof-1"), admin, Some(change), 200);
    exchange(("POST", "/api/v1/sensors/roof-1/token"), admin, Some(json!({ "overlap_seconds": 3600 })), 201);
    exchange(("POST", "/api/v1/tokens"), admin, Some(json!({ "role": "reader", "name": "report" })), 201);
    exchange(("GET", "/api/v1/tokens"), admin, None, 200);
    exchange(("POST", "/api/v1/session"), "", Some(json!({ "token": admin })), 200);
    let made = exchange(("POST", "/api/v1/session/code"), admin, None, 201);
    exchange(("POST", "/api/v1/session"), "", Some(json!({ "code": made["code"] })), 200);
    let held = exchange(("POST", "/api/v1/backups"), admin, None, 201);
    let path = format!("/api/v1/backups/{}", held["id"]);
    exchange(("PATCH", &path), admin, Some(json!({ "state": "copying", "bytes": 1_048_576 })), 200);
    exchange(("PATCH", &path), admin, Some(json!({ "state": "failed" })), 200);
    exchange(("DELETE", "/api/v1/sensors/roof-1/events"), admin, None, 202);
    exchange(("GET", "/api/v1/audit"), admin, None, 200);
    exchange(("GET", "/api/v1/events/none"), admin, None, 404);
    told
}

/// Whether the value, or something in it, is like the shape.
fn is_within(shape: &Shape, value: &Value) -> bool {
    shape.fits(value)
        || match value {
            Value::Object(members) => members.values().any(|member| is_within(shape, member)),
            Value::Array(items) => items.iter().any(|item| is_within(shape, item)),
            _ => false,
        }
}

#[test]
fn every_json_in_the_text_of_the_api_is_taken_or_answered_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let told = told(&collector);
    let document = include_str!("../../docs/API.md");
    // Blocks and generated tables aside, a span of code that begins like an object.
    let text: String = document.split("```").step_by(2).collect();
    let spans: Vec<&str> = text.split('`').skip(1).step_by(2).filter(|span| span.starts_with("{\"")).collect();
    assert!(spans.len() >= 15, "{spans:?}");
    for span in spans {
        let mut reader = Reader(span);
        let shape = reader.value();
        assert_eq!(reader.0, "", "{span} is read to its end");
        assert!(told.iter().any(|value| is_within(&shape, value)), "nothing was sent or answered like {span}");
    }
}

#[test]
fn a_shape_fits_what_it_shows_and_nothing_else() {
    let fits = |shape: &str, value: Value| Reader(shape).value().fits(&value);
    assert!(fits(
        "{\"a\": [{\"b\", \"c\"}], \"d\": \"x_…\", \"e\"}",
        json!({ "a": [{ "b": 1, "c": 2 }], "d": "x_1", "e": null })
    ));
    assert!(fits(
        "{\"type\": \"/p/<code>\", \"n\": 2, \"o\": {…}}",
        json!({ "type": "/p/not_found", "n": 2, "o": {} })
    ));
    assert!(fits("[\"a\", 1]", json!(["a", 1])));
    for (shape, value) in [
        ("{\"a\"}", json!({ "a": 1, "b": 2 })),
        ("{\"a\", \"b\"}", json!({ "a": 1 })),
        ("{\"a\": 1}", json!({ "a": 2 })),
        ("{\"a\": \"x_…\"}", json!({ "a": "y_1" })),
        ("{\"a\": [{\"b\"}]}", json!({ "a": [] })),
        ("{\"a\": {…}}", json!({ "a": 1 })),
        ("[\"a\", 1]", json!(["a"])),
    ] {
        assert!(!fits(shape, value.clone()), "{shape} fits {value}");
    }
}
