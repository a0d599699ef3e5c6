//! Every failure of a router as a [`Problem`], and the limits of a request: size and pauses of its body, the time until its answer.
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
use futures::FutureExt;
use http::{HeaderMap, Method, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::Sleep;
use tower::Service;

/// Characters of a path that are told.
const PATH_CHARS_MAX: usize = 256;
/// The longest text that becomes a `detail`.
const TEXT_BYTES_MAX: usize = 4096;

/// A body that comes more slowly than this is not waited for any longer. A line of 9600 baud sends more than twice as much.
const BODY_BYTES_PER_SECOND_MIN: u32 = 256;

/// Bounds of a request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest body that an extractor reads, in bytes; more is answered 413.
    pub body_bytes_max: usize,
    /// How long a handler that reads the body waits for the client to send more of it: for its end, or for 256 bytes a second over this
    /// time. After that the body ends with an error, and what the handler answers to that error is answered 408 `body_timeout`.
    pub body_stall_timeout: Duration,
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

/// The layer that bounds requests and makes every failure a problem. It goes around a router with all its routes, inside of
/// [`Observe`](crate::request::Observe). The limits can be changed while it serves.
#[derive(Clone, Debug)]
pub struct Uniform {
    limits: watch::Receiver<Limits>,
}

impl Uniform {
    /// A layer with these limits.
    pub fn new(limits: watch::Receiver<Limits>) -> Self {
        Self { limits }
    }
}

impl<S> tower::Layer<S> for Uniform {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Bounded { inner, limits: self.limits.clone() }
    }
}

/// A service within limits.
#[derive(Clone, Debug)]
pub struct Bounded<S> {
    inner: S,
    limits: watch::Receiver<Limits>,
}

impl<S> Service<Request> for Bounded<S>
where
    S: Service<Request, Error = Infallible>,
    S::Response: IntoResponse,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Within<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let asked = Asked::of(&request);
        let bounds = self.limits.borrow().begin(&mut request, Instant::now());
        Within { future: self.inner.call(request), bounds, asked }
    }
}

pin_project! {
    /// An answer that comes within limits.
    #[derive(Debug)]
    pub struct Within<F> {
        #[pin]
        future: F,
        #[pin]
        bounds: Bounds,
        asked: Asked,
    }
}

impl<F, R> Future for Within<F>
where
    F: Future<Output = Result<R, Infallible>>,
    R: IntoResponse,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.future.poll(context) {
            Poll::Ready(Ok(answer)) => Poll::Ready(Ok(this.bounds.answered(answer.into_response(), this.asked))),
            Poll::Pending => this.bounds.waiting(context).map(Ok),
        }
    }
}

pin_project! {
    /// One request within limits.
    #[derive(Debug)]
    pub(crate) struct Bounds {
        limits: Limits,
        // How the body comes; none when there is no body.
        coming: Option<Arc<Coming>>,
        started: Instant,
        // Begun when there is something to wait for.
        #[pin]
        end: Option<Sleep>,
    }
}

impl Limits {
    /// Sets the limits of a request that came at `started`.
    pub(crate) fn begin(self, request: &mut Request, started: Instant) -> Bounds {
        let coming = (!request.body().is_end_stream()).then(|| {
            BodyLimit(self.body_bytes_max).apply(request);
            let coming = Arc::new(Coming::default());
            request.extensions_mut().insert(Rest(coming.clone()));
            let inner = std::mem::take(request.body_mut());
            let slowness = Slowness::new(self.body_stall_timeout);
            *request.body_mut() = Body::new(Awaited { inner, coming: coming.clone(), slowness });
            coming
        });
        Bounds { limits: self, coming, started, end: None }
    }
}

impl Bounds {
    /// The answer that came; a failure in plain text becomes a problem.
    pub(crate) fn answered(self: Pin<&mut Self>, answer: Response, asked: &Asked) -> Response {
        let has_stalled = self.coming.as_ref().is_some_and(|coming| coming.has_stalled.load(Ordering::Acquire));
        match answer.status() {
            status if status.as_u16() >= 400 && has_stalled => {
                with_problem(answer, body_stalled(self.limits.body_stall_timeout))
            }
            status if status.as_u16() < 400 || !is_plain(&answer) => answer,
            StatusCode::PAYLOAD_TOO_LARGE => with_problem(answer, BodyLimit(self.limits.body_bytes_max).problem()),
            _ => told(answer, asked),
        }
    }

    /// The answer when the time is over before the service's came.
    pub(crate) fn waiting(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Response> {
        let mut this = self.project();
        if this.end.is_none() {
            this.end.set(Some(tokio::time::sleep_until((*this.started + this.limits.request_timeout).into())));
        }
        ready!(this.end.as_pin_mut().expect("set above").poll(context));
        let after = this.limits.request_timeout;
        let is_owed = this.coming.as_ref().is_some_and(|coming| coming.is_owed.load(Ordering::Acquire));
        Poll::Ready(if is_owed { body_missing(after) } else { timed_out(after) }.into_response())
    }
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

/// What was asked for: 404, 405 and log lines name it.
#[derive(Debug)]
pub(crate) struct Asked {
    method: Method,
    uri: http::Uri,
    matched: bool,
}

impl Asked {
    pub(crate) fn of(request: &Request) -> Self {
        let matched = request.extensions().get::<MatchedPath>().is_some();
        Self { method: request.method().clone(), uri: request.uri().clone(), matched }
    }

    /// The beginning of the path, long enough for every route.
    pub(crate) fn path(&self) -> &str {
        let path = self.uri.path();
        path.char_indices().nth(PATH_CHARS_MAX).map_or(path, |(end, _)| &path[..end])
    }
}

/// The problem of an answer in plain text or without any.
fn told(response: Response, asked: &Asked) -> Response {
    let (parts, body) = response.into_parts();
    // Not read from the network and of a known size: it is there at once.
    let bytes = to_bytes(body, TEXT_BYTES_MAX).now_or_never().and_then(Result::ok).unwrap_or_default();
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

/// The problem in place of the answer's status and body; its other headers and extensions stay.
fn with_problem(response: Response, problem: Problem) -> Response {
    let (mut parts, _) = response.into_parts();
    let (told, body) = problem.into_response().into_parts();
    parts.status = told.status;
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.remove(header::CONTENT_ENCODING);
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
    Problem::of_status(StatusCode::REQUEST_TIMEOUT).detail(detail).retry_after(1)
}

/// The client's slowness too, told before the time for the whole request is over.
fn body_stalled(after: Duration) -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "The body came too slowly")
        .detail(format!(
            "within {} s neither the rest of the body came nor {} bytes of it",
            after.as_secs_f64(),
            least_bytes(after)
        ))
        .retry_after(1)
}

/// The service's own slowness; 504 would blame a server behind it.
fn timed_out(after: Duration) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timed_out", "The answer took too long")
        .detail(format!("the service did not answer within {} s", after.as_secs_f64()))
        .retry_after(1)
}

/// How a request's body comes.
#[derive(Debug, Default)]
struct Coming {
    /// Whether someone waits for the client to send more of it.
    is_owed: AtomicBool,
    /// Whether someone waited for too long.
    has_stalled: AtomicBool,
    /// Whether the answer is decided, whatever else comes.
    is_decided: AtomicBool,
}

/// What is left of a request's body when its answer is decided.
///
/// A handler that refuses a request before its body is there may take the rest of it, so that the client comes to read the answer. It says
/// so here first, else a body that comes slowly would turn the answer into 408.
#[derive(Clone, Debug)]
pub struct Rest(Arc<Coming>);

impl Rest {
    /// That of the request with these extensions; none when it has no body, or no [`Uniform`] is around its handler.
    pub fn of(extensions: &http::Extensions) -> Option<Self> {
        extensions.get().cloned()
    }

    /// The answer is decided: how the rest comes changes nothing about it.
    pub fn is_left_over(&self) {
        self.0.is_decided.store(true, Ordering::Release);
    }
}

/// Why a body ends early.
#[derive(Debug, thiserror::Error)]
#[error("the client sends no more of the body")]
struct Stalled;

/// What has to come while a body is waited for so long.
fn least_bytes(stall_timeout: Duration) -> u64 {
    (stall_timeout.as_secs_f64() * f64::from(BODY_BYTES_PER_SECOND_MIN)).ceil() as u64
}

/// How long a body was waited for, and what came meanwhile. Only waiting for the client counts, not what the handler takes.
struct Slowness {
    stall_timeout: Duration,
    waited: Duration,
    came_bytes: u64,
    // Begun when there is something to wait for.
    pause: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Slowness {
    fn new(stall_timeout: Duration) -> Self {
        Self { stall_timeout, waited: Duration::ZERO, came_bytes: 0, pause: None }
    }

    /// A part came.
    fn came(&mut self, bytes: usize) {
        if let Some((began, _)) = self.pause.take() {
            self.waited += began.elapsed();
        }
        self.came_bytes += bytes as u64;
        if self.came_bytes >= least_bytes(self.stall_timeout) {
            (self.waited, self.came_bytes) = (Duration::ZERO, 0);
        }
    }

    /// Ready when it was waited for too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let left = self.stall_timeout.saturating_sub(self.waited);
        let (_, pause) = self.pause.get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(left))));
        pause.as_mut().poll(cx)
    }
}

/// A request's body that tells how it comes, and is given up when it comes too slowly.
struct Awaited {
    inner: Body,
    coming: Arc<Coming>,
    slowness: Slowness,
}

impl http_body::Body for Awaited {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.coming.is_owed.store(true, Ordering::Release);
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            self.coming.is_owed.store(false, Ordering::Release);
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            self.slowness.came(data.map_or(0, Bytes::len));
            return Poll::Ready(frame);
        }
        ready!(self.slowness.poll(cx));
        if !self.coming.is_decided.load(Ordering::Acquire) {
            self.coming.has_stalled.store(true, Ordering::Release);
        }
        self.slowness.pause = None;
        Poll::Ready(Some(Err(axum::Error::new(Stalled))))
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
        self.coming.is_owed.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
