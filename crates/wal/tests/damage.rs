//! What becomes of a wal whose bytes are not what was written: it is detected, looked at and repaired, and no event that can be read is lost.

mod failing_disk;

use failing_disk::{OPTIONS, append, dir, frames, open, segments};
use proptest::prelude::*;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use testkit::{Fault, SimDisk};
use wal::{Damage, End, Known, Look, OpenError, Repaired, SEGMENT_HEADER_BYTES, Wal};

const HEADER: usize = SEGMENT_HEADER_BYTES as usize;

type Frames = Vec<(u64, u32, Vec<u8>)>;

/// A wal of several segments that ended cleanly, and its groups.
fn written() -> (SimDisk, Frames) {
    written_of(9)
}

/// The same with this many groups.
fn written_of(groups: u32) -> (SimDisk, Frames) {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    for n in 1..=groups {
        append(&mut wal, 1 + n % 3, 400 + 100 * n as usize).expect("appended");
    }
    let all = frames(&reopened(&disk, wal));
    (disk, all)
}

/// The same wal after a clean stop, which is stopped once more.
fn reopened(disk: &SimDisk, wal: Wal<SimDisk>) -> Wal<SimDisk> {
    wal.close().expect("closed");
    open(disk).0.close().expect("closed");
    let (wal, _) = open(disk);
    wal
}

fn look(disk: &SimDisk) -> Look {
    wal::look(dir(), disk, &Known::default(), |_, _| Ok(())).expect("looked at")
}

fn repair(disk: &SimDisk) -> Result<Repaired, OpenError> {
    wal::repair(dir(), disk, Path::new("/damaged/wal"), Known::default(), |_| Ok(()))
}

fn contents(disk: &SimDisk) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let paths = disk.paths().into_iter().filter(|path| path.starts_with(dir()) && !path.ends_with("lock"));
    paths.map(|path| (path.clone(), disk.content(&path))).collect()
}

/// Where each group lies: its file, from and to.
fn places(disk: &SimDisk) -> Vec<(PathBuf, usize, usize)> {
    let look = look(disk);
    let of = |s: &wal::Segment| {
        let place = |f: &wal::FrameLook| (s.path.clone(), f.offset as usize, (f.offset + f.bytes) as usize);
        s.frames.iter().map(place).collect::<Vec<_>>()
    };
    look.segments.iter().flat_map(of).collect()
}

fn opens(disk: &SimDisk) -> Result<(Frames, wal::Opened), OpenError> {
    Wal::open(dir(), OPTIONS, disk.clone()).map(|(wal, opened)| (frames(&wal), opened))
}

#[test]
fn every_flipped_bit_of_a_wal_is_detected_and_never_read_back() {
    let (disk, all) = written_of(5);
    drop(opens(&disk).expect("whole"));
    let ended = segments(&disk);
    for path in &ended {
        let whole = disk.content(path).expect("a segment");
        // Each bit of the frames and of what follows them, and some of the header, which is one checksum.
        let bits = (0..8 * HEADER).step_by(61).chain(8 * HEADER..8 * whole.len());
        for bit in bits {
            disk.damage(path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            match Wal::open(dir(), OPTIONS, disk.clone()) {
                Err(OpenError::Corrupt { file, .. }) => assert_eq!(&file, path, "bit {bit}"),
                Err(OpenError::Version { .. }) => panic!("the checksum comes first: bit {bit}"),
                Err(error) => panic!("bit {bit}: {error}"),
                Ok((wal, opened)) => {
                    let torn = opened.torn.as_ref().unwrap_or_else(|| panic!("bit {bit} of {path:?} is told"));
                    let found = frames(&wal);
                    assert!(all.starts_with(&found), "bit {bit}");
                    drop(wal);
                    assert_eq!(&torn.file, path, "only the last one can be torn");
                    drop(wal::Disk::remove(&disk, &torn.moved_to));
                }
            }
            disk.damage(path, |bytes| *bytes = whole.clone());
        }
    }
}

#[test]
fn damage_is_told_with_what_can_be_saved() {
    let (disk, all) = written();
    let (path, from, to) = places(&disk).swap_remove(4);
    disk.damage(&path, |bytes| bytes[from + 40] ^= 4);
    let untouched = contents(&disk);
    let error = opens(&disk).expect_err("damaged");
    let OpenError::Corrupt { file, offset, saved: Some(saved), .. } = &error else { panic!("{error}") };
    let (first, count, _) = &all[4];
    let events = |frames: &[(u64, u32, Vec<u8>)]| frames.iter().map(|f| u64::from(f.1)).sum::<u64>();
    assert_eq!((file, *offset as usize), (&path, from));
    assert_eq!((saved.events_before, saved.events_after), (events(&all[..4]), events(&all[5..])));
    let lost = (*first, first + u64::from(*count) - 1);
    assert_eq!((saved.lost, saved.lost_events_max), (Some(lost), u64::from(*count)));
    let told = error.to_string();
    assert!(told.contains("`catchment inspect wal`") && told.contains("`catchment inspect repair`"), "{told}");
    let (before, after) = (saved.events_before, saved.events_after);
    let numbers = format!(
        "{before} events before it and {after} after it can be read, {count} at most cannot, of positions {} to {}",
        lost.0, lost.1
    );
    assert!(told.contains(&numbers), "{told}");

    let look = look(&disk);
    let readable: u64 = look.segments.iter().map(wal::Segment::events).sum();
    assert_eq!(readable, saved.events_before + saved.events_after);
    let damaged: Vec<&Damage> = look.segments.iter().flat_map(|s| &s.damage).collect();
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    // To the last byte that is not padding.
    let bytes = damaged[0].bytes as usize;
    assert_eq!((damaged[0].offset as usize, bytes.next_multiple_of(8), damaged[0].lost), (from, to - from, Some(lost)));
    assert!(contents(&disk) == untouched, "looking changes nothing");
}

#[test]
fn a_wal_that_is_whole_or_torn_is_not_damaged_and_a_repair_leaves_it() {
    let (disk, _) = written();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 2, 100).expect("appended");
    drop(wal);
    let last = segments(&disk).pop().expect("a segment");
    let end = places(&disk).pop().expect("a group").2;
    disk.damage(&last, |bytes| bytes[end..end + 5].copy_from_slice(b"CWF1\x01"));
    let before = contents(&disk);
    let found = look(&disk);
    assert!(!found.is_damaged());
    assert_eq!(found.segments.last().expect("one").end, End::Torn { offset: end as u64, bytes: 5 });
    let repaired = repair(&disk).expect("nothing to do");
    assert!(repaired.moved.is_empty() && contents(&disk) == before);
}

#[test]
fn a_repaired_wal_has_every_other_group_at_its_positions_and_gives_none_twice() {
    let (disk, all) = written();
    let (path, from, _) = places(&disk).swap_remove(4);
    let whole = disk.content(&path).expect("a segment");
    disk.damage(&path, |bytes| bytes[from + 40] ^= 4);
    let damaged = disk.content(&path).expect("a segment");
    let repaired = repair(&disk).expect("repaired");
    assert_eq!(repaired.moved.len(), 1);
    assert_eq!(disk.content(&repaired.moved[0].1), Some(damaged), "it is kept as it was");
    let mut kept = all.clone();
    let (first, count, _) = kept.remove(4);
    let (mut wal, opened) = open(&disk);
    assert_eq!((frames(&wal), opened.torn), (kept.clone(), None));
    assert_eq!(wal.lost(), [(first, first + u64::from(count) - 1)]);
    let next = all.last().map(|(first, count, _)| first + u64::from(*count)).expect("groups");
    assert_eq!(append(&mut wal, 1, 10).expect("appended"), next);
    drop(wal);
    disk.crash(3);
    assert_eq!(opens(&disk).expect("it opens for good").0.len(), kept.len() + 1);
    // A program of before turns it away instead of taking lost positions for a torn tail.
    let repaired = disk.content(&path).expect("a segment");
    assert_eq!((whole[8], repaired[8]), (1, 2), "the version of the segment");
}

#[test]
fn positions_that_are_lost_at_the_end_are_not_given_again() {
    for whole_segment in [false, true] {
        let (disk, all) = written();
        let (last, given) = (places(&disk).pop().expect("a group"), all.last().expect("a group"));
        let given = given.0 + u64::from(given.1) - 1;
        disk.damage(&last.0, |bytes| {
            let from = if whole_segment { 0 } else { last.1 };
            bytes[from..last.2].fill(0xa5);
        });
        for path in segments(&disk).into_iter().filter(|path| *path > last.0) {
            wal::Disk::remove(&disk, &path).expect("removed");
        }
        repair(&disk).expect("repaired");
        let (mut wal, _) = open(&disk);
        assert!(append(&mut wal, 1, 10).expect("appended") > given);
        drop(wal);
        assert!(all.starts_with(&frames(&open(&disk).0)[..2]));
    }
}

#[test]
fn groups_are_read_behind_a_header_that_is_gone() {
    let (disk, all) = written();
    let path = segments(&disk).swap_remove(1);
    disk.damage(&path, |bytes| bytes[..HEADER].fill(0));
    assert!(matches!(opens(&disk), Err(OpenError::Corrupt { offset: 0, .. })));
    repair(&disk).expect("repaired");
    assert_eq!(opens(&disk).expect("it opens").0, all, "two groups tell what their checksums begin with");
}

/// Further from it than is read at once.
#[test]
fn damage_far_before_the_next_whole_group_is_not_taken_for_a_torn_end() {
    let disk = SimDisk::new();
    let options = wal::Options { segment_bytes: 16 << 20, frame_bytes_max: 4 << 20 };
    let mut wal = Wal::open(dir(), options, disk.clone()).expect("opened").0;
    for bytes in [100, 3 << 20, 100] {
        append(&mut wal, 1, bytes).expect("appended");
    }
    drop(wal);
    let path = segments(&disk).swap_remove(0);
    disk.damage(&path, |bytes| bytes[HEADER + 32 + 104 + 40] ^= 1);
    match Wal::open(dir(), options, disk.clone()).err() {
        Some(OpenError::Corrupt { saved: Some(saved), .. }) => {
            assert_eq!((saved.events_before, saved.events_after), (1, 1))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_header_of_which_one_bit_flipped_costs_no_group_also_where_there_is_one_alone() {
    // Without an end behind it: two frames tell by themselves what their checksums begin with.
    let disk = SimDisk::new();
    append(&mut open(&disk).0, 3, 500).expect("appended");
    let path = segments(&disk).swap_remove(0);
    let all = vec![(1, 3, failing_disk::payload(1, 500))];
    // Of the magic, the version, both ids, the first position, of nothing, and of the checksum.
    for bit in [0, 63, 64, 8 * 16, 8 * 32 + 5, 8 * 48, 8 * 100, 8 * HEADER - 1] {
        let copy = disk.after_kill();
        copy.damage(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        assert!(matches!(opens(&copy), Err(OpenError::Corrupt { .. })), "bit {bit}");
        assert!(repair(&copy).expect("repaired").is_mended, "bit {bit}");
        assert_eq!(opens(&copy).expect("it opens").0, all, "bit {bit}");
    }
}

#[test]
fn a_segment_of_zeros_or_copied_over_by_another_is_mended_by_one_repair() {
    let (disk, all) = written();
    let (paths, whole) = (segments(&disk), look(&disk));
    let (given, last) = (whole.segments.last().expect("one").next - 1, places(&disk).pop().expect("a group").0);
    for (n, path) in paths.iter().enumerate() {
        // None: zeros.
        let others = (0..paths.len()).filter(|other| *other != n).map(Some);
        for other in others.chain([None]) {
            let copy = disk.after_kill();
            let bytes = other.and_then(|other| disk.content(&paths[other]));
            copy.damage(path, |old| match bytes {
                Some(bytes) => *old = bytes,
                None => old.fill(0),
            });
            let repaired = repair(&copy).unwrap_or_else(|error| panic!("{n}, {other:?}: {error}"));
            assert!(repaired.is_mended);
            let (gone, name) = (&whole.segments[n], format!("{n}, {other:?}"));
            let kept: Vec<_> =
                all.iter().filter(|frame| !(gone.first..gone.next).contains(&frame.0)).cloned().collect();
            let (mut wal, _) = open(&copy);
            assert_eq!(frames(&wal), kept, "{name}");
            assert!(*path < last || !wal.lost().is_empty(), "{name}: events may have been in it");
            if gone.next > gone.first {
                let lost = wal.lost()[0];
                assert!(lost.0 == gone.first && lost.1 >= gone.next - 1, "{name}: {lost:?}");
            }
            assert!(append(&mut wal, 1, 10).expect("appended") > given, "{name}");
            drop(wal);
            assert!(!repair(&copy).expect("nothing to do").is_mended, "{name}");
        }
    }
}

#[test]
fn a_missing_segment_and_a_damaged_file_of_keys_are_told_and_mended() {
    let (disk, all) = written();
    let paths = segments(&disk);
    let (mut wal, _) = open(&disk);
    wal.trim_oldest(b"keys".to_vec()).expect("trimmed");
    drop(wal);
    let keys = disk.paths().into_iter().find(|path| path.extension().is_some_and(|e| e == "keys")).expect("keys");
    disk.damage(&keys, |bytes| *bytes.last_mut().expect("bytes") ^= 1);
    let gone = look(&disk).segments[1].clone();
    wal::Disk::remove(&disk, &paths[2]).expect("removed");
    let found = look(&disk);
    let damaged: Vec<&Damage> = found.segments.iter().flat_map(|s| &s.damage).collect();
    assert_eq!(damaged[0].lost, Some((gone.first, gone.next - 1)), "{damaged:?}");
    assert!(found.key_files[0].damage.is_some());
    let repaired = repair(&disk).expect("repaired");
    assert_eq!(repaired.moved.len(), 2);
    let (wal, _) = open(&disk);
    assert!(wal.key_files().expect("read").is_empty());
    let is_there = |f: &&(u64, u32, Vec<u8>)| f.0 >= found.segments[0].first && !(gone.first..gone.next).contains(&f.0);
    assert_eq!(frames(&wal), all.iter().filter(is_there).cloned().collect::<Vec<_>>());
}

#[test]
fn a_repair_that_ends_anywhere_can_be_done_again() {
    for write in 0..40 {
        let (disk, all) = written();
        let (path, from, _) = places(&disk).swap_remove(4);
        disk.damage(&path, |bytes| bytes[from + 40] ^= 4);
        disk.fail_write(write, if write % 2 == 0 { Fault::Broken } else { Fault::Full });
        let first = repair(&disk);
        disk.crash(write);
        let again = repair(&disk);
        assert!(again.is_ok(), "{write}: {:?}", again.err());
        let mut kept = all;
        kept.remove(4);
        assert_eq!(opens(&disk).expect("it opens").0, kept, "{write}, first {:?}", first.is_ok());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Whatever is damaged: after a repair the wal opens, with every group whose bytes are whole, and nothing that was not appended.
    #[test]
    fn a_repair_keeps_every_group_whose_bytes_are_whole(
        damages in prop::collection::vec((0usize..64, 0usize..8192, 0usize..3, 1usize..600), 1..5)
    ) {
        let (disk, all) = written();
        let (paths, places) = (segments(&disk), places(&disk));
        let before: Vec<_> = paths.iter().map(|path| disk.content(path).expect("a segment")).collect();
        for (file, at, kind, length) in damages {
            disk.damage(&paths[file % paths.len()], |bytes| {
                let at = at % bytes.len().max(1);
                let end = (at + length).min(bytes.len());
                match kind {
                    0 => bytes[at..end].iter_mut().take(1).for_each(|b| *b ^= 1 << (length % 8)),
                    1 => bytes[at..end].fill(0),
                    _ => bytes.truncate(bytes.len() - length.min(bytes.len())),
                }
            });
        }
        let whole = |(path, from, to): &(PathBuf, usize, usize)| {
            let n = paths.iter().position(|p| p == path).expect("a segment");
            let now = disk.content(path).expect("a segment");
            (now.get(*from..*to) == before[n].get(*from..*to), now.get(..HEADER) == before[n].get(..HEADER))
        };
        // Behind a header that is gone, two whole groups are needed.
        let readable: Vec<bool> = places.iter().map(|place| {
            let (is_whole, has_header) = whole(place);
            let beside = places.iter().filter(|other| other.0 == place.0 && whole(other).0).count();
            is_whole && (has_header || beside > 1)
        }).collect();
        let last_is_whole = disk.content(paths.last().expect("one")).as_ref() == before.last();
        let known = Known { wal_id: id_of(&before[0]), ..Known::default() };
        wal::repair(dir(), &disk, Path::new("/damaged/wal"), known, |_| Ok::<_, OpenError>(())).expect("repaired");
        let (found, opened) = opens(&disk).expect("it opens");
        prop_assert!(found.iter().all(|frame| all.contains(frame)));
        for (frame, is_readable) in all.iter().zip(readable) {
            prop_assert!(!is_readable || found.contains(frame), "position {} is gone", frame.0);
        }
        prop_assert!(found.windows(2).all(|two| two[0].0 < two[1].0));
        let given = all.last().map(|(first, count, _)| first + u64::from(*count) - 1).expect("groups");
        prop_assert!(opened.last_position <= given + 8192);
        if last_is_whole {
            prop_assert_eq!(opened.last_position, given);
        }
    }
}

/// The identity of the wal, as it was written.
fn id_of(segment: &[u8]) -> Option<uuid::Uuid> {
    uuid::Uuid::from_slice(&segment[16..32]).ok()
}

#[test]
fn what_was_found_is_told_before_anything_is_changed() {
    let (disk, _) = written();
    let (path, from, _) = places(&disk).swap_remove(4);
    disk.damage(&path, |bytes| bytes[from + 40] ^= 4);
    let before = contents(&disk);
    let refused = wal::repair(dir(), &disk, Path::new("/damaged/wal"), Known::default(), |found| {
        assert!(found.is_mended && found.moved.is_empty(), "{found:?}");
        assert!(contents(&disk) == before, "nothing is changed yet");
        Err(OpenError::Io {
            action: "write",
            path: "/damaged/report.json".into(),
            source: ErrorKind::StorageFull.into(),
        })
    });
    assert!(matches!(refused, Err(OpenError::Io { action: "write", .. })), "{refused:?}");
    assert!(contents(&disk) == before, "nothing was changed");
    assert_eq!(repair(&disk).expect("repaired").moved.len(), 1);
}
