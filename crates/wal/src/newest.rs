//! The file `newest`: which segment was begun last, and how many bytes it has. Without it a wal whose last segment was removed or cut looks like
//! one that ended there.
//!
//! It is written when the segment has its name for good, and before its first frame: it never names a segment that a power cut can take away.
//! It goes before the wal itself cuts a segment, and comes again with the next one.

use crate::disk::{Disk, DiskFile};
use crate::error::OpenError;
use crate::format::{SegmentHeader, u32_at, u64_at, uuid_at};
use crate::log::io_error;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

const NAME: &str = "newest";
const MAGIC: [u8; 8] = *b"CATCHNEW";
const VERSION: u32 = 1;
const BYTES: usize = 64;

/// The segment that was begun last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Newest {
    pub(crate) wal_id: Uuid,
    segment_id: Uuid,
    pub(crate) first_position: u64,
    /// All of the file, as space was taken for it.
    pub(crate) bytes: u64,
}

/// The last segment that is there.
pub(crate) struct Last {
    pub(crate) first_position: u64,
    /// Nil when its header is gone.
    pub(crate) segment_id: Uuid,
    pub(crate) bytes: u64,
    pub(crate) is_ended: bool,
}

/// What of the newest segment is not there.
pub(crate) enum Missing {
    File,
    End(String),
}

impl Missing {
    pub(crate) fn what(self) -> String {
        match self {
            Self::File => "the segment is missing, and events may have been in it".to_owned(),
            Self::End(what) => what,
        }
    }
}

impl Newest {
    pub(crate) fn of(header: &SegmentHeader, bytes: u64) -> Self {
        let SegmentHeader { wal_id, segment_id, first_position, .. } = *header;
        Self { wal_id, segment_id, first_position, bytes }
    }

    /// What is missing of a wal whose last segment is this one.
    pub(crate) fn missing(&self, last: Option<&Last>) -> Option<Missing> {
        let Some(last) = last.filter(|last| last.first_position >= self.first_position) else {
            return Some(Missing::File);
        };
        // Another one of the same position is one that was begun anew, before it had a frame. After an end nothing is written.
        let is_it = last.segment_id == self.segment_id || last.segment_id.is_nil();
        let is_cut = is_it && !last.is_ended && last.bytes < self.bytes;
        is_cut.then(|| {
            let Last { bytes, .. } = last;
            Missing::End(format!("the file has {bytes} bytes, and had {}: its end was cut off", self.bytes))
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(self.wal_id.as_bytes());
        bytes.extend_from_slice(self.segment_id.as_bytes());
        bytes.extend_from_slice(&self.first_position.to_le_bytes());
        bytes.extend_from_slice(&self.bytes.to_le_bytes());
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// Where it lies.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

fn staged(dir: &Path) -> PathBuf {
    dir.join(format!("{NAME}.new"))
}

/// Reads it; none in a wal of a version before.
pub(crate) fn read<D: Disk>(disk: &D, dir: &Path) -> Result<Option<Newest>, OpenError> {
    let path = path(dir);
    let file = match disk.open_to_read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(io_error("open", &path))?,
    };
    let mut bytes = [0; BYTES + 1];
    let read = file.read_at(&mut bytes, 0).map_err(io_error("read", &path))?;
    let what = "the checksum of the file does not hold".to_owned();
    let is_whole = read == BYTES && bytes[..8] == MAGIC;
    if !is_whole || crc32c::crc32c(&bytes[..BYTES - 4]) != u32_at(&bytes, BYTES - 4) {
        return Err(OpenError::Corrupt { file: path, offset: 0, what, saved: None });
    }
    let found = u32_at(&bytes, 8);
    if found != VERSION {
        return Err(OpenError::Version { file: path, found, known: VERSION });
    }
    let (wal_id, segment_id) = (uuid_at(&bytes, 12), uuid_at(&bytes, 28));
    Ok(Some(Newest { wal_id, segment_id, first_position: u64_at(&bytes, 44), bytes: u64_at(&bytes, 52) }))
}

/// Writes it beside its place: room for it is found before a segment is begun.
pub(crate) fn stage<D: Disk>(disk: &D, dir: &Path, newest: &Newest) -> io::Result<()> {
    let file = disk.create(&staged(dir), 0)?;
    file.write_at(&newest.encode(), 0)?;
    file.sync_data()
}

/// Removes what was staged.
pub(crate) fn unstage<D: Disk>(disk: &D, dir: &Path) {
    drop(disk.remove(&staged(dir)));
}

/// Puts what was staged into its place, when the segment has its name for good.
pub(crate) fn publish<D: Disk>(disk: &D, dir: &Path) -> io::Result<()> {
    disk.rename(&staged(dir), &path(dir))?;
    disk.sync_dir(dir)
}

/// Lets go of it: a segment is about to be cut.
pub(crate) fn forget<D: Disk>(disk: &D, dir: &Path) -> io::Result<()> {
    match disk.remove(&path(dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| disk.sync_dir(dir)),
    }
}
