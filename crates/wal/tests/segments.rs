//! What the wal promises of its segments: each has room for its end, and one that cannot be made harms nothing.

mod failing_disk;

use failing_disk::{OPTIONS, append, dir, frames, open, segments};
use testkit::{Fault, SimDisk};
use wal::{AppendError, SEGMENT_HEADER_BYTES, Wal};

#[test]
fn however_full_a_segment_is_there_is_room_for_its_end() {
    // A frame that fills the segment, or leaves less than an end takes, or just that.
    for payload_bytes in [8192 - 4096 - 32, 8192 - 4096 - 32 - 24, 8192 - 4096 - 64] {
        let disk = SimDisk::new();
        let (mut wal, _) = open(&disk);
        append(&mut wal, 1, payload_bytes).expect("appended");
        let made = segments(&disk);
        let frame = (payload_bytes + 32).next_multiple_of(8);
        let least = SEGMENT_HEADER_BYTES as usize + frame + 32;
        let bytes = disk.content(&made[0]).expect("there").len();
        assert!(made.len() == 1 && bytes >= least, "{bytes} bytes, {least} are needed");
        wal.close().expect("ended");
        let (wal, opened) = open(&disk);
        assert_eq!((opened.clean, opened.last_position, frames(&wal).len()), (true, 1, 1));
    }
}

#[test]
fn a_segment_that_no_option_makes_too_small_has_room_for_its_end() {
    let disk = SimDisk::new();
    let options = wal::Options { segment_bytes: 1, ..OPTIONS };
    let wal = Wal::open(dir(), options, disk.clone()).expect("opens").0;
    assert_eq!(disk.content(&segments(&disk)[0]).expect("there").len(), SEGMENT_HEADER_BYTES as usize + 32);
    wal.close().expect("ended");
    assert!(Wal::open(dir(), options, disk).expect("opens").1.clean);
}

#[test]
fn a_segment_that_cannot_be_made_for_another_reason_than_room_poisons() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 1, 3000).expect("appended");
    disk.fail_creates(Some(Fault::Broken));
    assert!(matches!(append(&mut wal, 1, 3000), Err(AppendError::Poisoned { .. })));
    disk.fail_creates(None);
    assert!(matches!(append(&mut wal, 1, 10), Err(AppendError::Poisoned { .. })), "never retried");
}

#[test]
fn what_was_begun_of_a_segment_for_which_there_is_no_room_goes() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 1, 3000).expect("appended");
    let used: usize = disk.paths().iter().filter_map(|path| disk.content(path)).map(|file| file.len()).sum();
    // Enough for the name of the newest segment, and not for the segment.
    disk.set_capacity(Some(used as u64 + 4096));
    assert!(matches!(append(&mut wal, 1, 3000), Err(AppendError::StorageFull { .. })));
    assert!(disk.paths().iter().all(|path| path.extension().is_none_or(|e| e != "new")), "{:?}", disk.paths());
}

#[test]
fn no_space_for_the_next_segment_poisons_nothing() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 1, 3000).expect("appended");
    disk.fail_creates(Some(Fault::Full));
    assert!(matches!(append(&mut wal, 1, 3000), Err(AppendError::StorageFull { .. })));
    append(&mut wal, 1, 100).expect("a small one still fits in the segment");
    disk.fail_creates(None);
    append(&mut wal, 1, 3000).expect("there is space again");
    drop(wal);
    disk.crash(1);
    assert_eq!(frames(&open(&disk).0).len(), 3);
}
