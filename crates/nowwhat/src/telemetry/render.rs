//! A log line as text for people or as a JSON object.
//!
//! The names in JSON are those of logstash's events: `@timestamp` (RFC 3339, UTC, microseconds), `@version` (`"1"`), `message`,
//! `severity`, `host`, `type` (the service), then `target` (the module) and the line's own fields. A field that takes one of these
//! names gets an underscore at its end.

use super::fields::{Fields, Seen};
use super::{Format, Origin};
use crate::cli::steers;
use crate::journal;
use jiff::Timestamp;
use std::cell::{Cell, RefCell};
use std::fmt::Write;
use tracing::Level;

/// What the message of a request's line tells already; text for people leaves it out.
const IN_MESSAGE: [&str; 5] = ["method", "path", "controller", "action", "status"];

/// The names of what every line begins with.
const HEAD: [&str; 7] = ["@timestamp", "@version", "message", "severity", "host", "type", "target"];

/// Whether lines are coloured.
#[derive(Clone, Copy, Debug)]
pub(super) enum Colour {
    On,
    Off,
}

/// One line, before it has a form.
pub(super) struct Line<'a> {
    pub(super) level: Level,
    pub(super) target: &'a str,
    /// The message is among them.
    pub(super) fields: &'a Fields,
}

impl Line<'_> {
    /// Writes the line, with its end, to `out`.
    pub(super) fn render(&self, format: Format, colour: Colour, origin: &Origin, out: &mut Vec<u8>) {
        match format {
            // The thread that writes to the journal reads the fields from it.
            Format::Json | Format::Journal => self.json(origin, out),
            Format::JsonToJournal => {
                out.extend_from_slice(&[b'<', b'0' + journal::priority(self.level), b'>']);
                self.json(origin, out);
            }
            Format::Text => out.extend_from_slice(self.text(colour).as_bytes()),
        }
    }

    fn json(&self, origin: &Origin, out: &mut Vec<u8>) {
        let text = match is_plain(self.fields.texts().as_bytes()) {
            true => plain_text,
            false => json_text,
        };
        out.extend_from_slice(b"{\"@timestamp\":\"");
        write_time(out);
        out.extend_from_slice(b"\",\"@version\":\"1\",\"message\":");
        text(out, self.fields.message());
        out.extend_from_slice(b",\"severity\":\"");
        out.extend_from_slice(self.level.as_str().as_bytes());
        out.extend_from_slice(b"\",");
        out.extend_from_slice(origin.0.as_bytes());
        out.extend_from_slice(b",\"target\":");
        json_text(out, self.target);
        for (name, value) in self.fields.iter() {
            out.push(b',');
            match is_plain_name(name) {
                true => plain_text(out, name),
                false if HEAD.contains(&name) => json_text(out, &format!("{name}_")),
                false => json_text(out, name),
            }
            out.push(b':');
            let done = match value {
                Seen::Text(value) => {
                    text(out, value);
                    continue;
                }
                Seen::Signed(value) => serde_json::to_writer(&mut *out, &value),
                Seen::Unsigned(value) => serde_json::to_writer(&mut *out, &value),
                Seen::Float(value) => serde_json::to_writer(&mut *out, &value),
                Seen::Bool(value) => serde_json::to_writer(&mut *out, &value),
            };
            done.expect("a plain value always becomes JSON");
        }
        out.extend_from_slice(b"}\n");
    }

    fn text(&self, colour: Colour) -> String {
        let (on, dim, off) = match (colour, self.level) {
            (Colour::Off, _) => ("", "", ""),
            (Colour::On, Level::ERROR) => ("\x1b[31m", "\x1b[2m", "\x1b[0m"),
            (Colour::On, Level::WARN) => ("\x1b[33m", "\x1b[2m", "\x1b[0m"),
            (Colour::On, _) => ("\x1b[32m", "\x1b[2m", "\x1b[0m"),
        };
        let mut line = format!("{dim}{:.3}{off} {on}{:>5}{off} ", Timestamp::now(), self.level);
        line += &printable(self.fields.message());
        let request = self.target == crate::request::TARGET;
        for (name, value) in self.fields.iter() {
            if request && IN_MESSAGE.contains(&name) {
                continue;
            }
            let plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && c != '"');
            let done = match value {
                Seen::Text(text) if plain(text) => write!(line, " {dim}{name}={off}{text}"),
                Seen::Text(text) => {
                    let quoted = serde_json::Value::from(text).to_string();
                    write!(line, " {dim}{name}={off}{}", printable(&quoted))
                }
                Seen::Signed(value) => write!(line, " {dim}{name}={off}{value}"),
                Seen::Unsigned(value) => write!(line, " {dim}{name}={off}{value}"),
                Seen::Float(value) => write!(line, " {dim}{name}={off}{value}"),
                Seen::Bool(value) => write!(line, " {dim}{name}={off}{value}"),
            };
            done.expect("writing to a text does not fail");
        }
        line + "\n"
    }
}

/// A text as JSON. Most have nothing to escape, which is found faster than it is written byte by byte.
fn json_text(out: &mut Vec<u8>, text: &str) {
    match is_plain(text.as_bytes()) {
        true => plain_text(out, text),
        false => serde_json::to_writer(out, text).expect("a text always becomes JSON"),
    }
}

/// A text that has nothing to escape as JSON.
fn plain_text(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Whether a field's name stays as it is. Each is looked at once, and known afterwards by its place in memory, where it stays.
fn is_plain_name(name: &'static str) -> bool {
    thread_local! {
        static KNOWN: [Cell<(usize, usize)>; 64] = const { [const { Cell::new((0, 0)) }; 64] };
    }
    let place = (name.as_ptr().addr(), name.len());
    KNOWN.with(|known| {
        let known = &known[(place.0 ^ (place.0 >> 6)) % 64];
        let is_plain = known.get() == place || (is_plain(name.as_bytes()) && !HEAD.contains(&name));
        if is_plain {
            known.set(place);
        }
        is_plain
    })
}

/// Whether nothing of a text is escaped in JSON, eight bytes at once: in each, what is below a bound borrows its highest bit.
fn is_plain(text: &[u8]) -> bool {
    const EACH: u64 = u64::MAX / 255;
    let below = |word: u64, bound: u8| word.wrapping_sub(EACH * u64::from(bound)) & !word & (EACH << 7);
    let is = |word: u64, byte: u8| below(word ^ (EACH * u64::from(byte)), 1);
    let Some(last) = text.last_chunk() else {
        return text.iter().all(|b| *b >= b' ' && *b != b'"' && *b != b'\\');
    };
    // The last eight overlap those before.
    let escaped = text.as_chunks().0.iter().chain([last]).fold(0, |found, word| {
        let word = u64::from_le_bytes(*word);
        found | below(word, b' ') | is(word, b'"') | is(word, b'\\')
    });
    escaped == 0
}

/// Nothing steers the terminal, and no line begins within one. JSON keeps what is beyond ASCII as it is.
fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if steers(c) { c.escape_default().collect() } else { vec![c] }).collect()
}

/// The time as RFC 3339 with microseconds; what is the same for a second is kept.
fn write_time(out: &mut Vec<u8>) {
    thread_local! {
        static SECOND: RefCell<(i64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = Timestamp::now();
    // A thread that ends keeps nothing any more.
    let (mut second, mut text) = SECOND.try_with(RefCell::take).unwrap_or_default();
    if second != now.as_second() || text.is_empty() {
        second = now.as_second();
        let whole = Timestamp::from_second(second).expect("a second of a time");
        text = whole.to_string().trim_end_matches('Z').to_owned();
    }
    out.extend_from_slice(text.as_bytes());
    let _ = SECOND.try_with(|kept| kept.replace((second, text)));
    out.push(b'.');
    let micros = now.subsec_microsecond() as u32;
    for place in [100_000, 10_000, 1000, 100, 10, 1] {
        out.push(b'0' + (micros / place % 10) as u8);
    }
    out.push(b'Z');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_any_length_is_the_json_that_serde_makes_of_it() {
        for length in 0..20 {
            for place in 0..length {
                for byte in 0..128_u8 {
                    let mut text = vec![b'~'; length];
                    text[place] = byte;
                    let text = String::from_utf8(text).expect("ASCII");
                    let mut out = Vec::new();
                    json_text(&mut out, &text);
                    assert_eq!(out, serde_json::to_vec(&text).expect("JSON"), "{text:?}");
                }
            }
        }
        let mut out = Vec::new();
        json_text(&mut out, "grün und blau 🌦");
        assert_eq!(String::from_utf8(out).expect("UTF-8"), "\"grün und blau 🌦\"");
    }

    #[test]
    fn a_line_cannot_be_broken_by_its_values_nor_a_field_take_the_place_of_the_head() {
        let mut fields = Fields::default();
        fields.set("message", Seen::Text("asked\nagain"));
        fields.set("path", Seen::Text("/a\n{\"severity\":\"ERROR\"}"));
        fields.set("severity", Seen::Text("FAKE"));
        fields.set("guest", Seen::Text("\u{9b}31mred\u{7f} \u{202e}der\u{2028}"));
        fields.set("ratio", Seen::Float(f64::NAN));
        let line = Line { level: Level::INFO, target: "t", fields: &fields };
        let origin = Origin::new("bakery", "oven");
        for format in [Format::Json, Format::Text] {
            let mut out = Vec::new();
            line.render(format, Colour::Off, &origin, &mut out);
            let text = String::from_utf8(out).expect("UTF-8");
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            let steers = |c: char| c.is_control() || "\u{202e}\u{2028}".contains(c);
            assert!(format == Format::Json || !text.trim_end().contains(steers), "{text:?}");
            if format == Format::Json {
                let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                assert_eq!((json["severity"].as_str(), json["severity_"].as_str()), (Some("INFO"), Some("FAKE")));
                assert_eq!((json["type"].as_str(), json["host"].as_str()), (Some("bakery"), Some("oven")));
                assert!(json.get("ratio").is_none(), "{text}");
            }
        }
    }
}
