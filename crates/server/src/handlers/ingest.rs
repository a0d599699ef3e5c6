//! `POST /api/v1/events`: a batch comes in, and each of its events has an end.

use crate::app::{App, Limits};
use crate::auth::{self, Sender};
use crate::body::{self, Coming, Read};
use crate::clock::now_micros;
use crate::code::Code;
use crate::handlers::rejected::{Rejections, Sent};
use crate::idempotency::{self, Given};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use engine::{AcceptError, Claimed, Outcome, Request as KeyedRequest, Submission, TOLD_BYTES_MAX};
use event::{Batch, FieldNames, Framing, ReadError, ReadOptions, Rejection};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use nowwhat::Problem;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// How many events of the batch were not stored because they were rejected.
static REJECTED_HEADER: HeaderName = HeaderName::from_static("catchment-rejected");
/// True length of the duplicate window in seconds.
static WINDOW_HEADER: HeaderName = HeaderName::from_static("catchment-duplicate-window");
/// Most rejections that an answer lists.
const LISTED_MAX: usize = 1000;

/// The parameters of the address.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    /// Where plain JSON has the type, as a JSON pointer or a key; empty for nowhere.
    #[param(pattern = "^([^/].*|(/([^/~]|~[01])*)*)$", default = "/type")]
    type_field: Option<String>,
    /// Where plain JSON has the time, as a JSON pointer or a key; empty for nowhere.
    #[param(pattern = "^([^/].*|(/([^/~]|~[01])*)*)$", default = "/time")]
    time_field: Option<String>,
    /// Where plain JSON has the id, as a JSON pointer or a key; by default nowhere.
    #[param(pattern = "^([^/].*|(/([^/~]|~[01])*)*)$", default = "")]
    id_field: Option<String>,
    /// Where plain JSON has the subject, as a JSON pointer or a key; by default nowhere.
    #[param(pattern = "^([^/].*|(/([^/~]|~[01])*)*)$", default = "")]
    subject_field: Option<String>,
    /// The zone in which times without one are read, an IANA name such as `Europe/Berlin`.
    time_zone: Option<String>,
    /// Whether one rejected event rejects the batch.
    #[serde(default)]
    #[param(inline)]
    atomic: Atomic,
}

/// Whether one rejected event rejects the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
pub(crate) enum Atomic {
    #[default]
    #[serde(rename = "false")]
    No,
    #[serde(rename = "true")]
    Yes,
}

/// What became of each event of a batch. What is accepted is on stable storage.
#[derive(Serialize, ToSchema)]
#[schema(as = Accepted)]
pub(crate) struct Answer<'a> {
    /// How many are stored now.
    accepted: u64,
    /// How many were stored before.
    duplicates: u64,
    /// How many of the accepted have an id that an event with other content has; left out when there are none.
    #[serde(skip_serializing_if = "is_zero")]
    reused_ids: u64,
    /// The first 1,000 rejections.
    #[schema(value_type = Vec<Rejected>)]
    rejected: &'a RawValue,
    /// How many were rejected.
    rejected_total: u64,
}

/// What is told of rejected events; with a key it is kept, so that the same can be told again.
#[derive(Serialize, Deserialize)]
struct Told {
    rejected: Box<RawValue>,
    rejected_total: u64,
}

/// Why one event of a batch was rejected.
#[derive(Serialize, ToSchema)]
#[schema(as = Rejection)]
pub(crate) struct Rejected<'a> {
    /// Its index in the batch, from 0.
    index: u64,
    #[schema(schema_with = crate::openapi::rejection_code)]
    code: &'static str,
    /// The field at fault, as a JSON pointer, or the name of a header at fault, such as `ce-time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pointer: Option<&'a str>,
    /// Why, and what to do.
    reason: &'a str,
}

/// Reads the batch, hands it to the engine, answers when it is durable.
pub(crate) async fn post_events(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, mut body) = Coming::of(request);
    let answered = taken(&app, parts, &mut body).await;
    body::done(&app, body, answered).await
}

async fn taken(app: &App, parts: Parts, body: &mut Coming) -> Result<Response, Problem> {
    let Sender { sensor, zone, quota } = auth::sender(app, &parts.headers).await?;
    let parameters = parameters(parts.uri.query())?;
    let claimed = idempotency::claimed(app, &sensor, &parts.headers)?;
    // An answer given before receives no event again.
    let events_min = u64::from(!matches!(claimed, Some(Claimed::Answered(_))));
    body.sent_by(sensor.clone());
    body.charged(app.shared.quotas.charge(&sensor, quota, events_min));
    let mut read = body::read(app, &parts.headers, body, app.shared.limits.body_bytes_max).await?;
    let framing = framing(&parts.headers)?;
    let key = match claimed {
        None => None,
        Some(Claimed::First(claim)) => Some((claim, content(&parts, &read))),
        Some(Claimed::Answered(before)) => {
            app.shared.registry.seen(&sensor, now_micros());
            return again(app, &before, content(&parts, &read));
        }
    };
    // Many small events are larger as columns than as text: their room is taken before they are read.
    let size = read.bytes.len();
    let counted = || event::columns_bytes_max(&read.bytes, &framing, sensor.len(), &app.shared.limits.event);
    let columns_bytes = body::work(size, counted) as u64;
    read.reservation.resize(columns_bytes.max(size as u64)).map_err(body::turned_away)?;
    let atomic = parameters.atomic;
    let sent = Sent { sensor: &sensor, mode: framing.mode(), received_at: now_micros() };
    let received_at = sent.received_at;
    let reading = Reading { sensor: &sensor, received_at, zone, framing, parameters, limits: &app.shared.limits };
    let text = read.bytes.clone();
    let (batch, mut reservation) = body::work(size, || reading.batch(read))?;
    body.received(batch.received)?;
    app.shared.metrics.events_read.inc_by(batch.received);
    if let Some(newest) = batch.newest_time_micros() {
        app.shared.quotas.skewed(&sensor, received_at.saturating_sub(newest));
    }
    let rejections = Rejections::of(&parts, sent, &batch, &text);
    drop(text);
    let (told, request) = match key {
        None => (Told::of(&batch), None),
        Some((claim, content)) => {
            let told = Told::fitting(&batch);
            let request = KeyedRequest { claim, content, told: told.kept() };
            (told, Some(request))
        }
    };
    let bytes = (batch.memory_bytes() + request.as_ref().map_or(0, |request| request.told.len())) as u64;
    // Rejected events are parts of the body, which stays until they are kept.
    let with_body = rejections.as_ref().map_or(0, |rejections| rejections.body_bytes);
    reservation.resize(bytes + with_body).map_err(|refused| {
        // The events were read: they have an end.
        app.shared.engine.failed(batch.received);
        body::turned_away(refused)
    })?;
    app.shared.registry.seen(&sensor, now_micros());
    let nothing = batch.rejected_total > 0 && (atomic == Atomic::Yes || batch.rejected_total == batch.received);
    let refusal = nothing.then(|| refused(&batch, atomic));
    let given = request.is_some().then_some(Given::Now);
    let submission = Submission { batch, reservation, request };
    let outcome = match rejections {
        None => nowwhat::db(app.shared.engine.submit(submission)).await.map_err(not_stored)?,
        Some(rejections) => Ending { app: app.clone(), rejections, refusal, submission, bytes }.end().await?,
    };
    let mut response = answer(app, outcome, &told);
    if let Some(given) = given {
        idempotency::mark(app, given, response.headers_mut());
    }
    Ok(response)
}

/// The last steps of a batch with rejected events.
struct Ending {
    app: App,
    rejections: Rejections,
    /// The answer, when nothing of the batch is to be stored.
    refusal: Option<Problem>,
    submission: Submission,
    /// What it takes of the budget once its rejected events are kept.
    bytes: u64,
}

impl Ending {
    /// Keeps what is rejected, then stores the others; also when the client goes away meanwhile, so that every event has its end.
    async fn end(self) -> Result<Outcome, Problem> {
        let ended = nowwhat::spawn(self.steps()).await;
        ended.unwrap_or_else(|panic| Err(Code::Internal.problem("the batch did not come to its end").cause(panic)))
    }

    async fn steps(self) -> Result<Outcome, Problem> {
        let Self { app, rejections, refusal, mut submission, bytes } = self;
        let received = submission.batch.received;
        if let Err(problem) = rejections.keep(&app).await {
            app.shared.engine.failed(received);
            return Err(problem);
        }
        submission.reservation.resize(bytes).expect("it shrinks");
        match refusal {
            None => nowwhat::db(app.shared.engine.submit(submission)).await.map_err(not_stored),
            Some(problem) => {
                // The others of an atomic batch are as they should be: there is nothing to be mended.
                app.shared.rejected.left_out(received - submission.batch.rejected_total);
                app.shared.engine.rejected(received);
                Err(problem)
            }
        }
    }
}

/// The answer that a request with this key got, when it was the same.
fn again(app: &App, before: &engine::Answer, content: u128) -> Result<Response, Problem> {
    if before.content() != content {
        return Err(idempotency::reused());
    }
    let told = Told::read(before.told())
        .map_err(|e| Code::Internal.problem("the answer of before cannot be read").cause(e))?;
    app.shared.engine.replayed();
    let mut response = answer(app, before.outcome(), &told);
    idempotency::mark(app, Given::Before, response.headers_mut());
    Ok(response)
}

impl Told {
    /// All that is listed.
    fn of(batch: &Batch) -> Self {
        Self::first(batch, batch.rejected.len().min(LISTED_MAX))
    }

    fn first(batch: &Batch, count: usize) -> Self {
        let rejected = to_raw_value(&listed(&batch.rejected[..count])).expect("plain data always serializes");
        Self { rejected, rejected_total: batch.rejected_total }
    }

    /// As many of the listed rejections as can be kept: what cannot be told again is not told the first time.
    fn fitting(batch: &Batch) -> Self {
        let fits = |count: usize| Self::first(batch, count).kept().len() <= TOLD_BYTES_MAX;
        let (mut fitting, mut beyond) = (0, batch.rejected.len().min(LISTED_MAX) + 1);
        while fitting + 1 < beyond {
            let middle = fitting.midpoint(beyond);
            if fits(middle) { fitting = middle } else { beyond = middle }
        }
        Self::first(batch, fitting)
    }

    /// The bytes that are kept: none where nothing was rejected.
    fn kept(&self) -> Vec<u8> {
        match self.rejected_total {
            0 => Vec::new(),
            _ => serde_json::to_vec(self).expect("plain data always serializes"),
        }
    }

    fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        match bytes {
            [] => Ok(Self { rejected: to_raw_value(&[(); 0])?, rejected_total: 0 }),
            _ => serde_json::from_slice(bytes),
        }
    }
}

/// What reading a body needs to know.
struct Reading<'a> {
    sensor: &'a Arc<str>,
    received_at: i64,
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
            received_at: self.received_at,
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

fn content(parts: &Parts, read: &Read) -> u128 {
    body::work(read.bytes.len(), || idempotency::content(parts, &read.bytes))
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
    let known = "type_field, time_field, id_field, subject_field, time_zone and atomic (true or false)";
    crate::parameters::parameters(query, known)
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

fn answer(app: &App, outcome: Outcome, told: &Told) -> Response {
    let body = Answer {
        accepted: outcome.accepted,
        duplicates: outcome.duplicates,
        reused_ids: outcome.reused_ids,
        rejected: &told.rejected,
        rejected_total: told.rejected_total,
    };
    let mut response = nowwhat::extract::Json(body).into_response();
    let window = app.shared.engine.status().window_seconds();
    response.headers_mut().insert(WINDOW_HEADER.clone(), HeaderValue::from(window));
    if told.rejected_total > 0 {
        response.headers_mut().insert(REJECTED_HEADER.clone(), HeaderValue::from(told.rejected_total));
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
    let rejected = serde_json::to_value(listed(&batch.rejected[..batch.rejected.len().min(LISTED_MAX)]))
        .expect("plain data always serializes");
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
    const UNKNOWN: &str = "whether the batch is stored is decided at the next start; events sent with an id, and requests with an `Idempotency-Key`, can be sent again without doubling";
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
