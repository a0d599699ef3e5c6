//! The maintenance loop: what is not kept any longer goes, small files of the lake become larger ones, checkpoints are written, files that nobody
//! reads are removed.
//!
//! It never holds up a seal but for a commit or a checkpoint, and what fails is tried again later: events are in the lake before and after.

use crate::live::Live;
use crate::recover::wall_micros;
use futures::FutureExt;
use lake::{Lake, LakeError, Retention, Snapshot};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long nothing is looked at when no seal tells that there may be work: an hour that ends is work, too.
const PAUSE: Duration = Duration::from_secs(60);
/// Longest pause after failures.
const PAUSE_MAX: Duration = Duration::from_secs(15 * 60);

pub(crate) struct MaintainLoop {
    pub(crate) lake: Lake,
    pub(crate) live: Arc<Live>,
    pub(crate) retention: Retention,
    /// Told after each seal.
    pub(crate) sealed: watch::Receiver<u64>,
}

impl MaintainLoop {
    /// Runs until there are no seals any more.
    pub(crate) async fn run(mut self) {
        let mut pause = PAUSE;
        loop {
            let worked = AssertUnwindSafe(self.work()).catch_unwind().await;
            let worked = worked.unwrap_or_else(|_| Err(LakeError::Interrupted));
            match worked {
                Ok(()) => {
                    pause = PAUSE;
                    if matches!(tokio::time::timeout(pause, self.sealed.changed()).await, Ok(Err(_))) {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, pause_seconds = pause.as_secs(), "lake not maintained, will be tried again");
                    let ended = async { while self.sealed.changed().await.is_ok() {} };
                    if tokio::time::timeout(pause, ended).await.is_ok() {
                        return;
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Each step whatever became of the others: the first two are what makes room. Fails with the last failure.
    async fn work(&self) -> Result<(), LakeError> {
        let mut worked = self.lake.expire(self.retention, wall_micros()).await.map(|expired| self.relaid(expired));
        let mut note = |step: Result<(), LakeError>| {
            if step.is_err() {
                worked = step;
            }
        };
        note(self.lake.sweep().await);
        loop {
            match self.lake.compact(wall_micros()).await {
                Ok(Some(snapshot)) => self.relaid(Some(snapshot)),
                Ok(None) => break,
                // It is left as it is, and the others have their turn.
                Err(error @ LakeError::Unmerged { .. }) => tracing::warn!(%error, "a data file is left as it is"),
                Err(error) => {
                    note(Err(error));
                    break;
                }
            }
            note(self.lake.checkpoint().await);
            note(self.lake.sweep().await);
        }
        note(self.lake.checkpoint().await);
        worked
    }

    /// The same rows in other files, or fewer.
    fn relaid(&self, lake: Option<Arc<Snapshot>>) {
        if let Some(lake) = lake {
            tracing::debug!(files = lake.files.len(), version = lake.version, "the lake has other files");
            self.live.sealed(lake);
        }
    }
}
