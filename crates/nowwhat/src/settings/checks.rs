//! What is wrong with the settings beyond single keys: addresses, files of certificates, where to export to.
//!
//! Files that settings name are read here, so that `config check` tells what a start would meet. No sentence holds a secret.

use super::Foundation;
use crate::client::check_ca;
use crate::config::Loaded;
use crate::error_chain;
use crate::otlp;
use crate::serve::{TlsError, flaws};
use crate::telemetry::{Format, check_level};

impl Foundation {
    /// What is wrong beyond single keys, a sentence each. Blocks while it reads files.
    pub(crate) fn problems(&self, loaded: &Loaded) -> Vec<String> {
        let mut checks = Checks { settings: self, loaded, problems: Vec::new() };
        checks.listeners();
        checks.certificate();
        checks.log();
        checks.otlp();
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

    /// `key = "value"`, where it may be shown.
    fn shown(&self, key: &str) -> String {
        let given = self.loaded.given(key);
        if given.secret { format!("{key} = ***") } else { format!("{key} = {:?}", given.text) }
    }

    /// A file that cannot be used. Errors name their file, which may be made of a secret.
    fn file(&mut self, key: &str, error: &(dyn std::error::Error + 'static)) {
        let why = if self.loaded.given(key).secret { "***".to_owned() } else { error_chain(error) };
        self.problems.push(format!("{key}: {why} ({})", self.origin(key)));
    }

    fn listeners(&mut self) {
        let Foundation { http, admin, .. } = self.settings;
        let tls = http.tls_certificate.is_some();
        for (key, address, tls) in [("http.listen", http.listen, tls), ("admin.listen", admin.listen, false)] {
            if !address.ip().is_loopback() && !tls && !http.insecure {
                let problem = format!(
                    "{}: beyond loopback tokens would travel in clear; keep it on 127.0.0.1, or set http.insecure = true when a \
                     proxy in front ends TLS ({})",
                    self.shown(key),
                    self.origin(key)
                );
                self.problems.push(problem);
            }
        }
        // One that is part of the other, as 0.0.0.0 is, is told by the operating system: under systemd neither may be bound.
        if http.listen == admin.listen && http.listen.port() != 0 {
            let (one, other) = (self.origin("http.listen"), self.origin("admin.listen"));
            let problem = format!(
                "{} is the address of {} too: give each listener its own ({one}, {other})",
                self.shown("http.listen"),
                self.shown("admin.listen")
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
            match &error {
                TlsError::Certificate { .. } => self.file("http.tls_certificate", &error),
                TlsError::Key { .. } => self.file("http.tls_key", &error),
                TlsError::Pair { .. } => {
                    let keys = ["http.tls_certificate", "http.tls_key"];
                    let secret = keys.iter().any(|key| self.loaded.given(key).secret);
                    let why = if secret { "***".to_owned() } else { error_chain(&error) };
                    let [one, other] = keys.map(|key| self.origin(key));
                    self.problems.push(format!("http.tls_key: {why} ({one}, {other})"));
                }
            }
        }
    }

    fn log(&mut self) {
        let log = &self.settings.log;
        if let Err(error) = check_level(&log.level) {
            let why = if self.loaded.given("log.level").secret { String::new() } else { format!(": {error}") };
            self.problems.push(format!("{}{why} ({})", self.shown("log.level"), self.origin("log.level")));
        }
        if Format::from_name(&log.format).is_none() {
            let allowed = "allowed are text, json, journal and auto";
            let problem = format!("{}: {allowed} ({})", self.shown("log.format"), self.origin("log.format"));
            self.problems.push(problem);
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
        if let Some(Err(error)) = settings.ca.as_deref().map(check_ca) {
            self.file("otlp.ca", &error);
        }
    }
}

#[cfg(test)]
mod tests;
