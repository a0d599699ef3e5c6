//! A disk in memory with the faults of real ones.
//!
//! Programs use it as [`wal::Disk`], or through the kernel when it is mounted ([`crate::mount()`]). A write is on stable storage
//! after a sync of its file, a name after one of its folder. [`SimDisk::crash`] goes back to stable storage, but for what of the rest the seed
//! says. Every change is an operation with a number, so that the power can go at any of them.

use crate::random::Random;
use crate::tree::{FileNode, FolderNode, Inode, Naming, Node, ROOT, Tree};
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
            Self::Full => io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error()),
            Self::Broken => broken(),
        }
    }
}

/// What the device says when it fails.
pub(crate) fn broken() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

/// Which syncs are answered without being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Those of files.
    Files,
    /// Those of folders.
    Folders,
}

/// A fault that comes after `skip` more operations of its kind, to `count` of them.
#[derive(Debug)]
struct Due {
    skip: u64,
    count: u64,
    fault: Fault,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) tree: Tree,
    locked: BTreeMap<PathBuf, u64>,
    life: u64,
    write_fault: Option<Due>,
    sync_fault: Option<Due>,
    create_fault: Option<Fault>,
    lie: Option<Lie>,
    pub(crate) capacity_bytes: Option<u64>,
    syncs: u64,
    operations: u64,
    power_cut_at: Option<u64>,
    off: bool,
    /// A sync of a folder failed for another reason than room: as file systems with a journal do, it takes no change any more until it is mounted anew.
    read_only: bool,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    pub(crate) state: Arc<Mutex<State>>,
}

/// A file of a [`SimDisk`].
#[derive(Debug)]
pub struct SimFile {
    state: Arc<Mutex<State>>,
    inode: Inode,
    lock: Option<PathBuf>,
    life: u64,
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the power go: what was not synced is gone, but for what `seed` chooses. Faults end, and the power is back.
    pub fn crash(&self, seed: u64) {
        let mut state = self.state();
        let tree = state.tree.after_power_cut(&mut Random::new(seed));
        *state = State { tree, life: state.life + 1, ..State::default() };
    }

    /// What is left of this disk after a power cut, as another one; this one has no power any more.
    #[must_use]
    pub fn after_power_cut(&self, seed: u64) -> Self {
        let mut state = self.state();
        state.off = true;
        let tree = state.tree.after_power_cut(&mut Random::new(seed));
        Self { state: Arc::new(Mutex::new(State { tree, ..State::default() })) }
    }

    /// What programs see of this disk, as another one, as after a program was killed; this one has no power any more.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let mut state = self.state();
        state.off = true;
        let (tree, read_only) = (state.tree.clone(), state.read_only);
        Self { state: Arc::new(Mutex::new(State { tree, read_only, ..State::default() })) }
    }

    /// The power goes at this operation, counted from the disk's first: it and all that follow fail.
    pub fn cut_power_at(&self, operation: u64) {
        self.state().power_cut_at = Some(operation);
    }

    /// Whether it takes no changes any more: the power has gone, or a sync of a folder failed for another reason than room.
    pub fn is_dead(&self) -> bool {
        let state = self.state();
        state.off || state.read_only
    }

    /// Operations so far: each write, new length, new name, removal and sync is one.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// The write after `skip` more writes fails.
    pub fn fail_write(&self, skip: u64, fault: Fault) {
        self.fail_writes(skip, 1, fault);
    }

    /// So many writes after `skip` more writes fail.
    pub fn fail_writes(&self, skip: u64, count: u64, fault: Fault) {
        self.state().write_fault = Some(Due { skip, count, fault });
    }

    /// The sync, of a file or a folder, after `skip` more syncs fails.
    pub fn fail_sync(&self, skip: u64, fault: Fault) {
        self.fail_syncs(skip, 1, fault);
    }

    /// So many syncs after `skip` more syncs fail.
    pub fn fail_syncs(&self, skip: u64, count: u64, fault: Fault) {
        self.state().sync_fault = Some(Due { skip, count, fault });
    }

    /// Files can no longer be made, or can again.
    pub fn fail_creates(&self, fault: Option<Fault>) {
        self.state().create_fault = fault;
    }

    /// No fault that was asked for and has not come yet comes any more.
    pub fn heal(&self) {
        let mut state = self.state();
        state.write_fault = None;
        state.sync_fault = None;
        state.create_fault = None;
        state.capacity_bytes = None;
    }

    /// Answers some syncs without doing them, as a program that leaves them out.
    pub fn lie_about(&self, lie: Lie) {
        self.state().lie = Some(lie);
    }

    /// The disk has room for so many bytes in all, or any number.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity_bytes = bytes;
    }

    /// Syncs so far, of files and folders.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// The content of a file as programs see it.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        Some(state.tree.file(state.find(path)?)?.seen.clone())
    }

    /// Changes a file behind everybody's back, durably.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let inode = state.find(path).expect("a file to damage");
        let file = state.tree.file_mut(inode).expect("a file to damage");
        change(&mut file.seen);
        file.settle();
    }

    /// The paths of all files, from the root.
    pub fn paths(&self) -> Vec<PathBuf> {
        fn walk(tree: &Tree, folder: Inode, at: &Path, paths: &mut Vec<PathBuf>) {
            for (name, inode) in tree.folder(folder).into_iter().flat_map(|folder| &folder.seen) {
                match tree.get(*inode) {
                    Some(Node::File(_)) => paths.push(at.join(name)),
                    Some(Node::Folder(_)) => walk(tree, *inode, &at.join(name), paths),
                    None => {}
                }
            }
        }
        let mut paths = Vec::new();
        walk(&self.state().tree, ROOT, Path::new("/"), &mut paths);
        paths
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn open_inode(&self, inode: Inode, state: &State) -> SimFile {
        SimFile { state: self.state.clone(), inode, lock: None, life: state.life }
    }
}

impl State {
    /// Begins an operation that changes something; fails when there is no power.
    fn operate(&mut self) -> io::Result<()> {
        self.off |= self.power_cut_at.is_some_and(|at| self.operations >= at);
        self.powered()?;
        if self.read_only {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::ROFS.raw_os_error()));
        }
        self.operations += 1;
        Ok(())
    }

    /// Fails when there is no power.
    pub(crate) fn powered(&self) -> io::Result<()> {
        if self.off { Err(broken()) } else { Ok(()) }
    }

    fn has_room(&self, more_bytes: u64) -> io::Result<()> {
        match self.capacity_bytes {
            Some(capacity) if self.tree.bytes() + more_bytes > capacity => Err(Fault::Full.error()),
            _ => Ok(()),
        }
    }

    fn find(&self, path: &Path) -> Option<Inode> {
        self.tree.find(path.components().filter_map(|part| match part {
            std::path::Component::Normal(name) => name.to_str(),
            _ => None,
        }))
    }

    pub(crate) fn create(&mut self, folder: Inode, name: &str) -> io::Result<Inode> {
        self.operate()?;
        if let Some(fault) = self.create_fault {
            return Err(fault.error());
        }
        self.has_room(1)?;
        let inode = self.tree.add(Node::File(FileNode::default()));
        self.name(folder, Naming::Named(name.to_owned(), inode))?;
        Ok(inode)
    }

    pub(crate) fn make_folder(&mut self, folder: Inode, name: &str) -> io::Result<Inode> {
        self.operate()?;
        self.has_room(1)?;
        let inode = self.tree.add(Node::Folder(FolderNode::default()));
        self.name(folder, Naming::Named(name.to_owned(), inode))?;
        Ok(inode)
    }

    pub(crate) fn remove(&mut self, folder: Inode, name: &str) -> io::Result<()> {
        self.operate()?;
        let names = &self.tree.folder(folder).ok_or(io::ErrorKind::NotADirectory)?.seen;
        let inode = *names.get(name).ok_or(io::ErrorKind::NotFound)?;
        if self.tree.folder(inode).is_some_and(|folder| !folder.seen.is_empty()) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.name(folder, Naming::Gone(name.to_owned()))
    }

    pub(crate) fn link(&mut self, inode: Inode, folder: Inode, name: &str) -> io::Result<()> {
        self.operate()?;
        if self.tree.folder(folder).is_some_and(|folder| folder.seen.contains_key(name)) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.name(folder, Naming::Named(name.to_owned(), inode))
    }

    pub(crate) fn rename(&mut self, from: (Inode, &str), to: (Inode, &str)) -> io::Result<()> {
        self.operate()?;
        let names = &self.tree.folder(from.0).ok_or(io::ErrorKind::NotADirectory)?.seen;
        let inode = *names.get(from.1).ok_or(io::ErrorKind::NotFound)?;
        if from.0 == to.0 {
            return self.name(to.0, Naming::Renamed(from.1.to_owned(), to.1.to_owned(), inode));
        }
        self.name(to.0, Naming::Named(to.1.to_owned(), inode))?;
        self.name(from.0, Naming::Gone(from.1.to_owned()))
    }

    fn name(&mut self, folder: Inode, naming: Naming) -> io::Result<()> {
        self.tree.folder_mut(folder).ok_or(io::ErrorKind::NotADirectory)?.change(naming);
        Ok(())
    }

    pub(crate) fn write(&mut self, inode: Inode, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.operate()?;
        let before = self.tree.file(inode).ok_or(io::ErrorKind::NotFound)?.seen.len() as u64;
        let grows_by = (offset + bytes.len() as u64).saturating_sub(before);
        let room = if grows_by == 0 { Ok(()) } else { self.has_room(grows_by) };
        let fault = room.err().or_else(|| take(&mut self.write_fault).map(Fault::error));
        let file = self.tree.file_mut(inode).ok_or(io::ErrorKind::NotFound)?;
        match fault {
            None => file.write(offset, bytes),
            Some(_) => file.write(offset, &bytes[..bytes.len() / 2]),
        }
        fault.map_or(Ok(()), Err)
    }

    pub(crate) fn set_length(&mut self, inode: Inode, bytes: u64) -> io::Result<()> {
        self.operate()?;
        let before = self.tree.file(inode).ok_or(io::ErrorKind::NotFound)?.seen.len() as u64;
        if bytes > before {
            self.has_room(bytes - before)?;
        }
        self.tree.file_mut(inode).ok_or(io::ErrorKind::NotFound)?.set_length(bytes);
        Ok(())
    }

    pub(crate) fn sync_file(&mut self, inode: Inode) -> io::Result<()> {
        self.operate()?;
        self.syncs += 1;
        let (fault, lie) = (take(&mut self.sync_fault), self.lie == Some(Lie::Files));
        let file = self.tree.file_mut(inode).ok_or(io::ErrorKind::NotFound)?;
        match fault {
            Some(fault) => {
                file.forget();
                return Err(fault.error());
            }
            None if !lie => file.sync(),
            None => {}
        }
        Ok(())
    }

    pub(crate) fn sync_folder(&mut self, inode: Inode) -> io::Result<()> {
        self.operate()?;
        self.syncs += 1;
        let (fault, lie) = (take(&mut self.sync_fault), self.lie == Some(Lie::Folders));
        let folder = self.tree.folder_mut(inode).ok_or(io::ErrorKind::NotADirectory)?;
        match fault {
            // Nothing is stable yet, and the next sync may make it so.
            Some(Fault::Full) => return Err(Fault::Full.error()),
            Some(Fault::Broken) => {
                folder.forget();
                self.read_only = true;
                return Err(Fault::Broken.error());
            }
            None if !lie => folder.sync(),
            None => {}
        }
        Ok(())
    }

    /// The folder of a path, and its name there.
    fn place<'p>(&self, path: &'p Path) -> io::Result<(Inode, &'p str)> {
        let folder = self.find(path.parent().unwrap_or(path)).ok_or(io::ErrorKind::NotFound)?;
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok((folder, name))
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let above: Vec<&Path> = dir.ancestors().filter(|path| path.file_name().is_some()).collect();
        for path in above.into_iter().rev() {
            if state.find(path).is_none() {
                let (folder, name) = state.place(path)?;
                state.make_folder(folder, name)?;
            }
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.powered()?;
        let folder = state.find(dir).and_then(|inode| state.tree.folder(inode)).ok_or(io::ErrorKind::NotFound)?;
        Ok(folder.seen.keys().cloned().collect())
    }

    fn create(&self, path: &Path, bytes: u64) -> io::Result<SimFile> {
        let mut state = self.state();
        let (folder, name) = state.place(path)?;
        let inode = state.create(folder, name)?;
        if bytes > 0 {
            state.set_length(inode, bytes)?;
        }
        Ok(self.open_inode(inode, &state))
    }

    fn open(&self, path: &Path) -> io::Result<SimFile> {
        let state = self.state();
        state.powered()?;
        let inode = state.find(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.open_inode(inode, &state))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let (from, to) = (state.place(from)?, state.place(to)?);
        state.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let (folder, name) = state.place(path)?;
        state.remove(folder, name)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.find(dir).ok_or(io::ErrorKind::NotFound)?;
        state.sync_folder(inode)
    }

    fn lock(&self, path: &Path) -> io::Result<SimFile> {
        if self.state().locked.contains_key(path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut file = self.open(path).or_else(|_| self.create(path, 0))?;
        file.lock = Some(path.to_owned());
        self.state().locked.insert(path.to_owned(), file.life);
        Ok(file)
    }
}

impl DiskFile for SimFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(lock(&self.state).tree.file(self.inode).ok_or(io::ErrorKind::NotFound)?.seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = lock(&self.state);
        state.powered()?;
        let read = state.tree.file(self.inode).ok_or(io::ErrorKind::NotFound)?.read(offset, buffer.len());
        buffer[..read.len()].copy_from_slice(read);
        Ok(read.len())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        lock(&self.state).write(self.inode, offset, bytes)
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        lock(&self.state).set_length(self.inode, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        lock(&self.state).sync_file(self.inode)
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

fn take(due: &mut Option<Due>) -> Option<Fault> {
    let Due { skip, count, fault } = due.as_mut()?;
    if *skip > 0 {
        *skip -= 1;
        return None;
    }
    let fault = *fault;
    *count = count.saturating_sub(1);
    if *count == 0 {
        *due = None;
    }
    Some(fault)
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
