//! Admission: a budget of bytes for everything between a request's first byte and its answer.
//!
//! It promises that reservations never add up to more than the budget, that a reservation gives its bytes back when it is dropped,
//! whatever happened to the request, and that nobody keeps others out with bodies that come slowly, however many they are: see
//! [`Admission::expect`] and [`Reservation::slows`].
//!
//! It does not queue: what does not fit is turned away at once, and gives back what it held. So of bodies that hold the budget
//! together and none of which can grow, those that ask first make the room in which the others end; and slow bodies that hold more than
//! a quarter make the room in which the next try of what was turned away fits.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Bodies on their way from one sender may take so many times as much as they leave free: three quarters of what it found. So something
/// is always left for the next sender.
const SHARE_OF_FREE: u64 = 3;
/// Slow bodies together keep one part in so many of the budget; what they hold beyond it goes when others need it.
const SLOW_PARTS: u64 = 4;

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
    /// Those of them that are slow and were not told to give way, by sender.
    slow: HashMap<Arc<str>, SlowBodies>,
    slow_bytes: u64,
    last_slow: u64,
}

/// The slow bodies of a sender, by their bytes and a number of their own, with how they are told to give way.
type SlowBodies = BTreeMap<(u64, u64), Arc<Notify>>;

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
        let mut reservation = Reservation { budget: self.budget.clone(), bytes: 0, sender: None, slow: None };
        reservation.resize(bytes)?;
        Ok(reservation)
    }

    /// Begins a body of which `announced` bytes are to come. It holds nothing before they are there: [`Reservation::resize`] takes the
    /// room of what came. Until [`Reservation::has_come`] it is bound to the share of its sender; but a body that is alone may take all.
    ///
    /// # Errors
    /// [`TurnedAway`] when that many bytes would not fit now.
    pub fn expect(&self, sender: Arc<str>, announced: u64) -> Result<Reservation, TurnedAway> {
        let reservation = Reservation { budget: self.budget.clone(), bytes: 0, sender: Some(sender), slow: None };
        reservation.fits(&mut self.budget.used(), announced)?;
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

    /// Somebody finds no room for so many bytes: of what slow bodies hold beyond their part, as much is told to give way, of the senders that
    /// have most on their way. A sender of little is never the one while another has more.
    fn make_room(&mut self, bytes: u64, bytes_max: u64) {
        let kept = bytes_max / SLOW_PARTS;
        if self.slow_bytes <= kept {
            return;
        }
        let mut senders: Vec<_> = self.slow.keys().map(|sender| (self.coming(sender), sender.clone())).collect();
        senders.sort_unstable_by(|a, b| b.cmp(a));
        let mut going = 0;
        for (_, sender) in senders {
            let Some(bodies) = self.slow.get_mut(&sender) else { continue };
            while self.slow_bytes > kept
                && going < bytes
                && let Some(((of_body, _), gives_way)) = bodies.pop_last()
            {
                self.slow_bytes -= of_body;
                going += of_body;
                gives_way.notify_one();
            }
            if !bodies.is_empty() {
                return;
            }
            self.slow.remove(&sender);
        }
    }

    /// A slow body is there from now on.
    fn is_slow(&mut self, sender: &Arc<str>, body: (u64, u64), gives_way: Arc<Notify>) {
        self.slow_bytes += body.0;
        self.slow.entry(sender.clone()).or_default().insert(body, gives_way);
    }

    /// A slow body is slow no more, unless it was told to give way.
    fn is_slow_no_more(&mut self, sender: &Arc<str>, body: (u64, u64)) -> Option<Arc<Notify>> {
        let bodies = self.slow.get_mut(sender)?;
        let gives_way = bodies.remove(&body)?;
        self.slow_bytes -= body.0;
        if bodies.is_empty() {
            self.slow.remove(sender);
        }
        Some(gives_way)
    }
}

/// Bytes taken from the budget; given back on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
    /// Whose body it is, as long as it comes.
    sender: Option<Arc<str>>,
    /// The number it has among the slow ones.
    slow: Option<u64>,
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
            self.fits(&mut used, bytes)?;
        }
        self.set(&mut used, bytes);
        Ok(())
    }

    /// The body has not come within the time that a prompt one takes. From now on it holds its bytes only until somebody finds no room: slow
    /// bodies together keep a quarter of the budget, and of what they hold beyond it they give way. What is returned tells that this one has to:
    /// it is to be dropped then.
    pub fn slows(&mut self) -> Arc<Notify> {
        let gives_way = Arc::new(Notify::new());
        if let (Some(sender), None) = (&self.sender, self.slow) {
            let mut used = self.budget.used();
            used.last_slow += 1;
            let number = used.last_slow;
            used.is_slow(sender, (self.bytes, number), gives_way.clone());
            self.slow = Some(number);
        }
        gives_way
    }

    /// The whole body is there: from now on it takes as long as this program does, and counts to nobody's share.
    pub fn has_come(&mut self) {
        if let Some(sender) = self.sender.take() {
            let mut used = self.budget.used();
            used.count(&sender, 0, self.bytes);
            if let Some(number) = self.slow.take() {
                used.is_slow_no_more(&sender, (self.bytes, number));
            }
        }
    }

    /// Whether it may have this many bytes.
    fn fits(&self, used: &mut Used, bytes: u64) -> Result<(), TurnedAway> {
        let bytes_max = self.budget.bytes_max;
        let others = used.bytes - self.bytes;
        let free = bytes_max.checked_sub(others).and_then(|room| room.checked_sub(bytes));
        // What has to stay free beside it.
        let beside = match &self.sender {
            Some(sender) if others > 0 => (used.coming(sender) - self.bytes + bytes).div_ceil(SHARE_OF_FREE),
            _ => 0,
        };
        if free.is_some_and(|free| free >= beside) {
            return Ok(());
        }
        if bytes <= bytes_max {
            used.make_room((bytes - self.bytes).saturating_add(beside), bytes_max);
        }
        Err(TurnedAway { wanted_bytes: bytes, used_bytes: used.bytes, bytes_max })
    }

    fn set(&mut self, used: &mut Used, bytes: u64) {
        used.bytes = used.bytes - self.bytes + bytes;
        if let Some(sender) = &self.sender {
            used.count(sender, bytes, self.bytes);
            if let Some(number) = self.slow
                && let Some(gives_way) = used.is_slow_no_more(sender, (self.bytes, number))
            {
                used.is_slow(sender, (bytes, number), gives_way);
            }
        }
        self.bytes = bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let budget = self.budget.clone();
        let mut used = budget.used();
        self.set(&mut used, 0);
        if let (Some(sender), Some(number)) = (&self.sender, self.slow) {
            used.is_slow_no_more(sender, (0, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

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

    /// Whether a slow body was told to give way.
    fn is_to_go(gives_way: &Notify) -> bool {
        gives_way.notified().now_or_never().is_some()
    }

    #[test]
    fn however_many_hold_the_budget_slowly_the_next_one_finds_room_at_its_second_try() {
        let admission = Admission::new(1_000_000);
        let senders = ["one", "two", "three", "four", "five", "six", "seven"];
        let mut held: Vec<_> = senders
            .iter()
            .map_while(|sender| came(&admission, sender, (1_000_000 - admission.used_bytes()) * 7 / 10).ok())
            .collect();
        assert_eq!((held.len(), 1_000_000 - admission.used_bytes() < 1000), (7, true));
        came(&admission, "honest", 1000).expect_err("they are not slow yet");
        let gives_way: Vec<_> = held.iter_mut().map(Reservation::slows).collect();
        came(&admission, "honest", 1000).expect_err("they hold it still");
        let told: Vec<_> = gives_way.iter().map(|told| is_to_go(told)).collect();
        assert_eq!(told.iter().filter(|told| **told).count(), 1, "no more than has to: {told:?}");
        assert!(told[0], "the one that holds most");
        let mut told = told.into_iter();
        held.retain(|_| told.next() == Some(false));
        came(&admission, "honest", 1000).expect("there is room");
        drop(held);
        let used = admission.budget.used();
        assert_eq!((used.bytes, used.slow_bytes, used.slow.len(), used.coming.len()), (0, 0, 0, 0));
    }

    #[test]
    fn however_small_slow_bodies_are_the_next_one_finds_room_at_its_second_try() {
        let admission = Admission::new(1_000_000);
        let mut held: Vec<_> = (0..1000)
            .map_while(|_| came(&admission, "one", 700).ok())
            .chain(came(&admission, "two", 200_000).ok())
            .collect();
        let gives_way: Vec<_> = held.iter_mut().map(Reservation::slows).collect();
        came(&admission, "honest", 300_000).expect_err("they hold it still");
        let mut told = gives_way.iter().map(|told| is_to_go(told));
        let before = held.len();
        held.retain(|_| told.next() == Some(false));
        assert!((200..600).contains(&(before - held.len())), "{} went", before - held.len());
        assert!(held.iter().any(|body| body.bytes() == 200_000), "of who has most on its way");
        came(&admission, "honest", 300_000).expect("there is room");
    }

    #[test]
    fn the_largest_body_finds_room_beside_what_slow_ones_keep() {
        let admission = Admission::new(128);
        let mut slow: Vec<_> = ["one", "two", "three"].map(|sender| came(&admission, sender, 20).expect("fits")).into();
        let gives_way: Vec<_> = slow.iter_mut().map(Reservation::slows).collect();
        admission.expect("honest".into(), 64).expect_err("60 are held, and 22 have to stay free");
        let mut told = gives_way.iter().map(|told| is_to_go(told));
        slow.retain(|_| told.next() == Some(false));
        assert!(admission.used_bytes() <= 32 && !slow.is_empty(), "{} are kept", admission.used_bytes());
        came(&admission, "honest", 64).expect("half of the budget");
    }

    #[test]
    fn slow_bodies_keep_a_quarter_of_the_budget_and_more_as_long_as_nobody_needs_it() {
        let admission = Admission::new(100);
        let mut all = came(&admission, "all", 90).expect("it is alone");
        let gives_way = all.slows();
        all.resize(95).expect("there is room, and nobody else needs it");
        assert!(!is_to_go(&gives_way));
        admission.reserve(101).expect_err("no room could ever be made for it");
        assert!(!is_to_go(&gives_way));
        all.resize(25).expect("shrinking always works");
        admission.reserve(80).expect_err("a quarter is its to keep");
        assert!(!is_to_go(&gives_way));
        let _other = admission.reserve(10).expect("fits");
        all.resize(30).expect("fits");
        admission.reserve(80).expect_err("it does not fit");
        assert!(is_to_go(&gives_way), "it holds more than a quarter");
    }

    #[test]
    fn a_body_that_came_slowly_is_not_told_to_give_way_once_it_is_there() {
        let admission = Admission::new(100);
        let mut slow = came(&admission, "slow", 90).expect("it is alone");
        let gives_way = slow.slows();
        slow.has_come();
        admission.reserve(20).expect_err("it does not fit");
        assert!(!is_to_go(&gives_way));
        drop(slow);
        assert_eq!((admission.used_bytes(), admission.budget.used().slow_bytes), (0, 0));
    }
}
