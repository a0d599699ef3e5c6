//! A CloudEvent in the headers of a request (binary mode): percent-decoding, attributes, data of any content type.

use crate::columns::{Row, assert_sound, rows};
use crate::{first_line, text};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use event::{FieldNames, Framing, Limits, ReadOptions, framing_of, read};
use serde_json::{Map, Value};

const LIMITS: Limits = Limits { event_bytes_max: 2048, nesting_max: 16, batch_events_max: 1, rejected_kept_max: 1 };

/// The input: lines `name: value`, an empty line, the body.
pub fn headers(input: &[u8]) {
    let (mut headers, mut rest) = (Vec::new(), input);
    loop {
        let (line, after) = first_line(rest);
        rest = after;
        let Some(colon) = line.iter().position(|b| *b == b':') else { break };
        // The server gives names that are tokens in lower case.
        let name = text(&line[..colon]).to_ascii_lowercase();
        headers.push((name, line[colon + 1..].trim_ascii()));
    }
    let content_type = headers.iter().find(|(name, _)| name == "content-type").map(|(_, value)| text(value));
    let Ok(framing) = framing_of(content_type, headers.iter().map(|(name, value)| (name.as_str(), *value))) else {
        return;
    };
    if !matches!(framing, Framing::Binary(_)) {
        return;
    }
    let options = ReadOptions {
        sensor: "roof",
        received_at: 1_000_000,
        fields: FieldNames::default(),
        time_zone: None,
        limits: LIMITS,
    };
    let batch = read(rest, framing, &options).expect("an event in headers is one event, whatever it is");
    assert_eq!(batch.received, 1);
    assert_sound(&batch, rest, &LIMITS);
    let [row] = &rows(&batch)[..] else { return };
    for text in [row.id.as_ref(), Some(&row.source), Some(&row.event_type), row.subject.as_ref()].into_iter().flatten()
    {
        assert!(!text.is_empty() && !text.chars().any(char::is_control), "{row:?}");
    }
    assert_structured_reads_the_same(row, batch.keys[0], &options);
}

/// The same event in the JSON format is the same row, and a duplicate of it.
fn assert_structured_reads_the_same(row: &Row, key: Option<event::Key>, options: &ReadOptions<'_>) {
    let mut event = Map::new();
    let attributes = row.attributes.as_deref().unwrap_or("{}");
    event.extend(serde_json::from_str::<Map<String, Value>>(attributes).expect("attributes are an object"));
    let all = [
        ("specversion", Some("1.0")),
        ("id", row.id.as_deref()),
        ("source", Some(&*row.source)),
        ("type", Some(&*row.event_type)),
        ("subject", row.subject.as_deref()),
        ("datacontenttype", row.content_type.as_deref()),
    ];
    for (name, value) in all {
        event.extend(value.map(|value| (name.to_owned(), Value::from(value))));
    }
    if row.time != options.received_at {
        event.insert("time".to_owned(), event::format_time(row.time).into());
    }
    if let Some(bytes) = &row.data_binary {
        event.insert("data_base64".to_owned(), STANDARD.encode(bytes).into());
    }
    let mut text = Value::from(event).to_string();
    if let Some(data) = &row.data {
        text.truncate(text.len() - 1);
        text = format!("{text},\"data\":{data}}}");
    }
    // One level more is around the data.
    let limits = Limits { event_bytes_max: 1 << 20, nesting_max: LIMITS.nesting_max + 1, ..LIMITS };
    let options = ReadOptions { limits, ..options.clone() };
    let batch = read(text.as_bytes(), Framing::CloudEvent, &options).expect("one event");
    assert_eq!(batch.rejected, [], "{text}");
    let [found] = &rows(&batch)[..] else { panic!("one row") };
    // The text of a body keeps the blanks around it; a text is no data in the JSON format when its type is not JSON.
    let data = row.data.as_deref().map(str::trim_ascii);
    let json_text = data.is_some_and(|data| data.starts_with('"'));
    if !json_text {
        assert_eq!(found.data.as_deref(), data);
        assert_eq!(found.data_binary, row.data_binary);
    }
    let attributes = |row: &Row| row.attributes.as_deref().map(|a| serde_json::from_str::<Value>(a).expect("JSON"));
    let of = |row: &Row| (row.id.clone(), row.source.clone(), row.event_type.clone(), row.subject.clone(), row.time);
    assert_eq!((of(found), attributes(found)), (of(row), attributes(row)));
    assert_eq!(found.content_type, row.content_type);
    if !json_text && data == row.data.as_deref() && row.time != options.received_at {
        let (found, key) = (batch.keys[0].expect("an id"), key.expect("an id"));
        assert_eq!(found, key, "sent again in the other mode it is a duplicate: {text}");
    }
}
