//! Who watches requests is told of each what its line tells, and what its handler noted; the others pay nothing for it.

use super::service;
use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use http::StatusCode;
use nowwhat::metrics::Label;
use nowwhat::problem::Problem;
use nowwhat::request::{Finished, note};
use nowwhat::routing::get;
use nowwhat::testkit::{TestServer, wait_until};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

#[derive(Clone)]
struct Guest(String);

async fn guest(Path(name): Path<String>) -> Result<String, Problem> {
    note(|| Guest("somebody".to_owned()));
    note(|| Guest(name.clone()));
    match name.as_str() {
        "nobody" => Err(Problem::new(StatusCode::FORBIDDEN, "no_guest", "Not invited")),
        _ => Ok(name),
    }
}

async fn long() -> Body {
    let parts = (0..3).map(|_| Ok::<_, std::io::Error>("x".repeat(40_000)));
    Body::from_stream(futures::stream::iter(parts))
}

/// As the log line has it.
fn told(request: &Finished<'_>) -> Value {
    let guest = request.notes.get::<Guest>().map(|guest| guest.0.clone());
    json!({
        "request_id": request.request_id, "method": request.method.value(), "route": request.route.value(),
        "path": request.path, "controller": request.controller, "action": request.action, "format": request.format,
        "status": request.status.as_u16(), "request_bytes": request.request_bytes,
        "response_bytes": request.response_bytes, "client": request.client, "code": request.code, "guest": guest,
    })
}

#[test]
fn each_request_that_ended_is_told_with_what_its_line_tells_and_what_was_noted_of_it() {
    let (seen, also) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
    let (tell, count) = (seen.clone(), also.clone());
    let routes = || Router::new().route("/guests/{name}", get(guest)).route("/long", get(long));
    let server = TestServer::start(
        &service(),
        |c| c,
        async move |boot| {
            boot.on_request(move |request| tell.lock().expect("no panic").push(told(request)));
            boot.on_request(move |_| *count.lock().expect("no panic") += 1);
            Ok(routes())
        },
    );
    for path in ["/guests/moon?token=secret", "/guests/nobody", "/long", "/nowhere"] {
        server.get(path).header("x-request-id", "loaf-17").send();
    }
    wait_until("all are told", || seen.lock().expect("no panic").len() == 4);
    let seen = seen.lock().expect("no panic");
    let lines = ["[200] GET /guests/moon (", "[403] GET /guests/nobody", "[200] GET /long", "[404] GET /nowhere"];
    for (told, message) in seen.iter().zip(lines) {
        let line = server.line(message);
        for (name, value) in
            told.as_object().expect("an object").iter().filter(|(name, _)| !["route", "guest"].contains(&name.as_str()))
        {
            assert_eq!(line.get(name).unwrap_or(&Value::Null), value, "{name} of {message}");
        }
    }
    let of = |name: &str| seen.iter().map(|told| told[name].clone()).collect::<Vec<_>>();
    assert_eq!(of("route"), ["/guests/{name}", "/guests/{name}", "/long", "unmatched"]);
    assert_eq!(of("guest"), [json!("moon"), json!("nobody"), Value::Null, Value::Null]);
    assert_eq!(of("response_bytes")[2], 120_000);
    assert_eq!(*also.lock().expect("no panic"), 4, "whoever else watches");
    assert!(!format!("{seen:?}").contains("secret"), "the query is nobody's business");
}

#[test]
fn nothing_is_noted_where_nobody_watches() {
    let made = Arc::new(Mutex::new(0));
    let count = made.clone();
    let server = TestServer::start(
        &service(),
        |c| c,
        async move |_| {
            let handler = async move || note(|| *count.lock().expect("no panic") += 1);
            Ok(Router::new().route("/", get(handler)))
        },
    );
    assert_eq!(server.get("/").send().status, StatusCode::OK);
    assert_eq!(*made.lock().expect("no panic"), 0);
    // Outside of a request there is nothing to note.
    note(|| unreachable!("there is no request") as u8);
}
