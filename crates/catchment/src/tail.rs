//! `catchment tail`: events as they come, until it is ended. A connection that breaks is made again, and goes on behind the last event.

use crate::client::{Client, Server};
use crate::sensor;
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use clap::{Args, value_parser};
use nowwhat::Environment;
use nowwhat::cli::{complain, print, printable};
use nowwhat::client::Arriving;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// For how long a collector that is away is looked for, and how often.
const AWAY_MAX: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_secs(1);
/// A connection that lasted so long was one, also when nothing came.
const LIVED: Duration = Duration::from_secs(10);
/// Longest line that a collector sends: an event, which it escapes.
const LINE_BYTES_MAX: usize = 256 << 20;

#[derive(Args)]
pub(crate) struct TailArgs {
    /// Only events of this sensor, by its id or its name.
    #[arg(long, value_name = "SENSOR")]
    sensor: Option<String>,
    /// Only events of this type.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only events whose time is not before this one, such as 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only events whose time is before this one.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Begin behind this position, with at most the newest 10,000 that are stored; 0 is the beginning [default: with what comes from now on].
    #[arg(long, value_name = "POSITION")]
    after: Option<u64>,
    /// End after so many events.
    #[arg(long, value_name = "EVENTS", value_parser = value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// One JSON object a line, with all that an event has.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// What came of following once.
enum Followed {
    /// As many as wanted.
    Done,
    /// The connection ended, and there had been one, not only a beginning of one.
    Broke { told: bool, why: String },
}

pub(crate) fn run(args: &TailArgs, environment: &Environment) -> anyhow::Result<()> {
    let sensor = sensor::id_of(args.sensor.as_deref())?;
    let mut tail = Tail { args, environment, sensor, last: None, left: args.limit };
    let mut away_since: Option<Instant> = None;
    loop {
        let (told, why) = match tail.follow()? {
            Followed::Done => return Ok(()),
            Followed::Broke { told, why } => (told, why),
        };
        if told {
            away_since = None;
        }
        let since = *away_since.get_or_insert_with(|| {
            complain(&format!("{why}: looking for the collector, for at most {} s", AWAY_MAX.as_secs()));
            Instant::now()
        });
        if since.elapsed() > AWAY_MAX {
            let behind = tail.last.as_ref().map(|last| format!("; --after {last} goes on from there"));
            bail!("{why}{}", behind.unwrap_or_default());
        }
        sleep(AGAIN);
    }
}

struct Tail<'a> {
    args: &'a TailArgs,
    environment: &'a Environment,
    sensor: Option<String>,
    /// The last position that was told, also of events that are not wanted.
    last: Option<String>,
    left: Option<u64>,
}

impl Tail<'_> {
    fn path(&self) -> anyhow::Result<String> {
        let TailArgs { event_type, since, until, after, .. } = self.args;
        let after = after.map(|after| after.to_string());
        let given =
            [("sensor", &self.sensor), ("type", event_type), ("since", since), ("until", until), ("after", &after)];
        let given: Vec<_> = given.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect();
        Ok(format!("/api/v1/events/tail?{}", serde_urlencoded::to_string(given)?))
    }

    /// Follows until the connection breaks. One that was made before is made again, whatever is in the way.
    fn follow(&mut self) -> anyhow::Result<Followed> {
        let (client, mut arriving) = match self.begin() {
            Ok(begun) => begun,
            Err(error) if self.last.is_some() => return Ok(Followed::Broke { told: false, why: format!("{error:#}") }),
            Err(error) => return Err(error),
        };
        let (mut message, mut told, began) = (Message::default(), false, Instant::now());
        loop {
            match client.runtime.block_on(arriving.next()) {
                Ok(Some(part)) => {
                    let before = self.last.clone();
                    if self.take(&mut message, part)? {
                        return Ok(Followed::Done);
                    }
                    // The first message tells only where it begins.
                    told |= before.is_some() && self.last != before;
                }
                ended => {
                    let told = told || began.elapsed() > LIVED;
                    let why = match ended {
                        Err(error) => nowwhat::error_chain(&error),
                        _ => "the collector has ended the answer".to_owned(),
                    };
                    return Ok(Followed::Broke { told, why });
                }
            }
        }
    }

    /// Asks the collector that is there now: one that is started again may have another address.
    fn begin(&self) -> anyhow::Result<(Client, Arriving)> {
        let client = Client::find(&self.args.server, self.environment)?;
        let headers = self.last.as_deref().map(|last| ("last-event-id", last));
        let arriving = client.begin(&self.path()?, headers.as_slice())?;
        if arriving.status.is_success() {
            return Ok((client, arriving));
        }
        client.whole(arriving)?;
        bail!("the collector answered without events")
    }

    /// Shows what a part of the answer brings; whether it was the last that is wanted.
    fn take(&mut self, message: &mut Message, part: Bytes) -> anyhow::Result<bool> {
        let mut shown = String::new();
        for line in message.lines(&part)? {
            let Some(Told { at, what }) = message.read(&line) else { continue };
            self.last = at.or(self.last.take());
            match what {
                What::Event(event) => {
                    shown += &if self.args.json { format!("{event}\n") } else { readable(&event)? };
                    if let Some(left) = &mut self.left {
                        *left -= 1;
                        if *left == 0 {
                            print(shown)?;
                            return Ok(true);
                        }
                    }
                }
                What::Missed(missed) => {
                    print(std::mem::take(&mut shown))?;
                    complain(&missed);
                }
                What::Nothing => {}
            }
        }
        print(shown)?;
        Ok(false)
    }
}

/// What a message tells that is whole.
struct Told {
    /// Where the collector is.
    at: Option<String>,
    what: What,
}

enum What {
    /// Nothing else.
    Nothing,
    /// An event, as JSON.
    Event(String),
    /// That events were missed, or may have been.
    Missed(String),
}

/// A message of server-sent events that is not whole yet, as the [WHATWG](https://html.spec.whatwg.org/multipage/server-sent-events.html) defines them.
#[derive(Default)]
struct Message {
    rest: Vec<u8>,
    /// Of a message that is cut it is not believed: its event would be passed over.
    id: Option<String>,
    data: String,
    kind: String,
}

impl Message {
    /// The lines that are whole.
    fn lines(&mut self, part: &[u8]) -> anyhow::Result<Vec<String>> {
        self.rest.extend_from_slice(part);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            ensure!(self.rest.len() <= LINE_BYTES_MAX, "the collector sends a line that has no end");
            return Ok(Vec::new());
        };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        Ok(String::from_utf8(whole)
            .context("the collector sends what is no text")?
            .lines()
            .map(str::to_owned)
            .collect())
    }

    /// What a message tells, with its last line.
    fn read(&mut self, line: &str) -> Option<Told> {
        let (name, value) =
            line.split_once(':').map_or((line, ""), |(name, value)| (name, value.strip_prefix(' ').unwrap_or(value)));
        match name {
            "id" => self.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.kind),
            "data" => self.data.push_str(value),
            "" if line.is_empty() => {
                let (data, kind) = (std::mem::take(&mut self.data), std::mem::take(&mut self.kind));
                let what = match kind.as_str() {
                    _ if data.is_empty() => What::Nothing,
                    "missed" => What::Missed(missed(&data)),
                    "reset" => What::Missed(reset(&data)),
                    "" => What::Event(data),
                    // Where it begins, and what a newer collector may tell beside.
                    _ => What::Nothing,
                };
                return Some(Told { at: self.id.take(), what });
            }
            _ => {}
        }
        None
    }
}

fn missed(data: &str) -> String {
    let told: Value = serde_json::from_str(data).unwrap_or_default();
    let [missed, after, until] = ["missed", "after", "until"].map(|name| told[name].as_u64().unwrap_or_default());
    format!(
        "{missed} events are not shown, as they come faster than they are taken: positions {} to {until}, which \
         `catchment query` still has",
        after + 1
    )
}

fn reset(data: &str) -> String {
    let told: Value = serde_json::from_str(data).unwrap_or_default();
    let [asked, after] = ["asked", "after"].map(|name| told[name].as_u64().unwrap_or_default());
    format!(
        "position {asked} was never given by this collector, as after a restore or by another one: it goes on behind {after}, and what came \
         meanwhile is not shown; `catchment query` has it"
    )
}

/// One line for who looks on: when, who, what.
fn readable(event: &str) -> anyhow::Result<String> {
    let event: Event<'_> = serde_json::from_str(event).context("the collector sends an event that is no JSON")?;
    let data = match (event.data.get(), &event.data_base64) {
        ("null", Some(bytes)) => bytes,
        (json, _) => json,
    };
    let Event { time, sensor, event_type, .. } = &event;
    let line = printable(&format!("{time}  {sensor}  {event_type}  {data}")).replace('\n', " ");
    Ok(format!("{line}\n"))
}

/// What of an event is shown.
#[derive(Deserialize)]
struct Event<'a> {
    time: String,
    sensor: String,
    #[serde(rename = "type")]
    event_type: String,
    #[serde(borrow)]
    data: &'a RawValue,
    data_base64: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_however_they_are_cut() {
        let text = "retry: 1000\n\nid: 7\ndata: {\"a\":1}\n\n: a comment\nid: 8\n\nid: 9\nevent: missed\ndata: {\"missed\":3,\"after\":8,\"until\":9}\n\n";
        for step in 1..text.len() {
            let mut message = Message::default();
            let mut told = Vec::new();
            for part in text.as_bytes().chunks(step) {
                for line in message.lines(part).expect("text") {
                    let Some(Told { at, what }) = message.read(&line) else { continue };
                    let what = match what {
                        What::Event(event) => event,
                        What::Missed(missed) => missed[..8].to_owned(),
                        What::Nothing => String::new(),
                    };
                    told.push((at.unwrap_or_default(), what));
                }
            }
            let expected = [("", ""), ("7", "{\"a\":1}"), ("8", ""), ("9", "3 events")];
            assert_eq!(told, expected.map(|(at, what)| (at.to_owned(), what.to_owned())), "{step} bytes at a time");
            // What is cut tells nothing, neither the event nor its position.
            assert!(
                message.lines(b"id: 10\ndata: {\"a").expect("text").iter().all(|line| message.read(line).is_none())
            );
        }
    }
}
