//! Collecting the keys of a segment into its filters, while its blocks are written or read.
//!
//! The filter of an interval is built when the next one begins. A filter is built from the hashes, as long as they are few; then from
//! a guess of how many there will be: it is made too large, and halved at the end while it is then no fuller than a filter of the right size is.
//!
//! Invariant: memory is bounded. [`RECENT_MAX`] and twice [`FEW_MAX`] hashes, two filters of [`FILTER_MAX_BLOCKS`], and the
//! intervals' filters that are built ([`FilterBuilder::built_bytes`]): the writer counts those as part of the segment's size.

use std::collections::HashSet;

use super::filter::BloomFilter;
use super::{BLOCK_BYTES, KEYS_IN_A_BLOCK, Places, hash_key};
use crate::block::{BlockHeader, each_key};
use crate::crypto::Sealer;

/// Different hashes of an interval that are gathered before they are put into the sets (64 Ki: 1 MiB).
const RECENT_MAX: usize = if cfg!(test) { 1 << 8 } else { 64 << 10 };
/// So many different hashes are kept as they are (128 Ki: 2 MiB); more go into a filter at once.
const FEW_MAX: usize = if cfg!(test) { 1 << 9 } else { 128 << 10 };
/// Largest filter that is built before the number of its keys is known (16 MiB, 12.6 million keys). With more keys, a search reads
/// more than it had to, and finds the same.
const FILTER_MAX_BLOCKS: u32 = if cfg!(test) { 1 << 14 } else { 1 << 19 };
/// A set that has room for so many times its hashes gives the room back.
const ROOM_MAX: usize = 8;
/// Sets with room for so few hashes keep it.
const ROOM_KEPT: usize = 4 << 10;

/// Hashes of keys, each once. Seeded by the process: who chooses keys does not choose where they lie.
type Hashes = HashSet<u64, foldhash::fast::RandomState>;

/// Different keys, on their way into a filter.
#[derive(Debug, Default)]
struct KeySet {
    few: Hashes,
    /// Once there were too many.
    filter: Option<BloomFilter>,
    unknown: bool,
}

impl KeySet {
    fn is_empty(&self) -> bool {
        self.few.is_empty() && self.filter.is_none()
    }

    /// Adds a hash. `growth`: by how much the set will grow till its end, as far as one knows.
    fn add(&mut self, hash: u64, growth: f64) {
        if let Some(filter) = &mut self.filter {
            return filter.add(hash);
        }
        self.few.insert(hash);
        if self.few.len() > FEW_MAX {
            let blocks = self.few.len() as f64 * growth.max(1.0) / KEYS_IN_A_BLOCK as f64;
            let blocks = (blocks.min(f64::from(FILTER_MAX_BLOCKS)) as u32).next_power_of_two();
            self.filter = Some(BloomFilter::over(blocks, &std::mem::take(&mut self.few)));
        }
    }

    fn finish(mut self) -> BloomFilter {
        let mut filter = if let Some(mut guessed) = self.filter.take() {
            while guessed.halve() {}
            guessed
        } else {
            exact(&self.few)
        };
        filter.unknown = self.unknown;
        filter
    }
}

/// A filter of the size that so many hashes need.
fn exact(hashes: &Hashes) -> BloomFilter {
    BloomFilter::over(hashes.len().div_ceil(KEYS_IN_A_BLOCK) as u32, hashes)
}

/// The filters of a segment in memory: one for all, and one for each entry of the index, over what lies up to the next entry.
#[derive(Debug)]
pub(crate) struct SegmentFilters {
    pub(crate) all: BloomFilter,
    pub(crate) intervals: Vec<BloomFilter>,
}

/// Collects the keys of a segment's blocks, in order.
#[derive(Debug)]
pub(crate) struct FilterBuilder {
    /// Hashes of the open interval that are in neither set yet.
    recent: Hashes,
    all: KeySet,
    /// Of the interval that is still open.
    interval: KeySet,
    /// There is such an interval.
    begun: bool,
    finished: Vec<BloomFilter>,
    built_bytes: u64,
    /// Where the present block is, and the size that the segment may have.
    position: u64,
    segment_bytes: u64,
}

impl FilterBuilder {
    /// For a segment of about so many bytes.
    pub(crate) fn new(segment_bytes: u64) -> Self {
        Self {
            recent: Hashes::default(),
            all: KeySet::default(),
            interval: KeySet::default(),
            begun: false,
            finished: Vec::new(),
            built_bytes: 0,
            position: 0,
            segment_bytes,
        }
    }

    /// What is added from now on belongs to the block at this position. `opens`: the index has an entry for it.
    pub(crate) fn begin_block(&mut self, position: u64, opens: bool) {
        if opens && self.begun {
            self.finish_interval();
        }
        self.begun = true;
        self.position = position;
    }

    /// Adds a key of the block; `None` = of a record, it is not known which keys it has.
    #[inline]
    pub(crate) fn add(&mut self, key: Option<(u32, &[u8])>) {
        self.add_hash(key.map(|(db, key)| hash_key(db, key)));
    }

    /// The same of the key's hash.
    #[inline]
    pub(crate) fn add_hash(&mut self, hash: Option<u64>) {
        let Some(hash) = hash else {
            self.interval.unknown = true;
            return;
        };
        if self.recent.len() == RECENT_MAX {
            self.take_recent();
        }
        self.recent.insert(hash);
    }

    /// Adds all keys of a block. What cannot be walked is never ruled out.
    pub(crate) fn add_payload(&mut self, header: &BlockHeader, payload: &[u8]) {
        if each_key(header, payload, |key| self.add(key)).is_err() {
            self.add(None);
        }
    }

    /// The filters of intervals so far, of all but the last one.
    pub(crate) fn finished(&self) -> &[BloomFilter] {
        &self.finished
    }

    /// Size of the filters of intervals so far.
    pub(crate) fn built_bytes(&self) -> u64 {
        self.built_bytes
    }

    fn take_recent(&mut self) {
        let growth = self.growth();
        for hash in self.recent.drain() {
            // So many keys in one interval are those of one huge group.
            self.interval.add(hash, f64::MAX);
            self.all.add(hash, growth);
        }
    }

    /// By how much the segment will still grow.
    fn growth(&self) -> f64 {
        self.segment_bytes as f64 / self.position.max(1) as f64
    }

    fn finish_interval(&mut self) {
        let unknown = self.interval.unknown;
        self.all.unknown |= unknown;
        let mut filter = if self.interval.is_empty() {
            let filter = exact(&self.recent);
            let growth = self.growth();
            for hash in &self.recent {
                self.all.add(*hash, growth);
            }
            filter
        } else {
            self.take_recent();
            std::mem::take(&mut self.interval).finish()
        };
        filter.unknown = unknown;
        self.interval.unknown = false;
        if self.recent.capacity() > ROOM_KEPT.max(self.recent.len() * ROOM_MAX) {
            self.recent = Hashes::default();
        }
        self.recent.clear();
        self.built_bytes += filter.blocks.len() as u64 * BLOCK_BYTES as u64;
        self.finished.push(filter);
    }

    /// The filters over all that was added.
    pub(crate) fn finish(mut self) -> SegmentFilters {
        if self.begun {
            self.finish_interval();
        }
        SegmentFilters { all: self.all.finish(), intervals: self.finished }
    }

    /// The pages, which will be at `position` of the file, and where each filter is.
    pub(crate) fn encode(self, position: u64, sealer: Option<&Sealer>) -> (Places, Vec<u8>) {
        let SegmentFilters { all, intervals } = self.finish();
        let mut out = Vec::new();
        let all = all.encode(position, sealer, &mut out);
        let place = |filter: &BloomFilter| filter.encode(position + out.len() as u64, sealer, &mut out);
        let intervals = intervals.iter().map(place).collect();
        (Places { sealed: sealer.is_some(), all, intervals }, out)
    }
}
