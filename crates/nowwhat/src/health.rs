//! Health: alive, ready, started, each with its reasons.
//!
//! A probe is answered at once: a check that takes time is watched in the background.

mod metrics;
mod watch;

pub use metrics::register_health;

use crate::version::Version;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use watch::Said;

/// Says what is wrong, or nothing.
type Quick = Box<dyn Fn() -> Option<String> + Send + Sync>;

enum Check {
    /// Asked at every probe.
    Asked(Quick),
    /// Asked in the background.
    Watched(tokio::sync::watch::Receiver<Option<Said>>),
}

impl Check {
    /// What is wrong, how long the answer took, and how old it is.
    fn said(&self) -> (Option<String>, Duration, Option<Duration>) {
        match self {
            Self::Asked(check) => {
                let began = Instant::now();
                (check(), began.elapsed(), None)
            }
            Self::Watched(last) => match &*last.borrow() {
                Some(Said { reason, took, at }) => (reason.clone(), *took, Some(at.elapsed())),
                None => (Some("not checked yet".to_owned()), Duration::ZERO, None),
            },
        }
    }
}

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
    /// What the start does, as it told last.
    starting: RwLock<Option<String>>,
    stopping: CancellationToken,
    checks: RwLock<Vec<(&'static str, Weight, Check)>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Nobody can ask any more.
        self.stopping.cancel();
    }
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
        self.add(name, weight, Check::Asked(Box::new(check)));
    }

    /// Adds a check that takes time, such as asking a database. It is asked in the background, at once and then `every` so often; an
    /// answer may take as long. Probes are told the last answer; before the first one the check fails. It ends when the service
    /// begins to stop.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn watch<F>(
        &self,
        name: &'static str,
        weight: Weight,
        every: Duration,
        check: impl Fn() -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let last = watch::watch(every, check, self.shared.stopping.clone());
        self.add(name, weight, Check::Watched(last));
    }

    fn add(&self, name: &'static str, weight: Weight, check: Check) {
        self.shared.checks.write().unwrap_or_else(PoisonError::into_inner).push((name, weight, check));
    }

    /// What the start does now and how far it is; a service tells it by [`Progress`](crate::Progress).
    pub fn starting(&self, what: String) {
        *self.shared.starting.write().unwrap_or_else(PoisonError::into_inner) = Some(what);
    }

    /// Why the service has not started yet.
    fn why_starting(&self) -> Option<String> {
        let what = self.shared.starting.read().unwrap_or_else(PoisonError::into_inner);
        let how_far = what.as_ref().map(|what| format!(": {what}")).unwrap_or_default();
        (!self.is_started()).then(|| format!("the service is starting{how_far}"))
    }

    /// The service has started.
    pub fn started(&self) {
        self.shared.started.store(true, Ordering::Release);
    }

    /// The service is about to stop: not ready any more.
    pub fn stopping(&self) {
        self.shared.stopping.cancel();
    }

    /// Ends when the service is about to stop: for answers that would go on for ever.
    pub fn until_stopping(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.shared.stopping.clone().cancelled_owned()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.shared.stopping.is_cancelled()
    }

    pub(crate) fn is_started(&self) -> bool {
        self.shared.started.load(Ordering::Acquire)
    }

    /// Whether traffic may come.
    pub fn is_ready(&self) -> bool {
        self.report().ready
    }

    /// Ready or not, each reason, and each check with the time it took.
    pub fn report(&self) -> Report {
        let (mut ready, mut reasons, mut checks) = (true, Vec::new(), Vec::new());
        let mut say = |name: &str, weight: Weight, reason: String| {
            ready &= weight != Weight::Readiness;
            reasons.push(json!({ "check": name, "reason": reason, "ready": weight != Weight::Readiness }));
        };
        if let Some(why) = self.why_starting() {
            say("start", Weight::Readiness, why);
        }
        if self.is_stopping() {
            say("stop", Weight::Readiness, "the service is stopping".to_owned());
        }
        for (name, weight, check) in self.shared.checks.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let (reason, took, age) = check.said();
            let status = match (&reason, weight) {
                (None, _) => "pass",
                (Some(_), Weight::Warning) => "warn",
                (Some(_), Weight::Readiness) => "fail",
            };
            let mut line = json!({ "check": name, "status": status, "seconds": took.as_secs_f64() });
            if let Some(age) = age {
                line["age_seconds"] = age.as_secs_f64().into();
            }
            checks.push(line);
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

    /// `/startupz`: 200 once started, before that 503 with what the start does.
    pub fn startupz(&self) -> Response {
        match self.why_starting() {
            None => answer(StatusCode::OK, "started", Report::default()),
            Some(why) => {
                let reasons = vec![json!({ "check": "start", "reason": why, "ready": false })];
                answer(StatusCode::SERVICE_UNAVAILABLE, "starting", Report { reasons, ..Report::default() })
            }
        }
    }
}

/// What the checks say, as `/readyz` shows it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Whether traffic may come.
    pub ready: bool,
    /// Why it may not, and what is only to be known: `check`, `reason`, `ready`.
    pub reasons: Vec<Value>,
    /// Each check: `check`, `status` (`pass`, `warn`, `fail`), `seconds`.
    pub checks: Vec<Value>,
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
    use std::future::pending;
    use std::sync::Weak;
    use std::sync::atomic::AtomicUsize;

    const EVERY: Duration = Duration::from_millis(20);

    /// Waits until what is wrong with the one check is this.
    async fn says(health: &Health, reason: Option<&str>) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let report = health.report();
            if report.reasons.first().and_then(|r| r["reason"].as_str()) == reason {
                return;
            }
            assert!(Instant::now() < deadline, "{:?}, not {reason:?}", report.reasons);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    #[tokio::test]
    async fn a_watched_check_fails_until_it_has_answered_and_follows_what_it_watches() {
        let health = Health::default();
        health.started();
        let well = Arc::new(AtomicBool::new(true));
        let watched = well.clone();
        health.watch("oven", Weight::Readiness, EVERY, move || {
            let well = watched.load(Ordering::Relaxed);
            async move { if well { Ok(()) } else { Err("cold".to_owned()) } }
        });
        // The task has not run yet: this runtime has one thread.
        let report = health.report();
        assert!(!report.ready);
        assert_eq!(report.reasons[0]["reason"], "not checked yet");
        says(&health, None).await;
        let report = health.report();
        assert_eq!((report.ready, &report.checks[0]["status"]), (true, &json!("pass")));
        assert!(report.checks[0]["age_seconds"].as_f64().is_some_and(|age| age < 10.0), "{:?}", report.checks);
        well.store(false, Ordering::Relaxed);
        says(&health, Some("cold")).await;
        assert!(!health.is_ready());
        well.store(true, Ordering::Relaxed);
        says(&health, None).await;
    }

    #[tokio::test]
    async fn a_watched_check_that_hangs_or_panics_counts_as_failed_and_is_asked_again() {
        let health = Health::default();
        health.started();
        let asked = AtomicUsize::new(0);
        health.watch("oven", Weight::Warning, EVERY, move || {
            let times = asked.fetch_add(1, Ordering::Relaxed);
            async move {
                match times % 3 {
                    0 => pending().await,
                    1 => panic!("burnt"),
                    _ => Ok(()),
                }
            }
        });
        says(&health, Some("no answer within 0.02 s")).await;
        says(&health, Some("the check panicked")).await;
        says(&health, None).await;
        assert!(health.is_ready(), "a warning turns no traffic away");
    }

    #[tokio::test]
    async fn watching_ends_when_the_service_stops_and_when_nobody_can_ask_any_more() {
        let alive = || Arc::new(());
        let watch = |health: &Health, held: &Arc<()>| -> Weak<()> {
            let held = held.clone();
            let weak = Arc::downgrade(&held);
            health.watch("oven", Weight::Readiness, Duration::from_secs(600), move || {
                let held = held.clone();
                async move {
                    let _held = held;
                    pending().await
                }
            });
            weak
        };
        let (stopped, dropped) = (Health::default(), Health::default());
        let (of_stopped, of_dropped) = (watch(&stopped, &alive()), watch(&dropped, &alive()));
        tokio::task::yield_now().await;
        assert!(of_stopped.strong_count() > 0 && of_dropped.strong_count() > 0);
        stopped.stopping();
        drop(dropped);
        let deadline = Instant::now() + Duration::from_secs(20);
        while of_stopped.strong_count() + of_dropped.strong_count() > 0 {
            assert!(Instant::now() < deadline, "a check is still watched");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

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
