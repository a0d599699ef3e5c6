//! `POST /api/v1/events`: a batch comes in, and each of its events has an end.

use crate::app::{App, Limits};
use crate::auth;
use crate::body::{self, Coming, Read};
use crate::code::Code;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use engine::{AcceptError, Outcome, Submission};
use event::{Batch, FieldNames, Framing, ReadError, ReadOptions, Rejection};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use nowwhat::Problem;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// How many events of the batch were not stored because they were rejected.
static REJECTED_HEADER: HeaderName = HeaderName::from_static("catchment-rejected");
/// True length of the duplicate window in seconds.
static WINDOW_HEADER: HeaderName = HeaderName::from_static("catchment-duplicate-window");
/// Larger bodies are read where they do not hold up other requests of the same thread.
const INLINE_BYTES_MAX: usize = 1 << 20;

/// The parameters of the address.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    type_field: Option<String>,
    time_field: Option<String>,
    id_field: Option<String>,
    subject_field: Option<String>,
    time_zone: Option<String>,
    #[serde(default)]
    atomic: Atomic,
}

/// Whether one rejected event rejects the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum Atomic {
    #[default]
    #[serde(rename = "false")]
    No,
    #[serde(rename = "true")]
    Yes,
}

/// The answer: what became of each event.
#[derive(Serialize)]
struct Answer<'a> {
    accepted: u64,
    duplicates: u64,
    #[serde(skip_serializing_if = "is_zero")]
    reused_ids: u64,
    rejected: &'a [Rejected<'a>],
    rejected_total: u64,
}

#[derive(Serialize)]
struct Rejected<'a> {
    index: u64,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<&'a str>,
    reason: &'a str,
}

/// Reads the batch, hands it to the engine, answers when it is durable.
pub(crate) async fn post_events(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, mut body) = Coming::of(request);
    let answered = taken(&app, parts, &mut body).await;
    body::done(&app, body, answered).await
}

async fn taken(app: &App, parts: Parts, body: &mut Coming) -> Result<Response, Problem> {
    let (sensor, zone) = auth::sender(app, &parts.headers).await?;
    let parameters = parameters(parts.uri.query())?;
    let mut read = body::read(app, &parts.headers, body, app.shared.limits.body_bytes_max).await?;
    // Many small events are larger as columns than as text: their room is taken before they are read.
    let framing = framing(&parts.headers)?;
    let columns_bytes = event::columns_bytes_max(&read.bytes, &framing, sensor.len(), &app.shared.limits.event) as u64;
    read.reservation.resize(columns_bytes.max(read.bytes.len() as u64)).map_err(body::turned_away)?;
    let atomic = parameters.atomic;
    let reading = Reading { sensor: &sensor, zone, framing, parameters, limits: &app.shared.limits };
    let (batch, mut reservation) = match read.bytes.len() {
        0..=INLINE_BYTES_MAX => reading.batch(read)?,
        _ => tokio::task::block_in_place(|| reading.batch(read))?,
    };
    reservation.resize(batch.memory_bytes() as u64).map_err(body::turned_away)?;
    app.shared.registry.seen(&sensor, now_micros());
    if batch.rejected_total > 0 && (atomic == Atomic::Yes || batch.rejected_total == batch.received) {
        app.shared.engine.rejected(batch.received);
        return Err(refused(&batch, atomic));
    }
    let rejections = batch.rejected.clone();
    let rejected_total = batch.rejected_total;
    let submission = Submission { batch, reservation };
    let outcome = nowwhat::db(app.shared.engine.submit(submission)).await.map_err(not_stored)?;
    Ok(answer(app, outcome, &rejections, rejected_total))
}

/// What reading a body needs to know.
struct Reading<'a> {
    sensor: &'a Arc<str>,
    /// The zone set for the sensor.
    zone: Option<event::TimeZone>,
    framing: Framing<'a>,
    parameters: Parameters,
    limits: &'a Limits,
}

impl Reading<'_> {
    fn batch(self, read: Read) -> Result<(Batch, engine::Reservation), Problem> {
        let options = ReadOptions {
            sensor: self.sensor,
            received_at: now_micros(),
            fields: fields(&self.parameters),
            time_zone: time_zone(&self.parameters)?.or(self.zone),
            limits: self.limits.event.clone(),
        };
        let batch = event::read(&read.bytes, self.framing, &options).map_err(|error| {
            let code = match error {
                ReadError::TooManyEvents { .. } => Code::TooManyEvents,
                ReadError::Pointer(_) => Code::InvalidParameter,
                ReadError::Syntax { .. } => Code::InvalidBody,
            };
            code.problem(error.to_string())
        })?;
        Ok((batch, read.reservation))
    }
}

/// How the body is cut into events, by the content type and the headers of a CloudEvent.
fn framing(headers: &HeaderMap) -> Result<Framing<'_>, Problem> {
    let unsupported = |detail: String| Code::UnsupportedMediaType.problem(detail);
    let mut given = headers.get_all(header::CONTENT_TYPE).iter();
    if let (Some(first), Some(second)) = (given.next(), given.next())
        && first != second
    {
        return Err(unsupported(format!("the header `content-type` is there twice, as {first:?} and {second:?}")));
    }
    let content_type = body::header_text(headers, &header::CONTENT_TYPE)?;
    let all = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    event::framing_of(content_type, all).map_err(|e| unsupported(e.to_string()))
}

fn parameters(query: Option<&str>) -> Result<Parameters, Problem> {
    serde_urlencoded::from_str(query.unwrap_or_default()).map_err(|e| {
        Code::InvalidParameter.problem(format!(
            "{e}; known are type_field, time_field, id_field, subject_field, time_zone and atomic (true or false)"
        ))
    })
}

fn fields(parameters: &Parameters) -> FieldNames {
    let mut fields = FieldNames::default();
    let given = [
        (&parameters.type_field, &mut fields.type_field),
        (&parameters.time_field, &mut fields.time_field),
        (&parameters.id_field, &mut fields.id_field),
        (&parameters.subject_field, &mut fields.subject_field),
    ];
    for (value, field) in given {
        if let Some(value) = value {
            *field = value.clone();
        }
    }
    fields
}

fn time_zone(parameters: &Parameters) -> Result<Option<event::TimeZone>, Problem> {
    let Some(name) = &parameters.time_zone else {
        return Ok(None);
    };
    event::time_zone(name).map(Some).map_err(|e| Code::InvalidParameter.problem(format!("time_zone: {e}")))
}

fn answer(app: &App, outcome: Outcome, rejections: &[Rejection], rejected_total: u64) -> Response {
    let body = Answer {
        accepted: outcome.accepted,
        duplicates: outcome.duplicates,
        reused_ids: outcome.reused_ids,
        rejected: &listed(rejections),
        rejected_total,
    };
    let mut response = nowwhat::extract::Json(body).into_response();
    let window = app.shared.engine.status().window_seconds();
    response.headers_mut().insert(WINDOW_HEADER.clone(), HeaderValue::from(window));
    if rejected_total > 0 {
        response.headers_mut().insert(REJECTED_HEADER.clone(), HeaderValue::from(rejected_total));
    }
    response
}

fn refused(batch: &Batch, atomic: Atomic) -> Problem {
    let code = if atomic == Atomic::Yes { Code::AtomicRejected } else { Code::AllRejected };
    let detail = match batch.rejected.first() {
        Some(first) => format!(
            "{} of {} events were rejected; the first, at index {}: {}",
            batch.rejected_total, batch.received, first.index, first.reason
        ),
        None => format!("{} of {} events were rejected", batch.rejected_total, batch.received),
    };
    let rejected = serde_json::to_value(listed(&batch.rejected)).expect("plain data always serializes");
    code.problem(detail)
        .header(REJECTED_HEADER.clone(), HeaderValue::from(batch.rejected_total))
        .extension("rejected", rejected)
        .extension("rejected_total", batch.rejected_total.into())
}

fn listed(rejections: &[Rejection]) -> Vec<Rejected<'_>> {
    rejections
        .iter()
        .map(|r| Rejected { index: r.index, code: r.code.name(), pointer: r.pointer.as_deref(), reason: &r.reason })
        .collect()
}

fn not_stored(error: AcceptError) -> Problem {
    const NOTHING: &str = "nothing of the batch was stored";
    // A frame may have been written and not synced: the next start finds it, or not.
    const UNKNOWN: &str = "whether the batch is stored is decided at the next start; events sent with an id can be sent again without doubling";
    let (code, stored) = match &error {
        AcceptError::StorageFull { .. } => (Code::StorageFull, NOTHING),
        AcceptError::SealBehind { .. } => (Code::SealBehind, NOTHING),
        AcceptError::TooLarge { .. } => (Code::BodyTooLarge, NOTHING),
        AcceptError::Poisoned { .. } => (Code::LogPoisoned, UNKNOWN),
        AcceptError::Stopping => (Code::Stopping, UNKNOWN),
    };
    code.problem(format!("{}: {stored}", code.title())).cause(error)
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
