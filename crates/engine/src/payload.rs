//! What a frame of the log holds: one group as Arrow IPC, with the keys of its events and the answers to
//! requests that came with a key. `docs/FORMAT.md` describes it.
//!
//! It promises that what `encode` wrote, `decode` gives back equal, and that foreign or damaged bytes are an error, never
//! a panic and never rows. Positions are not in it: they follow from the frame's first position.

use crate::answers::{self, AgedAnswer};
use arrow::record_batch::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use event::Key;
use std::io::Cursor;

/// Version of the layout without answers, the first byte of every payload.
const VERSION: u8 = 1;
/// Version of the layout with answers between keys and rows, whose length follows the header.
const VERSION_WITH_ANSWERS: u8 = 2;
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
    #[error("answers do not decode")]
    Answers,
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

    /// The payload of a group: `rows` without positions, one entry of `keys` for each row, and its answers as
    /// [`answers::encode`] gives them.
    pub(crate) fn encode(
        &mut self,
        rows: &RecordBatch,
        keys: &[Option<Key>],
        answers: &[u8],
    ) -> Result<&[u8], PayloadError> {
        self.rows.clear();
        let mut writer =
            StreamWriter::try_new_with_options(&mut self.rows, &rows.schema(), IpcWriteOptions::default())?;
        writer.write(rows)?;
        writer.finish()?;
        drop(writer);
        let keys = event::keys_to_bytes(keys);
        let version = if answers.is_empty() { VERSION } else { VERSION_WITH_ANSWERS };
        let compress = self.rows.len() >= COMPRESS_FROM_BYTES;
        self.payload.clear();
        self.payload.extend([version, if compress { ZSTD } else { PLAIN }, 0, 0]);
        self.payload.extend(length(keys.len()).to_le_bytes());
        self.payload.extend(length(self.rows.len()).to_le_bytes());
        if !answers.is_empty() {
            self.payload.extend(length(answers.len()).to_le_bytes());
        }
        self.payload.extend(&keys);
        self.payload.extend(answers);
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

/// A group, read back.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// The rows without positions.
    pub(crate) rows: RecordBatch,
    /// One key or none for each row.
    pub(crate) keys: Vec<Option<Key>>,
    /// The answers to the requests that came with a key, as old as they are now.
    pub(crate) answers: Vec<AgedAnswer>,
}

/// Reads a payload back, at a time that tells how old its answers are.
pub(crate) fn decode(payload: &[u8], now_micros: i64) -> Result<Decoded, PayloadError> {
    let (header, body) = payload.split_at_checked(HEADER_BYTES).ok_or(PayloadError::Short)?;
    let word_of = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes")) as usize;
    let word = |at: usize| word_of(&header[at..at + 4]);
    let (answers_bytes, body) = match header[0] {
        VERSION => (0, body),
        VERSION_WITH_ANSWERS => {
            let (bytes, body) = body.split_at_checked(4).ok_or(PayloadError::Short)?;
            (word_of(bytes), body)
        }
        other => return Err(PayloadError::Version(other)),
    };
    let (keys, body) = body.split_at_checked(word(4)).ok_or(PayloadError::Short)?;
    let (answers, rows) = body.split_at_checked(answers_bytes).ok_or(PayloadError::Short)?;
    let answers = answers::decode(answers, now_micros).ok_or(PayloadError::Answers)?;
    let rows = match header[1] {
        PLAIN => rows_of(rows)?,
        ZSTD => rows_of(&zstd::bulk::decompress(rows, word(8)).map_err(PayloadError::Decompress)?)?,
        other => return Err(PayloadError::Compression(other)),
    };
    let keys = event::keys_from_bytes(keys, rows.num_rows()).map_err(|e| PayloadError::Keys(e.to_string()))?;
    Ok(Decoded { rows, keys, answers })
}

/// What is wrong with the payload of a group of so many events, for who only looks at a log.
///
/// # Errors
/// The reason, as a sentence.
pub fn check_payload(payload: &[u8], event_count: u32) -> Result<(), String> {
    let rows = decode(payload, 0).map_err(|error| error.to_string())?.rows.num_rows();
    if rows == event_count as usize {
        return Ok(());
    }
    Err(format!("it holds {rows} events, and its head says {event_count}"))
}

fn rows_of(bytes: &[u8]) -> Result<RecordBatch, PayloadError> {
    StreamReader::try_new(Cursor::new(bytes), None)?.next().ok_or(PayloadError::NoRows)?.map_err(PayloadError::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::{Answer, RequestKey};
    use crate::batch::Outcome;
    use std::sync::Arc;

    fn batch(body: &[u8]) -> event::Batch {
        let options = event::ReadOptions {
            sensor: "roof",
            received_at: 7,
            fields: event::FieldNames::default(),
            time_zone: None,
            limits: event::Limits::default(),
        };
        event::read(body, event::Framing::Ndjson, &options).expect("readable")
    }

    fn answered(told: &[u8]) -> AgedAnswer {
        let outcome = Outcome { accepted: 1, last_position: 1, ..Outcome::default() };
        let answer = Answer { key: RequestKey::new("roof", "a"), content: 5, outcome, told: told.into() };
        AgedAnswer { answer: Arc::new(answer), age_seconds: 0 }
    }

    #[test]
    fn a_payload_of_before_there_were_answers_is_read_and_one_without_answers_is_still_written_like_it() {
        let batch = batch(b"{\"id\":\"1\",\"type\":\"a\",\"data\":1}");
        let mut rows = Vec::new();
        let mut writer = StreamWriter::try_new(&mut rows, &batch.columns.schema()).expect("a writer");
        writer.write(&batch.columns).and_then(|()| writer.finish()).expect("written");
        drop(writer);
        let keys = event::keys_to_bytes(&batch.keys);
        let mut old = vec![1, 0, 0, 0];
        old.extend((keys.len() as u32).to_le_bytes());
        old.extend((rows.len() as u32).to_le_bytes());
        old.extend(keys);
        old.extend(rows);

        let read = decode(&old, 0).expect("the layout of version 1");
        assert_eq!((read.rows, read.keys, read.answers), (batch.columns.clone(), batch.keys.clone(), vec![]));
        let mut encoder = Encoder::new().expect("a compressor");
        assert_eq!(encoder.encode(&batch.columns, &batch.keys, &[]).expect("encodes"), old);
    }

    #[test]
    fn rows_keys_and_answers_come_back_and_cut_bytes_are_an_error() {
        let lines = "{\"id\":\"1\",\"type\":\"a\",\"data\":[1,2,3]}\n".repeat(500);
        let (batch, answers) = (batch(lines.as_bytes()), [answered(b""), answered(&[9; 4096])]);
        let encoded = answers::encode(&answers, 0);
        let mut encoder = Encoder::new().expect("a compressor");
        let payload = encoder.encode(&batch.columns, &batch.keys, &encoded).expect("encodes").to_vec();
        assert_eq!(payload[..2], [2, ZSTD]);
        let read = decode(&payload, 0).expect("decodes");
        assert_eq!((read.rows, read.keys, read.answers), (batch.columns, batch.keys, answers.to_vec()));
        for cut in (0..payload.len()).step_by(97) {
            decode(&payload[..cut], 0).expect_err("cut short");
        }
        assert!(matches!(decode(&[&[3], &payload[1..]].concat(), 0), Err(PayloadError::Version(3))));
    }
}
