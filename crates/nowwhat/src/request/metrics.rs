//! Metrics of requests: rate, errors and duration by route, sizes, requests in flight.

use crate::metrics::{Counter, Family, Gauge, Histogram, Method, Route};
use http::StatusCode;
use prometheus_client::metrics::histogram::exponential_buckets;
use prometheus_client::registry::{Registry, Unit};
use std::sync::{OnceLock, PoisonError, RwLock};

crate::labels! {
    /// What requests are counted by.
    struct Labels { method: Method, route: Route, status: StatusCode }
}

crate::labels! {
    /// What requests are measured by.
    struct OfRoute { route: Route }
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 16))
}

fn bytes() -> Histogram {
    Histogram::new(exponential_buckets(64.0, 8.0, 8))
}

/// Metrics of requests; registered once.
#[derive(Clone, Debug)]
pub struct RequestMetrics {
    requests: Family<Labels, Counter>,
    seconds: Family<OfRoute, Histogram>,
    request_bytes: Family<OfRoute, Histogram>,
    response_bytes: Family<OfRoute, Histogram>,
    pub(super) in_flight: Gauge,
    pub(super) panics: Counter,
}

impl RequestMetrics {
    /// Makes the metrics and adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(seconds),
            request_bytes: Family::new_with_constructor(bytes),
            response_bytes: Family::new_with_constructor(bytes),
            in_flight: Gauge::default(),
            panics: Counter::default(),
        };
        // What nobody asked for yet is zero, not absent.
        metrics.counter(Method::Get, Route::UNMATCHED, StatusCode::NOT_FOUND);
        metrics.histograms(Route::UNMATCHED);
        let r = registry.sub_registry_with_prefix("http");
        r.register(
            "requests",
            "Requests by method, route and status; 499 when the client went away",
            metrics.requests.clone(),
        );
        r.register_with_unit(
            "request_duration",
            "Time from a request's head to the end of its answer",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        r.register_with_unit(
            "request_body_size",
            "Size of request bodies, as they came",
            Unit::Bytes,
            metrics.request_bytes.clone(),
        );
        r.register_with_unit(
            "response_body_size",
            "Size of answers' bodies",
            Unit::Bytes,
            metrics.response_bytes.clone(),
        );
        r.register("requests_in_flight", "Requests being answered", metrics.in_flight.clone());
        r.register("panics", "Panics that became answers", metrics.panics.clone());
        metrics
    }

    fn counter(&self, method: Method, route: Route, status: StatusCode) -> Counter {
        self.requests.get_or_create_owned(&Labels { method, route, status })
    }

    fn histograms(&self, route: Route) -> [Histogram; 3] {
        let route = OfRoute { route };
        [&self.seconds, &self.request_bytes, &self.response_bytes].map(|family| family.get_or_create_owned(&route))
    }
}

/// What one request adds to the metrics.
pub(super) struct Outcome<'a> {
    pub(super) method: Method,
    pub(super) route: &'a Route,
    pub(super) status: StatusCode,
    pub(super) seconds: f64,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
}

/// The metrics of one route, found once instead of at every request.
#[derive(Debug, Default)]
pub(super) struct RouteMetrics {
    of: OnceLock<(Route, [Histogram; 3])>,
    counters: RwLock<Vec<(Method, StatusCode, Counter)>>,
}

impl RouteMetrics {
    pub(super) fn count(&self, all: &RequestMetrics, outcome: &Outcome<'_>) {
        all.in_flight.dec();
        let route = outcome.route;
        let (known, histograms) = self.of.get_or_init(|| (route.clone(), all.histograms(route.clone())));
        if known == route {
            observe(histograms, outcome);
            self.one_more(all, outcome);
        } else {
            // A router inside a router: the same layer serves several routes.
            observe(&all.histograms(route.clone()), outcome);
            all.counter(outcome.method, route.clone(), outcome.status).inc();
        }
    }

    fn one_more(&self, all: &RequestMetrics, outcome: &Outcome<'_>) {
        let (method, status) = (outcome.method, outcome.status);
        let is = |known: &&(Method, StatusCode, Counter)| (known.0, known.1) == (method, status);
        let known = self.counters.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((.., counter)) = known.iter().find(is) {
            counter.inc();
            return;
        }
        drop(known);
        let counter = all.counter(method, outcome.route.clone(), status);
        counter.inc();
        self.counters.write().unwrap_or_else(PoisonError::into_inner).push((method, status, counter));
    }
}

fn observe([seconds, request_bytes, response_bytes]: &[Histogram; 3], outcome: &Outcome<'_>) {
    seconds.observe(outcome.seconds);
    request_bytes.observe(outcome.request_bytes as f64);
    response_bytes.observe(outcome.response_bytes as f64);
}
