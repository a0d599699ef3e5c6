//! The one page, as its users have it: the real program is started, asked, read, told to stop.

mod running;

use nowwhat::testkit::PATIENCE;
use running::{Hello, LOCAL, ask, program};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Instant;

/// An answer's body, asked for with an id.
fn get(address: SocketAddr, path: &str) -> String {
    let answer = ask(address, LOCAL, &format!("GET {path}"), &[("x-request-id", "one-page")]);
    // The admin listener has no request log.
    let is_public = path.starts_with("/hello") || path == "/nowhere";
    assert_eq!(answer.header("x-request-id"), is_public.then_some("one-page"));
    answer.body
}

#[test]
fn one_page_gets_everything() {
    let hello = Hello::start(&[("HELLO_HELLO__WORD", "Good morning")]);
    assert_eq!(get(hello.address, "/hello/moon"), "{\"text\":\"Good morning, moon!\"}");

    let greeted = hello.line("greeted");
    assert_eq!((&greeted["guest"], &greeted["request_id"]), (&"moon".into(), &"one-page".into()), "bound context");
    let request = hello.line("[200] GET /hello/moon (hello#hello)");
    let expected = [
        ("@version", Value::from("1")),
        ("severity", "INFO".into()),
        ("type", "hello".into()),
        ("method", "GET".into()),
        ("path", "/hello/moon".into()),
        ("format", "json".into()),
        ("controller", "hello".into()),
        ("action", "hello".into()),
        ("status", 200.into()),
        ("guest", "moon".into()),
        ("client", "127.0.0.1".into()),
    ];
    for (name, value) in expected {
        assert_eq!(request[name], value, "{name} in {request}");
    }
    let number = |name: &str| request[name].as_f64().unwrap_or_else(|| panic!("{name} in {request}"));
    assert!(number("duration") > 0.0 && number("view") >= 0.0 && number("db") == 0.0);

    let problem = get(hello.address, "/nowhere");
    assert!(problem.contains("\"request_id\":\"one-page\""), "{problem}");
    let metrics = get(hello.admin_address, "/metrics");
    for line in [
        "greetings_total 1",
        "http_requests_total{method=\"GET\",route=\"/hello/{name}\",status=\"200\"} 1",
        "http_requests_total{method=\"GET\",route=\"unmatched\",status=\"404\"} 1",
        "build_info{name=\"hello\"",
        "log_lines_total{level=\"info\"}",
        "runtime_workers",
        "process_resident_memory_bytes",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    for probe in ["/livez", "/readyz", "/startupz", "/version"] {
        assert_eq!(ask(hello.admin_address, LOCAL, &format!("GET {probe}"), &[]).status, 200, "{probe}");
    }

    assert!(hello.stop().contains("\"message\":\"stopped\""));
}

#[test]
fn hangup_takes_over_what_it_can_and_says_what_it_cannot() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("hello.toml");
    std::fs::write(&file, "[log]\nlevel = \"info\"\n").expect("written");
    let hello = Hello::start(&[("HELLO_CONFIG", file.to_str().expect("a text"))]);

    std::fs::write(&file, "[log]\nlevel = \"debug\"\n[hello]\nword = \"Bye\"\n[http]\nconnections_max = 7\n")
        .expect("written");
    hello.signal(Signal::HUP);
    assert_eq!(hello.line("reloaded")["changed"], "http.connections_max log.level");
    assert_eq!(hello.line("changed settings that take a restart")["settings"], "hello.word");
    assert!(get(hello.admin_address, "/log/level") == "debug\n");
    assert!(get(hello.address, "/hello/moon").contains("Hello, moon!"), "the word is as it was");

    std::fs::write(&file, "[log]\nlevel = \"loud\"\nlevle = \"info\"\n").expect("written");
    hello.signal(Signal::HUP);
    let refused = hello.line("not reloaded");
    assert!(refused["problems"].as_str().is_some_and(|p| p.contains("did you mean log.level?")), "{refused}");
    assert!(get(hello.admin_address, "/log/level") == "debug\n", "what was in force stays");
}

/// So `journalctl -p err` finds lines too that are JSON for a shipper.
#[test]
fn json_lines_for_the_journal_begin_with_the_level_that_it_keeps() {
    // As systemd says that standard error is the journal.
    let told = "JOURNAL_STREAM=$(stat --dereference --format=%d:%i /dev/stderr) exec \"$0\"";
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", told]).arg(program());
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("hello.toml");
    std::fs::write(&file, "[log]\nformat = \"json\"\n").expect("written");
    let hello = Hello::spawn(shell, &[("HELLO_CONFIG", file.to_str().expect("a text"))]);
    let wait_for = |message: &str| {
        let deadline = Instant::now() + PATIENCE;
        while !hello.written().contains(message) {
            assert!(Instant::now() < deadline, "{}", hello.written());
            std::thread::yield_now();
        }
    };
    wait_for("\"ready\"");
    std::fs::write(&file, "no configuration").expect("written");
    hello.signal(Signal::HUP);
    wait_for("\"not reloaded");
    let written = hello.stop();
    let mut levels = BTreeSet::new();
    for line in written.lines() {
        let (level, line) = line.split_at(3);
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let of_severity = match line["severity"].as_str().expect("a severity") {
            "ERROR" => "<3>",
            "WARN" => "<4>",
            "INFO" => "<6>",
            _ => "<7>",
        };
        assert_eq!(level, of_severity, "{line}");
        levels.insert(level);
    }
    assert!(levels.len() > 1, "{levels:?}");
    // Where it is another file, nobody takes levels away.
    let hello = Hello::start(&[("HELLO_LOG__FORMAT", "json"), ("JOURNAL_STREAM", "1:1")]);
    assert!(hello.stop().starts_with('{'));
}

#[test]
fn the_command_line_answers_about_the_configuration() {
    let run = |args: &[&str]| Command::new(program()).args(args).env_remove("HELLO_CONFIG").output().expect("it runs");
    let shown = run(&["config", "default"]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success() && text.contains("# word = \"Hello\"") && text.contains("[http]"), "{text}");
    assert!(run(&["config", "check"]).status.success());
    let shown = run(&["config", "show"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("[hello]\nword = \"Hello\""), "{shown:?}");

    let wrong = Command::new(program()).env("HELLO_HTTP__LISTEN", "here").output().expect("it runs");
    assert_eq!(wrong.status.code(), Some(2));
    let told = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(told.contains("http.listen") && told.contains("HELLO_HTTP__LISTEN"), "{told}");
    assert_eq!(run(&["--nonsense"]).status.code(), Some(2));
    let help = String::from_utf8_lossy(&run(&["--help"]).stdout).into_owned();
    assert!(help.starts_with("Usage: hello"), "it is not the purpose of one of its parts: {help}");
}

#[test]
fn a_check_and_a_start_report_the_same_also_what_is_no_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let told = |args: &[&str]| {
        let mut command = Command::new(program());
        command.args(args).env_clear().env("HELLO_HTTP_LISTEN", "127.0.0.1:0").env("HELLO_ENV", "Prod");
        command.env("HELLO_HTTP__TLS_KEY", "/nowhere.pem").env("HELLO_OTLP__ENDPOINT", "ftp://collector");
        command.env("HELLO_HELLO__WORD", std::ffi::OsStr::from_bytes(b"\xff"));
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        String::from_utf8(output.stderr).expect("a text")
    };
    let checked = told(&["config", "check"]);
    for part in [
        "environment HELLO_HELLO__WORD: its name or its value is not UTF-8",
        "did you mean prod?",
        "did you mean HELLO_HTTP__LISTEN?",
        "http.tls_key is given without http.tls_certificate",
        "http.tls_key: cannot read the private key in /nowhere.pem",
        "otlp.endpoint: cannot export to ftp://collector/",
    ] {
        assert!(checked.contains(part), "{part} in {checked}");
    }
    assert_eq!(told(&[]), checked);
}

#[test]
fn a_pipe_that_nobody_writes_to_ends_a_start_and_a_check_with_a_clear_error() {
    let dir = tempfile::tempdir().expect("a folder");
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let spawned = [&[][..], &["config", "check"]].map(|args| {
        let mut command = Command::new(program());
        command.args(args).env_clear().env("HELLO_CONFIG", &pipe).stderr(Stdio::piped()).spawn().expect("it starts")
    });
    for child in spawned {
        let output = child.wait_with_output().expect("it ends");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let expected = format!("{}: it did not come to its end within 10s: somebody has to write", pipe.display());
        assert!(output.status.code() == Some(2) && told.contains(&expected), "{told} {:?}", output.status);
    }
}

#[test]
fn the_configuration_can_be_a_pipe_at_the_start() {
    let mut command = Command::new("bash");
    command.args(["-c", "exec \"$0\" config show --config <(printf '[hello]\\nword = \"Bye\"\\n')"]).arg(program());
    let output = command.output().expect("it runs");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("word = \"Bye\""), "{shown} {output:?}");
}
