//! Checksums of data files: Parquet pages have none, and of what a decompressor takes for good much is not what was written.
//!
//! ```text
//! body    row groups and filters of ids: a CRC32C for each block of 32 KiB
//! tail    these checksums, then page index and footer, in which is a CRC32C of the tail: `catchment.crc32c`
//! ```
//!
//! Other readers pass over them. Whoever reads a block here reads the whole of it and checks it; a file of a program of before, which has none, is
//! read as it is.

use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use parquet::file::metadata::{FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter};
use std::io::{self, Write};
use std::ops::Range;

/// Bytes that have a checksum together: what is read at least, so that it can be checked.
pub(crate) const BLOCK_BYTES: u64 = 32 << 10;
/// The key in the footer.
pub(crate) const KEY: &str = "catchment.crc32c";
/// The value: `1:<checksum of the tail>:<where the tail begins>`, in sixteenths. The checksum is made with zeros in its own place.
const VERSION: &str = "1:";
const CRC_DIGITS: usize = 8;
const BODY_DIGITS: usize = 16;
/// The key is no further from the end of the file than this: behind it are the program's name and the order of the columns.
const SEARCHED_BYTES: u64 = 16 << 10;

/// A sink that makes the checksums of what goes through it.
#[derive(Debug)]
pub struct Summed<W> {
    sink: W,
    body_bytes: u64,
    block: u32,
    table: Vec<u8>,
    /// What comes behind the body is kept until its checksum is known.
    tail: Option<Vec<u8>>,
}

/// Ends a Parquet file that was written into such a sink, with its checksums.
///
/// # Errors
/// Its last bytes could not be written.
pub fn finish_summed<W: Write + Send>(mut writer: ArrowWriter<Summed<W>>) -> parquet::errors::Result<W> {
    writer.flush()?;
    writer.sync()?;
    let (table, value) = writer.inner_mut().end_body();
    writer.write_all(&table)?;
    // The last of these: it is looked for from the end of the file.
    writer.append_key_value_metadata(KeyValue::new(KEY.to_owned(), value));
    Ok(writer.into_inner()?.finish()?)
}

impl<W: Write> Summed<W> {
    /// One whose bytes go on to `sink`.
    pub fn new(sink: W) -> Self {
        Self { sink, body_bytes: 0, block: 0, table: Vec::new(), tail: None }
    }

    /// Ends the body. What is returned is written next; the value belongs into the footer, under [`KEY`].
    pub(crate) fn end_body(&mut self) -> (Vec<u8>, String) {
        if !self.body_bytes.is_multiple_of(BLOCK_BYTES) {
            self.table.extend(self.block.to_le_bytes());
        }
        self.tail = Some(Vec::new());
        let value = format!("{VERSION}{:0CRC_DIGITS$x}:{:0BODY_DIGITS$x}", 0, self.body_bytes);
        (std::mem::take(&mut self.table), value)
    }

    /// Writes the tail, and gives the sink back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        if let Some(mut tail) = self.tail.take() {
            let crc = crc32c::crc32c(&tail);
            let at = crc_at(&tail).ok_or_else(|| io::Error::other("the footer has no place for its checksum"))?;
            tail[at..at + CRC_DIGITS].copy_from_slice(format!("{crc:0CRC_DIGITS$x}").as_bytes());
            self.sink.write_all(&tail)?;
        }
        Ok(self.sink)
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(tail) = &mut self.tail {
            tail.extend(bytes);
            return Ok(bytes.len());
        }
        let room = (BLOCK_BYTES - self.body_bytes % BLOCK_BYTES) as usize;
        let written = self.sink.write(&bytes[..bytes.len().min(room)])?;
        self.block = crc32c::crc32c_append(self.block, &bytes[..written]);
        self.body_bytes += written as u64;
        if written > 0 && self.body_bytes.is_multiple_of(BLOCK_BYTES) {
            self.table.extend(self.block.to_le_bytes());
            self.block = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// A Parquet file that somebody else wrote, with checksums.
pub(crate) fn with_sums(file: &[u8]) -> parquet::errors::Result<Vec<u8>> {
    let bytes = Bytes::copy_from_slice(file);
    let footer = ParquetMetaDataReader::new().parse_and_finish(&bytes)?;
    let length = bytes.len().checked_sub(8).map(|at| &bytes[at..at + 4]).unwrap_or_default();
    let length = length.try_into().map(u32::from_le_bytes).unwrap_or(u32::MAX) as usize;
    let body = bytes.len().checked_sub(8 + length).ok_or(ParquetError::EOF("it has no footer".to_owned()))?;
    let mut sink = Summed::new(Vec::with_capacity(bytes.len() + bytes.len() / 4096));
    sink.write_all(&bytes[..body])?;
    let (table, value) = sink.end_body();
    sink.write_all(&table)?;
    let told = footer.file_metadata();
    let mut notes = told.key_value_metadata().cloned().unwrap_or_default();
    notes.push(KeyValue::new(KEY.to_owned(), value));
    let told = FileMetaData::new(
        told.version(),
        told.num_rows(),
        told.created_by().map(str::to_owned),
        Some(notes),
        told.schema_descr_ptr(),
        told.column_orders().cloned(),
    );
    let footer = ParquetMetaData::new(told, footer.row_groups().to_vec());
    ParquetMetaDataWriter::new(&mut sink, &footer).finish()?;
    Ok(sink.finish()?)
}

/// Where in these bytes the checksum of the tail stands; none when they have no such key.
fn crc_at(bytes: &[u8]) -> Option<usize> {
    let pattern = pattern();
    let key = bytes.windows(pattern.len()).rposition(|some| some == pattern)?;
    Some(key + pattern.len()).filter(|at| at + CRC_DIGITS + 1 + BODY_DIGITS <= bytes.len())
}

/// Whether they have what was the key, with some other bytes in it.
fn has_broken_key(bytes: &[u8]) -> bool {
    let pattern = pattern();
    bytes.windows(pattern.len()).any(|some| is_nearly(some, &pattern))
}

/// What stands before the checksum, as Thrift writes it: a text of 16 bytes, a text of 27, which begins with the version.
fn pattern() -> Vec<u8> {
    let mut pattern = vec![0x18, KEY.len() as u8];
    pattern.extend(KEY.as_bytes());
    pattern.extend([0x18, (VERSION.len() + CRC_DIGITS + 1 + BODY_DIGITS) as u8]);
    pattern.extend(VERSION.as_bytes());
    pattern
}

/// Whether one of these was the other before up to a quarter of its bytes changed. Nothing that is written looks so by chance.
pub(crate) fn is_nearly(bytes: &[u8], other: &[u8]) -> bool {
    bytes.len() == other.len() && 4 * bytes.iter().zip(other).filter(|(a, b)| a != b).count() <= other.len()
}

/// The checksums of one file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sums {
    body_bytes: u64,
    table: Vec<u32>,
}

/// What a file of `file_bytes` bytes is read with.
pub(crate) trait ReadAt {
    fn read_range(&self, range: Range<u64>) -> io::Result<Bytes>;
}

impl Sums {
    /// Reads and checks the tail; none when the file was written without checksums.
    pub(crate) fn read(file: &impl ReadAt, file_bytes: u64) -> io::Result<Option<Self>> {
        let searched = file_bytes.saturating_sub(SEARCHED_BYTES);
        let end = file.read_range(searched..file_bytes)?;
        let Some(at) = crc_at(&end) else {
            // A file without checksums has no key either: where it is broken, they are not left out.
            return if has_broken_key(&end) { Err(damaged(searched..file_bytes)) } else { Ok(None) };
        };
        let digits = |from: usize, count: usize| {
            let text = end.get(from..from + count).and_then(|text| std::str::from_utf8(text).ok());
            let text = text.filter(|text| !text.bytes().any(|byte| byte.is_ascii_uppercase()));
            text.and_then(|text| u64::from_str_radix(text, 16).ok())
        };
        let broken = || damaged(searched..file_bytes);
        let crc = digits(at, CRC_DIGITS).ok_or_else(broken)?;
        let body_bytes = digits(at + CRC_DIGITS + 1, BODY_DIGITS).ok_or_else(broken)?;
        let count = body_bytes.div_ceil(BLOCK_BYTES);
        let begins = searched + at as u64;
        if body_bytes > begins || 4 * count > begins - body_bytes {
            return Err(broken());
        }
        let mut tail = file.read_range(body_bytes..file_bytes)?.to_vec();
        let place = (begins - body_bytes) as usize;
        tail[place..place + CRC_DIGITS].fill(b'0');
        if u64::from(crc32c::crc32c(&tail)) != crc {
            return Err(damaged(body_bytes..file_bytes));
        }
        let table = tail.chunks_exact(4).take(count as usize);
        let table = table.map(|sum| u32::from_le_bytes(sum.try_into().expect("four bytes"))).collect();
        Ok(Some(Self { body_bytes, table }))
    }

    pub(crate) fn blocks(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Reads a range that begins and ends in the body, with the whole blocks that it touches.
    pub(crate) fn read_body(&self, file: &impl ReadAt, range: Range<u64>) -> io::Result<Bytes> {
        let first = range.start / BLOCK_BYTES;
        let from = first * BLOCK_BYTES;
        let until = range.end.next_multiple_of(BLOCK_BYTES).min(self.body_bytes);
        let bytes = file.read_range(from..until)?;
        for (n, block) in bytes.chunks(BLOCK_BYTES as usize).enumerate() {
            if self.table.get(first as usize + n) != Some(&crc32c::crc32c(block)) {
                let at = from + n as u64 * BLOCK_BYTES;
                return Err(damaged(at..at + block.len() as u64));
            }
        }
        Ok(bytes.slice((range.start - from) as usize..(range.end - from) as usize))
    }
}

fn damaged(range: Range<u64>) -> io::Error {
    let what = format!("bytes {} to {} are not what was written", range.start, range.end - 1);
    io::Error::new(io::ErrorKind::InvalidData, what)
}
