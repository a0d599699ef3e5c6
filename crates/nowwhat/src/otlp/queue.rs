//! What waits to be exported, and what is lost: counted, and said in the log now and then.
//!
//! The library's queues drop without telling how much. Here a count stands before each of them that lets in only what
//! they have room for.

use super::WAITING_MAX;
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{self, BatchLogProcessor, LogBatch, LogExporter, LogProcessor, SdkLogRecord};
use opentelemetry_sdk::trace::{self, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Spans or records sent at once.
const BATCH_MAX: usize = 512;
/// How long they wait for a batch to fill.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// How often at most the log says that something is lost.
const WARNING_PAUSE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    signal: &'static str,
    outcome: &'static str,
}

/// Metrics of exporting; registered once.
#[derive(Clone, Debug)]
pub struct OtlpMetrics {
    items: Family<Labels, Counter>,
}

impl OtlpMetrics {
    /// Makes the metrics and adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self { items: Family::default() };
        for signal in ["spans", "records"] {
            drop(metrics.counts(signal));
        }
        let r = registry.sub_registry_with_prefix("otlp");
        let help =
            "Spans and log records by what became of them: sent, failed in sending, dropped because too many waited";
        r.register("items", help, metrics.items.clone());
        metrics
    }

    fn counts(&self, signal: &'static str) -> Counts {
        let counter = |outcome| self.items.get_or_create(&Labels { signal, outcome }).clone();
        Counts {
            waiting: Arc::default(),
            sent: counter("sent"),
            failed: counter("failed"),
            dropped: counter("dropped"),
        }
    }
}

/// The counts of one queue.
#[derive(Clone, Debug)]
struct Counts {
    waiting: Arc<AtomicUsize>,
    sent: Counter,
    failed: Counter,
    dropped: Counter,
}

impl Counts {
    /// Whether there is room for one more, which then waits.
    fn admits(&self, losses: &Losses) -> bool {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < WAITING_MAX {
            return true;
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.dropped.inc();
        losses.add(1);
        false
    }

    fn taken(&self, n: usize) {
        self.waiting.fetch_sub(n, Ordering::Relaxed);
    }

    fn ended(&self, n: usize, result: &OTelSdkResult, losses: &Losses) {
        let n = n as u64;
        match result {
            Ok(()) => drop(self.sent.inc_by(n)),
            Err(_) => {
                self.failed.inc_by(n);
                losses.add(n);
            }
        }
        losses.tell();
    }
}

/// What was lost and not yet said.
#[derive(Debug, Default)]
pub(super) struct Losses(Mutex<Lost>);

#[derive(Debug, Default)]
struct Lost {
    items: u64,
    cause: String,
    told: Option<Instant>,
}

impl Losses {
    /// Notes why sending failed.
    pub(super) fn because(&self, cause: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).cause = cause;
    }

    fn add(&self, items: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).items += items;
    }

    /// Says what was lost, unless it did a short time ago. Called where batches are sent, whose lines are not exported.
    fn tell(&self) {
        let mut lost = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = lost.told.is_some_and(|told| told.elapsed() < WARNING_PAUSE);
        if lost.items == 0 || lately {
            return;
        }
        let (items, cause) = (std::mem::take(&mut lost.items), std::mem::take(&mut lost.cause));
        lost.told = Some(Instant::now());
        drop(lost);
        tracing::warn!(items, cause, "spans and log records are lost: the collector takes none or too few");
    }
}

/// A queue of the library, with a count before it.
#[derive(Debug)]
pub(super) struct Batches<P> {
    processor: P,
    counts: Counts,
    losses: Arc<Losses>,
}

impl Batches<BatchSpanProcessor> {
    pub(super) fn of_spans<E: SpanExporter + 'static>(exporter: E, metrics: &OtlpMetrics, losses: Arc<Losses>) -> Self {
        let counts = metrics.counts("spans");
        let exporter = Counted { exporter, counts: counts.clone(), losses: losses.clone() };
        let config = trace::BatchConfigBuilder::default()
            .with_max_queue_size(WAITING_MAX)
            .with_max_export_batch_size(BATCH_MAX)
            .with_scheduled_delay(BATCH_DELAY)
            .build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
        Self { processor, counts, losses }
    }
}

impl Batches<BatchLogProcessor> {
    pub(super) fn of_records<E: LogExporter + 'static>(
        exporter: E,
        metrics: &OtlpMetrics,
        losses: Arc<Losses>,
    ) -> Self {
        let counts = metrics.counts("records");
        let exporter = Counted { exporter, counts: counts.clone(), losses: losses.clone() };
        let config = logs::BatchConfigBuilder::default()
            .with_max_queue_size(WAITING_MAX)
            .with_max_export_batch_size(BATCH_MAX)
            .with_scheduled_delay(BATCH_DELAY)
            .build();
        let processor = BatchLogProcessor::builder(exporter).with_batch_config(config).build();
        Self { processor, counts, losses }
    }
}

impl SpanProcessor for Batches<BatchSpanProcessor> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.processor.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.counts.admits(&self.losses) {
            self.processor.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.processor.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.processor.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.processor.set_resource(resource);
    }
}

impl LogProcessor for Batches<BatchLogProcessor> {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if self.counts.admits(&self.losses) {
            self.processor.emit(record, scope);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.processor.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.processor.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.processor.set_resource(resource);
    }
}

/// An exporter that counts.
#[derive(Debug)]
struct Counted<E> {
    exporter: E,
    counts: Counts,
    losses: Arc<Losses>,
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let n = batch.len();
        self.counts.taken(n);
        let result = self.exporter.export(batch).await;
        self.counts.ended(n, &result, &self.losses);
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: LogExporter> LogExporter for Counted<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let n = batch.iter().count();
        self.counts.taken(n);
        let result = self.exporter.export(batch).await;
        self.counts.ended(n, &result, &self.losses);
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::field::{Field, Visit};
    use tracing_subscriber::layer::{Context as LayerContext, Layer, SubscriberExt};

    /// The fields of every line.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    impl<S: tracing::Subscriber> Layer<S> for Lines {
        fn on_event(&self, event: &tracing::Event<'_>, _: LayerContext<'_, S>) {
            let mut text = Text(event.metadata().level().to_string());
            event.record(&mut text);
            self.0.lock().expect("no panic").push(text.0);
        }
    }

    struct Text(String);

    impl Visit for Text {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            self.0 += &format!(" {}={value:?}", field.name());
        }
    }

    #[test]
    fn losses_are_said_once_a_minute_with_their_cause() {
        let (losses, lines) = (Losses::default(), Lines::default());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines.clone()), || {
            losses.tell();
            assert_eq!(lines.0.lock().expect("no panic").len(), 0, "nothing is lost yet");
            losses.because("cannot reach otlp".to_owned());
            for _ in 0..3 {
                losses.add(2);
                losses.tell();
            }
        });
        let lines = lines.0.lock().expect("no panic").clone();
        let [line] = &lines[..] else { panic!("one line: {lines:?}") };
        assert!(line.starts_with("WARN") && line.contains("items=2 cause=\"cannot reach otlp\""), "{line}");
        losses.0.lock().expect("no panic").told = Instant::now().checked_sub(WARNING_PAUSE);
        losses.tell();
        assert_eq!(losses.0.lock().expect("no panic").items, 0, "a minute later the others are said");
    }
}
