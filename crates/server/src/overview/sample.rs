//! What was counted between two looks at the metrics.

use nowwhat::metrics::{Buckets, Readings};
use serde::{Serialize, Serializer};
use serde_json::Value;
use utoipa::ToSchema;

/// The metrics that are read.
pub(super) const NAMES: &[&str] = &[
    "catchment_disk_bytes",
    "catchment_disk_free_bytes",
    "catchment_engine_events_received_total",
    "catchment_engine_events_total",
    "catchment_engine_last_position",
    "catchment_engine_live_rows",
    "catchment_engine_wal_bytes",
    "catchment_lake_bytes",
    "catchment_lake_files",
    "catchment_lake_rows",
    "catchment_memory_bound_bytes",
    "catchment_query_query_seconds_bucket",
    "catchment_registry_sensors",
    "catchment_rejected_kept_bytes",
    "catchment_server_ingest_seconds_bucket",
    "catchment_server_sensors_seen",
    "catchment_server_turned_away_total",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
];

/// What had been counted at one moment.
#[derive(Clone, Debug)]
pub(super) struct Counted {
    at: i64,
    accepted: f64,
    duplicates: f64,
    rejected: f64,
    failed: f64,
    turned_away: f64,
    answers: Buckets,
    queries: Buckets,
    live_rows: f64,
    wal_bytes: f64,
    lake_bytes: f64,
    rejected_bytes: f64,
    disk_free_bytes: f64,
    memory_bytes: f64,
}

impl Counted {
    pub(super) fn of(readings: &Readings, at: i64) -> Self {
        let value = |name| readings.sum(name, &[]);
        let ended = |end| readings.sum("catchment_engine_events_total", &[("end", end)]);
        Self {
            at,
            accepted: ended("accepted"),
            duplicates: ended("duplicate"),
            rejected: ended("rejected"),
            failed: ended("failed"),
            turned_away: value("catchment_server_turned_away_total"),
            answers: readings.buckets("catchment_server_ingest_seconds", &[]),
            queries: readings.buckets("catchment_query_query_seconds", &[]),
            live_rows: value("catchment_engine_live_rows"),
            wal_bytes: value("catchment_engine_wal_bytes"),
            lake_bytes: value("catchment_lake_bytes"),
            rejected_bytes: value("catchment_rejected_kept_bytes"),
            disk_free_bytes: value("catchment_disk_free_bytes"),
            memory_bytes: value("process_resident_memory_bytes"),
        }
    }

    /// By the clock of the day: one that is set back begins anew.
    pub(super) fn seconds_since(&self, earlier: &Self) -> f64 {
        let passed = (self.at - earlier.at) as f64 / 1e6;
        if passed < 0.0 { f64::INFINITY } else { passed }
    }
}

macro_rules! samples {
    ($($(#[doc = $about:literal])+ $name:ident,)*) => {
        /// What was counted and measured in a step.
        #[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
        #[schema(as = OverviewSample)]
        pub(crate) struct Sample {
            /// The end of the step.
            #[serde(serialize_with = "as_time")]
            #[schema(value_type = String, format = DateTime)]
            pub(super) at: i64,
            // Not a number is null: nothing was measured.
            $($(#[doc = $about])+ #[schema(value_type = Option<f64>, required = true)] pub(super) $name: f64,)*
        }

        impl Sample {
            /// The names of its values.
            pub(super) const COLUMNS: &[&str] = &["at", $(stringify!($name),)*];

            /// Its values, in the order of their names.
            pub(super) fn row(&self) -> Vec<Value> {
                vec![event::format_time(self.at).into(), $(self.$name.into(),)*]
            }
        }
    };
}

samples! {
    /// Accepted events a second.
    accepted_per_second,
    /// Duplicates a second.
    duplicates_per_second,
    /// Rejected events a second.
    rejected_per_second,
    /// Failed events a second.
    failed_per_second,
    /// Requests a second that were turned away unread.
    turned_away_per_second,
    /// Batches a second.
    batches_per_second,
    /// Half of the batches were answered within this time; null without any.
    answer_p50_seconds,
    /// 99 of 100 of them.
    answer_p99_seconds,
    /// Questions a second.
    queries_per_second,
    /// 99 of 100 questions took at most so long; null without any.
    query_p99_seconds,
    /// Accepted events that were not in the lake yet, at the end.
    live_rows,
    /// Bytes of the wal, at the end.
    wal_bytes,
    /// Bytes of the lake's data files, at the end.
    lake_bytes,
    /// Bytes of the rejected events that were kept, at the end.
    rejected_bytes,
    /// Bytes of the disk that this process could still take, at the end.
    disk_free_bytes,
    /// Resident memory, at the end.
    memory_bytes,
}

impl Sample {
    /// What was counted from one moment to another.
    pub(super) fn between(began: &Counted, ended: &Counted) -> Self {
        let seconds = ended.seconds_since(began);
        let rate = |began: f64, ended: f64| if seconds > 0.0 { round((ended - began).max(0.0) / seconds) } else { 0.0 };
        let (answers, queries) = (ended.answers.since(&began.answers), ended.queries.since(&began.queries));
        Self {
            at: ended.at,
            accepted_per_second: rate(began.accepted, ended.accepted),
            duplicates_per_second: rate(began.duplicates, ended.duplicates),
            rejected_per_second: rate(began.rejected, ended.rejected),
            failed_per_second: rate(began.failed, ended.failed),
            turned_away_per_second: rate(began.turned_away, ended.turned_away),
            batches_per_second: rate(0.0, answers.count()),
            answer_p50_seconds: answers.quantile(0.5).map_or(f64::NAN, round),
            answer_p99_seconds: answers.quantile(0.99).map_or(f64::NAN, round),
            queries_per_second: rate(0.0, queries.count()),
            query_p99_seconds: queries.quantile(0.99).map_or(f64::NAN, round),
            live_rows: ended.live_rows,
            wal_bytes: ended.wal_bytes,
            lake_bytes: ended.lake_bytes,
            rejected_bytes: ended.rejected_bytes,
            disk_free_bytes: ended.disk_free_bytes,
            memory_bytes: ended.memory_bytes,
        }
    }
}

fn as_time<S: Serializer>(at: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&event::format_time(*at))
}

/// To a millionth: more says nothing.
fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
