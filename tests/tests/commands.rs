//! Commands as people type them: those of the README, `send` in all its ways, `bench`, the Makefile.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tests::{Collector, blocks, catchment, catchment_with, gzip, program, said};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

#[test]
fn the_commands_of_the_documents_run_and_answer_as_they_say() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    std::os::unix::fs::symlink(program(), dir.path().join("catchment")).expect("linked");
    assert_session(&collector, dir.path(), "README.md", 4);
    // The README has made the sensor that these send as.
    assert_session(&collector, dir.path(), "docs/API.md", 3);
    collector.assert_adds_up();
}

#[test]
fn the_commands_of_operating_run_and_a_copy_of_a_stopped_folder_brings_all_of_it_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    std::os::unix::fs::symlink(program(), dir.path().join("catchment")).expect("linked");
    assert_eq!(collector.send(&collector.sensor("roof"), b"{\"n\":1}\n{\"n\":2}\nno\n").status, 200);
    assert_session(&collector, dir.path(), "docs/OPERATIONS.md", 8);
    let evidence = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("collected");
    assert!(evidence("rejected.txt").contains("invalid_json") && evidence("minutes.txt").contains('2'));
    let secret = std::fs::read_to_string(dir.path().join("data/admin.token")).expect("the token");
    for name in ["config.txt", "doctor.txt", "audit.json", "metrics.txt", "readyz.json", "runs.json"] {
        assert!(!evidence(name).is_empty() && !evidence(name).contains(secret.trim()), "{name} may be given away");
    }
    assert_eq!(collector.terminate(), 0);

    let copied = tempfile::tempdir().expect("a folder");
    let script = "tar -C $0 -czf $1/copy.tar.gz data && tar -C $1 -xzf $1/copy.tar.gz";
    let copy = Command::new("bash").args(["-euc", script]).args([dir.path(), copied.path()]).status();
    assert!(copy.expect("bash runs").success());
    let back = Collector::start(copied.path());
    let counted =
        back.rows("SELECT (SELECT count(*) FROM events) AS events, (SELECT count(*) FROM rejected) AS rejected");
    assert_eq!(counted, [[json!(2), json!(1)]]);
    let sensors = said(&catchment(copied.path(), &["sensor", "list"], b""));
    assert!(sensors.contains("roof") && sensors.contains("pump"), "{sensors}");
}

/// Runs the commands of a document and looks for its answers among theirs.
fn assert_session(collector: &Collector, dir: &Path, document: &str, blocks_min: usize) {
    let document = std::fs::read_to_string(root().join(document)).expect("the document");
    let (mut told, mut ran) = (String::new(), 0);
    for block in blocks(&document, "sh").iter().filter(|b| !b.starts_with("make ")) {
        let script =
            block.replace("http://127.0.0.1:4711", &collector.api).replace("http://127.0.0.1:4712", &collector.admin);
        // As on a host with the package, where `catchment` is found.
        let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default());
        let mut bash = Command::new("bash");
        let output = bash.args(["-euo", "pipefail", "-c", &script]).env("PATH", path).current_dir(dir).output();
        let output = output.expect("bash runs");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        told += &said(&output);
        ran += 1;
    }
    assert!(ran >= blocks_min, "the document has a session");
    for answer in blocks(&document, "text").iter().chain(&blocks(&document, "json")) {
        assert!(told.contains(answer.trim()), "{answer} is not among the answers: {told}");
    }
}

/// The two commands of the README, as far as they are not this very run.
#[test]
fn make_run_builds_and_starts_and_prints_commands_that_run_as_pasted() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = dir.path().join("log");
    let file = std::fs::File::create(&log).expect("made");
    let settings = [("CATCHMENT_HTTP__LISTEN", "127.0.0.1:0"), ("CATCHMENT_ADMIN__LISTEN", "127.0.0.1:0")];
    let data = dir.path().join("data");
    // The variables that cargo gives to a test would make build scripts run again, and with them the large dependencies.
    let own = |name: &std::ffi::OsString| {
        let name = name.to_string_lossy();
        let kept = ["CARGO_TARGET_DIR", "CARGO_HOME", "CARGO_TERM_COLOR"].contains(&name.as_ref());
        kept || !["CARGO", "NEXTEST", "RUST_", "LD_LIBRARY_PATH", "MAKEFLAGS"].iter().any(|p| name.starts_with(p))
    };
    let mut make = Command::new("make")
        .args(["run", &format!("DATA={}", data.display())])
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| own(name)))
        .envs(settings)
        .current_dir(root())
        .stdout(file.try_clone().expect("a handle"))
        .stderr(file)
        .spawn()
        .expect("make runs");
    tests::wait_until("the greeting", || std::fs::read_to_string(&log).is_ok_and(|l| l.contains("LIMIT 5")));
    let text = std::fs::read_to_string(&log).expect("the log");
    let lines = text.lines().map(str::trim);
    let commands: Vec<&str> = lines.filter(|l| l.starts_with("./catchment") || l.starts_with("echo ")).collect();
    assert_eq!(commands.len(), 3, "{text}");
    for command in commands {
        let mut ask = Command::new("bash");
        // As in the clone, where `./data` is what `make run` uses.
        let in_clone = command.replace("./catchment", &format!("{}/catchment", root().display()));
        let output =
            ask.args(["-euo", "pipefail", "-c", &in_clone]).current_dir(dir.path()).output().expect("bash runs");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let pid = rustix::process::Pid::from_child(&make);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    tests::wait_until("the end", || !data.join("addresses.json").exists());
    make.wait().expect("it ends");
}

#[test]
fn make_help_lists_every_target() {
    let output =
        Command::new("make").arg("help").env_remove("MAKEFLAGS").current_dir(root()).output().expect("make runs");
    let help = said(&output);
    let makefile = std::fs::read_to_string(root().join("Makefile")).expect("the Makefile");
    let targets = makefile.lines().filter_map(|l| l.strip_prefix(".PHONY: ")).filter(|t| *t != "tools");
    for target in targets {
        assert!(
            help.lines().any(|l| l.trim_start().starts_with(&format!("make {target} "))),
            "{target} is not in {help}"
        );
    }
}

#[test]
fn the_demo_shows_this_machines_readings_as_tables() {
    let dir = tempfile::tempdir().expect("a folder");
    let output = catchment(dir.path(), &["demo", "--seconds", "2"], b"");
    let shown = said(&output);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for part in ["readings accepted", "cpu_percent", "│ memory", "│ load", "max_mib"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
}

#[test]
fn send_takes_files_and_standard_input_plain_and_compressed_and_tells_what_was_rejected() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let lines: String = (0..2500).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    std::fs::write(dir.path().join("e.ndjson"), &lines).expect("written");
    std::fs::write(dir.path().join("e.zst"), zstd::encode_all(lines.as_bytes(), 1).expect("compressed"))
        .expect("written");
    let gzip = gzip(lines.as_bytes());
    for (args, input) in [
        (["send", "e.ndjson"].as_slice(), b"".as_slice()),
        (&["send", "e.zst", "--sensor", "other"], b""),
        (&["send", "-"], &gzip),
        (&["send"], lines.as_bytes()),
    ] {
        let output = catchment(dir.path(), args, input);
        assert_eq!(
            said(&output),
            "2500 accepted, 0 duplicates, 0 rejected\n",
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let array = catchment(dir.path(), &["send"], b" [{\"n\":1},{\"n\":2}]");
    assert_eq!(said(&array), "2 accepted, 0 duplicates, 0 rejected\n");
    let later = catchment(dir.path(), &["send", "e.ndjson", "--from-line", "2499"], b"");
    assert_eq!(said(&later), "2 accepted, 0 duplicates, 0 rejected\n");
    let bad = catchment(dir.path(), &["send"], b"{\"n\":1}\nno\n");
    assert_eq!((bad.status.code(), said(&bad).as_str()), (Some(1), "1 accepted, 0 duplicates, 1 rejected\n"));
    assert!(String::from_utf8_lossy(&bad.stderr).contains("event 2: invalid_json"), "{bad:?}");
    assert_eq!(catchment(dir.path(), &["send", "none.ndjson"], b"").status.code(), Some(1));
    let counts = collector.rows("SELECT sensor, count(*) FROM events GROUP BY 1 ORDER BY 1");
    assert_eq!(counts, [[json!("cli"), json!(7505)], [json!("other"), json!(2500)]]);
}

#[test]
fn query_answers_in_every_form_and_errors_end_with_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let made = catchment(dir.path(), &["sensor", "add", "Roof", "--label", "site=a", "--json"], b"");
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).expect("JSON");
    assert_eq!(made["sensorId"], "roof");
    let again = catchment(dir.path(), &["sensor", "add", "Roof"], b"");
    assert!(
        again.status.code() == Some(1) && String::from_utf8_lossy(&again.stderr).contains("name_taken"),
        "{again:?}"
    );
    assert_eq!(collector.send(made["token"].as_str().expect("a token"), b"{\"n\":1}\n").status, 200);
    let form = |form: &str| {
        said(&catchment(dir.path(), &["query", "SELECT sensor, data->>'n' AS n FROM events", "--format", form], b""))
    };
    assert_eq!(form("csv"), "sensor,n\r\nroof,1\r\n");
    assert_eq!(form("ndjson"), "{\"sensor\":\"roof\",\"n\":\"1\"}\n");
    assert!(form("json").starts_with("{\"columns\":["));
    assert!(form("table").contains("│ roof   ┆ 1 │"), "{}", form("table"));
    let wrong = catchment(dir.path(), &["query", "SELECT"], b"");
    assert!(
        wrong.status.code() == Some(1) && String::from_utf8_lossy(&wrong.stderr).contains("request id"),
        "{wrong:?}"
    );
    let from_input = catchment(dir.path(), &["query", "-", "--format", "csv"], b"SELECT 1 AS one");
    assert_eq!(said(&from_input), "one\r\n1\r\n");
    let list = said(&catchment(dir.path(), &["sensor", "list"], b""));
    assert!(list.contains("│ roof   ┆ site=a"), "{list}");
    assert_eq!(collector.terminate(), 0);
    let nobody = catchment(dir.path(), &["query", "SELECT 1"], b"");
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no running collector found"), "{nobody:?}");
}

#[test]
fn bench_proves_that_nothing_was_lost_and_would_see_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_SEAL__BYTES", "4MiB")]);
    let output = catchment(dir.path(), &["bench", "--seconds", "1", "--connections", "2", "--batch", "200"], b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said(&output).contains("none lost, none doubled"), "{}", said(&output));
    std::fs::write(dir.path().join("e.ndjson"), "{\"v\":1}\n[2]\n\"three\"\n").expect("written");
    let own_data = catchment(
        dir.path(),
        &["bench", "--seconds", "1", "--connections", "1", "--batch", "1", "--file", "e.ndjson"],
        b"",
    );
    assert!(own_data.status.success(), "{}", String::from_utf8_lossy(&own_data.stderr));
    assert_eq!(catchment(dir.path(), &["bench", "--connections", "0"], b"").status.code(), Some(2));
    collector.assert_adds_up();
}

#[test]
fn the_version_names_the_commit_as_the_collector_itself_does() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let running = collector.get_admin("/version").json();
    let part = |name: &str| running[name].as_str().expect("a text").to_owned();
    let output = catchment(dir.path(), &["--version"], b"");
    assert_eq!(said(&output), format!("catchment {} ({})\n", part("version"), part("commit")));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let lines: String = (0..20_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    assert_eq!(collector.send(&collector.sensor("roof"), lines.as_bytes()).status, 200);
    // More than a pipe holds.
    for args in [["query", "SELECT * FROM events", "--format", "csv"].as_slice(), &["config", "default"]] {
        let mut child = Command::new(program())
            .args(args)
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()), "{args:?}: {output:?}");
    }
}

#[test]
fn commands_ask_over_tls_whom_they_can_trust_and_nobody_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("made");
    let path = |name: &str| dir.path().join(name).to_str().expect("a text").to_owned();
    std::fs::write(path("certificate.pem"), made.cert.pem()).expect("written");
    std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).expect("written");
    let mut collector = Command::new(program())
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .env("CATCHMENT_HTTP__TLS_CERTIFICATE", path("certificate.pem"))
        .env("CATCHMENT_HTTP__TLS_KEY", path("key.pem"))
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    tests::wait_until("the addresses", || dir.path().join("data/addresses.json").exists());
    let text = std::fs::read_to_string(path("data/addresses.json")).expect("read");
    let addresses: Value = serde_json::from_str(&text).expect("JSON");
    let url = format!("https://{}", addresses["api"].as_str().expect("text"));
    let ca = path("certificate.pem");
    let there = ["--url", &url, "--ca-file", &ca];
    let sent = catchment(dir.path(), &[&["send"], &there[..]].concat(), b"{\"n\":1}\n{\"n\":2}\n");
    assert_eq!(said(&sent), "2 accepted, 0 duplicates, 0 rejected\n", "{sent:?}");
    let asked = catchment(dir.path(), &[&["query", "SELECT 1 AS one", "--format", "csv"], &there[..]].concat(), b"");
    assert_eq!(said(&asked), "one\r\n1\r\n", "{asked:?}");
    let load = catchment(dir.path(), &[&["bench", "--seconds", "1", "--connections", "1"], &there[..]].concat(), b"");
    assert!(said(&load).contains("none lost, none doubled"), "{load:?}");
    let variables = [("CATCHMENT_URL", &*url), ("CATCHMENT_CA_FILE", &*ca)];
    let list = catchment_with(dir.path(), &["sensor", "list"], b"", &variables);
    assert!(said(&list).contains("cli"), "{list:?}");

    // Those that the system trusts did not sign it.
    let distrusted = catchment(dir.path(), &["query", "SELECT 1", "--url", &url], b"");
    let why = String::from_utf8_lossy(&distrusted.stderr).into_owned();
    assert!(distrusted.status.code() == Some(1) && why.contains("no answer from https://127.0.0.1"), "{why}");
    let missing = catchment(dir.path(), &["query", "SELECT 1", "--url", &url, "--ca-file", "none.pem"], b"");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("none.pem"), "{missing:?}");
    rustix::process::kill_process(rustix::process::Pid::from_child(&collector), rustix::process::Signal::TERM)
        .expect("ours");
    assert!(collector.wait().expect("it ends").success());
}

#[test]
fn an_object_on_several_lines_is_one_event_and_a_first_line_that_is_cut_spoils_no_other() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let sent = catchment(dir.path(), &["send"], b"\n{\n  \"a\": 1,\n  \"b\": [\n    2\n  ]\n}\n");
    assert!(sent.status.success() && said(&sent).contains("1 accepted"), "{sent:?}");
    let sent = catchment(dir.path(), &["send"], b"{\"cut\": \n{\"n\":1}\n{\"n\":2}\n");
    assert!(!sent.status.success() && said(&sent).contains("2 accepted, 0 duplicates, 1 rejected"), "{sent:?}");
    let rows = collector.rows("SELECT data->>'n' FROM events ORDER BY position");
    assert_eq!(rows.len(), 3, "{rows:?}");
}
