//! `catchment restore`: makes a data folder of a backup, after every byte of the backup was checked.
//!
//! It promises that a folder that is not restored to the end is not taken for a whole one: a file in it says so until the last step.

use crate::backup::bar;
use crate::backup::lineage::{self, Restored};
use crate::backup::manifest::{Entry, Manifest, NAME, sync_folder};
use crate::backup::target::{LOST_AND_FOUND, are_nested, copy_durably, lock};
use crate::config;
use crate::data_dir::{DataDir, is_no_folder};
use crate::settings::Settings;
use anyhow::{Context, bail, ensure};
use clap::Args;
use nowwhat::Environment;
use nowwhat::cli::{SettingsArgs, print};
use nowwhat::config::Sources;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;
use uuid::Uuid;

/// So many damaged files are named.
const NAMED_MAX: usize = 10;

#[derive(Args)]
pub(crate) struct RestoreArgs {
    /// Folder of the backup.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    settings: SettingsArgs,
    /// The data folder to be made: it is missing, or empty [default: data.dir of the configuration].
    #[arg(long, value_name = "NEW")]
    data_dir: Option<PathBuf>,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &RestoreArgs, environment: &Environment) -> anyhow::Result<()> {
    let began = Instant::now();
    let service = config::service();
    let flags = config::data_dir_flag(args.data_dir.as_deref())?.into_iter().collect();
    let settings =
        Settings::from_loaded(&service.load(&Sources { flags, ..args.settings.sources(&service) }, environment)?);
    let new = &settings.data.dir;
    ensure!(
        !are_nested(&args.dir, new)?,
        "{} and the backup in {} lie in one another: restore into a folder outside of the backup, best on another disk",
        new.display(),
        args.dir.display()
    );
    let _lock = lock(&args.dir, File::try_lock_shared)?;
    let manifest = whole(&args.dir)?;
    is_free(new)?;
    let bytes: u64 = manifest.files.iter().map(|entry| entry.bytes).sum();
    checked(&args.dir, &manifest, bytes)?;
    let dir = DataDir::create(new)?;
    // Once more: that took a while.
    is_free(new)?;
    let marker = begin(&dir)?;
    copy(&args.dir, &dir, &manifest)?;
    let restores = restores(&manifest);
    lineage::write(dir.path(), &restores).with_context(|| format!("cannot write into {}", dir.path().display()))?;
    // From here on it is whole.
    let path = dir.unfinished_path();
    let ended = fs::remove_file(&path).and_then(|()| sync_folder(dir.path()));
    ended.with_context(|| format!("cannot remove {}", path.display()))?;
    drop(marker);
    print(if args.json {
        let seconds = began.elapsed().as_secs_f64();
        let told = json!({
            "data_dir": dir.path(), "taken_at": manifest.taken_at, "wal_id": manifest.wal_id, "events": manifest.events,
            "last_position": manifest.last_position, "files": manifest.files.len(), "bytes": bytes, "seconds": seconds,
        });
        format!("{told}\n")
    } else {
        as_text(&dir, &manifest, began)
    })?;
    Ok(())
}

/// The restores that make what is restored, with this one.
fn restores(manifest: &Manifest) -> Vec<Restored> {
    let this = Restored {
        id: Uuid::now_v7().to_string(),
        taken_at: manifest.taken_at.clone().unwrap_or_default(),
        last_position: manifest.last_position,
    };
    manifest.restores.iter().cloned().chain([this]).collect()
}

/// The backup in a folder, when there is a whole one.
pub(crate) fn whole(dir: &Path) -> anyhow::Result<Manifest> {
    let Some(manifest) = Manifest::read(dir)? else {
        bail!("there is no backup in {}: it has no {NAME}", dir.display());
    };
    ensure!(
        manifest.taken_at.is_some(),
        "there is no whole backup in {}: the first one did not come to its end",
        dir.display()
    );
    Ok(manifest)
}

/// Nothing is written where something is.
fn is_free(new: &Path) -> anyhow::Result<()> {
    let marker = DataDir::of(new).unfinished_path();
    ensure!(!is_no_folder(new), "{} is no folder: name another with --data-dir", new.display());
    match fs::read_dir(new) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        // Of a restore that did not come to its end: it begins again.
        Ok(_) if marker.exists() => Ok(()),
        Ok(entries) => {
            let names = entries.flatten().map(|entry| entry.file_name());
            match names.into_iter().find(|name| name != LOST_AND_FOUND) {
                None => Ok(()),
                Some(name) => bail!(
                    "{} has {} in it: a backup is restored into an empty folder, name another with --data-dir or move this one away",
                    new.display(),
                    name.display()
                ),
            }
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", new.display())),
    }
}

/// Every byte is as it was.
fn checked(from: &Path, manifest: &Manifest, bytes: u64) -> anyhow::Result<()> {
    let bar = bar("checked", bytes);
    let damaged = manifest.damaged(from, |bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let mut damage: Vec<_> = damaged.iter().map(|(file, what)| format!("{file}: {what}")).collect();
    if damage.is_empty() {
        return Ok(());
    }
    let more = damage.len().saturating_sub(NAMED_MAX);
    damage.truncate(NAMED_MAX);
    let more = if more > 0 { format!("\nand {more} more") } else { String::new() };
    bail!("the backup in {} is damaged, nothing was restored:\n{}{more}", from.display(), damage.join("\n"))
}

/// Marks the folder as one that is not whole, before anything else is in it. Who holds what is returned is the only one who restores there.
fn begin(dir: &DataDir) -> anyhow::Result<File> {
    let path = dir.unfinished_path();
    let mark = || {
        let file = File::create(&path)?;
        file.sync_all()?;
        sync_folder(dir.path())?;
        Ok::<_, std::io::Error>(file)
    };
    let marker = mark().with_context(|| format!("cannot write {}", path.display()))?;
    ensure!(marker.try_lock().is_ok(), "another restore into {} is running", dir.path().display());
    // What the one before has written.
    for entry in fs::read_dir(dir.path())?.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path == dir.unfinished_path() || name == LOST_AND_FOUND {
            continue;
        }
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(marker)
}

fn copy(from: &Path, dir: &DataDir, manifest: &Manifest) -> anyhow::Result<()> {
    let bar = bar("restored", manifest.files.iter().map(|entry| entry.bytes).sum());
    let mut folders = BTreeSet::from([dir.path().to_path_buf()]);
    for Entry { path, stored, bytes, crc32c, .. } in &manifest.files {
        let to = dir.path().join(path);
        // As the collector makes them.
        let mode = if path.ends_with(".sqlite") { 0o600 } else { 0o644 };
        let each = |bytes| {
            bar.inc(bytes);
            Ok(())
        };
        let copied = File::open(from.join(stored)).and_then(|source| copy_durably(source, &to, u64::MAX, (mode, each)));
        let copied = copied.with_context(|| format!("cannot restore {}", to.display()))?;
        ensure!(copied == (*bytes, *crc32c), "{stored} has changed while it was restored: begin again");
        folders.extend(to.ancestors().skip(1).take_while(|above| above.starts_with(dir.path())).map(Path::to_path_buf));
    }
    for folder in folders {
        sync_folder(&folder).with_context(|| format!("cannot sync {}", folder.display()))?;
    }
    bar.finish_and_clear();
    Ok(())
}

fn as_text(dir: &DataDir, manifest: &Manifest, began: Instant) -> String {
    let (data, taken_at) = (dir.path().display(), manifest.taken_at.as_deref().unwrap_or_default());
    format!(
        "restored {} events up to position {} from the backup of {taken_at} into {data}, in {:.1} s\n\
         tokens of sensors, people and programs are valid as they were then; a new admin token is made at the first start, in {}\n\
         events that were to be erased after that time are there again: erase them again\n\
         next: catchment serve --data-dir {data}\n",
        manifest.events,
        manifest.last_position,
        began.elapsed().as_secs_f64(),
        dir.admin_token_path().display()
    )
}
