//! The steps of the history, with a clock of the test's own.

use super::*;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::sync::RwLock;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct End {
    end: &'static str,
}

/// An overview of a collector that only counts accepted events.
fn overview() -> (Overview, Counter) {
    let (mut registry, events) = (Registry::default(), Family::<End, Counter>::default());
    registry.register("catchment_engine_events", "Events by their ends", events.clone());
    let accepted = events.get_or_create(&End { end: "accepted" }).clone();
    let version = Version { name: "catchment", version: "1.2.3", commit: "abc" };
    let about = About { version, environment: "qa".to_owned() };
    (Overview::new(about, Arc::new(RwLock::new(registry)), Health::default()), accepted)
}

fn rates(history: &History) -> Vec<f64> {
    history.rows.iter().map(|row| row[1].as_f64().expect("a rate")).collect()
}

const SECOND: i64 = 1_000_000;

#[test]
fn each_step_has_the_rate_of_its_time_and_longer_ones_that_of_all_of_it() {
    let (overview, accepted) = overview();
    for second in 0..=60_u64 {
        overview.look(second as i64 * SECOND);
        accepted.inc_by(if second < 30 { 10 } else { 40 });
    }
    assert_eq!(rates(&overview.history(10)), [40.0; 10]);
    assert_eq!(rates(&overview.history(60))[28..32], [10.0, 10.0, 40.0, 40.0]);
    assert_eq!(overview.history(u64::MAX).step_seconds, 1, "all that there is, as finely as it is kept");
    // Beyond a quarter of an hour it comes in steps of 15 seconds, beyond 6 hours in minutes.
    accepted.inc_by(840 * 40);
    overview.look(901 * SECOND);
    let coarse = overview.history(3600);
    assert_eq!((coarse.step_seconds, &rates(&coarse)[..4]), (15, &[10.0, 10.0, 40.0, 40.0][..]));
    overview.look(22_000 * SECOND);
    let coarse = overview.history(86_400);
    assert_eq!((coarse.step_seconds, rates(&coarse)[0]), (60, 25.0));
    overview.look(30 * 86_400 * SECOND);
    assert_eq!(overview.history(u64::MAX).step_seconds, 1800);
}

#[test]
fn no_more_is_kept_than_the_steps_say_and_a_clock_that_is_set_back_goes_on() {
    let (overview, _) = overview();
    for second in 0..2000 {
        overview.look(second * SECOND);
    }
    assert_eq!(overview.history(900).rows.len(), 900);
    overview.look(5 * SECOND);
    overview.look(6 * SECOND);
    let at = overview.history(900).rows.last().expect("rows")[0].clone();
    assert_eq!(at, "1970-01-01T00:00:06Z");
}

#[test]
fn what_is_told_has_the_last_second_and_why_it_is_not_ready() {
    let (overview, accepted) = overview();
    let told = overview.told();
    overview.look(0);
    accepted.inc_by(7);
    overview.look(SECOND);
    let state: serde_json::Value = serde_json::from_slice(&told.borrow()).expect("JSON");
    assert_eq!(state["last"]["accepted_per_second"], 7.0);
    assert_eq!((&state["events"]["accepted_total"], &state["environment"]), (&7.into(), &"qa".into()));
    assert_eq!((&state["health"]["ready"], &state["health"]["reasons"][0]["check"]), (&false.into(), &"start".into()));
}
