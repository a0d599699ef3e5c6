//! Clocks that a test moves: time passes when it says so, and the wall clock leaps.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A wall clock and one that never leaps. Clones are the same clocks.
#[derive(Clone, Debug)]
pub struct SimClock(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    wall_micros: i64,
    passed: Duration,
}

impl SimClock {
    /// Clocks that stand at this moment, in microseconds since 1970.
    pub fn new(wall_micros: i64) -> Self {
        Self(Arc::new(Mutex::new(State { wall_micros, passed: Duration::ZERO })))
    }

    /// What the wall clock says.
    pub fn wall_micros(&self) -> i64 {
        self.state().wall_micros
    }

    /// How much time has really passed.
    pub fn passed(&self) -> Duration {
        self.state().passed
    }

    /// Time passes, and both clocks go on.
    pub fn pass(&self, time: Duration) {
        let mut state = self.state();
        state.passed += time;
        state.wall_micros = state.wall_micros.saturating_add(i64::try_from(time.as_micros()).unwrap_or(i64::MAX));
    }

    /// The wall clock leaps, ahead or back, and no time passes. It never says less than a day of 1970.
    pub fn leap(&self, micros: i64) {
        let mut state = self.state();
        state.wall_micros = state.wall_micros.saturating_add(micros).max(86_400_000_000);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
