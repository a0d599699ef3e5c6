//! Overload: a collector of its own is offered three times what it can take, by senders that honour nothing.
//!
//! `make overload` (`OVERLOAD="--seconds 20"`), which is `cargo bench --profile release --locked --workspace --bench overload`. First, once the
//! window of duplicates is full, it looks for the best throughput, with few connections that wait for each answer. Then requests are due by the clock, three times as many, whatever
//! was answered: what is turned away is not sent again, `Retry-After` is not read. One of the sensors has a quota.
//!
//! It fails when in any window less than 80 % of the best was accepted, when the memory passed the bound printed at start, when an accepted
//! event is not found afterwards or one is found twice, when an answer is neither 200, 429 nor 503, or when this machine could not offer as much.

use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tests::Collector;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const SECONDS: u64 = 600;
/// Events of a batch.
const BATCH: u64 = 5000;
const SENSORS: usize = 8;
/// Events sent before anything is measured: more than the window of duplicates remembers (`window.keys_max`), since from then on each new
/// key costs the going of an old one.
const WARM_EVENTS: u64 = 2_500_000;
/// Connections that wait for each answer, tried one after the other.
const CONNECTIONS: [usize; 3] = [2, 4, 8];
/// Connections of the overload: more than the room for requests in flight takes.
const OVERLOAD_CONNECTIONS: usize = 600;
/// Times the best throughput that are offered.
const OFFERED: f64 = 3.0;
/// Part of the best throughput that is to be kept.
const KEPT: f64 = 0.8;
/// Batch numbers are squared below this, so that their sum fits.
const MODULUS: u64 = 65_537;
/// Digits of a batch number in an id.
const DIGITS: usize = 9;

/// What became of the requests to one sensor.
#[derive(Default)]
struct Tally {
    batches: AtomicU64,
    sum: AtomicU64,
    squares: AtomicU64,
}

/// What all connections share.
struct World {
    address: String,
    tokens: Vec<String>,
    /// A batch whose ids lack their batch number, and where it stands.
    template: Vec<u8>,
    places: Vec<usize>,
    next: AtomicU64,
    accepted: Vec<Tally>,
    accepted_batches: AtomicU64,
    sent: AtomicU64,
    quota_exceeded: AtomicU64,
    turned_away: AtomicU64,
    others: Mutex<Vec<String>>,
}

impl World {
    fn new(collector: &Collector) -> Self {
        let mut template = Vec::new();
        let mut places = Vec::new();
        for n in 0..BATCH {
            template.extend_from_slice(b"{\"id\":\"");
            places.push(template.len());
            let (degrees, tenths, percent) = (15 + n % 15, n % 10, 40 + n % 50);
            let zeros = "0".repeat(DIGITS);
            let rest = format!(
                "{zeros}-{n}\",\"type\":\"reading\",\"data\":{{\"temperature\":{degrees}.{tenths},\"humidity\":{percent}}}}}\n"
            );
            template.extend_from_slice(rest.as_bytes());
        }
        Self {
            address: collector.api.trim_start_matches("http://").to_owned(),
            tokens: (0..SENSORS).map(|n| collector.sensor(&format!("sensor-{n}"))).collect(),
            template,
            places,
            next: AtomicU64::new(0),
            accepted: (0..SENSORS).map(|_| Tally::default()).collect(),
            accepted_batches: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            quota_exceeded: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            others: Mutex::default(),
        }
    }

    /// The next batch, and its number.
    fn batch(&self) -> (u64, Vec<u8>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let digits = format!("{number:0DIGITS$}");
        let mut body = self.template.clone();
        for place in &self.places {
            body[*place..*place + DIGITS].copy_from_slice(digits.as_bytes());
        }
        (number, body)
    }

    /// Counts what was answered to a batch.
    fn answered(&self, sensor: usize, number: u64, answer: Result<(u16, Vec<u8>), String>) {
        let other = |what: String| self.others.lock().expect("no panic").push(what);
        match answer {
            Ok((200, body)) => {
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                if body["accepted"] != BATCH {
                    return other(format!("batch {number}: 200 {body}"));
                }
                let tally = &self.accepted[sensor];
                tally.batches.fetch_add(1, Ordering::Relaxed);
                tally.sum.fetch_add(number, Ordering::Relaxed);
                tally.squares.fetch_add((number % MODULUS).pow(2), Ordering::Relaxed);
                self.accepted_batches.fetch_add(1, Ordering::Relaxed);
            }
            Ok((429, _)) => drop(self.quota_exceeded.fetch_add(1, Ordering::Relaxed)),
            Ok((503, _)) => drop(self.turned_away.fetch_add(1, Ordering::Relaxed)),
            Ok((status, body)) => other(format!("batch {number}: {status} {}", String::from_utf8_lossy(&body))),
            Err(error) => other(format!("batch {number}: {error}")),
        }
    }

    fn accepted_events(&self) -> u64 {
        self.accepted_batches.load(Ordering::Relaxed) * BATCH
    }
}

/// One connection, opened again when the collector closed it.
struct Connection {
    world: Arc<World>,
    sensor: usize,
    stream: Option<TcpStream>,
}

impl Connection {
    fn new(world: &Arc<World>, n: usize) -> Self {
        Self { world: world.clone(), sensor: n % SENSORS, stream: None }
    }

    async fn send_one(&mut self) {
        let (number, body) = self.world.batch();
        let answer = self.ask(&body).await.map_err(|error| error.to_string());
        if answer.is_err() {
            self.stream = None;
        }
        self.world.answered(self.sensor, number, answer);
    }

    async fn ask(&mut self, body: &[u8]) -> std::io::Result<(u16, Vec<u8>)> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(TcpStream::connect(&self.world.address).await?),
        };
        let head = format!(
            "POST /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
            self.world.tokens[self.sensor],
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        self.world.sent.fetch_add(1, Ordering::Relaxed);
        let mut answer = Vec::new();
        loop {
            if let Some((head, rest)) = split(&answer) {
                let field = |name: &str| {
                    head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix(name).map(str::to_owned))
                };
                let length: usize = field("content-length: ").and_then(|l| l.trim().parse().ok()).unwrap_or(0);
                if rest.len() >= length {
                    let status = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
                    let (body, closes) = (rest[..length].to_vec(), field("connection: close").is_some());
                    if closes {
                        self.stream = None;
                    }
                    return Ok((status, body));
                }
            }
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(std::io::Error::other("the connection ended before the answer did"));
            }
        }
    }
}

/// The head of an answer, and what came of its body.
fn split(answer: &[u8]) -> Option<(&str, &[u8])> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    Some((std::str::from_utf8(&answer[..end]).ok()?, &answer[end + 4..]))
}

/// Events accepted in a second while so many connections wait for each answer.
async fn closed_loop(world: &Arc<World>, connections: usize, time: Duration) -> f64 {
    let (before, began) = (world.accepted_events(), Instant::now());
    let mut tasks = JoinSet::new();
    for n in 0..connections {
        let mut connection = Connection::new(world, n);
        tasks.spawn(async move {
            while began.elapsed() < time {
                connection.send_one().await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    (world.accepted_events() - before) as f64 / began.elapsed().as_secs_f64()
}

/// What was offered in a second, and what was accepted, window by window, while requests are due at this rate, whatever is answered.
async fn open_loop(
    world: &Arc<World>,
    requests_per_second: f64,
    (time, window): (Duration, Duration),
) -> (f64, Vec<f64>) {
    let due = Arc::new(Semaphore::new(0));
    let mut tasks = JoinSet::new();
    for n in 0..OVERLOAD_CONNECTIONS {
        let (mut connection, due) = (Connection::new(world, n), due.clone());
        tasks.spawn(async move {
            // Closed at the end.
            while let Ok(one) = due.acquire().await {
                one.forget();
                connection.send_one().await;
            }
        });
    }
    let sent = || world.sent.load(Ordering::Relaxed);
    let (began, sent_before, mut given, mut windows) = (Instant::now(), sent(), 0, Vec::new());
    let (mut window_began, mut before) = (began, world.accepted_events());
    while began.elapsed() < time {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let wanted = (began.elapsed().as_secs_f64() * requests_per_second) as usize;
        due.add_permits(wanted - given);
        given = wanted;
        if window_began.elapsed() >= window {
            let now = world.accepted_events();
            windows.push((now - before) as f64 / window_began.elapsed().as_secs_f64());
            (window_began, before) = (Instant::now(), now);
        }
    }
    // The last window ends with the time, give or take a moment.
    if window_began.elapsed() >= window / 2 {
        windows.push((world.accepted_events() - before) as f64 / window_began.elapsed().as_secs_f64());
    }
    let offered = ((sent() - sent_before) * BATCH) as f64 / began.elapsed().as_secs_f64();
    due.close();
    while tasks.join_next().await.is_some() {}
    (offered, windows)
}

/// What the collector logged as its bound.
fn memory_bound_bytes(dir: &std::path::Path) -> u64 {
    let log = std::fs::read_to_string(dir.join("log")).expect("the log");
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.find_map(|line| line["memory_bound_bytes"].as_u64()).expect("the bound is logged at the start")
}

/// Seconds of processor time of a process so far.
fn cpu_seconds(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let after_name = stat.rsplit(')').next().expect("it has a name");
    // User and system time, in ticks of a hundredth.
    after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Asks for what is stored of each sensor; the sensors of which it is not what was accepted.
fn lost_or_doubled(collector: &Collector, world: &World) -> Vec<String> {
    let sql = format!(
        "SELECT sensor, count(*), sum(b), sum((b % {MODULUS}) * (b % {MODULUS})), sum(i) FROM (SELECT sensor, \
         split_part(id, '-', 1)::bigint AS b, split_part(id, '-', 2)::bigint AS i FROM events) GROUP BY sensor"
    );
    let body = json!({ "sql": sql, "timeout_seconds": 600 }).to_string();
    let patient = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(900))).build().new_agent();
    let asked = patient.post(format!("{}/api/v1/query", collector.api));
    let asked = asked.header("authorization", format!("Bearer {}", collector.token)).send(body);
    let answer: Value = asked.expect("an answer").body_mut().read_json().expect("JSON");
    let rows = answer["rows"].as_array().cloned().unwrap_or_default();
    let number = |value: &Value| value.to_string().trim_matches('"').parse::<u128>().unwrap_or(0);
    let mut flaws = Vec::new();
    for (n, tally) in world.accepted.iter().enumerate() {
        let name = format!("sensor-{n}");
        let row = rows.iter().find(|row| row[0] == name.as_str());
        let found = [1, 2, 3, 4].map(|column| row.map_or(0, |row| number(&row[column])));
        let of = |count: &AtomicU64| u128::from(count.load(Ordering::Relaxed));
        let (batch, batches) = (u128::from(BATCH), of(&tally.batches));
        let expected =
            [batches * batch, of(&tally.sum) * batch, of(&tally.squares) * batch, batches * (batch * (batch - 1) / 2)];
        if found != expected {
            flaws.push(format!(
                "{name}: count and sums of what is stored are {found:?}, of what was accepted {expected:?}"
            ));
        }
    }
    flaws
}

/// To the terminal.
fn say(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    // cargo bench passes it; whoever runs all targets as tests does not mean this.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let mut seconds = SECONDS;
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.peek().and_then(|value| value.parse().ok())) {
            ("--bench", _) => {}
            ("--seconds", Some(given)) => {
                seconds = given;
                arguments.next();
            }
            _ => {
                say("usage: overload [--seconds N]");
                return ExitCode::from(2);
            }
        }
    }
    let flaws = overload(seconds);
    flaws.iter().for_each(|flaw| say(&format!("FAILED: {flaw}")));
    if flaws.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All of it; what is not as promised.
fn overload(seconds: u64) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let bound = memory_bound_bytes(dir.path());
    let world = Arc::new(World::new(&collector));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let cpu = || [cpu_seconds(&collector.pid().to_string()), cpu_seconds("self")];
    // So that a machine that had more to do meanwhile can be told from a collector that wastes its time.
    let per_cpu = |(cpu_before, events_before): ([f64; 2], u64)| {
        let [of_collector, of_senders] = std::array::from_fn(|n| cpu()[n] - cpu_before[n]);
        let events = (world.accepted_events() - events_before) as f64 / of_collector.max(0.01);
        format!(
            "{events:.0} for a second of the collector's processor time; {of_collector:.0} s of it, {of_senders:.0} s of the senders'"
        )
    };
    while world.accepted_events() < WARM_EVENTS {
        runtime.block_on(closed_loop(&world, CONNECTIONS[0], Duration::from_secs(1)));
    }
    let mut best = 0.0_f64;
    for connections in CONNECTIONS {
        let time = Duration::from_secs((seconds / 20).max(5));
        let before = (cpu(), world.accepted_events());
        let found = runtime.block_on(closed_loop(&world, connections, time));
        let per_cpu = per_cpu(before);
        say(&format!("{connections} connections that wait for each answer: {found:.0} events/s, {per_cpu}"));
        best = best.max(found);
    }
    let quota = json!({ "quota": { "events_per_second": (best / 100.0) as u64, "burst_seconds": 10 } }).to_string();
    let set = collector.ask(("PATCH", "/api/v1/sensors/sensor-0"), &collector.token, &[], quota.as_bytes());
    assert_eq!(set.status, 200, "{}", set.text);

    let window = Duration::from_secs((seconds / 10).max(10).min(seconds));
    let times = (Duration::from_secs(seconds), window);
    let before = (cpu(), world.accepted_events());
    let (offered, windows) = runtime.block_on(open_loop(&world, OFFERED * best / BATCH as f64, times));
    say(&format!("overload: {}", per_cpu(before)));
    let (least, peak) = (windows.iter().copied().fold(f64::INFINITY, f64::min), collector.memory_peak_bytes());
    let mean = windows.iter().sum::<f64>() / windows.len() as f64;
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let mib = |bytes: u64| bytes >> 20;
    say(&format!(
        "offered {offered:.0} events/s for {seconds} s, {:.1} times the best; accepted {mean:.0} events/s, {:.0} % of the best; \
         in the worst {} s {least:.0}, {:.0} %",
        offered / best,
        100.0 * mean / best,
        window.as_secs(),
        100.0 * least / best
    ));
    say(&format!(
        "answers: {} times 200, {} times 429, {} times 503; memory {} MiB at most, bound {} MiB",
        count(&world.accepted_batches),
        count(&world.quota_exceeded),
        count(&world.turned_away),
        mib(peak),
        mib(bound)
    ));
    let mut flaws = lost_or_doubled(&collector, &world);
    say(&format!(
        "{} events accepted, looked for by sensor: {}",
        world.accepted_events(),
        if flaws.is_empty() { "all there, each once" } else { "not the same" }
    ));
    flaws.extend((least < KEPT * best).then(|| format!("less than {KEPT} of the best was accepted in a window")));
    flaws.extend((peak > bound).then(|| "the memory passed its bound".to_owned()));
    flaws.extend((offered < 0.9 * OFFERED * best).then(|| "this machine could not offer as much".to_owned()));
    let others = world.others.lock().expect("no panic");
    flaws.extend(others.first().map(|first| format!("{} other answers, such as: {first}", others.len())));
    flaws
}
