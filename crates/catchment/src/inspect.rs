//! `catchment inspect`: what lies in the data folder, whether a collector runs over it or not. Only `repair` changes something.

mod backup;
mod repair;
mod wal;

use crate::config;
use crate::data_dir::DataDir;
use crate::settings::Settings;
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use lake::{Flaw, LakeFile, Range, Snapshot};
use nowwhat::Environment;
use nowwhat::cli::{SettingsArgs, print, printable};
use nowwhat::config::Sources;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What can be done about damaged data files.
const MENDED: &str = "what is in such a file can come back from a copy of the folder; without one, stop the collector, and \
                      `catchment inspect repair` keeps what can be read and moves the rest aside";

/// What can be done about a damaged log of the table.
const LOG_MENDED: &str = "stop the collector, and `catchment inspect repair` moves such files aside where the table can be read without \
                          them; else bring the folder back from a backup";

/// What is looked at.
#[derive(Subcommand)]
pub(crate) enum InspectCommand {
    /// The lake: its version, events, columns of fields and data files, and whether each file is there and as it was written.
    Lake(LakeArgs),
    /// The wal: its segments, groups, positions and files of keys, and whether all of it can be read.
    Wal(wal::WalArgs),
    /// A backup: when it was made, of what, and whether every file of it is there and as it was written.
    Backup(backup::BackupArgs),
    /// Mend what is damaged while no collector runs: what can be read stays, what cannot is moved aside, and a report tells which is which.
    Repair(repair::RepairArgs),
}

/// Where it is looked.
#[derive(Args)]
pub(crate) struct FolderArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Folder of all data [default: data.dir of the configuration].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl FolderArgs {
    fn settings(&self, environment: &Environment) -> anyhow::Result<Settings> {
        let service = config::service();
        let flags = config::data_dir_flag(self.data_dir.as_deref())?.into_iter().collect();
        let sources = Sources { flags, ..self.settings.sources(&service) };
        let settings = Settings::from_loaded(&service.load(&sources, environment)?);
        DataDir::of(&settings.data.dir).is_whole()?;
        Ok(settings)
    }
}

#[derive(Args)]
pub(crate) struct LakeArgs {
    #[command(flatten)]
    folder: FolderArgs,
    /// The paths of the data files alone, one a line, for programs that read Parquet and not Delta.
    #[arg(long, conflicts_with = "json")]
    files: bool,
    /// Answer as JSON, with all data files.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(command: &InspectCommand, environment: &Environment) -> anyhow::Result<()> {
    match command {
        InspectCommand::Lake(args) => lake(args, environment),
        InspectCommand::Wal(args) => wal::run(args, environment),
        InspectCommand::Backup(args) => backup::run(args),
        InspectCommand::Repair(args) => repair::run(args, environment),
    }
}

/// Why a folder cannot be read, and who may where that is the reason.
fn unread(dir: &Path, error: impl Into<anyhow::Error>) -> anyhow::Error {
    let error: anyhow::Error = error.into();
    let is_denied = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::PermissionDenied)
    };
    let who = if error.chain().any(is_denied) { ": run this as the user of the collector" } else { "" };
    error.context(format!("{} cannot be read{who}", dir.display()))
}

/// `catchment inspect lake`.
fn lake(args: &LakeArgs, environment: &Environment) -> anyhow::Result<()> {
    let settings = args.folder.settings(environment)?;
    let dir = std::path::absolute(settings.data.dir.join("lake"))?;
    let log = lake::flaws(&dir).map_err(|error| unread(&dir, error))?;
    match std::fs::metadata(dir.join("_delta_log")) {
        Err(error) if error.kind() == ErrorKind::NotFound && log.is_empty() => {
            bail!(
                "there is no lake in {}: a collector makes it at its first start, and one that is gone since is told at a start (lake_gone); say \
                 with --data-dir where it is",
                dir.display()
            );
        }
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(unread(&dir, error));
        }
        _ => {}
    }
    if log.iter().any(|flaw| flaw.is_needed) {
        let files = json!({ "table": dir, "log_damage": log_json(&log) });
        print(if args.json {
            format!("{files}\n")
        } else {
            format!("table    {}\n{}", dir.display(), log_lines(&log))
        })?;
        bail!("the table cannot be read: {LOG_MENDED}");
    }
    let lake = looked(&dir)?;
    if args.files {
        let paths = lake.files.iter().map(|file| format!("{}\n", lake.root.join(&file.path).display()));
        return Ok(print(paths.collect::<String>())?);
    }
    let mut damaged = damage(&lake)?;
    if !damaged.is_empty() {
        // What an erasure has taken out meanwhile is gone, and not damaged.
        let now = looked(&dir)?;
        damaged.retain(|path, _| now.files.iter().any(|file| file.path == *path));
    }
    let columns_max = settings.fields.columns_max;
    let unnamed = lake::unnamed(&lake).map_err(|error| unread(&dir, error))?;
    let shown = Shown { lake: &lake, log: &log, damaged: &damaged, unnamed: &unnamed, columns_max };
    print(if args.json { shown.json() } else { shown.lines() })?;
    match damaged.len() {
        0 if log.is_empty() => Ok(()),
        0 => bail!("the log of the table is damaged, and the table is read without what is: {LOG_MENDED}"),
        1 => bail!("1 data file is damaged: {MENDED}"),
        more => bail!("{more} data files are damaged: {MENDED}"),
    }
}

/// Waits for what the lake does.
fn now<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}

/// By the path of a file, what is wrong with it.
type Damage = BTreeMap<String, String>;

fn looked(dir: &Path) -> anyhow::Result<Snapshot> {
    now(lake::look(dir))?.with_context(|| format!("{} cannot be read", dir.display()))
}

fn damage(lake: &Snapshot) -> anyhow::Result<Damage> {
    let mut damaged = Damage::new();
    for file in &lake.files {
        let found = file.damage(&lake.root);
        if let Some(what) = found.with_context(|| format!("{} cannot be read", lake.root.join(&file.path).display()))? {
            damaged.insert(file.path.clone(), what);
        }
    }
    Ok(damaged)
}

/// What is told of a lake.
struct Shown<'a> {
    lake: &'a Snapshot,
    log: &'a [Flaw],
    damaged: &'a Damage,
    unnamed: &'a [(PathBuf, u64, u64)],
    columns_max: usize,
}

impl Shown<'_> {
    fn lines(&self) -> String {
        let Self { lake, log, damaged, unnamed, columns_max } = self;
        let (rows, bytes) = (rows(lake), bytes(lake));
        let mut text = format!("table    {}, version {}\n", lake.root.display(), lake.version);
        let positions = match (lake.files.iter().filter_map(|f| f.stats.position.min).min(), highest(lake)) {
            (Some(first), Some(last)) => format!(", positions {first} to {last}"),
            _ => String::new(),
        };
        let _ = writeln!(
            text,
            "events   {rows}{positions}; {} expired, {} erased{} before",
            expired(lake),
            lake.erased_rows,
            if lake.lost_rows > 0 { format!(", {} lost to damage", lake.lost_rows) } else { String::new() }
        );
        let _ = writeln!(
            text,
            "files    {}, {:.1} MB, {:.1} bytes an event",
            lake.files.len(),
            bytes as f64 / 1e6,
            bytes as f64 / rows.max(1) as f64
        );
        let fields = lake.fields.iter().map(|field| format!("\n         {} {}", field.column(), field.kind.sql()));
        let _ = writeln!(
            text,
            "columns  {} of {columns_max} for fields of data{}",
            lake.fields.len(),
            printable(&fields.collect::<String>())
        );
        text += &log_lines(log);
        if let (Some(first), Some(last)) =
            (unnamed.iter().map(|(_, first, _)| first).min(), unnamed.iter().map(|(.., last)| last).max())
        {
            let _ = writeln!(
                text,
                "unnamed  {} data files of positions {first} to {last}, which no version names: of a seal that has not ended, or of a version \
                 that is gone (then a start says wal_gap)",
                unnamed.len()
            );
        }
        for (path, damage) in *damaged {
            let _ = writeln!(text, "BAD      {}: {}", lake.root.join(path).display(), printable(damage));
        }
        if damaged.is_empty() && log.is_empty() {
            text += "good     all data files are there and as they were written\n";
        }
        text
    }

    fn json(&self) -> String {
        let Self { lake, log, damaged, unnamed, columns_max } = self;
        let times = |range: &Range<i64>| json!({"min": range.min.map(time), "max": range.max.map(time)});
        let file = |file: &LakeFile| {
            json!({
                "path": lake.root.join(&file.path),
                "bytes": file.bytes,
                "rows": file.stats.rows,
                "position": {"min": file.stats.position.min, "max": file.stats.position.max},
                "time": times(&file.stats.time),
                "received_at": times(&file.stats.received_at),
                "damage": damaged.get(&file.path),
            })
        };
        let fields = lake.fields.iter().map(|field| json!({"name": field.column(), "type": field.kind.sql()}));
        let answer = json!({
            "table": lake.root,
            "version": lake.version,
            "rows": rows(lake),
            "bytes": bytes(lake),
            "expired_rows": expired(lake),
            "erased_rows": lake.erased_rows,
            "lost_rows": lake.lost_rows,
            "columns_max": columns_max,
            "fields": fields.collect::<Vec<Value>>(),
            "log_damage": log_json(log),
            "unnamed": unnamed.iter().map(|(path, ..)| path).collect::<Vec<_>>(),
            "files": lake.files.iter().map(|one| file(one)).collect::<Vec<Value>>(),
        });
        format!("{answer}\n")
    }
}

fn log_lines(log: &[Flaw]) -> String {
    let line = |flaw: &Flaw| {
        let unneeded = if flaw.is_needed { "" } else { " (nothing needs it)" };
        format!("BAD      {}: {}{unneeded}\n", flaw.path.display(), printable(&flaw.what))
    };
    log.iter().map(line).collect()
}

fn log_json(log: &[Flaw]) -> Value {
    log.iter().map(|flaw| json!({"path": flaw.path, "damage": flaw.what, "needed": flaw.is_needed})).collect()
}

fn time(micros: i64) -> String {
    // The table knows milliseconds.
    jiff::Timestamp::from_millisecond(micros.div_euclid(1000))
        .map_or_else(|_| micros.to_string(), |time| time.to_string())
}

/// Those that went by retention alone.
fn expired(lake: &Snapshot) -> u64 {
    lake.expired_rows.saturating_sub(lake.erased_rows).saturating_sub(lake.lost_rows)
}

fn rows(lake: &Snapshot) -> u64 {
    lake.files.iter().map(|file| file.stats.rows).sum()
}

fn bytes(lake: &Snapshot) -> u64 {
    lake.files.iter().map(|file| file.bytes).sum()
}

fn highest(lake: &Snapshot) -> Option<i64> {
    lake.files.iter().filter_map(|file| file.stats.position.max).max()
}
