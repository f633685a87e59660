//! Snapshots: opaque files with a manifest, from which a restore starts.
//!
//! The manifest is put in place last: a file without one is unfinished and nobody reads it. Any
//! process may write one, without the journal's lock; each holds a `flock` on its own file until the
//! manifest is there, so that cleaning up never removes what a living process still writes.

mod store;
#[cfg(test)]
pub(crate) mod tests;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
pub use store::SnapshotWriter;
pub(crate) use store::{RETIRED, clean_snapshots, list_snapshots};

use crate::types::{Lsn, Micros, ReplOffset, TimelineId};

/// Why a snapshot was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotKind {
    /// The state with which a timeline starts.
    Base,
    /// Somebody asked for it.
    Manual,
    /// The schedule asked for it.
    Scheduled,
}

/// What is known of a snapshot; stored beside it as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotManifest {
    /// It holds the effects of everything up to this LSN and of nothing after it.
    pub lsn: Lsn,
    /// Timeline to which it belongs.
    pub timeline: TimelineId,
    /// Id of the timeline's source.
    pub source_id: String,
    /// Position in the source.
    pub offset: ReplOffset,
    /// Database selected at that position, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db: Option<u32>,
    /// The moment that it shows.
    pub ts: Micros,
    /// Why it was taken.
    pub kind: SnapshotKind,
    /// Size of the file; filled in by [`SnapshotWriter::commit`].
    #[serde(default)]
    pub bytes: u64,
    /// BLAKE3 of the file, 64 hex digits; filled in by [`SnapshotWriter::commit`].
    #[serde(default)]
    pub blake3: String,
    /// How the file begins, such as `REDIS0010`.
    #[serde(default)]
    pub magic_version: String,
    /// Version of the server that made it.
    #[serde(default)]
    pub server_version: String,
    /// The file ends with its own checksum.
    #[serde(default)]
    pub checksum_present: bool,
    /// The server's command table at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_table: Option<serde_json::Value>,
}

/// A finished snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotInfo {
    /// The file.
    pub path: PathBuf,
    /// Its manifest.
    pub manifest: SnapshotManifest,
}
