//! The metrics of the HTTP face, beside those that every service has.

use crate::code::Code;
use axum::response::Response;
use nowwhat::Problem;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
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

nowwhat::label! {
    /// What became of a request's line in the request log.
    pub(crate) enum RequestEnd {
        /// It is an event.
        Stored = "stored",
        /// The engine did not take it.
        Failed = "failed",
        /// Too many waited.
        LeftOut = "left_out",
    }
}

nowwhat::labels! {
    /// What the lines of the request log are counted by.
    struct LineLabels { end: RequestEnd }
}

/// What the request log counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestLogMetrics {
    pub(crate) requests: Counter,
    ends: nowwhat::metrics::Family<LineLabels, Counter>,
    pub(crate) waiting: Gauge,
}

impl RequestLogMetrics {
    /// Counts the ends of lines.
    pub(crate) fn end(&self, end: RequestEnd, lines: u64) {
        self.ends.get_or_create(&LineLabels { end }).inc_by(lines);
    }

    /// How many had this end.
    #[cfg(test)]
    pub(crate) fn ended(&self, end: RequestEnd) -> u64 {
        self.ends.get_or_create(&LineLabels { end }).get()
    }
}

/// What is counted of erasures.
#[derive(Clone, Debug, Default)]
pub(crate) struct ErasureMetrics {
    pub(crate) running: Gauge,
    pub(crate) failures: Counter,
}

/// What is told of backups.
#[derive(Clone, Debug, Default)]
pub(crate) struct BackupMetrics {
    pub(crate) held: Gauge,
    pub(crate) last_success: Gauge,
}

/// What is told of tails.
#[derive(Clone, Debug, Default)]
pub(crate) struct TailMetrics {
    pub(crate) open: Gauge,
    pub(crate) missed: Counter,
}

/// What the server counts; registered once at start.
#[derive(Clone, Debug)]
pub struct ServerMetrics {
    turned_away: Family<ReasonLabel, Counter>,
    pub(crate) events_read: Counter,
    /// From a batch's head to its answer.
    pub(crate) ingest_seconds: Histogram,
    pub(crate) request_log: RequestLogMetrics,
    pub(crate) erasures: ErasureMetrics,
    pub(crate) backups: BackupMetrics,
    pub(crate) tails: TailMetrics,
}

impl ServerMetrics {
    /// Makes the metrics and adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let request_log = RequestLogMetrics::default();
        let (turned_away, events_read) = (Family::default(), Counter::default());
        let (erasures, backups) = (ErasureMetrics::default(), BackupMetrics::default());
        let tails = TailMetrics::default();
        let ingest_seconds = Histogram::new(exponential_buckets(0.000_25, 2.0, 18));
        let metrics = Self { turned_away, events_read, ingest_seconds, request_log, erasures, backups, tails };
        RequestEnd::ALL.into_iter().for_each(|end| metrics.request_log.end(end, 0));
        for code in Code::ALL.iter().copied().filter(|code| code.turns_away()) {
            drop(metrics.turned_away.get_or_create(&ReasonLabel { code }));
        }
        let r = registry.sub_registry_with_prefix("catchment_server");
        let help = "Requests turned away whole, by the code of the answer: too large, too many, no room, no token";
        r.register("turned_away", help, metrics.turned_away.clone());
        r.register(
            "events_read",
            "Events found in the bodies of requests, and made by the request log",
            metrics.events_read.clone(),
        );
        r.register(
            "ingest_seconds",
            "Time from the head of a batch to its answer, whatever that is",
            metrics.ingest_seconds.clone(),
        );
        let log = &metrics.request_log;
        r.register("request_log_requests", "Requests that ended while they were collected", log.requests.clone());
        let help =
            "Collected requests by what became of them: stored as an event, failed, left out because too many waited";
        r.register("request_log_ends", help, log.ends.clone());
        let help = "Collected requests that wait to be stored as events";
        r.register("request_log_waiting", help, log.waiting.clone());
        let erasures = &metrics.erasures;
        r.register("erasures_running", "Erasures of a sensor's events that are not finished", erasures.running.clone());
        let help = "Tries of erasures that failed and are made again";
        r.register("erasure_failures", help, erasures.failures.clone());
        r.register("tails_open", "Clients that follow events as they come", metrics.tails.open.clone());
        let help = "Events that clients who follow them were told to have missed, as they were too far behind";
        r.register("tail_missed_events", help, metrics.tails.missed.clone());
        let backups = &metrics.backups;
        r.register("backups_held", "Copies that are held while a backup copies them: 0 or 1", backups.held.clone());
        let help = "When the last backup of this process was wholly copied, in seconds since the epoch; 0 before";
        r.register("backup_last_success_timestamp_seconds", help, backups.last_success.clone());
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
