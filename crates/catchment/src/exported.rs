//! The lines of `catchment rejected export`: rejected events with all that makes them what they are, so that they can be mended with any tool for
//! text, in any order, and `catchment send` sends each as its sender meant it.
//!
//! Each line stands for itself, and none can be taken for an event: it is known by its key [`KEY`], wherever that stands in it and whatever a tool made
//! of its blanks, of the order of its keys, or of the lines as a whole. What a line cannot carry has no line.

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// What every line has at its top.
const KEY: &str = "catchment_rejected";
/// What every line begins with as it is exported.
const BEGIN: &[u8] = b"{\"catchment_rejected\":";

/// A rejected event on one line: as JSON in `event` where it is, so that it can be mended as it stands; else in `text`, or as bytes.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// Its position in the table.
    catchment_rejected: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sensor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    mode: Mode,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// How an event came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Plain,
    Structured,
    Batched,
    Binary,
}

/// Why an event has no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LeftOut {
    /// Not all of it is kept.
    Cut,
    /// The others of its batch are not there, and its sender wanted all or none.
    Atomic,
}

impl LeftOut {
    /// In words.
    pub(crate) fn why(self) -> &'static str {
        match self {
            Self::Cut => "cut: send the original again",
            Self::Atomic => "of batches with atomic=true: send all of the batch again",
        }
    }
}

/// The line of a row as the API answers it.
pub(crate) fn line_of(row: &Value) -> Result<String, LeftOut> {
    if row["cut"] != Value::Bool(false) {
        return Err(LeftOut::Cut);
    }
    let text = |name: &str| row[name].as_str().map(str::to_owned);
    let parameters = text("parameters");
    if pairs(parameters.as_deref()).contains(&("atomic".to_owned(), "true".to_owned())) {
        return Err(LeftOut::Atomic);
    }
    let mode = Mode::deserialize(&row["mode"]).map_err(|_| LeftOut::Cut)?;
    let mut line = Line {
        catchment_rejected: row["rejected_position"].as_i64().unwrap_or_default(),
        sensor: text("sensor"),
        code: text("code"),
        mode,
        parameters,
        ..Line::default()
    };
    if mode == Mode::Binary {
        line.content_type = text("content_type");
        line.headers = row["headers"].as_object().cloned();
    }
    (line.text, line.base64) = (text("data"), text("data_base64"));
    if mode != Mode::Binary
        && let Some(text) = line.text.as_ref().filter(|text| text.trim() != "null")
        && serde_json::from_str::<&RawValue>(text).is_ok()
    {
        line.event = RawValue::from_string(on_one_line(text.trim())).ok();
        line.text = line.text.filter(|_| line.event.is_none());
    }
    Ok(serde_json::to_string(&line).expect("plain data always serializes"))
}

/// How a batch is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Way {
    /// Parameters of the address.
    pub(crate) parameters: Vec<(String, String)>,
    /// The headers that say what the body is.
    pub(crate) headers: Vec<(String, String)>,
    /// Whether it is lines of events: others can stand behind it.
    pub(crate) is_lines: bool,
}

impl Way {
    /// Lines of plain JSON.
    pub(crate) fn lines(parameters: Vec<(String, String)>) -> Self {
        Self { parameters, headers: vec![content_type("application/x-ndjson")], is_lines: true }
    }

    /// One document of JSON: an array, or an object on several lines.
    pub(crate) fn document(parameters: Vec<(String, String)>) -> Self {
        Self { parameters, headers: vec![content_type("application/json")], is_lines: false }
    }

    /// The path that it is posted to.
    pub(crate) fn path(&self) -> anyhow::Result<String> {
        let parameters =
            serde_urlencoded::to_string(&self.parameters).context("cannot write the parameters of the address")?;
        Ok(format!("/api/v1/events?{parameters}").trim_end_matches('?').to_owned())
    }
}

/// Whether JSON has the key of a line at its top; what is broken is known by how it begins.
fn is_exported(json: &[u8]) -> bool {
    let keys = || serde_json::from_slice::<HashMap<String, IgnoredAny>>(json).unwrap_or_default();
    json.starts_with(BEGIN) || has_key(json) && keys().contains_key(KEY)
}

fn has_key(json: &[u8]) -> bool {
    memchr::memmem::find(json, KEY.as_bytes()).is_some()
}

/// The lines that a tool has put into an array or broken into several; none where it is any other JSON.
///
/// # Errors
/// Some are lines of an export and others are not.
pub(crate) fn lines_of(document: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    if !has_key(document) {
        return Ok(None);
    }
    let mut values = Vec::new();
    for value in serde_json::Deserializer::from_slice(document).into_iter::<&RawValue>() {
        // What cannot be read has its error by the collector.
        let Ok(value) = value else { return Ok(None) };
        match serde_json::from_str::<Vec<&RawValue>>(value.get()) {
            Ok(list) => values.extend(list),
            Err(_) => values.push(value),
        }
    }
    let are_lines: Vec<bool> = values.iter().map(|value| is_exported(value.get().as_bytes())).collect();
    if !are_lines.contains(&true) {
        return Ok(None);
    }
    if let Some(other) = are_lines.iter().position(|is_line| !is_line) {
        anyhow::bail!(
            "event {} of the JSON is no line of `catchment rejected export`, and others are: send them apart",
            other + 1
        );
    }
    let lines: String = values.iter().map(|value| on_one_line(value.get()) + "\n").collect();
    Ok(Some(lines.into_bytes()))
}

/// JSON without line ends: between its values one is a blank, and in a text it may not stand at all.
fn on_one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

/// What is to be sent for an exported line, and how; none for any other line. `given` are parameters that go before its own.
///
/// # Errors
/// A line that has the key of an exported one and is none, or is another sensor's than `sensor`.
pub(crate) fn read(line: &[u8], sensor: &str, given: &[(String, String)]) -> anyhow::Result<Option<(Way, Vec<u8>)>> {
    if !is_exported(line) {
        return Ok(None);
    }
    let line: Line =
        serde_json::from_slice(line).context("it has the key of a line of `catchment rejected export` and is none")?;
    if let Some(of) = &line.sensor {
        let me = registry::sensor_id_from(sensor).unwrap_or_default();
        ensure!(
            *of == me,
            "its event is of the sensor {of}, and you send as {sensor}: send with --sensor {of}, or take `sensor` out of the line"
        );
    }
    let mut parameters = pairs(line.parameters.as_deref());
    parameters.retain(|(name, _)| !given.iter().any(|(other, _)| other == name));
    parameters.extend_from_slice(given);
    let mut body = match (line.event, line.text, line.base64) {
        (Some(event), None, None) => event.get().as_bytes().to_vec(),
        (None, Some(text), None) => text.into_bytes(),
        (None, None, Some(base64)) => STANDARD.decode(base64).context("`base64` does not decode")?,
        _ => anyhow::bail!("it has one of `event`, `text` and `base64`"),
    };
    ensure!(
        line.mode == Mode::Binary || !body.trim_ascii().is_empty(),
        "its event has no text: take the line out, or mend it"
    );
    let way = match line.mode {
        Mode::Plain if !body.contains(&b'\n') => {
            body.push(b'\n');
            Way::lines(parameters)
        }
        // Broken on several lines: it came alone.
        Mode::Plain => Way::document(parameters),
        Mode::Structured | Mode::Batched => {
            Way { parameters, headers: vec![content_type("application/cloudevents+json")], is_lines: false }
        }
        Mode::Binary => {
            let mut headers: Vec<_> = line.content_type.as_deref().map(content_type).into_iter().collect();
            for (name, value) in line.headers.into_iter().flatten() {
                ensure!(
                    name.starts_with("ce-"),
                    "the header {name:?} is none of a CloudEvent: their names begin with ce-"
                );
                let values = if let Value::Array(values) = value { values } else { vec![value] };
                for value in values {
                    let value = value
                        .as_str()
                        .with_context(|| format!("the header {name:?} is a string, or a list of them"))?;
                    headers.push((name.clone(), encoded(value)));
                }
            }
            Way { parameters, headers, is_lines: false }
        }
    };
    Ok(Some((way, body)))
}

fn content_type(text: &str) -> (String, String) {
    ("content-type".to_owned(), text.to_owned())
}

fn pairs(parameters: Option<&str>) -> Vec<(String, String)> {
    serde_urlencoded::from_str(parameters.unwrap_or_default()).unwrap_or_default()
}

/// The value of a header `ce-…`: what is no ASCII is percent-encoded, which is read as the same.
fn encoded(value: &str) -> String {
    let byte = |b: u8| if b.is_ascii_graphic() || b == b' ' { char::from(b).to_string() } else { format!("%{b:02X}") };
    value.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(mode: &str, data: &str) -> Value {
        json!({"rejected_position": 7, "sensor": "roof", "code": "invalid_json", "mode": mode, "data": data, "cut": false,
               "parameters": null, "content_type": "text/plain", "headers": {"ce-id": "ü"}})
    }

    fn sent(row: &Value) -> (Way, String) {
        let line = line_of(row).expect("it has a line");
        assert!(line.as_bytes().starts_with(BEGIN) && !line.contains('\n'), "{line}");
        let (way, body) = read(line.as_bytes(), "Roof", &[]).expect("it reads").expect("it is one");
        (way, String::from_utf8(body).expect("text"))
    }

    #[test]
    fn an_event_comes_back_as_it_was_sent() {
        for (data, body) in [
            ("{oops", "{oops\n"),
            ("[3]", "[3]\n"),
            ("null", "null\n"),
            (
                "{\"a\":\n12345678901234567890123, \"a\":\"\\ud800\"}",
                "{\"a\": 12345678901234567890123, \"a\":\"\\ud800\"}\n",
            ),
        ] {
            assert_eq!(sent(&row("plain", data)), (Way::lines(vec![]), body.to_owned()));
        }
        assert_eq!(sent(&row("plain", "{\n oops")), (Way::document(vec![]), "{\n oops".to_owned()));
        let (way, body) = sent(&row("batched", "{\"id\":1}"));
        assert_eq!((way.headers[0].1.as_str(), body.as_str()), ("application/cloudevents+json", "{\"id\":1}"));
        let (way, body) = sent(&row("binary", "{ \"a\":\n1}"));
        let headers = [("content-type", "text/plain"), ("ce-id", "%C3%BC")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!((&way.headers[..], body.as_str()), (&headers[..], "{ \"a\":\n1}"));
    }

    #[test]
    fn what_cannot_be_carried_has_no_line_and_what_is_no_line_is_refused() {
        let with = |name: &str, value: Value| {
            let mut row = row("plain", "{oops");
            row[name] = value;
            line_of(&row)
        };
        assert_eq!(with("cut", json!(true)), Err(LeftOut::Cut));
        assert_eq!(with("parameters", json!("time_zone=UTC&atomic=true")), Err(LeftOut::Atomic));
        let line = with("parameters", json!("time_zone=UTC&id_field=/a%2Fb")).expect("a line");
        let given = [("time_zone".to_owned(), "Europe/Berlin".to_owned())];
        let (way, _) = read(line.as_bytes(), "roof", &given).expect("it reads").expect("it is one");
        assert_eq!(way.path().expect("a path"), "/api/v1/events?id_field=%2Fa%2Fb&time_zone=Europe%2FBerlin");
        let other = read(line.as_bytes(), "cellar", &[]).expect_err("another sensor's").to_string();
        assert!(other.contains("--sensor roof"), "{other}");
        assert!(read(b"{\"catchment_rejected\":1}", "roof", &[]).is_err(), "nothing to send");
        let empty =
            read(b"{\"catchment_rejected\":1,\"mode\":\"plain\",\"text\":\"\"}", "roof", &[]).expect_err("no event");
        assert!(empty.to_string().contains("has no text"), "{empty}");
        for other in [
            "{\"a\":1}\n",
            "{\"a\":{\"catchment_rejected\":1}}",
            "{\"a\":\"catchment_rejected\"}",
            "[\"catchment_rejected\"]",
        ] {
            assert_eq!(read(other.as_bytes(), "roof", &[]).expect("any line"), None, "{other}");
            assert_eq!(lines_of(other.as_bytes()).expect("any JSON"), None, "{other}");
        }
    }

    #[test]
    fn a_line_is_known_whatever_a_tool_made_of_it() {
        let line = line_of(&row("plain", "{\"a\":1}")).expect("a line");
        let sent = |line: &str| {
            let (way, body) = read(line.as_bytes(), "roof", &[]).expect("it reads").expect("it is one");
            assert_eq!(way, Way::lines(vec![]), "{line}");
            String::from_utf8(body).expect("text").replace(' ', "")
        };
        let value: Value = serde_json::from_str(&line).expect("JSON");
        let pretty = serde_json::to_string_pretty(&value).expect("JSON");
        let ordered = format!("{{{},\"catchment_rejected\":7}}", &line[BEGIN.len() + 2..line.len() - 1]);
        for other in [format!("  {line}"), line.replacen('{', "{ ", 1), pretty.replace('\n', " "), ordered] {
            assert_eq!(sent(&other), "{\"a\":1}\n", "{other}");
        }
        let all = [format!("[{line},\n{pretty}]"), format!("{pretty}\n{pretty}\n"), format!("{line}\n{pretty}")];
        for document in all {
            let lines = lines_of(document.as_bytes()).expect("it reads").expect("lines");
            let lines = String::from_utf8(lines).expect("text");
            assert_eq!(lines.lines().count(), 2, "{lines}");
            for line in lines.lines() {
                assert_eq!(sent(line), "{\"a\":1}\n", "{line}");
            }
        }
        let mixed = lines_of(format!("[{line},{{\"a\":1}}]").as_bytes()).expect_err("mixed");
        assert!(mixed.to_string().contains("event 2 of the JSON is no line"), "{mixed}");
    }
}
