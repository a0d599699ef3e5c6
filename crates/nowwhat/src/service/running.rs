//! From the prepared service to its end: starting, serving, reloading, stopping.

use super::BoxError;
use super::boot::{Boot, Reloader, Step};
use super::prepare::Prepared;
use crate::config::{Loaded, Problems};
use crate::health::{self, Health};
use crate::metrics;
use crate::problem::{Limits, Uniform};
use crate::serve::{ConnectionLimits, Hangup, Inherited, Listener, Serving, Stopper, Termination, Tls, stop_signal};
use crate::settings::Foundation;
use crate::systemd::Systemd;
use crate::telemetry::LevelHandle;
use axum::Router;
use futures::future::{BoxFuture, select_all};
use futures::{FutureExt, future};
use std::convert::Infallible;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Connections of the admin listener.
const ADMIN_CONNECTIONS_MAX: usize = 64;

/// How long requests that are cut off may take to end.
const CUT_OFF_TIMEOUT: Duration = Duration::from_secs(1);

/// What a running service is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    /// To stop, and by whom.
    Stop(&'static str),
    /// To take changed settings over.
    Reload,
}

/// What the operating system's signals ask from now on.
pub(super) fn signals() -> Result<mpsc::UnboundedReceiver<Ask>, BoxError> {
    let watched = |e: std::io::Error| BoxError::from(format!("cannot watch signals: {e}"));
    let mut termination = Termination::watch().map_err(watched)?;
    let mut hangup = Hangup::watch().map_err(watched)?;
    let (tell, asks) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let ask = tokio::select! {
                signal = termination.next() => Ask::Stop(signal),
                () = hangup.next() => Ask::Reload,
            };
            if tell.send(ask).is_err() {
                return;
            }
        }
    });
    Ok(asks)
}

/// A prepared service and where it runs.
pub(crate) struct Place<'a> {
    pub(super) prepared: &'a Prepared,
    pub(super) inherited: Inherited,
    pub(super) systemd: Systemd,
}

/// What can be changed while the service runs.
struct Switches {
    connections: watch::Sender<ConnectionLimits>,
    limits: watch::Sender<Limits>,
    level: LevelHandle,
    tls: Option<Tls>,
}

/// Starts, serves until asked to stop, stops.
pub(crate) async fn serve(
    place: Place<'_>,
    mut asks: mpsc::UnboundedReceiver<Ask>,
    reload: &dyn Fn() -> Result<Loaded, Problems>,
    start: impl AsyncFnOnce(&mut Boot) -> Result<Router, BoxError>,
) -> Result<(), BoxError> {
    let Place { prepared, inherited, systemd } = place;
    let began = Instant::now();
    let Prepared { version, loaded, foundation, .. } = prepared;
    tracing::info!(version = version.version, commit = version.commit, env = loaded.env, "starting");

    let [api, admin] = listeners(inherited, foundation).await?;
    let (api_address, admin_address) = (api.address, admin.address);
    let (switches, tls) = switches(prepared)?;
    let health = Health::default();

    // The admin listener answers first: probes see how the start goes on.
    let (admin_stopper, stop) = stop_signal();
    let limits = ConnectionLimits { connections_max: ADMIN_CONNECTIONS_MAX, ..foundation.connection_limits() };
    let serving = Serving { limits: watch::channel(limits).1, metrics: prepared.connection_metrics(), tls: None, stop };
    let admin_routes = prepared.admin_routes(health.clone()).layer(Uniform::new(switches.limits.subscribe()));
    let admin = tokio::spawn(admin.serve(admin_routes, serving));

    let mut boot = prepared.begin(health.clone(), [api_address, admin_address]);
    boot.metrics(|registry| metrics::register_runtime(registry, &tokio::runtime::Handle::current()));
    let started = {
        let starting = std::pin::pin!(start(&mut boot));
        started_or_stopped(starting, &mut asks).await
    };
    let Some(routes) = started? else { return Ok(()) };
    let routes = routes.merge(health::public_routes(health.clone()));
    let routes = prepared.observe(switches.limits.subscribe()).router(routes);
    let (stopper, stop) = stop_signal();
    let limits = switches.connections.subscribe();
    let serving = Serving { limits, metrics: prepared.connection_metrics(), tls, stop };
    let api = tokio::spawn(api.serve(routes, serving));

    health.started();
    tracing::info!(
        address = api_address.to_string(),
        admin_address = admin_address.to_string(),
        seconds = began.elapsed().as_secs_f64(),
        "ready"
    );
    systemd.ready("ready");
    prepared.greet(boot.greeting.take());
    let listeners = Listeners { api, stopper, admin, admin_stopper };
    let signs = systemd.clone();
    let mut running = Running {
        booted: loaded.clone(),
        loaded: loaded.clone(),
        switches,
        systemd,
        health,
        reloaders: boot.reloaders,
    };
    let to_the_end = async {
        let ended = running.until_asked(&mut asks, boot.endings, reload).await;
        running.stop(&mut asks, listeners, boot.steps).await?;
        match ended {
            Ended::Asked => Ok(()),
            Ended::Failed(reason) => Err(reason.into()),
        }
    };
    tokio::select! {
        done = to_the_end => done,
        never = signs_of_life(&signs) => match never {},
    }
}

/// Tells systemd's watchdog that this task goes on, also while it reloads and stops.
async fn signs_of_life(systemd: &Systemd) -> Infallible {
    let Some(period) = systemd.watchdog_interval() else { return future::pending().await };
    let mut beat = tokio::time::interval(period);
    loop {
        beat.tick().await;
        systemd.watchdog();
    }
}

/// The routes, or nothing when the service was asked to stop before it had started.
async fn started_or_stopped(
    mut starting: std::pin::Pin<&mut impl Future<Output = Result<Router, BoxError>>>,
    asks: &mut mpsc::UnboundedReceiver<Ask>,
) -> Result<Option<Router>, BoxError> {
    loop {
        tokio::select! {
            started = starting.as_mut() => return started.map(Some),
            Some(ask) = asks.recv() => match ask {
                Ask::Stop(signal) => {
                    tracing::info!(signal, "stopped while starting: the next start recovers");
                    return Ok(None);
                }
                Ask::Reload => tracing::warn!("not reloaded: the service is starting"),
            },
        }
    }
}

/// The public listener and that of the operator.
async fn listeners(mut inherited: Inherited, foundation: &Foundation) -> Result<[Listener; 2], BoxError> {
    let api = listener(&mut inherited, "http", foundation.http.listen).await?;
    let admin = listener(&mut inherited, "admin", foundation.admin.listen).await?;
    for name in inherited.untaken() {
        tracing::warn!(name, "a socket that systemd passed is not used: name it http or admin");
    }
    Ok([api, admin])
}

async fn listener(inherited: &mut Inherited, name: &str, address: std::net::SocketAddr) -> Result<Listener, BoxError> {
    match inherited.take(name)? {
        Some(listener) => {
            tracing::info!(name, address = listener.address.to_string(), "listening on a socket of systemd");
            Ok(listener)
        }
        None => Ok(Listener::bind(address).await?),
    }
}

fn switches(prepared: &Prepared) -> Result<(Switches, Option<Tls>), BoxError> {
    let http = &prepared.foundation.http;
    let tls = match (&http.tls_certificate, &http.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls::load(certificate, key)?),
        _ => None,
    };
    let connections = watch::channel(prepared.foundation.connection_limits()).0;
    let limits = watch::channel(prepared.foundation.limits()).0;
    Ok((Switches { connections, limits, level: prepared.level.clone(), tls: tls.clone() }, tls))
}

/// A service that serves.
struct Running {
    /// The settings it was started with, and those in force.
    booted: Loaded,
    loaded: Loaded,
    switches: Switches,
    systemd: Systemd,
    health: Health,
    reloaders: Vec<Reloader>,
}

struct Listeners {
    api: JoinHandle<()>,
    stopper: Stopper,
    admin: JoinHandle<()>,
    admin_stopper: Stopper,
}

enum Ended {
    Asked,
    Failed(String),
}

enum Next {
    End(Ended),
    Reload,
}

/// What a running service is asked next, or why it cannot go on.
async fn next(asks: &mut mpsc::UnboundedReceiver<Ask>, failed: &mut BoxFuture<'static, String>) -> Next {
    tokio::select! {
        Some(ask) = asks.recv() => match ask {
            Ask::Stop(signal) => {
                tracing::info!(signal, "stopping");
                Next::End(Ended::Asked)
            }
            Ask::Reload => Next::Reload,
        },
        reason = failed => {
            tracing::error!(reason, "stopping, because the service cannot go on");
            Next::End(Ended::Failed(reason))
        }
    }
}

impl Running {
    async fn until_asked(
        &mut self,
        asks: &mut mpsc::UnboundedReceiver<Ask>,
        endings: Vec<BoxFuture<'static, String>>,
        reload: &dyn Fn() -> Result<Loaded, Problems>,
    ) -> Ended {
        let mut failed = match endings.is_empty() {
            true => future::pending().boxed(),
            false => select_all(endings).map(|(reason, _, _)| reason).boxed(),
        };
        loop {
            match next(asks, &mut failed).await {
                Next::End(ended) => return ended,
                Next::Reload => {}
            }
            // A reload that takes its time must not hold up the end; what is asked to reload meanwhile is reloaded after it.
            let mut again = true;
            while std::mem::take(&mut again) {
                let mut reloading = std::pin::pin!(self.reload(reload()));
                loop {
                    tokio::select! {
                        biased;
                        () = reloading.as_mut() => break,
                        next = next(asks, &mut failed) => match next {
                            Next::End(ended) => return ended,
                            Next::Reload => again = true,
                        },
                    }
                }
            }
        }
    }

    async fn reload(&mut self, newer: Result<Loaded, Problems>) {
        self.systemd.reloading();
        match newer {
            Ok(newer) => self.take_over(newer).await,
            Err(Problems(problems)) => {
                tracing::error!(problems = problems.join("; "), "not reloaded: the configuration has problems");
            }
        }
        self.systemd.ready("ready");
    }

    async fn take_over(&mut self, newer: Loaded) {
        let waiting = self.booted.changes(&newer).at_start;
        // What needs a restart keeps the value the service was started with.
        let newer = self.booted.reloaded(&newer);
        let changed = self.loaded.changes(&newer).reloadable;
        let foundation = Foundation::from_loaded(&newer);
        let mut failures = Vec::new();
        // The level set by hand stays until the setting changes.
        if changed.iter().any(|name| name == "log.level")
            && let Err(error) = self.switches.level.set(&foundation.log.level)
        {
            failures.push(error.to_string());
        }
        self.switches.connections.send_replace(foundation.connection_limits());
        self.switches.limits.send_replace(foundation.limits());
        if let Some(Err(error)) = self.switches.tls.as_ref().map(Tls::reload) {
            failures.push(crate::error_chain(&error));
        }
        for reloader in &self.reloaders {
            if let Err(error) = reloader(newer.clone()).await {
                failures.push(crate::error_chain(error.as_ref()));
            }
        }
        self.loaded = newer;
        tracing::info!(changed = changed.join(" "), "reloaded");
        if !waiting.is_empty() {
            tracing::warn!(settings = waiting.join(" "), "changed settings that take a restart");
        }
        for error in failures {
            tracing::error!(error, "not reloaded, what was in force before stays");
        }
    }

    async fn stop(
        self,
        asks: &mut mpsc::UnboundedReceiver<Ask>,
        listeners: Listeners,
        steps: Vec<Step>,
    ) -> Result<(), BoxError> {
        tokio::select! {
            stopped = self.stop_in_order(listeners, steps) => stopped,
            signal = second(asks) => Err(format!("{signal} came while stopping: quit at once, the next start recovers").into()),
        }
    }

    async fn stop_in_order(self, listeners: Listeners, mut steps: Vec<Step>) -> Result<(), BoxError> {
        let began = Instant::now();
        let stop = Foundation::from_loaded(&self.loaded).stop;
        let grace = stop.grace_seconds.duration();
        self.health.stopping();
        self.systemd.stopping();
        tokio::time::sleep(stop.drain_seconds.duration()).await;
        listeners.stopper.stop();
        let mut api = listeners.api;
        if tokio::time::timeout(grace, &mut api).await.is_err() {
            tracing::warn!(grace_seconds = grace.as_secs(), "requests did not finish in time and are cut off");
            // What follows takes away what they stand on.
            listeners.stopper.cut_off();
            // One that never yields cannot be.
            drop(tokio::time::timeout(CUT_OFF_TIMEOUT, api).await);
        }
        let mut failed = None;
        while let Some(Step { name, run }) = steps.pop() {
            match tokio::time::timeout(grace, run).await {
                Ok(Ok(())) => tracing::debug!(step = name, "stopped"),
                Ok(Err(error)) => {
                    tracing::error!(
                        step = name,
                        error = crate::error_chain(error.as_ref()),
                        "a step of stopping failed"
                    );
                    failed.get_or_insert(error);
                }
                Err(_) => {
                    tracing::warn!(step = name, grace_seconds = grace.as_secs(), "a step of stopping takes too long");
                }
            }
        }
        listeners.admin_stopper.stop();
        // A connection kept open by a scraper must not hold up the end.
        drop(tokio::time::timeout(Duration::from_secs(1), listeners.admin).await);
        tracing::info!(seconds = began.elapsed().as_secs_f64(), "stopped");
        failed.map_or(Ok(()), Err)
    }
}

/// The next time someone asks to stop.
async fn second(asks: &mut mpsc::UnboundedReceiver<Ask>) -> &'static str {
    loop {
        match asks.recv().await {
            Some(Ask::Stop(signal)) => return signal,
            Some(Ask::Reload) => tracing::warn!("not reloaded: the service is stopping"),
            None => future::pending().await,
        }
    }
}
