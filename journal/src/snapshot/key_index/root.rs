//! Root and tail: which page holds which keys, and of which snapshot the index is.

use super::piece::CHECK_BYTES;
use super::{KEY_STORED_MAX, LIMITS};
use crate::crypto::OVERHEAD;
use crate::encoding::{Cursor, put_varint};
use crate::error::Damage;
use crate::hex::unhex;
use crate::snapshot::SnapshotManifest;

pub(super) const MAGIC: &[u8; 8] = b"RTAPEKEY";
const TAIL_MAGIC: &[u8; 8] = b"RTAPEKIX";
const FORMAT: u32 = 1;
pub(super) const TAIL_LEN: usize = 24;
/// Least size of a page's entry in the root.
const PAGE_ENTRY_MIN: usize = 14;

/// What the root says of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PageRef {
    pub(super) position: u64,
    /// As it is stored.
    pub(super) len: u32,
    /// No key of this page is smaller, and every key of the pages before is, but for long keys that begin alike.
    pub(super) db: u32,
    pub(super) from: Vec<u8>,
}

impl PageRef {
    pub(super) fn end(&self) -> u64 {
        self.position + u64::from(self.len)
    }
}

/// Of which snapshot an index is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    bytes: u64,
    blake3: [u8; 32],
    journal_id: String,
}

impl Identity {
    /// `None` if the manifest has no digest.
    pub(super) fn of(manifest: &SnapshotManifest) -> Option<Self> {
        let blake3 = unhex(&manifest.blake3)?;
        Some(Self { bytes: manifest.bytes, blake3, journal_id: manifest.journal_id.clone() })
    }
}

/// The root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) keys: u64,
    pub(super) pages: Vec<PageRef>,
    pub(super) identity: Identity,
}

impl Root {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.identity.bytes.to_le_bytes());
        out.extend_from_slice(&self.identity.blake3);
        put_varint(&mut out, self.identity.journal_id.len() as u64);
        out.extend_from_slice(self.identity.journal_id.as_bytes());
        out.extend_from_slice(&self.keys.to_le_bytes());
        out.extend_from_slice(&(self.pages.len() as u32).to_le_bytes());
        for page in &self.pages {
            put_page(&mut out, page);
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut cursor = Cursor::new(bytes);
        let identity = Identity { bytes: cursor.u64()?, blake3: cursor.array()?, journal_id: cursor.string()? };
        let keys = cursor.u64()?;
        let count = cursor.u32()? as usize;
        if count > cursor.remaining() / PAGE_ENTRY_MIN {
            return Err(Damage::new("as many pages as the root has room for", count.to_string()));
        }
        let mut pages: Vec<PageRef> = Vec::with_capacity(count);
        let mut position = MAGIC.len() as u64;
        for _ in 0..count {
            let page = read_page(&mut cursor)?;
            if page.position != position {
                return Err(Damage::new(format!("a page at {position}"), page.position.to_string()));
            }
            let ordered = |before: &PageRef| (before.db, &before.from) <= (page.db, &page.from);
            if !pages.last().is_none_or(ordered) {
                return Err(Damage::new("a page behind the one before", "one that is not"));
            }
            position = page.end();
            pages.push(page);
        }
        if cursor.remaining() > 0 || (keys == 0) != pages.is_empty() {
            return Err(Damage::new("the end of the root", format!("{} more bytes", cursor.remaining())));
        }
        Ok(Self { keys, pages, identity })
    }
}

/// Size of a page's entry.
pub(super) fn page_entry_len(page: &PageRef) -> usize {
    PAGE_ENTRY_MIN + 4 + page.from.len()
}

fn put_page(out: &mut Vec<u8>, page: &PageRef) {
    out.extend_from_slice(&page.position.to_le_bytes());
    out.extend_from_slice(&page.len.to_le_bytes());
    put_varint(out, u64::from(page.db));
    put_varint(out, page.from.len() as u64);
    out.extend_from_slice(&page.from);
}

fn read_page(cursor: &mut Cursor<'_>) -> Result<PageRef, Damage> {
    let (position, len) = (cursor.u64()?, cursor.u32()?);
    // Encrypted pages are longer by what that takes.
    if len as usize > LIMITS.page_bytes - CHECK_BYTES + OVERHEAD {
        return Err(Damage::new(format!("a page of at most {} bytes", LIMITS.page_bytes), len.to_string()));
    }
    let db = cursor.varint()?;
    let db = u32::try_from(db).map_err(|_| Damage::new("a database's number", db.to_string()))?;
    let range = cursor.range()?;
    let from = cursor.bytes(range).to_vec();
    if from.len() > KEY_STORED_MAX {
        return Err(Damage::new(format!("a key of at most {KEY_STORED_MAX} bytes"), from.len().to_string()));
    }
    Ok(PageRef { position, len, db, from })
}

/// Where the root is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) position: u64,
    pub(super) len: u32,
}

impl Tail {
    pub(super) fn encode(self) -> [u8; TAIL_LEN] {
        let mut out = [0; TAIL_LEN];
        out[..8].copy_from_slice(&self.position.to_le_bytes());
        out[8..12].copy_from_slice(&self.len.to_le_bytes());
        out[12..16].copy_from_slice(&FORMAT.to_le_bytes());
        out[16..].copy_from_slice(TAIL_MAGIC);
        out
    }

    /// `file`: size of the whole file.
    pub(super) fn decode(bytes: &[u8; TAIL_LEN], file: u64) -> Result<Self, Damage> {
        let mut cursor = Cursor::new(bytes);
        let (position, len, format) = (cursor.u64()?, cursor.u32()?, cursor.u32()?);
        if cursor.take(8)? != TAIL_MAGIC {
            return Err(Damage::new("the magic RTAPEKIX", format!("{:02x?}", &bytes[16..])));
        }
        if format != FORMAT {
            return Err(Damage::new(format!("format {FORMAT}"), format.to_string()));
        }
        if u64::from(len) > LIMITS.root_bytes {
            return Err(Damage::new(format!("a root of at most {} bytes", LIMITS.root_bytes), len.to_string()));
        }
        let end = position.checked_add(u64::from(len) + TAIL_LEN as u64);
        if position < MAGIC.len() as u64 || end != Some(file) {
            return Err(Damage::new(format!("a root before the end at {file}"), format!("{len} bytes at {position}")));
        }
        Ok(Self { position, len })
    }
}
