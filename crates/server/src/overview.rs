//! The collector's own numbers, for those who look at them without a Prometheus: how it is now, and how it was.
//!
//! They are read of the metrics once a second, so nothing is counted twice, and what is shown here is what Prometheus is told. What was
//! read is kept in memory, in steps that grow with its age ([`STEPS`]), and begins anew with each start: events over time are asked in SQL, this
//! tells what no event says.

mod sample;

use crate::clock::now_micros;
use bytes::Bytes;
use nowwhat::Version;
use nowwhat::health::{Health, Report};
use nowwhat::metrics::{Readings, SharedRegistry};
pub(crate) use sample::Sample;
use sample::{Counted, NAMES};
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use utoipa::ToSchema;

/// How often the metrics are read.
const LOOK: Duration = Duration::from_secs(1);

/// Seconds of a step, and how many of them are kept: a quarter of an hour, 6 hours, a day, a week, 30 days.
const STEPS: [(u64, usize); 5] = [(1, 900), (15, 1440), (60, 1440), (600, 1008), (1800, 1440)];

/// What is running, as the page tells it.
#[derive(Clone, Debug)]
pub struct About {
    /// Its version.
    pub version: Version,
    /// The name of its environment, such as `prod`.
    pub environment: String,
}

/// How the collector is. Clones are the same.
#[derive(Clone)]
pub struct Overview {
    shared: Arc<Shared>,
}

struct Shared {
    about: About,
    registry: SharedRegistry,
    health: Health,
    history: Mutex<Past>,
    /// How it is now, anew with each look.
    told: watch::Sender<Bytes>,
}

/// What was looked at, from when on.
struct Past {
    began_at: Option<i64>,
    last_at: i64,
    steps: [Step; STEPS.len()],
}

/// Samples of one length.
struct Step {
    seconds: u64,
    max: usize,
    /// What had been counted when the sample began that is not whole yet.
    began: Option<Counted>,
    samples: VecDeque<Sample>,
}

/// How the collector is now.
#[derive(Serialize, ToSchema)]
#[schema(as = Overview)]
pub(crate) struct State {
    /// When it was looked at.
    #[schema(format = DateTime)]
    at: String,
    version: &'static str,
    commit: &'static str,
    /// The name of the environment.
    #[schema(examples("prod"))]
    environment: String,
    #[schema(format = DateTime)]
    started_at: String,
    #[schema(schema_with = crate::openapi::health_report)]
    health: Report,
    events: Events,
    sensors: Sensors,
    storage: Storage,
    memory: Memory,
    /// The last second.
    last: Sample,
}

/// Events since the start, by their ends, and those that there are.
#[derive(Serialize, ToSchema)]
#[schema(as = OverviewEvents)]
struct Events {
    received_total: u64,
    accepted_total: u64,
    duplicates_total: u64,
    rejected_total: u64,
    failed_total: u64,
    /// In the lake.
    sealed: u64,
    /// Not in the lake yet.
    live: u64,
    last_position: u64,
}

/// Sensors, and how many of them sent within five minutes.
#[derive(Serialize, ToSchema)]
#[schema(as = OverviewSensors)]
struct Sensors {
    registered: u64,
    seen_within_5m: u64,
}

/// What lies on the disk.
#[derive(Serialize, ToSchema)]
#[schema(as = OverviewStorage)]
struct Storage {
    lake_bytes: u64,
    lake_files: u64,
    wal_bytes: u64,
    rejected_bytes: u64,
    /// That this process may still take.
    disk_free_bytes: u64,
    disk_bytes: u64,
}

/// Memory, and the bound that was told at the start.
#[derive(Serialize, ToSchema)]
#[schema(as = OverviewMemory)]
struct Memory {
    resident_bytes: u64,
    bound_bytes: u64,
}

/// How it was, in equal steps, the oldest first.
#[derive(Serialize, ToSchema)]
#[schema(as = OverviewHistory)]
pub(crate) struct History {
    /// The length of a step.
    step_seconds: u64,
    /// The names of the values: those of `last` in the overview.
    columns: &'static [&'static str],
    /// A row a step: its end (RFC 3339), then numbers; null where nothing was measured.
    #[schema(schema_with = crate::openapi::rows)]
    rows: Vec<Vec<serde_json::Value>>,
}

impl Overview {
    /// Reads `registry` and `health`, from [`follow`](Self::follow) on.
    pub fn new(about: About, registry: SharedRegistry, health: Health) -> Self {
        let steps =
            STEPS.map(|(seconds, max)| Step { seconds, max, began: None, samples: VecDeque::with_capacity(max) });
        let history = Mutex::new(Past { began_at: None, last_at: 0, steps });
        Self { shared: Arc::new(Shared { about, registry, health, history, told: watch::Sender::default() }) }
    }

    /// Looks once a second.
    pub async fn follow(self) {
        let mut every = tokio::time::interval(LOOK);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            self.look(now_micros());
        }
    }

    fn look(&self, at: i64) {
        let readings = Readings::of(&self.shared.registry, NAMES);
        let counted = Counted::of(&readings, at);
        let mut history = self.shared.history();
        history.began_at.get_or_insert(at);
        history.last_at = at;
        let last = history.steps.iter_mut().fold(None, |last: Option<Sample>, step| {
            let whole = step.add(&counted);
            last.or(whole)
        });
        drop(history);
        // Before a whole second has passed there is nothing to tell a rate of.
        let last = last.unwrap_or_else(|| Sample::between(&counted, &counted));
        let state = State::of(&self.shared, &readings, last);
        let told = serde_json::to_vec(&state).expect("plain data always serializes");
        self.shared.told.send_replace(told.into());
    }

    /// How it is, anew with each look; empty before the first one.
    pub(crate) fn told(&self) -> watch::Receiver<Bytes> {
        self.shared.told.subscribe()
    }

    /// How it was in the last `seconds`, in the shortest steps that reach back as far, or to the beginning.
    pub(crate) fn history(&self, seconds: u64) -> History {
        let history = self.shared.history();
        let since = history.began_at.map_or(0, |began| (history.last_at - began).max(0) as u64 / 1_000_000);
        let wanted = seconds.min(since);
        let reaching = history.steps.iter().find(|step| step.seconds * step.max as u64 >= wanted);
        let step = reaching.unwrap_or_else(|| history.steps.last().expect("there are steps"));
        let count = usize::try_from(seconds.div_ceil(step.seconds)).unwrap_or(step.max);
        let rows = step.samples.iter().skip(step.samples.len().saturating_sub(count)).map(Sample::row).collect();
        History { step_seconds: step.seconds, columns: Sample::COLUMNS, rows }
    }
}

impl Shared {
    fn history(&self) -> MutexGuard<'_, Past> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Step {
    /// The sample that is whole now, if one is.
    fn add(&mut self, counted: &Counted) -> Option<Sample> {
        let Some(began) = &self.began else {
            self.began = Some(counted.clone());
            return None;
        };
        // A look that comes a little early ends its step all the same.
        if counted.seconds_since(began) < self.seconds as f64 - LOOK.as_secs_f64() / 2.0 {
            return None;
        }
        let sample = Sample::between(began, counted);
        self.began = Some(counted.clone());
        if self.samples.len() == self.max {
            self.samples.pop_front();
        }
        self.samples.push_back(sample.clone());
        Some(sample)
    }
}

impl State {
    fn of(shared: &Shared, readings: &Readings, last: Sample) -> Self {
        let value = |name| readings.sum(name, &[]) as u64;
        let ended = |end| readings.sum("catchment_engine_events_total", &[("end", end)]) as u64;
        let started_at = readings.sum("process_start_time_seconds", &[]) * 1e6;
        Self {
            at: event::format_time(last.at),
            version: shared.about.version.version,
            commit: shared.about.version.commit,
            environment: shared.about.environment.clone(),
            started_at: event::format_time(started_at as i64),
            health: shared.health.report(),
            events: Events {
                received_total: value("catchment_engine_events_received_total"),
                accepted_total: ended("accepted"),
                duplicates_total: ended("duplicate"),
                rejected_total: ended("rejected"),
                failed_total: ended("failed"),
                sealed: value("catchment_lake_rows"),
                live: value("catchment_engine_live_rows"),
                last_position: value("catchment_engine_last_position"),
            },
            sensors: Sensors {
                registered: value("catchment_registry_sensors"),
                seen_within_5m: readings.sum("catchment_server_sensors_seen", &[("within", "5m")]) as u64,
            },
            storage: Storage {
                lake_bytes: value("catchment_lake_bytes"),
                lake_files: value("catchment_lake_files"),
                wal_bytes: value("catchment_engine_wal_bytes"),
                rejected_bytes: value("catchment_rejected_kept_bytes"),
                disk_free_bytes: value("catchment_disk_free_bytes"),
                disk_bytes: value("catchment_disk_bytes"),
            },
            memory: Memory {
                resident_bytes: value("process_resident_memory_bytes"),
                bound_bytes: value("catchment_memory_bound_bytes"),
            },
            last,
        }
    }
}

#[cfg(test)]
mod tests;
