//! The example `hello`, or another service, as a process of its own, on free ports, with its log lines; and requests as bytes, so that
//! odd ones can be sent.
//!
//! It promises that no process is left behind: a [`Hello`] that goes out of scope is killed and waited for.

#![allow(dead_code, reason = "each test uses its part")]

use nowwhat::testkit::PATIENCE;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The example, which cargo builds beside the tests.
pub(crate) fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own file");
    let profile = test.parent().and_then(Path::parent).expect("tests lie in the folder deps");
    let program = profile.join("examples/hello");
    assert!(program.exists(), "{} is missing: build it with `cargo build --release --examples`", program.display());
    program
}

/// A running hello.
pub(crate) struct Hello {
    child: Child,
    lines: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    /// The public listener.
    pub(crate) address: SocketAddr,
    /// The admin listener.
    pub(crate) admin_address: SocketAddr,
}

impl Hello {
    /// Starts it with further settings, `("HELLO_LOG__LEVEL", "debug")`, and waits until it is ready.
    ///
    /// # Panics
    /// When it is not in time.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        Self::spawn(Command::new(program()), settings).ready()
    }

    /// Starts a service whose settings have the names of hello's.
    pub(crate) fn spawn(mut command: Command, settings: &[(&str, &str)]) -> Self {
        command.env_clear().env("HELLO_HTTP__LISTEN", "127.0.0.1:0").env("HELLO_ADMIN__LISTEN", "127.0.0.1:0");
        command.envs(settings.iter().copied()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("hello starts");
        let mut stderr = child.stderr.take().expect("a pipe");
        let lines = Arc::<Mutex<Vec<u8>>>::default();
        let theirs = lines.clone();
        let reader = std::thread::spawn(move || {
            let mut some = vec![0; 64 << 10];
            while let Ok(bytes) = stderr.read(&mut some)
                && bytes > 0
            {
                theirs.lock().expect("no panic").extend_from_slice(&some[..bytes]);
            }
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { child, lines, reader: Some(reader), address: nowhere, admin_address: nowhere }
    }

    /// Waits until it is ready.
    pub(crate) fn ready(mut self) -> Self {
        let ready = self.line("ready");
        let address = |name: &str| ready[name].as_str().and_then(|a| a.parse().ok()).expect("an address");
        (self.address, self.admin_address) = (address("address"), address("admin_address"));
        self
    }

    /// Everything it has written so far.
    pub(crate) fn written(&self) -> String {
        String::from_utf8(self.lines.lock().expect("no panic").clone()).expect("lines are UTF-8")
    }

    /// The first line whose message begins with `message`, as soon as there is one.
    pub(crate) fn line(&self, message: &str) -> Value {
        self.nth_line(0, message)
    }

    /// Such a line after `n` others.
    pub(crate) fn nth_line(&self, n: usize, message: &str) -> Value {
        let found = || {
            let mut lines = self.lines().into_iter();
            lines.by_ref().filter(|line| line["message"].as_str().is_some_and(|m| m.starts_with(message))).nth(n)
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match found() {
                Some(line) => return line,
                None if Instant::now() > deadline => panic!("no line {message:?} in {}", self.written()),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// Its log lines so far.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let text = self.written();
        // The last one may be half of a line.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    /// Asks it to stop, waits for its end, and returns everything it has written.
    ///
    /// # Panics
    /// When it does not end well.
    pub(crate) fn stop(self) -> String {
        self.signal(rustix::process::Signal::TERM);
        let (code, written) = self.end();
        assert_eq!(code, Some(0), "{written}");
        written
    }

    /// Waits for its end; its exit code and everything it has written.
    ///
    /// # Panics
    /// When it does not end in time.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().expect("a child") {
                Some(status) => break status,
                None if Instant::now() > deadline => panic!("no end after {}", self.written()),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        self.reader.take().expect("once").join().expect("the reader");
        (status.code(), self.written())
    }
}

impl Drop for Hello {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Status, head and body of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    head: String,
    /// The body.
    pub(crate) body: String,
}

impl Answer {
    /// A header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let headers = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        headers.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }
}

/// This machine, as most clients are.
pub(crate) const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Sends a request line with headers from an address of this machine and reads the answer.
///
/// # Panics
/// When there is none.
pub(crate) fn ask(address: SocketAddr, from: IpAddr, request: &str, headers: &[(&str, &str)]) -> Answer {
    exchange(connect(address, from), request, headers, "")
}

/// The same with a body, from this machine.
///
/// # Panics
/// When there is no answer.
pub(crate) fn send(address: SocketAddr, request: &str, body: &str) -> Answer {
    let length = body.len().to_string();
    exchange(connect(address, LOCAL), request, &[("content-length", &length)], body)
}

fn exchange(mut stream: TcpStream, request: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut head = format!("{request} HTTP/1.1\r\nhost: hello.test\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).expect("it listens");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?} to {request:.100}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// All of 127.0.0.0/8 is this machine: a client can have an address of its own.
fn connect(address: SocketAddr, from: IpAddr) -> TcpStream {
    if from == LOCAL {
        return TcpStream::connect(address).expect("it listens");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::new(from, 0)).expect("an address of this machine");
        let stream = socket.connect(address).await.expect("it listens").into_std().expect("a socket");
        stream.set_nonblocking(false).expect("a socket");
        stream
    })
}
