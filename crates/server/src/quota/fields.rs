//! What a sensor is told of its quota: the fields `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers) on every answer,
//! and the problem of a quota that is exceeded.
//!
//! The draft says: where an answer has `Retry-After`, `t` of `RateLimit` means the same moment. Otherwise it is the time until the bucket is full.

use super::bucket::{Bucket, Limit};
use super::{Exceeded, Limits};
use crate::app::App;
use crate::code::Code;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue};
use nowwhat::Problem;
use registry::Identity;
use std::cell::RefCell;
use std::sync::Arc;

static POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The type of problem that the draft registers.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
/// The largest integer of structured fields (RFC 9651, 3.3.1).
const INTEGER_MAX: u64 = 999_999_999_999_999;

tokio::task_local! {
    /// Whose quota the answer to this request tells of.
    static TOLD: RefCell<Told>;
}

#[derive(Default)]
struct Told {
    sensor: Option<(Arc<str>, Limits)>,
    exceeded: Exceeded,
}

/// The layer around all routes: the answer tells the sensor of its quota, and who was turned away is counted.
pub(crate) async fn tell(State(app): State<App>, request: Request, next: Next) -> Response {
    let answered = async {
        let mut response = next.run(request).await;
        app.shared.metrics.count(&response);
        let told = TOLD.with(RefCell::take);
        if let Some((sensor, limits)) = told.sensor.filter(|(_, limits)| *limits != Limits::default()) {
            write(&app, response.headers_mut(), (&sensor, &limits), &told.exceeded);
        }
        response
    };
    TOLD.scope(RefCell::default(), answered).await
}

/// From now on the answer tells of this identity's quota, when it is of a sensor.
pub(crate) fn tell_of(app: &App, identity: &Identity) {
    if let Some(sensor) = &identity.sensor {
        let limits = app.shared.quotas.in_force(identity.quota).into();
        // Where there is no such layer there is nobody to tell.
        let _ = TOLD.try_with(|told| told.borrow_mut().sensor = Some((sensor.clone(), limits)));
    }
}

/// 429 with how long to wait.
pub(crate) fn exceeded(exceeded: Exceeded) -> Problem {
    let _ = TOLD.try_with(|told| told.borrow_mut().exceeded = exceeded);
    let policies = [("events", exceeded.events_wait_seconds), ("bytes", exceeded.bytes_wait_seconds)];
    let violated: Vec<&str> = policies.into_iter().filter_map(|(name, wait)| wait.map(|_| name)).collect();
    let wait_seconds = exceeded.wait_seconds();
    let detail = format!(
        "the sensor's quota of {} is used up for {wait_seconds} seconds: nothing of the batch was stored, and it cost nothing",
        violated.join(" and of ")
    );
    Code::QuotaExceeded
        .problem(detail)
        .retry_after(wait_seconds)
        .standard_type(QUOTA_EXCEEDED)
        .extension("violated-policies", violated.into())
}

fn write(app: &App, headers: &mut HeaderMap, (sensor, limits): (&str, &Limits), exceeded: &Exceeded) {
    let (events, bytes) = app.shared.quotas.buckets(sensor, limits);
    let kinds = [
        ("events", "events", limits.events, events, exceeded.events_wait_seconds),
        ("bytes", "content-bytes", limits.bytes, bytes, exceeded.bytes_wait_seconds),
    ];
    let mut policies = Vec::new();
    let mut states = Vec::new();
    for (name, unit, limit, bucket, wait_seconds) in kinds {
        let Some(limit) = limit else { continue };
        policies.push(policy(name, unit, limit));
        states.push(state(name, limit, bucket, wait_seconds));
    }
    let value = |parts: Vec<String>| HeaderValue::try_from(parts.join(", ")).expect("names and numbers are ASCII");
    headers.insert(POLICY.clone(), value(policies));
    headers.insert(LIMIT.clone(), value(states));
}

fn policy(name: &str, unit: &str, limit: Limit) -> String {
    let Limit { burst_seconds, .. } = limit;
    format!("\"{name}\";q={};w={burst_seconds};qu=\"{unit}\"", limit.burst().min(INTEGER_MAX))
}

fn state(name: &str, limit: Limit, bucket: Bucket, wait_seconds: Option<u64>) -> String {
    let reset_seconds = wait_seconds.unwrap_or_else(|| bucket.full_in_seconds(limit));
    format!("\"{name}\";r={};t={}", bucket.remaining(limit).min(INTEGER_MAX), reset_seconds.min(INTEGER_MAX))
}
