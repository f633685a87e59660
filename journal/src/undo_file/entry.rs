//! What an entry says, and its bytes.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::encoding::{Cursor, put_bytes, put_varint};
use crate::error::Damage;

/// The number of an entry in its file. Numbers grow, but not by one each: an entry that is stored in several parts takes several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntryNumber(pub u64);

/// A digest of the canonical form of the value that a write puts in place. The caller computes it.
pub type ValueDigest = [u8; 16];

/// One entry. Times are milliseconds since the Unix epoch, 0 = the key does not expire.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant says what its fields are")]
pub enum UndoEntry<'a> {
    /// The key did not exist. `written`: what it holds since.
    Absent { db: u32, key: Cow<'a, [u8]>, written: ValueDigest },
    /// The key held this, as `DUMP` gave it.
    Value { db: u32, key: Cow<'a, [u8]>, expires_ms: i64, dump: Cow<'a, [u8]>, written: ValueDigest },
    /// The key had no such field or member.
    ElementAbsent { db: u32, key: Cow<'a, [u8]>, element: Cow<'a, [u8]>, written: ValueDigest },
    /// The field of a hash, or the member of a set or sorted set, was there; `value` is what a field held, or a score. `expires_ms`: of
    /// a field.
    Element {
        db: u32,
        key: Cow<'a, [u8]>,
        element: Cow<'a, [u8]>,
        value: Cow<'a, [u8]>,
        expires_ms: i64,
        written: ValueDigest,
    },
    /// Only the time of expiry is changed: from `expires_ms` to `written_ms`.
    Ttl { db: u32, key: Cow<'a, [u8]>, expires_ms: i64, written_ms: i64 },
    /// The old value is moved aside under a temporary name, and is not in this file yet. It is resolved by a later `Value` or `Absent` of the key.
    /// `written`: what the key holds since; zeros where it is deleted.
    Moved { db: u32, key: Cow<'a, [u8]>, temporary: Cow<'a, [u8]>, written: ValueDigest },
    /// The function library had this code; empty = there was none of that name. `written`: a digest of the code that it has since.
    Library { name: Cow<'a, [u8]>, code: Cow<'a, [u8]>, written: ValueDigest },
    /// The writes of all entries from `first` to `last` were seen in the target. Those before `first` are not spoken of: they may be what
    /// an interrupted run has left in doubt.
    Done { first: EntryNumber, last: EntryNumber },
    /// The write of this entry was refused, and changed nothing.
    NotWritten { entry: EntryNumber },
    /// All was done; nothing follows.
    Finished,
}

/// What a write changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WrittenPlace<'a> {
    /// The database.
    pub db: u32,
    /// The key, or the name of a function library.
    pub key: &'a [u8],
    /// The field or member; `None` = the key as a whole.
    pub element: Option<&'a [u8]>,
    /// It is a function library. It belongs to no database: `db` is 0.
    pub is_library: bool,
}

/// What stands before each entry's fields.
mod kind {
    pub(super) const ABSENT: u8 = 1;
    pub(super) const VALUE: u8 = 2;
    pub(super) const ELEMENT_ABSENT: u8 = 3;
    pub(super) const ELEMENT: u8 = 4;
    pub(super) const TTL: u8 = 5;
    pub(super) const MOVED: u8 = 6;
    pub(super) const DONE: u8 = 7;
    pub(super) const FINISHED: u8 = 8;
    pub(super) const NOT_WRITTEN: u8 = 9;
    pub(super) const LIBRARY: u8 = 10;
}

impl UndoEntry<'_> {
    /// The entries that it speaks of, first and last: they stand before it.
    pub(super) fn speaks_of(&self) -> Option<(EntryNumber, EntryNumber)> {
        match self {
            Self::Done { first, last } => Some((*first, *last)),
            Self::NotWritten { entry } => Some((*entry, *entry)),
            _ => None,
        }
    }

    /// What the entry's write changes; `None` for an entry that stands for no write of its own.
    pub fn place(&self) -> Option<WrittenPlace<'_>> {
        match self {
            Self::Absent { db, key, .. } | Self::Value { db, key, .. } | Self::Ttl { db, key, .. } => {
                Some(WrittenPlace { db: *db, key, element: None, is_library: false })
            }
            Self::ElementAbsent { db, key, element, .. } | Self::Element { db, key, element, .. } => {
                Some(WrittenPlace { db: *db, key, element: Some(element), is_library: false })
            }
            Self::Library { name, .. } => Some(WrittenPlace { db: 0, key: name, element: None, is_library: true }),
            Self::Moved { .. } | Self::Done { .. } | Self::NotWritten { .. } | Self::Finished => None,
        }
    }

    /// The same, with bytes of its own.
    pub fn into_owned(self) -> UndoEntry<'static> {
        let own = |bytes: Cow<'_, [u8]>| Cow::Owned(bytes.into_owned());
        match self {
            Self::Absent { db, key, written } => UndoEntry::Absent { db, key: own(key), written },
            Self::Value { db, key, expires_ms, dump, written } => {
                UndoEntry::Value { db, key: own(key), expires_ms, dump: own(dump), written }
            }
            Self::ElementAbsent { db, key, element, written } => {
                UndoEntry::ElementAbsent { db, key: own(key), element: own(element), written }
            }
            Self::Element { db, key, element, value, expires_ms, written } => {
                UndoEntry::Element { db, key: own(key), element: own(element), value: own(value), expires_ms, written }
            }
            Self::Ttl { db, key, expires_ms, written_ms } => {
                UndoEntry::Ttl { db, key: own(key), expires_ms, written_ms }
            }
            Self::Moved { db, key, temporary, written } => {
                UndoEntry::Moved { db, key: own(key), temporary: own(temporary), written }
            }
            Self::Library { name, code, written } => UndoEntry::Library { name: own(name), code: own(code), written },
            Self::Done { first, last } => UndoEntry::Done { first, last },
            Self::NotWritten { entry } => UndoEntry::NotWritten { entry },
            Self::Finished => UndoEntry::Finished,
        }
    }

    /// Its bytes in two pieces.
    #[cfg(any(test, fuzzing))]
    pub(super) fn encode(&self) -> (Vec<u8>, &[u8]) {
        let mut begin = Vec::new();
        let rest = self.encode_into(&mut begin);
        (begin, rest)
    }

    /// Its bytes in two pieces, one behind the other: so a large value is not copied. The first is appended to `out`.
    pub(super) fn encode_into(&self, out: &mut Vec<u8>) -> &[u8] {
        let mut begin = |kind: u8, db: u32, key: &[u8]| {
            out.push(kind);
            put_varint(out, u64::from(db));
            put_bytes(out, key);
        };
        match self {
            Self::Absent { db, key, written } => {
                begin(kind::ABSENT, *db, key);
                out.extend_from_slice(written);
                &[]
            }
            Self::Value { db, key, expires_ms, dump, written } => {
                begin(kind::VALUE, *db, key);
                out.extend_from_slice(&expires_ms.to_le_bytes());
                out.extend_from_slice(written);
                dump
            }
            Self::ElementAbsent { db, key, element, written } => {
                begin(kind::ELEMENT_ABSENT, *db, key);
                out.extend_from_slice(written);
                element
            }
            Self::Element { db, key, element, value, expires_ms, written } => {
                begin(kind::ELEMENT, *db, key);
                out.extend_from_slice(&expires_ms.to_le_bytes());
                out.extend_from_slice(written);
                put_bytes(out, element);
                value
            }
            Self::Ttl { db, key, expires_ms, written_ms } => {
                begin(kind::TTL, *db, key);
                out.extend_from_slice(&expires_ms.to_le_bytes());
                out.extend_from_slice(&written_ms.to_le_bytes());
                &[]
            }
            Self::Moved { db, key, temporary, written } => {
                begin(kind::MOVED, *db, key);
                out.extend_from_slice(written);
                temporary
            }
            Self::Library { name, code, written } => {
                out.push(kind::LIBRARY);
                put_bytes(out, name);
                out.extend_from_slice(written);
                code
            }
            Self::Done { first, last } => {
                out.push(kind::DONE);
                out.extend_from_slice(&first.0.to_le_bytes());
                out.extend_from_slice(&last.0.to_le_bytes());
                &[]
            }
            Self::NotWritten { entry } => {
                out.push(kind::NOT_WRITTEN);
                out.extend_from_slice(&entry.0.to_le_bytes());
                &[]
            }
            Self::Finished => {
                out.push(kind::FINISHED);
                &[]
            }
        }
    }
}

impl<'a> UndoEntry<'a> {
    /// Reads all of `bytes` as one entry.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, Damage> {
        let mut cursor = Cursor::new(bytes);
        let entry = match cursor.u8()? {
            kind::DONE => Self::Done { first: EntryNumber(cursor.u64()?), last: EntryNumber(cursor.u64()?) },
            kind::FINISHED => Self::Finished,
            kind::NOT_WRITTEN => Self::NotWritten { entry: EntryNumber(cursor.u64()?) },
            kind::LIBRARY => {
                let (name, written) = (bytes_of(&mut cursor)?, cursor.array()?);
                Self::Library { name, code: rest_of(&mut cursor)?, written }
            }
            kind @ kind::ABSENT..=kind::MOVED => Self::decode_of_key(kind, &mut cursor)?,
            unknown => return Err(Damage::new("the kind of an entry, 1 to 10", unknown.to_string())),
        };
        match cursor.remaining() {
            0 => Ok(entry),
            more => Err(Damage::new("the end of an entry", format!("{more} more bytes"))),
        }
    }

    fn decode_of_key(kind: u8, cursor: &mut Cursor<'a>) -> Result<Self, Damage> {
        let db = cursor.varint()?;
        let db = u32::try_from(db).map_err(|_| Damage::new("a database below 2^32", db.to_string()))?;
        let key = bytes_of(cursor)?;
        Ok(match kind {
            kind::ABSENT => Self::Absent { db, key, written: cursor.array()? },
            kind::VALUE => {
                let (expires_ms, written) = (cursor.i64()?, cursor.array()?);
                Self::Value { db, key, expires_ms, dump: rest_of(cursor)?, written }
            }
            kind::ELEMENT_ABSENT => {
                let written = cursor.array()?;
                Self::ElementAbsent { db, key, element: rest_of(cursor)?, written }
            }
            kind::ELEMENT => {
                let (expires_ms, written, element) = (cursor.i64()?, cursor.array()?, bytes_of(cursor)?);
                Self::Element { db, key, element, value: rest_of(cursor)?, expires_ms, written }
            }
            kind::TTL => Self::Ttl { db, key, expires_ms: cursor.i64()?, written_ms: cursor.i64()? },
            _ => {
                let written = cursor.array()?;
                Self::Moved { db, key, temporary: rest_of(cursor)?, written }
            }
        })
    }
}

fn bytes_of<'a>(cursor: &mut Cursor<'a>) -> Result<Cow<'a, [u8]>, Damage> {
    let range = cursor.range()?;
    Ok(Cow::Borrowed(cursor.bytes(range)))
}

fn rest_of<'a>(cursor: &mut Cursor<'a>) -> Result<Cow<'a, [u8]>, Damage> {
    cursor.take(cursor.remaining()).map(Cow::Borrowed)
}
