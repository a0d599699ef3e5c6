//! Notes in Postgres, reads of them cached in Redis: a service whose resources are attached by address and swapped by configuration.
//!
//! It starts without either. Without Postgres it is not ready and answers 503 in bounded time; without Redis it goes on, uncached. Both
//! are taken up again when they come back. What it does not do: more than one cache, or queues, or users beyond two roles.

mod api;
mod auth;
mod cache;
mod note;
mod routes;
mod settings;
mod store;

use auth::Tokens;
use axum::Router;
use cache::{Cache, CacheMetrics};
use nowwhat::health::Weight;
use nowwhat::{Boot, BoxError, Service, error_chain};
use settings::Settings;
use std::time::Duration;
use store::Store;
use tokio::sync::watch;

/// How often Postgres and Redis are asked whether they are there, and how long that may take.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// What handlers work with.
#[derive(Clone, Debug)]
struct App {
    store: Store,
    cache: Option<Cache>,
    /// Those in force: they are reloaded.
    tokens: watch::Receiver<Tokens>,
}

/// The service and what it can be told.
pub fn service() -> Service {
    Service::new(nowwhat::version!("notes"), Settings::specs()).check(settings::problems).quiet(&["sqlx", "redis"])
}

/// Attaches what the service stands on and returns its routes.
///
/// # Errors
/// An address that cannot be used. A server that is away is none.
pub async fn start(boot: &mut Boot) -> Result<Router, BoxError> {
    let settings = Settings::from_loaded(&boot.loaded);
    let tokens = tokens(boot, &settings.auth);
    let store = store(boot, &settings.database)?;
    let cache = cache(boot, &settings.cache)?;
    Ok(routes::routes().with_state(App { store, cache, tokens }).merge(api::page()))
}

/// The tokens; at SIGHUP changed ones take their place.
fn tokens(boot: &mut Boot, auth: &settings::Auth) -> watch::Receiver<Tokens> {
    let (tell, tokens) = watch::channel(Tokens::new(auth));
    boot.on_reload(move |loaded| {
        tell.send_replace(Tokens::new(&Settings::from_loaded(&loaded).auth));
        async { Ok(()) }
    });
    tokens
}

fn store(boot: &mut Boot, database: &settings::Database) -> Result<Store, BoxError> {
    let store = Store::new(database, boot.dependency("postgres", database.timeout_seconds.duration()))?;
    let watched = store.clone();
    boot.health.watch("postgres", Weight::Readiness, CHECK_EVERY, move || {
        let store = watched.clone();
        async move { store.check().await.map_err(|error| error_chain(&error)) }
    });
    let closed = store.clone();
    boot.on_stop("postgres", async move {
        closed.close().await;
        Ok(())
    });
    Ok(store)
}

fn cache(boot: &mut Boot, settings: &settings::CacheSettings) -> Result<Option<Cache>, BoxError> {
    let Some(url) = &settings.url else {
        tracing::info!("no cache is attached: every read asks postgres");
        return Ok(None);
    };
    let redis = boot.dependency("redis", settings.timeout);
    let metrics = boot.metrics(CacheMetrics::register);
    let cache = Cache::new(url, redis, settings.ttl_seconds.duration(), metrics)?;
    let watched = cache.clone();
    boot.health.watch("redis", Weight::Warning, CHECK_EVERY, move || {
        let cache = watched.clone();
        async move { cache.check().await.map_err(|error| error_chain(&error)) }
    });
    Ok(Some(cache))
}
