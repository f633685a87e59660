//! Asking a filter in a file.

use std::io;

use super::{
    BLOCK_BYTES, CHECK_BYTES, PAGE_BLOCKS, PAGE_BYTES, Place, block_of, matches, page_crc, page_overhead, page_place,
    words,
};
use crate::crypto::Sealer;
use crate::error::Damage;

/// Asks one filter about keys, reading a page at a time; the last one is kept.
pub(crate) struct Lookup<'a, R> {
    place: Place,
    sealer: Option<&'a Sealer>,
    /// Reads bytes of the file, exactly as many.
    read: R,
    pub(super) page: Option<(u32, Vec<u8>)>,
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

    /// Reads a page and checks it.
    pub(super) fn turn_to(&mut self, number: u32) -> io::Result<Result<(), Damage>> {
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
