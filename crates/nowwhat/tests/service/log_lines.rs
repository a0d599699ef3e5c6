//! Log lines of the whole service: levels changed while it runs, repetition, and what must be on none.

use super::running::{Hello, LOCAL, ask, program, send};
use super::{has_role, other_role, run, service};
use axum::Router;
use nowwhat::Boot;
use nowwhat::routing::get;
use nowwhat::testkit::{TestServer, wait_until};
use rustix::process::Signal;
use std::process::Command;

mod baker {
    pub(super) fn work() {
        tracing::debug!("baked");
    }
}

mod till {
    pub(super) fn work() {
        tracing::debug!("paid");
    }
}

#[test]
fn the_level_of_one_module_is_changed_while_the_service_runs() {
    if has_role() {
        run(async |_: &mut Boot| {
            let both = async || {
                baker::work();
                till::work();
            };
            Ok(Router::new().route("/both", get(both)))
        });
    }
    let hello = other_role("log_lines::the_level_of_one_module_is_changed_while_the_service_runs", &[]).ready();
    let put = |level: &str| send(hello.admin_address, "PUT /log/level", level);
    ask(hello.address, LOCAL, "GET /both", &[]);
    let changed = put("info,service::log_lines::baker=debug");
    assert_eq!((changed.status, changed.body.as_str()), (200, "info,service::log_lines::baker=debug\n"));
    ask(hello.address, LOCAL, "GET /both", &[]);
    hello.nth_line(1, "[200] GET /both");
    let count = |message: &str| hello.lines().iter().filter(|line| line["message"] == message).count();
    assert_eq!((count("baked"), count("paid")), (1, 0), "before the change none, after it one");

    let refused = put("loud");
    assert_eq!((refused.status, refused.header("content-type")), (400, Some("application/problem+json")));
    let told = refused.json();
    assert_eq!(told["code"], "invalid_level");
    assert!(told["detail"].as_str().is_some_and(|detail| detail.contains("use off, error, warn, info")), "{told}");
    assert_eq!(ask(hello.admin_address, LOCAL, "GET /log/level", &[]).body, changed.body, "as it was");
    let other = send(hello.admin_address, "POST /log/level", "info");
    assert_eq!((other.status, &other.json()["code"]), (405, &"method_not_allowed".into()));
    hello.stop();
}

#[test]
fn whoever_turns_the_log_off_leaves_a_line() {
    for level in ["info", "error"] {
        let hello = Hello::start(&[]);
        let put = |level: &str| assert_eq!(send(hello.admin_address, "PUT /log/level", level).status, 200);
        put(level);
        put("off");
        ask(hello.address, LOCAL, "GET /hello/moon", &[]);
        put("info");
        hello.line("log level changed");
        hello.nth_line(usize::from(level == "info"), "log level changed");
        let lines = hello.lines();
        let at = lines.iter().position(|line| line["message"] == "log is being turned off").expect("a line");
        assert_eq!((&lines[at]["before"], &lines[at]["level"]), (&level.into(), &"off".into()));
        let on = &lines[at + 1];
        assert_eq!((&on["message"], &on["before"]), (&"log level changed".into(), &"off".into()), "nothing between");
        hello.stop();
    }
}

#[test]
fn a_warning_that_repeats_is_limited_and_the_count_is_told_afterwards() {
    const ASKED: usize = 50;
    // All in one request, so that they come within the time in which they are repetitions.
    let warn = async || (0..ASKED).for_each(|_| tracing::warn!("oven is hot"));
    let server = TestServer::start(&service(), |c| c, async move |_| Ok(Router::new().route("/warn", get(warn))));
    let written = || server.lines().iter().filter(|line| line["message"] == "oven is hot").count();
    server.get("/warn").send();
    let left_out = ASKED - written();
    assert_eq!(left_out, ASKED - nowwhat::telemetry::BURST as usize);
    assert_eq!(server.metric("log_lines_repeated_total"), left_out as f64);
    // Any line tells it once the time is over.
    let told = || {
        server.get("/livez").send();
        let lines = server.lines();
        lines.into_iter().find(|line| line["message"] == "lines left out because they repeated")
    };
    wait_until("told", || told().is_some());
    let line = told().expect("it was there");
    assert_eq!(line["lines"], left_out);
    assert!(line["of"].as_str().is_some_and(|of| of.starts_with("service::log_lines line ")), "{line}");
}

#[test]
fn a_secret_is_on_no_line_and_in_no_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hello.toml");
    let (file_text, write) =
        (file.to_str().expect("a text"), |text: &str| std::fs::write(&file, text).expect("written"));
    write("[hello]\nword = \"Hello\"\n");
    let settings = [
        ("HELLO_CONFIG", file_text),
        ("HELLO_ENV", "dev"),
        ("HELLO_LOG__LEVEL", "trace"),
        ("HELLO_OTLP__ENDPOINT", "http://127.0.0.1:9"),
        ("HELLO_OTLP__AUTHORIZATION", "Bearer hunter2-token"),
    ];
    let hello = Hello::start(&settings);
    let mut told = String::new();
    let headers = [("authorization", "Bearer hunter2-client"), ("cookie", "session=hunter2-cookie")];
    for request in ["GET /hello/moon?token=hunter2-asked", "GET /nowhere?token=hunter2-asked", "POST /hello/moon"] {
        told += &ask(hello.address, LOCAL, request, &headers).body;
    }
    for path in ["/debug/requests", "/metrics", "/readyz", "/log/level"] {
        told += &ask(hello.admin_address, LOCAL, &format!("GET {path}"), &headers).body;
    }
    write("[hello]\nword = \"Bye\"\n");
    hello.signal(Signal::HUP);
    hello.line("reloaded");
    let broken = "[stop]\ngrace_seconds = \"${otlp.authorization}\"\ndrain_seconds = \"${otlp.endpoint}\"\n";
    write(broken);
    hello.signal(Signal::HUP);
    hello.line("not reloaded");
    write("[otlp]\nauthorization = \"hunter2-open\n");
    hello.signal(Signal::HUP);
    hello.nth_line(1, "not reloaded");
    told += &hello.stop();

    let run = |arguments: &[&str], text: &str| {
        write(text);
        let mut command = Command::new(program());
        command.args(arguments).env_clear().envs(settings);
        let output = command.output().expect("it runs");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    told += &run(&["config", "show"], "[hello]\nword = \"${otlp.authorization} and ${otlp.endpoint}\"\n");
    told += &run(&["config", "check"], broken);
    told += &run(&[], broken);
    told += &run(
        &[],
        "[otlp]\nca = \"${otlp.authorization}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[stop]\nx = \"hunter2\"\n",
    );
    let endpoints = [
        "hunter2-no-address",
        "ftp://me:hunter2@127.0.0.1",
        "http://me:hunter2@127.0.0.1",
        "ftp://${otlp.authorization}/${otlp.authorization}",
    ];
    for endpoint in endpoints {
        let mut command = Command::new(program());
        command.env_clear().env("HELLO_OTLP__ENDPOINT", endpoint).env("HELLO_OTLP__AUTHORIZATION", "hunter2");
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{endpoint}: {output:?}");
        told += &String::from_utf8_lossy(&output.stderr);
    }
    assert!(told.contains("TRACE") && told.contains("***") && told.len() > 10_000, "{told}");
    let leaks: Vec<&str> = told.lines().filter(|line| line.contains("hunter2")).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}
