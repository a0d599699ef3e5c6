//! Admission: a budget of bytes for everything between a request's first byte and its answer.
//!
//! It promises that reservations never add up to more than the budget, and that a reservation gives its bytes back when it
//! is dropped, whatever happened to the request. It does not queue: what does not fit is turned away at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The byte budget of all requests in flight.
#[derive(Clone, Debug)]
pub struct Admission {
    inner: Arc<Budget>,
}

#[derive(Debug)]
struct Budget {
    used_bytes: AtomicU64,
    bytes_max: u64,
}

/// The budget has no room for this many bytes now; the caller may try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted_bytes} bytes do not fit: {used_bytes} of {bytes_max} bytes are in flight")]
pub struct TurnedAway {
    /// Bytes asked for.
    pub wanted_bytes: u64,
    /// Bytes in flight at that moment.
    pub used_bytes: u64,
    /// The budget.
    pub bytes_max: u64,
}

impl Admission {
    /// A budget of `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self { inner: Arc::new(Budget { used_bytes: AtomicU64::new(0), bytes_max }) }
    }

    /// Reserves `bytes`.
    ///
    /// # Errors
    /// [`TurnedAway`] when they do not fit beside what is in flight.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, TurnedAway> {
        let mut reservation = Reservation { budget: self.inner.clone(), bytes: 0 };
        reservation.resize(bytes)?;
        Ok(reservation)
    }

    /// Bytes in flight.
    pub fn used_bytes(&self) -> u64 {
        self.inner.used_bytes.load(Ordering::Relaxed)
    }

    /// The budget.
    pub fn bytes_max(&self) -> u64 {
        self.inner.bytes_max
    }
}

/// Bytes taken from the budget; given back on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Reservation {
    /// Bytes reserved.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Grows or shrinks the reservation to `bytes`.
    ///
    /// # Errors
    /// [`TurnedAway`] when the growth does not fit; the reservation then stays as it was.
    pub fn resize(&mut self, bytes: u64) -> Result<(), TurnedAway> {
        if bytes <= self.bytes {
            self.budget.used_bytes.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            self.bytes = bytes;
            return Ok(());
        }
        let more = bytes - self.bytes;
        let max = self.budget.bytes_max;
        self.budget
            .used_bytes
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |used| used.checked_add(more).filter(|sum| *sum <= max))
            .map_err(|used_bytes| TurnedAway { wanted_bytes: bytes, used_bytes, bytes_max: max })?;
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_turned_away_and_what_is_dropped_comes_back() {
        let admission = Admission::new(100);
        let first = admission.reserve(60).expect("fits");
        let refused = admission.reserve(41).expect_err("41 beside 60 of 100");
        assert_eq!(refused, TurnedAway { wanted_bytes: 41, used_bytes: 60, bytes_max: 100 });
        drop(first);
        assert_eq!(admission.used_bytes(), 0);
        admission.reserve(100).expect("all of it is free again");
    }

    #[test]
    fn a_reservation_that_cannot_grow_stays_as_it_was() {
        let admission = Admission::new(100);
        let _other = admission.reserve(50).expect("fits");
        let mut growing = admission.reserve(10).expect("fits");
        growing.resize(51).expect_err("too much");
        assert_eq!((growing.bytes(), admission.used_bytes()), (10, 60));
        growing.resize(50).expect("just fits");
        growing.resize(1).expect("shrinking always works");
        assert_eq!(admission.used_bytes(), 51);
    }
}
