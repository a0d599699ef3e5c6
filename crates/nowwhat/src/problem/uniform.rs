//! Every failure of a router as a [`Problem`], and the limits of a request: the size of its body, the time until its answer.
//!
//! **What becomes a problem:** an answer with a status from 400 that is no problem yet and says nothing but plain text: no content
//! type or `text/plain`, at most 4096 bytes. Below 500 the text becomes `detail`; from 500 on it is for the log alone.
//! Headers such as `Allow` and `WWW-Authenticate` stay. Any other answer is the handler's own and is left as it is. So a router keeps
//! its own fallback, and needs none.
//!
//! **Order:** the limits are set before the handler runs, and its answer is looked at after it; layers that are added to the router
//! later (the request log) are around both and see the problems.

use super::Problem;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::watch;

/// The longest text that becomes a `detail`.
const TEXT_BYTES_MAX: usize = 4096;

/// Bounds of a request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest body that an extractor reads, in bytes; more is answered 413.
    pub body_bytes_max: usize,
    /// From the head of the request to the head of its answer. After that: 408 when the client still owed a part of the body that
    /// the handler waited for, else 503 `timed_out`. How long an answer's body takes is not limited.
    pub request_timeout: Duration,
}

/// The limit in force, for what answers 413.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimit(pub(crate) usize);

impl BodyLimit {
    fn apply(self, request: &mut Request) {
        request.extensions_mut().insert(self);
        DefaultBodyLimit::max(self.0).apply(request);
    }

    /// The problem of a body beyond the limit.
    pub(crate) fn problem(self) -> Problem {
        Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE)
            .detail(format!("at most {} bytes are read here", self.0))
            .extension("body_bytes_max", self.0.into())
    }
}

/// Wraps a router: limits, and a problem for every failure. To be called when all routes are there, before
/// [`Observe`](crate::request::Observe). The limits can be changed while it serves.
pub fn uniform(router: Router, limits: watch::Receiver<Limits>) -> Router {
    router.layer(from_fn_with_state(limits, bounded))
}

/// Gives the routes of `router` another limit than the service's; in place of axum's `DefaultBodyLimit`, whose number no answer could
/// tell.
pub fn body_limit<S: Clone + Send + Sync + 'static>(router: Router<S>, bytes_max: usize) -> Router<S> {
    router.layer(from_fn_with_state(BodyLimit(bytes_max), limited))
}

async fn limited(State(limit): State<BodyLimit>, mut request: Request, next: Next) -> Response {
    limit.apply(&mut request);
    let response = next.run(request).await;
    match response.status() {
        StatusCode::PAYLOAD_TOO_LARGE if is_plain(&response) => with_problem(response, limit.problem()),
        _ => response,
    }
}

async fn bounded(State(limits): State<watch::Receiver<Limits>>, mut request: Request, next: Next) -> Response {
    let limits = *limits.borrow();
    let limit = BodyLimit(limits.body_bytes_max);
    limit.apply(&mut request);
    let asked = Asked::of(&request);
    let owed = Arc::new(AtomicBool::new(false));
    if !request.body().is_end_stream() {
        let owed = owed.clone();
        request = request.map(|inner| Body::new(Awaited { inner, owed }));
    }
    // Kept past the end of the time: dropped with it, the body would no longer tell who waits for whom.
    let mut answer = std::pin::pin!(next.run(request));
    match tokio::time::timeout(limits.request_timeout, answer.as_mut()).await {
        Ok(response) if response.status().as_u16() < 400 || !is_plain(&response) => response,
        Ok(response) if response.status() == StatusCode::PAYLOAD_TOO_LARGE => with_problem(response, limit.problem()),
        Ok(response) => told(response, &asked).await,
        Err(_) if owed.load(Ordering::Acquire) => body_missing(limits.request_timeout).into_response(),
        Err(_) => timed_out(limits.request_timeout).into_response(),
    }
}

/// What a 404 or 405 names.
struct Asked {
    method: Method,
    uri: http::Uri,
    matched: bool,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let matched = request.extensions().get::<MatchedPath>().is_some();
        Self { method: request.method().clone(), uri: request.uri().clone(), matched }
    }

    /// At most so much of the path that an answer stays small.
    fn path(&self) -> String {
        self.uri.path().chars().take(256).collect()
    }
}

/// The problem of an answer in plain text or without any.
async fn told(response: Response, asked: &Asked) -> Response {
    let (parts, body) = response.into_parts();
    // Not read from the network and of a known size: it is there at once.
    let bytes = to_bytes(body, TEXT_BYTES_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim();
    let problem = Problem::of_status(parts.status);
    let problem = match parts.status {
        status if status.is_server_error() && !text.is_empty() => problem.cause(text.to_owned()),
        _ if !text.is_empty() => problem.detail(text),
        StatusCode::NOT_FOUND if !asked.matched => {
            problem.detail(format!("no route answers {} {}", asked.method, asked.path()))
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            problem.detail(format!("{} is not answered at {}; see the header Allow", asked.method, asked.path()))
        }
        _ => problem,
    };
    with_problem(Response::from_parts(parts, Body::empty()), problem)
}

/// The problem in place of the answer's body; its other headers and extensions stay.
fn with_problem(response: Response, problem: Problem) -> Response {
    let (mut parts, _) = response.into_parts();
    let (told, body) = problem.into_response().into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(told.headers);
    parts.extensions.extend(told.extensions);
    Response::from_parts(parts, body)
}

/// Whether the answer says nothing but a short plain text.
fn is_plain(response: &Response) -> bool {
    let headers = response.headers();
    let short = response.body().size_hint().exact().is_some_and(|bytes| bytes <= TEXT_BYTES_MAX as u64);
    let known = response.extensions().get::<Problem>().is_some();
    short && !known && !headers.contains_key(header::CONTENT_ENCODING) && is_text(headers)
}

fn is_text(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return true };
    let essence = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("text/plain")
}

/// The client's slowness, by RFC 9110 (15.5.9).
fn body_missing(after: Duration) -> Problem {
    let detail = format!("the body did not arrive within {} s", after.as_secs_f64());
    Problem::of_status(StatusCode::REQUEST_TIMEOUT).detail(detail)
}

/// The service's own slowness; 504 would blame a server behind it.
fn timed_out(after: Duration) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timed_out", "The answer took too long")
        .detail(format!("the service did not answer within {} s", after.as_secs_f64()))
}

/// A request's body that tells whether someone waits for the client to send more of it.
struct Awaited {
    inner: Body,
    owed: Arc<AtomicBool>,
}

impl http_body::Body for Awaited {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.owed.store(true, Ordering::Release);
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        self.owed.store(false, Ordering::Release);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        // Nobody waits for it any more.
        self.owed.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
