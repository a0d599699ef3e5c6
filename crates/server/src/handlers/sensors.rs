//! `/api/v1/sensor` and `/api/v1/sensors`: registering, and who there is.

use crate::app::App;
use crate::auth;
use crate::body::{self, Coming};
use crate::code::Code;
use axum::extract::{RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use nowwhat::Problem;
use registry::{RegisterError, Role, SensorInfo};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registration {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    #[serde(rename = "sensorId")]
    sensor_id: Option<String>,
}

/// Registers a sensor: 201 with its id and its token, which is shown only here.
pub(crate) async fn post_sensor(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let mut body = Coming::new(body, &parts.headers);
    auth::admin(&app, &parts.headers).await?;
    let read = body::read(&app, &parts.headers, &mut body, app.shared.limits.body_bytes_max).await?;
    let registration: Registration = serde_json::from_slice(&read.bytes)
        .map_err(|e| Code::InvalidBody.problem(format!("{e}; send {{\"name\": \"...\", \"labels\": {{}}}}")))?;
    let registered = nowwhat::db(app.shared.registry.register(&registration.name, &registration.labels))
        .await
        .map_err(|error| match error {
            RegisterError::Taken { .. } => Code::NameTaken.problem(error.to_string()),
            RegisterError::Unavailable(cause) => {
                Code::RegistryBusy.problem("the sensor was not registered").cause(cause)
            }
            refused => Code::InvalidName.problem(refused.to_string()),
        })?;
    let body = json!({ "sensorId": &*registered.sensor_id, "token": registered.token.reveal() });
    let mut response = (StatusCode::CREATED, nowwhat::extract::Json(body)).into_response();
    let location = format!("/api/v1/sensor?sensorId={}", registered.sensor_id);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::try_from(location).expect("a sensor's id is plain ASCII"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// A sensor about itself; an admin about any.
pub(crate) async fn get_sensor(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let identity = auth::identify(&app, &headers).await?;
    let which: Which = serde_urlencoded::from_str(query.as_deref().unwrap_or_default())
        .map_err(|e| Code::InvalidParameter.problem(format!("{e}; known is sensorId")))?;
    let id = match (identity.role, &identity.sensor, which.sensor_id) {
        (Role::Admin, _, Some(id)) => id,
        (Role::Admin, _, None) => {
            return Err(Code::InvalidParameter.problem("an admin says which: ?sensorId=ID"));
        }
        (Role::Sensor, Some(me), None) => me.to_string(),
        (Role::Sensor, Some(me), Some(id)) if *id == **me => id,
        (Role::Sensor, ..) => {
            return Err(auth::scope("a sensor's token reads its own sensor only"));
        }
    };
    let sensor = nowwhat::db(app.shared.registry.sensor(&id)).await.map_err(unavailable)?;
    match sensor {
        Some(sensor) => Ok(nowwhat::extract::Json(shown(&sensor)).into_response()),
        None => Err(Code::NotFound.problem(format!("there is no sensor {id:?}"))),
    }
}

/// All sensors, for operators.
pub(crate) async fn get_sensors(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    auth::admin(&app, &headers).await?;
    let sensors = nowwhat::db(app.shared.registry.sensors()).await.map_err(unavailable)?;
    let sensors: Vec<Value> = sensors.iter().map(shown).collect();
    Ok(nowwhat::extract::Json(json!({ "sensors": sensors })).into_response())
}

fn shown(sensor: &SensorInfo) -> Value {
    let time = |micros: Option<i64>| micros.map(event::format_time);
    json!({
        "sensorId": &*sensor.id,
        "name": sensor.name,
        "labels": sensor.labels,
        "created_at": event::format_time(sensor.created_at),
        "last_seen_at": time(sensor.last_seen_at),
        "disabled_at": time(sensor.disabled_at),
    })
}

fn unavailable(error: registry::RegistryError) -> Problem {
    Code::RegistryBusy.problem("the registry could not be read").cause(error)
}
