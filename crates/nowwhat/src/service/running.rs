//! From the prepared service to its end: starting, serving, and what it is asked meanwhile.

use super::boot::{Around, Boot};
use super::prepare::Prepared;
use super::reload::{ReadAgain, Running, Switches};
use super::stopping::{Served, Stopping, Wanted};
use super::{BoxError, ServiceError};
use crate::config::Problems;
use crate::health::{self, Health, register_health};
use crate::metrics;
use crate::problem::Uniform;
use crate::request::Watcher;
use crate::serve::{
    ConnectionLimits, Hangup, HostRequired, Inherited, Listener, Serving, Termination, Tls, make_room_for,
    register_certificates, stop_signal,
};
use crate::settings::Foundation;
use crate::systemd::Systemd;
use axum::Router;
use futures::future::{BoxFuture, select_all};
use futures::{FutureExt, future};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Connections of the admin listener.
const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Signals to end that come within this time are one: some supervisors signal the process, and then its group.
const ONE_SIGNAL: Duration = Duration::from_millis(50);

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
                signal = termination.next() => {
                    tokio::time::sleep(ONE_SIGNAL).await;
                    while termination.next().now_or_never().is_some() {}
                    Ask::Stop(signal)
                }
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

/// Starts, serves until asked to stop, stops.
pub(crate) async fn serve(
    place: Place<'_>,
    mut asks: mpsc::UnboundedReceiver<Ask>,
    read: ReadAgain,
    start: impl AsyncFnOnce(&mut Boot) -> Result<Router, BoxError>,
) -> Result<(), BoxError> {
    let Place { prepared, inherited, systemd } = place;
    let began = Instant::now();
    let Prepared { version, loaded, foundation, .. } = prepared;
    tracing::info!(version = version.version, commit = version.commit, env = loaded.env, "starting");

    make_room_for(foundation.http.connections_max);
    let [api, admin] = listeners(inherited, foundation).await?;
    let (api_address, admin_address) = (api.address, admin.address);
    let switches = switches(prepared)?;
    let health = Health::default();

    // The admin listener answers first: probes see how the start goes on.
    let admin = serve_admin(prepared, admin, &health, &switches);

    let mut boot = prepared.begin(health.clone(), systemd.clone(), [api_address, admin_address], switches.tls.clone());
    boot.metrics(|registry| register_own(registry, &health, &switches));
    let started = {
        let starting = std::pin::pin!(start(&mut boot));
        started_or_stopped(starting, &mut asks).await
    };
    let stop = &foundation.stop;
    let mut stopping = Stopping {
        health: health.clone(),
        systemd: systemd.clone(),
        api: None,
        steps: std::mem::take(&mut boot.steps),
        admin,
        drain: stop.drain_seconds.duration(),
        grace: stop.grace_seconds.duration(),
    };
    let routes = match started {
        Ok(Some(routes)) => routes,
        // What the start had opened until then is closed.
        unstarted => {
            let wanted = if unstarted.is_ok() { Wanted::Asked } else { Wanted::Unasked };
            return unstarted.and(stopping.run(&mut asks, wanted).await);
        }
    };
    let routes = Routes::of(routes, &mut boot);
    stopping.api = Some(serve_api(prepared, api, routes, &switches));

    health.started();
    let (address, admin_address) = (api_address.to_string(), admin_address.to_string());
    tracing::info!(address, admin_address, seconds = began.elapsed().as_secs_f64(), "ready");
    systemd.ready("ready");
    prepared.greet(boot.greeting.take());
    let (signs, loaded) = (systemd.clone(), loaded.clone());
    let (reloaders, hanging) = (boot.reloaders, None);
    let mut running = Running { prepared, loaded, switches, systemd, reloaders, read, hanging };
    let to_the_end = async {
        let ended = running.until_asked(&mut asks, boot.endings).await;
        let stop = Foundation::from_loaded(&running.loaded).stop;
        (stopping.drain, stopping.grace) = (stop.drain_seconds.duration(), stop.grace_seconds.duration());
        match ended {
            Ended::Asked => stopping.run(&mut asks, Wanted::Asked).await,
            Ended::Failed(reason) => stopping.run(&mut asks, Wanted::Unasked).await.and(Err(reason.into())),
        }
    };
    tokio::select! {
        done = to_the_end => done,
        never = signs_of_life(&signs) => match never {},
    }
}

/// What every service tells of itself.
fn register_own(registry: &mut metrics::Registry, health: &Health, switches: &Switches) {
    metrics::register_runtime(registry, &tokio::runtime::Handle::current());
    register_health(registry, health.clone());
    register_certificates(registry, switches.tls.clone());
}

fn serve_admin(prepared: &Prepared, listener: Listener, health: &Health, switches: &Switches) -> Served {
    let (stopper, stop) = stop_signal();
    let limits = prepared.foundation.connection_limits();
    let limits = watch::channel(ConnectionLimits { connections_max: ADMIN_CONNECTIONS_MAX, ..limits }).1;
    let serving = Serving { limits, metrics: prepared.connection_metrics(), tls: None, stop };
    let routes =
        prepared.admin_routes(health.clone()).layer(HostRequired).layer(Uniform::new(switches.limits.subscribe()));
    Served { task: tokio::spawn(listener.serve(routes, serving)), stopper }
}

/// The routes of the public listener, what goes around all of them, and who is told of their requests.
struct Routes {
    inner: Router,
    around: Vec<Around>,
    watchers: Vec<Watcher>,
}

impl Routes {
    /// Those of the service with those that every service has.
    fn of(inner: Router, boot: &mut Boot) -> Self {
        let inner = inner.merge(health::public_routes(boot.health.clone()));
        Self { inner, around: std::mem::take(&mut boot.around), watchers: std::mem::take(&mut boot.watchers) }
    }
}

fn serve_api(prepared: &Prepared, listener: Listener, routes: Routes, switches: &Switches) -> Served {
    let (stopper, stop) = stop_signal();
    let observed = prepared.observe(switches.limits.subscribe(), routes.watchers).router(routes.inner);
    let routes = routes.around.into_iter().fold(observed, |routes, around| around(routes));
    let limits = switches.connections.subscribe();
    let serving = Serving { limits, metrics: prepared.connection_metrics(), tls: switches.tls.clone(), stop };
    Served { task: tokio::spawn(listener.serve(routes, serving)), stopper }
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
    let problems = in_clear(foundation, api.address, admin.address);
    if !problems.is_empty() {
        return Err(ServiceError::Configuration(Problems(problems)).into());
    }
    Ok([api, admin])
}

/// What is wrong with the addresses of sockets that systemd passed, which no configuration says: a sentence each.
fn in_clear(foundation: &Foundation, api: SocketAddr, admin: SocketAddr) -> Vec<String> {
    let said = foundation.in_clear(api, admin).into_iter().map(|(name, address)| {
        format!(
            "the socket {name} of systemd listens on {address}: beyond loopback tokens would travel in clear; give it an address of 127.0.0.1, or set \
             http.insecure = true when a proxy in front ends TLS"
        )
    });
    said.collect()
}

async fn listener(inherited: &mut Inherited, name: &str, address: SocketAddr) -> Result<Listener, BoxError> {
    match inherited.take(name)? {
        Some(listener) => {
            tracing::info!(name, address = listener.address.to_string(), "listening on a socket of systemd");
            Ok(listener)
        }
        None => Ok(Listener::bind(address).await?),
    }
}

fn switches(prepared: &Prepared) -> Result<Switches, BoxError> {
    let http = &prepared.foundation.http;
    let tls = match (&http.tls_certificate, &http.tls_key) {
        (Some(certificate), Some(key)) => Some(match http.tls_clients() {
            Some(clients) => Tls::load_with_clients(certificate, key, clients)?,
            None => Tls::load(certificate, key)?,
        }),
        _ => None,
    };
    let connections = watch::channel(prepared.foundation.connection_limits()).0;
    let limits = watch::channel(prepared.foundation.limits()).0;
    Ok(Switches { connections, limits, tls })
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

impl Running<'_> {
    async fn until_asked(
        &mut self,
        asks: &mut mpsc::UnboundedReceiver<Ask>,
        endings: Vec<BoxFuture<'static, String>>,
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
                let mut reloading = std::pin::pin!(self.reload());
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
}
