//! The needed keys of a base by its key index: what is read grows with what is wanted.

use std::io;

use redtape_journal::SnapshotInfo;
use redtape_wire::rdb::{Extent, RdbSummary, parse_aux, parse_header, read_key_entry};

use super::base::{FoundInBase, SlicedBase, module_value};
use crate::error::RestoreError;

/// Bytes of values that are read by the key index; with more, the base is walked.
const INDEXED_BYTES_MAX: u64 = 256 << 20;
/// Bytes at the front that are looked at for auxiliary fields.
const FRONT_BYTES: u64 = 4096;

/// The key index of a base: where a key is, and verified bytes.
pub(crate) trait KeyPlaces {
    /// Where everything that belongs to the key is.
    fn find(&mut self, db: u32, key: &[u8]) -> Result<Option<Extent>, RestoreError>;
    /// Bytes of the base; fewer where it ends.
    fn read(&mut self, extent: Extent) -> Result<Vec<u8>, RestoreError>;
    /// Bytes that were read so far, the index's included.
    fn read_bytes(&self) -> u64;
}

/// Finds keys by the index. `None`: they are too large to be held, so the base has to be walked.
pub(crate) fn find_by_index(
    index: &mut dyn KeyPlaces,
    base: &SnapshotInfo,
    keys: &[(u32, &[u8])],
) -> Result<Option<FoundInBase>, RestoreError> {
    let damaged = |problem: String| RestoreError::Base { path: base.path.clone(), problem };
    let front = index.read(Extent { offset: 0, len: FRONT_BYTES })?;
    let version = parse_header(&front).map_err(|e| damaged(e.to_string()))?;
    let aux = parse_aux(&front);
    let mut found = SlicedBase::empty(version);
    found.aux = aux.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes())).collect();
    let failed = |e: io::Error| damaged(e.to_string());
    let mut writer = found.writer().map_err(failed)?;
    let (mut held, mut name, mut refused) = (0, Vec::new(), None);
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    for (db, key) in keys {
        let Some(extent) = index.find(db, key)? else { continue };
        held += extent.len;
        if held > INDEXED_BYTES_MAX {
            return Ok(None);
        }
        let entry = index.read(extent)?;
        let parsed = read_key_entry(version, db, &entry, &mut name).map_err(|e| damaged(e.to_string()))?;
        if parsed.key != key {
            return Err(damaged("its key index names another key".to_owned()));
        }
        refused = refused.or(module_value(&parsed));
        writer.entry(db, &entry).map_err(failed)?;
        found.keys += 1;
    }
    let held = writer.finish().map_err(failed)?;
    found.bytes = held.len() as u64;
    found.held = Some(held);
    let bytes = base.manifest.bytes;
    let summary = RdbSummary { version, bytes, checksum_present: base.manifest.checksum_present, aux };
    Ok(Some(FoundInBase { summary, keys: refused.map_or(Ok(found), Err), read_bytes: index.read_bytes() }))
}

#[cfg(test)]
#[path = "indexed_tests.rs"]
mod tests;
