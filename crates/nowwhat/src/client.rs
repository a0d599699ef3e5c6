//! Calls to other services over HTTP/1.1, made for the request being served: its id and its place in the trace go
//! along.
//!
//! Every call has a time limit that covers all of it, a limit of the answer's size, a place in the metrics under the
//! name of the service it asks, a span, and a line in the log at the level debug. Connections are kept for the next
//! call.
//!
//! An answer of any status is an answer, not an error. Redirects are not followed and nothing is repeated: whether a
//! call may be made twice only its caller knows; [`ClientError::is_retryable`] says when it would help. Over `https`
//! only the authorities of the file given to [`Client::with_ca`] are trusted, or the one certificate that
//! [`Client::with_certificate`] is told.

mod connector;

use crate::dependency::{DependencyMetrics, Outcome};
use crate::metrics::Label;
use crate::request::REQUEST_ID;
use crate::trace::{TRACEPARENT, TRACESTATE};
use crate::{current, otlp};
use bytes::Bytes;
use connector::{Connector, connector};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracing::{Instrument, Span, field};

/// Connections to one host that are kept while nothing uses them.
const IDLE_CONNECTIONS_MAX: usize = 32;
/// How long they are kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Bounds of a call.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// All of it: connecting, sending, waiting, reading the whole answer.
    pub timeout: Duration,
    /// The answer's body.
    pub body_bytes_max: usize,
}

/// Calls one other service. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    dependency: &'static str,
    limits: CallLimits,
    metrics: DependencyMetrics,
    http: legacy::Client<Connector, Full<Bytes>>,
    https: Https,
}

/// Whether addresses with `https` can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Https {
    Trusted,
    NoAuthorities,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status, of whatever kind.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub bytes: Bytes,
    dependency: &'static str,
}

/// An answer whose head is there and whose body is on its way.
#[derive(Debug)]
pub struct Arriving {
    /// The status, of whatever kind.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: Incoming,
    end: tokio::time::Instant,
    timeout: Duration,
    dependency: &'static str,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address cannot be asked at all.
    #[error("cannot ask {dependency}: its address must be absolute, such as http://127.0.0.1:8080/path")]
    Address {
        /// Who was to be asked.
        dependency: &'static str,
    },
    /// An address with `https`, and nobody to trust.
    #[error(
        "cannot ask {dependency} over https: give a file of certificate authorities to the client, on Debian \
         /etc/ssl/certs/ca-certificates.crt"
    )]
    NoAuthorities {
        /// Who was to be asked.
        dependency: &'static str,
    },
    /// No connection.
    #[error("cannot reach {dependency}")]
    Connect {
        /// Who was asked.
        dependency: &'static str,
        /// Why.
        source: legacy::Error,
    },
    /// It took too long.
    #[error("{dependency} did not answer within {timeout:?}")]
    Timeout {
        /// Who was asked.
        dependency: &'static str,
        /// The limit.
        timeout: Duration,
    },
    /// The connection ended before the answer did, or what came is not HTTP; with a hint when it may be TLS.
    #[error("the answer of {dependency} ended early")]
    Broken {
        /// Who was asked.
        dependency: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer is too large.
    #[error("the answer of {dependency} is larger than {body_bytes_max} bytes")]
    TooLarge {
        /// Who was asked.
        dependency: &'static str,
        /// The limit.
        body_bytes_max: usize,
    },
    /// The answer is not what was expected.
    #[error("the answer of {dependency}, with status {status}, is not the JSON expected")]
    Json {
        /// Who was asked.
        dependency: &'static str,
        /// The status.
        status: StatusCode,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl ClientError {
    /// Whether the same call can end better a little later. The other service may have done its work already.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Timeout { .. } | Self::Broken { .. })
    }

    /// Whether nothing was sent, so that the other service has done nothing of the call.
    pub fn is_unsent(&self) -> bool {
        matches!(self, Self::Address { .. } | Self::NoAuthorities { .. } | Self::Connect { .. })
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Address { .. } | Self::NoAuthorities { .. } => Outcome::NotAsked,
            Self::Connect { .. } => Outcome::Connect,
            Self::Timeout { .. } => Outcome::Timeout,
            Self::Broken { .. } => Outcome::Broken,
            Self::TooLarge { .. } => Outcome::TooLarge,
            Self::Json { .. } => Outcome::NotJson,
        }
    }
}

/// What answered a call with `http` is not HTTP.
#[derive(Debug, thiserror::Error)]
#[error("what answers there does not speak plain HTTP: if it speaks TLS, ask it with https://")]
struct NotHttp(#[source] legacy::Error);

/// Why certificate authorities cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The file is not there, not readable, or not PEM.
    #[error("cannot read the certificate authorities in {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: tokio_rustls::rustls::pki_types::pem::Error,
    },
    /// No certificate in it can be used.
    #[error("no certificate authority in {}: give a file with certificates as PEM", path.display())]
    None {
        /// The file.
        path: PathBuf,
    },
}

/// Whether authorities can be trusted for calls. Blocks while it reads.
pub(crate) fn check_ca(path: &Path) -> Result<(), CaError> {
    connector(path).map(drop)
}

impl Client {
    /// A client of the service called `dependency`, for addresses with `http`.
    pub fn new(dependency: &'static str, limits: CallLimits, metrics: &DependencyMetrics) -> Self {
        metrics.begin(dependency);
        let http = pool(Connector::plain());
        Self { dependency, limits, metrics: metrics.clone(), http, https: Https::NoAuthorities }
    }

    /// The same client for addresses with `https` too: servers are trusted whose certificate comes from an authority in
    /// the file, PEM. The file is read once.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn with_ca(self, path: &Path) -> Result<Self, CaError> {
        Ok(Self { http: pool(connector(path)?), https: Https::Trusted, ..self })
    }

    /// The same client for addresses with `https` too, where a server is known by the certificate itself: the one is
    /// trusted that `known` tells, in DER, whenever a connection is opened. Names, times and authorities do not count.
    /// `known` must not wait.
    #[must_use]
    pub fn with_certificate(self, known: impl Fn() -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self { http: pool(Connector::knowing(known)), https: Https::Trusted, ..self }
    }

    /// Asks with GET.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get(&self, url: &str) -> Result<Answer, ClientError> {
        let request = Request::get(url).body(Bytes::new());
        self.request(request.map_err(|_| self.no_address())?).await
    }

    /// Sends `body` with POST.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post(&self, url: &str, body: Bytes, content_type: &'static str) -> Result<Answer, ClientError> {
        let request =
            Request::post(url).header(header::CONTENT_TYPE, HeaderValue::from_static(content_type)).body(body);
        self.request(request.map_err(|_| self.no_address())?).await
    }

    /// Sends any request. User and password in its address are left out: say them in a header. Headers that the caller set itself are not
    /// replaced by those of the request being served.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn request(&self, request: Request<Bytes>) -> Result<Answer, ClientError> {
        let body_bytes_max = self.limits.body_bytes_max;
        self.call(request, |arriving| arriving.whole(body_bytes_max)).await
    }

    /// Sends any request for an answer that is too large to be held: it comes part by part, of any size. What is measured is the time
    /// until its head.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn begin(&self, request: Request<Bytes>) -> Result<Arriving, ClientError> {
        self.call(request, |arriving| std::future::ready(Ok(arriving))).await
    }

    async fn call<T, R>(&self, mut request: Request<Bytes>, rest: impl FnOnce(Arriving) -> R) -> Result<T, ClientError>
    where
        R: Future<Output = Result<T, ClientError>>,
    {
        if let Some(plain) = without_user(request.uri()) {
            *request.uri_mut() = plain;
        }
        let (dependency, method) = (self.dependency, request.method().clone());
        let span = tracing::info_span!(
            "call",
            dependency,
            otel.kind = "client",
            otel.name = %format_args!("{method} {dependency}"),
            otel.status_code = field::Empty
        );
        self.counted(request, rest, &span).instrument(span.clone()).await
    }

    async fn counted<T, R>(
        &self,
        mut request: Request<Bytes>,
        rest: impl FnOnce(Arriving) -> R,
        span: &Span,
    ) -> Result<T, ClientError>
    where
        R: Future<Output = Result<T, ClientError>>,
    {
        pass_on(request.headers_mut());
        let (dependency, method, address) = (self.dependency, request.method().clone(), shown(request.uri()));
        let started = Instant::now();
        let (status, answered) = match self.arriving(request).await {
            Ok(arriving) => (Some(arriving.status), rest(arriving).await),
            Err(error) => (None, Err(error)),
        };
        let time = started.elapsed();
        let outcome = match (&answered, status) {
            (Err(error), _) => error.outcome(),
            (_, Some(status)) if status.is_server_error() => Outcome::ServerError,
            (_, Some(status)) if status.is_client_error() => Outcome::ClientError,
            _ => Outcome::Success,
        };
        self.metrics.ended(span, dependency, outcome, time);
        let (status, duration_ms) = (status.map(|status| status.as_u16()), current::millis(time));
        tracing::debug!(dependency, %method, address, status, outcome = outcome.value(), duration_ms, "call");
        answered
    }

    /// The answer as soon as its head is there.
    async fn arriving(&self, request: Request<Bytes>) -> Result<Arriving, ClientError> {
        let dependency = self.dependency;
        match (request.uri().scheme_str(), self.https) {
            (Some("http"), _) | (Some("https"), Https::Trusted) => {}
            (Some("https"), Https::NoAuthorities) => return Err(ClientError::NoAuthorities { dependency }),
            _ => return Err(self.no_address()),
        }
        let is_plain = request.uri().scheme() == Some(&Scheme::HTTP);
        let CallLimits { timeout, .. } = self.limits;
        let end = tokio::time::Instant::now() + timeout;
        let asked = tokio::time::timeout_at(end, self.http.request(request.map(Full::new))).await;
        let response = asked.map_err(|_| ClientError::Timeout { dependency, timeout })?;
        let (head, body) = response
            .map_err(|source| match source.is_connect() {
                true => ClientError::Connect { dependency, source },
                false if is_plain && is_not_http(&source) => {
                    ClientError::Broken { dependency, source: NotHttp(source).into() }
                }
                false => ClientError::Broken { dependency, source: source.into() },
            })?
            .into_parts();
        Ok(Arriving { status: head.status, headers: head.headers, body, end, timeout, dependency })
    }

    fn no_address(&self) -> ClientError {
        ClientError::Address { dependency: self.dependency }
    }
}

impl Arriving {
    /// The next part of the body; none at its end.
    ///
    /// # Errors
    /// [`ClientError`]: what came before is not all of it.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let Self { dependency, timeout, .. } = *self;
        loop {
            let frame = tokio::time::timeout_at(self.end, self.body.frame()).await;
            match frame.map_err(|_| ClientError::Timeout { dependency, timeout })? {
                None => return Ok(None),
                Some(Err(source)) => return Err(ClientError::Broken { dependency, source: source.into() }),
                // Anything but data is a trailer.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// All of it, of at most this size.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn whole(self, body_bytes_max: usize) -> Result<Answer, ClientError> {
        let Self { status, headers, body, end, timeout, dependency } = self;
        let body = tokio::time::timeout_at(end, Limited::new(body, body_bytes_max).collect()).await;
        let body = body.map_err(|_| ClientError::Timeout { dependency, timeout })?;
        let body = body.map_err(|source| match source.is::<LengthLimitError>() {
            true => ClientError::TooLarge { dependency, body_bytes_max },
            false => ClientError::Broken { dependency, source },
        })?;
        Ok(Answer { status, headers, bytes: body.to_bytes(), dependency })
    }
}

impl Answer {
    /// The body as JSON, whatever the status.
    ///
    /// # Errors
    /// [`ClientError::Json`].
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, ClientError> {
        let Self { status, dependency, .. } = *self;
        serde_json::from_slice(&self.bytes).map_err(|source| ClientError::Json { dependency, status, source })
    }
}

fn pool(connector: Connector) -> legacy::Client<Connector, Full<Bytes>> {
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .build(connector)
}

/// Whether what came cannot be read as an answer at all.
fn is_not_http(error: &legacy::Error) -> bool {
    error.source().and_then(|cause| cause.downcast_ref()).is_some_and(hyper::Error::is_parse)
}

/// Tells the other service for which request it is asked.
fn pass_on(headers: &mut HeaderMap) {
    let current = current::get();
    // The span of this call, when spans are exported: the other service's work belongs under it.
    let trace = otlp::context_of(&Span::current()).or(current.as_ref().and_then(|c| c.trace));
    let (id, state) = current.map_or((None, None), |c| (Some(c.id.clone()), c.tracestate.clone()));
    let told = [(&REQUEST_ID, id), (&TRACEPARENT, trace.map(|t| t.header())), (&TRACESTATE, state)];
    for (name, value) in told {
        if let Some(value) = value {
            headers.entry(name).or_insert(value);
        }
    }
}

/// The address without user and password, when it has them: nobody is sent them, and the libraries below would log them.
fn without_user(uri: &Uri) -> Option<Uri> {
    let (_, host) = uri.authority()?.as_str().rsplit_once('@')?;
    let mut parts = uri.clone().into_parts();
    parts.authority = Some(host.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// An address without what may be secret in it: user, password and query.
fn shown(uri: &Uri) -> String {
    let host = uri.authority().map_or("", |a| a.as_str().rsplit('@').next().unwrap_or_default());
    format!("{}://{host}{}", uri.scheme_str().unwrap_or_default(), uri.path())
}

#[cfg(test)]
mod tests;
