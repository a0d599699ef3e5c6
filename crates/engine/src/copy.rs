//! A copy of lake and wal at one moment, while events come: their files get a second name in another folder.
//!
//! ```text
//! log    nothing is let go from here on
//! lake   the version of this moment: its commits, then its data files
//! log    the segments up to the last durable frame, and the key files
//! log    may let go again
//! ```
//!
//! It promises that lake and wal belong together: what the lake does not have is in the wal, up to the last event that was answered before the call.

use crate::ask::Ask;
use crate::log::LogError;
use crate::start::Engine;
use lake::LakeError;
use std::path::Path;
use wal::{Part, Parts};

/// What was linked.
#[derive(Clone, Debug)]
pub struct Linked {
    /// The wal's identity, as text.
    pub wal_id: String,
    /// The last position in it.
    pub last_position: u64,
    /// The last position in the lake.
    pub sealed_position: u64,
    /// Version of the lake.
    pub lake_version: u64,
    /// How many events lake and wal have together.
    pub events: u64,
    /// The files of the wal by name, each with how many of its bytes belong to the copy.
    pub wal: Vec<(String, u64)>,
}

/// Why nothing whole was linked.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Of the lake.
    #[error("lake: {0}")]
    Lake(#[from] LakeError),
    /// Of the log.
    #[error("wal: {0}")]
    Log(#[from] LogError),
    /// The engine has stopped.
    #[error("the engine has stopped")]
    Stopped,
}

impl Engine {
    /// Links all that was answered before this call into `lake` and `wal` below `folder`, which is on the same file system and has neither.
    ///
    /// # Errors
    /// [`LinkError`]; a part may be there.
    pub async fn link_into(&self, folder: &Path) -> Result<Linked, LinkError> {
        let _held = self.shared.holds.hold();
        let lake = self.shared.lake.link_into(&folder.join("lake")).await?;
        let to = folder.join("wal");
        let wal = self.ask(|answer| Ask::Link(to, answer)).await.ok_or(LinkError::Stopped)??;
        let Parts { wal_id, last_position, files } = wal;
        Ok(Linked {
            wal_id: wal_id.unwrap_or_default().to_string(),
            last_position,
            sealed_position: lake.sealed,
            lake_version: lake.version,
            events: lake.events + last_position.saturating_sub(lake.sealed),
            wal: files.into_iter().map(|Part { name, bytes }| (name, bytes)).collect(),
        })
    }
}
