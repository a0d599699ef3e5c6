//! A disk with one bad file.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::{SimDisk, SimFile};
use wal::{Disk, DiskFile};

/// The errors of the operating system, by their numbers.
pub(crate) const NO_SUCH_FILE: i32 = 2;
pub(crate) const IO: i32 = 5;
pub(crate) const DENIED: i32 = 13;

/// A disk on which one file cannot be opened to read, or removed, or some of its bytes cannot be read.
#[derive(Clone)]
pub(crate) struct BadDisk {
    disk: SimDisk,
    path: PathBuf,
    opening: Option<i32>,
    removing: Option<i32>,
    bytes: Range<u64>,
    /// Another file has its place.
    is_gone: Arc<AtomicBool>,
}

pub(crate) struct BadFile {
    file: SimFile,
    bytes: Range<u64>,
}

impl BadDisk {
    /// It cannot read these bytes of the file.
    pub(crate) fn unreadable(disk: &SimDisk, path: &Path, bytes: Range<u64>) -> Self {
        Self {
            disk: disk.clone(),
            path: path.to_owned(),
            opening: None,
            removing: None,
            bytes,
            is_gone: Arc::default(),
        }
    }

    /// It has the name of the file, and opening it fails so.
    pub(crate) fn unopenable(disk: &SimDisk, path: &Path, error: i32) -> Self {
        Self { opening: Some(error), ..Self::unreadable(disk, path, 0..0) }
    }

    /// Removing the file fails so.
    pub(crate) fn unremovable(disk: &SimDisk, path: &Path, error: i32) -> Self {
        Self { removing: Some(error), ..Self::unreadable(disk, path, 0..0) }
    }

    /// The error, when it is for this file.
    fn failing(&self, error: Option<i32>, path: &Path) -> io::Result<()> {
        match error.filter(|_| self.is_bad(path)) {
            Some(error) => Err(io::Error::from_raw_os_error(error)),
            None => Ok(()),
        }
    }

    fn is_bad(&self, path: &Path) -> bool {
        path == self.path && !self.is_gone.load(Ordering::Relaxed)
    }

    fn file(&self, path: &Path, file: SimFile) -> BadFile {
        BadFile { file, bytes: if self.is_bad(path) { self.bytes.clone() } else { 0..0 } }
    }
}

impl Disk for BadDisk {
    type File = BadFile;
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn create(&self, path: &Path, bytes: u64) -> io::Result<BadFile> {
        Ok(BadFile { file: self.disk.create(path, bytes)?, bytes: 0..0 })
    }
    fn open(&self, path: &Path) -> io::Result<BadFile> {
        Ok(self.file(path, self.disk.open(path)?))
    }
    fn open_to_read(&self, path: &Path) -> io::Result<BadFile> {
        self.failing(self.opening, path)?;
        self.open(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.is_gone.fetch_or(to == self.path, Ordering::Relaxed);
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.failing(self.removing, path)?;
        self.disk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<BadFile> {
        Ok(self.file(path, self.disk.lock(path)?))
    }
}

impl DiskFile for BadFile {
    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let end = offset + buffer.len() as u64;
        if self.bytes.start < end && offset < self.bytes.end {
            return Err(io::Error::from_raw_os_error(IO));
        }
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }
    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.file.set_bytes(bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
