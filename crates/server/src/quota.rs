//! Quotas and rates: how much a sensor may send, and how much it sends.
//!
//! A quota is two token buckets, of events and of bytes of bodies as they are sent. What it promises:
//!
//! - It decides on whole batches. A batch that is larger than a burst passes when the bucket is full; the bucket then owes it, so that the
//!   rate holds in the long run.
//! - What a request may need is held before its body is read, in one step with the look at the bucket: two requests at the same moment do
//!   not both pass on one allowance.
//! - A request costs the bytes of its body that came and the events that were received. One that is turned away (429, 503) costs
//!   nothing. A client that goes away is no such one.
//! - Whoever waits for as long as a refusal says gets through, unless others of the same sensor were faster.
//!
//! All of it is in memory, of a bounded number of sensors, and begins anew with each start.

mod bucket;
mod fields;
mod meter;

pub(crate) use fields::{exceeded, tell, tell_of};
pub(crate) use meter::Exceeded;

use bucket::{Bucket, Limit};
use meter::{Cost, Meter};
use registry::Quota;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

/// Sensors that are measured at the same time.
const METERS_MAX: usize = 50_000;
/// How many stay when room is made: so it is made once for many new sensors, however few of the others tell nothing any more.
const METERS_KEPT: usize = METERS_MAX / 4 * 3;
/// Memory of all meters: each has its name, of up to 128 bytes, and an entry in a map that is half empty at worst.
pub const QUOTAS_BYTES_MAX: u64 = METERS_MAX as u64 * 512;

/// The quotas and rates of all sensors. Cheap to clone.
#[derive(Clone)]
pub struct Quotas {
    shared: Arc<Shared>,
}

struct Shared {
    default: RwLock<Quota>,
    meters: Mutex<HashMap<Arc<str>, Arc<Meter>>>,
    began: Instant,
}

/// What a sensor sent in each of the last 60 seconds on average.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    /// Events received.
    pub(crate) events_per_second: f64,
    /// Bytes of bodies, as they were sent.
    pub(crate) bytes_per_second: f64,
}

/// The limits of a quota, ready to be measured by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) events: Option<Limit>,
    pub(crate) bytes: Option<Limit>,
}

impl From<Quota> for Limits {
    fn from(quota: Quota) -> Self {
        let burst_seconds = quota.burst_seconds.unwrap_or(1);
        let limit = |per_second| Limit { per_second, burst_seconds };
        Self { events: quota.events_per_second.map(limit), bytes: quota.bytes_per_second.map(limit) }
    }
}

impl Quotas {
    /// Quotas of sensors that have none of their own.
    pub fn new(default: Quota) -> Self {
        let (default, meters) = (RwLock::new(default), Mutex::default());
        Self { shared: Arc::new(Shared { default, meters, began: Instant::now() }) }
    }

    /// Changes what holds for sensors that have no quota of their own, at once.
    pub fn set_default(&self, default: Quota) {
        *self.shared.default.write().unwrap_or_else(PoisonError::into_inner) = default;
    }

    /// The quota in force of a sensor for which this one is set.
    pub(crate) fn in_force(&self, own: Quota) -> Quota {
        own.or(*self.shared.default.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Begins to measure a request, which has at least so many events.
    pub(crate) fn charge(&self, sensor: &Arc<str>, own: Quota, events_min: u64) -> Charge {
        let limits = self.in_force(own).into();
        let (held, used) = (Cost::default(), Cost::default());
        Charge { meter: self.meter(sensor), limits, began: self.shared.began, events_min, held, used }
    }

    /// What a sensor sent lately.
    pub(crate) fn rates(&self, sensor: &str) -> Rates {
        let found = self.meters().get(sensor).cloned();
        found.map(|meter| meter.rates(self.shared.began.elapsed())).unwrap_or_default()
    }

    /// Remembers how far the newest time in a batch of a sensor was behind its receipt, or, negative, ahead of it.
    pub(crate) fn skewed(&self, sensor: &Arc<str>, micros: i64) {
        self.meter(sensor).skewed(micros);
    }

    /// The sensors whose last batch was the farthest behind or ahead, farthest first.
    pub(crate) fn most_skewed(&self, limit: usize) -> Vec<(Arc<str>, i64)> {
        // Nobody waits for the map while meters are read.
        let all: Vec<_> = self.meters().iter().map(|(sensor, meter)| (sensor.clone(), meter.clone())).collect();
        let skew = |(sensor, meter): (Arc<str>, Arc<Meter>)| Some((sensor, meter.skew_micros()?));
        let mut all: Vec<_> = all.into_iter().filter_map(skew).collect();
        all.sort_unstable_by_key(|(_, micros)| Reverse(micros.unsigned_abs()));
        all.truncate(limit);
        all
    }

    /// The buckets of events and of bytes of a sensor with these limits.
    pub(crate) fn buckets(&self, sensor: &str, limits: &Limits) -> (Bucket, Bucket) {
        let found = self.meters().get(sensor).cloned();
        found.map(|meter| meter.buckets(limits, self.shared.began.elapsed())).unwrap_or_default()
    }

    fn meter(&self, sensor: &Arc<str>) -> Arc<Meter> {
        let mut meters = self.meters();
        if let Some(meter) = meters.get(sensor) {
            return meter.clone();
        }
        if meters.len() >= METERS_MAX {
            make_room(&mut meters, self.shared.began);
        }
        let meter = Arc::new(Meter::default());
        meters.insert(sensor.clone(), meter.clone());
        meter
    }

    fn meters(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Meter>>> {
        self.shared.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets meters go that tell nothing any more; when more than three quarters stay, also those of the others that were used the longest ago.
fn make_room(meters: &mut HashMap<Arc<str>, Arc<Meter>>, began: Instant) {
    let now = began.elapsed();
    // Nobody can take hold of one meanwhile: that takes the lock of the map.
    let is_free = |meter: &Arc<Meter>| Arc::strong_count(meter) == 1;
    meters.retain(|_, meter| !is_free(meter) || !meter.tells_nothing(now));
    let Some(excess) = meters.len().checked_sub(METERS_KEPT).filter(|excess| *excess > 0) else { return };
    let mut used: Vec<_> = meters.values().map(|meter| meter.used_at()).collect();
    let (_, last_to_go, _) = used.select_nth_unstable(excess - 1);
    let last_to_go = *last_to_go;
    meters.retain(|_, meter| !is_free(meter) || meter.used_at() > last_to_go);
}

/// What one request costs of its sensor's quota. Settled when it is dropped.
pub(crate) struct Charge {
    meter: Arc<Meter>,
    limits: Limits,
    began: Instant,
    events_min: u64,
    /// Taken of the buckets so far.
    held: Cost,
    /// What the request has cost so far; never more than is held.
    used: Cost,
}

impl Charge {
    /// Holds what a request announces, before its body is read.
    ///
    /// # Errors
    /// [`Exceeded`], when the quota does not give it now; nothing is held then.
    pub(crate) fn announced(&mut self, bytes: u64) -> Result<(), Exceeded> {
        self.hold(Cost { events: self.events_min, bytes })
    }

    /// That so much of the body has come, in all.
    ///
    /// # Errors
    /// [`Exceeded`], when it is more than was announced and the quota does not give it.
    pub(crate) fn came(&mut self, bytes: u64) -> Result<(), Exceeded> {
        if bytes > self.held.bytes {
            self.hold(Cost { bytes, ..self.held })?;
        }
        self.used.bytes = bytes;
        Ok(())
    }

    /// That the body had so many events.
    ///
    /// # Errors
    /// [`Exceeded`], when the quota does not give them.
    pub(crate) fn received(&mut self, events: u64) -> Result<(), Exceeded> {
        self.hold(Cost { events, ..self.held })?;
        self.used.events = events;
        Ok(())
    }

    /// That the request is turned away: it costs nothing.
    pub(crate) fn forgive(&mut self) {
        self.used = Cost::default();
    }

    fn hold(&mut self, cost: Cost) -> Result<(), Exceeded> {
        self.meter.hold(&self.limits, self.held, cost, self.began.elapsed())?;
        self.held = cost;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.meter.settle(self.held, self.used, self.began.elapsed());
    }
}

#[cfg(test)]
mod tests;
