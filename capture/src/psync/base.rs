//! Receives the full copy with which a timeline begins, and the later snapshots.
//!
//! The RDB is written straight to the disk while its CRC64 is checked. The manifest, which makes it a snapshot, is put
//! in place last, after the copy is synced.

use std::path::PathBuf;

use redtape_journal::{
    Keyring, Lsn, Micros, ReplOffset, SnapshotKind, SnapshotManifest, SnapshotWriter, StoreError, TimelineStart,
};
use redtape_telemetry::CaptureState;
use redtape_wire::psync::RdbReceiver;
use redtape_wire::rdb::{RdbSummary, RdbVerifier};

use super::prober::Pace;
use super::{Capture, Ended, Link, LinkError};
use crate::options::Position;

/// A copy fails after this much silence on the link.
const SILENCE: std::time::Duration = std::time::Duration::from_mins(2);

/// Why a copy failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    /// The copy is incomplete or did not arrive.
    #[error("{0}")]
    Source(String),
    /// It could not be stored.
    #[error("{0}")]
    Disk(#[from] StoreError),
}

impl From<CopyError> for Ended {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Source(e) => Self::Base(e),
            CopyError::Disk(e) => Self::Journal(e.into()),
        }
    }
}

/// A copy that is being received and written.
pub(crate) struct CopyInProgress {
    receiver: RdbReceiver,
    verifier: RdbVerifier,
    writer: SnapshotWriter,
    chunk: Vec<u8>,
}

impl CopyInProgress {
    pub(crate) fn begin(dir: &std::path::Path, keyring: &Keyring) -> Result<Self, CopyError> {
        Ok(Self {
            receiver: RdbReceiver::new(),
            verifier: RdbVerifier::new(),
            writer: SnapshotWriter::create_with(dir, keyring)?,
            chunk: Vec::new(),
        })
    }

    /// Takes the bytes that the link has received; true = the copy is complete.
    pub(crate) fn take(&mut self, link: &mut Link) -> Result<bool, CopyError> {
        self.chunk.clear();
        let (used, done) =
            self.receiver.feed(&link.buf, &mut self.chunk).map_err(|e| CopyError::Source(e.to_string()))?;
        let _ = link.buf.split_to(used);
        self.verifier.update(&self.chunk);
        self.writer.write(&self.chunk)?;
        Ok(done)
    }

    /// Verifies the copy and puts it in place.
    pub(crate) fn commit(
        self,
        manifest: impl FnOnce(&RdbSummary) -> SnapshotManifest,
    ) -> Result<(RdbSummary, PathBuf), CopyError> {
        let summary = self.verifier.finish().map_err(|e| CopyError::Source(e.to_string()))?;
        let path = self.writer.commit(manifest(&summary))?;
        Ok((summary, path))
    }
}

/// Receives, and fails after [`SILENCE`].
pub(crate) async fn receive(link: &mut Link) -> Result<usize, String> {
    match tokio::time::timeout(SILENCE, link.receive()).await {
        Ok(r) => r.map_err(|e: LinkError| e.to_string()),
        Err(_) => Err(format!("the server sent nothing for {} s", SILENCE.as_secs())),
    }
}

/// The manifest of a copy.
pub(crate) fn manifest(
    summary: &RdbSummary,
    at: (Lsn, Micros),
    position: &Position,
    kind: SnapshotKind,
    table: &str,
) -> SnapshotManifest {
    let aux = |name: &str| summary.aux.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
    SnapshotManifest {
        journal_id: String::new(),
        lsn: at.0,
        timeline: position.timeline,
        source_id: position.replid.clone(),
        offset: position.offset,
        db: None,
        ts: at.1,
        kind,
        bytes: 0,
        blake3: String::new(),
        magic_version: summary.version.to_string(),
        server_version: aux("valkey-ver").or_else(|| aux("redis-ver")).unwrap_or_default(),
        checksum_present: summary.checksum_present,
        encryption: None,
        command_table: Some(serde_json::Value::String(table.to_owned())),
    }
}

impl Capture {
    /// Called after `+FULLRESYNC`: receives the copy and begins a timeline with it.
    pub(super) async fn take_base(
        &mut self,
        link: &mut Link,
        replid: String,
        offset: ReplOffset,
        reason: String,
    ) -> Result<(), Ended> {
        let ts = Micros::now().max(self.recorder.tail().ts);
        self.status.capture(CaptureState::FullSync);
        self.probes.set_pace(Pace::Late);
        self.take_stamps();
        self.join.stream_starts(ts, offset);
        let position = Position { timeline: self.next_timeline(), replid, offset, db: 0 };
        tracing::info!(
            timeline = position.timeline.0,
            offset = offset.0,
            reason,
            "taking a base: a full copy of the server's data"
        );
        let mut copy = CopyInProgress::begin(&self.config.dir, &self.config.keyring.load())?;
        loop {
            if copy.take(link)? {
                break;
            }
            self.or_stopped(async { receive(link).await.map_err(Ended::Base) }).await?;
        }
        let at = (self.recorder.tail().lsn, ts);
        let table = self.table.load().to_text();
        let made = |s: &RdbSummary| manifest(s, at, &position, SnapshotKind::Base, &table);
        let (summary, path) = copy.commit(made)?;
        if !summary.checksum_present {
            tracing::warn!(
                "the server writes no RDB checksums (rdbchecksum no): the base cannot be verified while it is received"
            );
        }
        let start =
            TimelineStart { timeline: position.timeline, source_id: position.replid.clone(), offset, reason, ts };
        self.recorder.begin(start, path)?;
        self.unsound = false;
        tracing::info!(
            timeline = position.timeline.0,
            bytes = summary.bytes,
            "the base is taken: every point in time from {ts} on can be restored"
        );
        self.position = Some(position);
        Ok(())
    }
}
