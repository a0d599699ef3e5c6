//! Decompressing the body of a request: bounds kept, bytes back as they were, nothing lost in silence.

use crate::{first_line, text};
use event::{ContentEncoding, DecompressError, decompress, encodings_of};
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use std::io::Write;

/// As documented: a body grows at most so much.
const RATIO_MAX: usize = 1000;
const SMALL_BYTES: usize = 64 << 10;

/// The input: a line with the value of `Content-Encoding`, and the body.
pub fn decompression(input: &[u8]) {
    let (header, body) = first_line(input);
    if let Ok(encodings) = encodings_of(Some(text(header))) {
        for bytes_max in [0, 1000, 200 << 10] {
            assert_bounded(&encodings, body, bytes_max);
        }
    }
    for (encoding, compressed) in compressed(body) {
        let plain = decompress(&[encoding], &compressed, body.len(), |_| true).expect("it was compressed just now");
        assert_eq!(plain, body, "{encoding:?}");
        // A body that breaks off, or that something follows, is an error and not a shorter body.
        let cut = body.first().map_or(0, |byte| usize::from(*byte)) % compressed.len().max(1);
        let shorter = decompress(&[encoding], &compressed[..cut], 1 << 20, |_| true);
        assert!(shorter.is_err() || cut == 0, "{encoding:?} cut to {cut} of {} gave {shorter:?}", compressed.len());
        let longer = decompress(&[encoding], &[&compressed[..], b"\0more"].concat(), 1 << 20, |_| true);
        assert!(longer.is_err(), "{encoding:?} with bytes after its end gave {longer:?}");
    }
}

fn assert_bounded(encodings: &[ContentEncoding], body: &[u8], bytes_max: usize) {
    let mut granted = 0;
    let room = |bytes: usize| {
        granted = granted.max(bytes);
        true
    };
    let plain = decompress(encodings, body, bytes_max, room);
    let steps = encodings.len().max(1);
    let largest = bytes_max.min(body.len() * RATIO_MAX + SMALL_BYTES);
    assert!(granted <= (largest + 1) * steps, "{granted} asked for, {largest} allowed");
    match &plain {
        Ok(plain) if !encodings.is_empty() => {
            assert!(plain.len() <= largest, "{} of at most {largest}", plain.len());
            assert!(plain.capacity() <= granted, "{} of memory, {granted} asked for", plain.capacity());
        }
        Ok(plain) => assert_eq!(plain, body),
        Err(DecompressError::TooLarge { bytes_max }) => assert_eq!(*bytes_max, largest),
        Err(DecompressError::NoRoom) => panic!("there was room"),
        Err(DecompressError::Damaged { .. }) => {}
    }
    // Half of what it took is not enough, and the same bytes come out with just enough.
    if let (Ok(plain), false) = (&plain, encodings.is_empty()) {
        let again = decompress(encodings, body, bytes_max, |bytes| bytes <= granted).expect("as before");
        assert_eq!(&again, plain);
        assert!(matches!(decompress(encodings, body, bytes_max, |_| false), Err(DecompressError::NoRoom)));
    }
}

fn compressed(body: &[u8]) -> [(ContentEncoding, Vec<u8>); 4] {
    let level = Compression::fast();
    let mut gzip = GzEncoder::new(Vec::new(), level);
    let mut zlib = ZlibEncoder::new(Vec::new(), level);
    let mut raw = DeflateEncoder::new(Vec::new(), level);
    for encoder in [&mut gzip as &mut dyn Write, &mut zlib, &mut raw] {
        encoder.write_all(body).expect("memory");
    }
    [
        (ContentEncoding::Gzip, gzip.finish().expect("memory")),
        (ContentEncoding::Deflate, zlib.finish().expect("memory")),
        (ContentEncoding::Deflate, raw.finish().expect("memory")),
        (ContentEncoding::Zstd, zstd::bulk::compress(body, 1).expect("memory")),
    ]
}
