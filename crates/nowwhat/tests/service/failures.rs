//! Requests that fail: a panic, a client that hangs up, an answer that breaks off.

use super::lifecycle::begin;
use super::running::{LOCAL, ask};
use super::{has_role, other_role, run, service};
use axum::Router;
use axum::body::{Body, Bytes};
use futures::{StreamExt, stream};
use http::Method;
use nowwhat::routing::{get, post};
use nowwhat::testkit::TestServer;
use nowwhat::{Boot, BoxError};
use std::convert::Infallible;
use std::future::pending;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

async fn burn() {
    panic!("burnt")
}

#[test]
fn a_panic_is_a_problem_with_the_id_a_line_with_place_and_id_and_a_count() {
    let server = TestServer::start(&service(), |c| c, async |_| Ok(Router::new().route("/burn", get(burn))));
    let answer = server.get("/burn").header("x-request-id", "loaf-17").send();
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (500, Some("application/problem+json")));
    let problem = answer.json();
    assert_eq!((&problem["request_id"], &problem["code"]), (&"loaf-17".into(), &"internal".into()));
    assert!(!answer.text().contains("burnt"), "{}", answer.text());
    let panicked = server.line("panicked");
    assert_eq!((&panicked["request_id"], &panicked["cause"]), (&"loaf-17".into(), &"burnt".into()));
    assert!(panicked["place"].as_str().is_some_and(|place| place.contains("failures.rs:")), "{panicked}");
    let request = server.line("[500] GET /burn (failures#burn)");
    assert_eq!((&request["request_id"], &request["cause"]), (&"loaf-17".into(), &"panic: burnt".into()));
    assert_eq!(server.metric("http_panics_total"), 1.0);
    assert_eq!(server.get("/livez").send().status, 200, "it goes on");
}

#[test]
fn the_id_is_on_the_lines_of_errors_also_where_no_others_are_wanted() {
    if has_role() {
        run(async |_: &mut Boot| Ok(Router::new().route("/burn", get(burn))));
    }
    let test = "failures::the_id_is_on_the_lines_of_errors_also_where_no_others_are_wanted";
    for level in ["info", "error", "shop=debug"] {
        // What is ready is told by a line that is not wanted here.
        let hello = other_role(test, &[("HELLO_LOG__LEVEL", "info")]).ready();
        assert_eq!(super::running::send(hello.admin_address, "PUT /log/level", level).status, 200);
        ask(hello.address, LOCAL, "GET /burn", &[("x-request-id", "loaf-18")]);
        assert_eq!(hello.line("panicked")["request_id"], "loaf-18", "{level}");
        assert_eq!(hello.line("[500] GET /burn")["request_id"], "loaf-18", "{level}");
        hello.stop();
    }
}

#[test]
fn a_client_that_hangs_up_is_told_as_499() {
    let wait = async || {
        tracing::info!("waiting");
        pending::<()>().await;
    };
    let server = TestServer::start(&service(), |c| c, async move |_| Ok(Router::new().route("/wait", get(wait))));
    let stream = begin(server.address, "/wait");
    server.line("waiting");
    drop(stream);
    let line = server.line("[499] GET /wait");
    assert_eq!((&line["status"], &line["severity"]), (&499.into(), &"INFO".into()));
    assert_eq!(server.metric("http_requests_total{method=\"GET\",route=\"/wait\",status=\"499\"}"), 1.0);
}

#[test]
fn an_answer_that_breaks_off_is_the_services_failure_and_not_the_clients() {
    let fail = async || {
        let parts = [Ok("begin"), Err(BoxError::from("the oven went cold"))];
        Body::from_stream(stream::iter(parts))
    };
    let panics = async || {
        Body::from_stream(
            stream::iter([1, 2]).map(|n| if n == 1 { Ok::<_, Infallible>("begin") } else { panic!("burnt") }),
        )
    };
    let routes = Router::new().route("/fail", get(fail)).route("/panic", get(panics));
    let server = TestServer::start(&service(), |c| c, async move |_| Ok(routes));
    for (path, cause) in
        [("/fail", "the answer broke off: the oven went cold"), ("/panic", "the answer broke off: panic: burnt")]
    {
        let mut answer = String::new();
        // Whether the end is an error or not is the operating system's business.
        let _ = begin(server.address, path).read_to_string(&mut answer);
        assert!(!answer.ends_with("0\r\n\r\n"), "it looks whole: {answer}");
        let line = server.line(&format!("[500] GET {path}"));
        assert_eq!((&line["cause"], &line["severity"]), (&cause.into(), &"ERROR".into()));
        assert!(line["request_id"].is_string());
    }
    assert_eq!(server.metric("http_panics_total"), 1.0);
    assert!(server.lines().iter().all(|line| line["status"] != 499));
}

#[test]
fn bytes_are_told_as_they_came_and_went_and_not_as_they_were_announced() {
    let take = async |body: Bytes| body.len().to_string();
    let give = async || "a loaf";
    let routes = Router::new().route("/take", post(take)).route("/give", get(give));
    let server = TestServer::start(&service(), |c| c, async move |_| Ok(routes));
    server.post("/take").body("four").send();
    assert_eq!(server.line("[200] POST /take")["request_bytes"], 4);
    let mut liar = TcpStream::connect(server.address).expect("it listens");
    liar.write_all(b"POST /take HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\nfour").expect("sent");
    liar.shutdown(Shutdown::Write).expect("no more is sent");
    assert_eq!(server.line("[400] POST /take")["request_bytes"], 4);
    let answer = server.request(Method::HEAD, "/give").send();
    assert_eq!(answer.header("content-length"), Some("6"));
    assert_eq!(server.line("[200] HEAD /give")["response_bytes"], 0);
    server.get("/give").send();
    assert_eq!(server.line("[200] GET /give")["response_bytes"], 6);
    let sum = |body: &str, route: &str| server.metric(&format!("http_{body}_body_size_bytes_sum{{route=\"{route}\"}}"));
    assert_eq!((sum("request", "/take"), sum("request", "/give"), sum("response", "/give")), (8.0, 0.0, 6.0));
    assert_eq!(server.metric("http_requests_in_flight"), 0.0);
}

#[test]
fn a_request_that_is_being_answered_is_in_flight() {
    let (go, gate) = tokio::sync::oneshot::channel::<()>();
    let gate = Arc::new(Mutex::new(Some(gate)));
    let wait = async move || {
        let gate = gate.lock().expect("one thread").take().expect("one request");
        gate.await.expect("the test lets it go on");
    };
    let server = TestServer::start(&service(), |c| c, async move |_| Ok(Router::new().route("/wait", get(wait))));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| server.get("/wait").send().status);
        let deadline = Instant::now() + Duration::from_secs(20);
        while server.metric("http_requests_in_flight") != 1.0 {
            assert!(Instant::now() < deadline, "never in flight");
            std::thread::yield_now();
        }
        go.send(()).expect("it waits");
        assert_eq!(asking.join().expect("no panic"), 200);
    });
    assert_eq!(server.metric("http_requests_in_flight"), 0.0);
}

#[test]
fn what_is_bound_inside_of_a_span_is_on_the_requests_own_line() {
    let handler = async || {
        let inner = tracing::info_span!("inner", oven = 3);
        inner.in_scope(|| nowwhat::bind("guest", "moon"));
        tracing::info!("outside");
    };
    let server = TestServer::start(&service(), |c| c, async move |_| Ok(Router::new().route("/bound", get(handler))));
    server.get("/bound").send();
    for line in [server.line("outside"), server.line("[200] GET /bound")] {
        assert_eq!((&line["guest"], line.get("oven")), (&"moon".into(), None), "{line}");
    }
}
