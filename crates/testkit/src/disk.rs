//! A disk in memory with the faults of real ones.
//!
//! It keeps two states: what programs see, and what is on stable storage. A write reaches the second by `sync_data`, a name by
//! `sync_dir`. [`SimDisk::crash`] goes back to stable storage, except that each unsynced write may be there in part: any
//! prefix of it, or none, as the seed says. It does not simulate time or reordering between files.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wal::{Disk, DiskFile};

/// What an operation answers instead of doing its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No space is left.
    Full,
    /// The device failed.
    Broken,
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::Full => io::Error::from(io::ErrorKind::StorageFull),
            Self::Broken => io::Error::other("input/output error"),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Inode {
    seen: Vec<u8>,
    stable: Vec<u8>,
    /// Writes since the last sync, in order.
    unsynced: Vec<(u64, Vec<u8>)>,
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    seen: BTreeMap<PathBuf, usize>,
    stable: BTreeMap<PathBuf, usize>,
    locked: BTreeMap<PathBuf, u64>,
    life: u64,
    write_fault: Option<(u64, Fault)>,
    sync_fault: Option<(u64, Fault)>,
    create_fault: Option<Fault>,
    syncs: u64,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// A file of a [`SimDisk`].
#[derive(Debug)]
pub struct SimFile {
    state: Arc<Mutex<State>>,
    inode: usize,
    lock: Option<PathBuf>,
    life: u64,
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the power go: what was not synced is gone, but for parts of writes that `seed` chooses.
    pub fn crash(&self, seed: u64) {
        let mut state = lock(&self.state);
        let mut random = seed;
        for inode in &mut state.inodes {
            let mut left = inode.stable.clone();
            for (offset, bytes) in std::mem::take(&mut inode.unsynced) {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let keep = (random >> 33) as usize % (bytes.len() + 1);
                put(&mut left, offset, &bytes[..keep]);
            }
            inode.seen.clone_from(&left);
            inode.stable = left;
        }
        state.seen = state.stable.clone();
        state.locked.clear();
        state.life += 1;
        state.write_fault = None;
        state.sync_fault = None;
        state.create_fault = None;
    }

    /// The write after `skip` more writes fails.
    pub fn fail_write(&self, skip: u64, fault: Fault) {
        lock(&self.state).write_fault = Some((skip, fault));
    }

    /// The sync, of a file or a folder, after `skip` more syncs fails.
    pub fn fail_sync(&self, skip: u64, fault: Fault) {
        lock(&self.state).sync_fault = Some((skip, fault));
    }

    /// Files can no longer be made, or can again.
    pub fn fail_creates(&self, fault: Option<Fault>) {
        lock(&self.state).create_fault = fault;
    }

    /// Syncs so far, of files and folders.
    pub fn syncs(&self) -> u64 {
        lock(&self.state).syncs
    }

    /// The content of a file as programs see it.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = lock(&self.state);
        Some(state.inodes[*state.seen.get(path)?].seen.clone())
    }

    /// Changes a file behind everybody's back, durably.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = lock(&self.state);
        let inode = state.seen[path];
        let inode = &mut state.inodes[inode];
        change(&mut inode.seen);
        inode.stable.clone_from(&inode.seen);
    }

    /// The paths of all files.
    pub fn paths(&self) -> Vec<PathBuf> {
        lock(&self.state).seen.keys().cloned().collect()
    }

    fn file(&self, inode: usize, state: &State) -> SimFile {
        SimFile { state: self.state.clone(), inode, lock: None, life: state.life }
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = lock(&self.state);
        let here = state.seen.keys().filter(|p| p.parent() == Some(dir));
        Ok(here.filter_map(|p| p.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn create(&self, path: &Path, bytes: u64) -> io::Result<SimFile> {
        let mut state = lock(&self.state);
        if let Some(fault) = state.create_fault {
            return Err(fault.error());
        }
        let zeros = vec![0; bytes as usize];
        state.inodes.push(Inode { seen: zeros.clone(), stable: Vec::new(), unsynced: vec![(0, zeros)] });
        let inode = state.inodes.len() - 1;
        state.seen.insert(path.to_owned(), inode);
        Ok(self.file(inode, &state))
    }

    fn open(&self, path: &Path) -> io::Result<SimFile> {
        let state = lock(&self.state);
        let inode = *state.seen.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(inode, &state))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = lock(&self.state);
        let inode = state.seen.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.seen.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        lock(&self.state).seen.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.sync()?;
        let names: BTreeMap<PathBuf, usize> =
            state.seen.iter().filter(|(p, _)| p.parent() == Some(dir)).map(|(p, i)| (p.clone(), *i)).collect();
        state.stable.retain(|p, _| p.parent() != Some(dir));
        state.stable.extend(names);
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<SimFile> {
        let taken = lock(&self.state).locked.contains_key(path);
        if taken {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut file = self.open(path).or_else(|_| self.create(path, 0))?;
        file.lock = Some(path.to_owned());
        lock(&self.state).locked.insert(path.to_owned(), file.life);
        Ok(file)
    }
}

impl DiskFile for SimFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(lock(&self.state).inodes[self.inode].seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = lock(&self.state);
        let seen = &state.inodes[self.inode].seen;
        let from = (offset as usize).min(seen.len());
        let read = buffer.len().min(seen.len() - from);
        buffer[..read].copy_from_slice(&seen[from..from + read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = lock(&self.state);
        let fault = take(&mut state.write_fault);
        let written = match fault {
            Some(_) => bytes.len() / 2,
            None => bytes.len(),
        };
        let inode = &mut state.inodes[self.inode];
        put(&mut inode.seen, offset, &bytes[..written]);
        inode.unsynced.push((offset, bytes[..written].to_vec()));
        fault.map_or(Ok(()), |fault| Err(fault.error()))
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        let mut state = lock(&self.state);
        let inode = &mut state.inodes[self.inode];
        inode.seen.resize(bytes as usize, 0);
        inode.stable.truncate(bytes as usize);
        inode.unsynced.retain(|(offset, _)| *offset < bytes);
        for (offset, write) in &mut inode.unsynced {
            write.truncate((bytes - *offset) as usize);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.sync()?;
        let inode = &mut state.inodes[self.inode];
        inode.stable.clone_from(&inode.seen);
        inode.unsynced.clear();
        Ok(())
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if let Some(path) = &self.lock
            && state.locked.get(path) == Some(&self.life)
        {
            state.locked.remove(path);
        }
    }
}

impl State {
    fn sync(&mut self) -> io::Result<()> {
        self.syncs += 1;
        take(&mut self.sync_fault).map_or(Ok(()), |fault| Err(fault.error()))
    }
}

fn take(fault: &mut Option<(u64, Fault)>) -> Option<Fault> {
    match fault {
        Some((0, _)) => fault.take().map(|(_, fault)| fault),
        Some((skip, _)) => {
            *skip -= 1;
            None
        }
        None => None,
    }
}

fn put(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let end = offset as usize + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset as usize..end].copy_from_slice(bytes);
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
