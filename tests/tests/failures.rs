//! Who tries tokens is slowed down; who has one is not.

use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tests::{Answer, Collector};

/// A collector that believes what its test says of addresses.
fn collector(dir: &std::path::Path) -> Collector {
    Collector::start_with(dir, &[("CATCHMENT_HTTP__TRUSTED_PROXIES", "127.0.0.1")])
}

fn ask(collector: &Collector, address: &str, token: &str) -> Answer {
    collector.ask(("GET", "/api/v1/sensor"), token, &[("x-forwarded-for", address)], b"")
}

fn checks(collector: &Collector, outcome: &str) -> f64 {
    collector.metric(&format!("catchment_registry_token_checks_total{{outcome=\"{outcome}\"}}"))
}

#[test]
fn after_too_many_unknown_tokens_of_an_address_further_ones_wait_and_every_valid_one_passes() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = collector(dir.path());
    let [used, fresh, changed] = ["roof", "cellar", "tower"].map(|name| collector.sensor(name));
    assert_eq!([&used, &changed].map(|token| ask(&collector, "192.0.2.1", token).status), [200; 2]);
    for n in 0..10 {
        let answer = ask(&collector, "192.0.2.1", &format!("cat_guess_{n}"));
        assert_eq!((answer.status, &answer.json()["code"]), (401, &json!("invalid_token")), "{n}: {answer:?}");
    }
    let barred = ask(&collector, "192.0.2.1", "cat_guess_10");
    assert_eq!((barred.status, &barred.json()["code"]), (429, &json!("too_many_failures")), "{barred:?}");
    let wait: u64 = barred.header("retry-after").and_then(|wait| wait.parse().ok()).expect("a time to wait");
    assert!((1..=61).contains(&wait), "{barred:?}");
    assert_eq!(ask(&collector, "192.0.2.1", &used).status, 200, "a token that was used before");
    assert_eq!(ask(&collector, "192.0.2.1", &fresh).status, 200, "a token that was not seen yet");
    let labels = br#"{"labels":{"floor":"9"}}"#;
    assert_eq!(collector.ask(("PATCH", "/api/v1/sensors/tower"), &collector.token, &[], labels).status, 200);
    assert_eq!(ask(&collector, "192.0.2.1", &changed).status, 200, "a token whose sensor was changed");
    assert_eq!(ask(&collector, "192.0.2.1", "").status, 401, "no token is no guess");
    assert_eq!(ask(&collector, "192.0.2.2", "cat_guess_10").status, 401, "another address is not slowed down");
    assert_eq!((checks(&collector, "refused"), checks(&collector, "turned_away")), (11.0, 1.0));
}

#[test]
fn a_token_that_has_ended_is_no_guess_however_often_it_comes() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = collector(dir.path());
    let (gone, good) = (collector.sensor("gone"), collector.sensor("good"));
    assert_eq!(collector.ask(("DELETE", "/api/v1/sensors/gone"), &collector.token, &[], b"").status, 204);
    for _ in 0..30 {
        assert_eq!(ask(&collector, "192.0.2.1", &gone).status, 401);
    }
    assert_eq!(ask(&collector, "192.0.2.1", &good).status, 200);
    assert_eq!(ask(&collector, "192.0.2.1", "cat_guess").status, 401);
}

#[test]
fn who_guesses_a_token_that_somebody_thought_of_gets_no_more_than_a_few_looks_even_at_the_right_one() {
    const THOUGHT_OF: &str = "correct-horse-battery-staple-and-hay";
    let dir = tempfile::tempdir().expect("a folder");
    let settings = [("CATCHMENT_HTTP__TRUSTED_PROXIES", "127.0.0.1"), ("CATCHMENT_AUTH__ADMIN_TOKEN", THOUGHT_OF)];
    assert_eq!(Collector::start(dir.path()).terminate(), 0);
    let collector = Collector::start_with(dir.path(), &settings);
    let listed =
        |address: &str| collector.ask(("GET", "/api/v1/sensors"), THOUGHT_OF, &[("x-forwarded-for", address)], b"");
    let registered = collector.post("/api/v1/sensor", THOUGHT_OF, br#"{"name":"roof"}"#, &[]).json();
    let made = registered["token"].as_str().expect("a token");
    assert_eq!(listed("192.0.2.1").status, 200);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let (collector, is_over) = (&collector, &is_over);
            scope.spawn(move || {
                for n in (0..).take_while(|_| !is_over.load(Ordering::Relaxed)) {
                    ask(collector, "192.0.2.1", &format!("guess-{thread}-{n}"));
                }
            });
        }
        tests::wait_until("its turn to be refused", || {
            let answer = listed("192.0.2.1");
            answer.status == 429
                && answer.json()["code"] == "too_many_failures"
                && answer.header("retry-after").is_some()
        });
        assert_eq!(ask(&collector, "192.0.2.1", made).status, 200, "nobody guesses a token that was made here");
        assert_eq!(listed("192.0.2.2").status, 200, "another address does not wait");
        is_over.store(true, Ordering::Relaxed);
    });
    tests::wait_until("a turn", || listed("192.0.2.1").status == 200);
}

#[test]
fn of_many_guesses_at_once_exactly_as_many_as_may_are_looked_at() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = collector(dir.path());
    let (refused, turned_away) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let (collector, refused, turned_away) = (&collector, &refused, &turned_away);
            scope.spawn(move || {
                for n in 0..10 {
                    match ask(collector, "192.0.2.1", &format!("cat_guess_{thread}_{n}")).status {
                        401 => refused.fetch_add(1, Ordering::Relaxed),
                        429 => turned_away.fetch_add(1, Ordering::Relaxed),
                        other => panic!("{other}"),
                    };
                }
            });
        }
    });
    assert_eq!((refused.into_inner(), turned_away.into_inner()), (10, 150));
}
