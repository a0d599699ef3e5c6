//! One sensor's events go when it is asked for: from answers, the lake, the wal, the rejected ones and their statistics, also when the process
//! is killed meanwhile; everything else stays.

use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tests::{Collector, as_read_by, catchment, readers_python, said, skipped};

/// What stands in everything that the cellar sends.
const SECRET: &str = "xyzzy-secret";
const EVENTS: &str = "/api/v1/sensors/cellar/events";
const SETTINGS: [(&str, &str); 2] = [("CATCHMENT_SEAL__BYTES", "1MiB"), ("CATCHMENT_INGEST__SEGMENT_BYTES", "4MiB")];
/// Each of these batches is larger than `seal.bytes`: it is a seal of its own.
const BATCH: u64 = 2_000;

fn batch(word: &str, number: u64) -> Vec<u8> {
    let filler = "x".repeat(500);
    let mut lines = String::new();
    for n in 0..BATCH {
        let data = format!("{{\"n\":{n},\"text\":\"{word} {filler}\"}}");
        let _ = writeln!(lines, "{{\"id\":\"{word}-{number}-{n}\",\"type\":\"t\",\"data\":{data}}}");
    }
    lines.into_bytes()
}

struct Senders {
    roof: String,
    cellar: String,
}

impl Senders {
    fn of(collector: &Collector) -> Self {
        Self { roof: collector.sensor("roof"), cellar: collector.sensor("cellar") }
    }

    /// A batch of each.
    fn send(&self, collector: &Collector, number: u64) {
        assert_eq!(collector.send(&self.roof, &batch("plain", number)).status, 200);
        assert_eq!(collector.send(&self.cellar, &batch(SECRET, number)).status, 200);
    }
}

fn erase(collector: &Collector) -> Value {
    let answer = collector.ask(("DELETE", EVENTS), &collector.token, &[], b"");
    assert_eq!((answer.status, answer.header("location")), (202, Some(EVENTS)), "{}", answer.text);
    answer.json()
}

fn status(collector: &Collector) -> Value {
    let answer = collector.get(EVENTS, &collector.token);
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

fn finished(collector: &Collector) -> Value {
    collector.wait_for("the end of the erasure", |c| status(c)["state"] == "finished");
    status(collector)
}

fn count(collector: &Collector, sensor: &str) -> [u64; 2] {
    let sql = format!("SELECT count(*), count(DISTINCT position) FROM events WHERE sensor = '{sensor}'");
    let rows = collector.rows(&sql);
    [&rows[0][0], &rows[0][1]].map(|count| count.as_u64().expect("a count"))
}

/// All files below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn has(path: &Path, text: &str) -> bool {
    let bytes = std::fs::read(path).unwrap_or_default();
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Nothing of the cellar up to a position is below the data folder; `later` of its events came afterwards.
fn assert_gone(collector: &Collector, until: u64, later: u64) {
    assert_eq!(count(collector, "cellar"), [later, later]);
    let sql = format!("SELECT count(*) FROM events WHERE data LIKE '%{SECRET}%' AND position <= {until}");
    assert_eq!(collector.rows(&sql), [[json!(0)]]);
    let listed = collector.get("/api/v1/events?sensor=cellar&limit=1000", &collector.token).json();
    assert_eq!(listed["events"].as_array().map(Vec::len), Some(later.min(1000) as usize));
    let files = files(&collector.dir);
    // In the wal texts are compressed: what it has begins after them.
    let segments = files.iter().filter(|path| path.extension().is_some_and(|e| e == "wal"));
    let first =
        |path: &PathBuf| path.file_stem().and_then(|name| name.to_str()?.parse::<u64>().ok()).expect("a number");
    assert!(segments.map(first).all(|first| first > until), "{files:?}");
    // Of data files there are those of the table, and no others.
    collector.wait_for("data files that are those of the table", |c| {
        let found = self::files(&c.dir).iter().filter(|path| path.to_string_lossy().contains("received_date=")).count();
        found as f64 == c.metric("catchment_lake_files") + c.metric("catchment_lake_dead_files")
    });
    for path in files.iter().filter(|path| path.extension().is_none_or(|e| e != "parquet")) {
        assert!(later > 0 || !has(path, SECRET), "{}", path.display());
        let is_of_lake = path.starts_with(collector.dir.join("lake"));
        assert!(!(is_of_lake && later == 0 && has(path, "cellar")), "{}", path.display());
    }
}

/// What independent readers find in all Parquet files below the folder, those that the table does not have included: rows of the cellar in data
/// files and statistics of it in checkpoints.
const ALL_FILES: &str = "import sys, json, glob, duckdb
data = glob.glob(sys.argv[1] + '/received_date=*/*.parquet')
rows = duckdb.sql(f\"SELECT count(*) FROM read_parquet({data!r}, union_by_name = true) WHERE sensor = 'cellar' OR data LIKE '%xyzzy%'\").fetchall()[0][0]
checkpoints = glob.glob(sys.argv[1] + '/_delta_log/*.parquet')
import pyarrow.parquet as p
told = sum('cellar' in str(p.read_table(c).to_pylist()) for c in checkpoints)
print(json.dumps([rows, told]))";

const DELTALAKE: &str = "import sys, json, deltalake
print(json.dumps(deltalake.DeltaTable(sys.argv[1]).to_pyarrow_table().num_rows))";

#[test]
fn nothing_of_a_sensor_is_left_and_all_of_the_others_is_there_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    let senders = Senders::of(&collector);
    assert_eq!(collector.get(EVENTS, &collector.token).status, 404, "it was never asked for");
    assert_eq!(collector.ask(("DELETE", "/api/v1/sensors/nobody/events"), &collector.token, &[], b"").status, 404);
    // Merged ones, sealed ones, live ones and rejected ones.
    for number in 0..12 {
        senders.send(&collector, number);
        collector.wait_for("a seal", |c| c.metric("catchment_engine_live_rows") == 0.0);
    }
    collector.wait_for("a compaction", |c| c.metric("catchment_lake_compactions_total") >= 1.0);
    let some = format!("{{\"time\":\"{SECRET}\",\"n\":1}}\n{{\"n\":2,\"text\":\"{SECRET}\"}}\n");
    let keyed = |collector: &Collector| {
        let headers = [("content-type", "application/x-ndjson"), ("idempotency-key", "k-1")];
        let answer = collector.post("/api/v1/events", &senders.cellar, some.as_bytes(), &headers);
        assert_eq!(answer.status, 200, "{}", answer.text);
        (answer.json(), answer.header("idempotency-replayed").is_some())
    };
    assert!(keyed(&collector).0["rejected"][0]["reason"].as_str().is_some_and(|reason| reason.contains(SECRET)));
    assert_eq!(collector.send(&senders.roof, b"{\"time\":\"never\"}\n{\"n\":3}\n").status, 200);

    let sent = 12 * BATCH + 1;
    assert_eq!((count(&collector, "cellar"), count(&collector, "roof")), ([sent; 2], [sent; 2]));
    let asked = erase(&collector);
    assert_eq!((&asked["sensorId"], &asked["until_position"]), (&json!("cellar"), &json!(2 * sent)));
    let done = finished(&collector);
    assert_eq!((&done["erased_events"], &done["failure"]), (&json!(sent), &Value::Null));
    assert!(done["finished_at"].is_string(), "{done}");
    assert_gone(&collector, 2 * sent, 0);
    assert_eq!(count(&collector, "roof"), [sent; 2]);
    let rejected = |sensor: &str| {
        let page = collector.get(&format!("/api/v1/rejected?sensor={sensor}"), &collector.token).json();
        page["rejected"].as_array().expect("a list").len()
    };
    assert_eq!((rejected("cellar"), rejected("roof")), (0, 1));
    assert_eq!(collector.metric("catchment_lake_erased_rows"), sent as f64);
    assert_eq!(collector.metric("catchment_server_erasures_running"), 0.0);
    // The request is known still, but not what it said.
    let (again, was_replayed) = keyed(&collector);
    assert_eq!((&again["rejected"], &again["rejected_total"], was_replayed), (&json!([]), &json!(1), true));
    let audit = collector.get("/api/v1/audit", &collector.token).json();
    assert!(audit["entries"].as_array().is_some_and(|all| all.iter().any(|entry| entry["act"] == "sensor.erase")));
    match readers_python() {
        None => skipped("no Python with deltalake, polars and duckdb: set CATCHMENT_READERS_PYTHON"),
        Some(python) => {
            assert_eq!(as_read_by(&python, ("duckdb", ALL_FILES), dir.path()), json!([0, 0]));
            assert_eq!(as_read_by(&python, ("deltalake", DELTALAKE), dir.path()), json!(sent));
        }
    }
    collector.assert_adds_up();
    assert_eq!(collector.terminate(), 0);

    let collector = Collector::start_with(dir.path(), &SETTINGS);
    assert_eq!(status(&collector), done, "and it stays what it was");
    assert_gone(&collector, 2 * sent, 0);
    assert_eq!(count(&collector, "roof"), [sent; 2]);
    // An id of before is a duplicate still: only its hash is kept.
    let answer = collector.send(&senders.cellar, &batch(SECRET, 0)).json();
    assert_eq!((&answer["accepted"], &answer["duplicates"]), (&json!(0), &json!(BATCH)));
    assert_eq!(collector.send(&senders.cellar, b"{\"n\":1}").status, 200);
    assert_eq!(count(&collector, "cellar"), [1, 1]);
    assert_eq!(collector.terminate(), 0);
}

#[test]
fn killed_again_and_again_it_goes_on_and_ends_while_events_come_and_files_are_put_together() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut collector = Collector::start_with(dir.path(), &SETTINGS);
    let senders = Senders::of(&collector);
    for number in 0..14 {
        senders.send(&collector, number);
        collector.wait_for("a seal", |c| c.metric("catchment_engine_live_rows") == 0.0);
    }
    let asked = erase(&collector);
    let until = asked["until_position"].as_u64().expect("a position");
    assert_eq!(until, 28 * BATCH);
    // What comes afterwards stays.
    let (mut later, mut went_on) = (0, 0);
    for round in 0..8 {
        later += 1;
        senders.send(&collector, 100 + later);
        // At a moment that nobody knows: while it seals, writes, commits, removes.
        std::thread::sleep(Duration::from_millis([5, 40, 90, 15, 150, 60, 25, 200][round]));
        collector.kill();
        collector = Collector::start_with(dir.path(), &SETTINGS);
        went_on += u32::from(status(&collector)["state"] == "running");
        let [all, different] = count(&collector, "roof");
        assert_eq!((all, different), ((14 + later) * BATCH, all), "in round {round}");
    }
    assert!(went_on > 0, "it was never interrupted");
    let done = finished(&collector);
    assert_eq!((&done["until_position"], &done["erased_events"]), (&json!(until), &json!(14 * BATCH)));
    assert_gone(&collector, until, later * BATCH);
    assert_eq!(count(&collector, "roof"), [(14 + later) * BATCH; 2]);
    // Then those go as well.
    erase(&collector);
    assert_eq!(finished(&collector)["erased_events"], json!(later * BATCH));
    assert_gone(&collector, until, 0);
    if let Some(python) = readers_python() {
        assert_eq!(as_read_by(&python, ("duckdb", ALL_FILES), dir.path()), json!([0, 0]), "in no data file either");
    }
    collector.assert_adds_up();
    assert_eq!(collector.terminate(), 0);
}

#[test]
fn asked_again_it_goes_further_and_the_command_waits_for_the_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let senders = Senders::of(&collector);
    senders.send(&collector, 1);
    assert_eq!(erase(&collector)["until_position"], json!(2 * BATCH));
    senders.send(&collector, 2);
    assert_eq!(erase(&collector)["until_position"], json!(4 * BATCH));
    finished(&collector);
    assert_eq!((count(&collector, "cellar"), count(&collector, "roof")), ([0; 2], [2 * BATCH; 2]));

    senders.send(&collector, 3);
    let output = catchment(dir.path(), &["sensor", "erase", "roof", "--wait"], b"");
    let expected = format!("erased the events of roof up to position {}: {} were accepted\n", 6 * BATCH, 3 * BATCH);
    assert_eq!((said(&output), output.status.code()), (expected, Some(0)));
    assert_eq!((count(&collector, "roof"), count(&collector, "cellar")), ([0; 2], [BATCH; 2]));
    let output = catchment(dir.path(), &["sensor", "erase", "roof", "--json"], b"");
    let erasure: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(erasure["until_position"], json!(6 * BATCH));
    let output = catchment(dir.path(), &["sensor", "erase", "nobody", "--wait"], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no sensor"), "{output:?}");
    let disabled = collector.ask(("DELETE", "/api/v1/sensors/cellar"), &collector.token, &[], b"");
    assert_eq!(disabled.status, 204);
    erase(&collector);
    finished(&collector);
    assert_eq!(count(&collector, "cellar"), [0; 2], "also of a disabled one");
    collector.assert_adds_up();
    assert_eq!(collector.terminate(), 0);
}

#[test]
fn a_file_that_cannot_be_read_is_told_and_nothing_is_called_finished() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &SETTINGS);
    let senders = Senders::of(&collector);
    assert_eq!(collector.send(&senders.cellar, &batch(SECRET, 1)).status, 200);
    collector.wait_for("a seal", |c| c.metric("catchment_engine_live_rows") == 0.0);
    let file = files(&collector.dir).into_iter().find(|path| path.extension().is_some_and(|e| e == "parquet"));
    let (file, whole) = file.map(|path| (path.clone(), std::fs::read(path).expect("readable"))).expect("a file");
    std::fs::write(&file, "not Parquet").expect("written");
    assert_eq!(collector.send(&senders.roof, &batch("plain", 1)).status, 200);
    erase(&collector);
    collector.wait_for("the failure", |c| status(c)["state"] == "failing");
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(status(&collector)["failure"].as_str().is_some_and(|why| why.contains(&name)), "{}", status(&collector));
    assert!(collector.metric("catchment_server_erasure_failures_total") >= 1.0);
    let output = catchment(dir.path(), &["sensor", "erase", "cellar", "--wait"], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is tried again"), "{output:?}");
    // Once it can be read, it goes on by itself, at once when it is asked.
    std::fs::write(&file, whole).expect("written");
    erase(&collector);
    finished(&collector);
    assert_eq!((count(&collector, "cellar"), count(&collector, "roof")), ([0; 2], [BATCH; 2]));
    assert_eq!(collector.terminate(), 0);
}
