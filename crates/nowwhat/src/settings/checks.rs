//! What is wrong with the settings beyond single keys: addresses, files of certificates, where to export to.
//!
//! Files that settings name are read here, so that `config check` tells what a start would meet. No sentence holds a secret.

use super::Foundation;
use crate::client::check_ca;
use crate::config::{Loaded, Turn};
use crate::error_chain;
use crate::otlp;
use crate::serve::{ClientCertificates, TlsError, client_flaw, flaws};
use crate::telemetry::{Format, check_level};
use std::net::SocketAddr;

/// What a level can be.
const LEVELS: &str = "allowed are off, error, warn, info, debug and trace, also per module with commas between them, as info,shop::orders=debug";

impl Foundation {
    /// What is wrong beyond single keys, a sentence each. Blocks while it reads files; those that a reload does not take over are left out
    /// when it is [`Turn::Again`].
    pub(crate) fn problems(&self, loaded: &Loaded, turn: Turn) -> Vec<String> {
        let mut checks = Checks { settings: self, loaded, problems: Vec::new() };
        checks.listeners();
        checks.certificate();
        checks.client_certificates();
        checks.log();
        checks.otlp();
        if turn != Turn::Again {
            checks.authorities();
        }
        checks.problems
    }
}

struct Checks<'a> {
    settings: &'a Foundation,
    loaded: &'a Loaded,
    problems: Vec<String>,
}

impl Checks<'_> {
    fn origin(&self, key: &str) -> String {
        self.loaded.given(key).origin.to_string()
    }

    /// Whether a sentence may not tell the value of one of these settings.
    fn is_secret(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.loaded.given(key).secret)
    }

    /// `key = "value"`.
    fn said(&self, key: &str) -> String {
        if self.is_secret(&[key]) {
            format!("{key} = ***")
        } else {
            format!("{key} = {:?}", self.loaded.given(key).text)
        }
    }

    /// Files that cannot be used. Errors name them, their causes do not.
    fn files(&mut self, keys: &[&str], error: &(dyn std::error::Error + 'static)) {
        let why = match error.source() {
            Some(cause) if self.is_secret(keys) => format!("*** cannot be used: {}", error_chain(cause)),
            None if self.is_secret(keys) => "*** cannot be used".to_owned(),
            _ => error_chain(error),
        };
        let origins: Vec<String> = keys.iter().map(|key| self.origin(key)).collect();
        self.problems.push(format!("{}: {why} ({})", keys[0], origins.join(", ")));
    }

    fn listeners(&mut self) {
        let Foundation { http, admin, .. } = self.settings;
        for (name, _) in self.settings.in_clear(http.listen, admin.listen) {
            let key = format!("{name}.listen");
            let problem = format!(
                "{}: beyond loopback tokens would travel in clear; keep it on 127.0.0.1, or set http.insecure = true when a \
                 proxy in front ends TLS ({})",
                self.said(&key),
                self.origin(&key)
            );
            self.problems.push(problem);
        }
        if are_one(http.listen, admin.listen) {
            let (one, other) = (self.origin("http.listen"), self.origin("admin.listen"));
            let problem = format!(
                "{} takes the address of {} too: give each listener a port of its own ({one}, {other})",
                self.said("http.listen"),
                self.said("admin.listen")
            );
            self.problems.push(problem);
        }
    }

    fn certificate(&mut self) {
        let http = &self.settings.http;
        let (certificate, key) = (http.tls_certificate.as_deref(), http.tls_key.as_deref());
        if certificate.is_some() != key.is_some() {
            let (one, other) = match certificate {
                Some(_) => ("http.tls_certificate", "http.tls_key"),
                None => ("http.tls_key", "http.tls_certificate"),
            };
            let origin = self.origin(one);
            self.problems.push(format!("{one} is given without {other}: TLS needs both ({origin})"));
        }
        for error in flaws(certificate, key) {
            self.files(settings_of(&error), &error);
        }
    }

    fn client_certificates(&mut self) {
        let http = &self.settings.http;
        let (has_ca, has_crl) = (http.tls_client_ca.is_some(), http.tls_client_crl.is_some());
        let is_required = http.tls_client_certificates == ClientCertificates::Required;
        for (given, key, other) in [
            (has_ca && http.tls_certificate.is_none(), "http.tls_client_ca", "http.tls_certificate"),
            (has_crl && !has_ca, "http.tls_client_crl", "http.tls_client_ca"),
            (is_required && !has_ca, "http.tls_client_certificates", "http.tls_client_ca"),
        ] {
            if given {
                let (said, origin) = (self.said(key), self.origin(key));
                self.problems.push(format!(
                    "{said} is given without {other}: certificates of clients need TLS and an authority ({origin})"
                ));
            }
        }
        if let Some(error) = http.tls_clients().as_ref().and_then(client_flaw) {
            self.files(settings_of(&error), &error);
        }
    }

    fn log(&mut self) {
        let log = &self.settings.log;
        for (key, allowed) in [
            ("log.level", check_level(&log.level).is_err().then_some(LEVELS)),
            (
                "log.format",
                Format::from_name(&log.format).is_none().then_some("allowed are text, json, journal and auto"),
            ),
        ] {
            if let Some(allowed) = allowed {
                self.problems.push(format!("{}: {allowed} ({})", self.said(key), self.origin(key)));
            }
        }
    }

    fn otlp(&mut self) {
        let settings = &self.settings.otlp;
        if let Some(endpoint) = &settings.endpoint
            && let Err(error) = otlp::check_endpoint(endpoint, settings.ca.as_deref())
        {
            let hint = if matches!(error, otlp::OtlpError::NoAuthorities { .. }) { ": give otlp.ca" } else { "" };
            self.problems.push(format!("otlp.endpoint: {error}{hint} ({})", self.origin("otlp.endpoint")));
        }
        if let Err(error) = otlp::headers(&settings.headers()) {
            self.problems.push(format!("otlp.authorization: {error} ({})", self.origin("otlp.authorization")));
        }
    }

    fn authorities(&mut self) {
        if let Some(Err(error)) = self.settings.otlp.ca.as_deref().map(check_ca) {
            self.files(&["otlp.ca"], &error);
        }
    }
}

/// The settings whose files are at fault.
fn settings_of(error: &TlsError) -> &'static [&'static str] {
    match error {
        TlsError::Certificate { .. } => &["http.tls_certificate"],
        TlsError::Key { .. } => &["http.tls_key"],
        TlsError::Pair { .. } => &["http.tls_key", "http.tls_certificate"],
        TlsError::ClientCa { .. } => &["http.tls_client_ca"],
        TlsError::ClientCrl { .. } => &["http.tls_client_crl"],
    }
}

/// Whether two listeners cannot have these addresses at the same time. What `[::]` takes of IPv4 is for the operating system to say.
fn are_one(one: SocketAddr, other: SocketAddr) -> bool {
    let is_all = one.ip().is_unspecified() || other.ip().is_unspecified();
    let overlap = one.ip() == other.ip() || (is_all && one.is_ipv4() == other.is_ipv4());
    overlap && one.port() == other.port() && one.port() != 0
}

#[cfg(test)]
mod tests;
