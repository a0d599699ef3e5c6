//! A real Prometheus scrapes real collectors: every rule and every panel of every dashboard has something to say.

use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};
use tests::{Collector, PATIENCE, Prometheus, has_prometheus};

/// With what each side of a comparison is, instead of only where it holds: the threshold is taken out of the expression.
fn without_threshold(alert: &str) -> String {
    // Nothing is there while all is well.
    let alert = alert.strip_prefix("absent(").and_then(|a| a.strip_suffix(')')).unwrap_or(alert);
    [">", "<", "==", "!=", ">=", "<="].iter().fold(alert.to_owned(), |text, comparison| {
        text.replace(&format!(" {comparison} "), &format!(" {comparison} bool "))
    })
}

/// Every expression of the dashboards, with its file and panel, as Grafana asks them.
fn panels() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana/dashboards");
    let mut found = Vec::new();
    for name in ["service", "storage", "sensors"] {
        let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).expect("a dashboard");
        let dashboard: Value = serde_json::from_str(&text).expect("JSON");
        let panels = dashboard["panels"].as_array().expect("panels");
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            for target in panel["targets"].as_array().expect("targets") {
                let expression = target["expr"].as_str().expect("an expression");
                let asked = expression.replace("$instance", ".*").replace("$__rate_interval", "10s");
                found.push((format!("{name}: {}", panel["title"]), asked));
            }
        }
    }
    found
}

/// Some of everything: accepted, duplicate, reused, rejected, sealed, asked, wrong.
fn traffic(collector: &Collector, token: &str, round: usize) {
    let id = format!("{{\"id\":\"{round}\",\"type\":\"t\",\"data\":1}}\n");
    let reused = format!("{{\"id\":\"{round}\",\"type\":\"t\",\"data\":2}}\n");
    let skewed = "{\"time\":\"2026-01-01T00:00:00Z\"}\n{oops\n";
    assert_eq!(collector.send(token, format!("{id}{id}{reused}{skewed}").as_bytes()).status, 200);
    collector.rows("SELECT count(*) FROM events");
    assert_eq!(collector.query("SELECT").status, 400);
    assert_eq!(collector.get("/api/v1/sensors", "cat_nobody").status, 401);
}

#[test]
fn no_rule_and_no_panel_is_empty() {
    if !has_prometheus() {
        return;
    }
    let (dir, of_tls) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let collector = Collector::start_with(
        dir.path(),
        &[("CATCHMENT_SEAL__AGE_SECONDS", "1s"), ("CATCHMENT_AUTH__FAILURES_PER_MINUTE_MAX", "1000000")],
    );
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let write = |name: &str, text: String| {
        let path = of_tls.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let (certificate, key) = (write("pem", made.cert.pem()), write("key", made.signing_key.serialize_pem()));
    let tls = [("CATCHMENT_HTTP__TLS_CERTIFICATE", certificate.as_str()), ("CATCHMENT_HTTP__TLS_KEY", &key)];
    let over_tls = Collector::start_with(of_tls.path(), &tls);
    let token = collector.sensor("roof");
    let prometheus = Prometheus::start(dir.path(), &[&collector.admin, &over_tls.admin]);
    let rules = prometheus.rules();
    let alerts = rules.iter().filter(|(_, kind, _)| kind == "alerting").count();
    assert!(alerts > 35 && rules.len() > 60 && panels().len() > 80, "{alerts} of {}", rules.len());
    let of_rules = rules.into_iter().map(|(name, kind, expression)| match kind.as_str() {
        "alerting" => (name, without_threshold(&expression)),
        _ => (name, expression),
    });
    let mut empty: Vec<(String, String)> = of_rules.chain(panels()).collect();
    let deadline = Instant::now() + PATIENCE;
    let mut round = 0;
    while !empty.is_empty() {
        // A request for each scrape is on its way for no longer than a moment: others find the collector at rest.
        traffic(&collector, &token, round);
        round += 1;
        std::thread::sleep(Duration::from_millis(200));
        empty.retain(|(_, expression)| prometheus.samples(expression).iter().all(|(_, value)| value.is_nan()));
        assert!(Instant::now() < deadline, "no sample with a number: {empty:#?}");
    }
}
