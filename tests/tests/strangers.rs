//! A token of a data folder goes to the collector that runs over it and to nobody else, and only tokens from there are kept in it.

use std::io::{BufRead, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tests::{Collector, catchment, catchment_with, program, said};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[track_caller]
fn assert_done(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn kept(dir: &Path, sensor: &str) -> Option<String> {
    std::fs::read_to_string(dir.join(format!("data/sensors/{sensor}.token"))).ok()
}

const COMMANDS: [&[&str]; 9] = [
    &["sensor", "list"],
    &["sensor", "add", "roof"],
    &["sensor", "rotate", "roof"],
    &["token", "list"],
    &["query", "SELECT 1"],
    &["send", "--sensor", "roof"],
    &["send", "--sensor", "new"],
    &["rejected", "export"],
    &["bench", "--seconds", "1"],
];

#[test]
fn no_command_sends_a_token_of_the_folder_beside_it_to_another_address() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    assert_done(&catchment(dir.path(), &["sensor", "add", "roof"], b""));
    let stranger = TcpListener::bind("127.0.0.1:0").expect("a port");
    stranger.set_nonblocking(true).expect("set");
    let url = format!("http://{}", stranger.local_addr().expect("an address"));
    for command in COMMANDS {
        let by_option = catchment(dir.path(), &[command, &["--url", &url]].concat(), b"{}\n");
        let by_variable = catchment_with(dir.path(), command, b"{}\n", &[("CATCHMENT_URL", &url)]);
        for output in [by_option, by_variable] {
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{command:?}: {told}");
            let advice = format!("no token for {url}: set CATCHMENT_TOKEN");
            assert!(told.contains(&advice) && told.contains("--data-dir beside --url"), "{command:?}: {told}");
        }
        assert!(stranger.accept().is_err(), "{command:?}: nobody came");
    }
    // Another program may listen there.
    let other = collector.api.replace("127.0.0.1", "[::1]");
    let output = catchment(dir.path(), &["sensor", "list", "--url", &other], b"");
    assert!(String::from_utf8_lossy(&output.stderr).contains("set CATCHMENT_TOKEN"), "{output:?}");
}

#[test]
fn nobody_gets_a_token_who_listens_where_the_collector_was_before_it_was_killed() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let (data, url) = (collector.dir.clone(), collector.api.clone());
    let mut sending = Sending::begun(dir.path(), &collector);
    collector.kill();
    assert!(data.join("addresses.json").exists(), "it could not take its addresses away");
    let stranger = TcpListener::bind(url.trim_start_matches("http://")).expect("the port is free");
    stranger.set_nonblocking(true).expect("set");
    sending.lines(999);
    let (code, told) = sending.end();
    assert!(code == Some(1) && told.contains("has ended") && told.contains("--from-line 1001"), "{told}");
    assert!(stranger.accept().is_err(), "nobody came");
    let data = data.to_str().expect("a text");
    for command in COMMANDS {
        for (more, advice) in [
            (&[][..], "no running collector found in data: start one with `catchment serve`"),
            (&["--data-dir", data], "start one with `catchment serve`"),
            (&["--url", &url], "set CATCHMENT_TOKEN"),
        ] {
            let output = catchment(dir.path(), &[command, more].concat(), b"{}\n");
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.code() == Some(1) && told.contains(advice), "{command:?} {more:?}: {told}");
            assert!(stranger.accept().is_err(), "{command:?} {more:?}: nobody came");
        }
    }
    // The next one has another port, and is found there.
    let next = Collector::start(dir.path());
    assert_done(&catchment(dir.path(), &["sensor", "list"], b""));
    assert_ne!(next.api, url);
    assert!(stranger.accept().is_err(), "nobody came");
}

#[test]
fn a_collector_that_is_started_again_at_its_address_is_waited_for() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let (data, url) = (collector.dir.clone(), collector.api.clone());
    let mut sending = Sending::begun(dir.path(), &collector);
    // As while systemd has its sockets.
    let address = url.trim_start_matches("http://");
    assert_eq!(collector.terminate(), 0);
    let holding = TcpListener::bind(address).expect("the port is free");
    holding.set_nonblocking(true).expect("set");
    sending.lines(999);
    let told = sending.told();
    assert!(told.contains("has ended") && told.contains("looking for it, for at most 30 s"), "{told}");
    assert!(holding.accept().is_err(), "nothing was sent meanwhile");
    drop(holding);
    let _again = Ended(started_at(address, &data));
    let (code, told) = sending.end();
    assert_eq!(code, Some(0), "{told}");
    let asked = catchment(dir.path(), &["query", "SELECT count(*) FROM events", "--format", "csv"], b"");
    assert!(said(&asked).contains("2000"), "{asked:?}");
}

#[test]
fn a_batch_in_doubt_is_not_sent_again_once_its_key_may_be_forgotten() {
    let dir = folder();
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_WINDOW__SECONDS", "10s")]);
    let (data, api) = (collector.dir.clone(), collector.api.clone());
    let address = api.trim_start_matches("http://");
    let mut sending = Sending::begun(dir.path(), &collector);
    // The next ones reach it, and have no answer.
    let pid = rustix::process::Pid::from_raw(collector.pid() as i32).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("it is ours");
    tests::wait_until("all of it stands still", || stands_still(collector.pid()));
    sending.lines(999);
    let port: u16 = address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    tests::wait_until("the batch is there", || waits_to_be_read(port));
    collector.kill();
    let lost = Instant::now();
    let told = sending.told();
    assert!(told.contains("trying again with the same key, for at most 10 s"), "{told}");
    tests::wait_until("its key may be forgotten", || lost.elapsed() > Duration::from_secs(11));
    let _again = Ended(started_at(address, &data));
    let (code, told) = sending.end();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("lines 1001 to 2000 may be stored or not"), "{told}");
}

/// Whether every thread of this process is stopped: each one stops a moment after the signal.
fn stands_still(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("Linux tells");
    threads.map(|thread| std::fs::read_to_string(thread.expect("a thread").path().join("stat"))).all(|told| {
        // Number, name in brackets, state.
        told.is_ok_and(|told| told.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')))
    })
}

/// Whether bytes wait at this port that its process has not read.
fn waits_to_be_read(port: u16) -> bool {
    let told = std::fs::read_to_string("/proc/net/tcp").expect("Linux tells");
    let local = format!(":{port:04X}");
    told.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Number, local address, remote address, state (01: established), bytes that wait to be sent and to be read.
        matches!(fields[..], [_, at, _, "01", waiting, ..] if at.ends_with(&local) && !waiting.ends_with(":00000000"))
    })
}

/// A collector over the folder, at this address.
fn started_at(address: &str, data: &Path) -> Child {
    let mut command = Command::new(program());
    command.args(["serve", "--listen", address, "--admin-listen", "127.0.0.1:0", "--data-dir"]).arg(data);
    command.env_remove("CATCHMENT_URL").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the program starts")
}

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// `catchment send`, which is given its lines little by little.
struct Sending(Child);

impl Sending {
    /// As the sensor `roof`, whose first 1,000 lines are stored and answered. It waits for 999 more.
    fn begun(dir: &Path, collector: &Collector) -> Self {
        assert_done(&catchment(dir, &["sensor", "add", "roof"], b""));
        let mut sending = Self::start(dir);
        sending.lines(1000);
        collector.wait_for("the first lines", |c| c.rows("SELECT count(*) FROM events") == [[serde_json::json!(1000)]]);
        // They are seen before they are answered, and the answer is logged before it is there: it has that once it reads on.
        sending.lines(1);
        let input = sending.0.stdin.as_ref().expect("piped");
        tests::wait_until("their answer", || rustix::io::ioctl_fionread(input).expect("a pipe") == 0);
        sending
    }

    fn start(dir: &Path) -> Self {
        let mut command = Command::new(program());
        command
            .args(["send", "--sensor", "roof"])
            .current_dir(dir)
            .env_remove("CATCHMENT_URL")
            .env_remove("CATCHMENT_TOKEN");
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        Self(piped.spawn().expect("the program starts"))
    }

    fn lines(&mut self, count: usize) {
        let input = self.0.stdin.as_mut().expect("piped");
        input.write_all("{\"n\":1}\n".repeat(count).as_bytes()).expect("it reads");
    }

    /// The next line that it tells.
    fn told(&mut self) -> String {
        let mut line = String::new();
        let mut told = std::io::BufReader::with_capacity(1, self.0.stderr.as_mut().expect("piped"));
        told.read_line(&mut line).expect("a line");
        line
    }

    /// Its exit code, and what it told.
    fn end(self) -> (Option<i32>, String) {
        let output = self.0.wait_with_output().expect("it ends");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn tokens_of_another_collector_are_neither_taken_from_the_folder_nor_kept_in_it() {
    let (dir, elsewhere) = (folder(), folder());
    let (_here, other) = (Collector::start(dir.path()), Collector::start(elsewhere.path()));
    assert_done(&catchment(dir.path(), &["sensor", "add", "roof"], b""));
    let own = kept(dir.path(), "roof").expect("kept");
    let asked = |args: &[&str], token: &str| {
        let args = [args, &["--url", &other.api]].concat();
        catchment_with(dir.path(), &args, b"{\"n\":1}\n", &[("CATCHMENT_TOKEN", token)])
    };
    for args in [["sensor", "add", "roof"], ["sensor", "rotate", "roof"], ["sensor", "add", "cellar"]] {
        assert_done(&asked(&args, &other.token));
    }
    assert_eq!((kept(dir.path(), "roof"), kept(dir.path(), "cellar")), (Some(own), None));
    let token = other.sensor("attic");
    assert_eq!(said(&asked(&["send", "--sensor", "roof"], &token)), "1 accepted, 0 duplicates, 0 rejected\n");
    assert_eq!(
        other.rows("SELECT sensor FROM events"),
        [[serde_json::json!("attic")]],
        "the token given says who sends"
    );
}

#[test]
fn the_folders_tokens_are_used_at_its_own_address_however_it_is_written_and_where_the_user_says_so() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let port = collector.api.rsplit(':').next().expect("a port");
    for url in [collector.api.clone(), format!("{}/", collector.api), format!("http://localhost:{port}")] {
        assert_done(&catchment(dir.path(), &["sensor", "list", "--url", &url], b""));
        assert_done(&catchment_with(dir.path(), &["send"], b"{}\n", &[("CATCHMENT_URL", &url)]));
    }
    // As from behind a proxy, whose address is not the collector's.
    let elsewhere = folder();
    let data = collector.dir.to_str().expect("a text");
    let proxy = tests::Door::to_nowhere();
    proxy.lead_to(&collector.api, &[]);
    assert_done(&catchment(elsewhere.path(), &["send", "--url", &proxy.url, "--data-dir", data], b"{}\n"));
    assert_done(&catchment(elsewhere.path(), &["sensor", "add", "roof", "--url", &proxy.url, "--data-dir", data], b""));
    assert!(kept(dir.path(), "roof").is_some());
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[serde_json::json!(4)]]);
}
