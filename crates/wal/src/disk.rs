//! The file system as the wal sees it: the seam at which tests put a disk with faults.
//!
//! [`RealDisk`] promises what the names say of a POSIX file system: nothing is durable before `sync_data` on the file and, for
//! names, `sync_dir` on the folder.

use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// A folder's files: made, listed, removed, locked.
pub trait Disk: Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;
    /// Makes a folder and its parents.
    ///
    /// # Errors
    /// As the operating system says; so for all that follow.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Names of the files in a folder.
    ///
    /// # Errors
    /// See [`Disk::create_dir`].
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes a file of `bytes` zeros, space for all of them taken; an existing one of that name is replaced.
    ///
    /// # Errors
    /// See [`Disk::create_dir`].
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Self::File>;
    /// Opens a file to read and write.
    ///
    /// # Errors
    /// See [`Disk::create_dir`].
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens a file to read it alone.
    ///
    /// # Errors
    /// See [`Disk::create_dir`].
    fn open_to_read(&self, path: &Path) -> io::Result<Self::File> {
        self.open(path)
    }
    /// Gives a file another name, in one step.
    ///
    /// # Errors
    /// See [`Disk::create_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// See [`Disk::create_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// See [`Disk::create_dir`].
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the folder's lock file for this process; the lock ends with the file.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when another process has it.
    fn lock(&self, path: &Path) -> io::Result<Self::File>;
    /// Whether a process has the folder's lock file now.
    ///
    /// # Errors
    /// See [`Disk::create_dir`].
    fn is_locked(&self, _path: &Path) -> io::Result<bool> {
        Ok(false)
    }
}

/// An open file, read and written at offsets.
pub trait DiskFile: Send + Sync {
    /// Length in bytes.
    ///
    /// # Errors
    /// As the operating system says; so for all that follow.
    fn bytes(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset`; fewer bytes only at the end of the file.
    ///
    /// # Errors
    /// See [`DiskFile::bytes`].
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// See [`DiskFile::bytes`].
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts or grows the file; what is grown reads as zeros.
    ///
    /// # Errors
    /// See [`DiskFile::bytes`].
    fn set_bytes(&self, bytes: u64) -> io::Result<()>;
    /// Makes the file's content durable.
    ///
    /// # Errors
    /// See [`DiskFile::bytes`].
    fn sync_data(&self) -> io::Result<()>;
    /// Whether it still has a name: what is written to a file without one is gone with the process.
    ///
    /// # Errors
    /// See [`DiskFile::bytes`].
    fn has_name(&self) -> io::Result<bool> {
        Ok(true)
    }
}

/// The lock file of a folder.
pub(crate) const LOCK: &str = "lock";
/// The operating system's disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    type File = File;

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    fn create(&self, path: &Path, bytes: u64) -> io::Result<File> {
        // What a link leads to is not ours to write to.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        if bytes > 0 {
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
        }
        Ok(file)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(path)
    }

    fn open_to_read(&self, path: &Path) -> io::Result<File> {
        File::open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY, rustix::fs::Mode::empty())?;
        Ok(rustix::fs::fsync(dir)?)
    }

    fn lock(&self, path: &Path) -> io::Result<File> {
        let no_link = OFlags::NOFOLLOW.bits() as i32;
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).custom_flags(no_link).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        file.set_len(0)?;
        write!(file, "{}", std::process::id())?;
        Ok(file)
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

impl DiskFile for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        filled(buffer, offset, |rest, offset| FileExt::read_at(self, rest, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn has_name(&self) -> io::Result<bool> {
        Ok(self.metadata()?.nlink() > 0)
    }
}

/// Fills a buffer from `offset` by reads that may give less than they are asked for, and that a signal may break off.
fn filled(
    buffer: &mut [u8],
    offset: u64,
    mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_that_are_short_or_broken_off_fill_the_buffer_all_the_same() {
        let file: Vec<u8> = (0..200).collect();
        for (step, offset, wanted) in [(1, 0, 100), (7, 50, 100), (7, 150, 100), (64, 199, 8), (3, 200, 8)] {
            let mut is_broken_off = false;
            let read_at = |rest: &mut [u8], at: u64| {
                is_broken_off = !is_broken_off;
                if is_broken_off {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                let there = &file[(at as usize).min(file.len())..];
                let bytes = there.len().min(step).min(rest.len());
                rest[..bytes].copy_from_slice(&there[..bytes]);
                Ok(bytes)
            };
            let mut buffer = vec![0; wanted];
            let read = filled(&mut buffer, offset, read_at).expect("it can be read");
            let expected = &file[offset as usize..(offset as usize + wanted).min(file.len())];
            assert_eq!(&buffer[..read], expected, "{step} bytes at a time from {offset}");
        }
        let failed = filled(&mut [0; 4], 0, |_, _| Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(failed.expect_err("it cannot be read").kind(), io::ErrorKind::PermissionDenied);
    }
}
