//! Events are told as they come, each once and in order, to who goes away and comes back too; who is too slow is told how many were missed.

use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tests::{Collector, program};

/// What is told between two blank lines.
#[derive(Debug, Default, PartialEq)]
struct Message {
    id: Option<u64>,
    kind: Option<String>,
    data: Option<Value>,
}

/// A client of server-sent events. Over HTTP/1.0, whose body has no chunks.
struct Tail(BufReader<TcpStream>);

impl Tail {
    fn open(collector: &Collector, token: &str, query: &str, headers: &str) -> Self {
        let mut stream = collector.connect();
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        let head = format!("GET /api/v1/events/tail{query} HTTP/1.0\r\nauthorization: Bearer {token}\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).expect("sent");
        Self(BufReader::new(stream))
    }

    /// Past the head of the answer: its status, and the position at which it begins.
    fn begun(&mut self) -> (u16, Option<u64>) {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a status");
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        while !line.trim_end().is_empty() {
            line.clear();
            self.0.read_line(&mut line).expect("a header");
        }
        let begins = (status == 200).then(|| self.message().expect("where it begins"));
        assert!(begins.iter().all(|message| message.kind.as_deref() == Some("begin")), "{begins:?}");
        (status, begins.and_then(|message| message.id))
    }

    /// The next message; none at the end.
    fn message(&mut self) -> Option<Message> {
        let (mut message, mut line) = (Message::default(), String::new());
        loop {
            line.clear();
            if self.0.read_line(&mut line).expect("a line in time") == 0 {
                return None;
            }
            match line.trim_end_matches('\n').split_once(": ") {
                Some(("id", id)) => message.id = id.parse().ok(),
                Some(("event", kind)) => message.kind = Some(kind.to_owned()),
                Some(("data", data)) => message.data = serde_json::from_str(data).ok(),
                Some(_) => {}
                None => return Some(message),
            }
        }
    }

    /// The next event: its position and its number.
    fn event(&mut self) -> (u64, u64) {
        loop {
            let message = self.message().expect("an event");
            if let Message { id: Some(id), kind: None, data: Some(data) } = message {
                assert_eq!(data["position"], json!(id));
                return (id, data["data"]["n"].as_u64().expect("its number"));
            }
        }
    }
}

fn lines(numbers: std::ops::Range<u64>, filler: usize) -> Vec<u8> {
    let mut lines = String::new();
    for n in numbers {
        let _ = writeln!(lines, "{{\"type\":\"t{}\",\"n\":{n},\"filler\":\"{}\"}}", n % 2, "x".repeat(filler));
    }
    lines.into_bytes()
}

fn send(collector: &Collector, token: &str, body: &[u8]) {
    let answer = collector.send(token, body);
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[test]
fn events_are_told_as_they_come_by_filter_and_to_who_comes_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_SEAL__AGE_SECONDS", "1s")]);
    let (roof, cellar) = (collector.sensor("roof"), collector.sensor("cellar"));
    send(&collector, &roof, &lines(0..10, 1));
    let reader =
        collector.add_token(&json!({"name": "eyes", "role": "reader"}))["token"].as_str().expect("a token").to_owned();
    let mut all = Tail::open(&collector, &reader, "", "");
    let mut some = Tail::open(&collector, &reader, "?sensor=roof&type=t1", "");
    assert_eq!((all.begun(), some.begun()), ((200, Some(10)), (200, Some(10))), "what is there is not told");
    send(&collector, &cellar, &lines(10..12, 1));
    send(&collector, &roof, &lines(12..16, 1));
    assert_eq!((0..6).map(|_| all.event()).collect::<Vec<_>>(), (11..17).map(|p| (p, p - 1)).collect::<Vec<_>>());
    assert_eq!([some.event(), some.event()], [(14, 13), (16, 15)]);
    drop(all);
    // While nobody looked some were sealed.
    collector.wait_for("a seal", |c| c.metric("catchment_engine_live_rows") == 0.0);
    send(&collector, &roof, &lines(16..20, 1));
    let mut back = Tail::open(&collector, &reader, "?after=1", "last-event-id: 12\r\n");
    assert_eq!(back.begun(), (200, Some(12)));
    assert_eq!((0..8).map(|_| back.event().0).collect::<Vec<_>>(), (13..21).collect::<Vec<_>>());
    let mut first = Tail::open(&collector, &reader, "?after=0", "");
    assert_eq!(first.begun(), (200, Some(0)));
    assert_eq!((0..20).map(|_| first.event().1).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    // A position of another collector is beyond what was given.
    let mut other = Tail::open(&collector, &reader, "?after=5000", "");
    assert_eq!(other.begun(), (200, Some(20)));
    let reset = Message { id: None, kind: Some("reset".to_owned()), data: Some(json!({"asked": 5000, "after": 20})) };
    assert_eq!(other.message(), Some(reset));
    assert_eq!(Tail::open(&collector, &reader, "?sensor=nobody", "").begun().0, 404);
    for (query, headers) in [("?after=x", ""), ("?since=soon", ""), ("?limit=1", ""), ("", "last-event-id: x\r\n")] {
        assert_eq!(Tail::open(&collector, &reader, query, headers).begun().0, 400, "{query} {headers}");
    }
    assert_eq!(Tail::open(&collector, &roof, "", "").begun().0, 403);
}

#[test]
fn a_bound_of_rows_below_what_is_there_passes_over_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_QUERY__ROWS_MAX", "5")]);
    let roof = collector.sensor("roof");
    send(&collector, &roof, &lines(0..20, 1));
    let mut tail = Tail::open(&collector, &collector.token, "?after=0", "");
    assert_eq!(tail.begun(), (200, Some(0)));
    assert_eq!((0..20).map(|_| tail.event().1).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    let (mut seen, mut cursor) = (0, String::new());
    while seen < 20 {
        let page = collector.get(&format!("/api/v1/events?limit=10{cursor}"), &collector.token).json();
        seen += page["events"].as_array().expect("events").len();
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, 20, "pages go on to the end");
}

#[test]
fn who_is_too_slow_is_told_how_many_were_missed_and_goes_on_with_the_newest() {
    const EVENTS: u64 = 40_000;
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let roof = collector.sensor("roof");
    let mut slow = Tail::open(&collector, &collector.token, "", "");
    assert_eq!(slow.begun(), (200, Some(0)));
    // More than fits between the two.
    for from in (0..EVENTS).step_by(2000) {
        send(&collector, &roof, &lines(from..from + 2000, 500));
    }
    let (mut next, mut told, mut missed) = (1, 0, 0);
    while next <= EVENTS {
        let message = slow.message().expect("an event");
        let Some(data) = message.data else { continue };
        if message.kind.as_deref() == Some("missed") {
            assert_eq!(data["after"], json!(next - 1));
            missed += data["missed"].as_u64().expect("how many");
            next = data["until"].as_u64().expect("until where") + 1;
            assert_eq!(message.id, Some(next - 1));
        } else {
            assert_eq!(message.id, Some(next), "in order");
            (told, next) = (told + 1, next + 1);
        }
    }
    assert_eq!(told + missed, EVENTS);
    assert!(missed > 0 && told >= 10_000, "{told} told, {missed} missed");
    assert_eq!(collector.metric("catchment_server_tail_missed_events_total"), missed as f64);
}

#[test]
fn a_tail_ends_with_its_token_and_with_the_collector_and_only_so_many_are_open() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = collector.add_token(&json!({"name": "eyes", "role": "reader"}));
    let id = token["id"].to_string();
    let mut revoked = Tail::open(&collector, token["token"].as_str().expect("a token"), "", "");
    assert_eq!(revoked.begun().0, 200);
    let answer = collector.ask(("DELETE", &format!("/api/v1/tokens/{id}")), &collector.token, &[], b"");
    assert_eq!(answer.status, 204, "{}", answer.text);
    assert_eq!(revoked.message(), None, "it is told nothing more");
    collector.wait_for("its end", |c| c.metric("catchment_server_tails_open") == 0.0);
    let mut open: Vec<Tail> = (0..32).map(|_| Tail::open(&collector, &collector.token, "", "")).collect();
    assert!(open.iter_mut().all(|tail| tail.begun().0 == 200));
    assert_eq!(Tail::open(&collector, &collector.token, "", "").begun().0, 429);
    drop(open.split_off(1));
    collector.wait_for("the end of the others", |c| c.metric("catchment_server_tails_open") == 1.0);
    assert_eq!(collector.terminate(), 0, "it does not wait for who looks on");
    assert_eq!(open[0].message(), None);
}

/// `catchment tail`, ended with the test.
struct Shown {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Drop for Shown {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn the_command_shows_each_event_once_although_the_collector_is_killed_and_started_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let roof = collector.sensor("roof");
    send(&collector, &roof, &lines(0..3, 1));
    let mut command = Command::new(program());
    command.args(["tail", "--after", "0", "--json", "--limit", "9"]).current_dir(dir.path());
    command.env_remove("CATCHMENT_URL").env_remove("CATCHMENT_TOKEN").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let lines_of_it = BufReader::new(child.stdout.take().expect("piped"));
    let mut shown = Shown { child, lines: lines_of_it };
    let number =
        |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["data"]["n"].as_u64().expect("its number");
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut line = String::new();
        shown.lines.read_line(&mut line).expect("a line");
        seen.push(number(&line));
    }
    send(&collector, &roof, &lines(3..6, 1));
    collector.kill();
    let collector = Collector::start(dir.path());
    send(&collector, &roof, &lines(6..9, 1));
    let mut rest = String::new();
    shown.lines.read_to_string(&mut rest).expect("the rest");
    seen.extend(rest.lines().map(number));
    assert_eq!(seen, (0..9).collect::<Vec<_>>());
    assert!(shown.child.wait().expect("it ends").success());
    let mut told = String::new();
    shown.child.stderr.take().expect("piped").read_to_string(&mut told).expect("text");
    assert!(told.contains("looking for the collector"), "{told}");
}
