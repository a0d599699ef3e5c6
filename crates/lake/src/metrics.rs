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
    pub(crate) compactions: Counter,
    pub(crate) compaction_failures: Counter,
    pub(crate) compaction_seconds: Histogram,
    pub(crate) compacted_files: Counter,
    pub(crate) compaction_due_files: Gauge,
    pub(crate) dead_files: Gauge,
    pub(crate) removed_files: Counter,
    pub(crate) version: Gauge,
    pub(crate) files: Gauge,
    pub(crate) field_columns: Gauge,
    pub(crate) rows: Gauge,
    pub(crate) expired_rows: Gauge,
    pub(crate) lost_rows: Gauge,
    pub(crate) erased_rows: Gauge,
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
            compactions: Counter::default(),
            compaction_failures: Counter::default(),
            compaction_seconds: Histogram::new(exponential_buckets(0.01, 2.0, 14)),
            compacted_files: Counter::default(),
            compaction_due_files: Gauge::default(),
            dead_files: Gauge::default(),
            removed_files: Counter::default(),
            version: Gauge::default(),
            files: Gauge::default(),
            field_columns: Gauge::default(),
            rows: Gauge::default(),
            expired_rows: Gauge::default(),
            lost_rows: Gauge::default(),
            erased_rows: Gauge::default(),
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
        r.register("orphans", "Files of unfinished seals and compactions removed at start", m.orphans.clone());
        r.register(
            "compactions",
            "Times that small data files were put together into larger ones",
            m.compactions.clone(),
        );
        r.register("compaction_failures", "Compactions that failed and changed nothing", m.compaction_failures.clone());
        r.register_with_unit("compaction", "Time of one compaction", Unit::Seconds, m.compaction_seconds.clone());
        r.register("compacted_files", "Data files that went into larger ones", m.compacted_files.clone());
        r.register("compaction_due_files", "Data files that wait to be put together", m.compaction_due_files.clone());
        r.register(
            "dead_files",
            "Data files that went into larger ones and stay for an hour, for those who read them",
            m.dead_files.clone(),
        );
        r.register(
            "removed_files",
            "Data files removed after that hour, or because events of them were erased",
            m.removed_files.clone(),
        );
        r.register("version", "Version of the Delta table", m.version.clone());
        r.register("files", "Data files of the table", m.files.clone());
        r.register("field_columns", "Fields of data that have a column of their own", m.field_columns.clone());
        r.register("rows", "Events in the table", m.rows.clone());
        r.register(
            "expired_rows",
            "Events that are not in the table any more, ever: they went by retention, were erased, or were lost to damage",
            m.expired_rows.clone(),
        );
        r.register("erased_rows", "Events that were in the table and were erased, ever", m.erased_rows.clone());
        r.register(
            "lost_rows",
            "Events that were lost to damage of the wal or of a data file, as a repair found, ever",
            m.lost_rows.clone(),
        );
        r.register("bytes", "Bytes of the table's data files", m.bytes.clone());
        m
    }
}
