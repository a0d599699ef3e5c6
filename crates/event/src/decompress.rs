//! Bodies that were compressed on the way: gzip, deflate and zstd, one after another if need be.
//!
//! It promises that no body grows beyond its bound, by size or by ratio, before it is refused: at most [`RATIO_MAX`] times its
//! length and 64 KiB. `deflate` is read with or without its zlib header, as senders disagree; zstd windows go up to 8 MiB (RFC 9659).

use crate::time::shortened;
use flate2::{Decompress, FlushDecompress, Status};
use std::io::{self, Read};

/// A body may grow to at most this many times its compressed length (and 64 KiB).
const RATIO_MAX: usize = 1000;
const SMALL_BYTES: usize = 64 << 10;
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
const ENCODINGS_MAX: usize = 3;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentEncoding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, or RFC 1951 without a header.
    Deflate,
    /// RFC 8878.
    Zstd,
}

/// A content encoding that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the content encoding {0:?} is not understood: send the body plain or with gzip, deflate or zstd, at most three of them"
)]
pub struct UnknownEncoding(pub String);

/// Why a body does not decompress.
#[derive(Debug, thiserror::Error)]
pub enum DecompressError {
    /// It would be larger than a body may be.
    #[error("the body is larger than {bytes_max} bytes when it is decompressed")]
    TooLarge {
        /// The bound that it passed.
        bytes_max: usize,
    },
    /// There is no memory for it now.
    #[error("there is no room for the decompressed body")]
    NoRoom,
    /// The compressed bytes are damaged or cut short.
    #[error("the body does not decompress as {encoding:?}: {source}")]
    Damaged {
        /// The encoding tried.
        encoding: ContentEncoding,
        /// What the decoder said.
        source: io::Error,
    },
}

/// The encodings that a `Content-Encoding` header names, in the order they were applied; none for `identity`.
///
/// # Errors
/// [`UnknownEncoding`].
pub fn encodings_of(header: Option<&str>) -> Result<Vec<ContentEncoding>, UnknownEncoding> {
    let mut encodings = Vec::new();
    for name in header.unwrap_or_default().split(',').map(str::trim).filter(|n| !n.is_empty()) {
        match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => encodings.push(ContentEncoding::Gzip),
            "deflate" => encodings.push(ContentEncoding::Deflate),
            "zstd" => encodings.push(ContentEncoding::Zstd),
            "identity" => {}
            _ => return Err(UnknownEncoding(shortened(name))),
        }
    }
    if encodings.len() > ENCODINGS_MAX {
        Err(UnknownEncoding(shortened(header.unwrap_or_default())))
    } else {
        Ok(encodings)
    }
}

/// Decompresses `body`, last encoding first, to at most `bytes_max` bytes at every step. `room` is asked before memory grows: it is
/// given the bytes that this takes in all, and says whether they are to be had.
///
/// # Errors
/// [`DecompressError`].
pub fn decompress(
    encodings: &[ContentEncoding],
    body: &[u8],
    bytes_max: usize,
    mut room: impl FnMut(usize) -> bool,
) -> Result<Vec<u8>, DecompressError> {
    let bytes_max = body.len().saturating_mul(RATIO_MAX).saturating_add(SMALL_BYTES).min(bytes_max);
    let mut plain: Option<Vec<u8>> = None;
    for &encoding in encodings.iter().rev() {
        let before = plain.as_ref().map_or(0, Vec::capacity);
        let compressed = plain.as_deref().unwrap_or(body);
        plain = Some(one(encoding, compressed, bytes_max, |bytes| room(before + bytes))?);
    }
    Ok(plain.unwrap_or_else(|| body.to_vec()))
}

fn one(
    encoding: ContentEncoding,
    body: &[u8],
    bytes_max: usize,
    mut room: impl FnMut(usize) -> bool,
) -> Result<Vec<u8>, DecompressError> {
    let damaged = |source| DecompressError::Damaged { encoding, source };
    let mut decoder = decoder(encoding, body).map_err(damaged)?;
    let mut plain = Vec::new();
    let mut wanted = body.len().saturating_mul(4).max(SMALL_BYTES);
    loop {
        // One byte more than may be, to see whether there is more.
        wanted = wanted.min(bytes_max + 1);
        if !room(wanted) {
            return Err(DecompressError::NoRoom);
        }
        plain.reserve_exact(wanted - plain.len());
        let step = (wanted - plain.len()) as u64;
        let read = decoder.by_ref().take(step).read_to_end(&mut plain).map_err(damaged)?;
        if plain.len() > bytes_max {
            return Err(DecompressError::TooLarge { bytes_max });
        }
        if (read as u64) < step {
            return Ok(plain);
        }
        wanted = wanted.saturating_mul(2);
    }
}

fn decoder(encoding: ContentEncoding, body: &[u8]) -> io::Result<Box<dyn Read + '_>> {
    Ok(match encoding {
        ContentEncoding::Gzip => Box::new(flate2::read::MultiGzDecoder::new(body)),
        ContentEncoding::Deflate => Box::new(Inflate::new(body)),
        ContentEncoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    })
}

/// A deflate stream that ends where the body does. The readers of flate2 take a stream that breaks off for one that ended, and pass over
/// what follows its end: both would be events lost in silence.
struct Inflate<'a> {
    left: &'a [u8],
    state: Decompress,
    ended: bool,
}

impl<'a> Inflate<'a> {
    fn new(body: &'a [u8]) -> Self {
        Self { left: body, state: Decompress::new(has_zlib_header(body)), ended: false }
    }
}

impl Read for Inflate<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.ended && !buffer.is_empty() {
            let (taken, written) = (self.state.total_in(), self.state.total_out());
            let status = self.state.decompress(self.left, buffer, FlushDecompress::None)?;
            let (taken, written) = (self.state.total_in() - taken, self.state.total_out() - written);
            self.left = &self.left[taken as usize..];
            self.ended = status == Status::StreamEnd;
            if self.ended && !self.left.is_empty() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes follow its end"));
            }
            if written > 0 {
                return Ok(written as usize);
            }
            if !self.ended && taken == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it breaks off"));
            }
        }
        Ok(0)
    }
}

fn has_zlib_header(body: &[u8]) -> bool {
    matches!(body, [cmf, flg, ..] if cmf & 15 == 8 && (u16::from(*cmf) << 8 | u16::from(*flg)) % 31 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(body).expect("memory");
        encoder.finish().expect("memory")
    }

    fn deflate(body: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(body).expect("memory");
        encoder.finish().expect("memory")
    }

    fn zlib(body: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(body).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn every_encoding_comes_back_also_two_of_them() {
        let body = br#"{"value":1}"#.repeat(100);
        let zstd = zstd::bulk::compress(&body, 3).expect("memory");
        let cases: [(&str, Vec<u8>); 6] = [
            ("gzip", gzip(&body)),
            ("x-gzip", [gzip(&body[..50]), gzip(&body[50..])].concat()),
            ("deflate", deflate(&body)),
            ("DEFLATE", zlib(&body)),
            ("zstd", zstd),
            ("identity, gzip, zstd", zstd::bulk::compress(&gzip(&body), 3).expect("memory")),
        ];
        for (header, compressed) in cases {
            let encodings = encodings_of(Some(header)).expect("known");
            assert_eq!(decompress(&encodings, &compressed, 1 << 20, |_| true).expect("decompresses"), body, "{header}");
        }
        assert_eq!(encodings_of(None), Ok(vec![]));
        assert_eq!(encodings_of(Some("gzip,,zstd, deflate")).map(|encodings| encodings.len()), Ok(3));
        assert!(encodings_of(Some("br")).is_err());
        assert!(encodings_of(Some("gzip,gzip,gzip,gzip")).is_err());
    }

    #[test]
    fn a_bomb_is_refused_at_its_bound() {
        let bomb = gzip(&vec![b' '; 8 << 20]);
        let refused = decompress(&[ContentEncoding::Gzip], &bomb, 1 << 20, |_| true);
        assert!(matches!(refused, Err(DecompressError::TooLarge { bytes_max: 1_048_576 })));
    }

    #[test]
    fn a_body_may_be_as_large_as_its_bound_and_a_small_one_grow_by_any_ratio() {
        let body = gzip(&br#"{"value":1}"#.repeat(10_000));
        let sized = |bytes_max| decompress(&[ContentEncoding::Gzip], &body, bytes_max, |_| true);
        assert_eq!(sized(110_000).expect("it fits").len(), 110_000);
        assert!(matches!(sized(109_999), Err(DecompressError::TooLarge { bytes_max: 109_999 })));
        let spaces = zstd::bulk::compress(&vec![b' '; SMALL_BYTES], 3).expect("memory");
        assert!(spaces.len() * RATIO_MAX < SMALL_BYTES, "{} bytes", spaces.len());
        let plain = decompress(&[ContentEncoding::Zstd], &spaces, 1 << 20, |_| true);
        assert_eq!(plain.expect("it is small").len(), 64 << 10);
    }

    #[test]
    fn memory_is_asked_for_as_it_is_needed_and_not_taken_when_it_is_refused() {
        let body = gzip(&br#"{"value":1}"#.repeat(100_000));
        let mut asked = 0;
        let plain = decompress(&[ContentEncoding::Gzip], &body, 64 << 20, |bytes| {
            asked = asked.max(bytes);
            true
        });
        let plain = plain.expect("decompresses");
        assert!(plain.capacity() <= asked, "{} taken, {asked} asked for", plain.capacity());
        let bytes = plain.len();
        assert!((bytes..=2 * bytes).contains(&asked), "{asked} for {bytes}");
        let refused = decompress(&[ContentEncoding::Gzip], &body, 64 << 20, |bytes| bytes < 500_000);
        assert!(matches!(refused, Err(DecompressError::NoRoom)));
    }

    #[test]
    fn damaged_and_cut_bodies_are_errors() {
        let whole = gzip(&br#"{"value":1}"#.repeat(100));
        for encoding in [ContentEncoding::Gzip, ContentEncoding::Deflate, ContentEncoding::Zstd] {
            let error = decompress(&[encoding], b"\xffthis is not compressed", 1 << 20, |_| true);
            assert!(matches!(error, Err(DecompressError::Damaged { .. })), "{encoding:?}");
        }
        assert!(decompress(&[ContentEncoding::Gzip], &whole[..whole.len() - 9], 1 << 20, |_| true).is_err());
    }

    #[test]
    fn a_body_that_breaks_off_anywhere_and_one_with_more_after_its_end_are_errors() {
        let body = br#"{"value":1}"#.repeat(100);
        let zstd = zstd::bulk::compress(&body, 3).expect("memory");
        let all = [
            (ContentEncoding::Gzip, gzip(&body)),
            (ContentEncoding::Deflate, deflate(&body)),
            (ContentEncoding::Deflate, zlib(&body)),
            (ContentEncoding::Zstd, zstd),
        ];
        for (encoding, whole) in all {
            for cut in 1..whole.len() {
                let shorter = decompress(&[encoding], &whole[..cut], 1 << 20, |_| true);
                assert!(shorter.is_err(), "{encoding:?}: {cut} of {} bytes gave {shorter:?}", whole.len());
            }
            let longer = decompress(&[encoding], &[&whole[..], b"\0"].concat(), 1 << 20, |_| true);
            assert!(longer.is_err(), "{encoding:?} with a byte more gave {longer:?}");
        }
    }
}
