//! How far the start of a service is, for whoever waits for it: probes, systemd, and who reads the log.

use crate::health::Health;
use crate::systemd::Systemd;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often what is told is looked at.
const SHOW_EVERY: Duration = Duration::from_millis(100);
/// How often systemd is told.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How often a line is logged; a start that is through before has none.
const LOG_EVERY: Duration = Duration::from_secs(5);
/// A start that has told nothing for so long takes too long, once the time that the unit gives it is over.
const PATIENCE: Duration = Duration::from_secs(120);

/// Tells how far the start is. Cheap to clone, and to be told often.
#[derive(Clone, Debug)]
pub struct Progress {
    health: Health,
    systemd: Systemd,
    last: Arc<Mutex<Last>>,
}

#[derive(Debug)]
struct Last {
    shown: Option<Instant>,
    told: Option<Instant>,
    logged: Instant,
}

impl Progress {
    pub(super) fn new(health: Health, systemd: Systemd) -> Self {
        Self { health, systemd, last: Arc::new(Mutex::new(Last { shown: None, told: None, logged: Instant::now() })) }
    }

    /// What the start does now and how far it is, in one line: `reads the stock: 40 % of 2.0 GB`. `/startupz` and `/readyz` answer with it,
    /// systemd shows it and gives the start more time, as long as more comes; every few seconds it is logged. Once the service is ready,
    /// nothing is told any more.
    pub fn tell(&self, what: impl Display) {
        if self.health.is_started() {
            return;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if last.shown.is_some_and(|shown| now - shown < SHOW_EVERY) {
            return;
        }
        last.shown = Some(now);
        let what = what.to_string();
        if last.told.is_none_or(|told| now - told >= TELL_EVERY) {
            last.told = Some(now);
            self.systemd.starting(&what, PATIENCE);
        }
        if now - last.logged >= LOG_EVERY {
            last.logged = now;
            tracing::info!(progress = what, "still starting");
        }
        drop(last);
        self.health.starting(what);
    }
}
