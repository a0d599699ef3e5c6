//! What becomes of a wal whose end is gone: its last segment removed or cut, all of its segments removed, or older than what others know.

mod failing_disk;

use failing_disk::{OPTIONS, append, dir, frames, open, payload, segments};
use std::path::{Path, PathBuf};
use testkit::{Fault, SimDisk};
use wal::{AppendError, Checked, Disk, End, Frame, Known, OpenError, RealDisk, Repaired, SEGMENT_HEADER_BYTES, Wal};

type Frames = Vec<(u64, u32, Vec<u8>)>;

/// A wal of several segments in two lives, killed in the second, and its groups.
fn written() -> (SimDisk, Frames) {
    let (disk, mut all) = (SimDisk::new(), Frames::new());
    let mut add = |wal: &mut Wal<SimDisk>, events: u32, bytes: usize| {
        let first = append(wal, events, bytes).expect("appended");
        all.push((first, events, payload(first, bytes)));
    };
    let (mut wal, _) = open(&disk);
    for n in 1..=9 {
        add(&mut wal, 1 + n % 3, 400 + 100 * n as usize);
    }
    wal.close().expect("closed");
    let (mut wal, _) = open(&disk);
    add(&mut wal, 3, 700);
    add(&mut wal, 1, 300);
    (disk, all)
}

fn last_position(all: &[(u64, u32, Vec<u8>)]) -> u64 {
    all.last().map(|(first, count, _)| first + u64::from(*count) - 1).expect("groups")
}

fn refused(disk: &SimDisk) -> (PathBuf, u64, String) {
    let before = contents(disk);
    let refused = Wal::open(dir(), OPTIONS, disk.clone()).err();
    assert!(contents(disk) == before, "nothing was changed");
    match refused {
        Some(OpenError::Corrupt { file, offset, what, .. }) => (file, offset, what),
        other => panic!("{other:?}"),
    }
}

fn contents(disk: &SimDisk) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let paths = disk.paths().into_iter().filter(|path| path.starts_with(dir()) && !path.ends_with("lock"));
    paths.map(|path| (path.clone(), disk.content(&path))).collect()
}

fn repair(disk: &SimDisk, known: Known) -> Result<Repaired, OpenError> {
    wal::repair(dir(), disk, Path::new("/damaged/wal"), known, |_| Ok(()))
}

/// After a repair it opens with these groups, gives no position twice, and is not damaged any more.
fn goes_on(disk: &SimDisk, kept: &[(u64, u32, Vec<u8>)], given: u64) {
    let (mut wal, opened) = open(disk);
    assert_eq!((frames(&wal), opened.torn), (kept.to_vec(), None));
    assert!(append(&mut wal, 1, 10).expect("appended") > given);
    drop(wal);
    disk.crash(5);
    let (wal, _) = open(disk);
    assert_eq!(frames(&wal).len(), kept.len() + 1);
    drop(wal);
    let look = wal::look(dir(), disk, &Known::default(), |_, _| Ok(())).expect("looked at");
    assert!(!look.is_damaged(), "{look:?}");
}

#[test]
fn a_removed_newest_segment_stops_the_opening_and_a_repair_goes_on_behind_it() {
    let (disk, all) = written();
    // The one before it was ended by a clean stop, so that nothing else tells of it.
    let newest = segments(&disk).pop().expect("a segment");
    disk.remove(&newest).expect("removed");
    let (file, offset, what) = refused(&disk);
    assert_eq!((file, offset), (newest.clone(), 0), "{what}");
    let look = wal::look(dir(), &disk, &Known::default(), |_, _| Ok(())).expect("looked at");
    let missing = look.segments.last().expect("it is told");
    assert_eq!((&missing.path, missing.is_there, missing.end), (&newest, false, End::Damaged));
    let kept = &all[..all.len() - 2];
    let (first, bytes) = (last_position(kept) + 1, OPTIONS.segment_bytes);
    assert_eq!(missing.damage[0].lost, Some((first, first + bytes - 1)), "an event has more than a byte");
    let repaired = repair(&disk, Known::default()).expect("repaired");
    assert!(repaired.is_mended && repaired.moved.is_empty());
    goes_on(&disk, kept, first + bytes - 1);
}

#[test]
fn whatever_is_cut_from_the_newest_segment_stops_the_opening_and_what_is_left_stays() {
    let bytes = OPTIONS.segment_bytes as usize;
    for length in (0..bytes).step_by(97).chain([bytes - 1, SEGMENT_HEADER_BYTES as usize]) {
        let (disk, all) = written();
        let path = segments(&disk).pop().expect("a segment");
        disk.damage(&path, |bytes| bytes.truncate(length));
        let (file, _, what) = refused(&disk);
        assert_eq!(file, path, "{length}: {what}");
        repair(&disk, Known::default()).expect("repaired");
        let found = frames(&open(&disk).0);
        assert!(all.starts_with(&found) && found.len() + 2 >= all.len(), "{length}");
        goes_on(&disk, &found, last_position(&all));
    }
}

#[test]
fn a_cut_segment_is_told_with_where_its_frames_end() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 3, 100).expect("appended");
    append(&mut wal, 2, 100).expect("appended");
    drop(wal);
    let path = segments(&disk).remove(0);
    let first_end = SEGMENT_HEADER_BYTES + 136;
    for (length, offset, positions) in [(4300, first_end, 3), (4096 + 136, first_end, 3), (8191, first_end + 136, 5)] {
        let copy = disk.after_kill();
        copy.damage(&path, |bytes| bytes.truncate(length));
        let (file, at, what) = refused(&copy);
        assert_eq!((&file, at), (&path, offset), "{what}");
        assert!(what.contains(&format!("the file has {length} bytes, and had 8192")), "{what}");
        let repaired = repair(&copy, Known::default()).expect("repaired");
        let lost = repaired.before.saved().lost.expect("some may be lost");
        assert_eq!(lost, (positions + 1, positions + 8192 - offset));
        let (wal, _) = open(&copy);
        assert_eq!(wal.last_position(), lost.1);
        let kept = copy.content(&repaired.moved[0].1).expect("kept");
        assert_eq!(kept.len(), length, "what was there is kept whole");
    }
}

#[test]
fn an_ended_segment_may_be_cut_behind_its_end() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 3, 100).expect("appended");
    wal.close().expect("closed");
    let path = segments(&disk).remove(0);
    disk.damage(&path, |bytes| bytes.truncate(4096 + 136 + 32));
    assert_eq!(open(&disk).1.last_position, 3);
}

#[test]
fn a_wal_without_segments_is_none_that_begins_anew() {
    let (disk, all) = written();
    let (mut wal, _) = open(&disk);
    let id = wal.wal_id();
    wal.trim_oldest(b"keys".to_vec()).expect("trimmed");
    drop(wal);
    let keys = disk.paths().into_iter().find(|path| path.extension().is_some_and(|e| e == "keys")).expect("keys");
    for path in segments(&disk) {
        disk.remove(&path).expect("removed");
    }
    let (file, _, what) = refused(&disk);
    assert!(file > dir().join("0") && what.contains("missing"), "{}: {what}", file.display());
    // Also when only the keys are left, as of a version before.
    let (without, disk) = (disk.after_kill(), disk.after_kill());
    without.remove(&dir().join("newest")).expect("removed");
    let (file, _, what) = refused(&without);
    assert_eq!(file, keys, "{what}");
    let nobody_knows = repair(&without, Known::default()).expect_err("nothing tells its identity");
    assert!(nobody_knows.to_string().contains("identity"), "{nobody_knows}");

    let given = last_position(&all);
    for (disk, known) in [
        (disk, Known::default()),
        (without, Known { wal_id: Some(id), position: given, more_positions_max: 1000, sealed: None }),
    ] {
        repair(&disk, known).expect("repaired");
        assert_eq!(Checked::of(dir(), disk.clone(), |_| {}).expect("whole").wal_id(), id);
        goes_on(&disk, &[], given);
    }
}

#[test]
fn a_wal_that_is_behind_what_others_know_goes_on_behind_it_after_a_repair() {
    let (disk, all) = written();
    let id = open(&disk).0.wal_id();
    let given = last_position(&all);
    let known = Known { wal_id: Some(id), position: given + 20, more_positions_max: 100, sealed: None };
    let look = wal::look(dir(), &disk, &known, |_, _| Ok(())).expect("looked at");
    assert!(look.is_behind && look.is_damaged());
    assert_eq!(look.saved().lost, Some((given + 1, given + 120)));
    let repaired = repair(&disk, known).expect("repaired");
    assert!(repaired.is_mended);
    let look = wal::look(dir(), &disk, &known, |_, _| Ok(())).expect("looked at");
    assert!(!look.is_behind && !look.is_damaged(), "{look:?}");
    goes_on(&disk, &all, given + 120);

    // One that was begun in its place takes its identity, when it has nothing; when it has events, it is another one.
    let fresh = SimDisk::new();
    drop(open(&fresh));
    repair(&fresh, known).expect("repaired");
    assert_eq!(open(&fresh).0.wal_id(), id);
    goes_on(&fresh, &[], given + 120);
    let other = SimDisk::new();
    append(&mut open(&other).0, 1, 100).expect("appended");
    let refused = repair(&other, known).expect_err("it is of another wal");
    assert!(refused.to_string().contains(&id.to_string()), "{refused}");
}

#[test]
fn a_wal_of_a_version_before_opens_without_knowing_its_newest_segment() {
    let (disk, all) = written();
    disk.remove(&dir().join("newest")).expect("removed");
    goes_on(&disk, &all, last_position(&all));
}

#[test]
fn a_damaged_file_that_names_the_newest_segment_is_told_and_moved_aside() {
    let (disk, all) = written();
    let path = dir().join("newest");
    let whole = disk.content(&path).expect("it is there");
    for bit in 0..8 * whole.len() {
        disk.damage(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        assert_eq!(refused(&disk).0, path, "bit {bit}");
        disk.damage(&path, |bytes| bytes.clone_from(&whole));
    }
    disk.damage(&path, |bytes| bytes.push(0));
    assert_eq!(refused(&disk).0, path, "one byte more");
    disk.damage(&path, |bytes| bytes.truncate(40));
    assert_eq!(refused(&disk).0, path);
    let repaired = repair(&disk, Known::default()).expect("repaired");
    assert_eq!(repaired.moved.len(), 1);
    goes_on(&disk, &all, last_position(&all));
}

#[test]
fn a_power_cut_at_any_operation_is_never_taken_for_a_missing_end() {
    /// Groups that were appended, until the power goes.
    fn live(disk: &SimDisk) -> u64 {
        let mut done = 0;
        for life in 0..3 {
            let Ok((mut wal, opened)) = Wal::open(dir(), OPTIONS, disk.clone()) else { return done };
            done = done.max(opened.last_position);
            for n in 0..4 {
                if n == 2 && life == 1 {
                    disk.fail_write(0, Fault::Full);
                }
                match append(&mut wal, 1, 1500) {
                    Ok(position) => done = position,
                    Err(AppendError::StorageFull { .. }) => {}
                    Err(_) => return done,
                }
            }
            if life == 0 && wal.close().is_err() {
                return done;
            }
        }
        done
    }
    let disk = SimDisk::new();
    live(&disk);
    for operation in 0..disk.operations() {
        for seed in 0..4 {
            let disk = SimDisk::new();
            disk.cut_power_at(operation);
            let done = live(&disk);
            let left = disk.after_power_cut(seed);
            match Wal::open(dir(), OPTIONS, left) {
                Ok((wal, opened)) => assert!(opened.last_position >= done && frames(&wal).len() as u64 >= done),
                Err(error) => panic!("operation {operation}, seed {seed}: {error}"),
            }
        }
    }
}

#[test]
fn a_second_torn_tail_of_the_same_place_is_kept_beside_the_first() {
    let disk = SimDisk::new();
    let torn = [b"CWF1 first", b"CWF1 other"].map(|tail| {
        drop(open(&disk));
        let path = segments(&disk).remove(0);
        let at = SEGMENT_HEADER_BYTES as usize;
        disk.damage(&path, |bytes| bytes[at..at + 10].copy_from_slice(tail));
        open(&disk).1.torn.expect("it is torn").moved_to
    });
    assert_eq!(torn.map(|path| disk.content(&path)), [b"CWF1 first", b"CWF1 other"].map(|tail| Some(tail.to_vec())));
}

/// What a lake knows that has everything up to a position of this wal.
fn sealed(position: u64) -> Known {
    Known { sealed: Some(position), position, more_positions_max: 1000, wal_id: None }
}

#[test]
fn what_somebody_who_has_it_open_let_go_of_is_not_missed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut wal, _) = Wal::open(folder.path(), OPTIONS, RealDisk).expect("opened");
    for first_position in [1, 4] {
        wal.append(Frame { first_position, event_count: 3, payload: b"three" }).expect("appended");
        wal.begin_segment().expect("a new segment");
    }
    wal.trim_oldest(Vec::new()).expect("trimmed");
    // Read before the lake had them.
    let look = || wal::look(folder.path(), &RealDisk, &sealed(1), |_, _| Ok(())).expect("looked at");
    let found = look();
    assert_eq!((found.is_in_use, found.is_damaged()), (true, false));
    drop(wal);
    let found = look();
    assert_eq!((found.is_in_use, found.is_damaged()), (false, true), "2 and 3 are missing");
}

#[test]
fn a_removed_oldest_segment_is_told_by_what_the_lake_has_and_its_positions_are_told_as_lost() {
    let (disk, all) = written();
    let paths = segments(&disk);
    let second = wal::look(dir(), &disk, &sealed(0), |_, _| Ok(())).expect("looked at").segments[1].first;
    disk.remove(&paths[0]).expect("removed");
    let enough = wal::look(dir(), &disk, &sealed(second - 1), |_, _| Ok(())).expect("looked at");
    assert!(!enough.is_damaged(), "the lake has what was in it: {enough:?}");
    for has in [0, 1] {
        let disk = disk.after_kill();
        let look = wal::look(dir(), &disk, &sealed(has), |_, _| Ok(())).expect("looked at");
        assert_eq!(look.lost().collect::<Vec<_>>(), [(has + 1, second - 1)]);
        let repaired = repair(&disk, sealed(has)).expect("repaired");
        assert_eq!(repaired.moved.len(), 1);
        let (wal, _) = open(&disk);
        assert_eq!(wal.lost(), [(has + 1, second - 1)]);
        drop(wal);
        assert_eq!(Checked::of(dir(), disk.clone(), |_| {}).expect("whole").first_position(), has + 1);
        let kept: Vec<_> = all.iter().filter(|frame| frame.0 >= second).cloned().collect();
        let again = repair(&disk, sealed(has)).expect("nothing to do");
        assert!(!again.is_mended);
        goes_on(&disk, &kept, last_position(&all));
    }
}

#[test]
fn a_wal_of_which_only_the_name_of_the_newest_segment_is_left_goes_on_from_where_the_lake_ends() {
    let (disk, all) = written();
    for path in segments(&disk) {
        disk.remove(&path).expect("removed");
    }
    repair(&disk, sealed(2)).expect("repaired");
    assert_eq!(Checked::of(dir(), disk.clone(), |_| {}).expect("whole").first_position(), 3);
    assert!(!repair(&disk, sealed(2)).expect("nothing to do").is_mended);
    goes_on(&disk, &[], last_position(&all));
}

#[test]
fn a_wal_whose_lake_is_older_than_its_files_of_keys_has_no_missing_segment() {
    let (disk, _) = written();
    open(&disk).0.trim_oldest(b"keys".to_vec()).expect("trimmed");
    let look = wal::look(dir(), &disk, &sealed(0), |_, _| Ok(())).expect("looked at");
    assert!(!look.is_damaged(), "{look:?}");
}
