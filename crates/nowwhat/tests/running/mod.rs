//! The example `hello` as a process of its own, on free ports, with its log lines; and requests as bytes, so that odd ones can be sent.
//!
//! It promises that no process is left behind: a [`Hello`] that goes out of scope is killed and waited for.

#![allow(dead_code, reason = "each test uses its part")]

use nowwhat::testkit::{PATIENCE, wait_until};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

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
        let mut command = Command::new(program());
        command.env_clear().env("HELLO_HTTP__LISTEN", "127.0.0.1:0").env("HELLO_ADMIN__LISTEN", "127.0.0.1:0");
        command.envs(settings.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
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
        let mut hello = Self { child, lines, reader: Some(reader), address: nowhere, admin_address: nowhere };
        let ready = hello.line("ready");
        let address = |name: &str| ready[name].as_str().and_then(|a| a.parse().ok()).expect("an address");
        (hello.address, hello.admin_address) = (address("address"), address("admin_address"));
        hello
    }

    /// Everything it has written so far.
    pub(crate) fn written(&self) -> String {
        String::from_utf8(self.lines.lock().expect("no panic").clone()).expect("lines are UTF-8")
    }

    /// The first line whose message begins with `message`, as soon as there is one.
    pub(crate) fn line(&self, message: &str) -> Value {
        let found = || {
            let text = self.written();
            // The last one may be half of a line.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let objects = whole.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            objects.into_iter().find(|line| line["message"].as_str().is_some_and(|m| m.starts_with(message)))
        };
        wait_until(&format!("a line {message:?}"), || found().is_some());
        found().expect("it was there")
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
    pub(crate) fn stop(mut self) -> String {
        self.signal(rustix::process::Signal::TERM);
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}: {}", self.written());
        self.reader.take().expect("once").join().expect("the reader");
        self.written()
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
    let mut head = format!("{request} HTTP/1.1\r\nhost: hello.test\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    let mut stream = connect(address, from);
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(format!("{head}\r\n").as_bytes()).expect("it listens");
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
