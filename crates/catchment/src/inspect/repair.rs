//! `catchment inspect repair`: a damaged data folder becomes one that a collector starts over, with every event that can be read. What was
//! damaged is kept whole in a folder of its own, with a report.

use super::wal::{damage, in_lake, positions, sealed, there, totals};
use super::{FolderArgs, now};
use crate::serve::field_rules;
use crate::settings::Settings;
use anyhow::{Context, bail};
use clap::Args;
use lake::{Lake, LakeMetrics, Mended, MovedAside, Pace, Sealing, TakenIn};
use nowwhat::Environment;
use nowwhat::cli::{print, printable};
use serde_json::{Value, json};
use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;
use wal::{End, Known, RealDisk, Repaired};

#[derive(Args)]
pub(crate) struct RepairArgs {
    #[command(flatten)]
    folder: FolderArgs,
    /// Answer with the report as JSON.
    #[arg(long)]
    json: bool,
}

/// `catchment inspect repair`.
pub(super) fn run(args: &RepairArgs, environment: &Environment) -> anyhow::Result<()> {
    let settings = args.folder.settings(environment)?;
    let data = std::path::absolute(&settings.data.dir)?;
    let dir = data.join("wal");
    there(&dir)?;
    owned_by_us(&dir)?;
    let at = jiff::Timestamp::now();
    let aside = data.join(format!("damaged-{}", at.strftime("%Y%m%dT%H%M%S%6fZ")));
    let log = log_mended(&data, &aside)?;
    let known = known(&settings, &data);
    let wal_id = |found: &Repaired| found.before.wal_id.or(known.wal_id);
    let mut sealed_before = None;
    // Were it killed, the next one would find the wal mended, and tell nothing of what is lost.
    let begin = |found: &Repaired| {
        sealed_before = sealed(&data, wal_id(found));
        Report::begun(at, &aside, found, &log, sealed_before).write()
    };
    let repaired = wal::repair(&dir, &RealDisk, &aside.join("wal"), known, begin);
    let repaired = repaired.with_context(|| not_repaired(&log))?;
    let mut report = Report::begun(at, &aside, &repaired, &log, sealed_before);
    report.write()?;
    // What was done to the wal is told whatever becomes of the lake.
    let lake = lake_repaired(&settings, &data, &aside, wal_id(&repaired));
    if let Ok(OfLake { mended, taken_in, lost }) = &lake {
        (report.lake, report.taken_in, report.lake_lost) = (mended, taken_in, lost.as_ref());
    }
    report.state = if lake.is_ok() { "done" } else { "begun" };
    report.write()?;
    if lake.is_ok() || !report.changed_nothing() {
        print(if args.json { format!("{}\n", report.json()) } else { report.lines() })?;
    }
    lake.map(drop).context("the lake was not repaired to its end: run this again when its reason is gone")
}

/// The wal was not, or not to its end. The log of the table may have been: there may be no report that tells it.
fn not_repaired(log: &[MovedAside]) -> String {
    let moved = log.iter().map(|MovedAside { flaw, kept_at }| {
        format!("; {} was moved aside, to {}", flaw.path.display(), kept_at.display())
    });
    format!("the wal was not repaired{}", moved.collect::<String>())
}

/// Moves aside what is damaged in the log of the table and not needed. What else the lake and the wal have is not changed when something is.
fn log_mended(data: &Path, aside: &Path) -> anyhow::Result<Vec<MovedAside>> {
    // By the lock of the wal no collector runs.
    let lock = data.join("wal");
    let _kept = lock.join("lock").exists().then(|| wal::Kept::of(&lock)).transpose()?;
    lake::mend_log(&data.join("lake"), &aside.join("lake/_delta_log")).context("nothing was changed")
}

/// What was done to the lake.
#[derive(Default)]
struct OfLake {
    mended: Vec<Mended>,
    taken_in: Vec<TakenIn>,
    lost: Option<LakeLost>,
}

/// What the wal let go of as it was in the lake, and the lake does not have: its first and last position, and the files of keys of these events,
/// each with where it is kept. They are taken again when they come again.
struct LakeLost {
    positions: (u64, u64),
    keys: Vec<(PathBuf, PathBuf)>,
}

/// Takes the damaged files out of the lake; one that is gone is begun anew where the wal begins.
fn lake_repaired(settings: &Settings, data: &Path, aside: &Path, wal: Option<Uuid>) -> anyhow::Result<OfLake> {
    let (dir, wal_dir) = (data.join("lake"), data.join("wal"));
    let kept = wal::look(&wal_dir, &RealDisk, &Known::default(), |_, _| Ok(()))?;
    let first = kept.segments.first().map_or(1, |segment| segment.first);
    if !lake::is_begun(&dir)? && first <= 1 {
        return Ok(OfLake::default());
    }
    now(async {
        let (schema, rules) = (server::events_schema(), field_rules(settings));
        let metrics = LakeMetrics::default();
        let lake = Lake::open(&dir, &schema, wal.unwrap_or_default(), rules, metrics).await?;
        let taken_in = lake.take_in().await?;
        let from = lake.snapshot().sealed + 1;
        let mut lost = None;
        if wal.is_some() && from < first {
            let keys = kept.key_files.iter().filter(|keys| keys.last >= from).map(|keys| &keys.path);
            let keys = keys.map(|path| keys_aside(path, &aside.join("wal"))).collect::<anyhow::Result<_>>()?;
            lake.seal(Sealing { first: from, last: first - 1, batches: Vec::new(), pace: Pace::Pressed }).await?;
            lost = Some(LakeLost { positions: (from, first - 1), keys });
        }
        Ok(OfLake { mended: lake.repair(&aside.join("lake")).await?, taken_in, lost })
    })?
}

/// Moves a file of keys into a folder, durably.
fn keys_aside(path: &Path, folder: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let to = folder.join(path.file_name().unwrap_or_default());
    let moved = || {
        fs::create_dir_all(folder)?;
        fs::rename(path, &to)?;
        [path, &to].iter().filter_map(|path| path.parent()).try_for_each(|folder| File::open(folder)?.sync_all())
    };
    moved().with_context(|| format!("cannot move {} to {}", path.display(), to.display()))?;
    Ok((path.to_owned(), to))
}

/// Files that another user makes here the collector could not open.
fn owned_by_us(dir: &Path) -> anyhow::Result<()> {
    let (owner, us) = (fs::metadata(dir)?.uid(), rustix::process::geteuid().as_raw());
    if owner != us {
        bail!("{} is of the user {owner}, and this one is {us}: run this as the user of the collector", dir.display());
    }
    Ok(())
}

/// No live row takes less memory: its columns of times, positions and offsets alone are as much.
const LIVE_ROW_BYTES_MIN: u64 = 64;

/// What the lake knows of the wal. Behind its last position at most as many were given as live rows have room for.
pub(super) fn known(settings: &Settings, data: &Path) -> Known {
    let live_bytes = settings.seal.live_bytes_max.0.max(settings.ingest.in_flight_bytes_max.0);
    let more_positions_max = live_bytes / LIVE_ROW_BYTES_MIN;
    let lake = data.join("lake");
    let wals = lake::wals(&lake);
    let wal_id = match wals.as_slice() {
        [one] => Some(*one),
        _ => None,
    };
    let snapshot = now(lake::look_for(&lake, wal_id.unwrap_or_default()));
    let Ok(Ok(snapshot)) = snapshot else {
        return Known { wal_id, more_positions_max, ..Known::default() };
    };
    // Nothing is from that wal: any other identity is as good.
    let is_unused = wals.is_empty() && snapshot.files.is_empty();
    let wal_id = wal_id.or_else(|| is_unused.then(Uuid::now_v7));
    let highest = snapshot.files.iter().filter_map(|file| file.stats.position.max).max();
    let position = highest.and_then(|last| u64::try_from(last).ok()).unwrap_or(0).max(snapshot.sealed);
    // What lies in data files that no version names is put in again, and is not missing.
    let unnamed = lake::unnamed(&snapshot).ok().filter(|_| wal_id.is_some());
    let sealed = unnamed.map(|files| files.iter().map(|(.., last)| *last).max().unwrap_or(0).max(snapshot.sealed));
    Known { wal_id, position, more_positions_max, sealed }
}

fn written(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    // Where nothing was moved aside it is not there yet.
    fs::create_dir_all(folder)?;
    fs::write(path, text)?;
    File::open(path)?.sync_all()?;
    File::open(folder)?.sync_all()?;
    File::open(folder.parent().unwrap_or(folder))?.sync_all()
}

/// What was found and done.
struct Report<'a> {
    /// `begun` until all was done.
    state: &'static str,
    at: jiff::Timestamp,
    aside: &'a Path,
    wal: &'a Repaired,
    sealed: Option<u64>,
    log: &'a [MovedAside],
    lake: &'a [Mended],
    taken_in: &'a [TakenIn],
    lake_lost: Option<&'a LakeLost>,
}

impl<'a> Report<'a> {
    /// Of a repair that begins with the wal.
    fn begun(
        at: jiff::Timestamp,
        aside: &'a Path,
        wal: &'a Repaired,
        log: &'a [MovedAside],
        sealed: Option<u64>,
    ) -> Self {
        Self { state: "begun", at, aside, wal, sealed, log, lake: &[], taken_in: &[], lake_lost: None }
    }

    /// Writes the report beside what is kept, if there is something.
    fn write(&self) -> anyhow::Result<()> {
        if self.changed_nothing() {
            return Ok(());
        }
        // There may be nothing that was to be kept.
        let above = self.aside.parent().unwrap_or(self.aside);
        let made = fs::create_dir_all(self.aside).and_then(|()| File::open(above)?.sync_all());
        made.with_context(|| format!("cannot make {}", self.aside.display()))?;
        let path = self.aside.join("report.json");
        written(&path, &format!("{:#}\n", self.json())).with_context(|| format!("cannot write {}", path.display()))
    }

    fn changed_nothing(&self) -> bool {
        let is_lake_as_before = self.lake.is_empty() && self.taken_in.is_empty() && self.lake_lost.is_none();
        !self.wal.is_mended && self.log.is_empty() && is_lake_as_before
    }

    fn lines(&self) -> String {
        let Repaired { before, moved, .. } = self.wal;
        let (events, groups) = totals(before);
        if self.changed_nothing() {
            return "good     nothing is damaged in the wal and the lake: nothing was changed\n".to_owned();
        }
        let mut text = String::new();
        for segment in &before.segments {
            for flaw in &segment.damage {
                let gone = flaw.lost.map(|(first, last)| {
                    format!("; of positions {first} to {last}{}", in_lake(first, last, self.sealed))
                });
                let (path, gone) = (segment.path.display(), gone.unwrap_or_default());
                let what = printable(&flaw.what);
                let _ = writeln!(text, "damaged  {path} at offset {}, {} bytes: {what}{gone}", flaw.offset, flaw.bytes);
            }
            if let End::Torn { offset, bytes } = segment.end
                && !segment.damage.is_empty()
            {
                let path = segment.path.display();
                let _ = writeln!(
                    text,
                    "torn     {path} at offset {offset}, {bytes} bytes: no whole group, as a write leaves them that was cut off before its answer"
                );
            }
        }
        for keys in &before.key_files {
            let (path, first, last) = (keys.path.display(), keys.first, keys.last);
            if let Some(what) = keys.damage.as_deref().map(printable) {
                let _ = writeln!(
                    text,
                    "damaged  {path}: {what}; events of positions {first} to {last} that come again are taken again"
                );
            }
        }
        for MovedAside { flaw, kept_at } in self.log {
            let (path, what) = (flaw.path.display(), printable(&flaw.what));
            let _ = writeln!(text, "damaged  {path}: {what}; the table is read without it");
            let _ = writeln!(text, "aside    {path}, as it was: {}", kept_at.display());
        }
        if let Some((path, what)) = &before.bad_newest {
            let _ = writeln!(text, "damaged  {}: {what}; no event is in it", path.display());
        }
        let _ = writeln!(text, "kept     {events} events in {groups} groups of the wal, each at its position");
        let saved = before.saved();
        let _ = match saved.lost {
            Some((first, last)) => writeln!(
                text,
                "lost     {} events at most, of positions {first} to {last}{}: no position is given again",
                saved.lost_events_max,
                in_lake(first, last, self.sealed)
            ),
            None => writeln!(text, "lost     no event"),
        };
        self.lake_lines(&mut text);
        let of_lake = self.lake.iter().filter_map(|file| Some((&file.path, file.kept_at.as_ref()?)));
        for (from, to) in moved.iter().map(|(from, to)| (from, to)).chain(of_lake) {
            let _ = writeln!(text, "aside    {}, as it was: {}", from.display(), to.display());
        }
        let _ = writeln!(text, "report   {}", self.aside.join("report.json").display());
        text
    }

    fn lake_lines(&self, text: &mut String) {
        for Mended { path, damage, kept_rows, lost_rows, lost: (first, last), .. } in self.lake {
            let (path, damage) = (path.display(), printable(damage));
            let _ = writeln!(text, "damaged  {path}: {damage}");
            let _ = writeln!(text, "kept     {kept_rows} events of it, in a new file");
            let _ = writeln!(text, "lost     {lost_rows} events of it, of positions {first} to {last}");
        }
        for TakenIn { paths, positions: (first, last) } in self.taken_in {
            let _ = writeln!(
                text,
                "taken in positions {first} to {last}, from {} data files that no version named",
                paths.len()
            );
        }
        if let Some(LakeLost { positions: (first, last), keys }) = self.lake_lost {
            let _ = writeln!(
                text,
                "lost     positions {first} to {last}, which the wal let go of and the lake does not have: the wal goes on behind them, and their \
                 events are taken when they come again"
            );
            for (from, to) in keys {
                let _ = writeln!(text, "aside    {}, as it was: {}", from.display(), to.display());
            }
        }
    }

    fn json(&self) -> Value {
        let Repaired { before, moved, .. } = self.wal;
        let ((events, groups), saved) = (totals(before), before.saved());
        let kept_at = |path: &PathBuf| moved.iter().find(|(from, _)| from == path).map(|(_, to)| to.clone());
        let segments = before.segments.iter().filter(|segment| !segment.damage.is_empty()).map(|segment| {
            let torn = match segment.end {
                End::Torn { offset, bytes } => Some(json!({"offset": offset, "bytes": bytes})),
                _ => None,
            };
            json!({
                "torn": torn,
                "path": segment.path, "kept_at": kept_at(&segment.path), "events_kept": segment.events(),
                "damage": segment.damage.iter().map(damage).collect::<Vec<_>>(),
            })
        });
        let keys = before.key_files.iter().filter(|keys| keys.damage.is_some()).map(|keys| {
            let range = positions(&(keys.first, keys.last));
            json!({"path": keys.path, "kept_at": kept_at(&keys.path), "position": range, "damage": keys.damage})
        });
        let file = |file: &Mended| {
            let Mended { path, kept_at, damage, kept_rows, lost_rows, lost: (first, last) } = file;
            json!({
                "path": path, "kept_at": kept_at, "damage": damage, "events_kept": kept_rows,
                "events_lost": lost_rows, "lost": (*lost_rows > 0).then(|| json!({"min": first, "max": last})),
            })
        };
        let taken_in = |taken: &TakenIn| json!({"paths": taken.paths, "positions": positions(&taken.positions)});
        let moved_aside = |MovedAside { flaw, kept_at }: &MovedAside| json!({"path": flaw.path, "kept_at": kept_at, "damage": flaw.what});
        json!({
            "at": self.at.to_string(),
            "state": self.state,
            "folder": (!self.changed_nothing()).then_some(self.aside),
            "lake": {
                "log": self.log.iter().map(moved_aside).collect::<Vec<_>>(),
                "files": self.lake.iter().map(file).collect::<Vec<_>>(),
                "taken_in": self.taken_in.iter().map(taken_in).collect::<Vec<_>>(),
                "lost": self.lake_lost.map(|lost| positions(&lost.positions)),
            },
            "wal": {
                "path": before.dir, "id": before.wal_id, "sealed_position": self.sealed,
                "events_kept": events, "groups_kept": groups,
                "lost_events_max": saved.lost_events_max,
                "lost": before.lost().map(|range| positions(&range)).collect::<Vec<_>>(),
                "newest": before.bad_newest.as_ref().map(|(path, what)| json!({"path": path, "kept_at": kept_at(path), "damage": what})),
                "segments": segments.collect::<Vec<_>>(), "key_files": keys.collect::<Vec<_>>(),
            },
        })
    }
}
