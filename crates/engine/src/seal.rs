//! The seal loop: live rows go to the lake by size or age, then the View swaps, then the commit loop trims the log.
//!
//! It promises that rows leave the live rows only when the lake says that it holds them. A seal that fails is tried again
//! with the same rows under the same name, after a pause that grows; the events stay durable in the wal and visible.

use crate::live::{Live, Taken};
use crate::metrics::EngineMetrics;
use crate::start::{Options, Status};
use lake::{Lake, Pace, Sealing};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Pause after the first failed seal; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// What the seal loop is asked besides its own clock.
pub(crate) type SealNow = oneshot::Sender<Result<(), String>>;

pub(crate) struct SealLoop {
    pub(crate) lake: Lake,
    pub(crate) live: Arc<Live>,
    pub(crate) sealed: watch::Sender<u64>,
    pub(crate) asked: mpsc::Receiver<SealNow>,
    pub(crate) metrics: EngineMetrics,
    pub(crate) options: Options,
    pub(crate) status: Arc<Status>,
}

impl SealLoop {
    /// Runs until nobody can ask any more.
    pub(crate) async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        let mut oldest = Instant::now();
        loop {
            // Nearly as much as another seal takes came during the one before: rows come about as quickly as they go.
            let is_behind = self.live.bytes() as u64 >= self.options.seal_bytes / 4 * 3;
            let asked = tokio::select! {
                biased;
                asked = self.asked.recv() => match asked { Some(asked) => Some(asked), None => return },
                () = due(&self.live, &self.options, oldest) => None,
            };
            let is_pressed = is_behind || asked.is_some() || self.live.is_room_wanted();
            let pace = if is_pressed { Pace::Pressed } else { Pace::Calm };
            let result = self.seal(pace).await;
            oldest = Instant::now();
            match &result {
                Ok(()) => pause = PAUSE_MIN,
                Err(_) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
            if let Some(asked) = asked {
                drop(asked.send(result));
            }
        }
    }

    async fn seal(&self, pace: Pace) -> Result<(), String> {
        let Some(Taken { first, last, rows }) = self.live.take() else {
            return Ok(());
        };
        let started = Instant::now();
        let count: usize = rows.iter().map(|r| r.num_rows()).sum();
        let batches = rows.iter().map(|r| r.as_ref().clone()).collect();
        match self.lake.seal(Sealing { first, last, batches, pace }).await {
            Ok(snapshot) => {
                let seconds = started.elapsed().as_secs_f64();
                tracing::debug!(first, last, rows = count, version = snapshot.version, seconds, "sealed");
                self.live.sealed(snapshot);
                self.sealed.send_replace(last);
                self.metrics.seals.inc();
                self.metrics.seal_seconds.observe(seconds);
                self.status.set_seal_failure(None);
                Ok(())
            }
            Err(error) => {
                self.metrics.seal_failures.inc();
                tracing::error!(first, last, rows = count, %error, "seal failed, will be tried again");
                let reason = error.to_string();
                self.status.set_seal_failure(Some(reason.clone()));
                Err(reason)
            }
        }
    }
}

/// Returns when the live rows have the size for a seal, or the oldest the age: they are younger than `since`.
async fn due(live: &Live, options: &Options, mut since: Instant) {
    let age = Duration::from_secs(options.seal_age_seconds);
    loop {
        let grown = live.grown.notified();
        if live.bytes() as u64 >= options.seal_bytes || (live.is_room_wanted() && live.rows() > 0) {
            return;
        }
        if live.rows() == 0 {
            grown.await;
            since = Instant::now();
            continue;
        }
        let left = age.saturating_sub(since.elapsed());
        if left.is_zero() {
            return;
        }
        drop(tokio::time::timeout(left, grown).await);
    }
}
