//! When the certificates that are served, and those by which clients are verified, end: a metric, so that somebody is told in time.

use super::{Tls, clients};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::time::UNIX_EPOCH;
use tokio_rustls::rustls::pki_types::CertificateDer;

/// Adds to `registry` when the certificates end that are in force; without TLS there is nothing to tell.
pub fn register_certificates(registry: &mut Registry, tls: Option<Tls>) {
    registry.register_collector(Box::new(Certificates(tls)));
}

#[derive(Debug)]
struct Certificates(Option<Tls>);

impl Collector for Certificates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let name = "tls_certificate_ends_timestamp_seconds";
        let help =
            "When the first certificate ends: of the server with its chain, of the authorities of clients (client_ca)";
        let mut ends = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        let Some(Tls { pair, .. }) = &self.0 else { return Ok(()) };
        let (server, client_ca) = {
            let pair = pair.read().expect("nobody panics while holding it");
            (first_end(&pair.chain), pair.clients.as_ref().and_then(|clients| first_end(&clients.authorities)))
        };
        for (of, end) in [("server", server), ("client_ca", client_ca)] {
            let Some(end) = end else { continue };
            ConstGauge::new(end).encode(ends.encode_family(&[("of", of)])?)?;
        }
        Ok(())
    }
}

/// The first end of these certificates, in seconds since the epoch; one that cannot be read tells none.
fn first_end(certificates: &[CertificateDer<'_>]) -> Option<f64> {
    let ends = certificates.iter().filter_map(|der| clients::ends_at(der).ok());
    ends.min().map(|end| end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64())
}
