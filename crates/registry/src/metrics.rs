//! The registry's metrics.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// How a check of a token ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)]
pub(crate) enum Check {
    remembered,
    verified,
    refused,
    turned_away,
    unavailable,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CheckLabel {
    outcome: Check,
}

/// What the registry counts; registered once at start.
#[derive(Clone, Debug)]
pub struct RegistryMetrics {
    pub(crate) remembered: Counter,
    pub(crate) verified: Counter,
    pub(crate) refused: Counter,
    pub(crate) turned_away: Counter,
    pub(crate) unavailable: Counter,
    pub(crate) sensors: Gauge,
}

impl RegistryMetrics {
    /// Makes the metrics and adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let checks = Family::<CheckLabel, Counter>::default();
        let check = |outcome| checks.get_or_create(&CheckLabel { outcome }).clone();
        let metrics = Self {
            remembered: check(Check::remembered),
            verified: check(Check::verified),
            refused: check(Check::refused),
            turned_away: check(Check::turned_away),
            unavailable: check(Check::unavailable),
            sensors: Gauge::default(),
        };
        let r = registry.sub_registry_with_prefix("catchment_registry");
        r.register("token_checks", "Checks of tokens: remembered from before, verified, refused, turned away after too many failures, unavailable", checks);
        r.register("sensors", "Registered sensors", metrics.sensors.clone());
        metrics
    }
}
