//! What a copy of the wal takes: its segments up to where their frames end, and its key files.
//!
//! The copy opens as the wal does after a crash, without a torn tail. What is appended meanwhile is not in it.

use crate::check::Found;
use crate::disk::{Disk, DiskFile, LOCK, RealDisk};
use crate::error::OpenError;
use crate::keys;
use crate::log::{Closed, Wal, take_lock};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use uuid::Uuid;

/// A file of the wal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name in the folder.
    pub name: String,
    /// How many of its bytes are of frames, and durable.
    pub bytes: u64,
}

/// All that a copy takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The wal's identity; none while it has no segment.
    pub wal_id: Option<Uuid>,
    /// The last position in it; 0 before the first.
    pub last_position: u64,
    /// The files, segments first.
    pub files: Vec<Part>,
}

/// Keeps a wal that nobody has open from being opened.
#[derive(Debug)]
pub struct Kept(#[allow(dead_code, reason = "the lock ends with its file")] File);

impl Kept {
    /// Takes the lock of the wal in `dir`.
    ///
    /// # Errors
    /// [`OpenError`]: a process has it open, or there is none.
    pub fn of(dir: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { action: "find", path: dir.join(LOCK), source };
        // Nothing is made where there is no wal.
        fs::metadata(dir.join(LOCK)).map_err(io)?;
        Ok(Self(take_lock(&RealDisk, dir)?))
    }
}

/// Checks every frame of the wal in `dir`, which nobody writes to, and tells what a copy takes. It changes nothing: a torn tail stays out of
/// what is told.
///
/// # Errors
/// [`OpenError`], as [`Wal::open`] finds it.
pub fn parts(dir: &Path) -> Result<Parts, OpenError> {
    let disk = RealDisk;
    let io = |source| OpenError::Io { action: "list", path: dir.to_owned(), source };
    let names = disk.list(dir).map_err(io)?;
    let found = Found::check(&disk, dir, &names, |_| {})?;
    let mut files: Vec<Part> = found.closed.iter().map(|s| part(&s.path, s.end)).collect();
    for (first, last) in names.iter().filter_map(|name| keys::range(name)) {
        let path = dir.join(keys::name(first, last));
        keys::read(&disk, path.clone())?;
        let bytes = disk.open(&path).and_then(|file| file.bytes());
        files.push(part(&path, bytes.map_err(|source| OpenError::Io { action: "read", path: path.clone(), source })?));
    }
    Ok(Parts { wal_id: found.wal_id, last_position: found.next_position - 1, files })
}

impl Wal<RealDisk> {
    /// Gives all of its files a second name in `folder`, where they stay when they are let go here. Tells how far each is durable: of the one
    /// that is written, more is appended.
    ///
    /// # Errors
    /// As the operating system says; some files may be there.
    pub fn link_into(&self, folder: &Path) -> io::Result<Parts> {
        fs::create_dir_all(folder)?;
        let mut files = Vec::new();
        let there = self.closed.iter().filter(|segment| !segment.is_removed);
        let closed = there.map(|Closed { path, end, .. }| (path, *end));
        let active = self.active.iter().map(|active| (&active.path, active.offset));
        for (path, bytes) in closed.chain(active) {
            files.push(part(path, bytes));
        }
        for (first, last) in &self.key_files {
            let path = self.dir.join(keys::name(*first, *last));
            files.push(part(&path, fs::metadata(&path)?.len()));
        }
        for Part { name, .. } in &files {
            let linked = fs::hard_link(self.dir.join(name), folder.join(name));
            linked.map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        }
        Ok(Parts { wal_id: Some(self.wal_id()), last_position: self.last_position(), files })
    }
}

fn part(path: &Path, bytes: u64) -> Part {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Part { name, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};
    use crate::log::{Frame, Options};

    const OPTIONS: Options = Options { segment_bytes: 1 << 20, frame_bytes_max: 1 << 20 };

    fn append(wal: &mut Wal, payload: &[u8]) {
        let first_position = wal.last_position() + 1;
        wal.append(Frame { first_position, event_count: 1, payload }).expect("appended");
    }

    /// Copies what is told, and opens it.
    fn opened(from: &Path, parts: &Parts) -> (Vec<Vec<u8>>, bool) {
        let to = tempfile::tempdir().expect("a folder");
        for Part { name, bytes } in &parts.files {
            let all = fs::read(from.join(name)).expect("read");
            fs::write(to.path().join(name), &all[..*bytes as usize]).expect("written");
        }
        let (wal, opened) = Wal::open(to.path(), OPTIONS, RealDisk).expect("it opens");
        assert_eq!((opened.torn, opened.last_position), (None, parts.last_position));
        assert_eq!(Some(wal.wal_id()), parts.wal_id);
        let mut payloads = Vec::new();
        wal.replay::<()>(|frame| {
            payloads.push(frame.payload.to_vec());
            Ok(())
        })
        .expect("read back");
        (payloads, opened.clean)
    }

    #[test]
    fn links_keep_what_was_durable_when_they_were_made_whatever_comes_after() {
        let (dir, links) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let (mut wal, _) = Wal::open(dir.path(), OPTIONS, RealDisk).expect("opened");
        append(&mut wal, b"one");
        wal.begin_segment().expect("begun");
        wal.trim_oldest(b"keys of one".to_vec()).expect("trimmed");
        append(&mut wal, b"two");
        wal.begin_segment().expect("begun");
        append(&mut wal, b"three, which ends with zeros\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        let parts = wal.link_into(links.path()).expect("linked");
        assert_eq!(parts.files.len(), 3);
        append(&mut wal, b"four");
        wal.trim_oldest(Vec::new()).expect("trimmed");
        let (payloads, _) = opened(links.path(), &parts);
        assert_eq!(payloads.len(), 2);
        assert!(payloads[0] == b"two" && payloads[1].starts_with(b"three"));
    }

    #[test]
    fn a_wal_that_nobody_has_open_tells_the_same_and_leaves_out_a_torn_tail() {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut wal, _) = Wal::open(dir.path(), OPTIONS, RealDisk).expect("opened");
        append(&mut wal, b"one");
        assert!(matches!(Kept::of(dir.path()), Err(OpenError::InUse { .. })));
        wal.close().expect("ended");
        let clean = parts(dir.path()).expect("told");
        let _kept = Kept::of(dir.path()).expect("nobody has it open");
        assert!(matches!(Wal::open(dir.path(), OPTIONS, RealDisk), Err(OpenError::InUse { .. })));
        assert_eq!(opened(dir.path(), &clean), (vec![b"one".to_vec()], true));

        let segment = dir.path().join(&clean.files[0].name);
        let end = SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES + 8;
        let mut torn = fs::read(&segment).expect("read");
        torn[end as usize..].fill(0);
        torn[end as usize..end as usize + 9].copy_from_slice(b"CWF1 torn");
        fs::write(&segment, &torn).expect("written");
        let parts = parts(dir.path()).expect("told");
        assert_eq!((parts.last_position, parts.files[0].bytes), (1, end));
        assert_eq!(fs::read(&segment).expect("read"), torn, "nothing was changed");
        assert_eq!(opened(dir.path(), &parts), (vec![b"one".to_vec()], false));
        assert!(matches!(Kept::of(&dir.path().join("none")), Err(OpenError::Io { .. })));
    }
}
