//! What a look at a wal tells while somebody has it open, or lets go of it meanwhile.

mod failing_disk;

use failing_disk::{append, dir, frames, open, segments};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use testkit::{SimDisk, SimFile};
use wal::{Disk, Known, Look};

/// A disk that hides a file from the first list of names, and whose lock is held as these say, one after the other.
#[derive(Clone)]
struct ChangingDisk {
    disk: SimDisk,
    hidden: String,
    locked: Arc<Mutex<VecDeque<bool>>>,
    lists: Arc<Mutex<usize>>,
}

impl Disk for ChangingDisk {
    type File = SimFile;
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut lists = self.lists.lock().expect("one thread");
        *lists += 1;
        let names = self.disk.list(dir)?;
        Ok(names.into_iter().filter(|name| *lists > 1 || *name != self.hidden).collect())
    }
    fn create(&self, path: &Path, bytes: u64) -> io::Result<SimFile> {
        self.disk.create(path, bytes)
    }
    fn open(&self, path: &Path) -> io::Result<SimFile> {
        self.disk.open(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<SimFile> {
        self.disk.lock(path)
    }
    fn is_locked(&self, _path: &Path) -> io::Result<bool> {
        Ok(self.locked.lock().expect("one thread").pop_front().unwrap_or(false))
    }
}

/// What a look finds at a wal of which it does not see the second segment at first, and how often it looked.
fn look(locked: &[bool]) -> (Look, usize) {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    for _ in 0..6 {
        append(&mut wal, 2, 2000).expect("appended");
    }
    drop(wal);
    assert_eq!(frames(&open(&disk).0).len(), 6);
    let second = segments(&disk).remove(1);
    let hidden = second.file_name().expect("a name").to_string_lossy().into_owned();
    let locked = Arc::new(Mutex::new(locked.iter().copied().collect()));
    let disk = ChangingDisk { disk, hidden, locked, lists: Arc::default() };
    let found = wal::look(dir(), &disk, &Known::default(), |_, _| Ok(())).expect("looked at");
    let lists = *disk.lists.lock().expect("one thread");
    (found, lists)
}

#[test]
fn what_is_found_once_beside_somebody_who_writes_is_no_damage() {
    // It is asked before and after each look.
    for locked in [&[true, true, true, true][..], &[true, true, false, false], &[false, true, false, false]] {
        let (found, looks) = look(locked);
        assert_eq!((found.is_damaged(), found.is_in_use, looks), (false, true, 2), "{locked:?}");
    }
}

#[test]
fn what_is_found_where_nobody_writes_is_damage_at_once() {
    let (found, looks) = look(&[false, false, true, true]);
    assert_eq!((found.is_damaged(), found.is_in_use, looks), (true, false, 1));
}
