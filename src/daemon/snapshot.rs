//! A snapshot for `redtape snapshot create`, with the options of the daemon that follows.

use redtape_capture::snapshot::{SnapshotError, SnapshotTaken, Taking, take};
use redtape_journal::SnapshotKind;
use redtape_net::Connector;

use super::config::{Config, ConfigError};
use super::error::journal_code;

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
    /// The exit code, from `sysexits.h`.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 64,
            Self::Snapshot(SnapshotError::Journal(e)) => journal_code(e),
            Self::Snapshot(SnapshotError::OtherServer { .. }) => 65,
            Self::Snapshot(SnapshotError::Server(_) | SnapshotError::NotFollowed { .. }) => 69,
            Self::Snapshot(SnapshotError::Copy(_)) => 74,
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
