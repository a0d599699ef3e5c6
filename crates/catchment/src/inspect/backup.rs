//! `catchment inspect backup`: what a backup has, and whether every byte of it is as it was written. It changes nothing.

use crate::backup::bar;
use crate::backup::manifest::Manifest;
use crate::backup::target::lock;
use crate::restore::whole;
use anyhow::bail;
use clap::Args;
use indicatif::HumanBytes;
use nowwhat::cli::{print, printable};
use serde_json::json;
use std::fmt::Write;
use std::fs::File;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(crate) struct BackupArgs {
    /// Folder of the backup.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// `catchment inspect backup`.
pub(super) fn run(args: &BackupArgs) -> anyhow::Result<()> {
    let _lock = lock(&args.dir, File::try_lock_shared)?;
    let manifest = whole(&args.dir)?;
    let bytes = manifest.files.iter().map(|entry| entry.bytes).sum();
    let bar = bar("checked", bytes);
    let damaged = manifest.damaged(&args.dir, |bytes| bar.inc(bytes));
    bar.finish_and_clear();
    print(if args.json {
        let damage = damaged.iter().map(|(file, what)| json!({"path": args.dir.join(file), "damage": what}));
        let told = json!({
            "backup": args.dir, "taken_at": manifest.taken_at, "program": manifest.program, "wal_id": manifest.wal_id,
            "events": manifest.events, "last_position": manifest.last_position, "files": manifest.files.len(), "bytes": bytes,
            "damage": damage.collect::<Vec<_>>(),
        });
        format!("{told}\n")
    } else {
        lines(&args.dir, &manifest, &damaged, bytes)
    })?;
    match damaged.len() {
        0 => Ok(()),
        files => bail!(
            "{files} of the files of the backup are damaged or gone: remove those that are there, and `catchment backup {}` copies them anew, \
             while the data folder has them",
            args.dir.display()
        ),
    }
}

fn lines(dir: &Path, manifest: &Manifest, damaged: &[(&str, String)], bytes: u64) -> String {
    let taken_at = manifest.taken_at.as_deref().unwrap_or_default();
    let mut text = format!("backup   {}, of {taken_at}, by {}\n", dir.display(), printable(&manifest.program));
    let _ = writeln!(text, "events   {}, up to position {}", manifest.events, manifest.last_position);
    let _ = writeln!(text, "files    {}, {}", manifest.files.len(), HumanBytes(bytes));
    for (file, what) in damaged {
        let _ = writeln!(text, "BAD      {}: {}", dir.join(file).display(), printable(what));
    }
    if damaged.is_empty() {
        text += "good     all files are there and as they were written\n";
    }
    text
}
