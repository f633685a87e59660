//! Joining the groups of several blocks into one. What is in a group is copied as bytes; only what depends on the groups before
//! it (time, offset, number of its origin) is written anew.
//!
//! Invariant: all groups of a block that is read come into the same block.

use std::collections::HashMap;

use super::build::{Block, BlockBuilder};
use super::header::BlockHeader;
use super::walk::EncodedGroup;
use crate::encoding::MAX_VARINT;
use crate::error::Damage;
use crate::types::{Lsn, Micros, ReplOffset};

/// Flags, and at most five numbers.
const HEAD_MAX: usize = 1 + 5 * MAX_VARINT;

/// Collects the groups of blocks that follow each other into one, then the next.
#[derive(Debug)]
pub(crate) struct BlockJoiner {
    builder: BlockBuilder,
    /// The origins of the block that is made, by their bytes, and their numbers there.
    origins: HashMap<Box<[u8]>, u64, foldhash::fast::RandomState>,
    /// Those of the block that is read, in its order: their numbers in the block that is made.
    numbers: Vec<u64>,
}

impl BlockJoiner {
    /// As [`BlockBuilder::new`].
    pub(crate) fn new(next_lsn: Lsn, prev_ts: Micros, prev_offset: ReplOffset, db: u32) -> Self {
        let builder = BlockBuilder::new(next_lsn, prev_ts, prev_offset, db);
        Self { builder, origins: HashMap::default(), numbers: Vec::new() }
    }

    /// The groups that come now are those of another block.
    pub(crate) fn begin_block(&mut self) {
        self.numbers.clear();
    }

    /// Adds the next group of the block.
    pub(crate) fn push(&mut self, group: &EncodedGroup<'_>) -> Result<(), Damage> {
        if group.ts < self.builder.last_ts() || group.end_offset < self.builder.group_offset() {
            return Err(Damage::new(
                format!("a group from {}, offset {} on", self.builder.last_ts(), self.builder.group_offset()),
                format!("one of {}, offset {}", group.ts, group.end_offset),
            ));
        }
        let most = HEAD_MAX + group.new_origin.map_or(0, <[u8]>::len) + group.records.len();
        self.builder.begin_group(most, group.flags, group.ts, group.slack);
        self.put_origin(group)?;
        self.builder.put_offset(group.end_offset);
        self.builder.put_encoded(group.records);
        self.builder.end_group(group.record_count);
        Ok(())
    }

    fn put_origin(&mut self, group: &EncodedGroup<'_>) -> Result<(), Damage> {
        let Some(origin) = group.new_origin else {
            let number = usize::try_from(group.origin).ok().and_then(|at| self.numbers.get(at));
            let number = number.ok_or_else(|| Damage::new("an origin of this block", format!("{}", group.origin)))?;
            self.builder.put_number(*number);
            return Ok(());
        };
        let known = self.origins.get(origin).copied();
        let number = known.unwrap_or(self.origins.len() as u64);
        self.numbers.push(number);
        self.builder.put_number(number);
        if known.is_none() {
            self.origins.insert(origin.into(), number);
            self.builder.put_encoded(origin);
        }
        Ok(())
    }

    /// The block that was read ends: the source was in this place, with this database.
    pub(crate) fn end_block(&mut self, header: &BlockHeader) {
        self.builder.set_end_offset(header.end_offset);
        self.builder.set_db(header.end_db);
    }

    /// No group was pushed since the last `finish`.
    pub(crate) fn is_empty(&self) -> bool {
        self.builder.is_empty()
    }

    /// Size of header and payload so far; 0 if empty.
    pub(crate) fn len_bytes(&self) -> usize {
        self.builder.len_bytes()
    }

    /// Position in the source, and its database, after everything pushed.
    pub(crate) fn end(&self) -> (ReplOffset, u32) {
        (self.builder.end_offset(), self.builder.db())
    }

    /// Ends the block and starts the next one. Without groups, the result is a heartbeat.
    pub(crate) fn finish(&mut self, complete_until: Micros) -> Block {
        self.origins.clear();
        self.numbers.clear();
        self.builder.finish(complete_until)
    }
}
