//! The data path of Catchment: what happens to a batch between the request and the answer, and afterwards.
//!
//! # The path of an event
//!
//! ```text
//! server    reads and bounds the body, `event::read` makes columns of it
//! Admission a byte budget: what does not fit is turned away before it is read      (promise 6)
//! Engine    submit: the batch joins the queue; the caller waits for its answer
//! commit    take all that waits = one group; drop duplicates; give positions
//!   log       one frame, one fdatasync                                             (promise 1)
//!   window    remember the keys of the group, and the answers of requests with a key (promise 3)
//!   live      publish the rows: every View taken from now on holds them            (promise 4)
//!   answer    accepted, duplicates, reused ids                                     (promise 2)
//! seal      live rows -> lake, then the View swaps, then the log is trimmed        (promise 5)
//! maintain  small files of the lake -> larger ones, then the View swaps
//! erase     one sensor's events go, when it is asked: see `erase`
//! ```
//!
//! The order in `commit` *is* the promise: durable, then remembered and visible, then answered. A caller that goes away
//! drops only its waiter; its batch ends like any other and is counted like any other.
//!
//! The two seams are [`EventLog`] (a wal in a folder today) and [`lake::Lake`] (a Delta table on an object store).
//!
//! **Invariant:** the engine knows nothing of HTTP, tokens or SQL.

mod admission;
mod answers;
mod ask;
mod batch;
mod clock;
mod commit;
mod copy;
mod erase;
mod floor;
mod live;
mod log;
mod maintain;
mod metrics;
mod payload;
mod recover;
mod seal;
mod start;
mod window;

pub use admission::{Admission, Reservation, TurnedAway};
pub use answers::{ANSWER_BYTES_MAX, Answer, Claim, Claimed, InUse, Request, RequestKey, TOLD_BYTES_MAX};
pub use batch::{AcceptError, Outcome, Submission};
pub use clock::{Clock, Reading};
pub use copy::{LinkError, Linked};
pub use erase::EraseError;
pub use event::{FieldRules, format_time, is_name, parse_time};
pub use lake::{Erasing, Retention};
pub use log::{Appended, EventLog, LocalLog, LogError, LogFrame, RememberedKeys};
pub use metrics::EngineMetrics;
pub use payload::check_payload;
pub use recover::RecoverError;
pub use start::{Engine, Options, StartError, Started, Starting, Status};
