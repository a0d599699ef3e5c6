//! Whoever watches requests: told of each that ended what its line in the log tells, and what the service noted of it.

use crate::current;
use crate::metrics::{Method, Route};
use http::{Extensions, StatusCode};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// A request that ended, by the names that its line in the log has.
#[derive(Debug)]
#[non_exhaustive]
pub struct Finished<'a> {
    /// Its id.
    pub request_id: &'a str,
    /// Its method; a made-up one is `other`.
    pub method: Method,
    /// The template that the router matched, or `unmatched`.
    pub route: &'a Route,
    /// Its path, without the query, cut after 256 characters.
    pub path: &'a str,
    /// The module whose function answered; none when no route matched.
    pub controller: Option<&'static str>,
    /// The function that answered.
    pub action: Option<&'static str>,
    /// Type of the answer by its short name, `*/*` when it has none.
    pub format: &'a str,
    /// Of the answer; 499 when the client went away.
    pub status: StatusCode,
    /// From the head of the request to the end of its answer.
    pub duration: Duration,
    /// Of that, in milliseconds: encoding the answer.
    pub view_ms: f64,
    /// Of that, in milliseconds: waiting for what keeps the data.
    pub db_ms: f64,
    /// Bytes of its body that came.
    pub request_bytes: u64,
    /// Bytes of the answer's body.
    pub response_bytes: u64,
    /// Who sent it, when that is known.
    pub client: Option<IpAddr>,
    /// The code of the problem that it was answered with.
    pub code: Option<&'a str>,
    /// What the service [noted](note) of it.
    pub notes: &'a Extensions,
}

/// Somebody who is told of requests that ended, on the thread that ended them: it must neither wait nor panic.
#[derive(Clone)]
pub struct Watcher(Arc<dyn Fn(&Finished<'_>) + Send + Sync>);

impl Watcher {
    /// Calls `watch` with each request.
    pub fn new(watch: impl Fn(&Finished<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(watch))
    }

    pub(super) fn tell(&self, request: &Finished<'_>) {
        (self.0)(request);
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watcher")
    }
}

/// Notes something of the request that is being served, for whoever watches requests; it takes the place of what was noted before of the
/// same type. Where nobody watches it is not made.
pub fn note<T: Clone + Send + Sync + 'static>(what: impl FnOnce() -> T) {
    current::with(|current| {
        if let Some(notes) = &current.notes {
            notes.lock().unwrap_or_else(PoisonError::into_inner).insert(what());
        }
    });
}
