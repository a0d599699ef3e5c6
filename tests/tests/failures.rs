//! Who tries tokens is slowed down; who has one is not.

use serde_json::json;
use tests::Collector;

#[test]
fn after_too_many_unknown_tokens_an_address_waits_and_known_tokens_of_it_pass() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_HTTP__TRUSTED_PROXIES", "127.0.0.1")]);
    let token = collector.sensor("roof");
    let from = |address: &str, token: &str| {
        collector.ask(("GET", "/api/v1/sensor"), token, &[("x-forwarded-for", address)], b"")
    };
    let fresh = collector.sensor("cellar");
    assert_eq!(from("192.0.2.1", &token).status, 200);
    for n in 0..10 {
        let answer = from("192.0.2.1", &format!("cat_guess_{n}"));
        assert_eq!((answer.status, &answer.json()["code"]), (401, &json!("invalid_token")), "{n}: {answer:?}");
    }
    let barred = from("192.0.2.1", "cat_guess_10");
    assert_eq!((barred.status, &barred.json()["code"]), (429, &json!("too_many_failures")), "{barred:?}");
    let wait: u64 = barred.header("retry-after").and_then(|wait| wait.parse().ok()).expect("a time to wait");
    assert!((1..=61).contains(&wait), "{barred:?}");
    assert_eq!(from("192.0.2.1", &fresh).status, 429, "a token that was not seen yet is not looked up");
    assert_eq!(from("192.0.2.1", &token).status, 200, "a token that is known passes");
    assert_eq!(from("192.0.2.1", "").status, 401, "no token is no guess");
    assert_eq!(from("192.0.2.2", &fresh).status, 200, "another address is not slowed down");
    assert_eq!(from("192.0.2.1", &fresh).status, 200, "and now it is known");
    let checks = |outcome| collector.metric(&format!("catchment_registry_token_checks_total{{outcome=\"{outcome}\"}}"));
    assert_eq!((checks("refused"), checks("turned_away")), (10.0, 2.0));
}
