//! Lines kept in memory: those of one server under test, and in development those of one request.

use super::render::{Colour, Line};
use super::writer::Writer;
use super::{Format, LevelHandle, Lines, LogMetrics, Origin};
use crate::debug::Spans;
use crate::metrics::Registry;
use crate::version::Version;
use std::cell::RefCell;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tracing_subscriber::layer::{Layer, SubscriberExt};

/// Lines of the threads that belong together, as JSON.
#[derive(Clone, Debug, Default)]
pub(crate) struct Captured {
    lines: Arc<Mutex<Vec<String>>>,
}

thread_local! {
    static OF_THREAD: RefCell<Option<Captured>> = const { RefCell::new(None) };
}

impl Captured {
    /// Keeps the lines of this thread from now on.
    pub(crate) fn this_thread(&self) {
        OF_THREAD.set(Some(self.clone()));
    }

    /// What was kept so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Begins to capture in this process, once: each test sees the lines of its own threads, at every level.
pub(crate) fn captured() -> LevelHandle {
    static LEVEL: OnceLock<LevelHandle> = OnceLock::new();
    let begin = || {
        let metrics = LogMetrics::register(&mut Registry::default());
        let version = Version { name: "test", version: "0.0.0", commit: "unknown" };
        // Written nowhere: what a test wants to see it asks for.
        let writer = Writer::start(Box::new(|_| ())).expect("a thread for lines");
        let lines = Lines::new(Format::Json, Colour::Off, Origin::of(version), Arc::new(writer), metrics);
        let level = LevelHandle::new("debug".to_owned(), &["hyper", "h2", "rustls"]).expect("a level");
        let subscriber = tracing_subscriber::Registry::default().with(level.filter().and_then(Spans).and_then(lines));
        // A test with a subscriber of its own keeps it, and captures nothing.
        drop(tracing::subscriber::set_global_default(subscriber));
        level
    };
    LEVEL.get_or_init(begin).clone()
}

/// Gives the line to whoever keeps the lines of this thread and of this request.
pub(super) fn take(line: &Line<'_>, origin: &Origin) {
    OF_THREAD.with_borrow(|captured| {
        if let Some(captured) = captured {
            let mut text = Vec::new();
            line.render(Format::Json, Colour::Off, origin, &mut text);
            let text = String::from_utf8(text).expect("JSON is UTF-8");
            captured.lines.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }
    });
    crate::current::record(|record| {
        let mut text = Vec::new();
        line.render(Format::Text, Colour::Off, origin, &mut text);
        record.line(String::from_utf8_lossy(&text).into_owned());
    });
}
