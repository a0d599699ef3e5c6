//! `catchment request ID`: all that is known of one request, in the order of time.
//!
//! The collector is asked for the request's event, for the events that came with it, for what was rejected of it and for what it changed; a log
//! is looked into for its lines. What one of them cannot tell does not hide what the others know: it is said at the end.

mod lines;

use crate::client::{Client, Server};
use anyhow::{Context, anyhow, bail};
use clap::Args;
use jiff::Timestamp;
use nowwhat::Environment;
use nowwhat::cli::{Usage, print, printable};
use serde_json::{Value, json};
use server::Code;
use std::path::PathBuf;

/// Most that is shown of one kind.
const SHOWN_MAX: usize = 100;
/// Answers that leave open whether the events are stored.
const OPEN: [Code; 4] = [Code::LogPoisoned, Code::Stopping, Code::TimedOut, Code::Internal];

#[derive(Args)]
pub(crate) struct RequestArgs {
    /// The id of the request, as it is in `X-Request-Id`, in an error, on a line of the log.
    id: String,
    /// Look into this log too, - for standard input: JSON lines of the collector, or entries as `journalctl -o json` shows them.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// One thing that is known.
struct Known {
    at: Option<Timestamp>,
    what: &'static str,
    text: String,
    value: Value,
}

impl Known {
    fn of(what: &'static str, time: &Value, text: String, value: Value) -> Self {
        Self { at: time.as_str().and_then(|time| time.parse().ok()), what, text, value }
    }

    fn line(&self) -> String {
        let at = self.at.map_or_else(|| "?".to_owned(), |at| format!("{at:.6}"));
        format!("{at:<27}  {:<8}  {}\n", self.what, printable(&self.text).replace('\n', " "))
    }
}

/// What was found, and what could not be looked at.
#[derive(Default)]
struct Findings {
    known: Vec<Known>,
    unasked: Vec<String>,
    /// Why nothing of the request is among the collected ones.
    advice: Option<String>,
}

impl Findings {
    fn add(&mut self, place: &str, found: anyhow::Result<Vec<Known>>) {
        match found {
            Ok(known) => self.known.extend(known),
            Err(error) => self.unasked.push(format!("{place}: {error:#}")),
        }
    }
}

pub(crate) fn run(args: &RequestArgs, environment: &Environment) -> anyhow::Result<()> {
    // As it comes out of a file or an answer in CSV, with the end of its line.
    let id = checked(args.id.trim())?;
    let mut findings = Findings::default();
    match Client::find(&args.server, environment) {
        Ok(client) => ask(&client, id, &mut findings),
        // The lines of a log can be looked at without a collector.
        Err(error) if args.log.is_some() => findings.unasked.push(format!("the collector: {error:#}")),
        Err(error) => return Err(error),
    }
    if let Some(log) = &args.log {
        findings.add("the log", lines::of(log, id));
    }
    let Findings { mut known, unasked, advice } = findings;
    known.sort_by_key(|known| known.at);
    if args.json {
        let known: Vec<Value> = known
            .iter()
            .map(|known| json!({ "time": known.at.map(|at| format!("{at:.6}")), "what": known.what, "known": known.value }))
            .collect();
        print(format!("{}\n", json!({ "request_id": id, "known": known, "not_looked_at": unasked })))?;
    } else {
        print(known.iter().map(Known::line).collect::<String>())?;
    }
    if !unasked.is_empty() {
        return Err(anyhow!("not all could be looked at: {}", unasked.join("; ")));
    }
    if known.is_empty() {
        return Err(anyhow!("nothing is known of the request {id}: {}", nothing(args, advice)));
    }
    Ok(())
}

/// An id that a request can have.
fn checked(id: &str) -> Result<&str, Usage> {
    if nowwhat::request::is_id(id.as_bytes()) {
        return Ok(id);
    }
    Err(Usage(format!(
        "{id:?} is no id of a request: it has 1 to 128 printable ASCII characters without blanks, quotes and backslashes, as in the \
         header X-Request-Id of its answer"
    )))
}

/// What to do when nothing is known.
fn nothing(args: &RequestArgs, advice: Option<String>) -> String {
    let of_log = match &args.log {
        Some(log) => format!("no line of {} has it", log.display()),
        None => "its line in the log can be found with --log FILE, or with `journalctl -u catchment -o json | catchment request ID --log -`"
            .to_owned(),
    };
    [advice, Some(of_log)].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// Asks the collector in each place that knows of requests.
fn ask(client: &Client, id: &str, findings: &mut Findings) {
    let requests = requests(client, id);
    if let Ok(known) = &requests {
        for request in known {
            findings.add("its events", came(client, &request.value));
        }
        if known.is_empty() {
            findings.advice = advice(client).ok();
        }
    }
    findings.add("collected requests", requests);
    findings.add("rejected events", rejected(client, id));
    findings.add("the audit", audit(client, id));
}

/// The rows of a question.
fn rows(client: &Client, sql: &str, params: &[&str]) -> anyhow::Result<Vec<Value>> {
    let answer = client.post_json("/api/v1/query", &json!({ "sql": sql, "params": params }))?;
    Ok(answer["rows"].as_array().context("the answer has no rows")?.clone())
}

/// The request itself; more than one, when a client used the id again.
fn requests(client: &Client, id: &str) -> anyhow::Result<Vec<Known>> {
    let sql = format!(
        "SELECT time, data FROM events WHERE sensor = '{}' AND id = $1 ORDER BY position LIMIT {SHOWN_MAX}",
        server::REQUESTS_SENSOR
    );
    let known = rows(client, &sql, &[id])?.into_iter().map(|row| {
        let data: Value = row[1].as_str().and_then(|data| serde_json::from_str(data).ok()).unwrap_or_default();
        let text = |name: &str| match &data[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let mut told = format!("{} {} {} in {} ms", text("method"), text("path"), text("status"), text("duration"));
        for (name, before) in [
            ("code", ", "),
            ("client", ", from "),
            ("token_name", ", token "),
            ("role", ", role "),
            ("sensor", ", sensor "),
            ("events", ", events "),
            ("accepted", ", accepted "),
            ("duplicates", ", duplicates "),
            ("rejected", ", rejected "),
            ("sql", ", asked "),
        ] {
            if !data[name].is_null() {
                told.extend([before, &text(name)]);
            }
        }
        Known::of("request", &row[0], told, data)
    });
    Ok(known.collect())
}

/// Where the events of a request lie; none when it stored none. The time at which they came is no help: other requests came at the same one.
fn positions(request: &Value) -> anyhow::Result<Option<(u64, u64)>> {
    let number = |name: &str| request[name].as_u64();
    if let (Some(first), Some(last)) = (number("first_position"), number("last_position")) {
        return Ok(Some((first, last)));
    }
    let code = request["code"].as_str();
    match (number("accepted"), request["received_at"].as_str()) {
        (None, None) | (Some(0), _) => Ok(None),
        (Some(accepted), _) => {
            bail!(
                "which they are is not known: the request was collected by a version that did not tell the positions of the {accepted} it stored"
            )
        }
        (None, _) if code.is_none_or(|code| OPEN.iter().any(|open| open.name() == code)) => {
            let events = &request["events"];
            bail!(
                "whether any is stored is not known: {events} came, and the request ended before its answer could tell"
            )
        }
        (None, _) => Ok(None),
    }
}

/// The events that a request stored.
fn came(client: &Client, request: &Value) -> anyhow::Result<Vec<Known>> {
    let (Some((first, last)), Some(sensor)) = (positions(request)?, request["sensor"].as_str()) else {
        return Ok(Vec::new());
    };
    let received_at = &request["received_at"];
    let sql = format!(
        "SELECT count(*), min(position), max(position), min(type), max(type) FROM events \
         WHERE sensor = $1 AND position BETWEEN {first} AND {last}"
    );
    let known = rows(client, &sql, &[sensor])?.into_iter().filter(|row| row[0] != 0).map(|row| {
        let kind = |at: usize| row[at].as_str().unwrap_or_default().to_owned();
        let types = if row[3] == row[4] { kind(3) } else { format!("{} to {}", kind(3), kind(4)) };
        let text = format!("{} stored of sensor {sensor}, positions {} to {}, type {types}", row[0], row[1], row[2]);
        let value = json!({
            "sensor": sensor, "received_at": received_at, "events": row[0], "first_position": row[1], "last_position": row[2],
        });
        Known::of("events", received_at, text, value)
    });
    Ok(known.collect())
}

/// What was rejected of it.
fn rejected(client: &Client, id: &str) -> anyhow::Result<Vec<Known>> {
    let sql = format!(
        "SELECT received_at, sensor, \"index\", code, pointer, reason, rejected_position FROM rejected WHERE request_id = $1 \
         ORDER BY rejected_position LIMIT {SHOWN_MAX}"
    );
    let known = rows(client, &sql, &[id])?.into_iter().map(|row| {
        let text = |at: usize| row[at].as_str().unwrap_or_default();
        let told = format!("event {} of sensor {}: {}: {}", row[2], text(1), text(3), text(5));
        let value = json!({
            "sensor": row[1], "index": row[2], "code": row[3], "pointer": row[4], "reason": row[5], "rejected_position": row[6],
        });
        Known::of("rejected", &row[0], told, value)
    });
    Ok(known.collect())
}

/// What it changed.
fn audit(client: &Client, id: &str) -> anyhow::Result<Vec<Known>> {
    let query = serde_urlencoded::to_string([("request_id", id), ("limit", &SHOWN_MAX.to_string())])?;
    let page = client.get(&format!("/api/v1/audit?{query}"))?;
    let entries = page["entries"].as_array().context("the answer has no entries")?.clone();
    let known = entries.into_iter().map(|entry| {
        let text = |name: &str| entry[name].as_str().unwrap_or_default();
        let detail = if entry["detail"].is_null() { String::new() } else { format!(" {}", entry["detail"]) };
        let told = format!(
            "{} {}{detail} by token {}, role {}",
            text("act"),
            text("target"),
            text("token_name"),
            text("role")
        );
        Known::of("audit", &entry["at"].clone(), told, entry)
    });
    Ok(known.collect())
}

/// Why a request may not be among the collected ones.
fn advice(client: &Client) -> anyhow::Result<String> {
    let sql = format!("SELECT min(time), max(time) FROM events WHERE sensor = '{}'", server::REQUESTS_SENSOR);
    let times = rows(client, &sql, &[])?.into_iter().next().unwrap_or_default();
    Ok(match (times[0].as_str(), times[1].as_str()) {
        // Whether they still are is not told to whoever asks in SQL.
        (Some(first), Some(last)) => format!(
            "collected are requests that ended from {first} to {last}; a later one is there about a second after its end, if \
             `collect = true` in [request_log] still holds, and those that were left out, too many at once, are counted in \
             `catchment_server_request_log_ends_total`"
        ),
        _ => "requests are not collected: `collect = true` in [request_log] of the configuration does that from the next start on".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_those_whose_positions_a_request_tells_and_where_it_does_not_nobody_guesses() {
        let told = |fields: &str| {
            let received = json!({ "sensor": "roof", "received_at": "2026-11-26T12:00:00Z", "events": 3 });
            let mut request: Value = serde_json::from_str(fields).expect("JSON");
            request.as_object_mut().expect("an object").extend(received.as_object().expect("an object").clone());
            positions(&request).map_err(|error| error.to_string())
        };
        assert_eq!(told(r#"{"accepted":2,"first_position":7,"last_position":8}"#), Ok(Some((7, 8))));
        for stored_nothing in [
            r#"{"accepted":0,"duplicates":3}"#,
            r#"{"status":400,"code":"all_rejected"}"#,
            r#"{"code":"storage_full"}"#,
        ] {
            assert_eq!(told(stored_nothing), Ok(None), "{stored_nothing}");
        }
        let before = told(r#"{"accepted":2,"duplicates":0,"rejected":1}"#).expect_err("it does not tell");
        assert!(before.contains("which they are is not known") && before.contains("the 2 it stored"), "{before}");
        for open in [r#"{"status":499}"#, r#"{"status":503,"code":"stopping"}"#] {
            let open = told(open).expect_err("it does not tell");
            assert!(open.contains("whether any is stored is not known: 3 came"), "{open}");
        }
        let others = positions(&json!({ "sensor": "roof", "status": 200 })).expect("it sent nothing");
        assert_eq!(others, None);
    }
}
