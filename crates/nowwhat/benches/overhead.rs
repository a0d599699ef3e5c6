//! What the foundation costs: hello-world with all of it on, beside bare axum, in turns in one run.
//!
//! `cargo bench -p nowwhat --bench overhead`. All of it: request ids, a span, one JSON line a request into a file (no sampling), metrics,
//! limits, problems, trusted proxies. The same clients load both: 64 connections of 2 threads, one request after the other. It fails when the
//! median of the rounds is below the target.

use axum::Router;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Many short rounds: what else the machine does for a while meets both.
const ROUNDS: usize = 101;
const ROUND: Duration = Duration::from_millis(250);
const THREADS: usize = 2;
const CONNECTIONS_PER_THREAD: usize = 32;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: hello\r\n\r\n";
/// Part of bare axum's requests per second that is to be kept.
const TARGET: f64 = 0.8;
/// Ticks of `/proc` in a second.
const TICKS: f64 = 100.0;

async fn hello() -> &'static str {
    "Hello, world!"
}

fn main() -> ExitCode {
    // cargo passes `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("bare") => bare(),
        Some("full") => full(),
        _ => return compare(),
    }
    ExitCode::SUCCESS
}

fn bare() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        say(&listener.local_addr().expect("an address").to_string());
        axum::serve(listener, Router::new().route("/", axum::routing::get(hello))).await.expect("serves");
    });
}

fn full() {
    let service = nowwhat::Service::new(nowwhat::version!("hello"), Vec::new());
    let done = service.run(service.sources(), nowwhat::Environment::of_process(), async |boot| {
        say(&boot.address.to_string());
        Ok(Router::new().route("/", nowwhat::routing::get(hello)))
    });
    done.expect("serves");
}

/// To the parent.
fn say(text: &str) {
    std::io::stdout().write_all(format!("{text}\n").as_bytes()).expect("the parent reads");
}

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(what: &str, log: &std::path::Path) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        let log = File::create(log).expect("a log file");
        command.arg(what).env("HELLO_HTTP__LISTEN", "127.0.0.1:0").env("HELLO_ADMIN__LISTEN", "127.0.0.1:0");
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("the server starts");
        let mut address = String::new();
        let out = child.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut address).expect("an address");
        Self { child, address: address.trim().to_owned() }
    }

    /// Processor time used so far, in seconds.
    fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let (_, rest) = stat.rsplit_once(')').expect("a name");
        let fields: Vec<&str> = rest.split_whitespace().collect();
        [11, 12].iter().map(|n| fields[*n].parse::<f64>().expect("ticks")).sum::<f64>() / TICKS
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Requests per second, and processor time of the server per request in microseconds.
fn load(server: &Server) -> (f64, f64) {
    let barrier = Barrier::new(THREADS + 1);
    let cpu = server.cpu_seconds();
    let (requests, took) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| client(&server.address, &barrier))).collect();
        barrier.wait();
        let began = Instant::now();
        let requests: u64 = clients.into_iter().map(|client| client.join().expect("no panic")).sum();
        (requests as f64, began.elapsed().as_secs_f64())
    });
    (requests / took, (server.cpu_seconds() - cpu) / requests * 1e6)
}

/// Keeps its connections busy: one request each, then the answers.
fn client(address: &str, barrier: &Barrier) -> u64 {
    let mut streams: Vec<TcpStream> =
        (0..CONNECTIONS_PER_THREAD).map(|_| TcpStream::connect(address).expect("connected")).collect();
    for stream in &streams {
        stream.set_nodelay(true).expect("set");
    }
    barrier.wait();
    let began = Instant::now();
    let (mut requests, mut answer) = (0, [0; 4096]);
    while began.elapsed() < ROUND {
        for stream in &mut streams {
            stream.write_all(REQUEST).expect("sent");
        }
        for stream in &mut streams {
            let mut bytes = 0;
            while !answer[..bytes].ends_with(b"Hello, world!") {
                let more = stream.read(&mut answer[bytes..]).expect("an answer");
                assert!(more > 0, "the connection is open");
                bytes += more;
            }
            requests += 1;
        }
    }
    requests
}

fn compare() -> ExitCode {
    let dir = tempfile::tempdir().expect("a folder");
    let log = dir.path().join("full.log");
    let (bare, full) = (Server::start("bare", &dir.path().join("bare.log")), Server::start("full", &log));
    let (mut ratios, mut costs) = (Vec::new(), Vec::new());
    load(&bare);
    load(&full);
    let before = lines(&log);
    let mut answered = 0.0;
    for round in 1..=ROUNDS {
        // Each goes first as often as the other.
        let (bare, full) = match round % 2 {
            0 => (load(&bare), load(&full)),
            _ => {
                let full = load(&full);
                (load(&bare), full)
            }
        };
        answered += full.0;
        ratios.push(full.0 / bare.0);
        costs.push(full.1 - bare.1);
        say(&format!(
            "round {round}: bare axum {:.0} requests/s ({:.1} us of processor each), all of it {:.0} ({:.1} us): {:.1} %",
            bare.0,
            bare.1,
            full.0,
            full.1,
            full.0 / bare.0 * 100.0
        ));
    }
    ratios.sort_by(f64::total_cmp);
    costs.sort_by(f64::total_cmp);
    say(&format!(
        "median {:.1} % of bare axum (from {:.1} to {:.1}), {:.1} us of processor more for each request; the target is {:.0} %",
        ratios[ROUNDS / 2] * 100.0,
        ratios[0] * 100.0,
        ratios[ROUNDS - 1] * 100.0,
        costs[ROUNDS / 2],
        TARGET * 100.0
    ));
    let written = (lines(&log) - before) as f64 / (answered * ROUND.as_secs_f64());
    say(&format!("{written:.3} lines of the log for each request"));
    if ratios[ROUNDS / 2] < TARGET { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn lines(log: &std::path::Path) -> u64 {
    BufReader::new(File::open(log).expect("the log")).lines().count() as u64
}
