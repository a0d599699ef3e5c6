//! The thread that writes log lines, so that a slow reader of standard error holds up no request.
//!
//! Lines wait in one buffer of at most [`WAITING_BYTES_MAX`]; what does not fit, or cannot be written because the disk under it is full, is
//! counted and dropped, and the count is logged with the next line that there is room for. Lines are written together: at most [`TOGETHER`] after they came, at once when somebody waits for them.

use crate::journal::{self, Journal};
use crate::metrics::Counter;
use serde_json::{Map, Value};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tracing::Level;

/// Bytes of lines that may wait to be written.
pub const WAITING_BYTES_MAX: usize = 4 << 20;
/// How long the writer lets lines gather.
const TOGETHER: Duration = Duration::from_millis(10);

/// How long a flush waits for a reader that stands still.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Where lines go; it tells how many of them it could not take.
pub(super) type Sink = Box<dyn FnMut(&[u8]) -> u64 + Send>;

/// Standard error.
pub(super) fn standard_error() -> Sink {
    to_file(std::io::stderr())
}

/// Something that may take a part of what it is given: a line that was cut is ended before the next.
fn to_file(mut file: impl Write + Send + 'static) -> Sink {
    let mut cut = false;
    Box::new(move |lines| {
        if cut && written(&mut file, b"\n") == 0 {
            return count(lines);
        }
        let rest = &lines[written(&mut file, lines)..];
        cut = !rest.is_empty() && rest.len() < lines.len() && lines[lines.len() - rest.len() - 1] != b'\n';
        count(rest)
    })
}

/// Writes as much as can be written. Tells how many bytes that is.
fn written(file: &mut impl Write, bytes: &[u8]) -> usize {
    let mut done = 0;
    while done < bytes.len() {
        match file.write(&bytes[done..]) {
            Ok(0) => break,
            Ok(more) => done += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    done
}

/// The number of lines that end here.
fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// The journal, where there is one. It takes entries of fields, which the lines, JSON objects, have.
pub(super) fn journal_or_standard_error() -> Sink {
    match Journal::connect(Path::new(journal::SOCKET)) {
        Ok(journal) => to_journal(journal),
        Err(_) => standard_error(),
    }
}

/// Sends each line as an entry. What the journal does not take goes to standard error, where it is not lost.
fn to_journal(journal: Journal) -> Sink {
    let mut standard_error = standard_error();
    Box::new(move |lines| {
        let sent = |line: &&[u8]| send(&journal, line).is_some();
        lines.split_inclusive(|b| *b == b'\n').filter(|line| !sent(line)).map(&mut standard_error).sum()
    })
}

fn send(journal: &Journal, line: &[u8]) -> Option<()> {
    let fields: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let mut entry: Vec<(String, String)> = Vec::new();
    for (name, value) in fields {
        let text = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        match name.as_str() {
            "severity" => {
                let level = text.parse().unwrap_or(Level::INFO);
                entry.push(("PRIORITY".to_owned(), journal::priority(level).to_string()));
            }
            "type" => entry.push(("SYSLOG_IDENTIFIER".to_owned(), text)),
            // The journal has its own of these.
            "@timestamp" | "@version" | "host" => {}
            name => entry.extend(journal::field_name(name).map(|name| (name, text))),
        }
    }
    let fields: Vec<(&str, &[u8])> = entry.iter().map(|(name, text)| (name.as_str(), text.as_bytes())).collect();
    journal.send(&fields).ok()
}

/// The way to the writer.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Told when lines came, when somebody waits, when it is over.
    work: Condvar,
    /// Told when lines were written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Bytes taken so far, and written so far.
    taken: u64,
    written: u64,
    /// Lines that are not told yet.
    dropped: u64,
    /// Somebody waits for what was taken.
    hurry: u64,
    end: bool,
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It will be written; so many were dropped before it.
    After(u64),
    /// It was dropped.
    Dropped,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Starts the thread; lines that the sink cannot take are counted in `lost`.
    pub(super) fn start(sink: Sink, lost: Counter) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let theirs = shared.clone();
        let write = move || write_lines(&theirs, sink, &lost);
        let thread = std::thread::Builder::new().name("log".to_owned()).spawn(write)?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Takes a line, or counts it as dropped.
    pub(super) fn take(&self, line: &[u8]) -> Taken {
        let mut waiting = self.shared.lock();
        if waiting.lines.len() + line.len() > WAITING_BYTES_MAX {
            waiting.dropped += 1;
            return Taken::Dropped;
        }
        let sleeping = waiting.lines.is_empty();
        waiting.lines.extend_from_slice(line);
        waiting.taken += line.len() as u64;
        let dropped = std::mem::take(&mut waiting.dropped);
        drop(waiting);
        if sleeping {
            self.shared.work.notify_one();
        }
        Taken::After(dropped)
    }

    /// Returns when everything taken before is written, or at its deadline: a reader that stands still holds up no stop. Tells whether
    /// all is written.
    pub(super) fn flush(&self) -> Flushed {
        let mut waiting = self.shared.lock();
        let target = waiting.taken;
        waiting.hurry = target;
        self.shared.work.notify_one();
        let missing = |waiting: &mut Waiting| waiting.written < target && !waiting.end;
        let (waiting, _) = self
            .shared
            .written
            .wait_timeout_while(waiting, FLUSH_TIMEOUT, missing)
            .unwrap_or_else(PoisonError::into_inner);
        if waiting.written < target { Flushed::InPart } else { Flushed::Whole }
    }

    /// Writes what waits and ends the thread; one that stands still is left behind.
    pub(super) fn end(&self) {
        let flushed = self.flush();
        self.shared.lock().end = true;
        self.shared.work.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(thread), Flushed::Whole) = (thread, flushed) {
            drop(thread.join());
        }
    }
}

/// How far a flush came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// Everything is written.
    Whole,
    /// The reader stands still.
    InPart,
}

fn write_lines(shared: &Shared, mut sink: Sink, lost: &Counter) {
    let mut lines = Vec::new();
    loop {
        let mut waiting = shared.lock();
        while waiting.lines.is_empty() && !waiting.end {
            waiting = shared.work.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        if waiting.lines.is_empty() {
            return;
        }
        if waiting.hurry <= waiting.written && !waiting.end {
            let gathering = |waiting: &mut Waiting| waiting.hurry <= waiting.written && !waiting.end;
            waiting =
                shared.work.wait_timeout_while(waiting, TOGETHER, gathering).unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::swap(&mut lines, &mut waiting.lines);
        drop(waiting);
        let dropped = sink(&lines);
        lost.inc_by(dropped);
        let mut waiting = shared.lock();
        waiting.dropped += dropped;
        waiting.written += lines.len() as u64;
        drop(waiting);
        shared.written.notify_all();
        lines.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;
    use std::sync::mpsc::sync_channel;

    #[test]
    fn a_line_becomes_an_entry_of_the_journal_with_each_field() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).expect("a socket");
        let mut sink = to_journal(Journal::connect(&path).expect("the journal"));
        let line =
            r#"{"@timestamp":"t","message":"[200] GET /","severity":"WARN","host":"h","type":"shop","status":200}"#;
        sink(format!("{line}\n").as_bytes());
        let mut entry = [0; 1024];
        let bytes = journal.recv(&mut entry).expect("an entry");
        let entry = String::from_utf8_lossy(&entry[..bytes]);
        let mut fields: Vec<&str> = entry.lines().collect();
        fields.sort_unstable();
        assert_eq!(fields, ["MESSAGE=[200] GET /", "PRIORITY=4", "STATUS=200", "SYSLOG_IDENTIFIER=shop"]);
    }

    #[test]
    fn lines_are_written_in_order_and_what_does_not_fit_is_counted() {
        let (sender, written) = sync_channel::<Vec<u8>>(64);
        let (go, gate) = sync_channel::<()>(64);
        let sink = Box::new(move |lines: &[u8]| {
            gate.recv().expect("the test lets it go on");
            sender.send(lines.to_vec()).expect("the test reads");
            0
        });
        let writer = Writer::start(sink, Counter::default()).expect("a thread");
        assert_eq!(writer.take(b"first\n"), Taken::After(0));
        // The sink stands still: what comes now waits, up to the bound.
        let big = vec![b'x'; WAITING_BYTES_MAX / 2];
        let mut dropped = 0;
        for _ in 0..4 {
            dropped += u64::from(writer.take(&big) == Taken::Dropped);
        }
        assert!(dropped >= 1, "the bound holds");
        for _ in 0..8 {
            go.send(()).expect("the sink waits");
        }
        writer.flush();
        assert_eq!(writer.take(b"last\n"), Taken::After(dropped));
        writer.end();
        let all: Vec<u8> = written.try_iter().flatten().collect();
        assert!(all.starts_with(b"first\n") && all.ends_with(b"last\n"));
        assert_eq!(all.len(), 11 + big.len() * (4 - dropped as usize));
    }

    /// A file on a disk with so much room.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let (held, room) = &mut *self.0.lock().expect("one thread");
            let fits = bytes.len().min(*room);
            held.extend_from_slice(&bytes[..fits]);
            *room -= fits;
            if fits == 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(fits) }
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_counted_and_the_next_line_begins_anew() {
        let (disk, lost) = (Disk::default(), Counter::default());
        let room = |bytes| disk.0.lock().expect("one thread").1 = bytes;
        let writer = Writer::start(to_file(disk.clone()), lost.clone()).expect("a thread");
        let write = |line: &[u8]| {
            let taken = writer.take(line);
            assert_eq!(writer.flush(), Flushed::Whole);
            taken
        };
        room(10);
        assert_eq!(write(b"{\"n\":1}\n{\"n\":2}\n"), Taken::After(0));
        assert_eq!(write(b"{\"n\":3}\n"), Taken::After(1), "the second was cut");
        room(100);
        assert_eq!(write(b"{\"n\":4}\n"), Taken::After(1));
        assert_eq!(write(b"{\"n\":5}\n"), Taken::After(0));
        assert_eq!(lost.get(), 2);
        let held = String::from_utf8(disk.0.lock().expect("one thread").0.clone()).expect("ASCII");
        assert_eq!(held, "{\"n\":1}\n{\"\n{\"n\":4}\n{\"n\":5}\n");
    }
}
