//! `catchment config`: the configuration shown, checked, written; and read for `serve`.

use crate::settings::Settings;
use crate::{Failure, SettingsArgs};
use anyhow::Context;
use nowwhat::Environment;
use nowwhat::config::{Loaded, Sources, default_file, load};
use std::io::Write;
use std::path::Path;

const HEADING: &str = "Catchment's settings with their defaults, as `catchment config default` writes them.\n\
    Each can also be given in the environment: http.listen is CATCHMENT_HTTP__LISTEN.";

/// Reads the configuration with the flags of `serve`.
pub(crate) fn read(
    args: &SettingsArgs,
    flags: Vec<(&'static str, String, &'static str)>,
    environment: Environment,
) -> Result<Loaded, Failure> {
    let env = args.env.as_deref().or_else(|| environment.get("CATCHMENT_ENV"));
    let environment = if env == Some("dev") { environment.with_file(Path::new(".env")) } else { environment };
    let sources = Sources { name: "catchment", config: args.config.clone(), env: args.env.clone(), flags };
    let loaded = load(&Settings::specs(), &sources, &environment)
        .map_err(|problems| Failure::Usage(format!("the configuration has problems:\n{problems}")))?;
    let settings = Settings::from_loaded(&loaded);
    let problems = beyond_single_keys(&settings, &loaded);
    if problems.is_empty() {
        Ok(loaded)
    } else {
        Err(Failure::Usage(format!("the configuration has problems:\n{}", problems.join("\n"))))
    }
}

/// What no single key shows.
fn beyond_single_keys(settings: &Settings, loaded: &Loaded) -> Vec<String> {
    let mut problems = Vec::new();
    for (key, address) in [("http.listen", settings.http.listen), ("admin.listen", settings.admin.listen)] {
        if !address.ip().is_loopback() && !settings.http.insecure {
            problems.push(format!(
                "{key} = \"{address}\": beyond loopback tokens would travel in clear; keep it on 127.0.0.1, or set \
                 http.insecure = true when a proxy in front ends TLS ({})",
                loaded.given(key).origin
            ));
        }
    }
    if settings.seal.bytes > settings.seal.live_bytes_max {
        problems.push(format!(
            "seal.bytes = \"{}\": allowed is up to seal.live_bytes_max, {} ({})",
            settings.seal.bytes,
            settings.seal.live_bytes_max,
            loaded.given("seal.bytes").origin
        ));
    }
    if settings.http.body_bytes_max > settings.ingest.in_flight_bytes_max {
        problems.push(format!(
            "http.body_bytes_max = \"{}\": allowed is up to ingest.in_flight_bytes_max, {} ({})",
            settings.http.body_bytes_max,
            settings.ingest.in_flight_bytes_max,
            loaded.given("http.body_bytes_max").origin
        ));
    }
    if let Err(error) = nowwhat::telemetry::check_level(&settings.log.level) {
        problems.push(format!("log.level = {:?}: {error} ({})", settings.log.level, loaded.given("log.level").origin));
    }
    if settings.auth.admin_token.as_ref().is_some_and(|t| t.reveal().chars().count() < registry::ADMIN_TOKEN_CHARS_MIN)
    {
        problems.push(format!(
            "auth.admin_token: it has at least {} characters ({})",
            registry::ADMIN_TOKEN_CHARS_MIN,
            loaded.given("auth.admin_token").origin
        ));
    }
    if settings.log.level.is_empty() || nowwhat::telemetry::Format::from_name(&settings.log.format).is_none() {
        let origin = &loaded.given("log.format").origin;
        problems.push(format!("log.format = {:?}: allowed are text, json and auto ({origin})", settings.log.format));
    }
    problems
}

/// `catchment config show`.
pub(crate) fn show(args: &SettingsArgs, environment: Environment) -> Result<(), Failure> {
    let loaded = read(args, Vec::new(), environment)?;
    print(&loaded.show())
}

/// `catchment config check`.
pub(crate) fn check(args: &SettingsArgs, environment: Environment) -> Result<(), Failure> {
    let loaded = read(args, Vec::new(), environment)?;
    print(&format!("the configuration is valid; environment {}\n", loaded.env))
}

/// `catchment config default`.
pub(crate) fn default() -> Result<(), Failure> {
    print(&default_text())
}

/// The file of defaults, as `config/catchment.toml` keeps it.
pub(crate) fn default_text() -> String {
    default_file(&Settings::specs(), HEADING)
}

fn print(text: &str) -> Result<(), Failure> {
    Ok(std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?)
}

#[cfg(test)]
mod tests;
