//! PEM files: certificates, keys, authorities, revocation lists.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::{TlsError, provider};

/// Larger files are refused: no chain, key or list of authorities is.
const FILE_MAX: u64 = 64 << 20;

/// Where trusted authorities are found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaFiles {
    /// A file of certificates.
    pub file: Option<PathBuf>,
    /// A directory of such files; those that hold no certificate are passed over.
    pub dir: Option<PathBuf>,
}

impl CaFiles {
    /// Neither is named.
    pub fn is_empty(&self) -> bool {
        self.file.is_none() && self.dir.is_none()
    }

    pub(super) fn read(&self, options: [&'static str; 2]) -> Result<Arc<RootCertStore>, TlsError> {
        let mut found = Vec::new();
        if let Some(path) = &self.file {
            found.extend(certificates(path, options[0])?);
        }
        if let Some(dir) = &self.dir {
            let before = found.len();
            for path in entries(dir).map_err(|source| read_error(options[1], dir, source))? {
                // OpenSSL's hashed names lead to the same certificates again; other files may lie there, too.
                found.extend(certificates(&path, options[1]).unwrap_or_default());
            }
            if found.len() == before {
                return Err(TlsError::Empty { option: options[1], path: dir.clone(), expected: "certificate" });
            }
        }
        found.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
        found.dedup();
        let mut roots = RootCertStore::empty();
        for certificate in found {
            roots.add(certificate).map_err(|e| TlsError::Unusable {
                option: options[0],
                path: self.file.clone().or_else(|| self.dir.clone()).unwrap_or_default(),
                why: format!("not a usable CA certificate: {e}"),
            })?;
        }
        Ok(Arc::new(roots))
    }

    /// What to watch for changes.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = self.file.iter().chain(&self.dir).cloned().collect();
        paths.extend(self.dir.iter().flat_map(|dir| entries(dir).unwrap_or_default()));
        paths
    }
}

/// A certificate chain, leaf first, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The chain.
    pub cert_file: PathBuf,
    /// The key, not encrypted.
    pub key_file: PathBuf,
}

impl KeyPair {
    /// Reads both and makes sure that they belong together. `options`: of the certificate and of the key.
    pub(super) fn read(&self, options: [&'static str; 2]) -> Result<CertifiedKey, TlsError> {
        let chain = certificates(&self.cert_file, options[0])?;
        let key = private_key(&self.key_file, options[1])?;
        let unusable = |option, path: &Path, why: String| TlsError::Unusable { option, path: path.to_owned(), why };
        let key = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|e| unusable(options[1], &self.key_file, format!("not a usable key: {e}")))?;
        let pair = CertifiedKey::new(chain, key);
        match pair.keys_match() {
            Ok(()) => Ok(pair),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err(TlsError::Mismatch { cert: self.cert_file.clone(), key: self.key_file.clone() })
            }
            Err(e) => Err(unusable(options[0], &self.cert_file, format!("not a usable certificate: {e}"))),
        }
    }

    pub(super) fn paths(&self) -> [PathBuf; 2] {
        [self.cert_file.clone(), self.key_file.clone()]
    }
}

pub(super) fn revocation_lists(
    path: &Path,
    option: &'static str,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    sections(path, option, "revocation list (X509 CRL)")
}

fn certificates(path: &Path, option: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    sections(path, option, "certificate")
}

fn private_key(path: &Path, option: &'static str) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(path, option)?;
    let text = String::from_utf8_lossy(&bytes);
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(TlsError::Encrypted { option, path: path.to_owned() });
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|e| match e {
        rustls_pki_types::pem::Error::NoItemsFound => {
            TlsError::Empty { option, path: path.to_owned(), expected: "private key" }
        }
        // What it could quote is the key: only the kind is told.
        _ => TlsError::Unusable { option, path: path.to_owned(), why: "damaged PEM".to_owned() },
    })
}

/// All sections of one kind; there must be one.
fn sections<T: PemObject>(path: &Path, option: &'static str, expected: &'static str) -> Result<Vec<T>, TlsError> {
    let bytes = read(path, option)?;
    let found: Result<Vec<T>, _> = T::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(TlsError::Empty { option, path: path.to_owned(), expected }),
        Err(e) => Err(TlsError::Unusable { option, path: path.to_owned(), why: format!("damaged PEM: {e}") }),
    }
}

fn read(path: &Path, option: &'static str) -> Result<Vec<u8>, TlsError> {
    let checked = || {
        if std::fs::metadata(path)?.len() > FILE_MAX {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "it is too large"));
        }
        std::fs::read(path)
    };
    checked().map_err(|source| read_error(option, path, source))
}

fn read_error(option: &'static str, path: &Path, source: std::io::Error) -> TlsError {
    TlsError::Read { option, path: path.to_owned(), source }
}

fn entries(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
