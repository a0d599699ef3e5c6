//! Promises of listeners, with real sockets and real clients.

mod clients;
mod inherited;
mod refused;
mod slow;
mod tls;

use super::connection::FIRST_REQUEST_GRACE;
use super::*;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::future::Future;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

/// Longer than anything here takes, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Limits that no test comes near unless it changes them.
const WIDE: ConnectionLimits = ConnectionLimits {
    connections_max: 100,
    head_timeout: Duration::from_secs(60),
    write_stall_timeout: Duration::from_secs(60),
    streams_max: 100,
};
/// Limits that a peer who does nothing reaches soon, and one that is only held up by a busy machine does not.
const TIGHT: ConnectionLimits =
    ConnectionLimits { head_timeout: Duration::from_secs(1), write_stall_timeout: Duration::from_secs(1), ..WIDE };
const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

struct Served {
    address: SocketAddr,
    limits: watch::Sender<ConnectionLimits>,
    metrics: ConnectionMetrics,
    stopper: Stopper,
    task: JoinHandle<()>,
}

impl Served {
    async fn start(router: Router, limits: ConnectionLimits, tls: Option<Tls>) -> Self {
        let listener = Listener::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
        let address = listener.address;
        let metrics = ConnectionMetrics::register(&mut Registry::default());
        let (stopper, stop) = stop_signal();
        let (limits, known) = watch::channel(limits);
        let serving = Serving { limits: known, metrics: metrics.clone(), tls, stop };
        let task = tokio::spawn(listener.serve(router, serving));
        Self { address, limits, metrics, stopper, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connected")
    }

    /// The stop has arrived.
    async fn until_refusing(&self) {
        let refused = async {
            while TcpStream::connect(self.address).await.is_ok() {
                sleep(Duration::from_millis(2)).await;
            }
        };
        soon("no new connection", refused).await;
    }

    async fn until_open(&self, connections: i64) {
        until("connections open", || self.metrics.open.get() == connections).await;
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let looked = async {
        while !condition() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(DEADLINE, looked).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("in vain: {what}"))
}

/// Tells how the request came.
async fn how(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    over_tls: Option<Extension<OverTls>>,
    request: axum::extract::Request,
) -> String {
    format!("{:?} {} {peer}", request.version(), if over_tls.is_some() { "https" } else { "http" })
}

fn hello() -> Router {
    Router::new().route("/", get(how))
}

/// A client of either version on an open stream.
enum Client {
    One(http1::SendRequest<Empty<Bytes>>),
    Two(http2::SendRequest<Empty<Bytes>>),
}

impl Client {
    /// The second value ends with the connection.
    async fn on<S>(stream: S, version: Version) -> (Self, JoinHandle<hyper::Result<()>>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        if version == Version::HTTP_2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.expect("a handshake");
            (Self::Two(sender), tokio::spawn(connection))
        } else {
            let (sender, connection) = http1::handshake(stream).await.expect("a handshake");
            (Self::One(sender), tokio::spawn(connection))
        }
    }

    async fn get(&mut self) -> hyper::Result<Response<Incoming>> {
        let request =
            Request::get("http://localhost/").header("host", "localhost").body(Empty::new()).expect("a request");
        self.send(request).await
    }

    async fn send(&mut self, request: Request<Empty<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::One(sender) => sender.send_request(request).await,
            Self::Two(sender) => sender.send_request(request).await,
        }
    }

    async fn text(&mut self) -> String {
        let answer = soon("an answer", self.get()).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        let body = soon("a body", answer.into_body().collect()).await.expect("a body").to_bytes();
        String::from_utf8(body.to_vec()).expect("text")
    }
}

/// Returns when the other side has closed.
async fn closed(mut stream: impl AsyncRead + Unpin) {
    let mut seen = Vec::new();
    // A reset is closing, too.
    drop(soon("closed by the server", stream.read_to_end(&mut seen)).await);
}

#[tokio::test]
async fn one_port_serves_both_versions_and_handlers_know_the_peer_and_the_scheme() {
    let served = Served::start(hello(), WIDE, None).await;
    for version in VERSIONS {
        let stream = served.connect().await;
        let own = stream.local_addr().expect("an address");
        let (mut client, _connection) = Client::on(stream, version).await;
        assert_eq!(client.text().await, format!("{version:?} http {own}"));
    }
}

#[tokio::test]
async fn a_peer_that_never_completes_a_request_is_closed() {
    let served = Served::start(hello(), TIGHT, None).await;
    // Nothing; what may still become either version; the beginning of a head; HTTP/2 without a request.
    join_all([&b""[..], b"P", b"GET / HTTP/1.1\r\nhost:", PREFACE].map(async |said| {
        let mut stream = served.connect().await;
        stream.write_all(said).await.expect("sent");
        closed(stream).await;
    }))
    .await;
    served.until_open(0).await;
    assert_eq!(served.metrics.stalled.get(), 0, "idle is not stalled");
}

#[tokio::test]
async fn a_connection_that_is_idle_between_requests_is_closed_in_order() {
    let served = Served::start(hello(), TIGHT, None).await;
    join_all(VERSIONS.map(async |version| {
        let (mut client, connection) = Client::on(served.connect().await, version).await;
        client.text().await;
        soon("the end of the connection", connection).await.expect("no panic").expect("an orderly end");
    }))
    .await;
    served.until_open(0).await;
    assert_eq!(served.metrics.stalled.get(), 0, "idle is not stalled");
}

#[tokio::test]
async fn a_slow_handler_and_a_quiet_stream_are_not_idle() {
    let quiet = TIGHT.head_timeout * 3;
    let handler = move || async move {
        sleep(quiet).await;
        let parts = futures::stream::unfold(0, move |n| async move {
            sleep(quiet).await;
            (n < 1).then(|| (Ok::<_, io::Error>(Bytes::from_static(b"part")), n + 1))
        });
        Body::from_stream(parts)
    };
    let served = Served::start(Router::new().route("/", get(handler)), TIGHT, None).await;
    join_all(VERSIONS.map(async |version| {
        let (mut client, _connection) = Client::on(served.connect().await, version).await;
        assert_eq!(client.text().await, "part", "{version:?}");
        // It is the peer's turn from now on, however long the answer took.
        assert_eq!(client.text().await, "part", "{version:?} again");
    }))
    .await;
}

/// Answers more than all buffers on the way take.
fn large(bytes: usize) -> Router {
    let body = Bytes::from(vec![b'x'; bytes]);
    Router::new().route("/", get(move || std::future::ready(body.clone())))
}

#[tokio::test]
async fn a_peer_that_takes_nothing_of_its_answer_is_closed_and_counted() {
    let served = Served::start(large(64 << 20), TIGHT, None).await;
    let mut stream = served.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
    until("counted", || served.metrics.stalled.get() == 1).await;
    served.until_open(0).await;
    // Over HTTP/2 the peer answers pings and reads its socket, and gives no more window.
    let (mut client, connection) = Client::on(served.connect().await, Version::HTTP_2).await;
    let unread = soon("a head", client.get()).await.expect("a head");
    served.until_open(0).await;
    assert_eq!(served.metrics.stalled.get(), 2);
    drop(soon("the end of the connection", connection).await);
    drop(unread);
}

#[tokio::test]
async fn a_peer_that_reads_slowly_gets_all_of_its_answer() {
    const BYTES: usize = 32 << 20;
    let patience = Duration::from_secs(2);
    let limits = ConnectionLimits { head_timeout: patience, write_stall_timeout: patience, ..WIDE };
    let served = Served::start(large(BYTES), limits, None).await;
    join_all(VERSIONS.map(async |version| {
        let (mut client, _connection) = Client::on(served.connect().await, version).await;
        let mut body = soon("a head", client.get()).await.expect("a head").into_body();
        let began = Instant::now();
        let (mut seen, mut step) = (0, 0);
        while let Some(frame) = soon("a frame", body.frame()).await {
            seen += frame.expect("the connection lives").into_data().map_or(0, |data| data.len());
            if seen > step {
                step = seen + BYTES / 64;
                sleep(patience / 32).await;
            }
        }
        assert_eq!(seen, BYTES, "{version:?}");
        assert!(began.elapsed() > patience, "too fast to prove anything");
    }))
    .await;
    assert_eq!(served.metrics.stalled.get(), 0);
}

#[tokio::test]
async fn a_stop_finishes_requests_in_flight_and_takes_no_new_connections() {
    for version in VERSIONS {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (tell, wait) = (begun.clone(), go_on.clone());
        let handler = move || async move {
            tell.notify_one();
            wait.notified().await;
            "done"
        };
        let served = Served::start(Router::new().route("/", get(handler)), WIDE, None).await;
        let (mut client, connection) = Client::on(served.connect().await, version).await;
        let asked = tokio::spawn(async move { client.text().await });
        soon("the handler", begun.notified()).await;
        served.stopper.stop();
        served.until_refusing().await;
        assert!(!served.task.is_finished(), "a request is in flight");
        go_on.notify_one();
        assert_eq!(asked.await.expect("no panic"), "done", "{version:?}");
        soon("the end", served.task).await.expect("no panic");
        soon("the end of the connection", connection).await.expect("no panic").expect("an orderly end");
    }
}

#[tokio::test]
async fn a_connection_accepted_before_a_stop_gets_its_first_request_answered() {
    for version in VERSIONS {
        // When the machine held this test up for longer than the grace, it proves nothing and is done again.
        loop {
            let served = Served::start(hello(), WIDE, None).await;
            let stream = served.connect().await;
            served.until_open(1).await;
            served.stopper.stop();
            let stopped = Instant::now();
            served.until_refusing().await;
            // The request is on its way for a while.
            sleep(Duration::from_millis(100)).await;
            let (mut client, _connection) = Client::on(stream, version).await;
            let answer = soon("an answer or the end", client.get()).await;
            soon("the end", served.task).await.expect("no panic");
            if answer.is_err() && stopped.elapsed() >= FIRST_REQUEST_GRACE {
                continue;
            }
            assert_eq!(answer.expect("an answer").version(), version);
            break;
        }
    }
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_a_stop() {
    let served = Served::start(hello(), WIDE, None).await;
    let (mut one, _one) = Client::on(served.connect().await, Version::HTTP_11).await;
    let (mut two, _two) = Client::on(served.connect().await, Version::HTTP_2).await;
    let silent = served.connect().await;
    one.text().await;
    two.text().await;
    served.until_open(3).await;
    served.stopper.stop();
    soon("the end", served.task).await.expect("no panic");
    assert_eq!(served.metrics.open.get(), 0);
    drop(silent);
}

#[tokio::test]
async fn each_connection_has_its_share_of_the_requests_beside_first_ones_and_the_first_ones_always_pass() {
    let (began, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let handler = {
        let (began, release) = (began.clone(), release.clone());
        async move || {
            began.fetch_add(1, Ordering::Relaxed);
            drop(release.acquire().await);
        }
    };
    let router = Router::new().route("/", get(how)).route("/held", get(handler));
    let served = Served::start(router, ConnectionLimits { connections_max: 5, ..WIDE }, None).await;
    let asked = |sender: &http2::SendRequest<Empty<Bytes>>, path: &str| {
        let request = Request::get(format!("http://localhost{path}")).body(Empty::new()).expect("a request");
        let mut sender = sender.clone();
        tokio::spawn(async move { sender.send_request(request).await.expect("an answer").status() })
    };
    let two = async || match Client::on(served.connect().await, Version::HTTP_2).await {
        (Client::Two(sender), connection) => (sender, connection),
        (Client::One(_), _) => unreachable!("asked for the other"),
    };
    let refused = async |sender| {
        let before = served.metrics.requests_refused.get();
        assert_eq!(soon("an answer", asked(sender, "/")).await.expect("done"), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(served.metrics.requests_refused.get(), before + 1);
    };
    // Three beside the first, while two are left free, which is less than a fourth would leave.
    let (first, _first) = two().await;
    let mut waiting: Vec<_> = (0..4).map(|_| asked(&first, "/held")).collect();
    until("requests held", || began.load(Ordering::Relaxed) == 4).await;
    refused(&first).await;
    // Who leaves all of that open keeps nobody else from a request beside the first.
    let (second, _second) = two().await;
    waiting.extend((0..2).map(|_| asked(&second, "/held")));
    until("requests held", || began.load(Ordering::Relaxed) == 6).await;
    refused(&second).await;
    let (third, _third) = two().await;
    waiting.extend((0..2).map(|_| asked(&third, "/held")));
    until("requests held", || began.load(Ordering::Relaxed) == 8).await;
    let (fourth, _fourth) = two().await;
    let status = soon("an answer", asked(&fourth, "/")).await.expect("done");
    assert_eq!(status, StatusCode::OK, "the first of its connection");
    release.add_permits(1);
    for answer in waiting {
        assert_eq!(soon("an answer", answer).await.expect("done"), StatusCode::OK);
    }
    assert_eq!(soon("an answer", asked(&first, "/")).await.expect("done"), StatusCode::OK, "there is room again");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_the_limit_can_change() {
    let served = Served::start(hello(), ConnectionLimits { connections_max: 1, ..WIDE }, None).await;
    let (mut first, _first) = Client::on(served.connect().await, Version::HTTP_11).await;
    first.text().await;
    let refused = async |times| {
        // The whole request is sent, and still the answer arrives.
        let (mut client, _connection) = Client::on(served.connect().await, Version::HTTP_11).await;
        let answer = soon("an answer", client.get()).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(served.metrics.refused.get(), times);
    };
    refused(1).await;
    served.limits.send_modify(|limits| limits.connections_max = 2);
    let (mut second, _second) = Client::on(served.connect().await, Version::HTTP_11).await;
    second.text().await;
    refused(2).await;
    served.limits.send_modify(|limits| limits.connections_max = 1);
    refused(3).await;
    first.text().await;
    second.text().await;
    drop((second, _second));
    served.until_open(1).await;
    refused(4).await;
    drop((first, _first));
    served.until_open(0).await;
    let (mut third, _third) = Client::on(served.connect().await, Version::HTTP_11).await;
    third.text().await;
}

#[tokio::test]
async fn a_refused_peer_can_finish_sending_and_then_read_the_answer() {
    let served = Served::start(hello(), ConnectionLimits { connections_max: 0, ..WIDE }, None).await;
    let mut stream = served.connect().await;
    // The answer is complete, and the peer is still sending.
    let mut seen = [0; 12];
    soon("an answer", stream.peek(&mut seen)).await.expect("an answer");
    for _ in 0..16 {
        stream.write_all(&[b'x'; 64 << 10]).await.expect("taken");
        sleep(Duration::from_millis(2)).await;
    }
    soon("an answer", stream.read_exact(&mut seen)).await.expect("an answer");
    assert_eq!(&seen, b"HTTP/1.1 503");
}

#[tokio::test]
async fn one_connection_has_no_more_requests_at_a_time_than_allowed() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let highest = most.clone();
    let handler = move || async move {
        highest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        sleep(Duration::from_millis(20)).await;
        now.fetch_sub(1, Ordering::SeqCst);
    };
    let limits = ConnectionLimits { streams_max: 2, ..WIDE };
    let served = Served::start(Router::new().route("/", get(handler)), limits, None).await;
    let (mut client, _connection) = Client::on(served.connect().await, Version::HTTP_2).await;
    // The first answer comes after the settings.
    client.text().await;
    let Client::Two(sender) = client else { unreachable!("made above") };
    let asked = (0..8).map(|_| {
        let mut client = Client::Two(sender.clone());
        async move { client.text().await }
    });
    join_all(asked).await;
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn changed_timeouts_hold_for_new_connections() {
    let served = Served::start(hello(), WIDE, None).await;
    let (mut old, _old) = Client::on(served.connect().await, Version::HTTP_11).await;
    old.text().await;
    served.limits.send_replace(TIGHT);
    closed(served.connect().await).await;
    served.until_open(1).await;
    old.text().await;
}
