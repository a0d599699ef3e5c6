//! `OPTIONS /api/v1/events`: a sender of webhooks asks whether it may send (CloudEvents, HTTP webhooks, section 4).
//!
//! It may: who sends needs a token anyway, so any origin that asks is allowed, at the rate it asks for. A browser's preflight, which has
//! `Access-Control-Request-Method`, is another question: `cors.rs` answers it, when other origins are allowed.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

static REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
static REQUEST_RATE: HeaderName = HeaderName::from_static("webhook-request-rate");
static ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
static ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// Answers the question of a sender of webhooks; any other method that the route has not is 405.
pub(crate) async fn validate(method: Method, headers: HeaderMap) -> Response {
    let preflight = headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let origin = headers.get(&REQUEST_ORIGIN).filter(|origin| !origin.is_empty());
    let Some(origin) = origin.filter(|_| method == Method::OPTIONS && !preflight) else {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    };
    let mut answer = StatusCode::OK.into_response();
    answer.headers_mut().extend([
        (header::ALLOW, HeaderValue::from_static("POST,GET,HEAD")),
        (ALLOWED_ORIGIN.clone(), origin.clone()),
        (ALLOWED_RATE.clone(), rate(&headers)),
    ]);
    answer
}

/// The rate asked for, in requests a minute; without limit when none is.
fn rate(headers: &HeaderMap) -> HeaderValue {
    let asked = headers.get(&REQUEST_RATE).and_then(|rate| rate.to_str().ok()?.parse::<u32>().ok());
    asked.filter(|rate| *rate > 0).map_or(HeaderValue::from_static("*"), HeaderValue::from)
}
