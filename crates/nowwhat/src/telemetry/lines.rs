//! The layer that makes lines: collects what is bound to the spans around, limits what repeats, counts by level.

use super::capture::Captured;
use super::fields::{Fields, Seen};
use super::render::{Colour, Line};
use super::repeats::{Repeats, Verdict};
use super::writer::{Taken, Writer};
use super::{Format, Origin};
use crate::metrics::{Counter, Family, Registry};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::{LookupSpan, SpanRef};

crate::label! {
    /// The level of a line.
    enum Severity { Error = "error", Warn = "warn", Info = "info", Debug = "debug", Trace = "trace" }
}

crate::labels! {
    /// What lines are counted by.
    struct LevelLabel { level: Severity }
}

/// Metrics of log lines; registered once.
#[derive(Clone, Debug)]
pub struct LogMetrics {
    /// From error to trace.
    lines: [Counter; 5],
    pub(super) dropped: Counter,
    repeated: Counter,
}

impl LogMetrics {
    /// Makes the metrics and adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let family: Family<LevelLabel, Counter> = Family::default();
        let lines = Severity::ALL.map(|level| family.get_or_create_owned(&LevelLabel { level }));
        let (dropped, repeated) = (Counter::default(), Counter::default());
        let r = registry.sub_registry_with_prefix("log");
        r.register("lines", "Log lines by level, with those that were left out", family);
        r.register("lines_dropped", "Log lines dropped because standard error was too slow or full", dropped.clone());
        r.register("lines_repeated", "Warnings and errors left out because they repeated", repeated.clone());
        Self { lines, dropped, repeated }
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

/// What lines are counted and limited by.
#[derive(Debug)]
pub(super) struct Counts {
    repeats: Repeats,
    metrics: LogMetrics,
}

impl Counts {
    pub(super) fn new(metrics: LogMetrics) -> Self {
        Self { repeats: Repeats::default(), metrics }
    }
}

/// Writes log lines.
#[derive(Debug)]
pub struct Lines {
    format: Format,
    colour: Colour,
    origin: Origin,
    writer: Arc<Writer>,
    counts: Arc<Counts>,
}

/// Lines that wait to be written; dropping it writes them.
#[derive(Debug)]
#[must_use = "dropped at once it writes nothing that comes later"]
pub struct Waiting {
    writer: Arc<Writer>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.writer.flush();
    }
}

impl Lines {
    pub(super) fn new(
        format: Format,
        colour: Colour,
        origin: Origin,
        writer: Arc<Writer>,
        metrics: LogMetrics,
    ) -> Self {
        Self { format, colour, origin, writer, counts: Arc::new(Counts::new(metrics)) }
    }

    /// The lines that wait to be written. A subscriber lives as long as the program and never writes them by itself at the end.
    pub fn waiting(&self) -> Waiting {
        Waiting { writer: self.writer() }
    }

    pub(super) fn writer(&self) -> Arc<Writer> {
        self.writer.clone()
    }

    /// Tells how many lines were left out of places that fell silent.
    fn tell_overdue(&self, captured: Option<&Captured>, counts: &Counts) {
        for (lines, of) in counts.repeats.overdue(Instant::now()) {
            let mut fields = Fields::default();
            fields.set("message", Seen::Text("lines left out because they repeated"));
            fields.set("lines", Seen::Unsigned(lines));
            fields.set("of", Seen::Text(&format!("{} line {}", of.target(), of.line().unwrap_or_default())));
            self.write(&Line { level: Level::WARN, target: "nowwhat", fields: &fields }, captured, counts);
        }
    }

    fn write(&self, line: &Line<'_>, captured: Option<&Captured>, counts: &Counts) {
        if let Some(captured) = captured {
            captured.take(line);
        }
        // Writing may log again, and a thread that ends keeps nothing any more: then the line takes room of its own.
        let mut buffer = BUFFER.try_with(RefCell::take).unwrap_or_default();
        buffer.clear();
        line.render(self.format, self.colour, &self.origin, &mut buffer);
        match self.writer.take(&buffer) {
            Taken::After(0) => {}
            Taken::After(dropped) => {
                let mut fields = Fields::default();
                fields.set("message", Seen::Text("log lines dropped: standard error is too slow or full"));
                fields.set("lines", Seen::Unsigned(dropped));
                let note = Line { level: Level::WARN, target: "nowwhat", fields: &fields };
                buffer.clear();
                note.render(self.format, self.colour, &self.origin, &mut buffer);
                // When even the note finds no room, the next one counts it.
                self.writer.take(&buffer);
            }
            Taken::Dropped => {
                counts.metrics.dropped.inc();
            }
        }
        buffer.shrink_to(64 << 10);
        let _ = BUFFER.try_with(|kept| kept.replace(buffer));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(fields.of_span());
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields.of_span());
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let meta = event.metadata();
        let level = *meta.level();
        let captured = Captured::of_thread();
        let counts = captured.as_ref().map_or(&self.counts, Captured::counts);
        counts.metrics.line(level);
        let left_out = match level {
            Level::ERROR | Level::WARN if meta.target() != crate::request::TARGET => {
                match counts.repeats.judge(meta, Instant::now()) {
                    Verdict::Write(left_out) => left_out,
                    Verdict::LeaveOut => {
                        counts.metrics.repeated.inc();
                        return;
                    }
                }
            }
            _ => 0,
        };
        if counts.repeats.owes() {
            self.tell_overdue(captured.as_ref(), counts);
        }
        let mut fields = FIELDS.try_with(RefCell::take).unwrap_or_default();
        fields.clear();
        if let Some(span) = context.event_span(event) {
            inherit(&mut fields, &span);
        }
        event.record(&mut fields);
        if left_out > 0 {
            fields.set("repeated", Seen::Unsigned(left_out));
        }
        let line = Line { level, target: meta.target(), fields: &fields };
        crate::current::record(|record| {
            let mut text = Vec::new();
            line.render(Format::Text, Colour::Off, &self.origin, &mut text);
            record.line(level, String::from_utf8_lossy(&text).into_owned());
        });
        self.write(&line, captured.as_ref(), counts);
        let _ = FIELDS.try_with(|kept| kept.replace(fields));
    }
}

/// Takes over what is bound to a span and to those around it, the outermost first.
fn inherit<'a, S: LookupSpan<'a>>(fields: &mut Fields, span: &SpanRef<'a, S>) {
    if let Some(around) = span.parent() {
        inherit(fields, &around);
    }
    if let Some(of_span) = span.extensions().get::<Fields>() {
        fields.inherit(of_span);
    }
}

thread_local! {
    /// The fields of the line before, for their room.
    static FIELDS: RefCell<Fields> = RefCell::default();
    /// The bytes of the line before, for their room.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}
