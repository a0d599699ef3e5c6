//! Every route of the public listener, on one page. Paths, methods and who may use them are in the table of `authorisation.rs`.

use crate::app::App;
use crate::authorisation::Act;
use crate::cors::Cors;
use crate::handlers::{
    audit, backups, docs, erasures, events, fields, import, ingest, overview, query, rejected, sensors, sessions, tail,
    tokens, web, webhook,
};
use crate::quota;
use crate::session;
use axum::Router;
use axum::handler::Handler;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, on};
use nowwhat::named;

/// The API. The caller adds what every service has: request ids, the request log, metrics, health, the
/// answers to unknown paths and methods; and goes [around](Cors::around) all of it with `cors`.
pub fn routes(app: App, cors: Option<Cors>) -> Router {
    let validate = MethodRouter::new().fallback(webhook::validate);
    Router::new()
        .route(Act::ValidateWebhook.path(), cors.map_or(validate.clone(), |cors| cors.preflights(validate)))
        .act(Act::SendEvents, ingest::post_events)
        .act(Act::ListEvents, events::get_events)
        .act(Act::TailEvents, tail::get_tail)
        .act(Act::ReadEvent, events::get_event)
        .act(Act::ImportEvents, import::post_import)
        .act(Act::Query, query::post_query)
        .act(Act::QueryByAddress, query::get_query)
        .act(Act::ListFields, fields::get_fields)
        .act(Act::ReadOverview, overview::get_overview)
        .act(Act::FollowOverview, overview::get_live)
        .act(Act::ReadHistory, overview::get_history)
        .act(Act::ReadRejected, rejected::get_rejected)
        .act(Act::RegisterSensor, sensors::post_sensor)
        .act(Act::SeeItself, sensors::get_sensor)
        .act(Act::ListSensors, sensors::get_sensors)
        .act(Act::ReadSensor, sensors::get_sensor_by_id)
        .act(Act::ChangeSensor, sensors::patch_sensor)
        .act(Act::DisableSensor, sensors::delete_sensor)
        .act(Act::EraseEvents, erasures::delete_events)
        .act(Act::ReadErasure, erasures::get_erasure)
        .act(Act::RotateToken, sensors::post_token)
        .act(Act::AddToken, tokens::post_token)
        .act(Act::ListTokens, tokens::get_tokens)
        .act(Act::ReadToken, tokens::get_token)
        .act(Act::RevokeToken, tokens::delete_token)
        .act(Act::BeginSession, sessions::post_session)
        .act(Act::ReadSession, sessions::get_session)
        .act(Act::EndSession, sessions::delete_session)
        .act(Act::MakeSignInCode, sessions::post_code)
        .act(Act::MakeBackup, backups::post_backup)
        .act(Act::FollowBackup, backups::patch_backup)
        .act(Act::ReadAudit, audit::get_audit)
        .act(Act::ShowPage, web::get_page)
        .act(Act::ReadPageFile, web::get_file)
        .act(Act::Describe, docs::get_description)
        .act(Act::ShowDocs, docs::get_page)
        .act(Act::ReadDocsFile, docs::get_file)
        .route_layer(from_fn_with_state(app.clone(), quota::tell))
        .route_layer(from_fn(session::unkept))
        .with_state(app)
}

/// A router that is made of acts.
trait Acts {
    /// Adds the handler of an act, known by name.
    fn act<H, T>(self, act: Act, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static;
}

impl Acts for Router<App> {
    fn act<H, T>(self, act: Act, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.route(act.path(), on(act.method(), named(handler)))
    }
}
