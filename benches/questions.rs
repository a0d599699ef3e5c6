//! Questions about 12 million events of sensors, and the same to DuckDB over the same files.
//!
//! `make questions` (`QUESTIONS="--events 1200000"`). A collector of its own gets readings of 100 sensors, four fields each, over an hour that ends now. When all are in the lake and
//! files are put together, each question is asked over HTTP, best of seven, and DuckDB is asked the same of the same files, best of seven after its first look at them; answers
//! must be the same. Then once more while events come as quickly as they can.
//!
//! It fails when an answer differs, and tells the bars that are missed. `--note FILE` appends how long each question took, for `benches/growth`.

use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tests::{Collector, as_read_by, readers_python};

const EVENTS: u64 = 12_000_000;
const BATCH: u64 = 10_000;
const SENSORS: u64 = 100;
const TIMES: usize = 7;
/// An event in so many has an id of its sender.
const OWN_ID: u64 = 100;
/// How long each question is asked beside ingest.
const BESIDE: Duration = Duration::from_secs(3);
const HOUR_MICROS: u64 = 3_600_000_000;

/// A question with its bar in seconds, as it is asked here and in DuckDB.
struct Question {
    name: &'static str,
    bar: f64,
    sql: &'static str,
    /// `lake` is the files.
    duckdb: &'static str,
}

const QUESTIONS: [Question; 6] = [
    Question {
        name: "count by type and minute",
        bar: 0.15,
        sql: "SELECT type, date_trunc('minute', time) AS minute, count(*) AS n FROM events GROUP BY 1, 2 ORDER BY 1, 2",
        duckdb: "SELECT type, date_trunc('minute', time) AS minute, count(*) AS n FROM lake GROUP BY 1, 2 ORDER BY 1, 2",
    },
    Question {
        name: "count and average of a field by sensor",
        bar: 0.03,
        sql: "SELECT sensor, count(*) AS n, avg(data.temperature) AS mean FROM events GROUP BY 1 ORDER BY 1",
        duckdb: "SELECT sensor, count(*) AS n, avg(\"data.temperature\") AS mean FROM lake GROUP BY 1 ORDER BY 1",
    },
    Question {
        name: "two field filters",
        bar: 0.02,
        sql: "SELECT count(*) AS n FROM events WHERE data.temperature > 29.5 AND data.humidity < 31",
        duckdb: "SELECT count(*) AS n FROM lake WHERE \"data.temperature\" > 29.5 AND \"data.humidity\" < 31",
    },
    Question {
        name: "one event by id",
        bar: 0.01,
        sql: "SELECT sensor, position FROM events WHERE id = 'own-500000'",
        duckdb: "SELECT sensor, position FROM lake WHERE id = 'own-500000'",
    },
    Question {
        name: "latest 100 of a sensor",
        bar: 0.01,
        sql: "SELECT time, position, data FROM events WHERE sensor = 's42' ORDER BY time DESC, position DESC LIMIT 100",
        duckdb: "SELECT time, position, data FROM lake WHERE sensor = 's42' ORDER BY time DESC, position DESC LIMIT 100",
    },
    Question {
        name: "count of all",
        bar: 0.01,
        sql: "SELECT count(*) AS n FROM events",
        duckdb: "SELECT count(*) AS n FROM lake",
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let given = |name: &str| args.iter().position(|a| a == name).and_then(|at| args.get(at + 1)?.parse().ok());
    let events: u64 = given("--events").unwrap_or(EVENTS).div_ceil(BATCH) * BATCH;
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "2s")]);
    let tokens: Vec<String> = (0..SENSORS).map(|n| collector.sensor(&format!("s{n}"))).collect();
    let began = Instant::now();
    fill(&collector, &tokens, events);
    say(&format!("{events} events accepted in {:.0} s", began.elapsed().as_secs_f64()));
    rest(&collector);
    let (files, bytes) = (collector.metric("catchment_lake_files"), collector.metric("catchment_lake_bytes"));
    say(&format!("{files} files, {:.1} bytes an event", bytes / events as f64));
    let duckdb = duckdb(&collector);
    let quiet: Vec<(f64, Value)> =
        QUESTIONS.iter().map(|question| ask(&collector, question.sql, |times| times < TIMES)).collect();
    let mut failed = false;
    let mut table =
        String::from("| question | bar, s | Catchment, s | DuckDB, s | beside ingest, s |\n|---|---|---|---|---|\n");
    let Beside { times: beside, alone, asked } = beside_ingest(&collector, &tokens);
    for (n, question) in QUESTIONS.iter().enumerate() {
        let (seconds, rows) = &quiet[n];
        let (other, same) = match &duckdb {
            Some(all) => (all[n]["seconds"].to_string(), alike(rows, &all[n]["rows"])),
            None => ("not there".to_owned(), true),
        };
        failed |= !same;
        let missed = if *seconds > question.bar { " (missed)" } else { "" };
        let differs = if same { "" } else { " DIFFERS" };
        let Question { name, bar, .. } = question;
        let _ = writeln!(table, "| {name} | {bar} | {seconds:.4}{missed} | {other}{differs} | {:.4} |", beside[n]);
    }
    say(&table);
    if let (false, Some(file)) = (failed, args.iter().position(|a| a == "--note").and_then(|at| args.get(at + 1))) {
        let seconds =
            QUESTIONS.iter().zip(&quiet).map(|(question, (seconds, _))| (question.name.to_owned(), json!(seconds)));
        let noted = json!({"events": events, "seconds": seconds.collect::<serde_json::Map<_, _>>()});
        let file = std::fs::OpenOptions::new().create(true).append(true).open(file);
        file.and_then(|mut file| writeln!(file, "{noted}")).expect("noted");
    }
    say(&format!(
        "beside ingest of {asked:.0} events/s; {alone:.0} before anything was asked: {:.0} % less",
        100.0 * (1.0 - asked / alone)
    ));
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn now_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// One batch of readings, of which `first` is the first, over the hour before `until`.
fn batch(first: u64, events: u64, until: u64) -> String {
    let mut text = String::with_capacity(BATCH as usize * 170);
    for n in first..first + BATCH {
        let time = until - HOUR_MICROS + n * (HOUR_MICROS / events).max(1);
        let kind = ["reading", "reading", "reading", "alarm", "status"][(n % 61 % 5) as usize];
        // Neither the same over and over, nor without any shape.
        let noise = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let (temperature, humidity) = (15 + noise % 15, 30 + noise / 16 % 60);
        if n % OWN_ID == 0 {
            let _ = write!(text, "{{\"id\":\"own-{n}\",");
        } else {
            text.push('{');
        }
        let _ = writeln!(
            text,
            "\"type\":\"{kind}\",\"time\":{time},\"data\":{{\"temperature\":{temperature}.{},\"humidity\":{humidity},\"battery\":{},\"status\":\"{}\"}}}}",
            noise % 10,
            noise % 100,
            ["ok", "ok", "low", "charging"][(noise % 4) as usize],
        );
    }
    text
}

/// Sends all events, each sensor's batches in turn.
fn fill(collector: &Collector, tokens: &[String], events: u64) {
    let (next, until) = (AtomicU64::new(0), now_micros());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number * BATCH >= events {
                        return;
                    }
                    send(collector, &tokens[(number % SENSORS) as usize], &batch(number * BATCH, events, until));
                }
            });
        }
    });
}

/// Sends until it is taken.
fn send(collector: &Collector, token: &str, body: &str) {
    loop {
        let answer = collector.send(token, body.as_bytes());
        match answer.status {
            200 => return,
            503 => std::thread::sleep(Duration::from_millis(50)),
            _ => panic!("{}", answer.text),
        }
    }
}

/// Waits until all events are in the lake, in files that stay.
fn rest(collector: &Collector) {
    let deadline = Instant::now() + Duration::from_secs(600);
    let at_rest = || {
        collector.metric("catchment_engine_live_rows") == 0.0
            && collector.metric("catchment_lake_compaction_due_files") == 0.0
    };
    while !at_rest() {
        assert!(Instant::now() < deadline, "not at rest");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The best time of a question, and its rows, asked one time after the other as long as `again` says, which is told how often it was.
fn ask(collector: &Collector, sql: &str, again: impl Fn(usize) -> bool) -> (f64, Value) {
    let (mut best, mut rows, mut times) = (f64::MAX, Value::Null, 0);
    while again(times) {
        let began = Instant::now();
        let answer = collector.query(sql);
        best = best.min(began.elapsed().as_secs_f64());
        assert_eq!(answer.status, 200, "{sql}: {}", answer.text);
        rows = answer.json()["rows"].take();
        times += 1;
    }
    (best, rows)
}

/// What was seen while events came as quickly as they could.
struct Beside {
    /// The best times of the questions, asked over and over for [`BESIDE`] each.
    times: Vec<f64>,
    /// Events in a second before anything was asked, and while it was.
    alone: f64,
    asked: f64,
}

fn beside_ingest(collector: &Collector, tokens: &[String]) -> Beside {
    let over = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    let rate = |during: &mut dyn FnMut()| {
        let (began, before) = (Instant::now(), sent.load(Ordering::Relaxed));
        during();
        (sent.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64()
    };
    let body = batch(0, EVENTS, now_micros()).replace("\"id\":\"own-", "\"id\":\"beside-");
    std::thread::scope(|scope| {
        for token in tokens.iter().take(2) {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    send(collector, token, &body);
                    sent.fetch_add(BATCH, Ordering::Relaxed);
                }
            });
        }
        // The first seals come, and files are merged again.
        std::thread::sleep(BESIDE);
        let alone = rate(&mut || std::thread::sleep(BESIDE * QUESTIONS.len() as u32));
        let mut times = Vec::new();
        let asked = rate(&mut || {
            let best = |question: &Question| {
                let began = Instant::now();
                ask(collector, question.sql, |_| began.elapsed() < BESIDE).0
            };
            times = QUESTIONS.iter().map(best).collect();
        });
        over.store(true, Ordering::Relaxed);
        Beside { times, alone, asked }
    })
}

/// The same of DuckDB: seconds and rows of each question; none when it is not there.
fn duckdb(collector: &Collector) -> Option<Vec<Value>> {
    let python = readers_python()?;
    let questions: Vec<&str> = QUESTIONS.iter().map(|question| question.duckdb).collect();
    let program = format!(
        r#"
import deltalake, duckdb, json, sys, time
files = deltalake.DeltaTable(sys.argv[1]).file_uris()
db = duckdb.connect()
db.execute("SET threads = 2; SET enable_object_cache = true; SET enable_progress_bar = false")
db.execute("CREATE VIEW lake AS SELECT * FROM read_parquet({{}}, hive_partitioning = false)".format(files))
answers = []
for sql in json.loads(r'''{}'''):
    best = None
    for _ in range({TIMES} + 1):
        began = time.monotonic()
        rows = db.execute(sql).fetchall()
        took = time.monotonic() - began
        best = took if best is None or took < best else best
    answers.append({{"seconds": round(best, 4), "rows": [[str(value) if hasattr(value, "year") else value for value in row] for row in rows]}})
print(json.dumps(answers))
"#,
        json!(questions)
    );
    let dir = collector.dir.parent().expect("its folder");
    let answers = as_read_by(&python, ("duckdb", &program), dir);
    answers.as_array().cloned()
}

/// Whether rows are the same: numbers to nine digits, times not compared, which both write in their own way.
fn alike(ours: &Value, theirs: &Value) -> bool {
    let (Some(ours), Some(theirs)) = (ours.as_array(), theirs.as_array()) else {
        return false;
    };
    let same = |(a, b): (&Value, &Value)| match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(1.0),
        _ => a == b || a.as_str().is_some_and(|text| text.ends_with('Z')),
    };
    let row = |(a, b): (&Value, &Value)| match (a.as_array(), b.as_array()) {
        (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b).all(same),
        _ => false,
    };
    ours.len() == theirs.len() && ours.iter().zip(theirs).all(row)
}
