//! Walking the groups of a payload as bytes: nothing is allocated for a group, a record or an argument.
//!
//! Invariant: it takes the payloads that [`super::decode::Groups`] takes, and no others.

use smallvec::SmallVec;

use super::build::{FLAG_ATOMIC, KEYS_FIRST, KEYS_LISTED, KEYS_UNKNOWN};
use super::decode::MIN_RECORD;
use super::header::BlockHeader;
use crate::encoding::Cursor;
use crate::error::Damage;
use crate::types::{Lsn, Micros, OTHERS_TOO, OriginKind, ReplOffset};

/// Texts of an origin.
const ORIGIN_TEXTS: usize = 4;
/// The highest kind of an origin.
const ORIGIN_KIND_MAX: u8 = OriginKind::Unknown as u8;

/// A group as it stands in a payload. What depends on the groups before it is decoded; the rest is bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EncodedGroup<'a> {
    pub(crate) flags: u8,
    pub(crate) ts: Micros,
    pub(crate) slack: u64,
    /// Number of its origin in the payload.
    pub(crate) origin: u64,
    /// Kind and texts of its origin, where the payload has it first.
    pub(crate) new_origin: Option<&'a [u8]>,
    pub(crate) end_offset: ReplOffset,
    pub(crate) record_count: u32,
    /// The number of records, and the records.
    pub(crate) records: &'a [u8],
}

/// A place between two groups of a payload.
#[derive(Debug)]
pub(crate) struct GroupWalk<'a> {
    header: BlockHeader,
    cursor: Cursor<'a>,
    read: u32,
    next_lsn: Lsn,
    ts: Micros,
    offset: ReplOffset,
    origins: u64,
}

impl<'a> GroupWalk<'a> {
    /// `payload` is decompressed, and its checksum is right.
    pub(crate) fn new(header: BlockHeader, payload: &'a [u8]) -> Self {
        Self {
            header,
            cursor: Cursor::new(payload),
            read: 0,
            next_lsn: header.first_lsn,
            ts: header.first_ts,
            offset: header.start_offset,
            origins: 0,
        }
    }

    /// The next group; `None` = the last one was passed. `on_key` is given the database and each key of its records; `None` for a
    /// record of which the keys are not known, or not all.
    pub(crate) fn next_group(
        &mut self,
        on_key: &mut impl FnMut(Option<(u32, &[u8])>),
    ) -> Result<Option<EncodedGroup<'a>>, Damage> {
        if self.read == self.header.groups {
            return self.check_end().map(|()| None);
        }
        let c = &mut self.cursor;
        let flags = c.u8()?;
        if flags & !FLAG_ATOMIC != 0 {
            return Err(Damage::new("group flags 0 or 1", format!("{flags:#04x}")));
        }
        let ts_delta = c.varint()?;
        let ts = self.ts.0.checked_add_unsigned(ts_delta);
        let ts = ts.ok_or_else(|| Damage::new("a time of 64 bits", format!("delta {ts_delta}")))?;
        let slack = c.varint()?;
        let (origin, new_origin) = self.origin()?;
        let c = &mut self.cursor;
        let offset_delta = c.varint()?;
        let offset = self.offset.0.checked_add(offset_delta);
        let offset = offset.ok_or_else(|| Damage::new("an offset of 64 bits", format!("delta {offset_delta}")))?;
        let begin = c.pos();
        let record_count = c.count(MIN_RECORD)? as u64;
        let left = self.header.next_lsn().0 - self.next_lsn.0;
        if record_count == 0 || record_count > left {
            return Err(Damage::new(format!("a group of 1 to {left} records"), format!("{record_count} records")));
        }
        for _ in 0..record_count {
            record(c, on_key)?;
        }
        let records = c.bytes(begin..c.pos());
        self.read += 1;
        self.next_lsn.0 += record_count;
        self.ts = Micros(ts);
        self.offset = ReplOffset(offset);
        Ok(Some(EncodedGroup {
            flags,
            ts: self.ts,
            slack,
            origin,
            new_origin,
            end_offset: self.offset,
            // No more than the header's, which is of 32 bits.
            record_count: record_count as u32,
            records,
        }))
    }

    /// Its number, and its bytes if it is new.
    fn origin(&mut self) -> Result<(u64, Option<&'a [u8]>), Damage> {
        let c = &mut self.cursor;
        let index = c.varint()?;
        if index > self.origins {
            return Err(Damage::new(format!("an origin up to {}", self.origins), format!("{index}")));
        }
        if index < self.origins {
            return Ok((index, None));
        }
        let begin = c.pos();
        let kind = c.u8()?;
        if kind > ORIGIN_KIND_MAX {
            return Err(Damage::new(format!("an origin kind 0 to {ORIGIN_KIND_MAX}"), format!("{kind}")));
        }
        for _ in 0..ORIGIN_TEXTS {
            let range = c.range()?;
            let text = std::str::from_utf8(c.bytes(range));
            text.map_err(|e| Damage::new("UTF-8", format!("{e} in an origin at byte {begin}")))?;
        }
        self.origins += 1;
        Ok((index, Some(c.bytes(begin..c.pos()))))
    }

    /// After the last group: everything that the header promised has been there.
    fn check_end(&self) -> Result<(), Damage> {
        let h = &self.header;
        if self.cursor.remaining() > 0
            || self.next_lsn != h.next_lsn()
            || self.ts != h.last_ts
            || self.offset > h.end_offset
        {
            return Err(Damage::new(
                format!(
                    "groups up to LSN {}, {}, offset {}",
                    h.next_lsn().0.saturating_sub(1),
                    h.last_ts,
                    h.end_offset
                ),
                format!("LSN {}, {}, offset {}", self.next_lsn.0.saturating_sub(1), self.ts, self.offset),
            ));
        }
        Ok(())
    }
}

/// Passes a record.
fn record(c: &mut Cursor<'_>, on_key: &mut impl FnMut(Option<(u32, &[u8])>)) -> Result<(), Damage> {
    let db = c.varint()?;
    let db = u32::try_from(db).map_err(|_| Damage::new("a database number of 32 bits", format!("{db}")))?;
    let count = c.varint()?;
    let mut listed = SmallVec::<[u64; 8]>::new();
    if count >= KEYS_LISTED {
        let count = count - KEYS_LISTED;
        if count > c.remaining() as u64 {
            return Err(Damage::new(format!("at most {} keys", c.remaining()), format!("{count}")));
        }
        for _ in 0..count {
            listed.push(c.varint()?);
        }
        listed.sort_unstable();
    }
    let places: &[u64] = if count == KEYS_FIRST { &[1] } else { &listed };
    let argc = c.count(1)? as u64;
    if let Some(at) = places.last().filter(|at| **at >= argc) {
        return Err(Damage::new(format!("a key among {argc} arguments"), format!("argument {at}")));
    }
    let mut keys = places.iter().peekable();
    for n in 0..argc {
        let range = c.range()?;
        while keys.next_if(|at| **at == n).is_some() {
            on_key(Some((db, c.bytes(range.clone()))));
        }
    }
    if count == KEYS_UNKNOWN || places.first() == Some(&(OTHERS_TOO as u64)) {
        on_key(None);
    }
    Ok(())
}

/// Gives each key of a payload to `on_key`, as [`GroupWalk::next_group`] does.
pub(crate) fn each_key(
    header: &BlockHeader,
    payload: &[u8],
    mut on_key: impl FnMut(Option<(u32, &[u8])>),
) -> Result<(), Damage> {
    let mut walk = GroupWalk::new(*header, payload);
    while walk.next_group(&mut on_key)?.is_some() {}
    Ok(())
}
