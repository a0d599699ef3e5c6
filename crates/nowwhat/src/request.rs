//! What every request gets: an id, a span, one log line, metrics; a panic becomes a 500.
//!
//! The id comes from `X-Request-Id` when it is sane (1 to 128 printable ASCII characters without quotes and backslashes), else it is
//! a new UUIDv7. It is on every log line of the request, in the answer's `X-Request-Id`, in problem bodies, and in calls that the
//! service makes meanwhile with [`Client`](crate::client::Client). A `traceparent` is continued the same way.

mod line;
mod metrics;

pub use metrics::RequestMetrics;

use crate::current::{self, Current, Times};
use crate::debug::LastRequests;
use crate::forwarded::TrustedProxies;
use crate::metrics::{Label, Route};
use crate::otlp;
use crate::problem::Problem;
use crate::trace::{Sampled, TraceContext};
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::{HeaderName, HeaderValue, StatusCode, header};
use line::Line;
use metrics::RouteMetrics;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tower::Service;
use tracing::Instrument;

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
}

/// The address of the client, behind trusted proxies the one that they name: an extension of every request whose peer is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// What the layer needs to know.
#[derive(Debug)]
struct Shared {
    metrics: RequestMetrics,
    seen: Seen,
}

/// The layer that gives requests all of this.
#[derive(Clone, Debug)]
pub struct Observe {
    shared: Arc<Shared>,
}

impl Observe {
    /// A layer; the requests are counted in `metrics`.
    pub fn new(metrics: RequestMetrics, seen: Seen) -> Self {
        Self { shared: Arc::new(Shared { metrics, seen }) }
    }

    /// Wraps a router. To be called last, so that fallbacks are covered as well.
    pub fn router(self, router: axum::Router) -> axum::Router {
        router.layer(self)
    }
}

impl<S> tower::Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observed { inner, shared: self.shared.clone(), metrics: Arc::default() }
    }
}

/// A service whose requests are observed.
#[derive(Clone, Debug)]
pub struct Observed<S> {
    inner: S,
    shared: Arc<Shared>,
    metrics: Arc<RouteMetrics>,
}

impl<S> Service<Request> for Observed<S>
where
    S: Service<Request, Error = Infallible>,
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
        let (current, span) = begin(&self.shared, &mut request);
        let client = client(&self.shared, &mut request);
        let current = Arc::new(current);
        let mut line = Line::begin(&self.shared, &self.metrics, current.clone(), span.clone(), &request);
        line.client(client);
        let request = line.counting(request);
        let shared = self.shared.clone();
        // The handler may panic before its future is there.
        let entered = span.enter();
        let called = current::in_scope(&current, || {
            std::panic::catch_unwind(AssertUnwindSafe(|| AssertUnwindSafe(self.inner.call(request)).catch_unwind()))
        });
        drop(entered);
        Box::pin(current::scope(
            current,
            async move {
                let response = match called {
                    Ok(future) => future.await.map(|Ok(response)| response.into_response()),
                    Err(panic) => Err(panic),
                };
                Ok(answer(&shared, line, response))
            }
            .instrument(span),
        ))
    }
}

/// What is known when the head is read, and the span of everything that follows.
fn begin(shared: &Shared, request: &mut Request) -> (Current, tracing::Span) {
    let id = request_id(request);
    request.headers_mut().insert(REQUEST_ID.clone(), id.clone());
    let (given, tracestate) = match TraceContext::from_headers(request.headers()) {
        Some((given, state)) => (Some(given), state),
        None => (None, None),
    };
    let begun = || (shared.seen.tracing == Tracing::Exported).then(|| TraceContext::random(Sampled::Yes));
    let (span, trace) = match given.or_else(begun) {
        None => (tracing::info_span!(target: TARGET, "request", request_id = id.to_str().unwrap_or_default()), None),
        Some(trace) => {
            let (span, own) = traced(shared, request, trace, &id);
            (span, Some(own))
        }
    };
    let record = match &shared.seen.inside {
        Inside::Hidden => None,
        Inside::Shown(last) => Some(last.begin(format!("{} {}", request.method(), request.uri().path()))),
    };
    (Current { id, trace, tracestate, handler: OnceLock::new(), times: Arc::<Times>::default(), record }, span)
}

/// The span of a request that belongs to a trace, and its own place in the trace.
fn traced(shared: &Shared, request: &Request, trace: TraceContext, id: &HeaderValue) -> (tracing::Span, TraceContext) {
    let route = Route::of(request.extensions());
    let span = tracing::info_span!(
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

/// Who sent the request; also for its handlers.
fn client(shared: &Shared, request: &mut Request) -> Option<IpAddr> {
    let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
    let address = shared.seen.proxies.client_address(peer.ip(), request.headers());
    request.extensions_mut().insert(ClientAddress(address));
    Some(address)
}

fn answer(shared: &Shared, line: Line, response: std::thread::Result<Response>) -> Response {
    let mut response = response.unwrap_or_else(|panic| {
        shared.metrics.panics.inc();
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        let internal = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something failed here");
        internal.cause(format!("panic: {}", text.unwrap_or("without a text"))).into_response()
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

/// The client's id when it is short and printable, else a new UUIDv7.
fn request_id(request: &Request) -> HeaderValue {
    let usable = |value: &&HeaderValue| {
        (1..=128).contains(&value.len())
            && value.as_bytes().iter().all(|b| b.is_ascii_graphic() && !b"\"\\".contains(b))
    };
    match request.headers().get(&REQUEST_ID).filter(usable) {
        Some(given) => given.clone(),
        None => HeaderValue::try_from(uuid::Uuid::now_v7().to_string()).expect("a UUID is ASCII"),
    }
}
