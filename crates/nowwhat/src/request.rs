//! What every request gets: an id, a span, one log line, metrics; a panic becomes a 500.
//!
//! The id comes from `X-Request-Id` when it is sane (1 to 128 printable ASCII characters without quotes and backslashes), else it is
//! a new UUIDv7. It is on every log line of the request, in the answer's `X-Request-Id`, in problem bodies, and in calls that the
//! service makes meanwhile with [`Client`](crate::client::Client). A `traceparent` is continued the same way.

mod finished;
mod line;
mod metrics;
mod origin;

pub use finished::{Finished, Watcher, note};
pub use metrics::RequestMetrics;
pub use origin::AskedOrigin;

pub(crate) use origin::Way;

use crate::current::{self, Current};
use crate::debug::LastRequests;
use crate::forwarded::TrustedProxies;
use crate::metrics::{Label, Route};
use crate::otlp;
use crate::problem::{Bounds, Limits, Problem};
use crate::serve::{PeerCertificate, host};
use crate::trace::{Sampled, TRACEPARENT, TraceContext};
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode, header};
use line::Line;
use metrics::RouteMetrics;
use pin_project_lite::pin_project;
use std::any::{Any, TypeId};
use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tower::Service;

/// The target of the log lines of requests.
pub const TARGET: &str = "nowwhat::request";
/// The header of the request id.
pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// What a client may see of the inside, and what is kept of it.
#[derive(Clone, Debug, Default)]
pub enum Inside {
    /// Causes are in the log only.
    #[default]
    Hidden,
    /// For development: causes are in error bodies, times in `Server-Timing`, and the last requests are kept for a page.
    Shown(LastRequests),
}

/// Whether requests begin a trace when the caller sent none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tracing {
    /// Only callers begin traces.
    #[default]
    Continued,
    /// Traces are exported: each request has one.
    Exported,
}

/// How requests are seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// What a client may see of the inside.
    pub inside: Inside,
    /// Whether requests begin a trace.
    pub tracing: Tracing,
    /// Whose word about the client's address is believed.
    pub proxies: TrustedProxies,
    /// Who is told of requests that ended.
    pub watchers: Vec<Watcher>,
}

/// The address of the client, behind trusted proxies the one that they name. An extractor; none when the peer is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub Option<IpAddr>);

impl ClientAddress {
    /// That of the request which is being served, for what runs for it; none outside of a request.
    pub fn of_current() -> Self {
        Self(current::get().and_then(|current| current.client))
    }
}

impl<S: Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of_current())
    }
}

/// The id of the request which is being served, for what keeps it; none outside of a request.
pub fn current_id() -> Option<String> {
    current::get().and_then(|current| current.id.to_str().ok().map(str::to_owned))
}

/// What the layer needs to know.
#[derive(Debug)]
struct Shared {
    metrics: RequestMetrics,
    seen: Seen,
    limits: Option<watch::Receiver<Limits>>,
}

/// The layer that gives requests all of this.
#[derive(Clone, Debug)]
pub struct Observe {
    shared: Arc<Shared>,
}

impl Observe {
    /// A layer; the requests are counted in `metrics`.
    pub fn new(metrics: RequestMetrics, seen: Seen) -> Self {
        Self { shared: Arc::new(Shared { metrics, seen, limits: None }) }
    }

    /// The same with what a service asks of every request inside, in one layer: a host, as [`HostRequired`](crate::serve::HostRequired)
    /// does, and limits, as [`Uniform`](crate::problem::Uniform) sets them.
    pub(crate) fn within(metrics: RequestMetrics, seen: Seen, limits: watch::Receiver<Limits>) -> Self {
        Self { shared: Arc::new(Shared { metrics, seen, limits: Some(limits) }) }
    }

    /// Wraps a router. To be called last, so that fallbacks are covered as well.
    pub fn router(self, router: axum::Router) -> axum::Router {
        // Makes services of its handlers now, instead of at every request.
        router.with_state(()).layer(self)
    }
}

impl<S> tower::Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observed { inner, here: Arc::new(Here { shared: self.shared.clone(), metrics: RouteMetrics::default() }) }
    }
}

/// A service whose requests are observed.
#[derive(Clone, Debug)]
pub struct Observed<S> {
    inner: S,
    here: Arc<Here>,
}

/// What is known where a layer was put: around one route, as a rule. In one, so that a request counts one reference.
#[derive(Debug)]
struct Here {
    shared: Arc<Shared>,
    metrics: RouteMetrics,
}

impl<S> Service<Request> for Observed<S>
where
    S: Service<Request, Error = Infallible> + 'static,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let shared = &self.here.shared;
        let (current, span) = begin(shared, &mut request);
        let line = Line::begin(&self.here, Arc::new(current), span, &request);
        let mut request = line.counting(request);
        let bounds = shared.limits.as_ref().map(|limits| limits.borrow().begin(&mut request, line.started));
        let fault = bounds.as_ref().and_then(|_| host::fault(&request));
        // A router's route does nothing before it is polled; another service may log or panic before its future is there.
        let (future, at_once) = if let Some(fault) = fault {
            (None, Some(line.part(|| host::refusal(fault, request.version()))))
        } else if TypeId::of::<S>() == TypeId::of::<axum::routing::Route>() {
            (Some(self.inner.call(request)), None)
        } else {
            match line.part(|| self.inner.call(request)) {
                Ok(future) => (Some(future), None),
                Err(panic) => (None, Some(Err(panic))),
            }
        };
        Box::pin(Answer { future, at_once, bounds, line: Some(line) })
    }
}

/// Why a thread unwound.
type Panic = Box<dyn Any + Send>;

pin_project! {
    /// The answer to a request on its way: each step is part of the request.
    struct Answer<F> {
        // None when it was answered, or the handler panicked, at once.
        #[pin]
        future: Option<F>,
        at_once: Option<Result<Response, Panic>>,
        #[pin]
        bounds: Option<Bounds>,
        // None once it is answered.
        line: Option<Line>,
    }
}

impl<F, R> Future for Answer<F>
where
    F: Future<Output = Result<R, Infallible>>,
    R: IntoResponse,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let line = this.line.as_ref().expect("not polled after its end");
        let polled = line.part(|| match this.future.as_mut().as_pin_mut() {
            Some(future) => match future.poll(context) {
                Poll::Ready(Ok(answer)) => {
                    let answer = answer.into_response();
                    let bounds = this.bounds.as_mut().as_pin_mut();
                    Poll::Ready(Ok(match bounds {
                        Some(bounds) => bounds.answered(answer, &line.asked),
                        None => answer,
                    }))
                }
                Poll::Pending => match this.bounds.as_mut().as_pin_mut() {
                    Some(bounds) => bounds.waiting(context).map(Ok),
                    None => Poll::Pending,
                },
            },
            None => Poll::Ready(this.at_once.take().expect("one of the two")),
        });
        let answer = match polled {
            Ok(polled) => ready!(polled),
            Err(panic) => Err(panic),
        };
        let line = this.line.take().expect("not polled after its end");
        Poll::Ready(Ok(answered(line, answer)))
    }
}

/// What is known when the head is read, and the span of everything that follows. The span has the highest level, so that the id is on
/// the lines of errors also where no others are wanted.
fn begin(shared: &Shared, request: &mut Request) -> (Current, tracing::Span) {
    let id = request_id(request);
    request.headers_mut().insert(REQUEST_ID.clone(), id.clone());
    let has_trace = request.headers().contains_key(&TRACEPARENT);
    let (given, tracestate) = match has_trace.then(|| TraceContext::from_headers(request.headers())).flatten() {
        Some((given, state)) => (Some(given), state),
        None => (None, None),
    };
    let begun = || (shared.seen.tracing == Tracing::Exported).then(|| TraceContext::random(Sampled::Yes));
    let (span, trace) = match given.or_else(begun) {
        None => (tracing::error_span!(target: TARGET, "request", request_id = id.to_str().unwrap_or_default()), None),
        Some(trace) => {
            let (span, own) = traced(shared, request, trace, &id);
            (span, Some(own))
        }
    };
    let record = match &shared.seen.inside {
        Inside::Hidden => None,
        Inside::Shown(last) => {
            let title = format!("{} {}", request.method(), request.uri().path());
            Some(last.begin(title, id.to_str().unwrap_or_default()))
        }
    };
    let client = client(shared, request);
    let certificate = request.extensions().get::<PeerCertificate>().cloned();
    let notes = (!shared.seen.watchers.is_empty()).then(Mutex::default);
    let way = Way::of(shared, request);
    (Current { trace, tracestate, client, way, certificate, record, notes, ..Current::new(id) }, span)
}

/// The span of a request that belongs to a trace, and its own place in the trace.
fn traced(shared: &Shared, request: &Request, trace: TraceContext, id: &HeaderValue) -> (tracing::Span, TraceContext) {
    let route = Route::of(request.extensions());
    let span = tracing::error_span!(
        target: TARGET,
        "request",
        request_id = id.to_str().unwrap_or_default(),
        trace_id = trace.trace_id_hex(),
        "otel.kind" = "server",
        "otel.name" = format!("{} {}", request.method(), route.value()),
        "otel.status_code" = tracing::field::Empty,
        "http.response.status_code" = tracing::field::Empty,
    );
    if shared.seen.tracing == Tracing::Continued {
        return (span, trace.child());
    }
    otlp::set_parent(&span, &trace);
    let own = otlp::context_of(&span).unwrap_or_else(|| trace.child());
    (span, own)
}

/// Who sent the request.
fn client(shared: &Shared, request: &Request) -> Option<IpAddr> {
    let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
    Some(shared.seen.proxies.client_address(peer.ip(), request.headers()))
}

fn answered(line: Line, answer: Result<Response, Panic>) -> Response {
    let shared = &line.here.shared;
    let mut response = answer.unwrap_or_else(|panic| {
        shared.metrics.panics.inc();
        let internal = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something failed here");
        internal.cause(told_by(panic.as_ref())).into_response()
    });
    let id = line.current.id.clone();
    let shown = matches!(shared.seen.inside, Inside::Shown(_));
    let problem = response.extensions_mut().remove::<Problem>();
    if let Some(problem) = &problem {
        let causes = problem.causes().filter(|_| shown);
        let body = problem.body(id.to_str().ok(), causes);
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        *response.body_mut() = Body::from(body);
    }
    response.headers_mut().insert(REQUEST_ID.clone(), id);
    if shown {
        let times = &line.current.times;
        let timing =
            format!("db;dur={:.3}, view;dur={:.3}, total;dur={}", times.db_ms(), times.view_ms(), line.elapsed_ms());
        let timing = HeaderValue::try_from(timing).expect("numbers are ASCII");
        response.headers_mut().insert(SERVER_TIMING.clone(), timing);
    }
    line.answered(response, problem)
}

/// What a panic says.
fn told_by(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("without a text"))
}

/// Whether a request can have this id: 1 to 128 printable ASCII characters without blanks, quotes and backslashes.
pub fn is_id(text: &[u8]) -> bool {
    (1..=128).contains(&text.len()) && text.iter().all(|b| b.is_ascii_graphic() && !b"\"\\".contains(b))
}

/// The client's id when it is short and printable, else a new UUIDv7.
fn request_id(request: &Request) -> HeaderValue {
    match request.headers().get(&REQUEST_ID).filter(|value| is_id(value.as_bytes())) {
        Some(given) => given.clone(),
        None => {
            let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
            new_id().as_hyphenated().encode_lower(&mut text);
            // Held once, however often it is cloned.
            HeaderValue::from_maybe_shared(Bytes::from_owner(text)).expect("a UUID is ASCII")
        }
    }
}

/// A UUIDv7 whose random bits come from a generator of the thread, seeded by the operating system: an id must be unique, and need
/// not be hard to guess.
fn new_id() -> uuid::Uuid {
    thread_local! {
        static SEED: (RandomState, Cell<u64>) = (RandomState::new(), Cell::new(0));
    }
    let random = SEED.with(|(state, count)| {
        let n = count.get().wrapping_add(2);
        count.set(n);
        [state.hash_one(n), state.hash_one(n + 1)].map(u64::to_ne_bytes)
    });
    let bytes: [u8; 10] = std::array::from_fn(|n| random[n / 8][n % 8]);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(since.as_millis() as u64, &bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_unique_across_threads_and_sort_by_time() {
        let made = || (0..20_000).map(|_| new_id()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(made)).collect();
        let ids: Vec<uuid::Uuid> = threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        assert!(ids.iter().all(|id| id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122));
        let millis = |id: &uuid::Uuid| id.as_u128() >> 80;
        assert!(ids[..20_000].is_sorted_by_key(millis));
    }
}
