//! Replay: how quickly a collector starts over a wal of which nothing is in the lake, and how much memory it takes.
//!
//! `make replay` (`REPLAY="--gigabytes 2"`), which is `cargo bench --profile release --locked --workspace --bench replay`. A collector takes
//! groups of readings into its wal; these are written again, one behind the other, until the wal has the size; a collector with the settings
//! of every start reads it. The wal is on the disk of `TMPDIR`, which needs room for it and for a lake of the same.
//!
//! It fails when the start reads less than a gigabyte in a minute, takes more memory than the bound that it prints, or has not every event.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tests::Collector;
use wal::{Frame, Options, RealDisk, Wal};

const GIGABYTES: f64 = 10.0;
const SENSORS: usize = 20;
/// Batches of one sensor that are written again and again, and events in each.
const BATCHES: usize = 10;
const BATCH: usize = 2000;
/// At least this much is to be read in a minute.
const GIGABYTES_A_MINUTE: f64 = 1.0;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let asked = arguments.iter().position(|argument| argument == "--gigabytes");
    let asked = asked.and_then(|at| arguments.get(at + 1)?.parse().ok());
    match measured(asked.unwrap_or(GIGABYTES)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            drop(writeln!(std::io::stderr(), "replay: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn measured(gigabytes: f64) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let groups = groups(dir.path());
    std::fs::remove_dir_all(dir.path().join("data/lake")).map_err(|error| error.to_string())?;
    std::fs::remove_dir_all(dir.path().join("data/wal")).map_err(|error| error.to_string())?;
    let (events, bytes) = written(&dir.path().join("data/wal"), &groups, (gigabytes * 1e9) as u64);
    say(&format!("{:.2} GB of wal, {events} events in groups of {BATCH}", bytes as f64 / 1e9));

    let began = Instant::now();
    let collector = Collector::try_start_within(dir.path(), &[], Duration::from_secs(3600))?;
    let seconds = began.elapsed().as_secs_f64();
    let (peak, bound) = (collector.memory_peak_bytes() as f64, collector.metric("catchment_memory_bound_bytes"));
    let a_minute = bytes as f64 / 1e9 / seconds * 60.0;
    say(&format!(
        "ready after {seconds:.1} s: {a_minute:.2} GB and {:.0} events a minute; at most {:.0} MiB of memory, the bound is {:.0} MiB",
        events as f64 / seconds * 60.0,
        peak / f64::from(1 << 20),
        bound / f64::from(1 << 20)
    ));
    let found = collector.rows("SELECT count(*), max(position) FROM events");
    if found != [[events, events]] {
        return Err(format!("{events} events were in the wal, and {found:?} are found"));
    }
    if peak > bound {
        return Err("the start took more memory than its bound".to_owned());
    }
    if a_minute < GIGABYTES_A_MINUTE {
        return Err(format!("less than {GIGABYTES_A_MINUTE} GB a minute"));
    }
    Ok(())
}

/// Groups as a collector writes them: readings of some sensors, with ids.
fn groups(dir: &Path) -> Vec<(u32, Vec<u8>)> {
    let collector =
        Collector::start_with(dir, &[("CATCHMENT_SEAL__AGE_SECONDS", "1h"), ("CATCHMENT_SEAL__BYTES", "128MiB")]);
    for sensor in 0..SENSORS {
        let token = collector.sensor(&format!("sensor-{sensor}"));
        for batch in 0..BATCHES {
            let reading = |n: usize| {
                // Digits as a sensor gives them: they do not repeat.
                let noise = (sensor * BATCHES + batch) * BATCH + n;
                let noise = noise.wrapping_mul(2_654_435_761) % 1_000_003;
                format!(
                    "{{\"id\":\"{sensor}-{batch}-{n}\",\"type\":\"reading\",\"data\":{{\"temperature\":{}.{:03},\"humidity\":{},\"battery\":{}.{},\"counter\":{noise}}}}}\n",
                    noise % 40,
                    noise % 997,
                    noise % 100,
                    noise % 4,
                    noise % 89
                )
            };
            let lines: String = (0..BATCH).map(reading).collect();
            assert_eq!(collector.send(&token, lines.as_bytes()).json()["accepted"], BATCH);
        }
    }
    collector.kill();
    let (wal, _) = Wal::open(&dir.join("data/wal"), options(), RealDisk).expect("its wal");
    let mut groups = Vec::new();
    let each = |frame: Frame<'_>| -> Result<(), std::convert::Infallible> {
        groups.push((frame.event_count, frame.payload.to_vec()));
        Ok(())
    };
    wal.replay(each).expect("it reads back");
    groups
}

/// Writes the groups again and again: how many events, in how many bytes.
fn written(dir: &Path, groups: &[(u32, Vec<u8>)], bytes: u64) -> (u64, u64) {
    let (mut wal, _) = Wal::open(dir, options(), RealDisk).expect("a new wal");
    let mut written = 0;
    for (event_count, payload) in groups.iter().cycle() {
        let first_position = wal.last_position() + 1;
        let frame = Frame { first_position, event_count: *event_count, payload };
        written += wal.append(frame).expect("room on the disk").bytes;
        if written >= bytes {
            break;
        }
    }
    (wal.last_position(), written)
}

fn options() -> Options {
    Options { segment_bytes: 64 << 20, frame_bytes_max: 1 << 30 }
}

fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}
