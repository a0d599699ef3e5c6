//! `catchment import`: the events of an export, stored again with their sensors, ids and times.
//!
//! The collector looks up what it has already, so an import that was interrupted is made again, and so is a batch whose answer is lost.
//! Whatever ends it before its end, it says what was stored so far.

mod csv;
mod pages;
mod source;

use crate::client::{Client, Ended, Server, Token};
use anyhow::{Context, anyhow};
use bytes::Bytes;
use clap::Args;
use indicatif::ProgressBar;
use nowwhat::Environment;
use nowwhat::cli::{complain, print};
use nowwhat::client::ClientError;
use nowwhat::serve::Termination;
use serde_json::{Value, json};
use source::{Place, Source};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Events of a batch, and its bytes; a longer line is a batch of its own.
const BATCH_EVENTS: usize = 4000;
const BATCH_BYTES: usize = 4 << 20;
/// So often a batch is sent.
const TRIES: u32 = 60;
/// Between two tries, where the collector does not say how long.
const WAIT: Duration = Duration::from_secs(1);
/// So many rejected events are told one by one.
const TOLD_MAX: u64 = 100;

#[derive(Args)]
pub(crate) struct ImportArgs {
    /// Export to import: lines of JSON or CSV, plain or with gzip or zstd, or Parquet; - reads lines from standard input.
    file: PathBuf,
    /// Tell the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// What became of the events so far.
#[derive(Clone, Copy, Default)]
struct Totals {
    accepted: u64,
    duplicates: u64,
    reused_ids: u64,
    rejected: u64,
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { accepted, duplicates, reused_ids, rejected } = self;
        write!(f, "{accepted} accepted, {duplicates} duplicates, {rejected} rejected")?;
        if *reused_ids > 0 {
            write!(f, "; {reused_ids} of the accepted have the id and time of an event with other content")?;
        }
        Ok(())
    }
}

const SO_FAR: &str = "so far: import it again when it can be read, what is stored is not stored twice";

pub(crate) fn run(args: &ImportArgs, environment: &Environment) -> anyhow::Result<()> {
    let began = Instant::now();
    let client = Client::find(&args.server, environment)?;
    let token = client.token()?.clone();
    let (source, progress) = Source::open(&args.file)?;
    let unit = source.unit();
    let mut importing = Importing { client: &client, token, unit, progress, totals: Arc::default() };
    importing.tell_when_interrupted()?;
    let imported = importing.all(source);
    importing.progress.finish_and_clear();
    let totals = *importing.totals();
    if let Err(error) = imported {
        complain(&format!("{totals} {SO_FAR}"));
        return Err(error);
    }
    let Totals { accepted, duplicates, reused_ids, rejected } = totals;
    let seconds = began.elapsed().as_secs_f64();
    let told = match args.json {
        true => json!({
            "accepted": accepted, "duplicates": duplicates, "reused_ids": reused_ids, "rejected": rejected, "seconds": seconds,
        })
        .to_string(),
        false => totals.to_string(),
    };
    print(format!("{told}\n")).with_context(|| format!("all was imported: {totals}"))?;
    if rejected > 0 { Err(anyhow!("{rejected} events were rejected")) } else { Ok(()) }
}

/// An import on its way.
struct Importing<'a> {
    client: &'a Client,
    token: Token,
    /// What places in the file are called.
    unit: &'static str,
    progress: ProgressBar,
    totals: Arc<Mutex<Totals>>,
}

/// Events that are sent at once.
#[derive(Default)]
struct Batch {
    lines: Vec<u8>,
    places: Vec<u64>,
    step: u64,
}

impl Importing<'_> {
    fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on SIGINT and SIGTERM end the program with what is done so far.
    fn tell_when_interrupted(&self) -> anyhow::Result<()> {
        let within = self.client.runtime.enter();
        let mut termination = Termination::watch().context("cannot watch signals")?;
        drop(within);
        let (totals, progress) = (self.totals.clone(), self.progress.clone());
        self.client.runtime.spawn(async move {
            let signal = termination.next().await;
            let totals = *totals.lock().unwrap_or_else(PoisonError::into_inner);
            progress.finish_and_clear();
            complain(&format!("{signal}: {totals} {SO_FAR}"));
            std::process::exit(1);
        });
        Ok(())
    }

    /// Sends all events. Those that were read before the file breaks are sent.
    fn all(&mut self, mut source: Source) -> anyhow::Result<()> {
        let (mut batch, mut line) = (Batch::default(), Vec::new());
        loop {
            line.clear();
            let read = source.next(&mut line);
            let goes_on = matches!(&read, Ok(Some(_)));
            let is_full = batch.places.len() == BATCH_EVENTS || batch.lines.len() + line.len() > BATCH_BYTES;
            if !batch.places.is_empty() && (!goes_on || is_full) {
                self.post(std::mem::take(&mut batch))?;
            }
            let Some(Place { number, step }) = read? else { return Ok(()) };
            batch.lines.extend_from_slice(&line);
            batch.places.push(number);
            batch.step += step;
        }
    }

    /// Sends a batch until it has its answer: it may come any number of times.
    fn post(&self, batch: Batch) -> anyhow::Result<()> {
        let Batch { lines, places, step } = batch;
        let (body, mut away_since) = (Bytes::from(lines), None);
        let mut last = None;
        for tried in 0..TRIES {
            self.client.wait_for_return(|text| self.complain(text));
            let (error, wait) = match self.once(body.clone()) {
                Ok(said) => {
                    self.count(&said, &places);
                    self.progress.inc(step);
                    return Ok(());
                }
                Err(Failed { wait: None, error }) => return Err(error),
                Err(Failed { wait: Some(wait), error }) => (error, wait),
            };
            let since = *away_since.get_or_insert_with(Instant::now);
            let is_unreached = error.is::<Ended>() || error.downcast_ref().is_some_and(ClientError::is_unsent);
            if is_unreached && !self.client.may_return(since) {
                return Err(error);
            }
            if tried % 10 == 0 {
                self.complain(&format!("{error:#}: trying again"));
            }
            last = Some(error);
            std::thread::sleep(wait);
        }
        Err(last.unwrap_or_else(|| anyhow!("no answer")).context(format!("given up after {TRIES} tries")))
    }

    /// Sends a batch once.
    fn once(&self, body: Bytes) -> Result<Value, Failed> {
        let headers = [("content-type", "application/x-ndjson")];
        let answer = self.client.post("/api/v1/import", self.token.text(), body, &headers).map_err(|error| {
            let may_end_better = error.is::<Ended>() || error.downcast_ref().is_some_and(ClientError::is_retryable);
            Failed { wait: may_end_better.then_some(WAIT), error }
        })?;
        let seconds = answer.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let is_later = matches!(answer.status.as_u16(), 429 | 502..=504);
        let wait = is_later.then(|| seconds.map_or(WAIT, Duration::from_secs));
        if let Some(said) = answer.json::<Value>().ok().filter(|said| said["code"] == "all_rejected") {
            return Ok(said);
        }
        let answer = self.token.good(answer).map_err(|error| Failed { wait, error })?;
        let no_collector = |_| Failed { wait: None, error: anyhow!("the answer is not that of a collector") };
        answer.json().map_err(no_collector)
    }

    /// Counts a batch that has its answer, and tells what of it was rejected.
    fn count(&self, answer: &Value, places: &[u64]) {
        let number = |name: &str| answer[name].as_u64().unwrap_or(0);
        let mut totals = self.totals();
        for rejected in answer["rejected"].as_array().into_iter().flatten() {
            let index = rejected["index"].as_u64().and_then(|index| usize::try_from(index).ok());
            let place = index.and_then(|index| places.get(index)).copied().unwrap_or_default();
            let text = |name: &str| rejected[name].as_str().unwrap_or_default();
            totals.rejected += 1;
            if totals.rejected <= TOLD_MAX {
                self.complain(&format!("{} {place}: {}: {}", self.unit, text("code"), text("reason")));
            }
        }
        let listed = answer["rejected"].as_array().map_or(0, |rejected| rejected.len() as u64);
        totals.rejected += number("rejected_total").saturating_sub(listed);
        totals.accepted += number("accepted");
        totals.duplicates += number("duplicates");
        totals.reused_ids += number("reused_ids");
        self.progress.set_message(format!("{} accepted, {} duplicates", totals.accepted, totals.duplicates));
    }

    fn complain(&self, text: &str) {
        self.progress.suspend(|| complain(text));
    }
}

/// Why a batch has no answer, and when it can be sent again.
struct Failed {
    error: anyhow::Error,
    wait: Option<Duration>,
}
