//! Checks that have to wait for an answer: asked in the background, so that a probe never waits.
//!
//! The last answer counts until the next one. An answer that does not come, and a check that panics, count as failures: a watch never
//! goes on saying what was true once.

use futures::FutureExt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a check said.
#[derive(Clone, Debug)]
pub(super) struct Said {
    /// What is wrong, or nothing.
    pub(super) reason: Option<String>,
    /// How long it took.
    pub(super) took: Duration,
    /// When it was said.
    pub(super) at: Instant,
}

/// Asks at once and then `every` so often, which is also how long an answer may take, until `end`.
pub(super) fn watch<F>(
    every: Duration,
    check: impl Fn() -> F + Send + Sync + 'static,
    end: CancellationToken,
) -> watch::Receiver<Option<Said>>
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let (tell, told) = watch::channel(None);
    let ask = async move {
        loop {
            let began = Instant::now();
            // The check itself may panic before there is a future of it.
            let asked = AssertUnwindSafe(async { check().await }).catch_unwind();
            let reason = match tokio::time::timeout(every, asked).await {
                Ok(Ok(answer)) => answer.err(),
                Ok(Err(_)) => Some("the check panicked".to_owned()),
                Err(_) => Some(format!("no answer within {} s", every.as_secs_f64())),
            };
            tell.send_replace(Some(Said { reason, took: began.elapsed(), at: Instant::now() }));
            tokio::time::sleep(every.saturating_sub(began.elapsed())).await;
        }
    };
    tokio::spawn(async move { end.run_until_cancelled(ask).await });
    told
}
