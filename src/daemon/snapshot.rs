//! A snapshot for `redtape snapshot create`, with the options of the daemon that follows.

use redtape_capture::snapshot::{SnapshotError, SnapshotTaken, Taking, take};
use redtape_journal::SnapshotKind;
use redtape_net::Connector;

use super::config::{Config, ConfigError};
use super::error::ErrorKind;

/// Why no snapshot was taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    /// The options cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It did not come about.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl CreateError {
    /// What kind of failure it is.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(_) => ErrorKind::Config,
            Self::Snapshot(error) => match error {
                SnapshotError::Journal(e) => ErrorKind::Storage(e.kind()),
                SnapshotError::Read(e) => ErrorKind::Storage(e.kind()),
                SnapshotError::Store(e) => ErrorKind::Storage(e.kind()),
                SnapshotError::OtherServer { .. } => ErrorKind::OtherServer,
                SnapshotError::Server(_) | SnapshotError::NotFollowed { .. } => ErrorKind::Unavailable,
                SnapshotError::Copy(_) => ErrorKind::Transfer,
            },
        }
    }
}

/// Takes a snapshot of the upstream into the journal, which another process may be writing.
pub(crate) fn take_snapshot(config: &Config) -> Result<SnapshotTaken, CreateError> {
    for warning in config.check()? {
        tracing::warn!("{warning}");
    }
    let upstream = Connector::new(config.upstream.clone(), &config.upstream_tls).map_err(ConfigError::from)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| SnapshotError::Server(e.to_string()))?;
    let how =
        Taking { kind: SnapshotKind::Manual, rate: config.snapshot_rate.map(|r| r.0), keyring: config.keyring.clone() };
    Ok(runtime.block_on(take(&config.dir, &upstream, how))?)
}
