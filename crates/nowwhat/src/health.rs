//! Health: alive, ready, started, each with its reasons.

use crate::version::Version;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

/// Says what is wrong, or nothing.
type Check = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// What a check that fails means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Not ready: no traffic should come.
    Readiness,
    /// Worth knowing; traffic may come.
    Warning,
}

/// The health of a service. Cheap to clone.
#[derive(Clone, Default)]
pub struct Health {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    started: AtomicBool,
    stopping: AtomicBool,
    checks: RwLock<Vec<(&'static str, Weight, Check)>>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("started", &self.is_started()).field("ready", &self.is_ready()).finish()
    }
}

impl Health {
    /// Adds a check, which must be quick: it is asked at every probe.
    pub fn check(
        &self,
        name: &'static str,
        weight: Weight,
        check: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) {
        let mut checks = self.shared.checks.write().unwrap_or_else(PoisonError::into_inner);
        checks.push((name, weight, Box::new(check)));
    }

    /// The service has started.
    pub fn started(&self) {
        self.shared.started.store(true, Ordering::Release);
    }

    /// The service is about to stop: not ready any more.
    pub fn stopping(&self) {
        self.shared.stopping.store(true, Ordering::Release);
    }

    fn is_started(&self) -> bool {
        self.shared.started.load(Ordering::Acquire)
    }

    /// Whether traffic may come.
    pub fn is_ready(&self) -> bool {
        self.report().ready
    }

    /// Ready or not, each reason, and each check with the time it took.
    fn report(&self) -> Report {
        let (mut ready, mut reasons, mut checks) = (true, Vec::new(), Vec::new());
        let mut say = |name: &str, weight: Weight, reason: String| {
            ready &= weight != Weight::Readiness;
            reasons.push(json!({ "check": name, "reason": reason, "ready": weight != Weight::Readiness }));
        };
        if !self.is_started() {
            say("start", Weight::Readiness, "the service is starting".to_owned());
        }
        if self.shared.stopping.load(Ordering::Acquire) {
            say("stop", Weight::Readiness, "the service is stopping".to_owned());
        }
        for (name, weight, check) in self.shared.checks.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let began = Instant::now();
            let reason = check();
            let seconds = began.elapsed().as_secs_f64();
            let status = match (&reason, weight) {
                (None, _) => "pass",
                (Some(_), Weight::Warning) => "warn",
                (Some(_), Weight::Readiness) => "fail",
            };
            checks.push(json!({ "check": name, "status": status, "seconds": seconds }));
            if let Some(reason) = reason {
                say(name, *weight, reason);
            }
        }
        Report { ready, reasons, checks }
    }

    /// `/livez`: the process answers.
    pub fn livez(&self) -> Response {
        answer(StatusCode::OK, "alive", Report::default())
    }

    /// `/readyz`: 200, or 503 with the reasons.
    pub fn readyz(&self) -> Response {
        let report = self.report();
        let (code, status) = match report.ready {
            true => (StatusCode::OK, "ready"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
        };
        answer(code, status, report)
    }

    /// `/readyz` for the public: the status alone.
    pub fn readyz_status(&self) -> StatusCode {
        if self.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    }

    /// `/startupz`: 200 once started.
    pub fn startupz(&self) -> Response {
        let started = self.is_started();
        answer(
            if started { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE },
            if started { "started" } else { "starting" },
            Report::default(),
        )
    }
}

/// What the checks say.
#[derive(Default)]
struct Report {
    ready: bool,
    reasons: Vec<Value>,
    checks: Vec<Value>,
}

fn answer(code: StatusCode, status: &str, Report { reasons, checks, .. }: Report) -> Response {
    (code, axum::Json(json!({ "status": status, "reasons": reasons, "checks": checks }))).into_response()
}

/// The probes of a public listener, for load balancers: the status alone.
pub fn public_routes(health: Health) -> axum::Router {
    use axum::routing::get;
    axum::Router::new()
        .route("/livez", get(|| async { StatusCode::OK }))
        .route("/readyz", get(move || async move { health.readyz_status() }))
}

/// The routes of an admin listener: metrics, health, version.
pub fn admin_routes(registry: crate::metrics::SharedRegistry, health: Health, version: Version) -> axum::Router {
    use axum::routing::get;
    let (live, ready, started) = (health.clone(), health.clone(), health);
    axum::Router::new()
        .route(
            "/metrics",
            get(move |headers: http::HeaderMap| async move {
                let registry = registry.read().unwrap_or_else(PoisonError::into_inner);
                crate::metrics::exposition(&registry, &headers)
            }),
        )
        .route("/livez", get(move || async move { live.livez() }))
        .route("/readyz", get(move || async move { ready.readyz() }))
        .route("/startupz", get(move || async move { started.startupz() }))
        .route("/version", get(move || async move { axum::Json(version) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_is_named_with_its_status_and_time_and_only_a_readiness_check_turns_traffic_away() {
        let health = Health::default();
        health.check("cache", Weight::Warning, || Some("cold".to_owned()));
        health.check("database", Weight::Readiness, || None);
        assert!(!health.report().ready, "not started yet");
        health.started();
        let Report { ready, reasons, checks } = health.report();
        assert!(ready);
        assert_eq!(reasons, [json!({"check": "cache", "reason": "cold", "ready": true})]);
        let named: Vec<_> = checks.iter().map(|c| (c["check"].as_str(), c["status"].as_str())).collect();
        assert_eq!(named, [(Some("cache"), Some("warn")), (Some("database"), Some("pass"))]);
        assert!(checks.iter().all(|c| c["seconds"].as_f64().is_some_and(|s| s >= 0.0)));
        health.check("queue", Weight::Readiness, || Some("full".to_owned()));
        assert!(!health.report().ready);
        assert_eq!(health.report().checks[2]["status"], "fail");
    }
}
