//! For tests only: what goes wrong in the field, on demand.
//!
//! [`SimDisk`] is a disk in memory that forgets, tears and reorders what was not synced when the power goes, and fails when it is
//! told to; the same seed leaves the same bytes. [`mount()`] puts it into a folder, for programs that know nothing of it. [`Random`] is where
//! seeded tests take their choices from; [`SimClock`] is moved by a test alone.
//!
//! Reading order: `tree` what is on a disk and what a power cut leaves, [`SimDisk`] its operations and faults, `mount` the folder.

mod clock;
mod disk;
mod mount;
mod random;
mod tree;

pub use clock::SimClock;
pub use disk::{Fault, Lie, SimDisk, SimFile};
pub use mount::{Mounted, mount};
pub use random::Random;
