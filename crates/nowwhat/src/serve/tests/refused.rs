//! What is no request, and what may not be one: answered, counted, and never seen by the service.

use super::*;

/// What the server says to these bytes before it closes.
async fn said_to(served: &Served, sent: &[u8]) -> String {
    let mut stream = served.connect().await;
    stream.write_all(sent).await.expect("sent");
    let mut answer = Vec::new();
    soon("closed by the server", stream.read_to_end(&mut answer)).await.expect("readable");
    String::from_utf8(answer).expect("text")
}

/// A request of this size without its last line, which is not the end of a head.
fn begun(bytes: usize) -> Vec<u8> {
    let mut head = b"GET / HTTP/1.1\r\nhost: bakery\r\nconnection: close\r\nx-flour: ".to_vec();
    head.resize(bytes, b'x');
    head
}

#[tokio::test]
async fn what_is_no_request_is_answered_and_counted_and_no_handler_sees_it() {
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = asked.clone();
    let handler = async move || seen.fetch_add(1, Ordering::SeqCst).to_string();
    let served = Served::start(Router::new().fallback(handler), WIDE, None).await;
    let many: String = (0..1101).map(|n| format!("x-{n}: loaf\r\n")).collect();
    let cases = [
        (400, "\u{1}\r\n\r\n".to_owned()),
        (400, "GET / HTTP/9.1\r\nhost: bakery\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\r\nhost: bakery\r\ncontent-length: some\r\n\r\n".to_owned()),
        (431, format!("GET / HTTP/1.1\r\nhost: bakery\r\n{many}\r\n")),
        (431, String::from_utf8(begun(64 << 10)).expect("text")),
    ];
    for (n, (status, sent)) in (1..).zip(cases) {
        let answer = said_to(&served, sent.as_bytes()).await;
        // Each in the version that was asked in.
        assert!(
            answer.starts_with("HTTP/1.") && answer[8..].starts_with(&format!(" {status} ")),
            "{answer:?} to {sent}"
        );
        until("counted", || served.metrics.malformed.get() == n).await;
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_thousand_headers_are_read() {
    let handler = async |headers: http::HeaderMap| headers.len().to_string();
    let served = Served::start(Router::new().fallback(handler), WIDE, None).await;
    let many: String = (0..1000).map(|n| format!("x-{n}: loaf\r\n")).collect();
    let answer =
        said_to(&served, format!("GET / HTTP/1.1\r\nhost: bakery\r\nconnection: close\r\n{many}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("1002"), "{answer}");
}

#[tokio::test]
async fn a_host_that_is_missing_is_a_problem_and_the_connection_ends() {
    let served = Served::start(hello().layer(HostRequired), WIDE, None).await;
    let answer = said_to(&served, b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nhost: bakery\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains("content-type: application/problem+json") && head.contains("connection: close"), "{head}");
    let problem: serde_json::Value = serde_json::from_str(body).expect("one answer, and nothing after it");
    assert_eq!((&problem["status"], &problem["code"]), (&400.into(), &"invalid_host".into()));
}

#[tokio::test]
async fn over_http_2_a_host_that_contradicts_the_authority_is_refused_and_the_connection_goes_on() {
    let served = Served::start(hello().layer(HostRequired), WIDE, None).await;
    let (mut client, _connection) = Client::on(served.connect().await, Version::HTTP_2).await;
    let asked = |host: &str| Request::get("http://bakery/").header("host", host).body(Empty::new()).expect("a request");
    for (host, status) in [("mill", 400), ("bakery", 200)] {
        let answer = soon("an answer", client.send(asked(host))).await.expect("an answer");
        assert_eq!(answer.status(), status, "{host}");
    }
}

#[tokio::test]
async fn over_http_2_a_head_that_is_too_large_is_refused_alone_and_one_of_many_frames_with_the_connection() {
    let served = Served::start(hello(), WIDE, None).await;
    let (mut client, _connection) = Client::on(served.connect().await, Version::HTTP_2).await;
    // The first answer comes after the settings.
    client.text().await;
    let asked = |bytes| Request::get("http://localhost/").header("x-flour", "x".repeat(bytes)).body(Empty::new());
    // This many characters take fewer bytes on the way.
    for bytes in [64 << 10, 80 << 10] {
        let answer = soon("an answer", client.send(asked(bytes).expect("a request"))).await;
        assert_eq!(answer.expect("an answer").status(), 431, "{bytes}");
        client.text().await;
    }
    let ended = soon("the end", client.send(asked(200 << 10).expect("a request"))).await;
    assert!(ended.is_err(), "{ended:?}");
    served.until_open(0).await;
}

#[tokio::test]
async fn a_head_within_the_limit_and_one_of_http_1_0_without_a_host_are_requests() {
    let served = Served::start(hello(), WIDE, None).await;
    let mut large = begun((64 << 10) - 4);
    large.extend(b"\r\n\r\n");
    let eleven = b"GET / HTTP/1.1\r\nhost:\r\nconnection: close\r\n\r\n".to_vec();
    for sent in [large, eleven, b"GET / HTTP/1.0\r\n\r\n".to_vec()] {
        let answer = said_to(&served, &sent).await;
        assert!(answer.contains(" 200 OK\r\n"), "{answer}");
    }
    // A head without an end is waited for: one byte more would be too much.
    let mut unfinished = served.connect().await;
    unfinished.write_all(&begun((64 << 10) - 1)).await.expect("sent");
    served.until_open(1).await;
    unfinished.write_all(b"x").await.expect("sent");
    let mut status = [0; 12];
    soon("an answer", unfinished.read_exact(&mut status)).await.expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 431");
}

#[tokio::test]
async fn a_burst_of_connections_waits_to_be_accepted() {
    let listener = Listener::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("Linux");
    // One that does not fit in is not connected before others were accepted, and here none is.
    let burst = most.trim().parse::<usize>().expect("a number").min(512);
    let mut waiting = Vec::new();
    for _ in 0..burst {
        waiting.push(soon("connected", TcpStream::connect(listener.address)).await.expect("connected"));
    }
    let metrics = ConnectionMetrics::register(&mut Registry::default());
    let (stopper, stop) = stop_signal();
    let (_limits, limits) = watch::channel(ConnectionLimits { connections_max: 0, ..WIDE });
    let served = tokio::spawn(listener.serve(hello(), Serving { limits, metrics: metrics.clone(), tls: None, stop }));
    until("each was accepted and turned away", || metrics.refused.get() == burst as u64).await;
    stopper.stop();
    soon("the end", served).await.expect("no panic");
}
