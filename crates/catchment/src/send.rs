//! `catchment send`: events from a file or standard input, in batches.
//!
//! A batch that the server turned away is sent again, because nothing of it was stored. One whose answer is lost is sent again with the same
//! key, as long as the collector surely knows it; how long it knows keys it is asked when no answer has said so yet. Whatever else ends sending before the input ends, it says what was accepted so far and from which
//! line to go on, a signal too; when the answer stays lost, that nobody knows of that batch. Lines that were read before the input broke are sent.
//! Lines of `catchment rejected export` are sent as their events came. No line and no document is larger in memory than what a collector takes at once.

mod done;
pub(crate) mod input;

use crate::client::{Client, Ended, Server, Token};
use crate::config::BODY_BYTES_MAX;
use crate::data_dir::DataDir;
use crate::exported::{self, Way};
use crate::progress;
use anyhow::{Context, anyhow, ensure};
use bytes::Bytes;
use clap::{Args, value_parser};
use done::{Done, Fate, Stopped, Totals};
use indicatif::ProgressBar;
use input::{begins_document, open, read_line, unreadable};
use nowwhat::Environment;
use nowwhat::cli::{Usage, complain, print};
use nowwhat::client::{Answer, ClientError};
use nowwhat::serve::Termination;
use serde::Serialize;
use serde_json::{Value, json};
use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Lines of a batch.
const BATCH_LINES: u64 = 1000;
/// Bytes of a batch; a longer line is a batch of its own.
const BATCH_BYTES: usize = 1 << 20;
/// A server that turns away for longer is given up.
const TRIES: u32 = 60;
/// Between two tries, where the server does not say how long.
const WAIT: Duration = Duration::from_secs(1);
/// For so long after an answer was lost the batch is sent again, when the collector knows keys for so long.
const DOUBT_MAX: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(crate) struct SendArgs {
    /// File to send, of events or of lines of `catchment rejected export`; - or none reads standard input.
    file: Option<PathBuf>,
    /// Name of the sensor, or its id, which is made from the name; registered when there is none on this machine yet.
    #[arg(long, value_name = "NAME", default_value = "cli")]
    sensor: String,
    /// Begin with this line, from 1: where an earlier run stopped. A JSON array is always sent as a whole.
    #[arg(long, value_name = "LINE", default_value_t = 1, value_parser = value_parser!(u64).range(1..))]
    from_line: u64,
    #[command(flatten)]
    server: Server,
    // Last: its heading holds for all that follows.
    #[command(flatten)]
    fields: Fields,
}

/// Where plain JSON has what an event is known by: the parameters of the address.
#[derive(Args, Serialize)]
#[command(next_help_heading = "Fields of plain JSON")]
struct Fields {
    /// Field with the id, such as id or /meta/id (JSON pointer); what was sent before is not stored twice [default: none].
    #[arg(long, value_name = "FIELD")]
    id_field: Option<String>,
    /// Field with the time [default: /time; an empty one: none].
    #[arg(long, value_name = "FIELD")]
    time_field: Option<String>,
    /// Field with the type [default: /type; an empty one: none].
    #[arg(long, value_name = "FIELD")]
    type_field: Option<String>,
    /// Field with what the event is about [default: none].
    #[arg(long, value_name = "FIELD")]
    subject_field: Option<String>,
    /// Zone of times that have none, such as Europe/Berlin [default: they are rejected].
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
}

impl Fields {
    /// The parameters of the address.
    fn parameters(&self) -> anyhow::Result<Vec<(String, String)>> {
        let text = serde_urlencoded::to_string(self).context("cannot write the parameters of the address")?;
        serde_urlencoded::from_str(&text).context("cannot write the parameters of the address")
    }
}

/// What came of sending a batch once.
enum Tried {
    /// It has its answer.
    Answered(Value),
    /// Nothing was sent.
    Unreached(anyhow::Error),
    /// Nothing was done with it, and can be later.
    TurnedAway { cause: anyhow::Error, wait: Duration },
    /// It may be stored, not before this time; the same key finds out.
    Lost { cause: anyhow::Error, since: Instant, wait: Duration },
    /// Nothing was done with it, and never will be.
    Refused(anyhow::Error),
    /// It may be stored; nothing finds out.
    Undecided(anyhow::Error),
}

pub(crate) fn run(args: &SendArgs, environment: &Environment) -> anyhow::Result<()> {
    let client = Client::find(&args.server, environment)?;
    let token = sensor_token(&client, &args.sensor)?;
    let (mut input, bytes) = open(args.file.as_ref())?;
    let done = Done { totals: Totals::default(), first_line: args.from_line, lines: 0, batch: Fate::NotStored };
    let mut sending = Sending {
        client: &client,
        token,
        sensor: &args.sensor,
        way: Way::lines(args.fields.parameters()?),
        given: args.fields.parameters()?,
        progress: progress::of_bytes(bytes),
        done: Arc::new(Mutex::new(done)),
        batch: Vec::new(),
        doubt_max: None,
    };
    sending.tell_when_interrupted()?;
    let sent = sending.all(&mut *input);
    sending.progress.finish_and_clear();
    let mut done = sending.done();
    if let Err(Stopped { cause, batch }) = sent {
        done.batch = batch;
        complain(&done.to_string());
        return Err(cause);
    }
    let totals = done.totals;
    print(format!("{totals}\n")).with_context(|| format!("all was sent: {totals}"))?;
    if totals.rejected > 0 { Err(anyhow!("{} events were rejected", totals.rejected)) } else { Ok(()) }
}

/// An input on its way.
struct Sending<'a> {
    client: &'a Client,
    token: Token,
    sensor: &'a str,
    /// Parameters of the address, for all that is sent.
    given: Vec<(String, String)>,
    /// How the batch at hand is sent.
    way: Way,
    progress: ProgressBar,
    done: Arc<Mutex<Done>>,
    batch: Vec<u8>,
    /// For how long a batch whose answer is lost can be sent again without being stored twice.
    doubt_max: Option<Duration>,
}

impl Sending<'_> {
    fn done(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on SIGINT and SIGTERM end the program with what is done so far.
    fn tell_when_interrupted(&self) -> anyhow::Result<()> {
        let within = self.client.runtime.enter();
        let mut termination = Termination::watch().context("cannot watch signals")?;
        drop(within);
        let (done, progress) = (self.done.clone(), self.progress.clone());
        self.client.runtime.spawn(async move {
            let signal = termination.next().await;
            let done = done.lock().unwrap_or_else(PoisonError::into_inner);
            progress.finish_and_clear();
            complain(&format!("{signal}: {done}"));
            std::process::exit(1);
        });
        Ok(())
    }

    fn all(&mut self, input: &mut dyn BufRead) -> Result<(), Stopped> {
        let (head, is_document) = begins_document(input).context("cannot read the input")?;
        let mut input = head.as_slice().chain(input);
        if !is_document {
            return self.lines(&mut input);
        }
        let body = whole(&mut input)?;
        if let Some(lines) = exported::lines_of(&body)? {
            return self.lines(&mut lines.as_slice());
        }
        self.done().first_line = 1;
        self.way = Way::document(self.given.clone());
        self.post(body.into())
    }

    /// Sends lines, beginning with the one that was asked for.
    fn lines(&mut self, input: &mut dyn BufRead) -> Result<(), Stopped> {
        let first_line = self.done().first_line;
        for number in 1..first_line {
            let skipped = input.skip_until(b'\n').with_context(|| unreadable(number))?;
            self.progress.inc(skipped as u64);
            if skipped == 0 {
                return Err(anyhow!("the input ends before line {first_line}: its last line is {}", number - 1).into());
            }
        }
        self.rest(input)
    }

    /// Sends the lines from here on. Those read before the input breaks are sent, so that the line to go on with is the broken one.
    fn rest(&mut self, input: &mut dyn BufRead) -> Result<(), Stopped> {
        let mut line = Vec::new();
        loop {
            let read = read_line(input, &mut line).and_then(|read| Ok((read, self.way_of(&mut line)?)));
            let goes_on = matches!(&read, Ok((1.., way)) if way.is_lines && *way == self.way);
            // An event without a body has no bytes, and is one all the same.
            if self.done().lines > 0 && (!goes_on || self.batch.len() + line.len() > BATCH_BYTES) {
                self.send_batch()?;
            }
            let mut done = self.done();
            let (read, way) = read.with_context(|| unreadable(done.first_line + done.lines))?;
            if read == 0 {
                return Ok(());
            }
            done.lines += 1;
            let is_full = done.lines == BATCH_LINES;
            drop(done);
            self.way = way;
            self.progress.inc(read as u64);
            self.batch.extend_from_slice(&line);
            if is_full {
                self.send_batch()?;
            }
        }
    }

    /// How a line is sent. One that was exported becomes its event.
    fn way_of(&self, line: &mut Vec<u8>) -> anyhow::Result<Way> {
        let Some((way, body)) = exported::read(line, self.sensor, &self.given)? else {
            return Ok(Way::lines(self.given.clone()));
        };
        *line = body;
        Ok(way)
    }

    fn send_batch(&mut self) -> Result<(), Stopped> {
        let batch = std::mem::take(&mut self.batch);
        self.post(batch.into())?;
        self.progress.set_message(format!("{} accepted", self.done().totals.accepted));
        Ok(())
    }

    /// Sends one batch until it has an answer, or nobody can know any more what became of it. Its key lets it come any number of times.
    fn post(&mut self, body: Bytes) -> Result<(), Stopped> {
        let path = self.way.path()?;
        let key = key();
        let way = self.way.headers.clone();
        let mut headers: Vec<(&str, &str)> = way.iter().map(|(name, value)| (&**name, &**value)).collect();
        headers.push(("idempotency-key", &key));
        // Since when the batch may be stored without an answer that says so, and until when its key is surely known.
        let (mut stored_since, mut known_until) = (None, None);
        let mut away_since = None;
        for tried in 0..TRIES {
            let (was_lost, began) = (stored_since.is_some(), Instant::now());
            self.client.wait_for_return(|text| self.complain(text));
            // The key may be forgotten by now, and the batch be stored a second time.
            if known_until.is_some_and(|until| Instant::now() > until) {
                return Err(Stopped::undecided(anyhow!("the collector was away for longer than it surely knows keys")));
            }
            self.done().batch = Fate::Unknown;
            let (cause, wait) = match self.once(&path, body.clone(), &headers) {
                Tried::Answered(said) => {
                    self.count(&said);
                    return Ok(());
                }
                Tried::Refused(cause) if !was_lost => return Err(cause.into()),
                // One that is started again closes its door before it takes its address away.
                Tried::Unreached(cause) => {
                    let since = *away_since.get_or_insert(began);
                    if !was_lost && !self.client.may_return(since) {
                        return Err(cause.into());
                    }
                    if since == began {
                        self.complain(&format!("{cause:#}: trying again"));
                    }
                    (cause, WAIT)
                }
                Tried::TurnedAway { cause, wait } => {
                    if tried % 10 == 0 {
                        let (tries, seconds) = (TRIES - tried - 1, wait.as_secs());
                        self.complain(&format!(
                            "turned away ({cause}): trying again in {seconds} s, at most {tries} times"
                        ));
                    }
                    (cause, wait)
                }
                Tried::Lost { cause, since, wait } => {
                    stored_since.get_or_insert(since);
                    (cause, wait)
                }
                Tried::Refused(cause) | Tried::Undecided(cause) => return Err(Stopped::undecided(cause)),
            };
            match stored_since {
                None => self.done().batch = Fate::NotStored,
                Some(since) => {
                    let doubt_max = self.doubt_max(since, &cause);
                    if since.elapsed() + wait > doubt_max {
                        return Err(Stopped::undecided(cause));
                    }
                    known_until = Some(since + doubt_max);
                    if !was_lost {
                        let seconds = doubt_max.as_secs();
                        self.complain(&format!("{cause:#}: trying again with the same key, for at most {seconds} s"));
                    }
                }
            }
            std::thread::sleep(wait);
        }
        let cause = anyhow!("the collector has turned the batch away {TRIES} times: go on later");
        Err(if stored_since.is_none() { cause.into() } else { Stopped::undecided(cause) })
    }

    /// For how long a batch that may be stored since `since` is sent again. Before any answer said how long keys are known, a batch of no events asks.
    fn doubt_max(&mut self, since: Instant, cause: &anyhow::Error) -> Duration {
        let (path, key) = ("/api/v1/events", key());
        let headers = [("content-type", "application/x-ndjson"), ("idempotency-key", &*key)];
        let (mut wait, mut told) = (Duration::ZERO, false);
        while self.doubt_max.is_none() && since.elapsed() + wait < DOUBT_MAX {
            if !wait.is_zero() && !told {
                let seconds = DOUBT_MAX.as_secs();
                self.complain(&format!("{cause:#}: asking how long keys are known, for at most {seconds} s"));
                told = true;
            }
            std::thread::sleep(wait);
            wait = match self.once(path, Bytes::new(), &headers) {
                Tried::TurnedAway { wait, .. } | Tried::Lost { wait, .. } => wait,
                Tried::Unreached(_) => WAIT,
                Tried::Answered(_) | Tried::Refused(_) | Tried::Undecided(_) => break,
            };
        }
        self.doubt_max.unwrap_or_default()
    }

    /// Sends one batch once.
    fn once(&mut self, path: &str, body: Bytes, headers: &[(&str, &str)]) -> Tried {
        let asked = Instant::now();
        let answer = match self.client.post(path, self.token.text(), body, headers) {
            Ok(answer) => answer,
            Err(cause) => {
                return match cause.downcast_ref::<ClientError>() {
                    Some(error) if error.is_unsent() => Tried::Unreached(cause),
                    Some(error) if error.is_retryable() => Tried::Lost { cause, since: asked, wait: WAIT },
                    Some(_) => Tried::Undecided(cause),
                    // Another may be started.
                    None if cause.is::<Ended>() => Tried::Unreached(cause),
                    None => Tried::Refused(cause),
                };
            }
        };
        let number = |name: &str| answer.headers.get(name).and_then(|v| v.to_str().ok()?.parse().ok());
        let wait = number("retry-after").map_or(WAIT, Duration::from_secs);
        let known = number("catchment-idempotency-window").map_or(Duration::ZERO, Duration::from_secs);
        let (status, said) = (answer.status.as_u16(), answer.json::<Value>().unwrap_or_default());
        match (status, said["code"].as_str().unwrap_or_default()) {
            (_, "all_rejected") => Tried::Answered(said),
            (200..300, _) if said["accepted"].is_u64() => {
                // Who does not say how long keys are known may know none.
                self.doubt_max = Some(DOUBT_MAX.min(known));
                Tried::Answered(said)
            }
            // The collector itself does not know what became of these, or is still at it.
            (503, "log_poisoned" | "timed_out" | "stopping") | (409, "idempotency_key_in_use") => {
                Tried::Lost { cause: self.failure(answer), since: Instant::now(), wait }
            }
            // What stands before it has no answer of it.
            (502 | 504, _) => Tried::Lost { cause: self.failure(answer), since: asked, wait },
            (429 | 503, code) => {
                Tried::TurnedAway { cause: anyhow!("{}", format!("{status} {code}").trim_end()), wait }
            }
            (200..300 | 500.., _) => Tried::Undecided(self.failure(answer)),
            _ => Tried::Refused(self.failure(answer)),
        }
    }

    /// An answer that tells no counts, as an error.
    fn failure(&self, answer: Answer) -> anyhow::Error {
        let status = answer.status;
        let none = |_| anyhow!("the answer, with status {status}, is not that of a collector");
        self.token.good(answer).map_or_else(|error| error, none)
    }

    fn complain(&self, text: &str) {
        self.progress.suspend(|| complain(text));
    }

    /// Counts a batch that has its answer, and goes on behind it.
    fn count(&self, answer: &Value) {
        let number = |name: &str| answer[name].as_u64().unwrap_or(0);
        let mut done = self.done();
        for rejected in answer["rejected"].as_array().into_iter().flatten().take(10) {
            let at = done.first_line + rejected["index"].as_u64().unwrap_or(0);
            let (code, reason) =
                (rejected["code"].as_str().unwrap_or_default(), rejected["reason"].as_str().unwrap_or_default());
            complain(&format!("event {at}: {code}: {reason}"));
        }
        done.totals.accepted += number("accepted");
        done.totals.duplicates += number("duplicates");
        done.totals.rejected += number("rejected_total");
        done.first_line += done.lines;
        done.lines = 0;
        done.batch = Fate::NotStored;
    }
}

/// An array, or one object over several lines.
fn whole(input: &mut dyn BufRead) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    input.take(BODY_BYTES_MAX.0 + 1).read_to_end(&mut body).context("cannot read the JSON to its end")?;
    ensure!(
        body.len() as u64 <= BODY_BYTES_MAX.0,
        "the JSON is larger than {BODY_BYTES_MAX}, the most that a collector takes at once: send one event a line, as `jq -c '.[]'` makes them of an array, and `jq -c .` of objects"
    );
    Ok(body)
}

/// A key that no other batch has.
fn key() -> String {
    format!("\"{}\"", Uuid::now_v7())
}

/// The token of a sensor: kept on this machine, else of a sensor registered now.
fn sensor_token(client: &Client, name: &str) -> anyhow::Result<Token> {
    let Some(dir) = &client.dir else {
        // Far from the collector's folder the token given is the sensor's.
        return client.token().cloned();
    };
    let path = dir.sensor_token_path(&registry::sensor_id_from(name).map_err(|e| Usage(e.to_string()))?);
    if let Some(token) = DataDir::token(&path)? {
        return Ok(Token::Sensor { text: token, path });
    }
    let made = client
        .post_json("/api/v1/sensor", &json!({ "name": name }))
        .with_context(|| format!("sensor {name:?} has no token on this machine and could not be registered"))?;
    let token = made["token"].as_str().context("the answer holds no token")?.to_owned();
    if let Err(error) = DataDir::keep_token(&path, &token) {
        complain(&format!(
            "sensor {name:?} is registered, and its token serves this run, but is not kept: {error:#}; `catchment sensor rotate` makes another one"
        ));
    }
    Ok(Token::Sensor { text: token, path })
}
