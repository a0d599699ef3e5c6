//! The seam [`EventLog`]: what makes an answer true. Its local form is a wal in a folder.
//!
//! A log promises that a frame given to [`EventLog::append`] is durable when the call returns, and that frames come back in
//! order. It does not know what is in a frame.

use crate::recover::{RecoverError, Recovery};
use crate::start::{Options, StartError};
use async_trait::async_trait;
use std::ops::ControlFlow;
use std::path::Path;
use uuid::Uuid;
use wal::{Checked, Wal};

/// A start that reads the log gives way to others after so many bytes.
const PAUSE_BYTES: usize = 4 << 20;

/// One group on its way into the log.
#[derive(Clone, Copy, Debug)]
pub struct LogFrame<'a> {
    /// Position of the first event.
    pub first_position: u64,
    /// Number of events.
    pub event_count: u32,
    /// The group, see `docs/FORMAT.md`.
    pub payload: &'a [u8],
}

/// What one append cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Appended {
    /// Bytes written, header included.
    pub bytes: u64,
    /// Time the sync took.
    pub sync_seconds: f64,
}

/// Why an append, or another change, failed. After each of these, nothing of the frame will ever be read back; only after
/// [`LogError::Poisoned`] the next start decides.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// No room; the log is as it was before.
    #[error("{0}")]
    StorageFull(String),
    /// The frame is larger than the log takes.
    #[error("a frame of {bytes} bytes is larger than {bytes_max}")]
    TooLarge {
        /// Bytes of the frame.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// A write or a sync failed; the log takes nothing any more.
    #[error("{0}")]
    Poisoned(String),
    /// A file could not be let go of, written again or linked. All frames are as they were, and it can be tried again; no append fails so.
    #[error("{0}")]
    NotDone(String),
}

/// Where groups become durable.
#[async_trait]
pub trait EventLog: Send + 'static {
    /// The log's identity: part of made ids and of the lake's file names.
    fn id(&self) -> Uuid;
    /// Makes one group durable; returns only when it is.
    async fn append(&mut self, frame: LogFrame<'_>) -> Result<Appended, LogError>;
    /// Lets go of what is in the lake up to `sealed`. `keys` gives the remembered keys, which the log
    /// keeps in place of the frames it lets go. Returns the bytes that are left.
    async fn trim(&mut self, sealed: u64, keys: &dyn RememberedKeys) -> Result<u64, LogError>;
    /// Begins anew, so that [`EventLog::trim`] can let go of all that was appended before.
    async fn roll(&mut self) -> Result<(), LogError>;
    /// Writes the remembered keys again that it keeps in place of frames, and lets go of what a start moved aside.
    async fn rewrite_keys(&mut self, keys: &dyn RememberedKeys) -> Result<(), LogError>;
    /// Gives all of its files a second name in a folder, where they stay when they are let go here.
    async fn link_into(&mut self, folder: &Path) -> Result<wal::Parts, LogError>;
    /// The first position whose frame it has; the next one when it has none.
    fn first_position(&self) -> u64;
    /// Ends the log cleanly.
    async fn close(self: Box<Self>) -> Result<(), LogError>;
}

/// Gives the remembered keys to a log that lets go of their frames.
pub trait RememberedKeys: Send + Sync {
    /// The keys of the positions `first..=last`, encoded; empty when there are none.
    fn of_range(&self, first: u64, last: u64) -> Vec<u8>;
    /// Keys before this position are remembered no more.
    fn oldest_position(&self) -> u64;
}

/// The local log: a wal in a folder. Its calls block, so the commit loop has a thread of its own.
pub struct LocalLog {
    wal: Wal,
}

/// What opening the local log found.
#[derive(Debug)]
pub(crate) struct LogOpened {
    /// Last position ever given; 0 before the first.
    pub(crate) last_position: u64,
    /// A torn tail that was cut, as a sentence.
    pub(crate) torn_tail: Option<String>,
}

impl LocalLog {
    pub(crate) fn open(checked: Checked, options: &Options) -> Result<(Self, LogOpened), wal::OpenError> {
        let sizes =
            wal::Options { segment_bytes: options.segment_bytes, frame_bytes_max: options.payload_bytes_max as u64 };
        let (wal, opened) = checked.open(sizes)?;
        let torn_tail = opened.torn.map(|torn| {
            format!(
                "{} bytes after offset {} of {} are no whole group, as a write leaves them that was cut off before its answer; they are kept in {}",
                torn.bytes,
                torn.offset,
                torn.file.display(),
                torn.moved_to.display()
            )
        });
        Ok((Self { wal }, LogOpened { last_position: opened.last_position, torn_tail }))
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.wal.bytes()
    }

    /// Positions that a repair found no events of.
    pub(crate) fn lost(&self) -> &[(u64, u64)] {
        self.wal.lost()
    }

    /// Hands everything back, in order: the keys of what was let go, then the frames; `told` hears how far it is.
    pub(crate) async fn recover(
        &self,
        recovery: &mut Recovery<'_>,
        told: impl Fn(wal::Read),
    ) -> Result<(), StartError> {
        for file in self.wal.key_files()? {
            recovery.keys(file.first, &file.bytes)?;
        }
        let mut place = wal::Place::default();
        loop {
            let mut read = 0;
            let replayed = self.wal.replay_from::<RecoverError>(&mut place, |frame, so_far| {
                let wal::Frame { first_position, event_count, payload } = frame;
                recovery.frame(LogFrame { first_position, event_count, payload })?;
                told(so_far);
                read += payload.len();
                let pauses = read >= PAUSE_BYTES || recovery.is_full();
                Ok(if pauses { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            });
            let is_done = replayed.map_err(|error| match error {
                wal::ReplayError::Wal(error) => StartError::from(error),
                wal::ReplayError::Refused(error) => StartError::from(error),
            })?;
            recovery.make_room().await?;
            if is_done {
                return Ok(());
            }
            // Probes are answered meanwhile, also by a single thread.
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl EventLog for LocalLog {
    fn id(&self) -> Uuid {
        self.wal.wal_id()
    }

    async fn append(&mut self, frame: LogFrame<'_>) -> Result<Appended, LogError> {
        let LogFrame { first_position, event_count, payload } = frame;
        let appended = self.wal.append(wal::Frame { first_position, event_count, payload })?;
        Ok(Appended { bytes: appended.bytes, sync_seconds: appended.sync_seconds })
    }

    async fn trim(&mut self, sealed: u64, keys: &dyn RememberedKeys) -> Result<u64, LogError> {
        for (first, last) in self.wal.trimmable(sealed) {
            self.wal.trim_oldest(keys.of_range(first, last)).map_err(|e| LogError::NotDone(e.to_string()))?;
        }
        self.wal.forget_keys_before(keys.oldest_position()).map_err(|e| LogError::NotDone(e.to_string()))?;
        Ok(self.wal.bytes())
    }

    async fn roll(&mut self) -> Result<(), LogError> {
        Ok(self.wal.begin_segment()?)
    }

    async fn rewrite_keys(&mut self, keys: &dyn RememberedKeys) -> Result<(), LogError> {
        let rewritten = self.wal.rewrite_keys(|first, last| keys.of_range(first, last));
        rewritten.and_then(|()| self.wal.forget_leftovers()).map_err(|e| LogError::NotDone(e.to_string()))
    }

    async fn link_into(&mut self, folder: &Path) -> Result<wal::Parts, LogError> {
        self.wal.link_into(folder).map_err(|e| LogError::NotDone(e.to_string()))
    }

    fn first_position(&self) -> u64 {
        self.wal.first_position()
    }

    async fn close(self: Box<Self>) -> Result<(), LogError> {
        self.wal.close().map_err(LogError::from)
    }
}

impl From<wal::AppendError> for LogError {
    fn from(error: wal::AppendError) -> Self {
        let text = error.to_string();
        match error {
            wal::AppendError::StorageFull { .. } => Self::StorageFull(text),
            wal::AppendError::TooLarge { bytes, bytes_max } => Self::TooLarge { bytes, bytes_max },
            wal::AppendError::Poisoned { reason } => Self::Poisoned(reason),
        }
    }
}
