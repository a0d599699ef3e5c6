//! The lake's metrics.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// What the lake counts and measures; registered once at start.
#[derive(Clone, Debug)]
pub struct LakeMetrics {
    pub(crate) commits: Counter,
    pub(crate) commit_seconds: Histogram,
    pub(crate) encode_seconds: Histogram,
    pub(crate) written_bytes: Counter,
    pub(crate) checkpoints: Counter,
    pub(crate) orphans: Counter,
    pub(crate) version: Gauge,
    pub(crate) files: Gauge,
    pub(crate) rows: Gauge,
    pub(crate) bytes: Gauge,
}

impl Default for LakeMetrics {
    fn default() -> Self {
        Self {
            commits: Counter::default(),
            commit_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            encode_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            written_bytes: Counter::default(),
            checkpoints: Counter::default(),
            orphans: Counter::default(),
            version: Gauge::default(),
            files: Gauge::default(),
            rows: Gauge::default(),
            bytes: Gauge::default(),
        }
    }
}

impl LakeMetrics {
    /// Makes the metrics and adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        let r = registry.sub_registry_with_prefix("catchment_lake");
        r.register("commits", "Commits to the Delta table", m.commits.clone());
        r.register_with_unit("commit", "Time of one commit, with its syncs", Unit::Seconds, m.commit_seconds.clone());
        r.register_with_unit(
            "encode",
            "Time to encode and store the files of one seal",
            Unit::Seconds,
            m.encode_seconds.clone(),
        );
        r.register_with_unit("written", "Bytes of data files written", Unit::Bytes, m.written_bytes.clone());
        r.register("checkpoints", "Checkpoints of the Delta log written", m.checkpoints.clone());
        r.register("orphans", "Files of unfinished seals removed at start", m.orphans.clone());
        r.register("version", "Version of the Delta table", m.version.clone());
        r.register("files", "Data files of the table", m.files.clone());
        r.register("rows", "Events in the table", m.rows.clone());
        r.register("bytes", "Bytes of the table's data files", m.bytes.clone());
        m
    }
}
