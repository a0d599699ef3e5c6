//! What is sent: a file or standard input, decompressed, line by line.

use crate::config::BODY_BYTES_MAX;
use anyhow::{Context, ensure};
use serde::de::IgnoredAny;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

/// The input, decompressed by what it begins with, and its size when that is known and means something.
pub(super) fn open(file: Option<&PathBuf>) -> anyhow::Result<(Box<dyn BufRead>, Option<u64>)> {
    let (raw, bytes): (Box<dyn Read>, Option<u64>) = match file.filter(|f| f.as_os_str() != "-") {
        Some(path) => {
            let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            let bytes = file.metadata().ok().map(|m| m.len());
            (Box::new(file), bytes)
        }
        None => (Box::new(io::stdin()), None),
    };
    let mut raw = BufReader::with_capacity(1 << 16, raw);
    let head = raw.fill_buf().context("cannot read the input")?;
    if head.starts_with(&[0x1f, 0x8b]) {
        return Ok((Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(raw))), None));
    }
    if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Ok((Box::new(BufReader::new(zstd::Decoder::with_buffer(raw).context("cannot read the input")?)), None));
    }
    Ok((Box::new(raw), bytes))
}

/// What a line that cannot be read is called.
pub(super) fn unreadable(line: u64) -> String {
    format!("cannot read line {line}")
}

/// Reads a line; 0 bytes at the end of the input.
pub(super) fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> anyhow::Result<usize> {
    line.clear();
    let read = input.take(BODY_BYTES_MAX.0 + 1).read_until(b'\n', line)?;
    ensure!(
        read as u64 <= BODY_BYTES_MAX.0,
        "it is longer than {BODY_BYTES_MAX}, the most that a collector takes at once: send one event a line, or a JSON array that begins with ["
    );
    Ok(read)
}

/// Whether an input that begins so is one JSON document over several lines: an array, or an object whose first line does not end it and is not
/// followed by another object, as where one line among many is cut.
pub(super) fn is_document(head: &[u8]) -> bool {
    let text = head.trim_ascii_start();
    let Some(end) = text.iter().position(|byte| *byte == b'\n') else { return text.first() == Some(&b'[') };
    let is_cut = serde_json::from_slice::<IgnoredAny>(&text[..end]).is_err_and(|error| error.is_eof());
    match text.first() {
        Some(b'[') => true,
        Some(b'{') => is_cut && text[end..].trim_ascii_start().first().is_some_and(|byte| *byte != b'{'),
        _ => false,
    }
}
