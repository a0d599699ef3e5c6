//! For tests only: what goes wrong in the field, on demand.
//!
//! [`SimDisk`] is a disk in memory that forgets what was not synced when it crashes, and fails when it is told to. It is
//! deterministic: the same seed tears the same bytes.

mod disk;

pub use disk::{Fault, SimDisk, SimFile};
