//! `catchment send`: events from a file or standard input, in batches.
//!
//! A batch that the server turned away is sent again, because nothing of it was stored. Whatever else ends sending before the input ends, it
//! says what was accepted so far and from which line to go on; when an answer is lost, that nobody knows of that batch. Lines that were
//! read before the input broke are sent. No line and no array is larger in memory than what a collector takes at once.

use crate::client::{Client, Server, Token, good};
use crate::config::BODY_BYTES_MAX;
use crate::data_dir::DataDir;
use anyhow::{Context, anyhow, ensure};
use bytes::Bytes;
use clap::{Args, value_parser};
use indicatif::{ProgressBar, ProgressStyle};
use nowwhat::Environment;
use nowwhat::cli::{complain, print};
use nowwhat::client::{Answer, ClientError};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;
use std::time::Duration;

/// Lines of a batch.
const BATCH_LINES: u64 = 1000;
/// Bytes of a batch; a longer line is a batch of its own.
const BATCH_BYTES: usize = 1 << 20;
/// A server that turns away for longer is given up.
const TRIES: u32 = 60;

#[derive(Args)]
pub(crate) struct SendArgs {
    /// File to send; - or none reads standard input.
    file: Option<PathBuf>,
    /// Name of the sensor; registered when there is none on this machine yet.
    #[arg(long, value_name = "NAME", default_value = "cli")]
    sensor: String,
    /// Begin with this line, from 1: where an earlier run stopped. A JSON array is always sent as a whole.
    #[arg(long, value_name = "LINE", default_value_t = 1, value_parser = value_parser!(u64).range(1..))]
    from_line: u64,
    #[command(flatten)]
    server: Server,
}

/// What became of the events so far.
#[derive(Default)]
struct Totals {
    accepted: u64,
    duplicates: u64,
    rejected: u64,
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { accepted, duplicates, rejected } = self;
        write!(f, "{accepted} accepted, {duplicates} duplicates, {rejected} rejected")
    }
}

/// Sending that ended before its input.
struct Stopped {
    cause: anyhow::Error,
    batch: Fate,
}

/// What is known of the batch at which sending stopped.
enum Fate {
    NotStored,
    Unknown,
}

impl Stopped {
    fn undecided(cause: anyhow::Error) -> Self {
        Self { cause, batch: Fate::Unknown }
    }
}

/// Nothing of the batch at hand is stored, unless a call went out and its answer is lost.
impl From<anyhow::Error> for Stopped {
    fn from(cause: anyhow::Error) -> Self {
        let is_lost = cause.downcast_ref::<ClientError>().is_some_and(|error| !error.is_unsent());
        Self { cause, batch: if is_lost { Fate::Unknown } else { Fate::NotStored } }
    }
}

pub(crate) fn run(args: &SendArgs, environment: &Environment) -> anyhow::Result<()> {
    let client = Client::find(&args.server, environment)?;
    let token = sensor_token(&client, &args.sensor)?;
    let (mut input, bytes) = open(args.file.as_ref())?;
    let mut sending = Sending {
        client: &client,
        token,
        progress: bar(bytes),
        totals: Totals::default(),
        first_line: args.from_line,
        lines: 0,
        batch: Vec::new(),
    };
    let sent = sending.all(&mut *input);
    sending.progress.finish_and_clear();
    if let Err(Stopped { cause, batch }) = sent {
        complain(&format!("{} so far; {}", sending.totals, sending.advice(&batch)));
        return Err(cause);
    }
    print(format!("{}\n", sending.totals)).with_context(|| format!("all was sent: {}", sending.totals))?;
    let rejected = sending.totals.rejected;
    if rejected > 0 { Err(anyhow!("{rejected} events were rejected")) } else { Ok(()) }
}

/// An input on its way.
struct Sending<'a> {
    client: &'a Client,
    token: Token,
    progress: ProgressBar,
    totals: Totals,
    /// The line at which the batch at hand begins; all before it have their answer.
    first_line: u64,
    /// Lines of the batch at hand; none of an array.
    lines: u64,
    batch: Vec<u8>,
}

impl Sending<'_> {
    fn all(&mut self, input: &mut dyn BufRead) -> Result<(), Stopped> {
        let head = input.fill_buf().context("cannot read the input")?;
        if head.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
            self.first_line = 1;
            return self.array(input);
        }
        for number in 1..self.first_line {
            let skipped = input.skip_until(b'\n').with_context(|| unreadable(number))?;
            self.progress.inc(skipped as u64);
            if skipped == 0 {
                return Ok(());
            }
        }
        self.rest(input)
    }

    fn array(&mut self, input: &mut dyn BufRead) -> Result<(), Stopped> {
        let mut body = Vec::new();
        input.take(BODY_BYTES_MAX.0 + 1).read_to_end(&mut body).context("cannot read the array to its end")?;
        if body.len() as u64 > BODY_BYTES_MAX.0 {
            let cause = anyhow!(
                "the array is larger than {BODY_BYTES_MAX}, the most that a collector takes at once: send one event a line, as `jq -c '.[]'` makes them"
            );
            return Err(cause.into());
        }
        self.post(body.into(), "application/json")
    }

    /// Sends the lines from here on. Those read before the input breaks are sent, so that the line to go on with is the broken one.
    fn rest(&mut self, input: &mut dyn BufRead) -> Result<(), Stopped> {
        let mut line = Vec::new();
        loop {
            let read = read_line(input, &mut line);
            let goes_on = matches!(read, Ok(1..));
            if self.lines > 0 && (!goes_on || self.batch.len() + line.len() > BATCH_BYTES) {
                self.send_batch()?;
            }
            let read = read.with_context(|| unreadable(self.first_line + self.lines))?;
            if read == 0 {
                return Ok(());
            }
            self.progress.inc(read as u64);
            self.batch.extend_from_slice(&line);
            self.lines += 1;
            if self.lines == BATCH_LINES {
                self.send_batch()?;
            }
        }
    }

    fn send_batch(&mut self) -> Result<(), Stopped> {
        let batch = std::mem::take(&mut self.batch);
        self.post(batch.into(), "application/x-ndjson")?;
        self.first_line += self.lines;
        self.lines = 0;
        self.progress.set_message(format!("{} accepted", self.totals.accepted));
        Ok(())
    }

    /// Sends one batch until it has an answer.
    fn post(&mut self, body: Bytes, content_type: &str) -> Result<(), Stopped> {
        let headers = [("content-type", content_type)];
        for _ in 0..TRIES {
            let answer = self.client.post("/api/v1/events", self.token.text(), body.clone(), &headers)?;
            let said: Value = answer.json().unwrap_or_default();
            if said["code"] == "all_rejected" || answer.status.is_success() && said["accepted"].is_u64() {
                self.count(&said);
                return Ok(());
            }
            match (answer.status.as_u16(), said["code"].as_str().unwrap_or_default()) {
                // The collector itself does not know what became of these, and nobody knows what stands before it.
                (503, "log_poisoned" | "timed_out") | (200..300 | 500..503 | 504.., _) => {
                    return Err(Stopped::undecided(no_count(answer)));
                }
                (429 | 503, _) => {
                    let wait = answer.headers.get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
                    std::thread::sleep(Duration::from_secs(wait.unwrap_or(1)));
                }
                _ => return Ok(self.token.good(answer).map(drop)?),
            }
        }
        Err(anyhow!("the collector has turned the batch away {TRIES} times: go on later").into())
    }

    fn count(&mut self, answer: &Value) {
        let number = |name: &str| answer[name].as_u64().unwrap_or(0);
        self.totals.accepted += number("accepted");
        self.totals.duplicates += number("duplicates");
        self.totals.rejected += number("rejected_total");
        for rejected in answer["rejected"].as_array().into_iter().flatten().take(10) {
            let at = self.first_line + rejected["index"].as_u64().unwrap_or(0);
            let (code, reason) =
                (rejected["code"].as_str().unwrap_or_default(), rejected["reason"].as_str().unwrap_or_default());
            complain(&format!("event {at}: {code}: {reason}"));
        }
    }

    /// Where to go on after sending has stopped.
    fn advice(&self, batch: &Fate) -> String {
        let first = self.first_line;
        let next = first + self.lines;
        match (batch, self.lines) {
            (Fate::NotStored, _) => format!("nothing from line {first} on is stored: go on with --from-line {first}"),
            (Fate::Unknown, 0) => "the array may be stored or not: look, and send it again if it is not".to_owned(),
            (Fate::Unknown, _) => format!(
                "lines {first} to {} may be stored or not: look, and go on with --from-line {next} if they are, else with --from-line {first}",
                next - 1
            ),
        }
    }
}

/// An answer that tells no counts, as an error.
fn no_count(answer: Answer) -> anyhow::Error {
    let status = answer.status;
    good(answer).map_or_else(|error| error, |_| anyhow!("the answer, with status {status}, is not that of a collector"))
}

fn unreadable(line: u64) -> String {
    format!("cannot read line {line}")
}

/// Reads a line; 0 bytes at the end of the input.
fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> anyhow::Result<usize> {
    line.clear();
    let read = input.take(BODY_BYTES_MAX.0 + 1).read_until(b'\n', line)?;
    ensure!(
        read as u64 <= BODY_BYTES_MAX.0,
        "it is longer than {BODY_BYTES_MAX}, the most that a collector takes at once: send one event a line, or a JSON array that begins with ["
    );
    Ok(read)
}

/// The token of a sensor: kept on this machine, else of a sensor registered now.
fn sensor_token(client: &Client, name: &str) -> anyhow::Result<Token> {
    let Some(dir) = &client.dir else {
        // Far from the collector's folder the token given is the sensor's.
        return client.token().cloned();
    };
    let path = dir.sensor_token_path(name);
    if let Some(token) = DataDir::token(&path)? {
        return Ok(Token::Sensor { text: token, path });
    }
    let made = client
        .post_json("/api/v1/sensor", &json!({ "name": name }))
        .with_context(|| format!("sensor {name:?} has no token on this machine and could not be registered"))?;
    let token = made["token"].as_str().context("the answer holds no token")?.to_owned();
    DataDir::keep_token(&path, &token)?;
    Ok(Token::Sensor { text: token, path })
}

/// The input, decompressed by what it begins with, and its size when that is known and means something.
fn open(file: Option<&PathBuf>) -> anyhow::Result<(Box<dyn BufRead>, Option<u64>)> {
    let (raw, bytes): (Box<dyn Read>, Option<u64>) = match file.filter(|f| f.as_os_str() != "-") {
        Some(path) => {
            let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            let bytes = file.metadata().ok().map(|m| m.len());
            (Box::new(file), bytes)
        }
        None => (Box::new(io::stdin()), None),
    };
    let mut raw = BufReader::with_capacity(1 << 16, raw);
    let head = raw.fill_buf().context("cannot read the input")?;
    if head.starts_with(&[0x1f, 0x8b]) {
        return Ok((Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(raw))), None));
    }
    if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Ok((Box::new(BufReader::new(zstd::Decoder::with_buffer(raw).context("cannot read the input")?)), None));
    }
    Ok((Box::new(raw), bytes))
}

fn bar(bytes: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    match bytes {
        Some(bytes) => {
            ProgressBar::new(bytes).with_style(style("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {msg}"))
        }
        None => ProgressBar::new_spinner().with_style(style("{spinner} {bytes} {bytes_per_sec} {msg}")),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
