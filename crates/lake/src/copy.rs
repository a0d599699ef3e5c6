//! What a copy of the lake takes: the data files of one version, and of the table's log what opening that version needs.

use crate::error::LakeError;
use crate::lake::{Lake, away};
use crate::snapshot::Snapshot;
use crate::table;
use crate::versions::LOG;
use std::fs;
use std::io;
use std::path::Path;
use uuid::Uuid;

/// All that a copy takes.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The version.
    pub version: u64,
    /// All events of the wal up to this position are in it.
    pub sealed: u64,
    /// How many events it has.
    pub events: u64,
    /// The files below the lake's folder: of the log, then the data files.
    pub files: Vec<String>,
}

impl Copy {
    fn of(snapshot: &Snapshot, log: Vec<String>) -> Self {
        let data = snapshot.files.iter().map(|file| file.path.clone());
        Self {
            version: snapshot.version,
            sealed: snapshot.sealed,
            events: snapshot.files.iter().map(|file| file.stats.rows).sum(),
            files: log.into_iter().chain(data).collect(),
        }
    }
}

/// What a copy of the lake in `dir` takes, which nobody writes to and which belongs to the wal `wal`.
///
/// # Errors
/// [`LakeError`]: there is no table, or one that cannot be read.
pub async fn copy_of(dir: &Path, wal: Uuid) -> Result<Copy, LakeError> {
    let snapshot = table::look_for(dir, wal).await?;
    let log = log_files(dir, snapshot.version).map_err(|error| unread(LOG, &error))?;
    for file in &snapshot.files {
        has_size(&dir.join(&file.path), file.bytes).map_err(|error| unread(&file.path, &error))?;
    }
    Ok(Copy::of(&snapshot, log))
}

impl Lake {
    /// Gives the files of the version of this moment a second name in `folder`, where they stay when they go from the lake. Commits wait while
    /// those of the log get theirs.
    ///
    /// # Errors
    /// [`LakeError`]: a file is gone or has another size than the table says, or has no second name; some files may be there.
    pub async fn link_into(&self, folder: &Path) -> Result<Copy, LakeError> {
        // Held to the end: what this version has is not removed.
        let (snapshot, log) = {
            let _lane = self.shared.lane.lock().await;
            let snapshot = self.snapshot();
            let (dir, to, version) = (self.shared.dir.clone(), folder.to_path_buf(), snapshot.version);
            let linked = move || {
                let log = log_files(&dir, version)?;
                fs::create_dir_all(to.join(LOG))?;
                log.iter().try_for_each(|path| fs::hard_link(dir.join(path), to.join(path)))?;
                Ok(log)
            };
            (snapshot, away(linked).await?.map_err(|error: io::Error| unread(LOG, &error))?)
        };
        let copy = Copy::of(&snapshot, log);
        let to = folder.to_path_buf();
        away(move || snapshot.files.iter().try_for_each(|file| link(&snapshot.root, &file.path, file.bytes, &to)))
            .await??;
        Ok(copy)
    }
}

fn link(from: &Path, path: &str, bytes: u64, to: &Path) -> Result<(), LakeError> {
    let link = || {
        let link = to.join(path);
        fs::create_dir_all(link.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        fs::hard_link(from.join(path), &link)?;
        has_size(&link, bytes)
    };
    link().map_err(|error| unread(path, &error))
}

fn has_size(path: &Path, bytes: u64) -> io::Result<()> {
    match fs::metadata(path)?.len() {
        found if found == bytes => Ok(()),
        found => Err(io::Error::other(format!("it has {found} bytes, and the table says {bytes}"))),
    }
}

fn unread(path: &str, error: &io::Error) -> LakeError {
    LakeError::Unread { path: path.to_owned(), reason: error.to_string() }
}

/// The last checkpoint and the commits behind its version, up to `version`; without a checkpoint all commits.
fn log_files(dir: &Path, version: u64) -> io::Result<Vec<String>> {
    let checkpoint = table::checkpoint(dir);
    let mut files = Vec::new();
    for entry in fs::read_dir(dir.join(LOG))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let of_version = name.split('.').next().and_then(|number| number.parse::<u64>().ok());
        let is_needed = match of_version {
            _ if name.contains('#') => false,
            None => name == "_last_checkpoint",
            // The checkpoint has what the commit of its version has.
            Some(of) if name.ends_with(".json") => (of > checkpoint || checkpoint == 0) && of <= version,
            Some(of) => of == checkpoint && name.contains(".checkpoint"),
        };
        if is_needed {
            files.push(format!("{LOG}/{name}"));
        }
    }
    files.sort();
    let commits = files.iter().filter(|name| name.ends_with(".json")).count() as u64;
    if checkpoint > version || commits < version - checkpoint {
        let text = format!("of the commits {checkpoint} to {version} of the table only {commits} are there");
        return Err(io::Error::other(text));
    }
    Ok(files)
}
