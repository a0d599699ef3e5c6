//! Load that knows what was answered, and a look at whether all of it is there.

use crate::{Answer, Collector};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const CONNECTIONS: u64 = 4;
/// Fewer than a number has bits.
const BATCH: u64 = 50;

/// What the oracle knows: batches answered with 200, and batches in doubt when the process ended.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Answered.
    pub accepted: Vec<u64>,
    /// Not answered, or with an error.
    pub doubtful: Vec<u64>,
    /// The errors among the answers.
    pub errors: Vec<Answer>,
    next: AtomicU64,
    text_bytes: usize,
}

impl Oracle {
    /// One that sends so many bytes of text in each event that no compression makes small.
    pub fn with_text(text_bytes: usize) -> Self {
        Self { text_bytes, ..Self::default() }
    }

    /// Loads from several connections; once so many batches were answered, `end` ends the collector in the middle of it.
    ///
    /// # Panics
    /// When a thread did.
    pub fn load_until(
        &mut self,
        (collector, token): (Collector, &str),
        answered_min: u64,
        end: impl FnOnce(Collector),
    ) {
        let found = Mutex::new((Vec::new(), Vec::new(), Vec::new()));
        let (answered, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let (address, batches, text_bytes) = (collector.api.clone(), &self.next, self.text_bytes);
        let agent = agent();
        std::thread::scope(|scope| {
            for _ in 0..CONNECTIONS {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let batch = batches.fetch_add(1, Ordering::Relaxed);
                        let request = agent
                            .post(format!("{address}/api/v1/events"))
                            .header("authorization", format!("Bearer {token}"))
                            .header("content-type", "application/x-ndjson");
                        let answer = crate::try_answer(request.send(body(batch, text_bytes)));
                        let mut found = found.lock().expect("no thread panics");
                        if answer.as_ref().is_ok_and(|answer| answer.status == 200) {
                            found.0.push(batch);
                            answered.fetch_add(1, Ordering::Relaxed);
                        } else {
                            found.1.push(batch);
                            found.2.extend(answer);
                            break;
                        }
                    }
                });
            }
            let deadline = Instant::now() + crate::PATIENCE;
            while answered.load(Ordering::Relaxed) < answered_min && Instant::now() < deadline {
                std::thread::yield_now();
            }
            end(collector);
            stop.store(true, Ordering::Relaxed);
        });
        let (accepted, doubtful, errors) = found.into_inner().expect("no thread panics");
        self.accepted.extend(accepted);
        self.doubtful.extend(doubtful);
        self.errors.extend(errors);
    }

    /// Sends again what was accepted last.
    ///
    /// # Errors
    /// When it is not found to be known.
    pub fn send_again(&self, collector: &Collector, token: &str) -> Result<(), String> {
        let Some(batch) = self.accepted.last() else {
            return Ok(());
        };
        let answer = collector.send(token, body(*batch, self.text_bytes).as_bytes());
        let told = answer.json();
        if (&told["accepted"], &told["duplicates"]) != (&0.into(), &BATCH.into()) {
            return Err(format!("batch {batch} was accepted, and sent again: {}", answer.text));
        }
        Ok(())
    }

    /// Compares with all events.
    ///
    /// # Errors
    /// What is there and should not be, or the other way round.
    pub fn check(&self, collector: &Collector) -> Result<(), String> {
        // Which events of a batch are there, as bits: in as much memory as there are batches, however many events.
        let sql = "select (data->>'batch')::bigint as batch, count(*), bit_or(1::bigint << (data->>'n')::bigint) from events group by 1";
        let rows = collector.rows(sql);
        let n = |v: &serde_json::Value| v.as_u64().unwrap_or(u64::MAX);
        let found: HashMap<u64, [u64; 2]> = rows.iter().map(|r| (n(&r[0]), [n(&r[1]), n(&r[2])])).collect();
        let whole = [BATCH, (1 << BATCH) - 1];
        if let Some(batch) = self.accepted.iter().find(|batch| found.get(batch) != Some(&whole)) {
            return Err(format!("accepted batch {batch} is not there once and whole: {:?}", found.get(batch)));
        }
        let halves = |batch: &&u64| found.get(batch).is_some_and(|state| *state != whole);
        if let Some(batch) = self.doubtful.iter().find(halves) {
            return Err(format!("doubtful batch {batch} is there in part: {:?}", found.get(batch)));
        }
        if found.len() > self.accepted.len() + self.doubtful.len() {
            return Err("something is there that nobody sent".to_owned());
        }
        let sql = "select count(*), count(distinct position), max(position), \
                   count(*) filter (where id = concat(data->>'batch', '-', data->>'n')) from events";
        let told = collector.rows(sql);
        let [all, distinct, last, own_ids] = [0, 1, 2, 3].map(|i| told[0][i].as_u64().unwrap_or(0));
        if (distinct, last, own_ids) != (all, all, all) {
            return Err(format!(
                "{all} events with {distinct} positions up to {last}, {own_ids} of them with their id"
            ));
        }
        Ok(())
    }
}

/// How often something is killed or loses its power; `make test-crash` does it ten times as often.
///
/// # Panics
/// When `ROUNDS` is no number.
pub fn rounds() -> u64 {
    std::env::var("ROUNDS").map_or(20, |rounds| rounds.parse().expect("ROUNDS is a number"))
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(20)));
    config.http_status_as_error(false).build().new_agent()
}

fn body(batch: u64, text_bytes: usize) -> String {
    let event = |n| {
        let text = noise(batch * BATCH + n, text_bytes);
        format!(
            "{{\"id\":\"{batch}-{n}\",\"type\":\"reading\",\"data\":{{\"batch\":{batch},\"n\":{n},\"text\":\"some reading of some length{text}\"}}}}\n"
        )
    };
    (0..BATCH).map(event).collect()
}

/// Digits without a pattern, the same for the same number.
fn noise(number: u64, bytes: usize) -> String {
    let (mut state, mut text) = (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, String::new());
    while text.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let _ = write!(text, "{state:016x}");
    }
    text
}
