//! The table's metrics.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// What the table counts; registered once at start.
#[derive(Clone, Debug)]
pub struct RejectedMetrics {
    pub(crate) rows: Gauge,
    pub(crate) bytes: Gauge,
    pub(crate) found: Counter,
    pub(crate) stored: Counter,
    pub(crate) pushed_out: Counter,
    pub(crate) expired: Counter,
    pub(crate) left_out: Counter,
    pub(crate) moved_aside: Counter,
    pub(crate) keep_seconds: Histogram,
}

impl Default for RejectedMetrics {
    fn default() -> Self {
        Self {
            rows: Gauge::default(),
            bytes: Gauge::default(),
            found: Counter::default(),
            stored: Counter::default(),
            pushed_out: Counter::default(),
            expired: Counter::default(),
            left_out: Counter::default(),
            moved_aside: Counter::default(),
            keep_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 16)),
        }
    }
}

impl RejectedMetrics {
    /// Makes the metrics and adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        let r = registry.sub_registry_with_prefix("catchment_rejected");
        r.register("rows", "Rejected events that can be read again", m.rows.clone());
        r.register_with_unit(
            "kept",
            "Bytes of the rejected events that can be read again",
            Unit::Bytes,
            m.bytes.clone(),
        );
        r.register("found", "Rejected events that were in the table at start", m.found.clone());
        r.register("stored", "Rejected events stored", m.stored.clone());
        r.register("pushed_out", "Rejected events removed because the table was full", m.pushed_out.clone());
        r.register(
            "left_out",
            "Rejected events not stored: their request had too many, was atomic and nothing is wrong with them, or an import, whose file has them",
            m.left_out.clone(),
        );
        r.register("moved_aside", "Damaged tables moved aside at the start", m.moved_aside.clone());
        r.register(
            "expired",
            "Rejected events removed because of their age, or because they were erased",
            m.expired.clone(),
        );
        r.register_with_unit(
            "keep",
            "Time to store rejected events, of all requests that waited",
            Unit::Seconds,
            m.keep_seconds.clone(),
        );
        m
    }
}
