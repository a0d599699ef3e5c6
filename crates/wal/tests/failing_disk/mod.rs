//! A wal on a disk that fails.

use std::path::{Path, PathBuf};
use testkit::SimDisk;
use wal::{AppendError, Frame, Opened, Options, Wal};

pub(crate) const OPTIONS: Options = Options { segment_bytes: 8192, frame_bytes_max: 16384 };

pub(crate) fn dir() -> &'static Path {
    Path::new("/wal")
}

pub(crate) fn open(disk: &SimDisk) -> (Wal<SimDisk>, Opened) {
    Wal::open(dir(), OPTIONS, disk.clone()).expect("the wal opens")
}

pub(crate) fn payload(position: u64, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (position as u8).wrapping_mul(31).wrapping_add(i as u8) | 1).collect()
}

pub(crate) fn append(wal: &mut Wal<SimDisk>, events: u32, bytes: usize) -> Result<u64, AppendError> {
    let first_position = wal.last_position() + 1;
    let payload = payload(first_position, bytes);
    wal.append(Frame { first_position, event_count: events, payload: &payload }).map(|_| first_position)
}

/// The frames that come back: first position, number of events, payload.
pub(crate) fn frames(wal: &Wal<SimDisk>) -> Vec<(u64, u32, Vec<u8>)> {
    let mut frames = Vec::new();
    let each = |f: Frame<'_>| -> Result<(), std::convert::Infallible> {
        frames.push((f.first_position, f.event_count, f.payload.to_vec()));
        Ok(())
    };
    wal.replay(each).expect("it reads back");
    frames
}

pub(crate) fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|p| p.extension().is_some_and(|e| e == "wal")).collect()
}
