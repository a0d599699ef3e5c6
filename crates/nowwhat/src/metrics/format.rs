//! Which of the two text formats a client takes, and the older one made of the newer.

use crate::accept::Ranges;
use http::HeaderMap;

/// A format of the exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `application/openmetrics-text`, version 1.0.0.
    OpenMetrics,
    /// `text/plain`, version 0.0.4.
    Text,
}

impl Format {
    /// The format that is wanted more. OpenMetrics wins a tie only where it is named: `*/*` comes from people and old scrapers. A client that
    /// takes neither gets the text.
    pub(super) fn accepted(headers: &HeaderMap) -> Self {
        let ranges = Ranges::of(headers);
        let open = ranges.wanted("application/openmetrics-text; version=1.0.0");
        let text = ranges.wanted("text/plain; version=0.0.4");
        let wins_tie = open.is_named() && open.quality > 0 && open.quality == text.quality;
        if open.quality > text.quality || wins_tie { Self::OpenMetrics } else { Self::Text }
    }
}

/// OpenMetrics as the older format: counters are declared under the name of their samples, info is a gauge, units and the end
/// mark are comments.
pub(super) fn older_format(text: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use http::header;

    fn accepted(values: &[&str]) -> Format {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ACCEPT, value.parse().expect("a value"));
        }
        Format::accepted(&headers)
    }

    #[test]
    fn the_format_with_the_higher_quality_is_given() {
        for accept in [
            "application/openmetrics-text",
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
            "text/plain;q=0.5, Application/OpenMetrics-Text; version=\"1.0.0\"; charset=utf-8",
            "application/openmetrics-text, text/plain",
            "application/openmetrics-text;q=0.2,*/*;q=0.1",
            "application/*",
            // Prometheus 3.
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
             text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
        ] {
            assert_eq!(accepted(&[accept]), Format::OpenMetrics, "{accept}");
        }
        for accept in [
            "*/*",
            "text/html",
            "",
            "text/plain",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0,*/*",
            "application/openmetrics-text;q=0.4,text/plain;q=0.5",
            "application/openmetrics-text;q=0.4,text/*;q=0.5",
            "application/openmetrics-text;q=much",
            "application/openmetrics-text;q=0.4,*/*",
            // A version that is not spoken here.
            "application/openmetrics-text;version=2.0.0,text/plain;q=0.1",
        ] {
            assert_eq!(accepted(&[accept]), Format::Text, "{accept}");
        }
        assert_eq!(accepted(&[]), Format::Text);
        assert_eq!(accepted(&["text/plain;q=0.1", "application/openmetrics-text;q=0.2"]), Format::OpenMetrics);
    }
}
