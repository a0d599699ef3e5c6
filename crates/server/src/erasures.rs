//! Erasing one sensor's events: the worker that brings an erasure from its request to its end.
//!
//! It promises that each erasure that the registry has is finished, however often the process ends meanwhile, and that one that fails says why and
//! is tried again. One runs at a time, so that what goes while it runs is its own.

use crate::backups::Backups;
use crate::handlers::ingest::without_texts;
use crate::metrics::ErasureMetrics;
use engine::{Engine, Erasing};
use registry::{Erasure, Registry, Until};
use rejected::{Erased, Rejected, RejectedError};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long until one that failed is tried again; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(15);
const PAUSE_MAX: Duration = Duration::from_secs(15 * 60);
/// How often it is looked whether the last reader of rejected events has gone.
const LOOK: Duration = Duration::from_millis(500);

/// The erasures, and who brings them to their end. Cheap to clone.
#[derive(Clone)]
pub struct Erasures {
    asked: Arc<Notify>,
    engine: Engine,
    registry: Registry,
    rejected: Rejected,
    backups: Backups,
    /// The last positions when the collector started, and when that was.
    last_at_start: Until,
    since_micros: i64,
    metrics: ErasureMetrics,
}

impl Erasures {
    /// Erasures of these parts, to which nothing is sent yet; somebody has to [run](Self::run) them.
    ///
    /// # Errors
    /// The rejected events cannot be looked at.
    pub async fn new(
        engine: Engine,
        registry: Registry,
        rejected: Rejected,
        backups: Backups,
        metrics: &crate::ServerMetrics,
    ) -> Result<Self, RejectedError> {
        let rejected_position = rejected.extent().await?.last_position;
        let last_at_start = Until { position: engine.last_position(), rejected_position };
        let (asked, since_micros, metrics) = (Arc::default(), crate::clock::now_micros(), metrics.erasures.clone());
        Ok(Self { asked, engine, registry, rejected, backups, last_at_start, since_micros, metrics })
    }

    /// Tells that there is something to do.
    pub(crate) fn wake(&self) {
        self.asked.notify_one();
    }

    /// Brings to their end those that there are, and those that come.
    pub async fn run(self) {
        let mut pause = PAUSE_MIN;
        loop {
            match self.work().await {
                Ok(()) => {
                    pause = PAUSE_MIN;
                    self.asked.notified().await;
                }
                Err(error) => {
                    let error = nowwhat::error_chain(&*error);
                    tracing::error!(error, pause_seconds = pause.as_secs(), "events not erased, will be tried again");
                    let was_asked = tokio::time::timeout(pause, self.asked.notified()).await.is_ok();
                    pause = if was_asked { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
                }
            }
        }
    }

    /// Each in turn, until none is left; fails with the last failure of a round.
    async fn work(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        loop {
            let unfinished = self.registry.unfinished_erasures().await?;
            self.metrics.running.set(unfinished.len() as i64);
            if unfinished.is_empty() {
                return Ok(());
            }
            let mut failed = None;
            for erasure in unfinished {
                if let Err(error) = self.turn(&erasure).await {
                    self.metrics.failures.inc();
                    failed = Some(error);
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
    }

    async fn turn(&self, erasure: &Erasure) -> Result<(), Box<dyn Error + Send + Sync>> {
        let began = Instant::now();
        self.registry.begin_erasure(&erasure.sensor, self.engine.erased_events()).await?;
        let erased = self.erase(erasure).await;
        let failure = erased.as_ref().err().map(|error| nowwhat::error_chain(&**error));
        self.registry.end_erasure(erasure, self.engine.erased_events(), failure.as_deref()).await?;
        if erased.is_ok() {
            let after = self.registry.erasure(&erasure.sensor).await?;
            let events = after.map_or(0, |erasure| erasure.erased_events);
            let (sensor, until_position, seconds) =
                (&*erasure.sensor, erasure.until.position, began.elapsed().as_secs_f64());
            tracing::info!(sensor, until_position, events, seconds, "events erased");
        }
        erased
    }

    async fn erase(&self, erasure: &Erasure) -> Result<(), Box<dyn Error + Send + Sync>> {
        // What is held for a backup would outlive its erasing there.
        let _no_backup = self.backups.none().await?;
        let Until { position, rejected_position } = until(erasure, self.last_at_start, self.since_micros);
        let erasing = Erasing { sensor: erasure.sensor.clone(), until: position };
        let erased = self.engine.erase(&erasing, without_texts).await;
        // Whatever became of the accepted ones.
        let rejected = self.erase_rejected(&erasure.sensor, rejected_position).await;
        erased?;
        Ok(rejected?)
    }

    async fn erase_rejected(&self, sensor: &str, until: i64) -> Result<(), RejectedError> {
        while self.rejected.erase(sensor, until).await? == Erased::ReadersLeft {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// Up to where an erasure goes in a collector that started at this moment, with these last positions. One that a restored registry has may name
/// positions that are given only now: those events are others, and so are those that are rejected since.
fn until(erasure: &Erasure, last_at_start: Until, since_micros: i64) -> Until {
    let asked = erasure.until;
    if erasure.requested_at >= since_micros {
        return asked;
    }
    Until {
        position: asked.position.min(last_at_start.position),
        rejected_position: asked.rejected_position.min(last_at_start.rejected_position),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_before_a_restore_takes_nothing_that_came_after_it() {
        let at = |position, rejected_position| Until { position, rejected_position };
        let asked = |requested_at| Erasure {
            sensor: "roof".to_owned(),
            until: at(100, 50),
            requested_at,
            finished_at: None,
            erased_events: 0,
            turn_since: None,
            failure: None,
        };
        // Of a registry that is newer than what was restored beside it.
        assert_eq!(until(&asked(10), at(80, 20), 11), at(80, 20));
        assert_eq!(until(&asked(10), at(120, 60), 11), at(100, 50));
        assert_eq!(until(&asked(11), at(80, 20), 11), at(100, 50), "asked of this run");
    }
}
