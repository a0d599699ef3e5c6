//! What an opening does to the end of a wal that was not ended, on a disk that is full or broken.

mod failing_disk;

use failing_disk::{OPTIONS, append, dir, frames, open, segments};
use testkit::{Fault, SimDisk};
use wal::{OpenError, SEGMENT_HEADER_BYTES, Wal};

/// A wal that was killed after two groups.
fn killed() -> SimDisk {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 1, 100).expect("appended");
    append(&mut wal, 1, 100).expect("appended");
    drop(wal);
    disk
}

#[test]
fn a_torn_tail_is_moved_aside_on_a_full_disk_into_the_room_behind_it() {
    let disk = killed();
    let path = segments(&disk).remove(0);
    let at = SEGMENT_HEADER_BYTES as usize + 2 * 136;
    disk.damage(&path, |bytes| bytes[at..at + 9].copy_from_slice(b"CWF1 torn"));
    let used: usize = disk.paths().iter().filter_map(|path| disk.content(path)).map(|file| file.len()).sum();
    disk.set_capacity(Some(used as u64));
    let (wal, opened) = open(&disk);
    let torn = opened.torn.expect("it is torn");
    assert_eq!((torn.offset, torn.bytes), (at as u64, 9));
    assert_eq!(disk.content(&torn.moved_to).as_deref(), Some(b"CWF1 torn".as_slice()));
    assert_eq!(disk.content(&path).expect("there").len(), at);
    assert_eq!(frames(&wal).len(), 2);
}

#[test]
fn a_last_group_that_cannot_be_written_again_for_want_of_room_is_believed_and_for_another_reason_ends_the_opening() {
    let disk = killed();
    disk.fail_write(0, Fault::Full);
    assert_eq!(open(&disk).1.last_position, 2);

    let disk = killed();
    disk.fail_write(0, Fault::Broken);
    match Wal::open(dir(), OPTIONS, disk.clone()).err() {
        Some(OpenError::Io { action: "write", path, .. }) => assert_eq!(path, segments(&disk)[0]),
        other => panic!("{other:?}"),
    }
    assert_eq!(open(&disk).1.last_position, 2);
}
