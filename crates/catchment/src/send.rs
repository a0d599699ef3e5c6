//! `catchment send`: events from a file or standard input, in batches.
//!
//! A batch that the server turned away is sent again, because nothing of it was stored. When an answer is lost, nobody knows:
//! sending stops there and says from which line to go on.

use crate::client::{Client, Server, good};
use crate::data_dir::DataDir;
use anyhow::{Context, anyhow, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use nowwhat::Environment;
use nowwhat::cli::{complain, print};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;
use std::time::Duration;

/// Lines of a batch.
const BATCH_LINES: usize = 1000;
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
    /// Begin with this line, from 1: where an earlier run stopped.
    #[arg(long, value_name = "LINE", default_value_t = 1)]
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

pub(crate) fn run(args: &SendArgs, environment: &Environment) -> anyhow::Result<()> {
    let client = Client::find(&args.server, environment)?;
    let token = sensor_token(&client, &args.sensor)?;
    let (mut input, bytes) = open(args.file.as_ref())?;
    let progress = bar(bytes);
    let begins_with_array =
        input.fill_buf().context("cannot read the input")?.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    let totals = if begins_with_array {
        let (mut body, mut totals) = (Vec::new(), Totals::default());
        input.read_to_end(&mut body).context("cannot read the input")?;
        post(&client, &token, (&body, "application/json"), 1, &mut totals)?;
        totals
    } else {
        lines(&client, &token, args.from_line, &mut input, &progress)?
    };
    progress.finish_and_clear();
    let Totals { accepted, duplicates, rejected } = totals;
    print(format!("{accepted} accepted, {duplicates} duplicates, {rejected} rejected\n"))?;
    if rejected > 0 { Err(anyhow!("{rejected} events were rejected")) } else { Ok(()) }
}

fn lines(
    client: &Client,
    token: &str,
    from_line: u64,
    input: &mut dyn BufRead,
    progress: &ProgressBar,
) -> anyhow::Result<Totals> {
    let mut totals = Totals::default();
    let mut batch = Vec::new();
    let (mut first, mut next, mut count) = (from_line, 1, 0);
    loop {
        let before = batch.len();
        let read = input.read_until(b'\n', &mut batch).context("cannot read the input")?;
        progress.inc(read as u64);
        if read > 0 && next < from_line {
            batch.truncate(before);
            next += 1;
            continue;
        }
        if read > 0 {
            next += 1;
            count += 1;
            if batch.last() != Some(&b'\n') {
                batch.push(b'\n');
            }
        }
        if count > 0 && (read == 0 || count >= BATCH_LINES || batch.len() >= BATCH_BYTES) {
            post(client, token, (&batch, "application/x-ndjson"), first, &mut totals)?;
            progress.set_message(format!("{} accepted", totals.accepted));
            batch.clear();
            (first, count) = (next, 0);
        }
        if read == 0 {
            return Ok(totals);
        }
    }
}

/// Sends one batch until it has an answer.
fn post(
    client: &Client,
    token: &str,
    (body, kind): (&[u8], &str),
    line: u64,
    totals: &mut Totals,
) -> anyhow::Result<()> {
    for _ in 0..TRIES {
        let sent = client.post("/api/v1/events", token, body.to_vec(), &[("content-type", kind)]);
        let answer = sent.with_context(|| {
            format!("the batch from line {line} on has no answer and may be stored or not; check, then go on with --from-line")
        })?;
        match answer.status.as_u16() {
            429 | 503 => {
                let wait = answer.headers.get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok()).unwrap_or(1);
                std::thread::sleep(Duration::from_secs(wait));
            }
            200 => return count(&answer.json()?, line, totals),
            400 => {
                let text = String::from_utf8_lossy(&answer.bytes);
                let problem: Value = answer.json().unwrap_or_default();
                if problem["code"] != "all_rejected" {
                    bail!(
                        "the batch from line {line} on: {} (400 {})",
                        problem["detail"].as_str().unwrap_or(&text),
                        problem["code"].as_str().unwrap_or_default()
                    );
                }
                return count(&problem, line, totals);
            }
            _ => {
                return good(answer).map(drop).with_context(|| format!("the batch from line {line} on was not stored"));
            }
        }
    }
    bail!(
        "the server turns the batch from line {line} on away again and again: nothing of it is stored, go on later with --from-line {line}"
    )
}

fn count(answer: &Value, line: u64, totals: &mut Totals) -> anyhow::Result<()> {
    let number = |name: &str| answer[name].as_u64().unwrap_or(0);
    totals.accepted += number("accepted");
    totals.duplicates += number("duplicates");
    totals.rejected += number("rejected_total");
    let none = Vec::new();
    for rejected in answer["rejected"].as_array().unwrap_or(&none).iter().take(10) {
        let at = line + rejected["index"].as_u64().unwrap_or(0);
        let (code, reason) =
            (rejected["code"].as_str().unwrap_or_default(), rejected["reason"].as_str().unwrap_or_default());
        complain(&format!("event {at}: {code}: {reason}"));
    }
    Ok(())
}

/// The token of a sensor: kept on this machine, else of a sensor registered now.
fn sensor_token(client: &Client, name: &str) -> anyhow::Result<String> {
    let Some(dir) = &client.dir else {
        // Far from the collector's folder the token given is the sensor's.
        return client.token().map(str::to_owned);
    };
    let path = dir.sensor_token_path(name);
    if let Some(token) = DataDir::token(&path)? {
        return Ok(token);
    }
    let made = client
        .post_json("/api/v1/sensor", &json!({ "name": name }))
        .with_context(|| format!("sensor {name:?} has no token on this machine and could not be registered"))?;
    let token = made["token"].as_str().context("the answer holds no token")?.to_owned();
    DataDir::keep_token(&path, &token)?;
    Ok(token)
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
