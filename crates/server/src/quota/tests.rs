//! What quotas and rates promise, on a clock of the test's own.

use super::bucket::{Bucket, Limit};
use super::meter::{Cost, Exceeded, Meter};
use super::*;
use proptest::prelude::*;
use std::time::Duration;

fn limits(events: u64, bytes: u64, burst_seconds: u64) -> Limits {
    let limit = |per_second| (per_second > 0).then_some(Limit { per_second, burst_seconds });
    Limits { events: limit(events), bytes: limit(bytes) }
}

fn cost(events: u64, bytes: u64) -> Cost {
    Cost { events, bytes }
}

/// Takes a batch as a whole, at once.
fn take(meter: &Meter, limits: &Limits, batch: Cost, at: Duration) -> Result<(), u64> {
    meter.hold(limits, Cost::default(), batch, at).map_err(|exceeded| exceeded.wait_seconds())?;
    meter.settle(batch, batch, at);
    Ok(())
}

#[test]
fn a_burst_passes_at_once_and_then_as_much_as_comes_in_a_second() {
    let (meter, limits) = (Meter::default(), limits(10, 0, 3));
    let at = Duration::from_secs;
    assert_eq!(take(&meter, &limits, cost(30, 0), at(0)), Ok(()));
    assert_eq!(take(&meter, &limits, cost(1, 0), at(0)), Err(1));
    assert_eq!(take(&meter, &limits, cost(11, 0), at(0)), Err(2));
    assert_eq!(take(&meter, &limits, cost(10, 0), at(1)), Ok(()));
    assert_eq!(take(&meter, &limits, cost(1, 0), at(1)), Err(1));
}

#[test]
fn the_sensors_farthest_from_this_clock_come_first_on_either_side() {
    let quotas = Quotas::new(Quota::default());
    for (sensor, micros) in [("roof", 5), ("cellar", -30), ("attic", 10), ("shed", 0), ("roof", 20)] {
        quotas.skewed(&Arc::from(sensor), micros);
    }
    drop(quotas.charge(&Arc::from("new"), Quota::default(), 1));
    let found: Vec<_> =
        quotas.most_skewed(3).into_iter().map(|(sensor, micros)| (sensor.to_string(), micros)).collect();
    assert_eq!(found, [("cellar".to_owned(), -30), ("roof".to_owned(), 20), ("attic".to_owned(), 10)]);
}

#[test]
fn a_batch_larger_than_a_burst_passes_when_the_bucket_is_full_and_is_owed() {
    let (meter, limits) = (Meter::default(), limits(10, 0, 1));
    let at = Duration::from_secs;
    assert_eq!(take(&meter, &limits, cost(1, 0), at(0)), Ok(()));
    assert_eq!(take(&meter, &limits, cost(100, 0), at(0)), Err(1), "it is not full");
    assert_eq!(take(&meter, &limits, cost(100, 0), at(1)), Ok(()));
    assert_eq!(take(&meter, &limits, cost(1, 0), at(1)), Err(10), "9 seconds pay the debt, a tenth comes after it");
    assert_eq!(take(&meter, &limits, cost(1, 0), at(10)), Err(1));
    assert_eq!(take(&meter, &limits, cost(1, 0), at(11)), Ok(()));
}

#[test]
fn both_quotas_have_to_give_a_batch_and_what_is_refused_costs_neither() {
    let (meter, limits) = (Meter::default(), limits(10, 1000, 1));
    let refused = |batch| meter.hold(&limits, Cost::default(), batch, Duration::ZERO).expect_err("too much");
    assert_eq!(take(&meter, &limits, cost(5, 1000), Duration::ZERO), Ok(()));
    let bytes_only = Exceeded { events_wait_seconds: None, bytes_wait_seconds: Some(1) };
    assert_eq!(refused(cost(5, 1)), bytes_only);
    let both = Exceeded { events_wait_seconds: Some(1), bytes_wait_seconds: Some(1) };
    assert_eq!(refused(cost(6, 500)), both);
    assert_eq!(take(&meter, &limits, cost(5, 0), Duration::ZERO), Ok(()), "no event was taken by what was refused");
}

#[test]
fn what_is_held_is_nobody_elses_and_comes_back_when_it_is_not_used() {
    let quotas = Quotas::new(Quota { bytes_per_second: Some(10), burst_seconds: Some(10), ..Quota::default() });
    let sensor: Arc<str> = "roof".into();
    let mut first = quotas.charge(&sensor, Quota::default(), 1);
    let mut second = quotas.charge(&sensor, Quota::default(), 1);
    first.announced(60).expect("of 100");
    second.announced(60).expect_err("40 are left");
    first.came(5).expect("less than was announced");
    drop(first);
    second.announced(90).expect("of 95");
    second.came(90).expect("as announced");
    second.forgive();
    drop(second);
    let mut third = quotas.charge(&sensor, Quota::default(), 1);
    third.announced(95).expect("what was forgiven is there again");
    third.came(96).expect_err("more came than was announced, and than there is");
}

#[test]
fn a_changed_quota_holds_at_once_and_none_forgets_what_is_owed() {
    let meter = Meter::default();
    let at = Duration::from_secs;
    assert_eq!(take(&meter, &limits(10, 0, 1), cost(1000, 0), at(0)), Ok(()));
    assert_eq!(take(&meter, &limits(10, 0, 1), cost(1, 0), at(0)), Err(100));
    assert_eq!(take(&meter, &limits(500, 0, 1), cost(1, 0), at(0)), Err(2), "the debt is paid at the new rate");
    assert_eq!(take(&meter, &limits(0, 0, 1), cost(5000, 0), at(0)), Ok(()), "no quota");
    assert_eq!(take(&meter, &limits(10, 0, 1), cost(10, 0), at(0)), Ok(()), "the bucket begins full");
    assert_eq!(take(&meter, &limits(10, 0, 1), cost(1, 0), at(0)), Err(1));
}

#[test]
fn rates_are_those_of_the_last_minute_and_end_with_it() {
    let meter = Meter::default();
    let used = cost(10, 1000);
    for second in 0..120 {
        meter.settle(Cost::default(), used, Duration::from_secs(second));
    }
    let rates = |millis| meter.rates(Duration::from_millis(millis));
    let steady = rates(119_999);
    assert!((steady.events_per_second - 10.0).abs() < 0.2, "{steady:?}");
    assert!((steady.bytes_per_second - 1000.0).abs() < 20.0, "{steady:?}");
    let half = rates(150_000);
    assert!((half.events_per_second - 5.0).abs() < 0.2, "{half:?}");
    assert_eq!(rates(180_000), Rates::default());
    assert!(meter.tells_nothing(Duration::from_secs(180)));
}

#[test]
fn memory_is_bounded_and_those_who_owe_are_kept_before_those_who_do_not() {
    let quotas = Quotas::new(Quota { events_per_second: Some(1), burst_seconds: Some(1), ..Quota::default() });
    let name = |n: usize| -> Arc<str> { format!("sensor-{n}").into() };
    let owing = name(0);
    let mut charge = quotas.charge(&owing, Quota::default(), 1);
    charge.received(1000).expect("a full bucket");
    drop(charge);
    // Each looks, and sends nothing.
    (1..2 * METERS_MAX).for_each(|n| drop(quotas.charge(&name(n), Quota::default(), 1)));
    assert!(quotas.meters().len() <= METERS_MAX);
    quotas.charge(&owing, Quota::default(), 1).announced(0).expect_err("it owes");
    // Each sends: none tells nothing.
    for n in 1..2 * METERS_MAX {
        let mut charge = quotas.charge(&name(n), Quota::default(), 1);
        charge.received(1).expect("a full bucket");
    }
    assert!(quotas.meters().len() <= METERS_MAX);
}

#[test]
fn room_is_made_for_a_quarter_however_few_tell_nothing_any_more() {
    let quotas = Quotas::new(Quota { events_per_second: Some(1), burst_seconds: Some(1), ..Quota::default() });
    let name = |n: usize| -> Arc<str> { format!("sensor-{n}").into() };
    // All but one have sent something lately.
    for n in 1..METERS_MAX {
        quotas.charge(&name(n), Quota::default(), 1).received(1).expect("a full bucket");
    }
    drop(quotas.charge(&name(METERS_MAX), Quota::default(), 1));
    assert_eq!(quotas.meters().len(), METERS_MAX);
    drop(quotas.charge(&name(0), Quota::default(), 1));
    assert!(quotas.meters().len() <= METERS_KEPT + 1, "{}", quotas.meters().len());
    assert!(quotas.meters().len() > METERS_MAX / 2 && quotas.meters().contains_key(&name(METERS_MAX - 1)));
}

proptest! {
    /// Whatever comes when: in any time no more passes than one burst, what came in it, and the last batch; and whoever waits as
    /// long as told gets through.
    #[test]
    fn the_rate_holds_in_the_long_run_and_waiting_helps(
        per_second in 1_u64..1_000_000,
        burst_seconds in 1_u64..100,
        batches in prop::collection::vec((1_u64..10_000_000, 0_u64..5_000_000_000), 1..60),
    ) {
        let limit = Limit { per_second, burst_seconds };
        let (mut bucket, mut passed, mut now, mut last) = (Bucket::default(), 0_u128, Duration::ZERO, 0);
        for (tokens, nanos) in batches {
            let pause = Duration::from_nanos(nanos);
            bucket.fill(Some(limit), pause);
            now += pause;
            if let Some(seconds) = bucket.wait_seconds(limit, 0, tokens) {
                let mut almost = bucket;
                almost.fill(Some(limit), Duration::from_secs(seconds - 1));
                prop_assert!(seconds == 1 || almost.wait_seconds(limit, 0, tokens).is_some(), "not told to wait too long");
                bucket.fill(Some(limit), Duration::from_secs(seconds));
                now += Duration::from_secs(seconds);
                prop_assert_eq!(bucket.wait_seconds(limit, 0, tokens), None);
            }
            bucket.take(0, tokens);
            passed += u128::from(tokens);
            last = tokens;
            let came = now.as_nanos() * u128::from(per_second) / 1_000_000_000;
            let most = u128::from(limit.burst()) + came + u128::from(last);
            prop_assert!(passed <= most, "{passed} passed, {most} may");
        }
        prop_assert!(last > 0);
    }
}
