//! Clients that wait for a collector and come all at once when it starts: it takes what it has room for, asks the others to wait, and loses nothing.

use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tests::{Collector, program};

const CLIENTS: u64 = 200;
const BATCH: u64 = 400;
const PATIENCE: Duration = Duration::from_secs(120);

/// Little room, a hundredth of what comes.
const SMALL: [(&str, &str); 6] = [
    ("CATCHMENT_HTTP__BODY_BYTES_MAX", "256KiB"),
    ("CATCHMENT_INGEST__IN_FLIGHT_BYTES_MAX", "1MiB"),
    ("CATCHMENT_INGEST__GROUP_BYTES_MAX", "256KiB"),
    ("CATCHMENT_SEAL__LIVE_BYTES_MAX", "8MiB"),
    ("CATCHMENT_SEAL__BYTES", "4MiB"),
    ("CATCHMENT_SEAL__AGE_SECONDS", "1h"),
];

fn batch(client: u64) -> Vec<u8> {
    let text = "as long as it takes ".repeat(10);
    let line = |n| format!("{{\"id\":\"{client}-{n}\",\"type\":\"t\",\"data\":{{\"n\":{n},\"text\":\"{text}\"}}}}\n");
    (0..BATCH).map(line).collect::<String>().into_bytes()
}

/// A collector that listens where it is told.
fn serve(dir: &Path, address: &str) -> Child {
    Command::new(program())
        .args(["serve", "--listen", address, "--admin-listen", "127.0.0.1:0", "--data-dir", "data"])
        .envs(SMALL)
        .current_dir(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts")
}

/// Sends until it is accepted: whether it was asked to wait, and how often nobody listened.
fn insist(address: &str, token: &str, body: &[u8], waits: &AtomicU64) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let request = agent.post(format!("http://{address}/api/v1/events"));
        let request = request.header("authorization", format!("Bearer {token}"));
        let Ok(mut answer) = request.header("content-type", "application/x-ndjson").send(body) else {
            // Nobody listens yet, or the connection ended before its answer.
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let has_retry_after = answer.headers().contains_key("retry-after");
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        match answer.status().as_u16() {
            200 => {
                let told: Value = serde_json::from_str(&text).expect("JSON");
                // A duplicate, when the answer to what was stored did not arrive.
                assert_eq!(told["accepted"].as_u64().zip(told["duplicates"].as_u64()).map(|(a, d)| a + d), Some(BATCH));
                return;
            }
            503 => assert!(has_retry_after, "{text}"),
            other => panic!("{other}: {text}"),
        }
        waits.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("not accepted in time");
}

/// Says how much memory it took at most, beside its bound.
fn say_memory(dir: &Path, child: &Child) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default().to_owned();
    let addresses = std::fs::read_to_string(dir.join("data/addresses.json")).unwrap_or_default();
    let addresses: Value = serde_json::from_str(&addresses).unwrap_or_default();
    let admin = addresses["admin"].as_str().unwrap_or_default();
    let metrics = ureq::get(format!("http://{admin}/metrics")).call();
    let metrics = metrics.and_then(|mut answer| answer.body_mut().read_to_string()).unwrap_or_default();
    let bound = metrics.lines().find(|line| line.starts_with("catchment_memory_bound_bytes ")).unwrap_or_default();
    drop(writeln!(std::io::stderr(), "{peak}, {bound}"));
}

#[test]
fn two_hundred_clients_that_come_at_once_to_a_start_with_little_room_lose_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "1h")]);
    let token = collector.sensor("roof");
    // A wal that takes more than the small bound of live rows to be read back.
    for client in CLIENTS..CLIENTS + 100 {
        assert_eq!(collector.send(&token, &batch(client)).json()["accepted"], BATCH);
    }
    collector.kill();

    let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").to_string();
    let waits = AtomicU64::new(0);
    let (mut child, ended) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (address, token, waits) = (&address, &token, &waits);
                scope.spawn(move || insist(address, token, &batch(client), waits))
            })
            .collect();
        let child = serve(dir.path(), &address);
        let ended: Vec<_> = clients.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        (child, ended)
    });
    say_memory(dir.path(), &child);
    let alive = child.try_wait().expect("it can be asked").is_none();
    child.kill().and_then(|()| child.wait()).expect("ended");
    assert!(alive && ended.iter().all(Result::is_ok), "each is accepted by a collector that lives");
    assert!(waits.load(Ordering::Relaxed) > 0, "there was no room for all at once");

    let collector = Collector::start_with(dir.path(), &SMALL);
    let all = (CLIENTS + 100) * BATCH;
    assert_eq!(collector.rows("SELECT count(*), count(DISTINCT id) FROM events"), [[json!(all), json!(all)]]);
}
