//! Taking changed settings over while the service runs.
//!
//! Files are read by a thread of their own: a file system that hangs holds up neither signals nor the watchdog. What is not read or taken
//! over within [`READ_TIMEOUT`] is given up, and said.
//!
//! **What is checked is what will be in force**: the newer settings, but those that only a start takes over as they are. What is wrong with it
//! stops the reload, as does a source that cannot be read or understood, or an unknown key. What is wrong beyond that would stop the next
//! start: it is told, and the others are taken over.

use super::BoxError;
use super::boot::Reloader;
use super::prepare::Prepared;
use crate::config::{Loaded, Problems, Turn, leave_out};
use crate::problem::Limits;
use crate::serve::{ConnectionLimits, Pair, Tls, TlsError, make_room_for};
use crate::service::Service;
use crate::settings::Foundation;
use crate::small_file::READ_TIMEOUT;
use crate::systemd::Systemd;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

/// Reads all settings again, and does not check them together. Blocks while it reads.
pub(crate) type ReadAgain = Arc<dyn Fn() -> Result<Loaded, Problems> + Send + Sync>;

/// What can be changed while the service runs.
pub(super) struct Switches {
    pub(super) connections: watch::Sender<ConnectionLimits>,
    pub(super) limits: watch::Sender<Limits>,
    pub(super) tls: Option<Tls>,
}

/// A service that serves.
pub(super) struct Running<'a> {
    pub(super) prepared: &'a Prepared,
    /// The settings in force. Those it was started with are `prepared`'s.
    pub(super) loaded: Loaded,
    pub(super) switches: Switches,
    pub(super) systemd: Systemd,
    pub(super) reloaders: Vec<Reloader>,
    pub(super) read: ReadAgain,
    /// A reading that was given up and may still hang.
    pub(super) hanging: Option<JoinHandle<Result<Read, Problems>>>,
}

/// What was read again, checked.
pub(super) struct Read {
    /// The settings that will be in force.
    in_force: Loaded,
    /// Names of changed settings that take a restart.
    waiting: Vec<String>,
    /// What would stop a restart.
    problems: Vec<String>,
    /// The certificate, when one is served.
    certificate: Option<Result<Pair, TlsError>>,
}

impl Read {
    /// Sorts what was read by what is in force. Blocks while it reads files of certificates.
    fn new(service: &Service, current: &Loaded, newer: &Loaded, tls: Option<&Tls>) -> Result<Self, Problems> {
        let (in_force, next) = (current.reloaded(newer), current.with_flaws_mended(newer));
        let waiting = current.changes(newer).at_start;
        let mut problems = service.problems(&in_force, Turn::Again);
        let stops = !problems.is_empty();
        problems.extend(newer.flaws().iter().map(|(_, sentence)| sentence.clone()));
        if stops {
            return Err(Problems(problems));
        }
        let mut of_next = service.problems(&next, Turn::First);
        leave_out(&mut of_next, newer.flaws().iter().map(|(name, _)| name.as_str()));
        problems.extend(of_next);
        Ok(Self { in_force, waiting, problems, certificate: tls.map(Tls::read) })
    }
}

/// What became of the changes.
#[derive(Default)]
struct Outcome {
    changed: Vec<String>,
    /// What was not taken over, and which settings that holds back.
    failures: Vec<(Vec<String>, String)>,
}

impl Running<'_> {
    /// Reads everything again and takes it over, and tells what came of it.
    pub(super) async fn reload(&mut self) {
        self.systemd.reloading();
        match self.read_again().await {
            Ok(Ok(read)) => self.take_over(read).await,
            Ok(Err(Problems(problems))) => {
                let problems = problems.join("; ");
                tracing::error!(problems, "not reloaded: the configuration has problems, nothing was changed");
            }
            Err(error) => tracing::error!(error = error.to_string(), "not reloaded: the configuration was not read"),
        }
        self.systemd.ready("ready");
    }

    async fn read_again(&mut self) -> Result<Result<Read, Problems>, BoxError> {
        if self.hanging.as_ref().is_some_and(|reading| !reading.is_finished()) {
            return Err("an earlier reload still reads: a file system or a check hangs".into());
        }
        let (read, tls) = (self.read.clone(), self.switches.tls.clone());
        let (service, current) = (self.prepared.service.clone(), self.loaded.clone());
        let mut reading = spawn_blocking(move || Read::new(&service, &current, &read()?, tls.as_ref()));
        match timeout(READ_TIMEOUT, &mut reading).await {
            Ok(read) => Ok(read?),
            Err(_) => {
                self.hanging = Some(reading);
                Err(too_long().into())
            }
        }
    }

    async fn take_over(&mut self, read: Read) {
        let mut newer = read.in_force;
        let mut outcome = Outcome { changed: self.loaded.changes(&newer).reloadable, failures: Vec::new() };
        self.foundation(&newer, &mut outcome);
        self.certificate(read.certificate, &mut outcome);
        self.parts(&newer, &mut outcome).await;
        for name in outcome.failures.iter().flat_map(|(names, _)| names) {
            // The next reload finds it changed, and tries again.
            newer.keep(name, &self.loaded);
        }
        self.loaded = newer;
        outcome.tell(&read.waiting);
        if !read.problems.is_empty() {
            let problems = read.problems.join("; ");
            tracing::error!(problems, "the next start would fail: settings that take a restart have problems");
        }
    }

    /// What every service takes over by itself.
    fn foundation(&self, newer: &Loaded, outcome: &mut Outcome) {
        let foundation = Foundation::from_loaded(newer);
        // The level set by hand stays until the setting changes.
        if outcome.changed.iter().any(|name| name == "log.level")
            && let Err(error) = self.prepared.level.set(&foundation.log.level)
        {
            outcome.failed(&["log.level".to_owned()], error.to_string());
        }
        if let Some(otlp) = &self.prepared.otlp
            && let Err(error) = otlp.set_headers(&foundation.otlp.headers())
        {
            outcome.failed(&["otlp.authorization".to_owned()], crate::error_chain(&error));
        }
        make_room_for(foundation.http.connections_max);
        self.switches.connections.send_replace(foundation.connection_limits());
        self.switches.limits.send_replace(foundation.limits());
    }

    fn certificate(&self, read: Option<Result<Pair, TlsError>>, outcome: &mut Outcome) {
        let (Some(tls), Some(read)) = (&self.switches.tls, read) else { return };
        match read.map(|pair| tls.renew(pair)) {
            Ok(changed) => outcome.changed.extend(changed.into_iter().map(str::to_owned)),
            Err(error) => outcome.failed(&[], crate::error_chain(&error)),
        }
    }

    /// What the service itself takes over. Which part stands on which setting is not known: when one fails, none counts as changed.
    async fn parts(&self, newer: &Loaded, outcome: &mut Outcome) {
        let of_foundation: Vec<String> = Foundation::specs().iter().map(crate::config::Spec::name).collect();
        let is_own = |name: &&String| !of_foundation.contains(name);
        let own: Vec<String> = outcome.changed.iter().filter(is_own).cloned().collect();
        for reloader in &self.reloaders {
            match timeout(READ_TIMEOUT, reloader(newer.clone())).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => outcome.failed(&own, crate::error_chain(error.as_ref())),
                Err(_) => outcome.failed(&own, too_long()),
            }
        }
    }
}

fn too_long() -> String {
    format!("it took longer than {} s", READ_TIMEOUT.as_secs())
}

impl Outcome {
    fn failed(&mut self, names: &[String], error: String) {
        self.changed.retain(|name| !names.contains(name));
        self.failures.push((names.to_vec(), error));
    }

    fn tell(self, waiting: &[String]) {
        match (self.changed.is_empty(), self.failures.is_empty(), waiting.is_empty()) {
            (false, _, _) => tracing::info!(changed = self.changed.join(" "), "reloaded"),
            (true, true, true) => tracing::info!("reloaded: nothing changed"),
            (true, true, false) => tracing::info!("reloaded: nothing changed that can be taken over"),
            (true, false, _) => {}
        }
        if !waiting.is_empty() {
            tracing::warn!(settings = waiting.join(" "), "changed settings that take a restart");
        }
        for (names, error) in self.failures {
            tracing::error!(error, settings = names.join(" "), "not reloaded, what was in force before stays");
        }
    }
}
