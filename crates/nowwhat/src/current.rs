//! The request that is being served: known to everything that runs for it, without being handed on.
//!
//! Work that is spawned leaves the request, unless [`spawn`] takes it along.

use crate::debug::Record;
use crate::request::Way;
use crate::routing::Name;
use crate::serve::PeerCertificate;
use crate::trace::TraceContext;
use http::{Extensions, HeaderValue};
use std::future::Future;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tracing::Instrument;

tokio::task_local! {
    static CURRENT: Arc<Current>;
}

/// What is known of a request while it is served.
#[derive(Debug)]
pub(crate) struct Current {
    /// The request id, as it is passed on.
    pub(crate) id: HeaderValue,
    /// The caller's trace, when it sent one or traces are exported.
    pub(crate) trace: Option<TraceContext>,
    /// The caller's `tracestate`.
    pub(crate) tracestate: Option<HeaderValue>,
    /// Who answers it.
    pub(crate) handler: OnceLock<Name>,
    pub(crate) times: Times,
    /// Who sent it, when that is known.
    pub(crate) client: Option<IpAddr>,
    /// How it came.
    pub(crate) way: Way,
    /// The certificate that its client showed.
    pub(crate) certificate: Option<PeerCertificate>,
    /// Bytes of its body that came.
    pub(crate) body_bytes: AtomicU64,
    /// What is kept for the development page.
    pub(crate) record: Option<Record>,
    /// What is noted of it; none where nobody watches requests.
    pub(crate) notes: Option<Mutex<Extensions>>,
}

impl Current {
    /// A request of which only the id is known.
    pub(crate) fn new(id: HeaderValue) -> Self {
        Self {
            id,
            trace: None,
            tracestate: None,
            handler: OnceLock::new(),
            times: Times::default(),
            client: None,
            way: Way::default(),
            certificate: None,
            body_bytes: AtomicU64::new(0),
            record: None,
            notes: None,
        }
    }
}

/// Where the time of a request goes.
#[derive(Debug, Default)]
pub(crate) struct Times {
    db_nanos: AtomicU64,
    view_nanos: AtomicU64,
}

impl Times {
    fn add_db(&self, time: Duration) {
        self.db_nanos.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    fn add_view(&self, time: Duration) {
        self.view_nanos.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Milliseconds in what keeps the data.
    pub(crate) fn db_ms(&self) -> f64 {
        millis(Duration::from_nanos(self.db_nanos.load(Ordering::Relaxed)))
    }

    /// Milliseconds encoding the answer.
    pub(crate) fn view_ms(&self) -> f64 {
        millis(Duration::from_nanos(self.view_nanos.load(Ordering::Relaxed)))
    }
}

/// Milliseconds as log lines tell them: three places behind the point.
pub(crate) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Runs a future as part of a request.
pub(crate) async fn scope<F: Future>(current: Arc<Current>, future: F) -> F::Output {
    CURRENT.scope(current, future).await
}

/// Runs a closure as part of a request.
pub(crate) fn in_scope<T>(current: &Arc<Current>, run: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(current.clone(), run)
}

/// The request this runs for.
pub(crate) fn get() -> Option<Arc<Current>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Does something with the request this runs for; nothing outside of one.
pub(crate) fn with(run: impl FnOnce(&Current)) {
    let _ = CURRENT.try_with(|current| run(current));
}

/// Tells the request which handler answers it.
pub(crate) fn handled_by(handler: Name) {
    // The first one: a handler may call another. Outside of a request nobody asks.
    let _ = CURRENT.try_with(|current| current.handler.set(handler));
}

/// Does something with the record of this request, when one is kept.
pub(crate) fn record(with: impl FnOnce(&Record)) {
    if let Some(record) = CURRENT.try_with(|current| current.record.clone()).ok().flatten() {
        with(&record);
    }
}

/// Where the time of a request goes, to be told from elsewhere: a stream that is read later, another thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stopwatch(Option<Arc<Current>>);

impl Stopwatch {
    /// Adds time spent in what keeps the data.
    pub fn add_db(&self, time: Duration) {
        self.0.iter().for_each(|current| current.times.add_db(time));
    }

    /// Adds time spent encoding the answer.
    pub fn add_view(&self, time: Duration) {
        self.0.iter().for_each(|current| current.times.add_view(time));
    }
}

/// The stopwatch of this request. Outside of a request it counts for nobody.
pub fn stopwatch() -> Stopwatch {
    Stopwatch(get())
}

fn count(add: impl FnOnce(&Times)) {
    // Outside of a request nobody asks where the time went.
    let _ = CURRENT.try_with(|current| add(&current.times));
}

/// Counts the time of a future as `db` of this request: time spent in what keeps the data.
pub async fn db<F: Future>(future: F) -> F::Output {
    let began = Instant::now();
    let output = future.await;
    count(|times| times.add_db(began.elapsed()));
    output
}

/// Counts the time of a closure as `view` of this request: time spent encoding the answer.
pub fn view<T>(encode: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let output = encode();
    count(|times| times.add_view(began.elapsed()));
    output
}

/// Spawns a task that still belongs to this request: what is bound to the request is on its lines, and calls it makes carry the
/// request's id.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let future = future.in_current_span();
    match get() {
        Some(current) => tokio::spawn(scope(current, future)),
        None => tokio::spawn(future),
    }
}

#[cfg(test)]
impl Current {
    /// A request as a caller with a trace makes it.
    pub(crate) fn of(id: &'static str, trace: TraceContext, tracestate: Option<HeaderValue>) -> Arc<Self> {
        let id = HeaderValue::from_static(id);
        Arc::new(Self { trace: Some(trace), tracestate, ..Self::new(id) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Sampled;

    #[tokio::test]
    async fn work_belongs_to_its_request_also_when_it_is_spawned_with_the_word_for_it() {
        let id = || get().map(|current| current.id.clone());
        let of = |id| Current::of(id, TraceContext::random(Sampled::No), None);
        let one = of("one");
        let seen = scope(one.clone(), async {
            let inner = scope(of("two"), async { id() }).await;
            let spawned = spawn(async move { id() }).await.expect("no panic");
            let left = tokio::spawn(async move { id() }).await.expect("no panic");
            db(tokio::time::sleep(Duration::from_millis(2))).await;
            assert_eq!(view(|| 7), 7);
            (id(), inner, spawned, left)
        });
        let header = |id| Some(HeaderValue::from_static(id));
        assert_eq!(seen.await, (header("one"), header("two"), header("one"), None));
        assert!(one.times.db_ms() >= 2.0 && one.times.view_ms() < one.times.db_ms());
        assert_eq!(id(), None);
    }
}
