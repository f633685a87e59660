//! Why nothing was started, and what kind of failure that is.

use std::path::PathBuf;

use redtape_capture::Mismatch;
use redtape_journal::{OpenError, StoreError};
use redtape_net::tls::TlsError;
use redtape_wire::settings::ListenAddr;

use super::config::ConfigError;

/// The kinds of failures of a start, or of a snapshot on request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ErrorKind {
    /// The options cannot be used.
    Config,
    /// A server is not there, or not able.
    Unavailable,
    /// A server does not accept the user, or does not allow a command.
    Denied,
    /// The server is not the one that the journal records.
    OtherServer,
    /// The operating system refuses a port, a thread or the like.
    System,
    /// What a server sent broke off on its way.
    Transfer,
    /// The journal, or one of its files.
    Storage(redtape_journal::ErrorKind),
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The server is not there.
    #[error("cannot reach {address}: {why}. Is the server running there? Check --upstream (and --follow)")]
    Unreachable {
        /// Its address.
        address: String,
        /// What happened.
        why: String,
    },
    /// The server does not accept us.
    #[error("{address} refuses: {why}. {advice}")]
    Refused {
        /// Its address.
        address: String,
        /// Its words.
        why: String,
        /// What to do.
        advice: &'static str,
    },
    /// `--follow` names a server that does not replicate the upstream.
    #[error(
        "{followed} (--follow) is not a replica of {upstream}: its data is another. Name a replica, or leave --follow out"
    )]
    Foreign {
        /// The server of `--follow`.
        followed: String,
        /// The upstream.
        upstream: String,
    },
    /// The journal is another server's.
    #[error(
        "{} is the journal of another server: {mismatch}. Nothing was changed. Correct --upstream or --dir; or give \
         --accept-new-history once, to record this server in this journal from now on",
        dir.display()
    )]
    OtherServer {
        /// The journal.
        dir: PathBuf,
        /// Both servers.
        mismatch: Box<Mismatch>,
    },
    /// What the journal says of its servers cannot be read.
    #[error(transparent)]
    Servers(#[from] StoreError),
    /// The options cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server is there, but no TLS connection to it comes about.
    #[error("cannot connect to {address}: {why}")]
    Tls {
        /// Its address.
        address: String,
        /// What happened, and what to do.
        why: String,
    },
    /// The journal.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// An address cannot be bound.
    #[error("cannot listen on {addr}: {source}. Is another process using it?")]
    Listen {
        /// Which.
        addr: ListenAddr,
        /// What happened.
        source: std::io::Error,
    },
    /// The operating system refuses threads or the like.
    #[error("cannot start: {0}")]
    Os(#[from] std::io::Error),
}

impl From<TlsError> for StartError {
    fn from(error: TlsError) -> Self {
        Self::Config(error.into())
    }
}

impl StartError {
    /// What kind of failure it is.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable { .. } | Self::Foreign { .. } | Self::Tls { .. } => ErrorKind::Unavailable,
            Self::Refused { .. } => ErrorKind::Denied,
            Self::Config(_) => ErrorKind::Config,
            Self::Listen { .. } | Self::Os(_) => ErrorKind::System,
            Self::OtherServer { .. } => ErrorKind::OtherServer,
            Self::Servers(e) => ErrorKind::Storage(e.kind()),
            Self::Journal(e) => ErrorKind::Storage(e.kind()),
        }
    }
}
