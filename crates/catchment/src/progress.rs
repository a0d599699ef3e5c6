//! Progress on a terminal: a bar with a rate; nothing elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal};

/// Of an input of so many bytes, when that is known.
pub(crate) fn of_bytes(bytes: Option<u64>) -> ProgressBar {
    shown(|| match bytes {
        Some(bytes) => {
            ProgressBar::new(bytes).with_style(style("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {msg}"))
        }
        None => ProgressBar::new_spinner().with_style(style("{spinner} {bytes} {bytes_per_sec} {msg}")),
    })
}

/// Of so many events.
pub(crate) fn of_events(events: u64) -> ProgressBar {
    shown(|| ProgressBar::new(events).with_style(style("{bar:40} {human_pos}/{human_len} events {per_sec} {msg}")))
}

fn shown(bar: impl FnOnce() -> ProgressBar) -> ProgressBar {
    if io::stderr().is_terminal() { bar() } else { ProgressBar::hidden() }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
