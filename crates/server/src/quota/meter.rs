//! What is known of one sensor in memory: its two buckets, and what it sent in the last minute.

use super::bucket::Bucket;
use super::{Limits, Rates};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Rates are counted in slots of this length.
const SLOT: Duration = Duration::from_secs(10);
/// Six slots are a minute; the oldest leaves it bit by bit while the newest fills.
const SLOTS: usize = 7;
const WINDOW_SECONDS: f64 = (SLOTS as u64 - 1) as f64 * SLOT.as_secs() as f64;

/// What a request costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
}

/// For each quota that is exceeded: seconds until it gives what was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exceeded {
    pub(crate) events_wait_seconds: Option<u64>,
    pub(crate) bytes_wait_seconds: Option<u64>,
}

impl Exceeded {
    /// Seconds until both give it.
    pub(crate) fn wait_seconds(&self) -> u64 {
        self.events_wait_seconds.max(self.bytes_wait_seconds).unwrap_or(0)
    }
}

/// One sensor. Times are those since the start of the quotas.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    inner: Mutex<Inner>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Inner {
    at: Duration,
    limits: Limits,
    events: Bucket,
    bytes: Bucket,
    slots: [Cost; SLOTS],
    /// The newest slot, counted from the start.
    newest: u64,
    used_at: Duration,
    /// How far the newest time of the last batch was behind its receipt.
    skew_micros: Option<i64>,
}

impl Meter {
    /// Takes `cost` in place of `held`, when both buckets give it; else nothing changes.
    pub(crate) fn hold(&self, limits: &Limits, held: Cost, cost: Cost, now: Duration) -> Result<(), Exceeded> {
        let mut inner = self.at(now);
        inner.set(*limits);
        let Inner { events, bytes, .. } = *inner;
        let exceeded = Exceeded {
            events_wait_seconds: limits.events.and_then(|l| events.wait_seconds(l, held.events, cost.events)),
            bytes_wait_seconds: limits.bytes.and_then(|l| bytes.wait_seconds(l, held.bytes, cost.bytes)),
        };
        if exceeded != Exceeded::default() {
            return Err(exceeded);
        }
        inner.take(held, cost);
        Ok(())
    }

    /// Gives back what was held and not used, and counts what was used.
    pub(crate) fn settle(&self, held: Cost, used: Cost, now: Duration) {
        let mut inner = self.at(now);
        inner.take(held, used);
        inner.used_at = now;
        let slot = (inner.newest % SLOTS as u64) as usize;
        inner.slots[slot].events += used.events;
        inner.slots[slot].bytes += used.bytes;
    }

    /// The buckets of events and of bytes as they are now, by these limits.
    pub(crate) fn buckets(&self, limits: &Limits, now: Duration) -> (Bucket, Bucket) {
        let mut inner = self.at(now);
        inner.set(*limits);
        (inner.events, inner.bytes)
    }

    /// What came in the last minute, a second.
    pub(crate) fn rates(&self, now: Duration) -> Rates {
        let inner = *self.at(now);
        // The newest slot has begun, the oldest one is over to the same part.
        let over = (now.as_secs_f64() / SLOT.as_secs_f64()).fract();
        let oldest = ((inner.newest + 1) % SLOTS as u64) as usize;
        let mean = |of: fn(&Cost) -> u64| {
            let sum: u64 = inner.slots.iter().map(of).sum();
            (sum as f64 - of(&inner.slots[oldest]) as f64 * over) / WINDOW_SECONDS
        };
        Rates { events_per_second: mean(|cost| cost.events), bytes_per_second: mean(|cost| cost.bytes) }
    }

    /// Remembers how far the newest time of a batch was behind its receipt, or, negative, ahead of it.
    pub(crate) fn skewed(&self, micros: i64) {
        self.lock().skew_micros = Some(micros);
    }

    /// That of the last batch.
    pub(crate) fn skew_micros(&self) -> Option<i64> {
        self.lock().skew_micros
    }

    /// Whether a new meter would say the same, but for the skew.
    pub(crate) fn tells_nothing(&self, now: Duration) -> bool {
        let inner = self.at(now);
        inner.events.is_full() && inner.bytes.is_full() && inner.slots == [Cost::default(); SLOTS]
    }

    /// When it was last used.
    pub(crate) fn used_at(&self) -> Duration {
        self.lock().used_at
    }

    /// The state at this time.
    fn at(&self, now: Duration) -> MutexGuard<'_, Inner> {
        let mut inner = self.lock();
        inner.advance(now);
        inner
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn advance(&mut self, now: Duration) {
        // Another thread may have looked at the clock later and come first.
        let now = now.max(self.at);
        let elapsed = now - self.at;
        self.events.fill(self.limits.events, elapsed);
        self.bytes.fill(self.limits.bytes, elapsed);
        self.at = now;
        let slot = (now.as_nanos() / SLOT.as_nanos()) as u64;
        let passed = (slot - self.newest).min(SLOTS as u64);
        for n in 1..=passed {
            self.slots[((slot - passed + n) % SLOTS as u64) as usize] = Cost::default();
        }
        self.newest = slot;
    }

    /// From now on these limits hold.
    fn set(&mut self, limits: Limits) {
        self.limits = limits;
        self.events.fill(limits.events, Duration::ZERO);
        self.bytes.fill(limits.bytes, Duration::ZERO);
    }

    fn take(&mut self, held: Cost, cost: Cost) {
        if self.limits.events.is_some() {
            self.events.take(held.events, cost.events);
        }
        if self.limits.bytes.is_some() {
            self.bytes.take(held.bytes, cost.bytes);
        }
    }
}
