//! Key files: what remains of a trimmed segment for finding duplicates. The wal keeps their bytes, not their meaning.

use crate::disk::{Disk, DiskFile};
use crate::error::OpenError;
use crate::format::{u32_at, u64_at};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"CATCHKEY";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 36;

/// The keys of a range of positions whose frames are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// First position of the range.
    pub first: u64,
    /// Last position of the range.
    pub last: u64,
    /// What the caller wrote.
    pub bytes: Vec<u8>,
}

/// The name of a key file.
pub(crate) fn name(first: u64, last: u64) -> String {
    format!("{first:020}-{last:020}.keys")
}

/// The range in a key file's name.
pub(crate) fn range(name: &str) -> Option<(u64, u64)> {
    let (first, last) = name.strip_suffix(".keys")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// Writes a key file durably under its name.
pub(crate) fn write<D: Disk>(disk: &D, dir: &Path, keys: &KeyFile) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + keys.bytes.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&keys.first.to_le_bytes());
    bytes.extend_from_slice(&keys.last.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(keys.bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), &keys.bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&keys.bytes);
    let path = dir.join(name(keys.first, keys.last));
    let staged = path.with_extension("keys.new");
    let file = disk.create(&staged, 0)?;
    file.write_at(&bytes, 0)?;
    file.sync_data()?;
    disk.rename(&staged, &path)?;
    disk.sync_dir(dir)
}

/// Reads a key file.
pub(crate) fn read<D: Disk>(disk: &D, path: PathBuf) -> Result<KeyFile, OpenError> {
    let io = |source| OpenError::Io { action: "read", path: path.clone(), source };
    let file = disk.open_to_read(&path).map_err(io)?;
    let mut bytes = vec![0; file.bytes().map_err(io)? as usize];
    let read = file.read_at(&mut bytes, 0).map_err(io)?;
    let damaged = |what: &str| OpenError::Corrupt { file: path.clone(), offset: 0, what: what.to_owned(), saved: None };
    if read != bytes.len() || bytes.len() < HEADER_BYTES || bytes[..8] != MAGIC {
        return Err(damaged("it does not begin as a key file does"));
    }
    let (header, body) = bytes.split_at(HEADER_BYTES);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..HEADER_BYTES - 4]), body);
    if crc != u32_at(header, HEADER_BYTES - 4) {
        return Err(damaged("the checksum of the key file does not hold"));
    }
    if u32_at(header, 8) != VERSION {
        return Err(OpenError::Version { file: path, found: u32_at(header, 8), known: VERSION });
    }
    Ok(KeyFile { first: u64_at(header, 12), last: u64_at(header, 20), bytes: body.to_vec() })
}
