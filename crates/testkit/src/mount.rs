//! A simulated disk in a folder: whatever uses files there, uses the disk, system calls and all.
//!
//! The kernel passes each write, sync and change of a name on at once (FUSE without its write-back cache), so the disk sees them in the order
//! in which the program made them, and decides what is left when the power goes.

use crate::disk::{SimDisk, State, broken};
use crate::tree::{Inode, Node};
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// The kernel may believe what it was told: nobody else changes a mounted disk.
const BELIEVED: Duration = Duration::from_secs(3600);
const BLOCK_BYTES: u32 = 4096;
/// What a disk without a bound says that it has room for.
const PLENTY_BYTES: u64 = 1 << 40;

/// A disk in a folder, until it is dropped.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
    session: Option<BackgroundSession>,
}

impl Mounted {
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whoever still has files open there goes on to see them, and the folder is free.
        let _ = rustix::mount::unmount(&self.path, rustix::mount::UnmountFlags::DETACH);
        drop(self.session.take());
    }
}

/// Puts a disk into a folder, which is there and empty.
///
/// # Errors
/// The kernel has no FUSE, or does not let this user mount.
pub fn mount(disk: &SimDisk, folder: &Path) -> io::Result<Mounted> {
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("simulated".to_owned()), MountOption::NoAtime];
    let (disk, since) = (disk.clone(), SystemTime::now());
    let served = Served { disk, since, listed: Mutex::default(), listings: AtomicU64::new(0) };
    let session = fuser::spawn_mount(served, folder, &config)?;
    Ok(Mounted { path: folder.to_owned(), session: Some(session) })
}

/// By the number of a listing, the names in its folder.
type Listings = BTreeMap<u64, Vec<(String, Inode, FileType)>>;

struct Served {
    disk: SimDisk,
    since: SystemTime,
    /// What was in each folder that is being listed, when that began: what goes meanwhile moves nothing.
    listed: Mutex<Listings>,
    listings: AtomicU64,
}

impl Served {
    /// Does something with the disk that fails when there is no power.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> Result<T, Errno> {
        let mut state = self.disk.state();
        state.powered().and_then(|()| work(&mut state)).map_err(|error| errno(&error))
    }

    fn attributes(&self, state: &State, inode: Inode) -> io::Result<FileAttr> {
        let node = state.tree.get(inode).ok_or(io::ErrorKind::NotFound)?;
        let (kind, perm, size) = match node {
            Node::File(file) => (FileType::RegularFile, 0o600, file.seen.len() as u64),
            Node::Folder(_) => (FileType::Directory, 0o700, 0),
        };
        Ok(FileAttr {
            ino: INodeNo(inode),
            size,
            blocks: size.div_ceil(512),
            atime: self.since,
            mtime: self.since,
            ctime: self.since,
            crtime: self.since,
            kind,
            perm,
            nlink: state.tree.names_of(inode).max(1),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        })
    }

    fn listed(&self) -> MutexGuard<'_, Listings> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, found: Result<FileAttr, Errno>, reply: ReplyEntry) {
        match found {
            Ok(attributes) => reply.entry(&BELIEVED, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }
}

fn empty(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn name(name: &OsStr) -> io::Result<&str> {
    name.to_str().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn errno(error: &io::Error) -> Errno {
    match error.raw_os_error() {
        Some(code) => Errno::from_i32(code),
        None => match error.kind() {
            io::ErrorKind::NotFound => Errno::ENOENT,
            io::ErrorKind::AlreadyExists => Errno::EEXIST,
            io::ErrorKind::NotADirectory => Errno::ENOTDIR,
            io::ErrorKind::DirectoryNotEmpty => Errno::ENOTEMPTY,
            io::ErrorKind::InvalidInput => Errno::EINVAL,
            _ => Errno::EIO,
        },
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, named: &OsStr, reply: ReplyEntry) {
        let found = self.with(|state| {
            let folder = state.tree.folder(parent.0).ok_or(io::ErrorKind::NotADirectory)?;
            let inode = *folder.seen.get(name(named)?).ok_or(io::ErrorKind::NotFound)?;
            self.attributes(state, inode)
        });
        self.entry(found, reply);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.with(|state| self.attributes(state, inode.0)) {
            Ok(attributes) => reply.attr(&BELIEVED, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _file: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let done = self.with(|state| {
            if let Some(bytes) = size {
                state.set_length(inode.0, bytes)?;
            }
            self.attributes(state, inode.0)
        });
        match done {
            Ok(attributes) => reply.attr(&BELIEVED, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, named: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        let made = self.with(|state| {
            let inode = state.make_folder(parent.0, name(named)?)?;
            self.attributes(state, inode)
        });
        self.entry(made, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, named: &OsStr, reply: ReplyEmpty) {
        empty(self.with(|state| state.remove(parent.0, name(named)?)), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, named: &OsStr, reply: ReplyEmpty) {
        empty(self.with(|state| state.remove(parent.0, name(named)?)), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        from: &OsStr,
        new_parent: INodeNo,
        to: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        empty(self.with(|state| state.rename((parent.0, name(from)?), (new_parent.0, name(to)?))), reply);
    }

    fn link(&self, _: &Request, inode: INodeNo, parent: INodeNo, named: &OsStr, reply: ReplyEntry) {
        let linked = self.with(|state| {
            state.link(inode.0, parent.0, name(named)?)?;
            self.attributes(state, inode.0)
        });
        self.entry(linked, reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        named: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.with(|state| {
            let inode = state.create(parent.0, name(named)?)?;
            self.attributes(state, inode)
        });
        match made {
            Ok(attributes) => {
                reply.created(&BELIEVED, &attributes, Generation(0), FileHandle(0), FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = self.disk.state();
        let read = state.powered().and_then(|()| state.tree.file(inode.0).ok_or_else(broken));
        match read {
            Ok(file) => reply.data(file.read(offset, size as usize)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.with(|state| state.write(inode.0, offset, bytes)) {
            Ok(()) => reply.written(bytes.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Never asked again then: a process that ends would wait for an answer of threads that it has no more.
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        empty(self.with(|state| state.sync_file(inode.0)), reply);
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        empty(self.with(|state| state.sync_folder(inode.0)), reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let done = self.with(|state| {
            let before = state.tree.file(inode.0).ok_or(io::ErrorKind::NotFound)?.seen.len() as u64;
            if offset + length > before { state.set_length(inode.0, offset + length) } else { Ok(()) }
        });
        empty(done, reply);
    }

    fn opendir(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let listed = self.with(|state| {
            let folder = state.tree.folder(inode.0).ok_or(io::ErrorKind::NotADirectory)?;
            let kind = |child: &Inode| match state.tree.folder(*child) {
                Some(_) => FileType::Directory,
                None => FileType::RegularFile,
            };
            Ok(folder.seen.iter().map(|(name, child)| (name.clone(), *child, kind(child))).collect())
        });
        match listed {
            Ok(names) => {
                let listing = self.listings.fetch_add(1, Ordering::Relaxed);
                self.listed().insert(listing, names);
                reply.opened(FileHandle(listing), FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _: &Request, _: INodeNo, listing: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if let Err(error) = self.with(|_| Ok(())) {
            return reply.error(error);
        }
        let listed = self.listed();
        let names = listed.get(&listing.0).into_iter().flatten().enumerate().skip(offset as usize);
        for (i, (name, child, kind)) in names {
            if reply.add(INodeNo(*child), i as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, listing: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.listed().remove(&listing.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let state = self.disk.state();
        let capacity = state.capacity_bytes.unwrap_or(PLENTY_BYTES) / u64::from(BLOCK_BYTES);
        let used = state.tree.bytes().div_ceil(u64::from(BLOCK_BYTES));
        let free = capacity.saturating_sub(used);
        reply.statfs(capacity, free, free, 1 << 20, 1 << 20, BLOCK_BYTES, 255, BLOCK_BYTES);
    }
}
