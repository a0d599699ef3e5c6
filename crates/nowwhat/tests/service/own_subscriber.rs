//! The lines in a subscriber of the caller's own.

use super::{has_role, other_role};
use nowwhat::telemetry::{self, Format, LogMetrics};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[test]
fn lines_bound_values_and_panics_are_there_to_the_last_in_a_callers_own_subscriber() {
    if has_role() {
        let metrics = LogMetrics::register(&mut nowwhat::metrics::Registry::default());
        let lines = telemetry::layer(nowwhat::version!("bakery"), Format::Json, metrics).expect("a thread");
        let waiting = lines.waiting();
        tracing_subscriber::registry().with(lines).init();
        telemetry::log_panics();
        nowwhat::bind("lost", "there is no span");
        tracing::info_span!("order", order = 17).in_scope(|| {
            nowwhat::bind("customer", "c-17");
            tracing::info!(loaves = 3, "baked");
            drop(std::panic::catch_unwind(|| panic!("burnt")));
        });
        tracing::info!("last");
        drop(waiting);
        std::process::exit(0);
    }
    let test = "own_subscriber::lines_bound_values_and_panics_are_there_to_the_last_in_a_callers_own_subscriber";
    let (code, written) = other_role(test, &[]).end();
    assert_eq!(code, Some(0), "{written}");
    let lines: Vec<serde_json::Value> =
        written.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"))).collect();
    let messages: Vec<_> = lines.iter().filter_map(|line| line["message"].as_str()).collect();
    assert_eq!(messages, ["baked", "panicked", "last"]);
    for line in &lines[..2] {
        assert_eq!((&line["type"], &line["order"], &line["customer"]), (&"bakery".into(), &17.into(), &"c-17".into()));
    }
    assert_eq!((&lines[0]["loaves"], &lines[1]["cause"]), (&3.into(), &"burnt".into()));
    assert!(lines[2]["customer"].is_null() && lines[2]["lost"].is_null());
}
