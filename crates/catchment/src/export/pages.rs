//! The events of a collector, page by page in the order of their positions.
//!
//! A page is a range of positions, as many as the collector gives in one answer: what is too much for it is asked for in halves, and where an
//! answer breaks off, the next one goes on behind the last event that came. So an export holds one part of an answer, however large it all is.

use crate::client::{Client, Ended};
use crate::rows;
use anyhow::{Context, anyhow, bail};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow_ipc::reader::StreamReader;
use bytes::Bytes;
use nowwhat::cli::Usage;
use nowwhat::client::{Arriving, ClientError};
use serde_json::{Value, json};
use std::io::{self, Read};
use std::time::{Duration, Instant};

/// Positions of the first page.
const STEP: u64 = 1000;
/// A page of less is followed by a larger one, a page of more by a smaller one.
const PAGE_BYTES_MIN: u64 = 16 << 20;
const PAGE_BYTES_MAX: u64 = 64 << 20;
const PAGE_ROWS: u64 = 250_000;
/// The time that a page may take, if the collector gives as much.
const TIMEOUT_SECONDS: u64 = 600;
/// So often in a row a page may fail.
const TRIES: u32 = 30;
/// Between two tries, where the collector does not say how long.
const WAIT: Duration = Duration::from_secs(1);

/// Which events are wanted.
#[derive(Default)]
pub(super) struct Filter {
    pub(super) sensor: Option<String>,
    pub(super) event_type: Option<String>,
    /// In microseconds since the epoch.
    pub(super) since: Option<i64>,
    pub(super) until: Option<i64>,
}

impl Filter {
    /// The conditions, and the values of their parameters.
    fn conditions(&self) -> (String, Vec<Value>) {
        const MICROS: &str = "arrow_cast(?, 'Timestamp(Microsecond, Some(\"UTC\"))')";
        let (mut sql, mut params) = (String::new(), Vec::new());
        let given = [
            ("sensor = ?".to_owned(), self.sensor.clone().map(Value::from)),
            ("type = ?".to_owned(), self.event_type.clone().map(Value::from)),
            (format!("time >= {MICROS}"), self.since.map(Value::from)),
            (format!("time < {MICROS}"), self.until.map(Value::from)),
        ];
        for (condition, value) in given {
            if let Some(value) = value {
                params.push(value);
                sql += &format!(" AND {}", condition.replace('?', &format!("${}", params.len())));
            }
        }
        (sql, params)
    }
}

/// Which events there are when an export begins.
pub(super) struct Extent {
    /// The first position and the last one; none where there is no event.
    pub(super) positions: Option<(u64, u64)>,
    pub(super) events: u64,
}

/// What came of asking for a page.
enum Failed {
    /// It is too much for the collector.
    TooMuch(anyhow::Error),
    /// It can be asked for again.
    Later(anyhow::Error, Duration),
    /// It never comes.
    Never(anyhow::Error),
}

pub(super) struct Pages<'a> {
    pub(super) client: &'a Client,
    pub(super) filter: Filter,
}

impl Pages<'_> {
    /// Which events there are now.
    pub(super) fn extent(&self) -> anyhow::Result<Extent> {
        let (conditions, params) = self.filter.conditions();
        let sql = format!("SELECT min(position), max(position), count(*) FROM events WHERE position > 0{conditions}");
        let question = json!({ "sql": sql, "params": params, "timeout_seconds": TIMEOUT_SECONDS });
        let answer = self.client.post_json("/api/v1/query", &question)?;
        let number = |at: usize| answer["rows"][0][at].as_u64();
        Ok(Extent { positions: number(0).zip(number(1)), events: number(2).context("the answer has no count")? })
    }

    /// Makes sure that there is such a sensor, where one is asked for of which there are no events.
    ///
    /// # Errors
    /// There is none of this id, as far as the token may know.
    pub(super) fn sensor_is_known(&self) -> anyhow::Result<()> {
        let Some(sensor) = &self.filter.sensor else { return Ok(()) };
        let sql = "SELECT 1 FROM events WHERE sensor = $1 LIMIT 1";
        let answer = self.client.post_json("/api/v1/query", &json!({ "sql": sql, "params": [sensor] }))?;
        let has_events = answer["rows"].as_array().is_some_and(|rows| !rows.is_empty());
        // Who may only ask for events is told by them alone.
        if has_events || self.client.get(&format!("/api/v1/sensors/{sensor}")).is_ok() {
            return Ok(());
        }
        bail!(
            "there is no sensor {sensor:?}, or no event of it: nothing is exported; `catchment sensor list` names all sensors"
        )
    }

    /// Gives all events up to the last position of the extent to `take`, in order.
    pub(super) fn each(
        &self,
        extent: &Extent,
        mut take: impl FnMut(&RecordBatch) -> anyhow::Result<()>,
        complain: impl Fn(&str),
    ) -> anyhow::Result<()> {
        let Some((first, last)) = extent.positions else { return Ok(()) };
        let (mut done, mut step, mut failures, mut away_since) = (first - 1, STEP, 0, None);
        while done < last {
            self.client.wait_for_return(&complain);
            let until = done.saturating_add(step).min(last);
            let began = done;
            match self.page(&mut done, until, &mut take) {
                Ok(page) => {
                    (failures, away_since) = (0, None);
                    done = until;
                    step = match page {
                        Page { bytes, rows } if bytes > PAGE_BYTES_MAX || rows > PAGE_ROWS => (step / 2).max(1),
                        Page { bytes: ..PAGE_BYTES_MIN, .. } => step.saturating_mul(2),
                        Page { .. } => step,
                    };
                    continue;
                }
                Err(Failed::Never(error)) => return Err(error),
                Err(Failed::TooMuch(_)) if step > 1 => step = (step.min(until - began) / 2).max(1),
                Err(Failed::TooMuch(error)) => return Err(error),
                Err(Failed::Later(error, wait)) => {
                    let since = *away_since.get_or_insert_with(Instant::now);
                    failures = if done > began { 1 } else { failures + 1 };
                    if failures > TRIES || (is_unreached(&error) && !self.client.may_return(since)) {
                        return Err(error);
                    }
                    if failures == 1 {
                        complain(&format!("{error:#}: trying again"));
                    }
                    std::thread::sleep(wait);
                    // What broke off may have been too much.
                    step = (step / 2).max(1);
                }
            }
        }
        Ok(())
    }

    /// One page; `done` is the last position that was taken.
    fn page(
        &self,
        done: &mut u64,
        until: u64,
        take: &mut impl FnMut(&RecordBatch) -> anyhow::Result<()>,
    ) -> Result<Page, Failed> {
        let (conditions, params) = self.filter.conditions();
        let sql = format!(
            "SELECT position, id, sensor, source, type, subject, time, received_at, content_type, attributes, data, data_binary FROM events \
             WHERE position > {done} AND position <= {until}{conditions} ORDER BY position"
        );
        let question = json!({ "sql": sql, "params": params, "timeout_seconds": TIMEOUT_SECONDS });
        let arriving = self.client.ask_for_parts("/api/v1/query", &question, "application/vnd.apache.arrow.stream");
        let arriving = arriving.map_err(failed)?;
        if !arriving.status.is_success() {
            return Err(self.refused(arriving));
        }
        let mut parts = Parts { client: self.client, arriving, part: Bytes::new(), bytes: 0 };
        let mut page = Page::default();
        let broken = |error| Failed::Later(anyhow::Error::new(error).context("an answer broke off"), Duration::ZERO);
        for batch in StreamReader::try_new(&mut parts, None).map_err(broken)? {
            let batch = rows::of_table(&batch.map_err(broken)?).map_err(Failed::Never)?;
            if batch.num_rows() == 0 {
                continue;
            }
            take(&batch).map_err(Failed::Never)?;
            let positions = batch.column(0).as_primitive::<Int64Type>().values();
            *done = positions.last().and_then(|last| u64::try_from(*last).ok()).unwrap_or(*done);
            page.rows += batch.num_rows() as u64;
        }
        page.bytes = parts.bytes;
        Ok(page)
    }

    fn refused(&self, arriving: Arriving) -> Failed {
        let wait = arriving.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let wait = wait.map_or(WAIT, Duration::from_secs);
        let status = arriving.status.as_u16();
        let answer = match self.client.runtime.block_on(arriving.whole(1 << 20)) {
            Ok(answer) => answer,
            Err(error) => return Failed::Later(error.into(), WAIT),
        };
        let code = answer.json::<Value>().ok().and_then(|said| said["code"].as_str().map(str::to_owned));
        let token = self.client.token();
        let error = match token.and_then(|token| token.good(answer)) {
            Err(error) => error,
            Ok(_) => anyhow!("the answer, with status {status}, is not that of a collector"),
        };
        match (code.as_deref(), status) {
            (Some("query_too_large" | "too_many_rows" | "query_timeout"), _) => Failed::TooMuch(error),
            (Some("too_many_failures"), _) => Failed::Never(error),
            (_, 429 | 502..=504) => Failed::Later(error, wait),
            _ => Failed::Never(error),
        }
    }
}

fn failed(error: anyhow::Error) -> Failed {
    let may_return = error.is::<Ended>() || error.downcast_ref().is_some_and(ClientError::is_retryable);
    if may_return { Failed::Later(error, WAIT) } else { Failed::Never(error) }
}

/// Whether nothing answers at all.
fn is_unreached(error: &anyhow::Error) -> bool {
    error.is::<Ended>() || error.downcast_ref().is_some_and(ClientError::is_unsent)
}

/// What a page was.
#[derive(Default)]
struct Page {
    bytes: u64,
    rows: u64,
}

/// The bytes of an answer while they come.
struct Parts<'a> {
    client: &'a Client,
    arriving: Arriving,
    part: Bytes,
    bytes: u64,
}

impl Read for Parts<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.client.runtime.block_on(self.arriving.next()).map_err(io::Error::other)? {
                Some(part) => self.part = part,
                None => return Ok(0),
            }
        }
        let count = into.len().min(self.part.len());
        into[..count].copy_from_slice(&self.part.split_to(count));
        self.bytes += count as u64;
        Ok(count)
    }
}

/// A time as it is given to a command, in microseconds since the epoch.
pub(super) fn micros(name: &str, text: &str) -> anyhow::Result<i64> {
    Ok(engine::parse_time(text).map_err(|error| Usage(format!("--{name}: {error}")))?)
}
