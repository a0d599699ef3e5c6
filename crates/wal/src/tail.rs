//! The end of a wal that was not ended: what a crash in the middle of a write left, and a last frame that may not be durable.

use crate::disk::{Disk, DiskFile};
use crate::error::{OpenError, is_full};
use crate::log::{TornTail, io_error};
use crate::scan::Scan;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// There is a later segment.
pub(crate) struct Later;

/// What follows the last valid frame: nothing, a torn tail, or damage.
pub(crate) fn torn_tail<F: DiskFile>(
    scan: &mut Scan<'_, F>,
    path: &Path,
    later: Option<Later>,
) -> Result<Option<(PathBuf, u64, Vec<u8>)>, OpenError> {
    let Some(last) = scan.rest()? else {
        return Ok(None);
    };
    let offset = scan.offset;
    if let Some(after) = scan.valid_frame_after()? {
        return Err(scan.corrupt(offset, format!("an invalid frame is followed by a valid one at offset {after}")));
    }
    if scan.ended {
        return Err(scan.corrupt(offset, "there are bytes after the end that a clean stop wrote".to_owned()));
    }
    if later.is_some() {
        return Err(scan.corrupt(offset, "an invalid frame is followed by a later segment".to_owned()));
    }
    Ok(Some((path.to_owned(), offset, scan.bytes_up_to(last)?)))
}

pub(crate) struct Tail<'a> {
    pub(crate) path: &'a Path,
    pub(crate) offset: u64,
    pub(crate) bytes: &'a [u8],
}

/// Moves a torn tail aside, durably, to a name that none of `taken` is, then cuts it off.
pub(crate) fn cut<D: Disk>(disk: &D, dir: &Path, tail: Tail<'_>, taken: &[String]) -> Result<TornTail, OpenError> {
    let name = tail.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    // A segment without a frame gives its name to the next one.
    let names = (1..).map(|n| match n {
        1 => format!("{name}.{}.torn", tail.offset),
        n => format!("{name}.{}-{n}.torn", tail.offset),
    });
    let moved_to = dir.join(names.into_iter().find(|name| !taken.contains(name)).unwrap_or_default());
    // The zeros behind the tail are let go first: on a full disk they are the room that moving it needs.
    let torn = disk.open(tail.path).map_err(io_error("open", tail.path))?;
    let end = tail.offset + tail.bytes.len() as u64;
    torn.set_bytes(end).and_then(|()| torn.sync_data()).map_err(io_error("cut", tail.path))?;
    let aside = || -> io::Result<()> {
        let file = disk.create(&moved_to, 0)?;
        file.write_at(tail.bytes, 0)?;
        file.sync_data()?;
        disk.sync_dir(dir)
    };
    aside().map_err(io_error("write", &moved_to))?;
    torn.set_bytes(tail.offset).and_then(|()| torn.sync_data()).map_err(io_error("cut", tail.path))?;
    Ok(TornTail { file: tail.path.to_owned(), offset: tail.offset, bytes: tail.bytes.len() as u64, moved_to })
}

/// Writes the last frame once more, and syncs it: all before it was synced before it was written. The last run may have been killed before its sync,
/// or the sync may have failed: then what is read is in memory alone, for good, as the system takes it for written. What a start believes
/// has to outlive a power cut.
pub(crate) fn write_again<D: Disk>(disk: &D, path: &Path, frame: Range<u64>) -> Result<(), OpenError> {
    let again = || -> io::Result<()> {
        let file = disk.open(path)?;
        let mut bytes = vec![0; (frame.end - frame.start) as usize];
        let read = file.read_at(&mut bytes, frame.start)?;
        match file.write_at(&bytes[..read], frame.start) {
            // A file system that never writes in place has no room for it: what was not tried to be synced is.
            Err(error) if is_full(&error) => {}
            written => written?,
        }
        file.sync_data()
    };
    again().map_err(io_error("write", path))
}
