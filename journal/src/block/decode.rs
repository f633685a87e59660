//! Decoding the groups of a block, one at a time.
//!
//! Arguments are slices of the block's payload: nothing is copied, and a record keeps its block in
//! memory. Of a group with one record, nothing is made where a look at the record is enough ([`Groups::next_unless`]).
//! Arbitrary bytes never panic and never allocate more than a small multiple of themselves.

use std::ops::Range;
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
    /// Where the arguments of the record in hand are.
    args: Vec<Range<usize>>,
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
            args: Vec::new(),
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

    /// The next group. One with a single record that is `taken` at a look is passed, and nothing is made of it: `Ok(None)`.
    pub(crate) fn next_unless(
        &mut self,
        taken: &mut impl FnMut(&RecordView<'_>) -> bool,
    ) -> Option<Result<Option<Group>, Damage>> {
        if self.ended {
            return None;
        }
        if self.read == self.header.groups {
            self.ended = true;
            return self.check_end().err().map(Err);
        }
        let group = self.decode(taken);
        self.ended = group.is_err();
        Some(group)
    }

    fn decode(&mut self, taken: &mut impl FnMut(&RecordView<'_>) -> bool) -> Result<Option<Group>, Damage> {
        // It is put back below, and not needed any more behind an error.
        let payload = std::mem::take(&mut self.payload);
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
        let mut args = std::mem::take(&mut self.args);
        let (db, keys) = read_record(&mut c, &mut args)?;
        let view = RecordView { lsn: self.next_lsn, db, keys: keys.as_deref(), payload: &payload, args: &args };
        let group = if count == 1 && taken(&view) {
            None
        } else {
            let mut records = Vec::with_capacity(count.min(MAX_RESERVE));
            let slices = |args: &[Range<usize>]| args.iter().map(|range| payload.slice(range.clone())).collect();
            records.push(Record { lsn: self.next_lsn, db, args: slices(&args), keys });
            for n in 1..count as u64 {
                let (db, keys) = read_record(&mut c, &mut args)?;
                records.push(Record { lsn: Lsn(self.next_lsn.0 + n), db, args: slices(&args), keys });
            }
            let origin = Arc::clone(&self.origins[origin]);
            Some(Group {
                ts: Micros(ts),
                slack,
                origin,
                atomic: flags & FLAG_ATOMIC != 0,
                end_offset: ReplOffset(offset),
                records,
            })
        };
        self.pos = c.pos();
        self.read += 1;
        self.next_lsn.0 += count as u64;
        self.ts = Micros(ts);
        self.offset = ReplOffset(offset);
        self.payload = payload;
        self.args = args;
        Ok(group)
    }

    /// Where its origin is in `origins`.
    fn origin(&mut self, c: &mut Cursor<'_>) -> Result<usize, Damage> {
        let index = c.varint()?;
        let known = self.origins.len() as u64;
        if index > known {
            return Err(Damage::new(format!("an origin up to {known}"), format!("{index}")));
        }
        if index < known {
            return Ok(index as usize);
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
        self.origins.push(origin);
        Ok(self.origins.len() - 1)
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

/// The keys of a record, as [`Record`] has them.
type Keys = Option<SmallVec<[usize; 2]>>;

/// Database and keys of a record; `args`: where its arguments are.
#[inline]
fn read_record(c: &mut Cursor<'_>, args: &mut Vec<Range<usize>>) -> Result<(u32, Keys), Damage> {
    let db = c.varint()?;
    let db = u32::try_from(db).map_err(|_| Damage::new("a database number of 32 bits", format!("{db}")))?;
    let keys = self::keys(c)?;
    let argc = c.count(1)?;
    args.clear();
    for _ in 0..argc {
        args.push(c.range()?);
    }
    if let Some(at) = keys.iter().flatten().find(|at| **at >= argc) {
        return Err(Damage::new(format!("a key among {argc} arguments"), format!("argument {at}")));
    }
    Ok((db, keys))
}

/// A record as it lies in its block.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    /// Its number.
    pub lsn: Lsn,
    /// Database number in which it runs.
    pub db: u32,
    /// As in [`Record::keys`].
    pub keys: Option<&'a [usize]>,
    payload: &'a Bytes,
    args: &'a [Range<usize>],
}

impl<'a> RecordView<'a> {
    /// How many arguments it has, its name included.
    pub fn len(&self) -> usize {
        self.args.len()
    }

    /// It has not even a name.
    pub fn is_empty(&self) -> bool {
        self.args.is_empty()
    }

    /// An argument.
    pub fn arg(&self, n: usize) -> Option<&'a [u8]> {
        self.args.get(n).and_then(|range| self.payload.get(range.clone()))
    }

    /// Where an argument lies in the block.
    pub fn place(&self, n: usize) -> Option<Range<usize>> {
        self.args.get(n).cloned()
    }

    /// The block's content.
    pub fn block(&self) -> &'a Bytes {
        self.payload
    }
}

/// Which arguments of a record are keys.
#[inline]
fn keys(c: &mut Cursor<'_>) -> Result<Keys, Damage> {
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
        self.next_unless(&mut |_| false)?.transpose()
    }
}
