//! The least level of log lines, also per module, and changing it while the program runs.

use super::TelemetryError;
use crate::problem::Problem;
use axum::Router;
use axum::routing::get;
use http::StatusCode;
use std::sync::{Arc, PoisonError, RwLock};
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer};

/// Checks a log level.
///
/// # Errors
/// [`TelemetryError::Level`].
pub fn check_level(level: &str) -> Result<(), TelemetryError> {
    said(level).map(drop)
}

/// What a level says, when it is understood.
fn said(level: &str) -> Result<Targets, TelemetryError> {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let known = |part: &str| {
        let (module, level) =
            part.rsplit_once('=').map_or((None, part), |(module, level)| (Some(module.trim()), level));
        module != Some("") && levels.contains(&level.trim().to_ascii_lowercase().as_str())
    };
    let known = !level.is_empty() && level.split(',').all(known);
    let said = level.parse().ok().filter(|_| known);
    said.ok_or_else(|| TelemetryError::Level(level.to_owned()))
}

/// The level in force. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LevelHandle {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    quiet: &'static [&'static str],
    inner: RwLock<(String, Targets)>,
}

impl LevelHandle {
    pub(super) fn new(level: String, quiet: &'static [&'static str]) -> Result<Self, TelemetryError> {
        let targets = targets(&level, quiet)?;
        Ok(Self { shared: Arc::new(Shared { quiet, inner: RwLock::new((level, targets)) }) })
    }

    /// The layer that lets through what is at or above the level.
    pub(super) fn filter(&self) -> Filter {
        Filter(self.shared.clone())
    }

    /// The level in force.
    pub fn get(&self) -> String {
        self.shared.inner.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Changes the level from the next line on. It is told before and after, as the one level or the other may leave the
    /// line out; and that the log is turned off is told as an error, which every other level lets through.
    ///
    /// # Errors
    /// [`TelemetryError::Level`]; the old level stays.
    pub fn set(&self, level: &str) -> Result<(), TelemetryError> {
        let targets = targets(level, self.shared.quiet)?;
        let before = self.get();
        if targets.would_enable(module_path!(), &Level::ERROR) {
            tracing::info!(before, level, "log level is being changed");
        } else {
            tracing::error!(before, level, "log is being turned off");
        }
        *self.shared.inner.write().unwrap_or_else(PoisonError::into_inner) = (level.to_owned(), targets);
        // Each place in the code asks again whether it is wanted.
        tracing::callsite::rebuild_interest_cache();
        tracing::info!(before, level, "log level changed");
        Ok(())
    }
}

/// Lets through what is at or above the level. A place in the code asks once after every change, so that it costs nothing when a
/// request comes.
#[derive(Debug)]
pub(super) struct Filter(Arc<Shared>);

impl Filter {
    fn lets(&self, meta: &Metadata<'_>) -> bool {
        self.0.inner.read().unwrap_or_else(PoisonError::into_inner).1.would_enable(meta.target(), meta.level())
    }
}

impl<S: Subscriber> Layer<S> for Filter {
    fn register_callsite(&self, meta: &'static Metadata<'static>) -> Interest {
        if self.lets(meta) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, meta: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.lets(meta)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let inner = self.0.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.1.iter().map(|(_, level)| level).chain(inner.1.default_level()).max()
    }
}

fn targets(level: &str, quiet: &[&str]) -> Result<Targets, TelemetryError> {
    let said = said(level)?;
    let quiet = Targets::new().with_targets(quiet.iter().map(|module| (*module, LevelFilter::WARN)));
    // Without a level for all, errors of the others would be lost, and the ids of requests.
    let quiet = quiet.with_default(said.default_level().unwrap_or(LevelFilter::ERROR));
    // What was said comes last, and takes the place of the quiet.
    Ok(quiet.with_targets(said.iter().map(|(module, level)| (module.to_owned(), level))))
}

/// `GET /log/level` tells the level, `PUT /log/level` with a level as its text changes it until the next change or start.
pub fn level_routes(level: LevelHandle) -> Router {
    let changed = level.clone();
    let change = move |text: String| async move {
        match changed.set(text.trim()) {
            Ok(()) => Ok(changed.get() + "\n"),
            Err(error) => {
                let problem = Problem::new(StatusCode::BAD_REQUEST, "invalid_level", "The log level is not understood");
                Err(problem.detail(error.to_string()))
            }
        }
    };
    Router::new().route("/log/level", get(move || async move { level.get() + "\n" }).put(change))
}
