//! `catchment export`: events as lines of JSON, CSV or Parquet, with every column that makes them.
//!
//! What is exported are the events up to the last position at which the export began, so that it ends also while events come. A file has
//! its name only when it is whole and synced. `catchment import` makes the same events of it again.

pub(crate) mod form;
mod pages;

use crate::client::{Client, Server};
use crate::progress;
use crate::sensor;
use crate::target::{Existing, Target};
use anyhow::Context;
use clap::Args;
use form::{Form, Writer};
use indicatif::ProgressBar;
use nowwhat::Environment;
use nowwhat::cli::{Usage, complain, print};
use nowwhat::config::ByteSize;
use nowwhat::serve::Termination;
use pages::{Filter, Pages};
use serde_json::json;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

#[derive(Args)]
pub(crate) struct ExportArgs {
    /// File to write, such as events.ndjson, events.csv.gz, events.ndjson.zst or events.parquet; - writes standard output.
    file: PathBuf,
    /// The form [default: what the name of the file ends with, else ndjson].
    #[arg(long, value_enum)]
    format: Option<Form>,
    /// Those of one sensor, by its id or its name.
    #[arg(long, value_name = "ID")]
    sensor: Option<String>,
    /// Those of one type.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Those whose time is this one or later, such as 2026-01-31T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Those whose time is before this one.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Write over the file when it is there.
    #[arg(long)]
    overwrite: bool,
    /// Tell the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// How far an export has come.
#[derive(Clone, Default)]
struct Done {
    events: Arc<AtomicU64>,
}

impl Done {
    fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// What there is of an export that does not come to its end.
    fn so_far(&self, target: &Target) -> String {
        let events = self.events();
        match target.part() {
            None => format!("{events} events so far: what was written is not all of the export"),
            Some(part) => format!(
                "{events} events so far: {} is a part of the export and no whole one; the next export to this file begins anew",
                part.display()
            ),
        }
    }
}

pub(crate) fn run(args: &ExportArgs, environment: &Environment) -> anyhow::Result<()> {
    let (form, packing) = form::of(&args.file, args.format)?;
    let existing = if args.overwrite { Existing::Replaced } else { Existing::Kept };
    let target = Target::of(&args.file, existing)?;
    if target.part().is_none() && io::stdout().is_terminal() && form == Form::Parquet {
        return Err(Usage("Parquet is nothing to be read on a terminal: name a file".to_owned()).into());
    }
    let filter = filter(args)?;
    let client = Client::find(&args.server, environment)?;
    let pages = Pages { client: &client, filter };
    let (began, done) = (Instant::now(), Done::default());
    let extent = pages.extent()?;
    if extent.events == 0 {
        pages.sensor_is_known()?;
    }
    let sink = target.open()?;
    let sink = if form == Form::Parquet { sink } else { sink.with_checksum() };
    let written = sink.written();
    let progress = progress::of_events(extent.events);
    tell_when_interrupted(&client, &progress, done.so_far_later(&target))?;
    let mut writer = Writer::new(form, packing, sink)?;
    let take = |batch: &arrow::array::RecordBatch| {
        writer.write(batch).or_else(|error| written.check().and(Err(error).context("cannot write the export")))?;
        let rows = batch.num_rows() as u64;
        done.events.fetch_add(rows, Ordering::Relaxed);
        progress.inc(rows);
        progress.set_message(ByteSize(written.bytes()).to_string());
        Ok(())
    };
    let exported = pages.each(&extent, take, |text| progress.suspend(|| complain(text)));
    let finished = exported.and_then(|()| writer.finish().or_else(|error| written.check().and(Err(error))));
    let finished = finished.and_then(|sink| target.finish(sink));
    progress.finish_and_clear();
    if let Err(error) = finished {
        written.check()?;
        complain(&done.so_far(&target));
        return Err(error);
    }
    let last = extent.positions.map(|(_, last)| last);
    let (events, bytes, seconds) = (done.events(), written.bytes(), began.elapsed().as_secs_f64());
    let told = if args.json {
        json!({ "events": events, "last_position": last, "bytes": bytes, "seconds": seconds }).to_string()
    } else {
        let up_to = last.map_or(String::new(), |last| format!(" up to position {last}"));
        format!("{events} events{up_to}, {bytes} bytes in {seconds:.1} s")
    };
    match target.part() {
        Some(_) => Ok(print(format!("{told}\n"))?),
        // There the events are.
        None => {
            complain(&told);
            Ok(())
        }
    }
}

fn filter(args: &ExportArgs) -> anyhow::Result<Filter> {
    let sensor = sensor::id_of(args.sensor.as_deref())?;
    let since = args.since.as_deref().map(|time| pages::micros("since", time)).transpose()?;
    let until = args.until.as_deref().map(|time| pages::micros("until", time)).transpose()?;
    Ok(Filter { sensor, event_type: args.event_type.clone(), since, until })
}

impl Done {
    /// The same, told when it is asked for.
    fn so_far_later(&self, target: &Target) -> impl Fn() -> String + Send + 'static {
        let (done, target) = (self.clone(), target.clone());
        move || done.so_far(&target)
    }
}

/// From now on SIGINT and SIGTERM end the program with what there is so far.
fn tell_when_interrupted(
    client: &Client,
    progress: &ProgressBar,
    so_far: impl Fn() -> String + Send + 'static,
) -> anyhow::Result<()> {
    let within = client.runtime.enter();
    let mut termination = Termination::watch().context("cannot watch signals")?;
    drop(within);
    let progress = progress.clone();
    client.runtime.spawn(async move {
        let signal = termination.next().await;
        progress.finish_and_clear();
        complain(&format!("{signal}: {}", so_far()));
        std::process::exit(1);
    });
    Ok(())
}
