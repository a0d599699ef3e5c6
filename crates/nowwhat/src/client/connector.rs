//! Connections for the client: TCP, and TLS by rustls over it for addresses with `https`.

mod known;

use super::CaError;
use crate::small_file::{self, Readable};
use futures::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use known::Known;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, ConfigBuilder, Error as TlsError, RootCertStore, WantsVerifier,
};
use tokio_util::either::Either;
use tower::Service;

/// How long opening a connection may take, and the TLS handshake over it as long again, also in a call that may take longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes connections; with TLS when it has somebody to trust.
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector,
    tls: Option<TlsConnector>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

impl Connector {
    /// For addresses with `http`.
    pub(super) fn plain() -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        // Without it, small requests wait for the peer's acknowledgement.
        tcp.set_nodelay(true);
        // A host that is away is told from one that takes its time.
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        Self { tcp, tls: None }
    }

    /// For addresses with `https` too, of a server whose certificate `known` tells.
    pub(super) fn knowing(known: impl Fn() -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let config = builder().dangerous().with_custom_certificate_verifier(Arc::new(Known::new(known)));
        Self::over_tls(config.with_no_client_auth())
    }

    fn over_tls(mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { tls: Some(TlsConnector::from(Arc::new(config))), ..Self::plain() }
    }
}

fn builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring offers what the default versions need")
}

/// A connector that trusts the authorities in a file.
pub(super) fn connector(path: &Path) -> Result<Connector, CaError> {
    let unreadable = |source| CaError::Read { path: path.to_owned(), source };
    let text = small_file::read(path, Readable::Regular).map_err(|error| unreadable(PemError::Io(error)))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(unreadable)?;
    let mut roots = RootCertStore::empty();
    // A bundle may hold a certificate that rustls does not take; the others are still good.
    let (usable, _) = roots.add_parsable_certificates(certificates);
    if usable == 0 {
        return Err(CaError::None { path: path.to_owned() });
    }
    Ok(Connector::over_tls(builder().with_root_certificates(roots).with_no_client_auth()))
}

impl Service<Uri> for Connector {
    type Response = Wire;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Wire, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.tls.clone().filter(|_| uri.scheme_str() == Some("https"));
        // An IPv6 address stands in brackets in an address, and without them in a certificate.
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let connecting = self.tcp.call(uri);
        Box::pin(async move {
            let tcp = connecting.await?.into_inner();
            let stream = match tls {
                Some(tls) => {
                    let shaking = tokio::time::timeout(CONNECT_TIMEOUT, tls.connect(ServerName::try_from(host)?, tcp));
                    Either::Right(shaking.await.map_err(|_| NoHandshake::Silent)?.map_err(of_handshake)?)
                }
                None => Either::Left(tcp),
            };
            Ok(Wire(TokioIo::new(stream)))
        })
    }
}

/// Why there is no TLS over a connection that was opened.
#[derive(Debug, thiserror::Error)]
enum NoHandshake {
    #[error("no TLS handshake within {CONNECT_TIMEOUT:?}")]
    Silent,
    #[error("what answers there does not speak TLS: if it is plain HTTP, ask it with http://")]
    NotTls(#[source] io::Error),
    #[error("what answers there shows another certificate than the one that it is known by: it may be another program")]
    Another,
}

/// rustls says of an answer that is no TLS that it is corrupt; nobody thinks of the address then.
fn of_handshake(error: io::Error) -> Box<dyn std::error::Error + Send + Sync> {
    let why = error.get_ref().and_then(|why| why.downcast_ref());
    match why {
        Some(TlsError::InvalidMessage(_)) => NoHandshake::NotTls(error).into(),
        Some(TlsError::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => {
            NoHandshake::Another.into()
        }
        _ => error.into(),
    }
}

/// An open connection.
pub(super) struct Wire(TokioIo<Either<TcpStream, TlsStream<TcpStream>>>);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
