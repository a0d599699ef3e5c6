//! What the tests of the real program share: starting it on free ports with a folder of its own, asking it, killing it.
//!
//! It promises that no test leaves a process behind: a [`Collector`] that goes out of scope is killed and waited for. And that no test
//! ends with an event uncounted: one that still runs then is asked for its metrics, and the balances of `docs/METRICS.md` have to hold.

mod accounting;
mod door;
mod operator;
mod oracle;
mod packed;
mod postgres;
mod problem;
mod prometheus;
mod raw;
mod readers;

pub use accounting::{balances, imbalances};
pub use door::{Door, Fate};
pub use operator::{complained, inspect, refused_start, said};
pub use oracle::{Oracle, rounds};
pub use packed::{gunzipped_lines, gzip};
pub use postgres::Postgres;
pub use problem::assert_problem;
pub use prometheus::{Prometheus, has_prometheus, rules_folder};
pub use readers::{as_read_by, readers_python};

use serde_json::Value;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a condition may take to come true on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long a collector may take to come to rest at the end of a test.
const REST: Duration = Duration::from_secs(20);

/// The program under test, built by `make build` beside the tests.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own file");
    let release = test.parent().and_then(Path::parent).expect("tests lie in the folder deps");
    let program = release.join("catchment");
    assert!(program.exists(), "{} is missing: run `make build` first", program.display());
    program
}

/// Runs the program in `dir` with `input` on its standard input, to its end.
pub fn catchment(dir: &Path, args: &[&str], input: &[u8]) -> Output {
    catchment_with(dir, args, input, &[])
}

/// The same with variables.
pub fn catchment_with(dir: &Path, args: &[&str], input: &[u8], variables: &[(&str, &str)]) -> Output {
    let mut child = Command::new(program())
        .args(args)
        .envs(variables.iter().copied())
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    // A command that ends early closes its input.
    drop(child.stdin.take().expect("piped").write_all(input));
    child.wait_with_output().expect("it ends")
}

/// The folder of real events, or `None` with a word on the terminal when this machine has none.
///
/// # Panics
/// When `CATCHMENT_CORPORA` names a folder without the file.
pub fn corpus(file: &str) -> Option<PathBuf> {
    let named = std::env::var_os("CATCHMENT_CORPORA").map(PathBuf::from);
    let folder = named.clone().unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora"));
    let path = folder.join(file);
    if path.exists() {
        return Some(path);
    }
    assert!(named.is_none(), "CATCHMENT_CORPORA is set, but {} is missing", path.display());
    // Data that nothing installs: never a failure, unless CATCHMENT_CORPORA says that it is there.
    drop(writeln!(std::io::stderr(), "skipped: the corpus {file} is not on this machine"));
    None
}

/// Waits until a condition holds.
///
/// # Panics
/// When it does not in time.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says that a test was skipped, and why.
///
/// # Panics
/// When `REQUIRE_SERVERS` says that nothing may be missing.
pub fn skipped(why: &str) {
    assert!(std::env::var_os("REQUIRE_SERVERS").is_none(), "REQUIRE_SERVERS is set, but {why}");
    drop(writeln!(std::io::stderr(), "skipped: {why}"));
}

/// The folder that a variable of `.ci/run` names, if it has what is looked for.
pub fn installed(variable: &str, file: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(variable).map(PathBuf::from).filter(|folder| folder.join(file).exists());
    if folder.is_none() {
        skipped(&format!("{variable} names no folder with {file}: .ci/run makes one"));
    }
    folder
}

/// The blocks of one kind in a document in Markdown.
pub fn blocks(text: &str, kind: &str) -> Vec<String> {
    text.split(&format!("```{kind}\n")).skip(1).filter_map(|b| b.split("```").next()).map(str::to_owned).collect()
}

/// A running collector with a data folder of its own.
pub struct Collector {
    child: Child,
    /// Its data folder.
    pub dir: PathBuf,
    /// `http://ADDRESS` of the API.
    pub api: String,
    /// `http://ADDRESS` of the admin listener.
    pub admin: String,
    /// The admin token.
    pub token: String,
    agent: ureq::Agent,
}

/// Status, headers and body of an answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, by lower-case name.
    pub headers: Vec<(String, String)>,
    /// The body as text.
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e} in {:?}", self.text))
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

impl Collector {
    /// Starts a collector over `dir` on free ports and waits until it is ready.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// The same with settings as environment variables, `("CATCHMENT_SEAL__AGE_SECONDS", "1s")`.
    ///
    /// # Panics
    /// When it is not ready in time; its log is in the message.
    pub fn start_with(dir: &Path, settings: &[(&str, &str)]) -> Self {
        Self::try_start_with(dir, settings).unwrap_or_else(|why| panic!("{why}"))
    }

    /// The same.
    ///
    /// # Errors
    /// Why it is not ready, with its log.
    pub fn try_start_with(dir: &Path, settings: &[(&str, &str)]) -> Result<Self, String> {
        Self::try_start_within(dir, settings, PATIENCE)
    }

    /// The same, when it takes its time.
    ///
    /// # Errors
    /// Why it is not ready by then, with its log.
    pub fn try_start_within(dir: &Path, settings: &[(&str, &str)], patience: Duration) -> Result<Self, String> {
        let data = dir.join("data");
        // One that was killed has left its own behind.
        let left = addresses_file(&data);
        let log = dir.join("log");
        let before = std::fs::metadata(&log).map_or(0, |m| m.len()) as usize;
        let out = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("the log file opens");
        let mut child = Command::new(program())
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data)
            .env_remove("CATCHMENT_URL")
            .envs(settings.iter().copied())
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a file handle"))
            .stderr(out)
            .spawn()
            .expect("the program starts");
        let agent = agent();
        let deadline = Instant::now() + patience;
        let told = || std::fs::read_to_string(&log).unwrap_or_default();
        loop {
            if let Some(status) = child.try_wait().expect("the child can be asked") {
                return Err(format!("the collector ended with {status}: {}", told()));
            }
            let written = || addresses(&data).filter(|_| addresses_file(&data) != left);
            if let Some((api, admin)) = written().or_else(|| logged_addresses(&log, before))
                && agent.get(format!("{admin}/readyz")).call().is_ok_and(|r| r.status() == 200)
            {
                let token =
                    std::fs::read_to_string(data.join("admin.token")).expect("the admin token").trim().to_owned();
                return Ok(Self { child, dir: data, api, admin, token, agent });
            }
            if Instant::now() > deadline {
                drop(child.kill());
                return Err(format!("not ready in time: {}", told()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as a power cut of the process would: signal 9.
    pub fn kill(mut self) {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child ends");
    }

    /// The same; whether it still ran until then.
    pub fn kill_running(mut self) -> bool {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("the child ends").code().is_none()
    }

    /// Asks it to stop.
    pub fn signal_term(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Ends it with signal 9 while others still use it.
    pub fn signal_kill(&self) {
        self.signal(rustix::process::Signal::KILL);
    }

    /// Asks it to read its configuration again.
    pub fn signal_hup(&self) {
        self.signal(rustix::process::Signal::HUP);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the child is ours");
    }

    /// Asks it to stop and returns its exit code.
    pub fn terminate(mut self) -> i32 {
        let flaws = self.unaccounted();
        assert!(flaws.is_empty(), "not accounted for before the stop: {flaws:#?}");
        self.signal_term();
        self.wait()
    }

    /// Waits for its end and returns its exit code.
    ///
    /// # Panics
    /// When it has not ended in time.
    pub fn wait(mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                return status.code().unwrap_or(-1);
            }
            std::thread::yield_now();
        }
        panic!("it did not stop in time")
    }

    /// Posts a body with a token and headers.
    pub fn post(&self, path: &str, token: &str, body: &[u8], headers: &[(&str, &str)]) -> Answer {
        let mut request = self.agent.post(format!("{}{path}", self.api));
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send(body))
    }

    /// Posts as admin; an error when the answer breaks off.
    ///
    /// # Errors
    /// A sentence.
    pub fn try_post(&self, path: &str, body: &[u8], headers: &[(&str, &str)]) -> Result<Answer, String> {
        let mut request = self.agent.post(format!("{}{path}", self.api));
        request = request.header("authorization", format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        try_answer(request.send(body))
    }

    /// Posts as admin over a connection of its own and does not wait for the answer; who drops the connection goes away.
    pub fn post_and_leave(&self, path: &str, body: &[u8]) -> TcpStream {
        let mut stream = self.connect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
            self.token,
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("sent");
        stream
    }

    /// A bare connection to the API.
    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(self.api.trim_start_matches("http://")).expect("connected")
    }

    /// Gets a path of the API.
    pub fn get(&self, path: &str, token: &str) -> Answer {
        let mut request = self.agent.get(format!("{}{path}", self.api));
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        answer(request.call())
    }

    /// Asks with any method, a token and headers; without a body when it is empty.
    pub fn ask(&self, (method, path): (&str, &str), token: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.api));
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(match body {
            [] => self.agent.run(request.body(()).expect("a request")),
            body => self.agent.run(request.body(body).expect("a request")),
        })
    }

    /// Makes a token with the fields of `POST /api/v1/tokens`: what was answered.
    pub fn add_token(&self, fields: &Value) -> Value {
        let answer = self.post("/api/v1/tokens", &self.token, fields.to_string().as_bytes(), &[]);
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json()
    }

    /// Gets a path of the admin listener.
    pub fn get_admin(&self, path: &str) -> Answer {
        answer(self.agent.get(format!("{}{path}", self.admin)).call())
    }

    /// Registers a sensor and returns its token.
    pub fn sensor(&self, name: &str) -> String {
        let body = serde_json::json!({ "name": name }).to_string();
        let answer = self.post("/api/v1/sensor", &self.token, body.as_bytes(), &[]);
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json()["token"].as_str().expect("a token").to_owned()
    }

    /// Sends NDJSON as a sensor.
    pub fn send(&self, token: &str, lines: &[u8]) -> Answer {
        self.post("/api/v1/events", token, lines, &[("content-type", "application/x-ndjson")])
    }

    /// The same; an error when the collector goes away.
    ///
    /// # Errors
    /// A sentence.
    pub fn try_send(&self, token: &str, lines: &[u8]) -> Result<Answer, String> {
        let request = self.agent.post(format!("{}/api/v1/events", self.api));
        let request = request.header("authorization", format!("Bearer {token}"));
        try_answer(request.header("content-type", "application/x-ndjson").send(lines))
    }

    /// Asks SQL and returns the rows.
    pub fn rows(&self, sql: &str) -> Vec<Vec<Value>> {
        let answer = self.query(sql);
        assert_eq!(answer.status, 200, "{sql}: {}", answer.text);
        let rows = answer.json()["rows"].as_array().expect("rows").clone();
        rows.into_iter().map(|row| row.as_array().expect("a row is an array").clone()).collect()
    }

    /// Asks SQL and returns the whole answer.
    pub fn query(&self, sql: &str) -> Answer {
        let body = serde_json::json!({ "sql": sql }).to_string();
        self.post("/api/v1/query", &self.token, body.as_bytes(), &[])
    }

    /// The value of one metric, by its full name with labels.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get_admin("/metrics").text;
        let line = text.lines().find(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        let line = line.unwrap_or_else(|| panic!("no metric {name} in {text}"));
        line.rsplit(' ').next().and_then(|v| v.parse().ok()).expect("a metric has a number")
    }

    /// The most memory that the process ever had resident.
    pub fn memory_peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// Waits until a condition holds.
    pub fn wait_for(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        wait_until(what, || condition(self));
    }

    /// Waits until every event is accounted for.
    ///
    /// # Panics
    /// When some are not in time.
    pub fn assert_adds_up(&self) {
        let deadline = Instant::now() + REST;
        while let flaws @ [_, ..] = &imbalances(&self.get_admin("/metrics").text)[..] {
            assert!(Instant::now() < deadline, "not accounted for: {flaws:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What is not accounted for at the end of a test; nothing when the process has ended, or was told to.
    fn unaccounted(&mut self) -> Vec<String> {
        let deadline = Instant::now() + REST;
        loop {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return Vec::new();
            }
            let flaws = match try_answer(self.agent.get(format!("{}/metrics", self.admin)).call()) {
                Ok(answer) => imbalances(&answer.text),
                Err(error) => vec![format!("no metrics: {error}")],
            };
            if flaws.is_empty() || Instant::now() > deadline {
                return flaws;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // A test that fails has said why.
        let flaws = if std::thread::panicking() { Vec::new() } else { self.unaccounted() };
        drop(self.child.kill());
        drop(self.child.wait());
        assert!(flaws.is_empty(), "not accounted for at the end of the test: {flaws:#?}");
    }
}

/// Which file has the addresses: each process writes one of its own.
fn addresses_file(data: &Path) -> Option<(u64, std::time::SystemTime)> {
    let file = std::fs::metadata(data.join("addresses.json")).ok()?;
    Some((std::os::unix::fs::MetadataExt::ino(&file), file.modified().ok()?))
}

fn addresses(data: &Path) -> Option<(String, String)> {
    let text = std::fs::read_to_string(data.join("addresses.json")).ok()?;
    let json: Value = serde_json::from_str(&text).ok()?;
    Some((format!("http://{}", json["api"].as_str()?), format!("http://{}", json["admin"].as_str()?)))
}

/// The addresses as the log tells them: on a full disk there is no file of them.
fn logged_addresses(log: &Path, from: usize) -> Option<(String, String)> {
    let text = std::fs::read_to_string(log).ok()?;
    let mut lines = text.get(from..)?.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ready = lines.rfind(|line| line["message"] == "ready")?;
    Some((format!("http://{}", ready["address"].as_str()?), format!("http://{}", ready["admin_address"].as_str()?)))
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().new_agent()
}

fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    try_answer(result).expect("the collector answers")
}

fn try_answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Answer, String> {
    let mut response = result.map_err(|e| e.to_string())?;
    let headers = response.headers().iter();
    let headers = headers.map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned())).collect();
    let status = response.status().as_u16();
    let text = response.body_mut().with_config().limit(1 << 30).read_to_string().map_err(|e| e.to_string())?;
    Ok(Answer { status, headers, text })
}
