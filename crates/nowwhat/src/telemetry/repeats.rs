//! Warnings and errors that repeat are limited: of one place in the code at most [`BURST`] lines in [`WINDOW`]; how many were
//! left out is on the first line after that, of the same place or, when it fell silent, of any other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::Metadata;
use tracing::callsite::Identifier;

/// Lines of one place within a window.
pub const BURST: u32 = 20;
/// How long a place that has spoken [`BURST`] times is silent.
pub const WINDOW: Duration = Duration::from_secs(10);

/// Counts lines by the place in the code they come from.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    places: Mutex<HashMap<Identifier, Place>>,
    /// Something was left out and is not told yet.
    owing: AtomicBool,
}

#[derive(Debug)]
struct Place {
    meta: &'static Metadata<'static>,
    began: Instant,
    lines: u32,
    left_out: u64,
}

/// What to do with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Write it; so many like it were left out before.
    Write(u64),
    /// Leave it out.
    LeaveOut,
}

impl Repeats {
    pub(super) fn judge(&self, meta: &'static Metadata<'static>, now: Instant) -> Verdict {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(meta.callsite()).or_insert(Place { meta, began: now, lines: 0, left_out: 0 });
        if now.duration_since(place.began) >= WINDOW {
            let left_out = place.left_out;
            *place = Place { meta, began: now, lines: 1, left_out: 0 };
            return Verdict::Write(left_out);
        }
        place.lines += 1;
        if place.lines <= BURST {
            return Verdict::Write(0);
        }
        place.left_out += 1;
        self.owing.store(true, Ordering::Relaxed);
        Verdict::LeaveOut
    }

    /// Whether something was left out and is not told yet.
    pub(super) fn owes(&self) -> bool {
        self.owing.load(Ordering::Relaxed)
    }

    /// Lines left out of places that fell silent afterwards: how many, and where.
    pub(super) fn overdue(&self, now: Instant) -> Vec<(u64, &'static Metadata<'static>)> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told = Vec::new();
        let mut owing = false;
        for place in places.values_mut().filter(|place| place.left_out > 0) {
            if now.duration_since(place.began) >= WINDOW {
                told.push((std::mem::take(&mut place.left_out), place.meta));
            } else {
                owing = true;
            }
        }
        self.owing.store(owing, Ordering::Relaxed);
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tracing::{Event, Subscriber};
    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    /// Keeps the places of what is logged.
    #[derive(Clone, Default)]
    struct Places(Arc<Mutex<Vec<&'static Metadata<'static>>>>);

    impl<S: Subscriber> Layer<S> for Places {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().expect("one thread").push(event.metadata());
        }
    }

    fn places() -> [&'static Metadata<'static>; 2] {
        let places = Places::default();
        tracing::subscriber::with_default(Registry::default().with(places.clone()), || {
            tracing::warn!(name: "one", "one");
            tracing::warn!(name: "other", "other");
        });
        let kept = places.0.lock().expect("one thread");
        [kept[0], kept[1]]
    }

    #[test]
    fn a_place_that_repeats_itself_is_cut_and_the_count_is_told_once() {
        let [one, other] = places();
        let (repeats, start) = (Repeats::default(), Instant::now());
        for _ in 0..BURST {
            assert_eq!(repeats.judge(one, start), Verdict::Write(0));
        }
        for _ in 0..3 {
            assert_eq!(repeats.judge(one, start), Verdict::LeaveOut);
        }
        assert_eq!(repeats.judge(other, start), Verdict::Write(0), "another place speaks freely");
        assert!(repeats.overdue(start).is_empty(), "the window is not over");
        let later = start + WINDOW;
        assert_eq!(repeats.judge(one, later), Verdict::Write(3));
        assert!(repeats.overdue(later).is_empty(), "told already");
        for _ in 0..BURST {
            repeats.judge(one, later);
        }
        let told: Vec<_> = repeats.overdue(later + WINDOW).iter().map(|(n, meta)| (*n, meta.name())).collect();
        assert_eq!(told, [(1, "one")]);
        assert!(repeats.overdue(later + WINDOW).is_empty());
    }
}
