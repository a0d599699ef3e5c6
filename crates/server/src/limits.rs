//! Every bound on what comes from outside, as data: `docs/LIMITS.md` is made of it.

use crate::code::Code;

/// One bound.
struct Limit {
    what: &'static str,
    key: &'static str,
    code: Answer,
}

/// What goes beyond it gets.
enum Answer {
    /// The whole request is turned away.
    Turned(Code),
    /// The event is rejected alone; the others stay.
    Rejected(event::Code),
    /// Something that has no code.
    Words(&'static str),
}

const LIMITS: &[Limit] = &[
    Limit {
        what: "Body of a request, also after decompression",
        key: "http.body_bytes_max",
        code: Answer::Turned(Code::BodyTooLarge),
    },
    Limit {
        what: "Waiting for the end of a body, or for 256 bytes a second of it",
        key: "http.body_stall_seconds",
        code: Answer::Turned(Code::BodyTimeout),
    },
    Limit {
        what: "Time for the head of a request",
        key: "http.head_seconds",
        code: Answer::Words("the connection is closed"),
    },
    Limit {
        what: "Time until the head of an answer",
        key: "http.request_seconds",
        code: Answer::Turned(Code::TimedOut),
    },
    Limit {
        what: "Pause of a client that reads its answer",
        key: "http.write_stall_seconds",
        code: Answer::Words("the connection is closed"),
    },
    Limit {
        what: "Open connections",
        key: "http.connections_max",
        code: Answer::Words("the connection is closed, without TLS after 503 with `Retry-After` (64 at once)"),
    },
    Limit {
        what: "Requests at once of a connection of HTTP/2",
        key: "http.streams_max",
        code: Answer::Words(
            "the next waits; beside the first of each connection all have `http.connections_max` together, one more is 503 with `Retry-After`",
        ),
    },
    Limit {
        what: "Unknown tokens from one address in a minute",
        key: "auth.failures_per_minute_max",
        code: Answer::Turned(Code::TooManyFailures),
    },
    Limit {
        what: "Events of a sensor in a second",
        key: "quotas.events_per_second",
        code: Answer::Turned(Code::QuotaExceeded),
    },
    Limit {
        what: "Bytes of a sensor in a second",
        key: "quotas.bytes_per_second",
        code: Answer::Turned(Code::QuotaExceeded),
    },
    Limit {
        what: "Bytes of all requests in flight",
        key: "ingest.in_flight_bytes_max",
        code: Answer::Turned(Code::InFlightFull),
    },
    Limit { what: "Events of a batch", key: "events.batch_events_max", code: Answer::Turned(Code::TooManyEvents) },
    Limit { what: "One event", key: "events.event_bytes_max", code: Answer::Rejected(event::Code::EventTooLarge) },
    Limit {
        what: "Nesting of an event",
        key: "events.nesting_max",
        code: Answer::Rejected(event::Code::NestingTooDeep),
    },
    Limit {
        what: "Live rows, when sealing is behind",
        key: "seal.live_bytes_max",
        code: Answer::Turned(Code::SealBehind),
    },
    Limit {
        what: "Answers remembered of requests with an `Idempotency-Key`",
        key: "window.answers_bytes_max",
        code: Answer::Words("the oldest are forgotten; `Catchment-Idempotency-Window` says how long they are known"),
    },
    Limit {
        what: "Rejected events that are kept",
        key: "rejected.bytes_max",
        code: Answer::Words("the oldest of the sensor that holds most go, down to an equal share"),
    },
    Limit {
        what: "Bytes kept of a rejected event",
        key: "rejected.event_bytes_max",
        code: Answer::Words("cut, and said so in `cut`"),
    },
    Limit {
        what: "Entries of the audit",
        key: "audit.entries_max",
        code: Answer::Words("the oldest of the token that has most go, and `audit.trim` says so"),
    },
    Limit { what: "Age of an entry of the audit", key: "audit.age_seconds", code: Answer::Words("it goes") },
    Limit {
        what: "Requests that wait to be collected as events",
        key: "request_log.waiting_bytes_max",
        code: Answer::Words("they are left out of the request log, and counted"),
    },
    Limit {
        what: "Fields of `data` with a column of their own",
        key: "fields.columns_max",
        code: Answer::Words("further ones are read from the text"),
    },
    Limit { what: "Text of a query", key: "query.bytes_max", code: Answer::Turned(Code::QueryTooLarge) },
    Limit { what: "Queries at once", key: "query.concurrent_max", code: Answer::Turned(Code::TooManyQueries) },
    Limit { what: "Time of a query", key: "query.timeout_seconds_max", code: Answer::Turned(Code::QueryTimeout) },
    Limit { what: "Memory of all queries", key: "query.memory_bytes_max", code: Answer::Turned(Code::QueryTooLarge) },
    Limit { what: "Disk of all queries", key: "query.spill_bytes_max", code: Answer::Turned(Code::QueryTooLarge) },
    Limit {
        what: "Rows of an answer",
        key: "query.rows_max",
        code: Answer::Words("JSON: `truncated` is true; in other formats the answer ends abnormally"),
    },
];

/// The table of all bounds in Markdown; `default_of` gives the default of a key.
pub fn limits_table(default_of: impl Fn(&str) -> String) -> String {
    let mut table = String::from("| limit | key | default | beyond it |\n|---|---|---|---|\n");
    for limit in LIMITS {
        let beyond = match &limit.code {
            Answer::Turned(code) => format!("{} `{}`", code.status().as_u16(), code.name()),
            Answer::Rejected(code) => format!("rejected alone: `{}`", code.name()),
            Answer::Words(words) => (*words).to_owned(),
        };
        table += &format!("| {} | `{}` | {} | {beyond} |\n", limit.what, limit.key, default_of(limit.key));
    }
    table
}
