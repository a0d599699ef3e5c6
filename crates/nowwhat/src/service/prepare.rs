//! What is there before anything runs: settings read, log lines written, metrics registered.

use super::boot::Boot;
use super::running::Place;
use super::{BoxError, Progress, Service};
use crate::cli;
use crate::config::{Ignored, Loaded};
use crate::debug::{LastRequests, Spans};
use crate::dependency::DependencyMetrics;
use crate::environment::Environment;
use crate::health::{self, Health};
use crate::journal;
use crate::metrics::{self, Registry, SharedRegistry};
use crate::otlp::{Otlp, OtlpMetrics, OtlpOptions};
use crate::problem::Limits;
use crate::request::{Inside, Observe, RequestMetrics, Seen, Tracing, Watcher};
use crate::serve::{ConnectionMetrics, Inherited, Tls, register_certificates};
use crate::settings::Foundation;
use crate::systemd::Systemd;
use crate::telemetry::{self, Captured, Format, Further, LevelHandle, LogMetrics, Logging, Telemetry};
use crate::version::Version;
use axum::Router;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// How long one batch may take on its way to a collector of OpenTelemetry.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end waits for what is still to be exported.
const EXPORT_END_TIMEOUT: Duration = Duration::from_secs(3);

/// Where log lines go.
pub(crate) enum Output {
    /// Standard error or the journal, in this form.
    Process(Format),
    /// To the test that runs on this thread.
    Captured,
}

impl Output {
    pub(super) fn of_process(loaded: &Loaded, environment: &Environment) -> Result<Self, BoxError> {
        let name = Foundation::from_loaded(loaded).log.format;
        let format = match name.as_str() {
            "auto" if journal::is_journal(environment) => Format::Journal,
            "json" if journal::is_journal(environment) => Format::JsonToJournal,
            name => Format::from_name(name).expect("checked when it was read"),
        };
        Ok(Self::Process(format))
    }
}

/// The metrics that every service has.
#[derive(Clone, Debug)]
struct Metrics {
    requests: RequestMetrics,
    connections: ConnectionMetrics,
    calls: DependencyMetrics,
    log: LogMetrics,
    otlp: OtlpMetrics,
}

impl Service {
    /// The metrics that every service has, for its own documentation. Those of the runtime only inside of one.
    pub fn registry(&self) -> Registry {
        let mut registry = metrics::registry(self.version);
        register(&mut registry);
        if let Ok(runtime) = Handle::try_current() {
            metrics::register_runtime(&mut registry, &runtime);
        }
        health::register_health(&mut registry, Health::default());
        register_certificates(&mut registry, None);
        registry
    }
}

fn register(r: &mut Registry) -> Metrics {
    Metrics {
        requests: RequestMetrics::register(r),
        connections: ConnectionMetrics::register(r),
        calls: DependencyMetrics::register(r),
        log: LogMetrics::register(r),
        otlp: OtlpMetrics::register(r),
    }
}

/// Settings are read and lines are written; nothing else runs yet.
pub(crate) struct Prepared {
    pub(super) version: Version,
    pub(super) service: Service,
    pub(super) loaded: Loaded,
    pub(super) foundation: Foundation,
    registry: SharedRegistry,
    metrics: Metrics,
    inside: Inside,
    pub(super) level: LevelHandle,
    telemetry: Option<Telemetry>,
    pub(super) otlp: Option<Otlp>,
}

/// Logs begin.
pub(crate) fn prepare(service: &Service, loaded: Loaded, output: Output) -> Result<Prepared, BoxError> {
    let foundation = Foundation::from_loaded(&loaded);
    let version = service.version;
    let mut registry = metrics::registry(version);
    let metrics = register(&mut registry);
    let otlp = export(&foundation, &loaded, version, &metrics)?;
    let mut further: Further = Vec::new();
    if let Some(otlp) = &otlp {
        further.push(Box::new(otlp.spans()));
        further.push(Box::new(otlp.records()));
    }
    let inside = if loaded.is_dev() { Inside::Shown(LastRequests::default()) } else { Inside::Hidden };
    if loaded.is_dev() {
        further.push(Box::new(Spans));
    }
    let level = foundation.log.level.clone();
    let (telemetry, level) = match output {
        Output::Captured => (None, telemetry::captured(level, service.quiet)),
        Output::Process(format) => {
            let logging = Logging { version, level, format, quiet: service.quiet, further };
            let telemetry = Telemetry::start(logging, metrics.log.clone())?;
            let level = telemetry.level();
            (Some(telemetry), level)
        }
    };
    for Ignored { name, meant } in &loaded.ignored {
        match meant {
            // Kubernetes sets variables that look like this too.
            Some(meant) => tracing::warn!(name, meant, "variable is no setting, ignored: two underscores are meant"),
            None => tracing::debug!(name, "variable is no setting, ignored"),
        }
    }
    let registry = Arc::new(RwLock::new(registry));
    let service = service.clone();
    Ok(Prepared { version, service, loaded, foundation, registry, metrics, inside, level, telemetry, otlp })
}

fn export(
    foundation: &Foundation,
    loaded: &Loaded,
    version: Version,
    metrics: &Metrics,
) -> Result<Option<Otlp>, BoxError> {
    let Some(endpoint) = &foundation.otlp.endpoint else { return Ok(None) };
    let options = OtlpOptions {
        endpoint: endpoint.clone(),
        headers: foundation.otlp.headers(),
        ca: foundation.otlp.ca.clone(),
        timeout: EXPORT_TIMEOUT,
        service: version,
        environment: loaded.env.clone(),
        host: telemetry::hostname(),
    };
    Ok(Some(Otlp::start(&options, &metrics.otlp, &metrics.calls)?))
}

impl Prepared {
    /// What a start needs besides, from where the process runs.
    pub(crate) fn boot(&self, inherited: Inherited, systemd: Systemd) -> Place<'_> {
        Place { prepared: self, inherited, systemd }
    }

    /// The lines of a server under test, none yet.
    pub(crate) fn captured(&self) -> Captured {
        Captured::new(self.version, self.metrics.log.clone())
    }

    /// The metrics, to be read.
    pub(crate) fn registry(&self) -> SharedRegistry {
        self.registry.clone()
    }

    /// Writes and sends what waits.
    pub(crate) fn end(self) {
        if let Some(otlp) = self.otlp {
            otlp.shutdown(EXPORT_END_TIMEOUT);
        }
        drop(self.telemetry);
    }

    /// The greeting is for people, and the last they see; a closed standard output is none of a service's business.
    pub(super) fn greet(&self, greeting: Option<String>) {
        if let (Some(text), Some(telemetry)) = (greeting, &self.telemetry) {
            telemetry.flush();
            drop(cli::print(&text));
        }
    }

    pub(super) fn connection_metrics(&self) -> ConnectionMetrics {
        self.metrics.connections.clone()
    }

    pub(super) fn begin(
        &self,
        health: Health,
        systemd: Systemd,
        [address, admin_address]: [SocketAddr; 2],
        tls: Option<Tls>,
    ) -> Boot {
        Boot {
            loaded: self.loaded.clone(),
            foundation: self.foundation.clone(),
            progress: Progress::new(health.clone(), systemd),
            health,
            address,
            admin_address,
            tls,
            registry: self.registry.clone(),
            calls: self.metrics.calls.clone(),
            steps: Vec::new(),
            reloaders: Vec::new(),
            endings: Vec::new(),
            greeting: None,
            around: Vec::new(),
            watchers: Vec::new(),
        }
    }

    pub(super) fn admin_routes(&self, health: Health) -> Router {
        let routes = health::admin_routes(self.registry.clone(), health, self.version);
        let routes = routes.merge(telemetry::level_routes(self.level.clone()));
        match &self.inside {
            Inside::Hidden => routes,
            Inside::Shown(last) => {
                let last = last.clone();
                routes.route("/debug/requests", axum::routing::get(move || async move { last.page() }))
            }
        }
    }

    pub(super) fn observe(&self, limits: watch::Receiver<Limits>, watchers: Vec<Watcher>) -> Observe {
        let tracing = if self.otlp.is_some() { Tracing::Exported } else { Tracing::Continued };
        let seen = Seen { inside: self.inside.clone(), tracing, proxies: self.foundation.proxies(), watchers };
        Observe::within(self.metrics.requests.clone(), seen, limits)
    }
}
