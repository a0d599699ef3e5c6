//! Admission: a budget of bytes for everything between a request's first byte and its answer.
//!
//! It promises that reservations never add up to more than the budget, that a reservation gives its bytes back when it is dropped,
//! whatever happened to the request, and that no sender holds the budget with bodies that come slowly: see [`Admission::expect`].
//!
//! It does not queue: what does not fit is turned away at once, and gives back what it held. So of bodies that hold the budget
//! together and none of which can grow, those that ask first make the room in which the others end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bodies on their way from one sender may take so many times as much as they leave free: three quarters of what it found. So something
/// is always left for the next sender.
const SHARE_OF_FREE: u64 = 3;

/// The byte budget of all requests in flight.
#[derive(Clone, Debug)]
pub struct Admission {
    budget: Arc<Budget>,
}

#[derive(Debug)]
struct Budget {
    bytes_max: u64,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    bytes: u64,
    /// Of these, the bytes of bodies that have not come to their end, by sender.
    coming: HashMap<Arc<str>, u64>,
}

/// The budget has no room for this many bytes now; the caller may try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{wanted_bytes} bytes do not fit: {used_bytes} of {bytes_max} bytes are in flight, and one sender's bodies may take {SHARE_OF_FREE} \
     times as much as they leave free"
)]
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
        Self { budget: Arc::new(Budget { bytes_max, used: Mutex::default() }) }
    }

    /// Reserves `bytes`.
    ///
    /// # Errors
    /// [`TurnedAway`] when they do not fit beside what is in flight.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, TurnedAway> {
        let mut reservation = Reservation { budget: self.budget.clone(), bytes: 0, sender: None };
        reservation.resize(bytes)?;
        Ok(reservation)
    }

    /// Begins a body of which `announced` bytes are to come. It holds nothing before they are there: [`Reservation::resize`] takes the
    /// room of what came. Until [`Reservation::has_come`] it is bound to the share of its sender; but a body that is alone may take all.
    ///
    /// # Errors
    /// [`TurnedAway`] when that many bytes would not fit now.
    pub fn expect(&self, sender: Arc<str>, announced: u64) -> Result<Reservation, TurnedAway> {
        let reservation = Reservation { budget: self.budget.clone(), bytes: 0, sender: Some(sender) };
        reservation.fits(&self.budget.used(), announced)?;
        Ok(reservation)
    }

    /// Bytes in flight.
    pub fn used_bytes(&self) -> u64 {
        self.budget.used().bytes
    }

    /// The budget.
    pub fn bytes_max(&self) -> u64 {
        self.budget.bytes_max
    }
}

impl Budget {
    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Used {
    fn coming(&self, sender: &str) -> u64 {
        self.coming.get(sender).copied().unwrap_or_default()
    }

    /// Counts what comes from a sender, `more` and not any more `less`.
    fn count(&mut self, sender: &Arc<str>, more: u64, less: u64) {
        let coming = (self.coming(sender) + more).saturating_sub(less);
        match coming {
            0 => drop(self.coming.remove(sender)),
            _ => drop(self.coming.insert(sender.clone(), coming)),
        }
    }
}

/// Bytes taken from the budget; given back on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
    /// Whose body it is, as long as it comes.
    sender: Option<Arc<str>>,
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
        let budget = self.budget.clone();
        let mut used = budget.used();
        if bytes > self.bytes {
            self.fits(&used, bytes)?;
        }
        self.set(&mut used, bytes);
        Ok(())
    }

    /// The whole body is there: from now on it takes as long as this program does, and counts to nobody's share.
    pub fn has_come(&mut self) {
        if let Some(sender) = self.sender.take() {
            self.budget.used().count(&sender, 0, self.bytes);
        }
    }

    /// Whether it may have this many bytes.
    fn fits(&self, used: &Used, bytes: u64) -> Result<(), TurnedAway> {
        let bytes_max = self.budget.bytes_max;
        let others = used.bytes - self.bytes;
        let free = bytes_max.checked_sub(others).and_then(|room| room.checked_sub(bytes));
        let is_within_share = |free: u64, sender: &Arc<str>| {
            let coming = used.coming(sender) - self.bytes + bytes;
            others == 0 || coming <= free.saturating_mul(SHARE_OF_FREE)
        };
        match (free, &self.sender) {
            (Some(_), None) => Ok(()),
            (Some(free), Some(sender)) if is_within_share(free, sender) => Ok(()),
            _ => Err(TurnedAway { wanted_bytes: bytes, used_bytes: used.bytes, bytes_max }),
        }
    }

    fn set(&mut self, used: &mut Used, bytes: u64) {
        used.bytes = used.bytes - self.bytes + bytes;
        if let Some(sender) = &self.sender {
            used.count(sender, bytes, self.bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let budget = self.budget.clone();
        self.set(&mut budget.used(), 0);
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

    /// A body of this sender of which so much came.
    fn came(admission: &Admission, sender: &str, bytes: u64) -> Result<Reservation, TurnedAway> {
        let mut body = admission.expect(sender.into(), bytes)?;
        body.resize(bytes)?;
        Ok(body)
    }

    #[test]
    fn what_is_announced_holds_nothing_before_it_comes_and_must_fit_all_the_same() {
        let admission = Admission::new(100);
        let mut slow = admission.expect("slow".into(), 70).expect("would fit");
        assert_eq!(admission.used_bytes(), 0);
        let quick = came(&admission, "quick", 70).expect("the announced bytes are not there yet");
        slow.resize(10).expect("there is room for its first bytes");
        slow.resize(70).expect_err("not for all of them");
        admission.expect("third".into(), 21).expect_err("known before it is read");
        drop(quick);
        slow.resize(70).expect("there is room again");
        drop(slow);
        assert_eq!(admission.used_bytes(), 0);
        assert!(admission.budget.used().coming.is_empty());
    }

    #[test]
    fn bodies_on_their_way_leave_something_to_the_next_sender_however_many_hold_their_share() {
        let admission = Admission::new(1000);
        let mut held = Vec::new();
        for sender in ["one", "two", "three", "four", "five"] {
            let before = held.len();
            while let Ok(body) = came(&admission, sender, 1) {
                held.push(body);
            }
            assert!(held.len() > before, "{sender} gets its share");
        }
        assert_eq!(held.iter().map(Reservation::bytes).sum::<u64>(), admission.used_bytes());
        // One takes three quarters, and what it leaves is shared the same way.
        assert_eq!(admission.used_bytes(), 750 + 187 + 47 + 12 + 3);
        held[0].has_come();
        assert!(came(&admission, "one", 1).is_err(), "what has come still takes room");
    }

    #[test]
    fn a_body_that_is_alone_may_take_all_and_one_that_has_come_is_bound_to_no_share() {
        let admission = Admission::new(100);
        let mut only = came(&admission, "only", 100).expect("nobody else is there");
        only.resize(60).expect("shrinking always works");
        came(&admission, "only", 20).expect_err("80 of 100 on their way");
        only.has_come();
        let mut second = came(&admission, "only", 20).expect("20 on their way");
        second.has_come();
        second.resize(40).expect("it has come: it may use what is there");
        drop((only, second));
        assert_eq!(admission.used_bytes(), 0);
        assert!(admission.budget.used().coming.is_empty());
    }
}
