//! Recovery: what a start reads back from the log.
//!
//! It promises that exactly the events after the lake's sealed position become live rows again, with the positions and made
//! ids they had, and that the keys inside the window are remembered again. One frame is in memory at a time beside the live
//! rows, and those never exceed their bound, because the running engine kept to it too: replay never has to seal.

use crate::answers::{self, AgedAnswer, Answers};
use crate::commit::with_positions;
use crate::live::Live;
use crate::log::LogFrame;
use crate::metrics::EngineMetrics;
use crate::payload::{Decoded, PayloadError, decode};
use crate::start::Options;
use crate::window::{self, Remembered, Window};
use arrow::array::{Array, ArrayRef, MutableArrayData, TimestampMicrosecondArray, make_array};
use arrow::record_batch::RecordBatch;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Why the log could not be brought back.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The lake holds events that the log does not know of: one of the two folders is not of this collector, or is older.
    #[error(
        "wal_behind_lake: the lake holds events up to position {lake_position}, the wal ends at {wal_position}; \
         the wal folder is older than the lake or was replaced: bring back the wal that belongs to this lake"
    )]
    WalBehindLake {
        /// Highest position in the lake.
        lake_position: u64,
        /// Last position of the wal.
        wal_position: u64,
    },
    /// Events between the lake's end and the wal's beginning are missing.
    #[error(
        "wal_gap: the lake ends at position {sealed}, the wal begins at {first}; the lake folder is older than the wal, was replaced, or \
         its newest versions are gone: `catchment inspect lake` tells of data files that no version names, `catchment inspect repair` puts \
         those that are whole in again, else bring back the lake that belongs to this wal"
    )]
    Gap {
        /// Sealed position of the lake.
        sealed: u64,
        /// First position found in the wal after it.
        first: u64,
    },
    /// A frame whose checksum holds could not be read: it was written by a newer program.
    #[error(
        "the group of the wal at position {position} cannot be read ({reason}): a newer program wrote it: install that version again, \
         or restore a backup made before the upgrade"
    )]
    Payload {
        /// First position of the frame.
        position: u64,
        /// What was wrong with it.
        reason: String,
    },
    /// A file of keys whose checksum holds could not be read: it was written by a newer program.
    #[error(
        "the file of keys of the wal from position {position} on cannot be read: a newer program wrote it: install that version again, \
         or restore a backup made before the upgrade"
    )]
    Keys {
        /// First position of the file.
        position: u64,
    },
}

/// Brings frames back, in order.
pub(crate) struct Recovery<'a> {
    pub(crate) live: &'a Live,
    pub(crate) window: &'a mut Window,
    pub(crate) answers: &'a Answers,
    pub(crate) log: Uuid,
    pub(crate) sealed: u64,
    pub(crate) expected: u64,
    /// Positions that a repair of the log found no events of.
    pub(crate) lost: Vec<(u64, u64)>,
    pub(crate) options: &'a Options,
    pub(crate) metrics: &'a EngineMetrics,
}

impl Recovery<'_> {
    /// Takes one frame: its keys and answers always, its rows when they are not sealed.
    pub(crate) fn frame(&mut self, frame: LogFrame<'_>) -> Result<(), RecoverError> {
        let position = frame.first_position;
        let bad = |e: PayloadError| RecoverError::Payload { position, reason: e.to_string() };
        let wall = self.options.clock.wall_micros();
        let Decoded { rows, keys, answers } = decode(frame.payload, wall).map_err(bad)?;
        let now = Instant::now();
        self.remember(answers, now);
        for (row, key) in keys.iter().enumerate() {
            if let Some(key) = key {
                let age = age_of(&rows, row, wall);
                self.window.note_aged(*key, position + row as u64, now, age);
            }
        }
        self.window.keep(now);
        let last = position + rows.num_rows() as u64 - 1;
        if last <= self.sealed {
            return Ok(());
        }
        self.pass_lost();
        if position > self.expected {
            return Err(RecoverError::Gap { sealed: self.sealed, first: position });
        }
        let covered = (self.sealed + 1).saturating_sub(position) as usize;
        let rows = with_positions(&rows, position, self.log, &self.options.schema)
            .map_err(|e| RecoverError::Payload { position, reason: e.to_string() })?;
        let rows = of_its_own(&rows.slice(covered, rows.num_rows() - covered));
        self.metrics.recovered_events.inc_by(rows.num_rows() as u64);
        self.live.publish(rows);
        self.expected = last + 1;
        Ok(())
    }

    /// What is known to be lost is not waited for.
    pub(crate) fn pass_lost(&mut self) {
        for (first, last) in &self.lost {
            if (*first..=*last).contains(&self.expected) {
                self.expected = last + 1;
            }
        }
    }

    /// Takes the keys and answers that a trimmed segment left behind.
    pub(crate) fn keys(&mut self, position: u64, bytes: &[u8]) -> Result<(), RecoverError> {
        let unreadable = RecoverError::Keys { position };
        let Some(Remembered { keys, answers, written_micros }) = window::decode(bytes) else { return Err(unreadable) };
        let now = Instant::now();
        let wall = self.options.clock.wall_micros();
        self.remember(answers::decode(answers, wall).ok_or(unreadable)?, now);
        let since = Duration::from_micros(u64::try_from(wall.saturating_sub(written_micros)).unwrap_or(0));
        for aged in keys {
            let age = Duration::from_secs(aged.age_seconds) + since;
            self.window.note_aged(aged.key, aged.position, now, age);
        }
        self.window.keep(now);
        Ok(())
    }

    fn remember(&self, answers: Vec<AgedAnswer>, now: Instant) {
        for AgedAnswer { answer, age_seconds } in answers {
            self.answers.remember(answer, now, Duration::from_secs(age_seconds));
        }
    }
}

/// The rows in buffers of their own: those read back are slices of one frame, and each would be counted as all of it.
fn of_its_own(rows: &RecordBatch) -> RecordBatch {
    let copy = |column: &ArrayRef| {
        let data = column.to_data();
        let mut copy = MutableArrayData::new(vec![&data], false, data.len());
        copy.try_extend(0, 0, data.len()).expect("no longer than it was");
        make_array(copy.freeze())
    };
    let columns = rows.columns().iter().map(copy).collect();
    RecordBatch::try_new(rows.schema(), columns).expect("the same columns")
}

/// How long ago a row was received; never negative, so that a clock set back does not shorten the window.
fn age_of(rows: &RecordBatch, row: usize, wall: i64) -> Duration {
    let received = rows
        .column_by_name("received_at")
        .and_then(|c| c.as_any().downcast_ref::<TimestampMicrosecondArray>())
        .filter(|c| c.is_valid(row))
        .map_or(wall, |c| c.value(row));
    Duration::from_micros(u64::try_from(wall.saturating_sub(received)).unwrap_or(0))
}
