//! Bytes and files in gzip.

use std::io::{Read, Write};
use std::path::Path;

/// A body as `Content-Encoding: gzip` has it.
pub fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).expect("compressed")
}

/// The lines of an NDJSON file, gunzipped.
pub fn gunzipped_lines(path: &Path) -> Vec<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).expect("the corpus opens");
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("the corpus is gzip");
    text.lines().map(str::to_owned).collect()
}
