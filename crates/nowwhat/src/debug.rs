//! The development page: the last requests, where their time went, their spans and their log lines.
//!
//! Only in the environment `dev`: nothing is kept anywhere else. The page needs no script; reload it to see more.

use axum::response::Html;
use jiff::Timestamp;
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tracing::span::{Attributes, Id};
use tracing::{Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Requests that are kept.
const REQUESTS_MAX: usize = 50;
/// Lines, and as many spans, that are kept of one request.
const LINES_MAX: usize = 200;
const STYLE: &str = include_str!("debug/page.css");

/// The last requests. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LastRequests {
    records: Arc<Mutex<VecDeque<Record>>>,
}

/// What is kept of one request. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    began: Instant,
    at: Timestamp,
    request_id: String,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    title: String,
    ended: Option<Ended>,
    spans: Vec<Span>,
    lines: Vec<(Option<Level>, String)>,
}

/// How a request ended; times in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) status: u16,
    pub(crate) duration: f64,
    pub(crate) db: f64,
    pub(crate) view: f64,
}

#[derive(Debug)]
struct Span {
    name: &'static str,
    at_ms: f64,
    took_ms: f64,
}

impl LastRequests {
    pub(crate) fn begin(&self, title: String, request_id: &str) -> Record {
        let kept = Arc::new(Mutex::new(Kept { title, ..Kept::default() }));
        let record = Record { began: Instant::now(), at: Timestamp::now(), request_id: request_id.to_owned(), kept };
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.push_front(record.clone());
        records.truncate(REQUESTS_MAX);
        record
    }

    /// The page.
    pub fn page(&self) -> Html<String> {
        let mut page = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>Last requests</title><style>{STYLE}</style><h1>Last requests</h1>\
             <p>The newest {REQUESTS_MAX}, newest first, times in UTC. Kept in the environment dev only.</p>",
        );
        let records: Vec<Record> =
            self.records.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        if records.is_empty() {
            page += "<p>No request came yet.</p>";
        }
        for record in records {
            record.show(&mut page).expect("writing to a text does not fail");
        }
        Html(page + "</html>")
    }
}

impl Record {
    pub(crate) fn line(&self, level: Level, line: String) {
        self.with(|kept| match kept.lines.len() {
            LINES_MAX.. => {}
            n if n + 1 == LINES_MAX => kept.lines.push((None, "further ones are left out\n".to_owned())),
            _ => kept.lines.push((Some(level), line)),
        });
    }

    pub(crate) fn end(&self, title: String, ended: Ended) {
        self.with(|kept| {
            kept.title = title;
            kept.ended = Some(ended);
        });
    }

    fn span(&self, name: &'static str, began: Instant) {
        let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
        let (at_ms, took_ms) = (ms(began.saturating_duration_since(self.began)), ms(began.elapsed()));
        self.with(|kept| {
            if kept.spans.len() < LINES_MAX {
                kept.spans.push(Span { name, at_ms, took_ms });
            }
        });
    }

    fn with(&self, change: impl FnOnce(&mut Kept)) {
        change(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn show(&self, page: &mut String) -> std::fmt::Result {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        write!(page, "<details><summary><time>{}</time> ", self.at.strftime("%H:%M:%S%.3f"))?;
        match kept.ended {
            None => write!(page, "<b>…</b> <span>{}</span> <i>under way</i>", escaped(&kept.title))?,
            Some(Ended { status, duration, db, view }) => write!(
                page,
                "<b class=\"s{}\">{status}</b> <span>{}</span> <i>{duration} ms</i> <small>db {db} ms, view {view} ms</small>",
                status / 100,
                escaped(&kept.title),
            )?,
        }
        write!(page, " <code>{}</code></summary>", escaped(&self.request_id))?;
        kept.show_spans(page)?;
        page.push_str("<pre>");
        for (level, line) in &kept.lines {
            let level = level.map_or("", |level| level.as_str());
            write!(page, "<span class=\"{level}\">{}</span>", escaped(line))?;
        }
        page.push_str("</pre></details>");
        Ok(())
    }
}

impl Kept {
    /// Each span as a bar in the time of the whole request, or of what is known of it.
    fn show_spans(&self, page: &mut String) -> std::fmt::Result {
        let ends = self.spans.iter().map(|span| span.at_ms + span.took_ms);
        let whole_ms = ends.chain(self.ended.map(|ended| ended.duration)).fold(0.001, f64::max);
        let mut spans: Vec<&Span> = self.spans.iter().collect();
        spans.sort_by(|one, other| one.at_ms.total_cmp(&other.at_ms));
        for Span { name, at_ms, took_ms } in spans {
            let (left, width) = (at_ms / whole_ms * 100.0, took_ms / whole_ms * 100.0);
            write!(
                page,
                "<div class=\"span\"><span>{}</span><span class=\"track\"><span class=\"bar\" \
                 style=\"margin-left:{left:.2}%;width:{width:.2}%\"></span></span><i>{took_ms:.3} ms</i></div>",
                escaped(name),
            )?;
        }
        Ok(())
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
        let Some(span) = context.span(id) else { return };
        // The request it belongs to is known where it begins; it may end anywhere.
        crate::current::record(|record| {
            span.extensions_mut().insert(Noted { began: Instant::now(), record: record.clone() });
        });
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        if let Some(span) = context.span(&id)
            && let Some(Noted { began, record }) = span.extensions().get::<Noted>()
        {
            record.span(span.name(), *began);
        }
    }
}

struct Noted {
    began: Instant,
    record: Record,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_what_came_in_as_text_and_keeps_a_bounded_number() {
        let last = LastRequests::default();
        for n in 0..=REQUESTS_MAX {
            let record = last.begin(format!("GET /{n}"), "id-<b>");
            for _ in 0..LINES_MAX * 2 {
                record.line(Level::WARN, "line <script>alert(1)</script>\n".to_owned());
            }
            record.end(format!("GET /{n} (shop#<i>)"), Ended { status: 404, duration: 1.5, db: 0.5, view: 0.25 });
            record.span("bake", record.began);
        }
        let Html(page) = last.page();
        assert!(page.contains("GET /1 (shop") && !page.contains("GET /0 (shop"), "the oldest one is gone");
        assert!(!page.contains("<script>") && page.contains("&lt;script&gt;"));
        assert!(page.contains("id-&lt;b&gt;") && page.contains("shop#&lt;i&gt;"));
        assert!(
            page.contains("<b class=\"s4\">404</b>") && page.contains("<i>1.5 ms</i> <small>db 0.5 ms, view 0.25 ms")
        );
        assert!(
            page.contains("<span>bake</span>") && page.matches("further ones are left out").count() == REQUESTS_MAX
        );
        assert!(page.len() < REQUESTS_MAX * (LINES_MAX + 5) * 100);
    }
}
