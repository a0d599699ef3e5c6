//! Answers that are put together in memory: a page of a list, or a single entry.
//!
//! What they take is taken of one budget before it grows, and given back when the last byte is sent, so that clients that ask for much and read
//! slowly cannot fill the memory. What does not fit is 503 `in_flight_full`.

use crate::app::App;
use crate::code::Code;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use engine::{Reservation, TurnedAway};
use http::{HeaderValue, header};
use nowwhat::Problem;
use serde::Serialize;
use std::io::{self, Write};
use std::ops::ControlFlow;

/// A page of large entries ends early.
const PAGE_BYTES_MAX: usize = 8 << 20;
/// All such answers that are not sent yet.
pub const PAGES_BYTES_MAX: u64 = 64 << 20;
/// What a small answer takes.
const STEP_BYTES: usize = 4 << 10;

/// A text with the bytes it holds of the budget.
pub(crate) struct Held {
    text: Vec<u8>,
    reservation: Reservation,
    refused: Option<TurnedAway>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl Write for Held {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wanted = self.text.len() + bytes.len();
        if wanted > self.text.capacity() {
            let capacity = wanted.max(self.text.capacity() * 2).max(STEP_BYTES);
            if let Err(refused) = self.reservation.resize(capacity as u64) {
                self.refused = Some(refused);
                return Err(io::Error::other(refused));
            }
            self.text.reserve_exact(capacity - self.text.len());
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Held {
    pub(crate) fn of(app: &App) -> Self {
        let reservation = app.pages.reserve(0).expect("nothing fits always");
        Self { text: Vec::new(), reservation, refused: None }
    }

    fn json(&mut self, value: &impl Serialize) -> Result<(), Problem> {
        let written = nowwhat::view(|| serde_json::to_writer(&mut *self, value));
        written.map_err(|error| self.problem(error))
    }

    /// Adds JSON on one line.
    ///
    /// # Errors
    /// 503 when the budget has no room for it; nothing of it is there then.
    pub(crate) fn line(&mut self, before: &str, value: &impl Serialize, after: &str) -> Result<(), Problem> {
        let begin = self.text.len();
        let added = self.text(before).and_then(|()| {
            let begin = self.text.len();
            self.json(value)?;
            // Breaks of a line are nothing but space in JSON.
            self.text[begin..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
            self.text(after)
        });
        if added.is_err() {
            self.text.truncate(begin);
        }
        added
    }

    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }

    /// The bytes, which own their part of the budget wherever they wait to be sent.
    pub(crate) fn bytes(mut self) -> Bytes {
        self.text.shrink_to_fit();
        self.reservation.resize(self.text.len() as u64).expect("it shrinks");
        Bytes::from_owner(self)
    }

    fn text(&mut self, text: &str) -> Result<(), Problem> {
        self.write_all(text.as_bytes()).map_err(|error| self.problem(error))
    }

    fn problem(&self, error: impl std::error::Error + Send + Sync + 'static) -> Problem {
        match self.refused {
            Some(refused) => full(refused),
            None => Code::Internal.problem("the answer could not be written").cause(error),
        }
    }

    fn response(self) -> Response {
        let kind = HeaderValue::from_static("application/json");
        ([(header::CONTENT_TYPE, kind)], Body::from(self.bytes())).into_response()
    }
}

fn full(TurnedAway { used_bytes, bytes_max, .. }: TurnedAway) -> Problem {
    Code::InFlightFull.problem(format!(
        "answers of {used_bytes} bytes are on their way to their readers, and more than {bytes_max} may not be"
    ))
}

/// Room for what an answer holds of itself while it is written.
///
/// # Errors
/// 503 when the budget has none.
pub(crate) fn room(app: &App, bytes: usize) -> Result<Reservation, Problem> {
    app.pages.reserve(bytes as u64).map_err(full)
}

/// An answer with one value.
///
/// # Errors
/// 503 when the budget has no room for it.
pub(crate) fn whole(app: &App, value: &impl Serialize) -> Result<Response, Problem> {
    let mut held = Held::of(app);
    held.json(value)?;
    Ok(held.response())
}

/// A page on its way: `{"NAME": […], "next_cursor": …}`.
pub(crate) struct Page {
    held: Held,
    entries: u64,
    limit: u64,
    last: Option<String>,
    has_more: bool,
}

impl Page {
    /// An empty page of the list `name` for at most `limit` entries.
    ///
    /// # Errors
    /// 503 when the budget has no room for it.
    pub(crate) fn begin(app: &App, name: &str, limit: u64) -> Result<Self, Problem> {
        let mut held = Held::of(app);
        held.text(&format!("{{\"{name}\":["))?;
        Ok(Self { held, entries: 0, limit, last: None, has_more: false })
    }

    /// More entries than it was given are known to be there.
    pub(crate) fn goes_on(&mut self) {
        self.has_more = true;
    }

    /// Adds an entry behind which `cursor` goes on. A page that is full takes none and says that it wants no more.
    ///
    /// # Errors
    /// 503 when the budget has no room for it.
    pub(crate) fn add(&mut self, entry: &impl Serialize, cursor: Option<String>) -> Result<ControlFlow<()>, Problem> {
        if !self.takes_one_more() {
            return Ok(ControlFlow::Break(()));
        }
        if self.entries > 0 {
            self.held.text(",")?;
        }
        self.held.json(entry)?;
        self.entries += 1;
        self.last = cursor;
        Ok(ControlFlow::Continue(()))
    }

    /// Its bytes so far.
    pub(crate) fn bytes(&self) -> usize {
        self.held.text.len()
    }

    /// How many more bytes it takes.
    pub(crate) fn bytes_left(&self) -> usize {
        PAGE_BYTES_MAX.saturating_sub(self.bytes())
    }

    /// Whether it has room for the entry that follows; when it has none, it says where that one is found.
    pub(crate) fn takes_one_more(&mut self) -> bool {
        let is_full = self.entries == self.limit || self.bytes() >= PAGE_BYTES_MAX;
        self.has_more |= is_full;
        !is_full
    }

    /// The answer.
    ///
    /// # Errors
    /// 503 when the budget has no room for it.
    pub(crate) fn end(self) -> Result<Response, Problem> {
        self.end_with([])
    }

    /// The answer with further members.
    ///
    /// # Errors
    /// 503 when the budget has no room for it.
    pub(crate) fn end_with<const N: usize>(mut self, members: [(&str, i64); N]) -> Result<Response, Problem> {
        self.held.text("],\"next_cursor\":")?;
        let next = self.last.take().filter(|_| self.has_more);
        self.held.json(&next)?;
        for (name, value) in members {
            self.held.text(&format!(",\"{name}\":{value}"))?;
        }
        self.held.text("}")?;
        Ok(self.held.response())
    }
}
