//! One connection, from its TLS handshake to its end.

use super::activity::{Activity, Answer};
use super::stall::StallGuard;
use super::{ConnectionLimits, ConnectionMetrics, PeerCertificate, Serving, Slot, Stop};
use axum::Router;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{Either, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::SockRef;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::Accept;
use tokio_rustls::server::TlsStream;
use tower::Service;

/// A peer of HTTP/2 is asked for a sign of life this often, and gets as long again for it.
const PING_PERIOD: Duration = Duration::from_secs(20);
/// The head of one request, over HTTP/2 decompressed. More is answered 431. Over HTTP/1 it is also what is read at once, so
/// that a head that arrives all at once may be larger, up to twice this; bodies do not come faster with more.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Headers of one request over HTTP/1; more are answered 431. Small ones do not fill a head before they are so many.
const HEADERS_MAX: usize = 1100;
/// What the kernel takes of answers beyond what it can send: a write then waits for the peer, and not for a buffer of
/// megabytes, behind which a peer that reads slowly looks like one that does not read.
const UNSENT_BYTES_MAX: u32 = 64 << 10;
/// Requests that the peer took back before they were looked at; more are an attack (rapid reset), and end the
/// connection.
const RESETS_WAITING_MAX: usize = 20;
/// When it is time to stop, a connection without a request gets this long for its first one: it may be on its way, and
/// a peer does not expect a connection that was accepted to be closed without an answer.
pub(super) const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// An extension of the requests that came over TLS. A request without it may have been encrypted up to a proxy: see
/// [`TrustedProxies::client_scheme`](crate::forwarded::TrustedProxies::client_scheme).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverTls;

/// A connection that was accepted and has its place among those allowed.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) router: Router,
    pub(super) limits: ConnectionLimits,
    pub(super) serving: Serving,
    pub(super) slot: Slot,
    /// How many requests there are beside the first of each connection.
    pub(super) beside: Arc<AtomicUsize>,
}

impl Connection {
    /// Serves it to its end.
    pub(super) async fn run(self) {
        let Self { stream, peer, router, limits, serving, slot, beside } = self;
        let first = Instant::now() + limits.head_timeout;
        // Without it, small answers wait for the peer's acknowledgement.
        drop(stream.set_nodelay(true));
        drop(SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX));
        let activity = Arc::new(Activity::default());
        let patience = limits.write_stall_timeout;
        let stream = StallGuard::new(stream, patience, serving.metrics.stalled.clone(), activity.clone());
        let acceptor = serving.tls.as_ref().map(super::Tls::acceptor);
        // IPv4 on a socket of both families reads as IPv6; to the service it is the same peer.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let over_tls = acceptor.is_some().then_some(OverTls);
        let http = Http { router, peer, over_tls, certificate: None, limits, first, activity, serving, beside };
        match acceptor {
            None => http.serve(stream).await,
            Some(acceptor) => match handshake(acceptor.accept(stream), first, http.serving.stop.clone()).await {
                Ok((stream, certificate)) => Http { certificate, ..http }.serve(stream).await,
                Err(error) => {
                    http.serving.metrics.handshakes_failed.inc();
                    tracing::debug!(error = crate::error_chain(&error), %peer, "tls handshake failed");
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
    over_tls: Option<OverTls>,
    certificate: Option<PeerCertificate>,
    limits: ConnectionLimits,
    /// When the first request must be there.
    first: Instant,
    activity: Arc<Activity>,
    serving: Serving,
    beside: Arc<AtomicUsize>,
}

impl Http {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) {
        let Self { router, peer, over_tls, certificate, limits, first, activity, serving, beside } = self;
        let (seen, metrics) = (activity.clone(), serving.metrics.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            let owed = seen.request();
            let place = seen.place(&beside, limits.connections_max);
            request.extensions_mut().insert(ConnectInfo(peer));
            if let Some(over_tls) = over_tls {
                request.extensions_mut().insert(over_tls);
            }
            if let Some(certificate) = &certificate {
                request.extensions_mut().insert(certificate.clone());
            }
            let answer = place.map(|place| (router.clone().call(request), place));
            if answer.is_none() {
                metrics.requests_refused.inc();
            }
            async move {
                let Some((answer, place)) = answer else { return Ok(too_many()) };
                let answer = answer.await;
                drop(owed);
                answer.map(|answer| answer.map(|body| Either::Left(Answer::new(body, place))))
            }
        });
        let builder = builder(&limits);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        // A set of one: it is looked at when it is woken, and not at each step of the connection.
        let leave = time_to_leave(serving.stop, &activity, first, limits.head_timeout);
        let mut leave = FuturesUnordered::from_iter([leave]);
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => Some(ended),
            Some(()) = leave.next() => None,
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
            told(error.as_ref(), peer, &serving.metrics);
        }
    }
}

/// Turns a request away for which there is no place, as whole connections are.
fn too_many() -> Response<Either<Answer, Empty<Bytes>>> {
    let mut answer = Response::new(Either::Right(Empty::new()));
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// A connection ended otherwise than in order.
fn told(error: &(dyn Error + 'static), peer: SocketAddr, metrics: &ConnectionMetrics) {
    if error.downcast_ref().is_some_and(hyper::Error::is_parse) {
        metrics.malformed.inc();
        tracing::debug!(error = crate::error_chain(error), %peer, "request refused");
    } else {
        tracing::debug!(error = crate::error_chain(error), %peer, "connection ended");
    }
}

/// The stream, when the handshake is done in time, and the certificate that the client showed.
async fn handshake<S>(
    accept: Accept<S>,
    first: Instant,
    mut stop: Stop,
) -> io::Result<(TlsStream<S>, Option<PeerCertificate>)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let over = async {
        tokio::select! {
            () = sleep_until(first) => {}
            () = stop.stopped() => sleep(FIRST_REQUEST_GRACE).await,
        }
    };
    let stream = tokio::select! {
        biased;
        done = accept => done?,
        () = over => return Err(io::ErrorKind::TimedOut.into()),
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let certificate = shown.map(PeerCertificate::read).transpose();
    // Who shows what cannot be read is not taken for somebody who showed nothing.
    let certificate = certificate.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok((stream, certificate))
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
    // The time for a head is watched by `Activity`: hyper would set a timer for each.
    builder.http1().max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_pending_accept_reset_streams(RESETS_WAITING_MAX)
        .keep_alive_interval(PING_PERIOD)
        .keep_alive_timeout(PING_PERIOD);
    builder
}
