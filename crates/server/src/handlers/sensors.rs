//! `/api/v1/sensor` and `/api/v1/sensors`: registering, who there is, and what operators change.

use crate::app::App;
use crate::auth;
use crate::authorisation::Act;
use crate::body::{self, Coming, whole};
use crate::code::{self, Code};
use crate::handlers::page::{cut, limit_of};
use crate::openapi::{labels, sensor_id, token};
use crate::pages;
use crate::parameters::parameters;
use crate::quota::Rates;
use axum::extract::{RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use nowwhat::Problem;
use nowwhat::extract::Path;
use registry::{Labels, Quota, QuotaChange, RegisterError, Role, SensorChange, SensorError, SensorInfo};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

/// How long a sensor's old tokens are still taken, when nothing is said: time for a device to fetch the new one.
const OVERLAP_SECONDS: u64 = 3600;

/// A sensor that is to be registered.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Registration {
    /// Its name, from which its id is made: lower case, everything but `a-z0-9._-` becomes `-`.
    #[schema(max_length = 256, pattern = "[a-zA-Z0-9]")]
    name: String,
    #[serde(default)]
    #[schema(schema_with = labels)]
    labels: Labels,
}

/// A sensor that was registered. Its token is shown only here.
#[derive(Serialize, ToSchema)]
pub(crate) struct RegisteredSensor<'a> {
    #[serde(rename = "sensorId")]
    #[schema(schema_with = sensor_id)]
    sensor_id: &'a str,
    #[schema(schema_with = token)]
    token: &'a str,
}

/// The parameters of the address.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    /// The id of a sensor. A sensor may leave it out; an admin says which.
    #[serde(rename = "sensorId")]
    sensor_id: Option<String>,
}

/// The parameters of the address.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    /// Most sensors of a page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u64>,
    /// Only sensors after this id: the `next_after` of the page before.
    after: Option<String>,
}

/// What is to change of a sensor, one or more of it; what is not named stays.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = SensorChange, min_properties = 1)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    #[serde(default, deserialize_with = "given")]
    #[schema(schema_with = labels)]
    labels: Option<Labels>,
    /// The zone in which its times without one are read, an IANA name; null removes it.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, examples("Europe/Berlin", "UTC"))]
    time_zone: Option<Option<String>>,
    /// How much it may send; null is as for all sensors.
    #[serde(default, deserialize_with = "given_object")]
    #[schema(value_type = Option<QuotaFields>)]
    quota: Option<Option<QuotaFields>>,
    /// Whether its tokens are refused.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    disabled: Option<bool>,
}

/// Those that are not named stay, null is as for all sensors.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuotaFields {
    /// Events in a second.
    #[serde(default, deserialize_with = "given_whole")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 1_000_000_000_000_i64)]
    events_per_second: Option<Option<u64>>,
    /// Bytes of bodies in a second.
    #[serde(default, deserialize_with = "given_whole")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 1_000_000_000_000_i64)]
    bytes_per_second: Option<Option<u64>>,
    /// For how many seconds' worth it may send at once.
    #[serde(default, deserialize_with = "given_whole")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 86_400)]
    burst_seconds: Option<Option<u64>>,
}

impl QuotaFields {
    fn change(self) -> QuotaChange {
        let Self { events_per_second, bytes_per_second, burst_seconds } = self;
        QuotaChange { events_per_second, bytes_per_second, burst_seconds }
    }
}

/// How a sensor gets another token.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotation {
    /// How long its old tokens are still taken; 0 ends them at once.
    #[serde(default, deserialize_with = "body::whole")]
    #[schema(minimum = 0, maximum = 2_592_000, default = 3600)]
    overlap_seconds: Option<u64>,
}

/// Another token of a sensor. It is shown only here.
#[derive(Serialize, ToSchema)]
pub(crate) struct RotatedToken<'a> {
    #[serde(rename = "sensorId")]
    #[schema(schema_with = sensor_id)]
    sensor_id: &'a str,
    /// The number of the new token.
    id: i64,
    #[schema(schema_with = token)]
    token: &'a str,
    /// When its old tokens of the role `sensor` end.
    #[schema(format = DateTime)]
    old_tokens_expire_at: String,
}

/// What is known of a sensor.
#[derive(Serialize, ToSchema)]
pub(crate) struct Sensor {
    #[serde(rename = "sensorId")]
    #[schema(schema_with = sensor_id)]
    sensor_id: String,
    /// The name it was registered with.
    name: String,
    #[schema(schema_with = labels)]
    labels: Labels,
    /// The zone in which its times without one are read, an IANA name.
    #[schema(required = true)]
    time_zone: Option<String>,
    /// What is set for it; null is as for all sensors.
    quota: SensorQuota,
    /// What holds for it now; null is no bound.
    quota_in_force: SensorQuota,
    rates: SensorRates,
    /// When it was registered.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it last sent something.
    #[schema(required = true, format = DateTime)]
    last_seen_at: Option<String>,
    /// When it was disabled; null while its tokens are taken.
    #[schema(required = true, format = DateTime)]
    disabled_at: Option<String>,
}

/// A page of sensors by id, and where the next one begins.
#[derive(Serialize, ToSchema)]
#[schema(as = Sensors)]
pub(crate) struct Page {
    sensors: Vec<Sensor>,
    /// The `after` of the next page; null after the last one.
    #[schema(required = true)]
    next_after: Option<String>,
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
            RegisterError::Unavailable(cause) => code::not_answered("the sensor was not registered", cause),
            refused => Code::InvalidName.problem(refused.to_string()),
        })?;
    let sensor_id = &*registered.sensor_id;
    let body = RegisteredSensor { sensor_id, token: registered.token.reveal() };
    Ok(made(&format!("/api/v1/sensor?sensorId={sensor_id}"), body))
}

/// A sensor about itself; an admin about any.
pub(crate) async fn get_sensor(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let identity = auth::permit(&app, &headers, Act::SeeItself).await?;
    let which: Which = parameters(query.as_deref(), "sensorId")?;
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
    let asked: Parameters = parameters(query.as_deref(), "limit and after")?;
    let limit = limit_of(asked.limit)?;
    let asked = app.shared.registry.sensors(limit + 1, asked.after.as_deref());
    let mut found = nowwhat::db(asked).await.map_err(unavailable)?;
    let next_after = cut(&mut found, limit, |sensor| sensor.id.to_string());
    let sensors = found.into_iter().map(|sensor| Sensor::of(&app, sensor)).collect();
    pages::whole(&app, &Page { sensors, next_after })
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
    Ok(nowwhat::extract::Json(Sensor::of(app, changed.map_err(not_changed)?)).into_response())
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
    let body = RotatedToken {
        sensor_id: id,
        id: rotated.token_id,
        token: rotated.token.reveal(),
        old_tokens_expire_at: event::format_time(rotated.old_expire_at),
    };
    Ok(made(&format!("/api/v1/tokens/{}", rotated.token_id), body))
}

/// 201 with something that is shown only once.
pub(crate) fn made(location: &str, body: impl Serialize) -> Response {
    let mut response = (StatusCode::CREATED, nowwhat::extract::Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::try_from(location).expect("ids are plain ASCII"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn one(app: &App, id: &str) -> Result<Response, Problem> {
    Ok(nowwhat::extract::Json(Sensor::of(app, known(app, id).await?)).into_response())
}

/// A sensor that there is.
///
/// # Errors
/// 404 when there is none.
pub(crate) async fn known(app: &App, id: &str) -> Result<SensorInfo, Problem> {
    let sensor = nowwhat::db(app.shared.registry.sensor(id)).await.map_err(unavailable)?;
    sensor.ok_or_else(|| Code::NotFound.problem(SensorError::Unknown(id.to_owned()).to_string()))
}

impl Sensor {
    fn of(app: &App, sensor: SensorInfo) -> Self {
        let time = |micros: Option<i64>| micros.map(event::format_time);
        let quotas = &app.shared.quotas;
        Self {
            quota: sensor.quota.into(),
            quota_in_force: quotas.in_force(sensor.quota).into(),
            rates: quotas.rates(&sensor.id).into(),
            sensor_id: sensor.id.to_string(),
            name: sensor.name,
            labels: sensor.labels,
            time_zone: sensor.time_zone,
            created_at: event::format_time(sensor.created_at),
            last_seen_at: time(sensor.last_seen_at),
            disabled_at: time(sensor.disabled_at),
        }
    }
}

/// How much a sensor may send.
#[derive(Serialize, ToSchema)]
struct SensorQuota {
    /// Events in a second.
    #[schema(required, examples(100))]
    events_per_second: Option<u64>,
    /// Bytes of bodies in a second.
    #[schema(required, examples(100_000))]
    bytes_per_second: Option<u64>,
    /// For how many seconds' worth it may send at once.
    #[schema(required, examples(10))]
    burst_seconds: Option<u64>,
}

impl From<Quota> for SensorQuota {
    fn from(quota: Quota) -> Self {
        let Quota { events_per_second, bytes_per_second, burst_seconds } = quota;
        Self { events_per_second, bytes_per_second, burst_seconds }
    }
}

/// What a sensor sent in the last minute.
#[derive(Serialize, ToSchema)]
struct SensorRates {
    /// Events in a second.
    #[schema(minimum = 0)]
    events_per_second: f64,
    /// Bytes of bodies in a second.
    #[schema(minimum = 0)]
    bytes_per_second: f64,
}

impl From<Rates> for SensorRates {
    fn from(rates: Rates) -> Self {
        let rounded = |rate: f64| (rate * 1000.0).round() / 1000.0;
        Self { events_per_second: rounded(rates.events_per_second), bytes_per_second: rounded(rates.bytes_per_second) }
    }
}

/// A field that is there: null is a value like others, and is refused where it is none.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// The same of an object: serde would read an array for it, member by member.
fn given_object<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Option<Option<T>>, D::Error> {
    let Some(members) = Option::<Map<String, Value>>::deserialize(from)? else { return Ok(Some(None)) };
    let read = serde_json::from_value(Value::Object(members)).map_err(D::Error::custom)?;
    Ok(Some(Some(read)))
}

/// The same of a whole number.
fn given_whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<u64>>, D::Error> {
    whole(from).map(Some)
}

/// A sensor was not changed.
pub(crate) fn not_changed(error: SensorError) -> Problem {
    match error {
        SensorError::Unknown(_) => Code::NotFound.problem(error.to_string()),
        SensorError::Labels | SensorError::Zone { .. } | SensorError::Quota { .. } | SensorError::Overlap => {
            Code::InvalidField.problem(error.to_string())
        }
        SensorError::Unavailable(cause) => code::not_answered("the sensor was not changed", cause),
    }
}

/// 503: the registry did not answer.
pub(crate) fn unavailable(error: registry::RegistryError) -> Problem {
    code::not_answered("the registry could not be read", error)
}
