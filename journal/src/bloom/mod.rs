//! Bloom filters over keys: which parts of a segment cannot hold a key. Those of the segment in use are in
//! memory, and in a file of their own ([`crate::filters_file`]).
//!
//! A split block Bloom filter, as in Apache Parquet: a key's hash chooses one block of 256 bits and one
//! bit in each of its eight words. So a lookup reads 32 bytes, and the answer "no" is certain.
//!
//! ```text
//! blocks of the segment │ page │ page │ … │ footer: where each filter is, how large it is
//! ```
//!
//! Filters lie between the last block and the footer, in pages that are checked one by one: a lookup
//! reads one page, whatever the filter's size, and a damaged page never says "no".

mod build;
mod filter;
mod lookup;
#[cfg(test)]
mod tests;

use crate::crypto::OVERHEAD;
use crate::encoding::Cursor;
use crate::error::Damage;

pub(crate) use build::FilterBuilder;
pub(crate) use filter::BloomFilter;
pub(crate) use lookup::Lookup;

/// Size of a block of a filter.
const BLOCK_BYTES: usize = 32;
/// For so many keys a block is added: 10.7 bits for each key, about 1 % false positives.
const KEYS_IN_A_BLOCK: usize = 24;
/// Size of a page without what checks it.
const PAGE_BYTES: usize = 4096;
const PAGE_BLOCKS: u32 = (PAGE_BYTES / BLOCK_BYTES) as u32;
/// Size of what checks a page that is not encrypted.
const CHECK_BYTES: usize = 4;

/// Size of a page beside its bits.
fn page_overhead(sealed: bool) -> usize {
    if sealed { OVERHEAD } else { CHECK_BYTES }
}
/// Odd numbers, one for each word of a block; from Parquet's format.
const SALT: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];
/// Bit 0 of a place's flags.
const FLAG_UNKNOWN: u32 = 1;
/// Size of an encoded place.
pub(crate) const PLACE_LEN: usize = 16;

/// The hash of a key: XXH3, 64 bits, the database as seed.
pub(crate) fn hash_key(db: u32, key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(key, u64::from(db))
}

fn bit(hash: u64, word: usize) -> u32 {
    1 << ((hash as u32).wrapping_mul(SALT[word]) >> 27)
}

fn words(block: &[u8; BLOCK_BYTES]) -> [u32; 8] {
    let mut words = [0; 8];
    for (word, bytes) in words.iter_mut().zip(block.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

/// Whether all bits of a hash are set in its block.
fn matches(block: &[u32; 8], hash: u64) -> bool {
    block.iter().enumerate().all(|(n, word)| word & bit(hash, n) != 0)
}

/// Which of `blocks` blocks a hash belongs to.
fn block_of(hash: u64, blocks: u32) -> u32 {
    (((hash >> 32) * u64::from(blocks)) >> 32) as u32
}

/// Where an encrypted page belongs.
fn page_place(position: u64) -> [u8; 12] {
    let mut place = *b"RTKF\0\0\0\0\0\0\0\0";
    place[4..].copy_from_slice(&position.to_le_bytes());
    place
}

/// Binds a page to its place.
fn page_crc(position: u64, page: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&position.to_le_bytes()), page)
}

/// Where the filters of a segment are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    /// Their pages are encrypted.
    pub(crate) sealed: bool,
    /// Over the whole segment.
    pub(crate) all: Place,
    /// For each entry of the index.
    pub(crate) intervals: Vec<Place>,
}

/// Where a filter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: u64,
    /// Its number of blocks; 0 if no key was seen.
    pub(crate) blocks: u32,
    /// There are records of which the keys are not known: whatever the filter says, they may be meant.
    pub(crate) unknown: bool,
}

impl Place {
    /// Size of its pages.
    pub(crate) fn len(&self, sealed: bool) -> u64 {
        let pages = u64::from(self.blocks.div_ceil(PAGE_BLOCKS));
        u64::from(self.blocks) * BLOCK_BYTES as u64 + pages * page_overhead(sealed) as u64
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.position.to_le_bytes());
        out.extend_from_slice(&self.blocks.to_le_bytes());
        out.extend_from_slice(&u32::from(self.unknown).to_le_bytes());
    }

    pub(crate) fn decode(c: &mut Cursor<'_>) -> Result<Self, Damage> {
        let (position, blocks, flags) = (c.u64()?, c.u32()?, c.u32()?);
        if flags & !FLAG_UNKNOWN != 0 {
            return Err(Damage::new("filter flags 0 or 1", format!("{flags:#x}")));
        }
        Ok(Self { position, blocks, unknown: flags & FLAG_UNKNOWN != 0 })
    }
}
