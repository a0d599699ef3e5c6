//! Whose turn it is on a connection.
//!
//! A peer that says nothing, or no whole head of a request, loses its connection, and so does one of HTTP/2 that keeps
//! it open with pings alone, or leaves its answers where they are by giving no window. A peer that does not read is
//! left to the [`StallGuard`](super::stall::StallGuard). One timer a connection looks at counts now and then: a request
//! costs no timer.

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

/// Fewer bytes than this are no progress: pings and settings are sent to a peer that takes nothing, too.
const PROGRESS_BYTES_MIN: u64 = 1024;

/// What happens on one connection. The counts are hints between tasks that each go on anyway, so no order is needed.
#[derive(Debug, Default)]
pub(super) struct Activity {
    requests: AtomicU64,
    /// Answers, and next parts of answers, that the service has not made yet.
    owed: AtomicUsize,
    /// What it owed and has made.
    paid: AtomicU64,
    /// Requests whose answers have no end yet.
    open: AtomicUsize,
    written_bytes: AtomicU64,
    /// A write waits for the peer to read.
    write_waits: AtomicBool,
    first: Notify,
}

impl Activity {
    /// A request came. The service owes an answer until the value is dropped.
    pub(super) fn request(self: &Arc<Self>) -> Owed {
        if self.requests.fetch_add(1, Ordering::Relaxed) == 0 {
            self.first.notify_one();
        }
        Owed::new(self)
    }

    /// The place of a request until its answer has its end: the first of a connection has its connection's, others take one of the `beside_max` that
    /// there are for all connections together. A connection takes no more of them than it leaves free: so however many connections keep theirs, the
    /// next one has its share, and one that is alone has half.
    pub(super) fn place(self: &Arc<Self>, beside: &Arc<AtomicUsize>, beside_max: usize) -> Option<Place> {
        let own = self.open.fetch_add(1, Ordering::Relaxed);
        if own == 0 {
            return Some(Place { activity: self.clone(), beside: None });
        }
        let taken = beside.fetch_add(1, Ordering::Relaxed);
        let place = Place { activity: self.clone(), beside: Some(beside.clone()) };
        (own <= beside_max.saturating_sub(taken)).then_some(place)
    }

    /// Bytes went to the peer.
    pub(super) fn wrote(&self, bytes: usize) {
        self.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A write has to wait for the peer.
    pub(super) fn write_waits(&self) {
        self.write_waits.store(true, Ordering::Relaxed);
    }

    /// The write that waited is done or given up.
    pub(super) fn write_ended(&self) {
        self.write_waits.store(false, Ordering::Relaxed);
    }

    /// How many requests came.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Returns when the first request came.
    pub(super) async fn first_request(&self) {
        if self.requests() == 0 {
            self.first.notified().await;
        }
    }

    /// Returns at `first` when no request came until then, or later, when for one `period` it was the peer's turn and the
    /// peer did nothing.
    pub(super) async fn idle(&self, first: Instant, period: Duration) {
        sleep_until(first).await;
        if self.requests() == 0 {
            return;
        }
        loop {
            let (paid, written_bytes) = (self.paid.load(Ordering::Relaxed), self.written_bytes.load(Ordering::Relaxed));
            sleep(period).await;
            let progress_bytes = self.written_bytes.load(Ordering::Relaxed) - written_bytes;
            let owed = self.owed.load(Ordering::Acquire);
            let write_waits = self.write_waits.load(Ordering::Relaxed);
            if owed == 0
                && !write_waits
                && self.paid.load(Ordering::Relaxed) == paid
                && progress_bytes < PROGRESS_BYTES_MIN
            {
                return;
            }
        }
    }
}

/// Something that the service owes to the peer; paid when dropped.
#[derive(Debug)]
pub(super) struct Owed(Arc<Activity>);

impl Owed {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.owed.fetch_add(1, Ordering::Relaxed);
        Self(activity.clone())
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        // In this order: who sees that nothing is owed has seen that it was paid.
        self.0.paid.fetch_add(1, Ordering::Relaxed);
        self.0.owed.fetch_sub(1, Ordering::Release);
    }
}

/// See [`Activity::place`].
#[derive(Debug)]
pub(super) struct Place {
    activity: Arc<Activity>,
    beside: Option<Arc<AtomicUsize>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.activity.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(beside) = &self.beside {
            beside.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The body of an answer: owed while its next part is being made, and not while it waits for the peer.
#[derive(Debug)]
pub(super) struct Answer {
    body: Body,
    place: Place,
    owed: Option<Owed>,
}

impl Answer {
    pub(super) fn new(body: Body, place: Place) -> Self {
        Self { body, place, owed: None }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.owed = None;
        } else if self.owed.is_none() {
            self.owed = Some(Owed::new(&self.place.activity));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
