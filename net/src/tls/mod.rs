//! TLS on both sides: towards clients ([`ServerTls`]) and towards servers ([`ClientTls`]).
//!
//! Nothing here does I/O on a socket. The options are files; [`Handle`] turns them into rustls's own
//! configurations and swaps these while redtape runs. Who holds a connection drives rustls itself:
//!
//! ```text
//!     files ──build──► Handle { current() } ──► rustls::ServerConnection   (worker loop, by hand)
//!       ▲                 ▲                └──► tokio_rustls               (link, probes)
//!       └── watch / SIGHUP ┘
//! ```
//!
//! Invariants: a configuration is replaced as a whole or not at all (a bad file keeps the old one); a
//! replaced one takes its session tickets along, so that no session resumes past a newer CRL or CA.
//! Connections that exist keep what they were made with.

mod client;
mod failure;
mod files;
mod handle;
mod options;
mod server;
#[cfg(test)]
mod tests;
mod validity;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use self::client::ClientTls;
pub use self::failure::{Explained, TlsFailure};
pub use self::files::{CaFiles, KeyPair};
use self::handle::Material;
pub use self::handle::{Handle, watch};
pub use self::options::OptionNames;
pub use self::server::{AuthClients, Protocols, ServerTls, SniCert};

/// The configuration towards clients, as it is now.
pub type TlsAcceptor = Handle<ServerTls>;
/// The configuration towards servers, as it is now.
pub type TlsConnector = Handle<ClientTls>;

/// Why a TLS configuration cannot be used. Each names the option and the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {} ({option}): {source}", path.display())]
    Read {
        /// Of which option.
        option: &'static str,
        /// Which.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{} ({option}) holds no {expected} in PEM form", path.display())]
    Empty {
        /// Of which option.
        option: &'static str,
        /// Which.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// A file is damaged, or rustls does not take what it holds.
    #[error("{} ({option}): {why}", path.display())]
    Unusable {
        /// Of which option.
        option: &'static str,
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The key wants a password.
    #[error(
        "{} ({option}) is encrypted; redtape takes no key password: decrypt it (openssl pkey -in KEY -out PLAIN) and protect the file by its mode",
        path.display()
    )]
    Encrypted {
        /// Of which option.
        option: &'static str,
        /// Which.
        path: PathBuf,
    },
    /// Certificate and key are not a pair.
    #[error("{} and {} do not belong together: the key is not that of the certificate", cert.display(), key.display())]
    Mismatch {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// Options that do not go together.
    #[error("{0}")]
    Options(String),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
