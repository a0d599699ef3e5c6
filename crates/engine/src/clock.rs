//! Where the engine takes the time from, and how far it believes it.
//!
//! The wall clock may leap, ahead and back: one that was never set, one that was set wrongly, a machine that slept. What only notes times takes
//! them as they are. What removes goes by [`Believed`]: a clock that is wrong for less than a day removes nothing.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A difference that is no leap, and nothing to keep.
const SLACK_MICROS: i64 = 3_600_000_000;
/// So long a leap ahead has to have been there before it is believed.
const STEADY: Duration = Duration::from_secs(86_400);

/// What the clocks say at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock, in microseconds since 1970.
    pub wall_micros: i64,
    /// The clock that never leaps, since some moment.
    pub passed: Duration,
}

/// The clocks. Clones are the same clocks.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Reading + Send + Sync>);

impl Clock {
    /// Clocks that say what `read` says.
    pub fn new(read: impl Fn() -> Reading + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// What they say now.
    pub(crate) fn read(&self) -> Reading {
        (self.0)()
    }

    /// What the wall clock says now.
    pub(crate) fn wall_micros(&self) -> i64 {
        self.read().wall_micros
    }
}

impl Default for Clock {
    /// The system's.
    fn default() -> Self {
        let began = Instant::now();
        Self::new(move || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let wall_micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
            Reading { wall_micros, passed: began.elapsed() }
        })
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.read()).finish()
    }
}

/// The time that what removes goes by: never ahead of the wall clock, and behind it while a leap ahead is younger than [`STEADY`]. Clones are one.
/// A leap is noticed when it is looked at, so who stores events looks with each group.
#[derive(Clone, Debug)]
pub(crate) struct Believed {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

/// What is believed, as a start goes on with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Belief {
    /// The time, in microseconds since 1970.
    pub(crate) micros: i64,
    /// What the wall clock said that is not believed yet, and for how long it has run since then without being behind that.
    waits: Option<(i64, Duration)>,
}

impl Belief {
    /// A time that something told.
    pub(crate) fn of(micros: i64) -> Self {
        Self { micros, waits: None }
    }

    /// Whether a start would go on otherwise than with the other one by more than what is no leap.
    pub(crate) fn is_far_from(&self, other: &Self) -> bool {
        let slack = SLACK_MICROS.unsigned_abs();
        let waited = |belief: &Self| belief.waits.map_or(0, |(_, waited)| waited.as_micros() as u64);
        let until = |belief: &Self| belief.waits.map(|(until, _)| until);
        self.micros.abs_diff(other.micros) > slack
            || until(self) != until(other)
            || waited(self).abs_diff(waited(other)) > slack
    }
}

#[derive(Debug)]
struct State {
    looked: Reading,
    belief: Belief,
}

impl Believed {
    /// From what was believed before on, if anything was: whether the clock leapt since then, nobody knows.
    pub(crate) fn since(clock: Clock, before: Option<Belief>) -> Self {
        let looked = clock.read();
        let mut belief = before.unwrap_or(Belief::of(looked.wall_micros));
        let behind_micros = looked.wall_micros.saturating_sub(belief.micros);
        if behind_micros > SLACK_MICROS {
            let seconds = behind_micros / 1_000_000;
            tracing::info!(
                seconds,
                "the time went on while nobody looked: for a day of running nothing is removed because of it"
            );
        }
        belief.micros = belief.micros.min(looked.wall_micros);
        Self { clock, state: Arc::new(Mutex::new(State { looked, belief })) }
    }

    /// Looks at the clocks. The time now, in microseconds since 1970.
    pub(crate) fn look(&self) -> i64 {
        self.belief().micros
    }

    /// The same, with what waits to be believed.
    pub(crate) fn belief(&self) -> Belief {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).look(self.clock.read())
    }
}

impl State {
    fn look(&mut self, now: Reading) -> Belief {
        let ran = now.passed.saturating_sub(self.looked.passed);
        let passed = micros(ran);
        let leap_micros = now.wall_micros.saturating_sub(self.looked.wall_micros.saturating_add(passed));
        if leap_micros.saturating_abs() > SLACK_MICROS {
            let seconds = leap_micros / 1_000_000;
            tracing::warn!(seconds, "the clock leapt: for a day nothing is removed because of it");
        }
        self.looked = now;
        let Belief { micros: believed, waits } = &mut self.belief;
        *believed = believed.saturating_add(passed);
        if let Some((until, waited)) = waits.as_mut().filter(|(until, _)| now.wall_micros >= *until) {
            *waited += ran;
            if *waited >= STEADY {
                *believed = until.saturating_add(micros(*waited)).max(*believed);
                *waits = None;
            }
        } else {
            *waits = None;
        }
        if now.wall_micros.saturating_sub(*believed) <= SLACK_MICROS {
            *believed = now.wall_micros;
            *waits = None;
        } else if waits.is_none() {
            *waits = Some((now.wall_micros, Duration::ZERO));
        }
        self.belief
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The file that keeps what was believed over a start. Without it a start goes by the newest event, which a clock that was wrong may have told.
#[derive(Clone, Debug)]
pub(crate) struct Kept(PathBuf);

impl Kept {
    /// In the folder of the lake.
    pub(crate) fn of(lake_dir: &Path) -> Self {
        Self(lake_dir.join("_clock"))
    }

    pub(crate) fn read(&self) -> Option<Belief> {
        let text = std::fs::read_to_string(&self.0).ok()?;
        let mut numbers = text.split_whitespace().map(str::parse);
        let micros = numbers.next()?.ok()?;
        let waits = match (numbers.next(), numbers.next()) {
            (Some(Ok(until)), Some(Ok(waited))) => Some((until, Duration::from_micros(u64::try_from(waited).ok()?))),
            _ => None,
        };
        Some(Belief { micros, waits })
    }

    /// Writes it, durably.
    fn write(&self, belief: Belief) -> io::Result<()> {
        let new = self.0.with_extension("new");
        let mut file = File::create(&new)?;
        writeln!(file, "{}", belief.micros)?;
        if let Some((until, waited)) = belief.waits {
            writeln!(file, "{until} {}", micros(waited))?;
        }
        file.sync_all()?;
        std::fs::rename(&new, &self.0)?;
        File::open(self.0.parent().unwrap_or(&self.0))?.sync_all()
    }
}

/// What is believed, with the file that keeps it for the next start. Clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Timekeeper {
    believed: Believed,
    kept: Kept,
    /// What the file has.
    written: Arc<Mutex<Option<Belief>>>,
}

impl Timekeeper {
    /// From what was kept on, else from the time of the newest event.
    pub(crate) fn since(clock: Clock, kept: Kept, newest_micros: impl FnOnce() -> Option<i64>) -> Self {
        let written = kept.read();
        let before = written.or_else(|| newest_micros().map(Belief::of));
        Self { believed: Believed::since(clock, before), kept, written: Arc::new(Mutex::new(written)) }
    }

    /// Looks at the clocks. The time now, in microseconds since 1970.
    pub(crate) fn look(&self) -> i64 {
        self.believed.look()
    }

    /// Keeps what is believed, where it is far from what the file has.
    pub(crate) fn keep(&self) -> io::Result<()> {
        self.keep_where(Belief::is_far_from)
    }

    /// The same where the file is ahead, or waits for a time that is not waited for any more, as after a clock that was set back. What is stored now
    /// has a time that a start which went by the file would let go for its age, so the file comes first.
    pub(crate) fn keep_if_behind(&self) -> io::Result<()> {
        let until = |belief: &Belief| belief.waits.map(|(until, _)| until);
        self.keep_where(|now, written| {
            now.micros.saturating_add(SLACK_MICROS) < written.micros
                || until(written).is_some_and(|written| until(now) != Some(written))
        })
    }

    fn keep_where(&self, is_other: impl FnOnce(&Belief, &Belief) -> bool) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.believed.belief();
        if written.is_none_or(|written| is_other(&now, &written)) {
            self.kept.write(now)?;
            *written = Some(now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;
    const YEAR: i64 = 365 * 24 * HOUR;

    /// Clocks that a test moves.
    #[derive(Clone)]
    struct Moved(Arc<Mutex<Reading>>);

    impl Moved {
        fn at(wall_micros: i64) -> (Self, Clock) {
            let moved = Self(Arc::new(Mutex::new(Reading { wall_micros, passed: Duration::ZERO })));
            let read = moved.clone();
            (moved, Clock::new(move || *read.0.lock().expect("no panic")))
        }

        fn leaps(&self, micros: i64) {
            self.0.lock().expect("no panic").wall_micros += micros;
        }

        fn passes(&self, micros: i64) {
            let mut reading = self.0.lock().expect("no panic");
            reading.wall_micros += micros;
            reading.passed += Duration::from_micros(micros.unsigned_abs());
        }
    }

    #[test]
    fn time_that_passes_is_believed_at_once() {
        let (moved, clock) = Moved::at(YEAR);
        let believed = Believed::since(clock, Some(Belief::of(YEAR)));
        for _ in 0..100 {
            moved.passes(12 * HOUR);
            assert_eq!(believed.look(), moved.0.lock().expect("no panic").wall_micros);
        }
        moved.leaps(HOUR / 2);
        assert_eq!(believed.look(), YEAR + 1200 * HOUR + HOUR / 2, "a clock is corrected now and then");
    }

    #[test]
    fn a_leap_ahead_is_believed_after_a_day_and_never_when_it_is_taken_back_before() {
        let (moved, clock) = Moved::at(YEAR);
        let believed = Believed::since(clock, None);
        moved.leaps(10 * YEAR);
        assert_eq!(believed.look(), YEAR);
        moved.passes(20 * HOUR);
        assert_eq!(believed.look(), YEAR + 20 * HOUR);
        moved.leaps(YEAR);
        assert_eq!(believed.look(), YEAR + 20 * HOUR);
        moved.passes(20 * HOUR);
        assert_eq!(believed.look(), 11 * YEAR + 40 * HOUR, "the first one was there for a day");
        moved.passes(24 * HOUR);
        assert_eq!(believed.look(), 12 * YEAR + 64 * HOUR, "another leap, another day");

        moved.leaps(-11 * YEAR);
        assert_eq!(believed.look(), YEAR + 64 * HOUR, "back is believed at once: it removes nothing");
        moved.leaps(5 * YEAR);
        assert_eq!(believed.look(), YEAR + 64 * HOUR);
        moved.passes(23 * HOUR);
        moved.leaps(-5 * YEAR);
        assert_eq!(believed.look(), YEAR + 87 * HOUR);
        moved.leaps(5 * YEAR);
        moved.passes(23 * HOUR);
        assert_eq!(believed.look(), YEAR + 110 * HOUR, "it begins anew");
    }

    #[test]
    fn a_machine_that_is_off_at_night_is_never_far_behind() {
        let dir = tempfile::tempdir().expect("a folder");
        let (moved, clock) = Moved::at(YEAR);
        let kept = Kept::of(dir.path());
        for day in 0..100 {
            let believed = Believed::since(clock.clone(), kept.read());
            for _ in 0..16 {
                moved.passes(HOUR);
                believed.look();
            }
            kept.write(believed.belief()).expect("written");
            assert_eq!(kept.read(), Some(believed.belief()));
            let wall_micros = moved.0.lock().expect("no panic").wall_micros;
            let behind = wall_micros - believed.look();
            assert!(behind <= 3 * 24 * HOUR, "day {day}: {} hours behind", behind / HOUR);
            // It is off.
            moved.leaps(8 * HOUR);
        }
    }

    #[test]
    fn after_a_start_the_time_goes_on_from_the_newest_event_for_a_day() {
        let (moved, clock) = Moved::at(9 * YEAR);
        let believed = Believed::since(clock.clone(), Some(Belief::of(YEAR)));
        assert_eq!(believed.look(), YEAR);
        moved.passes(23 * HOUR);
        assert_eq!(believed.look(), YEAR + 23 * HOUR);
        moved.passes(HOUR);
        assert_eq!(believed.look(), 9 * YEAR + 24 * HOUR);
        // Events of a clock that was ahead.
        let believed = Believed::since(clock, Some(Belief::of(20 * YEAR)));
        assert_eq!(believed.look(), 9 * YEAR + 24 * HOUR);
    }

    #[test]
    fn a_clock_that_was_set_back_is_kept_before_anything_is_stored_with_its_time() {
        let dir = tempfile::tempdir().expect("a folder");
        let (moved, clock) = Moved::at(9 * YEAR);
        let kept = || Kept::of(dir.path());
        let keeper = || Timekeeper::since(clock.clone(), kept(), || None);
        let first = keeper();
        first.keep().expect("written");
        moved.leaps(-5 * YEAR);
        first.keep_if_behind().expect("written");
        moved.leaps(5 * YEAR);
        // It ends without a word, and the clock is right again.
        assert_eq!(keeper().look(), 4 * YEAR, "what was stored meanwhile is not old yet");
        let second = keeper();
        second.keep_if_behind().expect("nothing to be written");
        assert_eq!(kept().read(), Some(Belief::of(4 * YEAR)));
        second.keep().expect("written");
        assert!(kept().read().is_some_and(|belief| belief.waits.is_some()), "what waits is kept as well");
        moved.leaps(-4 * YEAR);
        second.keep_if_behind().expect("written");
        assert!(
            kept().read().is_some_and(|belief| belief.waits.is_none_or(|(until, _)| until < 6 * YEAR)),
            "it waits anew"
        );
        moved.leaps(-3 * YEAR);
        std::fs::remove_dir_all(dir.path()).expect("removed");
        second.keep_if_behind().expect_err("nobody knows the time at the next start");
    }
}
