//! Bloom filters over keys: which parts of a sealed segment cannot hold a key.
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

use std::io;

use crate::crypto::{OVERHEAD, Sealer};
use crate::encoding::Cursor;
use crate::error::Damage;
use crate::types::Group;

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

/// Keys that were seen, on their way into a filter.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keys {
    hashes: Vec<u64>,
    /// How many are different, as far as that was found out.
    distinct: usize,
    /// There were records of which the keys are not known.
    pub(crate) unknown: bool,
}

impl Keys {
    pub(crate) fn add(&mut self, hash: u64) {
        // Hot keys come again and again; the memory is for the different ones.
        const FEW: usize = 4096;
        if self.hashes.len() >= FEW && self.hashes.len() >= 2 * self.distinct {
            self.sort();
        }
        self.hashes.push(hash);
    }

    pub(crate) fn add_group(&mut self, group: &Group) {
        for record in &group.records {
            match &record.keys {
                None => self.unknown = true,
                Some(keys) => {
                    let args = keys.iter().filter_map(|at| record.args.get(*at));
                    args.for_each(|key| self.add(hash_key(record.db, key)));
                }
            }
        }
    }

    /// Takes over what was seen elsewhere.
    pub(crate) fn add_all(&mut self, other: &Self) {
        other.hashes.iter().for_each(|&hash| self.add(hash));
        self.unknown |= other.unknown;
    }

    fn sort(&mut self) {
        self.hashes.sort_unstable();
        self.hashes.dedup();
        self.distinct = self.hashes.len();
    }

    /// The filter of all of them.
    pub(crate) fn filter(&mut self) -> BloomFilter {
        self.sort();
        let blocks = self.hashes.len().div_ceil(KEYS_IN_A_BLOCK) as u32;
        let mut words = vec![[0; 8]; blocks as usize];
        for &hash in &self.hashes {
            let block = &mut words[block_of(hash, blocks) as usize];
            block.iter_mut().enumerate().for_each(|(n, word)| *word |= bit(hash, n));
        }
        BloomFilter { blocks: words, unknown: self.unknown }
    }
}

/// A filter in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BloomFilter {
    blocks: Vec<[u32; 8]>,
    unknown: bool,
}

impl BloomFilter {
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

    /// Whether a search for any key of the group would find it.
    pub(crate) fn has(&self, group: &Group) -> bool {
        let holds = |hash: u64| {
            let block = self.blocks.get(block_of(hash, self.blocks.len() as u32) as usize);
            block.is_some_and(|block| matches(block, hash))
        };
        group.records.iter().all(|record| match &record.keys {
            None => self.unknown,
            Some(keys) => keys.iter().filter_map(|at| record.args.get(*at)).all(|key| holds(hash_key(record.db, key))),
        })
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

/// The filters of a segment: one for all, and one for each entry of the index, over what lies up to the
/// next entry.
#[derive(Debug, Default)]
pub(crate) struct BloomFilterBuilder {
    all: Keys,
    /// Of the interval that is still open.
    interval: Keys,
    /// There is such an interval.
    begun: bool,
    finished: Vec<BloomFilter>,
}

impl BloomFilterBuilder {
    /// Adds the keys of a block, with which the index has so many entries.
    pub(crate) fn add(&mut self, keys: &Keys, entries: usize) {
        if entries > self.finished.len() + 1 {
            self.finish_interval();
        }
        self.begun = true;
        self.interval.add_all(keys);
    }

    fn finish_interval(&mut self) {
        let mut interval = std::mem::take(&mut self.interval);
        self.finished.push(interval.filter());
        // Sorted by now, and each key once.
        self.all.add_all(&interval);
    }

    /// The pages, which will be at `position` of the file, and where each filter is.
    pub(crate) fn encode(mut self, position: u64, sealer: Option<&Sealer>) -> (Places, Vec<u8>) {
        if self.begun {
            self.finish_interval();
        }
        let mut out = Vec::new();
        let all = self.all.filter().encode(position, sealer, &mut out);
        let mut intervals = Vec::with_capacity(self.finished.len());
        for filter in &self.finished {
            intervals.push(filter.encode(position + out.len() as u64, sealer, &mut out));
        }
        (Places { sealed: sealer.is_some(), all, intervals }, out)
    }
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

/// Asks one filter about keys, reading a page at a time; the last one is kept.
pub(crate) struct Lookup<'a, R> {
    place: Place,
    sealer: Option<&'a Sealer>,
    /// Reads bytes of the file, exactly as many.
    read: R,
    page: Option<(u32, Vec<u8>)>,
    pub(crate) read_bytes: u64,
}

impl<'a, R: FnMut(u64, &mut [u8]) -> io::Result<()>> Lookup<'a, R> {
    pub(crate) fn new(place: Place, sealer: Option<&'a Sealer>, read: R) -> Self {
        Self { place, sealer, read, page: None, read_bytes: 0 }
    }

    /// Whether the key with this hash may be there.
    pub(crate) fn may_hold(&mut self, hash: u64) -> io::Result<Result<bool, Damage>> {
        if self.place.blocks == 0 {
            return Ok(Ok(false));
        }
        let block = block_of(hash, self.place.blocks);
        let number = block / PAGE_BLOCKS;
        if self.page.as_ref().is_none_or(|(n, _)| *n != number)
            && let Err(damage) = self.turn_to(number)?
        {
            return Ok(Err(damage));
        }
        let Some((_, page)) = &self.page else { return Ok(Ok(true)) };
        let at = (block % PAGE_BLOCKS) as usize * BLOCK_BYTES;
        let block = page[at..].first_chunk::<BLOCK_BYTES>();
        Ok(Ok(block.is_none_or(|block| matches(&words(block), hash))))
    }

    fn turn_to(&mut self, number: u32) -> io::Result<Result<(), Damage>> {
        let blocks = (self.place.blocks - number * PAGE_BLOCKS).min(PAGE_BLOCKS);
        let overhead = page_overhead(self.sealer.is_some());
        let position = self.place.position + u64::from(number) * (PAGE_BYTES + overhead) as u64;
        let mut page = vec![0; blocks as usize * BLOCK_BYTES + overhead];
        (self.read)(position, &mut page)?;
        self.read_bytes += page.len() as u64;
        if let Some(sealer) = self.sealer {
            let opened = sealer.open(&page_place(position), &page);
            let damage = || Damage::new("a page of a key filter encrypted for this place", "another one");
            return Ok(opened.map(|page| self.page = Some((number, page))).ok_or_else(damage));
        }
        let crc = page.split_off(page.len() - CHECK_BYTES);
        let computed = page_crc(position, &page);
        if crc != computed.to_le_bytes() {
            let damage =
                Damage::new(format!("a page of a key filter with checksum {computed:08x}"), format!("{crc:02x?}"));
            return Ok(Err(damage));
        }
        self.page = Some((number, page));
        Ok(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(keys: &mut Keys, position: u64) -> (Place, Vec<u8>) {
        let mut bytes = Vec::new();
        let place = keys.filter().encode(position, None, &mut bytes);
        assert_eq!(place.len(false), bytes.len() as u64);
        (place, bytes)
    }

    fn ask(place: Place, bytes: &[u8], hash: u64) -> Result<bool, Damage> {
        let read = |at: u64, out: &mut [u8]| {
            let at = (at - place.position) as usize;
            out.copy_from_slice(&bytes[at..at + out.len()]);
            Ok(())
        };
        Lookup::new(place, None, read).may_hold(hash).unwrap()
    }

    #[test]
    fn every_key_is_found_and_one_in_a_hundred_others() {
        for count in [0u64, 1, 24, 25, 1000, 100_000] {
            let mut keys = Keys::default();
            let key = |n: u64| hash_key(3, format!("key:{n}").as_bytes());
            for n in (0..count).chain(0..count) {
                keys.add(key(n));
            }
            let (place, bytes) = encoded(&mut keys, 77);
            assert!((0..count).all(|n| ask(place, &bytes, key(n)).unwrap()));
            let wrong = (count..count + 20_000).filter(|n| ask(place, &bytes, key(*n)).unwrap()).count();
            assert!(wrong < 300, "{wrong} of 20000 with {count} keys");
            assert!(bytes.len() as u64 * 8 <= count * 11 + 600, "{} bytes for {count} keys", bytes.len());
        }
    }

    #[test]
    fn the_hash_and_the_bits_are_the_formats() {
        assert_eq!(hash_key(0, b""), 0x2d06_8005_38d3_94c2, "XXH3 as published");
        assert_ne!(hash_key(0, b"key"), hash_key(1, b"key"));
        let mut keys = Keys::default();
        keys.add(0);
        assert_eq!(keys.filter().blocks, [[1; 8]]);
    }

    #[test]
    fn a_damaged_or_moved_page_never_says_no() {
        let mut keys = Keys::default();
        (0..10).for_each(|n| keys.add(hash_key(0, &[n])));
        let (place, mut bytes) = encoded(&mut keys, 9);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(ask(place, &bytes, hash_key(0, b"x")).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(ask(Place { position: 8, ..place }, &bytes, hash_key(0, b"x")).is_err());
    }

    proptest! {
        #[test]
        fn a_place_comes_back_and_arbitrary_bytes_never_panic(position: u64, blocks: u32, unknown: bool, bytes: [u8; 16]) {
            let place = Place { position, blocks, unknown };
            let mut out = Vec::new();
            place.encode(&mut out);
            prop_assert_eq!(out.len(), PLACE_LEN);
            prop_assert_eq!(Place::decode(&mut Cursor::new(&out)), Ok(place));
            let _ = Place::decode(&mut Cursor::new(&bytes)).map(|place| place.len(true));
        }
    }
}
