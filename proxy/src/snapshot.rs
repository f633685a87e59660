//! A snapshot on request, beside a capture that goes on.
//!
//! A second replication connection gives a consistent RDB with its exact offset. Its LSN is the
//! journal's at that offset, read once the journal has got there, so that base + log from it is
//! as exact as from the timeline's own base.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redtape_journal::{Catalog, Lsn, Micros, ReplOffset, SnapshotKind, TimelineId};
use redtape_wire::psync::PsyncReply;

use crate::capture::{CopyInProgress, Link, Position, Prober, manifest, receive};
use crate::config::{Config, ConfigError};
use crate::connect::Connector;

/// The journal must reach the snapshot's offset within this time.
const REACH_TIMEOUT: Duration = Duration::from_secs(30);
const REACH_POLL: Duration = Duration::from_millis(100);

/// A snapshot was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotTaken {
    /// It holds everything up to this LSN.
    pub lsn: Lsn,
    /// The moment that it shows.
    pub ts: Micros,
    /// The RDB.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its timeline.
    pub timeline: TimelineId,
}

/// Why no snapshot was taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The journal can't be read.
    #[error(transparent)]
    Journal(#[from] redtape_journal::OpenError),
    /// The options can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server can't be reached or refuses.
    #[error("{0}. Check --upstream and its password (REDTAPE_UPSTREAM_PASSWORD)")]
    Server(String),
    /// The copy failed on its way.
    #[error("the copy failed: {0}; nothing was changed")]
    Copy(String),
    /// The server is not the one that the journal follows.
    #[error(
        "{address} is not the server that this journal follows (its replication id is {found}, the journal's is {expected}); give the same --upstream as to redtape proxy"
    )]
    OtherServer {
        /// Which.
        address: String,
        /// Its history.
        found: String,
        /// The journal's.
        expected: String,
    },
    /// Nobody writes the journal.
    #[error(
        "the journal does not reach the snapshot's offset {offset}: is redtape proxy or follow running on this directory? Nothing was changed"
    )]
    NotFollowed {
        /// Where the snapshot stands.
        offset: ReplOffset,
    },
}

impl SnapshotError {
    /// The exit code, from `sysexits.h`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Journal(_) | Self::OtherServer { .. } => 65,
            Self::Config(_) => 64,
            Self::Server(_) | Self::NotFollowed { .. } => 69,
            Self::Copy(_) => 74,
        }
    }
}

/// Takes a snapshot of the upstream into the journal, which another process may be writing.
pub fn take_snapshot(config: &Config) -> Result<SnapshotTaken, SnapshotError> {
    for warning in config.check()? {
        tracing::warn!("{warning}");
    }
    let upstream = Connector::new(config.upstream.clone(), &config.upstream_tls).map_err(ConfigError::from)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| SnapshotError::Server(e.to_string()))?;
    runtime.block_on(take(&config.dir, &upstream))
}

/// The same within a runtime; `upstream` is the followed server or the one that it replicates.
pub(crate) async fn take(dir: &Path, upstream: &Connector) -> Result<SnapshotTaken, SnapshotError> {
    let catalog = Catalog::open(dir)?;
    let server = |e: String| SnapshotError::Server(e);
    let table = match Prober::connect(upstream).await {
        Ok(mut prober) => prober.commands().await.map(|t| t.to_text()).unwrap_or_default(),
        Err(e) => return Err(server(format!("can't reach {}: {e}", upstream.address()))),
    };
    let (mut link, reply) = Link::open(upstream, None).await.map_err(|e| server(e.to_string()))?;
    let PsyncReply::FullResync { replid, offset } = reply else {
        return Err(server(format!("the server answered PSYNC with {reply:?}")));
    };
    let ts = Micros::now();
    let offset = ReplOffset(offset);
    let timeline = catalog.timelines().last().map(|t| (t.id, t.source_id.clone()));
    let Some((timeline, expected)) = timeline else { return Err(SnapshotError::NotFollowed { offset }) };
    if expected != replid {
        return Err(SnapshotError::OtherServer { address: upstream.address(), found: replid, expected });
    }
    let mut copy = CopyInProgress::begin(dir).map_err(SnapshotError::Copy)?;
    while !copy.take(&mut link).map_err(SnapshotError::Copy)? {
        receive(&mut link).await.map_err(SnapshotError::Copy)?;
    }
    let lsn = lsn_at(dir, timeline, offset).await?;
    let position = Position { timeline, replid, offset, db: 0 };
    let (summary, path) = copy
        .commit(|s| manifest(s, (lsn, ts), &position, SnapshotKind::Manual, &table))
        .map_err(SnapshotError::Copy)?;
    Ok(SnapshotTaken { lsn, ts, path, bytes: summary.bytes, timeline })
}

async fn lsn_at(dir: &Path, timeline: TimelineId, offset: ReplOffset) -> Result<Lsn, SnapshotError> {
    let deadline = Instant::now() + REACH_TIMEOUT;
    loop {
        let at = Catalog::open(dir)?.lsn_at_offset(timeline, offset).map_err(|e| SnapshotError::Copy(e.to_string()))?;
        if at.reached {
            return Ok(at.lsn);
        }
        if Instant::now() >= deadline {
            return Err(SnapshotError::NotFollowed { offset });
        }
        tokio::time::sleep(REACH_POLL).await;
    }
}
