//! Log lines: text for people, JSON for machines, one object a line, or entries of the journal; what is bound to a span is on each.
//!
//! [`Telemetry::start`] installs all of it for a program; [`layer()`] gives the same lines to a caller who has a subscriber already.
//! Lines are written by a thread of their own; what a slow reader does not take in time is dropped, counted, and told.
//! What the fields of JSON are, and how Splunk and Elasticsearch learn it, stands in the folder `logs`.

mod capture;
mod fields;
mod level;
mod lines;
mod render;
mod repeats;
mod writer;

pub(crate) use capture::{Captured, captured};
pub use fields::{TEXT_BYTES_MAX, Value, bind};
pub use level::{LevelHandle, check_level, level_routes};
pub use lines::{Lines, LogMetrics, Waiting};
pub use repeats::{BURST, WINDOW};
pub use writer::WAITING_BYTES_MAX;

use crate::version::Version;
use render::Colour;
use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use writer::{Sink, Writer, journal_or_standard_error, standard_error};

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text with colours where standard error is a terminal.
    Text,
    /// One JSON object a line.
    Json,
    /// The same, where standard error is systemd's journal: before each line its level, `<3>` for one, which the journal takes off again and keeps
    /// as the entry's priority.
    JsonToJournal,
    /// Entries of systemd's journal, with each field as one of the journal's.
    Journal,
}

impl Format {
    /// `text`, `json`, `journal`, or `auto`: text on a terminal, else JSON. A [`Service`](crate::Service) takes the journal under systemd.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            "journal" => Some(Self::Journal),
            "auto" if std::io::stderr().is_terminal() => Some(Self::Text),
            "auto" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Who writes the lines, as members of a JSON object: on each line, except in text for people.
#[derive(Clone, Debug)]
struct Origin(String);

impl Origin {
    fn of(version: Version) -> Self {
        Self::new(version.name, &hostname())
    }

    fn new(service: &str, host: &str) -> Self {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        Self(format!("\"host\":{},\"type\":{}", text(host), text(service)))
    }
}

/// The name of this machine.
pub(crate) fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// Further layers of the subscriber: exporters, recorders.
pub type Further = Vec<Box<dyn Layer<Registry> + Send + Sync>>;

/// How to log.
pub struct Logging {
    /// What is running: its name is `type` on every line.
    pub version: Version,
    /// Least level, also per module: `info,engine=debug`.
    pub level: String,
    /// Form of the lines.
    pub format: Format,
    /// Modules that log warnings only, unless the level names them.
    pub quiet: &'static [&'static str],
    /// Further layers, under the same level.
    pub further: Further,
}

impl std::fmt::Debug for Logging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logging").field("level", &self.level).field("format", &self.format).finish_non_exhaustive()
    }
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is not understood.
    #[error(
        "log level {0:?} is not understood: use off, error, warn, info, debug or trace, also per module as info,engine=debug"
    )]
    Level(String),
    /// Something else logs already.
    #[error("logging is set up already")]
    Twice,
    /// The operating system refused the thread.
    #[error("cannot start the log's thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// The lines as a layer for a caller's own subscriber. They go to standard error or, in the form of the journal, there. Levels are the
/// caller's; [`bind()`] works where the layer sits on a [`Registry`]. [`Lines::waiting`] is to be held until the end of `main`, so that the
/// last lines are written too; [`log_panics`] makes panics lines.
///
/// ```no_run
/// use nowwhat::telemetry::{self, Format, LogMetrics};
/// use tracing_subscriber::layer::SubscriberExt;
/// use tracing_subscriber::util::SubscriberInitExt;
///
/// let metrics = LogMetrics::register(&mut nowwhat::metrics::Registry::default());
/// let lines = telemetry::layer(nowwhat::version!(), Format::Json, metrics).expect("a thread");
/// let _waiting = lines.waiting();
/// tracing_subscriber::registry().with(lines).init();
/// telemetry::log_panics();
/// tracing::info_span!("order", order = 17).in_scope(|| {
///     nowwhat::bind("customer", "c-17");
///     tracing::info!("baked"); // has order and customer
/// });
/// ```
///
/// # Errors
/// [`TelemetryError::Thread`].
pub fn layer(version: Version, format: Format, metrics: LogMetrics) -> Result<Lines, TelemetryError> {
    lines(version, format, metrics, sink(format))
}

fn sink(format: Format) -> Sink {
    match format {
        Format::Journal => journal_or_standard_error(),
        Format::Text | Format::Json | Format::JsonToJournal => standard_error(),
    }
}

fn lines(version: Version, format: Format, metrics: LogMetrics, sink: Sink) -> Result<Lines, TelemetryError> {
    let colour = if std::io::stderr().is_terminal() { Colour::On } else { Colour::Off };
    let writer = Arc::new(Writer::start(sink, metrics.dropped.clone())?);
    Ok(Lines::new(format, colour, Origin::of(version), writer, metrics))
}

/// Logging is on; dropping it writes what waits.
#[derive(Debug)]
pub struct Telemetry {
    writer: Arc<Writer>,
    level: LevelHandle,
}

impl Telemetry {
    /// Begins to log on standard error, also what panics.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub fn start(logging: Logging, metrics: LogMetrics) -> Result<Self, TelemetryError> {
        let lines = lines(logging.version, logging.format, metrics, sink(logging.format))?;
        let writer = lines.writer();
        let level = LevelHandle::new(logging.level, logging.quiet)?;
        let further = logging.further.into_iter().reduce(|first, second| first.and_then(second).boxed());
        let subscriber = Registry::default().with(level.filter().and_then(further).and_then(lines));
        tracing::subscriber::set_global_default(subscriber).map_err(|_| TelemetryError::Twice)?;
        log_panics();
        Ok(Self { writer, level })
    }

    /// The level in force, to be changed.
    pub fn level(&self) -> LevelHandle {
        self.level.clone()
    }

    /// Returns when everything logged before is written.
    pub fn flush(&self) {
        self.writer.flush();
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.writer.end();
    }
}

/// From now on a panic is a line like any other, in place of text on standard error: where it happened and, in a request, its id.
/// [`Telemetry::start`] does it; for callers with a subscriber of their own.
pub fn log_panics() {
    std::panic::set_hook(Box::new(log_panic));
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = (backtrace.status() == std::backtrace::BacktraceStatus::Captured).then(|| backtrace.to_string());
    let cause = panic.payload_as_str().unwrap_or("without a text");
    tracing::error!(place, cause, backtrace, "panicked");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn under_a_callers_own_subscriber_the_last_lines_are_written_when_who_waits_for_them_is_dropped() {
        let (sender, written) = channel::<Vec<u8>>();
        // Nobody reads any more when the test has failed.
        let sink = Box::new(move |lines: &[u8]| sender.send(lines.to_vec()).map_or(1, |()| 0));
        let metrics = LogMetrics::register(&mut crate::metrics::Registry::default());
        let lines = lines(crate::version!("bakery"), Format::Json, metrics, sink).expect("a thread");
        let waiting = lines.waiting();
        tracing::subscriber::with_default(Registry::default().with(lines), || {
            tracing::info_span!("order", number = 17).in_scope(|| {
                bind("customer", "c-17");
                tracing::info!(loaves = 3, "ordered");
            });
            drop(waiting);
            let text = String::from_utf8(written.try_iter().flatten().collect()).expect("a text");
            for part in ["\"message\":\"ordered\"", "\"type\":\"bakery\"", "\"number\":17", "\"customer\":\"c-17\""] {
                assert!(text.contains(part), "{part} in {text:?}");
            }
        });
    }
}
