//! How the collector is, and how it was.

use super::operation::{Described, text};
use crate::authorisation::Act;
use crate::code::Code;
use crate::handlers::overview::Parameters;
use crate::overview::{History, State};
use serde_json::{Value, json};

pub(super) fn described(act: Act) -> Described {
    match act {
        Act::ReadOverview => Described::of(act, "What the metrics say, looked at once a second.")
            .json_answer::<State>(200, "How it is.", state())
            .error(Code::Stopping),
        Act::FollowOverview => {
            let told = format!("data: {}\n\n", state());
            Described::of(act, "Server-sent events, without an end: what `GET /api/v1/overview` answers, each second.")
                .answer(200, "How it is, each second.", [("text/event-stream", text(&told))])
                .errors(&[Code::InvalidParameter, Code::TooManyQueries])
        }
        _ => {
            let about = "Kept in memory since the start, for 30 days at most: the last quarter of an hour by seconds, and the further back, the longer are the \
                         steps. Events over time are asked in SQL.";
            let example = json!({
                "step_seconds": 15, "columns": ["at", "accepted_per_second"], "rows": [["2026-01-31T12:00:00Z", 812.4]],
            });
            Described::of(act, about)
                .query::<Parameters>()
                .json_answer::<History>(200, "How it was.", example)
                .error(Code::InFlightFull)
        }
    }
}

fn state() -> Value {
    json!({
        "at": "2026-01-31T12:00:00.123456Z", "version": "0.1.0", "commit": "1fee629", "environment": "prod",
        "started_at": "2026-01-30T08:00:00Z",
        "health": {
            "ready": true, "reasons": [],
            "checks": [{ "check": "wal", "status": "pass", "seconds": 0.000_01 }],
        },
        "events": {
            "received_total": 1010, "accepted_total": 1000, "duplicates_total": 7, "rejected_total": 3, "failed_total": 0,
            "sealed": 900, "live": 100, "last_position": 1000,
        },
        "sensors": { "registered": 12, "seen_within_5m": 11 },
        "storage": {
            "lake_bytes": 123_456, "lake_files": 3, "wal_bytes": 65_536, "rejected_bytes": 321,
            "disk_free_bytes": 80_000_000_000_u64, "disk_bytes": 100_000_000_000_u64,
        },
        "memory": { "resident_bytes": 120_000_000, "bound_bytes": 1_094_713_344 },
        "last": {
            "at": "2026-01-31T12:00:00.123456Z", "accepted_per_second": 812.4, "duplicates_per_second": 0.0,
            "rejected_per_second": 0.0, "failed_per_second": 0.0, "turned_away_per_second": 0.0, "batches_per_second": 20.5,
            "answer_p50_seconds": 0.0012, "answer_p99_seconds": 0.0031, "queries_per_second": 0.0, "query_p99_seconds": null,
            "live_rows": 100.0, "wal_bytes": 65536.0, "lake_bytes": 123456.0, "rejected_bytes": 321.0,
            "disk_free_bytes": 80_000_000_000.0, "memory_bytes": 120_000_000.0,
        },
    })
}
