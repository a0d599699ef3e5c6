//! Listeners with limits, and orderly stopping.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::task::TaskTracker;

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Open connections; one more is answered 503 and closed.
    pub connections_max: usize,
    /// A connection that has not sent the head of its next request after this long is closed.
    pub head_timeout: Duration,
}

/// Metrics of connections; registered once.
#[derive(Clone, Debug)]
pub struct ConnectionMetrics {
    open: Gauge,
    refused: Counter,
}

impl ConnectionMetrics {
    /// Makes the metrics and adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self { open: Gauge::default(), refused: Counter::default() };
        let r = registry.sub_registry_with_prefix("http");
        r.register("connections", "Open connections", metrics.open.clone());
        r.register(
            "connections_refused",
            "Connections turned away because too many were open",
            metrics.refused.clone(),
        );
        metrics
    }
}

/// A bound listener that does not serve yet.
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
        let socket = TcpListener::bind(address).await.map_err(named)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Serves `router` until `stop` is true, then finishes the requests in flight.
    pub async fn serve(self, router: Router, limits: ConnectionLimits, metrics: ConnectionMetrics, stop: Stop) {
        let permits = Arc::new(Semaphore::new(limits.connections_max));
        let tasks = TaskTracker::new();
        let mut until = stop.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                () = until.stopped() => break,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => match permits.clone().try_acquire_owned() {
                    Ok(permit) => {
                        let connection = Connection { stream, router: router.clone(), limits, permit };
                        tasks.spawn(connection.run(metrics.clone(), stop.clone()));
                    }
                    Err(_) => {
                        metrics.refused.inc();
                        tasks.spawn(refuse(stream));
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    // Out of file descriptors: give the open ones a chance to end.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(self.socket);
        tasks.close();
        tasks.wait().await;
    }
}

struct Connection {
    stream: TcpStream,
    router: Router,
    limits: ConnectionLimits,
    permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, metrics: ConnectionMetrics, mut stop: Stop) {
        metrics.open.inc();
        // Without it, small answers wait for the peer's acknowledgement.
        drop(self.stream.set_nodelay(true));
        let service = TowerToHyperService::new(self.router);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_timeout)
            .serve_connection(TokioIo::new(self.stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.stopped() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
        }
        metrics.open.dec();
        drop(self.permit);
    }
}

/// Tells a client that there are too many; gives it a second to take the answer.
async fn refuse(mut stream: TcpStream) {
    const ANSWER: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let told = async {
        stream.write_all(ANSWER).await?;
        stream.shutdown().await
    };
    drop(tokio::time::timeout(Duration::from_secs(1), told).await);
}

/// Tells everyone to stop. Made by [`stop_signal`].
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Knows when to stop.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// A pair: one side tells, the other knows.
pub fn stop_signal() -> (Stopper, Stop) {
    let (tell, know) = watch::channel(false);
    (Stopper(tell), Stop(know))
}

impl Stopper {
    /// Tells everyone.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Returns when it is time to stop.
    pub async fn stopped(&mut self) {
        // A stopper that is gone means the same.
        drop(self.0.wait_for(|stop| *stop).await);
    }
}

/// The signals that ask the process to end: SIGTERM and SIGINT. From the moment this is made none is lost: one that comes while nobody
/// waits is told at the next call of [`Termination::next`].
#[derive(Debug)]
pub struct Termination {
    term: Signal,
    int: Signal,
}

impl Termination {
    /// Begins to watch.
    ///
    /// # Errors
    /// The operating system's, when signals cannot be watched.
    pub fn watch() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// The name of the next signal.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_that_comes_while_nobody_waits_is_told_afterwards() {
        let mut termination = Termination::watch().expect("signals can be watched");
        for name in ["SIGTERM", "SIGINT"] {
            let number = if name == "SIGTERM" { rustix::process::Signal::TERM } else { rustix::process::Signal::INT };
            rustix::process::kill_process(rustix::process::getpid(), number).expect("the process is ours");
            // Other work goes on meanwhile.
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(termination.next().await, name);
        }
    }
}
