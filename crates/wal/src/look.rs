//! Looking at a wal without changing it: what is there, and what is damaged. It works beside the process that has the wal open.

use crate::disk::{Disk, DiskFile, LOCK};
use crate::error::{OpenError, Saved};
use crate::format::{
    BadHeader, FrameHeader, Kind, POSITION_MAX, SEGMENT_HEADER_BYTES, SegmentHeader, VERSION, VERSION_WITH_LOST,
    seed_of, uuid_at,
};
use crate::keys;
use crate::log::{io_error, segments_of};
use crate::scan::Scan;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// How often a wal that changes meanwhile is looked at before something is called damaged.
const LOOKS: usize = 3;

/// What lies in a wal's folder.
#[derive(Clone, Debug)]
pub struct Look {
    /// The folder.
    pub dir: PathBuf,
    /// The wal's identity, when a segment tells it.
    pub wal_id: Option<Uuid>,
    /// Whether a process had it open.
    pub is_in_use: bool,
    /// The segments, by their first positions.
    pub segments: Vec<Segment>,
    /// What remains of trimmed segments for finding duplicates.
    pub key_files: Vec<KeysLook>,
    /// Torn tails that openings moved aside, each with its bytes.
    pub torn_files: Vec<(PathBuf, u64)>,
}

/// A segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its file.
    pub path: PathBuf,
    /// Position with which it begins.
    pub first: u64,
    /// Position after its last frame.
    pub next: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Its groups that can be read.
    pub frames: Vec<FrameLook>,
    /// Ranges of positions that it says were lost before.
    pub lost: Vec<(u64, u64)>,
    /// How it ends.
    pub end: End,
    /// What is wrong with it.
    pub damage: Vec<Damage>,
    pub(crate) seed: u32,
}

/// A group in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameLook {
    /// Where it begins in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub bytes: u64,
    /// Position of its first event.
    pub first_position: u64,
    /// Number of events.
    pub event_count: u32,
    /// What the caller found wrong with its payload: the wal does not know what is in it.
    pub flaw: Option<String>,
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By a clean stop.
    Clean,
    /// Behind its last frame nothing is written, or somebody writes just now.
    Open,
    /// With a frame that was not written to its end and never answered: the next start cuts it off.
    Torn {
        /// Where it begins.
        offset: u64,
        /// Its bytes.
        bytes: u64,
    },
    /// With what is damaged.
    Damaged,
}

/// Bytes that are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where they begin in the file.
    pub offset: u64,
    /// How many there are.
    pub bytes: u64,
    /// What is wrong.
    pub what: String,
    /// The positions that were there, first and last; none when no event is missing.
    pub lost: Option<(u64, u64)>,
}

/// A file of keys.
#[derive(Clone, Debug)]
pub struct KeysLook {
    /// The file.
    pub path: PathBuf,
    /// Its first position.
    pub first: u64,
    /// Its last position.
    pub last: u64,
    /// Its bytes.
    pub bytes: u64,
    /// What is wrong with it.
    pub damage: Option<String>,
}

impl Segment {
    /// Its events that can be read.
    pub fn events(&self) -> u64 {
        self.frames.iter().map(|frame| u64::from(frame.event_count)).sum()
    }
}

impl Look {
    /// Whether something is damaged: an opening would stop, or a payload is not what it has to be.
    pub fn is_damaged(&self) -> bool {
        let of_segment = |s: &Segment| !s.damage.is_empty() || s.frames.iter().any(|frame| frame.flaw.is_some());
        self.segments.iter().any(of_segment) || self.key_files.iter().any(|keys| keys.damage.is_some())
    }

    /// Ranges of positions of which no event can be read because something is damaged.
    pub fn lost(&self) -> impl Iterator<Item = (u64, u64)> {
        self.segments.iter().flat_map(|segment| segment.damage.iter().filter_map(|damage| damage.lost))
    }

    /// What can be saved.
    pub fn saved(&self) -> Saved {
        let mut saved = Saved::default();
        let mut is_before = true;
        for segment in &self.segments {
            let first_damage = segment.damage.first().map(|damage| damage.offset);
            for frame in &segment.frames {
                let before = is_before && first_damage.is_none_or(|offset| frame.offset < offset);
                let side = if before { &mut saved.events_before } else { &mut saved.events_after };
                *side += u64::from(frame.event_count);
            }
            is_before &= first_damage.is_none();
        }
        for (first, last) in self.lost() {
            saved.lost_events_max = saved.lost_events_max.saturating_add(last.saturating_sub(first).saturating_add(1));
            saved.lost = Some(saved.lost.map_or((first, last), |(a, b)| (a.min(first), b.max(last))));
        }
        saved
    }
}

/// Looks at the wal in `dir`; `check` says what is wrong with a payload of so many events.
///
/// # Errors
/// [`OpenError`]: it cannot be read, or was written by a newer program.
pub fn look<D: Disk>(
    dir: &Path,
    disk: &D,
    check: impl Fn(&[u8], u32) -> Result<(), String>,
) -> Result<Look, OpenError> {
    let mut found = look_once(dir, disk, &check)?;
    for _ in 1..LOOKS {
        // Who writes meanwhile lets go of segments and begins others: only what is found again is damage.
        if !(found.is_damaged() && found.is_in_use) {
            break;
        }
        let again = look_once(dir, disk, &check)?;
        found = Look { is_in_use: found.is_in_use || again.is_in_use, ..again };
    }
    Ok(found)
}

/// What can be saved of a damaged wal that nobody else has open.
pub(crate) fn saved<D: Disk>(disk: &D, dir: &Path) -> Result<Saved, OpenError> {
    Ok(survey(dir, disk, 0, &|_, _| Ok(()))?.saved())
}

fn look_once<D: Disk>(
    dir: &Path,
    disk: &D,
    check: &impl Fn(&[u8], u32) -> Result<(), String>,
) -> Result<Look, OpenError> {
    let is_locked = || disk.is_locked(&dir.join(LOCK)).map_err(io_error("read", &dir.join(LOCK)));
    let before = is_locked()?;
    let mut look = survey(dir, disk, 0, check)?;
    look.is_in_use = before || is_locked()?;
    if look.is_in_use
        && let Some(last) = look.segments.last_mut()
        && matches!(last.end, End::Torn { .. })
    {
        // Just being written.
        last.end = End::Open;
    }
    Ok(look)
}

/// All that is there. Positions up to `known` were given, whatever the wal says.
pub(crate) fn survey<D: Disk>(
    dir: &Path,
    disk: &D,
    known: u64,
    check: &impl Fn(&[u8], u32) -> Result<(), String>,
) -> Result<Look, OpenError> {
    let names = disk.list(dir).map_err(io_error("list", dir))?;
    let named = segments_of(dir, &names);
    let mut survey = Survey { segments: Vec::new(), wal_id: None, next: None, pending: None };
    for (n, (first, path)) in named.iter().enumerate() {
        let position = if n + 1 == named.len() { Position::Last } else { Position::Earlier };
        match disk.open_to_read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => survey.segment(&opened.map_err(io_error("open", path))?, path, (*first, position), check)?,
        }
    }
    survey.end(known);
    let mut look = Look {
        dir: dir.to_owned(),
        wal_id: survey.wal_id,
        is_in_use: false,
        segments: survey.segments,
        key_files: Vec::new(),
        torn_files: Vec::new(),
    };
    for name in &names {
        let path = dir.join(name);
        if let Some(range) = keys::range(name) {
            look.key_files.extend(keys_look(disk, path, range)?);
        } else if name.ends_with(".torn") {
            let bytes = disk.open_to_read(&path).and_then(|file| file.bytes());
            look.torn_files.extend(bytes.ok().map(|bytes| (path, bytes)));
        }
    }
    look.key_files.sort_by_key(|keys| (keys.first, keys.last));
    Ok(look)
}

fn keys_look<D: Disk>(disk: &D, path: PathBuf, (first, last): (u64, u64)) -> Result<Option<KeysLook>, OpenError> {
    let (bytes, damage) = match keys::read(disk, path.clone()) {
        Ok(keys) if (keys.first, keys.last) != (first, last) => {
            (keys.bytes.len() as u64, Some(format!("it is of positions {} to {}", keys.first, keys.last)))
        }
        Ok(keys) => (keys.bytes.len() as u64, None),
        Err(OpenError::Corrupt { what, .. }) => (0, Some(what)),
        Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(KeysLook { path, first, last, bytes, damage }))
}

/// Where a segment is among the others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    Earlier,
    Last,
}

/// What was found so far.
struct Survey {
    segments: Vec<Segment>,
    wal_id: Option<Uuid>,
    /// The position after what was read.
    next: Option<u64>,
    /// The damage, by segment and place there, behind which the next frame tells what is lost.
    pending: Option<(usize, usize)>,
}

impl Survey {
    fn segment<F: DiskFile>(
        &mut self,
        file: &F,
        path: &Path,
        (named, place): (u64, Position),
        check: &impl Fn(&[u8], u32) -> Result<(), String>,
    ) -> Result<(), OpenError> {
        let (header, seed, flaw) = header_of(file, path, named)?;
        let bytes = file.bytes().map_err(io_error("read", path))?;
        let (first, wal_id) = (header.first_position, Some(header.wal_id).filter(|id| !id.is_nil()));
        let (path_of, end) = (path.to_owned(), End::Open);
        let (frames, lost, damage) = (Vec::new(), Vec::new(), Vec::new());
        let segment = Segment { path: path_of, first, next: first, bytes, frames, lost, end, damage, seed };
        self.segments.push(segment);
        let is_unread = flaw.is_some();
        if let Some(what) = flaw {
            self.damaged(0, SEGMENT_HEADER_BYTES, what);
        }
        if self.wal_id.is_some() && wal_id.is_some() && self.wal_id != wal_id {
            self.damaged(0, bytes, "the segment belongs to another wal".to_owned());
            self.current().end = End::Damaged;
            return Ok(());
        }
        self.wal_id = self.wal_id.or(wal_id);
        if first != named {
            self.damaged(0, 0, format!("the segment begins at position {first}, and its name says {named}"));
        }
        if let Some(next) = self.next.filter(|next| first < *next) {
            self.damaged(0, 0, format!("the segment begins at position {first}, expected {next}"));
        }
        self.reaches(first, 0);
        let mut scan = Scan::with(file, path, seed, header)?;
        scan.next_position = self.next.unwrap_or(first);
        self.frames(&mut scan, check)?;
        let Some(last) = scan.rest()? else {
            self.current().end = if scan.ended { End::Clean } else { End::Open };
            return Ok(());
        };
        let (offset, rest) = (scan.offset, last + 1 - scan.offset);
        if scan.ended {
            self.damaged(offset, rest, "there are bytes after the end that a clean stop wrote".to_owned());
        } else if place == Position::Earlier || is_unread && self.current().frames.is_empty() {
            self.unread(offset, rest);
        } else {
            self.current().end = End::Torn { offset, bytes: rest };
            return Ok(());
        }
        self.current().end = End::Damaged;
        Ok(())
    }

    /// The frames that can be read, and what lies between them.
    fn frames<F: DiskFile>(
        &mut self,
        scan: &mut Scan<'_, F>,
        check: &impl Fn(&[u8], u32) -> Result<(), String>,
    ) -> Result<(), OpenError> {
        loop {
            let offset = scan.offset;
            let Some(header) = scan.frame_at(offset)? else {
                let Some(after) = scan.valid_frame_after()? else {
                    return Ok(());
                };
                self.unread(offset, after - offset);
                scan.offset = after;
                continue;
            };
            if let Some(what) = scan.flaw(&header) {
                self.damaged(offset, header.frame_bytes(), what);
                scan.offset += header.frame_bytes();
                continue;
            }
            self.reaches(header.first_position, offset);
            scan.take(&header);
            self.note(&header, offset, |count| check(scan.payload(&header), count).err());
            (self.next, self.current().next) = (Some(scan.next_position), scan.next_position);
        }
    }

    fn note(&mut self, header: &FrameHeader, offset: u64, flaw: impl FnOnce(u32) -> Option<String>) {
        let FrameHeader { kind, first_position, event_count, .. } = *header;
        let segment = self.current();
        match kind {
            Kind::Group => {
                let (bytes, flaw) = (header.frame_bytes(), flaw(event_count));
                segment.frames.push(FrameLook { offset, bytes, first_position, event_count, flaw });
            }
            Kind::Lost if event_count > 0 => {
                segment.lost.push((first_position, header.next_position().saturating_sub(1)))
            }
            Kind::Lost | Kind::End => {}
        }
    }

    /// What is read next begins at this position: all between is lost.
    fn reaches(&mut self, position: u64, offset: u64) {
        let next = self.next.unwrap_or(position);
        let pending = self.pending.take();
        if position > next {
            let lost = Some((next, position.saturating_sub(1)));
            match pending {
                Some((segment, at)) => self.segments[segment].damage[at].lost = lost,
                None => {
                    let what = format!("positions {next} to {} are missing before it", position.saturating_sub(1));
                    self.current().damage.push(Damage { offset, bytes: 0, what, lost });
                }
            }
        }
        self.next = Some(next.max(position));
        let next = next.max(position);
        self.current().next = next;
    }

    /// Bytes in which no frame is.
    fn unread(&mut self, offset: u64, bytes: u64) {
        self.damaged(offset, bytes, "no frame can be read here".to_owned());
        self.pending = Some((self.segments.len() - 1, self.current().damage.len() - 1));
    }

    fn damaged(&mut self, offset: u64, bytes: u64, what: String) {
        self.current().damage.push(Damage { offset, bytes, what, lost: None });
    }

    fn current(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("it was pushed before")
    }

    /// Nothing tells how many positions were in what is unread at the end: as many are taken as it has bytes, and events have more.
    fn end(&mut self, known: u64) {
        let Some((segment, at)) = self.pending.take() else {
            return;
        };
        let first = self.next.unwrap_or(1);
        let damage = &mut self.segments[segment].damage[at];
        let last = first.saturating_add(damage.bytes).saturating_sub(1).min(POSITION_MAX);
        damage.lost = Some((first, last.max(known).max(first)));
    }
}

/// The header of a segment and the seed of its checksums, and what is wrong with it. A header that is lost is made up for by what the name
/// and the frames tell.
fn header_of<F: DiskFile>(
    file: &F,
    path: &Path,
    named: u64,
) -> Result<(SegmentHeader, u32, Option<String>), OpenError> {
    let mut bytes = vec![0u8; SEGMENT_HEADER_BYTES as usize];
    let read = file.read_at(&mut bytes, 0).map_err(io_error("read", path))?;
    let what = match SegmentHeader::decode(&bytes[..read]) {
        Ok(header) if (1..=POSITION_MAX + 1).contains(&header.first_position) => {
            return Ok((header, header.seed(), None));
        }
        Ok(header) => format!("the segment begins at position {}, which no event can have", header.first_position),
        Err(BadHeader::Version(found)) => {
            return Err(OpenError::Version { file: path.to_owned(), found, known: VERSION_WITH_LOST });
        }
        Err(BadHeader::Damaged(what)) => what.to_owned(),
    };
    if let Some(header) = SegmentHeader::mended(&bytes[..read]) {
        return Ok((header, header.seed(), Some(what)));
    }
    let seed = seed_of(uuid_at(&bytes, 32));
    let lost = SegmentHeader { version: VERSION, wal_id: Uuid::nil(), segment_id: Uuid::nil(), first_position: named };
    let mut scan = Scan::with(file, path, seed, lost)?;
    let seed = match scan.valid_frame_after()? {
        Some(_) => seed,
        None => scan.seed_of_frames()?.unwrap_or(seed),
    };
    Ok((lost, seed, Some(what)))
}
