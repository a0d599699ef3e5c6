//! `/api/v1/sensors/{id}/events`: erasing the events of a sensor, and how far that is.

use crate::app::App;
use crate::auth;
use crate::authorisation::Act;
use crate::code::Code;
use crate::handlers::sensors::{known, not_changed, unavailable};
use crate::openapi::{of, sensor_id};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use nowwhat::Problem;
use nowwhat::extract::Path;
use registry::Until;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::Type;
use utoipa::openapi::schema::Object;

/// How far the erasing of a sensor's events is.
#[derive(Serialize, ToSchema)]
pub(crate) struct Erasure {
    #[serde(rename = "sensorId")]
    #[schema(schema_with = sensor_id)]
    sensor_id: String,
    /// Events up to this position go; those that the sensor sends afterwards stay.
    until_position: u64,
    /// When it was last asked for.
    #[schema(format = DateTime)]
    requested_at: String,
    /// When all was done; null until then.
    #[schema(required = true, format = DateTime)]
    finished_at: Option<String>,
    /// How many accepted events have gone.
    erased_events: u64,
    #[schema(schema_with = states)]
    state: &'static str,
    /// Why the last try failed.
    #[schema(required = true)]
    failure: Option<String>,
}

const STATES: [&str; 3] = ["running", "failing", "finished"];

fn states() -> Object {
    let text = "`running`; `failing` when its last try failed and it is tried again; `finished`.";
    of(Type::String).enum_values(Some(STATES)).description(Some(text)).build()
}

impl Erasure {
    fn of(app: &App, erasure: registry::Erasure) -> Self {
        let [running, failing, finished] = STATES;
        Self {
            until_position: erasure.until.position,
            requested_at: event::format_time(erasure.requested_at),
            finished_at: erasure.finished_at.map(event::format_time),
            erased_events: erasure.erased_events(app.shared.engine.erased_events()),
            state: match (&erasure.finished_at, &erasure.failure) {
                (Some(_), _) => finished,
                (None, Some(_)) => failing,
                (None, None) => running,
            },
            failure: erasure.failure,
            sensor_id: erasure.sensor,
        }
    }
}

/// Erases all events that a sensor has sent so far: 202, and it is done later.
pub(crate) async fn delete_events(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let identity = auth::permit(&app, &headers, Act::EraseEvents).await?;
    let rejected = nowwhat::db(app.shared.rejected.extent()).await;
    let rejected = rejected.map_err(|e| Code::RejectedUnavailable.problem("nothing is erased").cause(e))?;
    // Whatever was answered before this request came has a position up to here.
    let until = Until { position: app.shared.engine.last_position(), rejected_position: rejected.last_position };
    let asked = nowwhat::db(app.shared.registry.erase(&auth::actor(&identity), &id, until)).await;
    let erasure = asked.map_err(not_changed)?;
    app.shared.erasures.wake();
    let location = format!("/api/v1/sensors/{}/events", erasure.sensor);
    let mut response = (StatusCode::ACCEPTED, nowwhat::extract::Json(Erasure::of(&app, erasure))).into_response();
    let location = HeaderValue::try_from(location).expect("ids are plain ASCII");
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// How far the last erasure of a sensor is.
pub(crate) async fn get_erasure(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    auth::permit(&app, &headers, Act::ReadErasure).await?;
    known(&app, &id).await?;
    let erasure = nowwhat::db(app.shared.registry.erasure(&id)).await.map_err(unavailable)?;
    let erasure = erasure.ok_or_else(|| {
        Code::NotFound.problem(format!("the events of {id:?} were never erased: `DELETE` here erases them"))
    })?;
    Ok(nowwhat::extract::Json(Erasure::of(&app, erasure)).into_response())
}
