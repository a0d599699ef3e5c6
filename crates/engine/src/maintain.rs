//! The maintenance loop: what is not kept any longer goes, small files of the lake become larger ones, checkpoints are written, files that nobody
//! reads are removed.
//!
//! It never holds up a seal but for a commit, and what fails is tried again later: events are in the lake before and after.

use crate::live::Live;
use crate::recover::wall_micros;
use lake::{Lake, LakeError, Retention};
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
            let worked = self.work().await;
            let mut sealed = self.sealed.clone();
            let ended = async { while sealed.changed().await.is_ok() {} };
            match worked {
                Ok(()) => {
                    pause = PAUSE;
                    if matches!(tokio::time::timeout(pause, self.sealed.changed()).await, Ok(Err(_))) {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, pause_seconds = pause.as_secs(), "lake not maintained, will be tried again");
                    if tokio::time::timeout(pause, ended).await.is_ok() {
                        return;
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn work(&self) -> Result<(), LakeError> {
        if let Some(snapshot) = self.lake.expire(self.retention, wall_micros()).await? {
            self.live.sealed(snapshot);
        }
        while let Some(snapshot) = self.lake.compact(wall_micros()).await? {
            tracing::debug!(files = snapshot.files.len(), version = snapshot.version, "compacted");
            self.live.sealed(snapshot);
            self.lake.maintain().await?;
        }
        self.lake.maintain().await
    }
}
