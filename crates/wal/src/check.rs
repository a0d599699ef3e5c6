//! Before a wal is opened: every frame is checked, and nothing is changed. What belongs to it can be compared before [`Checked::open`].

use crate::disk::{Disk, DiskFile, RealDisk};
use crate::error::{OpenError, is_full};
use crate::format::{FrameHeader, Kind, SegmentHeader, VERSION};
use crate::keys;
use crate::log::{Closed, Opened, Options, Wal, io_error, name_of, new_segment, segments_of, take_lock, unstage};
use crate::look;
use crate::newest::{self, Last};
use crate::scan::Scan;
use crate::tail::{Later, Tail, cut, torn_tail, write_again};
use std::ops::Range;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// How far reading a wal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Bytes of the segments that were read or passed over.
    pub bytes: u64,
    /// Bytes of all segments.
    pub of_bytes: u64,
    /// Events in the frames that were read.
    pub events: u64,
}

/// A wal that is locked and whole, and as it was found.
pub struct Checked<D: Disk = RealDisk> {
    disk: D,
    dir: PathBuf,
    names: Vec<String>,
    found: Found,
    wal_id: Uuid,
    lock: D::File,
}

impl<D: Disk> Checked<D> {
    /// Takes the lock of the wal in `dir`, made when missing, and checks every frame; `told` hears how far that is.
    ///
    /// # Errors
    /// [`OpenError`]: it is in use, damaged, of a newer version, or cannot be read. Nothing was changed.
    pub fn of(dir: &Path, disk: D, told: impl FnMut(Read)) -> Result<Self, OpenError> {
        disk.create_dir(dir).map_err(io_error("create", dir))?;
        // Without its own name the folder would be gone after a power cut, and all that was answered with it.
        let above = dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        disk.sync_dir(above).map_err(io_error("sync", above))?;
        let lock = take_lock(&disk, dir)?;
        let names = disk.list(dir).map_err(io_error("list", dir))?;
        let found = Found::check(&disk, dir, &names, told).map_err(|error| with_saved(error, &disk, dir))?;
        let wal_id = found.wal_id.unwrap_or_else(Uuid::now_v7);
        Ok(Self { disk, dir: dir.to_owned(), names, found, wal_id, lock })
    }

    /// The wal's identity; a new one when there is no segment yet.
    pub fn wal_id(&self) -> Uuid {
        self.wal_id
    }

    /// Last position appended; 0 before the first.
    pub fn last_position(&self) -> u64 {
        self.found.next_position - 1
    }

    /// First position that can be read back, or is told to be lost; the next one when there is none.
    pub fn first_position(&self) -> u64 {
        self.found.closed.first().map_or(self.found.next_position, |segment| segment.first)
    }

    /// Opens it: cuts a torn tail, and begins a segment.
    ///
    /// # Errors
    /// [`OpenError::Io`].
    pub fn open(self, options: Options) -> Result<(Wal<D>, Opened), OpenError> {
        let first_position = self.first_position();
        let Self { disk, dir, names, found, wal_id, lock } = self;
        let dir = dir.as_path();
        for leftover in names.iter().filter(|n| n.ends_with(".new")) {
            let path = dir.join(leftover);
            disk.remove(&path).map_err(io_error("remove", &path))?;
        }
        let torn = match &found.torn {
            Some((path, offset, bytes)) => {
                newest::forget(&disk, dir).map_err(io_error("sync", dir))?;
                Some(cut(&disk, dir, Tail { path, offset: *offset, bytes }, &names)?)
            }
            None => None,
        };
        if let Some(last) = found.closed.last() {
            write_again(&disk, &last.path, found.last_frame.clone())?;
            disk.sync_dir(dir).map_err(io_error("sync", dir))?;
        }
        let opened = Opened {
            created: found.closed.is_empty(),
            last_position: found.next_position - 1,
            first_position,
            clean: found.clean,
            torn,
        };
        let (segment_id, first_position) = (Uuid::now_v7(), found.next_position);
        let header = SegmentHeader { version: VERSION, wal_id, segment_id, first_position };
        let mut closed = found.closed;
        // An empty segment of this very position is replaced: its name is taken again.
        closed.retain(|s| s.last >= s.first);
        // On a full disk the wal opens to be read; the first append that finds space makes the segment.
        let active = match new_segment(&disk, dir, header, options.segment_bytes) {
            Ok(active) => Some(active),
            Err(error) if is_full(&error) => {
                unstage(&disk, dir, found.next_position);
                None
            }
            Err(error) => return Err(io_error("create a segment in", dir)(error)),
        };
        let mut key_files: Vec<(u64, u64)> = names.iter().filter_map(|n| keys::range(n)).collect();
        key_files.sort_unstable();
        let wal = Wal {
            disk,
            dir: dir.to_owned(),
            options,
            wal_id,
            closed,
            active,
            key_files,
            next_position: found.next_position,
            poisoned: None,
            lost: found.lost,
            buffer: Vec::new(),
            _lock: lock,
        };
        Ok((wal, opened))
    }
}

/// What reading all segments gave, before anything is changed.
pub(crate) struct Found {
    pub(crate) wal_id: Option<Uuid>,
    pub(crate) closed: Vec<Closed>,
    pub(crate) next_position: u64,
    /// Where the last frame of the last segment lies, a group or an end; empty when it has none.
    last_frame: Range<u64>,
    /// The last segment.
    last: Option<Last>,
    clean: bool,
    lost: Vec<(u64, u64)>,
    torn: Option<(PathBuf, u64, Vec<u8>)>,
}

impl Found {
    /// Reads the files of these names in `dir`.
    pub(crate) fn check<D: Disk>(
        disk: &D,
        dir: &Path,
        names: &[String],
        mut told: impl FnMut(Read),
    ) -> Result<Self, OpenError> {
        let (closed, lost) = (Vec::new(), Vec::new());
        let mut found = Self {
            wal_id: None,
            closed,
            next_position: 1,
            last_frame: 0..0,
            last: None,
            clean: true,
            lost,
            torn: None,
        };
        let segments = segments_of(dir, names);
        let bytes = |(_, path): &(u64, PathBuf)| disk.open_to_read(path).and_then(|file| file.bytes()).unwrap_or(0);
        let mut read = Read { of_bytes: segments.iter().map(bytes).sum(), ..Read::default() };
        for (i, (named, path)) in segments.iter().enumerate() {
            let (later, before) = (segments.get(i + 1).map(|_| Later), read.bytes);
            found.segment(disk, (*named, path), later, |header, offset| {
                read = Read { bytes: before + offset, events: read.events + u64::from(header.event_count), ..read };
                told(read);
            })?;
            read.bytes = before + found.last.as_ref().map_or(0, |last| last.bytes);
        }
        found.nothing_is_missing(disk, dir, names)?;
        Ok(found)
    }

    fn segment<D: Disk>(
        &mut self,
        disk: &D,
        (named, path): (u64, &Path),
        later: Option<Later>,
        mut each: impl FnMut(&FrameHeader, u64),
    ) -> Result<(), OpenError> {
        let file = disk.open(path).map_err(io_error("open", path))?;
        let mut scan = Scan::new(&file, path)?;
        let first = scan.header.first_position;
        let expected = if self.closed.is_empty() { named } else { self.next_position };
        if first != named || first != expected {
            let what = format!(
                "the segment begins at position {first}, expected {expected}: a segment is missing or was renamed"
            );
            return Err(scan.corrupt(0, what));
        }
        if *self.wal_id.get_or_insert(scan.header.wal_id) != scan.header.wal_id {
            return Err(scan.corrupt(0, "the segment belongs to another wal".to_owned()));
        }
        let (mut begin, mut offset) = (scan.offset, scan.offset);
        while let Some((header, _)) = scan.next()? {
            let is_lost = header.kind == Kind::Lost && header.event_count > 0;
            self.lost.extend(is_lost.then(|| (header.first_position, header.next_position() - 1)));
            (begin, offset) = (offset, scan.offset);
            each(&header, offset);
        }
        self.next_position = scan.next_position;
        (self.clean, self.last_frame) = (scan.ended, begin..scan.offset);
        let bytes = file.bytes().map_err(io_error("read", path))?;
        let (last, end) = (scan.next_position.saturating_sub(1), scan.offset);
        self.closed.push(Closed { path: path.to_owned(), first, last, end, bytes, is_removed: false });
        let segment_id = scan.header.segment_id;
        self.last = Some(Last { first_position: first, segment_id, bytes, is_ended: scan.ended });
        self.torn = torn_tail(&mut scan, path, later)?;
        Ok(())
    }

    /// Whether the segments that are there are all that the other files tell of.
    fn nothing_is_missing<D: Disk>(&mut self, disk: &D, dir: &Path, names: &[String]) -> Result<(), OpenError> {
        let corrupt = |file: PathBuf, offset, what| OpenError::Corrupt { file, offset, what, saved: None };
        if let Some(newest) = newest::read(disk, dir)? {
            if *self.wal_id.get_or_insert(newest.wal_id) != newest.wal_id {
                return Err(corrupt(newest::path(dir), 0, "it belongs to another wal".to_owned()));
            }
            if let Some(missing) = newest.missing(self.last.as_ref()) {
                let end = self.closed.last().filter(|last| last.first == newest.first_position);
                let (file, offset) = match end {
                    Some(last) => (last.path.clone(), last.end),
                    None => (dir.join(name_of(newest.first_position)), 0),
                };
                return Err(corrupt(file, offset, missing.what()));
            }
        }
        // A file of keys is of a segment that was let go, behind which there was another one.
        let newest_keys = names.iter().filter_map(|name| keys::range(name)).max_by_key(|(_, last)| *last);
        match newest_keys.filter(|(_, last)| *last >= self.next_position || self.closed.is_empty()) {
            Some((first, last)) => {
                let what = format!("it is of positions {first} to {last}, and the segment that followed is missing");
                Err(corrupt(dir.join(keys::name(first, last)), 0, what))
            }
            None => Ok(()),
        }
    }
}

/// With what can be saved, when the wal is damaged.
fn with_saved<D: Disk>(error: OpenError, disk: &D, dir: &Path) -> OpenError {
    match error {
        OpenError::Corrupt { file, offset, what, .. } => {
            let saved = look::saved(disk, dir).ok();
            OpenError::Corrupt { file, offset, what, saved }
        }
        other => other,
    }
}
