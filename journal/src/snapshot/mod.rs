//! Snapshots: opaque files with a manifest, from which a restore starts.
//!
//! The manifest is put in place last: a file without one is unfinished and is not read. Any
//! process may write one, without the journal's lock; each holds a `flock` on its own file until the
//! manifest is there, so that cleaning up never removes what a living process still writes.

mod chunks;
pub(crate) mod key_index;
mod store;
#[cfg(test)]
pub(crate) mod tests;

use std::path::PathBuf;

pub use chunks::SnapshotReader;
pub(crate) use key_index::ContentDigests;
use serde::{Deserialize, Serialize};
pub use store::SnapshotWriter;
pub(crate) use store::{RETIRED, clean_snapshots, list_snapshots, list_snapshots_of};

use crate::crypto::{KeyFault, Keyring, Sealer, Wrapped};
use crate::error::OpenError;
use crate::hex::unhex;
use crate::segment::link::hash_file;
use crate::storage::Storage;
use crate::types::{Lsn, Micros, ReplOffset, TimelineId};

/// How the name of a snapshot's key index ends.
pub(crate) const KEY_INDEX: &str = "keys";
/// How pretty JSON ends.
const JSON_END: &str = "\n}";
/// What stands around a manifest's checksum.
const CHECKSUM_BEGIN: &str = ",\n  \"crc32c\": \"";
const CHECKSUM_END: &str = "\"\n}";

/// How a snapshot is encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotEncryption {
    /// Id of the operator's key.
    pub key_id: String,
    /// The data key, wrapped, 144 hex digits.
    pub wrapped_key: String,
}

/// Why a snapshot was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotKind {
    /// The state with which a timeline starts.
    Base,
    /// It was requested.
    Manual,
    /// The schedule asked for it.
    Scheduled,
}

/// What is known of a snapshot; stored beside it as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotManifest {
    /// Which journal it belongs to; filled in by [`SnapshotWriter::commit`].
    #[serde(default)]
    pub journal_id: String,
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
    /// The point in time that it shows.
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
    /// It is encrypted; `bytes` and `blake3` are those of the file as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<SnapshotEncryption>,
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
    /// Size of its key index when it was listed; 0 = there was none.
    pub key_index_bytes: u64,
}

impl SnapshotManifest {
    /// What the wrapped data key is bound to.
    fn place(&self) -> Vec<u8> {
        let mut place = b"RTSM".to_vec();
        place.extend_from_slice(self.journal_id.as_bytes());
        place.extend_from_slice(&self.lsn.0.to_le_bytes());
        place.extend_from_slice(&self.timeline.0.to_le_bytes());
        place.extend_from_slice(&self.offset.0.to_le_bytes());
        place.extend_from_slice(&self.ts.0.to_le_bytes());
        place
    }

    /// How its file's name begins, and ends unless there is another one of the same place.
    fn stem(&self) -> String {
        format!("{:020}-{:06}", self.lsn.0, self.timeline.0)
    }

    /// As it is stored: a JSON object whose last member is the checksum of everything before.
    pub(crate) fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.truncate(json.len() - JSON_END.len());
        let crc = crc32c::crc32c(&json);
        json.extend_from_slice(format!("{CHECKSUM_BEGIN}{crc:08x}{CHECKSUM_END}").as_bytes());
        Ok(json)
    }

    /// Reads what was stored; an error says what is wrong with it.
    pub(crate) fn from_json(json: &[u8]) -> Result<Self, String> {
        let at = json.len().checked_sub(CHECKSUM_BEGIN.len() + 8 + CHECKSUM_END.len());
        let (before, checksum) = json.split_at(at.ok_or_else(|| format!("has only {} bytes", json.len()))?);
        let crc = crc32c::crc32c(before);
        if checksum != format!("{CHECKSUM_BEGIN}{crc:08x}{CHECKSUM_END}").as_bytes() {
            return Err(format!("does not end with its checksum {crc:08x}"));
        }
        serde_json::from_slice(json).map_err(|e| format!("is no manifest: {e}"))
    }
}

/// What reading a snapshot has shown.
#[derive(Debug)]
pub(crate) struct Health {
    /// It was removed since it was listed.
    pub(crate) gone: bool,
    /// Where it is damaged, and how.
    pub(crate) damage: Option<(u64, String)>,
    /// Why its contents could not be looked at; then only its digest was compared.
    pub(crate) unseen: Option<KeyFault>,
    /// The digests of its content, to be compared with those of its key index, if it has one.
    pub(crate) content: Option<ContentDigests>,
}

/// Reads a snapshot through.
fn copy(reader: &mut SnapshotReader, content: Option<&mut ContentDigests>) -> std::io::Result<u64> {
    match content {
        Some(content) => std::io::copy(reader, content),
        None => std::io::copy(reader, &mut std::io::sink()),
    }
}

impl SnapshotInfo {
    /// Reads all of it.
    pub(crate) fn health(&self, storage: &dyn Storage, keyring: &Keyring) -> Result<Health, OpenError> {
        match self.read_health(storage, keyring) {
            Err(OpenError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound && !storage.has(&self.path.with_extension("json")) =>
            {
                Ok(Health { gone: true, damage: None, unseen: None, content: None })
            }
            other => other,
        }
    }

    fn read_health(&self, storage: &dyn Storage, keyring: &Keyring) -> Result<Health, OpenError> {
        let path = &self.path;
        let found = |damage| Health { gone: false, damage, unseen: None, content: None };
        let mut unseen = None;
        let mut content = (self.key_index_bytes > 0).then(ContentDigests::default);
        let digest = match self.open_in(storage, keyring) {
            Ok(mut reader) => match copy(&mut reader, content.as_mut()) {
                Ok(_) => reader.digest(),
                // Who can compute digests cannot encrypt.
                Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                    return Ok(found(Some((reader.chunk_position(), e.to_string()))));
                }
                Err(e) => return Err(OpenError::io("read", path)(e)),
            },
            Err(OpenError::Key { fault: KeyFault::Missing(id), .. }) => {
                (unseen, content) = (Some(KeyFault::Missing(id)), None);
                let hashed = storage.open(path).and_then(|file| hash_file(&*file, u64::MAX));
                hashed.map_err(OpenError::io("read", path))?.to_hex().to_string()
            }
            Err(OpenError::Key { fault, .. }) => return Ok(found(Some((0, fault.to_string())))),
            Err(other) => return Err(other),
        };
        let expected = &self.manifest.blake3;
        let damage = (digest != *expected).then(|| (0, format!("expected BLAKE3 {expected}, found {digest}")));
        Ok(Health { gone: false, damage, unseen, content })
    }

    /// Opens the file where it is stored, to read what was written into it.
    pub(crate) fn open_in(&self, storage: &dyn Storage, keyring: &Keyring) -> Result<SnapshotReader, OpenError> {
        let sealer = self.sealer(keyring)?;
        let file = storage.open(&self.path).map_err(OpenError::io("open", &self.path))?;
        Ok(SnapshotReader::new(file, sealer, self.manifest.bytes))
    }

    /// What decrypts its file, and its key index; `None` if they are not encrypted.
    fn sealer(&self, keyring: &Keyring) -> Result<Option<Sealer>, OpenError> {
        self.manifest.encryption.as_ref().map(|encryption| self.unlock(encryption, keyring)).transpose()
    }

    /// What it takes on the disk, its manifest aside.
    pub fn stored_bytes(&self) -> u64 {
        self.manifest.bytes + self.key_index_bytes
    }

    fn unlock(&self, encryption: &SnapshotEncryption, keyring: &Keyring) -> Result<Sealer, OpenError> {
        let key = |fault| OpenError::Key { file: self.path.clone(), fault };
        let key_id = encryption.key_id.clone();
        let bytes = unhex(&encryption.wrapped_key).ok_or_else(|| key(KeyFault::Wrong(key_id.clone())))?;
        keyring.unwrap(&Wrapped { key_id, bytes }, &self.manifest.place()).map_err(key)
    }
}
