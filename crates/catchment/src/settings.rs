//! What Catchment can be told, each key with its default, its range and its meaning.

use nowwhat::config::{ByteSize, Seconds, Secret, Value};
use server::Origin;
use std::path::PathBuf;

/// A field of `data`: the names on the way to it, joined by points.
#[derive(Clone, Debug)]
pub(crate) struct FieldPath(String);

impl FieldPath {
    pub(crate) fn text(&self) -> String {
        self.0.clone()
    }
}

impl Value for FieldPath {
    const EXPECTED: &'static str = "a field of data such as temperature or battery.level: names of letters, digits and underscores, joined by points";

    fn parse(text: &str) -> Option<Self> {
        text.split('.').all(engine::is_name).then(|| Self(text.to_owned()))
    }
}

nowwhat::settings! {
    /// The settings of `catchment serve`, beside those that every service has.
    pub(crate) struct Settings {
        /// Where everything is kept.
        data: Data {
            /// The data folder: wal, lake, registry, admin token, addresses. Its path has no `%` before two hexadecimal digits, no backslash and no control character.
            dir: PathBuf = "data";
            /// With less free on its disk events are answered 503 `storage_full`, so that reading, sealing, retention and erasing go on. 0: they are taken until the disk is full.
            free_bytes_min: ByteSize = "256MiB";
        }
        /// Who may come in.
        auth: Auth {
            /// The admin token, at least 32 characters. Without it one is made at the first start, in `<data dir>/admin.token`.
            admin_token: Option<Secret> = "", reload;
            /// Unknown tokens that one address may try in a minute; further ones are 429 for the rest of the minute, and of those that could be guessed ten a second are looked at. Valid tokens that were made by the collector always pass.
            failures_per_minute_max: u32 = "10", range "1".."1000000";
        }
        /// The record of who changed what, `GET /api/v1/audit`.
        audit: Audit {
            /// Entries that are kept; beyond it the oldest of the token that has most go.
            entries_max: u64 = "1000000", range "100".."100000000";
            /// They are kept this long.
            age_seconds: Seconds = "365d", range "1d".."3650d";
        }
        /// The request log as events: `SELECT * FROM events WHERE sensor = 'catchment.requests'`.
        request_log: RequestLog {
            /// Whether each request of the public listener becomes an event. Whoever may ask in SQL reads them: who asked what, and from where.
            collect: bool = "false";
            /// Bytes of requests that wait to be stored; beyond it further ones are left out, and counted.
            waiting_bytes_max: ByteSize = "4MiB", range "1KiB".."256MiB";
        }
        /// Pages of other origins that send events (CORS).
        cors: Cors {
            /// Origins whose pages may send: https://app.example.com, with its port where it has one, or * for any. Without one no page of another origin can.
            allow_origins: Vec<Origin> = "";
        }
        /// What an event may be.
        events: Events {
            /// Largest single event; a larger one is rejected alone.
            event_bytes_max: ByteSize = "1MiB", range "1KiB".."64MiB";
            /// Deepest nesting of an event's JSON.
            nesting_max: usize = "128", range "8".."1024";
            /// Most events in one batch; more are answered 413.
            batch_events_max: usize = "500000", range "1".."2000000";
        }
        /// The way in: budget, groups, wal.
        ingest: Ingest {
            /// Bytes of requests between their first byte and their answer; beyond it 503.
            in_flight_bytes_max: ByteSize = "128MiB", range "1MiB".."16GiB";
            /// A group that shares one sync takes no further batch beyond this.
            group_bytes_max: ByteSize = "4MiB", range "64KiB".."64MiB";
            /// Size of one wal segment.
            segment_bytes: ByteSize = "64MiB", range "1MiB".."1GiB";
            /// A group waits this long for a seal to make room, then is answered 503.
            room_wait_seconds: Seconds = "5s", range "1s".."1m";
        }
        /// Duplicates: how long keys are remembered.
        window: Window {
            /// Keys are forgotten after this long.
            seconds: Seconds = "10m", range "1s".."1d";
            /// At most this many keys are remembered.
            keys_max: usize = "2000000", range "1".."20000000";
            /// Memory of the answers remembered for requests with an `Idempotency-Key`, as long as keys or until it is full.
            answers_bytes_max: ByteSize = "16MiB", range "64KiB".."4GiB";
        }
        /// How much a sensor may send at most, unless it has a quota of its own (`PATCH /api/v1/sensors/{id}`); beyond it 429.
        quotas: Quotas {
            /// Events of a sensor in a second; empty for no quota.
            events_per_second: Option<u64> = "", range "1".."1000000000000", reload;
            /// Bytes of a sensor's bodies in a second, as they are sent (compressed, when they are); empty for no quota.
            bytes_per_second: Option<ByteSize> = "", range "1".."1TB", reload;
            /// How much may come at once: what comes in this time.
            burst_seconds: Seconds = "10s", range "1s".."1d", reload;
        }
        /// Rejected events, kept to be read again, mended and sent again.
        rejected: Rejected {
            /// Bytes of all of them; beyond it the oldest of the sensor that holds most go.
            bytes_max: ByteSize = "256MiB", range "1MiB".."64GiB";
            /// They are kept this long.
            age_seconds: Seconds = "30d", range "1m".."365d";
            /// Bytes that are kept of one event; longer ones are cut.
            event_bytes_max: ByteSize = "64KiB", range "1KiB".."16MiB";
        }
        /// Live rows and when they go to the lake.
        seal: Seal {
            /// Bound of the live rows in memory.
            live_bytes_max: ByteSize = "128MiB", range "8MiB".."16GiB";
            /// Live rows of this size are sealed.
            bytes: ByteSize = "64MiB", range "1MiB".."8GiB";
            /// Live rows of this age are sealed.
            age_seconds: Seconds = "30s", range "1s".."1h";
        }
        /// Which fields of `data` get a column of their own in the lake, which makes questions about them fast. All others are answered from the text. A column that is there stays.
        fields: Fields {
            /// Most columns.
            columns_max: usize = "256", range "0".."1000";
            /// Only these fields and what lies under them get one, as in temperature, battery.level; empty for all.
            allow: Vec<FieldPath> = "";
            /// These fields and what lies under them get none.
            deny: Vec<FieldPath> = "";
        }
        /// How long events stay; without a limit they stay for ever. The oldest go first, by when they were received, a file at a time: up to an hour later.
        retention: Retention {
            /// Events go that were received longer ago; empty keeps them for ever.
            age_seconds: Option<Seconds> = "", range "1h".."36500d";
            /// Bytes of the lake's data files: beyond it the oldest events go; empty for no limit.
            bytes_max: Option<ByteSize> = "", range "1MiB".."1000TiB";
        }
        /// Questions.
        query: Query {
            /// Threads for queries, at lower priority than the way in.
            threads: usize = "2", range "1".."256";
            /// Memory of all running queries.
            memory_bytes_max: ByteSize = "192MiB", range "16MiB".."64GiB";
            /// Disk that queries may use when memory does not suffice.
            spill_bytes_max: ByteSize = "1GiB", range "0".."1TiB";
            /// Queries at the same time.
            concurrent_max: usize = "8", range "1".."1000";
            /// A further query waits this long for its turn, then is answered 429.
            wait_seconds: Seconds = "2s", range "0s".."1m";
            /// Time limit of a query that asks for none.
            timeout_seconds: Seconds = "30s", range "1s".."1h";
            /// Largest time limit a query may ask for.
            timeout_seconds_max: Seconds = "10m", range "1s".."1d";
            /// Most rows in an answer; `truncated` says when there were more.
            rows_max: u64 = "1000000", range "1".."1000000000";
            /// Largest text of a query.
            bytes_max: ByteSize = "256KiB", range "1KiB".."8MiB";
        }
    }
}
