//! What a collector of OpenTelemetry receives, and what it cannot hold up.

use super::*;
use crate::client::Client;
use crate::config::Value;
use crate::current::{Current, scope};
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue as Pair, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use prometheus_client::registry::Registry as Metrics;
use prost::Message;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tracing::span::{Attributes, Id};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt;

/// What a collector got.
#[derive(Clone, Debug, Default)]
struct Got {
    traces: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    logs: Arc<Mutex<Vec<ExportLogsServiceRequest>>>,
    headers: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Got {
    fn spans(&self) -> Vec<Span> {
        let traces = self.traces.lock().expect("no panic");
        let scopes = traces.iter().flat_map(|t| &t.resource_spans).flat_map(|r| &r.scope_spans);
        scopes.flat_map(|s| s.spans.clone()).collect()
    }

    fn span(&self, name: &str) -> Span {
        let spans = self.spans();
        spans.iter().find(|s| s.name == name).unwrap_or_else(|| panic!("{name} is not in {spans:?}")).clone()
    }

    fn records(&self) -> Vec<LogRecord> {
        let logs = self.logs.lock().expect("no panic");
        let scopes = logs.iter().flat_map(|l| &l.resource_logs).flat_map(|r| &r.scope_logs);
        scopes.flat_map(|s| s.log_records.clone()).collect()
    }
}

fn text(pairs: &[Pair], key: &str) -> Option<String> {
    match pairs.iter().find(|p| p.key == key)?.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        other => Some(format!("{other:?}")),
    }
}

fn body(record: &LogRecord) -> String {
    match record.body.as_ref().and_then(|b| b.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        other => format!("{other:?}"),
    }
}

/// A collector that answers with `status`.
async fn collector(status: StatusCode) -> (SocketAddr, Got) {
    let traces = async move |State(got): State<Got>, headers: HeaderMap, body: Bytes| {
        got.headers.lock().expect("no panic").push(headers);
        got.traces.lock().expect("no panic").push(ExportTraceServiceRequest::decode(body).expect("a request"));
        status
    };
    let logs = async move |State(got): State<Got>, body: Bytes| {
        got.logs.lock().expect("no panic").push(ExportLogsServiceRequest::decode(body).expect("a request"));
        status
    };
    let got = Got::default();
    let router = Router::new().route("/v1/traces", post(traces)).route("/v1/logs", post(logs)).with_state(got.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, got)
}

fn options(endpoint: &str) -> OtlpOptions {
    OtlpOptions {
        endpoint: Url::parse(endpoint).expect("an address"),
        headers: vec![("authorization".to_owned(), Secret::parse("Bearer hidden").expect("a text"))],
        ca: None,
        timeout: Duration::from_secs(30),
        service: Version { name: "bakery", version: "1.2.3", commit: "abc" },
        environment: "staging".to_owned(),
        host: "oven-7".to_owned(),
    }
}

struct Exporting {
    otlp: Otlp,
    metrics: Metrics,
}

fn exporting(options: &OtlpOptions) -> Result<Exporting, OtlpError> {
    let mut metrics = Metrics::default();
    let (items, calls) = (OtlpMetrics::register(&mut metrics), DependencyMetrics::register(&mut metrics));
    Ok(Exporting { otlp: Otlp::start(options, &items, &calls)?, metrics })
}

impl Exporting {
    fn subscriber(&self) -> impl Subscriber + for<'a> LookupSpan<'a> + Send + Sync + use<> {
        let layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> =
            vec![Box::new(self.otlp.spans()), Box::new(self.otlp.records())];
        Registry::default().with(layers)
    }

    async fn shutdown(self, deadline: Duration) -> Metrics {
        tokio::task::spawn_blocking(move || self.otlp.shutdown(deadline)).await.expect("no panic");
        self.metrics
    }
}

fn items(metrics: &Metrics, signal: &str, outcome: &str) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, metrics).expect("a text");
    let name = format!("otlp_items_total{{signal=\"{signal}\",outcome=\"{outcome}\"}} ");
    let count = text.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_else(|| panic!("{name} in {text}"));
    count.parse().expect("a count")
}

#[tokio::test]
async fn a_span_continues_the_callers_trace_and_its_lines_tell_where_they_belong() {
    let (address, got) = collector(StatusCode::OK).await;
    let exporting = exporting(&options(&format!("http://{address}/"))).expect("exporting");
    let caller = TraceContext::random(Sampled::Yes);
    let here = tracing::subscriber::with_default(exporting.subscriber(), || {
        let span = tracing::info_span!("request", request_id = "order-17");
        set_parent(&span, &caller);
        let here = context_of(&span);
        span.in_scope(|| {
            tracing::info!(loaves = 3, "baked");
            tracing::info_span!("inner").in_scope(|| tracing::error!("burnt"));
        });
        here.expect("ids")
    });
    let metrics = exporting.shutdown(Duration::from_secs(20)).await;

    assert_eq!(here.trace_id, caller.trace_id);
    assert_ne!(here.parent_id, caller.parent_id);
    let (request, inner) = (got.span("request"), got.span("inner"));
    assert_eq!((&request.trace_id[..], &request.span_id[..]), (&here.trace_id[..], &here.parent_id[..]));
    assert_eq!(request.parent_span_id, caller.parent_id);
    assert_eq!((&inner.trace_id, &inner.parent_span_id), (&request.trace_id, &request.span_id));
    assert_eq!(text(&request.attributes, "request_id").as_deref(), Some("order-17"));
    assert_eq!((request.events.len(), inner.events.len()), (0, 1), "only errors are events of spans");
    assert_eq!(inner.status.expect("a status").code, 2, "an error that was logged fails its span");

    let records = got.records();
    let [baked, burnt] = &records[..] else { panic!("two records: {records:?}") };
    assert_eq!((body(baked).as_str(), body(burnt).as_str()), ("baked", "burnt"));
    assert_eq!((&baked.trace_id, &baked.span_id), (&request.trace_id, &request.span_id));
    assert_eq!((&burnt.trace_id, &burnt.span_id), (&inner.trace_id, &inner.span_id));
    assert_eq!((baked.severity_text.as_str(), burnt.severity_text.as_str()), ("INFO", "ERROR"));
    let counts = ["spans", "records"].map(|signal| ["sent", "failed", "dropped"].map(|o| items(&metrics, signal, o)));
    assert_eq!(counts, [[2, 0, 0], [2, 0, 0]]);
}

#[tokio::test]
async fn the_collector_is_told_who_exports() {
    let (address, got) = collector(StatusCode::OK).await;
    let exporting = exporting(&options(&format!("http://{address}"))).expect("exporting");
    tracing::subscriber::with_default(exporting.subscriber(), || {
        tracing::info_span!("request").in_scope(|| tracing::info!("line"))
    });
    exporting.shutdown(Duration::from_secs(20)).await;
    let spans = got.traces.lock().expect("no panic")[0].resource_spans[0].resource.clone().expect("a resource");
    let records = got.logs.lock().expect("no panic")[0].resource_logs[0].resource.clone().expect("a resource");
    let expected = [
        ("service.name", "bakery"),
        ("service.version", "1.2.3"),
        ("deployment.environment.name", "staging"),
        ("host.name", "oven-7"),
    ];
    for (key, value) in expected {
        for resource in [&spans, &records] {
            assert_eq!(text(&resource.attributes, key).as_deref(), Some(value), "{key}");
        }
    }
    let headers = got.headers.lock().expect("no panic")[0].clone();
    assert_eq!(headers["authorization"], "Bearer hidden");
    assert_eq!(headers["content-type"], "application/x-protobuf");
}

#[tokio::test]
async fn what_the_caller_does_not_record_is_continued_but_not_exported() {
    let (address, got) = collector(StatusCode::OK).await;
    let exporting = exporting(&options(&format!("http://{address}"))).expect("exporting");
    // As a service stacks them: a filter of levels, then these, without a box.
    let filtered = Registry::default().with("info".parse::<tracing_subscriber::filter::Targets>().expect("levels"));
    let subscriber = filtered.with(exporting.otlp.spans()).with(exporting.otlp.records());
    let caller = TraceContext::random(Sampled::No);
    let here = tracing::subscriber::with_default(subscriber, || {
        let span = tracing::info_span!("unseen");
        set_parent(&span, &caller);
        tracing::info_span!("seen").in_scope(|| tracing::debug!("too detailed"));
        context_of(&span).expect("ids")
    });
    exporting.shutdown(Duration::from_secs(20)).await;
    assert_eq!((here.trace_id, here.sampled), (caller.trace_id, Sampled::No));
    assert_eq!(got.spans().iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["seen"]);
    assert_eq!(got.records(), [], "the filter holds for records too");
}

#[test]
fn without_exporting_a_span_has_no_ids() {
    let caller = TraceContext::random(Sampled::Yes);
    tracing::subscriber::with_default(Registry::default(), || {
        let span = tracing::info_span!("request");
        set_parent(&span, &caller);
        assert_eq!(context_of(&span), None);
    });
}

#[tokio::test]
async fn a_call_to_another_service_is_a_span_and_the_other_belongs_under_it() {
    let (address, got) = collector(StatusCode::OK).await;
    let exporting = exporting(&options(&format!("http://{address}"))).expect("exporting");
    let (other, asked) = collector(StatusCode::BAD_GATEWAY).await;
    let calls = DependencyMetrics::register(&mut Metrics::default());
    let limits = CallLimits { timeout: Duration::from_secs(20), body_bytes_max: 1000 };
    let client = Client::new("billing", limits, &calls);
    let caller = TraceContext::random(Sampled::Yes);
    let _guard = tracing::subscriber::set_default(exporting.subscriber());
    let span = tracing::info_span!("request");
    set_parent(&span, &caller);
    let current = Current::of("order-17", context_of(&span).expect("ids"), None);
    let url = format!("http://{other}/v1/traces");
    let call = scope(current, client.post(&url, Bytes::new(), "application/x-protobuf"));
    tracing::Instrument::instrument(call, span).await.expect("an answer");
    exporting.shutdown(Duration::from_secs(20)).await;

    let told = asked.headers.lock().expect("no panic")[0]["traceparent"].to_str().expect("ASCII").to_owned();
    let told = TraceContext::parse(&told).expect("a traceparent");
    let (request, call) = (got.span("request"), got.span("POST billing"));
    assert_eq!(told.trace_id, caller.trace_id);
    assert_eq!(call.span_id, told.parent_id, "the other service is told the span of the call");
    assert_eq!((&call.parent_span_id, &call.trace_id), (&request.span_id, &request.trace_id));
    assert_eq!(call.status.expect("a status").code, 2, "502 fails the span");
    assert_eq!(call.kind, 3, "a client's span");
}

/// Counts the spans of calls that begin on the exporter's thread.
struct OwnCalls(Arc<AtomicUsize>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for OwnCalls {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: tracing_subscriber::layer::Context<'_, S>) {
        if attributes.metadata().name() == "call" && std::thread::current().name() == Some("otlp") {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// The threads of the exporter see the global subscriber only; every test has a process of its own under nextest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_exporter_does_itself_is_not_exported() {
    let (address, got) = collector(StatusCode::OK).await;
    let exporting = exporting(&options(&format!("http://{address}"))).expect("exporting");
    let own = Arc::new(AtomicUsize::new(0));
    let subscriber = exporting.subscriber().with(OwnCalls(own.clone()));
    tracing::subscriber::set_global_default(subscriber).expect("nothing logs yet");
    for round in 1..=3 {
        tracing::info_span!(target: "bakery", "baking").in_scope(|| tracing::info!(target: "bakery", "baked"));
        let deadline = Instant::now() + Duration::from_secs(20);
        let of_ours = || got.spans().iter().filter(|s| s.name == "baking").count();
        while of_ours() < round || got.records().len() < round {
            assert!(Instant::now() < deadline, "round {round}: {got:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    exporting.shutdown(Duration::from_secs(20)).await;
    assert!(own.load(Ordering::Relaxed) >= 6, "the exporter made calls, as spans that this subscriber saw");
    // The test's own collector is served by hyper here, whose lines are the service's.
    let of_calls: Vec<_> = got.spans().into_iter().filter(|s| s.name != "baking").map(|s| s.name).collect();
    assert_eq!(of_calls, Vec::<String>::new());
    let foreign: Vec<_> = got.records().iter().map(body).filter(|b| b != "baked").collect();
    assert_eq!(foreign, Vec::<String>::new());
    assert_eq!((got.spans().len(), got.records().len()), (3, 3));
}

#[tokio::test]
async fn a_collector_that_is_dead_or_asleep_holds_up_nobody() {
    let asleep = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let dead = {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        socket.local_addr().expect("an address")
    };
    for address in [asleep.local_addr().expect("an address"), dead] {
        let exporting = exporting(&options(&format!("http://{address}"))).expect("exporting");
        let count = WAITING_MAX + 2000;
        let started = Instant::now();
        tracing::subscriber::with_default(exporting.subscriber(), || {
            for _ in 0..count {
                tracing::info_span!("request").in_scope(|| tracing::info!("line"));
            }
        });
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        let started = Instant::now();
        let metrics = exporting.shutdown(Duration::from_millis(300)).await;
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        for signal in ["spans", "records"] {
            // One batch may have been taken out of the queue.
            let dropped = items(&metrics, signal, "dropped");
            assert!((2000 - 512..=2000).contains(&dropped), "{dropped} {signal} dropped");
            assert_eq!(items(&metrics, signal, "sent"), 0);
        }
    }
}

#[tokio::test]
async fn what_the_collector_refuses_is_counted() {
    let (address, _) = collector(StatusCode::BAD_REQUEST).await;
    let exporting = exporting(&options(&format!("http://{address}"))).expect("exporting");
    tracing::subscriber::with_default(exporting.subscriber(), || tracing::info_span!("request").in_scope(|| {}));
    let metrics = exporting.shutdown(Duration::from_secs(20)).await;
    assert_eq!(["sent", "failed", "dropped"].map(|o| items(&metrics, "spans", o)), [0, 1, 0]);
}

#[test]
fn options_that_cannot_work_are_refused_and_say_no_secret() {
    let refused = |options: &OtlpOptions| exporting(options).err().expect("refused").to_string();
    let other = refused(&options("ftp://me:hidden@127.0.0.1"));
    assert!(other.starts_with("cannot export to ftp://127.0.0.1/: give an address with http"), "{other}");
    let nobody = refused(&options("https://127.0.0.1:4318"));
    assert!(nobody.contains("needs a file of certificate authorities"), "{nobody}");
    let header = Secret::parse("hidden\nx: y").expect("a text");
    let header = refused(&OtlpOptions { headers: vec![("x-key".to_owned(), header)], ..options("http://127.0.0.1:1") });
    assert!(header.contains("\"x-key\"") && !header.contains("hidden"), "{header}");
    let ca = Some(PathBuf::from("/missing.pem"));
    let ca = refused(&OtlpOptions { ca, ..options("https://127.0.0.1:4318") });
    assert!(ca.contains("/missing.pem"), "{ca}");
    assert!(!format!("{:?}", options("http://me:hidden@127.0.0.1")).contains("hidden"));
}

#[tokio::test]
async fn a_new_token_is_sent_as_it_is_from_the_next_batch_on() {
    let (address, got) = collector(StatusCode::OK).await;
    let exporting = exporting(&options(&format!("http://{address}"))).expect("exporting");
    let _guard = tracing::subscriber::set_default(exporting.subscriber());
    let token = |text: &str| vec![("authorization".to_owned(), Secret::parse(text).expect("a text"))];
    let sent = |got: &Got| got.headers.lock().expect("no panic").last().map(|headers| headers["authorization"].clone());
    for expected in ["Bearer hidden", "Bearer 100%20new"] {
        exporting.otlp.set_headers(&token(expected)).expect("a header");
        tracing::info_span!("request").in_scope(|| {});
        let deadline = Instant::now() + Duration::from_secs(20);
        while sent(&got).is_none_or(|value| value != expected) {
            assert!(Instant::now() < deadline, "{expected} is not sent: {got:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    exporting.otlp.set_headers(&token("two\nlines")).expect_err("no header");
    exporting.shutdown(Duration::from_secs(20)).await;
}
