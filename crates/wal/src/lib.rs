//! The write-ahead log: it makes bytes durable.
//!
//! # What it promises
//!
//! - [`Wal::append`] returns only when its frame is on stable storage: one write, one `fdatasync`. The next frame is written only
//!   after the previous one is synced.
//! - What was appended comes back, whole, in order, once; what was not is there whole or not at all.
//! - A torn tail (a crash in the middle of a write) is cut off, its bytes moved aside, and reported. Any other damage stops the
//!   opening with file and offset. Nothing is skipped in silence.
//! - A full disk refuses the append and changes nothing. A failed sync poisons: nothing is appended after it, ever.
//!
//! # What it does not do
//!
//! It does not know what a frame holds, it has no threads, and it does not compress. `docs/FORMAT.md` describes the bytes and
//! what a start does after a crash at each point.
//!
//! Reading order: [`Disk`] the file system as the wal sees it, `format` the bytes, `scan` reading them, `tail` where they end,
//! `newest` which segment is the last, [`Checked`] all of it before it is opened, [`Wal`] writing,
//! `let_go` letting them go, `keys` the files that outlive trimmed segments, `copy` what a backup takes; [`look()`] at a wal without changing it, and [`repair()`] of a damaged one.

mod check;
mod copy;
mod disk;
mod error;
mod format;
mod keys;
mod let_go;
mod log;
mod look;
mod newest;
mod repair;
mod scan;
mod survey;
mod tail;

pub use check::{Checked, Read};
pub use copy::{Kept, Part, Parts, parts};
pub use disk::{Disk, DiskFile, RealDisk};
pub use error::{AppendError, OpenError, ReplayError, Saved};
pub use format::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};
pub use keys::KeyFile;
pub use log::{Appended, Frame, Opened, Options, Place, TornTail, Wal};
pub use look::{Damage, End, FrameLook, KeysLook, Known, Look, Segment, look};
pub use repair::{Repaired, repair};
