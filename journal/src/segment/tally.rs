//! What the blocks of a segment add up to: kept while writing, computed again while scanning, and
//! stored in the footer. One owner for the rule of how a block may follow another.

use crate::block::{BlockHeader, LARGE_BLOCK_BYTES};
use crate::error::Damage;
use crate::segment::header::SegmentHeader;
use crate::types::{Lsn, Micros, ReplOffset};

/// Distance in the file between two entries of a segment's index.
pub(crate) const INDEX_EVERY_BYTES: u64 = if cfg!(test) { 512 } else { 256 << 10 };

/// A decoded payload of this size has an entry wherever it lies.
pub(crate) const INDEX_PAYLOAD_BYTES: u32 = LARGE_BLOCK_BYTES as u32;

/// How far the history reaches at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// LSN of the next record.
    pub(crate) next_lsn: Lsn,
    /// Time of the last group.
    pub(crate) last_ts: Micros,
    /// Position in the source.
    pub(crate) end_offset: ReplOffset,
}

/// One entry of a segment's index: a block and how far the history reaches with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) position: u64,
    pub(crate) extent: Extent,
}

/// The sum of a segment's blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) blocks: u32,
    pub(crate) groups: u64,
    pub(crate) records: u64,
    /// Time of the first group; without one, of the last group before the segment.
    pub(crate) first_ts: Micros,
    pub(crate) extent: Extent,
    pub(crate) complete_until: Micros,
    pub(crate) end_db: u32,
    pub(crate) index: Vec<IndexEntry>,
}

impl BlockHeader {
    /// How far the history reaches with this block.
    pub(crate) fn extent(&self) -> Extent {
        Extent { next_lsn: self.next_lsn(), last_ts: self.last_ts, end_offset: self.end_offset }
    }
}

impl Tally {
    /// Before the first block.
    pub(crate) fn begin(header: &SegmentHeader) -> Self {
        Self {
            blocks: 0,
            groups: 0,
            records: 0,
            first_ts: header.last_ts,
            extent: Extent { next_lsn: header.first_lsn, last_ts: header.last_ts, end_offset: header.start_offset },
            complete_until: header.complete_until,
            end_db: header.start_db,
            index: Vec::new(),
        }
    }

    /// Checks that a block continues the history: LSNs without a hole, time and offset not back.
    pub(crate) fn check_next(&self, block: &BlockHeader) -> Result<(), Damage> {
        if block.first_lsn != self.extent.next_lsn {
            return Err(Damage::new(
                format!("a block that begins with LSN {}", self.extent.next_lsn),
                format!("one with LSN {}", block.first_lsn),
            ));
        }
        if block.first_ts < self.extent.last_ts {
            return Err(Damage::new(
                format!("a block from {} on", self.extent.last_ts),
                format!("one from {} on", block.first_ts),
            ));
        }
        if block.start_offset < self.extent.end_offset {
            return Err(Damage::new(
                format!("a block from offset {} on", self.extent.end_offset),
                format!("one from offset {} on", block.start_offset),
            ));
        }
        Ok(())
    }

    /// The same groups lead to the same place, in whatever blocks.
    pub(crate) fn same_history(&self, other: &Self) -> bool {
        let of = |t: &Self| (t.groups, t.records, t.first_ts, t.extent, t.complete_until, t.end_db);
        of(self) == of(other)
    }

    /// Whether the index gets an entry for a block at this position.
    pub(crate) fn opens_interval(&self, block: &BlockHeader, position: u64) -> bool {
        let far = self.index.last().is_none_or(|e| position - e.position >= INDEX_EVERY_BYTES);
        far || block.raw_len >= INDEX_PAYLOAD_BYTES
    }

    /// The same sum without the index.
    pub(crate) fn without_index(&self) -> Self {
        let Self { blocks, groups, records, first_ts, extent, complete_until, end_db, index: _ } = *self;
        Self { blocks, groups, records, first_ts, extent, complete_until, end_db, index: Vec::new() }
    }

    /// Adds a block that was checked.
    pub(crate) fn add(&mut self, block: &BlockHeader, position: u64) {
        let opens = self.opens_interval(block, position);
        if self.groups == 0 {
            self.first_ts = block.first_ts;
        }
        self.blocks += 1;
        self.groups += u64::from(block.groups);
        self.records += u64::from(block.records);
        // A heartbeat has no group, so it cannot move the time of the last one.
        let last_ts = if block.groups > 0 { block.last_ts } else { self.extent.last_ts };
        self.extent = Extent { last_ts, ..block.extent() };
        self.complete_until = self.complete_until.max(block.complete_until);
        self.end_db = block.end_db;
        if opens {
            self.index.push(IndexEntry { position, extent: self.extent });
        }
    }
}
