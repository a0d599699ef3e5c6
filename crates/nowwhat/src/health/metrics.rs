//! Health as metrics, asked when they are: whether traffic may come, and each check by its name.

use super::Health;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// Adds the health of a service to `registry`, as `/readyz` tells it.
pub fn register_health(registry: &mut Registry, health: Health) {
    registry.register_collector(Box::new(health));
}

impl Collector for Health {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let report = self.report();
        let ready = ConstGauge::new(i64::from(report.ready));
        let help = "Whether traffic may come: 1, or 0";
        ready.encode(encoder.encode_descriptor("health_ready", help, None, MetricType::Gauge)?)?;
        let help = "Whether a check of /readyz passes: 1, or 0 when it warns or fails";
        let mut checks = encoder.encode_descriptor("health_check_passes", help, None, MetricType::Gauge)?;
        for check in &report.checks {
            // The program's text names checks, no client can.
            let name = [("check", check["check"].as_str().unwrap_or_default())];
            let passes = ConstGauge::new(i64::from(check["status"] == "pass"));
            passes.encode(checks.encode_family(&name)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Weight;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn readiness_and_each_check_are_metrics() {
        let (health, mut registry) = (Health::default(), Registry::default());
        register_health(&mut registry, health.clone());
        let told = || {
            let mut text = String::new();
            encode(&mut text, &registry).expect("a text");
            text
        };
        assert!(told().contains("health_ready 0\n"), "not started yet");
        health.started();
        health.check("cache", Weight::Warning, || Some("cold".to_owned()));
        health.check("database", Weight::Readiness, || None);
        let warning = told();
        assert!(warning.contains("health_ready 1\n"), "{warning}");
        assert!(warning.contains("health_check_passes{check=\"cache\"} 0\n"), "{warning}");
        assert!(warning.contains("health_check_passes{check=\"database\"} 1\n"), "{warning}");
        health.check("queue", Weight::Readiness, || Some("full".to_owned()));
        let failing = told();
        assert!(failing.contains("health_ready 0\n") && failing.contains("{check=\"queue\"} 0\n"), "{failing}");
    }
}
