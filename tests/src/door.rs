//! A way to a collector that fails as networks and overloaded servers do: it loses answers and turns requests away.
//!
//! It understands just enough of HTTP for the senders under test: one request a connection, with a `Content-Length`.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It comes to the collector; the connection is closed instead of its answer.
    AnswerLost,
    /// It is answered with this status and `Retry-After: 1`, and the collector does not hear of it.
    TurnedAway(u16),
    /// It is answered as the collector does.
    Passed,
}

/// A port of its own before a collector.
pub struct Door {
    /// `http://ADDRESS` of the door.
    pub url: String,
    behind: Arc<Mutex<Behind>>,
}

struct Behind {
    /// Address of the collector.
    api: String,
    fates: VecDeque<Fate>,
}

impl Door {
    /// A door with nothing behind it: a collector that is away.
    pub fn to_nowhere() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let behind = Arc::new(Mutex::new(Behind { api: String::new(), fates: VecDeque::new() }));
        let coming = Arc::clone(&behind);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // One after another, so that the fates come in their order. A sender that goes away is its own affair.
                drop(serve(stream, &coming));
            }
        });
        Self { url, behind }
    }

    /// From now on it leads to the collector at `api`; the first requests have these fates, all later ones pass.
    pub fn lead_to(&self, api: &str, fates: &[Fate]) {
        let api = api.trim_start_matches("http://").to_owned();
        *self.behind() = Behind { api, fates: fates.iter().copied().collect() };
    }

    /// How many fates have not come yet.
    pub fn fates_left(&self) -> usize {
        self.behind().fates.len()
    }

    fn behind(&self) -> MutexGuard<'_, Behind> {
        self.behind.lock().expect("no thread panicked")
    }
}

fn serve(mut stream: TcpStream, behind: &Mutex<Behind>) -> std::io::Result<()> {
    let Some(request) = request(&mut stream)? else { return Ok(()) };
    let (api, fate) = {
        let mut behind = behind.lock().expect("no thread panicked");
        (behind.api.clone(), behind.fates.pop_front())
    };
    if let Some(Fate::TurnedAway(status)) = fate {
        let head =
            format!("HTTP/1.1 {status} Later\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}");
        return stream.write_all(head.as_bytes());
    }
    let mut collector = TcpStream::connect(api)?;
    collector.write_all(&request)?;
    let mut answer = Vec::new();
    collector.read_to_end(&mut answer)?;
    if fate == Some(Fate::AnswerLost) { Ok(()) } else { stream.write_all(&answer) }
}

/// A whole request, which asks that the connection ends with its answer.
fn request(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut part = [0; 1 << 16];
    loop {
        let read = stream.read(&mut part)?;
        if read == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&part[..read]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let named = |line: &&str, name: &str| line.to_ascii_lowercase().starts_with(name);
        let length = head.lines().find(|line| named(line, "content-length:")).and_then(|l| l[15..].trim().parse().ok());
        if bytes.len() < end + 4 + length.unwrap_or(0) {
            continue;
        }
        let lines: Vec<&str> = head.lines().filter(|line| !named(line, "connection:")).collect();
        let head = format!("{}\r\nconnection: close\r\n\r\n", lines.join("\r\n"));
        return Ok(Some([head.as_bytes(), &bytes[end + 4..]].concat()));
    }
}
