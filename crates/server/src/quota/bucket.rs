//! One token bucket, in whole numbers: nothing is lost to rounding, however small the steps.

use std::time::Duration;

/// A token is this many parts: in a nanosecond as many parts come as tokens come in a second.
const PARTS: u128 = 1_000_000_000;

/// What one bucket gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Tokens that come in a second.
    pub(crate) per_second: u64,
    /// A full bucket holds what comes in this many seconds.
    pub(crate) burst_seconds: u64,
}

impl Limit {
    /// Tokens of a full bucket.
    pub(crate) fn burst(self) -> u64 {
        self.per_second.saturating_mul(self.burst_seconds)
    }

    fn parts_per_second(self) -> u128 {
        u128::from(self.per_second) * PARTS
    }
}

/// A bucket, told by what is missing: so a change of its limit needs no change here. More can be missing than it holds; then it owes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    missing_parts: u128,
}

impl Bucket {
    /// Fills it by what came meanwhile. Without a limit nothing is missing.
    pub(crate) fn fill(&mut self, limit: Option<Limit>, elapsed: Duration) {
        let came = limit.map_or(u128::MAX, |limit| elapsed.as_nanos().saturating_mul(limit.per_second.into()));
        self.missing_parts = self.missing_parts.saturating_sub(came);
    }

    /// Seconds, rounded up, until it gives `tokens` in place of the `held` ones; none when it gives them now. More than it holds is given
    /// when it is full; nothing is always given.
    pub(crate) fn wait_seconds(&self, limit: Limit, held: u64, tokens: u64) -> Option<u64> {
        let missing = self.missing_parts.saturating_sub(u128::from(held) * PARTS);
        let wanted = u128::from(tokens.min(limit.burst())) * PARTS;
        let short = (missing + wanted).saturating_sub(u128::from(limit.burst()) * PARTS);
        (tokens > 0 && short > 0).then(|| short.div_ceil(limit.parts_per_second()) as u64)
    }

    /// Takes `tokens` in place of the `held` ones.
    pub(crate) fn take(&mut self, held: u64, tokens: u64) {
        let rest = self.missing_parts.saturating_sub(u128::from(held) * PARTS);
        self.missing_parts = rest + u128::from(tokens) * PARTS;
    }

    /// Whether nothing is missing.
    pub(crate) fn is_full(&self) -> bool {
        self.missing_parts == 0
    }

    /// Whole tokens that it gives now.
    pub(crate) fn remaining(&self, limit: Limit) -> u64 {
        let burst = u128::from(limit.burst()) * PARTS;
        (burst.saturating_sub(self.missing_parts) / PARTS) as u64
    }

    /// Seconds, rounded up, until it is full.
    pub(crate) fn full_in_seconds(&self, limit: Limit) -> u64 {
        self.missing_parts.div_ceil(limit.parts_per_second()) as u64
    }
}
