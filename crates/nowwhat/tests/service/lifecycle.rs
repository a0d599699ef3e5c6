//! Start, stop, failure: in which order, how long, with which exit code.

use super::running::{Hello, LOCAL, ask, program};
use super::{has_role, other_role, run, service};
use axum::Router;
use axum::body::Body;
use futures::{StreamExt, stream};
use nowwhat::routing::get;
use nowwhat::testkit::{TestServer, wait_until};
use nowwhat::{Boot, BoxError};
use rustix::process::Signal;
use serde_json::Value;
use std::convert::Infallible;
use std::future::pending;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use tokio::sync::Notify;

fn status(address: SocketAddr, path: &str) -> u16 {
    ask(address, LOCAL, &format!("GET {path}"), &[]).status
}

/// A request whose answer nobody reads yet.
fn begin(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).expect("sent");
    stream
}

fn messages(written: &str) -> Vec<Value> {
    written.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn a_second_signal_quits_at_once_whatever_the_drain() {
    let hello = Hello::start(&[("HELLO_STOP__DRAIN_SECONDS", "5m")]);
    hello.signal(Signal::TERM);
    wait_until("unready", || status(hello.admin_address, "/readyz") == 503);
    hello.signal(Signal::INT);
    let (code, written) = hello.end();
    assert_eq!(code, Some(1), "{written}");
    assert!(written.contains("hello: SIGINT came while stopping: quit at once"), "{written}");
}

#[test]
fn while_it_drains_it_is_unready_and_answers_and_then_its_listener_closes() {
    let hello = Hello::start(&[("HELLO_STOP__DRAIN_SECONDS", "2s")]);
    assert_eq!(status(hello.address, "/readyz"), 200);
    hello.signal(Signal::TERM);
    wait_until("unready", || status(hello.admin_address, "/readyz") == 503);
    assert_eq!(status(hello.address, "/readyz"), 503);
    assert_eq!(status(hello.address, "/livez"), 200);
    assert_eq!(status(hello.address, "/hello/moon"), 200);
    wait_until("closed", || TcpStream::connect(hello.address).is_err());
    let stopped = hello.line("stopped");
    assert!(stopped["seconds"].as_f64().is_some_and(|seconds| seconds >= 2.0), "{stopped}");
    let (code, written) = hello.end();
    assert_eq!(code, Some(0), "{written}");
}

#[test]
fn steps_of_stopping_run_in_reverse_order_and_one_that_hangs_or_fails_does_not_keep_the_others_from_it() {
    if has_role() {
        run(async |boot: &mut Boot| {
            boot.on_stop("first", async { Ok(()) });
            boot.on_stop("hanging", pending());
            let error = std::io::Error::other("the till is stuck");
            boot.on_stop("failing", async move { Err(error.into()) });
            boot.on_stop("last", async { Ok(()) });
            Ok(Router::new())
        });
    }
    let settings = [("HELLO_STOP__GRACE_SECONDS", "1s"), ("HELLO_LOG__LEVEL", "debug")];
    let test = "lifecycle::steps_of_stopping_run_in_reverse_order_and_one_that_hangs_or_fails_does_not_keep_the_others_from_it";
    let hello = other_role(test, &settings).ready();
    hello.signal(Signal::TERM);
    let (code, written) = hello.end();
    assert_eq!(code, Some(1), "{written}");
    assert!(written.contains("hello: the till is stuck"), "{written}");
    let lines = messages(&written);
    let steps: Vec<_> =
        lines.iter().filter_map(|line| Some((line["step"].as_str()?, line["message"].as_str()?))).collect();
    let expected = [
        ("last", "stopped"),
        ("failing", "a step of stopping failed"),
        ("hanging", "a step of stopping takes too long"),
        ("first", "stopped"),
    ];
    assert_eq!(steps, expected);
    let end = lines.iter().find(|line| line["message"] == "stopped" && line["step"].is_null()).expect("the end");
    assert!(end["seconds"].as_f64().is_some_and(|seconds| (1.0..10.0).contains(&seconds)), "{end}");
}

#[test]
fn a_start_that_fails_exits_with_the_chain_of_causes() {
    if has_role() {
        run(async |_: &mut Boot| {
            #[derive(Debug, thiserror::Error)]
            #[error("cannot open the shop")]
            struct Closed(#[source] std::io::Error);
            Err(Closed(std::io::Error::other("the key is lost")).into())
        });
    }
    let (code, written) = other_role("lifecycle::a_start_that_fails_exits_with_the_chain_of_causes", &[]).end();
    assert_eq!(code, Some(1), "{written}");
    let chain = "cannot open the shop: the key is lost";
    assert!(written.ends_with(&format!("hello: {chain}\n")), "{written}");
    assert!(messages(&written).iter().any(|line| line["error"] == chain && line["severity"] == "ERROR"), "{written}");

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let (code, written) = Hello::spawn(Command::new(program()), &[("HELLO_HTTP__LISTEN", &address)]).end();
    assert_eq!(code, Some(1), "{written}");
    assert!(written.contains(&format!("hello: cannot listen on {address}: Address already in use")), "{written}");
}

#[test]
fn a_start_that_hangs_ends_at_once_when_it_is_asked_to_stop() {
    if has_role() {
        run(async |_: &mut Boot| {
            tracing::info!("hanging");
            pending().await
        });
    }
    let hello = other_role("lifecycle::a_start_that_hangs_ends_at_once_when_it_is_asked_to_stop", &[]);
    hello.line("hanging");
    hello.signal(Signal::TERM);
    let (code, written) = hello.end();
    assert_eq!(code, Some(0), "{written}");
    assert!(written.contains("stopped while starting"), "{written}");
}

#[test]
fn a_service_that_cannot_go_on_stops_in_order_and_fails() {
    if has_role() {
        run(async |boot: &mut Boot| {
            let end = Arc::new(Notify::new());
            let asked = end.clone();
            boot.ends_when(pending());
            boot.ends_when(async move {
                asked.notified().await;
                "the flour is out".to_owned()
            });
            boot.on_stop("oven", async {
                tracing::info!("oven off");
                Ok(())
            });
            Ok(Router::new().route("/end", get(async move || end.notify_one())))
        });
    }
    let hello = other_role("lifecycle::a_service_that_cannot_go_on_stops_in_order_and_fails", &[]).ready();
    assert_eq!(status(hello.address, "/end"), 200);
    let (code, written) = hello.end();
    assert_eq!(code, Some(1), "{written}");
    let lines = messages(&written);
    let at =
        |message: &str| lines.iter().position(|line| line["message"] == message).unwrap_or_else(|| panic!("{message}"));
    assert!(at("stopping, because the service cannot go on") < at("oven off") && at("oven off") < at("stopped"));
    assert!(written.ends_with("hello: the flour is out\n"), "{written}");
}

#[test]
fn a_reload_that_hangs_does_not_hold_up_the_end() {
    if has_role() {
        run(async |boot: &mut Boot| {
            boot.on_reload(|_| async {
                tracing::info!("hanging");
                pending().await
            });
            Ok(Router::new())
        });
    }
    let hello = other_role("lifecycle::a_reload_that_hangs_does_not_hold_up_the_end", &[]).ready();
    hello.signal(Signal::HUP);
    hello.line("hanging");
    let written = hello.stop();
    assert!(written.contains("\"message\":\"stopped\""), "{written}");
}

#[test]
fn a_hangup_while_it_reloads_is_reloaded_after_it() {
    if has_role() {
        run(async |boot: &mut Boot| {
            let go = Arc::new(Notify::new());
            let waiting = go.clone();
            boot.on_reload(move |_| {
                let waiting = waiting.clone();
                async move {
                    tracing::info!("waiting");
                    waiting.notified().await;
                    Ok(())
                }
            });
            Ok(Router::new().route("/go", get(async move || go.notify_one())))
        });
    }
    let hello = other_role("lifecycle::a_hangup_while_it_reloads_is_reloaded_after_it", &[]).ready();
    hello.signal(Signal::HUP);
    hello.line("waiting");
    hello.signal(Signal::HUP);
    // It comes during the first reload or right after it; it is not lost either way.
    status(hello.address, "/go");
    hello.nth_line(1, "waiting");
    status(hello.address, "/go");
    hello.nth_line(1, "reloaded");
    hello.stop();
}

#[test]
fn requests_that_do_not_finish_are_cut_off_before_what_they_stand_on_goes_away() {
    struct Baking;
    impl Drop for Baking {
        fn drop(&mut self) {
            tracing::info!("cut off");
        }
    }
    if has_role() {
        run(async |boot: &mut Boot| {
            boot.on_stop("oven", async {
                tracing::info!("oven off");
                Ok(())
            });
            let bake = async || -> &'static str {
                let _baking = Baking;
                tracing::info!("baking");
                pending().await
            };
            Ok(Router::new().route("/bake", get(bake)))
        });
    }
    let test = "lifecycle::requests_that_do_not_finish_are_cut_off_before_what_they_stand_on_goes_away";
    let hello = other_role(test, &[("HELLO_STOP__GRACE_SECONDS", "1s")]).ready();
    let _stream = begin(hello.address, "/bake");
    hello.line("baking");
    let lines = messages(&hello.stop());
    let at =
        |message: &str| lines.iter().position(|line| line["message"] == message).unwrap_or_else(|| panic!("{message}"));
    assert!(at("requests did not finish in time and are cut off") < at("cut off"), "{lines:#?}");
    assert!(at("cut off") < at("oven off"), "{lines:#?}");
}

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
    assert!(panicked["place"].as_str().is_some_and(|place| place.contains("lifecycle.rs:")), "{panicked}");
    let request = server.line("[500] GET /burn (lifecycle#burn)");
    assert_eq!((&request["request_id"], &request["cause"]), (&"loaf-17".into(), &"panic: burnt".into()));
    assert_eq!(server.metric("http_panics_total"), 1.0);
    assert_eq!(server.get("/livez").send().status, 200, "it goes on");
}

#[test]
fn the_id_is_on_the_lines_of_errors_also_where_no_others_are_wanted() {
    if has_role() {
        run(async |_: &mut Boot| Ok(Router::new().route("/burn", get(burn))));
    }
    let test = "lifecycle::the_id_is_on_the_lines_of_errors_also_where_no_others_are_wanted";
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
