//! What becomes of a wal whose files are whole, each by itself, and do not belong together: renamed, copied, of two histories, or made up.

mod failing_disk;

use failing_disk::{OPTIONS, append, dir, frames, open, segments};
use std::path::{Path, PathBuf};
use testkit::SimDisk;
use wal::{Damage, Disk, Known, Look, OpenError, Options, Repaired, SEGMENT_HEADER_BYTES, Wal};

const HEADER: usize = SEGMENT_HEADER_BYTES as usize;
const POSITION_MAX: u64 = i64::MAX as u64;

fn look(disk: &SimDisk) -> Look {
    wal::look(dir(), disk, &Known::default(), |_, _| Ok(())).expect("looked at")
}

fn damages(look: &Look) -> Vec<&Damage> {
    look.segments.iter().flat_map(|segment| &segment.damage).collect()
}

fn repair(disk: &SimDisk) -> Result<Repaired, OpenError> {
    wal::repair(dir(), disk, Path::new("/damaged/wal"), Known::default(), |_| Ok(()))
}

fn refused(disk: &SimDisk) -> OpenError {
    Wal::open(dir(), OPTIONS, disk.clone()).err().expect("refused")
}

fn named(first: u64) -> PathBuf {
    dir().join(format!("{first:020}.wal"))
}

/// Lets a segment begin at another position, as its header says, with a checksum that holds.
fn begin_at(disk: &SimDisk, path: &Path, first: u64) {
    disk.damage(path, |bytes| {
        bytes[48..56].copy_from_slice(&first.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..HEADER - 4]);
        bytes[HEADER - 4..HEADER].copy_from_slice(&crc.to_le_bytes());
    });
}

/// An empty wal whose next position is this one.
fn beginning_at(first: u64) -> SimDisk {
    let disk = SimDisk::new();
    drop(open(&disk));
    disk.remove(&dir().join("newest")).expect("removed");
    begin_at(&disk, &named(1), first);
    disk.rename(&named(1), &named(first)).expect("renamed");
    disk
}

/// Appends groups of ten events to a wal, whose segments are of this size.
fn fill(disk: &SimDisk, segment_bytes: u64, groups: usize) {
    let mut wal = Wal::open(dir(), Options { segment_bytes, ..OPTIONS }, disk.clone()).expect("opened").0;
    for _ in 0..groups {
        append(&mut wal, 10, 1000).expect("appended");
    }
    wal.close().expect("closed");
}

fn copied(disk: &SimDisk) -> SimDisk {
    let copy = SimDisk::new();
    copy.create_dir(dir()).expect("made");
    for path in disk.paths() {
        put(&copy, &path, &disk.content(&path).expect("there"));
    }
    copy
}

fn put(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    disk.create(path, 0).and_then(|file| wal::DiskFile::write_at(&file, bytes, 0)).expect("written");
}

/// A wal with positions 11 to 30 in one segment, between whose files lies one that begins at 21, of another history of the same wal.
fn of_two_histories(groups: usize) -> (SimDisk, Vec<(u64, u32, Vec<u8>)>) {
    let disk = SimDisk::new();
    fill(&disk, 8192, 1);
    let other = copied(&disk);
    fill(&other, 8192, 1);
    fill(&other, 8192, groups);
    fill(&disk, 8192, 2);
    fill(&disk, 8192, 1);
    fill(&disk, 8192, 1);
    let all = frames(&open(&disk).0);
    assert!(all.len() == 5 && disk.content(&named(31)).is_some());
    put(&disk, &named(21), &other.content(&named(21)).expect("a segment of the other history"));
    (disk, all)
}

#[test]
fn a_segment_of_another_history_that_has_nothing_else_is_moved_aside() {
    let (disk, all) = of_two_histories(1);
    assert!(matches!(refused(&disk), OpenError::Corrupt { file, .. } if file == named(21)));
    let found = look(&disk);
    let told: Vec<_> = damages(&found).into_iter().map(|d| (d.offset, d.what.as_str(), d.lost)).collect();
    let (begin, frame) =
        ("the segment begins at position 21, expected 31", "a frame begins at position 21, expected 31");
    assert_eq!(told, [(0, begin, None), (4096, frame, None)]);
    let repaired = repair(&disk).expect("repaired");
    assert_eq!(repaired.moved.iter().map(|(from, _)| from.clone()).collect::<Vec<_>>(), [named(21)]);
    assert!(!segments(&disk).contains(&named(21)));
    assert_eq!(frames(&open(&disk).0), all);
}

#[test]
fn two_segments_that_would_take_one_place_are_refused_and_nothing_is_changed() {
    // Its second group, 31 to 40, goes on where the first segment ends, and begins where another one does.
    let (disk, _) = of_two_histories(2);
    let contents =
        |disk: &SimDisk| disk.paths().iter().map(|path| (path.clone(), disk.content(path))).collect::<Vec<_>>();
    let (before, found) = (contents(&disk), look(&disk));
    let of_21 = found.segments.iter().find(|segment| segment.path == named(21)).expect("there");
    assert_eq!(of_21.frames.iter().map(|frame| frame.first_position).collect::<Vec<_>>(), [31]);
    match repair(&disk) {
        Err(OpenError::Corrupt { file, what, .. }) => {
            assert_eq!(file, named(31));
            assert_eq!(what, format!("this one and {} begin at the same position", named(21).display()));
        }
        other => panic!("{other:?}"),
    }
    assert!(contents(&disk) == before);
}

#[test]
fn a_file_of_keys_of_other_positions_than_its_name_says_is_damaged() {
    let disk = SimDisk::new();
    fill(&disk, 8192, 1);
    fill(&disk, 8192, 1);
    let (mut wal, _) = open(&disk);
    wal.trim_oldest(b"keys".to_vec()).expect("trimmed");
    drop(wal);
    let keys = dir().join(format!("{:020}-{:020}.keys", 1, 10));
    let others = dir().join(format!("{:020}-{:020}.keys", 1, 9));
    disk.rename(&keys, &others).expect("renamed");
    let found = look(&disk);
    assert_eq!(found.key_files[0].damage.as_deref(), Some("it is of positions 1 to 10"));
    assert_eq!(repair(&disk).expect("repaired").moved.len(), 1);
    assert!(!look(&disk).is_damaged() && open(&disk).0.key_files().expect("read").is_empty());
}

/// The power goes after a segment got the name of an empty one, and before `newest` tells of it.
#[test]
fn an_empty_segment_that_was_begun_anew_is_not_a_cut_one() {
    let disk = SimDisk::new();
    drop(Wal::open(dir(), Options { segment_bytes: 32768, ..OPTIONS }, disk.clone()).expect("opened"));
    let newest = dir().join("newest");
    let before = disk.content(&newest).expect("it is there");
    drop(open(&disk));
    disk.damage(&newest, |bytes| *bytes = before);
    assert!(!look(&disk).is_damaged());
    assert_eq!(open(&disk).1.last_position, 0);
}

#[test]
fn a_header_with_a_position_that_no_event_can_have_is_damage_and_the_position_after_the_last_is_none() {
    for (first, is_damaged) in [(0, true), (POSITION_MAX, false), (POSITION_MAX + 1, false), (POSITION_MAX + 2, true)] {
        let disk = beginning_at(first);
        let found = look(&disk);
        assert_eq!(found.is_damaged(), is_damaged, "{first}: {found:?}");
        if is_damaged {
            let what = format!("the segment begins at position {first}, which no event can have");
            assert_eq!(damages(&found)[0].what, what);
            assert!(matches!(refused(&disk), OpenError::Corrupt { what: told, .. } if told == what));
        } else {
            assert_eq!(open(&disk).0.last_position(), first - 1);
        }
    }
}

#[test]
fn positions_are_lost_as_few_as_there_are_also_when_they_are_high() {
    let disk = beginning_at(1 << 41);
    fill(&disk, 8192, 3);
    disk.damage(&named(1 << 41), |bytes| bytes[HEADER + 1032 + 40] ^= 1);
    repair(&disk).expect("repaired");
    assert_eq!(open(&disk).0.lost(), [((1 << 41) + 10, (1 << 41) + 19)]);
}

#[test]
fn more_positions_than_any_wal_can_have_lost_are_refused() {
    let disk = SimDisk::new();
    fill(&disk, 8192, 100);
    let known = |position| Known { position, ..Known::default() };
    let repair =
        |position| wal::repair(dir(), &disk, Path::new("/damaged/wal"), known(position), |_| Ok::<_, OpenError>(()));
    match repair(1001 + (1 << 40)).err() {
        Some(OpenError::Corrupt { what, .. }) => assert!(what.contains("all positions from 1001 on"), "{what}"),
        other => panic!("{other:?}"),
    }
    assert!(repair(1001).expect("one more than it has").is_mended);
    assert_eq!(open(&disk).0.last_position(), 1001);
}

#[test]
fn what_a_repair_wrote_as_lost_stays_so_after_another_one() {
    let disk = SimDisk::new();
    fill(&disk, 65536, 5);
    let path = named(1);
    for lost in [vec![(11, 20)], vec![(11, 20), (31, 40)]] {
        let last = lost.last().expect("one").0;
        let frame =
            look(&disk).segments[0].frames.iter().find(|frame| frame.first_position == last).expect("it").offset;
        disk.damage(&path, |bytes| bytes[frame as usize + 40] ^= 1);
        let repaired = repair(&disk).expect("repaired");
        assert_eq!(repaired.before.lost().collect::<Vec<_>>(), [(last, last + 9)]);
        let (wal, _) = open(&disk);
        assert_eq!(wal.lost(), lost);
        drop(wal);
        assert_eq!(look(&disk).segments[0].lost, lost);
    }
}

#[test]
fn the_only_segment_without_an_event_keeps_its_position_when_it_is_written_anew() {
    let disk = SimDisk::new();
    fill(&disk, 8192, 3);
    let (mut wal, _) = open(&disk);
    wal.trim_oldest(Vec::new()).expect("trimmed");
    drop(wal);
    disk.remove(&dir().join("newest")).expect("removed");
    let path = segments(&disk).remove(0);
    disk.damage(&path, |bytes| bytes[20] ^= 1);
    assert!(repair(&disk).expect("repaired").is_mended);
    assert!(disk.content(&path).is_some());
    assert_eq!(open(&disk).0.last_position(), 30);
}

/// What was begun of a frame and never answered, in a segment without any.
#[test]
fn a_segment_with_nothing_but_a_torn_group_is_not_damaged() {
    let disk = SimDisk::new();
    drop(open(&disk));
    disk.damage(&named(1), |bytes| bytes[HEADER..HEADER + 5].copy_from_slice(b"CWF1\x01"));
    let found = look(&disk);
    assert!(!found.is_damaged(), "{found:?}");
    assert_eq!(found.segments[0].end, wal::End::Torn { offset: HEADER as u64, bytes: 5 });
}
