//! What a call tells, and where it ends.

use super::*;
use crate::current::{Current, scope};
use crate::trace::{Sampled, TraceContext};
use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::{get, post};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

const LIMITS: CallLimits = CallLimits { timeout: Duration::from_secs(20), body_bytes_max: 1000 };

fn client(limits: CallLimits) -> (Client, Registry) {
    let mut registry = Registry::default();
    let metrics = DependencyMetrics::register(&mut registry);
    (Client::new("billing", limits, &metrics), registry)
}

/// Calls that ended with `outcome`, by the exposition.
fn calls(registry: &Registry, outcome: &str) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).expect("a text");
    let name = format!("dependency_duration_seconds_count{{dependency=\"billing\",outcome=\"{outcome}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().expect("a count"))
}

/// Answers with the headers it got.
async fn echo(headers: HeaderMap) -> axum::Json<BTreeMap<String, String>> {
    let text = |value: &HeaderValue| value.to_str().expect("ASCII").to_owned();
    axum::Json(headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect())
}

async fn service() -> String {
    let router = Router::new()
        .route("/headers", get(echo))
        .route("/body", post(|body: Bytes| async move { body }))
        .route("/peer", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }))
        .route("/never", get(std::future::pending::<String>))
        .route(
            "/status/{status}",
            get(|axum::extract::Path(s): axum::extract::Path<u16>| async move {
                StatusCode::from_u16(s).expect("a status")
            }),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    format!("http://{address}")
}

/// Accepts connections, answers the first request with `bytes`, and closes, or keeps open.
async fn rude_service(bytes: &'static [u8], after: After) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            assert!(stream.read(&mut [0; 4096]).await.expect("a request") > 0);
            stream.write_all(bytes).await.expect("written");
            match after {
                After::Close => drop(stream.shutdown().await),
                After::KeepOpen => kept.push(stream),
            }
        }
    });
    format!("http://{address}/")
}

#[derive(Clone, Copy)]
enum After {
    Close,
    KeepOpen,
}

#[tokio::test]
async fn a_call_tells_for_which_request_it_is_made() {
    let url = service().await + "/headers";
    let (client, registry) = client(LIMITS);
    let trace = TraceContext::random(Sampled::Yes);
    let current = Current::of("order-17", trace, Some(HeaderValue::from_static("vendor=1")));
    let within = scope(current.clone(), client.get(&url)).await.expect("an answer");
    let told: Value = within.json().expect("JSON");
    assert_eq!(told["x-request-id"], "order-17");
    assert_eq!(told["traceparent"], trace.to_string());
    assert_eq!(told["tracestate"], "vendor=1");

    let request = Request::get(&url).header("x-request-id", "mine").body(Bytes::new()).expect("a request");
    let own: Value = scope(current, client.request(request)).await.expect("an answer").json().expect("JSON");
    assert_eq!((&own["x-request-id"], &own["tracestate"]), (&Value::from("mine"), &Value::from("vendor=1")));

    let outside: Value = client.get(&url).await.expect("an answer").json().expect("JSON");
    assert_eq!((&outside["x-request-id"], &outside["traceparent"]), (&Value::Null, &Value::Null));
    assert_eq!(calls(&registry, "success"), 3);
}

#[tokio::test]
async fn an_answer_of_any_status_is_an_answer_and_counted_by_its_kind() {
    let url = service().await;
    let (client, registry) = client(LIMITS);
    let posted = client.post(&format!("{url}/body"), Bytes::from_static(b"loaves"), "text/plain").await;
    let posted = posted.expect("an answer");
    assert_eq!((posted.status, &posted.bytes[..]), (StatusCode::OK, &b"loaves"[..]));
    for (status, outcome) in [(404, "client_error"), (503, "server_error")] {
        let answer = client.get(&format!("{url}/status/{status}")).await.expect("an answer");
        assert_eq!(answer.status, status);
        assert_eq!(calls(&registry, outcome), 1, "{outcome}");
        let no_json = answer.json::<Value>().expect_err("an empty body");
        assert!(no_json.to_string().contains(&format!("billing, with status {status}")), "{no_json}");
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    let url = service().await + "/peer";
    let (client, _registry) = client(LIMITS);
    let first = client.get(&url).await.expect("an answer").bytes;
    let second = client.clone().get(&url).await.expect("an answer").bytes;
    assert_eq!(first, second);
}

#[tokio::test]
async fn the_time_limit_covers_the_whole_answer() {
    let (client, registry) = client(CallLimits { timeout: Duration::from_millis(100), ..LIMITS });
    let half = rude_service(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", After::KeepOpen).await;
    for url in [service().await + "/never", half] {
        let error = client.get(&url).await.expect_err("no answer in time");
        assert!(matches!(error, ClientError::Timeout { .. }) && error.is_retryable(), "{error:?}");
        assert_eq!(error.to_string(), "billing did not answer within 100ms");
    }
    assert_eq!(calls(&registry, "timeout"), 2);
}

#[tokio::test]
async fn what_goes_wrong_is_told_apart() {
    let (client, registry) = client(LIMITS);
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let refused = client.get(&format!("http://{free}/")).await.expect_err("nobody listens");
    assert!(matches!(refused, ClientError::Connect { .. }) && refused.is_retryable(), "{refused:?}");
    assert!(refused.is_unsent(), "{refused:?}");

    let half = rude_service(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", After::Close).await;
    let other = rude_service(b"SSH-2.0-OpenSSH\r\n\r\n", After::Close).await;
    for url in [half, other] {
        let broken = client.get(&url).await.expect_err("half an answer");
        assert!(matches!(broken, ClientError::Broken { .. }) && broken.is_retryable(), "{broken:?}");
        assert!(!broken.is_unsent(), "{broken:?}");
    }

    let url = service().await + "/body";
    assert_eq!(client.post(&url, vec![b'x'; 1000].into(), "a/b").await.expect("as large as may be").bytes.len(), 1000);
    let large = client.post(&url, vec![b'x'; 1001].into(), "a/b").await.expect_err("too large");
    assert!(matches!(large, ClientError::TooLarge { .. }) && !large.is_retryable(), "{large:?}");

    for url in ["/path", "ftp://127.0.0.1/", "", "http://"] {
        let error = client.get(url).await.expect_err("no address");
        assert!(matches!(error, ClientError::Address { .. }) && !error.is_retryable(), "{url:?}: {error:?}");
        assert!(error.is_unsent(), "{error:?}");
    }
    let outcomes = ["connect", "broken", "too_large"].map(|outcome| calls(&registry, outcome));
    assert_eq!(outcomes, [1, 2, 1]);
}

#[test]
fn an_address_is_shown_without_what_may_be_secret() {
    let uri = Uri::from_static("https://me:hidden@127.0.0.1:8443/path?token=hidden");
    assert_eq!(shown(&uri), "https://127.0.0.1:8443/path");
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

fn named(name: &str) -> CertificateParams {
    CertificateParams::new([name.to_owned()]).expect("a name")
}

/// A service with a certificate for 127.0.0.1 by `authority`.
async fn tls_service(authority: &CertifiedIssuer<'static, KeyPair>) -> SocketAddr {
    tls_service_with(authority, "127.0.0.1").await.0
}

/// A service with a certificate for `name`, and that.
async fn tls_service_with(
    authority: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
) -> (SocketAddr, CertificateDer<'static>) {
    let key = KeyPair::generate().expect("a key");
    let certificate: CertificateDer<'static> = named(name).signed_by(&key, authority).expect("a certificate").into();
    let config = ServerConfig::builder_with_provider(Arc::new(tokio_rustls::rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .expect("a key that fits");
    (serving(config).await, certificate)
}

async fn serving(config: ServerConfig) -> SocketAddr {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust us goes away here.
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let service = TowerToHyperService::new(Router::new().route("/headers", get(echo)));
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

#[tokio::test]
async fn over_https_only_the_given_authorities_are_trusted() {
    let (ours, theirs) = (authority(), authority());
    let address = tls_service(&ours).await;
    let url = format!("https://{address}/headers");
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let trusting = |path: &Path| client(LIMITS).0.with_ca(path);

    let none = client(LIMITS).0.get(&url).await.expect_err("nobody to trust");
    assert!(none.to_string().contains("give a file of certificate authorities"), "{none}");

    let client = trusting(&file("ours.pem", ours.pem())).expect("authorities");
    let answer = client.get(&url).await.expect("an answer");
    assert_eq!(answer.json::<Value>().expect("JSON")["host"], address.to_string());
    let plain = client.get(&(service().await + "/headers")).await.expect("plain addresses still work");
    assert_eq!(plain.status, StatusCode::OK);

    let stranger = trusting(&file("theirs.pem", theirs.pem())).expect("authorities");
    let error = stranger.get(&url).await.expect_err("a stranger");
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
    let name = client.get(&format!("https://localhost:{}/headers", address.port())).await.expect_err("another name");
    assert!(crate::error_chain(&name).contains("certificate"), "{}", crate::error_chain(&name));

    let missing = trusting(&folder.path().join("missing.pem")).expect_err("no file");
    assert!(matches!(missing, CaError::Read { .. }), "{missing:?}");
    let empty = trusting(&file("empty.pem", "nothing".to_owned())).expect_err("no certificate");
    assert!(empty.to_string().starts_with("no certificate authority in "), "{empty}");
}

#[tokio::test]
async fn a_server_is_known_by_its_certificate_alone_and_by_what_is_told_when_a_connection_is_opened() {
    let ours = authority();
    let (address, served) = tls_service_with(&ours, "another.example").await;
    let url = format!("https://{address}/headers");
    let known = Arc::new(Mutex::new(None));
    let told = known.clone();
    let client = client(LIMITS).0.with_certificate(move || told.lock().expect("whole").clone());
    let refused = async || {
        let error = client.get(&url).await.expect_err("it is not known");
        assert!(matches!(error, ClientError::Connect { .. }) && error.is_unsent(), "{error:?}");
        assert!(crate::error_chain(&error).contains("shows another certificate"), "{}", crate::error_chain(&error));
    };
    refused().await;
    // That of the authority which signed it is another one.
    *known.lock().expect("whole") = Some(ours.der().to_vec());
    refused().await;
    *known.lock().expect("whole") = Some(served.to_vec());
    assert_eq!(client.get(&url).await.expect("an answer").status, StatusCode::OK);
}

#[tokio::test]
async fn who_shows_a_known_certificate_without_its_key_is_refused() {
    for version in [&tokio_rustls::rustls::version::TLS12, &tokio_rustls::rustls::version::TLS13] {
        let (ours, key) = (authority(), KeyPair::generate().expect("a key"));
        let certificate = named("127.0.0.1").signed_by(&key, &ours).expect("a certificate");
        let thief = KeyPair::generate().expect("a key");
        let ring = tokio_rustls::rustls::crypto::ring::default_provider();
        let stolen = Stolen(Arc::new(CertifiedKey::new(
            vec![certificate.der().clone()],
            ring.key_provider.load_private_key(PrivatePkcs8KeyDer::from(thief.serialize_der()).into()).expect("a key"),
        )));
        let config = ServerConfig::builder_with_provider(Arc::new(ring)).with_protocol_versions(&[version]);
        let config = config.expect("a version").with_no_client_auth().with_cert_resolver(Arc::new(stolen));
        let address = serving(config).await;
        let served = certificate.der().to_vec();
        let client = client(LIMITS).0.with_certificate(move || Some(served.clone()));
        let error = client.get(&format!("https://{address}/headers")).await.expect_err("it has no key");
        assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
        assert!(crate::error_chain(&error).contains("BadSignature"), "{}", crate::error_chain(&error));
    }
}

/// Shows a certificate, and signs with another key.
#[derive(Debug)]
struct Stolen(Arc<CertifiedKey>);

impl ResolvesServerCert for Stolen {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

#[tokio::test]
async fn an_address_with_the_other_scheme_is_named_as_such() {
    let ours = authority();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ours.pem");
    std::fs::write(&path, ours.pem()).expect("written");
    let client = client(LIMITS).0.with_ca(&path).expect("authorities");
    let over_tls = tls_service(&ours).await;
    let plain = client.get(&format!("http://{over_tls}/headers")).await.expect_err("it speaks TLS");
    assert!(matches!(plain, ClientError::Broken { .. }), "{plain:?}");
    assert!(crate::error_chain(&plain).contains("ask it with https://"), "{}", crate::error_chain(&plain));

    let url = service().await.replace("http://", "https://") + "/headers";
    let tls = client.get(&url).await.expect_err("it speaks plain HTTP");
    assert!(matches!(tls, ClientError::Connect { .. }) && tls.is_unsent(), "{tls:?}");
    assert!(crate::error_chain(&tls).contains("ask it with http://"), "{}", crate::error_chain(&tls));
}

#[tokio::test]
async fn a_peer_that_does_not_answer_the_tls_handshake_is_not_reached() {
    let ours = authority();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ours.pem");
    std::fs::write(&path, ours.pem()).expect("written");
    let client = client(CallLimits { timeout: Duration::from_secs(60), ..LIMITS }).0.with_ca(&path);
    // The kernel accepts for it.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}/", silent.local_addr().expect("an address"));
    let error = client.expect("authorities").get(&url).await.expect_err("no handshake");
    assert!(matches!(error, ClientError::Connect { .. }) && error.is_unsent(), "{error:?}");
    assert!(crate::error_chain(&error).contains("no TLS handshake within 10s"), "{}", crate::error_chain(&error));
}

#[tokio::test]
async fn an_answer_of_any_size_comes_part_by_part_and_says_when_it_is_not_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let serving = tokio::spawn(async move {
        for told in ["50000", "60000"] {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).await.expect("a request") > 0);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {told}\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await.expect("sent");
            stream.write_all(&[b'x'; 50_000]).await.expect("sent");
        }
    });
    let (client, registry) = client(LIMITS);
    for expected in ["whole", "broken"] {
        let mut arriving =
            client.begin(Request::get(&url).body(Bytes::new()).expect("a request")).await.expect("a head");
        assert_eq!((arriving.status, arriving.headers.contains_key("content-length")), (StatusCode::OK, true));
        let mut bytes = 0;
        let end = loop {
            match arriving.next().await {
                Ok(Some(part)) => bytes += part.len(),
                Ok(None) => break "whole",
                Err(ClientError::Broken { .. }) => break "broken",
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!((bytes, end), (50_000, expected));
    }
    serving.await.expect("served");
    assert_eq!(calls(&registry, "success"), 2, "their heads came");
}
