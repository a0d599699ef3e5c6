//! TLS of the whole service: real handshakes, new files, broken files.

use super::running::{Hello, program};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ALL_VERSIONS, ClientConfig, RootCertStore};

/// A certificate and its key in files.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Another certificate, and what a client has to trust.
    fn renew(&self) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(self.path("certificate.pem"), made.cert.pem()).expect("written");
        std::fs::write(self.path("key.pem"), made.signing_key.serialize_pem()).expect("written");
        made.cert.der().clone()
    }
}

async fn connect(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    protocols: &[&[u8]],
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(ALL_VERSIONS)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(address).await.expect("it listens");
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// The answer over HTTP/2, which the handshake agreed on.
async fn ask(stream: TlsStream<TcpStream>) -> String {
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.expect("HTTP/2");
    let _connection = tokio::spawn(connection);
    let request = http::Request::get("https://localhost/hello/moon").body(Empty::<Bytes>::new()).expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    let body = answer.into_body().collect().await.expect("a whole answer").to_bytes();
    String::from_utf8_lossy(&body).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_files_hold_from_the_next_hangup_on_and_broken_ones_change_nothing() {
    let files = Files::new();
    let old = files.renew();
    let (certificate, key) = (files.path("certificate.pem"), files.path("key.pem"));
    let settings = [
        ("HELLO_HTTP__TLS_CERTIFICATE", certificate.to_str().expect("a text")),
        ("HELLO_HTTP__TLS_KEY", key.to_str().expect("a text")),
    ];
    let hello = Hello::start(&settings);
    let both: [&[u8]; 2] = [b"h2", b"http/1.1"];
    let before = connect(hello.address, &old, &both).await.expect("the first certificate");
    assert!(ask(before).await.contains("Hello, moon!"));
    let one = connect(hello.address, &old, &[b"http/1.1"]).await.expect("the first certificate");
    assert_eq!(one.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));

    let new = files.renew();
    hello.signal(Signal::HUP);
    assert_eq!(hello.line("reloaded")["changed"], "http.tls_certificate");
    hello.signal(Signal::HUP);
    assert!(hello.line("reloaded: nothing changed")["changed"].is_null());
    let after = connect(hello.address, &new, &both).await.expect("the new certificate");
    assert!(ask(after).await.contains("Hello, moon!"));
    connect(hello.address, &old, &both).await.expect_err("the old certificate is served no more");

    std::fs::write(&key, "no key").expect("written");
    hello.signal(Signal::HUP);
    let refused = hello.line("not reloaded: the configuration has problems");
    assert_eq!(refused["severity"], "ERROR");
    let told = refused["problems"].as_str().unwrap_or_default();
    assert!(
        told.contains("cannot read the private key in") && told.contains(key.to_str().expect("a text")),
        "{refused}"
    );
    assert!(ask(connect(hello.address, &new, &both).await.expect("as before")).await.contains("Hello, moon!"));
    hello.stop();
}

#[test]
fn a_certificate_that_cannot_serve_is_said_before_anything_runs() {
    let files = Files::new();
    files.renew();
    let certificate = files.path("certificate.pem");
    let certificate = certificate.to_str().expect("a text");
    let (code, told) = Hello::spawn(Command::new(program()), &[("HELLO_HTTP__TLS_CERTIFICATE", certificate)]).end();
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("http.tls_certificate is given without http.tls_key: TLS needs both"), "{told}");
    assert!(told.contains("HELLO_HTTP__TLS_CERTIFICATE"), "{told}");

    let settings = [("HELLO_HTTP__TLS_CERTIFICATE", certificate), ("HELLO_HTTP__TLS_KEY", "/nowhere/key.pem")];
    let (code, told) = Hello::spawn(Command::new(program()), &settings).end();
    assert_eq!(code, Some(2), "{told}");
    assert!(
        told.contains("cannot read the private key in /nowhere/key.pem") && told.contains("No such file"),
        "{told}"
    );
}
