//! Limits that are reloaded: the next request gets the new ones.

use super::running::{Hello, LOCAL, ask};
use super::service;
use axum::Router;
use nowwhat::routing::{get, post};
use nowwhat::testkit::TestServer;
use rustix::process::Signal;
use std::future::pending;
use std::net::TcpStream;

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
    assert_eq!(status(), 503, "the open one is the only one");
    drop(open);
    nowwhat::testkit::wait_until("room", || status() == 200);
    hello.stop();
}
