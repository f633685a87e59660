//! The footer of a sealed segment: its sum, a sparse index of its blocks, and the digest of every
//! byte before it. The next segment's header names it by the digest with which it was sealed: that of a packed copy is another
//! one, so its footer keeps both.
//!
//! A footer is found from the end of the file (length and magic are its last bytes). `position` and
//! `segment_tag` bind it to its place, so that the last bytes of somebody's value are never taken
//! for one. In an encrypted segment it ends with a proof that its writer had the data key.

use crate::block::{BLOCK_HEADER_LEN, LARGE_BLOCK_BYTES};
use crate::bloom::{PLACE_LEN, Place, Places};
use crate::crypto::{PROOF_LEN, Sealer};
use crate::encoding::Cursor;
use crate::error::Damage;
use crate::segment::link::{DIGEST_LEN, Digest, Link, link};
use crate::segment::tally::{Extent, IndexEntry, Tally};
use crate::types::{Lsn, Micros, ReplOffset};

/// First bytes of a footer.
pub(crate) const FOOTER_MAGIC: [u8; 8] = *b"RTAPEFTR";
/// Last bytes of a sealed segment.
pub(crate) const TAIL_MAGIC: [u8; 8] = *b"RTAPEEND";
/// Size of the tail: length, checksum, magic.
pub(crate) const TAIL_LEN: usize = 16;
/// Size of a footer without index.
pub(crate) const MIN_FOOTER_LEN: usize = 100 + DIGEST_LEN + TAIL_LEN;
/// Bit 0 of the flags.
const FLAG_FILTERS: u32 = 1;
/// Bit 1: their pages are encrypted, and there is a proof.
const FLAG_SEALED: u32 = 2;
/// Bit 2: it is the copy of a segment that was sealed with another digest.
const FLAG_COPY: u32 = 4;

const INDEX_ENTRY_LEN: usize = 32;
/// A segment is compacted if more than one of so many blocks is small.
const SMALL_BLOCKS_ONE_IN: u64 = 16;

/// The footer, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) tally: Tally,
    /// BLAKE3 of everything before the footer.
    pub(crate) digest: Digest,
    /// The digest of the segment as it was sealed, if this is its packed copy.
    pub(crate) copy_of: Option<Digest>,
    /// Where the filters over its keys are; `None` if there are none.
    pub(crate) filters: Option<Places>,
    /// The end of the last block, behind which the filters lie.
    pub(crate) blocks_end: u64,
    /// Where the footer begins.
    pub(crate) position: u64,
    pub(crate) segment_tag: u32,
    /// In an encrypted segment, see [`Footer::prove`].
    pub(crate) proof: Option<[u8; PROOF_LEN]>,
}

impl Footer {
    /// Offset of the field that says where the blocks end.
    pub(crate) const BLOCKS_END_AT: usize = 92;

    /// By what the next segment names this one: the digest with which it was sealed, and whether it is encrypted. Else who has
    /// no key could put a copy in clear in its place; one that says to be encrypted needs a proof.
    pub(crate) fn link(&self) -> Link {
        link(&self.copy_of.unwrap_or(self.digest), self.proof.is_some())
    }

    /// Whether a packed copy would be worth its work: it has no filters, or many blocks are so small that they were not
    /// compressed when they were written. Each large one has an entry in the index. Of the small ones, those that open an interval
    /// have one, too: one in 256 KiB, which are not counted, and the first.
    pub(crate) fn wants_compaction(&self) -> bool {
        let t = &self.tally;
        let small = u64::from(t.blocks).saturating_sub(t.index.len() as u64) + u64::from(self.first_is_small());
        t.records > 0 && (self.filters.is_none() || small * SMALL_BLOCKS_ONE_IN > u64::from(t.blocks))
    }

    /// The first block, with what follows up to the next entry of the index, takes little of the file.
    fn first_is_small(&self) -> bool {
        let index = &self.tally.index;
        let Some(first) = index.first() else { return false };
        let end = index.get(1).map_or(self.blocks_end, |second| second.position);
        end.saturating_sub(first.position) < (BLOCK_HEADER_LEN + LARGE_BLOCK_BYTES) as u64
    }

    fn flags(&self) -> u32 {
        let filters = if self.filters.is_some() { FLAG_FILTERS } else { 0 };
        let sealed = if self.proof.is_some() { FLAG_SEALED } else { 0 };
        let copy = if self.copy_of.is_some() { FLAG_COPY } else { 0 };
        filters | sealed | copy
    }

    /// Puts in the proof that it was written by somebody with the segment's data key.
    pub(crate) fn prove(&mut self, sealer: Option<&Sealer>) {
        // It is part of what the flags say.
        self.proof = sealer.map(|_| [0; PROOF_LEN]);
        self.proof = sealer.map(|sealer| sealer.prove(&self.encode_unproven()));
    }

    /// Whether its proof is right.
    pub(crate) fn check_proof(&self, sealer: Option<&Sealer>) -> Result<(), Damage> {
        if self.proof == sealer.map(|sealer| sealer.prove(&self.encode_unproven())) {
            return Ok(());
        }
        Err(Damage::new("a footer that was written with the segment's data key", "another one"))
    }

    /// Encodes the footer with its tail.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = self.encode_unproven();
        out.extend(self.proof.iter().flatten());
        let len = out.len() + TAIL_LEN;
        out.extend_from_slice(&(len as u32).to_le_bytes());
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&TAIL_MAGIC);
        out
    }

    /// All that the proof is over.
    fn encode_unproven(&self) -> Vec<u8> {
        let t = &self.tally;
        let len = footer_len(t.index.len(), self.flags());
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(&FOOTER_MAGIC);
        out.extend_from_slice(&self.position.to_le_bytes());
        out.extend_from_slice(&self.segment_tag.to_le_bytes());
        out.extend_from_slice(&t.blocks.to_le_bytes());
        out.extend_from_slice(&t.groups.to_le_bytes());
        out.extend_from_slice(&t.records.to_le_bytes());
        out.extend_from_slice(&(t.extent.next_lsn.0 - 1).to_le_bytes());
        out.extend_from_slice(&t.first_ts.0.to_le_bytes());
        out.extend_from_slice(&t.extent.last_ts.0.to_le_bytes());
        out.extend_from_slice(&t.complete_until.0.to_le_bytes());
        out.extend_from_slice(&t.extent.end_offset.0.to_le_bytes());
        out.extend_from_slice(&t.end_db.to_le_bytes());
        out.extend_from_slice(&(t.index.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.flags().to_le_bytes());
        out.extend_from_slice(&self.blocks_end.to_le_bytes());
        for entry in &t.index {
            out.extend_from_slice(&entry.position.to_le_bytes());
            out.extend_from_slice(&entry.extent.next_lsn.0.to_le_bytes());
            out.extend_from_slice(&entry.extent.last_ts.0.to_le_bytes());
            out.extend_from_slice(&entry.extent.end_offset.0.to_le_bytes());
        }
        if let Some(filters) = &self.filters {
            std::iter::once(&filters.all).chain(&filters.intervals).for_each(|place| place.encode(&mut out));
        }
        out.extend(self.copy_of.iter().flatten());
        out.extend_from_slice(&self.digest);
        out
    }

    /// Size of the footer that `tail`, the last bytes of a file, speaks of; `None` if they are not
    /// the tail of a footer.
    pub(crate) fn len_from_tail(tail: &[u8; TAIL_LEN]) -> Option<u64> {
        let mut c = Cursor::new(tail);
        let len = c.u32().ok()?;
        (tail[8..] == TAIL_MAGIC && len as usize >= MIN_FOOTER_LEN).then_some(u64::from(len))
    }

    /// Decodes a whole footer, found at `position` of the segment with this tag.
    pub(crate) fn decode(bytes: &[u8], position: u64, segment_tag: u32) -> Result<Self, Damage> {
        check_ends(bytes)?;
        let mut c = Cursor::at(bytes, 8);
        let (at, tag) = (c.u64()?, c.u32()?);
        if at != position || tag != segment_tag {
            return Err(Damage::new(
                format!("a footer of segment {segment_tag:08x} at {position}"),
                format!("one of segment {tag:08x} at {at}"),
            ));
        }
        let blocks = c.u32()?;
        let groups = c.u64()?;
        let records = c.u64()?;
        let last_lsn = c.u64()?;
        let first_ts = Micros(c.i64()?);
        let last_ts = Micros(c.i64()?);
        let complete_until = Micros(c.i64()?);
        let end_offset = ReplOffset(c.u64()?);
        let end_db = c.u32()?;
        let entries = c.u32()? as usize;
        let flags = c.u32()?;
        if flags & !(FLAG_FILTERS | FLAG_SEALED | FLAG_COPY) != 0 {
            return Err(Damage::new("footer flags 0 to 7", format!("{flags:#x}")));
        }
        let sealed = flags & FLAG_SEALED != 0;
        let with_filters = flags & FLAG_FILTERS != 0;
        let blocks_end = c.u64()?;
        if bytes.len() != footer_len(entries, flags) {
            return Err(Damage::new(
                format!("a footer with {entries} index entries"),
                format!("{} bytes", bytes.len()),
            ));
        }
        let mut index = Vec::with_capacity(entries);
        for _ in 0..entries {
            let position = c.u64()?;
            let extent =
                Extent { next_lsn: Lsn(c.u64()?), last_ts: Micros(c.i64()?), end_offset: ReplOffset(c.u64()?) };
            index.push(IndexEntry { position, extent });
        }
        let filters =
            if with_filters { Some(decode_places(&mut c, entries, blocks_end..position, sealed)?) } else { None };
        if !with_filters && blocks_end != position {
            return Err(Damage::new("a footer behind the blocks", format!("blocks that end at {blocks_end}")));
        }
        let copy_of = if flags & FLAG_COPY != 0 { Some(c.array()?) } else { None };
        let digest = c.array()?;
        let proof = if sealed { Some(c.array()?) } else { None };
        let next_lsn = last_lsn
            .checked_add(1)
            .map(Lsn)
            .ok_or_else(|| Damage::new("a last LSN below the largest", "the largest"))?;
        Ok(Self {
            tally: Tally {
                blocks,
                groups,
                records,
                first_ts,
                extent: Extent { next_lsn, last_ts, end_offset },
                complete_until,
                end_db,
                index,
            },
            digest,
            copy_of,
            filters,
            blocks_end,
            position,
            segment_tag,
            proof,
        })
    }
}

/// Checks magics, length and checksum.
fn check_ends(bytes: &[u8]) -> Result<(), Damage> {
    if bytes.len() < MIN_FOOTER_LEN || bytes[..8] != FOOTER_MAGIC {
        return Err(Damage::new("a footer (`RTAPEFTR`)", "something else"));
    }
    let mut tail = Cursor::at(bytes, bytes.len() - TAIL_LEN);
    let (len, stored) = (tail.u32()? as usize, tail.u32()?);
    let computed = crc32c::crc32c(&bytes[..bytes.len() - 12]);
    if stored != computed || bytes[bytes.len() - 8..] != TAIL_MAGIC || len != bytes.len() {
        return Err(Damage::new(
            format!("a footer of {} bytes with checksum {stored:08x}", bytes.len()),
            format!("{len} bytes, {computed:08x}"),
        ));
    }
    Ok(())
}

/// Size of a footer with so many index entries and these flags.
fn footer_len(entries: usize, flags: u32) -> usize {
    let with = |flag: u32, len: usize| if flags & flag == 0 { 0 } else { len };
    let places = with(FLAG_FILTERS, entries.saturating_add(1).saturating_mul(PLACE_LEN));
    (MIN_FOOTER_LEN + with(FLAG_SEALED, PROOF_LEN) + with(FLAG_COPY, DIGEST_LEN))
        .saturating_add(entries.saturating_mul(INDEX_ENTRY_LEN))
        .saturating_add(places)
}

/// Filters follow each other from the last block to the footer, without a gap.
fn decode_places(
    c: &mut Cursor<'_>,
    entries: usize,
    area: std::ops::Range<u64>,
    sealed: bool,
) -> Result<Places, Damage> {
    let mut next = area.start;
    let mut place = || -> Result<Place, Damage> {
        let place = Place::decode(c)?;
        let end = place.position.checked_add(place.len(sealed));
        match end {
            Some(end) if place.position == next && end <= area.end => next = end,
            _ => return Err(Damage::new(format!("a key filter at {next}"), format!("one at {}", place.position))),
        }
        Ok(place)
    };
    let all = place()?;
    let intervals = (0..entries).map(|_| place()).collect::<Result<_, _>>()?;
    if next != area.end {
        return Err(Damage::new(format!("key filters up to {}", area.end), format!("up to {next}")));
    }
    Ok(Places { sealed, all, intervals })
}
