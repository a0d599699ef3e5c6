//! All that lies in a wal's folder, damaged or not: what can be read, what cannot, and which positions are missing.

use crate::disk::{Disk, DiskFile};
use crate::error::OpenError;
use crate::format::{
    BadHeader, FrameHeader, Kind, POSITION_MAX, SEGMENT_HEADER_BYTES, SegmentHeader, VERSION, VERSION_WITH_LOST,
    seed_of, uuid_at,
};
use crate::keys;
use crate::log::{io_error, name_of, segments_of};
use crate::look::{Damage, End, FrameLook, KeysLook, Known, Look, Segment};
use crate::newest::{self, Last, Missing, Newest};
use crate::scan::{Scan, read_around};
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// All that is there.
pub(crate) fn survey<D: Disk>(
    dir: &Path,
    disk: &D,
    known: &Known,
    check: &impl Fn(&[u8], u32) -> Result<(), String>,
) -> Result<Look, OpenError> {
    // Before the names: what it names is there from then on.
    let (newest, mut bad_newest) = match newest::read(disk, dir) {
        Ok(newest) => (newest, None),
        Err(error) => (None, Some((newest::path(dir), flaw_of(error)?))),
    };
    let names = disk.list(dir).map_err(io_error("list", dir))?;
    let named = segments_of(dir, &names);
    let keys_end = names.iter().filter_map(|name| keys::range(name)).map(|(_, last)| last).max();
    let begin = named.first().map(|(first, _)| *first).or(newest.as_ref().map(|newest| newest.first_position));
    // What of which there are keys was in the lake: it is the lake that is older then.
    let needed = known.sealed.map(|sealed| sealed.max(keys_end.unwrap_or(0)).saturating_add(1));
    let next = needed.filter(|needed| begin.is_some_and(|begin| *needed < begin));
    let firsts = named.iter().map(|(first, _)| *first).collect();
    let mut survey = Survey { segments: Vec::new(), firsts, wal_id: None, next, pending: None };
    for (n, (first, path)) in named.iter().enumerate() {
        let position = if n + 1 == named.len() { Position::Last } else { Position::Earlier };
        match disk.open_to_read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => survey.segment(&opened.map_err(io_error("open", path))?, path, (*first, position), check)?,
        }
    }
    let of_another = |newest: &&Newest| survey.wal_id.is_some_and(|id| id != newest.wal_id);
    match newest.as_ref().filter(of_another) {
        Some(_) => bad_newest = Some((newest::path(dir), "it belongs to another wal".to_owned())),
        None => survey.as_newest(dir, newest.as_ref()),
    }
    survey.as_keys(dir, keys_end);
    survey.end(known);
    let is_behind = survey.as_known(dir, known);
    let mut look = Look {
        dir: dir.to_owned(),
        wal_id: survey.wal_id,
        is_in_use: false,
        segments: survey.segments,
        key_files: Vec::new(),
        torn_files: Vec::new(),
        bad_newest,
        is_behind,
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
        Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => (0, Some(flaw_of(error)?)),
    };
    Ok(Some(KeysLook { path, first, last, bytes, damage }))
}

/// What is wrong with a file that could not be read, unless that is no fault of its own.
fn flaw_of(error: OpenError) -> Result<String, OpenError> {
    match error {
        OpenError::Corrupt { what, .. } => Ok(what),
        OpenError::Io { source, .. } if source.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
            Ok("the disk cannot read it".to_owned())
        }
        error => Err(error),
    }
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
    /// Where the segments begin, as their names say.
    firsts: Vec<u64>,
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
        let id = header.segment_id;
        self.segments.push(Segment { bytes, is_there: true, seed, id, ..Segment::missing(path.to_owned(), first) });
        let is_unread = flaw.is_some();
        if let Some(what) = flaw {
            self.damaged(0, SEGMENT_HEADER_BYTES, what);
        }
        if self.wal_id.is_some() && wal_id.is_some() && self.wal_id != wal_id {
            self.replaced(named, "the segment belongs to another wal".to_owned());
            return Ok(());
        }
        if first != named && self.firsts.contains(&first) {
            self.replaced(
                named,
                format!("the segment is the one that begins at position {first}, copied over this one"),
            );
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
        let mut scan = Scan::with(file, path, seed, header)?.around_what_is_unreadable();
        scan.next_position = self.next.unwrap_or(first);
        self.frames(&mut scan, check)?;
        self.current().frames_end = scan.offset;
        let offset = scan.offset;
        // Also zeros may have been frames when nothing else is left of the segment.
        if wal_id.is_none() && self.current().frames.is_empty() && !scan.ended && self.current().lost.is_empty() {
            self.unread(offset, bytes.saturating_sub(offset), &scan);
            self.current().end = End::Damaged;
            return Ok(());
        }
        let Some(last) = scan.rest()? else {
            self.current().end = if scan.ended { End::Clean } else { End::Open };
            return Ok(());
        };
        let rest = last + 1 - offset;
        if scan.ended {
            self.damaged(offset, rest, "there are bytes after the end that a clean stop wrote".to_owned());
        } else if place == Position::Earlier
            || is_unread && self.current().frames.is_empty()
            || scan.is_unreadable(&(offset..last + 1))
        {
            self.unread(offset, rest, &scan);
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
                self.unread(offset, after - offset, scan);
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
        let next = next.max(position);
        self.next = Some(next);
        self.current().next = next;
    }

    /// In the place of the segment that was begun last lies another one.
    fn replaced(&mut self, named: u64, what: String) {
        let segment = self.current();
        (segment.first, segment.id, segment.end) = (named, Uuid::nil(), End::Damaged);
        let bytes = segment.bytes;
        self.reaches(named, 0);
        self.damaged(0, bytes, what);
        self.pends();
    }

    /// What is read next tells what the damage that was told last has lost.
    fn pends(&mut self) {
        self.pending = Some((self.segments.len() - 1, self.current().damage.len() - 1));
    }

    /// Bytes in which no frame is.
    fn unread<F: DiskFile>(&mut self, offset: u64, bytes: u64, scan: &Scan<'_, F>) {
        let what = match scan.is_unreadable(&(offset..offset + bytes)) {
            true => "the disk cannot read what lies here",
            false => "no frame can be read here",
        };
        self.damaged(offset, bytes, what.to_owned());
        self.pends();
    }

    fn damaged(&mut self, offset: u64, bytes: u64, what: String) {
        self.current().damage.push(Damage { offset, bytes, what, lost: None });
    }

    fn current(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("it was pushed before")
    }

    /// What the segment that was begun last tells of what is missing.
    fn as_newest(&mut self, dir: &Path, newest: Option<&Newest>) {
        let Some(newest) = newest else { return };
        self.wal_id.get_or_insert(newest.wal_id);
        let last = self.segments.last().map(|segment| Last {
            first_position: segment.first,
            segment_id: segment.id,
            bytes: segment.bytes,
            is_ended: segment.end == End::Clean,
        });
        match newest.missing(last.as_ref()) {
            None => {}
            Some(Missing::File) => self.missing(dir, newest.first_position, (newest.bytes, Missing::File.what())),
            Some(missing) => {
                let offset = self.current().frames_end;
                self.damaged(offset, newest.bytes.saturating_sub(offset), missing.what());
                self.pends();
                self.current().end = End::Damaged;
            }
        }
    }

    /// What the files of keys tell: each is of a segment that was let go, behind which there was another one.
    fn as_keys(&mut self, dir: &Path, last: Option<u64>) {
        let Some(last) = last else { return };
        if self.segments.is_empty() || self.next.is_some_and(|next| last >= next) {
            let what = "the segment behind those of which there are keys is missing, and events may have been in it";
            self.missing(dir, last.saturating_add(1), (0, what.to_owned()));
        }
    }

    /// A segment whose file is not there.
    fn missing(&mut self, dir: &Path, first: u64, (bytes, what): (u64, String)) {
        self.segments.push(Segment { end: End::Damaged, ..Segment::missing(dir.join(name_of(first)), first) });
        self.reaches(first, 0);
        self.damaged(0, bytes, what);
        self.pends();
    }

    /// Nothing tells how many positions were in what is unread at the end: as many are taken as it has bytes, and events have more.
    fn end(&mut self, known: &Known) {
        let Some((segment, at)) = self.pending.take() else {
            return;
        };
        let first = self.next.unwrap_or(1);
        let damage = &mut self.segments[segment].damage[at];
        let positions = if damage.bytes == 0 { known.more_positions_max } else { damage.bytes };
        let last = first.saturating_add(positions).saturating_sub(1).min(POSITION_MAX).max(known.position).max(first);
        damage.lost = Some((first, last));
        self.next = Some(last.saturating_add(1));
    }

    /// Whether positions are known to be given behind the end, which are lost then, and those that may have been given after them.
    fn as_known(&mut self, dir: &Path, known: &Known) -> bool {
        let next = self.next.unwrap_or(1);
        if known.position < next.max(1) {
            return false;
        }
        let what = format!(
            "positions up to {} were given, and the wal ends at {}: it is older than the events that have them, or was replaced",
            known.position,
            next - 1
        );
        if self.segments.is_empty() {
            self.segments.push(Segment::missing(dir.join(name_of(next)), next));
        }
        let offset = self.current().frames_end;
        self.damaged(offset, 0, what);
        let last = known.position.saturating_add(known.more_positions_max).min(POSITION_MAX);
        self.current().damage.last_mut().expect("it was pushed").lost = Some((next, last));
        self.current().end = End::Damaged;
        true
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
    let (read, _) = read_around(file, &mut bytes, 0).map_err(io_error("read", path))?;
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
    let mut scan = Scan::with(file, path, seed, lost)?.around_what_is_unreadable();
    let seed = match scan.valid_frame_after()? {
        Some(_) => seed,
        None => scan.seed_of_frames()?.unwrap_or(seed),
    };
    Ok((lost, seed, Some(what)))
}
