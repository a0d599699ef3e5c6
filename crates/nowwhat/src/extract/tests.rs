//! What a handler's input may be, and what a client is told about other input.

use super::*;
use crate::problem::{Limits, Uniform};
use axum::Router;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tower::ServiceExt;

#[derive(Debug, Deserialize, Serialize)]
struct Loaf {
    flour: Flour,
}

#[derive(Debug, Deserialize, Serialize)]
struct Flour {
    grams: u32,
}

#[derive(Deserialize)]
struct Page {
    size: u8,
}

fn bakery() -> Router {
    let router = Router::new()
        .route("/loaves", post(|Json(loaf): Json<Loaf>| async move { Json(loaf) }))
        .route("/loaves/{id}", get(|Path(id): Path<u32>| async move { Json(id) }))
        .route("/pages", get(|Query(page): Query<Page>| async move { Json(page.size) }))
        .route("/twisted/{a}/{b}", get(|Path(id): Path<u32>| async move { Json(id) }));
    router.layer(Uniform::new(
        tokio::sync::watch::channel(Limits {
            body_bytes_max: 64,
            body_stall_timeout: Duration::from_secs(60),
            request_timeout: Duration::from_secs(60),
        })
        .1,
    ))
}

async fn ask(request: http::request::Builder, body: impl Into<Body>) -> (Response, Value) {
    let response = bakery().oneshot(request.body(body.into()).expect("a request")).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    (Response::from_parts(parts, Body::empty()), serde_json::from_slice(&bytes).expect("JSON"))
}

async fn send(kind: &str, body: impl Into<Body>) -> (Response, Value) {
    ask(Request::post("/loaves").header("content-type", kind), body).await
}

fn is_problem(response: &Response, body: &Value, status: u16, code: &str) {
    assert_eq!((response.status().as_u16(), body["code"].as_str()), (status, Some(code)), "{body}");
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(
        (body["status"].as_u64(), body["type"].as_str()),
        (Some(status.into()), Some(&*format!("/problems/{code}")))
    );
}

#[tokio::test]
async fn json_is_read_under_its_own_name_with_a_charset_and_as_the_base_of_other_types() {
    for kind in ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/vnd.loaf+json"]
    {
        let (response, body) = send(kind, r#"{"flour":{"grams":500}}"#).await;
        assert_eq!((response.status(), &body), (StatusCode::OK, &json!({"flour": {"grams": 500}})), "{kind}");
        assert_eq!(response.headers()["content-type"], "application/json");
    }
}

#[tokio::test]
async fn another_type_is_415_with_what_is_accepted() {
    for request in [Request::post("/loaves"), Request::post("/loaves").header("content-type", "text/json")] {
        let (response, body) = ask(request, "{}").await;
        is_problem(&response, &body, 415, "unsupported_media_type");
        assert_eq!(body["accepted"], json!(["application/json", "application/*+json"]));
        assert_eq!(response.headers()["accept"], "application/json");
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_is_400_with_line_and_column() {
    for (text, line, column) in [("{\n  \"flour\": oops}", 2, 12), ("{\"flour\"", 1, 8), ("", 1, 0)] {
        let (response, body) = send("application/json", text).await;
        is_problem(&response, &body, 400, "malformed_json");
        assert_eq!((&body["line"], &body["column"]), (&json!(line), &json!(column)), "{body}");
        assert!(!body["detail"].as_str().expect("a detail").contains("Failed to"), "{body}");
    }
    let (response, body) = send("application/json", r#"{"flour":{"grams":500}} {}"#).await;
    is_problem(&response, &body, 400, "malformed_json");
}

#[tokio::test]
async fn json_of_the_wrong_shape_is_422_with_the_place() {
    let (response, body) = send("application/json", r#"{"flour":{"grams":"much"}}"#).await;
    is_problem(&response, &body, 422, "invalid_body");
    let detail = body["detail"].as_str().expect("a detail");
    assert!(detail.starts_with("flour.grams: invalid type: string \"much\", expected u32"), "{detail}");
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_413_with_the_limit() {
    let (response, body) = send("application/json", "x".repeat(65)).await;
    is_problem(&response, &body, 413, "body_too_large");
    assert_eq!((&body["body_bytes_max"], &body["detail"]), (&json!(64), &json!("at most 64 bytes are read here")));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_400_and_its_error_is_for_the_log() {
    let broken = futures::stream::iter([Ok("{"), Err(std::io::Error::other("the line broke"))]);
    let (response, body) = send("application/json", Body::from_stream(broken)).await;
    is_problem(&response, &body, 400, "body_incomplete");
    let causes = response.extensions().get::<Problem>().and_then(Problem::causes).expect("causes");
    assert!(causes.contains("the line broke") && !body.to_string().contains("broke"), "{causes}");
}

#[tokio::test]
async fn a_path_or_a_query_that_does_not_fit_is_400_and_says_why() {
    let (response, body) = ask(Request::get("/loaves/rye"), "").await;
    is_problem(&response, &body, 400, "invalid_path");
    assert!(body["detail"].as_str().is_some_and(|d| d.contains("`rye`") && d.contains("u32")), "{body}");
    for (query, part) in [("/pages?size=300", "size"), ("/pages", "missing field `size`")] {
        let (response, body) = ask(Request::get(query), "").await;
        is_problem(&response, &body, 400, "invalid_query");
        assert!(body["detail"].as_str().is_some_and(|d| d.contains(part) && !d.contains("Failed")), "{body}");
    }
    assert_eq!(ask(Request::get("/pages?size=30"), "").await.1, json!(30));
    assert_eq!(ask(Request::get("/loaves/3"), "").await.1, json!(3));
}

#[tokio::test]
async fn a_type_that_cannot_fit_its_route_is_the_services_own_failure() {
    let (response, body) = ask(Request::get("/twisted/1/2"), "").await;
    is_problem(&response, &body, 500, "internal");
    assert!(body.get("detail").is_none(), "{body}");
}

#[tokio::test]
async fn an_answer_that_cannot_be_written_as_json_is_500_with_its_cause_for_the_log() {
    let keys = std::collections::BTreeMap::from([((1, 2), 3)]);
    let response = Json(keys).into_response();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let problem = response.extensions().get::<Problem>().expect("a problem");
    assert_eq!(problem.causes().as_deref(), Some("key must be a string"));
}
