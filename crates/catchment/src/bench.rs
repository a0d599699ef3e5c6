//! `catchment bench`: load on a running collector, and the proof that nothing was lost or doubled.
//!
//! Every event carries an id `<run>-<n>` with a number of its own. Afterwards SQL counts the run's events and adds up their
//! numbers and the squares of these: equal sums mean the same events, each once.

use crate::client::{Client, Server};
use crate::own::OwnCollector;
use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use nowwhat::Environment;
use nowwhat::cli::{Usage, print};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

#[derive(Args)]
pub(crate) struct BenchArgs {
    /// NDJSON whose lines become the data of the events, over and over [default: generated readings].
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 4)]
    connections: u64,
    /// Events of a batch; 1 sends single events.
    #[arg(long, default_value_t = 1000)]
    batch: u64,
    /// How long to send.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Load a collector of its own, with its data in ./data/bench, emptied before.
    #[arg(long, conflicts_with_all = ["url", "data_dir"])]
    own: bool,
    #[command(flatten)]
    server: Server,
}

/// The sum of squares is taken of numbers below this, so that it fits.
const MODULUS: u64 = 65_537;

/// What one connection was told is stored.
#[derive(Default)]
struct Tally {
    events: u64,
    bytes: u64,
    turned_away: u64,
    sum: u128,
    squares: u128,
    latencies_us: Vec<u32>,
}

impl Tally {
    fn stored(&mut self, first: u64, count: u64) {
        self.events += count;
        for n in first..first + count {
            self.sum += u128::from(n);
            self.squares += u128::from((n % MODULUS).pow(2));
        }
    }

    fn add(mut self, other: Self) -> Self {
        self.events += other.events;
        self.bytes += other.bytes;
        self.turned_away += other.turned_away;
        self.sum += other.sum;
        self.squares += other.squares;
        self.latencies_us.extend(other.latencies_us);
        self
    }
}

/// What all connections share.
struct Run {
    name: String,
    token: String,
    data: Vec<String>,
    batch: u64,
    deadline: Instant,
    next: AtomicU64,
}

pub(crate) fn run(args: &BenchArgs, environment: &Environment) -> anyhow::Result<()> {
    if args.connections == 0 || args.batch == 0 || args.seconds == 0 {
        return Err(Usage("--connections, --batch and --seconds are at least 1".to_owned()).into());
    }
    let mut server = args.server.clone();
    let _own = if args.own {
        let dir = PathBuf::from("data/bench");
        if dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
        }
        server.data_dir = Some(dir.clone());
        Some(OwnCollector::start(&dir)?)
    } else {
        None
    };
    let client = Arc::new(Client::find(&server, environment)?);
    let name = format!("bench{}", jiff::Timestamp::now().as_millisecond());
    let made = client.post_json("/api/v1/sensor", &json!({ "name": name }))?;
    let token = made["token"].as_str().context("the answer holds no token")?.to_owned();
    let deadline = Instant::now() + Duration::from_secs(args.seconds);
    let run =
        Run { name, token, data: data(args.file.as_ref())?, batch: args.batch, deadline, next: AtomicU64::new(0) };
    let began = Instant::now();
    let (run, tally) = load(run, args.connections, &client)?;
    let seconds = began.elapsed().as_secs_f64();
    report(&tally, seconds)?;
    prove(&client, &run, &tally)?;
    Ok(())
}

fn data(file: Option<&PathBuf>) -> anyhow::Result<Vec<String>> {
    let Some(path) = file else {
        let reading = |n: u64| {
            format!(
                "{{\"temperature\":{}.{},\"humidity\":{},\"battery_volt\":3.{}}}",
                15 + n % 15,
                n % 10,
                40 + n % 50,
                n % 7
            )
        };
        return Ok((0..1000).map(reading).collect());
    };
    let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let lines: Result<Vec<String>, _> = BufReader::new(file).lines().collect();
    let mut lines = lines.with_context(|| format!("cannot read {}", path.display()))?;
    lines.retain(|line| !line.trim().is_empty());
    if lines.is_empty() { Err(anyhow!("{} holds no lines", path.display())) } else { Ok(lines) }
}

fn load(run: Run, connections: u64, client: &Arc<Client>) -> anyhow::Result<(Run, Tally)> {
    let run = Arc::new(run);
    let tally = client.runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            tasks.spawn(connection(run.clone(), client.clone()));
        }
        let mut total = Tally::default();
        while let Some(tally) = tasks.join_next().await {
            total = total.add(tally.context("a connection failed")??);
        }
        anyhow::Ok(total)
    })?;
    Ok((Arc::into_inner(run).context("all connections have ended")?, tally))
}

/// One request at a time, each over a connection that is kept open.
async fn connection(run: Arc<Run>, client: Arc<Client>) -> anyhow::Result<Tally> {
    let kind = [("content-type", "application/x-ndjson")];
    let mut tally = Tally::default();
    while Instant::now() < run.deadline {
        let first = run.next.fetch_add(run.batch, Ordering::Relaxed);
        let mut body = Vec::new();
        for n in first..first + run.batch {
            let data = &run.data[(n % run.data.len() as u64) as usize];
            writeln!(body, "{{\"id\":\"{}-{n}\",\"type\":\"reading\",\"data\":{data}}}", run.name)?;
        }
        let body = Bytes::from(body);
        loop {
            let asked = Instant::now();
            let request = client.posting("/api/v1/events", &run.token, body.clone(), &kind)?;
            let answer = client.http.request(request).await?;
            let status = answer.status.as_u16();
            if status == 429 || status == 503 {
                tally.turned_away += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            let answer: Value = answer.json()?;
            if answer["accepted"] != run.batch {
                bail!("a batch of {} new events was answered {status} {answer}", run.batch);
            }
            tally.latencies_us.push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX));
            tally.bytes += body.len() as u64;
            tally.stored(first, run.batch);
            break;
        }
    }
    Ok(tally)
}

fn report(tally: &Tally, seconds: f64) -> anyhow::Result<()> {
    let mut sorted = tally.latencies_us.clone();
    sorted.sort_unstable();
    let quantile = |q: f64| {
        sorted
            .get(((sorted.len() as f64 * q) as usize).min(sorted.len().saturating_sub(1)))
            .map_or(0.0, |us| f64::from(*us) / 1000.0)
    };
    Ok(print(format!(
        "{} events in {seconds:.1} s: {:.0} events/s, {:.1} MB/s; answer p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms; turned away {} times\n",
        tally.events,
        tally.events as f64 / seconds,
        tally.bytes as f64 / seconds / 1e6,
        quantile(0.5),
        quantile(0.99),
        quantile(1.0),
        tally.turned_away
    ))?)
}

fn prove(client: &Client, run: &Run, tally: &Tally) -> anyhow::Result<()> {
    let began = Instant::now();
    let sql = format!(
        "SELECT count(*), sum(n), sum((n % {MODULUS}) * (n % {MODULUS})) \
         FROM (SELECT split_part(id, '-', 2)::bigint AS n FROM events WHERE sensor = '{}')",
        run.name
    );
    let answer = client.post_json("/api/v1/query", &json!({ "sql": sql, "timeout_seconds": 600 }))?;
    let number = |n: usize| -> u128 {
        let value: &Value = &answer["rows"][0][n];
        value.to_string().trim_matches('"').parse().unwrap_or(0)
    };
    let seconds = began.elapsed().as_secs_f64();
    let found = (number(0), number(1), number(2));
    let expected = (u128::from(tally.events), tally.sum, tally.squares);
    if found != expected {
        bail!("count, sum and sum of squares of the stored events are {found:?}, of the accepted ones {expected:?}");
    }
    Ok(print(format!("read back in {seconds:.1} s: {} events, none lost, none doubled\n", tally.events))?)
}
