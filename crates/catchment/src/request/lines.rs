//! The lines of a request in a log: JSON lines of the collector, or entries of the journal.

use super::Known;
use anyhow::{Context, bail};
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};
use std::path::Path;

/// Most lines of one request: more are no help to anyone.
const LINES_MAX: usize = 10_000;
/// What is told in a place of its own, or says nothing of the request.
const TOLD: [&str; 9] =
    ["@timestamp", "@version", "message", "severity", "host", "type", "target", "request_id", "priority"];

/// The lines of the request `id` in the file `log`; `-` is standard input.
pub(super) fn of(log: &Path, id: &str) -> anyhow::Result<Vec<Known>> {
    let reader: Box<dyn Read> = match log.to_str() {
        Some("-") => Box::new(stdin()),
        _ => Box::new(File::open(log).with_context(|| format!("cannot open {}", log.display()))?),
    };
    in_lines(BufReader::new(reader), id).with_context(|| format!("cannot read {}", log.display()))
}

fn in_lines(mut reader: impl BufRead, id: &str) -> anyhow::Result<Vec<Known>> {
    let (mut known, mut line) = (Vec::new(), Vec::new());
    let (mut is_empty, mut has_requests) = (true, false);
    while reader.read_until(b'\n', &mut line)? > 0 {
        is_empty = false;
        if let Some(of_request) = Line::of(&line) {
            has_requests = true;
            known.extend((of_request.request_id() == id).then(|| of_request.known()));
        }
        if known.len() > LINES_MAX {
            bail!("more than {LINES_MAX} lines have this id");
        }
        line.clear();
    }
    if !is_empty && !has_requests {
        bail!(
            "no line names a request: they are found in JSON (`log.format`) and in entries of `journalctl -o json`, neither in text nor in what is \
             packed, such as log.gz: `zcat log.gz | catchment request ID --log -`"
        );
    }
    Ok(known)
}

/// A line of some request.
struct Line {
    /// When the journal got it.
    at: Option<Timestamp>,
    fields: Map<String, Value>,
}

impl Line {
    fn of(line: &[u8]) -> Option<Self> {
        let entry: Map<String, Value> = serde_json::from_slice(line).ok()?;
        // In the journal of a unit that writes JSON the line is the message.
        if let Some(inside) = entry.get("MESSAGE").and_then(Value::as_str).and_then(|line| Self::of(line.as_bytes())) {
            return Some(inside);
        }
        let micros = entry.get("__REALTIME_TIMESTAMP").and_then(Value::as_str).and_then(|micros| micros.parse().ok());
        let at = micros.and_then(|micros| Timestamp::from_microsecond(micros).ok());
        // Names of the journal are in capitals, those that begin with a line are its own.
        let fields = entry.into_iter().filter(|(name, _)| !name.starts_with('_'));
        let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        Some(Self { at, fields }).filter(|line| !line.request_id().is_empty())
    }

    fn text(&self, name: &str) -> &str {
        self.fields.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn request_id(&self) -> &str {
        self.text("request_id")
    }

    fn known(self) -> Known {
        let severity = match (self.text("severity"), self.text("priority")) {
            ("", "") => "",
            ("", priority) => severity_of(priority),
            (severity, _) => severity,
        };
        let mut told = format!("{severity} {}", self.text("message"));
        for (name, value) in self.fields.iter().filter(|(name, _)| !TOLD.contains(&name.as_str())) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            told.extend([" ", name, "=", &value]);
        }
        let mut known = Known::of("log", self.fields.get("@timestamp").unwrap_or(&Value::Null), told, Value::Null);
        known.at = known.at.or(self.at);
        known.value = Value::Object(self.fields);
        known
    }
}

/// What the priority of an entry is called on a line.
fn severity_of(priority: &str) -> &'static str {
    match priority {
        "0" | "1" | "2" | "3" => "ERROR",
        "4" => "WARN",
        "5" | "6" => "INFO",
        _ => "DEBUG",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(log: &str) -> Vec<String> {
        in_lines(log.as_bytes(), "r-1").expect("read").iter().map(Known::line).collect()
    }

    #[test]
    fn lines_of_one_request_are_found_in_json_in_the_journal_and_in_json_inside_of_it() {
        let line = r#"{"@timestamp":"2026-11-26T12:00:00.5Z","message":"sold","severity":"INFO","request_id":"r-1","loaves":3}"#;
        let other = line.replace("r-1", "r-2");
        let entry = r#"{"__REALTIME_TIMESTAMP":"1795694400500000","_PID":"7","PRIORITY":"6","MESSAGE":"sold","REQUEST_ID":"r-1","LOAVES":"3"}"#;
        let inside = format!("{{\"__REALTIME_TIMESTAMP\":\"1\",\"MESSAGE\":{}}}", Value::from(line));
        let log = format!("no JSON\n{other}\n{line}\n[1]\n{entry}\n\u{fffd}{{\n{inside}");
        assert_eq!(told(&log), ["2026-11-26T12:00:00.500000Z  log       INFO sold loaves=3\n"; 3]);
    }

    #[test]
    fn a_line_cannot_command_the_terminal_and_stays_one_line() {
        let line = "{\"message\":\"a\\u001b[31m\\nb\",\"severity\":\"WARN\",\"request_id\":\"r-1\"}";
        assert_eq!(told(line), ["?                            log       WARN a\\u{1b}[31m b\n"]);
    }

    #[test]
    fn a_log_in_which_no_line_names_a_request_is_said_to_be_unreadable_and_an_empty_one_is_not() {
        let text = "2026-11-26T12:00:00.5Z  INFO sold request_id=r-1 loaves=3\n";
        let entry = format!("{{\"__REALTIME_TIMESTAMP\":\"1\",\"MESSAGE\":{}}}\n", Value::from(text));
        for log in [text.as_bytes(), entry.as_bytes(), b"\x1f\x8b\x08\x00\n\xff\xfe", b"{\"message\":\"started\"}\n"] {
            let error = in_lines(log, "r-1").err().expect("it is not looked at").to_string();
            assert!(error.contains("no line names a request") && error.contains("zcat"), "{error}");
        }
        assert_eq!(told(""), [""; 0]);
        assert_eq!(told("{\"request_id\":\"r-2\"}\nno JSON\n"), [""; 0], "it has lines of other requests");
    }
}
