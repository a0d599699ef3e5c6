//! Making a damaged wal one that opens: every group that can be read stays at its positions, what was lost is told in the wal itself, and the
//! damaged files are kept whole, aside.
//!
//! Each step leaves a wal that opens or one that can be repaired again: first the segment is written anew beside its place, then the damaged one
//! is copied aside, then the new one takes its place.

use crate::check::Found;
use crate::disk::{Disk, DiskFile};
use crate::error::OpenError;
use crate::format::{FrameHeader, Kind, SegmentHeader, VERSION, VERSION_WITH_LOST};
use crate::log::{io_error, name_of, staged, take_lock};
use crate::look::{FrameLook, Known, Look, Segment};
use crate::newest;
use crate::scan::{Scan, read_around};
use crate::survey::survey;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// More positions are not lost by damage: somebody made them up.
const LOST_MAX: u64 = 1 << 40;
const COPY_BYTES: usize = 1 << 20;

/// What a repair did.
#[derive(Clone, Debug)]
pub struct Repaired {
    /// What was there before.
    pub before: Look,
    /// The files that were damaged, each with where it is kept.
    pub moved: Vec<(PathBuf, PathBuf)>,
    /// Whether anything was damaged; it is not any more when the repair has ended.
    pub is_mended: bool,
}

/// Repairs the wal in `dir`, which nobody may have open; what was damaged is kept in the folder `aside`, made when it is needed. What was found
/// is told to `begin` when it can be repaired, before anything is changed: killed on the way, the next one finds less.
///
/// # Errors
/// [`OpenError`]: the wal is in use, a file cannot be read or written, or nothing tells the wal's identity. It can be tried again. Else the error
/// of `begin`, with nothing changed.
pub fn repair<D: Disk, E: From<OpenError>>(
    dir: &Path,
    disk: &D,
    aside: &Path,
    known: Known,
    begin: impl FnOnce(&Repaired) -> Result<(), E>,
) -> Result<Repaired, E> {
    let _lock = take_lock(disk, dir)?;
    let before = survey(dir, disk, &known, &|_, _| Ok(()))?;
    let is_mended = before.is_damaged();
    let mut repaired = Repaired { before, moved: Vec::new(), is_mended };
    let plan = plan(&repaired.before, &known)?;
    begin(&repaired)?;
    let mut repair = Repair { disk, dir, aside, moved: Vec::new() };
    repair.all(&repaired.before, plan)?;
    repaired.moved = repair.moved;
    Ok(repaired)
}

/// What becomes of the segments, and the identity of the wal afterwards; none where no segment is damaged.
type Plan<'a> = Option<(Uuid, Vec<(&'a Segment, Option<New<'a>>)>)>;

/// Whether it can be repaired, and how.
fn plan<'a>(before: &'a Look, known: &Known) -> Result<Plan<'a>, OpenError> {
    let Some(first) = before.segments.iter().find(|segment| !segment.damage.is_empty()) else { return Ok(None) };
    let wal_id = identity(before, known, &first.path)?;
    if let Some((lost, _)) = before.lost().find(|(first, last)| last - first >= LOST_MAX) {
        let (file, what) = (first.path.clone(), format!("no wal can have lost all positions from {lost} on"));
        return Err(OpenError::Corrupt { file, offset: 0, what, saved: None });
    }
    Ok(Some((wal_id, anew(before)?)))
}

/// The identity of the wal afterwards.
fn identity(before: &Look, known: &Known, file: &Path) -> Result<Uuid, OpenError> {
    let corrupt = |what| OpenError::Corrupt { file: file.to_owned(), offset: 0, what, saved: Some(before.saved()) };
    let is_unused = before.segments.iter().all(|segment| segment.frames.is_empty() && segment.lost.is_empty());
    let (here, there) = (before.wal_id, known.wal_id);
    match (here, there) {
        // A new wal was begun in the place of the one that is known, and has nothing.
        (_, Some(there)) if before.is_behind && is_unused => Ok(there),
        (Some(here), Some(there)) if before.is_behind && here != there => Err(corrupt(format!(
            "it is of the wal {here}, and the events of which is known are of the wal {there}: bring back that one"
        ))),
        _ => here.or(there).ok_or_else(|| corrupt("no segment tells the identity of the wal any more".to_owned())),
    }
}

struct Repair<'a, D: Disk> {
    disk: &'a D,
    dir: &'a Path,
    aside: &'a Path,
    moved: Vec<(PathBuf, PathBuf)>,
}

/// What a segment has afterwards, in order.
enum Piece<'a> {
    Group(&'a FrameLook),
    Lost(u64, u64),
}

impl Piece<'_> {
    fn first(&self) -> u64 {
        match self {
            Self::Group(frame) => frame.first_position,
            Self::Lost(first, _) => *first,
        }
    }
}

/// What is written in the place of a segment.
struct New<'a> {
    first_position: u64,
    pieces: Vec<Piece<'a>>,
}

impl New<'_> {
    fn of(segment: &Segment) -> New<'_> {
        let known = segment.lost.iter().copied();
        let lost = segment.damage.iter().filter_map(|damage| damage.lost).chain(known);
        let mut pieces: Vec<Piece<'_>> = segment.frames.iter().map(Piece::Group).collect();
        pieces.extend(lost.map(|(first, last)| Piece::Lost(first, last)));
        pieces.sort_by_key(Piece::first);
        New { first_position: pieces.first().map_or(segment.next, Piece::first), pieces }
    }
}

/// Which segments are written anew, in order, each in a place that none of the others has then.
fn anew(before: &Look) -> Result<Vec<(&Segment, Option<New<'_>>)>, OpenError> {
    let last = before.segments.len() - 1;
    // An empty one gives its place to what follows.
    let is_empty = |segment: &Segment| segment.frames.is_empty() && segment.lost.is_empty();
    let stays = |n: usize, segment: &Segment| segment.damage.is_empty() && (n == last || !is_empty(segment));
    let mut anew = Vec::new();
    for (n, segment) in before.segments.iter().enumerate().filter(|(n, segment)| !stays(*n, segment)) {
        // One that stays empty goes, but not at the end: there it says where the next position is.
        let new = Some(New::of(segment)).filter(|new| n == last || !new.pieces.is_empty());
        anew.push((segment, new));
        let Some((_, Some(new))) = anew.last() else { continue };
        let place = before.dir.join(name_of(new.first_position));
        // Those before it end before its positions.
        if before.segments[n + 1..].iter().any(|later| later.is_there && later.path == place) {
            let what = format!("this one and {} begin at the same position", segment.path.display());
            return Err(OpenError::Corrupt { file: place, offset: 0, what, saved: None });
        }
    }
    Ok(anew)
}

impl<D: Disk> Repair<'_, D> {
    fn all(&mut self, before: &Look, plan: Plan<'_>) -> Result<(), OpenError> {
        let Self { disk, dir, .. } = *self;
        if let Some((wal_id, segments)) = plan {
            for (segment, new) in segments {
                self.segment(segment, new.as_ref(), wal_id)?;
            }
        }
        for keys in before.key_files.iter().filter(|keys| keys.damage.is_some()) {
            self.keep(&keys.path)?;
            disk.remove(&keys.path).and_then(|()| disk.sync_dir(dir)).map_err(io_error("remove", &keys.path))?;
        }
        if let Some((path, _)) = &before.bad_newest {
            self.keep(path)?;
        }
        if before.is_damaged() {
            // It is of a segment that was written anew; the next start makes another one.
            newest::forget(disk, dir).map_err(io_error("remove", &newest::path(dir)))?;
        }
        let names = disk.list(dir).map_err(io_error("list", dir))?;
        Found::check(disk, dir, &names, |_| {})?;
        Ok(())
    }

    /// Writes a segment anew.
    fn segment(&mut self, segment: &Segment, new: Option<&New<'_>>, wal_id: Uuid) -> Result<(), OpenError> {
        let new = match new {
            None => None,
            Some(New { first_position, pieces }) => {
                let has_lost = pieces.iter().any(|piece| matches!(piece, Piece::Lost(..)));
                let version = if has_lost { VERSION_WITH_LOST } else { VERSION };
                let first_position = *first_position;
                let header = SegmentHeader { version, wal_id, segment_id: Uuid::now_v7(), first_position };
                Some(self.written(segment, &header, pieces)?)
            }
        };
        if segment.is_there {
            self.keep(&segment.path)?;
        }
        if let Some(new) = &new {
            self.disk.rename(&staged(new), new).map_err(io_error("rename", new))?;
        }
        if segment.is_there && new.as_ref() != Some(&segment.path) {
            self.disk.remove(&segment.path).map_err(io_error("remove", &segment.path))?;
        }
        self.disk.sync_dir(self.dir).map_err(io_error("sync", self.dir))
    }

    /// Writes a segment with these pieces of another one beside its place, synced.
    fn written(&self, from: &Segment, header: &SegmentHeader, pieces: &[Piece<'_>]) -> Result<PathBuf, OpenError> {
        let place = self.dir.join(name_of(header.first_position));
        let new = staged(&place);
        let failed = || io_error("write", &new);
        let old = from.is_there.then(|| self.disk.open_to_read(&from.path)).transpose();
        let old = old.map_err(io_error("open", &from.path))?;
        let scan = old.as_ref().map(|old| Scan::with(old, &from.path, from.seed, *header)).transpose()?;
        let mut scan = scan.map(Scan::around_what_is_unreadable);
        let file = self.disk.create(&new, 0).map_err(failed())?;
        let mut bytes = header.encode();
        let mut offset = 0;
        let mut write = |bytes: &[u8]| {
            let at = offset;
            offset += bytes.len() as u64;
            file.write_at(bytes, at).map_err(failed())
        };
        write(&bytes)?;
        for piece in pieces {
            match *piece {
                Piece::Group(frame) => {
                    let scan = scan.as_mut().expect("a group lies in a file");
                    let found = scan.frame_at(frame.offset)?;
                    let found = found.ok_or_else(|| scan.corrupt(frame.offset, "it changed meanwhile".to_owned()))?;
                    found.encode(header.seed(), scan.payload(&found), &mut bytes);
                    write(&bytes)?;
                }
                Piece::Lost(first, last) => {
                    let mut first_position = first;
                    while first_position <= last {
                        let event_count =
                            u32::try_from(last.saturating_sub(first_position).saturating_add(1)).unwrap_or(u32::MAX);
                        let lost = FrameHeader { kind: Kind::Lost, first_position, event_count, payload_bytes: 0 };
                        lost.encode(header.seed(), &[], &mut bytes);
                        write(&bytes)?;
                        first_position = lost.next_position();
                    }
                }
            }
        }
        file.sync_data().map_err(failed())?;
        Ok(place)
    }

    /// Copies a file aside, durably.
    fn keep(&mut self, path: &Path) -> Result<(), OpenError> {
        let kept = self.aside.join(path.file_name().unwrap_or_default());
        let copy = || -> io::Result<()> {
            self.disk.create_dir(self.aside)?;
            for folder in self.aside.ancestors().skip(1).take(2) {
                self.disk.sync_dir(folder)?;
            }
            let from = self.disk.open_to_read(path)?;
            let to = self.disk.create(&kept, 0)?;
            let mut block = vec![0; COPY_BYTES];
            let mut offset = 0;
            loop {
                // What the disk cannot read is zeros in the copy.
                let read = match from.read_at(&mut block, offset) {
                    Err(_) => read_around(&from, &mut block, offset)?.0,
                    read => read?,
                };
                if read == 0 {
                    break;
                }
                to.write_at(&block[..read], offset)?;
                offset += read as u64;
            }
            to.sync_data()?;
            self.disk.sync_dir(self.aside)
        };
        copy().map_err(io_error("write", &kept))?;
        self.moved.push((path.to_owned(), kept));
        Ok(())
    }
}
