//! Certificate and key of a listener, exchangeable while it serves.
//!
//! TLS 1.2 and 1.3 by rustls; HTTP/2 is offered before HTTP/1.1. Clients are not asked for certificates.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ALL_VERSIONS, Error as RustlsError, ServerConfig};

/// Why certificate and key cannot be used. Says nothing of the key but its file's name.
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
}

/// A certificate with its key. Clones are the same one: what one reloads, all serve.
#[derive(Clone)]
pub struct Tls {
    files: Arc<Files>,
    config: Arc<RwLock<Arc<ServerConfig>>>,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Tls {
    /// Reads a certificate with its chain, and its private key, from PEM files. Blocks while it reads.
    ///
    /// # Errors
    /// Says which file cannot be used, and what to do.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
        let config = RwLock::new(Arc::new(files.read()?));
        Ok(Self { files: Arc::new(files), config: Arc::new(config) })
    }

    /// Reads both files again. New connections get what they say now; open ones go on as they are. Blocks while it
    /// reads.
    ///
    /// # Errors
    /// Says which file cannot be used, and what to do; the old certificate stays in force.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = Arc::new(self.files.read()?);
        *self.config.write().expect("nobody panics while holding it") = config;
        Ok(())
    }

    /// For one new connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.read().expect("nobody panics while holding it").clone())
    }
}

impl Files {
    fn read(&self) -> Result<ServerConfig, TlsError> {
        let unreadable = |source| TlsError::Certificate { path: self.certificate.clone(), source };
        let chain = CertificateDer::pem_file_iter(&self.certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.map_err(unreadable)?;
        if chain.is_empty() {
            return Err(unreadable(PemError::NoItemsFound));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|source| TlsError::Key { path: self.key.clone(), source })?;
        // Named, so that another library's choice of a process-wide default has no say here.
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(ALL_VERSIONS)
            .expect("the provider has suites for both versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|source| TlsError::Pair {
                certificate: self.certificate.clone(),
                key: self.key.clone(),
                source,
            })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}
