//! What the wal promises when it lets go of frames, on a disk that fails.

mod failing_disk;

use failing_disk::{OPTIONS, append, dir, frames, open, segments};
use testkit::{Fault, SimDisk};
use wal::{AppendError, Disk, OpenError, SEGMENT_HEADER_BYTES, Wal};

/// Appends a group, which the wal lets go of for these keys.
fn let_go(wal: &mut Wal<SimDisk>, events: u32, keys: &str) {
    append(wal, events, 100).expect("appended");
    wal.begin_segment().expect("a new segment");
    wal.trim_oldest(keys.into()).expect("trimmed");
}

#[test]
fn what_was_appended_before_a_new_segment_began_can_be_let_go_whole_and_never_comes_back() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    wal.begin_segment().expect("nothing to do");
    assert_eq!((segments(&disk).len(), wal.first_position()), (1, 1));
    append(&mut wal, 3, 100).expect("appended");
    wal.begin_segment().expect("a new segment");
    let syncs = disk.syncs();
    wal.begin_segment().expect("once is enough");
    assert_eq!(disk.syncs(), syncs, "nothing was made");
    assert_eq!((wal.first_position(), wal.trimmable(3)), (1, vec![(1, 3)]));
    append(&mut wal, 2, 100).expect("appended");
    wal.trim_oldest(b"keys".to_vec()).expect("trimmed");
    assert_eq!((wal.first_position(), segments(&disk).len()), (4, 1));
    drop(wal);
    disk.crash(3);
    let (wal, opened) = open(&disk);
    assert_eq!((opened.last_position, opened.first_position, opened.torn), (5, 4, None));
    assert_eq!(frames(&wal).iter().map(|(first, ..)| *first).collect::<Vec<_>>(), [4]);
}

#[test]
fn a_segment_that_finds_no_room_changes_nothing() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 3, 100).expect("appended");
    disk.fail_creates(Some(Fault::Full));
    let refused = wal.begin_segment().expect_err("there is no room");
    assert!(matches!(refused, AppendError::StorageFull { .. }), "{refused}");
    disk.fail_creates(None);
    append(&mut wal, 1, 100).expect("the one before goes on");
    drop(wal);
    disk.crash(1);
    let (wal, opened) = open(&disk);
    assert_eq!((wal.first_position(), opened.last_position, frames(&wal).len()), (1, 4, 2));
}

#[test]
fn without_room_for_a_segment_the_last_one_stays_and_positions_go_on_from_it() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 3, 100).expect("appended");
    wal.begin_segment().expect("a new segment");
    append(&mut wal, 2, 100).expect("appended");
    drop(wal);
    disk.fail_creates(Some(Fault::Full));
    let (mut wal, opened) = open(&disk);
    assert_eq!((opened.last_position, wal.trimmable(5)), (5, vec![(1, 3)]), "all is in the lake");
    wal.trim_oldest(Vec::new()).expect("trimmed");
    assert!(wal.trimmable(5).is_empty() && wal.begin_segment().is_err());
    wal.close().expect("there is nothing to write an end into");
    let (mut wal, opened) = open(&disk);
    assert_eq!((opened.last_position, opened.created), (5, false));
    disk.fail_creates(None);
    wal.begin_segment().expect("there is room");
    assert_eq!((wal.trimmable(5), wal.first_position()), (vec![(4, 5)], 4));
    wal.trim_oldest(Vec::new()).expect("trimmed");
    drop(wal);
    let (mut wal, opened) = open(&disk);
    assert_eq!((opened.last_position, append(&mut wal, 1, 100).expect("appended")), (5, 6));
}

/// Without keys nothing else syncs the folder: a removal that is not for good, before one that is, would leave a gap.
#[test]
fn a_power_cut_after_a_sync_of_a_removal_failed_leaves_no_gap() {
    let live = |disk: &SimDisk| {
        let Ok((mut wal, _)) = Wal::open(dir(), OPTIONS, disk.clone()) else { return 0 };
        for done in 0..4 {
            if append(&mut wal, 1, 100).is_err() || wal.begin_segment().is_err() {
                return done;
            }
        }
        disk.fail_sync(0, Fault::Full);
        let told: Vec<bool> = (0..3).map(|_| wal.trim_oldest(Vec::new()).is_ok()).collect();
        assert!(disk.is_dead() || told == [false, true, true], "{told:?}");
        4
    };
    let disk = SimDisk::new();
    live(&disk);
    for (operation, seed) in (0..disk.operations()).flat_map(|operation| (0..8).map(move |seed| (operation, seed))) {
        let disk = SimDisk::new();
        disk.cut_power_at(operation);
        let done = live(&disk);
        match Wal::open(dir(), OPTIONS, disk.after_power_cut(seed)) {
            Ok((_, opened)) => assert!(opened.last_position >= done, "operation {operation}, seed {seed}"),
            Err(error) => panic!("operation {operation}, seed {seed}: {error}"),
        }
    }
}

#[test]
fn key_files_are_written_again_or_go_and_torn_tails_go() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    for keys in ["secret one", "secret two"] {
        let_go(&mut wal, 1, keys);
    }
    append(&mut wal, 1, 100).expect("appended");
    drop(wal);
    let path = segments(&disk).remove(0);
    let end = SEGMENT_HEADER_BYTES as usize + 136;
    disk.damage(&path, |bytes| bytes[end..end + 5].copy_from_slice(b"CWF1\x01"));
    let (mut wal, opened) = open(&disk);
    let torn = opened.torn.expect("reported").moved_to;
    wal.rewrite_keys(|first, _| if first == 1 { Vec::new() } else { b"other".to_vec() }).expect("written");
    assert_eq!(wal.key_files().expect("readable").len(), 1, "it knows at once");
    Disk::create(&disk, &dir().join("1-1.keys.new"), 0).expect("not finished");
    wal.forget_leftovers().expect("removed");
    drop(wal);
    disk.crash(5);
    let (wal, opened) = open(&disk);
    let kept: Vec<_> = wal.key_files().expect("readable").into_iter().map(|f| (f.first, f.last, f.bytes)).collect();
    assert_eq!((kept, opened.last_position), (vec![(2, 2, b"other".to_vec())], 3));
    assert_eq!(disk.content(&torn), None);
    assert!(disk.paths().iter().all(|path| path.extension().is_none_or(|e| e != "new")), "{:?}", disk.paths());
}

#[test]
fn files_of_keys_go_when_all_of_their_positions_are_before_the_oldest() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    for keys in ["one", "two"] {
        let_go(&mut wal, 3, keys);
    }
    let mut left = |oldest: u64| {
        wal.forget_keys_before(oldest).expect("removed");
        wal.key_files().expect("readable").iter().map(|file| file.first).collect::<Vec<_>>()
    };
    assert_eq!((left(3), left(4), left(6), left(7)), (vec![1, 4], vec![4], vec![4], vec![]));
}

#[test]
fn a_file_of_keys_that_is_cut_anywhere_is_told() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    let_go(&mut wal, 3, "keys");
    let path = disk.paths().into_iter().find(|path| path.extension().is_some_and(|e| e == "keys")).expect("keys");
    let whole = disk.content(&path).expect("there");
    for bytes in 0..whole.len() {
        disk.damage(&path, |file| *file = whole[..bytes].to_vec());
        match wal.key_files() {
            Err(OpenError::Corrupt { file, .. }) => assert_eq!(file, path),
            other => panic!("{bytes} bytes: {other:?}"),
        }
    }
}

#[test]
fn the_bytes_of_a_wal_are_those_of_its_segments() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    let of_files = || segments(&disk).iter().map(|path| disk.content(path).map_or(0, |file| file.len() as u64)).sum();
    for _ in 0..5 {
        append(&mut wal, 1, 3000).expect("appended");
        assert_eq!(wal.bytes(), of_files());
    }
    wal.trim_oldest(Vec::new()).expect("trimmed");
    assert_eq!(wal.bytes(), of_files());
}
