//! Why nothing was started, and the exit code of that.

use std::path::PathBuf;

use redtape_capture::Mismatch;
use redtape_journal::{KeyFault, OpenError, StoreError};
use redtape_net::tls::TlsError;
use redtape_wire::settings::ListenAddr;

use super::config::ConfigError;

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The server is not there.
    #[error("can't reach {address}: {why}. Is the server running there? Check --upstream (and --follow)")]
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
    #[error("can't connect to {address}: {why}")]
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
    #[error("can't listen on {addr}: {source}. Is another process using it?")]
    Listen {
        /// Which.
        addr: ListenAddr,
        /// What happened.
        source: std::io::Error,
    },
    /// The operating system refuses threads or the like.
    #[error("can't start: {0}")]
    Os(#[from] std::io::Error),
}

impl From<TlsError> for StartError {
    fn from(error: TlsError) -> Self {
        Self::Config(error.into())
    }
}

impl StartError {
    /// The exit code, from `sysexits.h`.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable { .. } | Self::Foreign { .. } | Self::Tls { .. } => 69,
            Self::Refused { .. } => 77,
            Self::Config(_) => 64,
            Self::Listen { .. } | Self::Os(_) => 71,
            Self::OtherServer { .. } => 65,
            Self::Servers(e) => io_code(&e.source),
            Self::Journal(e) => journal_code(e),
        }
    }
}

/// The exit code of a file that cannot be read or written.
fn io_code(error: &std::io::Error) -> u8 {
    if error.kind() == std::io::ErrorKind::PermissionDenied { 77 } else { 74 }
}

/// The exit code of a journal that cannot be opened.
pub(super) fn journal_code(error: &OpenError) -> u8 {
    match error {
        OpenError::Locked { .. } => 75,
        OpenError::Io { source, .. } | OpenError::Sync { source, .. } => io_code(source),
        OpenError::Key { fault: KeyFault::Missing(_), .. } => 77,
        _ => 65,
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind::{NotFound, PermissionDenied};

    use super::*;

    #[test]
    fn a_file_without_the_right_to_it_has_an_exit_code_of_its_own() {
        for (kind, code) in [(PermissionDenied, 77), (NotFound, 74)] {
            let (action, path) = ("read", PathBuf::from("server"));
            let servers = StoreError { action, path: path.clone(), source: kind.into() };
            assert_eq!(StartError::from(servers).exit_code(), code, "{kind:?}");
            assert_eq!(journal_code(&OpenError::Sync { action, path: path.clone(), source: kind.into() }), code);
            assert_eq!(journal_code(&OpenError::Io { action, path, source: kind.into() }), code);
        }
    }
}
