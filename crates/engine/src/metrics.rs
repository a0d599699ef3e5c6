//! The engine's metrics. `received = accepted + duplicates + rejected + failed` holds whenever nothing is in flight.

use crate::answers::Answers;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::time::Instant;

/// The four ends of a received event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)]
pub(crate) enum End {
    accepted,
    duplicate,
    rejected,
    failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct EndLabel {
    end: End,
}

/// What the engine counts and measures; registered once at start.
#[derive(Clone, Debug)]
pub struct EngineMetrics {
    pub(crate) received: Counter,
    pub(crate) accepted: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) rejected: Counter,
    pub(crate) failed: Counter,
    ends: Family<EndLabel, Counter>,
    pub(crate) reused_ids: Counter,
    pub(crate) groups: Counter,
    pub(crate) group_batches: Histogram,
    pub(crate) append_seconds: Histogram,
    pub(crate) sync_seconds: Histogram,
    pub(crate) wal_written_bytes: Counter,
    pub(crate) wal_bytes: Gauge,
    pub(crate) live_rows: Gauge,
    pub(crate) live_bytes: Gauge,
    pub(crate) last_position: Gauge,
    pub(crate) sealed_position: Gauge,
    pub(crate) window_keys: Gauge,
    pub(crate) window_bytes: Gauge,
    pub(crate) window_seconds: Gauge,
    pub(crate) window_configured_seconds: Gauge,
    pub(crate) answers: Gauge,
    pub(crate) answers_bytes: Gauge,
    pub(crate) answers_seconds: Gauge,
    pub(crate) replayed: Counter,
    pub(crate) seals: Counter,
    pub(crate) seal_failures: Counter,
    pub(crate) seal_seconds: Histogram,
    pub(crate) seal_rows: Counter,
    pub(crate) torn_tails: Counter,
    pub(crate) recovered_events: Counter,
}

impl Default for EngineMetrics {
    fn default() -> Self {
        let ends = Family::<EndLabel, Counter>::default();
        let end = |end| ends.get_or_create(&EndLabel { end }).clone();
        Self {
            received: Counter::default(),
            accepted: end(End::accepted),
            duplicates: end(End::duplicate),
            rejected: end(End::rejected),
            failed: end(End::failed),
            ends: ends.clone(),
            reused_ids: Counter::default(),
            groups: Counter::default(),
            group_batches: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            append_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 16)),
            sync_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 16)),
            wal_written_bytes: Counter::default(),
            wal_bytes: Gauge::default(),
            live_rows: Gauge::default(),
            live_bytes: Gauge::default(),
            last_position: Gauge::default(),
            sealed_position: Gauge::default(),
            window_keys: Gauge::default(),
            window_bytes: Gauge::default(),
            window_seconds: Gauge::default(),
            window_configured_seconds: Gauge::default(),
            answers: Gauge::default(),
            answers_bytes: Gauge::default(),
            answers_seconds: Gauge::default(),
            replayed: Counter::default(),
            seals: Counter::default(),
            seal_failures: Counter::default(),
            seal_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 14)),
            seal_rows: Counter::default(),
            torn_tails: Counter::default(),
            recovered_events: Counter::default(),
        }
    }
}

impl EngineMetrics {
    /// Makes the metrics and adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        let r = registry.sub_registry_with_prefix("catchment_engine");
        m.register_events(r);
        m.register_answers(r);
        m.register_log(r);
        m.register_seal(r);
        m
    }

    fn register_events(&self, r: &mut Registry) {
        r.register("events_received", "Events read from requests", self.received.clone());
        r.register("events", "Events by how they ended: accepted, duplicate, rejected, failed", self.ends.clone());
        r.register(
            "reused_ids",
            "Accepted events whose id was seen with other content inside the window",
            self.reused_ids.clone(),
        );
        r.register("window_keys", "Keys of events remembered to find duplicates", self.window_keys.clone());
        r.register_with_unit("window", "Memory of these keys", Unit::Bytes, self.window_bytes.clone());
        r.register_with_unit(
            "window",
            "True length of the duplicate window now",
            Unit::Seconds,
            self.window_seconds.clone(),
        );
        r.register_with_unit(
            "window_configured",
            "Length of the duplicate window, and of the time that answers are remembered, as configured",
            Unit::Seconds,
            self.window_configured_seconds.clone(),
        );
        r.register("live_rows", "Accepted events not in the lake yet", self.live_rows.clone());
        r.register_with_unit("live", "Memory of the live rows", Unit::Bytes, self.live_bytes.clone());
        r.register("last_position", "Position of the last accepted event", self.last_position.clone());
    }

    fn register_answers(&self, r: &mut Registry) {
        r.register("answers", "Answers remembered of requests with an idempotency key", self.answers.clone());
        r.register_with_unit("answers", "Memory of the remembered answers", Unit::Bytes, self.answers_bytes.clone());
        r.register_with_unit(
            "answers_window",
            "True length of the time that answers are remembered now",
            Unit::Seconds,
            self.answers_seconds.clone(),
        );
        r.register(
            "replayed_requests",
            "Requests with a known idempotency key, answered as before; their events are not received again",
            self.replayed.clone(),
        );
    }

    /// Tells of the remembered answers.
    pub(crate) fn answers(&self, answers: &Answers, now: Instant) {
        let (count, bytes) = answers.size();
        self.answers.set(count as i64);
        self.answers_bytes.set(bytes as i64);
        self.answers_seconds.set(answers.seconds(now) as i64);
    }

    fn register_log(&self, r: &mut Registry) {
        r.register("groups", "Groups written: one frame and one sync each", self.groups.clone());
        r.register("group_batches", "Batches that shared one group", self.group_batches.clone());
        r.register_with_unit("append", "Time to write and sync one group", Unit::Seconds, self.append_seconds.clone());
        r.register_with_unit("sync", "Time of the sync of one group", Unit::Seconds, self.sync_seconds.clone());
        r.register_with_unit("wal_written", "Bytes written to the wal", Unit::Bytes, self.wal_written_bytes.clone());
        r.register_with_unit("wal", "Bytes the wal holds on disk", Unit::Bytes, self.wal_bytes.clone());
        r.register("torn_tails", "Torn tails cut off the wal at start", self.torn_tails.clone());
        r.register("recovered_events", "Events read back from the wal at start", self.recovered_events.clone());
    }

    fn register_seal(&self, r: &mut Registry) {
        r.register("seals", "Seals done", self.seals.clone());
        r.register("seal_failures", "Seals that failed and are tried again", self.seal_failures.clone());
        r.register_with_unit("seal", "Time of one seal", Unit::Seconds, self.seal_seconds.clone());
        r.register("sealed_rows", "Events written to the lake", self.seal_rows.clone());
        r.register("sealed_position", "Position up to which all events are in the lake", self.sealed_position.clone());
    }
}
