//! One connection, from its TLS handshake to its end.

use super::activity::{Activity, Answer};
use super::stall::StallGuard;
use super::{ConnectionLimits, Serving, Slot, Stop};
use axum::Router;
use axum::extract::ConnectInfo;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::Accept;
use tokio_rustls::server::TlsStream;
use tower::Service;

/// A peer of HTTP/2 is asked for a sign of life this often, and gets as long again for it.
const PING_PERIOD: Duration = Duration::from_secs(20);
/// The heads of one HTTP/2 request, decompressed.
const HEAD_BYTES_MAX: u32 = 64 << 10;
/// Requests that the peer took back before they were looked at; more are an attack (rapid reset), and end the
/// connection.
const RESETS_WAITING_MAX: usize = 20;
/// When it is time to stop, a connection without a request gets this long for its first one: it may be on its way, and
/// a peer does not expect a connection that was accepted to be closed without an answer.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// How a request came: an extension of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Not encrypted, as far as this process can know: a proxy before it may have taken the encryption off.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As in a URL: `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A connection that was accepted and has its place among those allowed.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) router: Router,
    pub(super) limits: ConnectionLimits,
    pub(super) serving: Serving,
    pub(super) slot: Slot,
}

impl Connection {
    /// Serves it to its end.
    pub(super) async fn run(self) {
        let Self { stream, peer, router, limits, serving, slot } = self;
        let first = Instant::now() + limits.head_timeout;
        // Without it, small answers wait for the peer's acknowledgement.
        drop(stream.set_nodelay(true));
        let activity = Arc::new(Activity::default());
        let patience = limits.write_stall_timeout;
        let stream = StallGuard::new(stream, patience, serving.metrics.stalled.clone(), activity.clone());
        let acceptor = serving.tls.as_ref().map(super::Tls::acceptor);
        // IPv4 on a socket of both families reads as IPv6; to the service it is the same peer.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let scheme = if acceptor.is_some() { Scheme::Https } else { Scheme::Http };
        let http = Http { router, peer, scheme, limits, first, activity, serving };
        match acceptor {
            None => http.serve(stream).await,
            Some(acceptor) => match handshake(acceptor.accept(stream), first, http.serving.stop.clone()).await {
                Ok(stream) => http.serve(stream).await,
                Err(error) => {
                    http.serving.metrics.handshakes_failed.inc();
                    tracing::debug!(%error, %peer, "tls handshake failed");
                }
            },
        }
        drop(slot);
    }
}

/// What is known once the stream is there.
struct Http {
    router: Router,
    peer: SocketAddr,
    scheme: Scheme,
    limits: ConnectionLimits,
    /// When the first request must be there.
    first: Instant,
    activity: Arc<Activity>,
    serving: Serving,
}

impl Http {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) {
        let Self { router, peer, scheme, limits, first, activity, serving } = self;
        let seen = activity.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let owed = seen.request(request.version());
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(scheme);
            let answer = router.clone().call(request);
            let seen = seen.clone();
            async move {
                let answer = answer.await;
                drop(owed);
                answer.map(|answer| answer.map(|body| Answer::new(body, seen)))
            }
        });
        let builder = builder(&limits);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => Some(ended),
            () = time_to_leave(serving.stop, &activity, first, limits.head_timeout) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            // Nothing was asked, so nothing is owed: not even a goodbye that the peer may not take.
            None if activity.requests() == 0 => return,
            None => {
                connection.as_mut().graceful_shutdown();
                let patience = limits.write_stall_timeout;
                tokio::select! {
                    biased;
                    ended = connection.as_mut() => ended,
                    () = activity.idle(Instant::now(), patience) => {
                        serving.metrics.stalled.inc();
                        Ok(())
                    }
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error, %peer, "connection ended");
        }
    }
}

/// The stream, when the handshake is done in time.
async fn handshake<S>(accept: Accept<S>, first: Instant, mut stop: Stop) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let over = async {
        tokio::select! {
            () = sleep_until(first) => {}
            () = stop.stopped() => sleep(FIRST_REQUEST_GRACE).await,
        }
    };
    tokio::select! {
        biased;
        done = accept => done,
        () = over => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Returns when the connection shall take no more requests.
async fn time_to_leave(mut stop: Stop, activity: &Activity, first: Instant, head_timeout: Duration) {
    tokio::select! {
        () = stop.stopped() => drop(timeout(FIRST_REQUEST_GRACE, activity.first_request()).await),
        () = activity.idle(first, head_timeout) => {}
    }
}

fn builder(limits: &ConnectionLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.head_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_pending_accept_reset_streams(RESETS_WAITING_MAX)
        .keep_alive_interval(PING_PERIOD)
        .keep_alive_timeout(PING_PERIOD);
    builder
}
