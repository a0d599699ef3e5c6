//! `catchment serve`: what the collector opens at the start, and closes at the end.

use crate::data_dir::{Addresses, DataDir};
use crate::room::RoomMetrics;
use crate::settings::{Audit, FieldPath, Settings};
use crate::{ServeArgs, config, memory};
use anyhow::Context;
use axum::Router;
use engine::{Engine, EngineMetrics, Started, Starting};
use lake::LakeMetrics;
use nowwhat::config::{ByteSize, Loaded, Sources};
use nowwhat::health::{Health, Weight};
use nowwhat::serve::{ClientCertificates, Tls};
use nowwhat::{Boot, BoxError, Environment, Foundation, Progress};
use query::{Queries, QueryMetrics};
use registry::{AuditBounds, Registry, RegistryMetrics, Token};
use rejected::{Rejected, RejectedMetrics};
use server::{
    About, App, Backups, Erasures, Overview, Parts, Quotas, RequestLog, RequestLogLimits, SensorMetrics, ServerMetrics,
};
use std::future;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often last-seen times reach the registry.
const SEEN_FLUSH: Duration = Duration::from_secs(5);

/// Bytes of requests that become events in one batch.
const COLLECTED_AT_ONCE_BYTES: u64 = 256 << 10;

/// How often what is too old or too much is let go: rejected events, the audit, ended tokens.
const EXPIRE: Duration = Duration::from_secs(60);

/// Runs until it is asked to stop, or has to.
pub(crate) fn run(args: &ServeArgs, environment: Environment) -> anyhow::Result<()> {
    let mut flags = Vec::new();
    flags.extend(config::data_dir_flag(args.data_dir.as_deref())?);
    flags.extend(args.listen.as_ref().map(|a| ("http.listen", a.clone(), "--listen")));
    flags.extend(args.admin_listen.as_ref().map(|a| ("admin.listen", a.clone(), "--admin-listen")));
    let service = config::service();
    let sources = Sources { flags, ..args.settings.sources(&service) };
    Ok(service.run(sources, environment, async |boot| start(boot).await.map_err(BoxError::from))?)
}

/// The metrics of the collector's parts.
pub(crate) struct Metrics {
    engine: EngineMetrics,
    lake: LakeMetrics,
    queries: QueryMetrics,
    registry: RegistryMetrics,
    rejected: RejectedMetrics,
    server: ServerMetrics,
    sensors: SensorMetrics,
    room: RoomMetrics,
}

impl Metrics {
    /// All of them, registered.
    pub(crate) fn register(r: &mut nowwhat::metrics::Registry) -> Self {
        Self {
            engine: EngineMetrics::register(r),
            lake: LakeMetrics::register(r),
            queries: QueryMetrics::register(r),
            registry: RegistryMetrics::register(r),
            rejected: RejectedMetrics::register(r),
            server: ServerMetrics::register(r),
            sensors: SensorMetrics::register(r),
            room: RoomMetrics::register(r),
        }
    }
}

/// Whether there is a registry from before. Beside events it has to have something: a new one in its place would let nobody in, without a word.
async fn has_registry(dir: &DataDir) -> anyhow::Result<bool> {
    let is_there = dir.has_registry();
    if is_there && dir.has_events() {
        Registry::check_file(&dir.registry_path()).await.context("registry")?;
    }
    Ok(is_there)
}

/// Opens everything; each part says how it is closed.
async fn start(boot: &mut Boot) -> anyhow::Result<Router> {
    let (settings, foundation) = (Settings::from_loaded(&boot.loaded), boot.foundation.clone());
    let metrics = boot.metrics(Metrics::register);
    let dir = DataDir::create(&settings.data.dir)?;
    dir.is_whole()?;
    dir.is_ours()?;
    let bound = memory::bound(&settings, &boot.foundation);
    metrics.room.memory_bound(bound);
    boot.task("room on the disk", metrics.room.follow(dir.clone()));

    let options =
        registry::Options { url: dir.registry_url(), failures_per_minute_max: settings.auth.failures_per_minute_max };
    let is_new = !has_registry(&dir).await?;
    let registry = Registry::open(&options, metrics.registry).await.context("registry")?;
    let closing = registry.clone();
    boot.on_stop("registry", async move { Ok(closing.close().await?) });
    boot.task("last-seen times", flush_seen(registry.clone()));
    boot.task("age of the audit", trim(registry.clone(), audit_bounds(&settings)));
    let token_place = ensure_admin(&registry, &dir, &settings).await?;
    reload_token(boot, &registry, &dir);

    let rejected = Rejected::open(rejected_options(&dir, &settings), metrics.rejected).await?;
    watch_rejected(&boot.health, &rejected);
    let closing = rejected.clone();
    boot.on_stop("rejected", async move {
        closing.close().await;
        Ok(())
    });
    boot.task("age of rejected events", expire(rejected.clone()));

    let (options, told) = (engine_options(&dir, &settings, &foundation), how_far(boot.progress()));
    let (engine, started) = Engine::start_telling(options, metrics.engine, metrics.lake, told).await?;
    log_recovery(&started);
    if is_new && started.last_position > 0 {
        tracing::warn!(
            "registry.sqlite was missing beside events and is made anew: sensors, tokens and audit are gone; stop, and bring it back from a \
             backup if there is one"
        );
    }
    watch_engine(&boot.health, &engine);
    boot.ends_when(poisoned(engine.clone()));
    let seal_timeout = seal_timeout(boot);
    boot.on_stop("engine", close(engine.clone(), seal_timeout));

    collect_requests(boot, &engine, &settings, &metrics.server);
    let queries = Queries::new(query_options(&dir, &settings), rejected.clone(), metrics.queries).context("queries")?;
    let quotas = Quotas::new(default_quota(&settings));
    reload_quotas(boot, &quotas);
    let backups = Backups::new(dir.snapshot(), engine.clone(), (registry.clone(), rejected.clone()), &metrics.server)?;
    let erasures = Erasures::new(engine.clone(), registry.clone(), rejected.clone(), backups.clone(), &metrics.server);
    let erasures = erasures.await.context("rejected events")?;
    boot.task("erasures", erasures.clone().run());
    boot.task("sensors in the metrics", metrics.sensors.follow(registry.clone(), rejected.clone(), quotas.clone()));
    let (limits, metrics) = (server_limits(&settings, &foundation), metrics.server);
    let (health, overview) = (boot.health.clone(), overview(boot));
    let parts =
        Parts { engine, queries, registry, rejected, erasures, backups, quotas, health, overview, metrics, limits };
    let app = App::new(parts);
    let addresses = publish(boot, &dir);

    log_bound(bound, &memory::parts(&settings, &foundation));
    boot.greeting(greeting(&addresses, &token_place, &bound.to_string()));
    let cors = server::Cors::of(&settings.cors.allow_origins);
    if let Some(cors) = cors.clone() {
        boot.around(|routes| cors.around(routes));
    }
    Ok(server::routes(app, cors))
}

/// The collector's own numbers, for the page.
fn overview(boot: &mut Boot) -> Overview {
    let about = About { version: config::VERSION, environment: boot.loaded.env.clone() };
    let overview = Overview::new(about, boot.registry(), boot.health.clone());
    boot.task("overview", overview.clone().follow());
    overview
}

/// Requests become events, when they are to be collected: those that wait are stored before the engine closes.
fn collect_requests(boot: &mut Boot, engine: &Engine, settings: &Settings, metrics: &ServerMetrics) {
    if !settings.request_log.collect {
        return;
    }
    let limits = RequestLogLimits {
        waiting_bytes_max: settings.request_log.waiting_bytes_max.0,
        // As columns they are larger, and have to fit into one group.
        batch_bytes: (settings.ingest.group_bytes_max.0 / 2).min(COLLECTED_AT_ONCE_BYTES),
    };
    let (log, storing) = RequestLog::new(engine.clone(), limits, metrics.clone());
    boot.task("request log", storing.run());
    let closing = log.clone();
    boot.on_stop("requests that wait to be collected", async move {
        closing.close().await;
        Ok(())
    });
    boot.on_request(move |request| log.take(request));
}

/// Commands find the collector by a file in the data folder, and know it by the certificate there: at SIGHUP the newer one.
fn publish(boot: &mut Boot, dir: &DataDir) -> Addresses {
    let (http, tls) = (&boot.foundation.http, boot.tls.clone());
    let addresses = Addresses {
        api: boot.address,
        admin: boot.admin_address,
        tls: tls.is_some(),
        certificate: tls.as_ref().map(Tls::certificate),
        client_certificates_required: tls.is_some() && http.tls_client_certificates == ClientCertificates::Required,
    };
    let published = dir.publish(addresses.clone()).inspect_err(|error| {
        // On a full disk there is still much to read.
        let error = nowwhat::error_chain(error.as_ref());
        tracing::error!(error, "addresses not written: commands need --url to find this collector");
    });
    let published = Arc::new(Mutex::new(published.ok()));
    if let Some(tls) = tls {
        let published = published.clone();
        boot.on_reload(move |_| {
            let mut published = published.lock().expect("nobody panics while holding it");
            let renewed = published.as_mut().map_or(Ok(()), |published| published.renew(tls.certificate()));
            future::ready(renewed.map_err(BoxError::from))
        });
    }
    boot.on_stop("addresses", async move {
        drop(published.lock().expect("nobody panics while holding it").take());
        Ok(())
    });
    addresses
}

/// Returns when the wal failed: then nothing is taken any more.
async fn poisoned(engine: Engine) -> String {
    let status = engine.status().clone();
    status.poisoning().await;
    format!(
        "the wal failed and takes nothing any more, the next start recovers: {}",
        status.poisoned().unwrap_or_default()
    )
}

/// Seals what is live and ends the wal. What is not sealed in time stays in the wal, and is live again after the next start.
async fn close(engine: Engine, seal_timeout: watch::Receiver<Duration>) -> Result<(), BoxError> {
    if engine.status().poisoned().is_none() {
        let within = *seal_timeout.borrow();
        match tokio::time::timeout(within, engine.seal()).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => tracing::warn!(reason, "live rows stay in the wal"),
            Err(_) => tracing::warn!("live rows stay in the wal: sealing takes too long"),
        }
    }
    Ok(engine.close().await.map_err(|e| anyhow::anyhow!(e).context("the wal could not be ended"))?)
}

/// How long sealing may take at the stop, as long as the settings in force say: half of the grace, the other half is for ending the wal.
fn seal_timeout(boot: &mut Boot) -> watch::Receiver<Duration> {
    let half = |foundation: &Foundation| foundation.stop.grace_seconds.duration() / 2;
    let (tell, timeout) = watch::channel(half(&boot.foundation));
    boot.on_reload(move |loaded| {
        tell.send_replace(half(&Foundation::from_loaded(&loaded)));
        async { Ok(()) }
    });
    timeout
}

/// At SIGHUP a changed admin token takes the place of the one before; when none is configured any more, it is again the one beside the data.
fn reload_token(boot: &mut Boot, registry: &Registry, dir: &DataDir) {
    let (registry, dir) = (registry.clone(), dir.clone());
    boot.on_reload(move |loaded: Loaded| {
        let (registry, dir) = (registry.clone(), dir.clone());
        async move {
            ensure_admin(&registry, &dir, &Settings::from_loaded(&loaded)).await?;
            Ok(())
        }
    });
}

/// At SIGHUP changed quotas hold at once for all sensors that have none of their own.
fn reload_quotas(boot: &mut Boot, quotas: &Quotas) {
    let quotas = quotas.clone();
    boot.on_reload(move |loaded: Loaded| {
        quotas.set_default(default_quota(&Settings::from_loaded(&loaded)));
        async { Ok(()) }
    });
}

fn default_quota(settings: &Settings) -> server::Quota {
    server::Quota {
        events_per_second: settings.quotas.events_per_second,
        bytes_per_second: settings.quotas.bytes_per_second.map(|bytes| bytes.0),
        burst_seconds: Some(settings.quotas.burst_seconds.0),
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

fn engine_options(dir: &DataDir, settings: &Settings, foundation: &Foundation) -> engine::Options {
    let group_bytes_max = settings.ingest.group_bytes_max.0;
    // Text, and for each event its sensor, id and times.
    let columns_bytes_max = foundation.http.body_bytes_max.0 * 2 + settings.events.batch_events_max as u64 * 256;
    engine::Options {
        wal_dir: dir.wal(),
        lake_dir: dir.lake(),
        free_bytes_min: settings.data.free_bytes_min.0,
        segment_bytes: settings.ingest.segment_bytes.0,
        in_flight_bytes_max: settings.ingest.in_flight_bytes_max.0,
        group_bytes_max,
        payload_bytes_max: (columns_bytes_max + group_bytes_max) as usize + engine::ANSWER_BYTES_MAX,
        live_bytes_max: settings.seal.live_bytes_max.0,
        seal_bytes: settings.seal.bytes.0,
        seal_age_seconds: settings.seal.age_seconds.0,
        fields: field_rules(settings),
        retention: engine::Retention {
            age_seconds: settings.retention.age_seconds.map(|age| age.0),
            bytes_max: settings.retention.bytes_max.map(|bytes| bytes.0),
        },
        clock: engine::Clock::default(),
        room_wait_seconds: settings.ingest.room_wait_seconds.0,
        window_keys_max: settings.window.keys_max,
        group_keys_max: memory::group_keys_max(settings),
        window_seconds: settings.window.seconds.0,
        answers_bytes_max: settings.window.answers_bytes_max.0,
        schema: server::events_schema(),
    }
}

/// Which fields of `data` get a column.
pub(crate) fn field_rules(settings: &Settings) -> engine::FieldRules {
    engine::FieldRules {
        columns_max: settings.fields.columns_max,
        allow: settings.fields.allow.iter().map(FieldPath::text).collect(),
        deny: settings.fields.deny.iter().map(FieldPath::text).collect(),
    }
}

fn rejected_options(dir: &DataDir, settings: &Settings) -> rejected::Options {
    rejected::Options {
        path: dir.rejected(),
        bytes_max: settings.rejected.bytes_max.0,
        event_bytes_max: settings.rejected.event_bytes_max.0 as usize,
        age_max: Duration::from_secs(settings.rejected.age_seconds.0),
    }
}

fn audit_bounds(settings: &Settings) -> AuditBounds {
    let Audit { entries_max, age_seconds } = &settings.audit;
    AuditBounds { entries_max: *entries_max, age_max: age_seconds.duration() }
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

fn server_limits(settings: &Settings, foundation: &Foundation) -> server::Limits {
    server::Limits {
        body_bytes_max: foundation.http.body_bytes_max.0,
        event: server::EventLimits {
            event_bytes_max: settings.events.event_bytes_max.0 as usize,
            nesting_max: settings.events.nesting_max,
            batch_events_max: settings.events.batch_events_max,
            rejected_kept_max: 10_000,
        },
        query_bytes_max: settings.query.bytes_max.0,
        kept_seconds: settings.retention.age_seconds.map(|age| age.0),
    }
}

fn log_bound(bound: ByteSize, parts: &[memory::Part]) {
    for part in parts {
        tracing::debug!(bytes = part.bytes, "memory bound: {}", part.what);
    }
    tracing::info!(memory_bound_bytes = bound.0, "memory bound");
}

/// Tells how far reading the wal is: share, bytes, events, and how many a second since that began.
fn how_far(progress: Progress) -> impl Fn(Starting) + Send + Sync {
    let began = [OnceLock::new(), OnceLock::new()];
    move |starting| {
        let (does, began, read) = match starting {
            Starting::Checks(read) => ("checks the wal", &began[0], read),
            Starting::Replays(read) => ("replays the wal", &began[1], read),
        };
        let seconds = began.get_or_init(Instant::now).elapsed().as_secs_f64().max(0.001);
        let (bytes, events, megabytes) = (read.bytes as f64, read.events, read.of_bytes as f64 / 1e6);
        progress.tell(format_args!(
            "{does}: {:.0} % of {megabytes:.0} MB, {events} events, {:.0} MB and {:.0} events a second",
            100.0 * bytes / read.of_bytes.max(1) as f64,
            bytes / 1e6 / seconds,
            events as f64 / seconds,
        ));
    }
}

fn log_recovery(started: &Started) {
    if let Some(torn_tail) = &started.torn_tail {
        tracing::warn!(torn_tail, "torn tail of the wal cut off");
    }
    for (first, last) in &started.lost {
        tracing::warn!(first, last, "the wal has no events of these positions: they were lost, as a repair found");
    }
    tracing::info!(
        recovered_events = started.recovered_events,
        sealed_events = started.sealed_events,
        last_position = started.last_position,
        sealed_position = started.sealed_position,
        seconds = started.seconds,
        "wal and lake opened"
    );
}

fn watch_engine(health: &Health, engine: &Engine) {
    let (wal, seal, storage) = (engine.status().clone(), engine.status().clone(), engine.clone());
    let lake = engine.clone();
    health.check("lake", Weight::Readiness, move || lake.lake_gone());
    health.check("wal", Weight::Readiness, move || wal.poisoned());
    // A warning: with nobody sending, nobody would find out that there is room again.
    health.check("storage", Weight::Warning, move || storage.storage_full());
    health.check("seal", Weight::Warning, move || seal.seal_failure());
}

fn watch_rejected(health: &Health, rejected: &Rejected) {
    if let Some(trouble) = rejected.trouble() {
        tracing::error!(trouble, "the table of rejected events begins anew");
    }
    let rejected = rejected.clone();
    // A warning: events are taken without it, but for batches with rejected ones.
    health.check("rejected", Weight::Warning, move || rejected.trouble());
}

/// Lets rejected events go that are too old.
async fn expire(rejected: Rejected) {
    loop {
        if let Err(error) = rejected.expire().await {
            let error = nowwhat::error_chain(&error);
            tracing::warn!(error, "old rejected events not removed, will be tried again");
        }
        tokio::time::sleep(EXPIRE).await;
    }
}

/// Lets entries of the audit and ended tokens go.
async fn trim(registry: Registry, bounds: AuditBounds) {
    loop {
        if let Err(error) = registry.trim(&bounds).await {
            let error = nowwhat::error_chain(&error);
            tracing::warn!(error, "audit and ended tokens not trimmed, will be tried again");
        }
        tokio::time::sleep(EXPIRE).await;
    }
}

async fn flush_seen(registry: Registry) {
    loop {
        tokio::time::sleep(SEEN_FLUSH).await;
        if let Err(error) = registry.flush().await {
            let error = nowwhat::error_chain(&error);
            tracing::warn!(error, "last-seen times not stored, will be tried again");
        }
    }
}

/// What stands on the terminal when all is ready; `Try next` runs as pasted where `make run` was.
fn greeting(addresses: &Addresses, token_place: &str, bound: &str) -> String {
    format!(
        "\n  API     {}\n  page    {}/ (a link that signs in: ./catchment login)\n  admin   {}/metrics\n  token   {token_place}\n  memory  at most {bound}\n\n\
         Try next, in another terminal:\n\n  \
         ./catchment sensor add roof\n  \
         echo '{{\"type\":\"reading\",\"temperature\":21.5}}' | ./catchment send --sensor roof\n  \
         ./catchment query \"SELECT time, sensor, data.temperature FROM events ORDER BY position DESC LIMIT 5\"\n\n",
        addresses.url(),
        addresses.url(),
        addresses.admin_url()
    )
}
