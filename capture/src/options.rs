//! What the capture is told at the start, and where the journal stands.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use redtape_journal::{
    Journal, Keyring, Lsn, Micros, OpenError, OpenOptions, Recovered, ReplOffset, SyncPolicy, TimelineId,
};
use redtape_net::Connector;

/// The journal's keys as they are now; a reload replaces them.
pub type KeyringHandle = Arc<ArcSwap<Keyring>>;

/// When marks are set without being asked for; a reload replaces it.
pub type ThresholdsHandle = Arc<ArcSwap<Thresholds>>;

/// See [`ThresholdsHandle`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thresholds {
    /// Marks are set at all.
    pub enabled: bool,
    /// One client deletes so many keys, or gives so many an expiry; 0 = never a mark for that.
    pub mass_keys: u64,
    /// Within so much time.
    pub mass_time: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { enabled: true, mass_keys: 100, mass_time: Duration::from_secs(10) }
    }
}

/// What capture needs to know.
#[derive(Debug, Clone)]
pub struct CaptureConfig {
    /// The server to follow: the upstream, or one of its replicas.
    pub source: Connector,
    /// The server whose offset tells how far we are: the upstream.
    pub upstream: Connector,
    /// The journal's directory.
    pub dir: PathBuf,
    /// When the journal is synced.
    pub sync: SyncPolicy,
    /// Size at which a segment is sealed.
    pub segment_bytes: u64,
    /// Sessions leave stamps.
    pub has_tee: bool,
    /// The upstream's address as the journal remembers it.
    pub address: String,
    /// A server that this journal does not record is recorded all the same.
    pub accept_new_history: bool,
    /// The keys with which the journal is encrypted.
    pub keyring: KeyringHandle,
    /// When marks are set without being asked for.
    pub marks: ThresholdsHandle,
}

/// Where the journal stands in the server's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) timeline: TimelineId,
    pub(crate) replid: String,
    pub(crate) offset: ReplOffset,
    pub(crate) db: u32,
}

/// What the journal holds at its end, for messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) lsn: Lsn,
    pub(crate) ts: Micros,
    pub(crate) timeline: TimelineId,
}

/// Opens the journal as capture wants it.
pub fn open_journal(config: &CaptureConfig) -> Result<(Journal, Recovered), OpenError> {
    Journal::create_or_open(
        &config.dir,
        OpenOptions {
            segment_bytes: config.segment_bytes,
            sync: config.sync,
            keyring: Keyring::clone(&config.keyring.load()),
            source: config.upstream.url.to_string(),
            ..OpenOptions::default()
        },
    )
}
