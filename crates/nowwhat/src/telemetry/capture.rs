//! Lines kept in memory: those of one server under test.

use super::lines::Counts;
use super::render::{Colour, Line};
use super::writer::Writer;
use super::{Format, LevelHandle, Lines, LogMetrics, Origin};
use crate::debug::Spans;
use crate::metrics::Registry;
use crate::version::Version;
use std::cell::RefCell;
use std::sync::{Arc, Mutex, Once, PoisonError};
use tracing_subscriber::layer::{Layer, SubscriberExt};

/// Lines of the threads that belong together, as JSON, with their own counts and limits.
#[derive(Clone, Debug)]
pub(crate) struct Captured {
    lines: Arc<Mutex<Vec<String>>>,
    counts: Arc<Counts>,
    origin: Arc<Origin>,
}

thread_local! {
    static OF_THREAD: RefCell<Option<Captured>> = const { RefCell::new(None) };
}

impl Captured {
    /// Nothing yet; lines are counted in `metrics`.
    pub(crate) fn new(version: Version, metrics: LogMetrics) -> Self {
        let (counts, origin) = (Arc::new(Counts::new(metrics)), Arc::new(Origin::of(version)));
        Self { lines: Arc::default(), counts, origin }
    }

    /// Keeps the lines of this thread from now on.
    pub(crate) fn this_thread(&self) {
        OF_THREAD.set(Some(self.clone()));
    }

    /// Who keeps the lines of this thread. A thread that ends keeps none.
    pub(super) fn of_thread() -> Option<Self> {
        OF_THREAD.try_with(|captured| captured.borrow().clone()).ok().flatten()
    }

    pub(super) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    pub(super) fn take(&self, line: &Line<'_>) {
        let mut text = Vec::new();
        line.render(Format::Json, Colour::Off, &self.origin, &mut text);
        let text = String::from_utf8(text).expect("JSON is UTF-8");
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// What was kept so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Begins to capture in this process, once: each test sees the lines of its own threads from debug on, whatever its server's level,
/// which the handle tells and changes for that server alone.
pub(crate) fn captured(level: String, quiet: &'static [&'static str]) -> LevelHandle {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        let metrics = LogMetrics::register(&mut Registry::default());
        let version = Version { name: "test", version: "0.0.0", commit: "unknown" };
        // Written nowhere: what a test wants to see it asks for.
        let writer = Writer::start(Box::new(|_| 0), metrics.dropped.clone()).expect("a thread for lines");
        let lines = Lines::new(Format::Json, Colour::Off, Origin::of(version), Arc::new(writer), metrics);
        let all = LevelHandle::new("debug".to_owned(), &["hyper", "h2", "rustls"]).expect("a level");
        let subscriber = tracing_subscriber::Registry::default().with(all.filter().and_then(Spans).and_then(lines));
        // A test with a subscriber of its own keeps it, and captures nothing.
        drop(tracing::subscriber::set_global_default(subscriber));
        // The test's own panics are still told as before.
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            super::log_panic(panic);
            before(panic);
        }));
    });
    LevelHandle::new(level, quiet).expect("checked when it was read")
}
