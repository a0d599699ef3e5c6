//! What an event costs on its way in and when it is asked for, as a ratio to a baseline that never changes: the time in which `serde_json` reads as many events.
//!
//! `make ratios`. Both are measured in one process, in turns, the best of each, so that the machine counts for little. It fails when a ratio is a half above the one recorded in
//! `benches/ratios.json`; `make ratios RATIOS=--record` records those of this run.

mod simulated;

use event::{FieldNames, Framing, Limits, ReadOptions};
use serde_json::{Map, Value};
use simulated::{BEGIN, best, lake, say, sealing};
use std::fmt::Write;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

const EVENTS: i64 = 50_000;
const TIMES: usize = 9;
/// A ratio this much larger than recorded is a regression.
const WORSE: f64 = 1.5;
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/ratios.json");

/// What is measured, each in nanoseconds an event.
const MEASURED: [&str; 4] = ["read", "seal", "group by a field", "filter by a field"];
const QUESTIONS: [&str; 2] = [
    "SELECT type, avg(data.temperature) FROM events GROUP BY 1",
    "SELECT count(*) FROM events WHERE data.temperature > 24 AND data.humidity < 42",
];

fn main() -> ExitCode {
    let is_recorded = std::env::args().any(|arg| arg == "--record");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (baseline, times) = runtime.block_on(measure());
    let ratios: Map<String, Value> =
        MEASURED.iter().zip(times).map(|(name, time)| ((*name).to_owned(), (time / baseline).into())).collect();
    if is_recorded {
        let text = serde_json::to_string_pretty(&ratios).expect("JSON");
        std::fs::write(RECORDED, text + "\n").expect("written");
    }
    let recorded: Value = serde_json::from_slice(&std::fs::read(RECORDED).expect("recorded ratios")).expect("JSON");
    say(&format!("baseline, serde_json: {baseline:.0} ns an event\n"));
    let mut table = String::from("| what | ns an event | ratio | recorded |\n|---|---|---|---|\n");
    let mut is_worse = false;
    for (name, time) in MEASURED.iter().zip(times) {
        let (ratio, before) = (time / baseline, recorded[name].as_f64().expect("a ratio"));
        let worse = if ratio > WORSE * before { " (worse)" } else { "" };
        is_worse |= !worse.is_empty();
        let _ = writeln!(table, "| {name} | {time:.0} | {ratio:.3}{worse} | {before:.3} |");
    }
    say(&table);
    if is_worse { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The baseline, and what is measured, in nanoseconds an event.
async fn measure() -> (f64, [f64; 4]) {
    let dir = tempfile::tempdir().expect("a folder");
    let (lake, queries) = lake(dir.path()).await;
    let text: String = (0..EVENTS).fold(String::new(), |mut text, n| {
        let data = format!("{{\"temperature\":{}.{},\"humidity\":{}}}", 15 + n % 11, n % 10, 40 + n % 30);
        let _ = writeln!(text, "{{\"type\":\"reading\",\"time\":{},\"data\":{data}}}", BEGIN + n);
        text
    });
    let options = ReadOptions {
        sensor: "roof",
        received_at: BEGIN,
        fields: FieldNames::default(),
        time_zone: None,
        limits: Limits::default(),
    };
    let (mut baseline, mut times) = (f64::MAX, [f64::MAX; 4]);
    let an_event = |began: Instant| began.elapsed().as_secs_f64() * 1e9 / EVENTS as f64;
    for round in 0..TIMES as i64 {
        let began = Instant::now();
        for line in text.lines() {
            black_box(serde_json::from_str::<Value>(line).expect("JSON"));
        }
        baseline = an_event(began).min(baseline);
        let began = Instant::now();
        black_box(event::read(text.as_bytes(), Framing::Ndjson, &options).expect("readable"));
        times[0] = an_event(began).min(times[0]);
        let rows = sealing(round * EVENTS..(round + 1) * EVENTS);
        let began = Instant::now();
        lake.seal(rows).await.expect("sealed");
        times[1] = an_event(began).min(times[1]);
    }
    for (sql, time) in QUESTIONS.iter().zip(&mut times[2..]) {
        let taken = best(&queries, &lake.snapshot(), sql).await;
        *time = taken.as_secs_f64() * 1e9 / (EVENTS * TIMES as i64) as f64;
    }
    (baseline, times)
}
