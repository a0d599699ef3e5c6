//! The end of a service, in order and with deadlines: also of one whose start failed or was interrupted.

use super::BoxError;
use super::boot::Step;
use super::running::Ask;
use crate::health::Health;
use crate::serve::Stopper;
use crate::systemd::Systemd;
use futures::future;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long requests that are cut off, and the admin listener's connections, may take to end.
const CUT_OFF_TIMEOUT: Duration = Duration::from_secs(1);

/// A listener that serves.
pub(super) struct Served {
    pub(super) task: JoinHandle<()>,
    pub(super) stopper: Stopper,
}

/// Who wants the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A signal or the caller: asked once more, it quits at once.
    Asked,
    /// The service itself, which failed.
    Unasked,
}

/// What is to be ended.
pub(super) struct Stopping {
    pub(super) health: Health,
    pub(super) systemd: Systemd,
    /// None when the start did not come so far.
    pub(super) api: Option<Served>,
    pub(super) steps: Vec<Step>,
    pub(super) admin: Served,
    pub(super) drain: Duration,
    /// For requests in flight, and for each step.
    pub(super) grace: Duration,
}

impl Stopping {
    /// Ends everything, or quits at once when it is asked a second time.
    ///
    /// # Errors
    /// What failed first, or took too long.
    pub(super) async fn run(self, asks: &mut mpsc::UnboundedReceiver<Ask>, wanted: Wanted) -> Result<(), BoxError> {
        tokio::select! {
            stopped = self.in_order() => stopped,
            signal = second(asks, wanted) => Err(format!("{signal} came while stopping: quit at once, the next start recovers").into()),
        }
    }

    async fn in_order(self) -> Result<(), BoxError> {
        let began = Instant::now();
        self.health.stopping();
        self.systemd.stopping();
        if let Some(api) = self.api {
            tokio::time::sleep(self.drain).await;
            finish(api, self.grace).await;
        }
        let stopped = run_backwards(self.steps, self.grace).await;
        self.admin.stopper.stop();
        // A connection kept open by a scraper must not hold up the end.
        drop(tokio::time::timeout(CUT_OFF_TIMEOUT, self.admin.task).await);
        tracing::info!(seconds = began.elapsed().as_secs_f64(), "stopped");
        stopped
    }
}

/// Lets the requests in flight finish.
async fn finish(mut api: Served, grace: Duration) {
    api.stopper.stop();
    if tokio::time::timeout(grace, &mut api.task).await.is_err() {
        tracing::warn!(grace_seconds = grace.as_secs(), "requests did not finish in time and are cut off");
        // What follows takes away what they stand on.
        api.stopper.cut_off();
        // One that never yields cannot be.
        drop(tokio::time::timeout(CUT_OFF_TIMEOUT, api.task).await);
    }
}

/// Runs all steps, the last one first, also after one that failed or hangs.
async fn run_backwards(mut steps: Vec<Step>, grace: Duration) -> Result<(), BoxError> {
    let mut stopped = Ok(());
    while let Some(Step { name, run }) = steps.pop() {
        let error: BoxError = match tokio::time::timeout(grace, run).await {
            Ok(Ok(())) => {
                tracing::debug!(step = name, "stopped");
                continue;
            }
            Ok(Err(error)) => {
                let error_text = crate::error_chain(error.as_ref());
                tracing::error!(step = name, error = error_text, "a step of stopping failed");
                error
            }
            Err(_) => {
                let grace_seconds = grace.as_secs();
                tracing::error!(step = name, grace_seconds, "a step of stopping takes too long");
                format!("the step {name} of stopping did not end within {grace_seconds} s").into()
            }
        };
        stopped = stopped.and(Err(error));
    }
    stopped
}

/// The second time someone asks to stop.
async fn second(asks: &mut mpsc::UnboundedReceiver<Ask>, mut wanted: Wanted) -> &'static str {
    loop {
        match asks.recv().await {
            Some(Ask::Stop(signal)) if wanted == Wanted::Asked => return signal,
            Some(Ask::Stop(signal)) => {
                tracing::info!(signal, "it stops already; once more quits at once");
                wanted = Wanted::Asked;
            }
            Some(Ask::Reload) => tracing::warn!("not reloaded: the service is stopping"),
            None => future::pending().await,
        }
    }
}
