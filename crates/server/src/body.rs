//! Reading a request's body inside its bounds: the byte budget and the largest size, before and after decompression.
//!
//! nowwhat bounds bodies that an extractor reads whole. Here each part takes its room of the byte budget when it comes, and a body that
//! is too large is refused by what it announces: so the body is read here. That it does not come too slowly is nowwhat's affair.

use crate::app::App;
use crate::code::Code;
use crate::quota::{self, Charge};
use axum::body::Body;
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use engine::{Reservation, TurnedAway};
use event::{ContentEncoding, DecompressError};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use nowwhat::Problem;
use nowwhat::problem::Rest;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What is left of a refused request's body is taken as long as in each time of this length so much of it comes: who sends more slowly reads
/// the answer meanwhile.
const DRAIN_STEP: Duration = Duration::from_millis(500);
const DRAIN_STEP_BYTES_MIN: usize = 4 << 10;
/// And for no longer than this.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(30);

/// A body that has not come within this time is slow: see [`Reservation::slows`].
const PROMPT: Duration = Duration::from_secs(3);

/// Larger bodies are worked on where they do not hold up other requests of the same thread.
const INLINE_BYTES_MAX: usize = 1 << 20;
/// The same of compressed ones, which may become a thousand times as large.
const INLINE_COMPRESSED_BYTES_MAX: usize = 4 << 10;

/// Largest body that is no batch and no query.
const JSON_BYTES_MAX: u64 = 64 << 10;

/// A body read and decompressed, with the bytes it holds of the budget.
pub(crate) struct Read {
    pub(crate) bytes: Bytes,
    pub(crate) reservation: Reservation,
}

/// A body on its way.
pub(crate) struct Coming {
    body: Body,
    /// To tell that its answer is decided.
    rest: Option<Rest>,
    /// Whose share of the budget it takes while it comes. Small bodies that are no events share one.
    sender: Arc<str>,
    /// The client sends it when it is told to (RFC 9110, 10.1.1), which happens when it is read.
    awaits_continue: bool,
    /// What it costs of a sensor's quota, when it is a batch.
    charge: Option<Charge>,
}

impl Coming {
    /// The head of a request, and its body on its way.
    pub(crate) fn of(request: Request) -> (Parts, Self) {
        let (parts, body) = request.into_parts();
        let expects = parts.headers.get(header::EXPECT);
        let awaits_continue = expects.is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let rest = Rest::of(&parts.extensions);
        (parts, Self { body, rest, sender: Arc::default(), awaits_continue, charge: None })
    }

    /// Whose body it is.
    pub(crate) fn sent_by(&mut self, sender: Arc<str>) {
        self.sender = sender;
    }

    /// From now on the body costs its sensor this.
    pub(crate) fn charged(&mut self, charge: Charge) {
        self.charge = Some(charge);
    }

    /// That it held so many events.
    ///
    /// # Errors
    /// 429, when the sensor's quota does not give them.
    pub(crate) fn received(&mut self, events: u64) -> Result<(), Problem> {
        self.charge.as_mut().map_or(Ok(()), |charge| charge.received(events)).map_err(quota::exceeded)
    }

    fn announced(&mut self, bytes: u64) -> Result<(), Problem> {
        self.charge.as_mut().map_or(Ok(()), |charge| charge.announced(bytes)).map_err(quota::exceeded)
    }

    fn came(&mut self, bytes: u64) -> Result<(), Problem> {
        self.charge.as_mut().map_or(Ok(()), |charge| charge.came(bytes)).map_err(quota::exceeded)
    }
}

/// Reads the whole body, of at most `max` bytes, decompressed as `Content-Encoding` says.
///
/// # Errors
/// 413, 415, 408, 429, 503 as in `docs/LIMITS.md`; 400 when it does not decompress or the connection broke.
pub(crate) async fn read(app: &App, headers: &HeaderMap, coming: &mut Coming, max: u64) -> Result<Read, Problem> {
    let encodings = encodings(headers)?;
    let announced = announced_bytes(headers);
    if announced.is_some_and(|bytes| bytes > max) {
        return Err(too_large(max));
    }
    coming.announced(announced.unwrap_or(1))?;
    let admission = app.shared.engine.admission();
    let mut reservation = admission.expect(coming.sender.clone(), announced.unwrap_or(0)).map_err(turned_away)?;
    coming.awaits_continue = false;
    let bytes = collect(coming, &mut reservation, max).await?;
    reservation.has_come();
    if encodings.is_empty() {
        return Ok(Read { bytes, reservation });
    }
    let mut refused = None;
    let room = |more: usize| match reservation.resize((bytes.len() + more) as u64) {
        Ok(()) => true,
        Err(error) => {
            refused = Some(error);
            false
        }
    };
    let decompressed = match bytes.len() {
        0..=INLINE_COMPRESSED_BYTES_MAX => event::decompress(&encodings, &bytes, max as usize, room),
        _ => tokio::task::block_in_place(|| event::decompress(&encodings, &bytes, max as usize, room)),
    };
    let plain = decompressed.map_err(|error| match (error, refused) {
        (DecompressError::NoRoom, Some(refused)) => turned_away(refused),
        (error @ DecompressError::TooLarge { .. }, _) => Code::BodyTooLarge.problem(error.to_string()),
        (other, _) => Code::InvalidBody.problem(other.to_string()),
    })?;
    drop(bytes);
    reservation.resize(plain.len() as u64).map_err(turned_away)?;
    Ok(Read { bytes: plain.into(), reservation })
}

/// Does something that takes as long as a body of so many bytes is large.
pub(crate) fn work<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    if bytes <= INLINE_BYTES_MAX { work() } else { tokio::task::block_in_place(work) }
}

/// Reads a small JSON body, for what is no event; `example` shows what it looks like.
///
/// # Errors
/// As [`read`], and 400 when it is not that.
pub(crate) async fn json<T: DeserializeOwned>(
    app: &App,
    parts: &Parts,
    coming: &mut Coming,
    example: &str,
) -> Result<T, Problem> {
    parsed(&read_small(app, parts, coming).await?, example)
}

/// The same; an empty body asks for the defaults.
///
/// # Errors
/// As [`json`].
pub(crate) async fn json_or_default<T: DeserializeOwned + Default>(
    app: &App,
    parts: &Parts,
    coming: &mut Coming,
    example: &str,
) -> Result<T, Problem> {
    let read = read_small(app, parts, coming).await?;
    if read.bytes.is_empty() { Ok(T::default()) } else { parsed(&read, example) }
}

/// The fields of a JSON object.
///
/// # Errors
/// 400, when it is none or not that one.
pub(crate) fn parsed<T: DeserializeOwned>(read: &Read, example: &str) -> Result<T, Problem> {
    let refused = |flaw: String| Code::InvalidBody.problem(format!("{flaw}; send {example}"));
    // serde would read an array for an object, member by member.
    if read.bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(refused("the body is no object".to_owned()));
    }
    serde_json::from_slice(&read.bytes).map_err(|error| refused(flaw(&error)))
}

/// What is wrong with a small body in JSON, in words that need no knowledge of how it is read.
fn flaw(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    match error.classify() {
        Category::Eof => format!("the body ends before its JSON does, at line {line}, column {column}"),
        Category::Data if text.contains("expected struct") => "the body is no object".to_owned(),
        Category::Data => text.split(" at line ").next().unwrap_or_default().to_owned(),
        Category::Syntax | Category::Io => format!("the body is no JSON, at line {line}, column {column}"),
    }
}

async fn read_small(app: &App, parts: &Parts, coming: &mut Coming) -> Result<Read, Problem> {
    let max = app.shared.limits.body_bytes_max.min(JSON_BYTES_MAX);
    read(app, &parts.headers, coming, max).await
}

/// A field with a whole number, also written as `3600.0`: JSON Schema's `integer` makes no difference.
pub(crate) fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    const EXACT_MAX: f64 = (1_u64 << 53) as f64;
    let Some(number) = Option::<serde_json::Number>::deserialize(from)? else { return Ok(None) };
    let is_whole = |n: &f64| n.fract() == 0.0 && (0.0..=EXACT_MAX).contains(n);
    let read = number.as_u64().or_else(|| number.as_f64().filter(is_whole).map(|n| n as u64));
    read.map(Some).ok_or_else(|| D::Error::custom(format!("{number} is no whole number from 0 on")))
}

/// What was answered, after what is left of a refused request's body was taken: else its connection could not be used again.
pub(crate) async fn done<T>(app: &App, mut coming: Coming, answered: Result<T, Problem>) -> Result<T, Problem> {
    if let Err(problem) = &answered {
        let is_turned_away =
            matches!(problem.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        coming.charge.iter_mut().filter(|_| is_turned_away).for_each(Charge::forgive);
        // Settled before the client lets the rest come.
        coming.charge = None;
        drain(app, coming).await;
    }
    answered
}

async fn collect(coming: &mut Coming, reservation: &mut Reservation, max: u64) -> Result<Bytes, Problem> {
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut total = 0u64;
    let mut pace = Pace::Prompt(Instant::now() + PROMPT);
    while let Some(data) = pace.part(&mut coming.body, reservation).await? {
        total += data.len() as u64;
        if total > max {
            return Err(too_large(max));
        }
        coming.came(total)?;
        reservation.resize(total).map_err(turned_away)?;
        match (&first, rest.is_empty()) {
            (None, _) => first = Some(data),
            (Some(head), true) => {
                rest.extend_from_slice(head);
                rest.extend_from_slice(&data);
            }
            (Some(_), false) => rest.extend_from_slice(&data),
        }
    }
    Ok(if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() })
}

/// How a body comes.
enum Pace {
    /// It has until then.
    Prompt(Instant),
    /// It may be told to give way.
    Slow(Arc<Notify>),
}

impl Pace {
    /// The next part of the body; none at its end.
    ///
    /// # Errors
    /// 400 when the connection broke, 408 when it comes too slowly for anybody, 503 when it is slow and has to give way.
    async fn part(&mut self, body: &mut Body, reservation: &mut Reservation) -> Result<Option<Bytes>, Problem> {
        loop {
            let frame = match &*self {
                Self::Prompt(until) => match tokio::time::timeout_at(*until, body.frame()).await {
                    Ok(frame) => frame,
                    Err(_) => {
                        *self = Self::Slow(reservation.slows());
                        continue;
                    }
                },
                Self::Slow(gives_way) => tokio::select! {
                    biased;
                    () = gives_way.notified() => return Err(gave_way()),
                    frame = body.frame() => frame,
                },
            };
            let ended_early = |e| Code::InvalidBody.problem("the connection ended before the body did").cause(e);
            match frame.transpose().map_err(ended_early)?.map(|frame| frame.into_data()) {
                None => return Ok(None),
                Some(Ok(data)) => return Ok(Some(data)),
                Some(Err(_trailers)) => {}
            }
        }
    }
}

/// Takes what is left of the body of a refused request and lets it go, so that its client comes to read the answer instead of
/// failing to send; up to twice a largest body, and until its client pauses or drips. A client that waits to be told to send is not told.
async fn drain(app: &App, coming: Coming) {
    let Coming { mut body, rest, awaits_continue: false, .. } = coming else { return };
    rest.iter().for_each(Rest::is_left_over);
    let mut left = app.shared.limits.body_bytes_max as usize * 2;
    let end = Instant::now() + DRAIN_TIME_MAX;
    while left > 0 && Instant::now() < end {
        let mut came = 0;
        let step = async {
            while let Some(Ok(frame)) = body.frame().await {
                came += frame.data_ref().map_or(0, Bytes::len);
                if came >= left {
                    break;
                }
            }
        };
        let is_over = tokio::time::timeout(DRAIN_STEP, step).await.is_ok();
        if is_over || came < DRAIN_STEP_BYTES_MIN {
            return;
        }
        left = left.saturating_sub(came);
    }
}

/// How the body was encoded; a header on several lines is one list (RFC 9110, 5.3).
fn encodings(headers: &HeaderMap) -> Result<Vec<ContentEncoding>, Problem> {
    let lines = headers.get_all(header::CONTENT_ENCODING).iter().map(|line| plain(line, &header::CONTENT_ENCODING));
    let list = lines.collect::<Result<Vec<_>, _>>()?.join(",");
    event::encodings_of(Some(&list)).map_err(|e| Code::UnsupportedMediaType.problem(e.to_string()))
}

/// A header as text.
pub(crate) fn header_text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Result<Option<&'a str>, Problem> {
    headers.get(name).map(|value| plain(value, name)).transpose()
}

fn plain<'a>(value: &'a HeaderValue, name: &header::HeaderName) -> Result<&'a str, Problem> {
    let not_plain = |_| Code::UnsupportedMediaType.problem(format!("the header `{name}` is not plain text"));
    value.to_str().map_err(not_plain)
}

fn announced_bytes(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(max: u64) -> Problem {
    Code::BodyTooLarge.problem(format!("a body may have {max} bytes here, also after decompression"))
}

/// The budget is used up; or it could never hold this request.
pub(crate) fn turned_away(refused: TurnedAway) -> Problem {
    if refused.wanted_bytes > refused.bytes_max {
        let TurnedAway { wanted_bytes, bytes_max, .. } = refused;
        return Code::BodyTooLarge.problem(format!(
            "the batch takes {wanted_bytes} bytes of memory, more than all requests together may ({bytes_max}): split it"
        ));
    }
    Code::InFlightFull.problem(refused.to_string())
}

/// The body came slowly, and others need the room that it holds.
fn gave_way() -> Problem {
    Code::InFlightFull.problem(format!(
        "the body had not come within {} s, and others need the room: what comes slowly has a quarter of it. Send it faster or in smaller parts",
        PROMPT.as_secs()
    ))
}
