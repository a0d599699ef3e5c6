//! A request's line in the log and its place in the metrics, written when its answer ends.

use super::Here;
use super::finished::Finished;
use super::metrics::Outcome;
use crate::current::{self, Current};
use crate::debug::Ended;
use crate::metrics::{Label, Method, Route};
use crate::problem::{Asked, Problem};
use crate::routing::Name;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// Status that the log and the metrics give a request whose client went away before the answer.
fn client_gone() -> StatusCode {
    StatusCode::from_u16(499).expect("three digits")
}
/// The format of an answer that names none.
const ANY: &str = "*/*";
/// An answer of known length up to this is taken as sent when it is handed over: it is in memory and fits the socket's buffers.
const AT_ONCE_BYTES_MAX: u64 = 64 << 10;

/// A request from its head to the end of its answer. When it is dropped before its end, the client went away.
pub(super) struct Line {
    pub(super) here: Arc<Here>,
    pub(super) current: Arc<Current>,
    pub(super) span: tracing::Span,
    method: Method,
    route: Route,
    pub(super) asked: Asked,
    pub(super) started: Instant,
    response_bytes: u64,
    format: Cow<'static, str>,
    status: StatusCode,
    problem: Option<Problem>,
    /// Why the answer ended before its end.
    broken: Option<String>,
    ended: bool,
}

impl Line {
    pub(super) fn begin(here: &Arc<Here>, current: Arc<Current>, span: tracing::Span, request: &Request) -> Self {
        here.shared.metrics.in_flight.inc();
        Self {
            here: here.clone(),
            current,
            span,
            method: request.method().into(),
            route: Route::of(request.extensions()),
            asked: Asked::of(request),
            started: Instant::now(),
            response_bytes: 0,
            format: ANY.into(),
            status: client_gone(),
            problem: None,
            broken: None,
            ended: false,
        }
    }

    /// Runs something as part of the request: its span, its times, its id. A panic is caught.
    pub(super) fn part<T>(&self, run: impl FnOnce() -> T) -> std::thread::Result<T> {
        let _entered = self.span.enter();
        current::in_scope(&self.current, || std::panic::catch_unwind(AssertUnwindSafe(run)))
    }

    /// Counts the bytes of the body that come: what a client says of its length need not be true.
    pub(super) fn counting(&self, request: Request) -> Request {
        if request.body().is_end_stream() {
            return request;
        }
        request.map(|body| Body::new(Counted { body, current: self.current.clone() }))
    }

    /// The answer, with the line ending where it ends.
    pub(super) fn answered(mut self, response: Response, problem: Option<Problem>) -> Response {
        self.status = response.status();
        self.problem = problem;
        self.format = format_of(response.headers());
        match response.body().size_hint().exact() {
            // Of an answer to HEAD nothing but its head is sent.
            _ if self.method == Method::Head => {
                self.end();
                response
            }
            Some(bytes) if bytes <= AT_ONCE_BYTES_MAX => {
                self.response_bytes = bytes;
                self.end();
                response
            }
            _ => response.map(|body| Body::new(Answering { body, line: self })),
        }
    }

    /// The answer's body failed. Its head is gone already, with the status that it had; what is logged and counted is the failure.
    fn break_off(&mut self, cause: String) {
        self.status = StatusCode::INTERNAL_SERVER_ERROR;
        self.broken = Some(format!("the answer broke off: {cause}"));
        self.end();
    }

    /// Milliseconds since the head came.
    pub(super) fn elapsed_ms(&self) -> f64 {
        current::millis(self.started.elapsed())
    }

    fn end(&mut self) {
        self.ended = true;
        let time = self.started.elapsed();
        let outcome = Outcome {
            method: self.method,
            route: &self.route,
            status: self.status,
            seconds: time.as_secs_f64(),
            request_bytes: self.current.body_bytes.load(Ordering::Relaxed),
            response_bytes: self.response_bytes,
        };
        self.here.metrics.count(&self.here.shared.metrics, &outcome);
        self.tell_watchers(time, outcome.request_bytes);
        let (method, status) = (self.method.value(), self.status.as_u16());
        let named = self.current.handler.get().copied();
        let path = self.asked.path();
        let message = Message { status: self.status, method: self.method, path, named };
        let (controller, action) = (named.map(|name| name.controller), named.map(|name| name.action));
        let format = self.format.as_ref();
        let duration = current::millis(time);
        let (db, view) = (self.current.times.db_ms(), self.current.times.view_ms());
        let code = self.problem.as_ref().map(Problem::code);
        let cause = self.broken.take().or_else(|| self.problem.as_ref().and_then(Problem::causes));
        let client = self.current.client.map(text_of);
        let client = client.as_deref();
        let (request_bytes, response_bytes) = (outcome.request_bytes, outcome.response_bytes);
        // The exporter knows numbers with a sign only.
        self.span.record("http.response.status_code", i64::from(status));
        if status >= 500 {
            self.span.record("otel.status_code", "error");
        }
        macro_rules! write_line {
            ($level:ident) => {
                tracing::$level!(target: super::TARGET, parent: &self.span, method, path, format, controller, action, status, duration, view, db,
                    request_bytes, response_bytes, client, code, cause, "{message}")
            };
        }
        let write = || match status {
            500.. => write_line!(error),
            _ => write_line!(info),
        };
        if self.current.trace.is_none() && self.current.record.is_none() {
            write();
        } else {
            // Exporters and the development page want to be inside of the request; its line alone does not need it.
            self.span.in_scope(|| current::in_scope(&self.current, write));
        }
        if let Some(record) = &self.current.record {
            let title = message.to_string();
            // The page shows the status apart.
            let title = title.split_once(' ').map_or("", |(_, title)| title).to_owned();
            record.end(title, Ended { status, duration, db, view });
        }
    }
}

impl Line {
    fn tell_watchers(&self, duration: Duration, request_bytes: u64) {
        let Some(notes) = &self.current.notes else { return };
        let notes = std::mem::take(&mut *notes.lock().unwrap_or_else(PoisonError::into_inner));
        let named = self.current.handler.get();
        let finished = Finished {
            request_id: self.current.id.to_str().unwrap_or_default(),
            method: self.method,
            route: &self.route,
            path: self.asked.path(),
            controller: named.map(|name| name.controller),
            action: named.map(|name| name.action),
            format: &self.format,
            status: self.status,
            duration,
            view_ms: self.current.times.view_ms(),
            db_ms: self.current.times.db_ms(),
            request_bytes,
            response_bytes: self.response_bytes,
            client: self.current.client,
            code: self.problem.as_ref().map(Problem::code),
            notes: &notes,
        };
        self.here.shared.seen.watchers.iter().for_each(|watcher| watcher.tell(&finished));
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.ended {
            self.status = client_gone();
            self.end();
        }
    }
}

/// `[200] GET /users (users#index)`.
struct Message<'a> {
    status: StatusCode,
    method: Method,
    path: &'a str,
    named: Option<Name>,
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = |parts: &[&str]| parts.iter().try_for_each(|part| f.write_str(part));
        parts(&["[", self.status.as_str(), "] ", self.method.value(), " ", self.path])?;
        match self.named {
            Some(Name { controller, action }) => parts(&[" (", controller, "#", action, ")"]),
            None => Ok(()),
        }
    }
}

/// An address as it is written. Formatting takes five times as long, for each request.
fn text_of(address: IpAddr) -> String {
    let IpAddr::V4(address) = address else { return address.to_string() };
    let mut text = String::with_capacity("255.255.255.255".len());
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            text.push('.');
        }
        for (from, digit) in [(100, octet / 100), (10, octet / 10 % 10), (0, octet % 10)] {
            if octet >= from {
                text.push((b'0' + digit).into());
            }
        }
    }
    text
}

/// The type that was negotiated, by its short name: `json` for `application/problem+json`.
fn format_of(headers: &HeaderMap) -> Cow<'static, str> {
    let Some(kind) = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else { return ANY.into() };
    // Nearly all are one of these.
    match kind {
        "application/json" => return "json".into(),
        "text/plain; charset=utf-8" => return "text".into(),
        _ => {}
    }
    let subtype = kind.split(';').next().and_then(|kind| kind.trim().rsplit('/').next()).unwrap_or(kind);
    let name = subtype.rsplit('+').next().unwrap_or(subtype).trim_start_matches("x-");
    match name {
        "json" => "json".into(),
        "plain" => "text".into(),
        "html" => "html".into(),
        other => other.to_ascii_lowercase().into(),
    }
}

/// A request's body whose bytes are counted.
struct Counted {
    body: Body,
    current: Arc<Current>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            self.current.body_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, still part of its request.
struct Answering {
    body: Body,
    line: Line,
}

impl http_body::Body for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self { body, line } = &mut *self;
        let polled = line.part(|| Pin::new(&mut *body).poll_frame(context));
        let frame = ready!(polled.unwrap_or_else(|panic| {
            line.here.shared.metrics.panics.inc();
            Poll::Ready(Some(Err(axum::Error::new(super::told_by(panic.as_ref())))))
        }));
        let over = match &frame {
            Some(Ok(frame)) => {
                line.response_bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                body.is_end_stream()
            }
            Some(Err(error)) => {
                if !line.ended {
                    line.break_off(crate::error_chain(error));
                }
                true
            }
            None => true,
        };
        if over && !line.ended {
            line.end();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_everywhere() {
        for text in ["0.0.0.0", "1.20.103.255", "10.9.100.99", "2001:db8::1", "::ffff:1.2.3.4"] {
            let address: IpAddr = text.parse().expect("an address");
            assert_eq!(text_of(address), address.to_string());
        }
    }

    #[test]
    fn a_format_is_the_short_name_of_its_type() {
        let format = |kind: &'static str| {
            format_of(&HeaderMap::from_iter([(header::CONTENT_TYPE, http::HeaderValue::from_static(kind))]))
        };
        let kinds = ["application/json", "application/problem+json", "text/plain", "text/plain; charset=utf-8"];
        assert_eq!(kinds.map(format), ["json", "json", "text", "text"]);
        assert_eq!(["application/x-ndjson", "text/HTML; a=b/c", "odd"].map(format), ["ndjson", "html", "odd"]);
        assert_eq!(format_of(&HeaderMap::new()), ANY);
    }
}
