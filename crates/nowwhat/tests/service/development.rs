//! What only developers see: in the environment `dev`, and in no other.

use super::service;
use axum::Router;
use http::StatusCode;
use nowwhat::routing::get;
use nowwhat::testkit::TestServer;
use nowwhat::{Boot, BoxError, Problem};
use std::time::Duration;
use tracing::Instrument;

async fn bake() -> &'static str {
    tracing::info!(loaves = 3, "baking <b>");
    nowwhat::db(tokio::time::sleep(Duration::from_millis(3))).instrument(tracing::info_span!("oven")).await;
    "baked"
}

async fn fail() -> Problem {
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "oven_cold", "The oven is cold");
    problem.cause(std::io::Error::other("the gas is off"))
}

async fn start(_: &mut Boot) -> Result<Router, BoxError> {
    Ok(Router::new().route("/bake", get(bake)).route("/fail", get(fail)))
}

#[test]
fn in_dev_times_causes_and_the_last_requests_are_shown() {
    let server = TestServer::start(&service(), |config| config.env("dev"), start);
    let baked = server.get("/bake").header("x-request-id", "loaf-17").send();
    let timing = baked.header("server-timing").expect("times").to_owned();
    let db =
        timing.strip_prefix("db;dur=").and_then(|rest| rest.split(',').next()).and_then(|ms| ms.parse::<f64>().ok());
    assert!(
        db.is_some_and(|ms| ms >= 3.0) && timing.contains("view;dur=") && timing.contains("total;dur="),
        "{timing}"
    );
    let failed = server.get("/fail").send();
    assert_eq!((failed.status.as_u16(), &failed.json()["causes"]), (503, &"the gas is off".into()));

    let page = server.admin("/debug/requests").send();
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let page = page.text();
    let requests: Vec<&str> = page.split("<details>").skip(1).collect();
    let [failed, baked] = requests[..] else { panic!("two requests, the newest first: {page}") };
    assert!(failed.contains("<b class=\"s5\">503</b> <span>GET /fail (development#fail)</span>"), "{failed}");
    assert!(failed.contains("cause=&quot;the gas is off&quot;"), "{failed}");
    for part in [
        "<b class=\"s2\">200</b> <span>GET /bake (development#bake)</span>",
        "<code>loaf-17</code>",
        "<div class=\"span\"><span>oven</span>",
        "baking &lt;b&gt; request_id=loaf-17 loaves=3",
        "[200] GET /bake",
    ] {
        assert!(baked.contains(part), "{part} in {baked}");
    }
}

#[test]
fn in_prod_none_of_it_is() {
    let server = TestServer::start(&service(), |config| config.env("prod"), start);
    assert_eq!(server.get("/bake").send().header("server-timing"), None);
    let failed = server.get("/fail").send();
    assert!(failed.status == 503 && !failed.text().contains("gas"), "{failed:?}");
    assert_eq!(server.line("[503] GET /fail")["cause"], "the gas is off", "the log knows");
    assert_eq!(server.admin("/debug/requests").send().status, 404);
}
