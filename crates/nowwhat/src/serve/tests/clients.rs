//! Certificates of clients: who comes in with which, and what handlers know of it.

use super::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use std::path::PathBuf;
use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ALL_VERSIONS, ClientConfig, RootCertStore};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// What a client shows.
#[derive(Clone)]
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

fn issued(by: &Authority, params: &CertificateParams) -> Shown {
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, by).expect("issued");
    Shown { chain: vec![certificate.der().clone()], key: key.serialize_der() }
}

fn named(name: &str) -> CertificateParams {
    CertificateParams::new([name.to_owned()]).expect("a name")
}

/// A server's certificate with its key and the authorities of clients, in a folder.
struct Files {
    folder: TempDir,
    trusted: CertificateDer<'static>,
}

impl Files {
    fn new(clients: &Authority) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let files = Self { folder, trusted: made.cert.der().clone() };
        files.write("certificate.pem", &made.cert.pem());
        files.write("key.pem", &made.signing_key.serialize_pem());
        files.write("ca.pem", &clients.pem());
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    fn load(&self, certificates: ClientCertificates, crl: Option<&str>) -> Result<Tls, TlsError> {
        let clients = TlsClients { ca: self.path("ca.pem"), crl: crl.map(|name| self.path(name)), certificates };
        Tls::load_with_clients(&self.path("certificate.pem"), &self.path("key.pem"), clients)
    }

    async fn serve(&self, tls: &Tls) -> Served {
        Served::start(Router::new().route("/", get(whom)), WIDE, Some(tls.clone())).await
    }

    async fn connect(&self, served: &Served, shown: Option<&Shown>, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.trusted.clone()).expect("a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(ALL_VERSIONS)
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match shown {
            None => config.with_no_client_auth(),
            Some(shown) => {
                let key = PrivateKeyDer::try_from(shown.key.clone()).expect("a key");
                config.with_client_auth_cert(shown.chain.clone(), key).expect("a pair")
            }
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::try_from("localhost").expect("a name");
        let connected = TlsConnector::from(Arc::new(config)).connect(name, served.connect().await);
        soon("a handshake", connected).await.expect("the client has done its part")
    }

    /// What the handler knows; none when the connection is refused.
    async fn told(&self, served: &Served, shown: Option<&Shown>) -> Option<String> {
        let mut stream = self.connect(served, shown, b"http/1.1").await;
        // With TLS 1.3 a client learns with its first answer that it was refused.
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.ok()?;
        let mut text = String::new();
        soon("an answer or an end", stream.read_to_string(&mut text)).await.ok()?;
        text.rsplit("\r\n\r\n").next().filter(|body| !body.is_empty()).map(str::to_owned)
    }
}

/// Tells what is known of the client.
async fn whom(certificate: Option<Extension<PeerCertificate>>) -> String {
    let Some(Extension(certificate)) = certificate else { return "nobody".to_owned() };
    let (dns, uris) = (certificate.dns_names().join(","), certificate.uris().join(","));
    let ended = if certificate.has_ended() { " ended" } else { "" };
    format!("dns={dns} uris={uris} cn={}{ended}", certificate.common_name().unwrap_or("-"))
}

#[tokio::test]
async fn handlers_know_the_names_in_the_certificate_that_was_verified_over_both_versions_of_http() {
    let ca = authority("fleet");
    let files = Files::new(&ca);
    let served = files.serve(&files.load(ClientCertificates::Optional, None).expect("loaded")).await;
    let mut params = named("roof");
    params.subject_alt_names.push(SanType::URI("urn:uuid:4711".try_into().expect("a text")));
    params.distinguished_name.push(DnType::CommonName, "Roof 1");
    let shown = issued(&ca, &params);
    let expected = "dns=roof uris=urn:uuid:4711 cn=Roof 1";
    assert_eq!(files.told(&served, Some(&shown)).await.as_deref(), Some(expected));
    assert_eq!(files.told(&served, None).await.as_deref(), Some("nobody"));
    let stream = files.connect(&served, Some(&shown), b"h2").await;
    let (mut client, _connection) = Client::on(stream, Version::HTTP_2).await;
    assert_eq!(client.text().await, expected);
    assert_eq!(client.text().await, expected, "each request of a connection");
}

#[tokio::test]
async fn who_shows_what_cannot_be_verified_or_nothing_where_it_is_required_does_not_come_in() {
    let (ca, stranger) = (authority("fleet"), authority("stranger"));
    let files = Files::new(&ca);
    for certificates in [ClientCertificates::Optional, ClientCertificates::Required] {
        let served = files.serve(&files.load(certificates, None).expect("loaded")).await;
        let right = issued(&ca, &named("roof"));
        assert!(files.told(&served, Some(&right)).await.is_some(), "{certificates:?}");
        let mut old = named("roof");
        (old.not_before, old.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        let refused = [issued(&stranger, &named("roof")), issued(&ca, &old)];
        for shown in &refused {
            assert_eq!(files.told(&served, Some(shown)).await, None, "{certificates:?}");
        }
        let without = files.told(&served, None).await;
        assert_eq!(without.is_some(), certificates == ClientCertificates::Optional, "{without:?}");
        let failed = if certificates == ClientCertificates::Optional { 2 } else { 3 };
        until("counted", || served.metrics.handshakes_failed.get() == failed).await;
    }
}

#[tokio::test]
async fn other_authorities_and_revoked_certificates_hold_from_a_reload_on() {
    let (ca, other) = (authority("fleet"), authority("another fleet"));
    let files = Files::new(&ca);
    let list = |serials: &[u64]| {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2027, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&ca).expect("a list").pem().expect("PEM")
    };
    files.write("crl.pem", &list(&[1]));
    let tls = files.load(ClientCertificates::Optional, Some("crl.pem")).expect("loaded");
    let served = files.serve(&tls).await;
    let with_serial = |serial: u64| {
        let mut params = named("roof");
        params.serial_number = Some(SerialNumber::from(serial));
        issued(&ca, &params)
    };
    let (first, second) = (with_serial(1), with_serial(2));
    assert_eq!(files.told(&served, Some(&first)).await, None, "revoked");
    assert!(files.told(&served, Some(&second)).await.is_some());

    files.write("crl.pem", &list(&[1, 2]));
    assert_eq!(tls.renew(tls.read().expect("read")), ["http.tls_client_crl"]);
    assert_eq!(files.told(&served, Some(&second)).await, None, "revoked now");

    files.write("ca.pem", &other.pem());
    tls.reload().expect("reloaded");
    let of_other = issued(&other, &named("roof"));
    assert_eq!(files.told(&served, Some(&of_other)).await, None, "its authority has no list");
    assert_eq!(files.told(&served, Some(&first)).await, None);

    let tls = files.load(ClientCertificates::Optional, None).expect("loaded");
    let served = files.serve(&tls).await;
    assert!(files.told(&served, Some(&of_other)).await.is_some());
    assert_eq!(files.told(&served, Some(&second)).await, None, "another authority's");
    files.write("ca.pem", &(ca.pem() + &other.pem()));
    assert_eq!(tls.renew(tls.read().expect("read")), ["http.tls_client_ca"]);
    assert!(files.told(&served, Some(&second)).await.is_some() && files.told(&served, Some(&of_other)).await.is_some());
}

#[tokio::test]
async fn a_certificate_with_several_common_names_has_none_and_one_without_names_is_still_one() {
    let ca = authority("fleet");
    let files = Files::new(&ca);
    let served = files.serve(&files.load(ClientCertificates::Required, None).expect("loaded")).await;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    assert_eq!(files.told(&served, Some(&issued(&ca, &params))).await.as_deref(), Some("dns= uris= cn=-"));
    params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "one");
    params.distinguished_name.push(DnType::CommonName, "two");
    assert_eq!(files.told(&served, Some(&issued(&ca, &params))).await.as_deref(), Some("dns= uris= cn=-"));
}

#[test]
fn a_certificate_ends_with_its_validity() {
    let ca = authority("fleet");
    let mut params = named("roof");
    let read = |params: &CertificateParams| PeerCertificate::read(&issued(&ca, params).chain[0]).expect("read");
    assert!(!read(&params).has_ended());
    params.not_after = date_time_ymd(2002, 1, 1);
    assert!(read(&params).has_ended());
    PeerCertificate::read(&CertificateDer::from(vec![1, 2, 3])).expect_err("no certificate");
}

#[test]
fn errors_name_the_file_of_the_clients_and_say_what_to_do() {
    let ca = authority("fleet");
    let files = Files::new(&ca);
    let error = |crl: Option<&str>| {
        crate::error_chain(&files.load(ClientCertificates::Optional, crl).expect_err("spoilt"))
            .replace(&files.folder.path().display().to_string(), "")
    };
    let missing = error(Some("crl.pem"));
    assert!(missing.starts_with("cannot read the revoked certificates in /crl.pem: give a PEM file"), "{missing}");
    files.write("crl.pem", &ca.pem());
    assert!(error(Some("crl.pem")).contains("/crl.pem"), "a certificate is no list");
    files.write("ca.pem", "nothing");
    let none = error(None);
    assert!(none.starts_with("cannot read the authorities of clients' certificates in /ca.pem: give a PEM"), "{none}");
}
