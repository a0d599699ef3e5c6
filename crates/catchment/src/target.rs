//! Where an export or an answer goes: a file that has its name only when it is whole, or standard output.

use crate::checksum::{self, Checksum};
use anyhow::{Context, anyhow, ensure};
use nowwhat::cli::{PrintError, Usage};
use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Whether a file that is there may be written over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    Kept,
    Replaced,
}

/// Where it goes.
#[derive(Clone)]
pub(crate) enum Target {
    Output,
    File { path: PathBuf, part: PathBuf, existing: Existing },
}

impl Target {
    pub(crate) fn of(path: &Path, existing: Existing) -> Result<Self, Usage> {
        if path.as_os_str() == "-" {
            return Ok(Self::Output);
        }
        if existing == Existing::Kept && path.exists() {
            return Err(Usage(there(path)));
        }
        if path.metadata().is_ok_and(|there| !there.is_file()) {
            let path = path.display();
            return Err(Usage(format!("{path} is no file that could be written over: `-` is standard output")));
        }
        // The file that a link leads to is written over, not the link.
        let to = if path.is_symlink() { path.canonicalize() } else { Ok(path.to_owned()) };
        let unfollowed = |error| {
            Usage(format!("{} is a link that cannot be followed ({error}): name the file itself", path.display()))
        };
        let path = to.map_err(unfollowed)?;
        let folder = folder_of(&path);
        if folder.metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            return Err(Usage(format!("there is no folder {} for {}", folder.display(), path.display())));
        }
        let mut part = OsString::from(&path);
        part.push(".part");
        Ok(Self::File { path, part: part.into(), existing })
    }

    /// What is written to before it is whole.
    pub(crate) fn part(&self) -> Option<&Path> {
        match self {
            Self::Output => None,
            Self::File { part, .. } => Some(part),
        }
    }

    /// Opens it. The part of an earlier one that did not come to its end is written over.
    pub(crate) fn open(&self) -> anyhow::Result<Sink> {
        let to = match self {
            Self::Output => To::Output,
            Self::File { part, .. } => {
                ensure!(
                    part.symlink_metadata().map_or(true, |there| there.is_file()),
                    "{} is no file: it is written to until the export is whole, move away what is there",
                    part.display()
                );
                // A link there may lead to a file that is not ours.
                let no_link = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
                let opened =
                    OpenOptions::new().write(true).create(true).truncate(false).custom_flags(no_link).open(part);
                let file = opened.with_context(|| format!("cannot write {}", part.display()))?;
                match file.try_lock() {
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => {
                        return Err(anyhow!("another command writes {} at this moment", part.display()));
                    }
                    Err(TryLockError::Error(error)) => {
                        return Err(error).with_context(|| format!("cannot lock {}", part.display()));
                    }
                }
                file.set_len(0).with_context(|| format!("cannot write {}", part.display()))?;
                To::File(file)
            }
        };
        Ok(Sink { to, written: Arc::default(), unread: Arc::default(), checksum: None })
    }

    /// Makes what was written durable, and gives it its name.
    pub(crate) fn finish(&self, sink: Sink) -> anyhow::Result<()> {
        let Sink { to, checksum, .. } = sink;
        let (Self::File { path, part, existing }, To::File(file)) = (self, to) else { return Ok(()) };
        file.sync_all().with_context(|| format!("cannot sync {}", part.display()))?;
        let beside =
            |error: io::Error| anyhow!(error).context(format!("cannot write the checksum beside {}", path.display()));
        if *existing == Existing::Replaced || !path.exists() {
            // That of the file whose place it takes.
            checksum::remove(path).map_err(beside)?;
        }
        match existing {
            Existing::Replaced => std::fs::rename(part, path),
            Existing::Kept => without_replacing(part, path),
        }
        .map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => anyhow!("{}: all of it is in {}", there(path), part.display()),
            _ => anyhow!(error).context(format!("cannot give {} its name", part.display())),
        })?;
        if let Some(checksum) = checksum {
            checksum.write(path).map_err(beside)?;
        }
        let folder = folder_of(path);
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.with_context(|| format!("cannot sync {}", folder.display()))
    }
}

/// The folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn there(path: &Path) -> String {
    format!("{} is there already: choose another name, or write over it with --overwrite", path.display())
}

/// A file that came meanwhile is not written over either, where the file system can tell.
fn without_replacing(part: &Path, path: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, part, CWD, path, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => std::fs::rename(part, path),
        done => Ok(done?),
    }
}

enum To {
    Output,
    File(File),
}

/// What it is written to.
pub(crate) struct Sink {
    to: To,
    written: Arc<AtomicU64>,
    unread: Arc<AtomicBool>,
    checksum: Option<Checksum>,
}

/// How much was written, while it is.
#[derive(Clone)]
pub(crate) struct Written {
    bytes: Arc<AtomicU64>,
    unread: Arc<AtomicBool>,
}

impl Written {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether nobody reads what is written: then all is done.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let unread = self.unread.load(Ordering::Relaxed);
        ensure!(!unread, PrintError::from(io::Error::from(ErrorKind::BrokenPipe)));
        Ok(())
    }
}

impl Sink {
    /// The same, with a checksum that is written beside the file.
    pub(crate) fn with_checksum(self) -> Self {
        Self { checksum: Some(Checksum::default()), ..self }
    }

    pub(crate) fn written(&self) -> Written {
        Written { bytes: self.written.clone(), unread: self.unread.clone() }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.to {
            To::File(file) => file.write(bytes),
            To::Output => io::stdout().lock().write(bytes),
        };
        if written.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
            self.unread.store(true, Ordering::Relaxed);
        }
        if let Ok(count) = &written {
            self.written.fetch_add(*count as u64, Ordering::Relaxed);
            if let Some(checksum) = &mut self.checksum {
                checksum.add(&bytes[..*count]);
            }
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            To::File(file) => file.flush(),
            To::Output => io::stdout().lock().flush(),
        }
    }
}
