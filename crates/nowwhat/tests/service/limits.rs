//! Limits of the whole service: those that are reloaded hold for the next request; those of the process; and what is no request.

use super::running::{Hello, LOCAL, ask, program};
use super::service;
use axum::Router;
use nowwhat::routing::{get, post};
use nowwhat::testkit::TestServer;
use rustix::process::Signal;
use std::future::pending;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

async fn read(body: String) -> String {
    body.len().to_string()
}

#[test]
fn sizes_and_times_of_requests_are_reloaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hello.toml");
    std::fs::write(&file, "").expect("written");
    let routes = Router::new().route("/read", post(read)).route("/wait", get(pending::<()>));
    let server = TestServer::start(&service(), |config| config.file(&file), async move |_| Ok(routes));
    let body = "x".repeat(2048);
    assert_eq!(server.post("/read").body(body.clone()).send().text(), "2048");

    std::fs::write(&file, "[http]\nbody_bytes_max = \"1KiB\"\nrequest_seconds = \"1s\"\n").expect("written");
    server.reload();
    let reloaded = server.line("reloaded");
    assert_eq!(reloaded["changed"], "http.body_bytes_max http.request_seconds", "{reloaded}");
    let refused = server.post("/read").body(body).send();
    assert_eq!((refused.status.as_u16(), &refused.json()["body_bytes_max"]), (413, &1024.into()));
    let late = server.get("/wait").send();
    assert_eq!((late.status.as_u16(), &late.json()["code"]), (503, &"timed_out".into()));
    assert_eq!(late.json()["detail"], "the service did not answer within 1 s");
}

#[test]
fn the_number_of_connections_is_reloaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hello.toml");
    std::fs::write(&file, "").expect("written");
    let hello = Hello::start(&[("HELLO_CONFIG", file.to_str().expect("a text"))]);
    let status = || ask(hello.address, LOCAL, "GET /hello/moon", &[]).status;
    let open = TcpStream::connect(hello.address).expect("it listens");
    assert_eq!(status(), 200);

    std::fs::write(&file, "[http]\nconnections_max = 1\n").expect("written");
    hello.signal(Signal::HUP);
    assert_eq!(hello.line("reloaded")["changed"], "http.connections_max");
    assert_eq!([status(), status()], [503; 2], "the open one is the only one");
    drop(open);
    nowwhat::testkit::wait_until("room", || status() == 200);
    assert_eq!(hello.line("connection turned away")["connections_max"], 1);
    assert_eq!(hello.stop().matches("connection turned away").count(), 1, "told seldom");
}

/// What the server says to these bytes, and who sent them.
fn said_to(server: &TestServer, sent: &[u8]) -> (String, String) {
    let mut stream = TcpStream::connect(server.address).expect("it listens");
    stream.write_all(sent).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    (answer, stream.local_addr().expect("an address").to_string())
}

#[test]
fn what_is_no_request_is_counted_and_told_with_peer_and_cause_at_debug() {
    let server = TestServer::start(&service(), |c| c, async |_| Ok(Router::new()));
    let (answer, peer) = said_to(&server, b"GET / HTTP/1.1\r\nhost shop\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    nowwhat::testkit::wait_until("counted", || server.metric("http_requests_malformed_total") == 1.0);
    let line = server.line("request refused");
    assert_eq!((&line["severity"], &line["peer"]), (&"DEBUG".into(), &peer.into()));
    assert!(line["error"].as_str().expect("a cause").contains("header"));
}

#[test]
fn a_request_without_a_valid_host_has_an_id_and_a_line_like_every_other() {
    let server = TestServer::start(&service(), |c| c, async |_| Ok(Router::new()));
    let (answer, _) = said_to(&server, b"GET /shop HTTP/1.1\r\nhost: shop:ab\r\nx-request-id: loaf\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 400 ") && head.contains("x-request-id: loaf"), "{head}");
    let problem: serde_json::Value = serde_json::from_str(body).expect("a problem");
    assert_eq!((&problem["code"], &problem["request_id"]), (&"invalid_host".into(), &"loaf".into()));
    let line = server.line("GET /shop");
    assert_eq!((&line["code"], &line["request_id"]), (&"invalid_host".into(), &"loaf".into()));
    assert_eq!(server.line("request refused")["request_id"], "loaf");
    assert_eq!(server.metric("http_requests_malformed_total"), 0.0);
    // The listener of the operator asks for it too.
    let mut admin = TcpStream::connect(server.admin_address).expect("it listens");
    admin.write_all(b"GET /livez HTTP/1.1\r\n\r\n").expect("sent");
    let mut answer = String::new();
    admin.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

/// hello with limits of descriptors.
fn limited(soft: u32, hard: u32, connections_max: &str) -> Hello {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\"")]).arg(program());
    Hello::spawn(command, &[("HELLO_HTTP__CONNECTIONS_MAX", connections_max)]).ready()
}

#[test]
fn the_limit_of_descriptors_is_raised_as_far_as_it_may_and_one_too_low_is_told() {
    let hello = limited(100, 900, "500");
    let open: Vec<_> = (0..200).map(|_| TcpStream::connect(hello.address).expect("it listens")).collect();
    assert_eq!(ask(hello.address, LOCAL, "GET /hello/moon", &[]).status, 200);
    let metrics = ask(hello.admin_address, LOCAL, "GET /metrics", &[]).body;
    assert!(metrics.contains("process_max_fds 900.0\n"), "{metrics}");
    drop(open);
    let written = hello.stop();
    assert!(!written.contains("descriptors") && !written.contains("not accepted"), "{written}");

    let hello = limited(100, 900, "700");
    let told = hello.line("too few file descriptors");
    assert_eq!((&told["descriptors_max"], &told["connections_max"]), (&900.into(), &700.into()));
    assert!(told["message"].as_str().is_some_and(|m| m.contains("LimitNOFILE=956")), "{told}");
    hello.stop();
}
