//! Encoding groups into a block.
//!
//! This is the hot path: every byte of a command is copied once, from the caller's buffer into the
//! block's, and nothing is allocated for a record. An origin is written where it first occurs in
//! the block; later groups refer to it by its number.
//!
//! Invariant: the groups of a block follow each other in LSN, time and offset. Time and offset of a
//! group that would go back are raised to the predecessor's.

use std::collections::HashMap;
use std::sync::Arc;

use super::MAX_GROUP_BYTES;
use super::codec::Compressor;
use super::header::{BLOCK_HEADER_LEN, BlockHeader, BlockKind, CODEC_NONE, CODEC_ZSTD};
use crate::crypto::{OVERHEAD, Sealer};
use crate::encoding::{MAX_VARINT, put_bytes, put_varint};
use crate::error::GroupTooLarge;
use crate::types::{GroupRef, KeysAt, Lsn, Micros, Origin, RecordRef, ReplOffset};

/// Most bytes that a block's payload can have.
const MAX_PAYLOAD: u64 = u32::MAX as u64 - OVERHEAD as u64;
/// Capacity with which a block's buffer starts, at most.
const MAX_FIRST_CAPACITY: usize = 4 << 20;
/// Origins of one block that are known by their address.
const MAX_ADDRESSES: usize = 4096;
/// Bit 0 of a group's flags.
pub(super) const FLAG_ATOMIC: u8 = 1;
/// The keys of a record are not known.
pub(super) const KEYS_UNKNOWN: u64 = 0;
/// Argument 1 is its key.
pub(super) const KEYS_FIRST: u64 = 1;
/// This plus the number of keys; the numbers of their arguments follow.
pub(super) const KEYS_LISTED: u64 = 2;

/// An encoded block: header and payload in one buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub(crate) header: BlockHeader,
    /// Begins with room for the header, which is written when the block gets its place.
    bytes: Vec<u8>,
}

impl Block {
    /// A block without groups: the journal is complete up to `complete_until`, and the source has
    /// moved to `end_offset`. `last_ts` is the time of the last group before it.
    pub fn heartbeat(next_lsn: Lsn, last_ts: Micros, complete_until: Micros, end_offset: ReplOffset, db: u32) -> Self {
        BlockBuilder::new(next_lsn, last_ts, end_offset, db).finish(complete_until)
    }

    /// Size of header and payload.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// It holds no groups.
    pub fn is_heartbeat(&self) -> bool {
        self.header.kind == BlockKind::Heartbeat
    }

    /// LSN of its first record; of the next one if it holds none.
    pub fn first_lsn(&self) -> Lsn {
        self.header.first_lsn
    }

    /// The LSN after its last record.
    pub fn next_lsn(&self) -> Lsn {
        self.header.next_lsn()
    }

    /// Time of its last group; of the last one before it if it holds none.
    pub fn last_ts(&self) -> Micros {
        self.header.last_ts
    }

    /// Position in the source at its end.
    pub fn end_offset(&self) -> ReplOffset {
        self.header.end_offset
    }

    /// Writes the header for this place of this segment, encrypts the payload if there is a sealer, and returns
    /// all bytes.
    pub(crate) fn place(&mut self, position: u64, segment_tag: u32, sealer: Option<&Sealer>) -> &[u8] {
        self.header.position = position;
        self.header.segment_tag = segment_tag;
        if let Some(sealer) = sealer
            && !self.header.encrypted
        {
            self.header.encrypted = true;
            self.header.stored_len += OVERHEAD as u32;
            let sealed = sealer.seal(&self.header.place(), &self.bytes[BLOCK_HEADER_LEN..]);
            self.bytes.truncate(BLOCK_HEADER_LEN);
            self.bytes.extend_from_slice(&sealed);
            self.header.payload_crc = crc32c::crc32c(&sealed);
        }
        self.bytes[..BLOCK_HEADER_LEN].copy_from_slice(&self.header.encode());
        &self.bytes
    }

    /// A block that was written before. `stored`: its payload as it is stored, decrypted; `header` says what is in it.
    pub(crate) fn of_stored(header: BlockHeader, stored: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(BLOCK_HEADER_LEN + stored.len());
        bytes.resize(BLOCK_HEADER_LEN, 0);
        bytes.extend_from_slice(stored);
        let header = BlockHeader {
            encrypted: false,
            behind_unsynced: false,
            stored_len: stored.len() as u32,
            payload_crc: crc32c::crc32c(stored),
            ..header
        };
        Self { header, bytes }
    }

    /// The payload as it will be stored, but for encryption.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[BLOCK_HEADER_LEN..]
    }

    /// Compresses the payload, if that pays and it is not yet.
    pub(crate) fn compress(&mut self, compressor: &mut Compressor) -> std::io::Result<()> {
        if self.header.codec != CODEC_NONE {
            return Ok(());
        }
        if let Some(stored) = compressor.compress(self.payload())? {
            self.store(stored);
        }
        Ok(())
    }

    /// The payload is stored compressed, as this.
    pub(crate) fn store(&mut self, compressed: &[u8]) {
        self.bytes.truncate(BLOCK_HEADER_LEN);
        self.bytes.extend_from_slice(compressed);
        self.header.codec = CODEC_ZSTD;
        self.header.stored_len = compressed.len() as u32;
        self.header.payload_crc = crc32c::crc32c(compressed);
    }
}

/// The origins of one block and their numbers.
#[derive(Debug, Default)]
struct Origins {
    by_value: HashMap<Arc<Origin>, u64, foldhash::fast::FixedState>,
    /// Spares those that come again a comparison of their texts.
    by_address: HashMap<usize, u64, foldhash::fast::FixedState>,
    /// What `by_address` points to: as long as it is here, its address is nobody else's.
    kept: Vec<Arc<Origin>>,
    last: Option<(usize, u64)>,
}

impl Origins {
    /// Its number in the block, and whether it was given just now.
    fn number(&mut self, origin: &Arc<Origin>) -> (u64, bool) {
        let address = Arc::as_ptr(origin) as usize;
        let known = self.last.filter(|(last, _)| *last == address).map(|(_, index)| index);
        if let Some(index) = known.or_else(|| self.by_address.get(&address).copied()) {
            self.last = Some((address, index));
            return (index, false);
        }
        let found = self.by_value.get(origin).copied();
        let index = found.unwrap_or(self.by_value.len() as u64);
        if found.is_none() {
            self.by_value.insert(Arc::clone(origin), index);
        }
        if self.kept.len() < MAX_ADDRESSES {
            self.kept.push(Arc::clone(origin));
            self.by_address.insert(address, index);
        }
        (index, found.is_none())
    }

    fn clear(&mut self) {
        self.last = None;
        self.by_address.clear();
        self.by_value.clear();
        self.kept.clear();
    }
}

/// Which arguments are keys: nearly always the first one behind the command, which takes one byte.
fn put_keys(out: &mut Vec<u8>, record: &RecordRef<'_>) {
    match record.keys {
        KeysAt::Arguments([1]) if record.args.len() > 1 => put_varint(out, KEYS_FIRST),
        KeysAt::Arguments(keys) if keys.iter().all(|at| *at < record.args.len()) => {
            put_varint(out, KEYS_LISTED + keys.len() as u64);
            for at in keys {
                put_varint(out, *at as u64);
            }
        }
        KeysAt::Arguments(_) | KeysAt::Unknown => put_varint(out, KEYS_UNKNOWN),
    }
}

/// Collects groups into a block, then the next.
#[derive(Debug)]
pub struct BlockBuilder {
    /// Header's room and payload so far; empty before the first group.
    bytes: Vec<u8>,
    capacity: usize,
    origins: Origins,
    first_lsn: Lsn,
    records: u32,
    groups: u32,
    first_ts: Micros,
    last_ts: Micros,
    start_offset: ReplOffset,
    /// `end_offset` of the last group, to which the next one is relative.
    group_offset: ReplOffset,
    end_offset: ReplOffset,
    db: u32,
    max_group_bytes: u64,
}

impl BlockBuilder {
    /// `next_lsn` is the LSN of the first record to come; `prev_ts`, `prev_offset` and `db` say
    /// where the journal stands before it.
    pub fn new(next_lsn: Lsn, prev_ts: Micros, prev_offset: ReplOffset, db: u32) -> Self {
        Self {
            bytes: Vec::new(),
            capacity: BLOCK_HEADER_LEN,
            origins: Origins::default(),
            first_lsn: next_lsn,
            records: 0,
            groups: 0,
            first_ts: prev_ts,
            last_ts: prev_ts,
            start_offset: prev_offset,
            group_offset: prev_offset,
            end_offset: prev_offset,
            db,
            max_group_bytes: MAX_GROUP_BYTES,
        }
    }

    /// Appends a group; returns the LSN of its last record. A group without records is taken as a
    /// move of the source's offset. On an error nothing has changed.
    pub fn push(&mut self, group: &GroupRef<'_>) -> Result<Lsn, GroupTooLarge> {
        debug_assert!(!group.records.is_empty(), "a group has at least one record");
        if group.records.is_empty() {
            self.set_end_offset(group.end_offset);
            return Ok(Lsn(self.next_lsn().0.saturating_sub(1)));
        }
        let most = self.check_size(group)?;
        self.begin_group(most, if group.atomic { FLAG_ATOMIC } else { 0 }, group.ts, group.slack);
        self.put_origin(group.origin);
        self.put_offset(group.end_offset);
        put_varint(&mut self.bytes, group.records.len() as u64);
        for record in group.records {
            put_varint(&mut self.bytes, u64::from(record.db));
            put_keys(&mut self.bytes, record);
            put_varint(&mut self.bytes, record.args.len() as u64);
            for arg in record.args {
                put_bytes(&mut self.bytes, arg);
            }
        }
        self.end_group(group.records.len() as u32);
        Ok(Lsn(self.next_lsn().0 - 1))
    }

    /// Begins a group of at most so many bytes: all that comes before its origin.
    pub(super) fn begin_group(&mut self, most: usize, flags: u8, ts: Micros, slack: u64) {
        if self.bytes.is_empty() {
            self.bytes.reserve_exact(self.capacity.max(BLOCK_HEADER_LEN + most));
            self.bytes.resize(BLOCK_HEADER_LEN, 0);
        } else {
            self.bytes.reserve(most);
        }
        let ts = ts.max(self.last_ts);
        if self.groups == 0 {
            self.first_ts = ts;
            self.last_ts = ts;
        }
        self.bytes.push(flags);
        put_varint(&mut self.bytes, ts.0.wrapping_sub(self.last_ts.0) as u64);
        put_varint(&mut self.bytes, slack);
        self.last_ts = ts;
    }

    /// What comes behind its origin: where it ends in the source.
    pub(super) fn put_offset(&mut self, end_offset: ReplOffset) {
        let end_offset = end_offset.max(self.group_offset);
        put_varint(&mut self.bytes, end_offset.0 - self.group_offset.0);
        self.group_offset = end_offset;
        self.end_offset = self.end_offset.max(end_offset);
    }

    /// Bytes of the group as they are.
    pub(super) fn put_encoded(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Counts a group that was written.
    pub(super) fn end_group(&mut self, records: u32) {
        self.groups += 1;
        self.records += records;
    }

    /// An upper bound of the group's encoded size, if it is possible at all. As a record takes at
    /// least two bytes, the `u32` counters of a block cannot overflow before its payload does.
    fn check_size(&self, group: &GroupRef<'_>) -> Result<usize, GroupTooLarge> {
        let origin = group.origin;
        let texts = [&origin.addr, &origin.user, &origin.name, &origin.via];
        let mut most = 2 + 9 * MAX_VARINT as u64;
        most += texts.iter().map(|t| t.len() as u64).sum::<u64>();
        for record in group.records {
            most += 3 * MAX_VARINT as u64;
            if let KeysAt::Arguments(keys) = record.keys {
                most += (keys.len() * MAX_VARINT) as u64;
            }
            most += record.args.iter().map(|a| (a.len() + MAX_VARINT) as u64).sum::<u64>();
        }
        if most > self.max_group_bytes {
            return Err(GroupTooLarge { bytes: most, limit: self.max_group_bytes });
        }
        let left = MAX_PAYLOAD - self.bytes.len() as u64;
        if most > left {
            return Err(GroupTooLarge { bytes: most, limit: left });
        }
        Ok(most as usize)
    }

    fn put_origin(&mut self, origin: &Arc<Origin>) {
        let (index, is_new) = self.origins.number(origin);
        put_varint(&mut self.bytes, index);
        if is_new {
            self.bytes.push(origin.kind as u8);
            for text in [&origin.addr, &origin.user, &origin.name, &origin.via] {
                put_bytes(&mut self.bytes, text.as_bytes());
            }
        }
    }

    /// No group was pushed since the last `finish`.
    pub fn is_empty(&self) -> bool {
        self.groups == 0
    }

    /// Size of header and payload so far; 0 if empty.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// LSN of the next record to be pushed.
    pub fn next_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0 + u64::from(self.records))
    }

    /// Time of the last group pushed, or the one given to `new`.
    pub fn last_ts(&self) -> Micros {
        self.last_ts
    }

    /// Position in the source after the last group: the next one is not before it.
    pub(super) fn group_offset(&self) -> ReplOffset {
        self.group_offset
    }

    /// Puts a number.
    pub(super) fn put_number(&mut self, number: u64) {
        put_varint(&mut self.bytes, number);
    }

    /// Position in the source after everything pushed.
    pub fn end_offset(&self) -> ReplOffset {
        self.end_offset
    }

    /// The database selected in the source at this point.
    pub fn db(&self) -> u32 {
        self.db
    }

    /// Says which database is selected in the source at this point; kept for a resume.
    pub fn set_db(&mut self, db: u32) {
        self.db = db;
    }

    /// The source has moved on without a group (`PING`, `SELECT`, …); never goes back.
    pub fn set_end_offset(&mut self, offset: ReplOffset) {
        self.end_offset = self.end_offset.max(offset);
    }

    /// Ends the block and starts the next one. Without groups, the result is a heartbeat.
    pub fn finish(&mut self, complete_until: Micros) -> Block {
        let kind = if self.groups == 0 { BlockKind::Heartbeat } else { BlockKind::Data };
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.resize(bytes.len().max(BLOCK_HEADER_LEN), 0);
        let payload = &bytes[BLOCK_HEADER_LEN..];
        let header = BlockHeader {
            kind,
            codec: CODEC_NONE,
            encrypted: false,
            behind_unsynced: false,
            stored_len: payload.len() as u32,
            raw_len: payload.len() as u32,
            records: self.records,
            groups: self.groups,
            first_lsn: self.first_lsn,
            first_ts: self.first_ts,
            last_ts: self.last_ts,
            complete_until,
            start_offset: self.start_offset,
            end_offset: self.end_offset,
            end_db: self.db,
            payload_crc: crc32c::crc32c(payload),
            position: 0,
            segment_tag: 0,
        };
        self.capacity = bytes.len().min(MAX_FIRST_CAPACITY);
        self.origins.clear();
        self.first_lsn = header.next_lsn();
        self.records = 0;
        self.groups = 0;
        self.first_ts = self.last_ts;
        self.start_offset = self.end_offset;
        self.group_offset = self.end_offset;
        Block { header, bytes }
    }

    #[cfg(test)]
    pub(crate) fn with_max_group_bytes(mut self, bytes: u64) -> Self {
        self.max_group_bytes = bytes;
        self
    }
}
