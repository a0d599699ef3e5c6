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
    while reader.read_until(b'\n', &mut line)? > 0 {
        known.extend(known_of(&line, id));
        if known.len() > LINES_MAX {
            bail!("more than {LINES_MAX} lines have this id");
        }
        line.clear();
    }
    Ok(known)
}

/// A line, when it is one of the request.
fn known_of(line: &[u8], id: &str) -> Option<Known> {
    let entry: Map<String, Value> = serde_json::from_slice(line).ok()?;
    // In the journal of a unit that writes JSON the line is the message.
    if let Some(known) = entry.get("MESSAGE").and_then(Value::as_str).and_then(|line| known_of(line.as_bytes(), id)) {
        return Some(known);
    }
    let micros = entry.get("__REALTIME_TIMESTAMP").and_then(Value::as_str).and_then(|micros| micros.parse().ok());
    let at = micros.and_then(|micros| Timestamp::from_microsecond(micros).ok());
    // Names of the journal are in capitals, those that begin with a line are its own.
    let fields = entry.into_iter().filter(|(name, _)| !name.starts_with('_'));
    let fields: Map<String, Value> = fields.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("request_id") != id {
        return None;
    }
    let severity = match (text("severity"), text("priority")) {
        ("", "") => "",
        ("", priority) => severity_of(priority),
        (severity, _) => severity,
    };
    let mut told = format!("{severity} {}", text("message"));
    for (name, value) in fields.iter().filter(|(name, _)| !TOLD.contains(&name.as_str())) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        told.extend([" ", name, "=", &value]);
    }
    let mut known = Known::of("log", fields.get("@timestamp").unwrap_or(&Value::Null), told, Value::Null);
    known.at = known.at.or(at);
    known.value = Value::Object(fields);
    Some(known)
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
}
