//! Every route of the public listener, on one page.

use crate::app::App;
use crate::code::Code;
use crate::handlers::{events, ingest, query, sensors};
use axum::Router;
use nowwhat::named;
use nowwhat::routing::{get, post};

/// The API. The caller adds what every service has: request ids, the request log, metrics, health.
pub fn routes(app: App) -> Router {
    Router::new()
        .route("/api/v1/events", post(ingest::post_events).get(named(events::get_events)))
        .route("/api/v1/events/{id}", get(events::get_event))
        .route("/api/v1/query", post(query::post_query))
        .route("/api/v1/sensor", post(sensors::post_sensor).get(named(sensors::get_sensor)))
        .route("/api/v1/sensors", get(sensors::get_sensors))
        .fallback(|| async { Code::NotFound.problem("no such path; the API is described in docs/API.md") })
        .method_not_allowed_fallback(|| async { Code::MethodNotAllowed.problem("use one of the methods in `Allow`") })
        .with_state(app)
}
