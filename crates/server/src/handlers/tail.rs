//! `GET /api/v1/events/tail`: events as they come, in the order of their positions, as server-sent events.
//!
//! Each has its position as its id, so a client that comes back with `Last-Event-ID` goes on behind it, in what is stored as in what is live.
//! Nothing is kept for a client: it is told the next events once it has taken those before. One that is [`BEHIND_MAX`] events behind is told how many
//! it missed, and goes on with the newest.

use crate::app::App;
use crate::auth::{self, Listener};
use crate::authorisation::Act;
use crate::code::Code;
use crate::handlers::events::{COLUMNS, Conditions, each};
use crate::handlers::query::{ask, problem_of};
use crate::handlers::sensors::known;
use crate::pages::Held;
use crate::parameters::parameters;
use crate::request_log::REQUESTS_SENSOR;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderName, header};
use nowwhat::Problem;
use query::{BytesAs, Query};
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until, timeout};
use utoipa::IntoParams;

/// So many tails are open at once.
pub(crate) const TAILS_MAX: usize = 32;
/// Events that a client may be behind: of more it is told how many it missed.
pub(crate) const BEHIND_MAX: u64 = 10_000;
/// Events of one look.
const LOOK_EVENTS: u64 = 1_000;
/// Bytes of one look, beside an event that goes beyond them.
const LOOK_BYTES: usize = 256 << 10;
/// Between two looks for what is new.
const PAUSE: Duration = Duration::from_millis(200);
/// Something is told at least so often, so that everybody between knows that the connection lives, and the client where it is.
const SILENCE: Duration = Duration::from_secs(15);
static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The parameters of the address.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    /// Only events of this sensor.
    sensor: Option<String>,
    /// Only events of this type.
    #[serde(rename = "type")]
    event_type: Option<String>,
    /// Only events whose time is not before this one.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Only events whose time is before this one.
    #[param(format = DateTime)]
    until: Option<String>,
    /// Begin behind this position; without it, and without `Last-Event-ID`, with what comes from now on.
    #[param(minimum = 0)]
    after: Option<u64>,
}

/// Events as they come.
pub(crate) async fn get_tail(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    auth::permit(&app, &headers, Act::TailEvents).await?;
    let wanted: Parameters = parameters(query.as_deref(), "sensor, type, since, until and after")?;
    let Parameters { sensor, event_type, since, until, after } = wanted;
    let conditions = Conditions::of([&sensor, &event_type, &since, &until])?;
    let after = last_event_id(&headers)?.or(after);
    if let Some(id) = sensor.as_deref().filter(|id| *id != REQUESTS_SENSOR) {
        known(&app, id).await?;
    }
    let seat = app.tails.clone().try_acquire_owned();
    let seat =
        seat.map_err(|_| Code::TooManyQueries.problem(format!("{TAILS_MAX} tails are open: end one of them")))?;
    let visible = app.shared.engine.visible();
    let newest = *visible.borrow();
    app.shared.metrics.tails.open.inc();
    let asked = after.unwrap_or(newest);
    let after = asked.min(newest);
    // Whoever comes back before the first event goes on from here.
    let mut begin = format!("retry: 1000\nid: {after}\nevent: begin\ndata: {}\n\n", json!({ "after": after }));
    if asked > after {
        // It was given before a backup was restored, or by another collector: what came meanwhile is not known.
        begin += &format!("event: reset\ndata: {}\n\n", json!({ "asked": asked, "after": after }));
    }
    let listener = Listener::new(app, headers, Act::TailEvents);
    let tail = Tail { listener, conditions, visible, after, limit: LOOK_EVENTS, looked: None, _seat: seat };
    let begun = futures::stream::iter([Ok::<_, Infallible>(Bytes::from(begin))]);
    let told = futures::stream::unfold(tail, async |mut tail| Some((Ok(tail.next().await?), tail)));
    Ok(sent_events(begun.chain(told)))
}

/// Server-sent events, which nobody between is to keep or to gather.
pub(crate) fn sent_events(told: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // To nginx.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(told)).into_response()
}

/// Where a client was that comes back.
fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(&LAST_EVENT_ID) else { return Ok(None) };
    match value.to_str().ok().map(str::parse) {
        Some(Ok(position)) => Ok(Some(position)),
        _ => Err(Code::InvalidParameter.problem("Last-Event-ID is the position of an event, as the tail told it")),
    }
}

/// One client, and where it is.
struct Tail {
    listener: Listener,
    conditions: Conditions,
    visible: watch::Receiver<u64>,
    /// All up to here was told, or is not wanted.
    after: u64,
    /// Events of the next look: fewer when they are large.
    limit: u64,
    looked: Option<Instant>,
    _seat: OwnedSemaphorePermit,
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.listener.app.shared.metrics.tails.open.dec();
    }
}

impl Tail {
    /// What is to be told next; nothing when it is at its end.
    async fn next(&mut self) -> Option<Bytes> {
        let stopping = self.listener.app.shared.health.until_stopping();
        tokio::select! {
            told = self.look_on() => told,
            () = stopping => None,
        }
    }

    async fn look_on(&mut self) -> Option<Bytes> {
        let silent_until = Instant::now() + SILENCE;
        loop {
            // Also while much comes of which nothing is wanted.
            if Instant::now() >= silent_until {
                return Some(Bytes::from(format!("id: {}\n\n", self.after)));
            }
            if !self.listener.may_go_on().await {
                return None;
            }
            let grown = self.visible.wait_for(|newest| *newest > self.after);
            match timeout(silent_until.saturating_duration_since(Instant::now()).min(auth::TRUST), grown).await {
                Ok(Ok(_)) => {}
                // The engine is gone.
                Ok(Err(_)) => return None,
                Err(_) => continue,
            }
            if let Some(looked) = self.looked {
                sleep_until(looked + PAUSE).await;
            }
            let told = self.look().await;
            match told {
                Ok(told) if !told.is_empty() => return Some(told),
                Ok(_) => {}
                Err(problem) if problem.code() == Code::QueryTooLarge.name() && self.limit > 1 => self.limit /= 4,
                // Others ask, or do not read: later there is room again.
                Err(problem)
                    if [Code::TooManyQueries, Code::InFlightFull].map(Code::name).contains(&problem.code()) =>
                {
                    self.looked = Some(Instant::now());
                }
                Err(problem) => {
                    tracing::warn!(code = problem.code(), after = self.after, "a tail ends: its events cannot be read");
                    return None;
                }
            }
        }
    }

    /// What is new, as far as it goes at once. Nothing when nothing of it is wanted.
    async fn look(&mut self) -> Result<Bytes, Problem> {
        let newest = *self.visible.borrow_and_update();
        if newest - self.after > BEHIND_MAX
            && let Some(missed) = self.missed(newest).await?
        {
            return Ok(missed);
        }
        let limit = self.limit.max(1);
        let query = self.query(COLUMNS, newest, &format!("ORDER BY position LIMIT {limit}"));
        let (mut told, mut last, mut count, mut is_full) = (Held::of(&self.listener.app), self.after, 0, false);
        let is_cut = each(&self.listener.app, Query { limit: Some(limit), ..query }, |event| {
            let position = event.position().and_then(|position| position.parse().ok()).unwrap_or(last);
            match told.line(&format!("id: {position}\ndata: "), &event, "\n\n") {
                // What is there goes first, and gives its room back.
                Err(_) if count > 0 => is_full = true,
                added => {
                    added?;
                    (last, count) = (position, count + 1);
                    is_full = told.len() >= LOOK_BYTES || count == limit;
                }
            }
            Ok(if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
        .await?;
        is_full |= is_cut;
        self.after = if is_full { last } else { newest };
        self.looked = (!is_full).then(Instant::now);
        self.limit = (limit * 2).min(LOOK_EVENTS);
        Ok(told.bytes())
    }

    /// What a client is told that is too far behind, and goes on behind it.
    async fn missed(&mut self, newest: u64) -> Result<Option<Bytes>, Problem> {
        let query = self.query("position", newest, &format!("ORDER BY position DESC LIMIT 1 OFFSET {BEHIND_MAX}"));
        let Some(until) = self.number(query).await? else { return Ok(None) };
        let missed = self.number(self.query("count(*)", until, "")).await?.unwrap_or(0);
        let told = json!({ "missed": missed, "after": self.after, "until": until });
        self.after = until;
        self.listener.app.shared.metrics.tails.missed.inc_by(missed);
        Ok(Some(format!("id: {until}\nevent: missed\ndata: {told}\n\n").into()))
    }

    /// What is wanted behind what was told, up to a position.
    fn query(&self, columns: &str, until: u64, rest: &str) -> Query {
        let mut conditions = self.conditions.clone();
        conditions.add("position > ?", Value::from(self.after));
        conditions.add("position <= ?", Value::from(until));
        let sql = format!("SELECT {columns} FROM events{conditions} {rest}");
        Query { sql, params: conditions.params, ..Query::default() }
    }

    async fn number(&self, query: Query) -> Result<Option<u64>, Problem> {
        let mut found = None;
        let mut answer = ask(&self.listener.app, query).await?;
        while let Some(batch) = answer.next().await {
            let rows = query::json_rows(&batch.map_err(problem_of)?, BytesAs::Base64).map_err(problem_of)?;
            found = rows.first().and_then(|row| row.first()?.as_u64()).or(found);
        }
        Ok(found)
    }
}
