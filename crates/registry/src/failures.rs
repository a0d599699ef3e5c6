//! Addresses that try tokens: after too many that are not known, an address has to wait.
//!
//! It counts in memory alone, of a bounded number of addresses; a start forgets it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long failures count, from the first one on.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are counted; beyond it the one whose first failure is the oldest is forgotten.
const ADDRESSES_MAX: usize = 4096;

/// The failures of each address.
pub(crate) struct Failures {
    per_minute_max: u32,
    counts: Mutex<HashMap<Option<IpAddr>, Count>>,
}

struct Count {
    began: Instant,
    failures: u32,
}

impl Failures {
    pub(crate) fn new(per_minute_max: u32) -> Self {
        Self { per_minute_max, counts: Mutex::default() }
    }

    /// How long this address has to wait before it tries another token.
    pub(crate) fn wait(&self, from: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&network(from))?;
        let left = (count.began + WINDOW).checked_duration_since(now)?;
        (count.failures >= self.per_minute_max && !left.is_zero()).then_some(left)
    }

    /// Counts a token that is not known; how long the address has to wait, when others were counted while this one was looked up.
    pub(crate) fn count(&self, from: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let network = network(from);
        if counts.len() >= ADDRESSES_MAX && !counts.contains_key(&network) {
            counts.retain(|_, count| now.saturating_duration_since(count.began) < WINDOW);
            let oldest = counts.iter().min_by_key(|(_, count)| count.began).map(|(network, _)| *network);
            if let Some(oldest) = oldest.filter(|_| counts.len() >= ADDRESSES_MAX) {
                counts.remove(&oldest);
            }
        }
        let count = counts.entry(network).or_insert(Count { began: now, failures: 0 });
        if now.saturating_duration_since(count.began) >= WINDOW {
            *count = Count { began: now, failures: 0 };
        }
        if count.failures >= self.per_minute_max {
            return Some(WINDOW.saturating_sub(now.saturating_duration_since(count.began)));
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
            assert_eq!(failures.wait(one, at(second)), None);
            failures.count(one, at(second));
        }
        assert_eq!(failures.wait(one, at(20)), Some(Duration::from_secs(40)));
        assert_eq!(
            failures.wait(address("::ffff:192.0.2.1"), at(20)),
            Some(Duration::from_secs(40)),
            "the same in IPv6"
        );
        assert_eq!((failures.wait(other, at(20)), failures.wait(None, at(20))), (None, None));
        assert_eq!(failures.wait(one, at(60)), None);
        failures.count(one, at(61));
        assert_eq!(failures.wait(one, at(61)), None, "it is counted anew");
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address_and_the_memory_is_bounded() {
        let (failures, now) = (Failures::new(2), Instant::now());
        failures.count(address("2001:db8::1"), now);
        failures.count(address("2001:db8::ffff:2"), now);
        assert!(failures.wait(address("2001:db8::3"), now).is_some());
        assert!(failures.wait(address("2001:db8:0:1::3"), now).is_none());
        for n in 0..ADDRESSES_MAX as u32 + 10 {
            failures.count(Some(IpAddr::V4(n.into())), now + Duration::from_secs(1));
        }
        let counted = failures.counts.lock().expect("not poisoned").len();
        assert_eq!(counted, ADDRESSES_MAX);
        assert!(failures.wait(address("2001:db8::3"), now).is_none(), "the oldest is forgotten first");
    }
}
