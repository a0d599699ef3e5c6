//! What the wal promises, on a disk that fails.

mod failing_disk;

use failing_disk::{OPTIONS, append, dir, frames, open, payload, segments};
use proptest::prelude::*;
use testkit::{Fault, SimDisk};
use wal::{AppendError, OpenError, SEGMENT_HEADER_BYTES, Wal};

#[test]
fn what_was_appended_comes_back_in_order_after_a_crash() {
    let disk = SimDisk::new();
    let (mut wal, opened) = open(&disk);
    assert!(opened.created && opened.last_position == 0);
    let id = wal.wal_id();
    for n in 1..=30 {
        append(&mut wal, n, 100 * n as usize).expect("appended");
    }
    drop(wal);
    disk.crash(7);
    let (wal, opened) = open(&disk);
    assert_eq!((wal.wal_id(), opened.last_position, opened.clean), (id, (1..=30).sum(), false));
    let found = frames(&wal);
    assert_eq!(found.len(), 30);
    assert!(found.iter().all(|(p, n, bytes)| *bytes == payload(*p, 100 * *n as usize)));
}

#[test]
fn each_append_is_one_sync() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    let before = disk.syncs();
    append(&mut wal, 1, 100).expect("appended");
    append(&mut wal, 1, 100).expect("appended");
    assert_eq!(disk.syncs() - before, 2);
}

#[test]
fn torn_tail_is_cut_moved_aside_and_reported() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 3, 100).expect("appended");
    drop(wal);
    disk.crash(0);
    let path = segments(&disk).remove(0);
    let end = SEGMENT_HEADER_BYTES as usize + 136;
    disk.damage(&path, |bytes| bytes[end..end + 5].copy_from_slice(b"CWF1\x01"));
    let (wal, opened) = open(&disk);
    let torn = opened.torn.expect("reported");
    assert_eq!((torn.offset as usize, torn.bytes, opened.last_position), (end, 5, 3));
    assert_eq!(disk.content(&torn.moved_to).as_deref(), Some(&b"CWF1\x01"[..]));
    assert_eq!(frames(&wal).len(), 1);
    drop(wal);
    assert_eq!(open(&disk).1.torn, None, "cut for good");
}

#[test]
fn an_invalid_frame_before_a_valid_one_is_corruption_and_nothing_is_changed() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 1, 100).expect("appended");
    append(&mut wal, 1, 100).expect("appended");
    drop(wal);
    let path = segments(&disk).remove(0);
    disk.damage(&path, |bytes| bytes[SEGMENT_HEADER_BYTES as usize + 50] ^= 1);
    let before = disk.content(&path);
    match Wal::open(dir(), OPTIONS, disk.clone()).err() {
        Some(OpenError::Corrupt { file, offset, .. }) => {
            assert_eq!((file, offset), (path.clone(), SEGMENT_HEADER_BYTES))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(disk.content(&path), before);
}

#[test]
fn an_invalid_frame_before_a_later_segment_is_corruption() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    for _ in 0..4 {
        append(&mut wal, 1, 1500).expect("appended");
    }
    drop(wal);
    let paths = segments(&disk);
    assert!(paths.len() > 1, "{paths:?}");
    let last_frame = SEGMENT_HEADER_BYTES as usize + 1536;
    disk.damage(&paths[0], |bytes| bytes[last_frame + 40] ^= 1);
    assert!(matches!(Wal::open(dir(), OPTIONS, disk.clone()), Err(OpenError::Corrupt { .. })));
}

#[test]
fn a_missing_segment_is_corruption() {
    use wal::Disk;
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    for _ in 0..9 {
        append(&mut wal, 1, 1500).expect("appended");
    }
    drop(wal);
    let paths = segments(&disk);
    assert!(paths.len() > 2);
    disk.remove(&paths[1]).expect("removed");
    assert!(matches!(Wal::open(dir(), OPTIONS, disk.clone()), Err(OpenError::Corrupt { .. })));
}

#[test]
fn after_a_clean_end_no_torn_tail_is_believed() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 1, 100).expect("appended");
    wal.close().expect("closed");
    disk.crash(0);
    let (wal, opened) = open(&disk);
    assert!(opened.clean);
    drop(wal);
    let path = segments(&disk).remove(0);
    let end = SEGMENT_HEADER_BYTES as usize + 136 + 32;
    disk.damage(&path, |bytes| bytes[end] = 1);
    assert!(matches!(Wal::open(dir(), OPTIONS, disk.clone()), Err(OpenError::Corrupt { .. })));
}

#[test]
fn append_is_refused_after_a_failed_sync() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 1, 100).expect("appended");
    disk.fail_sync(0, Fault::Broken);
    assert!(matches!(append(&mut wal, 1, 100), Err(AppendError::Poisoned { .. })));
    assert!(matches!(append(&mut wal, 1, 100), Err(AppendError::Poisoned { .. })), "never retried");
    assert!(wal.close().is_err());
}

#[test]
fn what_a_start_read_outlives_a_power_cut_although_its_sync_had_failed() {
    for seed in 0..20 {
        let disk = SimDisk::new();
        let (mut wal, _) = open(&disk);
        append(&mut wal, 1, 100).expect("appended");
        disk.fail_sync(0, Fault::Broken);
        append(&mut wal, 1, 100).expect_err("poisoned");
        drop(wal);
        let (mut wal, opened) = open(&disk);
        assert_eq!(opened.last_position, 2, "it is read, from memory");
        append(&mut wal, 1, 100).expect("appended");
        drop(wal);
        disk.crash(seed);
        assert_eq!(open(&disk).1.last_position, 3);
    }
}

#[test]
fn an_end_whose_sync_failed_is_no_damage_after_a_power_cut() {
    for seed in 0..20 {
        let disk = SimDisk::new();
        let (mut wal, _) = open(&disk);
        append(&mut wal, 1, 100).expect("appended");
        disk.fail_sync(0, Fault::Broken);
        wal.close().expect_err("not synced");
        let (mut wal, opened) = open(&disk);
        assert!(opened.clean, "it is read, from memory");
        append(&mut wal, 1, 100).expect("appended");
        drop(wal);
        disk.crash(seed);
        assert_eq!(open(&disk).1.last_position, 2);
    }
}

#[test]
fn append_is_refused_after_a_broken_write() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    disk.fail_write(0, Fault::Broken);
    assert!(matches!(append(&mut wal, 1, 100), Err(AppendError::Poisoned { .. })));
    assert!(matches!(append(&mut wal, 1, 100), Err(AppendError::Poisoned { .. })));
}

#[test]
fn a_full_disk_refuses_one_append_and_the_next_goes_on() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 1, 100).expect("appended");
    disk.fail_write(0, Fault::Full);
    let refused = append(&mut wal, 5, 100).expect_err("no space");
    assert!(matches!(refused, AppendError::StorageFull { .. }), "{refused}");
    append(&mut wal, 2, 100).expect("there is space again");
    drop(wal);
    disk.crash(3);
    let (wal, opened) = open(&disk);
    assert_eq!((opened.last_position, opened.torn), (3, None));
    assert_eq!(frames(&wal).iter().map(|f| f.1).collect::<Vec<_>>(), [1, 2], "nothing of the refused group");
}

#[test]
fn it_opens_and_reads_on_a_full_disk() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    append(&mut wal, 4, 100).expect("appended");
    drop(wal);
    disk.crash(1);
    disk.fail_creates(Some(Fault::Full));
    let (mut wal, opened) = open(&disk);
    assert_eq!((opened.last_position, frames(&wal).len()), (4, 1));
    assert!(matches!(append(&mut wal, 1, 10), Err(AppendError::StorageFull { .. })));
    disk.fail_creates(None);
    assert_eq!(append(&mut wal, 1, 10).expect("there is space again"), 5);
}

#[test]
fn a_frame_beyond_the_bound_is_refused() {
    let (mut wal, _) = open(&SimDisk::new());
    assert!(matches!(append(&mut wal, 1, 16385), Err(AppendError::TooLarge { bytes: 16385, bytes_max: 16384 })));
    append(&mut wal, 1, 16384).expect("a segment of its own size");
}

#[test]
fn a_second_opening_is_refused_by_name() {
    let disk = SimDisk::new();
    let (wal, _) = open(&disk);
    assert!(matches!(Wal::open(dir(), OPTIONS, disk.clone()), Err(OpenError::InUse { .. })));
    drop(wal);
    open(&disk);
}

#[test]
fn a_second_process_is_told_the_pid_on_a_real_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let wal = Wal::open(folder.path(), OPTIONS, wal::RealDisk).expect("opens");
    match Wal::open(folder.path(), OPTIONS, wal::RealDisk).err() {
        Some(error @ OpenError::InUse { .. }) => {
            let told = error.to_string();
            assert!(told.contains(&format!("in use by another process (pid {})", std::process::id())), "{told}");
        }
        other => panic!("{other:?}"),
    }
    drop(wal);
}

#[test]
fn a_trimmed_wal_still_knows_its_position_and_keeps_the_keys() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk);
    for _ in 0..10 {
        append(&mut wal, 2, 1500).expect("appended");
    }
    let trimmable = wal.trimmable(20);
    assert!(trimmable.len() > 2);
    assert_eq!(wal.trimmable(3).len(), 0, "only what is wholly sealed");
    for (first, _) in &trimmable {
        wal.trim_oldest(first.to_le_bytes().to_vec()).expect("trimmed");
    }
    drop(wal);
    disk.crash(2);
    let (mut wal, opened) = open(&disk);
    assert_eq!(opened.last_position, 20);
    let keys = wal.key_files().expect("read");
    assert_eq!(keys.iter().map(|k| (k.first, k.last)).collect::<Vec<_>>(), trimmable);
    assert!(keys.iter().all(|k| k.bytes == k.first.to_le_bytes()));
    wal.forget_keys_before(trimmable[1].0).expect("removed");
    assert_eq!(wal.key_files().expect("read").len(), trimmable.len() - 1);
    assert_eq!(append(&mut wal, 1, 10).expect("appended"), 21);
}

#[test]
fn every_bit_flip_is_found_or_cuts_only_the_last_group() {
    let make = || {
        let disk = SimDisk::new();
        let (mut wal, _) = open(&disk);
        append(&mut wal, 1, 20).expect("appended");
        append(&mut wal, 1, 20).expect("appended");
        drop(wal);
        disk
    };
    let path = segments(&make()).remove(0);
    let frames_end = SEGMENT_HEADER_BYTES as usize + 2 * 56;
    for byte in (0..64).chain(SEGMENT_HEADER_BYTES as usize - 4..frames_end + 64) {
        for bit in 0..8 {
            let disk = make();
            disk.damage(&path, |bytes| bytes[byte] ^= 1 << bit);
            let Ok((wal, opened)) = Wal::open(dir(), OPTIONS, disk.clone()) else {
                continue;
            };
            let found = frames(&wal);
            assert!(opened.torn.is_some(), "byte {byte} bit {bit} went unnoticed");
            assert!(
                byte >= SEGMENT_HEADER_BYTES as usize + 56,
                "byte {byte}: only the last group can be taken for torn"
            );
            assert!(
                found.iter().all(|(p, n, bytes)| *n == 1 && *bytes == payload(*p, 20)),
                "byte {byte}: damaged data answered"
            );
        }
    }
}

/// A segment as `docs/FORMAT.md` describes it, with one frame; every checksum holds.
fn crafted(first_position: u64, frame_position: u64, event_count: u32, kind: u8) -> Vec<u8> {
    crafted_but(first_position, (frame_position, event_count, kind), |_| {})
}

/// The same with something else in the header of the frame, before its checksum is made.
fn crafted_but(
    first_position: u64,
    (frame_position, event_count, kind): (u64, u32, u8),
    change: impl Fn(&mut [u8]),
) -> Vec<u8> {
    let mut bytes = vec![0; SEGMENT_HEADER_BYTES as usize];
    bytes[..8].copy_from_slice(b"CATCHWAL");
    bytes[8] = 1;
    bytes[48..56].copy_from_slice(&first_position.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..SEGMENT_HEADER_BYTES as usize - 4]);
    bytes[SEGMENT_HEADER_BYTES as usize - 4..].copy_from_slice(&crc.to_le_bytes());
    let mut frame = [b"CWF1".as_slice(), &[kind, 0, 0, 0]].concat();
    frame.extend(frame_position.to_le_bytes());
    frame.extend(event_count.to_le_bytes());
    frame.extend([0; 8]);
    change(&mut frame);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&[0; 16]), &frame);
    frame.extend(crc.to_le_bytes());
    [bytes, frame].concat()
}

/// A wal of this segment alone.
fn opened_over(first: u64, segment: &[u8]) -> Result<(Wal<SimDisk>, wal::Opened), OpenError> {
    use wal::{Disk, DiskFile};
    let disk = SimDisk::new();
    disk.create_dir(dir()).expect("memory");
    let file = disk.create(&dir().join(format!("{first:020}.wal")), 0).expect("memory");
    file.write_at(segment, 0).expect("memory");
    Wal::open(dir(), OPTIONS, disk)
}

/// What later versions may put there is not passed over.
#[test]
fn a_frame_with_another_magic_or_with_something_where_nothing_is_is_none() {
    let found = |at: usize, byte: u8| {
        let segment = crafted_but(1, (1, 3, 1), |frame| frame[at] = byte);
        let (wal, opened) = opened_over(1, &segment).expect("it opens");
        (frames(&wal).len(), opened.last_position, opened.torn.is_some())
    };
    assert_eq!(found(3, b'1'), (1, 3, false), "as it is");
    for (at, byte) in [(3, b'2'), (5, 1), (7, 1), (24, 1)] {
        assert_eq!(found(at, byte), (0, 0, true), "{at}");
    }
}

#[test]
fn a_mark_of_lost_positions_that_has_none_tells_of_none() {
    let mut segment = crafted(1, 1, 0, 3);
    segment[8] = 2;
    let crc = crc32c::crc32c(&segment[..SEGMENT_HEADER_BYTES as usize - 4]);
    segment[SEGMENT_HEADER_BYTES as usize - 4..SEGMENT_HEADER_BYTES as usize].copy_from_slice(&crc.to_le_bytes());
    let (wal, opened) = opened_over(1, &segment).expect("it opens");
    assert_eq!((wal.lost(), opened.last_position), (&[][..], 0));
}

#[test]
fn positions_that_no_event_can_have_are_corruption() {
    let opened = |first: u64, frame: u64, events: u32, kind: u8| {
        let segment = crafted(first, frame, events, kind);
        opened_over(first, &segment).map(|(wal, opened)| (frames(&wal).len(), opened.last_position))
    };
    assert_eq!(opened(1, 1, 3, 1).expect("as it should be"), (1, 3));
    let last = i64::MAX as u64;
    assert_eq!(opened(last, last, 1, 1).expect("the last there is"), (1, last));
    for (first, frame, events) in
        [(0, 0, 0), (0, 0, 1), (0, 1, 1), (last, last, 2), (last + 1, last + 1, 1), (u64::MAX, u64::MAX, 1)]
    {
        let error = opened(first, frame, events, 1);
        assert!(matches!(error, Err(OpenError::Corrupt { .. })), "{first}, {frame}, {events}: {error:?}");
    }
    let gap = opened(1, 2, 1, 1);
    assert!(matches!(gap, Err(OpenError::Corrupt { .. })), "position 1 is missing: {gap:?}");
    assert_eq!(opened(1, 1, 0, 2).expect("an end"), (0, 0));
    let end = opened(1, 1, 5, 2);
    assert!(matches!(end, Err(OpenError::Corrupt { .. })), "an end has no events: {end:?}");
}

#[test]
fn every_prefix_of_the_last_write_opens() {
    for keep in 0..=136usize {
        let disk = SimDisk::new();
        let (mut wal, _) = open(&disk);
        append(&mut wal, 1, 100).expect("appended");
        append(&mut wal, 1, 100).expect("appended");
        drop(wal);
        let path = segments(&disk).remove(0);
        let start = SEGMENT_HEADER_BYTES as usize + 136;
        disk.damage(&path, |bytes| bytes[start + keep..start + 136].fill(0));
        let (wal, opened) = open(&disk);
        let whole = frames(&wal).len() == 2;
        assert_eq!(opened.last_position, if whole { 2 } else { 1 });
        assert!(whole || keep < 136);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append { events: u32, bytes: usize },
    Crash { seed: u64, in_write: bool },
    CleanStop,
    Trim { share: u64 },
    Full,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u32..5, 0usize..3000).prop_map(|(events, bytes)| Step::Append { events, bytes }),
        2 => (any::<u64>(), any::<bool>()).prop_map(|(seed, in_write)| Step::Crash { seed, in_write }),
        1 => Just(Step::CleanStop),
        1 => (0u64..100).prop_map(|share| Step::Trim { share }),
        1 => Just(Step::Full),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The model: acknowledged groups are there once, whole, in order; a group in doubt is there whole or not at all.
    #[test]
    fn it_agrees_with_a_list(steps in proptest::collection::vec(step(), 1..40)) {
        let disk = SimDisk::new();
        let (mut wal, _) = open(&disk);
        let mut model: Vec<(u64, u32, Vec<u8>)> = Vec::new();
        let mut trimmed = 0u64;
        for step in steps {
            match step {
                Step::Append { events, bytes } => {
                    let first = append(&mut wal, events, bytes).expect("nothing fails here");
                    model.push((first, events, payload(first, bytes)));
                }
                Step::Full => {
                    disk.fail_write(0, Fault::Full);
                    prop_assert!(append(&mut wal, 1, 50).is_err());
                }
                Step::Trim { share } => {
                    let sealed = wal.last_position() * share / 100;
                    for (_, last) in wal.trimmable(sealed) {
                        wal.trim_oldest(Vec::new()).expect("trimmed");
                        trimmed = trimmed.max(last);
                    }
                }
                Step::CleanStop => {
                    wal.close().expect("closed");
                    let (reopened, opened) = open(&disk);
                    prop_assert!(opened.torn.is_none());
                    wal = reopened;
                }
                Step::Crash { seed, in_write } => {
                    let mut doubtful = None;
                    if in_write {
                        disk.fail_sync(0, Fault::Broken);
                        let first = wal.last_position() + 1;
                        prop_assert!(append(&mut wal, 2, 700).is_err());
                        doubtful = Some((first, 2, payload(first, 700)));
                    }
                    drop(wal);
                    disk.crash(seed);
                    let (reopened, opened) = open(&disk);
                    let last = model.last().map_or(0, |(p, n, _)| p + u64::from(*n) - 1);
                    if opened.last_position > last {
                        model.extend(doubtful);
                    }
                    wal = reopened;
                }
            }
            let last = model.last().map_or(0, |(p, n, _)| p + u64::from(*n) - 1);
            prop_assert_eq!(wal.last_position(), last);
        }
        drop(wal);
        disk.crash(1);
        let expected: Vec<_> = model.into_iter().filter(|(p, n, _)| p + u64::from(*n) - 1 > trimmed).collect();
        prop_assert_eq!(frames(&open(&disk).0), expected);
    }
}
