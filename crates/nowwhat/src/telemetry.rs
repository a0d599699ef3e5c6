//! Log lines on standard error: text for people, JSON for machines, one object a line, the span's fields in each.
//!
//! Lines are written by a thread of their own, so that a slow terminal holds up no request. When more than
//! [`LINES_MAX`] lines wait, further ones are counted and dropped; the count is logged as soon as there is room.

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use serde_json::{Map, Value};
use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Registry};

/// Lines that may wait to be written.
pub const LINES_MAX: usize = 8192;

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text with colours where standard error is a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

impl Format {
    /// `text`, `json`, or `auto`: text on a terminal, else JSON.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            "auto" if std::io::stderr().is_terminal() => Some(Self::Text),
            "auto" => Some(Self::Json),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelLabel {
    level: &'static str,
}

/// Metrics of log lines; registered once.
#[derive(Clone, Debug)]
pub struct LogMetrics {
    /// From error to trace.
    lines: [Counter; 5],
    dropped: Counter,
}

impl LogMetrics {
    /// Makes the metrics and adds them to `registry`.
    pub fn register(registry: &mut prometheus_client::registry::Registry) -> Self {
        let family: Family<LevelLabel, Counter> = Family::default();
        let counter = |level| family.get_or_create(&LevelLabel { level }).clone();
        let lines = ["error", "warn", "info", "debug", "trace"].map(counter);
        let dropped = Counter::default();
        let r = registry.sub_registry_with_prefix("log");
        r.register("lines", "Log lines by level", family);
        r.register("lines_dropped", "Log lines dropped because standard error was too slow", dropped.clone());
        Self { lines, dropped }
    }

    fn line(&self, level: Level) {
        let n = match level {
            Level::ERROR => 0,
            Level::WARN => 1,
            Level::INFO => 2,
            Level::DEBUG => 3,
            Level::TRACE => 4,
        };
        self.lines[n].inc();
    }
}

/// Logging is on; dropping it writes what waits.
#[derive(Debug)]
pub struct Telemetry {
    lines: Option<SyncSender<Message>>,
    writer: Option<JoinHandle<()>>,
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is not understood.
    #[error(
        "log level {0:?} is not understood: use error, warn, info, debug or trace, also per module as info,engine=debug"
    )]
    Level(String),
    /// Something else logs already.
    #[error("logging is set up already")]
    Twice,
    /// The operating system refused the thread.
    #[error("cannot start the log's thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Checks a log level.
///
/// # Errors
/// [`TelemetryError::Level`].
pub fn check_level(level: &str) -> Result<(), TelemetryError> {
    let wrong = || TelemetryError::Level(level.to_owned());
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let known = |part: &str| {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level).trim();
        levels.contains(&level.to_ascii_lowercase().as_str())
    };
    let known = !level.is_empty() && level.split(',').all(known);
    if known && EnvFilter::try_new(level).is_ok() { Ok(()) } else { Err(wrong()) }
}

impl Telemetry {
    /// Begins to log. Modules that are not the caller's (`quiet`) log warnings only, unless the level names them.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub fn start(level: &str, format: Format, quiet: &[&str], metrics: LogMetrics) -> Result<Self, TelemetryError> {
        let quiet: String = quiet.iter().map(|module| format!("{module}=warn,")).collect();
        let filter =
            EnvFilter::try_new(format!("{quiet}{level}")).map_err(|_| TelemetryError::Level(level.to_owned()))?;
        let (sender, lines) = sync_channel(LINES_MAX);
        let writer = std::thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(&lines))?;
        let colour = if std::io::stderr().is_terminal() { Colour::On } else { Colour::Off };
        let layer = Lines { format, colour, sender: sender.clone(), dropped: Arc::default(), metrics };
        let subscriber = Registry::default().with(filter).with(layer);
        tracing::subscriber::set_global_default(subscriber).map_err(|_| TelemetryError::Twice)?;
        Ok(Self { lines: Some(sender), writer: Some(writer) })
    }
}

impl Telemetry {
    /// Returns when everything logged before is written.
    pub fn flush(&self) {
        let (written, wait) = sync_channel(1);
        if let Some(lines) = &self.lines
            && lines.send(Message::Flush(written)).is_ok()
        {
            // The writer is gone: nothing will be written any more.
            let _ = wait.recv();
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(lines) = self.lines.take() {
            drop(lines.send(Message::End));
        }
        if let Some(writer) = self.writer.take() {
            drop(writer.join());
        }
    }
}

/// What the writer is told.
#[derive(Debug)]
enum Message {
    Line(String),
    Flush(SyncSender<()>),
    End,
}

fn write_lines(messages: &Receiver<Message>) {
    let mut error = std::io::stderr().lock();
    while let Ok(message) = messages.recv() {
        match message {
            // Nobody can be told that standard error is gone.
            Message::Line(line) => drop(error.write_all(line.as_bytes())),
            Message::Flush(written) => drop(written.send(())),
            Message::End => return,
        }
    }
}

/// Whether lines are coloured.
#[derive(Clone, Copy)]
enum Colour {
    On,
    Off,
}

struct Lines {
    format: Format,
    colour: Colour,
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    metrics: LogMetrics,
}

/// Fields of a span or an event, in order.
#[derive(Clone, Debug, Default)]
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                fields.0.extend(of_span.0.clone());
            }
        }
        event.record(&mut fields);
        let message = fields.0.remove("message").and_then(|m| m.as_str().map(str::to_owned)).unwrap_or_default();
        let meta = event.metadata();
        self.metrics.line(*meta.level());
        let line = Line { level: *meta.level(), target: meta.target(), message: &message, fields: fields.0 };
        self.send(match self.format {
            Format::Json => line.json(),
            Format::Text => line.text(self.colour),
        });
    }
}

impl Lines {
    fn send(&self, line: String) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        let line = match dropped {
            0 => line,
            _ => {
                let fields = Map::from_iter([("lines".to_owned(), Value::from(dropped))]);
                let note = Line {
                    level: Level::WARN,
                    target: "nowwhat",
                    message: "log lines dropped: standard error is too slow",
                    fields,
                };
                let note = if self.format == Format::Json { note.json() } else { note.text(self.colour) };
                note + &line
            }
        };
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Message::Line(line)) {
            self.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
            self.metrics.dropped.inc();
        }
    }
}

struct Line<'a> {
    level: Level,
    target: &'a str,
    message: &'a str,
    fields: Map<String, Value>,
}

impl Line<'_> {
    fn json(self) -> String {
        let head = [
            ("time", format!("{:.6}", Timestamp::now())),
            ("level", self.level.as_str().to_lowercase()),
            ("target", self.target.to_owned()),
            ("message", self.message.to_owned()),
        ];
        let head = head.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value)));
        // A field cannot take the place of one of these.
        let fields = self
            .fields
            .into_iter()
            .filter(|(name, _)| !["time", "level", "target", "message"].contains(&name.as_str()));
        let pairs: Vec<String> =
            head.chain(fields).map(|(name, value)| format!("{}:{value}", Value::from(name))).collect();
        format!("{{{}}}\n", pairs.join(","))
    }

    fn text(self, colour: Colour) -> String {
        let (on, dim, off) = match (colour, self.level) {
            (Colour::Off, _) => ("", "", ""),
            (Colour::On, Level::ERROR) => ("\x1b[31m", "\x1b[2m", "\x1b[0m"),
            (Colour::On, Level::WARN) => ("\x1b[33m", "\x1b[2m", "\x1b[0m"),
            (Colour::On, _) => ("\x1b[32m", "\x1b[2m", "\x1b[0m"),
        };
        let mut text = format!("{dim}{:.3}{off} {on}{:>5}{off} {}", Timestamp::now(), self.level, self.message);
        for (name, value) in self.fields {
            text += &match value {
                Value::String(s) if s.chars().all(|c| c.is_ascii_graphic() && c != '"') && !s.is_empty() => {
                    format!(" {dim}{name}={off}{s}")
                }
                value => format!(" {dim}{name}={off}{value}"),
            };
        }
        text + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cannot_be_broken_by_its_values() {
        let line = || {
            let fields = Map::from_iter([("path".to_owned(), Value::from("/a\n{\"level\":\"error\"}"))]);
            Line { level: Level::INFO, target: "t", message: "request", fields }
        };
        for text in [line().json(), line().text(Colour::Off)] {
            assert_eq!(text.matches('\n').count(), 1, "{text}");
        }
        let json: Value = serde_json::from_str(&line().json()).expect("JSON");
        assert_eq!((json["level"].as_str(), json["message"].as_str()), (Some("info"), Some("request")));
    }
}
