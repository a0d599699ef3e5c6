//! Repairing a wal: segments with flipped bits, zeros and foreign bytes in them, cut or removed, and the file `newest` the same.
//!
//! A look changes nothing. A repair keeps every frame whose bytes are whole, invents none, tells all other positions as lost, keeps what was
//! damaged as it was, and leaves a wal that opens and goes on; one that is refused destroys nothing.

use crate::recovery::{Steps, assert_goes_on, contents, dir, frames_of, is_segment, open, replayed, written};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use testkit::SimDisk;
use wal::{Disk, Known, OpenError, look, repair as repaired};

/// Where the identity of a segment lies, with which the checksums of its frames begin.
const IDENTITY: Range<usize> = 32..48;

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// The input: steps that write a wal and damage it.
pub fn repair(input: &[u8]) {
    let mut steps = Steps(input);
    let disk = SimDisk::new();
    let appended = written(&disk, &mut steps);
    let whole = contents(&disk);
    let files: Vec<PathBuf> = whole.keys().cloned().collect();
    for _ in 0..steps.byte() % 6 {
        let file = &files[steps.below(files.len())];
        if steps.byte() % 8 == 0 {
            drop(disk.remove(file));
        } else if disk.content(file).is_some() {
            disk.damage(file, |bytes| damage(bytes, &mut steps));
        }
    }
    disk.sync_dir(dir()).expect("no fault");
    let before = contents(&disk);
    let known = Known { more_positions_max: 1 + u64::from(steps.byte()), ..Known::default() };
    let looked = look(dir(), &disk, &known, |_, _| Ok(()));
    assert!(contents(&disk) == before, "a look changes nothing");
    let kept = match repaired(dir(), &disk, Path::new("/aside"), known, |_| Ok(())) {
        Ok(kept) => kept,
        Err(OpenError::Corrupt { .. } | OpenError::Version { .. }) => {
            let now = contents(&disk);
            let is_there = |bytes: &Vec<u8>| now.values().any(|now| now == bytes);
            let segments = before.iter().filter(|(path, _)| is_segment(path));
            return assert!(segments.map(|(_, bytes)| bytes).all(is_there), "a refused repair destroys nothing");
        }
        Err(error) => panic!("the disk has no fault: {error}"),
    };
    assert_eq!(kept.is_mended, looked.expect("what is repaired can be looked at").is_damaged());
    for (from, to) in &kept.moved {
        assert!(disk.content(to).as_ref() == Some(&before[from]), "what was damaged is kept as it was");
    }
    let again =
        repaired(dir(), &disk, Path::new("/again"), known, |_| Ok::<_, OpenError>(())).expect("it was repaired before");
    assert!(!again.is_mended, "a second repair finds nothing");
    let (mut wal, opened) = open(&disk).unwrap_or_else(|error| panic!("a repaired wal opens: {error}"));
    let recovered = replayed(&wal);
    assert!(recovered.iter().all(|frame| appended.contains(frame)), "no frame is invented");
    for (frame, (path, range)) in appended.iter().zip(frames_of(&whole)) {
        if is_whole(&whole, &before, &path, range) {
            assert!(recovered.contains(frame), "the frame of position {} was whole, and is lost", frame.0);
        }
    }
    let frames = recovered.iter().map(|(first, count, _)| (*first, first + u64::from(*count) - 1));
    let mut ranges: Vec<_> = frames.chain(wal.lost().iter().copied()).collect();
    ranges.sort_unstable();
    let mut expected = opened.first_position;
    for (first, last) in ranges {
        assert_eq!(first, expected, "each position has its event, or is told as lost");
        expected = last + 1;
    }
    assert_eq!(opened.last_position + 1, expected);
    assert_goes_on(&disk, &mut wal, recovered);
}

/// Whether a frame and what its checksum begins with are as they were written.
fn is_whole(whole: &Files, before: &Files, path: &Path, range: Range<usize>) -> bool {
    let Some(now) = before.get(path) else { return false };
    let is_same = |range: Range<usize>| now.get(range.clone()) == Some(&whole[path][range]);
    is_same(range) && is_same(IDENTITY)
}

/// Flips bits, writes zeros or other bytes, or cuts. Nothing is copied: of two whole frames that tell the same position one has to go.
fn damage(bytes: &mut Vec<u8>, steps: &mut Steps<'_>) {
    if bytes.is_empty() {
        return;
    }
    let used = (bytes.iter().rposition(|b| *b != 0).unwrap_or(0) + 64).min(bytes.len());
    let (what, at) = (steps.byte(), steps.below(used));
    match what % 6 {
        0 => bytes.truncate(at),
        1 => bytes[at..(at + steps.below(4096)).min(used)].fill(0),
        2 => bytes[at..(at + steps.below(64)).min(used)].iter_mut().for_each(|byte| *byte = steps.byte()),
        3 => bytes[..(at % 96)].fill(steps.byte()),
        _ => bytes[at] ^= steps.byte().max(1),
    }
}
