//! A real Prometheus scrapes real collectors: every rule and every panel of every dashboard has something to say.

use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};
use tests::{Collector, PATIENCE, Prometheus, has_prometheus};

/// With what each side of a comparison is, instead of only where it holds: the threshold is taken out of the expression.
fn without_threshold(alert: &str) -> String {
    // Nothing is there while all is well.
    let alert = alert.strip_prefix("absent(").and_then(|a| a.strip_suffix(')')).unwrap_or(alert);
    // What asks for something of hours ago finds it now.
    let alert = alert.replace(" offset 6h", "").replace(" offset 10m", "");
    [">", "<", "==", "!=", ">=", "<="]
        .iter()
        .fold(alert, |text, comparison| text.replace(&format!(" {comparison} "), &format!(" {comparison} bool ")))
}

/// An alert, as Prometheus writes it, as its alternatives: a sample of one says nothing of the others.
fn alternatives(alert: &str) -> Vec<String> {
    let (mut depth, mut groups, mut parts) = (0, Vec::new(), vec![0]);
    for (at, sign) in alert.char_indices() {
        match sign {
            '(' => {
                if depth == 0 {
                    groups.push((at + 1, at + 1));
                }
                depth += 1;
            }
            ')' => {
                depth -= 1;
                if depth == 0 {
                    groups.last_mut().expect("it was opened").1 = at;
                }
            }
            _ if depth == 0 && alert[at..].starts_with("or ") && alert[..at].ends_with(char::is_whitespace) => {
                parts.extend([at, at + "or ".len()]);
            }
            _ => {}
        }
    }
    parts.push(alert.len());
    if parts.len() > 2 {
        // What it is matched on goes with the `or`.
        let matched = |part: &str| match part.strip_prefix("on (").or(part.strip_prefix("ignoring (")) {
            Some(rest) => rest.split_once(") ").expect("it ends").1.to_owned(),
            None => part.to_owned(),
        };
        return parts.chunks(2).flat_map(|part| alternatives(&matched(alert[part[0]..part[1]].trim()))).collect();
    }
    let inner = groups.into_iter().map(|(begin, end)| (begin, end, alternatives(&alert[begin..end])));
    match inner.into_iter().find(|(_, _, inner)| inner.len() > 1) {
        Some((begin, end, inner)) => inner
            .iter()
            .flat_map(|inner| alternatives(&format!("{}{inner}{}", &alert[..begin], &alert[end..])))
            .collect(),
        None => vec![alert.to_owned()],
    }
}

#[test]
fn an_alert_is_asked_by_each_of_its_alternatives() {
    assert_eq!(alternatives("a > 1"), ["a > 1"]);
    assert_eq!(alternatives("a or on (job) rate(b[5m]) or c"), ["a", "rate(b[5m])", "c"]);
    assert_eq!(alternatives("(a and b or c) and d(e)"), ["(a and b) and d(e)", "(c) and d(e)"]);
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
    let alone = rules.len();
    let of_rules = rules.into_iter().flat_map(|(name, kind, expression)| {
        let asked = match kind.as_str() {
            "alerting" => alternatives(&expression).iter().map(|asked| without_threshold(asked)).collect(),
            _ => vec![expression],
        };
        asked.into_iter().map(move |asked| (name.clone(), asked))
    });
    let mut empty: Vec<(String, String)> = of_rules.collect();
    assert!(empty.len() > alone + 10, "{} alternatives of {alone} rules", empty.len());
    empty.extend(panels());
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
