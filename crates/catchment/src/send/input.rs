//! What is sent: a file or standard input, decompressed, line by line.

use crate::config::BODY_BYTES_MAX;
use anyhow::{Context, ensure};
use serde::de::IgnoredAny;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

/// The input, decompressed by what it begins with, and its size when that is known and means something.
pub(crate) fn open(file: Option<&PathBuf>) -> anyhow::Result<(Box<dyn BufRead>, Option<u64>)> {
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

/// An input whose first line is longer has lines.
const HEAD_BYTES: usize = 1 << 16;

/// What a line that cannot be read is called.
pub(super) fn unreadable(line: u64) -> String {
    format!("cannot read line {line}")
}

/// Reads a line; 0 bytes at the end of the input.
pub(crate) fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> anyhow::Result<usize> {
    line.clear();
    let read = input.take(BODY_BYTES_MAX.0 + 1).read_until(b'\n', line)?;
    ensure!(
        read as u64 <= BODY_BYTES_MAX.0,
        "it is longer than {BODY_BYTES_MAX}, the most that a collector takes at once: send one event a line, or a JSON array that begins with ["
    );
    Ok(read)
}

/// What the input begins with, as far as it takes to tell whether it is one JSON document over several lines: an array, or an object whose first
/// line does not end it and is not followed by another object, as where one line among many is cut.
pub(super) fn begins_document(input: &mut dyn BufRead) -> io::Result<(Vec<u8>, bool)> {
    let mut head = Vec::new();
    loop {
        let more = input.fill_buf()?;
        let count = more.len();
        head.extend_from_slice(more);
        input.consume(count);
        let is_document = is_document(&head);
        if is_document.is_some() || count == 0 || head.len() >= HEAD_BYTES {
            return Ok((head, is_document.unwrap_or(false)));
        }
    }
}

/// Whether what begins so is a document; none when more of it has to come first.
fn is_document(head: &[u8]) -> Option<bool> {
    let text = head.trim_ascii_start();
    match text.first()? {
        b'[' => Some(true),
        b'{' => {
            let end = text.iter().position(|byte| *byte == b'\n')?;
            let is_cut = serde_json::from_slice::<IgnoredAny>(&text[..end]).is_err_and(|error| error.is_eof());
            if is_cut { text[end..].trim_ascii_start().first().map(|byte| *byte != b'{') } else { Some(false) }
        }
        _ => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_document_is_does_not_hang_on_how_it_comes() {
        for (text, expected) in [
            ("[1]\n", true),
            (" \n[", true),
            ("{\n\"a\":1}\n", true),
            ("{\"a\":\n\n 1}", true),
            ("{\"a\":1}\n{\"a\":2}\n", false),
            ("{\"a\":\n{\"a\":2}\n", false),
            ("{\"a\":1}", false),
            ("{\"a\":", false),
            ("", false),
            ("no JSON\n", false),
        ] {
            for capacity in [1, 2, 1000] {
                let mut input = BufReader::with_capacity(capacity, text.as_bytes());
                let (head, is_document) = begins_document(&mut input).expect("reads");
                assert_eq!(is_document, expected, "{text:?}, {capacity} bytes at a time");
                let mut all = String::new();
                head.as_slice().chain(input).read_to_string(&mut all).expect("reads");
                assert_eq!(all, text, "nothing is lost");
            }
        }
    }
}
