//! Promise 5: pages that their clients do not read take no more memory than is said, and other clients are told to come again.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::TcpStream;
use tests::{Collector, wait_until};

/// Asks for a page and reads nothing of it.
fn unread(collector: &Collector, path: &str) -> TcpStream {
    let mut connection = collector.connect();
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", collector.token);
    connection.write_all(head.as_bytes()).expect("sent");
    connection
}

#[test]
fn pages_that_nobody_reads_are_bounded_and_give_their_room_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let text = "x".repeat(60_000);
    let bad = format!("\"{text}\"\n").repeat(180);
    assert_eq!(collector.send(&token, bad.as_bytes()).status, 400);
    let good = format!("{{\"text\":\"{text}\"}}\n").repeat(180);
    assert_eq!(collector.send(&token, good.as_bytes()).status, 200);

    let pages = ["/api/v1/rejected?limit=1000", "/api/v1/events?limit=1000"];
    for path in pages {
        let page = collector.get(path, &collector.token);
        assert!(page.status == 200 && (8 << 20..9 << 20).contains(&page.text.len()), "{} bytes", page.text.len());
        assert!(page.json()["next_cursor"].is_string(), "there is more");
    }
    for path in pages {
        // Pages that grow side by side can all be turned away: one more, until there is no room for any.
        let held = RefCell::new(Vec::new());
        wait_until("the pages fill their budget", || {
            held.borrow_mut().push(unread(&collector, path));
            pages.iter().all(|path| {
                let refused = collector.get(path, &collector.token);
                refused.status == 503
                    && refused.json()["code"] == "in_flight_full"
                    && refused.header("retry-after").is_some()
            })
        });
        assert_eq!(collector.send(&token, b"{\"n\":1}\n").status, 200, "who sends is not kept out");
        drop(held);
        wait_until("the room is given back", || collector.get(path, &collector.token).status == 200);
    }
}

#[test]
fn files_of_the_page_that_nobody_reads_are_in_memory_once() {
    const READERS: u64 = 100;
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let path = "/docs/swagger-ui-bundle.js";
    let bytes = collector.get(path, "").text.len() as u64;
    assert!(bytes > 1 << 20, "{bytes} bytes, not compressed for who does not ask for it");
    let before = collector.memory_peak_bytes();
    let mut held: Vec<TcpStream> = (0..READERS).map(|_| unread(&collector, path)).collect();
    // Its answer has begun, and all of it is on its way.
    held.iter_mut().for_each(|connection| connection.read_exact(&mut [0]).expect("an answer"));
    let grown = collector.memory_peak_bytes() - before;
    assert!(grown < READERS * bytes / 4, "{} MiB more for {READERS} answers", grown >> 20);
    drop(held);
}
