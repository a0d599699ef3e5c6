//! What every service can be told: listeners, limits, certificates, logs, traces, stopping.

mod checks;

use crate::config::{ByteSize, Seconds, Secret, Url};
use crate::forwarded::{ForwardedBy, Network, TrustedProxies};
use crate::problem::Limits;
use crate::serve::{ClientCertificates, ConnectionLimits, TlsClients};
use std::net::SocketAddr;
use std::path::PathBuf;

crate::settings! {
    /// What every service can be told.
    pub struct Foundation {
        /// The public listener.
        http: Http {
            /// Address of the service. Port 0 takes a free one.
            listen: SocketAddr = "127.0.0.1:8000";
            /// Allow an address beyond loopback without TLS: for use behind a proxy that ends TLS.
            insecure: bool = "false";
            /// Certificate chain as PEM, for TLS; the file is read again at every reload.
            tls_certificate: Option<PathBuf> = "";
            /// Private key as PEM, for TLS; the file is read again at every reload.
            tls_key: Option<PathBuf> = "";
            /// Certificate authorities as PEM, whose certificates clients can show (mutual TLS); the file is read again at every reload.
            tls_client_ca: Option<PathBuf> = "";
            /// Whether a client has to show a certificate of these authorities: optional or required.
            tls_client_certificates: ClientCertificates = "optional";
            /// Revoked certificates of clients as PEM: a list (X509 CRL) of each authority; the file is read again at every reload.
            tls_client_crl: Option<PathBuf> = "";
            /// Largest request body.
            body_bytes_max: ByteSize = "2MiB", range "1KiB".."256MiB", reload;
            /// A body that neither ends nor brings 256 bytes a second while it is waited for so long is given up with 408.
            body_stall_seconds: Seconds = "15s", range "1s".."10m", reload;
            /// Time from a request's head to the head of its answer; after that it is answered 503, or 408 when its body is missing.
            request_seconds: Seconds = "30s", range "1s".."1d", reload;
            /// A connection that has not sent its first request's head after this long is closed; a later one, or an idle one, within twice this.
            head_seconds: Seconds = "15s", range "1s".."10m", reload;
            /// A connection whose peer takes nothing of its answer for this long is closed.
            write_stall_seconds: Seconds = "60s", range "1s".."10m", reload;
            /// Open connections; one more is answered 503 and closed.
            connections_max: usize = "4096", range "1".."100000", reload;
            /// Requests of one HTTP/2 connection at the same time; beside the first of each, all connections together have no more than http.connections_max, and each no more of those than it leaves free.
            streams_max: u32 = "128", range "1".."10000", reload;
            /// Proxies whose word about the client's address is believed: addresses and networks such as 10.0.0.0/8.
            trusted_proxies: Vec<Network> = "";
            /// The header that these proxies write: `x-forwarded` (X-Forwarded-For) or `forwarded` (RFC 7239).
            forwarded_by: ForwardedBy = "x-forwarded";
        }
        /// The admin listener: metrics, health, log level.
        admin: Admin {
            /// Address of the admin listener. Port 0 takes a free one. Keep it off the public network.
            listen: SocketAddr = "127.0.0.1:8001";
        }
        /// Log lines.
        log: Log {
            /// Least level: off, error, warn, info, debug, trace; also per module, as `info,shop::orders=debug`.
            level: String = "info", reload;
            /// `text`, `json`, `journal`, or `auto`: text on a terminal, the journal under systemd, else JSON.
            format: String = "auto";
        }
        /// Traces and log records for a collector of OpenTelemetry.
        otlp: Otlp {
            /// Address of the collector's OTLP over HTTP, such as http://127.0.0.1:4318. Without it nothing is exported.
            endpoint: Option<Url> = "";
            /// Value of the header `Authorization` for the collector.
            authorization: Option<Secret> = "", reload;
            /// Certificate authorities as PEM, for an endpoint with https.
            ca: Option<PathBuf> = "";
        }
        /// Stopping.
        stop: Stop {
            /// Time between readiness turning false and the listener closing, for load balancers.
            drain_seconds: Seconds = "0s", range "0s".."5m", reload;
            /// Time for requests in flight to finish, and for each further step of stopping.
            grace_seconds: Seconds = "20s", range "1s".."10m", reload;
        }
    }
}

impl Foundation {
    /// The listeners by which tokens would travel in clear, beyond loopback without TLS, if these are their addresses.
    pub(crate) fn in_clear(&self, api: SocketAddr, admin: SocketAddr) -> Vec<(&'static str, SocketAddr)> {
        let listeners = [("http", api, self.http.tls_certificate.is_some()), ("admin", admin, false)];
        let open = listeners
            .into_iter()
            .filter(|(_, address, tls)| !address.ip().is_loopback() && !tls && !self.http.insecure);
        open.map(|(name, address, _)| (name, address)).collect()
    }

    pub(crate) fn connection_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            connections_max: self.http.connections_max,
            head_timeout: self.http.head_seconds.duration(),
            write_stall_timeout: self.http.write_stall_seconds.duration(),
            streams_max: self.http.streams_max,
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            body_bytes_max: self.http.body_bytes_max.0 as usize,
            body_stall_timeout: self.http.body_stall_seconds.duration(),
            request_timeout: self.http.request_seconds.duration(),
        }
    }

    pub(crate) fn proxies(&self) -> TrustedProxies {
        TrustedProxies::new(self.http.trusted_proxies.clone(), self.http.forwarded_by)
    }
}

impl Http {
    /// By which files certificates of clients are verified, when they are asked for.
    pub(crate) fn tls_clients(&self) -> Option<TlsClients> {
        let (ca, crl) = (self.tls_client_ca.clone()?, self.tls_client_crl.clone());
        Some(TlsClients { ca, crl, certificates: self.tls_client_certificates })
    }
}

impl Otlp {
    /// The headers of each export.
    pub(crate) fn headers(&self) -> Vec<(String, Secret)> {
        self.authorization.iter().map(|value| ("authorization".to_owned(), value.clone())).collect()
    }
}
