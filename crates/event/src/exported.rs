//! Events of an export, which a collector had accepted before: one a line, with every column that makes the event.
//!
//! It promises that what [`read_exported`] makes of the line of an event is that event again, byte for byte, with its sensor and its times; and
//! that a line with anything that it would have to leave out is a rejection. The position is read over: it is given anew.

use crate::code::Code;
use crate::columns::{CloudRow, Origin, Row};
use crate::fields::FieldNames;
use crate::framing::Framing;
use crate::json::unescaped;
use crate::key::{Key, content_hash};
use crate::read::{Batch, Limits, ReadError, ReadOptions, Reader, Refusal, refusal};
use crate::time::{self, shortened};
use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::record_batch::RecordBatch;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

/// What a line may have, in the order in which it is written. What is null in the table is left out.
pub const EXPORTED: [&str; 13] = [
    "position",
    "id",
    "sensor",
    "source",
    "type",
    "subject",
    "time",
    "received_at",
    "content_type",
    "attributes",
    "data",
    "data_text",
    "data_base64",
];
const POSITION: usize = 0;
const ID: usize = 1;
const SENSOR: usize = 2;
const SOURCE: usize = 3;
const TYPE: usize = 4;
const SUBJECT: usize = 5;
const TIME: usize = 6;
const RECEIVED_AT: usize = 7;
const CONTENT_TYPE: usize = 8;
const ATTRIBUTES: usize = 9;
const DATA: usize = 10;
const TEXT: usize = 11;
const BASE64: usize = 12;

/// So begin ids of the collector's own events, of which there are those of its requests.
const OWN_PREFIX: &str = "catchment.";
const OWN_REQUESTS: &str = "catchment.requests";
/// Ids of sensors are no longer.
const SENSOR_BYTES_MAX: usize = 128;
/// A time of receipt is a day of the table: not before 1970.
const RECEIVED_MIN: i64 = 0;

/// Reads lines of an export. The key of each row tells it from other events by sensor, source, id and time.
///
/// `received_since` is the time of receipt before which this collector keeps nothing.
///
/// # Errors
/// [`ReadError::TooManyEvents`]: each line stands for itself.
pub fn read_exported(body: &[u8], received_since: Option<i64>, limits: &Limits) -> Result<Batch, ReadError> {
    // Data lies one level deeper than where it was sent by itself, and a line is longer than its event.
    let bytes_max = limits.event_bytes_max;
    let limits = Limits { event_bytes_max: usize::MAX, nesting_max: limits.nesting_max + 1, ..limits.clone() };
    let fields = FieldNames::default();
    let options = ReadOptions { sensor: "", received_at: 0, fields, time_zone: None, limits };
    let mut reader = Reader::new(body, &Framing::Ndjson, &options)?;
    let bounds = Bounds { bytes_max, received_since };
    reader.lines(body, |reader, line| reader.exported(line, &bounds))?;
    Ok(reader.finish())
}

struct Bounds {
    bytes_max: usize,
    received_since: Option<i64>,
}

/// The values of a line as texts of JSON, in the order of [`EXPORTED`].
struct Line<'a>([Option<&'a str>; EXPORTED.len()]);

impl<'a> Line<'a> {
    fn refused(at: usize, reason: &str) -> Refusal {
        refusal(Code::NotExported, Some(&format!("/{}", EXPORTED[at])), format!("`{}` {reason}", EXPORTED[at]))
    }

    /// A text, or none: where it is left out or null.
    fn text(&self, at: usize) -> Result<Option<Cow<'a, str>>, Refusal> {
        match self.0[at] {
            None | Some("null") => Ok(None),
            Some(quoted) if quoted.starts_with('"') => Ok(Some(unescaped(quoted))),
            Some(_) => Err(Self::refused(at, "is not a string")),
        }
    }

    fn given(&self, at: usize) -> Result<Cow<'a, str>, Refusal> {
        self.text(at)?.ok_or_else(|| Self::refused(at, "is missing: a line of an export has it"))
    }

    fn time(&self, at: usize) -> Result<i64, Refusal> {
        time::read_rfc3339(&self.given(at)?)
            .map_err(|error| refusal(Code::InvalidTime, Some(&format!("/{}", EXPORTED[at])), error.to_string()))
    }

    /// An object as its text.
    fn object(&self, at: usize) -> Result<Option<&'a str>, Refusal> {
        match self.0[at] {
            None | Some("null") => Ok(None),
            Some(object) if object.starts_with('{') => Ok(Some(object)),
            Some(_) => Err(Self::refused(at, "is not an object")),
        }
    }
}

impl Reader<'_> {
    fn exported(&mut self, line: &[u8], bounds: &Bounds) -> Result<(), Refusal> {
        let line = self.line(line)?;
        let (id, sensor, source) = (line.given(ID)?, line.given(SENSOR)?, line.given(SOURCE)?);
        if id.is_empty() {
            return Err(refusal(Code::InvalidId, Some("/id"), "the id is empty"));
        }
        let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let is_id = (1..=SENSOR_BYTES_MAX).contains(&sensor.len())
            && sensor.bytes().all(is_plain)
            && sensor.bytes().any(|byte| byte.is_ascii_alphanumeric())
            && !(sensor.starts_with('-') || sensor.ends_with('-'));
        if !is_id || (sensor.starts_with(OWN_PREFIX) && sensor != OWN_REQUESTS) {
            return Err(Line::refused(
                SENSOR,
                "is no id of a sensor: it has 1 to 128 of a-z, 0-9, dot, underscore, hyphen, a letter or digit, no hyphen at its ends, and does not begin with catchment.",
            ));
        }
        let (event_type, subject) = (line.given(TYPE)?, line.text(SUBJECT)?);
        let (time, received_at) = (line.time(TIME)?, line.time(RECEIVED_AT)?);
        bounds.check_receipt(received_at)?;
        let (content_type, attributes) = (line.text(CONTENT_TYPE)?, line.object(ATTRIBUTES)?);
        let text = self.data_text(&line)?;
        let bytes = match line.text(BASE64)? {
            None => None,
            Some(_) if text.is_some() => {
                return Err(refusal(Code::BothData, Some("/data_base64"), "the event has JSON and bytes as its data"));
            }
            Some(base64) => Some(STANDARD.decode(base64.as_bytes()).map_err(|error| {
                refusal(Code::InvalidBase64, Some("/data_base64"), format!("`data_base64` is not Base64: {error}"))
            })?),
        };
        let others = [&id, &sensor, &source, &event_type].map(|text| text.len()).iter().sum::<usize>()
            + [&subject, &content_type].map(|text| text.as_ref().map_or(0, |text| text.len())).iter().sum::<usize>()
            + attributes.map_or(0, str::len);
        bounds.check_size(
            text.as_ref().map_or(0, |text| text.len()).max(bytes.as_ref().map_or(0, Vec::len)).max(others),
        )?;
        let row =
            Row { id: Some(&id), event_type: &event_type, subject: subject.as_deref(), time, data: text.as_deref() };
        let (content_type, data_binary) = (content_type.as_deref(), bytes.as_deref());
        let cloud = CloudRow { source: &source, content_type, attributes, data_binary };
        self.keys.push(Some(key_of(&sensor, &row, &cloud)));
        self.columns.push_exported(&row, &cloud, &Origin { sensor: &sensor, received_at });
        Ok(())
    }

    /// The values of a line, each of which is known and there once.
    fn line<'t>(&self, line: &'t [u8]) -> Result<Line<'t>, Refusal> {
        let text = self.checked_text(line)?;
        let (mut values, mut flaw) = ([None; EXPORTED.len()], None);
        self.scan(text, |key, span| {
            let name = unescaped(std::str::from_utf8(key).unwrap_or("\"\""));
            let known = EXPORTED.iter().position(|known| *known == name);
            let is_first = known.is_some_and(|at| values[at].replace(&text[span]).is_none());
            if !is_first {
                let why = if known.is_some() { "is there twice" } else { "is none of an export's" };
                let name = shortened(&name);
                let reason = format!("`{name}` {why}: import lines as `catchment export` writes them");
                flaw.get_or_insert_with(|| refusal(Code::NotExported, Some(&format!("/{name}")), reason));
            }
        })?;
        match flaw {
            Some(flaw) => Err(flaw),
            None if values[POSITION].is_some_and(|position| position.parse::<u64>().is_err()) => {
                Err(Line::refused(POSITION, "is no position"))
            }
            None => Ok(Line(values)),
        }
    }

    /// The JSON of an event, as it stands in the line or as the text that it was sent as.
    fn data_text<'t>(&self, line: &Line<'t>) -> Result<Option<Cow<'t, str>>, Refusal> {
        let Some(text) = line.text(TEXT)? else { return Ok(line.0[DATA].map(Cow::Borrowed)) };
        if line.0[DATA].is_some() {
            return Err(refusal(Code::BothData, Some("/data_text"), "the event has `data` and `data_text`"));
        }
        // What is kept begins and ends with its value.
        let whole = text.trim_ascii().len() == text.len();
        let checked = self.json_text(text.as_bytes()).map(drop);
        if !whole {
            return Err(Line::refused(TEXT, "has blanks around its value"));
        }
        checked.map(|()| Some(text))
    }
}

impl Bounds {
    fn check_receipt(&self, received_at: i64) -> Result<(), Refusal> {
        if received_at < RECEIVED_MIN {
            let reason = format!("`received_at` {} is before 1970", time::format_time(received_at));
            return Err(refusal(Code::InvalidTime, Some("/received_at"), reason));
        }
        match self.received_since {
            Some(since) if received_at < since => {
                let (received_at, since) = (time::format_time(received_at), time::format_time(since));
                let reason =
                    format!("it was received at {received_at}, and this collector keeps no events from before {since}");
                Err(refusal(Code::TooOld, Some("/received_at"), reason))
            }
            _ => Ok(()),
        }
    }

    fn check_size(&self, bytes: usize) -> Result<(), Refusal> {
        if bytes <= self.bytes_max {
            return Ok(());
        }
        let reason = format!("the event has {bytes} bytes, at most {} are allowed", self.bytes_max);
        Err(refusal(Code::EventTooLarge, None, reason))
    }
}

/// What tells an event from others: by sensor, source, id and time which it is, by all the rest whether it is the same.
fn key_of(sensor: &str, row: &Row<'_>, cloud: &CloudRow<'_>) -> Key {
    let time = row.time.to_le_bytes();
    let identity = [sensor, cloud.source, row.id.unwrap_or_default()].map(str::as_bytes);
    let id = content_hash(&[identity[0], identity[1], identity[2], &time]);
    let [subject, content_type, attributes, data] =
        [row.subject, cloud.content_type, cloud.attributes, row.data].map(|text| text.map(str::as_bytes));
    // Null and empty are told apart by how many parts there are.
    let parts = [subject, content_type, attributes, data, cloud.data_binary];
    let present: Vec<u8> = parts.iter().map(|part| u8::from(part.is_some())).collect();
    let mut content = vec![row.event_type.as_bytes(), &present];
    content.extend(parts.into_iter().flatten());
    Key { id, content: content_hash(&content) as u64 }
}

/// The keys of stored events as [`read_exported`] gives them: `rows` has at least the columns id, sensor, source, type, subject, time,
/// content_type, attributes, data and data_binary of the table.
///
/// # Panics
/// When the rows are of another table.
pub fn stored_keys(rows: &RecordBatch) -> Vec<Key> {
    let column = |name: &str| rows.column_by_name(name).expect("a column of the table");
    let texts = |name: &str| column(name).as_string::<i32>();
    let [id, sensor, source, event_type, subject, content_type, attributes, data] =
        ["id", "sensor", "source", "type", "subject", "content_type", "attributes", "data"].map(texts);
    let (time, binary) =
        (column("time").as_primitive::<TimestampMicrosecondType>(), column("data_binary").as_binary::<i32>());
    let key = |n: usize| {
        let some = |texts: &'_ arrow::array::StringArray| texts.is_valid(n);
        let row = Row {
            id: Some(id.value(n)),
            event_type: event_type.value(n),
            subject: some(subject).then(|| subject.value(n)),
            time: time.value(n),
            data: some(data).then(|| data.value(n)),
        };
        let cloud = CloudRow {
            source: source.value(n),
            content_type: some(content_type).then(|| content_type.value(n)),
            attributes: some(attributes).then(|| attributes.value(n)),
            data_binary: binary.is_valid(n).then(|| binary.value(n)),
        };
        key_of(sensor.value(n), &row, &cloud)
    };
    (0..rows.num_rows()).map(key).collect()
}

impl Batch {
    /// The ids of its rows with the times of the events, in microseconds since the epoch, and their sensors.
    ///
    /// # Panics
    /// When it has a row without an id: those of an export have one each.
    pub fn identities(&self) -> impl Iterator<Item = (&str, i64, &str)> {
        let column = |name: &str| self.columns.column_by_name(name).expect("a column of the table");
        let (ids, sensors) = (column("id").as_string::<i32>(), column("sensor").as_string::<i32>());
        let times = column("time").as_primitive::<TimestampMicrosecondType>();
        (0..self.columns.num_rows()).map(move |n| (ids.value(n), times.value(n), sensors.value(n)))
    }

    /// Lets go of the rows that do not stay, which are counted elsewhere, and of all keys: these events were told apart already.
    ///
    /// # Panics
    /// When there is not one entry for each row.
    pub fn keep(&mut self, stays: &[bool]) {
        if stays.contains(&false) {
            let stays: BooleanArray = stays.iter().copied().map(Some).collect();
            self.columns = filter_record_batch(&self.columns, &stays).expect("one entry for each row");
        }
        self.keys = vec![None; self.columns.num_rows()];
        self.received = self.columns.num_rows() as u64 + self.rejected_total;
    }
}

#[cfg(test)]
mod tests;
