//! `POST /api/v1/events`: a batch comes in, and each of its events has an end.

mod answer;
mod reading;

pub(crate) use answer::{Answer, Told, not_stored, refused, told, without_texts};
pub(crate) use reading::{Atomic, Parameters, framing};

use crate::app::App;
use crate::auth::{self, Sender};
use crate::body::{self, Coming, Read};
use crate::clock::now_micros;
use crate::code::Code;
use crate::handlers::rejected::{Rejections, Sent};
use crate::idempotency::{self, Given};
use crate::request_log::{Came, Ended};
use axum::extract::{Request, State};
use axum::response::Response;
use engine::{Claimed, Outcome, Request as KeyedRequest, Submission};
use http::request::Parts;
use nowwhat::Problem;
use nowwhat::request::note;
use reading::Reading;
use std::time::Instant;

/// Reads the batch, hands it to the engine, answers when it is durable.
pub(crate) async fn post_events(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let began = Instant::now();
    let (parts, mut body) = Coming::of(request);
    let answered = taken(&app, parts, &mut body).await;
    app.shared.metrics.ingest_seconds.observe(began.elapsed().as_secs_f64());
    body::done(&app, body, answered).await
}

async fn taken(app: &App, parts: Parts, body: &mut Coming) -> Result<Response, Problem> {
    let Sender { sensor, zone, quota } = auth::sender(app, &parts.headers).await?;
    let parameters = Parameters::of(parts.uri.query())?;
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
    note(|| Came::of(&batch, received_at));
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
    note(|| Ended::of(&outcome, told.rejected_total));
    let mut response = answer::of(app, outcome, &told);
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
    let mut response = answer::of(app, before.outcome(), &told);
    idempotency::mark(app, Given::Before, response.headers_mut());
    Ok(response)
}

fn content(parts: &Parts, read: &Read) -> u128 {
    body::work(read.bytes.len(), || idempotency::content(parts, &read.bytes))
}
