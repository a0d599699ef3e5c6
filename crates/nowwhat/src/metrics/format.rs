//! Which of the two text formats a client takes, and the older one made of the newer.

use http::{HeaderMap, header};

/// A format of the exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `application/openmetrics-text`, version 1.0.0.
    OpenMetrics,
    /// `text/plain`, version 0.0.4.
    Text,
}

/// How much a format is wanted: the quality in thousandths, and how exactly it was named (4 with its version, 0 not at all).
type Wanted = (u16, u8);

impl Format {
    /// The format with the higher quality (RFC 9110, 12.5.1). OpenMetrics wins a tie only where it is named: `*/*` comes from people
    /// and old scrapers. A client that takes neither gets the text.
    pub(super) fn accepted(headers: &HeaderMap) -> Self {
        let mut open: Wanted = (0, 0);
        let mut text: Wanted = (0, 0);
        let values = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
        for range in values.flat_map(|v| v.split(',')) {
            let range = Range::read(range);
            // Of a format's ranges the most exact one speaks; of equally exact ones the highest.
            let weigh = |wanted: &mut Wanted, exact: u8| {
                if exact > 0 && (exact, range.quality) > (wanted.1, wanted.0) {
                    *wanted = (range.quality, exact);
                }
            };
            weigh(&mut open, range.fits("application", "openmetrics-text", "1.0.0"));
            weigh(&mut text, range.fits("text", "plain", "0.0.4"));
        }
        let named = open.1 >= 3;
        if open.0 > text.0 || (named && open.0 > 0 && open.0 == text.0) { Self::OpenMetrics } else { Self::Text }
    }
}

/// One range of the header Accept.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    version: Option<&'a str>,
    quality: u16,
}

impl<'a> Range<'a> {
    /// A quality that cannot be read counts as 0: not wanted.
    fn read(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next().and_then(|name| name.split_once('/')).unwrap_or_default();
        let mut range = Self { kind, subtype, version: None, quality: 1000 };
        for (name, value) in parts.filter_map(|p| p.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim() {
                name if name.eq_ignore_ascii_case("q") => range.quality = quality(value),
                name if name.eq_ignore_ascii_case("version") => range.version = Some(value),
                _ => {}
            }
        }
        range
    }

    /// How exactly the range names a type: 4 with its version, 3 by name, 2 by its class, 1 as anything, 0 when it is another.
    fn fits(&self, kind: &str, subtype: &str, version: &str) -> u8 {
        let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
        match (same(self.kind, kind), same(self.subtype, subtype)) {
            (true, true) => self.version.map_or(3, |v| if v == version { 4 } else { 0 }),
            (true, false) if self.subtype == "*" => 2,
            _ if self.kind == "*" && self.subtype == "*" => 1,
            _ => 0,
        }
    }
}

fn quality(text: &str) -> u16 {
    let number = text.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q));
    number.map_or(0, |q| (q * 1000.0).round() as u16)
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
