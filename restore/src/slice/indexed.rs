//! The needed keys of a base by its key index: what is read grows with what is wanted.

use std::io;

use redtape_journal::{Catalog, KeyIndex, KeyIndexError, Keyring, SnapshotInfo};
use redtape_wire::rdb::{Extent, RdbSummary, parse_aux, parse_header, read_key_entry};

use super::base::{FoundInBase, SlicedBase, module_value};
use super::needed::Needed;
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::progress::{Event, Observer};
use crate::source::key_index::{BuildError, open_or_build, rebuild};

/// Keys that are looked up one by one.
const INDEXED_KEYS_MAX: usize = 4096;
/// Bytes of values that are read by the key index; with more, the base is walked.
const INDEXED_BYTES_MAX: u64 = 256 << 20;
/// Bytes at the front that are looked at for auxiliary fields.
const FRONT_BYTES: u64 = 4096;

/// The key index of a base: where a key is, and verified bytes.
trait KeyPlaces {
    /// Where everything that belongs to the key is.
    fn find(&mut self, db: u32, key: &[u8]) -> Result<Option<Extent>, KeyIndexError>;
    /// Bytes of the base; fewer where it ends.
    fn read(&mut self, extent: Extent) -> Result<Vec<u8>, KeyIndexError>;
    /// Bytes that were read so far, the index's included.
    fn read_bytes(&self) -> u64;
}

impl KeyPlaces for KeyIndex {
    fn find(&mut self, db: u32, key: &[u8]) -> Result<Option<Extent>, KeyIndexError> {
        Ok(Self::find(self, db, key)?.map(|(offset, len)| Extent { offset, len }))
    }

    fn read(&mut self, extent: Extent) -> Result<Vec<u8>, KeyIndexError> {
        Self::read(self, extent.offset, extent.len.min(self.content_bytes().saturating_sub(extent.offset)))
    }

    fn read_bytes(&self) -> u64 {
        self.bytes_read()
    }
}

/// Why keys cannot be read by the index.
#[derive(Debug)]
enum Failed {
    Index(KeyIndexError),
    /// What the index names is not what it should be.
    Base(String),
}

impl From<KeyIndexError> for Failed {
    fn from(error: KeyIndexError) -> Self {
        Self::Index(error)
    }
}

/// Finds the needed keys by the base's key index, which is made if there is none. `None`: they cannot be named, are too large to
/// be held, or need the whole base, or there is no index and none can be made: then the base has to be walked.
pub(crate) fn find_indexed(
    catalog: &Catalog,
    base: &SnapshotInfo,
    keyring: &Keyring,
    needed: &Needed,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Option<FoundInBase>, RestoreError> {
    let keys = needed.exact_keys().filter(|keys| !keys.is_empty() && keys.len() <= INDEXED_KEYS_MAX);
    let Some(keys) = keys else { return Ok(None) };
    match find_exact(catalog, base, keyring, &keys, interrupt) {
        // An index is never needed: no room, no rights, a base too large for one.
        Err(RestoreError::KeyIndex(error)) => {
            observer.on(&Event::Note(&format!("all of the base is read, as its key index cannot be used: {error}")));
            Ok(None)
        }
        other => other,
    }
}

fn find_exact(
    catalog: &Catalog,
    base: &SnapshotInfo,
    keyring: &Keyring,
    keys: &[(u32, &[u8])],
    interrupt: &Interrupt,
) -> Result<Option<FoundInBase>, RestoreError> {
    let mut index = open_or_build(catalog, base, keyring, interrupt)?;
    let mut found = find_by_index(&mut index, base, keys);
    if matches!(&found, Err(Failed::Index(error)) if error.is_made_again()) {
        found = find_by_index(&mut rebuild(catalog, base, keyring, interrupt)?, base, keys);
    }
    found.map_err(|failed| match failed {
        Failed::Index(error) => BuildError::Index(error).of_base(base),
        Failed::Base(problem) => RestoreError::Base { path: base.path.clone(), problem },
    })
}

/// Finds keys by the index. `None`: they are too large to be held, or do not go alone, so the base has to be walked. Where the whole
/// base is used then, its digest was compared.
fn find_by_index(
    index: &mut dyn KeyPlaces,
    base: &SnapshotInfo,
    keys: &[(u32, &[u8])],
) -> Result<Option<FoundInBase>, Failed> {
    let damaged = Failed::Base;
    let front = index.read(Extent { offset: 0, len: FRONT_BYTES })?;
    let version = parse_header(&front).map_err(|e| damaged(e.to_string()))?;
    let aux = parse_aux(&front);
    let mut found = SlicedBase::empty(version);
    found.aux = aux.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes())).collect();
    let failed = |e: io::Error| damaged(e.to_string());
    let mut writer = found.writer().map_err(failed)?;
    let (mut held, mut name) = (0, Vec::new());
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
        if module_value(&parsed).is_some() {
            return Ok(None);
        }
        writer.entry(db, &entry).map_err(failed)?;
        found.keys += 1;
    }
    let held = writer.finish().map_err(failed)?;
    found.bytes = held.len() as u64;
    found.held = Some(held);
    let bytes = base.manifest.bytes;
    let summary = RdbSummary { version, bytes, checksum_present: base.manifest.checksum_present, aux };
    Ok(Some(FoundInBase { summary, keys: Ok(found), read_bytes: index.read_bytes() }))
}

#[cfg(test)]
#[path = "indexed_tests.rs"]
mod tests;
