//! Decoding the groups of a block, one at a time.
//!
//! Arguments are slices of the block's payload: nothing is copied, and a record keeps its block in
//! memory. Arbitrary bytes never panic and never allocate more than a small multiple of themselves.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::build::{FLAG_ATOMIC, KEYS_FIRST, KEYS_LISTED, KEYS_UNKNOWN};
use super::header::BlockHeader;
use crate::encoding::Cursor;
use crate::error::Damage;
use crate::types::{Group, Lsn, Micros, Origin, OriginKind, Record, ReplOffset};

/// Smallest record: db, keys, argc.
pub(super) const MIN_RECORD: usize = 3;
/// No more than this is reserved for a count before its bytes were seen.
const MAX_RESERVE: usize = 1024;

/// Iterates over the groups of a payload; ends after the first error.
#[derive(Debug)]
pub(crate) struct Groups {
    header: BlockHeader,
    payload: Bytes,
    pos: usize,
    read: u32,
    next_lsn: Lsn,
    ts: Micros,
    offset: ReplOffset,
    origins: Vec<Arc<Origin>>,
    ended: bool,
}

impl Groups {
    /// `payload` is decompressed, and its checksum is right.
    pub(crate) fn new(header: BlockHeader, payload: Bytes) -> Self {
        Self {
            header,
            payload,
            pos: 0,
            read: 0,
            next_lsn: header.first_lsn,
            ts: header.first_ts,
            offset: header.start_offset,
            origins: Vec::new(),
            ended: false,
        }
    }

    /// LSN of the next record.
    pub(crate) fn next_lsn(&self) -> Lsn {
        self.next_lsn
    }

    /// Time of the last group that was read.
    pub(crate) fn last_ts(&self) -> Micros {
        self.ts
    }

    fn decode(&mut self) -> Result<Group, Damage> {
        let payload = self.payload.clone();
        let mut c = Cursor::at(&payload, self.pos);
        let flags = c.u8()?;
        if flags & !FLAG_ATOMIC != 0 {
            return Err(Damage::new("group flags 0 or 1", format!("{flags:#04x}")));
        }
        let ts_delta = c.varint()?;
        let ts = self
            .ts
            .0
            .checked_add_unsigned(ts_delta)
            .ok_or_else(|| Damage::new("a time of 64 bits", format!("delta {ts_delta}")))?;
        let slack = c.varint()?;
        let origin = self.origin(&mut c)?;
        let offset_delta = c.varint()?;
        let offset = self
            .offset
            .0
            .checked_add(offset_delta)
            .ok_or_else(|| Damage::new("an offset of 64 bits", format!("delta {offset_delta}")))?;
        let count = c.count(MIN_RECORD)?;
        let left = self.header.next_lsn().0 - self.next_lsn.0;
        if count == 0 || count as u64 > left {
            return Err(Damage::new(format!("a group of 1 to {left} records"), format!("{count} records")));
        }
        let mut records = Vec::with_capacity(count.min(MAX_RESERVE));
        for n in 0..count as u64 {
            let db = c.varint()?;
            let db = u32::try_from(db).map_err(|_| Damage::new("a database number of 32 bits", format!("{db}")))?;
            let places = self::keys(&mut c)?;
            let argc = c.count(1)?;
            let mut args = Vec::with_capacity(argc.min(MAX_RESERVE));
            for _ in 0..argc {
                args.push(payload.slice(c.range()?));
            }
            if let Some(at) = places.iter().flatten().find(|at| **at >= argc) {
                return Err(Damage::new(format!("a key among {argc} arguments"), format!("argument {at}")));
            }
            records.push(Record { lsn: Lsn(self.next_lsn.0 + n), db, args, keys: places });
        }
        self.pos = c.pos();
        self.read += 1;
        self.next_lsn.0 += count as u64;
        self.ts = Micros(ts);
        self.offset = ReplOffset(offset);
        Ok(Group { ts: self.ts, slack, origin, atomic: flags & FLAG_ATOMIC != 0, end_offset: self.offset, records })
    }

    fn origin(&mut self, c: &mut Cursor<'_>) -> Result<Arc<Origin>, Damage> {
        let index = c.varint()?;
        let known = self.origins.len() as u64;
        if index > known {
            return Err(Damage::new(format!("an origin up to {known}"), format!("{index}")));
        }
        if index < known {
            return Ok(Arc::clone(&self.origins[index as usize]));
        }
        let kind = match c.u8()? {
            0 => OriginKind::Client,
            1 => OriginKind::Expiry,
            2 => OriginKind::Eviction,
            3 => OriginKind::Outside,
            4 => OriginKind::Unknown,
            other => return Err(Damage::new("an origin kind 0 to 4", format!("{other}"))),
        };
        let origin =
            Arc::new(Origin { kind, addr: c.string()?, user: c.string()?, name: c.string()?, via: c.string()? });
        self.origins.push(Arc::clone(&origin));
        Ok(origin)
    }

    /// After the last group: everything that the header promised has been there.
    fn check_end(&self) -> Result<(), Damage> {
        let h = &self.header;
        if self.pos != self.payload.len()
            || self.next_lsn != h.next_lsn()
            || self.ts != h.last_ts
            || self.offset > h.end_offset
        {
            return Err(Damage::new(
                format!(
                    "groups that end with LSN {}, {}, offset {} and the payload",
                    h.next_lsn().0.saturating_sub(1),
                    h.last_ts,
                    h.end_offset
                ),
                format!(
                    "LSN {}, {}, offset {}, {} bytes left",
                    self.next_lsn.0.saturating_sub(1),
                    self.ts,
                    self.offset,
                    self.payload.len() - self.pos
                ),
            ));
        }
        Ok(())
    }
}

/// Which arguments of a record are keys.
fn keys(c: &mut Cursor<'_>) -> Result<Option<SmallVec<[usize; 2]>>, Damage> {
    let count = match c.varint()? {
        KEYS_UNKNOWN => return Ok(None),
        KEYS_FIRST => return Ok(Some(smallvec::smallvec![1])),
        listed => listed - KEYS_LISTED,
    };
    if count > c.remaining() as u64 {
        return Err(Damage::new(format!("at most {} keys", c.remaining()), format!("{count}")));
    }
    let mut places = SmallVec::new();
    for _ in 0..count {
        let at = c.varint()?;
        places.push(usize::try_from(at).unwrap_or(usize::MAX));
    }
    Ok(Some(places))
}

impl Iterator for Groups {
    type Item = Result<Group, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        if self.read == self.header.groups {
            self.ended = true;
            return self.check_end().err().map(Err);
        }
        let group = self.decode();
        self.ended = group.is_err();
        Some(group)
    }
}
