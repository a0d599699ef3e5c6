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
    pub(crate) certificates: LookUpMetrics,
    pub(crate) sessions: LookUpMetrics,
    pub(crate) sensors: Gauge,
    pub(crate) audit_entries: Gauge,
    pub(crate) audit_trimmed: Counter,
    pub(crate) tokens_trimmed: Counter,
}

/// How looking up names in certificates, or sessions, ended.
#[derive(Clone, Debug)]
pub(crate) struct LookUpMetrics {
    pub(crate) remembered: Counter,
    pub(crate) verified: Counter,
    pub(crate) refused: Counter,
    pub(crate) unavailable: Counter,
}

impl LookUpMetrics {
    fn of(checks: &Family<CheckLabel, Counter>) -> Self {
        let check = |outcome| checks.get_or_create(&CheckLabel { outcome }).clone();
        Self {
            remembered: check(Check::remembered),
            verified: check(Check::verified),
            refused: check(Check::refused),
            unavailable: check(Check::unavailable),
        }
    }
}

impl RegistryMetrics {
    /// Makes the metrics and adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let checks = Family::<CheckLabel, Counter>::default();
        let check = |outcome| checks.get_or_create(&CheckLabel { outcome }).clone();
        let (named, begun) = <(Family<CheckLabel, Counter>, Family<CheckLabel, Counter>)>::default();
        let metrics = Self {
            remembered: check(Check::remembered),
            verified: check(Check::verified),
            refused: check(Check::refused),
            turned_away: check(Check::turned_away),
            unavailable: check(Check::unavailable),
            certificates: LookUpMetrics::of(&named),
            sessions: LookUpMetrics::of(&begun),
            sensors: Gauge::default(),
            audit_entries: Gauge::default(),
            audit_trimmed: Counter::default(),
            tokens_trimmed: Counter::default(),
        };
        let r = registry.sub_registry_with_prefix("catchment_registry");
        r.register("token_checks", "Checks of tokens: remembered from before, verified, refused, turned away after too many failures, unavailable", checks);
        r.register("certificate_checks", "Look-ups of names in certificates of clients: remembered from before, verified, refused because no sensor or a disabled one has the name, unavailable", named);
        r.register("session_checks", "Checks of sessions of people who signed in: remembered from before, verified, refused because they have ended or are not known, unavailable", begun);
        r.register(
            "audit_entries",
            "Entries of the audit, as counted when it was last trimmed",
            metrics.audit_entries.clone(),
        );
        r.register(
            "audit_trimmed",
            "Entries of the audit let go for their age or their number",
            metrics.audit_trimmed.clone(),
        );
        r.register(
            "tokens_trimmed",
            "Ended tokens let go for their age or their number",
            metrics.tokens_trimmed.clone(),
        );
        r.register("sensors", "Registered sensors", metrics.sensors.clone());
        metrics
    }
}
