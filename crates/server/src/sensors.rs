//! What the metrics tell of sensors: how many sent lately, and by name the twenty of each kind that an operator looks for.
//!
//! **Promise:** of the labels of all metrics these alone hold ids of sensors, and never more than twenty of them at a time.

use crate::clock::now_micros;
use crate::quota::Quotas;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use registry::Registry;
use rejected::Rejected;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How many are told by name, of each kind.
const TOP: usize = 20;

/// How often the registry is asked.
const LOOK: Duration = Duration::from_secs(15);

/// A sensor counts as silent, rather than as gone, for so long.
const SILENT_MAX: Duration = Duration::from_secs(7 * 86_400);

/// Within which times sensors are counted that sent.
const WITHIN: [(&str, u64); 4] = [("5m", 300), ("1h", 3600), ("1d", 86_400), ("7d", 7 * 86_400)];

/// What the metrics tell of sensors. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct SensorMetrics {
    found: Arc<Mutex<Found>>,
}

#[derive(Debug, Default)]
struct Found {
    seen: [u64; WITHIN.len()],
    /// When each was last seen.
    silent: Vec<(String, f64)>,
    /// Bytes of its rejected events that are kept.
    rejected: Vec<(String, f64)>,
    /// Seconds that its events are behind this clock, or, negative, ahead of it.
    skewed: Vec<(String, f64)>,
}

impl SensorMetrics {
    /// Makes the metrics and adds them to `registry`.
    pub fn register(registry: &mut prometheus_client::registry::Registry) -> Self {
        let metrics = Self::default();
        registry.register_collector(Box::new(metrics.clone()));
        metrics
    }

    /// Looks every quarter of a minute who sent, whose events were rejected, and whose clocks are wrong.
    pub async fn follow(self, registry: Registry, rejected: Rejected, quotas: Quotas) {
        loop {
            match find(&registry, &rejected, &quotas).await {
                Ok(found) => *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found,
                Err(error) => {
                    let error = nowwhat::error_chain(&*error);
                    tracing::warn!(error, "sensors in the metrics are those of before, will be tried again");
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

async fn find(
    registry: &Registry,
    rejected: &Rejected,
    quotas: &Quotas,
) -> Result<Found, Box<dyn Error + Send + Sync>> {
    let now = now_micros();
    let ago = |seconds: u64| now.saturating_sub_unsigned(seconds * 1_000_000);
    let mut found = Found::default();
    for (seen, (_, seconds)) in found.seen.iter_mut().zip(WITHIN) {
        *seen = registry.seen_since(ago(seconds)).await?;
    }
    let seconds = |(sensor, micros): (String, i64)| (sensor, micros as f64 / 1e6);
    let silent = registry.silent_longest(ago(SILENT_MAX.as_secs()), TOP as u32).await?;
    found.silent = silent.into_iter().map(seconds).collect();
    found.rejected = rejected.most(TOP).await?.into_iter().map(|(sensor, bytes)| (sensor, bytes as f64)).collect();
    found.skewed =
        quotas.most_skewed(TOP).into_iter().map(|(sensor, micros)| seconds((sensor.to_string(), micros))).collect();
    Ok(found)
}

impl Collector for SensorMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let help = "Sensors that sent within this time, of those that are not disabled";
        let mut seen = encoder.encode_descriptor("catchment_server_sensors_seen", help, None, MetricType::Gauge)?;
        for ((within, _), count) in WITHIN.iter().zip(found.seen) {
            ConstGauge::new(count).encode(seen.encode_family(&[("within", *within)])?)?;
        }
        let mut top = |name: &str, help: &str, sensors: &[(String, f64)]| {
            let mut of_sensors = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (sensor, value) in sensors {
                ConstGauge::new(*value).encode(of_sensors.encode_family(&[("sensor", sensor.as_str())])?)?;
            }
            Ok(())
        };
        top(
            "catchment_server_top_silent_timestamp_seconds",
            "When each of the 20 sensors last sent that are silent the longest, of those that sent within 7 days",
            &found.silent,
        )?;
        top(
            "catchment_server_top_rejected_bytes",
            "Bytes of the rejected events that can be read again, of the 20 sensors that have most",
            &found.rejected,
        )?;
        top(
            "catchment_server_top_skew_seconds",
            "How far the newest time in the last batch was behind the time of receipt, or, negative, ahead of it: the 20 sensors with most",
            &found.skewed,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn what_was_found_is_told_by_kind_and_name() {
        let mut registry = prometheus_client::registry::Registry::default();
        let metrics = SensorMetrics::register(&mut registry);
        let told = || {
            let mut text = String::new();
            encode(&mut text, &registry).expect("a text");
            text
        };
        assert!(told().contains("catchment_server_sensors_seen{within=\"1h\"} 0\n"), "{}", told());
        assert!(!told().contains("sensor="), "{}", told());
        let one = |value| vec![("roof".to_owned(), value)];
        *metrics.found.lock().expect("not poisoned") =
            Found { seen: [1, 2, 3, 4], silent: one(1.5), rejected: one(7.0), skewed: one(-2.25) };
        for line in [
            "catchment_server_sensors_seen{within=\"7d\"} 4\n",
            "catchment_server_top_silent_timestamp_seconds{sensor=\"roof\"} 1.5\n",
            "catchment_server_top_rejected_bytes{sensor=\"roof\"} 7.0\n",
            "catchment_server_top_skew_seconds{sensor=\"roof\"} -2.25\n",
        ] {
            assert!(told().contains(line), "{line} in {}", told());
        }
    }
}
