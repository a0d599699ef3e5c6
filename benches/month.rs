//! A month of seals, one every 30 seconds: how many files it leaves, and whether questions take longer for it.
//!
//! `make month` (`MONTH="--days 2"`). The clock is simulated; seals, compactions, commits and questions are real. Each seal has 600 events of 40 sensors, 20 a second;
//! one in a thousand is a day late. After each day it tells the files, their bytes and the time of three questions about the last day and about all, best of five.
//!
//! It fails when a day leaves 200 files or more, when an event is missing or there twice, or when a question about the last day takes more than three times as long as
//! after the first day.

mod simulated;

use lake::Sealing;
use simulated::{BEGIN, DAY, EVERY, best, say};
use std::process::ExitCode;
use std::time::Instant;

const DAYS: i64 = 30;
const SEAL: i64 = EVENTS_A_SEAL * EVERY;
const SEALS_A_DAY: i64 = DAY / SEAL;
const EVENTS_A_SEAL: i64 = 600;
const FILES_A_DAY_MAX: usize = 200;
const SLOWER_MAX: f64 = 3.0;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let days = args.iter().position(|a| a == "--days").and_then(|at| args.get(at + 1)?.parse().ok()).unwrap_or(DAYS);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(month(days))
}

async fn month(days: i64) -> ExitCode {
    let dir = tempfile::tempdir().expect("a folder");
    let (lake, queries) = simulated::lake(dir.path()).await;
    say(
        "| day | seals | files | MiB | seconds | last day by type, ms | latest 100 of a sensor, ms | all events, ms |\n|---|---|---|---|---|---|---|---|",
    );
    let (mut first, mut flaws) = (None, Vec::new());
    for day in 0..days {
        let began = Instant::now();
        for seal in day * SEALS_A_DAY..(day + 1) * SEALS_A_DAY {
            lake.seal(sealing(seal)).await.expect("sealed");
            while lake.compact(BEGIN + (seal + 1) * SEAL).await.expect("compacted").is_some() {}
            lake.sweep(BEGIN + (seal + 1) * SEAL).await.expect("swept");
            lake.checkpoint().await.expect("a checkpoint");
        }
        let snapshot = lake.snapshot();
        let since = BEGIN + day * DAY;
        let questions = [
            format!("SELECT type, count(*) FROM events WHERE received_at >= to_timestamp_micros({since}) GROUP BY 1"),
            format!(
                "SELECT * FROM events WHERE sensor = 's7' AND time >= to_timestamp_micros({since}) ORDER BY time DESC LIMIT 100"
            ),
            "SELECT count(*) FROM events".to_owned(),
        ];
        let mut times = Vec::new();
        for sql in &questions {
            times.push(best(&queries, &snapshot, sql).await);
        }
        let bytes: u64 = snapshot.files.iter().map(|f| f.bytes).sum();
        let [a, b, c] = [0, 1, 2].map(|n: usize| times[n].as_secs_f64() * 1e3);
        let (files, mib, seconds) = (snapshot.files.len(), bytes as f64 / (1 << 20) as f64, began.elapsed().as_secs());
        let (day, seals) = (day + 1, (day + 1) * SEALS_A_DAY);
        say(&format!("| {day} | {seals} | {files} | {mib:.1} | {seconds} | {a:.1} | {b:.1} | {c:.1} |"));
        let rows: u64 = snapshot.files.iter().map(|f| f.stats.rows).sum();
        if rows as i64 != seals * EVENTS_A_SEAL {
            flaws.push(format!("day {day}: {rows} events"));
        }
        if files >= day as usize * FILES_A_DAY_MAX {
            flaws.push(format!("day {day}: {files} files"));
        }
        let (a0, b0) = *first.get_or_insert((a, b));
        if a > SLOWER_MAX * a0 || b > SLOWER_MAX * b0 {
            flaws.push(format!(
                "day {}: questions about the last day took {a0:.1} and {b0:.1} ms on the first",
                day + 1
            ));
        }
    }
    for flaw in &flaws {
        say(flaw);
    }
    if flaws.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The events of one seal.
fn sealing(seal: i64) -> Sealing {
    simulated::sealing(seal * EVENTS_A_SEAL..(seal + 1) * EVENTS_A_SEAL)
}
