//! Recovery: what a start reads back from the log.
//!
//! It promises that exactly the events after the lake's sealed position become live rows again, with the positions and made
//! ids they had, and that the keys inside the window are remembered again. One frame is in memory at a time beside the live
//! rows, and those do not exceed their bound: what the running engine took under the same one fits again, so that replay need not seal, also
//! on a full disk. Under a smaller bound, or of a longer wal, replay seals on the way.

use crate::answers::{self, AgedAnswer, Answers};
use crate::commit::with_positions;
use crate::live::{Live, Taken};
use crate::log::LogFrame;
use crate::metrics::EngineMetrics;
use crate::payload::{Decoded, PayloadError, decode};
use crate::start::{Options, StartError, Starting};
use crate::window::{self, Remembered, Window};
use arrow::array::{Array, ArrayRef, MutableArrayData, TimestampMicrosecondArray, make_array};
use arrow::record_batch::RecordBatch;
use lake::{Lake, LakeError, Pace, Sealing};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Why the log could not be brought back.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The lake holds events that the log does not know of: one of the two folders is not of this collector, or is older.
    #[error(
        "wal_behind_lake: the lake holds events up to position {lake_position}, the wal ends at {wal_position}; \
         the wal folder is older than the lake or was replaced; nothing was changed: bring back the wal that belongs to this lake, \
         or lose what it alone had: `catchment inspect wal` shows what is there, and after `catchment inspect repair` the wal goes on \
         behind the lake"
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
    /// There is no lake, and the log let go of what was in it.
    #[error(
        "lake_gone: there is no table in {}, and the wal begins at position {first}: the events before it were in the lake, which was removed or \
         moved away; nothing was changed: bring the folder back, or restore a backup; `catchment inspect repair` begins a new lake with what the \
         wal has, and tells positions 1 to {} as lost",
        .lake.display(), .first - 1
    )]
    LakeGone {
        /// Its folder.
        lake: PathBuf,
        /// First position of the wal.
        first: u64,
    },
    /// The wal holds more than may be live, and the lake does not take it.
    #[error(
        "the wal holds more events than seal.live_bytes_max ({live_bytes_max} bytes) lets into memory, and the lake does not take them: {reason}; \
         nothing is lost: mend that, or start with a larger seal.live_bytes_max"
    )]
    NoRoom {
        /// The bound.
        live_bytes_max: u64,
        /// Why the lake does not take them.
        reason: String,
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
    pub(crate) lake: &'a Lake,
    pub(crate) live: &'a Live,
    pub(crate) window: &'a mut Window,
    pub(crate) answers: &'a Answers,
    pub(crate) log: Uuid,
    pub(crate) sealed: u64,
    pub(crate) expected: u64,
    /// Positions that a repair of the log found no events of.
    pub(crate) lost: Vec<(u64, u64)>,
    /// Events that came back.
    pub(crate) events: u64,
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
        self.events += rows.num_rows() as u64;
        self.live.publish(rows);
        self.expected = last + 1;
        Ok(())
    }

    /// Whether more is live than may be.
    pub(crate) fn is_full(&self) -> bool {
        self.live.bytes() as u64 > self.options.live_bytes_max
    }

    /// Puts what is live into the lake, when it is more than may be.
    pub(crate) async fn make_room(&self) -> Result<(), RecoverError> {
        if !self.is_full() {
            return Ok(());
        }
        let Err(error) = seal(self.lake, self.live).await else { return Ok(()) };
        let (live_bytes, live_bytes_max) = (self.live.bytes() as u64, self.options.live_bytes_max);
        // Read back, rows may take a little more than when they came; and one group may be larger than the bound.
        let bound = live_bytes_max.max(self.options.in_flight_bytes_max + self.options.group_bytes_max);
        if live_bytes > bound + bound / 8 {
            return Err(RecoverError::NoRoom { live_bytes_max, reason: error.to_string() });
        }
        tracing::warn!(live_bytes, live_bytes_max, %error, "more rows are live than may be: the lake does not take them");
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

/// The wal, locked and whole, and as it was found, beside a lake that is not gone. It is read apart from the threads of the runtime.
pub(crate) async fn checked(
    options: &Options,
    told: Arc<impl Fn(Starting) + Send + Sync + 'static>,
) -> Result<wal::Checked, StartError> {
    let dir = options.wal_dir.clone();
    let check = move || wal::Checked::of(&dir, wal::RealDisk, |read| told(Starting::Checks(read)));
    let checked = tokio::task::spawn_blocking(check).await.map_err(std::io::Error::other)??;
    lake_is_not_gone(&checked, &options.lake_dir)?;
    Ok(checked)
}

/// Before a lake is made: no other one was there that had what the wal let go of.
fn lake_is_not_gone(wal: &wal::Checked, lake: &Path) -> Result<(), StartError> {
    let failed = |source| lake::OpenError::Folder { action: "read", path: lake.to_path_buf(), source };
    if wal.last_position() == 0 || lake::is_begun(lake).map_err(failed)? {
        return Ok(());
    }
    if wal.first_position() > 1 {
        return Err(RecoverError::LakeGone { lake: lake.to_path_buf(), first: wal.first_position() }.into());
    }
    let lake = lake.display().to_string();
    tracing::warn!(lake, "the lake is missing beside a wal that has all events: it is made anew of them");
    Ok(())
}

/// Whether the wal has all that follows the lake's end, and the lake nothing that the wal did not give.
pub(crate) fn belong_together(wal: &wal::Checked, lake_position: u64, sealed: u64) -> Result<(), RecoverError> {
    let (first, wal_position) = (wal.first_position(), wal.last_position());
    if lake_position > wal_position {
        return Err(RecoverError::WalBehindLake { lake_position, wal_position });
    }
    if first > sealed + 1 { Err(RecoverError::Gap { sealed, first }) } else { Ok(()) }
}

/// Puts all that a repaired log has into the lake: with it lost positions are counted, and are not waited for any more. What fails is tried with
/// the next seal.
pub(crate) async fn seal_lost(lake: &Lake, live: &Live, (first, last): (u64, u64)) {
    let rows = live.take().map(|taken| taken.rows).unwrap_or_default();
    let batches = rows.iter().map(|rows| rows.as_ref().clone()).collect();
    match lake.seal(Sealing { first, last, batches, pace: Pace::Pressed }).await {
        Ok(snapshot) => live.sealed(snapshot),
        Err(error) => tracing::error!(first, last, %error, "lost positions are not counted yet: the seal failed"),
    }
}

/// Puts all live rows into the lake.
async fn seal(lake: &Lake, live: &Live) -> Result<(), LakeError> {
    let Some(Taken { first, last, rows }) = live.take() else { return Ok(()) };
    let batches = rows.iter().map(|rows| rows.as_ref().clone()).collect();
    // The rows are held by nobody else when they leave.
    drop(rows);
    live.sealed(lake.seal(Sealing { first, last, batches, pace: Pace::Pressed }).await?);
    Ok(())
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
