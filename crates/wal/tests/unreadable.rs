//! What becomes of a wal of which the disk cannot read a part: that part is told, and the rest is kept.

mod failing_disk;

use failing_disk::{OPTIONS, append, dir, frames, open, segments};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::{SimDisk, SimFile};
use wal::{Disk, DiskFile, End, Known, OpenError, Wal};

/// A disk that cannot read these bytes of a file.
#[derive(Clone)]
struct BadDisk {
    disk: SimDisk,
    path: PathBuf,
    bytes: Range<u64>,
    /// Another file has its place.
    is_gone: Arc<AtomicBool>,
}

struct BadFile {
    file: SimFile,
    bytes: Range<u64>,
}

impl BadDisk {
    fn file(&self, path: &Path, file: SimFile) -> BadFile {
        let is_bad = path == self.path && !self.is_gone.load(Ordering::Relaxed);
        BadFile { file, bytes: if is_bad { self.bytes.clone() } else { 0..0 } }
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
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.is_gone.fetch_or(to == self.path, Ordering::Relaxed);
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
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
            return Err(io::Error::from_raw_os_error(5));
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

#[test]
fn what_the_disk_cannot_read_is_told_and_the_rest_of_the_wal_is_kept() {
    let disk = SimDisk::new();
    let mut wal = Wal::open(dir(), wal::Options { segment_bytes: 32768, ..OPTIONS }, disk.clone()).expect("opened").0;
    for _ in 0..10 {
        append(&mut wal, 2, 2000).expect("appended");
    }
    drop(wal);
    let path = segments(&disk).remove(0);
    // Some groups in the middle, the last ones, and the header.
    for (bytes, lost, kept) in [(12288..12289, 3, 7), (20480..32768, 2, 8), (0..4096, 0, 10)] {
        let copy = disk.after_kill();
        let bad = BadDisk { disk: copy.clone(), path: path.clone(), bytes: bytes.clone(), is_gone: Arc::default() };
        let refused = Wal::open(dir(), OPTIONS, bad.clone()).err().expect("refused");
        assert!(matches!(refused, OpenError::Io { .. }), "{refused}");
        let look = wal::look(dir(), &bad, &Known::default(), |_, _| Ok(())).expect("looked at");
        assert!(look.is_damaged() && look.segments[0].end != End::Clean, "{look:?}");
        let repaired = wal::repair(dir(), &bad, Path::new("/damaged/wal"), Known::default()).expect("repaired");
        let damage = &repaired.before.segments[0].damage;
        assert!(damage.iter().any(|d| d.what.contains("the disk cannot read") || bytes.start == 0), "{damage:?}");
        assert_eq!(repaired.before.lost().count(), usize::from(lost > 0), "{damage:?}");
        assert_eq!(copy.content(&repaired.moved[0].1).expect("kept").len(), 32768);
        let (wal, opened) = open(&copy);
        assert_eq!((frames(&wal).len(), opened.torn), (kept, None), "{bytes:?}");
        assert!(wal.last_position() >= 20);
    }
}
