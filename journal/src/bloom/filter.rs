//! A filter in memory: built from hashes, asked about groups, and written as pages.

use std::io;

use super::lookup::Lookup;
use super::{BLOCK_BYTES, PAGE_BLOCKS, Place, bit, block_of, hash_key, matches, page_crc, page_place, words};
use crate::crypto::Sealer;
use crate::encoding::Cursor;
use crate::error::Damage;
use crate::types::Group;

/// So many of the bits (8 of 15) are set with 24 keys for each block.
const FULL: (u64, u64) = (8, 15);

/// A filter in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BloomFilter {
    pub(super) blocks: Vec<[u32; 8]>,
    pub(super) unknown: bool,
}

impl BloomFilter {
    /// Without keys, and with room for so many blocks' worth of them.
    pub(super) fn with_blocks(blocks: u32) -> Self {
        Self { blocks: vec![[0; 8]; blocks as usize], unknown: false }
    }

    /// A filter of so many blocks over the keys with these hashes.
    pub(super) fn over<'a>(blocks: u32, hashes: impl IntoIterator<Item = &'a u64>) -> Self {
        let mut filter = Self::with_blocks(blocks);
        hashes.into_iter().for_each(|hash| filter.add(*hash));
        filter
    }

    /// Adds the key with this hash.
    #[inline]
    pub(super) fn add(&mut self, hash: u64) {
        let blocks = self.blocks.len() as u32;
        let block = &mut self.blocks[block_of(hash, blocks) as usize];
        block.iter_mut().enumerate().for_each(|(n, word)| *word |= bit(hash, n));
    }

    /// Halves the number of blocks, which is a power of two and more than one, if no more bits are set then than in a filter
    /// of the usual size.
    pub(super) fn halve(&mut self) -> bool {
        let set =
            |pair: &[[u32; 8]]| -> u32 { (0..8).map(|n| pair.iter().fold(0, |all, b| all | b[n]).count_ones()).sum() };
        let bits: u64 = self.blocks.chunks(2).map(|pair| u64::from(set(pair))).sum();
        let room = self.blocks.len() as u64 / 2 * (BLOCK_BYTES as u64 * 8);
        if self.blocks.len() < 2 || bits * FULL.1 > room * FULL.0 {
            return false;
        }
        for n in 0..self.blocks.len() / 2 {
            let (one, other) = (self.blocks[2 * n], self.blocks[2 * n + 1]);
            self.blocks[n] = std::array::from_fn(|word| one[word] | other[word]);
        }
        self.blocks.truncate(self.blocks.len() / 2);
        true
    }

    /// Reads a whole filter, page by page.
    pub(crate) fn read(
        place: Place,
        sealer: Option<&Sealer>,
        read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<Self> {
        let mut lookup = Lookup::new(place, sealer, read);
        let mut blocks = Vec::new();
        for number in 0..place.blocks.div_ceil(PAGE_BLOCKS) {
            lookup.turn_to(number)?.map_err(io::Error::other)?;
            let page = lookup.page.iter().flat_map(|(_, page)| page.as_chunks::<BLOCK_BYTES>().0);
            blocks.extend(page.map(words));
        }
        Ok(Self { blocks, unknown: place.unknown })
    }

    /// Whether the key with this hash may be there.
    pub(crate) fn may_hold(&self, hash: u64) -> bool {
        let block = self.blocks.get(block_of(hash, self.blocks.len() as u32) as usize);
        block.is_some_and(|block| matches(block, hash))
    }

    /// Records of which the keys are not known are there: whatever else it says, they may be meant.
    pub(crate) fn has_unknown(&self) -> bool {
        self.unknown
    }

    /// Whether a search for any key of the group would find it.
    pub(crate) fn has(&self, group: &Group) -> bool {
        group.records.iter().all(|record| match &record.keys {
            None => self.unknown,
            Some(keys) => {
                keys.iter().filter_map(|at| record.args.get(*at)).all(|key| self.may_hold(hash_key(record.db, key)))
            }
        })
    }

    /// Its number of blocks.
    pub(crate) fn len(&self) -> u32 {
        self.blocks.len() as u32
    }

    /// Size of its blocks.
    pub(crate) fn bytes(&self) -> usize {
        self.blocks.len() * BLOCK_BYTES
    }

    /// Appends its blocks, without what checks them.
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        self.blocks.iter().flatten().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    }

    /// What was appended so.
    pub(crate) fn take(c: &mut Cursor<'_>, blocks: u32, unknown: bool) -> Result<Self, Damage> {
        let len = (blocks as usize).saturating_mul(BLOCK_BYTES);
        Ok(Self { blocks: c.take(len)?.as_chunks().0.iter().map(words).collect(), unknown })
    }

    /// The same with one bit less, which leaves out a key.
    #[cfg(test)]
    pub(crate) fn without_first_bit(mut self) -> Self {
        let word = self.blocks.iter_mut().flatten().find(|word| **word != 0).expect("a filter with a key");
        *word &= *word - 1;
        self
    }

    /// Appends the pages to `out`, which will be at `position` of the file; returns the place.
    pub(crate) fn encode(&self, position: u64, sealer: Option<&Sealer>, out: &mut Vec<u8>) -> Place {
        let begin = out.len();
        for blocks in self.blocks.chunks(PAGE_BLOCKS as usize) {
            let at = position + (out.len() - begin) as u64;
            let page: Vec<u8> = blocks.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
            if let Some(sealer) = sealer {
                out.extend_from_slice(&sealer.seal(&page_place(at), &page));
            } else {
                out.extend_from_slice(&page);
                out.extend_from_slice(&page_crc(at, &page).to_le_bytes());
            }
        }
        Place { position, blocks: self.blocks.len() as u32, unknown: self.unknown }
    }
}
