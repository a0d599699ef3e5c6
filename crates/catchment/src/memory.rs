//! The bound of memory, computed from the settings.

use crate::settings::Settings;
use nowwhat::Foundation;
use nowwhat::config::ByteSize;

/// One part of the bound.
pub(crate) struct Part {
    pub(crate) what: &'static str,
    pub(crate) bytes: u64,
}

/// An entry of the window of keys: 40 bytes, and up to 10 of each of its two indexes.
const KEY_BYTES: u64 = 60;
/// No event with an id is shorter: `{"id":"1","type":"","data":1}`.
const KEYED_EVENT_BYTES_MIN: usize = 30;
/// The program itself, SQLite, the list of the lake's files, and what the allocator keeps.
const PROGRAM_BYTES: u64 = 96 << 20;
/// An open connection between two requests: 25 KiB as measured, with buffers for reading and writing of 8 KiB each.
const CONNECTION_BYTES: u64 = 32 << 10;
/// A request of which the body comes, or the answer goes, without the bytes of either: 11 KiB as measured over HTTP/2.
const REQUEST_BYTES: u64 = 12 << 10;
/// The files of one seal while they are encoded.
const SEAL_BYTES: u64 = 64 << 20;
/// What the column of a field takes beside its values while a file is written.
const COLUMN_BYTES: u64 = 128 << 10;

/// Small data files while they are put together: of each a page a column and some rows, and one row group of what is written.
const COMPACTION_BYTES: u64 = 96 << 20;

/// The parts, each with its key.
pub(crate) fn parts(settings: &Settings, foundation: &Foundation) -> Vec<Part> {
    let part = |what, bytes| Part { what, bytes };
    vec![
        part(
            "requests in flight, times 2.5: ingest.in_flight_bytes_max",
            settings.ingest.in_flight_bytes_max.0 / 2 * 5,
        ),
        part(
            "live rows: seal.live_bytes_max, or one group that is larger",
            settings
                .seal
                .live_bytes_max
                .0
                .max(settings.ingest.in_flight_bytes_max.0 + settings.ingest.group_bytes_max.0),
        ),
        part("files of one seal: fields.columns_max", SEAL_BYTES + settings.fields.columns_max as u64 * COLUMN_BYTES),
        part("data files that are put together", COMPACTION_BYTES),
        part(
            "remembered keys: window.keys_max, and those of one group",
            (settings.window.keys_max + group_keys_max(settings)) as u64 * KEY_BYTES,
        ),
        part("remembered answers: window.answers_bytes_max", settings.window.answers_bytes_max.0),
        part("quotas and rates of sensors", server::QUOTAS_BYTES_MAX),
        part("remembered tokens, and who was seen", registry::REGISTRY_BYTES_MAX),
        part("pages and followed events on their way to their readers", server::PAGES_BYTES_MAX),
        part("requests that wait to be collected: request_log.waiting_bytes_max", collected_bytes(settings)),
        part("queries: query.memory_bytes_max", settings.query.memory_bytes_max.0),
        part("open connections: http.connections_max", foundation.http.connections_max as u64 * CONNECTION_BYTES),
        // One of each connection, and as many beside them.
        part("open requests: http.connections_max", 2 * foundation.http.connections_max as u64 * REQUEST_BYTES),
        part("the program itself", PROGRAM_BYTES),
    ]
}

/// The most keys that one group brings: a group takes no further batch beyond its bytes, so the last one may be of any size.
pub(crate) fn group_keys_max(settings: &Settings) -> usize {
    settings.events.batch_events_max + settings.ingest.group_bytes_max.0 as usize / KEYED_EVENT_BYTES_MIN
}

/// What the request log takes, when it is collected.
fn collected_bytes(settings: &Settings) -> u64 {
    if settings.request_log.collect { settings.request_log.waiting_bytes_max.0 } else { 0 }
}

/// The bound, rounded up to MiB.
pub(crate) fn bound(settings: &Settings, foundation: &Foundation) -> ByteSize {
    let bytes: u64 = parts(settings, foundation).iter().map(|part| part.bytes).sum();
    ByteSize(bytes.div_ceil(1 << 20) << 20)
}
