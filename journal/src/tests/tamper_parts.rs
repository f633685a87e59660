//! Every bit of every byte of a segment of a MiB, in each form. A whole verification for each of the 33 million bits would take days; so
//! each is put to the check of the one part in which it lies (header, block, key filter, footer), the very functions that a
//! verification calls for the parts in turn. That it calls them for all, and tells the right place, is shown in
//! [`super::tamper`] with smaller segments, bit by bit.

use std::fs;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::tamper::{chain, parts, sealed, variants};
use crate::block::{BLOCK_HEADER_LEN, BlockHeader};
use crate::bloom::{BloomFilter, Place};
use crate::crypto::Sealer;
use crate::segment::footer::Footer;
use crate::segment::header::SegmentHeader;
use crate::segment::header::WholeHeader;

const BYTES: usize = 1 << 20;
/// Bits of one part that a thread takes at a time.
const BATCH: usize = 1 << 12;

/// One part, and how it is checked.
enum Check<'a> {
    Header,
    Block { tag: u32 },
    Filter { place: Place, sealer: Option<&'a Sealer> },
    Footer { tag: u32, sealer: Option<&'a Sealer> },
}

impl Check<'_> {
    /// Whether the part, which begins at `position`, is right.
    fn is_right(&self, bytes: &[u8], position: u64) -> bool {
        match self {
            Self::Header => SegmentHeader::decode(bytes, 2 * BYTES as u64).is_ok(),
            Self::Block { tag } => {
                let (header, payload) = bytes.split_first_chunk::<BLOCK_HEADER_LEN>().unwrap();
                BlockHeader::decode(header).is_ok_and(|header| {
                    header.check_place(position, *tag).is_ok()
                        && header.len() == bytes.len() as u64
                        && header.check_payload(payload).is_ok()
                })
            }
            Self::Filter { place, sealer } => BloomFilter::read(*place, *sealer, |at, room| {
                room.copy_from_slice(&bytes[(at - position) as usize..][..room.len()]);
                Ok(())
            })
            .is_ok(),
            Self::Footer { tag, sealer } => {
                Footer::decode(bytes, position, *tag).is_ok_and(|footer| footer.check_proof(*sealer).is_ok())
            }
        }
    }

    /// Flips each bit of a part of the file; the number of those that were found.
    fn flip_each_bit(&self, file: &[u8], part: &Range<u64>) -> usize {
        let next = AtomicUsize::new(0);
        let bits = (part.end - part.start) as usize * 8;
        let whole = &file[part.start as usize..part.end as usize];
        assert!(self.is_right(whole, part.start), "as it is");
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    let mut bytes = whole.to_vec();
                    loop {
                        let from = next.fetch_add(BATCH, Ordering::Relaxed);
                        if from >= bits {
                            return;
                        }
                        for bit in from..bits.min(from + BATCH) {
                            bytes[bit / 8] ^= 1 << (bit % 8);
                            assert!(!self.is_right(&bytes, part.start), "bit {bit} of the part at {part:?}");
                            bytes[bit / 8] ^= 1 << (bit % 8);
                        }
                    }
                });
            }
        });
        bits
    }
}

#[test]
fn every_flipped_bit_of_a_mebibyte_is_found_by_the_check_of_its_part() {
    for (what, options) in variants() {
        let journal = chain(options.clone(), BYTES, 0);
        let path = journal.segments()[1].clone();
        let file = fs::read(&path).unwrap();
        let (WholeHeader { header, tag, .. }, footer) = sealed(&path);
        let sealer = header.unlock(&options.keyring).unwrap();
        let sealer = sealer.as_deref();

        let mut found = 0;
        let mut parts = parts(&path);
        let behind = parts.pop().unwrap();
        for (n, part) in parts.iter().enumerate() {
            let check = if n == 0 { Check::Header } else { Check::Block { tag } };
            found += check.flip_each_bit(&file, part);
        }
        let mut end = behind.start;
        for place in footer.filters.iter().flat_map(|filters| std::iter::once(&filters.all).chain(&filters.intervals)) {
            assert_eq!(place.position, end);
            end += place.len(sealer.is_some());
            found += Check::Filter { place: *place, sealer }.flip_each_bit(&file, &(place.position..end));
        }
        assert_eq!(footer.position, end, "nothing between them");
        found += Check::Footer { tag, sealer }.flip_each_bit(&file, &(end..behind.end));
        assert_eq!(found, file.len() * 8, "{what}: every bit");
        assert!(file.len() > BYTES * 3 / 4, "{what}: {} bytes", file.len());
    }
}
