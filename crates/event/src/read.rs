//! Reading a body: cut into events, each checked, taken apart and made a row or a rejection.

use crate::code::{Code, Rejection};
use crate::columns::{Columns, Row};
use crate::fields::{BadPointer, FieldNames, Pointer};
use crate::framing::Framing;
use crate::json::{Flaw, Scanner, SyntaxError, unescaped};
use crate::key::Key;
use crate::time;
use arrow::record_batch::RecordBatch;
use jiff::tz::TimeZone;
use std::borrow::Cow;
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
    /// Most rejections that are listed; all are counted.
    pub rejected_listed_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { event_bytes_max: 1 << 20, nesting_max: 128, batch_events_max: 500_000, rejected_listed_max: 1000 }
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
    /// Memory of the columns and keys.
    pub fn memory_bytes(&self) -> usize {
        self.columns.get_array_memory_size() + self.keys.capacity() * size_of::<Option<Key>>()
    }
}

/// What a row takes besides its texts: offsets, times, an entry of the keys.
const ROW_BYTES: usize = 64 + size_of::<Option<Key>>();

/// The most memory that the columns and keys of a body take, told before it is read: its texts, and for each event that it can
/// hold the sensor's name and a row.
pub fn columns_bytes_max(body: &[u8], sensor_bytes: usize, limits: &Limits) -> usize {
    body.len() + rows_max(body, limits) * (sensor_bytes + ROW_BYTES)
}

/// The most events that a body can hold: no more than it has lines and opening braces.
fn rows_max(body: &[u8], limits: &Limits) -> usize {
    let starts = body.iter().filter(|b| **b == b'{').count();
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
pub fn read(body: &[u8], framing: Framing, options: &ReadOptions<'_>) -> Result<Batch, ReadError> {
    let mut reader = Reader::new(body, options)?;
    match framing {
        Framing::Ndjson => reader.lines(body)?,
        Framing::Json => reader.text(body)?,
    }
    Ok(reader.finish())
}

struct Reader<'a> {
    options: &'a ReadOptions<'a>,
    type_field: Option<Pointer>,
    time_field: Option<Pointer>,
    id_field: Option<Pointer>,
    subject_field: Option<Pointer>,
    columns: Columns,
    keys: Vec<Option<Key>>,
    received: u64,
    rejected: Vec<Rejection>,
    rejected_total: u64,
}

/// Why one event is rejected.
struct Refusal {
    code: Code,
    pointer: Option<String>,
    reason: String,
}

fn refusal(code: Code, pointer: Option<&str>, reason: impl Into<String>) -> Refusal {
    Refusal { code, pointer: pointer.map(str::to_owned), reason: reason.into() }
}

/// The members of an event that matter, as places in its text.
#[derive(Default)]
struct Members {
    event_type: Option<Range<usize>>,
    time: Option<Range<usize>>,
    id: Option<Range<usize>>,
    subject: Option<Range<usize>>,
    data: Option<Range<usize>>,
    /// A key that no envelope has.
    other: Option<()>,
    /// Values under the first token of each field parameter: type, time, id, subject.
    fields: [Option<Range<usize>>; 4],
}

impl<'a> Reader<'a> {
    fn new(body: &[u8], options: &'a ReadOptions<'a>) -> Result<Self, ReadError> {
        let lines = body.iter().filter(|b| **b == b'\n').count();
        let rows = (lines + 1).min(rows_max(body, &options.limits));
        let fields = &options.fields;
        Ok(Self {
            options,
            type_field: Pointer::parse(&fields.type_field)?,
            time_field: Pointer::parse(&fields.time_field)?,
            id_field: Pointer::parse(&fields.id_field)?,
            subject_field: Pointer::parse(&fields.subject_field)?,
            columns: Columns::with_capacity(rows, body.len()),
            keys: Vec::with_capacity(rows),
            received: 0,
            rejected: Vec::new(),
            rejected_total: 0,
        })
    }

    fn finish(self) -> Batch {
        let columns = self.columns.finish(self.options.sensor, self.options.received_at);
        let Self { keys, received, rejected, rejected_total, .. } = self;
        debug_assert_eq!(received, columns.num_rows() as u64 + rejected_total);
        Batch { columns, keys, received, rejected, rejected_total }
    }

    fn lines(&mut self, body: &[u8]) -> Result<(), ReadError> {
        for line in body.split(|b| *b == b'\n') {
            let line = line.trim_ascii();
            if !line.is_empty() {
                self.count()?;
                self.alone(line);
            }
        }
        Ok(())
    }

    /// One JSON text: an object, an array, or several objects one after another.
    fn text(&mut self, body: &[u8]) -> Result<(), ReadError> {
        let mut scanner = Scanner::new(body, usize::MAX);
        match scanner.peek() {
            None => {
                Err(self.broken(scanner.expected("an event: the body is empty, send an object or a list of objects")))
            }
            Some(b'[') => self.array(body, scanner),
            Some(_) => {
                let start = scanner.at;
                let whole = scanner.value().is_ok() && scanner.peek().is_none();
                if !whole && body[start] == b'{' && is_lines(&body[start..]) {
                    return self.lines(body);
                }
                self.count()?;
                self.alone(body.trim_ascii());
                Ok(())
            }
        }
    }

    fn array(&mut self, body: &[u8], mut scanner: Scanner<'_>) -> Result<(), ReadError> {
        scanner.at += 1;
        if !scanner.eat(b']') {
            loop {
                scanner.peek();
                let start = scanner.at;
                scanner.value().map_err(|e| self.broken(e))?;
                self.count()?;
                self.alone(&body[start..scanner.at]);
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
        if let Err(refusal) = self.event(text) {
            self.rejected_total += 1;
            if self.rejected.len() < self.options.limits.rejected_listed_max {
                let Refusal { code, pointer, reason } = refusal;
                self.rejected.push(Rejection { index: self.received - 1, code, pointer, reason });
            }
        }
    }

    fn event(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let max = self.options.limits.event_bytes_max;
        if bytes.len() > max {
            let reason = format!("the event has {} bytes, at most {max} are allowed", bytes.len());
            return Err(refusal(Code::EventTooLarge, None, reason));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| {
            refusal(Code::InvalidUtf8, None, format!("the event is not valid UTF-8 at byte {}", e.valid_up_to()))
        })?;
        let members = self.members(text)?;
        let is_string = |span: &Option<Range<usize>>| span.as_ref().is_some_and(|s| text.as_bytes()[s.start] == b'"');
        match (&members.data, members.other, is_string(&members.event_type)) {
            (Some(data), None, true) => self.envelope(text, &members, data.clone()),
            _ => self.plain(text, &members),
        }
    }

    /// Checks the text and finds the members that matter.
    fn members(&self, text: &str) -> Result<Members, Refusal> {
        let mut scanner = Scanner::new(text.as_bytes(), self.options.limits.nesting_max);
        let syntax = |e: SyntaxError| {
            let reason = match e.offset == 0 && text.starts_with('\u{feff}') {
                true => "the event begins with a byte order mark: send UTF-8 without one".to_owned(),
                false => format!("the event is not JSON: expected {} at byte {}", e.expected, e.offset),
            };
            refusal(Code::InvalidJson, None, reason)
        };
        if scanner.peek() != Some(b'{') {
            scanner.value().map_err(syntax)?;
            let left = scanner.peek().map(|_| scanner.expected("the end of the event"));
            return Err(match left {
                Some(error) => syntax(error),
                None => {
                    refusal(Code::NotAnObject, None, "an event is a JSON object: wrap the value, as in {\"value\": 1}")
                }
            });
        }
        let mut members = Members::default();
        let pointers = [&self.type_field, &self.time_field, &self.id_field, &self.subject_field];
        scanner
            .object(|key, span| {
                for (pointer, found) in pointers.iter().zip(&mut members.fields) {
                    if pointer.as_ref().is_some_and(|p| p.starts_at(key)) {
                        *found = Some(span.clone());
                    }
                }
                match key {
                    b"\"type\"" => members.event_type = Some(span),
                    b"\"time\"" => members.time = Some(span),
                    b"\"id\"" => members.id = Some(span),
                    b"\"subject\"" => members.subject = Some(span),
                    b"\"data\"" => members.data = Some(span),
                    _ => members.other = Some(()),
                }
            })
            .map_err(syntax)?;
        if scanner.peek().is_some() {
            return Err(syntax(scanner.expected("the end of the event")));
        }
        match scanner.flaw {
            None => Ok(members),
            Some(Flaw::LoneSurrogate { offset }) => {
                let reason =
                    format!("a string has a lone surrogate at byte {offset}: send both halves of the pair, or U+FFFD");
                Err(refusal(Code::LoneSurrogate, None, reason))
            }
            Some(Flaw::TooDeep { offset }) => {
                let max = self.options.limits.nesting_max;
                let reason = format!("the event is nested deeper than {max} at byte {offset}");
                Err(refusal(Code::NestingTooDeep, None, reason))
            }
        }
    }

    fn envelope(&mut self, text: &str, members: &Members, data: Range<usize>) -> Result<(), Refusal> {
        let value = |span: &Option<Range<usize>>| span.clone().map(|s| &text[s]);
        let id = given_id(value(&members.id), "/id")?;
        let subject = match value(&members.subject) {
            None | Some("null") => None,
            Some(quoted) if quoted.starts_with('"') => Some(unescaped(quoted)),
            Some(_) => {
                return Err(refusal(Code::InvalidSubject, Some("/subject"), "the subject is not a string"));
            }
        };
        let event_type = value(&members.event_type).map(unescaped).expect("an envelope has a type");
        let time = self.time(value(&members.time), "/time")?;
        self.keep(Event { id, event_type, subject, time, data: &text[data] });
        Ok(())
    }

    fn plain(&mut self, text: &str, members: &Members) -> Result<(), Refusal> {
        let [type_at, time_at, id_at, subject_at] = &members.fields;
        let value = |pointer: &Option<Pointer>, span: &Option<Range<usize>>| {
            let (pointer, span) = (pointer.as_ref()?, span.clone()?);
            pointer.follow(&text[span])
        };
        let name = |pointer: &Option<Pointer>| pointer.as_ref().map_or(String::new(), |p| p.text.clone());
        let asked = self.options.fields.type_field != FieldNames::default().type_field;
        let event_type = match value(&self.type_field, type_at) {
            Some(quoted) if quoted.starts_with('"') => unescaped(quoted),
            Some(number) if asked && number.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) => {
                number.into()
            }
            None | Some("null") => "event".into(),
            Some(_) if !asked => "event".into(),
            Some(_) => {
                return Err(refusal(Code::InvalidType, Some(&name(&self.type_field)), "the type is not a string"));
            }
        };
        let subject = match value(&self.subject_field, subject_at) {
            None | Some("null") => None,
            Some(quoted) if quoted.starts_with('"') => Some(unescaped(quoted)),
            Some(other) if other.starts_with(['{', '[', 't', 'f']) => {
                return Err(refusal(
                    Code::InvalidSubject,
                    Some(&name(&self.subject_field)),
                    "the subject is not a string",
                ));
            }
            Some(number) => Some(number.into()),
        };
        let id = given_id(value(&self.id_field, id_at), &name(&self.id_field))?;
        let time = self.time(value(&self.time_field, time_at), &name(&self.time_field))?;
        self.keep(Event { id, event_type, subject, time, data: text });
        Ok(())
    }

    /// The time given, if there is one.
    fn time(&self, value: Option<&str>, pointer: &str) -> Result<Option<i64>, Refusal> {
        let zone = self.options.time_zone.as_ref();
        let read = match value {
            None | Some("null") => return Ok(None),
            Some(quoted) if quoted.starts_with('"') => time::read_text(&unescaped(quoted), zone),
            Some(other) => match other.as_bytes()[0] {
                b'{' => Err(time::TimeError::WrongKind("an object")),
                b'[' => Err(time::TimeError::WrongKind("an array")),
                b't' | b'f' => Err(time::TimeError::WrongKind("true or false")),
                _ => time::read_number(other),
            },
        };
        read.map(Some).map_err(|error| {
            let code =
                if matches!(error, time::TimeError::NoZone(_)) { Code::TimeWithoutZone } else { Code::InvalidTime };
            refusal(code, Some(pointer), error.to_string())
        })
    }

    fn keep(&mut self, event: Event<'_>) {
        let Event { id, event_type, subject, time, data } = event;
        let key = id.as_deref().map(|id| {
            let content = [event_type.as_bytes(), subject.as_deref().unwrap_or("").as_bytes(), data.as_bytes()];
            Key::of([self.options.sensor, "", id], content, time)
        });
        self.keys.push(key);
        self.columns.push(&Row {
            id: id.as_deref(),
            event_type: &event_type,
            subject: subject.as_deref(),
            time: time.unwrap_or(self.options.received_at),
            data,
        });
    }
}

/// One event, taken apart.
struct Event<'a> {
    id: Option<Cow<'a, str>>,
    event_type: Cow<'a, str>,
    subject: Option<Cow<'a, str>>,
    time: Option<i64>,
    data: &'a str,
}

fn given_id<'a>(value: Option<&'a str>, pointer: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
    match value {
        None | Some("null") => Ok(None),
        Some("\"\"") => Err(refusal(Code::InvalidId, Some(pointer), "the id is empty: leave it out, or give one")),
        Some(quoted) if quoted.starts_with('"') => Ok(Some(unescaped(quoted))),
        Some(other) if other.starts_with(['{', '[', 't', 'f']) => {
            Err(refusal(Code::InvalidId, Some(pointer), "the id is not a string or a number"))
        }
        Some(number) => Ok(Some(number.into())),
    }
}
