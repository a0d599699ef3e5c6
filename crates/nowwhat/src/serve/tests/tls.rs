//! TLS with certificates made for the test, and a client that trusts nothing else.

use super::*;
use std::path::PathBuf;
use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ALL_VERSIONS, ClientConfig, RootCertStore};

/// A folder with a certificate and its key.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> (Self, CertificateDer<'static>) {
        let files = Self { folder: tempfile::tempdir().expect("a folder") };
        let trusted = files.renew();
        (files, trusted)
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    fn renew(&self) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(self.certificate(), made.cert.pem()).expect("written");
        std::fs::write(self.key(), made.signing_key.serialize_pem()).expect("written");
        made.cert.der().clone()
    }

    fn load(&self) -> Result<Tls, TlsError> {
        Tls::load(&self.certificate(), &self.key())
    }
}

async fn connect(
    served: &Served,
    trusted: &CertificateDer<'static>,
    protocol: &[u8],
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(ALL_VERSIONS)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from("localhost").expect("a name");
    soon("a handshake", TlsConnector::from(Arc::new(config)).connect(name, served.connect().await)).await
}

#[tokio::test]
async fn the_version_is_agreed_in_the_handshake_and_handlers_know_of_tls() {
    let (files, trusted) = Files::new();
    let served = Served::start(hello(), WIDE, Some(files.load().expect("loaded"))).await;
    for (version, protocol) in [(Version::HTTP_11, &b"http/1.1"[..]), (Version::HTTP_2, b"h2")] {
        let stream = connect(&served, &trusted, protocol).await.expect("connected");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        let own = stream.get_ref().0.local_addr().expect("an address");
        let (mut client, _connection) = Client::on(stream, version).await;
        assert_eq!(client.text().await, format!("{version:?} https {own}"));
    }
}

#[tokio::test]
async fn a_reload_holds_for_new_connections_and_a_broken_one_changes_nothing() {
    let (files, old) = Files::new();
    let tls = files.load().expect("loaded");
    let served = Served::start(hello(), WIDE, Some(tls.clone())).await;
    let stream = connect(&served, &old, b"h2").await.expect("connected");
    let (mut before, _before) = Client::on(stream, Version::HTTP_2).await;
    before.text().await;

    let new = files.renew();
    connect(&served, &old, b"h2").await.expect("nothing was reloaded yet");
    tls.reload().expect("reloaded");
    connect(&served, &old, b"h2").await.expect_err("the old certificate is served no more");
    connect(&served, &new, b"h2").await.expect("the new certificate is served");
    before.text().await;

    let key = std::fs::read(files.key()).expect("read");
    std::fs::write(files.key(), "no key").expect("written");
    let error = tls.reload().expect_err("broken");
    assert!(error.to_string().contains(&files.key().display().to_string()), "{error}");
    connect(&served, &new, b"h2").await.expect("the last good certificate is served");
    std::fs::write(files.key(), key).expect("written");
    tls.reload().expect("mended");
}

#[test]
fn the_end_of_the_certificate_in_force_is_a_metric_and_without_tls_there_is_none() {
    let ends = |tls: Option<Tls>| {
        let mut registry = prometheus_client::registry::Registry::default();
        register_certificates(&mut registry, tls);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("a text");
        let name = "tls_certificate_ends_timestamp_seconds{of=\"server\"} ";
        text.lines().find_map(|line| line.strip_prefix(name)?.parse::<f64>().ok())
    };
    let (files, _) = Files::new();
    let tls = files.load().expect("loaded");
    // 4096-01-01: what rcgen says when nothing else is said.
    assert_eq!(ends(Some(tls.clone())), Some(67_090_118_400.0));
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    parameters.not_after = rcgen::date_time_ymd(2030, 1, 1);
    std::fs::write(files.certificate(), parameters.self_signed(&key).expect("made").pem()).expect("written");
    std::fs::write(files.key(), key.serialize_pem()).expect("written");
    tls.reload().expect("reloaded");
    assert_eq!(ends(Some(tls)), Some(1_893_456_000.0));
    assert_eq!(ends(None), None);
}

#[test]
fn errors_name_the_file_and_say_what_to_do() {
    let told = |spoil: &dyn Fn(&Files)| {
        let (files, _) = Files::new();
        spoil(&files);
        let error = files.load().expect_err("spoilt");
        let (certificate, key) = (files.certificate().display().to_string(), files.key().display().to_string());
        let text = crate::error_chain(&error);
        text.replace(&certificate, "CERTIFICATE").replace(&key, "KEY")
    };
    let missing = told(&|files| std::fs::remove_file(files.certificate()).expect("removed"));
    assert!(missing.starts_with("cannot read the certificate in CERTIFICATE: give a PEM file"), "{missing}");
    assert!(missing.contains("No such file"), "{missing}");
    let swapped = told(&|files| std::fs::rename(files.key(), files.certificate()).expect("renamed"));
    assert!(swapped.starts_with("cannot read the certificate in CERTIFICATE"), "{swapped}");
    let no_key = told(&|files| std::fs::write(files.key(), "").expect("written"));
    assert!(no_key.starts_with("cannot read the private key in KEY: give a PEM file"), "{no_key}");
    let strange = told(&|files| {
        let key = rcgen::KeyPair::generate().expect("a key");
        std::fs::write(files.key(), key.serialize_pem()).expect("written");
    });
    assert!(strange.starts_with("the certificate in CERTIFICATE cannot be used with the key in KEY"), "{strange}");
}

#[tokio::test]
async fn a_peer_that_does_not_finish_its_handshake_is_closed_and_counted() {
    let (files, trusted) = Files::new();
    let served = Served::start(hello(), TIGHT, Some(files.load().expect("loaded"))).await;
    closed(served.connect().await).await;
    until("counted", || served.metrics.handshakes_failed.get() == 1).await;
    let mut plain = served.connect().await;
    plain.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
    closed(plain).await;
    until("counted", || served.metrics.handshakes_failed.get() == 2).await;
    // A handshake, and then nothing.
    closed(connect(&served, &trusted, b"http/1.1").await.expect("connected")).await;
    served.until_open(0).await;
    assert_eq!(served.metrics.handshakes_failed.get(), 2);
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_closed_over_tls_too() {
    let (files, trusted) = Files::new();
    // Time enough for the handshake.
    let limits = ConnectionLimits { head_timeout: Duration::from_secs(5), ..TIGHT };
    let served = Served::start(large(64 << 20), limits, Some(files.load().expect("loaded"))).await;
    let mut stream = connect(&served, &trusted, b"http/1.1").await.expect("connected");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
    until("counted", || served.metrics.stalled.get() == 1).await;
    served.until_open(0).await;
}

#[tokio::test]
async fn one_tls_connection_too_many_is_closed() {
    let (files, trusted) = Files::new();
    let limits = ConnectionLimits { connections_max: 0, ..WIDE };
    let served = Served::start(hello(), limits, Some(files.load().expect("loaded"))).await;
    connect(&served, &trusted, b"h2").await.expect_err("closed");
    assert_eq!(served.metrics.refused.get(), 1);
}

#[tokio::test]
async fn an_unfinished_handshake_does_not_hold_up_a_stop() {
    let (files, _) = Files::new();
    let served = Served::start(hello(), WIDE, Some(files.load().expect("loaded"))).await;
    let silent = served.connect().await;
    served.until_open(1).await;
    served.stopper.stop();
    soon("the end", served.task).await.expect("no panic");
    drop(silent);
}
