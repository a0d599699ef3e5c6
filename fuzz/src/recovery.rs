//! Recovering a wal: damage of any kind, and files that somebody crafted, checksums and all.
//!
//! What is recovered is what was appended, up to some frame; a frame whose bytes are whole is never lost without an error; an opening
//! that fails changes nothing; a wal that opens takes frames again.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use testkit::SimDisk;
use wal::{Disk, DiskFile, FRAME_HEADER_BYTES, Frame, OpenError, Opened, Options, SEGMENT_HEADER_BYTES, Wal};

const OPTIONS: Options = Options { segment_bytes: 8192, frame_bytes_max: 16384 };
const HEADER: usize = SEGMENT_HEADER_BYTES as usize;
const FRAME: usize = FRAME_HEADER_BYTES as usize;

/// A frame: position, number of events, payload.
pub(crate) type Appended = (u64, u32, Vec<u8>);

/// The input: first an even byte and steps that write a wal and damage it, or an odd byte and what files are made of.
pub fn recovery(input: &[u8]) {
    let mut steps = Steps(input);
    if steps.byte() % 2 == 0 { damaged(&mut steps) } else { crafted(&mut steps) }
}

/// The input, taken piece by piece; zeros when it is used up.
pub(crate) struct Steps<'a>(pub(crate) &'a [u8]);

impl Steps<'_> {
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (usize::from(self.byte()) << 8 | usize::from(self.byte())) % end.max(1)
    }
}

pub(crate) fn dir() -> &'static Path {
    Path::new("/wal")
}

pub(crate) fn open(disk: &SimDisk) -> Result<(Wal<SimDisk>, Opened), OpenError> {
    Wal::open(dir(), OPTIONS, disk.clone())
}

fn append(wal: &mut Wal<SimDisk>, event_count: u32, bytes: usize) -> Appended {
    let first_position = wal.last_position() + 1;
    let payload: Vec<u8> = (0..bytes).map(|i| (first_position as u8).wrapping_mul(31) ^ i as u8).collect();
    wal.append(Frame { first_position, event_count, payload: &payload }).expect("the disk has no fault");
    (first_position, event_count, payload)
}

pub(crate) fn replayed(wal: &Wal<SimDisk>) -> Vec<Appended> {
    let mut frames = Vec::new();
    let each = |f: Frame<'_>| -> Result<(), std::convert::Infallible> {
        frames.push((f.first_position, f.event_count, f.payload.to_vec()));
        Ok(())
    };
    wal.replay(each).expect("what opened reads back");
    frames
}

/// All files but the lock, which every opening takes.
pub(crate) fn contents(disk: &SimDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = disk.paths().into_iter().filter(|path| path.file_name().is_some_and(|name| name != "lock"));
    files.map(|path| (path.clone(), disk.content(&path).expect("it was listed"))).collect()
}

pub(crate) fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "wal")
}

fn damaged(steps: &mut Steps<'_>) {
    let disk = SimDisk::new();
    let appended = written(&disk, steps);
    let whole = contents(&disk);
    let segments: Vec<PathBuf> = whole.keys().filter(|path| is_segment(path)).cloned().collect();
    for _ in 0..steps.byte() % 6 {
        let segment = &segments[steps.below(segments.len())];
        disk.damage(segment, |bytes| damage(bytes, steps));
    }
    let before = contents(&disk);
    let (mut wal, opened) = match open(&disk) {
        Ok(opened) => opened,
        Err(OpenError::Corrupt { .. } | OpenError::Version { .. }) => {
            assert!(whole != before, "an undamaged wal opens");
            return assert!(contents(&disk) == before, "an opening that fails changes nothing");
        }
        Err(error) => panic!("the disk has no fault: {error}"),
    };
    let recovered = replayed(&wal);
    assert!(appended.starts_with(&recovered), "what is recovered is what was appended");
    for (path, range) in &frames_of(&whole)[recovered.len()..] {
        assert!(before[path].get(range.clone()) != Some(&whole[path][range.clone()]), "a whole frame was lost");
    }
    assert_eq!(opened.last_position, recovered.last().map_or(0, |(first, count, _)| first + u64::from(*count) - 1));
    let last = segments.last().expect("a wal has a segment");
    let end = match frames_of(&before).get(recovered.len().wrapping_sub(1)) {
        Some((path, range)) if path == last => range.end,
        _ => HEADER,
    };
    let rest = if opened.clean { None } else { before[last].get(end..) };
    if recovered.len() < appended.len() && rest.is_some_and(|rest| rest.iter().any(|b| *b != 0)) {
        let torn = opened.torn.as_ref().expect("what is lost is told");
        assert_eq!(contents(&disk)[&torn.moved_to].len() as u64, torn.bytes, "what is cut off is kept aside");
    }
    assert_goes_on(&disk, &mut wal, recovered);
}

/// Takes a frame more, which comes back after a crash with all before.
pub(crate) fn assert_goes_on(disk: &SimDisk, wal: &mut Wal<SimDisk>, mut frames: Vec<Appended>) {
    frames.push(append(wal, 2, 100));
    disk.crash(7);
    let (wal, opened) = open(disk).unwrap_or_else(|error| panic!("it opened before: {error}"));
    assert_eq!((replayed(&wal), opened.torn), (frames, None));
}

/// Writes a wal in several runs that end cleanly or not: what was appended.
pub(crate) fn written(disk: &SimDisk, steps: &mut Steps<'_>) -> Vec<Appended> {
    let mut appended = Vec::new();
    let (mut wal, _) = open(disk).expect("a new wal");
    for _ in 0..steps.byte() % 12 {
        match steps.byte() {
            what @ 0..8 => {
                if what % 2 == 0 {
                    wal.close().expect("no fault");
                } else {
                    drop(wal);
                    disk.crash(u64::from(what));
                }
                wal = open(disk).expect("a wal without damage").0;
            }
            what => appended.push(append(&mut wal, 1 + u32::from(what % 3), steps.below(3000))),
        }
    }
    if steps.byte() % 2 == 0 {
        wal.close().expect("no fault");
    }
    disk.crash(1);
    appended
}

/// Flips bits, moves bytes, or cuts.
fn damage(bytes: &mut Vec<u8>, steps: &mut Steps<'_>) {
    if bytes.is_empty() {
        return;
    }
    let used = (bytes.iter().rposition(|b| *b != 0).unwrap_or(0) + 64).min(bytes.len());
    let (what, at) = (steps.byte(), steps.below(used));
    match what % 8 {
        0 => bytes.truncate(at),
        1 => {
            // In steps of 8: frames begin there.
            let (from, to) = (at / 8 * 8, steps.below(used) / 8 * 8);
            let count = (steps.below(2048)).min(used - from.max(to));
            bytes.copy_within(from..from + count, to);
        }
        2 => {
            let end = (at + steps.below(256)).min(used);
            bytes[at..end].fill(0);
        }
        _ => bytes[at] ^= steps.byte().max(1),
    }
}

/// Where the frames of groups lie, by the lengths they tell, segment after segment. Checksums are not looked at.
pub(crate) fn frames_of(files: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<(PathBuf, Range<usize>)> {
    let mut frames = Vec::new();
    for (path, bytes) in files.iter().filter(|(path, _)| is_segment(path)) {
        let mut at = HEADER;
        while let Some(header) = bytes.get(at..at + FRAME).filter(|h| h.starts_with(b"CWF1")) {
            let payload = u32::from_le_bytes(header[20..24].try_into().expect("four bytes")) as usize;
            let end = at + (FRAME + payload).next_multiple_of(8);
            if header[4] == 1 {
                frames.push((path.clone(), at..end));
            }
            at = end;
        }
    }
    frames
}

/// Files with checksums that hold around fields of any value: they open or not, and what opens is in order.
fn crafted(steps: &mut Steps<'_>) {
    let disk = SimDisk::new();
    let mut next = 1;
    let mut valid = Vec::new();
    for _ in 0..1 + steps.byte() % 3 {
        next = position(next, steps);
        let path = dir().join(format!("{next:020}.wal"));
        let content = segment(&mut next, &mut valid, steps);
        put(&disk, &path, &content);
    }
    if steps.byte() % 4 == 0 {
        put(&disk, &dir().join("00000000000000000001-00000000000000000002.keys"), &keys(steps));
    }
    let before = contents(&disk);
    let Ok((mut wal, opened)) = open(&disk) else {
        return assert!(contents(&disk) == before, "an opening that fails changes nothing");
    };
    drop(wal.key_files());
    let recovered = replayed(&wal);
    assert!(recovered.iter().all(|frame| valid.contains(frame)), "no frame is invented");
    let mut expected = opened.first_position;
    for (first, count, _) in &recovered {
        assert_eq!(*first, expected, "positions count up without a gap");
        expected = first + u64::from(*count);
    }
    assert_eq!(opened.last_position + 1, expected);
    // Where positions end, nothing is appended.
    if opened.last_position > i64::MAX as u64 - 2 {
        return;
    }
    assert_goes_on(&disk, &mut wal, recovered);
}

fn put(disk: &SimDisk, path: &Path, content: &[u8]) {
    disk.create_dir(dir()).expect("memory");
    let file = disk.create(path, 0).expect("memory");
    file.write_at(content, 0).and_then(|()| file.sync_data()).and_then(|()| disk.sync_dir(dir())).expect("memory");
}

/// Mostly what is expected.
fn position(expected: u64, steps: &mut Steps<'_>) -> u64 {
    match steps.byte() {
        0 => 0,
        1 => u64::MAX,
        2 => u64::MAX - 1,
        3 => i64::MAX as u64,
        4 => expected.wrapping_add(1),
        _ => expected,
    }
}

fn segment(next: &mut u64, valid: &mut Vec<Appended>, steps: &mut Steps<'_>) -> Vec<u8> {
    let id = [steps.byte() % 2; 16];
    let mut bytes = vec![0; HEADER];
    bytes[..8].copy_from_slice(b"CATCHWAL");
    bytes[8..12].copy_from_slice(&(1 + u32::from(steps.byte() == 1)).to_le_bytes());
    bytes[16..32].copy_from_slice(&[steps.byte().min(1); 16]);
    bytes[32..48].copy_from_slice(&id);
    bytes[48..56].copy_from_slice(&position(*next, steps).to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..HEADER - 4]) ^ u32::from(steps.byte() == 1);
    bytes[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
    for _ in 0..steps.byte() % 4 {
        frame(&mut bytes, next, valid, (id, steps));
    }
    let rest = steps.below(200).min(steps.0.len());
    let (raw, after) = steps.0.split_at(rest);
    steps.0 = after;
    bytes.extend_from_slice(raw);
    bytes
}

fn frame(bytes: &mut Vec<u8>, next: &mut u64, valid: &mut Vec<Appended>, (id, steps): ([u8; 16], &mut Steps<'_>)) {
    let kind = if steps.byte() == 1 { 2 } else { 1 };
    let first = position(*next, steps);
    let count = match steps.byte() {
        0 => 0,
        1 => u32::MAX,
        n => u32::from(n),
    };
    let payload = vec![steps.byte(); usize::from(steps.byte())];
    let told = if steps.byte() == 1 { u32::MAX } else { payload.len() as u32 };
    let mut header = [b"CWF1".as_slice(), &[kind, 0, 0, 0], &first.to_le_bytes(), &count.to_le_bytes()].concat();
    header.extend(told.to_le_bytes());
    header.extend([0; 4]);
    let seeded = crc32c::crc32c_append(crc32c::crc32c(&id), &header);
    let crc = crc32c::crc32c_append(seeded, &payload) ^ u32::from(steps.byte() == 1);
    header.extend(crc.to_le_bytes());
    bytes.extend(header);
    bytes.extend(&payload);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    *next = first.wrapping_add(u64::from(count));
    valid.push((first, count, payload));
}

fn keys(steps: &mut Steps<'_>) -> Vec<u8> {
    let (hold, body) = (steps.byte() % 2 == 0, steps.0);
    let mut bytes = [b"CATCHKEY".as_slice(), &1u32.to_le_bytes(), &1u64.to_le_bytes(), &2u64.to_le_bytes()].concat();
    bytes.extend((body.len() as u32).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), body);
    bytes.extend((crc ^ u32::from(!hold)).to_le_bytes());
    bytes.extend(body);
    bytes
}
