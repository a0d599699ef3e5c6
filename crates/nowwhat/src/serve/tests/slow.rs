//! Clients that take their answers slowly: how long one may take nothing is counted by what it takes, not by what the
//! kernel keeps for it.

use super::*;
use tokio::net::TcpSocket;

/// A client whose kernel keeps little for it has asked for the answer.
async fn asked(served: &Served) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 << 10).expect("a small buffer");
    let mut stream = socket.connect(served.address).await.expect("connected");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.expect("sent");
    stream
}

/// Reads 160 KiB a second for this long, and tells how many bytes that were.
async fn read_slowly(stream: &mut TcpStream, time: Duration) -> usize {
    let (began, mut seen, mut part) = (Instant::now(), 0, [0; 8 << 10]);
    while began.elapsed() < time {
        sleep(Duration::from_millis(50)).await;
        seen += soon("a part", stream.read_exact(&mut part)).await.expect("the connection lives");
    }
    seen
}

#[tokio::test]
async fn a_client_that_takes_little_at_a_time_gets_all_and_is_closed_when_it_stops() {
    const BYTES: usize = 16 << 20;
    let served = Served::start(large(BYTES), TIGHT, None).await;
    let slow = TIGHT.write_stall_timeout * 4;
    let mut stream = asked(&served).await;
    let seen = read_slowly(&mut stream, slow).await;
    assert!(seen < BYTES / 2, "too fast to prove anything");
    let mut rest = Vec::new();
    soon("the rest", stream.read_to_end(&mut rest)).await.expect("the connection lives");
    assert!(seen + rest.len() > BYTES, "{seen} and {}", rest.len());
    assert_eq!(served.metrics.stalled.get(), 0);
    let mut stream = asked(&served).await;
    read_slowly(&mut stream, slow).await;
    until("counted", || served.metrics.stalled.get() == 1).await;
    served.until_open(0).await;
}
