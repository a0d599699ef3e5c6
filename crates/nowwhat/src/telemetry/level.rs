//! The least level of log lines, also per module, and changing it while the program runs.

use super::TelemetryError;
use crate::problem::Problem;
use axum::Router;
use axum::routing::get;
use http::StatusCode;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use tracing_subscriber::{EnvFilter, Registry, reload};

/// Checks a log level.
///
/// # Errors
/// [`TelemetryError::Level`].
pub fn check_level(level: &str) -> Result<(), TelemetryError> {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let known = |part: &str| {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level).trim();
        levels.contains(&level.to_ascii_lowercase().as_str())
    };
    let known = !level.is_empty() && level.split(',').all(known);
    if known && EnvFilter::try_new(level).is_ok() { Ok(()) } else { Err(TelemetryError::Level(level.to_owned())) }
}

/// The level in force. Cheap to clone.
#[derive(Clone, Default)]
pub struct LevelHandle {
    quiet: &'static [&'static str],
    filter: Option<reload::Handle<EnvFilter, Registry>>,
    level: Arc<Mutex<String>>,
}

impl fmt::Debug for LevelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LevelHandle").field("level", &self.get()).finish_non_exhaustive()
    }
}

impl LevelHandle {
    /// A filter and the handle that changes it.
    pub(super) fn filter(
        level: String,
        quiet: &'static [&'static str],
    ) -> Result<(reload::Layer<EnvFilter, Registry>, Self), TelemetryError> {
        check_level(&level)?;
        let (layer, handle) = reload::Layer::new(filter(&level, quiet)?);
        Ok((layer, Self { quiet, filter: Some(handle), level: Arc::new(Mutex::new(level)) }))
    }

    /// The level in force.
    pub fn get(&self) -> String {
        self.level.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the level from the next line on.
    ///
    /// # Errors
    /// [`TelemetryError::Level`]; the old level stays.
    pub fn set(&self, level: &str) -> Result<(), TelemetryError> {
        check_level(level)?;
        let filter = filter(level, self.quiet)?;
        if let Some(handle) = &self.filter {
            handle.reload(filter).map_err(|_| TelemetryError::Level(level.to_owned()))?;
        }
        level.clone_into(&mut self.level.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}

fn filter(level: &str, quiet: &[&str]) -> Result<EnvFilter, TelemetryError> {
    let quiet: String = quiet.iter().map(|module| format!("{module}=warn,")).collect();
    EnvFilter::try_new(format!("{quiet}{level}")).map_err(|_| TelemetryError::Level(level.to_owned()))
}

/// `GET /log/level` tells the level, `PUT /log/level` with a level as its text changes it until the next change or start.
pub(crate) fn level_routes(level: LevelHandle) -> Router {
    let changed = level.clone();
    let change = move |text: String| async move {
        match changed.set(text.trim()) {
            Ok(()) => {
                tracing::info!(level = text.trim(), "log level changed");
                Ok(changed.get() + "\n")
            }
            Err(error) => {
                let problem = Problem::new(StatusCode::BAD_REQUEST, "invalid_level", "The log level is not understood");
                Err(problem.detail(error.to_string()))
            }
        }
    };
    Router::new().route("/log/level", get(move || async move { level.get() + "\n" }).put(change))
}
