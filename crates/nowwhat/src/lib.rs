//! What a service needs around its router, for any axum service: "I have a web framework. Now what?"
//!
//! One page gets all of it:
//!
//! ```no_run
#![doc = include_str!("../examples/hello.rs")]
//! ```
//!
//! In reading order:
//!
//! - [`Service`]: settings, logs, listeners, start and stop of a whole service; what `main` calls. [`Boot`] is what its start has in hand.
//! - [`config`]: settings with types, ranges and origins, from files, the environment and flags; all problems at once. [`Foundation`]
//!   are those that every service has.
//! - [`cli`]: the command line of a service, and its parts for callers who have one.
//! - [`telemetry`]: log lines as text, JSON or entries of the journal; [`bind`] puts a value on every line of a request.
//! - [`request`]: a request id, one log line and metrics for every request; panics become answers. [`routing`] gives handlers names,
//!   [`db()`] and [`view()`] say where the time goes.
//! - [`Problem`]: errors as RFC 9457 problem details: what the client may know, and what the log must know.
//! - [`problem`]: limits of a request, and a problem for every failure of a router: no route, wrong method, too large, too late.
//! - [`extract`]: JSON bodies, queries and paths whose rejections are problems.
//! - [`accept`]: which of several types a client wants.
//! - [`bearer`]: the token of a request, and the challenge of an answer that refuses it.
//! - [`forwarded`]: the client's address, scheme and host behind trusted proxies.
//! - [`metrics`]: exposition for Prometheus, labels bounded by type, metrics of the process and of the runtime.
//! - [`health`]: `/livez`, `/readyz`, `/startupz`, with reasons.
//! - [`serve`]: listeners with limits, over TLS or plain, bound or inherited; orderly stopping.
//! - [`systemd`]: readiness, reload, stop and watchdog told to systemd; [`journal`]: its log.
//! - [`client`]: calls to other services, which carry the request's id and trace.
//! - [`dependency`]: time and errors of calls to what the service stands on.
//! - [`trace`]: W3C Trace Context; [`otlp`]: traces and log records for a collector of OpenTelemetry.
//! - [`debug`]: in development, a page with the last requests.
//! - [`testkit`]: a whole service under test: its answers, log lines and metrics.
//! - [`Version`]: what is running.
//!
//! `README.md` leads through it by theme, and shows each layer alone: under the caller's own command line, subscriber or listener.
//!
//! **Invariant:** nothing here knows what the service does; only this crate reads the environment, installs a log subscriber or
//! opens a configuration file.

/// Compiles what README.md shows.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles what the page about moving a service shows; it lies outside of the package.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/ADOPT.md")]
struct Adopt;

pub mod accept;
pub mod bearer;
pub mod cli;
pub mod client;
pub mod config;
pub(crate) mod current;
pub mod debug;
pub mod dependency;
mod environment;
pub mod extract;
pub mod forwarded;
pub mod health;
pub mod journal;
pub mod metrics;
pub mod otlp;
pub mod problem;
pub mod request;
pub mod routing;
pub mod serve;
pub mod service;
mod settings;
mod small_file;
pub mod systemd;
pub mod telemetry;
pub mod testkit;
pub mod trace;
mod version;

pub use current::{Stopwatch, db, spawn, stopwatch, view};
pub use dependency::{CallError, Dependency};
pub use environment::Environment;
pub use problem::{Problem, error_chain};
pub use routing::named;
pub use service::{Boot, BoxError, Progress, Service, ServiceError};
pub use settings::Foundation;
pub use telemetry::bind;
pub use version::Version;
