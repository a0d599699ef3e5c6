//! What becomes a problem, and what is left alone.

use super::*;
use crate::request::{Observe, RequestMetrics, Seen};
use axum::routing::{get, post};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

const LIMITS: Limits = Limits {
    body_bytes_max: 16,
    body_stall_timeout: Duration::from_secs(60),
    request_timeout: Duration::from_millis(100),
};

fn limits() -> watch::Receiver<Limits> {
    watch::channel(LIMITS).1
}

fn shop() -> Router {
    shop_within(limits())
}

fn shop_within(limits: watch::Receiver<Limits>) -> Router {
    let large = body_limit(Router::new().route("/large", post(|body: String| async move { body })), 32);
    let routes = Router::new()
        .route("/", get(|| async { "open" }).post(|body: String| async move { body }))
        .route("/lost", get(|| async { StatusCode::NOT_FOUND }))
        .route(
            "/private",
            get(|| async {
                let headers = [("www-authenticate", "Basic"), ("x-shop", "1")];
                (StatusCode::UNAUTHORIZED, headers, "only for bakers")
            }),
        )
        .route("/broken", get(|| async { (StatusCode::INTERNAL_SERVER_ERROR, "password 123 refused") }))
        .route("/own", get(|| async { (StatusCode::CONFLICT, [("content-type", "text/html")], "<b>no</b>") }))
        .route("/long", get(|| async { (StatusCode::CONFLICT, "x".repeat(TEXT_BYTES_MAX + 1)) }))
        .route("/teapot", get(|| async { Problem::new(StatusCode::IM_A_TEAPOT, "teapot", "No coffee") }))
        .route("/slow", get(std::future::pending::<()>))
        .route("/slow", post(|_body: Bytes| std::future::pending::<()>()))
        .merge(large);
    routes.layer(Uniform::new(limits))
}

async fn answer(router: Router, method: &str, path: &str, body: impl Into<Body>) -> (http::response::Parts, Bytes) {
    let request = Request::builder().method(method).uri(path).body(body.into()).expect("a request");
    let (parts, body) = router.oneshot(request).await.expect("an answer").into_parts();
    (parts, to_bytes(body, 1 << 20).await.expect("a body"))
}

async fn problem(method: &str, path: &str, body: impl Into<Body>) -> (http::response::Parts, Value) {
    let (parts, body) = answer(shop(), method, path, body).await;
    assert_eq!(parts.headers["content-type"], "application/problem+json", "{body:?}");
    // Where axum tells no length, hyper does.
    assert!(parts.headers.get("content-length").is_none_or(|length| *length == body.len().to_string()));
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["status"], parts.status.as_u16());
    (parts, body)
}

#[tokio::test]
async fn an_unknown_path_is_404_with_method_and_path_and_a_handlers_own_404_without() {
    let (_, body) = problem("GET", "/nowhere?token=hidden", "").await;
    assert_eq!((&body["code"], &body["title"]), (&json!("not_found"), &json!("There is nothing here")));
    assert_eq!(body["detail"], "no route answers GET /nowhere");
    let (_, body) = problem("GET", "/lost", "").await;
    assert_eq!((&body["code"], body.get("detail")), (&json!("not_found"), None));
}

#[tokio::test]
async fn a_wrong_method_is_405_and_allow_stays() {
    let (parts, body) = problem("DELETE", "/", "").await;
    assert_eq!((parts.status.as_u16(), &body["code"]), (405, &json!("method_not_allowed")));
    assert_eq!(parts.headers["allow"], "GET,HEAD,POST");
    assert_eq!(body["detail"], "DELETE is not answered at /; see the header Allow");
}

#[tokio::test]
async fn a_fallback_of_the_service_keeps_answering() {
    let router = Router::new().fallback(|| async { (StatusCode::NOT_FOUND, axum::Json("mine")) });
    let (parts, body) = answer(router.layer(Uniform::new(limits())), "GET", "/nowhere", "").await;
    assert_eq!((parts.status, &*body), (StatusCode::NOT_FOUND, b"\"mine\"".as_slice()));
}

#[tokio::test]
async fn a_plain_text_becomes_the_detail_and_other_headers_stay() {
    let (parts, body) = problem("GET", "/private", "").await;
    assert_eq!((&body["code"], &body["detail"]), (&json!("unauthorized"), &json!("only for bakers")));
    assert_eq!(
        (&parts.headers["www-authenticate"], &parts.headers["x-shop"]),
        (&"Basic".parse().unwrap(), &"1".parse().unwrap())
    );
}

#[tokio::test]
async fn the_text_of_a_services_own_failure_is_for_the_log_alone() {
    let (parts, body) = problem("GET", "/broken", "").await;
    assert!(!body.to_string().contains("123"), "{body}");
    let known = parts.extensions.get::<Problem>().expect("a problem");
    assert_eq!((known.code(), known.causes().as_deref()), ("internal", Some("password 123 refused")));
}

#[tokio::test]
async fn answers_of_another_type_or_length_and_problems_are_left_alone() {
    let (parts, body) = answer(shop(), "GET", "/own", "").await;
    assert_eq!((parts.status, &*body), (StatusCode::CONFLICT, b"<b>no</b>".as_slice()));
    let (parts, body) = answer(shop(), "GET", "/long", "").await;
    assert_eq!(
        (parts.headers["content-type"].as_bytes(), body.len()),
        (b"text/plain; charset=utf-8".as_slice(), TEXT_BYTES_MAX + 1)
    );
    let (_, body) = problem("GET", "/teapot", "").await;
    assert_eq!(body["code"], "teapot");
    let (parts, body) = answer(shop(), "GET", "/", "").await;
    assert_eq!((parts.status, &*body), (StatusCode::OK, b"open".as_slice()));
}

#[tokio::test]
async fn what_plain_extractors_reject_is_a_problem_with_the_limit_of_that_route() {
    for (path, limit) in [("/", 16), ("/large", 32)] {
        let (_, body) = problem("POST", path, "x".repeat(limit + 1)).await;
        assert_eq!((&body["code"], &body["body_bytes_max"]), (&json!("body_too_large"), &json!(limit)));
        let (parts, body) = answer(shop(), "POST", path, "x".repeat(limit)).await;
        assert_eq!((parts.status, body.len()), (StatusCode::OK, limit));
    }
    let (_, body) = problem("POST", "/", vec![0xff]).await;
    assert_eq!(body["code"], "bad_request");
    assert!(body["detail"].as_str().is_some_and(|d| d.contains("UTF-8")), "{body}");
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_503_also_when_it_had_read_the_body() {
    for (method, text) in [("GET", ""), ("POST", "flour")] {
        let began = Instant::now();
        let (parts, body) = problem(method, "/slow", text).await;
        assert_eq!((parts.status.as_u16(), &body["code"]), (503, &json!("timed_out")));
        assert_eq!(body["detail"], "the service did not answer within 0.1 s");
        assert!(began.elapsed() >= LIMITS.request_timeout);
    }
}

/// What a real server answers before it ends the connection.
async fn exchange(shop: Router, request: &str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let metrics = RequestMetrics::register(&mut Registry::default());
    let router = Observe::new(metrics, Seen::default()).router(shop);
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let mut client = tokio::net::TcpStream::connect(address).await.expect("connected");
    client.write_all(request.as_bytes()).await.expect("sent");
    let mut text = String::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), client.read_to_string(&mut text)).await;
    server.abort();
    ended.expect("in time").expect("readable");
    text
}

#[tokio::test]
async fn a_client_that_stops_sending_its_body_is_408_and_its_connection_ends() {
    let stalled =
        Limits { body_stall_timeout: Duration::from_millis(100), request_timeout: Duration::from_secs(60), ..LIMITS };
    for (limits, code) in [(LIMITS, "request_timeout"), (stalled, "body_timeout")] {
        let shop = shop_within(watch::channel(limits).1);
        let text = exchange(shop, "POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 10\r\n\r\nflo").await;
        assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("retry-after: 1"), "{text}");
        assert!(text.contains(&format!("\"code\":\"{code}\"")) && text.contains("\"request_id\":"), "{text}");
    }
}

/// The answer to a body in parts of so many bytes, together longer than a stall may take, each far below it.
async fn answer_to_parts(bytes: usize) -> (http::response::Parts, Bytes) {
    let (body_stall_timeout, request_timeout) = (Duration::from_millis(400), Duration::from_secs(60));
    let limits = Limits { body_bytes_max: 1 << 20, body_stall_timeout, request_timeout };
    let parts = futures::stream::unfold(0, move |n| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        (n < 8).then(|| (Ok::<_, Infallible>("x".repeat(bytes)), n + 1))
    });
    answer(shop_within(watch::channel(limits).1), "POST", "/", Body::from_stream(parts)).await
}

#[tokio::test]
async fn a_body_that_comes_slowly_without_pauses_is_read() {
    let (parts, body) = answer_to_parts(200).await;
    assert_eq!((parts.status, body.len()), (StatusCode::OK, 1600));
}

#[tokio::test]
async fn a_body_that_drips_is_given_up_though_it_never_pauses() {
    let (parts, body) = answer_to_parts(1).await;
    let text = String::from_utf8_lossy(&body);
    assert_eq!(parts.status, StatusCode::REQUEST_TIMEOUT, "{text}");
    assert!(text.contains("within 0.4 s neither the rest of the body came nor 103 bytes of it"), "{text}");
}

#[tokio::test]
async fn an_answer_that_was_decided_stays_however_slowly_the_rest_of_the_body_comes() {
    for (path, status) in [("/decided", StatusCode::FORBIDDEN), ("/undecided", StatusCode::REQUEST_TIMEOUT)] {
        let (parts, _) = answer_to_dripping(path).await;
        assert_eq!(parts.status, status, "{path}");
    }
}

/// The answer of a handler that refuses and reads the rest of the body, which drips.
async fn answer_to_dripping(path: &str) -> (http::response::Parts, Bytes) {
    async fn rest_of(body: Body) -> StatusCode {
        drop(to_bytes(body, usize::MAX).await);
        StatusCode::FORBIDDEN
    }
    let decided = |request: Request| async move {
        Rest::of(request.extensions()).expect("it has a body").is_left_over();
        rest_of(request.into_body()).await
    };
    let undecided = |request: Request| rest_of(request.into_body());
    let routes = Router::new().route("/decided", post(decided)).route("/undecided", post(undecided));
    let (body_stall_timeout, request_timeout) = (Duration::from_millis(100), Duration::from_secs(60));
    let limits = Limits { body_bytes_max: 1 << 20, body_stall_timeout, request_timeout };
    let drip = Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>());
    answer(routes.layer(Uniform::new(watch::channel(limits).1)), "POST", path, drip).await
}

#[tokio::test]
async fn head_gets_the_head_of_the_problem_alone() {
    for path in ["/nowhere", "/lost"] {
        let text = exchange(shop(), &format!("HEAD {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n")).await;
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 404 ") && head.contains("content-type: application/problem+json"), "{head}");
        assert!(head.contains("content-length: 1"), "{head}");
        assert_eq!(body, "");
    }
}
