//! The metrics of the HTTP face, beside those that every service has.

use crate::code::Code;
use axum::response::Response;
use nowwhat::Problem;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::fmt::{self, Write};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    code: Code,
}

impl EncodeLabelValue for Code {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.name())
    }
}

/// What the server counts; registered once at start.
#[derive(Clone, Debug)]
pub struct ServerMetrics {
    turned_away: Family<ReasonLabel, Counter>,
    pub(crate) events_read: Counter,
}

impl ServerMetrics {
    /// Makes the metrics and adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self { turned_away: Family::default(), events_read: Counter::default() };
        for code in Code::ALL.iter().copied().filter(|code| code.turns_away()) {
            drop(metrics.turned_away.get_or_create(&ReasonLabel { code }));
        }
        let r = registry.sub_registry_with_prefix("catchment_server");
        let help = "Requests turned away whole, by the code of the answer: too large, too many, no room, no token";
        r.register("turned_away", help, metrics.turned_away.clone());
        r.register("events_read", "Events found in the bodies of requests", metrics.events_read.clone());
        metrics
    }

    /// Counts an answer, when it turns the request away.
    pub(crate) fn count(&self, answer: &Response) {
        let problem = answer.extensions().get::<Problem>();
        let code = problem.and_then(|problem| Code::ALL.iter().copied().find(|code| code.name() == problem.code()));
        if let Some(code) = code.filter(|code| code.turns_away()) {
            self.turned_away.get_or_create(&ReasonLabel { code }).inc();
        }
    }
}
