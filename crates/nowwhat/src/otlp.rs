//! Traces and log records for a collector of OpenTelemetry, by OTLP over HTTP.
//!
//! [`Otlp::start`] gives two layers for a subscriber: [`Otlp::spans`] exports spans, [`Otlp::records`] exports log
//! lines with the ids of the span they were written in. Both are exported in batches by threads of their own, over this
//! crate's own [`Client`].
//!
//! **A collector that is slow or down never holds up the service.** At most [`WAITING_MAX`] spans and as many records
//! wait; further ones are dropped and counted, and so are those of a batch that could not be sent. It is said in the
//! log once a minute at most. [`Otlp::shutdown`] sends what waits and returns at its deadline at the latest.
//!
//! **What the exporter does itself is never exported**, so that no export makes the next one.
//!
//! Order of the layers: a filter of levels first, these two anywhere after it. Not inside a
//! `tracing_subscriber::reload::Layer`, where [`set_parent`] and [`context_of`] do not find them.
//!
//! The libraries read the variables `OTEL_EXPORTER_OTLP_HEADERS` and the limits `OTEL_SPAN_*` by themselves; everything
//! else is set here.

mod queue;

use crate::client::{CaError, CallLimits, Client};
use crate::config::{Secret, Url};
use crate::dependency::DependencyMetrics;
use crate::trace::{Sampled, TraceContext};
use crate::version::Version;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_appender_tracing::layer::{OpenTelemetryTracingBridge, TracingSpanAttributes};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, LogExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
pub use queue::OtlpMetrics;
use queue::{Batches, Losses};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::{Level, Metadata, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

/// Spans, and as many log records, that may wait to be sent.
pub const WAITING_MAX: usize = 8192;

/// Bytes of a collector's answer that are read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Where to export to, and as whom.
#[derive(Clone, Debug)]
pub struct OtlpOptions {
    /// The collector, such as `http://127.0.0.1:4318`; the paths `/v1/traces` and `/v1/logs` are added.
    pub endpoint: Url,
    /// Headers for the collector, such as a token.
    pub headers: Vec<(String, Secret)>,
    /// Certificate authorities as PEM, when the endpoint is `https`.
    pub ca: Option<PathBuf>,
    /// How long one batch may take, with repeating it.
    pub timeout: Duration,
    /// What exports.
    pub service: Version,
    /// The environment it runs in, such as `production`.
    pub environment: String,
    /// The machine it runs on.
    pub host: String,
}

/// Why nothing is exported.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The endpoint cannot be used.
    #[error(
        "cannot export to {endpoint:?}: give an address with http or https and without a query or a user (give otlp.authorization), such as http://127.0.0.1:4318"
    )]
    Endpoint {
        /// What was given.
        endpoint: Url,
    },
    /// An endpoint with `https`, and nobody to trust.
    #[error("cannot export to {endpoint:?}: https needs a file of certificate authorities")]
    NoAuthorities {
        /// What was given.
        endpoint: Url,
    },
    /// The authorities cannot be used.
    #[error(transparent)]
    Authorities(#[from] CaError),
    /// A header cannot be sent.
    #[error("cannot export with the header {name:?}: its name or its value has characters that no header may have")]
    Header {
        /// Its name; the value may be secret.
        name: String,
    },
    /// The library refused.
    #[error("cannot export")]
    Exporter(#[from] ExporterBuildError),
    /// The operating system refused the thread.
    #[error("cannot start the exporter's thread")]
    Thread(#[from] std::io::Error),
}

/// Exporting is on.
#[derive(Debug)]
pub struct Otlp {
    spans: SdkTracerProvider,
    records: SdkLoggerProvider,
    sender: Sender,
    headers: Arc<RwLock<HeaderMap>>,
}

impl Otlp {
    /// Begins to export. Needs no runtime: it has its own.
    ///
    /// # Errors
    /// [`OtlpError`]. A collector that cannot be reached is none.
    pub fn start(options: &OtlpOptions, metrics: &OtlpMetrics, calls: &DependencyMetrics) -> Result<Self, OtlpError> {
        let client = client(options, calls)?;
        let headers = Arc::new(RwLock::new(headers(&options.headers)?));
        let sender = Sender::start()?;
        let losses = Arc::new(Losses::default());
        let runtime = sender.runtime.clone();
        let http = Exchange { client, runtime, losses: losses.clone(), headers: headers.clone() };
        let endpoint = |path: &str| format!("{}{path}", options.endpoint.reveal().trim_end_matches('/'));
        let resource = resource(options);

        let exporter = SpanExporter::builder().with_http().with_http_client(http.clone());
        let exporter = exporter.with_protocol(Protocol::HttpBinary).with_endpoint(endpoint("/v1/traces"));
        let exporter = exporter.with_timeout(options.timeout).build()?;
        let spans = SdkTracerProvider::builder()
            .with_span_processor(Batches::of_spans(exporter, metrics, losses.clone()))
            // What the caller decided holds; what begins here is recorded.
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .with_resource(resource.clone())
            .build();

        let exporter = LogExporter::builder().with_http().with_http_client(http);
        let exporter = exporter.with_protocol(Protocol::HttpBinary).with_endpoint(endpoint("/v1/logs"));
        let exporter = exporter.with_timeout(options.timeout).build()?;
        let records = SdkLoggerProvider::builder()
            .with_log_processor(Batches::of_records(exporter, metrics, losses))
            .with_resource(resource)
            .build();
        Ok(Self { spans, records, sender, headers })
    }

    /// Sends other headers, such as a new token, from the next batch on.
    ///
    /// # Errors
    /// [`OtlpError::Header`]; those before are still sent then.
    pub fn set_headers(&self, given: &[(String, Secret)]) -> Result<(), OtlpError> {
        *self.headers.write().unwrap_or_else(PoisonError::into_inner) = headers(given)?;
        Ok(())
    }

    /// The layer that exports spans. An error that is logged in a span marks the span as failed.
    pub fn spans<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        // Other lines are exported as records.
        let wanted = |meta: &Metadata<'_>| is_ours(meta) && (meta.is_span() || *meta.level() == Level::ERROR);
        tracing_opentelemetry::layer()
            .with_tracer(self.spans.tracer("nowwhat"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(wanted))
    }

    /// The layer that exports log lines.
    pub fn records<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        OpenTelemetryTracingBridge::builder(&self.records)
            .with_tracing_span_attributes(TracingSpanAttributes::all())
            .build()
            .with_filter(filter_fn(is_ours))
    }

    /// Sends what waits and ends exporting, at the latest after `deadline`; what could not be sent by then is lost. It
    /// blocks: call it where that holds up nobody, such as after the runtime ended.
    pub fn shutdown(self, deadline: Duration) {
        let (spans, records) = std::thread::scope(|scope| {
            let spans = scope.spawn(|| self.spans.shutdown_with_timeout(deadline));
            let records = self.records.shutdown_with_timeout(deadline);
            (spans.join(), records)
        });
        self.sender.stop();
        if !matches!((spans, records), (Ok(Ok(())), Ok(()))) {
            let deadline_seconds = deadline.as_secs_f64();
            tracing::warn!(deadline_seconds, "spans or log records were not exported before the end");
        }
    }
}

/// The libraries' own lines say nothing to whoever reads the service's, and could cause further ones.
fn is_ours(meta: &Metadata<'_>) -> bool {
    !meta.target().starts_with("opentelemetry")
}

fn client(options: &OtlpOptions, calls: &DependencyMetrics) -> Result<Client, OtlpError> {
    check_endpoint(&options.endpoint, options.ca.as_deref())?;
    let limits = CallLimits { timeout: options.timeout, body_bytes_max: ANSWER_BYTES_MAX };
    let client = Client::new("otlp", limits, calls);
    match &options.ca {
        Some(ca) if options.endpoint.scheme() == "https" => Ok(client.with_ca(ca)?),
        _ => Ok(client),
    }
}

/// Whether can be exported there; the file of authorities is not looked into.
pub(crate) fn check_endpoint(endpoint: &Url, ca: Option<&Path>) -> Result<(), OtlpError> {
    match endpoint.scheme() {
        // What is added to the address would become part of its query, and a user in it is not sent.
        _ if endpoint.reveal().contains(['?', '@']) => Err(OtlpError::Endpoint { endpoint: endpoint.clone() }),
        "http" => Ok(()),
        "https" if ca.is_some() => Ok(()),
        "https" => Err(OtlpError::NoAuthorities { endpoint: endpoint.clone() }),
        _ => Err(OtlpError::Endpoint { endpoint: endpoint.clone() }),
    }
}

/// Headers as they are sent.
pub(crate) fn headers(given: &[(String, Secret)]) -> Result<HeaderMap, OtlpError> {
    let checked = |(name, value): &(String, Secret)| {
        let unusable = || OtlpError::Header { name: name.clone() };
        let mut value = HeaderValue::from_str(value.reveal()).map_err(|_| unusable())?;
        value.set_sensitive(true);
        Ok((HeaderName::try_from(name).map_err(|_| unusable())?, value))
    };
    given.iter().map(checked).collect()
}

/// What exports, by the names of <https://opentelemetry.io/docs/specs/semconv/resource/>.
fn resource(options: &OtlpOptions) -> Resource {
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes([
            KeyValue::new("service.name", options.service.name),
            KeyValue::new("service.version", options.service.version),
            KeyValue::new("deployment.environment.name", options.environment.clone()),
            KeyValue::new("host.name", options.host.clone()),
        ])
        .build()
}

/// The thread on which batches are sent: those that collect them have no runtime.
#[derive(Debug)]
struct Sender {
    runtime: Handle,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Sender {
    fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("otlp".to_owned()).spawn(move || {
            // Everything that happens on this thread is about exporting.
            let _unseen = Context::enter_telemetry_suppressed_scope();
            // An error says that the other side is gone, which means the same.
            drop(runtime.block_on(stopped));
            // A look-up of a name may still wait for its answer.
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, stop, thread })
    }

    fn stop(self) {
        drop(self.stop);
        drop(self.thread.join());
    }
}

/// Sends batches for the library's exporters.
#[derive(Clone, Debug)]
struct Exchange {
    client: Client,
    runtime: Handle,
    losses: Arc<Losses>,
    headers: Arc<RwLock<HeaderMap>>,
}

impl Exchange {
    async fn exchange(self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // Not given to the library, which could not be told others later.
        for (name, value) in self.headers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            request.headers_mut().insert(name, value.clone());
        }
        let answered = self.runtime.spawn(async move { self.client.request(request).await }).await;
        let answer = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                self.losses.because(crate::error_chain(&error));
                return Err(error.into());
            }
            Err(stopped) => return Err(stopped.into()),
        };
        if !answer.status.is_success() {
            self.losses.because(format!("the collector answers {}", answer.status));
        }
        let mut response = Response::new(answer.bytes);
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}

impl HttpClient for Exchange {
    // As `async_trait`, with which the trait is declared, would write it.
    fn send_bytes<'a, 'r>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'r>>
    where
        'a: 'r,
        Self: 'r,
    {
        Box::pin(self.clone().exchange(request))
    }
}

/// Puts `span` under the caller's in its trace. To be called before the span is entered for the first time; it does
/// nothing when spans are not exported.
pub fn set_parent(span: &tracing::Span, caller: &TraceContext) {
    let flags = if caller.sampled == Sampled::Yes { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let (trace, parent) = (TraceId::from_bytes(caller.trace_id), SpanId::from_bytes(caller.parent_id));
    let remote = SpanContext::new(trace, parent, flags, true, TraceState::NONE);
    // An error says that nothing is exported or that the span is filtered out.
    drop(span.set_parent(Context::new().with_remote_span_context(remote)));
}

/// The trace and the id of `span`, as a call made within it tells them; none when spans are not exported. Its parent
/// cannot be set afterwards.
pub fn context_of(span: &tracing::Span) -> Option<TraceContext> {
    let context = span.context();
    let span = context.span();
    let ids = span.span_context();
    let sampled = if ids.is_sampled() { Sampled::Yes } else { Sampled::No };
    let of_span = || TraceContext { trace_id: ids.trace_id().to_bytes(), parent_id: ids.span_id().to_bytes(), sampled };
    ids.is_valid().then(of_span)
}

#[cfg(test)]
mod tests;
