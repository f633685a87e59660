//! One section as bytes: how the segment's index goes on over a part of its blocks, with a filter for each entry.

use crate::bloom::BloomFilter;
use crate::encoding::Cursor;
use crate::error::Damage;
use crate::segment::tally::{Extent, IndexEntry, Tally};
use crate::types::{Lsn, Micros, ReplOffset};

/// Size of an entry without its filter.
const ENTRY_LEN: usize = 8 + 8 + 8 + 8 + 4 + 4 + 4;
/// Bit 0 of an entry's flags: there are records of which the keys are not known.
const FLAG_UNKNOWN: u32 = 1;

/// What a section says of the segment's blocks from `from` up to `to`, where an entry of the index begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) from: u64,
    pub(super) to: u64,
    /// The sum of all blocks of the segment before `to`; of the index, the entries of this part alone.
    pub(super) sums: Tally,
    /// Checksum of the header of the block at `to`.
    pub(super) next_crc: u32,
    /// Checksum of the header of each entry's block.
    pub(super) crcs: Vec<u32>,
    /// For each entry.
    pub(super) filters: Vec<BloomFilter>,
}

/// The same, to be written.
pub(super) struct SectionRef<'a> {
    pub(super) from: u64,
    pub(super) to: u64,
    /// Its index is not looked at.
    pub(super) sums: &'a Tally,
    pub(super) next_crc: u32,
    pub(super) index: &'a [IndexEntry],
    pub(super) crcs: &'a [u32],
    pub(super) filters: &'a [BloomFilter],
}

impl SectionRef<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let filters: usize = self.filters.iter().map(BloomFilter::bytes).sum();
        let mut out = Vec::with_capacity(128 + self.index.len() * ENTRY_LEN + filters);
        let (sums, extent) = (self.sums, &self.sums.extent);
        out.extend_from_slice(&self.from.to_le_bytes());
        out.extend_from_slice(&self.to.to_le_bytes());
        out.extend_from_slice(&sums.blocks.to_le_bytes());
        out.extend_from_slice(&sums.groups.to_le_bytes());
        out.extend_from_slice(&sums.records.to_le_bytes());
        out.extend_from_slice(&sums.first_ts.0.to_le_bytes());
        put_extent(&mut out, extent);
        out.extend_from_slice(&sums.complete_until.0.to_le_bytes());
        out.extend_from_slice(&sums.end_db.to_le_bytes());
        out.extend_from_slice(&self.next_crc.to_le_bytes());
        out.extend_from_slice(&(self.index.len() as u32).to_le_bytes());
        for ((entry, crc), filter) in self.index.iter().zip(self.crcs).zip(self.filters) {
            out.extend_from_slice(&entry.position.to_le_bytes());
            put_extent(&mut out, &entry.extent);
            out.extend_from_slice(&crc.to_le_bytes());
            out.extend_from_slice(&filter.len().to_le_bytes());
            out.extend_from_slice(&u32::from(filter.has_unknown()).to_le_bytes());
        }
        self.filters.iter().for_each(|filter| filter.append_to(&mut out));
        out
    }
}

impl Section {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut c = Cursor::new(bytes);
        let (from, to) = (c.u64()?, c.u64()?);
        let (blocks, groups, records) = (c.u32()?, c.u64()?, c.u64()?);
        let first_ts = Micros(c.i64()?);
        let extent = extent(&mut c)?;
        let (complete_until, end_db) = (Micros(c.i64()?), c.u32()?);
        let (next_crc, n) = (c.u32()?, c.u32()? as usize);
        if n > c.remaining() / ENTRY_LEN {
            return Err(Damage::new(format!("{n} entries"), format!("{} bytes", c.remaining())));
        }
        let (mut index, mut crcs, mut sizes) = (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
        for _ in 0..n {
            index.push(IndexEntry { position: c.u64()?, extent: self::extent(&mut c)? });
            crcs.push(c.u32()?);
            let (blocks, flags) = (c.u32()?, c.u32()?);
            if flags & !FLAG_UNKNOWN != 0 {
                return Err(Damage::new("filter flags 0 or 1", format!("{flags:#x}")));
            }
            sizes.push((blocks, flags & FLAG_UNKNOWN != 0));
        }
        let filters = sizes.into_iter().map(|(blocks, unknown)| BloomFilter::take(&mut c, blocks, unknown));
        let filters = filters.collect::<Result<_, _>>()?;
        if c.remaining() > 0 {
            return Err(Damage::new("the end of a section", format!("{} more bytes", c.remaining())));
        }
        let sums = Tally { blocks, groups, records, first_ts, extent, complete_until, end_db, index };
        Ok(Self { from, to, sums, next_crc, crcs, filters })
    }

    #[cfg(fuzzing)]
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { from, to, sums, next_crc, crcs, filters } = self;
        let (from, to, next_crc) = (*from, *to, *next_crc);
        SectionRef { from, to, sums, next_crc, index: &sums.index, crcs, filters }.encode()
    }
}

fn put_extent(out: &mut Vec<u8>, extent: &Extent) {
    out.extend_from_slice(&extent.next_lsn.0.to_le_bytes());
    out.extend_from_slice(&extent.last_ts.0.to_le_bytes());
    out.extend_from_slice(&extent.end_offset.0.to_le_bytes());
}

fn extent(c: &mut Cursor<'_>) -> Result<Extent, Damage> {
    Ok(Extent { next_lsn: Lsn(c.u64()?), last_ts: Micros(c.i64()?), end_offset: ReplOffset(c.u64()?) })
}
