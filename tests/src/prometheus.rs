//! A Prometheus for one test, on a free port, with its data in the test's folder: it scrapes and evaluates every second.

use crate::{PATIENCE, skipped, wait_until};
use serde_json::Value;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running Prometheus; gone with the test.
pub struct Prometheus {
    child: Child,
    url: String,
    agent: ureq::Agent,
}

/// The folder of the rules, in the repository.
pub fn rules_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus")
}

/// Whether this machine has Prometheus with its promtool; says that the test is skipped when it has not.
pub fn has_prometheus() -> bool {
    let runs = |program| Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    let has = runs("prometheus") && runs("promtool");
    if !has {
        skipped("prometheus and promtool are not installed: apt-get install prometheus");
    }
    has
}

impl Prometheus {
    /// Starts one in `dir` with the rules of the repository. `targets` are addresses of admin listeners, scraped as the job `catchment`.
    ///
    /// # Panics
    /// When it is not ready in time.
    pub fn start(dir: &Path, targets: &[&str]) -> Self {
        let rules = std::fs::canonicalize(rules_folder()).expect("the rules");
        let targets: Vec<&str> = targets.iter().map(|target| target.trim_start_matches("http://")).collect();
        let config = serde_json::json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": [rules.join("*.rules.yml")],
            "scrape_configs": [{ "job_name": "catchment", "static_configs": [{ "targets": targets }] }],
        });
        // JSON is YAML.
        let file = dir.join("prometheus.yml");
        std::fs::write(&file, config.to_string()).expect("written");
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let log = std::fs::File::create(dir.join("prometheus.log")).expect("made");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus starts");
        let agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build();
        let prometheus = Self { child, url: format!("http://{address}"), agent: agent.new_agent() };
        wait_until("Prometheus is ready", || {
            let ready = prometheus.agent.get(format!("{}/-/ready", prometheus.url)).call();
            ready.is_ok_and(|answer| answer.status() == 200)
        });
        prometheus
    }

    /// The samples of an expression now, each with its labels and its value.
    ///
    /// # Panics
    /// When the expression is wrong.
    pub fn samples(&self, expression: &str) -> Vec<(Value, f64)> {
        let answer = self.agent.get(format!("{}/api/v1/query", self.url)).query("query", expression).call();
        let text = answer.expect("an answer").body_mut().read_to_string().expect("a text");
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}"));
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        let result = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        let value = |sample: &Value| sample["value"][1].as_str().and_then(|v| v.parse().ok()).unwrap_or(f64::NAN);
        result.iter().map(|sample| (sample["metric"].clone(), value(sample))).collect()
    }

    /// All rules, as it understood them: their name, `recording` or `alerting`, their expression.
    pub fn rules(&self) -> Vec<(String, String, String)> {
        let answer = self.agent.get(format!("{}/api/v1/rules", self.url)).call();
        let text = answer.expect("an answer").body_mut().read_to_string().expect("a text");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default());
        let text = |rule: &Value, key: &str| rule[key].as_str().unwrap_or_default().to_owned();
        rules.map(|rule| (text(&rule, "name"), text(&rule, "type"), text(&rule, "query"))).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
