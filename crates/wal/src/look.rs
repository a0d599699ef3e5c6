//! Looking at a wal without changing it: what is there, and what is damaged. It works beside the process that has the wal open.

use crate::disk::{Disk, LOCK};
use crate::error::{OpenError, Saved};
use crate::log::io_error;
use crate::survey::survey;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// How often a wal that changes meanwhile is looked at before something is called damaged.
const LOOKS: usize = 3;

/// What others know of a wal whose own files may not tell it any more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// Its identity.
    pub wal_id: Option<Uuid>,
    /// A position that was given, the highest that is known.
    pub position: u64,
    /// How many positions may have been given after it, at most.
    pub more_positions_max: u64,
    /// Up to where it is needed no more, when that is known: what is behind and before its first segment is missing.
    pub sealed: Option<u64>,
}

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
    /// What is wrong with the file that tells which segment was begun last, with its path.
    pub bad_newest: Option<(PathBuf, String)>,
    /// Whether positions were given that are behind its end, as others know.
    pub is_behind: bool,
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
    /// Whether its file is there.
    pub is_there: bool,
    pub(crate) seed: u32,
    pub(crate) id: Uuid,
    /// Where its frames end.
    pub(crate) frames_end: u64,
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
    /// One of which nothing is known but where it begins.
    pub(crate) fn missing(path: PathBuf, first: u64) -> Self {
        Self {
            path,
            first,
            next: first,
            bytes: 0,
            frames: Vec::new(),
            lost: Vec::new(),
            end: End::Open,
            damage: Vec::new(),
            is_there: false,
            seed: 0,
            id: Uuid::nil(),
            frames_end: 0,
        }
    }

    /// Its events that can be read.
    pub fn events(&self) -> u64 {
        self.frames.iter().map(|frame| u64::from(frame.event_count)).sum()
    }
}

impl Look {
    /// Whether something is damaged: an opening would stop, or a payload is not what it has to be.
    pub fn is_damaged(&self) -> bool {
        let of_segment = |s: &Segment| !s.damage.is_empty() || s.frames.iter().any(|frame| frame.flaw.is_some());
        let of_keys = |keys: &KeysLook| keys.damage.is_some();
        self.segments.iter().any(of_segment) || self.key_files.iter().any(of_keys) || self.bad_newest.is_some()
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

/// Looks at the wal in `dir`, of which others knew this before; `check` says what is wrong with a payload of so many events.
///
/// # Errors
/// [`OpenError`]: it cannot be read, or was written by a newer program.
pub fn look<D: Disk>(
    dir: &Path,
    disk: &D,
    known: &Known,
    check: impl Fn(&[u8], u32) -> Result<(), String>,
) -> Result<Look, OpenError> {
    let mut found = look_once(dir, disk, known, &check)?;
    for _ in 1..LOOKS {
        // Who writes meanwhile lets go of segments and begins others: only what is found again is damage.
        if !(found.is_damaged() && found.is_in_use) {
            break;
        }
        let again = look_once(dir, disk, known, &check)?;
        found = Look { is_in_use: found.is_in_use || again.is_in_use, ..again };
    }
    Ok(found)
}

/// What can be saved of a damaged wal that nobody else has open.
pub(crate) fn saved<D: Disk>(disk: &D, dir: &Path) -> Result<Saved, OpenError> {
    Ok(survey(dir, disk, &Known::default(), &|_, _| Ok(()))?.saved())
}

fn look_once<D: Disk>(
    dir: &Path,
    disk: &D,
    known: &Known,
    check: &impl Fn(&[u8], u32) -> Result<(), String>,
) -> Result<Look, OpenError> {
    let is_locked = || disk.is_locked(&dir.join(LOCK)).map_err(io_error("read", &dir.join(LOCK)));
    let before = is_locked()?;
    // Who has it open compared it with the lake, and lets go of segments since what is known was read.
    let known = &Known { sealed: known.sealed.filter(|_| !before), ..*known };
    let mut look = survey(dir, disk, known, check)?;
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
