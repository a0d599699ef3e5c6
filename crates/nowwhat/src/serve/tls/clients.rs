//! Certificates of clients (mutual TLS): who may have issued them, which are revoked, and what a verified one says.
//!
//! **Promise:** what a request says of its client's certificate is what the handshake of its connection verified, and never what a header
//! says.

use super::TlsError;
use crate::config::Value;
use crate::current;
use crate::small_file::{self, Readable};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Whether a client has to show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// One that is shown is verified; without one a client comes in as well.
    #[default]
    Optional,
    /// Without a valid one the handshake fails.
    Required,
}

impl Value for ClientCertificates {
    const EXPECTED: &'static str = "optional or required";
    fn parse(text: &str) -> Option<Self> {
        match text {
            "optional" => Some(Self::Optional),
            "required" => Some(Self::Required),
            _ => None,
        }
    }
}

/// The files by which certificates of clients are verified.
#[derive(Clone, Debug)]
pub struct TlsClients {
    /// Authorities that issue them, as PEM.
    pub ca: PathBuf,
    /// Lists of revoked ones, as PEM: when there is a file, one of each authority.
    pub crl: Option<PathBuf>,
    /// Whether a client has to show one.
    pub certificates: ClientCertificates,
}

/// What these files say, ready to verify.
pub(super) struct Read {
    pub(super) authorities: Vec<CertificateDer<'static>>,
    pub(super) revoked: Vec<CertificateRevocationListDer<'static>>,
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
}

impl TlsClients {
    /// Reads the files. Blocks while it reads.
    pub(super) fn read(&self) -> Result<Read, TlsError> {
        let of_ca = |source: super::Cause| TlsError::ClientCa { path: self.ca.clone(), source };
        let authorities: Vec<CertificateDer<'static>> = pem_items(&self.ca).map_err(|e| of_ca(e.into()))?;
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots.add(authority.clone()).map_err(|e| of_ca(e.into()))?;
        }
        let crl = self.crl.as_deref();
        let of_crl = |source: super::Cause| TlsError::ClientCrl { path: self.crl.clone().unwrap_or_default(), source };
        let revoked = crl.map(pem_items).transpose().map_err(|e| of_crl(e.into()))?.unwrap_or_default();
        let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::new(ring::default_provider()));
        let builder = builder.with_crls(revoked.iter().cloned());
        let builder = match self.certificates {
            ClientCertificates::Optional => builder.allow_unauthenticated(),
            ClientCertificates::Required => builder,
        };
        // The authorities are there and were read: what is left to be wrong is a list.
        let verifier = builder.build().map_err(|e| of_crl(e.into()))?;
        Ok(Read { authorities, revoked, verifier })
    }
}

/// All of one kind in a PEM file, at least one.
fn pem_items<T: PemObject>(path: &Path) -> Result<Vec<T>, PemError> {
    let text = small_file::read(path, Readable::Regular).map_err(PemError::Io)?;
    let items: Vec<T> = T::pem_slice_iter(&text).collect::<Result<_, _>>()?;
    if items.is_empty() { Err(PemError::NoItemsFound) } else { Ok(items) }
}

/// The certificate that the client of a connection showed, verified when the connection was opened: an extension of all its requests, with
/// `http.tls_client_ca` or [`TlsClients`] alone. A request without it came over a connection whose client showed none. Cheap to clone.
///
/// A connection outlives what was true at its handshake: a handler that lets somebody in looks at [`PeerCertificate::has_ended`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    said: Arc<Said>,
}

#[derive(Debug, PartialEq, Eq)]
struct Said {
    dns_names: Vec<String>,
    uris: Vec<String>,
    common_name: Option<String>,
    ends_at: SystemTime,
}

impl PeerCertificate {
    /// That of the request which is being served, for what runs for it; none outside of a request.
    pub fn of_current() -> Option<Self> {
        current::get().and_then(|current| current.certificate.clone())
    }

    /// The DNS names in its subjectAltName, as they are written there.
    pub fn dns_names(&self) -> &[String] {
        &self.said.dns_names
    }

    /// The URIs in its subjectAltName, as they are written there.
    pub fn uris(&self) -> &[String] {
        &self.said.uris
    }

    /// The common name of its subject; none when it has several.
    pub fn common_name(&self) -> Option<&str> {
        self.said.common_name.as_deref()
    }

    /// Whether the end of its validity is over by now.
    pub fn has_ended(&self) -> bool {
        SystemTime::now() > self.said.ends_at
    }

    /// Reads a certificate that was verified.
    ///
    /// # Errors
    /// In words, when it cannot be read.
    pub(crate) fn read(der: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|e| e.to_string())?;
        let (mut dns_names, mut uris) = (Vec::new(), Vec::new());
        let names = certificate.subject_alternative_name().map_err(|e| e.to_string())?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::Invalid(..) => return Err("a name in its subjectAltName is no text".to_owned()),
                _ => {}
            }
        }
        let mut common_names = certificate.subject().iter_common_name();
        let common_name = match (common_names.next(), common_names.next()) {
            (Some(only), None) => Some(only.as_str().map_err(|e| e.to_string())?.to_owned()),
            _ => None,
        };
        let ends_at = end_of(&certificate);
        Ok(Self { said: Arc::new(Said { dns_names, uris, common_name, ends_at }) })
    }
}

/// When the validity of a certificate ends.
///
/// # Errors
/// In words, when it cannot be read.
pub(super) fn ends_at(der: &CertificateDer<'_>) -> Result<SystemTime, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|e| e.to_string())?;
    Ok(end_of(&certificate))
}

fn end_of(certificate: &X509Certificate<'_>) -> SystemTime {
    let ends = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    UNIX_EPOCH + Duration::from_secs(ends)
}
