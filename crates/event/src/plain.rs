//! Plain JSON and envelopes: which parts of an object are its type, time, id and subject, and what is kept as its data.

use crate::code::Code;
use crate::columns::Row;
use crate::fields::{FieldNames, Pointer};
use crate::json::unescaped;
use crate::key::Key;
use crate::read::{Reader, Refusal, refusal};
use crate::time;
use std::borrow::Cow;
use std::ops::Range;

/// The members of an event that matter, as places in its text.
#[derive(Default)]
struct Members {
    event_type: Option<Range<usize>>,
    time: Option<Range<usize>>,
    id: Option<Range<usize>>,
    subject: Option<Range<usize>>,
    data: Option<Range<usize>>,
    /// A key that no envelope has, or has twice: of two values one would be lost.
    other: Option<()>,
    /// Values under the first token of each field parameter: type, time, id, subject.
    fields: [Option<Range<usize>>; 4],
}

impl Reader<'_> {
    /// Reads an event in plain JSON or as an envelope, which stands for itself.
    pub(crate) fn event(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let text = self.checked_text(bytes)?;
        let members = self.members(text)?;
        let is_string = |span: &Option<Range<usize>>| span.as_ref().is_some_and(|s| text.as_bytes()[s.start] == b'"');
        match (&members.data, members.other, is_string(&members.event_type)) {
            (Some(data), None, true) => self.envelope(text, &members, data.clone()),
            _ => self.plain(text, &members),
        }
    }

    /// Finds the members that matter.
    fn members(&self, text: &str) -> Result<Members, Refusal> {
        let mut members = Members::default();
        let pointers = [&self.type_field, &self.time_field, &self.id_field, &self.subject_field];
        self.scan(text, |key, span| {
            for (pointer, found) in pointers.iter().zip(&mut members.fields) {
                if pointer.as_ref().is_some_and(|p| p.starts_at(key)) {
                    *found = Some(span.clone());
                }
            }
            let member = match key {
                b"\"type\"" => &mut members.event_type,
                b"\"time\"" => &mut members.time,
                b"\"id\"" => &mut members.id,
                b"\"subject\"" => &mut members.subject,
                b"\"data\"" => &mut members.data,
                _ => {
                    members.other = Some(());
                    return;
                }
            };
            if member.replace(span).is_some() {
                members.other = Some(());
            }
        })?;
        Ok(members)
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
            Key::of([self.options.sensor, "", id], &content, time)
        });
        self.keys.push(key);
        self.columns.push(&Row {
            id: id.as_deref(),
            event_type: &event_type,
            subject: subject.as_deref(),
            time: time.unwrap_or(self.options.received_at),
            data: Some(data),
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
