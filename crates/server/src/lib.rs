//! The HTTP face of Catchment: routes, who may use them, what each answers, what each error is called.
//!
//! Reading order: [`routes`](routes()) is the whole API on one page; a handler extracts, calls the engine, the registry or the
//! queries, and shapes the answer; [`Code`] is every error the API knows.
//!
//! **Invariant:** nothing here stores an event or plans a query; the engine and the queries know nothing of HTTP.

mod app;
mod auth;
mod authorisation;
mod body;
mod certificate;
mod code;
mod cors;
mod handlers;
mod idempotency;
mod limits;
mod routes;

pub use app::{App, Limits};
pub use authorisation::roles_table;
pub use code::{Code, codes_table, rejections_table};
pub use cors::{Cors, Origin};
pub use event::{Limits as EventLimits, events_schema};
pub use limits::limits_table;
pub use routes::routes;
