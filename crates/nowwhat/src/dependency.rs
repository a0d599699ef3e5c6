//! What a service stands on: databases, caches, other services. How long each call takes and how it ends, by name.
//!
//! A [`Dependency`] wraps calls over any protocol: a time limit, a place in the metrics and in the time of the request, a span and a
//! line in the log at the level debug. [`Client`](crate::client::Client) does the same for HTTP, in the same metric, with more outcomes.
//! Nothing is repeated here, and a call whose caller goes away is not counted.

use crate::current;
use crate::metrics::{Family, Histogram, Label, declared};
use prometheus_client::metrics::histogram::exponential_buckets;
use prometheus_client::registry::{Registry, Unit};
use std::error::Error;
use std::future::Future;
use std::time::{Duration, Instant};
use tracing::{Instrument, Span, field};

crate::label! {
    /// How a call ended.
    pub(crate) enum Outcome {
        /// With an answer.
        Success = "success",
        /// With an error of the dependency's own protocol.
        Error = "error",
        /// Not in time.
        Timeout = "timeout",
        /// An answer of HTTP that blames the caller.
        ClientError = "client_error",
        /// An answer of HTTP that blames the other service.
        ServerError = "server_error",
        /// It could not be made.
        NotAsked = "not_asked",
        /// No connection.
        Connect = "connect",
        /// The answer ended early.
        Broken = "broken",
        /// The answer is larger than allowed.
        TooLarge = "too_large",
        /// The answer cannot be read.
        NotJson = "not_json",
    }
}

/// The name of a dependency. The program's text chooses it, no client can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Name(&'static str);

impl declared::Bounded for Name {}

impl Label for Name {
    fn value(&self) -> &str {
        self.0
    }
}

crate::labels! {
    /// What calls are measured by.
    struct Labels { dependency: Name, outcome: Outcome }
}

/// Metrics of calls; registered once.
#[derive(Clone, Debug)]
pub struct DependencyMetrics {
    seconds: Family<Labels, Histogram>,
}

impl DependencyMetrics {
    /// Makes the metrics and adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let seconds: Family<Labels, Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_5, 2.0, 16)));
        registry.register_with_unit(
            "dependency_duration",
            "Time of calls to what this service stands on with all of the answer, by dependency and outcome",
            Unit::Seconds,
            seconds.clone(),
        );
        Self { seconds }
    }

    /// Shows a dependency that was never called yet as zero, not as absent.
    pub(crate) fn begin(&self, dependency: &'static str) {
        drop(self.seconds.get_or_create(&Labels { dependency: Name(dependency), outcome: Outcome::Success }));
    }

    /// A call has ended: measured, and told to its span. Not to the current one: where no spans are wanted, that is the request's.
    pub(crate) fn ended(&self, span: &Span, dependency: &'static str, outcome: Outcome, time: Duration) {
        if outcome != Outcome::Success {
            span.record("otel.status_code", "error");
        }
        let labels = Labels { dependency: Name(dependency), outcome };
        self.seconds.get_or_create(&labels).observe(time.as_secs_f64());
    }
}

/// Something that the service stands on. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dependency {
    name: &'static str,
    timeout: Duration,
    metrics: DependencyMetrics,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError<E: Error + 'static> {
    /// It took too long, and was given up.
    #[error("{dependency} did not answer within {timeout:?}")]
    Timeout {
        /// Who was asked.
        dependency: &'static str,
        /// The limit.
        timeout: Duration,
    },
    /// It failed.
    #[error("{dependency} failed")]
    Failed {
        /// Who was asked.
        dependency: &'static str,
        /// Why.
        source: E,
    },
}

impl Dependency {
    /// What is called `name` in metrics, each call of which may take `timeout`.
    pub fn new(name: &'static str, timeout: Duration, metrics: &DependencyMetrics) -> Self {
        metrics.begin(name);
        Self { name, timeout, metrics: metrics.clone() }
    }

    /// Makes a call: waits for `call` until the time limit, and then drops it. Its time counts as `db` of the request.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call<T, E: Error + 'static>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CallError<E>> {
        let span = tracing::info_span!(
            "call",
            dependency = self.name,
            otel.kind = "client",
            otel.name = self.name,
            otel.status_code = field::Empty
        );
        current::db(self.counted(call, &span)).instrument(span.clone()).await
    }

    async fn counted<T, E: Error + 'static>(
        &self,
        call: impl Future<Output = Result<T, E>>,
        span: &Span,
    ) -> Result<T, CallError<E>> {
        let Self { name: dependency, timeout, .. } = *self;
        let began = Instant::now();
        let answered = match tokio::time::timeout(timeout, call).await {
            Ok(answered) => answered.map_err(|source| CallError::Failed { dependency, source }),
            Err(_) => Err(CallError::Timeout { dependency, timeout }),
        };
        let time = began.elapsed();
        let outcome = match &answered {
            Ok(_) => Outcome::Success,
            Err(CallError::Failed { .. }) => Outcome::Error,
            Err(CallError::Timeout { .. }) => Outcome::Timeout,
        };
        self.metrics.ended(span, dependency, outcome, time);
        let duration_ms = current::millis(time);
        tracing::debug!(dependency, outcome = outcome.value(), duration_ms, "call");
        answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::io;

    fn calls(registry: &Registry, outcome: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).expect("a text");
        let name = format!("dependency_duration_seconds_count{{dependency=\"oven\",outcome=\"{outcome}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |count| count.parse().expect("a count"))
    }

    #[tokio::test]
    async fn each_call_is_counted_by_its_outcome_and_one_that_hangs_is_given_up() {
        let mut registry = Registry::default();
        let metrics = DependencyMetrics::register(&mut registry);
        let oven = Dependency::new("oven", Duration::from_millis(20), &metrics);
        assert_eq!(oven.call(ready(Ok::<_, io::Error>(220))).await.expect("hot"), 220);
        let cold = oven.call(ready(Err::<(), _>(io::Error::other("cold")))).await.expect_err("cold");
        assert_eq!(crate::error_chain(&cold), "oven failed: cold");
        let late = oven.call(pending::<Result<(), io::Error>>()).await.expect_err("late");
        assert_eq!(late.to_string(), "oven did not answer within 20ms");
        let counts = ["success", "error", "timeout"].map(|outcome| calls(&registry, outcome));
        assert_eq!(counts, [1, 1, 1]);
    }
}
