//! [`Wal`]: appending, reading back, ending.

use crate::check::{Checked, Read};
use crate::disk::{Disk, DiskFile, LOCK, RealDisk};
use crate::error::{AppendError, OpenError, ReplayError, is_full};
use crate::format::{FrameHeader, Kind, SEGMENT_HEADER_BYTES, SegmentHeader, VERSION, frame_bytes};
use crate::keys::{self, KeyFile};
use crate::newest::{self, Newest};
use crate::scan::Scan;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;
use uuid::Uuid;

/// The memory of an unusually large frame is given back.
const BUFFER_KEEP_BYTES_MAX: usize = 8 << 20;

/// Sizes.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of a segment; a larger frame gets a segment of its own size.
    pub segment_bytes: u64,
    /// Largest payload of a frame that is appended; larger ones of before are read back all the same.
    pub frame_bytes_max: u64,
}

/// One group, to append or read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Position of its first event: the one after the last of the frame before.
    pub first_position: u64,
    /// Its number of events.
    pub event_count: u32,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// What an append cost.
#[derive(Clone, Copy, Debug)]
pub struct Appended {
    /// Bytes written.
    pub bytes: u64,
    /// Time of the sync.
    pub sync_seconds: f64,
}

/// What the opening found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Whether the wal was made now.
    pub created: bool,
    /// Last position appended; 0 before the first.
    pub last_position: u64,
    /// First position that can be read back.
    pub first_position: u64,
    /// Whether the last stop was a clean one.
    pub clean: bool,
    /// A torn tail that was cut.
    pub torn: Option<TornTail>,
}

/// A torn tail: what a crash in the middle of a write left. It was never answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub file: PathBuf,
    /// Where its frames end.
    pub offset: u64,
    /// Bytes cut off.
    pub bytes: u64,
    /// Where they were moved.
    pub moved_to: PathBuf,
}

/// How far a wal has been read back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    segment: usize,
    /// Offset and position behind the last frame of the segment that was read, when more may follow.
    behind: Option<(u64, u64)>,
    read: Read,
}

/// A segment that takes no more frames.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) path: PathBuf,
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Where its frames end.
    pub(crate) end: u64,
    pub(crate) bytes: u64,
    /// Its file went, and may come back after a power cut.
    pub(crate) is_removed: bool,
}

/// The segment that is written.
pub(crate) struct Active<F> {
    file: F,
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    pub(crate) offset: u64,
    bytes: u64,
}

/// A write-ahead log in a folder. Dropping it without [`Wal::close`] is what a crash does.
pub struct Wal<D: Disk = RealDisk> {
    pub(crate) disk: D,
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) wal_id: Uuid,
    pub(crate) closed: Vec<Closed>,
    /// None when there was no space for one at the opening; the next append makes it.
    pub(crate) active: Option<Active<D::File>>,
    pub(crate) key_files: Vec<(u64, u64)>,
    pub(crate) next_position: u64,
    pub(crate) poisoned: Option<String>,
    /// Positions that a repair found no events of, of the segments that are there.
    pub(crate) lost: Vec<(u64, u64)>,
    pub(crate) buffer: Vec<u8>,
    pub(crate) _lock: D::File,
}

impl<D: Disk> Wal<D> {
    /// Opens the wal in `dir`, made when missing: takes its lock, checks every frame, cuts a torn tail.
    ///
    /// # Errors
    /// [`OpenError`]; damage is reported before anything is changed.
    pub fn open(dir: &Path, options: Options, disk: D) -> Result<(Self, Opened), OpenError> {
        Checked::of(dir, disk, |_| {})?.open(options)
    }

    /// The wal's identity, made with it.
    pub fn wal_id(&self) -> Uuid {
        self.wal_id
    }

    /// Last position appended; 0 before the first.
    pub fn last_position(&self) -> u64 {
        self.next_position - 1
    }

    /// Ranges of positions, first and last, of which a repair found no events: no frame has them, and they are not given again.
    pub fn lost(&self) -> &[(u64, u64)] {
        &self.lost
    }

    /// Bytes of all segments on disk.
    pub fn bytes(&self) -> u64 {
        self.active.as_ref().map_or(0, |a| a.bytes) + self.closed.iter().map(|s| s.bytes).sum::<u64>()
    }

    /// Reads all frames back, in order, one in memory at a time.
    ///
    /// # Errors
    /// [`ReplayError`]: a file cannot be read, or `each` refused a frame.
    pub fn replay<E>(&self, mut each: impl FnMut(Frame<'_>) -> Result<(), E>) -> Result<(), ReplayError<E>> {
        self.replay_from(&mut Place::default(), |frame, _| each(frame).map(ControlFlow::Continue)).map(drop)
    }

    /// The same from a place on, until `each`, which hears how far it is, breaks off: then the place is behind that frame. Returns whether all
    /// has been read.
    ///
    /// # Errors
    /// See [`Wal::replay`].
    pub fn replay_from<E>(
        &self,
        place: &mut Place,
        mut each: impl FnMut(Frame<'_>, Read) -> Result<ControlFlow<()>, E>,
    ) -> Result<bool, ReplayError<E>> {
        // Not the room that was taken for frames that never came.
        place.read.of_bytes = self.closed.iter().map(|segment| segment.end).sum();
        while let Some(segment) = self.closed.get(place.segment) {
            let before: u64 = self.closed[..place.segment].iter().map(|segment| segment.end).sum();
            let file = self.disk.open(&segment.path).map_err(io_error("open", &segment.path))?;
            let mut scan = Scan::new(&file, &segment.path)?;
            if let Some((offset, next_position)) = place.behind.take() {
                (scan.offset, scan.next_position) = (offset, next_position);
            }
            loop {
                let begin = scan.offset;
                let Some((header, payload)) = scan.next()? else { break };
                place.read.bytes = before + begin + header.frame_bytes();
                if header.kind != Kind::Group {
                    continue;
                }
                let FrameHeader { first_position, event_count, .. } = header;
                place.read.events += u64::from(event_count);
                let frame = Frame { first_position, event_count, payload };
                if each(frame, place.read).map_err(ReplayError::Refused)?.is_break() {
                    place.behind = Some((scan.offset, scan.next_position));
                    return Ok(false);
                }
            }
            place.segment += 1;
        }
        Ok(true)
    }

    /// The key files there are, oldest first.
    ///
    /// # Errors
    /// [`OpenError`] when one cannot be read.
    pub fn key_files(&self) -> Result<Vec<KeyFile>, OpenError> {
        let read = |(first, last): &(u64, u64)| keys::read(&self.disk, self.dir.join(keys::name(*first, *last)));
        self.key_files.iter().map(read).collect()
    }

    /// Makes one frame durable: one write, one sync. It is durable when this returns.
    ///
    /// # Errors
    /// [`AppendError`]; nothing of the frame will be read back, except after [`AppendError::Poisoned`]: a frame that was written
    /// but not synced may be there at the next start, or not.
    pub fn append(&mut self, frame: Frame<'_>) -> Result<Appended, AppendError> {
        if let Some(reason) = &self.poisoned {
            return Err(AppendError::Poisoned { reason: reason.clone() });
        }
        let payload_bytes = frame.payload.len() as u64;
        let bytes_max = self.options.frame_bytes_max;
        if payload_bytes > bytes_max || u32::try_from(payload_bytes).is_err() {
            return Err(AppendError::TooLarge { bytes: payload_bytes, bytes_max });
        }
        assert_eq!(frame.first_position, self.next_position, "positions count up without a gap");
        assert!(frame.event_count > 0, "a group has events");
        let bytes = frame_bytes(payload_bytes);
        // Room for an end frame is always kept.
        let fits = |active: &Active<D::File>| active.offset + bytes + frame_bytes(0) <= active.bytes;
        if !self.active.as_ref().is_some_and(fits) {
            self.roll(bytes)?;
        }
        let header = FrameHeader {
            kind: Kind::Group,
            first_position: frame.first_position,
            event_count: frame.event_count,
            payload_bytes: payload_bytes as u32,
        };
        let sync_seconds = self.write(header, frame.payload)?;
        if let Some(active) = self.active.as_ref().filter(|active| matches!(active.file.has_name(), Ok(false))) {
            let reason = format!("{} was removed while it was written to: nothing in it stays", active.path.display());
            self.poisoned = Some(reason.clone());
            return Err(AppendError::Poisoned { reason });
        }
        self.next_position = header.next_position();
        Ok(Appended { bytes, sync_seconds })
    }

    /// Ends the wal cleanly: after this, damage at its end is never taken for a torn tail.
    ///
    /// # Errors
    /// [`AppendError`] when the end could not be written; the next opening then treats the stop as a crash.
    pub fn close(mut self) -> Result<(), AppendError> {
        if let Some(reason) = &self.poisoned {
            return Err(AppendError::Poisoned { reason: reason.clone() });
        }
        if self.active.is_none() {
            return Ok(());
        }
        let end = FrameHeader { kind: Kind::End, first_position: self.next_position, event_count: 0, payload_bytes: 0 };
        self.write(end, &[]).map(drop)
    }

    fn write(&mut self, header: FrameHeader, payload: &[u8]) -> Result<f64, AppendError> {
        let active = self.active.as_mut().expect("the caller made sure of a segment");
        header.encode(active.header.seed(), payload, &mut self.buffer);
        if let Err(error) = active.file.write_at(&self.buffer, active.offset) {
            return Err(if is_full(&error) { self.unwrite(error) } else { self.poison("write", &error) });
        }
        let started = Instant::now();
        if let Err(error) = active.file.sync_data() {
            return Err(self.poison("sync", &error));
        }
        active.offset += self.buffer.len() as u64;
        if self.buffer.capacity() > BUFFER_KEEP_BYTES_MAX {
            self.buffer = Vec::new();
        }
        Ok(started.elapsed().as_secs_f64())
    }

    /// A write found no space: the segment is cut to its last durable frame, and the next frame begins a new one.
    fn unwrite(&mut self, error: io::Error) -> AppendError {
        if let Err(error) = newest::forget(&self.disk, &self.dir) {
            return self.poison("removal", &error);
        }
        let active = self.active.as_mut().expect("it was just written to");
        if let Err(error) = active.file.set_bytes(active.offset).and_then(|()| active.file.sync_data()) {
            return self.poison("cut", &error);
        }
        active.bytes = active.offset;
        AppendError::StorageFull { file: active.path.clone(), bytes: self.buffer.len() as u64, source: error }
    }

    fn poison(&mut self, action: &str, error: &io::Error) -> AppendError {
        let file = self.active.as_ref().map_or(&self.dir, |active| &active.path);
        let reason = format!("a {action} of {} failed: {error}", file.display());
        self.poisoned = Some(reason.clone());
        AppendError::Poisoned { reason }
    }

    /// Begins a segment with room for a frame of `bytes`.
    pub(crate) fn roll(&mut self, bytes: u64) -> Result<(), AppendError> {
        let needed = SEGMENT_HEADER_BYTES + bytes + frame_bytes(0);
        let (wal_id, segment_id) = (self.wal_id, Uuid::now_v7());
        let header = SegmentHeader { version: VERSION, wal_id, segment_id, first_position: self.next_position };
        let segment_bytes = self.options.segment_bytes.max(needed);
        let new = match new_segment(&self.disk, &self.dir, header, segment_bytes) {
            Ok(new) => new,
            Err(error) if is_full(&error) => {
                let file = self.dir.join(name_of(self.next_position));
                unstage(&self.disk, &self.dir, self.next_position);
                return Err(AppendError::StorageFull { file, bytes: segment_bytes, source: error });
            }
            Err(error) => return Err(self.poison("creation", &error)),
        };
        let before = self.active.replace(new);
        // A segment without a frame had the same name and is replaced.
        if let Some(before) = before.filter(|b| b.header.first_position < self.next_position) {
            let (first, last) = (before.header.first_position, self.next_position - 1);
            let (path, end, bytes) = (before.path, before.offset, before.bytes);
            self.closed.push(Closed { path, first, last, end, bytes, is_removed: false });
        }
        Ok(())
    }
}

/// Makes a segment: space taken, header written, synced, then named, and the name synced, and then known as the newest one.
pub(crate) fn new_segment<D: Disk>(
    disk: &D,
    dir: &Path,
    header: SegmentHeader,
    bytes: u64,
) -> io::Result<Active<D::File>> {
    let path = dir.join(name_of(header.first_position));
    let bytes = bytes.max(SEGMENT_HEADER_BYTES + frame_bytes(0));
    newest::stage(disk, dir, &Newest::of(&header, bytes))?;
    let file = disk.create(&staged(&path), bytes)?;
    file.write_at(&header.encode(), 0)?;
    file.sync_data()?;
    disk.rename(&staged(&path), &path)?;
    // A segment that has its name cannot be done without: whatever the system says, it is not that there is no room for one.
    let named = disk.sync_dir(dir).and_then(|()| newest::publish(disk, dir));
    named.map_err(|error| io::Error::other(format!("the name of the segment: {error}")))?;
    Ok(Active { file, path, header, offset: SEGMENT_HEADER_BYTES, bytes })
}

/// Removes what was begun of a segment for which there was no room, which is for others.
pub(crate) fn unstage<D: Disk>(disk: &D, dir: &Path, first_position: u64) {
    drop(disk.remove(&staged(&dir.join(name_of(first_position)))));
    newest::unstage(disk, dir);
}

/// The segments among the files of a folder, by their first position.
pub(crate) fn segments_of(dir: &Path, names: &[String]) -> Vec<(u64, PathBuf)> {
    let mut segments: Vec<_> = names.iter().filter_map(|n| Some((position_of(n)?, dir.join(n)))).collect();
    segments.sort();
    segments
}

pub(crate) fn take_lock<D: Disk>(disk: &D, dir: &Path) -> Result<D::File, OpenError> {
    let path = dir.join(LOCK);
    disk.lock(&path).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => {
            let mut text = [0u8; 16];
            let read = disk.open(&path).and_then(|f| f.read_at(&mut text, 0)).unwrap_or(0);
            let pid = std::str::from_utf8(&text[..read]).ok().and_then(|t| t.trim().parse().ok());
            OpenError::InUse { dir: dir.to_owned(), pid }
        }
        _ => OpenError::Io { action: "lock", path: path.clone(), source },
    })
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::IsADirectory => OpenError::NotAFile { path },
        _ => OpenError::Io { action, path, source },
    }
}

/// As many as the largest position has.
const POSITION_DIGITS: usize = 20;

pub(crate) fn name_of(first_position: u64) -> String {
    format!("{first_position:0POSITION_DIGITS$}.wal")
}

fn position_of(name: &str) -> Option<u64> {
    let position = name.strip_suffix(".wal").filter(|position| position.len() == POSITION_DIGITS)?;
    position.parse().ok()
}

pub(crate) fn staged(path: &Path) -> PathBuf {
    path.with_extension("wal.new")
}
