//! `catchment backup`: copies all that is there to a folder, whether a collector runs or not; `catchment restore` makes a data folder of it.
//!
//! Reading order: `source` what is copied, `target` where it goes, `manifest` what tells that it is whole.

mod interrupt;
pub(crate) mod lineage;
pub(crate) mod manifest;
mod source;
pub(crate) mod target;

use crate::client::Server;
use crate::config::VERSION;
use anyhow::{Context, bail, ensure};
use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use interrupt::Interrupt;
use lineage::Restored;
use manifest::{Entry, Manifest};
use nowwhat::Environment;
use nowwhat::cli::{complain, print};
use serde_json::{Value, json};
use source::{About, Place, Source};
use std::io::{ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;
use target::{Step, Target, are_nested};

#[derive(Args)]
pub(crate) struct BackupArgs {
    /// Folder of the backup, made when it is missing. Where a backup of the same data folder is, only what is new is copied.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// What was done.
struct Done {
    copied: u64,
    copied_bytes: u64,
    kept: u64,
    kept_bytes: u64,
}

pub(crate) fn run(args: &BackupArgs, environment: &Environment) -> anyhow::Result<()> {
    let began = Instant::now();
    let interrupt = Interrupt::watch().context("cannot watch signals")?;
    let place = Place::find(&args.server, environment)?;
    is_outside(&args.dir, place.dir().path())?;
    let mut target = Target::open(&args.dir)?;
    // What one that was interrupted left is room for this one.
    target.clean()?;
    let made = make(&mut target, place, &interrupt);
    let done = made.inspect_err(|_| drop(target.clean())).with_context(|| match target.taken_at() {
        Some(taken_at) => format!("no backup was made, the one of {taken_at} in {} is whole", target.dir.display()),
        None => format!("no backup was made, and there is none in {}", target.dir.display()),
    })?;
    if let Err(error) = target.clean() {
        complain(&format!("the backup is whole, but {error:#}; the next one tries again"));
    }
    let manifest = target.before.as_ref().context("a backup that is whole has a manifest")?;
    let summary = summary(manifest, &done, began.elapsed().as_secs_f64());
    print(if args.json { format!("{summary}\n") } else { as_text(&target.dir, manifest, &done, began) })?;
    Ok(())
}

/// What is inside of the data folder would be part of what is copied, and go with it.
fn is_outside(dir: &Path, data: &Path) -> anyhow::Result<()> {
    std::fs::metadata(data).with_context(|| format!("cannot find {}", data.display()))?;
    ensure!(
        !are_nested(dir, data)?,
        "{} lies inside the data folder {}, or around it: choose a folder outside of it, best on another disk",
        dir.display(),
        data.display()
    );
    Ok(())
}

/// Copies all that is new, and makes it the backup.
fn make(target: &mut Target, place: Place, interrupt: &Interrupt) -> anyhow::Result<Done> {
    let scratch = target.dir.join(&target.set).join("scratch");
    let data = place.dir().path().to_owned();
    let restores = lineage::read(&data)?;
    let Source { about, files, held } = place.hold(&scratch, interrupt)?;
    let made = belongs(target, &about, (&data, &restores)).and_then(|()| {
        target.begin(&program(), &about.wal_id)?;
        let steps = target.plan(files)?;
        let done = done_by(&steps);
        let bar = bar("copied", done.copied_bytes);
        let copied = AtomicU64::new(0);
        let entries = std::thread::scope(|scope| {
            let (end, ended) = mpsc::channel();
            let (held, copied) = (&held, &copied);
            let keeping = scope.spawn(move || held.keep(&ended, copied));
            let entries = target.copy(steps, |bytes| {
                bar.inc(bytes);
                copied.fetch_add(bytes, Ordering::Relaxed);
                interrupt.check()
            });
            drop(end);
            keeping.join().ok();
            entries
        });
        bar.finish_and_clear();
        complete(target, &about, restores, entries?)?;
        Ok(done)
    });
    held.end(if made.is_ok() { "done" } else { "failed" });
    made
}

/// Whether the folder is one for this data folder, and has not more than it.
fn belongs(target: &Target, about: &About, (data, restores): (&Path, &[Restored])) -> anyhow::Result<()> {
    let Some(before) = &target.before else { return Ok(()) };
    let dir = target.dir.display();
    if before.wal_id != about.wal_id {
        bail!(
            "{dir} has a backup of another data folder (its wal is {}, not {}): choose another folder",
            before.wal_id,
            about.wal_id
        );
    }
    if before.last_position > about.last_position {
        bail!(
            "{dir} has events up to position {}, and the data folder only up to {}: it would lose events. Restore it, or choose another folder",
            before.last_position,
            about.last_position
        );
    }
    if !lineage::goes_on(&before.restores, before.last_position, restores) || !has_commits_of(before, data)? {
        bail!(
            "{dir} has events that the data folder does not have: both go back to the same events, and one of them was restored or copied, and \
             went on by itself. Choose another folder"
        );
    }
    Ok(())
}

/// Whether the versions of the table that both have are the same.
fn has_commits_of(before: &Manifest, data: &Path) -> anyhow::Result<bool> {
    for entry in
        before.files.iter().filter(|entry| entry.path.starts_with("lake/_delta_log/") && entry.path.ends_with(".json"))
    {
        let path = data.join(&entry.path);
        match std::fs::read(&path) {
            // It went with the history that nothing needs.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
            Ok(commit) if crc32c::crc32c(&commit) == entry.crc32c => {}
            // One that is needed would have ended the backup before.
            Ok(_) if is_damaged(&path, data)? => {}
            Ok(_) => return Ok(false),
        }
    }
    Ok(true)
}

/// Whether a commit of the lake is not what was written.
fn is_damaged(commit: &Path, data: &Path) -> anyhow::Result<bool> {
    let flaws = lake::flaws(&data.join("lake")).context("lake")?;
    Ok(flaws.iter().any(|flaw| flaw.path == *commit))
}

/// How many positions behind the lake have no event: a repair of the wal found none of them.
fn lost_behind(sealed: u64, wal: &wal::Look) -> u64 {
    let lost = wal.segments.iter().flat_map(|segment| &segment.lost);
    lost.map(|(first, last)| (last + 1).saturating_sub((*first).max(sealed + 1))).sum()
}

/// The manifest changes, once it is sure that the wal opens.
fn complete(target: &mut Target, about: &About, restores: Vec<Restored>, entries: Vec<Entry>) -> anyhow::Result<()> {
    let dir = target.dir.join(&target.set).join("wal");
    let wal = wal::parts(&dir).context("what was copied of the wal")?;
    let look =
        wal::look(&dir, &wal::RealDisk, &wal::Known::default(), |_, _| Ok(())).context("what was copied of the wal")?;
    let is_whole = wal.last_position == about.last_position && about.sealed_position <= about.last_position;
    ensure!(
        is_whole && wal.wal_id.is_some_and(|id| id.to_string() == about.wal_id),
        "what was copied of the wal ends at position {}, expected {}, and the lake at {}: nothing has changed in {}",
        wal.last_position,
        about.last_position,
        about.sealed_position,
        target.dir.display()
    );
    target.complete(Manifest {
        taken_at: Some(jiff::Timestamp::now().to_string()),
        last_position: about.last_position,
        sealed_position: about.sealed_position,
        lake_version: about.lake_version,
        events: about.events.saturating_sub(lost_behind(about.sealed_position, &look)),
        restores,
        files: entries,
        ..Manifest::begun(program(), about.wal_id.clone())
    })
}

fn program() -> String {
    format!("{} {} ({})", VERSION.name, VERSION.version, VERSION.commit)
}

fn done_by(steps: &[Step]) -> Done {
    let mut done = Done { copied: 0, copied_bytes: 0, kept: 0, kept_bytes: 0 };
    for step in steps {
        match step {
            Step::Keep(entry) => {
                done.kept += 1;
                done.kept_bytes += entry.bytes;
            }
            Step::Copy { bytes, .. } => {
                done.copied += 1;
                done.copied_bytes += bytes;
            }
        }
    }
    done
}

fn summary(manifest: &Manifest, done: &Done, seconds: f64) -> Value {
    json!({
        "taken_at": manifest.taken_at, "wal_id": manifest.wal_id, "events": manifest.events, "last_position": manifest.last_position,
        "files": { "copied": done.copied, "kept": done.kept },
        "bytes": { "copied": done.copied_bytes, "kept": done.kept_bytes }, "seconds": seconds,
    })
}

fn as_text(dir: &Path, manifest: &Manifest, done: &Done, began: Instant) -> String {
    let Done { copied, copied_bytes, kept, kept_bytes } = done;
    format!(
        "backup of {} events up to position {} in {}\n{copied} files copied ({}), {kept} kept from before ({}), in {:.1} s\n\
         left out: admin.token and sensors/*.token\n",
        manifest.events,
        manifest.last_position,
        dir.display(),
        HumanBytes(*copied_bytes),
        HumanBytes(*kept_bytes),
        began.elapsed().as_secs_f64()
    )
}

/// How far it is, on a terminal.
pub(crate) fn bar(what: &'static str, bytes: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {msg}");
    let bar = ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.with_message(what)
}
