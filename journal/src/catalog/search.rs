//! Reading only what may concern certain keys.
//!
//! A sealed segment has key filters: what they rule out is not read. Those of the segment in use are taken from a
//! file beside it, and made of its end, when the journal is opened for a search ([`super::Catalog::open_for_search`]). What has none (a segment that an earlier version has sealed) is
//! read, and its groups are looked at one by one.

use std::collections::HashMap;
use std::io;
use std::ops::Range;

use crate::bloom::{BloomFilter, Lookup, Place, Places, hash_key};
use crate::crypto::Sealer;
use crate::error::Damage;
use crate::segment::tally::IndexEntry;
use crate::types::Group;

/// What a search for keys has cost, and what it was spared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Searched {
    /// Bytes of footers, filters and blocks that were read.
    pub read_bytes: u64,
    /// Bytes of blocks that were not read, as they cannot concern the keys.
    pub skipped_bytes: u64,
}

/// The keys that are wanted.
#[derive(Debug)]
pub(super) struct Search {
    by_hash: HashMap<u64, Vec<(u32, Vec<u8>)>>,
}

impl Search {
    pub(super) fn new(keys: &[(u32, &[u8])]) -> Self {
        let mut by_hash: HashMap<u64, Vec<(u32, Vec<u8>)>> = HashMap::with_capacity(keys.len());
        for (db, key) in keys {
            by_hash.entry(hash_key(*db, key)).or_default().push((*db, key.to_vec()));
        }
        Self { by_hash }
    }

    /// Whether the group touches one of the keys, or may do so.
    pub(super) fn concerns(&self, group: &Group) -> bool {
        group.records.iter().any(|record| {
            let Some(keys) = &record.keys else { return true };
            keys.iter().filter_map(|at| record.args.get(*at)).any(|key| {
                let known = self.by_hash.get(&hash_key(record.db, key));
                known.is_some_and(|wanted| wanted.iter().any(|(db, wanted)| *db == record.db && wanted == key))
            })
        })
    }

    /// Those of the hashes that the filter may hold, in order.
    pub(super) fn may_be_in(
        hashes: &[u64],
        place: Place,
        sealer: Option<&Sealer>,
        read: &mut impl FnMut(u64, &mut [u8]) -> io::Result<()>,
        read_bytes: &mut u64,
    ) -> io::Result<Result<Vec<u64>, Damage>> {
        let mut lookup = Lookup::new(place, sealer, read);
        let mut found = Vec::new();
        let mut damage = None;
        for hash in hashes {
            match lookup.may_hold(*hash)? {
                Ok(true) => found.push(*hash),
                Ok(false) => {}
                Err(fault) => {
                    damage = Some(fault);
                    break;
                }
            }
        }
        *read_bytes += lookup.read_bytes;
        Ok(damage.map_or(Ok(found), Err))
    }

    /// The parts of a segment's blocks that may concern the keys, in order.
    pub(super) fn ranges(
        &self,
        index: &[IndexEntry],
        places: &Places,
        blocks_end: u64,
        sealer: Option<&Sealer>,
        mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
        read_bytes: &mut u64,
    ) -> io::Result<Result<Vec<Range<u64>>, Damage>> {
        // In the order of the hashes, so that each page is read once.
        let mut hashes: Vec<u64> = self.by_hash.keys().copied().collect();
        hashes.sort_unstable();
        let anywhere = match Self::may_be_in(&hashes, places.all, sealer, &mut read, read_bytes)? {
            Ok(anywhere) => anywhere,
            Err(damage) => return Ok(Err(damage)),
        };
        let mut ranges = Ranges::default();
        for (n, (entry, place)) in index.iter().zip(&places.intervals).enumerate() {
            let wanted = place.unknown
                || !anywhere.is_empty()
                    && match Self::may_be_in(&anywhere, *place, sealer, &mut read, read_bytes)? {
                        Ok(here) => !here.is_empty(),
                        Err(damage) => return Ok(Err(damage)),
                    };
            if wanted {
                ranges.add(entry.position..index.get(n + 1).map_or(blocks_end, |next| next.position));
            }
        }
        Ok(Ok(ranges.0))
    }

    /// The same by filters in memory, those of the segment in use.
    pub(super) fn ranges_by(&self, index: &[IndexEntry], filters: &[BloomFilter], blocks_end: u64) -> Vec<Range<u64>> {
        let may_be_in = |filter: &BloomFilter| self.by_hash.keys().any(|hash| filter.may_hold(*hash));
        let mut ranges = Ranges::default();
        for (n, (entry, filter)) in index.iter().zip(filters).enumerate() {
            if filter.has_unknown() || may_be_in(filter) {
                ranges.add(entry.position..index.get(n + 1).map_or(blocks_end, |next| next.position));
            }
        }
        ranges.0
    }
}

/// Parts of a file, in order; those that touch are one.
#[derive(Debug, Default)]
pub(super) struct Ranges(pub(super) Vec<Range<u64>>);

impl Ranges {
    pub(super) fn add(&mut self, range: Range<u64>) {
        match self.0.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.0.push(range),
        }
    }
}
