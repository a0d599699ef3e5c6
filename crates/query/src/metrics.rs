//! The metrics of questions.

use crate::error::QueryError;
use datafusion::execution::memory_pool::MemoryPool;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::sync::{Arc, OnceLock};

/// How a query ended. There is no way to make others, so that they cannot multiply.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct End(&'static str);

impl End {
    pub(crate) const OK: Self = Self("ok");
    pub(crate) const DROPPED: Self = Self("dropped");

    /// With an error: its code.
    pub(crate) fn of(error: &QueryError) -> Self {
        Self(error.code())
    }
}

impl EncodeLabelValue for End {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        self.0.encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct EndLabel {
    pub(crate) result: End,
}

/// What is counted and measured of questions; registered once at start.
#[derive(Clone, Debug)]
pub struct QueryMetrics {
    pub(crate) queries: Family<EndLabel, Counter>,
    pub(crate) seconds: Histogram,
    pub(crate) running: Gauge,
    pub(crate) rows: Counter,
    pub(crate) files_read: Counter,
    pub(crate) files_skipped: Counter,
    pub(crate) memory: Memory,
}

impl Default for QueryMetrics {
    fn default() -> Self {
        Self {
            queries: Family::default(),
            seconds: Histogram::new(exponential_buckets(0.001, 2.0, 18)),
            running: Gauge::default(),
            rows: Counter::default(),
            files_read: Counter::default(),
            files_skipped: Counter::default(),
            memory: Memory::default(),
        }
    }
}

impl QueryMetrics {
    /// Makes the metrics and adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        // What has not happened yet is zero, not absent.
        for result in [End::OK, End::DROPPED] {
            drop(m.queries.get_or_create(&EndLabel { result }));
        }
        let r = registry.sub_registry_with_prefix("catchment_query");
        r.register(
            "queries",
            "Queries by result: ok, dropped by the client, or the code of the error",
            m.queries.clone(),
        );
        r.register_with_unit("query", "Time from asking to the last row", Unit::Seconds, m.seconds.clone());
        r.register("running", "Queries running now", m.running.clone());
        r.register("rows", "Rows answered", m.rows.clone());
        r.register("files_read", "Files of the lake whose rows queries had to read", m.files_read.clone());
        r.register(
            "files_skipped",
            "Files of the lake that queries could skip by their statistics or their filters of ids",
            m.files_skipped.clone(),
        );
        r.register_collector(Box::new(m.memory.clone()));
        m
    }
}

/// The pool of which queries take their memory, asked when metrics are; none before the first query can come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<OnceLock<Arc<dyn MemoryPool>>>);

impl Memory {
    /// # Panics
    /// When it was said before.
    pub(crate) fn is_of(&self, pool: Arc<dyn MemoryPool>) {
        self.0.set(pool).expect("there is one pool");
    }
}

impl Collector for Memory {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let held = ConstGauge::new(self.0.get().map_or(0, |pool| pool.reserved()) as i64);
        let help = "Memory that running queries hold";
        held.encode(encoder.encode_descriptor("memory", help, Some(&Unit::Bytes), held.metric_type())?)
    }
}
