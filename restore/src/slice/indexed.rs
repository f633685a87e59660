//! Finds the needed keys of a base with its key index, so that reading is proportional to the selection. Named keys are
//! looked up; keys with a common prefix are read as ranges of the index.

use std::io;

use redtape_journal::{Catalog, KeyIndex, KeyIndexError, KeyPlace, Keyring, SnapshotInfo};
use redtape_wire::rdb::{Extent, RdbSummary, parse_aux, parse_header, read_key_entry};

use super::BaseSearch;
use super::base::{FoundInBase, SlicedBase, module_value};
use super::needed::{KeyRange, KeyRanges, Needed};
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::progress::{Event, Observer};
use crate::source::key_index::{BuildError, open_or_build, rebuild};

/// Keys that are looked up one by one.
const INDEXED_KEYS_MAX: usize = 4096;
/// Keys that are taken from ranges of the index.
const RANGE_KEYS_MAX: usize = 1 << 20;
/// Bytes of values that are read by the key index, and of their keys; with more, the base is walked.
const INDEXED_BYTES_MAX: u64 = 256 << 20;
/// Bytes at the front that are looked at for auxiliary fields.
const FRONT_BYTES: u64 = 4096;

/// The key index of a base: where a key is, and verified bytes.
trait KeyPlaces {
    /// Where everything that belongs to the key is.
    fn find(&mut self, db: u32, key: &[u8]) -> Result<Option<Extent>, KeyIndexError>;
    /// Passes the keys of a range until `take` ends it.
    fn scan(&mut self, range: &KeyRange, each: &mut dyn FnMut(Place) -> bool) -> Result<(), KeyIndexError>;
    /// Bytes of the base; fewer where it ends.
    fn read(&mut self, extent: Extent) -> Result<Vec<u8>, KeyIndexError>;
    /// Bytes that were read so far, the index's included.
    fn read_bytes(&self) -> u64;
}

impl KeyPlaces for KeyIndex {
    fn find(&mut self, db: u32, key: &[u8]) -> Result<Option<Extent>, KeyIndexError> {
        Ok(Self::find(self, db, key)?.map(|(offset, len)| Extent { offset, len }))
    }

    fn scan(&mut self, range: &KeyRange, each: &mut dyn FnMut(Place) -> bool) -> Result<(), KeyIndexError> {
        for place in Self::scan(self, range.db, &range.prefix) {
            let KeyPlace { db, key, offset, len } = place?;
            if !each(Place { db, key, extent: Extent { offset, len } }) {
                break;
            }
        }
        Ok(())
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
    /// The index does not match the base.
    Base(String),
    /// The restore was interrupted.
    Stopped(RestoreError),
}

impl From<KeyIndexError> for Failed {
    fn from(error: KeyIndexError) -> Self {
        Self::Index(error)
    }
}

/// Which keys of a base are looked for.
#[derive(Debug)]
struct Wanted<'a> {
    /// Ranges that hold wanted keys, and others.
    ranges: Vec<KeyRange>,
    /// Keys that are looked up.
    exact: Vec<(u32, &'a [u8])>,
    /// Tells in a range which are wanted.
    needed: &'a Needed,
}

/// A wanted key of a base.
#[derive(Debug)]
struct Place {
    db: u32,
    key: Vec<u8>,
    extent: Extent,
}

impl<'a> Wanted<'a> {
    /// `None`: they cannot be found by an index, or none is needed.
    fn of(needed: &'a Needed) -> Option<Self> {
        let KeyRanges { ranges, beside: exact } = needed.ranges()?;
        let is_some = !(ranges.is_empty() && exact.is_empty());
        (is_some && exact.len() <= INDEXED_KEYS_MAX).then_some(Self { ranges, exact, needed })
    }

    fn search(&self) -> BaseSearch {
        if self.ranges.is_empty() { BaseSearch::KeyIndex } else { BaseSearch::KeyRanges }
    }

    /// Where they are, in the order of the base. `None`: there are too many, or they are too large to be held.
    fn places(&self, index: &mut dyn KeyPlaces, interrupt: &Interrupt) -> Result<Option<Vec<Place>>, Failed> {
        let (mut places, mut bytes, mut names, mut stopped) = (Vec::new(), 0, 0, Ok(()));
        for (db, key) in &self.exact {
            if let Some(extent) = index.find(*db, key)? {
                bytes += extent.len;
                places.push(Place { db: *db, key: key.to_vec(), extent });
            }
        }
        for range in &self.ranges {
            index.scan(range, &mut |place| {
                if self.needed.needs(place.db, &place.key) {
                    (bytes, names) = (bytes + place.extent.len, names + place.key.len() as u64);
                    places.push(place);
                }
                stopped = interrupt.check();
                stopped.is_ok() && bytes.max(names) <= INDEXED_BYTES_MAX && places.len() <= RANGE_KEYS_MAX
            })?;
            std::mem::replace(&mut stopped, Ok(())).map_err(Failed::Stopped)?;
        }
        if bytes.max(names) > INDEXED_BYTES_MAX || places.len() > RANGE_KEYS_MAX {
            return Ok(None);
        }
        // A looked-up key may also lie in a range.
        places.sort_unstable_by_key(|place| place.extent.offset);
        places.dedup_by_key(|place| place.extent.offset);
        Ok(Some(places))
    }
}

/// Finds the needed keys by the base's key index, which is made if there is none. `None`: they may be anywhere, are too large to
/// be held, or need the whole base, or there is no index and none can be made: then the base has to be walked.
pub(crate) fn find_indexed(
    catalog: &Catalog,
    base: &SnapshotInfo,
    keyring: &Keyring,
    needed: &Needed,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Option<FoundInBase>, RestoreError> {
    let Some(wanted) = Wanted::of(needed) else { return Ok(None) };
    match find(catalog, base, keyring, &wanted, interrupt) {
        // The index is optional: there may be no room, no rights, or the base may be too large.
        Err(RestoreError::KeyIndex(error)) => {
            observer.on(&Event::Note(&format!("all of the base is read, as its key index cannot be used: {error}")));
            Ok(None)
        }
        other => other,
    }
}

fn find(
    catalog: &Catalog,
    base: &SnapshotInfo,
    keyring: &Keyring,
    wanted: &Wanted<'_>,
    interrupt: &Interrupt,
) -> Result<Option<FoundInBase>, RestoreError> {
    let mut index = open_or_build(catalog, base, keyring, interrupt)?;
    let mut found = find_by_index(&mut index, base, wanted, interrupt);
    if matches!(&found, Err(Failed::Index(error)) if error.is_made_again()) {
        found = find_by_index(&mut rebuild(catalog, base, keyring, interrupt)?, base, wanted, interrupt);
    }
    found.map_err(|failed| match failed {
        Failed::Index(error) => BuildError::Index(error).of_base(base),
        Failed::Base(problem) => RestoreError::Base { path: base.path.clone(), problem },
        Failed::Stopped(error) => error,
    })
}

/// Finds keys by the index. `None`: they are too large to be held, or do not go alone, so the base has to be walked. Where the whole
/// base is used then, its digest was compared.
fn find_by_index(
    index: &mut dyn KeyPlaces,
    base: &SnapshotInfo,
    wanted: &Wanted<'_>,
    interrupt: &Interrupt,
) -> Result<Option<FoundInBase>, Failed> {
    let damaged = Failed::Base;
    let front = index.read(Extent { offset: 0, len: FRONT_BYTES })?;
    let version = parse_header(&front).map_err(|e| damaged(e.to_string()))?;
    let aux = parse_aux(&front);
    let mut found = SlicedBase::empty(version);
    found.aux = aux.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes())).collect();
    let failed = |e: io::Error| damaged(e.to_string());
    let mut writer = found.writer().map_err(failed)?;
    let mut name = Vec::new();
    let Some(places) = wanted.places(index, interrupt)? else { return Ok(None) };
    for Place { db, key, extent } in places {
        interrupt.check().map_err(Failed::Stopped)?;
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
    let (read_bytes, search) = (index.read_bytes(), Some(wanted.search()));
    Ok(Some(FoundInBase { summary, keys: Ok(found), read_bytes, search }))
}

#[cfg(test)]
#[path = "indexed_tests.rs"]
mod tests;
