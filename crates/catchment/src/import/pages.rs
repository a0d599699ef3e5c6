//! How large the pages of a Parquet file say that they are, before any is read: a few bytes of a file can become gigabytes in memory.
//!
//! Only the headers of the pages are read (Thrift's compact protocol, as parquet.thrift of the Apache Parquet format has `PageHeader`).

use anyhow::{Context, ensure};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::reader::ChunkReader;

/// The pages that a reader holds at once, one of each column and its dictionary, have no more bytes than this.
const PAGES_BYTES_MAX: u64 = 256 << 20;
/// Bytes of a header: few, but for statistics of long texts.
const HEADER_BYTES: u64 = 512;
const HEADER_BYTES_MAX: u64 = 1 << 20;
/// The encoding of which a value may be as long as the whole page: it repeats the begin of the one before.
const DELTA_BYTE_ARRAY: i64 = 7;
/// The kinds of pages.
const DATA: i64 = 0;
const DICTIONARY: i64 = 2;
const DATA_V2: i64 = 3;
/// Structs in structs.
const DEPTH_MAX: u32 = 8;

/// The bytes that a row may take, as the pages say.
///
/// # Errors
/// The pages are larger than those of any export, or are no pages.
pub(super) fn row_bytes_max(file: &impl ChunkReader, metadata: &ParquetMetaData) -> anyhow::Result<u64> {
    let mut row_bytes_max = 0;
    for (n, group) in metadata.row_groups().iter().enumerate() {
        let (mut pages, mut row) = (0, 0);
        for column in group.columns() {
            let name = column.column_path().string();
            let found = of_column(file, column).with_context(|| format!("the pages of the column {name:?}"))?;
            (pages, row) = (pages + found.pages_bytes, row + found.value_bytes);
        }
        ensure!(
            pages <= PAGES_BYTES_MAX,
            "row group {} takes {} MiB to be read, and an export takes no more than {} MiB: write the file anew with smaller pages",
            n + 1,
            pages >> 20,
            PAGES_BYTES_MAX >> 20
        );
        row_bytes_max = row_bytes_max.max(row);
    }
    Ok(row_bytes_max)
}

/// What the pages of a column take.
#[derive(Default)]
struct Pages {
    /// The largest page of values, and the dictionary.
    pages_bytes: u64,
    /// A value, where it cannot be told the mean one of its page.
    value_bytes: u64,
}

fn of_column(file: &impl ChunkReader, column: &ColumnChunkMetaData) -> anyhow::Result<Pages> {
    let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
    let [start, bytes] = [start, column.compressed_size()].map(|number| u64::try_from(number).unwrap_or(u64::MAX));
    let end =
        start.checked_add(bytes).filter(|end| *end <= file.len()).context("they lie behind the end of the file")?;
    let (mut at, mut data, mut dictionary, mut value_bytes) = (start, 0, 0, 0);
    while at < end {
        let (header, length) = header(file, at, end)?;
        match header.kind {
            DATA | DATA_V2 => {
                data = header.bytes.max(data);
                let values = if header.encoding == DELTA_BYTE_ARRAY { 1 } else { header.values.max(1) };
                value_bytes = header.bytes.div_ceil(values).max(value_bytes);
            }
            DICTIONARY => {
                dictionary = header.bytes.max(dictionary);
                value_bytes = header.bytes.max(value_bytes);
            }
            _ => {}
        }
        at += length + header.stored_bytes;
    }
    Ok(Pages { pages_bytes: data + dictionary, value_bytes })
}

/// The header at a place, with how many bytes it has.
fn header(file: &impl ChunkReader, at: u64, end: u64) -> anyhow::Result<(Header, u64)> {
    for most in [HEADER_BYTES, HEADER_BYTES_MAX] {
        let bytes = file.get_bytes(at, usize::try_from(most.min(end - at)).unwrap_or(0))?;
        let mut thrift = Thrift { bytes: &bytes, at: 0 };
        if let Some(header) = Header::read(&mut thrift) {
            return Ok((header, thrift.at as u64));
        }
    }
    anyhow::bail!("there is none at byte {at}")
}

/// What is known of a page before it is read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Header {
    kind: i64,
    bytes: u64,
    stored_bytes: u64,
    values: u64,
    encoding: i64,
}

impl Header {
    fn read(thrift: &mut Thrift<'_>) -> Option<Self> {
        let (mut kind, mut bytes, mut stored, mut values, mut encoding) = (None, None, None, 0, 0);
        thrift.fields(|thrift, field, wire| {
            match field {
                1 => kind = Some(thrift.integer(wire)?),
                2 => bytes = Some(thrift.integer(wire)?),
                3 => stored = Some(thrift.integer(wire)?),
                // Of a page of values, of a dictionary, and of a page of values of the second version.
                5 | 7 | 8 if wire == STRUCT => thrift.fields(|thrift, inner, wire| {
                    match (field, inner) {
                        (_, 1) => values = thrift.integer(wire)?,
                        (5 | 7, 2) | (8, 4) => encoding = thrift.integer(wire)?,
                        _ => thrift.skip(wire, DEPTH_MAX)?,
                    }
                    Some(())
                })?,
                _ => thrift.skip(wire, DEPTH_MAX)?,
            }
            Some(())
        })?;
        let number = |value: i64| i32::try_from(value).ok().and_then(|value| u64::try_from(value).ok());
        Some(Self {
            kind: kind?,
            bytes: number(bytes?)?,
            stored_bytes: number(stored?)?,
            values: number(values)?,
            encoding,
        })
    }
}

const STRUCT: u8 = 12;

/// Bytes in Thrift's compact protocol. None: they are not, or break off.
struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn integer(&mut self, wire: u8) -> Option<i64> {
        let value = match wire {
            4..=6 => self.varint()?,
            _ => return None,
        };
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// The fields of a struct, each with its number and its kind.
    fn fields(&mut self, mut each: impl FnMut(&mut Self, i64, u8) -> Option<()>) -> Option<()> {
        let mut field = 0;
        loop {
            let byte = self.byte()?;
            if byte == 0 {
                return Some(());
            }
            field = match byte >> 4 {
                0 => self.integer(4)?,
                delta => field + i64::from(delta),
            };
            each(self, field, byte & 0x0f)?;
        }
    }

    fn skip(&mut self, wire: u8, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match wire {
            // True and false are in the kind.
            1 | 2 => {}
            3 => self.pass(1)?,
            4..=6 => self.varint().map(|_| ())?,
            7 => self.pass(8)?,
            8 => {
                let bytes = self.varint()?;
                self.pass(bytes)?;
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                for _ in 0..count {
                    match head & 0x0f {
                        // In a list a truth takes a byte.
                        1 | 2 => self.pass(1)?,
                        wire => self.skip(wire, depth)?,
                    }
                }
            }
            STRUCT => self.fields(|thrift, _, wire| thrift.skip(wire, depth))?,
            _ => return None,
        }
        Some(())
    }

    fn pass(&mut self, bytes: u64) -> Option<()> {
        self.at = self.at.checked_add(usize::try_from(bytes).ok()?).filter(|at| *at <= self.bytes.len())?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, RecordBatch, StringArray};
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;
    use parquet::basic::{Compression, Encoding, ZstdLevel};
    use parquet::file::metadata::ParquetMetaDataReader;
    use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
    use std::sync::Arc;

    /// A file of one column of texts.
    fn file(texts: &[String], with: impl FnOnce(WriterPropertiesBuilder) -> WriterPropertiesBuilder) -> Bytes {
        let column: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
        let batch = RecordBatch::try_from_iter([("data", column)]).expect("a batch");
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
        let properties = with(properties).build();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).expect("a writer");
        writer.write(&batch).expect("written");
        writer.into_inner().expect("ended").into()
    }

    fn looked(file: &Bytes) -> anyhow::Result<u64> {
        let metadata = ParquetMetaDataReader::new().parse_and_finish(file).expect("a footer");
        row_bytes_max(file, &metadata)
    }

    #[test]
    fn what_a_row_may_take_is_known_by_the_headers_of_the_pages() {
        let texts: Vec<String> = (0..10_000).map(|n| format!("{n:0100}")).collect();
        let plain = |properties: WriterPropertiesBuilder| properties.set_dictionary_enabled(false);
        let bytes = looked(&file(&texts, plain)).expect("small");
        assert!((104..110).contains(&bytes), "{bytes}");
        let v2 = |properties: WriterPropertiesBuilder| {
            let second = parquet::file::properties::WriterVersion::PARQUET_2_0;
            plain(properties).set_writer_version(second).set_encoding(Encoding::DELTA_BYTE_ARRAY)
        };
        let bytes = looked(&file(&texts, v2)).expect("small");
        assert!(bytes > 10_000, "a value may be as long as its page: {bytes}");
        let few: Vec<String> = (0..200).map(|n| if n % 2 == 0 { "x".repeat(5000) } else { "y".to_owned() }).collect();
        let bytes = looked(&file(&few, |properties| properties)).expect("small");
        assert!((5000..6000).contains(&bytes), "a value may be all of the dictionary: {bytes}");
    }

    #[test]
    fn pages_that_would_fill_the_memory_are_refused_before_they_are_read() {
        let texts = vec!["0".repeat(1 << 20); 300];
        let large = file(&texts, |properties| {
            properties.set_dictionary_enabled(false).set_data_page_size_limit(1 << 30).set_write_batch_size(1000)
        });
        assert!(large.len() < 1 << 20, "{} bytes", large.len());
        let refused = looked(&large).expect_err("too large").to_string();
        assert!(refused.contains("row group 1 takes 300 MiB") && refused.contains("smaller pages"), "{refused}");
    }

    #[test]
    fn what_is_no_header_is_none() {
        for bytes in [&[][..], &[0], &[0x15], &[0x15, 0, 0x15], &[0xff; 40], &[0x15, 1, 0x15, 1, 0x15, 1, 0]] {
            assert_eq!(Header::read(&mut Thrift { bytes, at: 0 }), None, "{bytes:?}");
        }
        let header =
            Header::read(&mut Thrift { bytes: &[0x15, 0, 0x15, 20, 0x15, 10, 0x2c, 0x15, 4, 0x15, 14, 0, 0], at: 0 });
        assert_eq!(header, Some(Header { kind: 0, bytes: 10, stored_bytes: 5, values: 2, encoding: 7 }));
    }
}
