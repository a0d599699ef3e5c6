//! What becomes of a wal of which the disk cannot read a part: that part is told, and the rest is kept.

mod bad_disk;
mod failing_disk;

use bad_disk::{BadDisk, DENIED, IO, NO_SUCH_FILE};
use failing_disk::{OPTIONS, append, dir, frames, open, segments};
use std::path::{Path, PathBuf};
use testkit::SimDisk;
use wal::{Damage, End, Known, Look, OpenError, Wal};

#[test]
fn what_the_disk_cannot_read_is_told_and_the_rest_of_the_wal_is_kept() {
    let disk = SimDisk::new();
    let mut wal = Wal::open(dir(), wal::Options { segment_bytes: 32768, ..OPTIONS }, disk.clone()).expect("opened").0;
    for _ in 0..10 {
        append(&mut wal, 2, 2000).expect("appended");
    }
    drop(wal);
    let path = segments(&disk).remove(0);
    // Some groups in the middle, the last ones, and the header.
    for (bytes, lost, kept) in [(12288..12289, 3, 7), (20480..32768, 2, 8), (0..4096, 0, 10)] {
        let copy = disk.after_kill();
        let bad = BadDisk::unreadable(&copy, &path, bytes.clone());
        let refused = Wal::open(dir(), OPTIONS, bad.clone()).err().expect("refused");
        assert!(matches!(refused, OpenError::Io { .. }), "{refused}");
        let look = wal::look(dir(), &bad, &Known::default(), |_, _| Ok(())).expect("looked at");
        assert!(look.is_damaged() && look.segments[0].end != End::Clean, "{look:?}");
        let repaired =
            wal::repair(dir(), &bad, Path::new("/damaged/wal"), Known::default(), |_| Ok::<_, OpenError>(()))
                .expect("repaired");
        let damage = &repaired.before.segments[0].damage;
        assert!(damage.iter().any(|d| d.what.contains("the disk cannot read") || bytes.start == 0), "{damage:?}");
        assert_eq!(repaired.before.lost().count(), usize::from(lost > 0), "{damage:?}");
        assert_eq!(copy.content(&repaired.moved[0].1).expect("kept").len(), 32768);
        let (wal, opened) = open(&copy);
        assert_eq!((frames(&wal).len(), opened.torn), (kept, None), "{bytes:?}");
        assert!(wal.last_position() >= 20);
    }
}

/// A wal of which a segment was let go of, with its keys.
fn let_go() -> (SimDisk, PathBuf) {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    for _ in 0..6 {
        append(&mut wal, 2, 1500).expect("appended");
    }
    wal.trim_oldest(b"keys".to_vec()).expect("trimmed");
    drop(wal);
    let keys = disk.paths().into_iter().find(|path| path.extension().is_some_and(|e| e == "keys")).expect("keys");
    (disk, keys)
}

fn look(disk: &BadDisk) -> Result<Look, OpenError> {
    wal::look(dir(), disk, &Known::default(), |_, _| Ok(()))
}

fn damages(look: &Look) -> Vec<&Damage> {
    look.segments.iter().flat_map(|segment| &segment.damage).collect()
}

#[test]
fn what_goes_while_it_is_looked_at_is_not_told() {
    let (disk, keys) = let_go();
    let oldest = segments(&disk).remove(0);
    for path in [keys, oldest] {
        let found = look(&BadDisk::unopenable(&disk, &path, NO_SUCH_FILE)).expect("looked at");
        assert!(!found.is_damaged(), "{found:?}");
        assert!(found.segments.iter().all(|segment| segment.path != path));
        assert!(found.key_files.iter().all(|file| file.path != path));
    }
}

#[test]
fn what_cannot_be_opened_is_no_damage_and_ends_the_looking() {
    let (disk, keys) = let_go();
    for path in [keys, segments(&disk).remove(0), dir().join("newest")] {
        match look(&BadDisk::unopenable(&disk, &path, DENIED)) {
            Err(OpenError::Io { path: told, .. }) => assert_eq!(told, path),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_small_file_that_the_disk_cannot_read_is_told_and_moved_aside() {
    for name in ["00000000000000000001-00000000000000000004.keys", "newest"] {
        let ((disk, _), path) = (let_go(), dir().join(name));
        let unreadable = BadDisk::unreadable(&disk, &path, 10..11);
        for bad in [&BadDisk::unopenable(&disk, &path, IO), &unreadable] {
            let found = look(bad).expect("looked at");
            let of_keys = found.key_files.iter().filter_map(|file| Some((file.path.clone(), file.damage.clone()?)));
            let told: Vec<_> = of_keys.chain(found.bad_newest.clone()).collect();
            assert_eq!(told, [(path.clone(), "the disk cannot read it".to_owned())]);
        }
        let repaired =
            wal::repair(dir(), &unreadable, Path::new("/damaged/wal"), Known::default(), |_| Ok::<_, OpenError>(()))
                .expect("repaired");
        assert!(repaired.is_mended && repaired.moved.len() == 1);
        assert!(!look(&unreadable).expect("looked at").is_damaged());
        assert_eq!(frames(&open(&disk).0).len(), 4);
    }
}

/// With it the next start would miss what the repair let go of.
#[test]
fn a_repair_that_cannot_remove_the_name_of_the_newest_segment_says_so_and_can_be_done_again() {
    let (disk, keys) = let_go();
    disk.damage(&keys, |bytes| bytes.truncate(5));
    let newest = dir().join("newest");
    let repair = |disk: &BadDisk| {
        wal::repair(dir(), disk, Path::new("/damaged/wal"), Known::default(), |_| Ok::<_, OpenError>(()))
    };
    match repair(&BadDisk::unremovable(&disk, &newest, DENIED)) {
        Err(OpenError::Io { action: "remove", path, .. }) => assert_eq!(path, newest),
        other => panic!("{other:?}"),
    }
    assert!(repair(&BadDisk::unremovable(&disk, &keys, DENIED)).expect("repaired").moved.is_empty());
    assert_eq!(frames(&open(&disk).0).len(), 4);
}

/// What is damaged otherwise is not taken for unreadable, nor the other way round.
#[test]
fn each_damage_is_told_by_its_own_reason_and_with_its_own_bytes() {
    let disk = SimDisk::new();
    let mut wal = Wal::open(dir(), wal::Options { segment_bytes: 65536, ..OPTIONS }, disk.clone()).expect("opened").0;
    for _ in 0..6 {
        append(&mut wal, 2, 8192 - 32).expect("appended");
    }
    drop(wal);
    let path = segments(&disk).remove(0);
    // The second group has a wrong byte, and of the fifth some cannot be read.
    disk.damage(&path, |bytes| bytes[4096 + 8192 + 40] ^= 1);
    let bad = BadDisk::unreadable(&disk, &path, 40960..40961);
    let found = look(&bad).expect("looked at");
    let told: Vec<_> = damages(&found).into_iter().map(|d| (d.offset, d.bytes, d.what.as_str(), d.lost)).collect();
    assert_eq!(
        told,
        [
            (12288, 8192, "no frame can be read here", Some((3, 4))),
            (36864, 8192, "the disk cannot read what lies here", Some((9, 10)))
        ]
    );
}

/// Only the last byte of a file that was cut is unreadable: nobody knows whether it was torn.
#[test]
fn an_end_that_cannot_be_read_is_damaged_and_not_torn() {
    let disk = SimDisk::new();
    let mut wal = Wal::open(dir(), wal::Options { segment_bytes: 16384, ..OPTIONS }, disk.clone()).expect("opened").0;
    append(&mut wal, 2, 100).expect("appended");
    drop(wal);
    let path = segments(&disk).remove(0);
    disk.damage(&path, |bytes| bytes.truncate(8193));
    wal::Disk::remove(&disk, &dir().join("newest")).expect("removed");
    let found = look(&BadDisk::unreadable(&disk, &path, 8192..8193)).expect("looked at");
    assert_eq!(found.segments[0].end, End::Damaged);
    let told = damages(&found)[0];
    assert_eq!(told.what, "the disk cannot read what lies here");
    assert_eq!((told.offset, told.bytes), (4096 + 136, 8193 - 4096 - 136));
}

/// Further from it than is read at once.
#[test]
fn groups_far_behind_what_cannot_be_read_are_found() {
    let disk = SimDisk::new();
    let options = wal::Options { segment_bytes: 8 << 20, frame_bytes_max: 4 << 20 };
    let mut wal = Wal::open(dir(), options, disk.clone()).expect("opened").0;
    for bytes in [100, 3 << 20, 100] {
        append(&mut wal, 1, bytes).expect("appended");
    }
    drop(wal);
    let path = segments(&disk).remove(0);
    let found = look(&BadDisk::unreadable(&disk, &path, (2 << 20)..(2 << 20) + 1)).expect("looked at");
    assert_eq!(found.segments[0].frames.iter().map(|frame| frame.first_position).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(found.lost().collect::<Vec<_>>(), [(2, 2)]);
}

#[test]
fn a_segment_that_cannot_be_removed_stays_known() {
    let disk = SimDisk::new();
    append(&mut open(&disk).0, 3, 100).expect("appended");
    let oldest = segments(&disk).remove(0);
    let (mut wal, _) = Wal::open(dir(), OPTIONS, BadDisk::unremovable(&disk, &oldest, DENIED)).expect("opened");
    assert_eq!(wal.trimmable(3), [(1, 3)]);
    let refused = wal.trim_oldest(Vec::new()).expect_err("it cannot");
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    assert_eq!((wal.trimmable(3), wal.first_position()), (vec![(1, 3)], 1));
}
