//! SIGINT and SIGTERM while a backup is made: it ends as one that failed, so that the collector lets go of what it holds at once.

use nowwhat::cli::complain;
use nowwhat::serve::Termination;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a signal came.
#[derive(Clone)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on the first signal is noted, and the second one ends the program.
    pub(super) fn watch() -> io::Result<Self> {
        let noted = Self(Arc::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let within = runtime.enter();
        let mut termination = Termination::watch()?;
        drop(within);
        let seen = noted.clone();
        std::thread::spawn(move || {
            runtime.block_on(async {
                let signal = termination.next().await;
                seen.0.store(true, Ordering::Relaxed);
                complain(&format!("{signal}: ending"));
                termination.next().await;
                std::process::exit(1);
            });
        });
        Ok(noted)
    }

    /// # Errors
    /// A signal came.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(io::Error::other("interrupted by a signal")) } else { Ok(()) }
    }
}
