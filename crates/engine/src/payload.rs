//! What a frame of the log holds: one group as Arrow IPC, with the keys of its events. `docs/FORMAT.md` describes it.
//!
//! It promises that what `encode` wrote, `decode` gives back equal, and that foreign or damaged bytes are an error, never
//! a panic and never rows. Positions are not in it: they follow from the frame's first position.

use arrow::record_batch::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use event::Key;
use std::io::Cursor;

/// Version of this layout, the first byte of every payload.
const VERSION: u8 = 1;
/// Version, compression, two bytes of zero, length of the keys, length of the rows before compression.
const HEADER_BYTES: usize = 12;
/// Smaller rows are left as they are.
const COMPRESS_FROM_BYTES: usize = 4096;
/// The fastest regular level: about 4 to 1 on sensor readings.
const ZSTD_LEVEL: i32 = 1;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// Why a payload could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PayloadError {
    #[error("payload version {0} is not known to this program")]
    Version(u8),
    #[error("payload is cut short")]
    Short,
    #[error("compression {0} is not known to this program")]
    Compression(u8),
    #[error("rows do not decompress: {0}")]
    Decompress(#[source] std::io::Error),
    #[error("rows are not Arrow IPC: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    #[error("the payload holds no rows")]
    NoRows,
    #[error("keys do not decode: {0}")]
    Keys(String),
}

/// Writes groups as payloads; holds the buffers and the compressor that are used again for each.
pub(crate) struct Encoder {
    rows: Vec<u8>,
    payload: Vec<u8>,
    zstd: zstd::bulk::Compressor<'static>,
}

impl Encoder {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { rows: Vec::new(), payload: Vec::new(), zstd: zstd::bulk::Compressor::new(ZSTD_LEVEL)? })
    }

    /// The payload of a group: `rows` without positions, one entry of `keys` for each row.
    pub(crate) fn encode(&mut self, rows: &RecordBatch, keys: &[Option<Key>]) -> Result<&[u8], PayloadError> {
        self.rows.clear();
        let mut writer =
            StreamWriter::try_new_with_options(&mut self.rows, &rows.schema(), IpcWriteOptions::default())?;
        writer.write(rows)?;
        writer.finish()?;
        drop(writer);
        let keys = event::keys_to_bytes(keys);
        let compress = self.rows.len() >= COMPRESS_FROM_BYTES;
        self.payload.clear();
        self.payload.extend([VERSION, if compress { ZSTD } else { PLAIN }, 0, 0]);
        self.payload.extend(length(keys.len()).to_le_bytes());
        self.payload.extend(length(self.rows.len()).to_le_bytes());
        self.payload.extend(&keys);
        if compress {
            let start = self.payload.len();
            self.payload.resize(start + zstd::zstd_safe::compress_bound(self.rows.len()), 0);
            let written = self
                .zstd
                .compress_to_buffer(&self.rows, &mut self.payload[start..])
                .map_err(PayloadError::Decompress)?;
            self.payload.truncate(start + written);
        } else {
            self.payload.extend(&self.rows);
        }
        let keep_bytes_max = 8 << 20;
        if self.rows.capacity() > keep_bytes_max {
            self.rows = Vec::new();
        }
        Ok(&self.payload)
    }

    /// Gives back the memory of an unusually large group.
    pub(crate) fn shrink(&mut self) {
        let keep_bytes_max = 8 << 20;
        if self.payload.capacity() > keep_bytes_max {
            self.payload = Vec::new();
        }
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a group is bounded far below 4 GiB")
}

/// Reads a payload back: the rows without positions, and one key or none for each.
pub(crate) fn decode(payload: &[u8]) -> Result<(RecordBatch, Vec<Option<Key>>), PayloadError> {
    let (header, body) = payload.split_at_checked(HEADER_BYTES).ok_or(PayloadError::Short)?;
    if header[0] != VERSION {
        return Err(PayloadError::Version(header[0]));
    }
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes")) as usize;
    let (keys, rows) = body.split_at_checked(word(4)).ok_or(PayloadError::Short)?;
    let batch = match header[1] {
        PLAIN => rows_of(rows)?,
        ZSTD => rows_of(&zstd::bulk::decompress(rows, word(8)).map_err(PayloadError::Decompress)?)?,
        other => return Err(PayloadError::Compression(other)),
    };
    let keys = event::keys_from_bytes(keys, batch.num_rows()).map_err(|e| PayloadError::Keys(e.to_string()))?;
    Ok((batch, keys))
}

fn rows_of(bytes: &[u8]) -> Result<RecordBatch, PayloadError> {
    StreamReader::try_new(Cursor::new(bytes), None)?.next().ok_or(PayloadError::NoRows)?.map_err(PayloadError::from)
}
