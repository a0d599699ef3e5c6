//! The folder of a backup: what is in it, what is copied into it, what goes from it.
//!
//! It promises that the backup before stays whole until the one instead of it is: what is new is written beside, under names that nothing has,
//! then the manifest changes in one step, then what it does not name goes.

use super::manifest::{self, Entry, Manifest, STAGED, blocks, files_below, sync_folder};
use crate::data_dir::is_no_folder;
use anyhow::{Context, bail};
use lake::CheckedFile;
use parquet::file::reader::ChunkReader;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// A folder that a file system makes, which says nothing.
pub(crate) const LOST_AND_FOUND: &str = "lost+found";

/// The folder, which is ours until this is dropped.
pub(crate) struct Target {
    pub(crate) dir: PathBuf,
    /// The backup that is in it.
    pub(crate) before: Option<Manifest>,
    /// The folder of what is new, except for data files.
    pub(crate) set: String,
    _lock: File,
}

/// A file to be copied.
pub(crate) struct Wanted {
    pub(crate) source: PathBuf,
    /// Where it is in the data folder.
    pub(crate) path: String,
    /// How many of its bytes; all when it is not said.
    pub(crate) bytes: Option<u64>,
}

/// What has to be done with a file.
pub(crate) enum Step {
    /// It is there.
    Keep(Entry),
    /// It is copied to this place.
    Copy { wanted: Wanted, stored: String, bytes: u64, modified_nanos: u64 },
}

/// Takes the lock of a folder of backups.
pub(crate) fn lock(dir: &Path, take: impl Fn(&File) -> Result<(), TryLockError>) -> anyhow::Result<File> {
    // A pipe would be waited for.
    let folder = OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::DIRECTORY.bits() as i32).open(dir);
    let file = folder.with_context(|| format!("cannot open the folder {}", dir.display()))?;
    match take(&file) {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("{} is in use by another backup or restore: wait for its end", dir.display())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", dir.display())),
    }
}

/// Makes sure that the folder is none inside another backup.
fn lies_in_none(dir: &Path) -> anyhow::Result<()> {
    let above = dir.parent().and_then(|above| above.ancestors().find_map(|above| fs::canonicalize(above).ok()));
    let outer = above.as_deref().and_then(|above| above.ancestors().find(|above| above.join(manifest::NAME).exists()));
    match outer {
        None => Ok(()),
        Some(outer) => bail!(
            "{} lies inside the backup {}, which removes what is not its own: choose a folder beside it",
            dir.display(),
            outer.display()
        ),
    }
}

impl Target {
    /// Makes the folder when it is missing, for its owner alone, and looks what is in it.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let dir = &std::path::absolute(dir)?;
        lies_in_none(dir)?;
        create_durably(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
        let dir = fs::canonicalize(dir).with_context(|| format!("cannot find {}", dir.display()))?;
        let lock = lock(&dir, File::try_lock)?;
        let before = Manifest::read(&dir)?;
        if before.is_none() {
            let entries = fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
            let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
            let is_ours = |name: &str| name == LOST_AND_FOUND || name == STAGED;
            if let Some(name) = names.iter().find(|name| !is_ours(&name.to_string_lossy())) {
                bail!(
                    "{} has {} in it and is no backup: choose an empty folder, or one with a backup of this data folder",
                    dir.display(),
                    name.display()
                );
            }
        }
        let set = format!("set-{}", Uuid::now_v7());
        Ok(Self { dir, before, set, _lock: lock })
    }

    /// When the backup that is in it was made.
    pub(crate) fn taken_at(&self) -> Option<&str> {
        self.before.as_ref()?.taken_at.as_deref()
    }

    /// Makes it a folder of backups of this wal, if it is not one yet.
    pub(crate) fn begin(&mut self, program: &str, wal_id: &str) -> anyhow::Result<()> {
        if self.before.is_none() {
            let begun = Manifest::begun(program.to_owned(), wal_id.to_owned());
            begun.write(&self.dir)?;
            self.before = Some(begun);
        }
        Ok(())
    }

    /// What has to be done with each file.
    pub(crate) fn plan(&self, all: Vec<Wanted>) -> anyhow::Result<Vec<Step>> {
        let before = self.before.iter().flat_map(|before| &before.files);
        let known: HashMap<&str, &Entry> = before.map(|entry| (entry.path.as_str(), entry)).collect();
        let taken: HashSet<&str> = known.values().map(|entry| entry.stored.as_str()).collect();
        let step = |wanted: Wanted| {
            let found =
                fs::metadata(&wanted.source).with_context(|| format!("cannot read {}", wanted.source.display()))?;
            let nanos = found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec());
            let (bytes, modified_nanos) = (wanted.bytes.unwrap_or(found.len()), u64::try_from(nanos).unwrap_or(0));
            // Only data files never change, and have names of their own.
            let is_data = wanted.path.starts_with("lake/received_date=");
            let is_same = |entry: &&&Entry| {
                let size = fs::metadata(self.dir.join(&entry.stored)).map(|stored| stored.len());
                (entry.bytes, entry.modified_nanos) == (bytes, modified_nanos) && size.is_ok_and(|size| size == bytes)
            };
            if let Some(entry) = known.get(wanted.path.as_str()).filter(|_| is_data).filter(is_same) {
                return Ok(Step::Keep((*entry).clone()));
            }
            let is_free = is_data && !taken.contains(wanted.path.as_str());
            let stored = if is_free { wanted.path.clone() } else { format!("{}/{}", self.set, wanted.path) };
            Ok(Step::Copy { wanted, stored, bytes, modified_nanos })
        };
        all.into_iter().map(step).collect()
    }

    /// Does it: what is copied is durable when this returns, and part of no backup. What has checksums in itself is checked by them. `each` is told
    /// the bytes that were copied.
    pub(crate) fn copy(&self, steps: Vec<Step>, each: impl Fn(u64) -> io::Result<()>) -> anyhow::Result<Vec<Entry>> {
        let (mut entries, mut folders) = (Vec::new(), BTreeSet::from([self.dir.clone()]));
        for step in steps {
            let (wanted, stored, bytes, modified_nanos) = match step {
                Step::Keep(entry) => {
                    entries.push(entry);
                    continue;
                }
                Step::Copy { wanted, stored, bytes, modified_nanos } => (wanted, stored, bytes, modified_nanos),
            };
            let to = self.dir.join(&stored);
            let copied = opened(&wanted).and_then(|source| copy_durably(source, &to, bytes, (0o600, &each)));
            let (copied, crc32c) = copied.with_context(|| format!("cannot copy {} of the data folder", wanted.path))?;
            if copied != bytes {
                bail!("{} has {copied} bytes, and had {bytes}", wanted.source.display());
            }
            folders
                .extend(to.ancestors().skip(1).take_while(|above| above.starts_with(&self.dir)).map(Path::to_path_buf));
            entries.push(Entry { path: wanted.path, stored, bytes, crc32c, modified_nanos });
        }
        for folder in folders {
            sync_folder(&folder).with_context(|| format!("cannot sync {}", folder.display()))?;
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    /// Makes this the backup.
    pub(crate) fn complete(&mut self, manifest: Manifest) -> anyhow::Result<()> {
        manifest.write(&self.dir)?;
        self.before = Some(manifest);
        Ok(())
    }

    /// Removes what the backup does not name.
    pub(crate) fn clean(&self) -> anyhow::Result<()> {
        let before = self.before.iter().flat_map(|before| &before.files);
        let named: HashSet<&Path> = before.map(|entry| Path::new(&entry.stored)).collect();
        let clean = || -> io::Result<()> {
            for file in files_of(&self.dir)?.iter().filter(|file| !named.contains(file.as_path())) {
                fs::remove_file(self.dir.join(file))?;
                // Folders that are empty now; the others say that they are not.
                for above in file.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
                    if fs::remove_dir(self.dir.join(above)).is_err() {
                        break;
                    }
                }
            }
            Ok(())
        };
        clean().with_context(|| format!("cannot remove what is not needed any more from {}", self.dir.display()))
    }
}

/// Makes a folder and those above it that are missing, for their owner alone. Their names are on stable storage when this returns.
fn create_durably(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if is_no_folder(dir) {
        return Err(io::Error::new(ErrorKind::NotADirectory, "what is there is no folder"));
    }
    let above = dir.parent().ok_or(ErrorKind::NotFound)?;
    create_durably(above)?;
    match DirBuilder::new().mode(0o700).create(dir) {
        // Another made it meanwhile.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => {}
        made => made?,
    }
    sync_folder(above)
}

/// Whether one of two folders lies in the other, or they are the same; what of them is not there yet is taken as it is written.
pub(crate) fn are_nested(one: &Path, other: &Path) -> io::Result<bool> {
    let real = |path: &Path| {
        let path = std::path::absolute(path)?;
        let there = path.ancestors().find_map(|above| Some((fs::canonicalize(above).ok()?, above)));
        Ok::<_, io::Error>(there.map_or(path.clone(), |(real, above)| {
            path.strip_prefix(above).map_or(real.clone(), |rest| real.join(rest))
        }))
    };
    let (one, other) = (real(one)?, real(other)?);
    Ok(one.starts_with(&other) || other.starts_with(&one))
}

/// Whether a folder has the name of a set.
fn is_set(name: &str) -> bool {
    name.strip_prefix("set-").is_some_and(|id| Uuid::parse_str(id).is_ok())
}

/// The files of a folder that a backup may have put there; others are not ours.
fn files_of(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == STAGED {
            files.push(PathBuf::from(name));
        } else if (name == "lake" || is_set(&name)) && entry.file_type()?.is_dir() {
            files.extend(files_below(&entry.path())?.into_iter().map(|file| Path::new(&name).join(file)));
        }
    }
    Ok(files)
}

/// What a file is read with: what has checksums in itself is an error where they do not hold.
fn opened(wanted: &Wanted) -> io::Result<Box<dyn Read>> {
    if wanted.path.starts_with("lake/") && wanted.path.ends_with(".parquet") {
        let checked = CheckedFile::open(&wanted.source)?;
        return Ok(Box::new(checked.get_read(0).map_err(io::Error::other)?));
    }
    Ok(Box::new(File::open(&wanted.source)?))
}

/// Copies up to `bytes` bytes to a file that becomes visible when it is whole and on stable storage; its name has to be made durable yet. Returns
/// how many there were, and their checksum. With it go the mode of the file, and who is told the bytes that were copied.
pub(crate) fn copy_durably(
    source: impl Read,
    to: &Path,
    bytes: u64,
    (mode, each): (u32, impl Fn(u64) -> io::Result<()>),
) -> io::Result<(u64, u32)> {
    let folder = to.parent().ok_or(ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let mut staged = OsString::from(to);
    staged.push(".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&staged)?;
    let (mut copied, mut crc) = (0, 0);
    blocks(source, bytes, |block| {
        file.write_all(block)?;
        crc = crc32c::crc32c_append(crc, block);
        copied += block.len() as u64;
        each(block.len() as u64)
    })?;
    file.sync_all()?;
    fs::rename(&staged, to)?;
    Ok((copied, crc))
}
