//! Every route of the public listener, on one page.

use crate::app::App;
use crate::handlers::{events, ingest, query, sensors, webhook};
use axum::Router;
use nowwhat::named;
use nowwhat::routing::{get, post};

/// The API. The caller adds what every service has: request ids, the request log, metrics, health, the
/// answers to unknown paths and methods.
pub fn routes(app: App) -> Router {
    let events = post(ingest::post_events).get(named(events::get_events)).fallback(webhook::validate);
    Router::new()
        .route("/api/v1/events", events)
        .route("/api/v1/events/{id}", get(events::get_event))
        .route("/api/v1/query", post(query::post_query))
        .route("/api/v1/sensor", post(sensors::post_sensor).get(named(sensors::get_sensor)))
        .route("/api/v1/sensors", get(sensors::get_sensors))
        .with_state(app)
}
