//! What an event is, and how the body of a request becomes events.
//!
//! # What it promises
//!
//! - `data` is the text as it was sent, byte for byte; nothing is parsed into numbers and printed again.
//! - Every event read ends as a row or as a [`Rejection`] with a stable [`Code`], a place and a sentence that says what to do:
//!   `received = rows + rejected_total`, always.
//! - Only JSON by RFC 8259 in valid UTF-8 becomes a row. A time that is there and cannot be read rejects its event.
//!
//! # What it does not do
//!
//! No I/O, no async, no clock: the time of receipt is given. It gives no positions and makes no ids; the engine does.
//!
//! Reading order: [`events_schema`] the columns, [`read()`] a body, `json` the scanner under it, `plain` and `cloud` what
//! an event is, `time`, `key`, [`decompress()`]; [`Fields`] which fields of `data` are columns as well, [`Splitter`] how,
//! [`SeenFields`] which there are;
//! [`read_exported`] the events of an export.

mod cloud;
mod code;
mod columns;
mod decompress;
mod exported;
mod field;
mod fields;
mod framing;
mod header;
mod json;
mod key;
mod plain;
mod read;
mod schema;
mod seen;
mod split;
mod time;

pub use code::{Code, Rejection};
pub use decompress::{ContentEncoding, DecompressError, UnknownEncoding, decompress, encodings_of};
pub use exported::{EXPORTED, read_exported, stored_keys};
pub use field::{FIELDS, Field, FieldRules, Fields, Kind, REST, WHOLE, column_of, is_name};
pub use fields::{BadPointer, FieldNames};
pub use framing::{Framing, Headers, UnsupportedMediaType, framing_of};
pub use jiff::tz::TimeZone;
pub use key::{BadKeys, Key, content_hash, keys_from_bytes, keys_to_bytes, made_id};
pub use read::{Batch, Limits, ReadError, ReadOptions, columns_bytes_max, read};
pub use schema::{batch_schema, data_of, events_schema, types_of};
pub use seen::{SeenFields, ValueKinds};
pub use split::{Split, Splitter};
pub use time::{TimeError, format_time, parse_time, time_zone};
