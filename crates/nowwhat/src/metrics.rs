//! Metrics in the formats that Prometheus reads: OpenMetrics, and its older text format for everyone else.

use crate::version::Version;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
pub use prometheus_client::registry::Registry;
use std::sync::Arc;

/// The content type of OpenMetrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of the older format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The unit of times in `/proc`, the same on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A registry that also has the metrics of the process and of the build.
pub fn registry(version: Version) -> Registry {
    let mut registry = Registry::default();
    let labels = vec![("name", version.name), ("version", version.version), ("commit", version.commit)];
    registry.register("build", "What is running", Info::new(labels));
    registry.register_collector(Box::new(Process));
    registry
}

/// The metrics as an answer, in the format that the client accepts.
pub fn exposition(registry: &Arc<Registry>, headers: &HeaderMap) -> Response {
    let mut text = String::new();
    encode(&mut text, registry).expect("writing to a text does not fail");
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let (kind, body) = match accept.contains("application/openmetrics-text") {
        true => (OPENMETRICS, text),
        false => (TEXT, older_format(&text)),
    };
    ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], body).into_response()
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

/// OpenMetrics as the older format: counters are declared under the name of their samples, info is a gauge, units and the end
/// mark are comments.
fn older_format(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help = "";
    for line in text.lines() {
        if line.starts_with("# HELP ") {
            help = line;
            continue;
        }
        let Some(declared) = line.strip_prefix("# TYPE ") else {
            if !line.starts_with("# UNIT ") && line != "# EOF" {
                out += line;
                out.push('\n');
            }
            continue;
        };
        let (name, kind) = declared.split_once(' ').unwrap_or((declared, "untyped"));
        let (suffix, kind) = match kind {
            "counter" => ("_total", "counter"),
            "info" => ("_info", "gauge"),
            "unknown" => ("", "untyped"),
            other => ("", other),
        };
        if let Some(help) = help.strip_prefix("# HELP ").and_then(|h| h.strip_prefix(name)) {
            out += &format!("# HELP {name}{suffix}{help}\n");
        }
        out += &format!("# TYPE {name}{suffix} {kind}\n");
    }
    out
}

/// The standard metrics of a process, read from `/proc` when they are asked for.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: Option<f64>| {
            let Some(value) = value else { return Ok(()) };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge("process_resident_memory_bytes", "Resident memory", resident_bytes())?;
        gauge("process_open_fds", "Open file descriptors", open_fds())?;
        gauge("process_threads", "Threads", stat_field(20))?;
        gauge("process_start_time_seconds", "Start of the process since the epoch", start_seconds())?;
        if let Some(seconds) = cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            let help = "Processor time used, user and system";
            counter.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0)
}

fn open_fds() -> Option<f64> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count() as f64)
}

/// A field of `/proc/self/stat` by its number in proc(5).
fn stat_field(number: usize) -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the name, may hold spaces and ends with the last parenthesis.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number - 3)?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    Some((stat_field(14)? + stat_field(15)?) / TICKS_PER_SECOND)
}

fn start_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = stat.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + stat_field(22)? / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

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
}
