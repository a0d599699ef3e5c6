//! What the commands say when they fail: what was accepted, where to go on, which option or variable to mend. Never a token, never a
//! password.

use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tests::{Collector, catchment, catchment_with, gzip, program, said};

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts the exit code and that every part is in the complaint.
fn assert_failed(output: &Output, code: i32, parts: &[&str]) {
    let complaint = complaint(output);
    assert_eq!(output.status.code(), Some(code), "{complaint}");
    for part in parts {
        assert!(complaint.contains(part), "{part:?} is not in {complaint}");
    }
}

fn lines(count: usize) -> Vec<u8> {
    (0..count).flat_map(|n| format!("{{\"n\":{n}}}\n").into_bytes()).collect()
}

/// Somebody who answers one request after the other, each over a connection of its own, with these status lines and bodies; nothing where
/// there is none. Nobody listens any more before the last one has its answer.
fn scripted(answers: &'static [Option<(&'static str, &'static str)>]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        let mut listener = Some(listener);
        for (n, answer) in answers.iter().enumerate() {
            let (stream, _) = listener.as_ref().expect("kept until the last").accept().expect("a connection");
            let mut reader = BufReader::new(stream);
            let (mut line, mut length) = (String::new(), 0);
            while line != "\r\n" {
                line.clear();
                assert!(reader.read_line(&mut line).expect("a head") > 0);
                let value = line.to_ascii_lowercase();
                length = value.strip_prefix("content-length: ").map_or(length, |v| v.trim().parse().expect("a length"));
            }
            reader.read_exact(&mut vec![0; length]).expect("a body");
            if n + 1 == answers.len() {
                listener = None;
            }
            if let Some((status, body)) = answer {
                let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                reader.get_mut().write_all((head + body).as_bytes()).expect("sent");
            }
        }
    });
    url
}

fn send_to(url: &str, input: &[u8]) -> Output {
    let elsewhere = tempfile::tempdir().expect("a folder");
    catchment_with(elsewhere.path(), &["send", "--url", url], input, &[("CATCHMENT_TOKEN", "of-a-sensor")])
}

#[test]
fn an_input_that_breaks_is_sent_up_to_there_and_goes_on_without_doubling() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let whole = gzip(&lines(20_000));
    let cut = catchment(dir.path(), &["send"], &whole[..whole.len() / 2]);
    assert_failed(&cut, 1, &[" accepted, 0 duplicates, 0 rejected so far; ", "cannot read line "]);
    let complaint = complaint(&cut);
    let line = complaint.split("go on with --from-line ").nth(1).and_then(|rest| rest.lines().next()).expect("a line");
    let accepted = line.parse::<u64>().expect("a number") - 1;
    assert!(accepted > 1000 && complaint.starts_with(&format!("{accepted} accepted")), "{complaint}");

    let rest = catchment(dir.path(), &["send", "--from-line", line], &whole);
    assert_eq!(said(&rest), format!("{} accepted, 0 duplicates, 0 rejected\n", 20_000 - accepted));
    let counts = collector.rows("SELECT count(*), count(DISTINCT data->>'n') FROM events");
    assert_eq!(counts, [[json!(20_000), json!(20_000)]]);

    let mut zstd = zstd::encode_all(lines(20_000).as_slice(), 1).expect("compressed");
    zstd[8..40].fill(0xff);
    let invalid = catchment(dir.path(), &["send"], &zstd);
    assert_failed(&invalid, 1, &["0 accepted", "go on with --from-line 1\n", "cannot read"]);
}

#[test]
fn without_a_connection_nothing_is_stored_and_without_an_answer_nobody_knows() {
    const ALL: Option<(&str, &str)> = Some(("200 OK", "{\"accepted\":1000,\"duplicates\":0,\"rejected_total\":0}"));
    let so_far = "1000 accepted, 0 duplicates, 0 rejected so far; ";
    let unknown = "lines 1001 to 2000 may be stored or not: look, and go on with --from-line 2001 if they are, else with --from-line 1001\n";
    let not_stored = "nothing from line 1001 on is stored: go on with --from-line 1001\n";

    let refused = send_to(&scripted(&[ALL]), &lines(2500));
    assert_failed(&refused, 1, &[&format!("{so_far}{not_stored}"), "cannot reach the collector"]);
    let lost = send_to(&scripted(&[ALL, None]), &lines(2500));
    assert_failed(&lost, 1, &[&format!("{so_far}{unknown}"), "the answer of the collector ended early"]);
    let forbidden =
        send_to(&scripted(&[ALL, Some(("403 Forbidden", "{\"code\":\"x\",\"detail\":\"no\"}"))]), &lines(2500));
    assert_failed(&forbidden, 1, &[&format!("{so_far}{not_stored}"), "no (403 x"]);

    // Answers after which the collector itself does not know, and those of somebody else.
    let poisoned = send_to(&scripted(&[ALL, Some(("503 Busy", "{\"code\":\"log_poisoned\"}"))]), &lines(2500));
    assert_failed(&poisoned, 1, &[&format!("{so_far}{unknown}"), "503 log_poisoned"]);
    let page = send_to(&scripted(&[ALL, Some(("200 OK", "<html>"))]), &lines(2500));
    assert_failed(&page, 1, &[&format!("{so_far}{unknown}"), "not that of a collector"]);

    let unknown_host = send_to("http://host.invalid:4711", &lines(1));
    assert_failed(&unknown_host, 1, &["0 accepted", "nothing from line 1 on is stored: go on with --from-line 1\n"]);
}

/// Sends to somebody who closes each connection, and interrupts it once it has complained of that.
fn interrupted_in_doubt(input: &[u8]) -> Output {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let elsewhere = tempfile::tempdir().expect("a folder");
    std::fs::write(elsewhere.path().join("events"), input).expect("written");
    let mut send = Command::new(program());
    let send =
        send.args(["send", "events", "--url", &url]).env("CATCHMENT_TOKEN", "a-token").current_dir(elsewhere.path());
    let mut child = send.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut complaint = String::new();
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    stderr.read_line(&mut complaint).expect("a line");
    assert!(complaint.contains("asking how long keys are known, for at most 30 s"), "{complaint}");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("it runs").success());
    let mut rest = Vec::new();
    stderr.read_to_end(&mut rest).expect("the rest");
    Output { stderr: rest, ..child.wait_with_output().expect("it ends") }
}

#[test]
fn while_the_answer_stays_lost_nobody_knows_also_when_the_collector_closes_before_it_has_read() {
    let array = interrupted_in_doubt(b"[{\"n\":1}]");
    let advice = "the JSON may be stored or not: look, and send it again if it is not\n";
    assert_failed(&array, 1, &["SIGINT: 0 accepted", advice]);
    // The system calls this a broken pipe, as when the reader of the output goes away.
    let large = interrupted_in_doubt(&format!("{{\"pad\":\"{}\"}}\n", "x".repeat(1000)).repeat(1000).into_bytes());
    assert_failed(&large, 1, &["SIGINT: 0 accepted", "lines 1 to 1000 may be stored or not"]);
}

#[test]
fn a_lost_answer_is_asked_for_with_the_same_key_as_long_as_the_collector_knows_it() {
    const ALL: &str = "{\"accepted\":1000,\"duplicates\":0,\"rejected_total\":0}";
    const KNOWN: &str = "200 OK\r\ncatchment-idempotency-window: 600";
    let unknown = "lines 1001 to 2000 may be stored or not";

    let in_the_end = send_to(
        &scripted(&[
            Some((KNOWN, ALL)),
            None,
            Some(("409 In use\r\nretry-after: 0", "{\"code\":\"idempotency_key_in_use\"}")),
            Some(("503 Busy\r\nretry-after: 0", "{\"code\":\"log_poisoned\"}")),
            Some(("503 Busy\r\nretry-after: 0", "{\"code\":\"seal_behind\"}")),
            Some(("502 Bad gateway\r\nretry-after: 0", "<html>")),
            Some((KNOWN, ALL)),
        ]),
        &lines(2000),
    );
    assert_eq!(said(&in_the_end), "2000 accepted, 0 duplicates, 0 rejected\n", "{in_the_end:?}");
    let told = complaint(&in_the_end);
    assert_eq!(told.matches("trying again").count(), 1, "{told}");

    // What the second try is refused for says nothing of the first one.
    let refused = send_to(
        &scripted(&[Some((KNOWN, ALL)), None, Some(("401 No", "{\"code\":\"invalid_token\",\"detail\":\"no\"}"))]),
        &lines(2500),
    );
    assert_failed(&refused, 1, &[unknown, "401 invalid_token"]);
    const FORGETFUL: Option<(&str, &str)> = Some(("200 OK\r\ncatchment-idempotency-window: 1", ALL));
    let late = send_to(&scripted(&[FORGETFUL, None]), &lines(2500));
    assert_failed(&late, 1, &[unknown, "the answer of the collector ended early"]);
}

#[test]
fn an_endless_line_an_endless_array_and_an_endless_statement_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let endless = catchment(dir.path(), &["send", "/dev/zero"], b"");
    assert_failed(&endless, 1, &["0 accepted", "--from-line 1\n", "cannot read line 1: it is longer than 64MiB"]);

    // What came before it is sent, and what comes after it can be.
    let mut input = lines(3);
    input.resize(input.len() + (64 << 20) + 1, b' ');
    input.extend_from_slice(b"\n{\"n\":3}\n");
    let input = gzip(&input);
    let long = catchment(dir.path(), &["send"], &input);
    assert_failed(&long, 1, &["3 accepted", "--from-line 4\n", "cannot read line 4: it is longer than 64MiB"]);
    let beyond = catchment(dir.path(), &["send", "--from-line", "5"], &input);
    assert_eq!(said(&beyond), "1 accepted, 0 duplicates, 0 rejected\n", "{beyond:?}");
    assert_eq!(collector.rows("SELECT count(DISTINCT data->>'n') FROM events"), [[json!(4)]]);

    let mut array = vec![b' '; (64 << 20) + 1];
    array[0] = b'[';
    let array = catchment(dir.path(), &["send"], &gzip(&array));
    assert_failed(&array, 1, &["0 accepted", "the JSON is larger than 64MiB", "one event a line", "`jq -c '.[]'`"]);

    let zero = std::fs::File::open("/dev/zero").expect("zeros");
    let mut query = Command::new(program());
    let query = query.args(["query", "-"]).current_dir(dir.path()).stdin(Stdio::from(zero)).output().expect("it runs");
    assert_failed(&query, 1, &["cannot read the statement: it is larger than 1MiB"]);
}

#[test]
fn addresses_and_numbers_that_cannot_be_are_usage_errors_that_name_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let token = ("CATCHMENT_TOKEN", "a-token");
    for url in [
        "localhost:4711",
        "ftp://127.0.0.1:4711",
        "http://",
        "127.0.0.1",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:",
        "http://[::1",
        "http://127.0.0.1:4711/?a=b",
        "http://127.0.0.1:4711/#a",
    ] {
        let shown = format!("{url:?}: write scheme, host and port, such as http://127.0.0.1:4711\n");
        for args in [["send", "--url", url].as_slice(), &["query", "SELECT 1", "--url", url]] {
            let output = catchment_with(dir.path(), args, b"", &[token]);
            assert_failed(&output, 2, &[&format!("catchment: --url {shown}")]);
        }
        let variable = catchment_with(dir.path(), &["sensor", "list"], b"", &[token, ("CATCHMENT_URL", url)]);
        assert_failed(&variable, 2, &[&format!("catchment: CATCHMENT_URL {shown}")]);
    }
    for url in ["http://someone:hidden@127.0.0.1:4711", "someone:hidden@127.0.0.1", "ftp://someone:hid/den@host"] {
        let output = catchment_with(dir.path(), &["bench", "--url", url], b"", &[token]);
        assert_failed(&output, 2, &["--url has a user or a password: the token goes in CATCHMENT_TOKEN"]);
        assert!(!["someone", "hid"].iter().any(|secret| complaint(&output).contains(secret)), "{output:?}");
    }
    let loud = catchment_with(dir.path(), &["sensor", "list", "--url", "HTTPS://127.0.0.1:1/"], b"", &[token]);
    assert_failed(&loud, 1, &["no answer from https://127.0.0.1:1: cannot reach the collector"]);
    let from_line = catchment(dir.path(), &["send", "--from-line", "0"], b"");
    assert_failed(&from_line, 2, &["--from-line", "0 is not in 1.."]);
    let timeout = catchment(dir.path(), &["query", "SELECT 1", "--timeout-seconds", "0"], b"");
    assert_failed(&timeout, 2, &["--timeout-seconds", "0 is not in 1.."]);
}

#[test]
fn an_address_with_the_other_scheme_gets_a_hint() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let over_tls = collector.api.replace("http://", "https://");
    let output = catchment(dir.path(), &["query", "SELECT 1", "--url", &over_tls], b"");
    assert_failed(&output, 1, &["no answer from https://127.0.0.1", "ask it with http://"]);

    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("made");
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("a text").to_owned()
    };
    let (certificate, key) = (file("c.pem", made.cert.pem()), file("k.pem", made.signing_key.serialize_pem()));
    let other = tempfile::tempdir().expect("a folder");
    let mut serving = Command::new(program())
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .envs([("CATCHMENT_HTTP__TLS_CERTIFICATE", certificate), ("CATCHMENT_HTTP__TLS_KEY", key)])
        .current_dir(other.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let address = || {
        let text = std::fs::read(other.path().join("data/addresses.json")).ok()?;
        let addresses: serde_json::Value = serde_json::from_slice(&text).ok()?;
        Some(format!("http://{}", addresses["api"].as_str()?))
    };
    tests::wait_until("the addresses", || address().is_some());
    let output = send_to(&address().expect("waited for"), &lines(1000));
    assert_failed(&output, 1, &["no answer from http://127.0.0.1", "ask it with https://"]);
    rustix::process::kill_process(rustix::process::Pid::from_child(&serving), rustix::process::Signal::TERM)
        .expect("ours");
    assert!(serving.wait().expect("it ends").success());
}

#[test]
fn a_refused_token_is_told_with_its_place_and_what_to_do() {
    let dir = tempfile::tempdir().expect("a folder");
    let list = |dir: &Path, variables: &[(&str, &str)]| catchment_with(dir, &["sensor", "list"], b"", variables);
    std::fs::create_dir(dir.path().join("data")).expect("made");
    std::fs::write(dir.path().join("data/admin.token"), "left-from-another-time\n").expect("written");
    let configured = [("CATCHMENT_AUTH__ADMIN_TOKEN", "configured-and-now-it-is-long-enough")];
    let collector = Collector::start_with(dir.path(), &configured);
    let advice = "the collector may use a configured auth.admin_token: set CATCHMENT_TOKEN to it";
    let refused = list(dir.path(), &[]);
    assert_failed(&refused, 1, &["data/admin.token", advice, "401 invalid_token"]);
    assert!(!complaint(&refused).contains("left-from"), "{refused:?}");
    let asked = catchment(dir.path(), &["query", "SELECT 1", "--format", "csv"], b"");
    assert_failed(&asked, 1, &[advice]);
    assert_failed(&catchment(dir.path(), &["send"], b"{}"), 1, &[advice]);

    std::fs::remove_file(dir.path().join("data/admin.token")).expect("removed");
    let none = list(dir.path(), &[]);
    assert_failed(&none, 1, &["there is no data/admin.token", "auth.admin_token", "set CATCHMENT_TOKEN"]);
    let wrong = list(dir.path(), &[("CATCHMENT_TOKEN", "wrong")]);
    assert_failed(&wrong, 1, &["the token in CATCHMENT_TOKEN is refused", "401"]);
    let right = list(dir.path(), &[("CATCHMENT_TOKEN", configured[0].1)]);
    assert!(right.status.success(), "{right:?}");

    std::fs::create_dir_all(dir.path().join("data/sensors")).expect("made");
    std::fs::write(dir.path().join("data/sensors/roof.token"), "of-another-collector").expect("written");
    let sensor = catchment(dir.path(), &["send", "--sensor", "roof"], b"{\"n\":1}\n");
    assert_failed(&sensor, 1, &["data/sensors/roof.token is refused", "remove the file", "--from-line 1\n"]);
    assert_eq!(collector.terminate(), 0);
}

#[test]
fn an_interrupted_send_says_what_was_accepted_and_where_to_go_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let mut send = Command::new(program());
    send.arg("send").arg("--data-dir").arg(&collector.dir).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = send.spawn().expect("it starts");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(&lines(1010)).expect("it reads");
    collector.wait_for("the first batch", |collector| {
        collector.metric("catchment_engine_events_total{end=\"accepted\"}") == 1000.0
    });
    // The answer is on its way: what it says of a batch without one is also an answer.
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("it runs").success());
    let output = child.wait_with_output().expect("it ends");
    drop(input);
    assert_eq!(output.status.code(), Some(1));
    let complaint = complaint(&output);
    let known = complaint.contains("SIGINT: 1000 accepted, 0 duplicates, 0 rejected so far; nothing from line 1001 on");
    assert!(
        known || complaint.contains("SIGINT: 0 accepted") && complaint.contains("lines 1 to 1000 may be stored"),
        "{complaint}"
    );
    assert!(complaint.contains("--from-line 1001"), "{complaint}");

    let beyond = catchment(dir.path(), &["send", "--from-line", "5000"], &lines(10));
    assert_failed(&beyond, 1, &["the input ends before line 5000: its last line is 10"]);
}
