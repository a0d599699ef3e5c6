//! Nothing disappears in silence: what the metrics count always adds up, in every part and from part to part.
//!
//! Every other test of the real program ends with the same check.

use tests::{Collector, balances, imbalances};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Two accepted, one duplicate, one rejected.
const LINES: &[u8] =
    b"{\"id\":\"1\",\"type\":\"t\",\"data\":1}\n{\"id\":\"1\",\"type\":\"t\",\"data\":1}\n{\"a\":1}\n{oops\n";

fn ends(collector: &Collector) -> [f64; 4] {
    ["accepted", "duplicate", "rejected", "failed"]
        .map(|end| collector.metric(&format!("catchment_engine_events_total{{end=\"{end}\"}}")))
}

#[test]
fn every_event_has_one_end_and_one_place_across_seals_a_clean_stop_and_kill_9() {
    let dir = folder();
    let sealing = [("CATCHMENT_SEAL__AGE_SECONDS", "1s")];
    let collector = Collector::start_with(dir.path(), &sealing);
    let token = collector.sensor("roof");
    assert_eq!(collector.send(&token, LINES).status, 200);
    assert_eq!(collector.send(&token, b"{oops\n").status, 400);
    assert_eq!(collector.post("/api/v1/events?atomic=true", &token, b"[{},7]", &[]).status, 400);
    assert_eq!(collector.post("/api/v1/events", &token, b"[{},", &[]).status, 400, "cannot be cut into events");
    assert_eq!(ends(&collector), [2.0, 1.0, 4.0, 0.0]);
    collector.wait_for("a seal", |c| c.metric("catchment_lake_rows") == 2.0);
    collector.assert_adds_up();
    assert_eq!(collector.terminate(), 0);

    let collector = Collector::start(dir.path());
    assert_eq!(collector.send(&token, b"{\"a\":2}\n7\n").status, 200);
    assert_eq!(ends(&collector), [1.0, 0.0, 1.0, 0.0]);
    collector.assert_adds_up();
    collector.kill();

    let collector = Collector::start(dir.path());
    collector.assert_adds_up();
    assert_eq!(collector.metric("catchment_engine_recovered_events_total"), 1.0);
    assert_eq!(collector.metric("catchment_rejected_found_total"), collector.metric("catchment_rejected_rows"));
}

#[test]
fn events_that_were_read_and_then_find_no_room_have_failed() {
    let dir = folder();
    let settings = [("CATCHMENT_HTTP__BODY_BYTES_MAX", "256KiB"), ("CATCHMENT_INGEST__IN_FLIGHT_BYTES_MAX", "1MiB")];
    let collector = Collector::start_with(dir.path(), &settings);
    let token = collector.sensor("roof");
    // What is told of ten thousand rejections is larger than all there is.
    let answer = collector.send(&token, &b"7\n".repeat(20_000));
    assert_eq!((answer.status, ends(&collector)), (413, [0.0, 0.0, 0.0, 20_000.0]), "{}", answer.text);
    collector.assert_adds_up();
}

#[test]
fn one_event_too_many_or_too_few_in_any_place_is_seen() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    assert_eq!(collector.send(&token, LINES).status, 200);
    collector.assert_adds_up();
    let text = collector.get_admin("/metrics").text;
    assert!(balances().len() >= 8 && imbalances(&text).is_empty());
    for balance in balances() {
        for term in balance.split_whitespace().filter(|term| term.starts_with("catchment_")) {
            let changed = |line: &str| match line.rsplit_once(' ') {
                Some((name, value)) if name == term || name.starts_with(&format!("{term}{{")) => {
                    format!("{name} {}\n", value.parse::<f64>().expect("a number") + 1.0)
                }
                _ => format!("{line}\n"),
            };
            let wrong: String = text.lines().map(changed).collect();
            assert!(imbalances(&wrong).iter().any(|flaw| flaw.starts_with(&balance)), "{term} in {balance}");
            let gone: String = text.lines().filter(|line| !line.starts_with(term)).map(|l| format!("{l}\n")).collect();
            assert!(imbalances(&gone).iter().any(|flaw| flaw.contains("no metric")), "{term} in {balance}");
        }
    }
}
