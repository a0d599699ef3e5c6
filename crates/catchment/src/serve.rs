//! `catchment serve`: boot is a list, and stopping is the same list backwards.

use crate::data_dir::{Addresses, DataDir};
use crate::settings::Settings;
use crate::{Failure, ServeArgs, config, memory};
use anyhow::{Context, anyhow};
use engine::{Engine, EngineMetrics, Started};
use lake::LakeMetrics;
use nowwhat::config::Loaded;
use nowwhat::health::{Health, Weight};
use nowwhat::metrics;
use nowwhat::request::{Causes, RequestMetrics, observed};
use nowwhat::serve::{ConnectionLimits, ConnectionMetrics, Listener, Stopper, Termination, stop_signal};
use nowwhat::telemetry::{Format, LogMetrics, Telemetry};
use nowwhat::{Environment, Version};
use query::{Queries, QueryMetrics};
use registry::{Registry, RegistryMetrics, Token};
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const VERSION: Version = nowwhat::version!();
/// Crates that log at the configured level; all others log warnings only.
const QUIET: [&str; 8] =
    ["deltalake_core", "delta_kernel", "buoyant_kernel", "datafusion", "sqlx", "hyper", "object_store", "h2"];
/// How often last-seen times reach the registry.
const SEEN_FLUSH: Duration = Duration::from_secs(5);

/// Runs until it is asked to stop, or has to.
pub(crate) fn run(args: &ServeArgs, environment: Environment) -> Result<(), Failure> {
    let mut flags = Vec::new();
    flags.extend(args.data_dir.as_ref().map(|d| ("data.dir", d.display().to_string(), "--data-dir")));
    flags.extend(args.listen.as_ref().map(|a| ("http.listen", a.clone(), "--listen")));
    flags.extend(args.admin_listen.as_ref().map(|a| ("admin.listen", a.clone(), "--admin-listen")));
    let loaded = config::read(&args.settings, flags, environment)?;
    let settings = Settings::from_loaded(&loaded);
    let format = Format::from_name(&settings.log.format).expect("checked when it was read");
    let (metrics_registry, metrics) = metrics_registry();
    let telemetry = Telemetry::start(&settings.log.level, format, &QUIET, metrics.log.clone()).context("logging")?;
    for name in &loaded.ignored {
        tracing::debug!(name, "variable is no setting, ignored");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("worker").enable_all().build();
    let runtime = runtime.context("cannot start threads")?;
    let done = runtime.block_on(async {
        let mut termination = Termination::watch().context("cannot watch signals")?;
        let started = tokio::select! {
            started = Box::pin(start(&loaded, settings, (metrics_registry, metrics))) => started?,
            signal = termination.next() => {
                tracing::info!(signal, "stopped while starting: the next start recovers");
                return Ok(());
            }
        };
        serve(started, &telemetry, termination).await
    });
    if let Err(error) = &done {
        tracing::error!(error = nowwhat::error_chain(error.as_ref()), "stopped");
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(telemetry);
    Ok(done?)
}

/// The metrics of every part.
pub(crate) struct Metrics {
    log: LogMetrics,
    requests: RequestMetrics,
    connections: ConnectionMetrics,
    engine: EngineMetrics,
    lake: LakeMetrics,
    queries: QueryMetrics,
    registry: RegistryMetrics,
}

/// All metrics of the program, registered.
pub(crate) fn metrics_registry() -> (metrics::Registry, Metrics) {
    let mut registry = metrics::registry(VERSION);
    let r = &mut registry;
    let metrics = Metrics {
        log: LogMetrics::register(r),
        requests: RequestMetrics::register(r),
        connections: ConnectionMetrics::register(r),
        engine: EngineMetrics::register(r),
        lake: LakeMetrics::register(r),
        queries: QueryMetrics::register(r),
        registry: RegistryMetrics::register(r),
    };
    (registry, metrics)
}

/// Everything that runs.
struct Service {
    settings: Settings,
    dir: DataDir,
    registry: Registry,
    engine: Engine,
    health: Health,
    listeners: Vec<JoinHandle<()>>,
    stopper: Stopper,
    admin_stopper: Stopper,
    seen: JoinHandle<()>,
}

async fn serve(
    (service, greeting): (Service, String),
    telemetry: &Telemetry,
    mut termination: Termination,
) -> anyhow::Result<()> {
    // The greeting is for people, and the last they see; a closed standard output is none of a service's business.
    telemetry.flush();
    drop(std::io::stdout().write_all(greeting.as_bytes()));
    let status = service.engine.status().clone();
    let signal = tokio::select! {
        signal = termination.next() => Some(signal),
        () = status.poisoning() => None,
    };
    match signal {
        Some(signal) => tracing::info!(signal, "stopping"),
        None => tracing::error!(
            reason = status.poisoned(),
            "the wal failed and takes nothing any more: stopping, the next start recovers"
        ),
    }
    tokio::select! {
        stopped = service.stop() => stopped?,
        signal = termination.next() => {
            return Err(anyhow!("{signal} came while stopping: quit at once, the next start recovers"));
        }
    }
    match status.poisoned() {
        None => Ok(()),
        Some(reason) => Err(anyhow!("the wal failed: {reason}")),
    }
}

async fn start(
    loaded: &Loaded,
    settings: Settings,
    (metrics_registry, metrics): (metrics::Registry, Metrics),
) -> anyhow::Result<(Service, String)> {
    let began = Instant::now();
    tracing::info!(version = VERSION.version, commit = VERSION.commit, env = loaded.env, "starting");
    let dir = DataDir::create(&settings.data.dir)?;
    let health = Health::default();
    let (stopper, stop) = stop_signal();
    let (admin_stopper, admin_stop) = stop_signal();

    let api = Listener::bind(settings.http.listen).await?;
    let admin = Listener::bind(settings.admin.listen).await?;
    let addresses = Addresses { api: api.address, admin: admin.address };
    let admin_routes = nowwhat::health::admin_routes(Arc::new(metrics_registry), health.clone(), VERSION);
    let limits = ConnectionLimits {
        connections_max: settings.http.connections_max,
        head_timeout: settings.http.head_seconds.duration(),
    };
    // The admin listener answers first: probes see how the start goes on.
    let admin_limits = ConnectionLimits { connections_max: 64, ..limits };
    let admin = tokio::spawn(admin.serve(admin_routes, admin_limits, metrics.connections.clone(), admin_stop));

    let registry = Registry::open(&dir.registry_url(), metrics.registry).await.context("registry")?;
    let token_place = ensure_admin(&registry, &dir, &settings).await?;
    let (engine, started) = Engine::start(engine_options(&dir, &settings), metrics.engine, metrics.lake).await?;
    log_recovery(&started);
    watch_engine(&health, &engine);
    let queries = Queries::new(query_options(&dir, &settings), metrics.queries).context("queries")?;
    let app = server::App::new(engine.clone(), queries, registry.clone(), server_limits(&settings));
    let causes = if loaded.is_dev() { Causes::Shown } else { Causes::Hidden };
    let routes = server::routes(app).merge(nowwhat::health::public_routes(health.clone()));
    let routes = observed(routes, metrics.requests, causes);
    let api = tokio::spawn(api.serve(routes, limits, metrics.connections, stop));
    let seen = tokio::spawn(flush_seen(registry.clone()));

    if let Err(error) = dir.write_addresses(&addresses) {
        // On a full disk there is still much to read.
        let error = nowwhat::error_chain(error.as_ref());
        tracing::error!(error, "addresses not written: commands need --url to find this collector");
    }
    health.started();
    let bound = memory::bound(&settings);
    for part in memory::parts(&settings) {
        tracing::debug!(bytes = part.bytes, "memory bound: {}", part.what);
    }
    let seconds = began.elapsed().as_secs_f64();
    let (api_address, admin_address) = (addresses.api.to_string(), addresses.admin.to_string());
    tracing::info!(api = api_address, admin = admin_address, memory_bound_bytes = bound.0, seconds, "ready");
    let greeting = greeting(&addresses, &token_place, &bound.to_string());
    let listeners = vec![api, admin];
    let service = Service { settings, dir, registry, engine, health, listeners, stopper, admin_stopper, seen };
    Ok((service, greeting))
}

impl Service {
    async fn stop(mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        self.health.stopping();
        self.dir.remove_addresses();
        tokio::time::sleep(self.settings.stop.drain_seconds.duration()).await;
        self.stopper.stop();
        let grace = self.settings.stop.grace_seconds.duration();
        let admin = self.listeners.pop();
        for listener in self.listeners.drain(..) {
            if tokio::time::timeout(grace, listener).await.is_err() {
                tracing::warn!(grace_seconds = grace.as_secs(), "requests did not finish in time and are cut off");
            }
        }
        if self.engine.status().poisoned().is_none() {
            // What is not sealed in time stays in the wal, and is live again after the next start.
            match tokio::time::timeout(grace, self.engine.seal()).await {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => tracing::warn!(reason, "live rows stay in the wal"),
                Err(_) => tracing::warn!("live rows stay in the wal: sealing takes too long"),
            }
        }
        let closed = self.engine.close().await;
        self.seen.abort();
        self.registry.close().await.context("registry")?;
        self.admin_stopper.stop();
        if let Some(admin) = admin {
            // A connection kept open by a scraper must not hold up the end.
            drop(tokio::time::timeout(Duration::from_secs(1), admin).await);
        }
        tracing::info!(seconds = began.elapsed().as_secs_f64(), "stopped");
        closed.context("the wal could not be ended")
    }
}

/// Makes the configured admin token known, or makes one. Returns where it lies.
async fn ensure_admin(registry: &Registry, dir: &DataDir, settings: &Settings) -> anyhow::Result<String> {
    if let Some(token) = &settings.auth.admin_token {
        registry.ensure_admin(token.reveal()).await.context("auth.admin_token")?;
        return Ok("the one configured as auth.admin_token".to_owned());
    }
    let path = dir.admin_token_path();
    let token = match DataDir::token(&path)? {
        Some(token) => token,
        None => {
            let token = Token::random().context("cannot make a token")?.reveal().to_owned();
            DataDir::keep_token(&path, &token)?;
            tracing::info!(path = path.display().to_string(), "admin token made");
            token
        }
    };
    registry.ensure_admin(&token).await.with_context(|| format!("admin token in {}", path.display()))?;
    Ok(path.display().to_string())
}

fn engine_options(dir: &DataDir, settings: &Settings) -> engine::Options {
    let group_bytes_max = settings.ingest.group_bytes_max.0;
    // Text, and for each event its sensor, id and times.
    let columns_bytes_max = settings.http.body_bytes_max.0 * 2 + settings.events.batch_events_max as u64 * 256;
    engine::Options {
        wal_dir: dir.wal(),
        lake_dir: dir.lake(),
        segment_bytes: settings.ingest.segment_bytes.0,
        in_flight_bytes_max: settings.ingest.in_flight_bytes_max.0,
        group_bytes_max,
        payload_bytes_max: (columns_bytes_max + group_bytes_max) as usize,
        live_bytes_max: settings.seal.live_bytes_max.0,
        seal_bytes: settings.seal.bytes.0,
        seal_age_seconds: settings.seal.age_seconds.0,
        room_wait_seconds: settings.ingest.room_wait_seconds.0,
        window_keys_max: settings.window.keys_max,
        group_keys_max: memory::group_keys_max(settings),
        window_seconds: settings.window.seconds.0,
        schema: server::events_schema(),
    }
}

fn query_options(dir: &DataDir, settings: &Settings) -> query::Options {
    query::Options {
        lake_dir: dir.lake(),
        spill_dir: dir.spill(),
        threads: settings.query.threads,
        memory_bytes_max: settings.query.memory_bytes_max.0,
        spill_bytes_max: settings.query.spill_bytes_max.0,
        concurrent_max: settings.query.concurrent_max,
        wait_seconds: settings.query.wait_seconds.0,
        timeout_seconds: settings.query.timeout_seconds.0,
        timeout_seconds_max: settings.query.timeout_seconds_max.0,
        rows_max: settings.query.rows_max,
    }
}

fn server_limits(settings: &Settings) -> server::Limits {
    server::Limits {
        body_bytes_max: settings.http.body_bytes_max.0,
        body_stall_seconds: settings.http.body_stall_seconds.0,
        event: server::EventLimits {
            event_bytes_max: settings.events.event_bytes_max.0 as usize,
            nesting_max: settings.events.nesting_max,
            batch_events_max: settings.events.batch_events_max,
            rejected_listed_max: 1000,
        },
        query_bytes_max: settings.query.bytes_max.0,
    }
}

fn log_recovery(started: &Started) {
    if let Some(torn_tail) = &started.torn_tail {
        tracing::warn!(torn_tail, "torn tail of the wal cut off");
    }
    tracing::info!(
        recovered_events = started.recovered_events,
        last_position = started.last_position,
        sealed_position = started.sealed_position,
        seconds = started.seconds,
        "wal and lake opened"
    );
}

fn watch_engine(health: &Health, engine: &Engine) {
    let (wal, seal, storage) = (engine.status().clone(), engine.status().clone(), engine.status().clone());
    health.check("wal", Weight::Readiness, move || wal.poisoned());
    // A warning: with nobody sending, nobody would find out that there is room again.
    health.check("storage", Weight::Warning, move || storage.storage_full());
    health.check("seal", Weight::Warning, move || seal.seal_failure());
}

async fn flush_seen(registry: Registry) {
    loop {
        tokio::time::sleep(SEEN_FLUSH).await;
        if let Err(error) = registry.flush().await {
            tracing::warn!(%error, "last-seen times not stored, will be tried again");
        }
    }
}

/// What stands on the terminal when all is ready; `Try next` runs as pasted where `make run` was.
fn greeting(addresses: &Addresses, token_place: &str, bound: &str) -> String {
    format!(
        "\n  API     http://{}\n  admin   http://{}/metrics\n  token   {token_place}\n  memory  at most {bound}\n\n\
         Try next, in another terminal:\n\n  \
         ./catchment sensor add roof\n  \
         echo '{{\"type\":\"reading\",\"temperature\":21.5}}' | ./catchment send --sensor roof\n  \
         ./catchment query \"SELECT time, sensor, data->>'temperature' AS temperature FROM events ORDER BY position DESC LIMIT 5\"\n\n",
        addresses.api, addresses.admin
    )
}
