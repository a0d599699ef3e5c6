//! The maintenance loop: what is not kept any longer goes, small files of the lake become larger ones, checkpoints are written, files that nobody
//! reads are removed.
//!
//! It never holds up a seal but for a commit or a checkpoint, and what fails is tried again later: events are in the lake before and after.

use crate::clock::Timekeeper;
use crate::live::Live;
use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use futures::FutureExt;
use lake::{Lake, LakeError, Retention, Snapshot, View};
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
    pub(crate) time: Timekeeper,
    /// Told after each seal.
    pub(crate) sealed: watch::Receiver<u64>,
}

impl MaintainLoop {
    /// Runs until there are no seals any more.
    pub(crate) async fn run(mut self) {
        let mut pause = PAUSE;
        loop {
            self.keep_time().await;
            let worked = AssertUnwindSafe(self.work(self.time.look())).catch_unwind().await;
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

    async fn keep_time(&self) {
        let time = self.time.clone();
        // Else the runtime ends, or the next turn tries again.
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || time.keep()).await {
            tracing::warn!(%error, "the time not kept for the next start, will be tried again");
        }
    }

    /// Each step whatever became of the others: the first two are what makes room. Fails with the last failure.
    async fn work(&self, now_micros: i64) -> Result<(), LakeError> {
        let mut worked = self.lake.expire(self.retention, now_micros).await.map(|expired| self.relaid(expired));
        let mut note = |step: Result<(), LakeError>| {
            if step.is_err() {
                worked = step;
            }
        };
        note(self.lake.sweep(now_micros).await);
        loop {
            match self.lake.compact(now_micros).await {
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
            note(self.lake.sweep(now_micros).await);
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

/// When the event was received that came last.
pub(crate) fn newest_micros(view: &View) -> Option<i64> {
    if let Some(rows) = view.live.last().and_then(|chunk| chunk.rows.upgrade()) {
        let times = rows.column_by_name("received_at")?.as_primitive_opt::<TimestampMicrosecondType>()?;
        return (!times.is_empty()).then(|| times.value(times.len() - 1));
    }
    let last = view.lake.files.iter().max_by_key(|file| file.stats.position.max)?;
    last.stats.received_at.max
}
