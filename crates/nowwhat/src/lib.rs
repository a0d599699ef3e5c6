//! What a service needs around its router, for any axum service: "I have a web framework. Now what?"
//!
//! - [`config`]: settings with types, ranges and origins, from files, the environment and flags; all problems at once.
//! - [`telemetry`]: log lines as text or JSON, written by a thread of their own.
//! - [`request`]: a request id, one log line and metrics for every request; panics become answers.
//! - [`Problem`]: errors as RFC 9457 problem details: what the client may know, and what the log must know.
//! - [`metrics`]: exposition for Prometheus, with metrics of the process.
//! - [`health`]: `/livez`, `/readyz`, `/startupz`, with reasons.
//! - [`serve`]: listeners with limits, and orderly stopping.
//! - [`Version`]: what is running.
//!
//! **Invariant:** nothing here knows what the service does; only this crate reads the environment, installs a log subscriber or
//! opens a configuration file.

pub mod config;
mod environment;
pub mod health;
pub mod metrics;
mod problem;
pub mod request;
pub mod serve;
pub mod telemetry;
mod version;

pub use environment::Environment;
pub use problem::{Problem, error_chain};
pub use version::Version;
