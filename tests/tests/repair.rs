//! Damage of the data folder, with the real program: it stops the start or the question, it is shown, it is mended, and no readable event is lost.

use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tests::{Collector, complained, inspect, refused_start, said};

const GROUPS: u64 = 6;
const BATCH: u64 = 20;

fn told(dir: &Path, more: &[&str]) -> Value {
    let output = inspect(dir, more);
    serde_json::from_str(&said(&output)).unwrap_or_else(|e| panic!("{e}: {} {}", said(&output), complained(&output)))
}

/// A start that is refused: what it says.
/// A collector that has these groups, each of [`BATCH`] events with ids.
fn filled(dir: &Path, settings: &[(&str, &str)]) -> (Collector, String) {
    let collector = Collector::start_with(dir, settings);
    let token = collector.sensor("roof");
    for group in 0..GROUPS {
        let line = |n: u64| {
            format!("{{\"id\":\"{group}-{n}\",\"type\":\"t\",\"data\":{{\"n\":{n},\"text\":\"of {group}\"}}}}\n")
        };
        let lines: String = (0..BATCH).map(line).collect();
        assert_eq!(collector.send(&token, lines.as_bytes()).json()["accepted"], BATCH);
    }
    (collector, token)
}

fn flip(path: &Path, bit: u64) {
    let file = File::options().read(true).write(true).open(path).expect("the file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).expect("read");
    file.write_all_at(&[byte[0] ^ 1 << (bit % 8)], bit / 8).expect("written");
}

fn path(value: &Value) -> PathBuf {
    PathBuf::from(value.as_str().expect("a path"))
}

/// The number of a number.
fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

#[test]
fn damage_in_the_middle_of_the_wal_stops_the_start_is_shown_and_is_mended() {
    let dir = tempfile::tempdir().expect("a folder");
    let (collector, _) = filled(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "1h")]);
    let running = inspect(dir.path(), &["wal"]);
    assert!(
        running.status.success() && said(&running).contains(", in use\n"),
        "{} {}",
        said(&running),
        complained(&running)
    );
    assert!(said(&running).contains("holds    120 events in 6 groups, positions 1 to 120\n"), "{}", said(&running));
    let in_use = inspect(dir.path(), &["repair"]);
    let pid = format!("pid {}", collector.pid());
    assert!(in_use.status.code() == Some(1) && complained(&in_use).contains(&pid), "{}", complained(&in_use));
    collector.kill();
    let shown = told(dir.path(), &["wal", "--json", "--frames"]);
    let segment = &shown["segments"][0];
    let (file, frame) = (path(&segment["path"]), &segment["frames"][2]);
    assert_eq!((&frame["position"], &frame["events"], &shown["damaged"]), (&json!(41), &json!(20), &json!(false)));
    flip(&file, 8 * (number(&frame["offset"]) + 100) + 2);
    let damaged = std::fs::read(&file).expect("the segment");

    let refused = refused_start(dir.path());
    let offset = format!("{} is damaged at offset {}:", file.display(), frame["offset"]);
    for said in [
        offset.as_str(),
        "40 events before it and 60 after it can be read, 20 at most cannot, of positions 41 to 60",
        "`catchment inspect wal`",
        "`catchment inspect repair`",
    ] {
        assert!(refused.contains(said), "{said} is not in {refused}");
    }
    let shown = inspect(dir.path(), &["wal"]);
    assert_eq!(shown.status.code(), Some(1));
    assert!(said(&shown).contains("BAD      ") && said(&shown).contains("positions 41 to 60"), "{}", said(&shown));
    assert!(complained(&shown).contains("`catchment inspect repair`"), "{}", complained(&shown));

    let report = told(dir.path(), &["repair", "--json"]);
    assert_eq!(
        (&report["wal"]["events_kept"], &report["wal"]["lost"]),
        (&json!(100), &json!([{"min": 41, "max": 60}]))
    );
    let kept = path(&report["wal"]["segments"][0]["kept_at"]);
    assert!(std::fs::read(&kept).expect("kept") == damaged, "nothing is destroyed");
    assert_eq!(report["state"], json!("done"));
    let written = std::fs::read_to_string(path(&report["folder"]).join("report.json")).expect("the report");
    assert_eq!(serde_json::from_str::<Value>(&written).expect("JSON"), report);
    let again = inspect(dir.path(), &["repair"]);
    assert!(again.status.success() && said(&again).contains("nothing was changed"), "{}", said(&again));

    assert_readable(dir.path());
}

/// Every event but those of the third group is there once, and positions go on behind all that were given.
fn assert_readable(dir: &Path) {
    let collector = Collector::start_with(dir, &[("CATCHMENT_SEAL__AGE_SECONDS", "1h")]);
    let token = std::fs::read_to_string(dir.join("data/sensors/roof.token")).ok();
    let token = token.unwrap_or_else(|| collector.sensor("other"));
    let expected: Vec<Vec<Value>> = (0..GROUPS * BATCH)
        .filter(|n| n / BATCH != 2)
        .map(|n| vec![json!(n + 1), json!(format!("{}-{}", n / BATCH, n % BATCH))])
        .collect();
    let all = "SELECT position, id FROM events ORDER BY position";
    assert_eq!(collector.rows(all), expected);
    let log = std::fs::read_to_string(dir.join("log")).expect("the log");
    assert!(log.contains("they were lost, as a repair found"), "{log}");
    assert_eq!(collector.send(token.trim(), b"{\"id\":\"new\",\"type\":\"t\",\"data\":{}}\n").json()["accepted"], 1);
    let with_new = [expected, vec![vec![json!(121), json!("new")]]].concat();
    assert_eq!(collector.rows(all), with_new);
    collector.kill();
    let collector = Collector::start_with(dir, &[("CATCHMENT_SEAL__AGE_SECONDS", "1s")]);
    assert_eq!(collector.rows(all), with_new, "also after a crash");
    collector.wait_for("they are in the lake", |c| c.metric("catchment_engine_live_rows") == 0.0);
    assert_eq!(collector.rows(all), with_new);
    assert_eq!(collector.metric("catchment_lake_lost_rows"), 20.0);
    assert_eq!(collector.terminate(), 0);
    assert!(said(&inspect(dir, &["lake"])).contains("0 expired, 0 erased, 20 lost to damage before"));
    let collector = Collector::start(dir);
    assert_eq!(collector.rows(all), with_new, "and from the lake");
}

#[test]
fn a_collector_of_whose_wal_nothing_can_be_read_starts_after_a_repair() {
    let dir = tempfile::tempdir().expect("a folder");
    let (collector, token) = filled(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "1h")]);
    collector.kill();
    let segment = path(&told(dir.path(), &["wal", "--json"])["segments"][0]["path"]);
    std::fs::write(&segment, [0xa5; 50_000]).expect("written");
    assert!(refused_start(dir.path()).contains("0 events before it and 0 after it can be read"));
    let report = told(dir.path(), &["repair", "--json"]);
    let lost = number(&report["wal"]["lost"][0]["max"]);
    assert!(lost >= GROUPS * BATCH, "{report}");
    let collector = Collector::start(dir.path());
    assert_eq!(collector.send(&token, b"{\"n\":1}").json()["accepted"], 1);
    assert_eq!(collector.rows("SELECT position FROM events"), [[lost + 1]]);
    assert_eq!(collector.terminate(), 0);
}

#[test]
fn a_damaged_head_of_a_segment_and_a_damaged_file_of_keys_lose_no_event() {
    let dir = tempfile::tempdir().expect("a folder");
    let (collector, token) = filled(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "1s")]);
    collector.wait_for("they are in the lake", |c| c.metric("catchment_engine_live_rows") == 0.0);
    assert_eq!(collector.terminate(), 0);
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "1s")]);
    assert_eq!(collector.send(&token, b"{\"id\":\"x\",\"type\":\"t\"}\n").json()["accepted"], 1);
    collector.wait_for("a file of keys", |_| told(dir.path(), &["wal", "--json"])["key_files"][0].is_object());
    let more = ["y", "z"].map(|id| format!("{{\"id\":\"{id}\",\"type\":\"t\"}}\n"));
    more.iter().for_each(|line| assert_eq!(collector.send(&token, line.as_bytes()).json()["accepted"], 1));
    collector.kill();
    let shown = told(dir.path(), &["wal", "--json"]);
    let keys = path(&shown["key_files"][0]["path"]);
    flip(&keys, 8 * 60);
    let said_of_keys = refused_start(dir.path());
    assert!(said_of_keys.contains(&keys.display().to_string()), "{said_of_keys}");
    let segments = shown["segments"].as_array().expect("segments");
    let last = path(&segments.last().expect("one")["path"]);
    let file = File::options().write(true).open(&last).expect("the segment");
    file.write_all_at(&[0; 4096], 0).expect("its head is gone");
    let refused = refused_start(dir.path());
    assert!(
        refused.contains("does not begin as a segment does") && refused.contains("catchment inspect repair"),
        "{refused}"
    );
    let report = told(dir.path(), &["repair", "--json"]);
    assert_eq!((&report["wal"]["lost"], &report["wal"]["lost_events_max"]), (&json!([]), &json!(0)), "{report}");
    assert_eq!(report["wal"]["key_files"][0]["path"], shown["key_files"][0]["path"]);
    let collector = Collector::start(dir.path());
    assert_eq!(collector.rows("SELECT count(*), count(DISTINCT id), max(position) FROM events"), [[123, 123, 123]]);
}

#[test]
fn a_question_that_meets_a_flipped_bit_is_an_error_that_names_the_file_or_answers_as_before() {
    let dir = tempfile::tempdir().expect("a folder");
    let (collector, _) = filled(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "1s")]);
    collector.wait_for("they are in the lake", |c| c.metric("catchment_engine_live_rows") == 0.0);
    let file = path(&told(dir.path(), &["lake", "--json"])["files"][0]["path"]);
    let questions = [
        "SELECT * FROM events ORDER BY position",
        "SELECT position, data FROM events WHERE id = '0-7'",
        "SELECT sum(data.n) FROM events WHERE position < 15",
    ];
    let answers = questions.map(|sql| collector.rows(sql));
    let bits = 8 * std::fs::metadata(&file).expect("the file").len();
    let mut errors = 0;
    for bit in (0..bits).step_by(usize::try_from(bits / 250).expect("few")) {
        flip(&file, bit);
        for (sql, answer) in questions.iter().zip(&answers) {
            let asked = collector.query(sql);
            if asked.status == 200 {
                let rows: Vec<Vec<Value>> = serde_json::from_value(asked.json()["rows"].clone()).expect("rows");
                assert_eq!(&rows, answer, "bit {bit}: {sql}");
                continue;
            }
            errors += 1;
            let named = file.file_name().expect("a name").to_string_lossy().into_owned();
            assert!(asked.text.contains(&named) && asked.text.contains("`catchment inspect lake`"), "{}", asked.text);
            assert_eq!(asked.json()["code"], "damaged_file");
        }
        flip(&file, bit);
    }
    assert!(errors > 250, "{errors}");
    assert_eq!(questions.map(|sql| collector.rows(sql)), answers);
}

#[test]
fn a_question_that_meets_a_data_file_that_is_gone_or_cut_names_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let (collector, token) = filled(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "1s")]);
    collector.wait_for("they are in the lake", |c| c.metric("catchment_engine_live_rows") == 0.0);
    let files = told(dir.path(), &["lake", "--json"])["files"].as_array().expect("files").clone();
    let first = path(&files[0]["path"]);
    let whole = std::fs::read(&first).expect("the file");
    assert_eq!(collector.send(&token, b"{\"type\":\"live\"}\n").json()["accepted"], 1);
    let questions =
        ["SELECT * FROM events", "SELECT count(data.n) FROM events", "SELECT data FROM events WHERE id = '0-7'"];
    let refused = |what: &str| {
        for sql in questions {
            let asked = collector.query(sql);
            assert_eq!((asked.status, &asked.json()["code"]), (500, &json!("damaged_file")), "{sql}: {}", asked.text);
            let detail = asked.json()["detail"].as_str().expect("a detail").to_owned();
            let begin = format!("the data file {} is damaged: {what}", first.display());
            assert!(detail.starts_with(&begin) && detail.contains("`catchment inspect lake`"), "{detail}");
        }
        assert_eq!(collector.query("SELECT data FROM events WHERE type = 'live'").status, 200, "others are answered");
    };
    for length in [whole.len() - 1, whole.len() / 2, 4, 0] {
        std::fs::write(&first, &whole[..length]).expect("cut");
        refused("");
    }
    std::fs::remove_file(&first).expect("removed");
    refused("it is gone");
    std::fs::write(&first, &whole).expect("it is back");
    assert_eq!(collector.rows("SELECT count(data.n) FROM events"), [[120]]);
}

#[test]
fn a_damaged_data_file_is_taken_out_of_the_table_and_kept_aside() {
    let dir = tempfile::tempdir().expect("a folder");
    let (collector, token) = filled(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "1s")]);
    collector.wait_for("they are in the lake", |c| c.metric("catchment_engine_live_rows") == 0.0);
    assert_eq!(collector.send(&token, b"{\"id\":\"x\",\"type\":\"t\"}\n").json()["accepted"], 1);
    collector.wait_for("it is in the lake", |c| c.metric("catchment_engine_live_rows") == 0.0);
    assert_eq!(collector.terminate(), 0);
    let files = told(dir.path(), &["lake", "--json"])["files"].as_array().expect("files").clone();
    let last = files.last().expect("a file");
    let (rows, file) = (number(&last["rows"]), path(&last["path"]));
    flip(&file, 8 * 1000);
    let shown = inspect(dir.path(), &["lake"]);
    assert_eq!(shown.status.code(), Some(1));
    assert!(said(&shown).contains("are not what was written"), "{}", said(&shown));
    assert!(complained(&shown).contains("`catchment inspect repair`"), "{}", complained(&shown));
    let repaired = inspect(dir.path(), &["repair"]);
    assert!(repaired.status.success(), "{}", complained(&repaired));
    assert!(said(&repaired).contains(&format!("lost     {rows} events of it, of positions ")), "{}", said(&repaired));
    assert!(inspect(dir.path(), &["lake"]).status.success());
    let collector = Collector::start(dir.path());
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[121 - rows]]);
}

/// The last segment that `inspect wal` tells.
fn last_segment(dir: &Path) -> (PathBuf, u64) {
    let shown = told(dir, &["wal", "--json"]);
    let last = shown["segments"].as_array().and_then(|all| all.last()).expect("a segment").clone();
    (path(&last["path"]), number(&last["bytes"]))
}

#[test]
fn a_wal_whose_newest_segment_was_removed_or_cut_stops_the_start_and_is_mended() {
    for is_removed in [true, false] {
        let dir = tempfile::tempdir().expect("a folder");
        let hours = [("CATCHMENT_SEAL__AGE_SECONDS", "1h"), ("CATCHMENT_INGEST__SEGMENT_BYTES", "1MiB")];
        let (collector, token) = filled(dir.path(), &hours);
        assert_eq!(collector.terminate(), 0);
        let collector = Collector::start_with(dir.path(), &hours);
        assert_eq!(collector.send(&token, b"{\"id\":\"x\",\"type\":\"t\"}\n").json()["accepted"], 1);
        collector.kill();
        let (file, bytes) = last_segment(dir.path());
        let said = if is_removed {
            std::fs::remove_file(&file).expect("removed");
            "the segment is missing".to_owned()
        } else {
            File::options().write(true).open(&file).and_then(|file| file.set_len(bytes - 1)).expect("cut");
            format!("the file has {} bytes, and had {bytes}: its end was cut off", bytes - 1)
        };
        let refused = refused_start(dir.path());
        for said in [said.as_str(), &file.display().to_string(), "`catchment inspect repair`"] {
            assert!(refused.contains(said), "{said} is not in {refused}");
        }
        let shown = inspect(dir.path(), &["wal"]);
        assert!(shown.status.code() == Some(1) && self::said(&shown).contains(&said), "{}", self::said(&shown));
        let report = told(dir.path(), &["repair", "--json"]);
        let lost = number(&report["wal"]["lost"][0]["max"]);
        assert!(lost > bytes / 2, "{report}");
        assert!(inspect(dir.path(), &["wal"]).status.success());
        let collector = Collector::start(dir.path());
        assert_eq!(collector.send(&token, b"{\"n\":1}").json()["accepted"], 1);
        let kept = if is_removed { 120 } else { 121 };
        assert_eq!(collector.rows("SELECT count(*), max(position) FROM events"), [[kept + 1, lost + 1]]);
        assert_eq!(collector.terminate(), 0);
    }
}

#[test]
fn a_wal_that_is_older_than_the_lake_is_shown_mended_and_goes_on_behind_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let (collector, token) = filled(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "1h")]);
    assert_eq!(collector.terminate(), 0);
    let (wal, aside) = (dir.path().join("data/wal"), dir.path().join("wal"));
    std::fs::rename(&wal, &aside).expect("moved");
    std::fs::create_dir(&wal).expect("an empty one");
    let refused = refused_start(dir.path());
    assert!(refused.contains("wal_behind_lake") && refused.contains("`catchment inspect repair`"), "{refused}");
    let left: Vec<_> = std::fs::read_dir(&wal).expect("a folder").flatten().map(|file| file.file_name()).collect();
    assert_eq!(left, ["lock"], "a start that is refused begins no segment");
    let shown = inspect(dir.path(), &["wal"]);
    let what = "positions up to 120 were given, and the wal ends at 0";
    assert!(shown.status.code() == Some(1) && said(&shown).contains(what), "{}", said(&shown));
    assert!(said(&shown).contains("the lake has those up to 120"), "{}", said(&shown));
    let report = told(dir.path(), &["repair", "--json"]);
    assert_eq!(report["wal"]["lost"][0]["min"], 1, "{report}");
    let lost = number(&report["wal"]["lost"][0]["max"]);
    assert!(inspect(dir.path(), &["wal"]).status.success(), "{}", said(&inspect(dir.path(), &["wal"])));
    let collector = Collector::start(dir.path());
    assert_eq!(collector.send(&token, b"{\"n\":1}").json()["accepted"], 1);
    assert_eq!(collector.rows("SELECT count(*), max(position) FROM events"), [[121, lost + 1]]);
    // What the lake has is not lost.
    assert_eq!(collector.metric("catchment_lake_lost_rows"), (lost - 120) as f64);
    assert_eq!(collector.terminate(), 0);
}
