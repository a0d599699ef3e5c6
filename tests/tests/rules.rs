//! The rules and alerts: valid, each alert fires from series, each has its section in a runbook, and all of it is about what there is.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use tests::{balances, has_prometheus, rules_folder};

/// The files of rules with their runbooks.
const FILES: [(&str, &str); 2] = [("service", "deploy/prometheus/RUNBOOK.md"), ("catchment", "docs/RUNBOOK.md")];

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).expect(path)
}

fn rules(file: &str) -> String {
    read(&format!("deploy/prometheus/{file}.rules.yml"))
}

/// What follows a mark on the lines that begin with it.
fn after<'t>(text: &'t str, mark: &str) -> Vec<&'t str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(mark)).collect()
}

/// The names in a text that metrics have here.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let begins = [
        "catchment_",
        "http_",
        "process_",
        "runtime_",
        "log_lines_",
        "tls_",
        "health_",
        "otlp_",
        "dependency_",
        "build_info",
    ];
    words
        .filter(|word| {
            begins.iter().any(|begin| word.starts_with(begin)) && !word.contains(':') && !word.ends_with('_')
        })
        .collect()
}

fn promtool(args: &[&str]) {
    let output = Command::new("promtool").args(args).current_dir(rules_folder()).output().expect("promtool runs");
    let told = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {args:?}: {}", String::from_utf8_lossy(&told));
}

#[test]
fn promtool_finds_the_configuration_and_all_rules_valid() {
    if has_prometheus() {
        promtool(&["check", "config", "prometheus.yml"]);
        promtool(&["check", "rules", "service.rules.yml", "catchment.rules.yml"]);
    }
}

#[test]
fn every_alert_fires_from_series_with_its_fault_and_none_from_those_of_a_service_that_is_well() {
    for (file, _) in FILES {
        let (rules, tested) = (rules(file), read(&format!("deploy/prometheus/{file}.rules.test.yml")));
        for alert in after(&rules, "- alert: ") {
            let fires = [format!("alertname=\"{alert}\", severity="), format!("alertname: {alert}\n")];
            assert!(fires.iter().any(|fires| tested.contains(fires)), "{alert} is not tested");
        }
    }
    if has_prometheus() {
        promtool(&["test", "rules", "service.rules.test.yml", "catchment.rules.test.yml"]);
    }
}

#[test]
fn every_alert_has_its_section_in_a_runbook_and_every_section_its_alert() {
    let service = read("deploy/nowwhat.toml");
    let repository = after(&service, "repository = ")[0].trim_matches('"');
    for (file, runbook) in FILES {
        let (rules, text) = (rules(file), read(runbook));
        let alerts = after(&rules, "- alert: ");
        assert!(alerts.len() > 15, "{alerts:?}");
        assert_eq!(alerts, after(&text, "## "), "{runbook}, in the order of the rules");
        let urls = after(&rules, "runbook_url: ");
        let address = |alert: &&str| format!("{repository}/blob/main/{runbook}#{}", alert.to_lowercase());
        assert_eq!(urls, alerts.iter().map(address).collect::<Vec<_>>());
        for section in text.split("\n## ").skip(1) {
            for part in ["- **See**", "- **Do**"] {
                let joined = section.contains("- **See** and **do**") || section.contains("- **See** the same");
                assert!(section.contains(part) || joined, "{part} in {section}");
            }
            assert!(section.contains("`page`") != section.contains("`ticket`"), "{section}");
        }
        let said: Vec<_> = text.split("\n## ").skip(1).map(|section| section.contains("`page`")).collect();
        let ruled: Vec<_> = after(&rules, "severity: ").into_iter().map(|severity| severity == "page").collect();
        assert_eq!(said, ruled, "severities of {alerts:?}");
    }
}

#[test]
fn the_rules_know_every_balance_of_the_accounting() {
    let text = rules("catchment");
    let ruled: Vec<_> = after(&text, "balance: ").into_iter().map(|b| b[1..b.len() - 1].to_owned()).collect();
    assert_eq!(ruled, balances());
}

#[test]
fn the_pictures_of_the_document_show_panels_that_there_are_with_their_queries() {
    for name in ["service", "storage", "sensors"] {
        let dashboard: Value =
            serde_json::from_str(&read(&format!("deploy/grafana/dashboards/{name}.json"))).expect("JSON");
        let panels = dashboard["panels"].as_array().expect("panels");
        let picture = read(&format!("docs/dashboards/{name}.svg"));
        let drawn: Vec<_> = picture.split(" font-weight=\"bold\">").skip(1).collect();
        assert!(drawn.len() > 5, "{name}: {}", drawn.len());
        for drawn in drawn {
            let (title, rest) = drawn.split_once('<').expect("a title");
            let panel = panels.iter().find(|panel| panel["title"] == title && panel["type"] == "timeseries");
            let targets = panel.and_then(|panel| panel["targets"].as_array()).into_iter().flatten();
            let queries: Vec<_> = targets.filter_map(|target| target["expr"].as_str()).collect();
            let told = rest.split("<desc>").skip(1).filter_map(|rest| rest.split_once("</desc>"));
            let told: Vec<_> =
                told.map(|(query, _)| query.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")).collect();
            assert_eq!(told, queries, "{name}, {title:?}: `make plots`");
        }
    }
}

#[test]
fn rules_runbooks_and_dashboards_name_metrics_that_there_are_and_the_service_those_of_every_service() {
    let table = read("docs/METRICS.md");
    let is_metric = |name: &str| {
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        table.contains(&format!("\n| `{name}` |"))
    };
    let dashboards = ["service", "storage", "sensors"].map(|name| format!("deploy/grafana/dashboards/{name}.json"));
    let rules = FILES.map(|(file, _)| format!("deploy/prometheus/{file}.rules.yml"));
    let runbooks = FILES.map(|(_, runbook)| runbook.to_owned());
    for file in dashboards.into_iter().chain(rules).chain(runbooks) {
        let text = read(&file);
        let found = metrics(&text);
        // Names of fields and of groups are no metrics.
        let unknown: Vec<_> = found.iter().filter(|name| !is_metric(name)).collect();
        let least = if file.ends_with("RUNBOOK.md") { 3 } else { 10 };
        assert!(unknown.is_empty() && found.len() > least, "{file}: {unknown:?} of {}", found.len());
        let own: Vec<_> = found.iter().filter(|name| name.starts_with("catchment_")).collect();
        assert!(
            own.is_empty() || !(file.contains("/service.") || file.contains("prometheus/RUNBOOK")),
            "{file} is for any service: {own:?}"
        );
    }
}
