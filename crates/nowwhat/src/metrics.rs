//! Metrics in the formats that Prometheus reads: OpenMetrics, and its older text format for everyone else; labels bounded by their
//! types; what the process and the runtime say of themselves.

mod format;
mod label;
mod process;
mod readings;
mod runtime;

use crate::version::Version;
use axum::response::{IntoResponse, Response};
use format::{Format, older_format};
pub use http::StatusCode;
use http::{HeaderMap, HeaderValue, header};
pub use label::{Family, Label, LabelSet, Method, Route, declared};
use process::Process;
use prometheus_client::encoding::text::encode;
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
pub use prometheus_client::registry::Registry;
pub use readings::{Buckets, Readings};
pub use runtime::register_runtime;
use std::sync::{Arc, RwLock};

/// A registry to which metrics can still be added while it is read.
pub type SharedRegistry = Arc<RwLock<Registry>>;

/// The content type of OpenMetrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of the older format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A registry that also has the metrics of the process and of the build.
pub fn registry(version: Version) -> Registry {
    let mut registry = Registry::default();
    let labels = vec![("name", version.name), ("version", version.version), ("commit", version.commit)];
    registry.register("build", "What is running", Info::new(labels));
    registry.register_collector(Box::new(Process));
    registry
}

/// The metrics as an answer, in the format that the client accepts.
pub fn exposition(registry: &Registry, headers: &HeaderMap) -> Response {
    let mut text = String::new();
    encode(&mut text, registry).expect("writing to a text does not fail");
    let (kind, body) = match Format::accepted(headers) {
        Format::OpenMetrics => (OPENMETRICS, text),
        Format::Text => (TEXT, older_format(&text)),
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        // A cache between must not give one scraper's format to another.
        (header::VARY, HeaderValue::from_static("accept")),
    ];
    (headers, body).into_response()
}

/// The metrics as a table in Markdown: name, type, meaning.
pub fn table(registry: &Registry, out: &mut String) {
    let mut text = String::new();
    encode(&mut text, registry).expect("writing to a text does not fail");
    *out += "| metric | type | meaning |\n|---|---|---|\n";
    let mut help = "";
    for line in older_format(&text).lines() {
        if let Some(line) = line.strip_prefix("# HELP ") {
            help = line.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) {
            *out += &format!("| `{name}` | {kind} | {help} |\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_names_counters_by_their_samples() {
        let mut registry = registry(Version { name: "bakery", version: "1.0.0", commit: "abc" });
        let loaves: Counter = Counter::default();
        registry.register("loaves", "Loaves baked", loaves.clone());
        loaves.inc();
        let mut text = String::new();
        encode(&mut text, &registry).expect("a text");
        let older = older_format(&text);
        assert!(
            older.contains("# HELP loaves_total Loaves baked.\n# TYPE loaves_total counter\nloaves_total 1\n"),
            "{older}"
        );
        assert!(
            older.contains("# TYPE build_info gauge\nbuild_info{name=\"bakery\",version=\"1.0.0\",commit=\"abc\"} 1\n"),
            "{older}"
        );
        assert!(older.contains("process_resident_memory_bytes "), "{older}");
        assert!(!older.contains("EOF") && !older.contains("UNIT"), "{older}");
    }

    #[tokio::test]
    async fn each_client_gets_the_format_it_accepts_and_a_cache_is_told() {
        let registry = Arc::new(registry(Version { name: "bakery", version: "1.0.0", commit: "abc" }));
        for (accept, kind, end) in
            [("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", OPENMETRICS, true), ("*/*", TEXT, false)]
        {
            let headers = [(header::ACCEPT, HeaderValue::from_static(accept))].into_iter().collect();
            let (parts, body) = exposition(&registry, &headers).into_parts();
            assert_eq!(
                (&parts.headers["content-type"], &parts.headers["vary"]),
                (&kind.parse().expect("a type"), &"accept".parse().expect("a name"))
            );
            let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
            assert_eq!(body.ends_with(b"# EOF\n"), end);
        }
    }
}
