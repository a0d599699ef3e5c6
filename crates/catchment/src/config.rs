//! The service that is configured: what Catchment adds to the settings of every service, and what no single key shows.

use crate::settings::Settings;
use nowwhat::cli::Usage;
use nowwhat::config::{ByteSize, Loaded};
use nowwhat::{Foundation, Service, Version};
use std::path::Path;

pub(crate) const VERSION: Version = nowwhat::version!();

/// Largest body that a collector takes, by default.
pub(crate) const BODY_BYTES_MAX: ByteSize = ByteSize(64 << 20);

/// Crates that log at the configured level; all others log warnings only.
const QUIET: [&str; 8] =
    ["deltalake_core", "delta_kernel", "buoyant_kernel", "datafusion", "sqlx", "hyper", "object_store", "h2"];

/// Catchment as a service: its settings and their checks.
pub(crate) fn service() -> Service {
    Service::new(VERSION, Settings::specs())
        .default_of("http.listen", "127.0.0.1:4711")
        .default_of("admin.listen", "127.0.0.1:4712")
        .default_of("http.body_bytes_max", "64MiB")
        // Bodies and queries have closer limits of their own.
        .default_of("http.request_seconds", "15m")
        // The room for batches is made at the start.
        .read_at_start("http.body_bytes_max")
        .check(beyond_single_keys)
        .reserved(&["URL", "TOKEN", "CA_FILE", "CORPORA"])
        .quiet(&QUIET)
}

/// `--data-dir`, as the flags of [`Sources`](nowwhat::config::Sources) have it.
///
/// # Errors
/// Its name is no UTF-8, as settings are: another folder would be taken.
pub(crate) fn data_dir_flag(given: Option<&Path>) -> Result<Option<(&'static str, String, &'static str)>, Usage> {
    let Some(dir) = given else { return Ok(None) };
    let name = dir.to_str().ok_or_else(|| {
        Usage(format!("--data-dir {}: the name of the folder is no UTF-8, choose another one", dir.display()))
    })?;
    Ok(Some(("data.dir", name.to_owned(), "--data-dir")))
}

/// What no single key shows.
fn beyond_single_keys(loaded: &Loaded) -> Vec<String> {
    let (settings, foundation) = (Settings::from_loaded(loaded), Foundation::from_loaded(loaded));
    let mut problems = Vec::new();
    let origin = |key: &str| &loaded.given(key).origin;
    if settings.seal.bytes > settings.seal.live_bytes_max {
        problems.push(format!(
            "seal.bytes = \"{}\": allowed is up to seal.live_bytes_max, {} ({})",
            settings.seal.bytes,
            settings.seal.live_bytes_max,
            origin("seal.bytes")
        ));
    }
    if foundation.http.body_bytes_max > settings.ingest.in_flight_bytes_max {
        problems.push(format!(
            "http.body_bytes_max = \"{}\": allowed is up to ingest.in_flight_bytes_max, {} ({})",
            foundation.http.body_bytes_max,
            settings.ingest.in_flight_bytes_max,
            origin("http.body_bytes_max")
        ));
    }
    if let Some(flaw) = lake::flaw_of_name(&settings.data.dir) {
        problems.push(format!("data.dir = {:?}: {flaw} ({})", settings.data.dir, origin("data.dir")));
    }
    if let Some(flaw) = settings.auth.admin_token.as_ref().and_then(|token| token_flaw(token.reveal())) {
        problems.push(format!("auth.admin_token: {flaw} ({})", origin("auth.admin_token")));
    }
    problems
}

/// What is wrong with an admin token, if anything.
fn token_flaw(token: &str) -> Option<String> {
    let chars_min = registry::ADMIN_TOKEN_CHARS_MIN;
    if !nowwhat::bearer::can_be_sent(token) {
        return Some("no request can send it: use visible ASCII without blanks".to_owned());
    }
    (token.len() < chars_min)
        .then(|| format!("it has at least {chars_min} characters; `openssl rand -hex 32` makes one"))
}

#[cfg(test)]
mod tests;
