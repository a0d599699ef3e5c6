//! Reading a body: cut into events, each checked, taken apart and made a row or a rejection.

use crate::code::{Code, Rejection};
use crate::columns::Columns;
use crate::fields::{BadPointer, FieldNames, Pointer};
use crate::framing::Framing;
use crate::json::{Flaw, Scanner, SyntaxError, pointer_to};
use crate::key::Key;
use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::record_batch::RecordBatch;
use jiff::tz::TimeZone;
use std::ops::Range;

/// Bounds of what is read.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest event; a larger one is rejected alone.
    pub event_bytes_max: usize,
    /// Deepest nesting of an event.
    pub nesting_max: usize,
    /// Most events in a batch; more refuse the batch.
    pub batch_events_max: usize,
    /// Most rejections that are told one by one; all are counted.
    pub rejected_kept_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { event_bytes_max: 1 << 20, nesting_max: 128, batch_events_max: 500_000, rejected_kept_max: 1000 }
    }
}

/// What reading needs to know besides the body.
#[derive(Clone, Debug)]
pub struct ReadOptions<'a> {
    /// The sender.
    pub sensor: &'a str,
    /// Time of receipt, in microseconds since the epoch.
    pub received_at: i64,
    /// Which keys of plain JSON name type, time, id and subject.
    pub fields: FieldNames,
    /// The zone of times without one.
    pub time_zone: Option<TimeZone>,
    /// Bounds.
    pub limits: Limits,
}

/// A body, read.
#[derive(Clone, Debug)]
pub struct Batch {
    /// One row for each event that was not rejected, in order; see [`crate::batch_schema`].
    pub columns: RecordBatch,
    /// For each row: its key, when it came with an id.
    pub keys: Vec<Option<Key>>,
    /// Number of events read.
    pub received: u64,
    /// The first rejections.
    pub rejected: Vec<Rejection>,
    /// Number of all rejections: `received = rows + rejected_total`.
    pub rejected_total: u64,
}

impl Batch {
    /// Memory of the columns, keys and rejections.
    pub fn memory_bytes(&self) -> usize {
        let texts = |r: &Rejection| r.reason.capacity() + r.pointer.as_ref().map_or(0, String::capacity);
        let rejected =
            self.rejected.capacity() * size_of::<Rejection>() + self.rejected.iter().map(texts).sum::<usize>();
        self.columns.get_array_memory_size() + self.keys.capacity() * size_of::<Option<Key>>() + rejected
    }

    /// The newest time of its rows, in microseconds since the epoch; none without rows.
    pub fn newest_time_micros(&self) -> Option<i64> {
        let times = self.columns.column_by_name("time").expect("a batch has times");
        times.as_primitive::<TimestampMicrosecondType>().values().iter().copied().max()
    }
}

/// What a row takes besides its texts: offsets, times, an entry of the keys.
const ROW_BYTES: usize = 64 + size_of::<Option<Key>>();

/// The most memory that the columns and keys of a body take, told before it is read: its texts and those of its headers, and for each
/// event that it can hold the sensor's name and a row.
pub fn columns_bytes_max(body: &[u8], framing: &Framing<'_>, sensor_bytes: usize, limits: &Limits) -> usize {
    let of_headers = if let Framing::Binary(headers) = framing { headers.bytes_max() } else { 0 };
    body.len() + of_headers + rows_max(body, framing, limits) * (sensor_bytes + ROW_BYTES)
}

/// The most events that a body can hold: no more than it has lines and opening braces.
fn rows_max(body: &[u8], framing: &Framing<'_>, limits: &Limits) -> usize {
    if matches!(framing, Framing::CloudEvent | Framing::Binary(_)) {
        return 1;
    }
    let starts = memchr::memchr_iter(b'{', body).count();
    (starts + 1).min(body.len() / 2 + 1).min(limits.batch_events_max)
}

/// Whether a text is lines of events, and not one broken event on several lines: its first line is an event, or its second
/// begins like one. Objects inside an event that is laid out on lines are indented.
fn is_lines(text: &[u8]) -> bool {
    let mut lines = text.split(|b| *b == b'\n');
    let (Some(first), Some(second)) = (lines.next(), lines.find(|line| !line.trim_ascii().is_empty())) else {
        return false;
    };
    let mut scanner = Scanner::new(first, usize::MAX);
    (scanner.value().is_ok() && scanner.peek().is_none()) || second.starts_with(b"{")
}

/// Why a body as a whole cannot be read; nothing of it counts as received.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The text breaks off or is no JSON where it matters for finding the next event.
    #[error("the body is not JSON: expected {expected} at byte {offset}, after {received} events")]
    Syntax {
        /// Offset in the body, decompressed.
        offset: usize,
        /// What should be there.
        expected: &'static str,
        /// Events read before.
        received: u64,
    },
    /// More events than a batch may have.
    #[error("the batch has more than {events_max} events: split it")]
    TooManyEvents {
        /// The bound.
        events_max: usize,
    },
    /// A field parameter is no JSON pointer.
    #[error(transparent)]
    Pointer(#[from] BadPointer),
}

/// Reads a body into columns.
///
/// NDJSON never fails as a whole: each line stands for itself. A JSON text whose array breaks off fails as a whole.
///
/// # Errors
/// [`ReadError`].
pub fn read(body: &[u8], framing: Framing<'_>, options: &ReadOptions<'_>) -> Result<Batch, ReadError> {
    let mut reader = Reader::new(body, &framing, options)?;
    match framing {
        Framing::Ndjson => reader.lines(body, Reader::event)?,
        Framing::Json => reader.text(body)?,
        Framing::CloudEvent => reader.cloud_text(body)?,
        Framing::CloudEvents => reader.cloud_texts(body)?,
        Framing::Binary(headers) => {
            reader.count()?;
            reader.ended(body, |reader| reader.cloud_headers(&headers, body));
        }
    }
    Ok(reader.finish())
}

pub(crate) struct Reader<'a> {
    pub(crate) options: &'a ReadOptions<'a>,
    pub(crate) type_field: Option<Pointer>,
    pub(crate) time_field: Option<Pointer>,
    pub(crate) id_field: Option<Pointer>,
    pub(crate) subject_field: Option<Pointer>,
    pub(crate) columns: Columns,
    pub(crate) keys: Vec<Option<Key>>,
    /// Where the body begins in memory.
    body_start: usize,
    received: u64,
    rejected: Vec<Rejection>,
    rejected_total: u64,
}

/// Why one event is rejected.
pub(crate) struct Refusal {
    code: Code,
    pointer: Option<String>,
    reason: String,
}

/// Longer pointers are not told.
const POINTER_BYTES_MAX: usize = 1000;

/// A refusal. Names of the sender's may be of any length: a very long pointer is not told, and the caller has them [shortened] in the reason.
///
/// [shortened]: crate::time::shortened
pub(crate) fn refusal(code: Code, pointer: Option<&str>, reason: impl Into<String>) -> Refusal {
    // Cut, it would be one of another place.
    let pointer = pointer.filter(|pointer| pointer.len() <= POINTER_BYTES_MAX).map(str::to_owned);
    Refusal { code, pointer, reason: reason.into() }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(body: &[u8], framing: &Framing<'_>, options: &'a ReadOptions<'a>) -> Result<Self, ReadError> {
        let lines = memchr::memchr_iter(b'\n', body).count();
        let rows = (lines + 1).min(rows_max(body, framing, &options.limits));
        let fields = &options.fields;
        Ok(Self {
            options,
            type_field: Pointer::parse(&fields.type_field)?,
            time_field: Pointer::parse(&fields.time_field)?,
            id_field: Pointer::parse(&fields.id_field)?,
            subject_field: Pointer::parse(&fields.subject_field)?,
            columns: Columns::with_capacity(rows, body.len()),
            keys: Vec::with_capacity(rows),
            body_start: body.as_ptr() as usize,
            received: 0,
            rejected: Vec::new(),
            rejected_total: 0,
        })
    }

    pub(crate) fn finish(self) -> Batch {
        let columns = self.columns.finish(self.options.sensor, self.options.received_at);
        let Self { mut keys, received, rejected, rejected_total, .. } = self;
        keys.shrink_to_fit();
        debug_assert_eq!(received, columns.num_rows() as u64 + rejected_total);
        Batch { columns, keys, received, rejected, rejected_total }
    }

    /// One event a line, each of which stands for itself.
    pub(crate) fn lines(
        &mut self,
        body: &[u8],
        event: impl Fn(&mut Self, &[u8]) -> Result<(), Refusal>,
    ) -> Result<(), ReadError> {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', body).chain([body.len()]) {
            let line = body[start..end].trim_ascii();
            start = end + 1;
            if !line.is_empty() {
                self.count()?;
                self.ended(line, |reader| event(reader, line));
            }
        }
        Ok(())
    }

    /// One CloudEvent.
    fn cloud_text(&mut self, body: &[u8]) -> Result<(), ReadError> {
        let mut scanner = Scanner::new(body, usize::MAX);
        if scanner.peek().is_none() {
            return Err(self.broken(scanner.expected("an event: the body is empty, send a CloudEvent")));
        }
        self.count()?;
        let text = body.trim_ascii();
        self.ended(text, |reader| reader.cloud_event(text));
        Ok(())
    }

    /// An array of CloudEvents.
    fn cloud_texts(&mut self, body: &[u8]) -> Result<(), ReadError> {
        let mut scanner = Scanner::new(body, usize::MAX);
        match scanner.peek() {
            Some(b'[') => self.array(body, scanner, Self::cloud_event),
            _ => Err(self.broken(scanner.expected("an array of CloudEvents"))),
        }
    }

    /// One JSON text: an object, an array, or several objects one after another.
    fn text(&mut self, body: &[u8]) -> Result<(), ReadError> {
        let mut scanner = Scanner::new(body, usize::MAX);
        match scanner.peek() {
            None => {
                Err(self.broken(scanner.expected("an event: the body is empty, send an object or a list of objects")))
            }
            Some(b'[') => self.array(body, scanner, Self::event),
            Some(_) => {
                let start = scanner.at;
                let whole = scanner.value().is_ok() && scanner.peek().is_none();
                if !whole && body[start] == b'{' && is_lines(&body[start..]) {
                    return self.lines(body, Self::event);
                }
                self.count()?;
                self.alone(body.trim_ascii());
                Ok(())
            }
        }
    }

    fn array(
        &mut self,
        body: &[u8],
        mut scanner: Scanner<'_>,
        event: impl Fn(&mut Self, &[u8]) -> Result<(), Refusal>,
    ) -> Result<(), ReadError> {
        scanner.at += 1;
        if !scanner.eat(b']') {
            loop {
                scanner.peek();
                let start = scanner.at;
                scanner.value().map_err(|e| self.broken(e))?;
                self.count()?;
                let text = &body[start..scanner.at];
                self.ended(text, |reader| event(reader, text));
                if scanner.eat(b']') {
                    break;
                }
                if !scanner.eat(b',') {
                    return Err(self.broken(scanner.expected("a comma or the end of the array")));
                }
            }
        }
        match scanner.peek() {
            None => Ok(()),
            Some(_) => Err(self.broken(scanner.expected("nothing after the array"))),
        }
    }

    fn broken(&self, error: SyntaxError) -> ReadError {
        ReadError::Syntax { offset: error.offset, expected: error.expected, received: self.received }
    }

    fn count(&mut self) -> Result<(), ReadError> {
        let events_max = self.options.limits.batch_events_max;
        if self.received as usize == events_max {
            return Err(ReadError::TooManyEvents { events_max });
        }
        self.received += 1;
        Ok(())
    }

    /// Reads one event, which stands for itself.
    fn alone(&mut self, text: &[u8]) {
        self.ended(text, |reader| reader.event(text));
    }

    /// The end of one event, which stands for itself: a row, or a rejection. `text` is its part of the body.
    fn ended(&mut self, text: &[u8], event: impl FnOnce(&mut Self) -> Result<(), Refusal>) {
        if let Err(refusal) = event(self) {
            self.rejected_total += 1;
            if self.rejected.len() < self.options.limits.rejected_kept_max {
                let Refusal { code, pointer, reason } = refusal;
                let start = text.as_ptr() as usize - self.body_start;
                let text = start..start + text.len();
                self.rejected.push(Rejection { index: self.received - 1, code, pointer, reason, text });
            }
        }
    }

    pub(crate) fn check_size(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let max = self.options.limits.event_bytes_max;
        if bytes.len() > max {
            let reason = format!("the event has {} bytes, at most {max} are allowed", bytes.len());
            return Err(refusal(Code::EventTooLarge, None, reason));
        }
        Ok(())
    }

    /// An event's text, no larger than it may be.
    pub(crate) fn checked_text<'t>(&self, bytes: &'t [u8]) -> Result<&'t str, Refusal> {
        self.check_size(bytes)?;
        std::str::from_utf8(bytes).map_err(|e| {
            let offset = e.valid_up_to();
            let reason = format!("the event is not valid UTF-8 at byte {offset}");
            refusal(Code::InvalidUtf8, pointer_to(bytes, offset).as_deref(), reason)
        })
    }

    /// Checks the text of an object and tells of each member: its key with quotes, and its value.
    pub(crate) fn scan<'t>(&self, text: &'t str, member: impl FnMut(&'t [u8], Range<usize>)) -> Result<(), Refusal> {
        let mut scanner = Scanner::new(text.as_bytes(), self.options.limits.nesting_max);
        if scanner.peek() != Some(b'{') {
            scanner.value().map_err(|error| no_json(text, error))?;
            return Err(match scanner.peek() {
                Some(_) => no_json(text, scanner.expected("the end of the event")),
                None => {
                    let reason = "an event is a JSON object: wrap the value, as in {\"value\": 1}";
                    refusal(Code::NotAnObject, None, reason)
                }
            });
        }
        scanner.object(member).map_err(|error| no_json(text, error))?;
        self.whole(&mut scanner, text)
    }

    /// A text that is one JSON value, checked.
    pub(crate) fn json_text<'t>(&self, bytes: &'t [u8]) -> Result<&'t str, Refusal> {
        let text = self.checked_text(bytes)?;
        let mut scanner = Scanner::new(bytes, self.options.limits.nesting_max);
        scanner.value().map_err(|error| no_json(text, error))?;
        self.whole(&mut scanner, text)?;
        Ok(text)
    }

    /// Checks that a text ends after its value, which has no flaw.
    fn whole(&self, scanner: &mut Scanner<'_>, text: &str) -> Result<(), Refusal> {
        if scanner.peek().is_some() {
            return Err(no_json(text, scanner.expected("the end of the event")));
        }
        match scanner.flaw {
            None => Ok(()),
            Some(Flaw::LoneSurrogate { offset }) => {
                let reason =
                    format!("a string has a lone surrogate at byte {offset}: send both halves of the pair, or U+FFFD");
                Err(refusal(Code::LoneSurrogate, pointer_to(text.as_bytes(), offset).as_deref(), reason))
            }
            Some(Flaw::TooDeep { offset }) => {
                let max = self.options.limits.nesting_max;
                let reason = format!("the event is nested deeper than {max} at byte {offset}");
                Err(refusal(Code::NestingTooDeep, pointer_to(text.as_bytes(), offset).as_deref(), reason))
            }
        }
    }
}

fn no_json(text: &str, error: SyntaxError) -> Refusal {
    let reason = match error.offset == 0 && text.starts_with('\u{feff}') {
        true => "the event begins with a byte order mark: send UTF-8 without one".to_owned(),
        false => format!("the event is not JSON: expected {} at byte {}", error.expected, error.offset),
    };
    refusal(Code::InvalidJson, None, reason)
}
