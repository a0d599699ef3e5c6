//! Starting, refusing to start, stopping: the real program.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use tests::{Collector, program};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Runs `catchment` to its end.
fn catchment(dir: &Path, args: &[&str], settings: &[(&str, &str)]) -> Output {
    Command::new(program())
        .args(args)
        .envs(settings.iter().copied())
        .current_dir(dir)
        .output()
        .expect("the program runs")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn addresses_really_bound_are_written_and_gone_after_the_stop() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let text = std::fs::read_to_string(collector.dir.join("addresses.json")).expect("the addresses");
    let addresses: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(format!("http://{}", addresses["api"].as_str().expect("a text")), collector.api);
    let token = std::fs::metadata(collector.dir.join("admin.token")).expect("the token");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(token.permissions().mode() & 0o777, 0o600);
    let log = || std::fs::read_to_string(dir.path().join("log")).expect("the log");
    // Lines are written aside; the greeting is the last.
    tests::wait_until("the greeting", || log().contains("./catchment sensor add roof"));
    let log = log();
    for said in
        [collector.api.as_str(), collector.admin.as_str(), "admin.token", "./catchment sensor add roof", "at most "]
    {
        assert!(log.contains(said), "{said} is not in {log}");
    }
    // Every line of the log is in the metrics; a level without lines is zero, not absent.
    let lines = |level: &str| collector.metric(&format!("log_lines_total{{level=\"{level}\"}}"));
    let info = log.lines().filter(|line| line.contains("\"severity\":\"INFO\"")).count();
    assert!(lines("info") >= info as f64 && info > 0, "{info} lines in {log}");
    assert_eq!((lines("error"), collector.metric("log_lines_dropped_total")), (0.0, 0.0));
    let data = collector.dir.clone();
    assert_eq!(collector.terminate(), 0);
    assert!(!data.join("addresses.json").exists());
}

#[test]
fn a_configuration_with_problems_stops_the_start_naming_all_of_them() {
    let dir = folder();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, "[http]\nlisen = \"127.0.0.1:0\"\n\n[events]\nnesting_max = 4\n").expect("written");
    let settings = [
        ("CATCHMENT_SEAL__AGE_SECONDS", "soon"),
        ("CATCHMENT_HTTP__LISTEN", "0.0.0.0:4711"),
        ("CATCHMENT_PORT", "tcp://1"),
    ];
    let config = file.to_str().expect("a path");
    for command in [
        ["serve", "--config", config].as_slice(),
        &["config", "check", "--config", config],
        &["config", "show", "--config", config],
    ] {
        let output = catchment(dir.path(), command, &settings);
        assert_eq!(output.status.code(), Some(2), "{command:?}");
        let told = told(&output);
        for said in [
            &format!("unknown key http.lisen ({config} line 2); did you mean http.listen?"),
            &format!("events.nesting_max = \"4\": allowed are 8 to 1024 ({config} line 5)"),
            "seal.age_seconds = \"soon\": expected a duration such as 30s, 10m or 1h (environment CATCHMENT_SEAL__AGE_SECONDS)",
        ] {
            assert!(told.contains(said), "{said} is not in {told}");
        }
    }
    assert!(!dir.path().join("data").exists(), "nothing was made");
    let output = catchment(dir.path(), &["serve"], &[("CATCHMENT_HTTP__LISTEN", "0.0.0.0:0")]);
    assert!(output.status.code() == Some(2) && told(&output).contains("http.insecure = true"), "{}", told(&output));
}

#[test]
fn the_configuration_is_shown_with_origins_and_masked_secrets() {
    let dir = folder();
    let settings = [("CATCHMENT_AUTH__ADMIN_TOKEN", "very-secret-admin-token-of-a-test"), ("CATCHMENT_ENV", "qa")];
    let output = catchment(dir.path(), &["config", "show"], &settings);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !shown.contains("very-secret"), "{shown}");
    assert!(
        shown.contains("# environment: qa") && shown.contains("# environment CATCHMENT_AUTH__ADMIN_TOKEN"),
        "{shown}"
    );
    let default = catchment(dir.path(), &["config", "default"], &[]).stdout;
    std::fs::write(dir.path().join("c.toml"), default).expect("written");
    assert!(catchment(dir.path(), &["config", "check", "--config", "c.toml"], &[]).status.success());
    assert_eq!(catchment(dir.path(), &["serve", "--nonsense"], &[]).status.code(), Some(2));
    assert_eq!(catchment(dir.path(), &["query", "SELECT 1"], &[]).status.code(), Some(1), "no collector runs");
}

#[test]
fn a_configured_admin_token_replaces_the_made_one() {
    let dir = folder();
    let made = {
        let collector = Collector::start(dir.path());
        let token = collector.token.clone();
        assert_eq!(collector.terminate(), 0);
        token
    };
    let collector =
        Collector::start_with(dir.path(), &[("CATCHMENT_AUTH__ADMIN_TOKEN", "very-secret-admin-token-of-a-test")]);
    assert_eq!(collector.get("/api/v1/sensors", "very-secret-admin-token-of-a-test").status, 200);
    assert_eq!(collector.get("/api/v1/sensors", &made).status, 401);
    let weak = catchment(
        dir.path(),
        &["serve", "--data-dir", "other", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"],
        &[("CATCHMENT_AUTH__ADMIN_TOKEN", "shortshortshortshortshortshort")],
    );
    assert!(
        weak.status.code() == Some(2)
            && told(&weak).contains("at least 32 characters; `openssl rand -hex 32` makes one"),
        "{}",
        told(&weak)
    );
}

#[test]
fn a_folder_in_use_is_refused() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let args = ["serve", "--data-dir", "data", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let second = catchment(dir.path(), &args, &[]);
    assert_eq!(second.status.code(), Some(1));
    assert!(told(&second).contains(&format!("pid {}", collector.pid())), "{}", told(&second));
    assert_eq!(collector.get("/readyz", "").status, 200);
    assert!(collector.dir.join("addresses.json").exists(), "the running collector can still be found");
}

#[test]
fn stopping_finishes_what_is_in_flight_and_keeps_what_was_accepted() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    assert_eq!(collector.send(&token, b"{\"n\":1}\n").json()["accepted"], 1);
    // A request whose body is on its way when the stop begins.
    let mut slow = collector.connect();
    let body = b"{\"n\":2}";
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    slow.write_all(head.as_bytes()).expect("sent");
    slow.write_all(&body[..3]).expect("sent");
    collector.wait_for("the request", |c| c.metric("http_requests_in_flight") == 1.0);
    collector.signal_term();
    collector.wait_for("readiness off", |c| c.get_admin("/readyz").status == 503);
    slow.write_all(&body[3..]).expect("sent");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"accepted\":1"), "{answer}");
    assert_eq!(collector.wait(), 0);
    let collector = Collector::start(dir.path());
    assert_eq!(collector.rows("SELECT data FROM events ORDER BY position"), [["{\"n\":1}"], ["{\"n\":2}"]]);
    assert_eq!(collector.metric("catchment_engine_recovered_events_total"), 0.0, "a clean stop seals");
}

#[test]
fn hangup_changes_the_admin_token_and_says_what_takes_a_restart() {
    let dir = folder();
    let file = dir.path().join("collector.toml");
    let write = |token: &str, keys: u32| {
        let text = format!("[auth]\nadmin_token = \"{token}\"\n[window]\nkeys_max = {keys}\n");
        std::fs::write(&file, text).expect("written");
    };
    write("the-first-token-of-admins-of-a-test", 1000);
    // The token beside the data is for a collector without a configured one; its place is read by the tests.
    std::fs::create_dir_all(dir.path().join("data")).expect("made");
    std::fs::write(dir.path().join("data/admin.token"), "the-token-beside-the-data-of-a-test").expect("written");
    // It asks with tokens that are not known yet until they are.
    let settings =
        [("CATCHMENT_CONFIG", file.to_str().expect("a text")), ("CATCHMENT_AUTH__FAILURES_PER_MINUTE_MAX", "1000000")];
    let collector = Collector::start_with(dir.path(), &settings);
    let status = |token: &str| collector.get("/api/v1/sensors", token).status;
    assert_eq!(
        (status("the-first-token-of-admins-of-a-test"), status("the-second-token-of-admins-of-a-test")),
        (200, 401)
    );

    write("the-second-token-of-admins-of-a-test", 2000);
    collector.signal_hup();
    collector.wait_for("the new token", |_| status("the-second-token-of-admins-of-a-test") == 200);
    assert_eq!(status("the-first-token-of-admins-of-a-test"), 401, "the old one is gone");
    let log = || std::fs::read_to_string(dir.path().join("log")).expect("the log");
    collector.wait_for("the warning", |_| log().contains("\"settings\":\"window.keys_max\""));
    assert!(log().contains("\"changed\":\"auth.admin_token\"") && !log().contains("token-of-admins"), "{}", log());

    std::fs::write(&file, "").expect("written");
    collector.signal_hup();
    collector.wait_for("the token beside the data", |_| status("the-token-beside-the-data-of-a-test") == 200);
    assert_eq!(status("the-second-token-of-admins-of-a-test"), 401, "nobody configures it any more");
}

#[test]
fn the_time_for_sealing_at_the_stop_is_that_of_the_grace_in_force() {
    let dir = folder();
    let file = dir.path().join("collector.toml");
    std::fs::write(&file, "[stop]\ngrace_seconds = \"10m\"\n").expect("written");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_CONFIG", file.to_str().expect("a text"))]);
    assert_eq!(collector.send(&collector.sensor("roof"), b"{\"n\":1}\n").status, 200);
    std::fs::write(&file, "[stop]\ngrace_seconds = \"4s\"\n").expect("written");
    collector.signal_hup();
    let log = || std::fs::read_to_string(dir.path().join("log")).expect("the log");
    collector.wait_for("the reload", |_| log().contains("\"changed\":\"stop.grace_seconds\""));

    // What the lake looks at when it seals never ends when it is read.
    let endless = collector.dir.join("lake/_delta_log/_last_checkpoint");
    assert!(!endless.exists() && Command::new("mkfifo").arg(&endless).status().expect("it runs").success());
    collector.signal_term();
    assert_eq!(collector.wait(), 0, "{}", log());
    assert!(log().contains("live rows stay in the wal: sealing takes too long"), "{}", log());
    std::fs::remove_file(&endless).expect("removed");
    let collector = Collector::start(dir.path());
    assert_eq!(collector.rows("SELECT data FROM events"), [["{\"n\":1}"]]);
}

#[test]
fn a_second_signal_quits_at_once_and_loses_nothing() {
    let dir = folder();
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_STOP__DRAIN_SECONDS", "5m")]);
    let token = collector.sensor("roof");
    assert_eq!(collector.send(&token, b"{\"n\":1}").status, 200);
    collector.signal_term();
    collector.wait_for("the drain", |c| c.get_admin("/readyz").status == 503);
    collector.signal_term();
    assert_eq!(collector.wait(), 1, "it did not stop in order");
    let log = std::fs::read_to_string(dir.path().join("log")).expect("the log");
    assert!(log.contains("SIGTERM came while stopping"), "{log}");
    let collector = Collector::start(dir.path());
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[serde_json::json!(1)]]);
}

#[test]
fn a_torn_tail_is_cut_and_counted_and_corruption_before_it_stops_the_start() {
    let dir = folder();
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "1h")]);
    let token = collector.sensor("roof");
    for n in 0..3 {
        assert_eq!(collector.send(&token, format!("{{\"n\":{n}}}\n").as_bytes()).json()["accepted"], 1);
    }
    let wal = collector.dir.join("wal");
    collector.kill();
    let segment = segments(&wal).pop().expect("a segment");
    let mut bytes = std::fs::read(&segment).expect("read");
    let end = bytes.iter().rposition(|b| *b != 0).expect("frames");
    let frames: Vec<usize> = (4096..end).step_by(8).filter(|at| bytes[*at..].starts_with(b"CWF1")).collect();
    assert_eq!(frames.len(), 3);

    // The last frame torn in the middle.
    let whole = bytes.clone();
    bytes[frames[2] + 40..].fill(0);
    std::fs::write(&segment, &bytes).expect("written");
    let collector = Collector::start(dir.path());
    assert_eq!(collector.metric("catchment_engine_torn_tails_total"), 1.0);
    assert_eq!(collector.rows("SELECT data FROM events ORDER BY position"), [["{\"n\":0}"], ["{\"n\":1}"]]);
    assert!(
        std::fs::read_dir(&wal)
            .expect("a folder")
            .flatten()
            .any(|e| e.file_name().to_string_lossy().ends_with(".torn"))
    );
    collector.kill();

    // The same bytes again, but the first frame damaged: valid ones follow.
    for other in segments(&wal) {
        std::fs::remove_file(other).expect("removed");
    }
    bytes = whole;
    bytes[frames[0] + 40] ^= 1;
    std::fs::write(&segment, &bytes).expect("written");
    let lake = dir.path().join("data/lake");
    std::fs::remove_dir_all(&lake).expect("removed");
    let args = ["serve", "--data-dir", "data", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let stopped = catchment(dir.path(), &args, &[]);
    assert_eq!(stopped.status.code(), Some(1));
    let name = segment.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(told(&stopped).contains(&name) && told(&stopped).contains("4096"), "{}", told(&stopped));
    assert_eq!(std::fs::read(&segment).expect("read"), bytes, "nothing was changed");
}

fn segments(wal: &Path) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(wal).expect("a folder").flatten().map(|e| e.path());
    let mut segments: Vec<_> = files.filter(|p| p.extension().is_some_and(|e| e == "wal")).collect();
    segments.sort();
    segments
}

#[test]
fn a_wal_older_than_the_lake_stops_the_start() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    collector.send(&token, b"{\"n\":1}\n");
    assert_eq!(collector.terminate(), 0);
    std::fs::remove_dir_all(dir.path().join("data/wal")).expect("removed");
    let args = ["serve", "--data-dir", "data", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let stopped = catchment(dir.path(), &args, &[]);
    assert_eq!(stopped.status.code(), Some(1));
    assert!(told(&stopped).contains("wal_behind_lake"), "{}", told(&stopped));
}

#[test]
fn a_start_under_smaller_limits_keeps_what_was_accepted_under_larger_ones() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    // Text that does not compress, so that its frame is larger than the smaller limits below would allow.
    let mut state = 1u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + (state >> 33) as u8 % 90).to_string().replace(['"', '\\'], "x")
    };
    let line = format!("{{\"noise\":\"{}\"}}\n", (0..400_000).map(|_| noise()).collect::<String>());
    assert_eq!(collector.send(&token, line.as_bytes()).json()["accepted"], 1);
    collector.kill();
    let smaller = [
        ("CATCHMENT_HTTP__BODY_BYTES_MAX", "1KiB"),
        ("CATCHMENT_EVENTS__BATCH_EVENTS_MAX", "1"),
        ("CATCHMENT_EVENTS__EVENT_BYTES_MAX", "1KiB"),
        ("CATCHMENT_INGEST__GROUP_BYTES_MAX", "64KiB"),
        ("CATCHMENT_INGEST__SEGMENT_BYTES", "1MiB"),
    ];
    let collector = Collector::start_with(dir.path(), &smaller);
    assert_eq!(collector.rows("SELECT octet_length(data) FROM events"), [[json!(line.len() - 1)]]);
    assert_eq!(collector.metric("catchment_engine_torn_tails_total"), 0.0);
}

/// A collector with 20,000 live rows, in 20 groups.
fn with_live_rows(dir: &Path) -> Collector {
    let collector = Collector::start_with(dir, &[("CATCHMENT_SEAL__AGE_SECONDS", "1h")]);
    let token = collector.sensor("roof");
    let text = "of some length".repeat(40);
    for batch in 0..20 {
        let lines = (0..1000).map(|n| format!("{{\"id\":\"{batch}-{n}\",\"type\":\"t\",\"data\":\"{text}\"}}\n"));
        assert_eq!(collector.send(&token, lines.collect::<String>().as_bytes()).json()["accepted"], 1000);
    }
    assert_eq!(collector.metric("catchment_engine_live_rows"), 20_000.0);
    collector
}

#[test]
fn a_start_under_a_smaller_bound_of_live_rows_keeps_to_it_and_has_every_event() {
    let dir = folder();
    let collector = with_live_rows(dir.path());
    let before = collector.metric("catchment_engine_live_bytes");
    collector.kill();
    let smaller = [
        ("CATCHMENT_SEAL__AGE_SECONDS", "1h"),
        ("CATCHMENT_SEAL__LIVE_BYTES_MAX", "8MiB"),
        ("CATCHMENT_SEAL__BYTES", "4MiB"),
        ("CATCHMENT_INGEST__GROUP_BYTES_MAX", "1MiB"),
    ];
    let collector = Collector::start_with(dir.path(), &smaller);
    let live = collector.metric("catchment_engine_live_bytes");
    assert!(before > 10e6 && live <= f64::from(8 << 20), "{before} and {live}");
    assert_eq!(collector.rows("SELECT count(*), count(DISTINCT id), max(position) FROM events"), [[20_000; 3]]);
}

#[test]
fn a_start_that_takes_its_time_tells_the_log_and_systemd_how_far_it_is() {
    let dir = folder();
    with_live_rows(dir.path()).kill();
    let socket = dir.path().join("notify");
    let systemd = std::os::unix::net::UnixDatagram::bind(&socket).expect("a socket");
    systemd.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    let log = std::fs::File::create(dir.path().join("log")).expect("made");
    let mut started = Command::new(program())
        .args(["serve", "--data-dir", "data", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .current_dir(dir.path())
        .env("NOTIFY_SOCKET", &socket)
        .stderr(log)
        .spawn()
        .expect("started");
    let pid = rustix::process::Pid::from_child(&started);
    let signal = |signal| rustix::process::kill_process(pid, signal).expect("it runs");
    let mut told = Vec::new();
    loop {
        let mut bytes = [0; 512];
        let length = systemd.recv(&mut bytes).expect("told");
        told.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        if told.iter().any(|told| told.contains("READY=1")) {
            break;
        }
        // It takes its time: another status is told after a second, a line logged after five.
        let seconds = [1, 5, 1, 1, 1].get(told.len() - 1).copied().unwrap_or(0);
        signal(rustix::process::Signal::STOP);
        std::thread::sleep(Duration::from_secs(seconds));
        signal(rustix::process::Signal::CONT);
    }
    started.kill().and_then(|()| started.wait()).expect("ended");
    let is_told = |what: &str| told.iter().any(|told| told.starts_with(&format!("STATUS={what}: ")));
    assert!(told.iter().all(|told| told.contains("READY=1") || told.contains("\nEXTEND_TIMEOUT_USEC=")), "{told:?}");
    assert!(is_told("checks the wal") && is_told("replays the wal"), "{told:?}");
    let log = std::fs::read_to_string(dir.path().join("log")).expect("the log");
    let line = log.lines().find(|line| line.contains("still starting")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains(" events a second\""), "{line}");
}

#[test]
fn a_lake_that_is_gone_stops_the_start_also_when_the_wal_has_nothing_left() {
    let dir = folder();
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "1h")]);
    let token = collector.sensor("roof");
    assert_eq!(collector.send(&token, b"{\"n\":1}\n").json()["accepted"], 1);
    collector.kill();
    // The start begins a new segment; once the rows read back are sealed, the one before it goes.
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "1s")]);
    let wal = collector.dir.join("wal");
    collector.wait_for("the trim", |_| segments(&wal).len() == 1);
    assert_eq!(collector.terminate(), 0);
    std::fs::remove_dir_all(dir.path().join("data/lake")).expect("removed");
    let args = ["serve", "--data-dir", "data", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let stopped = catchment(dir.path(), &args, &[]);
    assert_eq!(stopped.status.code(), Some(1));
    assert!(told(&stopped).contains("lake_gone"), "{}", told(&stopped));
    assert!(!dir.path().join("data/lake").exists(), "none is begun");
}

#[test]
fn the_window_ends_by_age_also_when_nothing_came_in_between_and_across_a_kill() {
    let dir = folder();
    let settings = [("CATCHMENT_WINDOW__SECONDS", "1s")];
    let event = b"{\"id\":\"a\",\"type\":\"t\",\"data\":1}\n";
    let collector = Collector::start_with(dir.path(), &settings);
    let token = collector.sensor("roof");
    assert_eq!(collector.send(&token, event).json()["accepted"], 1);
    collector.wait_for("the end of the window", |c| c.send(&token, event).json()["accepted"] == 1);
    collector.kill();
    let collector = Collector::start_with(dir.path(), &settings);
    collector.wait_for("the end of the window", |c| c.send(&token, event).json()["accepted"] == 1);
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(3)]]);
}

#[test]
fn recovered_rows_take_the_memory_that_they_took_before() {
    let dir = folder();
    let settings = [("CATCHMENT_SEAL__AGE_SECONDS", "1h")];
    let collector = Collector::start_with(dir.path(), &settings);
    let token = collector.sensor("roof");
    let lines: String = (0..20_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    assert_eq!(collector.send(&token, lines.as_bytes()).json()["accepted"], 20_000);
    let before = collector.metric("catchment_engine_live_bytes");
    collector.kill();
    let collector = Collector::start_with(dir.path(), &settings);
    let after = collector.metric("catchment_engine_live_bytes");
    assert!(after < 2.0 * before, "{before} bytes before, {after} after");
}

#[test]
fn duplicates_are_found_across_kills_and_clean_stops() {
    let dir = folder();
    let event = b"{\"id\":\"a\",\"type\":\"t\",\"data\":1}\n";
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    assert_eq!(collector.send(&token, event).json()["accepted"], 1);
    collector.kill();
    let collector = Collector::start(dir.path());
    assert_eq!(
        collector.send(&token, event).json(),
        json!({"accepted": 0, "duplicates": 1, "rejected": [], "rejected_total": 0})
    );
    assert_eq!(collector.terminate(), 0);
    let collector = Collector::start(dir.path());
    assert_eq!(collector.send(&token, event).json()["duplicates"], 1);
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(1)]]);
}
