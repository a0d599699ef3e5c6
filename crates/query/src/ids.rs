//! Which row groups of the lake's files may have an event that is asked for by its id.
//!
//! Each row group has a split block Bloom filter of its ids ([parquet-format, BloomFilter.md]), and all bits of an id are in one block of it. That
//! block is read, and the filter's header, not the filter: of a hundred thousand bytes the 32 KiB about each, which have a checksum together.
//!
//! [parquet-format, BloomFilter.md]: https://github.com/apache/parquet-format/blob/master/BloomFilter.md

use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::{Guarantee, LiteralGuarantee};
use lake::CheckedFile;
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use std::io;
use std::sync::Arc;
use xxhash_rust::xxh64::xxh64;

/// Each id is taken for one that is there by one filter in a hundred: of more ids nearly every row group has one.
const IDS_MAX: usize = 32;
/// A block, and the longest header before the first one.
const BLOCK_BYTES: u64 = 32;
const HEADER_BYTES: usize = 1 + VARINT_BYTES + HEADER_REST.len();
const VARINT_BYTES: usize = 5;
/// The header in Thrift's compact protocol: the size of all blocks as an i32, then that they are split blocks, of xxHash, not compressed.
const SIZE_FIELD: u8 = 0x15;
const HEADER_REST: [u8; 13] = [0x1c, 0x1c, 0, 0, 0x1c, 0x1c, 0, 0, 0x1c, 0x1c, 0, 0, 0];

/// The ids of which an event has to have one to be an answer; none when it may have any.
pub(crate) fn asked(predicate: &Arc<dyn PhysicalExpr>) -> Option<Vec<String>> {
    let of_id = |known: &LiteralGuarantee| known.column.name() == "id" && known.guarantee == Guarantee::In;
    let known = LiteralGuarantee::analyze(predicate).into_iter().find(of_id)?;
    let ids = known.literals.iter().map(|id| id.try_as_str().flatten().map(str::to_owned));
    let mut ids = ids.collect::<Option<Vec<_>>>().filter(|ids| ids.len() <= IDS_MAX)?;
    ids.sort();
    Some(ids)
}

/// Of each row group, whether it may have an event with one of these ids.
pub(crate) fn may_have(file: &CheckedFile, footer: &ParquetMetaData, ids: &[String]) -> io::Result<Vec<bool>> {
    footer.row_groups().iter().map(|group| one_may_have(file, group, ids)).collect()
}

fn one_may_have(file: &CheckedFile, group: &RowGroupMetaData, ids: &[String]) -> io::Result<bool> {
    let Some((start, blocks)) = filter_of_ids(file, group)? else {
        return Ok(true);
    };
    for id in ids {
        let block = (u128::from(xxh64(id.as_bytes(), 0) >> 32) * u128::from(blocks)) >> 32;
        let at = start + block as u64 * BLOCK_BYTES;
        let bits = file.read(at..at + BLOCK_BYTES)?;
        // A filter of this block alone answers as the whole one does.
        if Sbbf::new(&bits).check(id.as_str()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where the blocks of the filter begin, and how many there are; none when there is no such filter as is written here.
fn filter_of_ids(file: &CheckedFile, group: &RowGroupMetaData) -> io::Result<Option<(u64, u64)>> {
    let ids = group.columns().iter().find(|column| column.column_path().parts() == ["id"]);
    let place = ids.and_then(|column| column.bloom_filter_offset().zip(column.bloom_filter_length()));
    let Some((offset, length)) = place else {
        return Ok(None);
    };
    let (Ok(offset), Ok(length)) = (u64::try_from(offset), u64::try_from(length)) else {
        return Ok(None);
    };
    let mut header = [0; HEADER_BYTES];
    header.copy_from_slice(&file.read(offset..offset + HEADER_BYTES as u64)?);
    let is_whole =
        |(header, blocks): &(u64, u64)| *blocks > 0 && blocks % BLOCK_BYTES == 0 && header + blocks == length;
    let sizes = sizes(&header).filter(is_whole);
    Ok(sizes.map(|(header, blocks)| (offset + header, blocks / BLOCK_BYTES)))
}

/// The bytes of a header, and of the blocks behind it; none when it is another one than is written here.
fn sizes(header: &[u8; HEADER_BYTES]) -> Option<(u64, u64)> {
    let (kind, rest) = header.split_first()?;
    let mut zigzag = 0;
    for (n, byte) in rest.iter().take(VARINT_BYTES).enumerate() {
        zigzag |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            let is_known = *kind == SIZE_FIELD && zigzag.is_multiple_of(2) && rest[n + 1..].starts_with(&HEADER_REST);
            return is_known.then_some(((2 + n + HEADER_REST.len()) as u64, zigzag / 2));
        }
    }
    None
}

#[cfg(test)]
mod tests;
