//! The fixed header of a block: 96 bytes with their own checksum, so that a reader can walk from
//! block to block without reading payloads.
//!
//! `position` and `segment_tag` bind a block to its place: bytes that look like a block but lie in
//! somebody's value, or were left over from another file, are never taken for one.

use crate::crypto::OVERHEAD;
use crate::encoding::Cursor;
use crate::error::Damage;
use crate::types::{Lsn, Micros, ReplOffset};

/// `RTB1`.
pub(crate) const BLOCK_MAGIC: [u8; 4] = *b"RTB1";
/// Size of the header.
pub(crate) const BLOCK_HEADER_LEN: usize = 96;
/// Payload stored as it is.
pub(crate) const CODEC_NONE: u8 = 0;
/// Payload compressed with zstd, one frame.
pub(crate) const CODEC_ZSTD: u8 = 1;
/// Offset of the payload's checksum.
const PAYLOAD_CRC_AT: usize = 76;

/// What a block is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum BlockKind {
    /// It holds groups.
    Data = 1,
    /// It holds none: it says that the source was silent, or has moved on without an effect.
    Heartbeat = 2,
}

/// The header, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) kind: BlockKind,
    pub(crate) codec: u8,
    /// The payload is encrypted, after it was compressed.
    pub(crate) encrypted: bool,
    /// When it was written, what is before it in the file may not have been synced.
    pub(crate) behind_unsynced: bool,
    pub(crate) stored_len: u32,
    pub(crate) raw_len: u32,
    pub(crate) records: u32,
    pub(crate) groups: u32,
    /// LSN of the first record; of the next one if there is none.
    pub(crate) first_lsn: Lsn,
    pub(crate) first_ts: Micros,
    pub(crate) last_ts: Micros,
    pub(crate) complete_until: Micros,
    /// The first group's `end_offset` is relative to this.
    pub(crate) start_offset: ReplOffset,
    pub(crate) end_offset: ReplOffset,
    pub(crate) end_db: u32,
    pub(crate) payload_crc: u32,
    /// Offset of this header in its file.
    pub(crate) position: u64,
    /// Checksum of the segment's header.
    pub(crate) segment_tag: u32,
}

impl BlockHeader {
    /// The LSN after the last record.
    pub(crate) fn next_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0.saturating_add(u64::from(self.records)))
    }

    /// Size of header and payload.
    pub(crate) fn len(&self) -> u64 {
        BLOCK_HEADER_LEN as u64 + u64::from(self.stored_len)
    }

    /// Encodes the header, computing its checksum.
    pub(crate) fn encode(&self) -> [u8; BLOCK_HEADER_LEN] {
        let mut out = [0; BLOCK_HEADER_LEN];
        out[0..4].copy_from_slice(&BLOCK_MAGIC);
        out[4] = self.kind as u8;
        out[5] = self.codec;
        out[6] = u8::from(self.encrypted);
        out[7] = u8::from(self.behind_unsynced);
        out[8..12].copy_from_slice(&self.stored_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.raw_len.to_le_bytes());
        out[16..20].copy_from_slice(&self.records.to_le_bytes());
        out[20..24].copy_from_slice(&self.groups.to_le_bytes());
        out[24..32].copy_from_slice(&self.first_lsn.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.first_ts.0.to_le_bytes());
        out[40..48].copy_from_slice(&self.last_ts.0.to_le_bytes());
        out[48..56].copy_from_slice(&self.complete_until.0.to_le_bytes());
        out[56..64].copy_from_slice(&self.start_offset.0.to_le_bytes());
        out[64..72].copy_from_slice(&self.end_offset.0.to_le_bytes());
        out[72..76].copy_from_slice(&self.end_db.to_le_bytes());
        out[76..80].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[80..88].copy_from_slice(&self.position.to_le_bytes());
        out[88..92].copy_from_slice(&self.segment_tag.to_le_bytes());
        let crc = crc32c::crc32c(&out[..92]);
        out[92..96].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The checksum at its end. As it has that of the payload in it, it stands for the whole block.
    pub(crate) fn checksum(&self) -> u32 {
        crc32c::crc32c(&self.encode()[..BLOCK_HEADER_LEN - 4])
    }

    /// Where an encrypted payload belongs: the whole header but for what is known only afterwards.
    pub(crate) fn place(&self) -> [u8; BLOCK_HEADER_LEN - 4] {
        let mut place = [0; BLOCK_HEADER_LEN - 4];
        place.copy_from_slice(&self.encode()[..BLOCK_HEADER_LEN - 4]);
        place[PAYLOAD_CRC_AT..PAYLOAD_CRC_AT + 4].fill(0);
        place
    }

    /// Decodes and checks the header by itself; whether it fits its place is
    /// [`BlockHeader::check_place`].
    pub(crate) fn decode(bytes: &[u8; BLOCK_HEADER_LEN]) -> Result<Self, Damage> {
        if bytes[..4] != BLOCK_MAGIC {
            return Err(Damage::new("a block (`RTB1`)", format!("bytes `{}`", bytes[..4].escape_ascii())));
        }
        let mut c = Cursor::at(bytes, 92);
        let (stored, computed) = (c.u32()?, crc32c::crc32c(&bytes[..92]));
        if stored != computed {
            return Err(Damage::new(format!("block header checksum {stored:08x}"), format!("{computed:08x}")));
        }
        let mut c = Cursor::at(bytes, 4);
        let kind = match c.u8()? {
            1 => BlockKind::Data,
            2 => BlockKind::Heartbeat,
            other => return Err(Damage::new("block kind 1 or 2", format!("{other}"))),
        };
        let codec = c.u8()?;
        let [cipher, unsynced] = c.array()?;
        if cipher > 1 || unsynced > 1 {
            return Err(Damage::new("cipher 0 or 1, and 0 or 1", format!("{cipher} and {unsynced}")));
        }
        let header = Self {
            kind,
            codec,
            encrypted: cipher == 1,
            behind_unsynced: unsynced == 1,
            stored_len: c.u32()?,
            raw_len: c.u32()?,
            records: c.u32()?,
            groups: c.u32()?,
            first_lsn: Lsn(c.u64()?),
            first_ts: Micros(c.i64()?),
            last_ts: Micros(c.i64()?),
            complete_until: Micros(c.i64()?),
            start_offset: ReplOffset(c.u64()?),
            end_offset: ReplOffset(c.u64()?),
            end_db: c.u32()?,
            payload_crc: c.u32()?,
            position: c.u64()?,
            segment_tag: c.u32()?,
        };
        header.check_counts()?;
        Ok(header)
    }

    fn check_counts(&self) -> Result<(), Damage> {
        let holds = match self.kind {
            BlockKind::Data => self.groups > 0 && self.records >= self.groups,
            BlockKind::Heartbeat => {
                self.groups == 0 && self.records == 0 && self.raw_len == 0 && self.codec == CODEC_NONE
            }
        };
        let overhead = if self.encrypted { OVERHEAD as u32 } else { 0 };
        let fits = match self.stored_len.checked_sub(overhead) {
            Some(len) => self.codec != CODEC_NONE || len == self.raw_len,
            None => false,
        };
        if !holds || !fits {
            return Err(Damage::new(
                "counts and lengths that fit the block's kind",
                format!(
                    "{:?} with {} groups, {} records, {} of {} bytes",
                    self.kind, self.groups, self.records, self.stored_len, self.raw_len
                ),
            ));
        }
        if self.first_ts > self.last_ts || self.start_offset > self.end_offset {
            return Err(Damage::new(
                "times and offsets that don't go back",
                format!("{} to {}, offset {} to {}", self.first_ts, self.last_ts, self.start_offset, self.end_offset),
            ));
        }
        if self.first_lsn.0.checked_add(u64::from(self.records)).is_none() {
            return Err(Damage::new("an LSN of 64 bits", "more"));
        }
        Ok(())
    }

    /// Checks that the block was written to this place of this segment.
    pub(crate) fn check_place(&self, position: u64, segment_tag: u32) -> Result<(), Damage> {
        if self.position != position || self.segment_tag != segment_tag {
            return Err(Damage::new(
                format!("a block of segment {segment_tag:08x} at {position}"),
                format!("one of segment {:08x} at {}", self.segment_tag, self.position),
            ));
        }
        Ok(())
    }

    /// Checks the payload's checksum.
    pub(crate) fn check_payload(&self, payload: &[u8]) -> Result<(), Damage> {
        let computed = crc32c::crc32c(payload);
        if computed != self.payload_crc {
            return Err(Damage::new(
                format!("block payload checksum {:08x}", self.payload_crc),
                format!("{computed:08x}"),
            ));
        }
        Ok(())
    }
}
