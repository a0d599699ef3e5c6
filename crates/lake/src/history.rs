//! Checksums of the log of the table: a commit has its own in its `commitInfo`, a checkpoint is a Parquet file with [checksums](crate::sums) as
//! data files have them. What a program of before wrote has none.

use crate::sums::{self, is_nearly};
use object_store::path::Path as StorePath;
use std::io;

/// How a commit begins that says who made it.
const INFO: &[u8] = b"{\"commitInfo\":{";
/// What stands next in one of ours; eight digits in base 16 and a quotation mark follow. The checksum is of the whole file, with zeros in its place.
const KEY: &[u8] = b"\"catchment.crc32c\":\"";
const ZEROS: &[u8; 8] = b"00000000";

/// What a file of the table's folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A version of the table.
    Commit,
    /// All that the table has at a version.
    Checkpoint,
    /// Anything else.
    Other,
}

/// What lies at this place.
pub(crate) fn kind(location: &StorePath) -> Kind {
    let name = location.filename().unwrap_or_default();
    let is_of_log = location.parts().rev().nth(1).is_some_and(|folder| folder.as_ref() == "_delta_log");
    match name.split_once('.') {
        Some((version, "json")) if is_of_log && version.parse::<u64>().is_ok() => Kind::Commit,
        Some((version, "checkpoint.parquet")) if is_of_log && version.parse::<u64>().is_ok() => Kind::Checkpoint,
        _ => Kind::Other,
    }
}

/// What is stored of a file of this kind.
pub(crate) fn with_checksums(kind: Kind, bytes: Vec<u8>) -> Vec<u8> {
    match kind {
        Kind::Commit => with_checksum(bytes),
        Kind::Checkpoint => sums::with_sums(&bytes).unwrap_or(bytes),
        Kind::Other => bytes,
    }
}

fn with_checksum(commit: Vec<u8>) -> Vec<u8> {
    let Some(info) = info_of(&commit) else {
        return commit;
    };
    let mut summed = Vec::with_capacity(commit.len() + KEY.len() + ZEROS.len() + 2);
    summed.extend(&commit[..info]);
    summed.extend(KEY);
    let at = summed.len();
    summed.extend(ZEROS);
    summed.extend(b"\"");
    if commit.get(info) != Some(&b'}') {
        summed.push(b',');
    }
    summed.extend(&commit[info..]);
    let crc = format!("{:08x}", crc32c::crc32c(&summed));
    summed[at..at + ZEROS.len()].copy_from_slice(crc.as_bytes());
    summed
}

/// Checks a commit that was read.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`]: it is not what was written.
pub(crate) fn check(commit: &[u8]) -> io::Result<()> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "its checksum does not hold");
    let Some(info) = info_of(commit).filter(|info| commit[*info..].starts_with(KEY)) else {
        // One of ours begins with both: where they are broken, the checksum is not left out.
        let begin = [INFO, KEY].concat();
        let is_broken = commit.len() < begin.len() || is_nearly(&commit[..begin.len()], &begin);
        return if is_broken { Err(damaged()) } else { Ok(()) };
    };
    let at = info + KEY.len();
    let written = commit.get(at..at + ZEROS.len()).ok_or_else(damaged)?;
    let mut bytes = commit.to_vec();
    bytes[at..at + ZEROS.len()].copy_from_slice(ZEROS);
    if written == format!("{:08x}", crc32c::crc32c(&bytes)).as_bytes() { Ok(()) } else { Err(damaged()) }
}

/// Where what the commit says of itself begins.
fn info_of(commit: &[u8]) -> Option<usize> {
    let mut line = 0;
    loop {
        if commit[line..].starts_with(INFO) {
            return Some(line + INFO.len());
        }
        line += commit[line..].iter().position(|byte| *byte == b'\n')? + 1;
    }
}
