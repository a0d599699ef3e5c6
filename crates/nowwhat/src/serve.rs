//! Listeners with limits, and orderly stopping.
//!
//! A [`Listener`] is bound, or taken over from systemd ([`Inherited`]), and serves a router over HTTP/1.1 and HTTP/2,
//! plain or with [`Tls`]. **Promises:** a peer that sends no request, takes no answer or is gone does not hold a
//! connection for ever; one connection too many is turned away; a stop finishes the requests that have begun, and
//! answers the first request of a connection that was just accepted. A socket that systemd holds refuses nothing while
//! the service restarts: what comes meanwhile waits in its queue.
//!
//! How long a request or its body may take is not decided here: that belongs to the router's layers.

mod activity;
mod connection;
mod descriptors;
pub(crate) mod host;
mod inherited;
mod signals;
mod stall;
#[cfg(test)]
mod tests;
mod tls;

pub use connection::OverTls;
pub(crate) use descriptors::make_room_for;
pub use host::{HostChecked, HostRequired};
pub use inherited::Inherited;
pub use signals::{Hangup, Stop, Stopper, Termination, stop_signal};
pub use tls::{ClientCertificates, PeerCertificate, Tls, TlsClients, TlsError, register_certificates};
pub(crate) use tls::{Pair, client_flaw, flaws};

use axum::Router;
use connection::Connection;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Connections that are being told that there are too many, at most; more are closed without a word.
const REFUSALS_MAX: usize = 64;
/// Connections that wait to be accepted; the kernel keeps it within `net.core.somaxconn`. One more is not told anything
/// and tries again after a second, so that a burst has to fit in to be answered, and be it with 503.
const WAITING_MAX: u32 = 4096;
/// What happens to many connections is logged this seldom.
const WARNING_PERIOD: Duration = Duration::from_secs(10);

/// Bounds of a listener. A change holds for connections accepted after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Open connections; one more is answered 503 and closed, with TLS only closed. When this is lowered, the open ones
    /// stay.
    pub connections_max: usize,
    /// Time for the TLS handshake and the head of the first request together; a connection that takes longer is closed.
    /// So is one that has sent no whole head of another request for this long after it was answered; that is noticed up
    /// to as long again later.
    pub head_timeout: Duration,
    /// A connection whose peer takes nothing of an answer for this long is closed. Over HTTP/2 a peer can also hold an
    /// answer back by flow control; that is noticed up to twice `head_timeout` later.
    pub write_stall_timeout: Duration,
    /// Requests of one HTTP/2 connection at the same time; the peer is told. Beside the first of each connection, all
    /// connections together have no more than `connections_max`; one more is answered 503.
    pub streams_max: u32,
}

/// Metrics of connections; registered once.
#[derive(Clone, Debug)]
pub struct ConnectionMetrics {
    open: Gauge,
    refused: Counter,
    stalled: Counter,
    requests_refused: Counter,
    malformed: Counter,
    handshakes_failed: Counter,
}

impl ConnectionMetrics {
    /// Makes the metrics and adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            open: Gauge::default(),
            refused: Counter::default(),
            stalled: Counter::default(),
            requests_refused: Counter::default(),
            malformed: Counter::default(),
            handshakes_failed: Counter::default(),
        };
        let r = registry.sub_registry_with_prefix("http");
        r.register("connections", "Open connections", metrics.open.clone());
        r.register(
            "connections_refused",
            "Connections turned away because too many were open",
            metrics.refused.clone(),
        );
        r.register(
            "connections_stalled",
            "Connections closed because the peer took nothing of its answer",
            metrics.stalled.clone(),
        );
        r.register(
            "requests_refused",
            "Requests of HTTP/2 turned away because too many were open beside the first of their connections",
            metrics.requests_refused.clone(),
        );
        r.register(
            "requests_malformed",
            "Requests of HTTP/1 refused before the service saw them: not understood, or head too large",
            metrics.malformed.clone(),
        );
        registry.register(
            "tls_handshakes_failed",
            "Connections closed because their TLS handshake failed or took too long",
            metrics.handshakes_failed.clone(),
        );
        metrics
    }
}

/// How a listener serves.
#[derive(Clone, Debug)]
pub struct Serving {
    /// Bounds; looked at for every connection, so that the sender can change them at run time.
    pub limits: watch::Receiver<ConnectionLimits>,
    /// What is counted.
    pub metrics: ConnectionMetrics,
    /// Certificate and key; plain when there is none.
    pub tls: Option<Tls>,
    /// When to stop.
    pub stop: Stop,
}

/// A bound listener that does not serve yet. Connections that come already wait in its queue.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    /// The address really bound.
    pub address: SocketAddr,
}

impl Listener {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// The operating system's, with the address.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on {address}: {e}"));
        let listening = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // A restart need not wait for connections that its predecessor closed.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(WAITING_MAX)
        };
        Self::of(listening().map_err(named)?)
    }

    /// Takes a socket that is listened on already.
    ///
    /// # Errors
    /// The operating system's, when the socket has no address.
    pub fn of(socket: TcpListener) -> io::Result<Self> {
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Serves `router` until it is time to stop, then finishes the requests in flight, unless they are cut off.
    ///
    /// Whether requests say whom they ask is for [`HostRequired`] to see, a layer of the router.
    ///
    /// Every request carries the peer's address as [`axum::extract::ConnectInfo`]`<SocketAddr>`, [`OverTls`] when it
    /// came so, and the [`PeerCertificate`] when its client showed one, as extensions.
    pub async fn serve(self, router: Router, serving: Serving) {
        let mut tasks = JoinSet::new();
        let (open, beside, refusals) = (Arc::new(()), Arc::<AtomicUsize>::default(), Arc::new(()));
        let (mut failures, mut turned_away) = (Seldom::default(), Seldom::default());
        let mut until = serving.stop.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                () = until.stopped() => break,
                Some(_) = tasks.join_next() => continue,
                accepted = self.socket.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause(&error, &mut failures).await;
                    continue;
                }
            };
            let limits = *serving.limits.borrow();
            if taken(&open) < limits.connections_max {
                let slot = Slot::take(&open, &serving.metrics);
                let router = router.clone();
                let (serving, beside) = (serving.clone(), beside.clone());
                tasks.spawn(Connection { stream, peer, router, limits, serving, slot, beside }.run());
                continue;
            }
            serving.metrics.refused.inc();
            if let Some(suppressed) = turned_away.due() {
                let connections_max = limits.connections_max;
                tracing::warn!(connections_max, suppressed, "connection turned away, because too many are open");
            }
            if serving.tls.is_none() && taken(&refusals) < REFUSALS_MAX {
                let place = refusals.clone();
                tasks.spawn(async move {
                    refuse(stream).await;
                    drop(place);
                });
            }
        }
        drop(self.socket);
        tokio::select! {
            () = async { while tasks.join_next().await.is_some() {} } => return,
            () = until.cut_off() => {}
        }
        tasks.shutdown().await;
    }
}

/// How many places are taken: each holder has a clone.
fn taken(places: &Arc<()>) -> usize {
    Arc::strong_count(places) - 1
}

/// The place of an open connection among those allowed. Counted by holders and not by permits, so that the limit can
/// change.
#[derive(Debug)]
struct Slot {
    open: Gauge,
    _place: Arc<()>,
}

impl Slot {
    fn take(places: &Arc<()>, metrics: &ConnectionMetrics) -> Self {
        metrics.open.inc();
        Self { open: metrics.open.clone(), _place: places.clone() }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// What is logged once in a while, with the number of the others.
#[derive(Default)]
struct Seldom {
    logged: Option<Instant>,
    suppressed: u64,
}

impl Seldom {
    /// How many were left out since the last line, when it is time for the next.
    fn due(&mut self) -> Option<u64> {
        if self.logged.is_some_and(|logged| logged.elapsed() < WARNING_PERIOD) {
            self.suppressed += 1;
            return None;
        }
        self.logged = Some(Instant::now());
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// After a failure to accept.
async fn pause(error: &io::Error, failures: &mut Seldom) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        // The peer went away while it waited.
        return;
    }
    if let Some(suppressed) = failures.due() {
        tracing::warn!(error = crate::error_chain(error), suppressed, "connection not accepted");
    }
    // Out of file descriptors: give the open ones a chance to end.
    sleep(Duration::from_millis(50)).await;
}

/// Tells a client that there are too many; gives it a second to take the answer.
async fn refuse(mut stream: TcpStream) {
    const ANSWER: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let told = async {
        stream.write_all(ANSWER).await?;
        stream.shutdown().await?;
        // Closing with a request unread resets the connection, and the answer would be lost with it.
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    drop(timeout(Duration::from_secs(1), told).await);
}
