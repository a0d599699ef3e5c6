//! Reading the body of a request, of every content type that has no event in its headers.

use crate::columns::{assert_sound, rows};
use crate::{first_line, text};
use event::{Batch, FieldNames, Framing, Limits, ReadError, ReadOptions, Rejection, framing_of, read};
use serde::de::IgnoredAny;

/// Small, so that each bound is met.
const LIMITS: Limits = Limits { event_bytes_max: 512, nesting_max: 8, batch_events_max: 24, rejected_kept_max: 6 };

/// The input: a line with the content type, a line of `type_field time_field id_field subject_field time_zone` (each may be missing, `.` keeps
/// what is used without it), and the body.
pub fn batch(input: &[u8]) {
    let (content_type, rest) = first_line(input);
    let (parameters, body) = first_line(rest);
    let content_type = text(content_type);
    let Ok(framing) = framing_of((!content_type.is_empty()).then_some(content_type), std::iter::empty()) else {
        return;
    };
    let options = options(text(parameters));
    let batch = match read(body, framing.clone(), &options) {
        Ok(batch) => batch,
        Err(ReadError::TooManyEvents { events_max }) => return assert_eq!(events_max, LIMITS.batch_events_max),
        Err(ReadError::Syntax { offset, received, .. }) => {
            assert!(offset <= body.len() && received <= LIMITS.batch_events_max as u64);
            return assert!(framing != Framing::Ndjson, "lines never fail as a whole");
        }
        Err(ReadError::Pointer(_)) => return,
    };
    assert_sound(&batch, body, &LIMITS);
    let again = read(body, framing.clone(), &options).expect("it was read before");
    assert!(again.columns == batch.columns && again.keys == batch.keys && again.rejected == batch.rejected);
    assert_agrees_with_another_parser(&batch, body);
    match framing {
        Framing::Ndjson => assert_array_reads_the_same(body, &options),
        Framing::CloudEvent if batch.rejected_total == 0 => assert_batched_reads_the_same(&batch, body, &options),
        _ => {}
    }
}

fn options(parameters: &str) -> ReadOptions<'static> {
    let mut fields = FieldNames::default();
    let mut given = parameters.split(' ');
    let all = [&mut fields.type_field, &mut fields.time_field, &mut fields.id_field, &mut fields.subject_field];
    for field in all {
        if let Some(name) = given.next().filter(|name| *name != ".") {
            *field = name.to_owned();
        }
    }
    let time_zone = given.next().and_then(|name| event::time_zone(name).ok());
    ReadOptions { sensor: "roof", received_at: 1_000_000, fields, time_zone, limits: LIMITS }
}

/// What is rejected as no JSON is none for serde_json either, and the other way round.
fn assert_agrees_with_another_parser(batch: &Batch, body: &[u8]) {
    for rejection in &batch.rejected {
        let is_json = |bytes| std::str::from_utf8(bytes).is_ok_and(|t| serde_json::from_str::<IgnoredAny>(t).is_ok());
        let event = &body[rejection.text.clone()];
        match rejection.code.name() {
            "invalid_json" | "invalid_utf8" => assert!(!is_json(event), "it is JSON: {rejection:?}"),
            "event_too_large" => assert!(event.len() > LIMITS.event_bytes_max),
            // In lines and arrays; the data of a CloudEvent is a part of its text.
            _ => assert!(is_json(event), "it is no JSON: {rejection:?}"),
        }
    }
}

/// Lines that are JSON, each alone, are the same events as the elements of an array.
fn assert_array_reads_the_same(body: &[u8], options: &ReadOptions<'_>) {
    let is_json = |line: &&[u8]| {
        std::str::from_utf8(line).is_ok_and(|t| !t.is_empty() && serde_json::from_str::<IgnoredAny>(t).is_ok())
    };
    let lines: Vec<&[u8]> = body.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(is_json).collect();
    let array = [b"[", lines.join(&b","[..]).as_slice(), b"]"].concat();
    let lines = lines.join(&b"\n"[..]);
    let of_lines = read(&lines, Framing::Ndjson, options).expect("lines are read");
    let of_array = read(&array, Framing::Json, options).expect("an array of JSON is read");
    assert_eq!(rows(&of_lines), rows(&of_array));
    assert!(of_lines.keys == of_array.keys && of_lines.received == of_array.received);
    let told = |batch: &Batch, body: &[u8]| -> Vec<_> {
        let each =
            |r: &Rejection| (r.index, r.code, r.pointer.clone(), r.reason.clone(), body[r.text.clone()].to_vec());
        batch.rejected.iter().map(each).collect()
    };
    assert_eq!(told(&of_lines, &lines), told(&of_array, &array));
}

/// A CloudEvent is the same alone and in a batch.
fn assert_batched_reads_the_same(alone: &Batch, body: &[u8], options: &ReadOptions<'_>) {
    let array = [b"[", body.trim_ascii(), b"]"].concat();
    let batched = read(&array, Framing::CloudEvents, options).expect("an array of an event is read");
    assert_eq!(rows(alone), rows(&batched));
    assert_eq!(alone.keys, batched.keys);
}
