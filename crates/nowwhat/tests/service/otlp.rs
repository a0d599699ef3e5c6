//! What a collector of OpenTelemetry gets from the whole service.

use super::running::{Hello, LOCAL, ask};
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use hyper::body::Bytes;
use nowwhat::testkit::wait_until;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rustix::process::Signal;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT_ID: &str = "00f067aa0ba902b7";

#[derive(Clone, Debug, Default)]
struct Got {
    spans: Arc<Mutex<Vec<Span>>>,
    records: Arc<Mutex<Vec<LogRecord>>>,
}

/// A collector; it ends with its runtime.
struct Collector {
    address: SocketAddr,
    got: Got,
    _runtime: tokio::runtime::Runtime,
}

impl Collector {
    fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
        let traces = async |State(got): State<Got>, body: Bytes| {
            let request = ExportTraceServiceRequest::decode(body).expect("a request");
            let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            got.spans.lock().expect("no panic").extend(scopes.flat_map(|scope| scope.spans));
        };
        let logs = async |State(got): State<Got>, body: Bytes| {
            let request = ExportLogsServiceRequest::decode(body).expect("a request");
            let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
            got.records.lock().expect("no panic").extend(scopes.flat_map(|scope| scope.log_records));
        };
        let got = Got::default();
        let routes =
            Router::new().route("/v1/traces", post(traces)).route("/v1/logs", post(logs)).with_state(got.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        runtime.spawn(async move { axum::serve(listener, routes).await });
        Self { address, got, _runtime: runtime }
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn value<'a>(pairs: &'a [KeyValue], key: &str) -> Option<&'a any_value::Value> {
    pairs.iter().find(|pair| pair.key == key)?.value.as_ref()?.value.as_ref()
}

#[test]
fn a_request_is_a_span_of_the_callers_trace_and_its_lines_are_records_of_it() {
    let collector = Collector::start();
    let hello = Hello::start(&[("HELLO_OTLP__ENDPOINT", &collector.endpoint())]);
    let traceparent = format!("00-{TRACE_ID}-{PARENT_ID}-01");
    let headers = [("traceparent", traceparent.as_str()), ("x-request-id", "loaf-17")];
    assert_eq!(ask(hello.address, LOCAL, "GET /hello/moon", &headers).status, 200);
    for message in ["greeted", "[200] GET /hello/moon"] {
        let line = hello.line(message);
        assert_eq!((&line["trace_id"], &line["request_id"]), (&TRACE_ID.into(), &"loaf-17".into()), "{line}");
    }
    // One that begins here has a trace, too.
    ask(hello.address, LOCAL, "GET /hello/mars", &[]);
    let begun = hello.line("[200] GET /hello/mars")["trace_id"].as_str().expect("a trace").to_owned();
    hello.stop();

    let spans = collector.got.spans.lock().expect("no panic");
    let span = spans.iter().find(|span| hex(&span.trace_id) == TRACE_ID).unwrap_or_else(|| panic!("{spans:?}"));
    assert_eq!((span.name.as_str(), hex(&span.parent_span_id).as_str()), ("GET /hello/{name}", PARENT_ID));
    let status = value(&span.attributes, "http.response.status_code");
    assert_eq!(status, Some(&any_value::Value::IntValue(200)), "{span:?}");
    assert!(spans.iter().any(|span| hex(&span.trace_id) == begun), "{begun} in {spans:?}");

    let records = collector.got.records.lock().expect("no panic");
    for message in ["greeted", "[200] GET /hello/moon (hello#hello)"] {
        let text = any_value::Value::StringValue(message.to_owned());
        let is_it = |record: &&LogRecord| record.body.as_ref().and_then(|body| body.value.as_ref()) == Some(&text);
        let record = records.iter().find(is_it).unwrap_or_else(|| panic!("{message} in {records:?}"));
        assert_eq!((hex(&record.trace_id), &record.span_id), (TRACE_ID.to_owned(), &span.span_id));
        let id = value(&record.attributes, "request_id");
        assert_eq!(id, Some(&any_value::Value::StringValue("loaf-17".to_owned())), "{record:?}");
    }
}

#[test]
fn without_an_endpoint_nothing_is_exported_and_no_trace_begins() {
    let collector = Collector::start();
    // What the library would read by itself.
    let hello = Hello::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint())]);
    ask(hello.address, LOCAL, "GET /hello/moon", &[]);
    assert!(hello.line("[200] GET /hello/moon")["trace_id"].is_null());
    let traceparent = format!("00-{TRACE_ID}-{PARENT_ID}-01");
    ask(hello.address, LOCAL, "GET /hello/mars", &[("traceparent", &traceparent)]);
    assert_eq!(hello.line("[200] GET /hello/mars")["trace_id"], TRACE_ID, "the caller's is told");
    hello.stop();
    assert!(collector.got.spans.lock().expect("no panic").is_empty());
    assert!(collector.got.records.lock().expect("no panic").is_empty());
}

#[test]
fn a_collector_that_is_down_or_silent_does_not_hold_up_the_end() {
    // Connections to it are taken by the operating system, and never answered.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let gone = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    for address in [silent.local_addr().expect("an address"), gone] {
        let hello = Hello::start(&[("HELLO_OTLP__ENDPOINT", &format!("http://{address}"))]);
        ask(hello.address, LOCAL, "GET /hello/moon", &[]);
        wait_until("answered", || hello.written().contains("[200]"));
        let began = Instant::now();
        hello.signal(Signal::TERM);
        let (code, written) = hello.end();
        assert_eq!(code, Some(0), "{written}");
        // Three seconds are allowed for it; a batch may take ten.
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        assert!(written.contains("were not exported before the end") || written.contains("are lost"), "{written}");
    }
}
