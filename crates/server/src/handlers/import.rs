//! `POST /api/v1/import`: events of an export, which a collector had accepted before.
//!
//! Each keeps its sensor, its id and its times and gets a position here. What is stored already, with the same sensor, source, id, time and
//! content, is a duplicate: all that is stored is asked for it, however long ago it came, so an import can be repeated. One request is looked
//! up and stored at a time; no other import comes between. Imported events take no place in the window of duplicates, which is that of the
//! sensors.

use crate::app::App;
use crate::auth;
use crate::authorisation::Act;
use crate::body::{self, Coming, Read};
use crate::clock::now_micros;
use crate::code::Code;
use crate::handlers::ingest::{self, Atomic, Told};
use crate::handlers::query::{ask, problem_of};
use crate::handlers::sensors::unavailable;
use crate::request_log::Ended;
use axum::extract::{Request, State};
use axum::response::Response;
use engine::{Outcome, Reservation, Submission};
use event::{Batch, Framing, ReadError};
use http::request::Parts;
use nowwhat::Problem;
use nowwhat::request::note;
use query::{BytesAs, Query, Rows};
use registry::Identity;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Arc;

/// So many events are looked up at once, or as many as have so many bytes of ids: a statement is bounded.
const LOOKED_UP: usize = 2000;
const LOOKED_UP_BYTES: usize = 128 << 10;
/// Their times are looked up in so many ranges, so that one odd time does not have all files read.
const RANGES_MAX: usize = 8;
/// Times that are closer than this are in one range.
const RANGE_GAP_MICROS: i64 = 60_000_000;

/// Reads the lines, tells apart what is stored already, answers when the others are durable.
pub(crate) async fn post_import(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, mut body) = Coming::of(request);
    let answered = taken(&app, &parts, &mut body).await;
    body::done(&app, body, answered).await
}

async fn taken(app: &App, parts: &Parts, body: &mut Coming) -> Result<Response, Problem> {
    let identity = auth::permit(app, &parts.headers, Act::ImportEvents).await?;
    body.sent_by(format!("token {}", identity.name).into());
    if !matches!(ingest::framing(&parts.headers)?, Framing::Ndjson | Framing::Json) {
        return Err(Code::UnsupportedMediaType.problem("an import is lines of JSON: send application/x-ndjson"));
    }
    let read = body::read(app, &parts.headers, body, app.shared.limits.body_bytes_max).await?;
    let (batch, reservation) = batch(app, read)?;
    let told = Told::of(&batch);
    let all = batch.rejected_total > 0 && batch.rejected_total == batch.received;
    let refusal = all.then(|| ingest::refused(&batch, Atomic::No));
    let importing = Importing { app: app.clone(), identity, batch, reservation };
    // Also when the client goes away meanwhile: every event has its end.
    let ended = nowwhat::spawn(importing.end()).await;
    let outcome =
        ended.unwrap_or_else(|panic| Err(Code::Internal.problem("the import did not come to its end").cause(panic)))?;
    note(|| Ended::of(&outcome, told.rejected_total));
    refusal.map_or_else(|| Ok(ingest::told(outcome, &told)), Err)
}

fn batch(app: &App, mut read: Read) -> Result<(Batch, Reservation), Problem> {
    let limits = &app.shared.limits;
    let size = read.bytes.len();
    if size == 0 {
        return Err(Code::InvalidBody.problem("the body is empty: send the lines of an export"));
    }
    let counted = || event::columns_bytes_max(&read.bytes, &Framing::Ndjson, 0, &limits.event);
    let columns_bytes = body::work(size, counted);
    read.reservation.resize(columns_bytes.max(size) as u64).map_err(body::turned_away)?;
    let seconds = limits.kept_seconds.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
    let kept_since = seconds.map(|seconds| now_micros().saturating_sub(seconds.saturating_mul(1_000_000)));
    let lines = || event::read_exported(&read.bytes, kept_since, &limits.event);
    let batch = body::work(size, lines).map_err(|error| match error {
        ReadError::TooManyEvents { .. } => Code::TooManyEvents.problem(error.to_string()),
        other => Code::InvalidBody.problem(other.to_string()),
    })?;
    app.shared.metrics.events_read.inc_by(batch.received);
    let Read { bytes, mut reservation } = read;
    drop(bytes);
    reservation.resize(batch.memory_bytes() as u64).map_err(|refused| {
        // The events were read: they have an end.
        app.shared.engine.failed(batch.received);
        body::turned_away(refused)
    })?;
    Ok((batch, reservation))
}

/// A batch on its way.
struct Importing {
    app: App,
    identity: Arc<Identity>,
    batch: Batch,
    reservation: Reservation,
}

/// What is known of the events of a batch.
#[derive(Default)]
struct Known {
    /// For each row, whether it is new.
    stays: Vec<bool>,
    duplicates: u64,
    reused_ids: u64,
}

impl Importing {
    async fn end(mut self) -> Result<Outcome, Problem> {
        let app = self.app.clone();
        // What one looks up no other one stores meanwhile.
        let _turn = app.importing.lock().await;
        let known = match self.prepare().await {
            Ok(known) => known,
            Err(problem) => {
                app.shared.engine.failed(self.batch.received);
                return Err(problem);
            }
        };
        self.batch.keep(&known.stays);
        app.shared.engine.duplicates(known.duplicates);
        // They stand in the file that is imported.
        app.shared.rejected.left_out(self.batch.rejected_total);
        let submission = Submission { batch: self.batch, reservation: self.reservation, request: None };
        let outcome = nowwhat::db(app.shared.engine.submit(submission)).await.map_err(ingest::not_stored)?;
        app.shared.engine.reused_ids(known.reused_ids);
        Ok(Outcome { duplicates: known.duplicates, reused_ids: known.reused_ids, ..outcome })
    }

    /// Looks up what is stored already, and notes in the registry what will be.
    async fn prepare(&self) -> Result<Known, Problem> {
        if let Some(reason) = self.app.shared.engine.storage_full() {
            return Err(ingest::not_stored(engine::AcceptError::StorageFull { reason }));
        }
        let known = self.known().await?;
        let new = self.batch.identities().zip(&known.stays).filter(|(_, stays)| **stays);
        let sensors: BTreeSet<&str> = new.map(|((.., sensor), _)| sensor).collect();
        let events = known.stays.iter().filter(|stays| **stays).count() as u64;
        if events > 0 {
            let (by, sensors) = (auth::actor(&self.identity), sensors.into_iter().collect::<Vec<_>>());
            nowwhat::db(self.app.shared.registry.imports(&by, &sensors, events)).await.map_err(unavailable)?;
        }
        Ok(known)
    }

    async fn known(&self) -> Result<Known, Problem> {
        let mut stored: HashMap<u128, Vec<u64>> =
            self.batch.keys.iter().flatten().map(|key| (key.id, Vec::new())).collect();
        let (mut ids, mut times, mut bytes) = (Vec::new(), Vec::new(), 0);
        let (rows, mut read) = (self.batch.columns.num_rows(), 0);
        for (id, time, _) in self.batch.identities() {
            (read, bytes) = (read + 1, bytes + id.len());
            ids.push(id);
            times.push(time);
            if ids.len() == LOOKED_UP || bytes >= LOOKED_UP_BYTES || read == rows {
                self.look_up(&ids, &ranges(&mut times), &mut stored).await?;
                (ids, times, bytes) = (Vec::new(), Vec::new(), 0);
            }
        }
        let mut known = Known::default();
        for key in self.batch.keys.iter().flatten() {
            let contents = stored.entry(key.id).or_default();
            let is_duplicate = contents.contains(&key.content);
            known.stays.push(!is_duplicate);
            known.duplicates += u64::from(is_duplicate);
            if !is_duplicate {
                known.reused_ids += u64::from(!contents.is_empty());
                contents.push(key.content);
            }
        }
        Ok(known)
    }

    /// Adds the contents of what is stored with one of these ids, at one of these times.
    async fn look_up(
        &self,
        ids: &[&str],
        times: &[(i64, i64)],
        stored: &mut HashMap<u128, Vec<u64>>,
    ) -> Result<(), Problem> {
        // First where it is: what is looked for among the texts of all events takes ten times as long.
        let mut positions = Vec::new();
        each(&self.app, statement(ids, times), |rows| {
            let rows = query::json_rows(rows, BytesAs::Base64).map_err(problem_of)?;
            positions.extend(rows.iter().filter_map(|row| row.first()?.as_u64()));
            Ok(())
        })
        .await?;
        positions.sort_unstable();
        for positions in positions.chunks(LOOKED_UP) {
            each(&self.app, contents(positions), |rows| {
                for key in event::stored_keys(&query::plain_rows(rows).map_err(problem_of)?) {
                    if let Some(contents) = stored.get_mut(&key.id)
                        && !contents.contains(&key.content)
                    {
                        contents.push(key.content);
                    }
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

/// Asks, and gives the rows to `take`.
async fn each(app: &App, sql: String, mut take: impl FnMut(&Rows) -> Result<(), Problem>) -> Result<(), Problem> {
    let mut answer = ask(app, Query { sql, ..Query::default() }).await?;
    while let Some(rows) = nowwhat::db(answer.next()).await {
        take(&rows.map_err(problem_of)?)?;
    }
    if answer.truncated() {
        let detail = "more events than an answer may have are stored with the ids of this import: import less at once";
        return Err(Code::TooManyRows.problem(detail));
    }
    Ok(())
}

/// Asks for what tells the events at these positions from others.
fn contents(positions: &[u64]) -> String {
    let (first, last) = (positions.first().unwrap_or(&0), positions.last().unwrap_or(&0));
    let list: Vec<String> = positions.iter().map(u64::to_string).collect();
    let is_one_range = last - first + 1 == positions.len() as u64;
    let those = if is_one_range { String::new() } else { format!(" AND position IN ({})", list.join(", ")) };
    format!(
        "SELECT id, sensor, source, type, subject, time, content_type, attributes, data, data_binary FROM events \
         WHERE position BETWEEN {first} AND {last}{those}"
    )
}

/// Asks where events with one of these ids are, at one of these times.
fn statement(ids: &[&str], times: &[(i64, i64)]) -> String {
    let micros = |micros: i64| format!("arrow_cast({micros}, 'Timestamp(Microsecond, Some(\"UTC\"))')");
    let mut sql = "SELECT position FROM events WHERE id IN (".to_owned();
    for (n, id) in ids.iter().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        write!(sql, "{comma}'{}'", id.replace('\'', "''")).expect("writing to a text does not fail");
    }
    let within = |(since, until): &(i64, i64)| format!("time BETWEEN {} AND {}", micros(*since), micros(*until));
    let times: Vec<String> = times.iter().map(within).collect();
    sql + ") AND (" + &times.join(" OR ") + ")"
}

/// The times, in few ranges from the first to the last of each.
fn ranges(times: &mut [i64]) -> Vec<(i64, i64)> {
    times.sort_unstable();
    let mut gaps: Vec<(i64, usize)> =
        times.windows(2).enumerate().map(|(n, pair)| (pair[1] - pair[0], n + 1)).collect();
    gaps.retain(|(gap, _)| *gap > RANGE_GAP_MICROS);
    gaps.sort_unstable_by(|a, b| b.cmp(a));
    let mut cuts: Vec<usize> =
        gaps.into_iter().take(RANGES_MAX - 1).map(|(_, at)| at).chain([0, times.len()]).collect();
    cuts.sort_unstable();
    cuts.windows(2).filter_map(|cut| Some((*times.get(cut[0])?, *times.get(cut[1].checked_sub(1)?)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_lie_in_few_ranges_that_hold_all_of_them() {
        let minute = RANGE_GAP_MICROS;
        assert_eq!(ranges(&mut [5, 3, 4]), [(3, 5)]);
        assert_eq!(ranges(&mut [10 * minute, 0, 1, 10 * minute + 1]), [(0, 1), (10 * minute, 10 * minute + 1)]);
        let mut many: Vec<i64> = (0..100).map(|n| n * n * 2 * minute).collect();
        let found = ranges(&mut many);
        assert_eq!((found.len(), found[0].0, found[RANGES_MAX - 1].1), (RANGES_MAX, 0, 99 * 99 * 2 * minute));
        let holds = |time: &i64| found.iter().filter(|(since, until)| (since..=until).contains(&time)).count() == 1;
        assert!(many.iter().all(holds) && found.windows(2).all(|two| two[0].1 < two[1].0), "{found:?}");
    }

    #[test]
    fn an_id_cannot_end_the_text_that_it_stands_in() {
        let sql = statement(&["it's", "b"], &[(1, 2), (-3, -3)]);
        assert!(sql.contains("IN ('it''s', 'b') AND (time BETWEEN arrow_cast(1, "), "{sql}");
        assert!(sql.contains(" OR time BETWEEN arrow_cast(-3, "), "{sql}");
        assert!(contents(&[3, 4, 5]).ends_with("WHERE position BETWEEN 3 AND 5"));
        assert!(contents(&[3, 5]).ends_with("WHERE position BETWEEN 3 AND 5 AND position IN (3, 5)"));
    }
}
