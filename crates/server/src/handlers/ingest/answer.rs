//! What is told of a batch: what became of its events, or why nothing of it is stored.

use super::reading::Atomic;
use crate::app::App;
use crate::code::Code;
use axum::response::{IntoResponse, Response};
use engine::{AcceptError, Outcome, TOLD_BYTES_MAX};
use event::{Batch, Rejection};
use http::{HeaderName, HeaderValue};
use nowwhat::Problem;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;

/// How many events of the batch were not stored because they were rejected.
static REJECTED_HEADER: HeaderName = HeaderName::from_static("catchment-rejected");
/// True length of the duplicate window in seconds.
static WINDOW_HEADER: HeaderName = HeaderName::from_static("catchment-duplicate-window");
/// Most rejections that an answer lists.
const LISTED_MAX: usize = 1000;

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
pub(crate) struct Told {
    rejected: Box<RawValue>,
    pub(crate) rejected_total: u64,
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

impl Told {
    /// All that is listed.
    pub(crate) fn of(batch: &Batch) -> Self {
        Self::first(batch, batch.rejected.len().min(LISTED_MAX))
    }

    fn first(batch: &Batch, count: usize) -> Self {
        let rejected = to_raw_value(&listed(&batch.rejected[..count])).expect("plain data always serializes");
        Self { rejected, rejected_total: batch.rejected_total }
    }

    /// As many of the listed rejections as can be kept: what cannot be told again is not told the first time.
    pub(super) fn fitting(batch: &Batch) -> Self {
        let fits = |count: usize| Self::first(batch, count).kept().len() <= TOLD_BYTES_MAX;
        let (mut fitting, mut beyond) = (0, batch.rejected.len().min(LISTED_MAX) + 1);
        while fitting + 1 < beyond {
            let middle = fitting.midpoint(beyond);
            if fits(middle) { fitting = middle } else { beyond = middle }
        }
        Self::first(batch, fitting)
    }

    /// The bytes that are kept: none where nothing was rejected.
    pub(super) fn kept(&self) -> Vec<u8> {
        match self.rejected_total {
            0 => Vec::new(),
            _ => serde_json::to_vec(self).expect("plain data always serializes"),
        }
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        match bytes {
            [] => Ok(Self { rejected: nothing(), rejected_total: 0 }),
            _ => serde_json::from_slice(bytes),
        }
    }
}

/// Of what is kept with an answer, what has no text of a sender: how many were rejected.
pub(crate) fn without_texts(kept: &[u8]) -> Vec<u8> {
    let told = Told::read(kept).unwrap_or_else(|_| Told { rejected: nothing(), rejected_total: 0 });
    Told { rejected: nothing(), ..told }.kept()
}

fn nothing() -> Box<RawValue> {
    to_raw_value(&[(); 0]).expect("plain data always serializes")
}

/// What became of each event.
pub(crate) fn told(outcome: Outcome, told: &Told) -> Response {
    let body = Answer {
        accepted: outcome.accepted,
        duplicates: outcome.duplicates,
        reused_ids: outcome.reused_ids,
        rejected: &told.rejected,
        rejected_total: told.rejected_total,
    };
    let mut response = nowwhat::extract::Json(body).into_response();
    if told.rejected_total > 0 {
        response.headers_mut().insert(REJECTED_HEADER.clone(), HeaderValue::from(told.rejected_total));
    }
    response
}

/// The answer to a batch that has its end.
pub(super) fn of(app: &App, outcome: Outcome, of_batch: &Told) -> Response {
    let mut response = told(outcome, of_batch);
    let window = app.shared.engine.status().window_seconds();
    response.headers_mut().insert(WINDOW_HEADER.clone(), HeaderValue::from(window));
    response
}

/// Nothing of the batch is stored, because events of it were rejected.
pub(crate) fn refused(batch: &Batch, atomic: Atomic) -> Problem {
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

/// Nothing of the batch is stored, or nobody knows it, because of the collector.
pub(crate) fn not_stored(error: AcceptError) -> Problem {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_texts_it_tells_how_many_were_rejected_and_not_what_they_said() {
        let kept = br#"{"rejected":[{"index":1,"code":"invalid_time","reason":"\"secret\" is not a time"}],"rejected_total":3}"#;
        let left = without_texts(kept);
        assert_eq!(String::from_utf8_lossy(&left), r#"{"rejected":[],"rejected_total":3}"#);
        assert_eq!(Told::read(&left).expect("readable").rejected_total, 3);
        assert_eq!([without_texts(b""), without_texts(b"of another layout")], [Vec::<u8>::new(), Vec::new()]);
    }
}
