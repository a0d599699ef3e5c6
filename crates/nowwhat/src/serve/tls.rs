//! Certificate and key of a listener, exchangeable while it serves.
//!
//! TLS 1.2 and 1.3 by rustls; HTTP/2 is offered before HTTP/1.1. Clients are asked for certificates when there are authorities to verify
//! them by.

mod clients;
mod expiry;

pub use clients::{ClientCertificates, PeerCertificate, TlsClients};
pub use expiry::register_certificates;

use crate::small_file::{self, Readable};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ALL_VERSIONS, Error as RustlsError, ServerConfig};

/// What is wrong with a file.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why certificate and key, or what verifies certificates of clients, cannot be used. Says nothing of the key but its file's name.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of the certificate is missing, unreadable or no certificate.
    #[error(
        "cannot read the certificate in {}: give a PEM file with the certificate first and its chain after it",
        path.display()
    )]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PemError,
    },
    /// The file of the key is missing, unreadable or no key.
    #[error("cannot read the private key in {}: give a PEM file with one key that is not encrypted", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PemError,
    },
    /// Each can be read, but they do not go together.
    #[error(
        "the certificate in {} cannot be used with the key in {}: give the key that the certificate was made for",
        certificate.display(), key.display()
    )]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong with them.
        source: RustlsError,
    },
    /// The file of the authorities of clients is missing, unreadable or holds none.
    #[error(
        "cannot read the authorities of clients' certificates in {}: give a PEM file with one or more certificates of authorities",
        path.display()
    )]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Cause,
    },
    /// The file of revoked certificates is missing, unreadable or holds no list.
    #[error(
        "cannot read the revoked certificates in {}: give a PEM file with a list (X509 CRL) of each authority",
        path.display()
    )]
    ClientCrl {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Cause,
    },
}

/// A certificate with its key. Clones are the same one: what one reloads, all serve.
#[derive(Clone)]
pub struct Tls {
    files: Arc<Files>,
    pair: Arc<RwLock<Pair>>,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    clients: Option<TlsClients>,
}

/// What the files say, ready to be served.
pub(crate) struct Pair {
    chain: Vec<CertificateDer<'static>>,
    clients: Option<clients::Read>,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Reads a certificate with its chain, and its private key, from PEM files. Blocks while it reads.
    ///
    /// # Errors
    /// Says which file cannot be used, and what to do.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        Self::of(Files { certificate: certificate.to_owned(), key: key.to_owned(), clients: None })
    }

    /// The same, and clients are asked for certificates: a verified one is a [`PeerCertificate`] of each request.
    ///
    /// # Errors
    /// Says which file cannot be used, and what to do.
    pub fn load_with_clients(certificate: &Path, key: &Path, clients: TlsClients) -> Result<Self, TlsError> {
        Self::of(Files { certificate: certificate.to_owned(), key: key.to_owned(), clients: Some(clients) })
    }

    fn of(files: Files) -> Result<Self, TlsError> {
        let pair = RwLock::new(files.read()?);
        Ok(Self { files: Arc::new(files), pair: Arc::new(pair) })
    }

    /// Reads all files again. New connections get what they say now; open ones go on as they are. Blocks while it
    /// reads.
    ///
    /// # Errors
    /// Says which file cannot be used, and what to do; the old certificate stays in force.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.renew(self.read()?);
        Ok(())
    }

    /// What the files say now. Blocks while it reads.
    pub(crate) fn read(&self) -> Result<Pair, TlsError> {
        self.files.read()
    }

    /// Serves it from now on; the settings whose files say something else than before.
    pub(crate) fn renew(&self, newer: Pair) -> Vec<&'static str> {
        let mut pair = self.pair.write().expect("nobody panics while holding it");
        let mut changed = Vec::new();
        if pair.chain != newer.chain {
            changed.push("http.tls_certificate");
        }
        if let (Some(before), Some(now)) = (&pair.clients, &newer.clients) {
            changed.extend((before.authorities != now.authorities).then_some("http.tls_client_ca"));
            changed.extend((before.revoked != now.revoked).then_some("http.tls_client_crl"));
        }
        *pair = newer;
        changed
    }

    /// The certificate that new connections get, in DER, without its chain.
    pub fn certificate(&self) -> Vec<u8> {
        self.pair.read().expect("nobody panics while holding it").chain[0].to_vec()
    }

    /// For one new connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.pair.read().expect("nobody panics while holding it").config.clone())
    }
}

/// Everything that keeps a certificate and a key, as far as they are given, from being served. Blocks while it reads.
pub(crate) fn flaws(certificate: Option<&Path>, key: Option<&Path>) -> Vec<TlsError> {
    let chain = certificate.map(|path| read_certificate(path).map(|chain| (path, chain)));
    let key = key.map(|path| read_key(path).map(|key| (path, key)));
    match (chain, key) {
        (Some(Ok((certificate, chain))), Some(Ok((key, secret)))) => {
            let files = Files { certificate: certificate.to_owned(), key: key.to_owned(), clients: None };
            files.pair(chain, secret).err().into_iter().collect()
        }
        (chain, key) => chain.and_then(Result::err).into_iter().chain(key.and_then(Result::err)).collect(),
    }
}

/// What keeps certificates of clients from being verified. Blocks while it reads.
pub(crate) fn client_flaw(clients: &TlsClients) -> Option<TlsError> {
    clients.read().err()
}

fn read_certificate(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::Certificate { path: path.to_owned(), source };
    let text = small_file::read(path, Readable::Regular).map_err(|error| unreadable(PemError::Io(error)))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(unreadable)?;
    if chain.is_empty() { Err(unreadable(PemError::NoItemsFound)) } else { Ok(chain) }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = small_file::read(path, Readable::Regular).map_err(PemError::Io);
    let key = text.and_then(|text| PrivateKeyDer::from_pem_slice(&text));
    key.map_err(|source| TlsError::Key { path: path.to_owned(), source })
}

impl Files {
    fn read(&self) -> Result<Pair, TlsError> {
        self.pair(read_certificate(&self.certificate)?, read_key(&self.key)?)
    }

    fn pair(&self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Pair, TlsError> {
        // Named, so that another library's choice of a process-wide default has no say here.
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(ALL_VERSIONS)
            .expect("the provider has suites for both versions");
        let clients = self.clients.as_ref().map(TlsClients::read).transpose()?;
        let builder = match &clients {
            Some(clients) => builder.with_client_cert_verifier(clients.verifier.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain.clone(), key).map_err(|source| TlsError::Pair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Pair { chain, clients, config: Arc::new(config) })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}
