//! An event as a line of an export: every column of the table, as a text each.
//!
//! It promises that `data` is in a line byte for byte, in whatever form. In NDJSON it is the JSON value that it is, or, where it has line
//! ends, a string with its text under `data_text`. What is null is left out; in CSV it is an empty field, and an empty text is `""`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

/// The columns, as CSV names them.
pub(crate) const COLUMNS: [&str; 12] = [
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
    "data_base64",
];
const POSITION: usize = 0;
const ATTRIBUTES: usize = 9;
const DATA: usize = 10;

/// How JSON is put into a line of NDJSON.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Json {
    /// As the value that it is: it comes from a collector, which has read it.
    Value,
    /// As a string: nobody has read it yet.
    Text,
}

/// The values of an event, in the order of [`COLUMNS`].
#[derive(Default)]
pub(crate) struct Line<'a>(pub(crate) [Option<Cow<'a, str>>; COLUMNS.len()]);

impl Line<'_> {
    /// Adds the line in NDJSON.
    pub(crate) fn ndjson(&self, json: Json, out: &mut Vec<u8>) {
        let before = out.len();
        for (at, (name, value)) in COLUMNS.iter().zip(&self.0).enumerate() {
            let Some(value) = value else { continue };
            let is_value = match at {
                POSITION | ATTRIBUTES => true,
                DATA => json == Json::Value && !value.contains(['\n', '\r']),
                _ => false,
            };
            out.extend(if out.len() == before { b"{\"" } else { b",\"" });
            out.extend(if at == DATA && !is_value { b"data_text" } else { name.as_bytes() });
            out.extend(b"\":");
            match is_value {
                true => out.extend(value.as_bytes()),
                false => serde_json::to_writer(&mut *out, value).expect("a text always serializes"),
            }
        }
        out.extend(if out.len() == before { b"{}\n".as_slice() } else { b"}\n" });
    }

    /// Adds the line in CSV (RFC 4180).
    pub(crate) fn csv(&self, out: &mut Vec<u8>) {
        for (at, value) in self.0.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            let Some(text) = value else { continue };
            let is_plain = !text.is_empty() && !text.contains([',', '"', '\r', '\n']) && text.trim() == text;
            match is_plain {
                true => out.extend(text.as_bytes()),
                false => out.extend(format!("\"{}\"", text.replace('"', "\"\"")).into_bytes()),
            }
        }
        out.extend(b"\r\n");
    }
}

/// Bytes in Base64.
pub(crate) fn base64_text(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(values: &[(&str, &'static str)]) -> Line<'static> {
        let mut line = Line::default();
        for (name, value) in values {
            let at = COLUMNS.iter().position(|column| column == name).expect("a column");
            line.0[at] = Some((*value).into());
        }
        line
    }

    #[test]
    fn data_stands_in_a_line_as_it_was_sent_and_as_a_string_where_it_would_break_it() {
        let ndjson = |data: &'static str, json: Json| {
            let mut out = Vec::new();
            line(&[("position", "7"), ("id", "a\n"), ("attributes", "{\"a\":1}"), ("data", data)])
                .ndjson(json, &mut out);
            String::from_utf8(out).expect("text")
        };
        let begin = "{\"position\":7,\"id\":\"a\\n\",\"attributes\":{\"a\":1},";
        assert_eq!(ndjson("{\"b\" :1e400}", Json::Value), format!("{begin}\"data\":{{\"b\" :1e400}}}}\n"));
        assert_eq!(ndjson("{\"b\" :1e400}", Json::Text), format!("{begin}\"data_text\":\"{{\\\"b\\\" :1e400}}\"}}\n"));
        for broken in ["[\n1]", "[\r1]"] {
            let text = ndjson(broken, Json::Value);
            assert!(text.starts_with(&format!("{begin}\"data_text\":")) && text.matches('\n').count() == 1, "{text}");
        }
        let mut out = Vec::new();
        Line::default().ndjson(Json::Value, &mut out);
        assert_eq!(out, b"{}\n");
    }

    #[test]
    fn null_is_an_empty_field_of_csv_and_an_empty_text_is_not() {
        let mut out = Vec::new();
        line(&[("position", "7"), ("source", ""), ("type", "a,\"b"), ("data", " =1\n")]).csv(&mut out);
        assert_eq!(String::from_utf8_lossy(&out), "7,,,\"\",\"a,\"\"b\",,,,,,\" =1\n\",\r\n");
    }
}
