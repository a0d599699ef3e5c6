//! Addresses that try tokens: after too many that are not known, further ones have to wait.
//!
//! Every unknown token counts. What can be guessed takes turns as well, so that an address has a bounded number of guesses, whatever it does
//! with their answers: that is a token that somebody thought of, not one that was made here.
//!
//! It counts in memory alone, of a bounded number of addresses; a start forgets it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long failures count, from the first one on.
const WINDOW: Duration = Duration::from_secs(60);
/// A suspect address has one guess in this time.
const TURN: Duration = Duration::from_millis(100);
/// How many turns a guess waits for at most.
const TURNS_MAX: u32 = 8;
/// Addresses that are counted; beyond it the one whose first failure is the oldest is forgotten.
const ADDRESSES_MAX: usize = 4096;

/// The failures of each address.
pub(crate) struct Failures {
    per_minute_max: u32,
    counts: Mutex<HashMap<Option<IpAddr>, Count>>,
}

#[derive(Clone, Copy)]
struct Count {
    began: Instant,
    failures: u32,
    /// When the next guess may be looked at.
    next_turn: Instant,
}

impl Failures {
    pub(crate) fn new(per_minute_max: u32) -> Self {
        Self { per_minute_max, counts: Mutex::default() }
    }

    /// Whether unknown tokens of this address would have to wait.
    pub(crate) fn is_suspect(&self, from: Option<IpAddr>, now: Instant) -> bool {
        self.counts().get(&network(from)).is_some_and(|count| self.wait(count, now).is_some())
    }

    /// Takes the turn of something that may be a guess: when it comes. None when too many of the same address wait before it.
    pub(crate) fn turn(&self, from: Option<IpAddr>, now: Instant) -> Option<Instant> {
        let mut counts = self.counts();
        let Some(count) = counts.get_mut(&network(from)) else { return Some(now) };
        if self.wait(count, now).is_none() {
            return Some(now);
        }
        let turn = count.next_turn.max(now);
        if turn > now + TURN * TURNS_MAX {
            return None;
        }
        count.next_turn = turn + TURN;
        Some(turn)
    }

    /// Gives a turn back: it was no guess.
    pub(crate) fn was_no_guess(&self, from: Option<IpAddr>) {
        if let Some(count) = self.counts().get_mut(&network(from)) {
            count.next_turn = count.next_turn.checked_sub(TURN).unwrap_or(count.next_turn);
        }
    }

    /// Counts a token that is not known, in one step with the look at the limit; how long the address has to wait when it is beyond it.
    pub(crate) fn count(&self, from: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let mut counts = self.counts();
        let network = network(from);
        if counts.len() >= ADDRESSES_MAX && !counts.contains_key(&network) {
            counts.retain(|_, count| now.saturating_duration_since(count.began) < WINDOW);
            let oldest = counts.iter().min_by_key(|(_, count)| count.began).map(|(network, _)| *network);
            if let Some(oldest) = oldest.filter(|_| counts.len() >= ADDRESSES_MAX) {
                counts.remove(&oldest);
            }
        }
        let anew = Count { began: now, failures: 0, next_turn: now };
        let count = counts.entry(network).or_insert(anew);
        if now.saturating_duration_since(count.began) >= WINDOW {
            *count = anew;
        }
        if let Some(wait) = self.wait(count, now) {
            return Some(wait);
        }
        count.failures += 1;
        if count.failures == self.per_minute_max {
            let client = network.map(|address| address.to_string());
            tracing::warn!(
                client,
                "too many unknown tokens from one address: further ones are turned away for a minute"
            );
        }
        None
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Option<IpAddr>, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, count: &Count, now: Instant) -> Option<Duration> {
        let left = (count.began + WINDOW).checked_duration_since(now)?;
        (count.failures >= self.per_minute_max && !left.is_zero()).then_some(left)
    }
}

/// One client is one address of IPv4, but has a whole /64 of IPv6.
fn network(from: Option<IpAddr>) -> Option<IpAddr> {
    from.map(|address| match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn an_address_waits_after_too_many_failures_until_a_minute_after_the_first() {
        let (failures, start) = (Failures::new(3), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        for second in 0..3 {
            assert!(!failures.is_suspect(one, at(second)));
            assert_eq!(failures.count(one, at(second)), None);
        }
        assert_eq!(failures.count(one, at(20)), Some(Duration::from_secs(40)));
        let same = address("::ffff:192.0.2.1");
        assert_eq!(failures.count(same, at(20)), Some(Duration::from_secs(40)), "the same in IPv6");
        assert!(failures.is_suspect(same, at(20)));
        assert!(!failures.is_suspect(other, at(20)) && !failures.is_suspect(None, at(20)));
        assert!(!failures.is_suspect(one, at(60)));
        assert_eq!(failures.count(one, at(61)), None);
        assert!(!failures.is_suspect(one, at(61)), "it is counted anew");
    }

    #[test]
    fn of_many_at_once_exactly_as_many_as_may_are_not_told_to_wait() {
        let (failures, now) = (Failures::new(10), Instant::now());
        let one = address("192.0.2.1");
        let free: usize = std::thread::scope(|scope| {
            let tried = || (0..50).filter(|_| failures.count(one, now).is_none()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(tried)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(free, 10);
    }

    #[test]
    fn a_suspect_address_has_ten_guesses_a_second_however_many_it_tries_at_once() {
        let (failures, start) = (Failures::new(3), Instant::now());
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        assert!((0..100).all(|_| failures.turn(one, start) == Some(start)), "it is not suspect");
        (0..3).for_each(|_| assert_eq!(failures.count(one, start), None));
        let mut turns = Vec::new();
        for tried in 0..50_000 {
            let now = start + Duration::from_micros(tried * 100);
            turns.extend(failures.turn(one, now).map(|turn| (now, turn)));
        }
        assert!((50..=59).contains(&turns.len()), "in 5 seconds: {}", turns.len());
        assert!(turns.windows(2).all(|pair| pair[1].1 - pair[0].1 >= TURN), "one after another");
        assert!(turns.iter().all(|(now, turn)| *turn - *now <= TURN * TURNS_MAX), "none waits for longer");
        assert_eq!(failures.turn(other, start), Some(start), "others do not wait");
        let later = start + Duration::from_secs(30);
        for _ in 0..100 {
            assert_eq!(failures.turn(one, later), Some(later), "what is no guess does not count");
            failures.was_no_guess(one);
        }
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address_and_the_memory_is_bounded() {
        let (failures, now) = (Failures::new(2), Instant::now());
        failures.count(address("2001:db8::1"), now);
        failures.count(address("2001:db8::ffff:2"), now);
        assert!(failures.is_suspect(address("2001:db8::3"), now));
        assert!(!failures.is_suspect(address("2001:db8:0:1::3"), now));
        for n in 0..ADDRESSES_MAX as u32 + 10 {
            failures.count(Some(IpAddr::V4(n.into())), now + Duration::from_secs(1));
        }
        let counted = failures.counts.lock().expect("not poisoned").len();
        assert_eq!(counted, ADDRESSES_MAX);
        assert!(!failures.is_suspect(address("2001:db8::3"), now), "the oldest is forgotten first");
    }
}
