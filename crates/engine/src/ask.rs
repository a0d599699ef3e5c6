//! What the commit loop is asked to do with the log, between two groups.

use crate::commit::{CommitLoop, KeysOfWindow};
use crate::log::LogError;
use crate::start::Engine;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::oneshot;

/// Where the answer goes.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, LogError>>;

/// What is asked. The first two are answered with the first position that the log still has.
pub(crate) enum Ask {
    /// Begin a new segment.
    Roll(Answer<u64>),
    /// Let go of what is in the lake, and write what is kept in its place again.
    LetGo(Answer<u64>),
    /// Give the files a second name in this folder.
    Link(PathBuf, Answer<wal::Parts>),
}

/// While somebody holds, the log lets go of nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holds(Arc<AtomicU64>);

impl Holds {
    /// Holds until what is returned is dropped.
    pub(crate) fn hold(&self) -> Held {
        self.0.fetch_add(1, Ordering::SeqCst);
        Held(self.clone())
    }

    fn are_any(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }
}

/// One that holds.
#[derive(Debug)]
pub(crate) struct Held(Holds);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Engine {
    /// What the commit loop answers; none when it has ended.
    pub(crate) async fn ask<T>(&self, ask: impl FnOnce(Answer<T>) -> Ask) -> Option<Result<T, LogError>> {
        let (answer, answered) = oneshot::channel();
        self.shared.asks.send(ask(answer)).ok()?;
        answered.await.ok()
    }
}

impl CommitLoop {
    pub(crate) async fn answer_ask(&mut self, ask: Ask) {
        let (done, answer) = match ask {
            Ask::Roll(answer) => (self.log.roll().await, answer),
            Ask::LetGo(answer) => (self.let_go().await, answer),
            Ask::Link(folder, answer) => {
                // Who asked may be gone; so below.
                let _ = answer.send(self.log.link_into(&folder).await);
                return;
            }
        };
        if let Err(LogError::Poisoned(reason)) = &done {
            self.status.poison(reason);
        }
        let _ = answer.send(done.map(|()| self.log.first_position()));
    }

    async fn let_go(&mut self) -> Result<(), LogError> {
        let sealed = self.live.view().lake.sealed;
        self.try_trim(sealed).await?;
        let now = Instant::now();
        let wall_micros = self.options.clock.wall_micros();
        let keys = KeysOfWindow { window: &self.window, answers: &self.answers, now, wall_micros };
        self.log.rewrite_keys(&keys).await
    }

    /// Whether nothing may be let go now. Asked after it was read what is in the lake: who holds finds at least that there.
    pub(crate) fn is_held(&self) -> bool {
        self.holds.are_any()
    }
}
