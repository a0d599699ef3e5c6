//! The test kit itself: servers of several tests in one process, as plain `cargo test` runs them.

use super::running::send;
use super::service;
use axum::Router;
use axum::extract::Path;
use nowwhat::Service;
use nowwhat::routing::get;
use nowwhat::telemetry::BURST;
use nowwhat::testkit::TestServer;
use std::sync::Barrier;

async fn order(Path(name): Path<String>) -> String {
    nowwhat::bind("guest", name.as_str());
    // All at once, so that they come within the time in which they are repetitions.
    (0..2 * BURST).for_each(|_| tracing::warn!("oven is hot"));
    name
}

fn start(service: &Service) -> TestServer {
    TestServer::start(service, |c| c.set("log.level", "warn"), async |_| Ok(Router::new().route("/{name}", get(order))))
}

#[test]
fn two_servers_at_once_share_neither_lines_nor_limits_nor_levels_nor_metrics() {
    let together = Barrier::new(2);
    let test = |name: &'static str| {
        let server = start(&Service::new(nowwhat::version!(name), Vec::new()));
        together.wait();
        assert_eq!(server.get(&format!("/{name}")).send().text(), name);
        if name == "bakery" {
            assert_eq!(send(server.admin_address, "PUT /log/level", "debug").body, "debug\n");
        }
        together.wait();
        let level = server.admin("/log/level").send().text();
        assert_eq!(level, if name == "bakery" { "debug\n" } else { "warn\n" });
        let lines = server.lines();
        assert!(lines.iter().all(|line| line["type"] == name), "{lines:#?}");
        let of = |message: &str| {
            lines.iter().filter(|line| line["message"].as_str().is_some_and(|m| m.contains(message))).count()
        };
        assert_eq!(of(&format!("[200] GET /{name}")), 1);
        assert_eq!(of("oven is hot"), BURST as usize, "each has its own limit");
        assert!(lines.iter().all(|line| line["guest"].is_null() || line["guest"] == name));
        assert_eq!(server.metric("log_lines_total{level=\"warn\"}"), f64::from(2 * BURST));
        assert_eq!(server.metric("http_requests_total{method=\"GET\",route=\"/{name}\",status=\"200\"}"), 1.0);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| test("bakery"));
        scope.spawn(|| test("mill"));
    });
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let why = |start: Box<dyn FnOnce() + Send>| {
        let panic = std::thread::spawn(start).join().expect_err("it cannot start");
        panic.downcast_ref::<String>().cloned().expect("a text")
    };
    let failed = why(Box::new(|| drop(TestServer::start(&service(), |c| c, async |_| Err("no flour".into())))));
    assert_eq!(failed, "the service did not start: no flour");
    let wrong = why(Box::new(|| {
        drop(TestServer::start(&service(), |c| c.set("http.lissten", "x"), async |_| Ok(Router::new())))
    }));
    assert!(wrong.contains("did you mean http.listen?"), "{wrong}");
}
