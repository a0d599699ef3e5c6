//! Erasing one sensor's events: what the engine has of them goes, in an order in which each step can be repeated.
//!
//! ```text
//! log       a new segment begins: what was accepted so far is in those before
//! answers   what was told of rejected events is left out of the remembered answers
//! seal      live rows -> lake: all rows that go are in the lake
//! lake      rows out of the files, then the files off the disk, then the statistics out of the log of the table
//! log       the segments of before are let go, and the keys in their place are written again
//! ```
//!
//! It promises that when [`Engine::erase`] returns without an error, no answer, no file of the lake and none of the wal has these events. What
//! stays are hashes of ids, so that a repeated event is a duplicate still.

use crate::ask::Ask;
use crate::log::LogError;
use crate::start::Engine;
use lake::{Erasing, LakeError};
use std::time::Duration;

/// How often it is looked whether the last reader of a file has gone.
const LOOK: Duration = Duration::from_millis(500);

/// Why events were not erased. Some may be; the same can be tried again.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// Live rows did not get into the lake.
    #[error("live rows were not sealed: {0}")]
    Seal(String),
    /// The lake still has some.
    #[error("lake: {0}")]
    Lake(#[from] LakeError),
    /// The log still has some.
    #[error("wal: {0}")]
    Log(#[from] LogError),
    /// The log did not let go of what is in the lake.
    #[error("wal: the frames from position {0} on are still there")]
    Kept(u64),
    /// The engine has stopped; the next start goes on.
    #[error("the engine has stopped")]
    Stopped,
}

impl Engine {
    /// The last position that was accepted; 0 before the first.
    pub fn last_position(&self) -> u64 {
        self.view().live.last().map_or_else(|| self.shared.lake.highest_position(), |chunk| chunk.last)
    }

    /// Number of events that ever were erased.
    pub fn erased_events(&self) -> u64 {
        self.view().lake.erased_rows
    }

    /// Erases what the engine has of these events, and returns when nothing is left: not before the last query that reads them has ended.
    /// `without_texts` makes of what is told with an answer what may stay. Each step is done whatever became of the others.
    ///
    /// # Errors
    /// The first [`EraseError`]; it can be tried again, also after a restart.
    pub async fn erase(
        &self,
        erasing: &Erasing,
        without_texts: impl Fn(&[u8]) -> Vec<u8> + Send,
    ) -> Result<(), EraseError> {
        let shared = &self.shared;
        let mut erased = self.asked(Ask::Roll).await.map(drop);
        let mut note = |step: Result<(), EraseError>| {
            if erased.is_ok() {
                erased = step;
            }
        };
        shared.answers.redact(&erasing.sensor, erasing.until, without_texts);
        // All that is in the segments of before: they are let go as a whole.
        note(self.seal_to(self.last_position()).await);
        let relaid = |lake| shared.live.sealed(lake);
        note(shared.lake.erase(erasing, relaid).await.map_err(EraseError::Lake));
        note(self.remove_erased(erasing).await);
        note(shared.lake.forget_history().await.map_err(EraseError::Lake));
        note(match self.asked(Ask::LetGo).await {
            Ok(first) if first <= erasing.until => Err(EraseError::Kept(first)),
            asked => asked.map(drop),
        });
        erased
    }

    /// Seals until the lake has all up to a position: a seal that failed before is tried again with the rows that it had then, and no others.
    async fn seal_to(&self, until: u64) -> Result<(), EraseError> {
        loop {
            // Asked also when nothing is live: then it ends after the seal that is under way.
            self.seal().await.map_err(EraseError::Seal)?;
            if self.view().live.first().is_none_or(|chunk| chunk.first > until) {
                return Ok(());
            }
        }
    }

    /// Waits for who reads the files that go.
    async fn remove_erased(&self, erasing: &Erasing) -> Result<(), EraseError> {
        let shared = &self.shared;
        while shared.lake.remove_erased(erasing, |lake| shared.live.sealed(lake)).await? > 0 {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// What the log was asked, done: the first position that it still has.
    async fn asked(&self, ask: fn(crate::ask::Answer<u64>) -> Ask) -> Result<u64, EraseError> {
        Ok(self.ask(ask).await.ok_or(EraseError::Stopped)??)
    }
}
