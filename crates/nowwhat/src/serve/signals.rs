//! When to stop and when to reload: told by the service itself, or by signals of the operating system.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Tells everyone to stop. Made by [`stop_signal`].
#[derive(Debug)]
pub struct Stopper(watch::Sender<Phase>);

/// Knows when to stop.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Phase>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Going,
    Finishing,
    CutOff,
}

/// A pair: one side tells, the other knows.
pub fn stop_signal() -> (Stopper, Stop) {
    let (tell, know) = watch::channel(Phase::Going);
    (Stopper(tell), Stop(know))
}

impl Stopper {
    /// Tells everyone to finish what has begun.
    pub fn stop(&self) {
        self.0.send_replace(Phase::Finishing);
    }

    /// Tells everyone not even to finish.
    pub fn cut_off(&self) {
        self.0.send_replace(Phase::CutOff);
    }
}

impl Stop {
    /// Returns when it is time to stop.
    pub async fn stopped(&mut self) {
        // A stopper that is gone means the same.
        drop(self.0.wait_for(|phase| *phase != Phase::Going).await);
    }

    /// Returns when there is no time left to finish.
    pub(super) async fn cut_off(&mut self) {
        if self.0.wait_for(|phase| *phase == Phase::CutOff).await.is_err() {
            // A stopper that is gone lets everyone finish.
            std::future::pending::<()>().await;
        }
    }
}

/// The signals that ask the process to end: SIGTERM and SIGINT. From the moment this is made none is lost: one that
/// comes while nobody waits is told at the next call of [`Termination::next`].
#[derive(Debug)]
pub struct Termination {
    term: Signal,
    int: Signal,
}

impl Termination {
    /// Begins to watch.
    ///
    /// # Errors
    /// The operating system's, when signals cannot be watched.
    pub fn watch() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// The name of the next signal.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

/// The signal that asks the process to reload: SIGHUP. From the moment this is made it no longer ends the process, and
/// one that comes while nobody waits is told at the next call of [`Hangup::next`]; several meanwhile are told as one.
#[derive(Debug)]
pub struct Hangup(Signal);

impl Hangup {
    /// Begins to watch.
    ///
    /// # Errors
    /// The operating system's, when signals cannot be watched.
    pub fn watch() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Returns when the next signal comes.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            // No more can come; that is no signal.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal, getpid, kill_process};
    use std::time::Duration;

    #[tokio::test]
    async fn a_signal_that_comes_while_nobody_waits_is_told_afterwards() {
        let mut termination = Termination::watch().expect("signals can be watched");
        for name in ["SIGTERM", "SIGINT"] {
            let number = if name == "SIGTERM" { Signal::TERM } else { Signal::INT };
            kill_process(getpid(), number).expect("the process is ours");
            // Other work goes on meanwhile.
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(termination.next().await, name);
        }
    }

    #[tokio::test]
    async fn a_hangup_is_told_once_and_does_not_end_the_process() {
        let mut hangup = Hangup::watch().expect("signals can be watched");
        kill_process(getpid(), Signal::HUP).expect("the process is ours");
        tokio::time::timeout(Duration::from_secs(10), hangup.next()).await.expect("told");
        let again = tokio::time::timeout(Duration::from_millis(50), hangup.next()).await;
        assert!(again.is_err(), "told twice");
    }
}
