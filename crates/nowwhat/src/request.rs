//! What every request gets: an id, a span, one log line, metrics; a panic becomes a 500.

use crate::problem::Problem;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::panic::AssertUnwindSafe;
use std::time::Instant;
use tracing::Instrument;

/// The header of the request id, taken over from the client when it is usable.
pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Status that the log and the metrics give a request whose client went away before the answer.
const CLIENT_GONE: u16 = 499;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

/// Metrics of requests; registered once.
#[derive(Clone, Debug)]
pub struct RequestMetrics {
    requests: Family<Labels, Counter>,
    seconds: Family<Route, Histogram>,
    in_flight: Gauge,
    panics: Counter,
}

impl RequestMetrics {
    /// Makes the metrics and adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_5, 2.0, 16))),
            in_flight: Gauge::default(),
            panics: Counter::default(),
        };
        // What nobody asked for yet is zero, not absent.
        let route = || "unmatched".to_owned();
        drop(metrics.requests.get_or_create(&Labels { method: "GET", route: route(), status: 404 }));
        drop(metrics.seconds.get_or_create(&Route { route: route() }));
        let r = registry.sub_registry_with_prefix("http");
        r.register(
            "requests",
            "Requests by method, route and status; 499 when the client went away",
            metrics.requests.clone(),
        );
        r.register_with_unit(
            "request_duration",
            "Time to the head of the answer",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        r.register("requests_in_flight", "Requests being answered now", metrics.in_flight.clone());
        r.register("panics", "Requests that ended in a panic", metrics.panics.clone());
        metrics
    }
}

/// Whether answers tell the causes of errors: in development only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Causes {
    /// They are in the answer, and in the log.
    Shown,
    /// They are in the log only.
    Hidden,
}

/// What the layer needs to know.
#[derive(Clone, Debug)]
struct Layer {
    metrics: RequestMetrics,
    causes: Causes,
}

/// Wraps a router. To be called last, so that fallbacks are covered as well.
pub fn observed(router: axum::Router, metrics: RequestMetrics, causes: Causes) -> axum::Router {
    router.layer(from_fn_with_state(Layer { metrics, causes }, observe))
}

async fn observe(State(layer): State<Layer>, mut request: Request, next: Next) -> Response {
    let id = request_id(&request);
    request.headers_mut().insert(REQUEST_ID.clone(), id.clone());
    let span = tracing::info_span!("request", request_id = id.to_str().unwrap_or_default());
    let mut line = Line::begin(&layer, &request);
    answer(&layer, &mut line, id, request, next).instrument(span.clone()).await
}

async fn answer(layer: &Layer, line: &mut Line, id: HeaderValue, request: Request, next: Next) -> Response {
    line.span = tracing::Span::current();
    let caught = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = caught.unwrap_or_else(|panic| {
        layer.metrics.panics.inc();
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        let internal = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something failed here");
        internal.cause(format!("panic: {}", text.unwrap_or("without a text"))).into_response()
    });
    let problem = response.extensions_mut().remove::<Problem>();
    if let Some(problem) = &problem {
        let causes = problem.causes().filter(|_| layer.causes == Causes::Shown);
        let body = problem.body(id.to_str().ok(), causes);
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        *response.body_mut() = Body::from(body);
    }
    response.headers_mut().insert(REQUEST_ID.clone(), id);
    line.end(response.status().as_u16(), problem.as_ref());
    response
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

/// The request's line in the log and its place in the metrics. When it is dropped before its end, the client went away.
struct Line {
    metrics: RequestMetrics,
    method: &'static str,
    route: String,
    path: String,
    started: Instant,
    span: tracing::Span,
    ended: bool,
}

impl Line {
    fn begin(layer: &Layer, request: &Request) -> Self {
        layer.metrics.in_flight.inc();
        let route = request.extensions().get::<MatchedPath>().map_or("unmatched", |m| m.as_str());
        Self {
            metrics: layer.metrics.clone(),
            method: method(request.method()),
            route: route.to_owned(),
            path: request.uri().path().chars().take(256).collect(),
            started: Instant::now(),
            span: tracing::Span::none(),
            ended: false,
        }
    }

    fn end(&mut self, status: u16, problem: Option<&Problem>) {
        self.ended = true;
        let seconds = self.started.elapsed().as_secs_f64();
        self.metrics.in_flight.dec();
        let labels = Labels { method: self.method, route: self.route.clone(), status };
        self.metrics.requests.get_or_create(&labels).inc();
        self.metrics.seconds.get_or_create(&Route { route: self.route.clone() }).observe(seconds);
        let _entered = self.span.enter();
        let (method, path) = (self.method, self.path.as_str());
        let duration_ms = (seconds * 1e6).round() / 1e3;
        let code = problem.map(Problem::code);
        let cause = problem.and_then(Problem::causes);
        match status {
            500.. => tracing::error!(method, path, status, duration_ms, code, cause, "request"),
            _ => tracing::info!(method, path, status, duration_ms, code, cause, "request"),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.ended {
            self.end(CLIENT_GONE, None);
        }
    }
}

/// Methods of HTTP by name, all others as one, so that a client cannot make labels.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}
