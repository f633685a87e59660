//! Pages: entries in order, each key without what it has in common with the one before.

use super::KEY_STORED_MAX;
use crate::encoding::{Cursor, put_varint};
use crate::error::Damage;

/// What stands in an index for a key. In the order of an index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct IndexEntry {
    pub(super) db: u32,
    /// At most [`KEY_STORED_MAX`] bytes.
    pub(super) key: Vec<u8>,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// How many bytes two keys have in common at their beginning.
pub(super) fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Appends an entry; the first of a page is written as if database 0 and an empty key stood before it.
pub(super) fn put_entry(out: &mut Vec<u8>, before: Option<(u32, &[u8])>, entry: &IndexEntry) {
    let (db, key) = before.unwrap_or((0, &[]));
    let shared = common(key, &entry.key);
    put_varint(out, u64::from(entry.db - db));
    put_varint(out, shared as u64);
    put_varint(out, (entry.key.len() - shared) as u64);
    out.extend_from_slice(&entry.key[shared..]);
    put_varint(out, entry.offset);
    put_varint(out, entry.len);
}

/// The entries of a page, each checked against the one before.
pub(super) struct Entries<'a> {
    cursor: Cursor<'a>,
    /// Length of the content.
    content: u64,
    entry: IndexEntry,
    is_first: bool,
}

impl<'a> Entries<'a> {
    pub(super) fn new(page: &'a [u8], content: u64) -> Self {
        Self { cursor: Cursor::new(page), content, entry: IndexEntry::default(), is_first: true }
    }

    /// The next one; `None` at the end of the page.
    pub(super) fn next(&mut self) -> Result<Option<&IndexEntry>, Damage> {
        if self.cursor.remaining() == 0 {
            return Ok(None);
        }
        let (cursor, entry) = (&mut self.cursor, &mut self.entry);
        let delta = u32::try_from(cursor.varint()?).ok().and_then(|delta| entry.db.checked_add(delta));
        let db = delta.ok_or_else(|| Damage::new("a database's number", "a larger one"))?;
        let shared = cursor.varint()?;
        if shared > entry.key.len() as u64 {
            return Err(Damage::new(format!("at most {} bytes in common", entry.key.len()), shared.to_string()));
        }
        let shared = shared as usize;
        let range = cursor.range()?;
        let rest = cursor.bytes(range);
        if shared + rest.len() > KEY_STORED_MAX {
            let len = shared + rest.len();
            return Err(Damage::new(format!("a key of at most {KEY_STORED_MAX} bytes"), len.to_string()));
        }
        let order = (db, rest).cmp(&(entry.db, &entry.key[shared..]));
        entry.key.truncate(shared);
        entry.key.extend_from_slice(rest);
        let (offset, len) = (cursor.varint()?, cursor.varint()?);
        // Two long keys may begin with the same bytes.
        let is_behind = order.is_gt() || (order.is_eq() && entry.key.len() == KEY_STORED_MAX && offset > entry.offset);
        if !self.is_first && !is_behind {
            return Err(Damage::new("a key behind the one before", "one that is not"));
        }
        if len == 0 || offset.checked_add(len).is_none_or(|end| end > self.content) {
            return Err(Damage::new(format!("an entry within {} bytes", self.content), format!("{len} at {offset}")));
        }
        self.is_first = false;
        (entry.db, entry.offset, entry.len) = (db, offset, len);
        Ok(Some(entry))
    }
}
