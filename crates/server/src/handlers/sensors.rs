//! `/api/v1/sensor` and `/api/v1/sensors`: registering, who there is, and what operators change.

use crate::app::App;
use crate::auth;
use crate::authorisation::Act;
use crate::body::{self, Coming};
use crate::code::Code;
use crate::handlers::page::{List, limit_of};
use axum::extract::{Path, RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use nowwhat::Problem;
use registry::{Labels, Quota, QuotaChange, RegisterError, Role, SensorChange, SensorError, SensorInfo};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

const SENSORS: List = List { name: "sensors", key: "sensorId", next: "next_after" };
/// How long a sensor's old tokens are still taken, when nothing is said: time for a device to fetch the new one.
const OVERLAP_SECONDS: u64 = 3600;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registration {
    name: String,
    #[serde(default)]
    labels: Labels,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    #[serde(rename = "sensorId")]
    sensor_id: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    limit: Option<u64>,
    after: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    labels: Option<Labels>,
    #[serde(default, deserialize_with = "given")]
    time_zone: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    quota: Option<Option<QuotaFields>>,
    disabled: Option<bool>,
}

/// Those that are not named stay, null is as for all sensors.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuotaFields {
    #[serde(default, deserialize_with = "given")]
    events_per_second: Option<Option<u64>>,
    #[serde(default, deserialize_with = "given")]
    bytes_per_second: Option<Option<u64>>,
    #[serde(default, deserialize_with = "given")]
    burst_seconds: Option<Option<u64>>,
}

impl QuotaFields {
    fn change(self) -> QuotaChange {
        let Self { events_per_second, bytes_per_second, burst_seconds } = self;
        QuotaChange { events_per_second, bytes_per_second, burst_seconds }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    overlap_seconds: Option<u64>,
}

/// Registers a sensor: 201 with its id and its token, which is shown only here.
pub(crate) async fn post_sensor(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, mut body) = Coming::of(request);
    let answered = register(&app, &parts, &mut body).await;
    body::done(&app, body, answered).await
}

async fn register(app: &App, parts: &Parts, body: &mut Coming) -> Result<Response, Problem> {
    let identity = auth::permit(app, &parts.headers, Act::RegisterSensor).await?;
    let registration: Registration = body::json(app, parts, body, "{\"name\": \"...\", \"labels\": {}}").await?;
    let actor = auth::actor(&identity);
    let registered = nowwhat::db(app.shared.registry.register(&actor, &registration.name, &registration.labels))
        .await
        .map_err(|error| match error {
            RegisterError::Taken { .. } => Code::NameTaken.problem(error.to_string()),
            RegisterError::Refused => auth::refused(&error.to_string()),
            RegisterError::UsedUp => Code::EnrolmentUsedUp.problem(error.to_string()),
            RegisterError::Unavailable(cause) => {
                Code::RegistryBusy.problem("the sensor was not registered").cause(cause)
            }
            refused => Code::InvalidName.problem(refused.to_string()),
        })?;
    let body = json!({ "sensorId": &*registered.sensor_id, "token": registered.token.reveal() });
    Ok(made(&format!("/api/v1/sensor?sensorId={}", registered.sensor_id), body))
}

/// A sensor about itself; an admin about any.
pub(crate) async fn get_sensor(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let identity = auth::permit(&app, &headers, Act::SeeItself).await?;
    let which: Which = serde_urlencoded::from_str(query.as_deref().unwrap_or_default())
        .map_err(|e| Code::InvalidParameter.problem(format!("{e}; known is sensorId")))?;
    let id = match (identity.role, &identity.sensor, which.sensor_id) {
        (Role::Admin, _, Some(id)) => id,
        (Role::Admin, _, None) => {
            return Err(Code::InvalidParameter.problem("an admin says which: ?sensorId=ID"));
        }
        (_, Some(me), None) => me.to_string(),
        (_, Some(me), Some(id)) if *id == **me => id,
        _ => {
            return Err(auth::scope("a sensor's token reads its own sensor only; any other needs the role admin"));
        }
    };
    one(&app, &id).await
}

/// A page of the sensors, for operators, by id.
pub(crate) async fn get_sensors(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    auth::permit(&app, &headers, Act::ListSensors).await?;
    let asked: Parameters = serde_urlencoded::from_str(query.as_deref().unwrap_or_default())
        .map_err(|e| Code::InvalidParameter.problem(format!("{e}; known are limit and after")))?;
    let limit = limit_of(asked.limit)?;
    let found = app.shared.registry.sensors(limit + 1, asked.after.as_deref());
    let sensors = nowwhat::db(found).await.map_err(unavailable)?;
    let sensors = sensors.iter().map(|sensor| shown(&app, sensor)).collect();
    Ok(nowwhat::extract::Json(SENSORS.page(sensors, limit)).into_response())
}

/// One sensor, for operators.
pub(crate) async fn get_sensor_by_id(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    auth::permit(&app, &headers, Act::ReadSensor).await?;
    one(&app, &id).await
}

/// Changes labels, zone and quota, disables and enables: 200 with the sensor as it is then.
pub(crate) async fn patch_sensor(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, mut body) = Coming::of(request);
    let answered = change(&app, &id, &parts, &mut body).await;
    body::done(&app, body, answered).await
}

async fn change(app: &App, id: &str, parts: &Parts, body: &mut Coming) -> Result<Response, Problem> {
    let identity = auth::permit(app, &parts.headers, Act::ChangeSensor).await?;
    let example = "one or more of {\"labels\": {}, \"time_zone\": \"Europe/Berlin\", \"quota\": {\"events_per_second\": 100}, \"disabled\": false}";
    let Change { labels, time_zone, quota, disabled } = body::json(app, parts, body, example).await?;
    let quota = match quota {
        None => QuotaChange::default(),
        Some(None) => QuotaChange::to_default(),
        Some(Some(fields)) => fields.change(),
    };
    if labels.is_none() && time_zone.is_none() && quota == QuotaChange::default() && disabled.is_none() {
        return Err(Code::InvalidBody.problem(format!("nothing is to change; send {example}")));
    }
    let change = SensorChange { labels, time_zone, quota, disabled };
    let changed = nowwhat::db(app.shared.registry.change(&auth::actor(&identity), id, &change)).await;
    Ok(nowwhat::extract::Json(shown(app, &changed.map_err(not_changed)?)).into_response())
}

/// Disables a sensor: 204. Its events stay, its tokens are refused.
pub(crate) async fn delete_sensor(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let identity = auth::permit(&app, &headers, Act::DisableSensor).await?;
    let (actor, disable) = (auth::actor(&identity), SensorChange::disable());
    nowwhat::db(app.shared.registry.change(&actor, &id, &disable)).await.map_err(not_changed)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Makes another token for a sensor: 201, shown only here. The old ones are taken for a while yet.
pub(crate) async fn post_token(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, mut body) = Coming::of(request);
    let answered = rotate(&app, &id, &parts, &mut body).await;
    body::done(&app, body, answered).await
}

async fn rotate(app: &App, id: &str, parts: &Parts, body: &mut Coming) -> Result<Response, Problem> {
    let identity = auth::permit(app, &parts.headers, Act::RotateToken).await?;
    let example = "nothing, {} or {\"overlap_seconds\": 3600}";
    let rotation: Rotation = body::json_or_default(app, parts, body, example).await?;
    let overlap_seconds = rotation.overlap_seconds.unwrap_or(OVERLAP_SECONDS);
    let rotated = nowwhat::db(app.shared.registry.rotate(&auth::actor(&identity), id, overlap_seconds)).await;
    let rotated = rotated.map_err(not_changed)?;
    let body = json!({
        "sensorId": id,
        "id": rotated.token_id,
        "token": rotated.token.reveal(),
        "old_tokens_expire_at": event::format_time(rotated.old_expire_at),
    });
    Ok(made(&format!("/api/v1/tokens/{}", rotated.token_id), body))
}

/// 201 with something that is shown only once.
pub(crate) fn made(location: &str, body: Value) -> Response {
    let mut response = (StatusCode::CREATED, nowwhat::extract::Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::try_from(location).expect("ids are plain ASCII"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn one(app: &App, id: &str) -> Result<Response, Problem> {
    let sensor = nowwhat::db(app.shared.registry.sensor(id)).await.map_err(unavailable)?;
    match sensor {
        Some(sensor) => Ok(nowwhat::extract::Json(shown(app, &sensor)).into_response()),
        None => Err(Code::NotFound.problem(SensorError::Unknown(id.to_owned()).to_string())),
    }
}

fn shown(app: &App, sensor: &SensorInfo) -> Value {
    let quotas = &app.shared.quotas;
    let rates = quotas.rates(&sensor.id);
    let rounded = |rate: f64| (rate * 1000.0).round() / 1000.0;
    let time = |micros: Option<i64>| micros.map(event::format_time);
    json!({
        "sensorId": &*sensor.id,
        "name": sensor.name,
        "labels": sensor.labels,
        "time_zone": sensor.time_zone,
        "quota": shown_quota(sensor.quota),
        "quota_in_force": shown_quota(quotas.in_force(sensor.quota)),
        "rates": {
            "events_per_second": rounded(rates.events_per_second),
            "bytes_per_second": rounded(rates.bytes_per_second),
        },
        "created_at": event::format_time(sensor.created_at),
        "last_seen_at": time(sensor.last_seen_at),
        "disabled_at": time(sensor.disabled_at),
    })
}

fn shown_quota(quota: Quota) -> Value {
    json!({
        "events_per_second": quota.events_per_second,
        "bytes_per_second": quota.bytes_per_second,
        "burst_seconds": quota.burst_seconds,
    })
}

/// A field that is there, also as null.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Deserialize::deserialize(from).map(Some)
}

fn not_changed(error: SensorError) -> Problem {
    match error {
        SensorError::Unknown(_) => Code::NotFound.problem(error.to_string()),
        SensorError::Labels | SensorError::Zone(_) | SensorError::Quota { .. } | SensorError::Overlap => {
            Code::InvalidField.problem(error.to_string())
        }
        SensorError::Unavailable(cause) => Code::RegistryBusy.problem("the sensor was not changed").cause(cause),
    }
}

/// 503: the registry did not answer.
pub(crate) fn unavailable(error: registry::RegistryError) -> Problem {
    Code::RegistryBusy.problem("the registry could not be read").cause(error)
}
