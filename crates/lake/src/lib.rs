//! Where events come to rest: Parquet files in a Delta table that other engines read without Catchment.
//!
//! # What it promises
//!
//! - **Exactly once.** [`Lake::seal`] of one range of positions puts it in once, however often it is repeated: the last sealed
//!   position is part of the commit, and is read again before and after.
//! - **Durable before visible.** Data files, commits and checkpoints are on stable storage, with their folders, before anyone
//!   can see them.
//! - **Once also when merged.** [`Lake::compact`] takes files out and puts their rows in again in one commit, which is made only when all of
//!   the files are still there.
//! - **Erased for good.** [`Lake::erase`] takes out the rows of one sensor, [`Lake::remove_erased`] the files, [`Lake::forget_history`] the statistics of them.
//! - **One lane.** All commits of one [`Lake`] happen one after another, and its folder is locked against other processes.
//! - **Checked.** What a data file has is read with its checksum: other bytes than were written are an error, and never rows.
//!
//! # What it does not do
//!
//! It plans no queries and knows nothing of the wal but its id. `docs/FORMAT.md` describes the folder.
//!
//! Reading order: [`Lake`] the operations, `encode` the files, `plan` and `merge` what becomes of small ones, `retention` of old ones, `erase` of one sensor's, `copy` what a backup takes, `stats` what a reader can skip by,
//! `store` the syncs, `sums` the checksums of data files, `history` those of the log, `versions` what of the log is damaged or gone, `checked` reading them, `repair` of what is damaged.

mod checked;
mod compact;
mod copy;
mod dead;
mod encode;
mod erase;
mod error;
mod history;
mod lake;
mod merge;
mod metrics;
mod name;
mod place;
mod plan;
mod repair;
mod replace;
mod retention;
mod snapshot;
mod sort;
mod stats;
mod store;
mod sums;
mod table;
mod versions;

pub use checked::{CheckedFile, CheckedStore, Reading, damage};
pub use compact::free_bytes;
pub use copy::{Copy, copy_of};
pub use erase::Erasing;
pub use error::{LakeError, OpenError};
pub use lake::{Lake, Pace, Sealing};
pub use metrics::LakeMetrics;
pub use repair::{Mended, TakenIn};
pub use retention::Retention;
pub use snapshot::{LakeFile, LiveChunk, Newest, RowGroup, Snapshot, View};
pub use stats::{FileStats, Range};
pub use sums::{Summed, finish_summed};
pub use table::{flaw_of_name, look, look_for, wals};
pub use versions::{Flaw, MovedAside, flaws, is_begun, mend_log, unnamed};
