//! Requests written byte by byte, for what no client of HTTP would do: bodies that are announced and do not come.

use crate::Collector;
use std::io::{Read, Write};
use std::net::TcpStream;

impl Collector {
    /// The first line of the answer to a batch that waits to be told to send so many bytes, and sends none; without the words.
    pub fn announced(&self, token: &str, bytes: usize) -> String {
        let mut connection = self.begun(token, bytes, "expect: 100-continue\r\n", b"");
        let mut answer = [0; 12];
        connection.read_exact(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A batch that announces a body and sends a part of it.
    pub fn unfinished(&self, token: &str, announced: usize, part: &[u8]) -> TcpStream {
        self.begun(token, announced, "", part)
    }

    fn begun(&self, token: &str, announced: usize, header: &str, part: &[u8]) -> TcpStream {
        let mut connection = self.connect();
        let head = format!(
            "POST /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: {announced}\r\n{header}\r\n"
        );
        connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(part)).expect("sent");
        connection
    }
}
