//! What a look at a wal tells before it is opened, and how far the look is.

mod failing_disk;

use failing_disk::{OPTIONS, append, dir, frames, open, segments};
use std::cell::RefCell;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::path::Path;
use testkit::{Fault, SimDisk};
use wal::{Checked, Disk, Frame, OpenError, Read, SEGMENT_HEADER_BYTES, Wal};

/// What a frame takes beside its payload, by `docs/FORMAT.md`.
const FRAME_BYTES: u64 = 32;

/// A wal of so many groups of two events, of which two fit into a segment.
fn written(groups: u32) -> (SimDisk, Wal<SimDisk>) {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    for _ in 0..groups {
        append(&mut wal, 2, 2000).expect("appended");
    }
    (disk, wal)
}

#[test]
fn a_look_tells_its_last_position_and_after_each_group_how_far_it_is() {
    let (disk, _) = written(8);
    let told = RefCell::new(Vec::new());
    let checked = Checked::of(dir(), disk.clone(), |read: Read| told.borrow_mut().push(read)).expect("whole");
    assert_eq!((checked.first_position(), checked.last_position()), (1, 16));
    let frame = FRAME_BYTES + 2000;
    let in_order = (0..8).map(|n| {
        let (before, groups) = (n / 2, n % 2 + 1);
        let bytes = before * OPTIONS.segment_bytes + SEGMENT_HEADER_BYTES + groups * frame;
        Read { bytes, of_bytes: 4 * OPTIONS.segment_bytes, events: 2 * (n + 1) }
    });
    assert_eq!(told.into_inner(), in_order.collect::<Vec<_>>());
}

/// Room that was taken for frames that never came does not count.
#[test]
fn reading_back_tells_after_each_group_how_far_it_is_also_when_it_goes_on_from_a_place() {
    let (disk, _) = written(5);
    let (wal, _) = open(&disk);
    let (frame, end) = (FRAME_BYTES + 2000, SEGMENT_HEADER_BYTES + 2 * (FRAME_BYTES + 2000));
    let in_order: Vec<Read> = (0..5)
        .map(|n| Read {
            bytes: n / 2 * end + SEGMENT_HEADER_BYTES + (n % 2 + 1) * frame,
            of_bytes: 2 * end + SEGMENT_HEADER_BYTES + frame,
            events: 2 * (n + 1),
        })
        .collect();
    for at_once in [1, 2, 5] {
        let (mut place, mut told) = (wal::Place::default(), Vec::new());
        loop {
            let mut left = at_once;
            let each = |_: Frame<'_>, read: Read| -> Result<ControlFlow<()>, Infallible> {
                told.push(read);
                left -= 1;
                Ok(if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            };
            if wal.replay_from(&mut place, each).expect("it reads back") {
                break;
            }
        }
        assert_eq!(told, in_order, "{at_once}");
    }
}

#[test]
fn a_segment_that_cannot_be_made_for_another_reason_than_room_stops_the_opening() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 1, 100).expect("appended");
    drop(wal);
    disk.fail_creates(Some(Fault::Broken));
    let refused = Wal::open(dir(), OPTIONS, disk.clone()).err().expect("refused");
    assert!(matches!(refused, OpenError::Io { .. }), "{refused}");
    disk.fail_creates(None);
    assert_eq!(frames(&open(&disk).0).len(), 1);
}

#[test]
fn the_name_of_the_wals_folder_is_synced_where_it_lies() {
    for (folder, above) in [("/data/wal", "/data"), ("wal", ".")] {
        let disk = SimDisk::new();
        disk.fail_sync(0, Fault::Broken);
        match Checked::of(Path::new(folder), disk, |_| {}).err() {
            Some(OpenError::Io { path, .. }) => assert_eq!(path, Path::new(above)),
            other => panic!("{other:?}"),
        }
    }
}

/// Files of keys of positions that no segment has: those behind it are gone.
#[test]
fn files_of_keys_of_later_positions_than_the_last_segment_tell_that_one_is_missing() {
    let (disk, mut wal) = written(8);
    let oldest = segments(&disk).remove(0);
    let content = disk.content(&oldest).expect("there");
    for _ in wal.trimmable(12) {
        wal.trim_oldest(b"keys".to_vec()).expect("trimmed");
    }
    drop(wal);
    for gone in segments(&disk).into_iter().chain([dir().join("newest")]) {
        disk.remove(&gone).expect("removed");
    }
    disk.create(&oldest, content.len() as u64).expect("made");
    disk.damage(&oldest, |bytes| *bytes = content);
    match Wal::open(dir(), OPTIONS, disk).err() {
        Some(OpenError::Corrupt { what, .. }) => assert!(what.contains("positions 9 to 12"), "{what}"),
        other => panic!("{other:?}"),
    }
}
