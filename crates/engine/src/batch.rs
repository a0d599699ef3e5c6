//! What is handed to the engine and what comes back.

use crate::admission::Reservation;
use crate::answers::Request;
use event::Batch;
use tokio::sync::oneshot;

/// A batch on its way in: the columns, and the bytes it holds of the admission budget until it is answered.
#[derive(Debug)]
pub struct Submission {
    /// The events read from one request.
    pub batch: Batch,
    /// What it takes of the budget; released with the answer.
    pub reservation: Reservation,
    /// The request, when it came with a key of its own.
    pub request: Option<Request>,
}

/// How a batch ended, all of it durable and visible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Events stored.
    pub accepted: u64,
    /// Events that were stored before, inside the window.
    pub duplicates: u64,
    /// Events stored although their id was seen with other content inside the window.
    pub reused_ids: u64,
    /// The last position known to be durable when this batch was answered.
    pub last_position: u64,
    /// Where the first stored event of this batch lies; the others follow it without a gap. None where nothing was stored, and in an
    /// answer that is given again.
    pub first_position: Option<u64>,
}

/// Why a batch was not stored. Nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// The disk has no room for the next group; sending again later may work.
    #[error("the disk is full: {reason}")]
    StorageFull {
        /// What the log said.
        reason: String,
    },
    /// Sealing is behind and the live rows are at their bound; sending again later may work.
    #[error("live rows hold {live_bytes} bytes of at most {live_bytes_max} and sealing is behind")]
    SealBehind {
        /// Bytes of live rows.
        live_bytes: u64,
        /// Their bound.
        live_bytes_max: u64,
    },
    /// The batch does not fit in one frame of the log.
    #[error("the batch takes {bytes} bytes in the log, more than {bytes_max}")]
    TooLarge {
        /// Bytes of the frame.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// The log failed in a way that cannot be retried; the process is about to end.
    #[error("the log is poisoned: {reason}")]
    Poisoned {
        /// What the log said.
        reason: String,
    },
    /// The engine is stopping.
    #[error("the engine is stopping")]
    Stopping,
}

impl AcceptError {
    /// Whether sending the same batch again later can work.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::TooLarge { .. })
    }
}

/// A submission in the queue, with its waiter.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) submission: Submission,
    pub(crate) answer: oneshot::Sender<Result<Outcome, AcceptError>>,
}
