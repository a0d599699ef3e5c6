//! The request log as events: each request that ended becomes an event of the sensor [`REQUESTS_SENSOR`], stored like any other.
//!
//! - It never holds up the request that it tells of: a request leaves its line in memory when it has ended, and a task of its own
//!   stores the lines, those of a second at once. What is stored that way is no request, so that no line makes another.
//! - It gives way: lines wait for room in the budget of requests in flight, and beyond `request_log.waiting_bytes_max` further ones
//!   are left out. Lines that the engine does not take are gone. Both are counted, and said in the log.
//! - Its events take no place in the window of duplicates: each is made once, by the collector. Their id is the request's, which a
//!   client may have chosen, and use again.
//! - There is no token in it, no parameter of an address and no value of a question's `params`.

use crate::clock::now_micros;
use crate::metrics::{RequestEnd, ServerMetrics};
use engine::{Engine, Outcome, Reservation, Submission};
use event::{Batch, FieldNames, Framing, ReadOptions};
use nowwhat::metrics::Label;
use nowwhat::request::Finished;
use registry::{Identity, Role};
use serde::Serialize;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// The sensor of these events. Nobody can register it.
pub const REQUESTS_SENSOR: &str = "catchment.requests";
/// Their type.
const TYPE: &str = "catchment.request";
/// Lines wait so long for others, to share one write.
const PERIOD: Duration = Duration::from_secs(1);
/// What is kept of the text of a question.
const SQL_BYTES_MAX: usize = 4 << 10;
/// What a waiting line takes besides its text.
const LINE_BYTES: usize = 64;

/// Who asked: noted of a request once its token or certificate is known.
#[derive(Clone)]
pub(crate) struct Asker(pub(crate) Arc<Identity>);

/// What was asked in SQL.
#[derive(Clone, Serialize)]
pub(crate) struct Asked {
    /// The beginning of it.
    sql: String,
    sql_bytes: usize,
}

impl Asked {
    pub(crate) fn of(sql: &str) -> Self {
        Self { sql: sql[..sql.floor_char_boundary(SQL_BYTES_MAX)].to_owned(), sql_bytes: sql.len() }
    }
}

/// A batch of events that was read.
#[derive(Clone, Serialize)]
pub(crate) struct Came {
    /// What its events and its rejected events have in the column of this name.
    received_at: String,
    events: u64,
}

impl Came {
    pub(crate) fn of(batch: &Batch, received_at: i64) -> Self {
        Self { received_at: event::format_time(received_at), events: batch.received }
    }
}

/// What became of the events of a batch.
#[derive(Clone, Serialize)]
pub(crate) struct Ended {
    accepted: u64,
    duplicates: u64,
    rejected: u64,
    /// Where its stored events lie, and no other's among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_position: Option<u64>,
}

impl Ended {
    pub(crate) fn of(outcome: &Outcome, rejected: u64) -> Self {
        let Outcome { accepted, duplicates, first_position, .. } = *outcome;
        let last_position = first_position.map(|first| first + accepted - 1);
        Self { accepted, duplicates, rejected, first_position, last_position }
    }
}

/// An event as it is read: an envelope.
#[derive(Serialize)]
struct Envelope<'a> {
    id: &'a str,
    r#type: &'static str,
    time: String,
    data: Data<'a>,
}

/// The fields of the request's line in the log, by the same names, then those of the audit, then what was noted of it.
#[derive(Serialize)]
struct Data<'a> {
    method: &'a str,
    route: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    controller: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    format: &'a str,
    status: u16,
    duration: f64,
    view: f64,
    db: f64,
    request_bytes: u64,
    response_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sensor: Option<&'a str>,
    #[serde(flatten)]
    asked: Option<&'a Asked>,
    #[serde(flatten)]
    came: Option<&'a Came>,
    #[serde(flatten)]
    ended: Option<&'a Ended>,
}

/// The line of a request: an event on one line.
fn line_of(request: &Finished<'_>) -> String {
    let asker = request.notes.get::<Asker>().map(|asker| &*asker.0);
    let data = Data {
        method: request.method.value(),
        route: request.route.value(),
        path: request.path,
        controller: request.controller,
        action: request.action,
        format: request.format,
        status: request.status.as_u16(),
        // As on its line: three places behind the point.
        duration: (request.duration.as_secs_f64() * 1e6).round() / 1e3,
        view: request.view_ms,
        db: request.db_ms,
        request_bytes: request.request_bytes,
        response_bytes: request.response_bytes,
        client: request.client,
        code: request.code,
        role: asker.map(|asker| asker.role).map(Role::name),
        token_id: asker.and_then(|asker| asker.token_id),
        token_name: asker.map(|asker| asker.name.as_str()),
        sensor: asker.and_then(|asker| asker.sensor.as_deref()),
        asked: request.notes.get(),
        came: request.notes.get(),
        ended: request.notes.get(),
    };
    let time = event::format_time(now_micros());
    let envelope = Envelope { id: request.request_id, r#type: TYPE, time, data };
    let mut line = serde_json::to_string(&envelope).expect("plain data always serializes");
    line.push('\n');
    line
}

/// How much the request log may take.
#[derive(Clone, Copy, Debug)]
pub struct RequestLogLimits {
    /// Lines that wait to be stored.
    pub waiting_bytes_max: u64,
    /// Lines that are stored at once, about.
    pub batch_bytes: u64,
}

/// Where requests leave their lines. Cheap to clone.
#[derive(Clone)]
pub struct RequestLog {
    shared: Arc<Shared>,
    /// Closed when nothing is stored any more.
    storing: watch::Receiver<()>,
}

struct Shared {
    waiting: Mutex<Waiting>,
    due: Notify,
    limits: RequestLogLimits,
    metrics: ServerMetrics,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<String>,
    bytes: u64,
    left_out: u64,
    is_closed: bool,
}

impl Waiting {
    fn is_due(&self, limits: &RequestLogLimits) -> bool {
        self.is_closed || self.bytes >= limits.batch_bytes
    }

    /// The next lines to be stored, about as many as are stored at once.
    fn batch(&mut self, batch_bytes: u64) -> Vec<String> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while bytes < batch_bytes
            && let Some(line) = self.lines.pop_front()
        {
            bytes += size(&line);
            lines.push(line);
        }
        self.bytes -= bytes;
        lines
    }

    fn put_back(&mut self, lines: Vec<String>) {
        for line in lines.into_iter().rev() {
            self.bytes += size(&line);
            self.lines.push_front(line);
        }
    }
}

fn size(line: &str) -> u64 {
    (line.len() + LINE_BYTES) as u64
}

impl RequestLog {
    /// A log, and what stores its lines: to be run until it ends, which [`RequestLog::close`] asks for.
    pub fn new(engine: Engine, limits: RequestLogLimits, metrics: ServerMetrics) -> (Self, Storing) {
        let shared = Arc::new(Shared { waiting: Mutex::default(), due: Notify::new(), limits, metrics });
        let (running, storing) = watch::channel(());
        (Self { shared: shared.clone(), storing }, Storing { shared, engine, _running: running })
    }

    /// Takes the line of a request that ended. It does not wait.
    pub fn take(&self, request: &Finished<'_>) {
        self.push(line_of(request));
    }

    fn push(&self, line: String) {
        let log = &self.shared.metrics.request_log;
        log.requests.inc();
        let mut waiting = self.shared.waiting();
        if waiting.is_closed || waiting.bytes + size(&line) > self.shared.limits.waiting_bytes_max {
            waiting.left_out += 1;
            log.end(RequestEnd::LeftOut, 1);
            return;
        }
        log.waiting.inc();
        waiting.bytes += size(&line);
        waiting.lines.push_back(line);
        let is_due = waiting.is_due(&self.shared.limits);
        drop(waiting);
        if is_due {
            self.shared.due.notify_one();
        }
    }

    /// Takes no line any more, and returns when those that wait are stored, or cannot be.
    pub async fn close(mut self) {
        self.shared.waiting().is_closed = true;
        self.shared.due.notify_one();
        // An error: whoever stored is gone.
        while self.storing.changed().await.is_ok() {}
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stores the lines of a [`RequestLog`].
pub struct Storing {
    shared: Arc<Shared>,
    engine: Engine,
    _running: watch::Sender<()>,
}

/// Why lines are not stored.
enum Unstored {
    /// Requests take all the room there is: they come first.
    NoRoom(Vec<String>),
    /// They are gone.
    Failed(String),
}

impl Storing {
    /// Stores lines as they come, until the log is closed.
    pub async fn run(self) {
        let Shared { limits, metrics, .. } = &*self.shared;
        loop {
            let is_closed = self.until_due().await;
            self.tell_left_out();
            loop {
                let lines = self.shared.waiting().batch(limits.batch_bytes);
                let count = lines.len() as u64;
                if count == 0 {
                    break;
                }
                let end = match self.store(lines).await {
                    Ok(()) => RequestEnd::Stored,
                    Err(Unstored::NoRoom(lines)) if !is_closed => {
                        self.shared.waiting().put_back(lines);
                        tokio::time::sleep(PERIOD).await;
                        break;
                    }
                    Err(Unstored::NoRoom(_)) => self.failed(count, "there is no room in ingest.in_flight_bytes_max"),
                    Err(Unstored::Failed(error)) => self.failed(count, &error),
                };
                metrics.request_log.end(end, count);
                metrics.request_log.waiting.dec_by(count as i64);
            }
            if is_closed {
                return;
            }
        }
    }

    /// Returns after a while, earlier when there is enough to be stored; whether the log is closed.
    async fn until_due(&self) -> bool {
        let due = async {
            while !self.shared.waiting().is_due(&self.shared.limits) {
                self.shared.due.notified().await;
            }
        };
        // The time being over is as good.
        let _ = tokio::time::timeout(PERIOD, due).await;
        self.shared.waiting().is_closed
    }

    async fn store(&self, lines: Vec<String>) -> Result<(), Unstored> {
        let text = lines.concat();
        let Some((batch, reservation)) = self.read(&text)? else { return Err(Unstored::NoRoom(lines)) };
        drop(lines);
        self.shared.metrics.events_read.inc_by(batch.received);
        let submission = Submission { batch, reservation, request: None };
        let stored = self.engine.submit(submission).await;
        stored.map(drop).map_err(|error| Unstored::Failed(error.to_string()))
    }

    /// The events, with their room; none when there is no room for them beside the requests in flight.
    fn read(&self, text: &str) -> Result<Option<(Batch, Reservation)>, Unstored> {
        let limits = event::Limits { batch_events_max: usize::MAX, ..event::Limits::default() };
        let (sensor, framing, body) = (REQUESTS_SENSOR, Framing::Ndjson, text.as_bytes());
        let bytes = event::columns_bytes_max(body, &framing, sensor.len(), &limits) as u64;
        let admission = self.engine.admission();
        // To ask for what is not there would make slow bodies go: those are requests.
        if admission.used_bytes() + bytes > admission.bytes_max() {
            return Ok(None);
        }
        let Ok(mut reservation) = admission.reserve(bytes) else { return Ok(None) };
        let fields = FieldNames::default();
        let options = ReadOptions { sensor, received_at: now_micros(), fields, time_zone: None, limits };
        let mut batch = event::read(body, framing, &options).map_err(|error| Unstored::Failed(error.to_string()))?;
        if let Some(rejection) = batch.rejected.first() {
            return Err(Unstored::Failed(format!("{}: {}", rejection.code.name(), rejection.reason)));
        }
        batch.keys.fill(None);
        let needed = batch.memory_bytes() as u64;
        reservation.resize(needed).map_err(|error| Unstored::Failed(error.to_string()))?;
        Ok(Some((batch, reservation)))
    }

    fn failed(&self, requests: u64, error: &str) -> RequestEnd {
        tracing::warn!(requests, error, "requests not stored in the request log: they are in log lines only");
        RequestEnd::Failed
    }

    fn tell_left_out(&self) {
        let requests = std::mem::take(&mut self.shared.waiting().left_out);
        if requests > 0 {
            tracing::warn!(
                requests,
                "requests left out of the request log: too many wait, see request_log.waiting_bytes_max"
            );
        }
    }
}

#[cfg(test)]
mod tests;
