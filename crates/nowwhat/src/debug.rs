//! The development page: the last requests, where their time went, their spans and their log lines.
//!
//! Only in the environment `dev`: nothing is kept anywhere else.

use axum::response::Html;
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tracing::Subscriber;
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Requests that are kept.
const REQUESTS_MAX: usize = 50;
/// Lines and spans that are kept of one request.
const LINES_MAX: usize = 200;

/// The last requests. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LastRequests {
    records: Arc<Mutex<VecDeque<Record>>>,
}

/// What is kept of one request. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    began: Instant,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    title: String,
    times: String,
    spans: Vec<String>,
    lines: Vec<String>,
}

impl LastRequests {
    pub(crate) fn begin(&self, title: String) -> Record {
        let record = Record { began: Instant::now(), kept: Arc::new(Mutex::new(Kept { title, ..Kept::default() })) };
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.push_front(record.clone());
        records.truncate(REQUESTS_MAX);
        record
    }

    /// The page.
    pub fn page(&self) -> Html<String> {
        let mut page = String::from(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Last requests</title><style>\
             body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}\
             summary{cursor:pointer;padding:.3rem 0}pre{background:#f4f4f4;padding:.6rem;overflow-x:auto}\
             small{color:#666}</style><h1>Last requests</h1><p>Kept in the environment dev only, newest first.</p>",
        );
        let records: Vec<Record> =
            self.records.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        if records.is_empty() {
            page += "<p>No request came yet.</p>";
        }
        for record in records {
            let kept = record.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let part = |title: &str, lines: &[String]| match lines.is_empty() {
                true => String::new(),
                false => format!("<h4>{title}</h4><pre>{}</pre>", escaped(&lines.concat())),
            };
            write!(
                page,
                "<details><summary>{} <small>{}</small></summary>{}{}</details>",
                escaped(&kept.title),
                escaped(&kept.times),
                part("Spans", &kept.spans),
                part("Log lines", &kept.lines),
            )
            .expect("writing to a text does not fail");
        }
        Html(page + "</html>")
    }
}

impl Record {
    pub(crate) fn line(&self, line: String) {
        self.with(|kept| push(&mut kept.lines, line));
    }

    pub(crate) fn end(&self, title: &str, times: &str) {
        self.with(|kept| {
            title.clone_into(&mut kept.title);
            times.clone_into(&mut kept.times);
        });
    }

    fn span(&self, name: &str, began: Instant) {
        let (at, took) = (began.saturating_duration_since(self.began), began.elapsed());
        let line = format!("{:>10.3} ms  +{:.3} ms  {name}\n", at.as_secs_f64() * 1e3, took.as_secs_f64() * 1e3);
        self.with(|kept| push(&mut kept.spans, line));
    }

    fn with(&self, change: impl FnOnce(&mut Kept)) {
        change(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn push(lines: &mut Vec<String>, line: String) {
    match lines.len() {
        LINES_MAX.. => {}
        n if n + 1 == LINES_MAX => lines.push("further ones are left out\n".to_owned()),
        _ => lines.push(line),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Notes the spans of requests that are recorded.
#[derive(Debug)]
pub struct Spans;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, _: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Began(Instant::now()));
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        if let Some(span) = context.span(&id)
            && let Some(Began(began)) = span.extensions().get::<Began>()
        {
            crate::current::record(|record| record.span(span.name(), *began));
        }
    }
}

struct Began(Instant);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_what_came_in_as_text_and_keeps_a_bounded_number() {
        let last = LastRequests::default();
        for n in 0..=REQUESTS_MAX {
            let record = last.begin(format!("GET /{n}"));
            for _ in 0..LINES_MAX * 2 {
                record.line("line <script>alert(1)</script>\n".to_owned());
            }
            record.end(&format!("[200] GET /{n}"), "1 ms");
        }
        let Html(page) = last.page();
        assert!(page.contains("[200] GET /1 ") && !page.contains("GET /0 "), "the oldest one is gone");
        assert!(!page.contains("<script>") && page.contains("&lt;script&gt;"));
        assert!(page.len() < REQUESTS_MAX * (LINES_MAX + 5) * 60);
    }
}
