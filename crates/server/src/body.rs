//! Reading a request's body inside its bounds: the byte budget, the largest size, the longest pause.

use crate::app::App;
use crate::code::Code;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use engine::{Reservation, TurnedAway};
use event::DecompressError;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use nowwhat::Problem;
use std::time::Duration;

/// A body read and decompressed, with the bytes it holds of the budget.
pub(crate) struct Read {
    pub(crate) bytes: Bytes,
    pub(crate) reservation: Reservation,
}

/// Reads the whole body, decompressed as `Content-Encoding` says.
///
/// # Errors
/// 413, 415, 408, 503 as in `docs/LIMITS.md`; 400 when it does not decompress or the connection broke.
pub(crate) async fn read(app: &App, headers: &HeaderMap, body: Body) -> Result<Read, Problem> {
    let encodings = event::encodings_of(header_text(headers, &header::CONTENT_ENCODING)?)
        .map_err(|e| Code::UnsupportedMediaType.problem(e.to_string()))?;
    let max = app.shared.limits.body_bytes_max;
    let announced = announced_bytes(headers);
    if announced.is_some_and(|bytes| bytes > max) {
        return Err(too_large(max));
    }
    let admission = app.shared.engine.admission();
    let mut reservation = admission.reserve(announced.unwrap_or(0)).map_err(turned_away)?;
    let stall = Duration::from_secs(app.shared.limits.body_stall_seconds);
    let bytes = collect(body, &mut reservation, Bounds { max, stall }).await?;
    if encodings.is_empty() {
        return Ok(Read { bytes, reservation });
    }
    // Decompression does not wait for anything, so only as many bodies as there are worker threads hold this at a time.
    reservation
        .resize(bytes.len() as u64 + event::decompressed_bytes_max(bytes.len(), max as usize) as u64)
        .map_err(turned_away)?;
    let plain = event::decompress(&encodings, &bytes, max as usize).map_err(|error| match error {
        DecompressError::TooLarge { .. } => Code::BodyTooLarge.problem(error.to_string()),
        other => Code::InvalidBody.problem(other.to_string()),
    })?;
    drop(bytes);
    reservation.resize(plain.len() as u64).map_err(turned_away)?;
    Ok(Read { bytes: plain.into(), reservation })
}

#[derive(Clone, Copy)]
struct Bounds {
    max: u64,
    stall: Duration,
}

async fn collect(mut body: Body, reservation: &mut Reservation, bounds: Bounds) -> Result<Bytes, Problem> {
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut total = 0u64;
    while let Some(frame) = tokio::time::timeout(bounds.stall, body.frame()).await.map_err(|_| stalled(bounds.stall))? {
        let frame =
            frame.map_err(|e| Code::InvalidBody.problem("the connection ended before the body did").cause(e))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        total += data.len() as u64;
        if total > bounds.max {
            return Err(too_large(bounds.max));
        }
        if total > reservation.bytes() {
            reservation.resize(total).map_err(turned_away)?;
        }
        match (&first, rest.is_empty()) {
            (None, _) => first = Some(data),
            (Some(head), true) => {
                rest.reserve((reservation.bytes() as usize).max(head.len() + data.len()));
                rest.extend_from_slice(head);
                rest.extend_from_slice(&data);
            }
            (Some(_), false) => rest.extend_from_slice(&data),
        }
    }
    Ok(if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() })
}

/// A header as text.
pub(crate) fn header_text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Result<Option<&'a str>, Problem> {
    let text = headers.get(name).map(|v| v.to_str()).transpose();
    text.map_err(|_| Code::UnsupportedMediaType.problem(format!("the header `{name}` is not plain text")))
}

fn announced_bytes(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(max: u64) -> Problem {
    Code::BodyTooLarge.problem(format!("a body may have {max} bytes, also after decompression; split the batch"))
}

fn stalled(stall: Duration) -> Problem {
    Code::BodyTimeout.problem(format!("nothing of the body came for {} seconds", stall.as_secs()))
}

/// The budget is used up.
pub(crate) fn turned_away(refused: TurnedAway) -> Problem {
    Code::InFlightFull.problem(refused.to_string())
}
