//! The HTTP face of Catchment: routes, who may use them, what each answers, what each error is called.
//!
//! Reading order: [`routes`](routes()) is the whole API on one page; a handler extracts, calls the engine, the registry or the
//! queries, and shapes the answer; [`Code`] is every error the API knows.
//!
//! **Invariant:** nothing here stores an event or plans a query; the engine and the queries know nothing of HTTP.

mod app;
mod auth;
mod authorisation;
mod backups;
mod body;
mod certificate;
mod clock;
mod code;
mod cors;
mod erasures;
mod file;
mod handlers;
mod idempotency;
mod limits;
mod metrics;
mod openapi;
mod overview;
mod pages;
mod parameters;
mod quota;
mod request_log;
mod routes;
mod sensors;
mod session;

pub use app::{App, Limits, Parts};
pub use authorisation::roles_table;
pub use backups::Backups;
pub use code::{Code, codes_table, rejections_table};
pub use cors::{Cors, Origin};
pub use erasures::Erasures;
pub use event::{Limits as EventLimits, events_schema};
pub use limits::limits_table;
pub use metrics::ServerMetrics;
pub use openapi::openapi;
pub use overview::{About, Overview};
pub use pages::PAGES_BYTES_MAX;
pub use quota::{QUOTAS_BYTES_MAX, Quotas};
pub use registry::{BURST_SECONDS_MAX, PER_SECOND_MAX, Quota};
pub use request_log::{REQUESTS_SENSOR, RequestLog, RequestLogLimits, Storing};
pub use routes::routes;
pub use sensors::SensorMetrics;
