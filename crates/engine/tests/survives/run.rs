//! One seed: lives of an engine, one after the other, on a disk that outlives them.

use super::life::{Around, Life};
use super::oracle::{Found, Oracle, Sent, When};
use engine::{AcceptError, Retention};
use std::path::{Path, PathBuf};
use std::time::Duration;
use testkit::{Fault, Lie, Random, SimClock, SimDisk};

/// What is wrong with the disk besides what a seed says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) lie: Option<Lie>,
}

/// Told by the number of the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Three of four events have ids.
    WithIds,
    /// No event has one, so that the wal lets go of segments without keys; and syncs fail twice, one after the other.
    WithoutIds,
}

/// What happened that accepted events have to outlive.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) merges: usize,
    /// Lives in which the wal let go of segments.
    pub(crate) trims: usize,
    /// Those in which no file of keys was left of them.
    pub(crate) trims_without_keys: usize,
    pub(crate) torn_tails: usize,
    pub(crate) erasures: usize,
    /// Events that retention let go.
    pub(crate) expired: usize,
}

impl std::ops::AddAssign for Done {
    fn add_assign(&mut self, other: Self) {
        self.merges += other.merges;
        self.trims += other.trims;
        self.trims_without_keys += other.trims_without_keys;
        self.torn_tails += other.torn_tails;
        self.erasures += other.erasures;
        self.expired += other.expired;
    }
}

struct Run {
    random: Random,
    kind: Kind,
    done: Done,
    oracle: Oracle,
    next_number: u64,
    around: Around,
    /// What the clock that never leaps said when this life began.
    began: Duration,
    /// What was done, for whoever has to find out why it went wrong.
    told: Vec<String>,
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Ended and closed.
    Closed,
    Killed,
    PowerCut,
}

/// Runs one seed. Returns what happened; what went wrong, when something did.
pub(crate) fn run(seed: u64, plan: Plan) -> Result<Done, String> {
    let mut random = Random::new(seed);
    let age_seconds = random.once_in(2).then_some(AGE_SECONDS);
    let retention = Retention { age_seconds, bytes_max: None };
    let around = Around { clock: SimClock::new(BEGIN), retention };
    let (oracle, told) = (Oracle::default(), Vec::new());
    let done = Done::default();
    let kind = if seed % 4 == 3 { Kind::WithoutIds } else { Kind::WithIds };
    let mut run = Run { random, kind, done, oracle, next_number: 1, around, began: Duration::ZERO, told };
    run.lives(plan).map_err(|what| format!("{what}\nbefore:\n{}", run.told.join("\n")))?;
    Ok(Done { expired: run.oracle.expired(), erasures: run.oracle.erasures(), ..run.done })
}

impl Run {
    fn lives(&mut self, plan: Plan) -> Result<(), String> {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let mut disk = SimDisk::new();
        for life in 0..3 + self.random.below(4) {
            if let Some(lie) = plan.lie {
                disk.lie_about(lie);
            }
            let place = folder.path().join(life.to_string());
            std::fs::create_dir(&place).map_err(|e| e.to_string())?;
            let end = self.life(&disk, &place)?;
            self.told.push(format!("{end:?} after {} operations", disk.operations()));
            disk = match end {
                End::PowerCut => disk.after_power_cut(self.random.number()),
                End::Closed | End::Killed => disk.after_kill(),
            };
        }
        if disk.is_dead() {
            disk = disk.after_power_cut(self.random.number());
        }
        let place = folder.path().join("last");
        std::fs::create_dir(&place).map_err(|e| e.to_string())?;
        self.starts();
        let life = Life::begin(&disk, &place, &self.around).map_err(|e| format!("it does not start: {e}"))?;
        let looked = self.look(&life, When::Started);
        life.end();
        looked
    }

    fn life(&mut self, disk: &SimDisk, place: &Path) -> Result<End, String> {
        let end = *self.pick(&[End::PowerCut, End::PowerCut, End::PowerCut, End::Killed, End::Closed]);
        if end != End::Closed {
            // Also in the middle of a start.
            disk.cut_power_at(disk.operations() + self.random.below(400));
        }
        self.starts();
        let life = match Life::begin(disk, place, &self.around) {
            Ok(life) => {
                self.tell(disk, format_args!("started, last position {}", life.engine.last_position()));
                life
            }
            Err(_) if disk.is_dead() => return Ok(end),
            Err(error) => return Err(format!("it does not start: {error}")),
        };
        let before = oldest_segment(disk);
        let lived = self.live(disk, &life, end);
        let trims = usize::from(oldest_segment(disk) > before);
        self.done.trims += trims;
        if first_of(disk, "keys").is_none() {
            self.done.trims_without_keys += trims;
        }
        self.done.merges += life.counted("catchment_lake_compactions_total");
        self.done.torn_tails += life.counted("catchment_engine_torn_tails_total");
        life.end();
        lived
    }

    fn live(&mut self, disk: &SimDisk, life: &Life, end: End) -> Result<End, String> {
        self.look_unless_off(disk, life, When::Started)?;
        for _ in 0..4 + self.random.below(20) {
            if disk.is_dead() || life.engine.status().poisoned().is_some() {
                break;
            }
            self.step(disk, life)?;
        }
        disk.heal();
        self.look_unless_off(disk, life, When::Running)?;
        if end == End::Closed && !disk.is_dead() && life.engine.status().poisoned().is_none() {
            life.runtime.block_on(life.engine.close()).map_err(|e| format!("it does not close: {e}"))?;
        }
        Ok(end)
    }

    fn step(&mut self, disk: &SimDisk, life: &Life) -> Result<(), String> {
        match self.random.below(21) {
            0..=9 => self.send(disk, life)?,
            10 | 11 => self.send_again(disk, life)?,
            12..=15 => {
                // Fails with the disk: then the rows stay live.
                let sealed = life.runtime.block_on(life.engine.seal());
                self.tell(disk, format_args!("seal: {sealed:?}"));
            }
            16 => self.erase(disk, life)?,
            17 => {
                let fault = *self.pick(&[Fault::Full, Fault::Broken]);
                let (kind, skip) = (self.random.below(3), self.random.below(30));
                self.tell(disk, format_args!("fault {kind} after {skip}: {fault:?}"));
                match kind {
                    0 => disk.fail_write(skip, fault),
                    1 if self.kind == Kind::WithoutIds => disk.fail_syncs(skip, 2, fault),
                    1 => disk.fail_sync(skip, fault),
                    _ => disk.fail_creates(Some(Fault::Full)),
                }
            }
            18 => {
                self.tell(disk, format_args!("healed"));
                disk.heal();
            }
            _ => self.time(disk),
        }
        Ok(())
    }

    /// The clock leaps, or time passes.
    fn time(&mut self, disk: &SimDisk) {
        let (minutes, days) = (self.random.below(240) as i64 - 120, 1 + self.random.below(40));
        let leap = match self.random.below(6) {
            0 => 400 * 1440,
            1 => -400 * 1440,
            2 | 3 => minutes,
            4 => return self.passes(disk, Duration::from_secs(60 * minutes.unsigned_abs())),
            _ => return self.passes(disk, Duration::from_secs(86_400 * days)),
        };
        self.tell(disk, format_args!("the clock leaps by {leap} minutes"));
        self.around.clock.leap(leap * 60_000_000);
    }

    fn passes(&mut self, disk: &SimDisk, time: Duration) {
        self.tell(disk, format_args!("{} minutes pass", time.as_secs() / 60));
        self.around.clock.pass(time);
        if self.around.retention.age_seconds.is_some() && self.around.clock.passed() - self.began >= DAY {
            self.oracle.all_are_old();
        }
    }

    /// A life begins.
    fn starts(&mut self) {
        self.began = self.around.clock.passed();
        if let Some(seconds) = self.around.retention.age_seconds {
            // Less than the age by what a clock may be corrected without a leap.
            self.oracle.started(seconds as i64 * 1_000_000 - 2 * DAY.as_micros() as i64);
        }
    }

    fn send(&mut self, disk: &SimDisk, life: &Life) -> Result<(), String> {
        let batches: Vec<Vec<Sent>> = (0..1 + self.random.below(3)).map(|_| self.batch()).collect();
        let submissions = batches.iter().map(|batch| life.submission(batch)).collect();
        for (batch, outcome) in batches.iter().zip(life.submit(submissions)) {
            let (sensor, events) = (&batch[0].sensor, batch.len());
            self.told.push(format!("{} {sensor}: {events} from {}: {outcome:?}", disk.operations(), batch[0].number));
            match outcome.map(|outcome| outcome.first_position) {
                Ok(Some(first)) => self.oracle.accepted(batch, first),
                Ok(None) => return Err(format!("new events have no position: {batch:?}")),
                // Only the next start knows.
                Err(AcceptError::Poisoned { .. } | AcceptError::Stopping) => self.oracle.in_doubt(batch),
                // Nothing of it is stored, now or ever.
                Err(
                    AcceptError::StorageFull { .. } | AcceptError::SealBehind { .. } | AcceptError::TooLarge { .. },
                ) => {}
            }
        }
        Ok(())
    }

    fn send_again(&mut self, disk: &SimDisk, life: &Life) -> Result<(), String> {
        let known = self.oracle.known();
        if known.is_empty() {
            return Ok(());
        }
        let event = self.pick(&known).clone();
        let outcome = life.submit(vec![life.submission(std::slice::from_ref(&event))]).remove(0);
        match outcome {
            Ok(outcome) if outcome.duplicates == 1 && outcome.accepted == 0 => Ok(()),
            Ok(outcome) => Err(format!("sent again, it is no duplicate: {event:?}, {outcome:?}")),
            Err(_) if disk.is_dead() || life.engine.status().poisoned().is_some() => Ok(()),
            Err(error) => Err(format!("sent again, a duplicate is refused: {error}")),
        }
    }

    fn erase(&mut self, disk: &SimDisk, life: &Life) -> Result<(), String> {
        if self.oracle.to_erase().is_none() {
            let sensor = self.pick(&SENSORS).to_string();
            self.oracle.erasing(&sensor, life.engine.last_position());
        }
        let (sensor, until) = self.oracle.to_erase().expect("one is asked for");
        let erased = life.erase(&sensor, until);
        self.tell(disk, format_args!("erase {sensor} until {until}: {erased:?}"));
        if erased.is_ok() {
            self.oracle.erased();
        }
        Ok(())
    }

    fn look_unless_off(&mut self, disk: &SimDisk, life: &Life, when: When) -> Result<(), String> {
        match life.rows() {
            Err(_) if disk.is_dead() => Ok(()),
            rows => self.compare(life, &rows?, when),
        }
    }

    fn look(&mut self, life: &Life, when: When) -> Result<(), String> {
        self.compare(life, &life.rows()?, when)
    }

    fn compare(&mut self, life: &Life, rows: &[Found], when: When) -> Result<(), String> {
        let lost = life.engine.view().lake.lost_rows;
        if lost > 0 {
            return Err(format!("{lost} positions count as lost"));
        }
        self.oracle.check(rows, when)?;
        if life.engine.last_position() < self.oracle.last_position {
            return Err(format!(
                "position {} was given, and it goes on after {}",
                self.oracle.last_position,
                life.engine.last_position()
            ));
        }
        self.oracle.positions_seen(rows);
        Ok(())
    }

    fn batch(&mut self) -> Vec<Sent> {
        let sensor = self.pick(&SENSORS).to_string();
        let events = 1 + self.random.below(8);
        (0..events)
            .map(|_| {
                let number = self.next_number;
                self.next_number += 1;
                let has_id = !self.random.once_in(4) && self.kind == Kind::WithIds;
                let id = has_id.then(|| format!("e{number}"));
                let filler = "x".repeat(self.random.below(200) as usize);
                let data = match self.random.below(3) {
                    0 => format!("{{\"n\":{number}}}"),
                    1 => format!("{{\"n\":{number},\"t\":{}}}", self.random.below(100)),
                    _ => format!("{{\"n\":{number},\"t\":\"{filler}\",\"f{}\":1}}", self.random.below(5)),
                };
                Sent { number, sensor: sensor.clone(), id, data, received_at: self.around.clock.wall_micros() }
            })
            .collect()
    }

    fn tell(&mut self, disk: &SimDisk, what: std::fmt::Arguments<'_>) {
        self.told.push(format!("{} {what}", disk.operations()));
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.random.below(of.len() as u64) as usize]
    }
}

/// The name of the wal's oldest segment, which has its first position.
fn oldest_segment(disk: &SimDisk) -> Option<PathBuf> {
    first_of(disk, "wal")
}

/// The first path with this ending.
fn first_of(disk: &SimDisk, ending: &str) -> Option<PathBuf> {
    disk.paths().into_iter().filter(|path| path.extension().is_some_and(|its| its == ending)).min()
}

/// When the first life begins, in microseconds since 1970.
const BEGIN: i64 = 1_800_000_000_000_000;
const DAY: Duration = Duration::from_secs(86_400);
/// How long events stay, where that is said.
const AGE_SECONDS: u64 = 30 * 86_400;
const SENSORS: [&str; 3] = ["roof", "cellar", "garden"];
