//! Asking a key index: the root is read when it is opened, then one page for a key, and the parts of the content that are wanted.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::SnapshotContent;
use super::digests::Digest;
use super::error::KeyIndexError;
use super::page::{Entries, IndexEntry};
use super::piece::{self, Kind};
use super::root::{Identity, MAGIC, PageRef, Root, TAIL_LEN, Tail};
use super::writer::{KeyIndexFile, Written};
use super::{DIGEST_BYTES, DIGEST_LEN, KEY_STORED_MAX, ReadKey};
use crate::catalog::Catalog;
use crate::crypto::{Keyring, Sealer};
use crate::error::Damage;
use crate::lease::ReadLease;
use crate::snapshot::SnapshotInfo;
use crate::storage::{Storage, StoredFile};

/// Pages that a scan reads at once.
const READ_PAGES: usize = 64;

/// An open key index, with the content of its snapshot.
pub struct KeyIndex {
    path: PathBuf,
    file: Box<dyn StoredFile>,
    sealer: Option<Sealer>,
    root: Root,
    root_position: u64,
    /// Read when they are wanted first.
    digests: Option<Vec<Digest>>,
    content: SnapshotContent,
    /// The page that was read last.
    page: Option<(usize, Vec<u8>)>,
    read_key: ReadKey,
    read_bytes: u64,
    /// Nothing is pruned meanwhile.
    _lease: Option<Arc<ReadLease>>,
}

impl fmt::Debug for KeyIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyIndex").field("path", &self.path).field("keys", &self.root.keys).finish_non_exhaustive()
    }
}

impl KeyIndex {
    /// Opens the index of a snapshot. Of the index only its end is read. `read_key` reads the keys that an index holds in part.
    pub fn open(
        catalog: &Catalog,
        snapshot: &SnapshotInfo,
        keyring: &Keyring,
        read_key: ReadKey,
    ) -> Result<Self, KeyIndexError> {
        Self::open_in(catalog.storage(), snapshot, keyring, read_key, Some(catalog.lease()))
    }

    pub(super) fn open_in(
        storage: &dyn Storage,
        snapshot: &SnapshotInfo,
        keyring: &Keyring,
        read_key: ReadKey,
        lease: Option<Arc<ReadLease>>,
    ) -> Result<Self, KeyIndexError> {
        let path = snapshot.key_index_path();
        let file = storage.open(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => KeyIndexError::Missing { path: path.clone() },
            _ => KeyIndexError::io("open", &path)(e),
        })?;
        let sealer = snapshot.sealer(keyring).map_err(KeyIndexError::of_open)?;
        Self::open_file(storage, file, snapshot, sealer, read_key, lease)
    }

    /// Opens an index that is not in its place. It goes on when that is gone, or in its place.
    pub fn open_unplaced(
        catalog: &Catalog,
        written: &KeyIndexFile,
        keyring: &Keyring,
        read_key: ReadKey,
    ) -> Result<Self, KeyIndexError> {
        let snapshot = &written.snapshot;
        let path = snapshot.key_index_path();
        let file = match &written.file {
            Written::Named(file) => file.as_file().try_clone(),
            Written::Unnamed(file) => file.try_clone(),
        };
        let file = file.map_err(KeyIndexError::io("open", &path))?;
        let sealer = snapshot.sealer(keyring).map_err(KeyIndexError::of_open)?;
        Self::open_file(catalog.storage(), Box::new(file), snapshot, sealer, read_key, Some(catalog.lease()))
    }

    fn open_file(
        storage: &dyn Storage,
        file: Box<dyn StoredFile>,
        snapshot: &SnapshotInfo,
        sealer: Option<Sealer>,
        read_key: ReadKey,
        lease: Option<Arc<ReadLease>>,
    ) -> Result<Self, KeyIndexError> {
        let path = snapshot.key_index_path();
        let (root_position, root) = read_root(&path, &*file, sealer.as_ref(), snapshot)?;
        let stored = storage.open(&snapshot.path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => KeyIndexError::Gone { path: snapshot.path.clone() },
            _ => KeyIndexError::io("open", &snapshot.path)(e),
        })?;
        let content = SnapshotContent::new(&snapshot.path, stored, sealer.clone(), snapshot.manifest.bytes);
        let content = content.ok_or_else(|| KeyIndexError::Base {
            path: snapshot.path.clone(),
            offset: 0,
            what: format!("no row of chunks has {} bytes", snapshot.manifest.bytes),
        })?;
        let read_bytes = root.1 + (MAGIC.len() + TAIL_LEN) as u64;
        let (root, digests, page) = (root.0, None, None);
        Ok(Self {
            path,
            file,
            sealer,
            root,
            root_position,
            digests,
            content,
            page,
            read_key,
            read_bytes,
            _lease: lease,
        })
    }

    /// How many keys it has.
    pub fn keys(&self) -> u64 {
        self.root.keys
    }

    /// Length of the snapshot's content.
    pub fn content_bytes(&self) -> u64 {
        self.content.bytes()
    }

    /// Bytes read so far, of the index and of the snapshot.
    pub fn bytes_read(&self) -> u64 {
        self.read_bytes + self.content.read_bytes()
    }

    /// Where the entry of a key is in the content: offset and length.
    pub fn find(&mut self, db: u32, key: &[u8]) -> Result<Option<(u64, u64)>, KeyIndexError> {
        let stored = &key[..key.len().min(KEY_STORED_MAX)];
        for number in self.pages_of(db, stored) {
            for found in self.matches(number, db, stored)? {
                // What has so many bytes may be the beginning of a longer one.
                if stored.len() < KEY_STORED_MAX || self.whole_key(&found)? == key {
                    return Ok(Some((found.offset, found.len)));
                }
            }
        }
        Ok(None)
    }

    /// The pages that may hold this stored key: one, but for long keys that begin alike.
    fn pages_of(&self, db: u32, stored: &[u8]) -> std::ops::Range<usize> {
        let pages = &self.root.pages;
        let end = pages.partition_point(|page| (page.db, &page.from[..]) <= (db, stored));
        if stored.len() < KEY_STORED_MAX {
            return end.saturating_sub(1)..end;
        }
        let begin = pages.partition_point(|page| (page.db, &page.from[..]) < (db, stored));
        begin.saturating_sub(1)..end
    }

    /// The entries of a page for a stored key.
    fn matches(&mut self, number: usize, db: u32, stored: &[u8]) -> Result<Vec<IndexEntry>, KeyIndexError> {
        if self.page.as_ref().is_none_or(|(kept, _)| *kept != number) {
            let mut pages = self.read_pages(number, 1)?;
            self.page = pages.pop().map(|page| (number, page));
        }
        let mut found = Vec::new();
        let Some((_, page)) = &self.page else { return Ok(found) };
        // To its end: whatever it gives, all of it is well formed.
        each_entry(page, &self.root.pages[number], self.content.bytes(), |entry| {
            if (entry.db, &entry.key[..]) == (db, stored) {
                found.push(entry.clone());
            }
        })
        .map_err(|damage| self.damaged(number, damage))?;
        Ok(found)
    }

    /// Bytes of the content, verified.
    pub fn read(&mut self, offset: u64, len: u64) -> Result<Vec<u8>, KeyIndexError> {
        let mut out = Vec::new();
        self.read_into(offset, len, &mut out)?;
        Ok(out)
    }

    fn read_into(&mut self, offset: u64, len: u64, out: &mut Vec<u8>) -> Result<(), KeyIndexError> {
        if self.digests.is_none() && !self.content.is_encrypted() {
            self.digests = Some(self.read_digests()?);
        }
        self.content.read(offset, len, self.digests.as_deref().unwrap_or_default(), out)
    }

    /// The content from `offset` on, `len` bytes of it, to be read piece by piece; verified.
    pub fn content(&mut self, offset: u64, len: u64) -> impl Read + '_ {
        let end = offset.saturating_add(len).min(self.content.bytes());
        ContentRange { index: self, at: offset, end, failed: None }
    }

    /// The key that stands in the content.
    pub(super) fn whole_key(&mut self, entry: &IndexEntry) -> Result<Vec<u8>, KeyIndexError> {
        let read_key = std::mem::replace(&mut self.read_key, Box::new(|_| Err(io::ErrorKind::Other.into())));
        let (at, end) = (entry.offset, entry.offset + entry.len);
        let mut content = ContentRange { index: self, at, end, failed: None };
        let read = read_key(&mut content);
        let failed = content.failed.take();
        self.read_key = read_key;
        if let Some(error) = failed {
            return Err(error);
        }
        match read {
            Ok(key) if key.starts_with(&entry.key) => Ok(key),
            Ok(_) => {
                let damage = Damage::new("a key that begins as the content says", "another one");
                Err(KeyIndexError::Damaged { path: self.path.clone(), offset: 0, damage })
            }
            Err(e) => {
                let damage = Damage::new("the place of a key", format!("what is none: {e}"));
                Err(KeyIndexError::Damaged { path: self.path.clone(), offset: 0, damage })
            }
        }
    }

    pub(super) fn pages(&self) -> &[PageRef] {
        &self.root.pages
    }

    /// Reads pages that follow each other, at most [`READ_PAGES`].
    pub(super) fn read_pages(&mut self, first: usize, count: usize) -> Result<Vec<Vec<u8>>, KeyIndexError> {
        let pages = &self.root.pages[first..][..count.min(READ_PAGES)];
        let (Some(begin), Some(last)) = (pages.first(), pages.last()) else { return Ok(Vec::new()) };
        let mut bytes = vec![0; (last.end() - begin.position) as usize];
        self.file.read_exact_at(&mut bytes, begin.position).map_err(|e| read_failed(&self.path, begin.position, e))?;
        self.read_bytes += bytes.len() as u64;
        let mut rest = &bytes[..];
        let mut out = Vec::with_capacity(pages.len());
        for (n, page) in pages.iter().enumerate() {
            let (stored, behind) = rest.split_at(page.len as usize);
            let loaded = piece::load(Kind::Page, page.position, self.sealer.as_ref(), stored.to_vec());
            out.push(loaded.map_err(|damage| self.damaged(first + n, damage))?);
            rest = behind;
        }
        Ok(out)
    }

    /// Gives the entries of a page that was read.
    pub(super) fn entries_of(&self, number: usize, page: &[u8]) -> Result<Vec<IndexEntry>, KeyIndexError> {
        let mut entries = Vec::new();
        each_entry(page, &self.root.pages[number], self.content.bytes(), |entry| entries.push(entry.clone()))
            .map_err(|damage| self.damaged(number, damage))?;
        Ok(entries)
    }

    pub(super) fn read_digests(&mut self) -> Result<Vec<Digest>, KeyIndexError> {
        let position = self.root.pages.last().map_or(MAGIC.len() as u64, PageRef::end);
        let wrong = |damage| KeyIndexError::Damaged { path: self.path.clone(), offset: position, damage };
        let count = self.content.bytes().div_ceil(DIGEST_BYTES);
        let expected = count * DIGEST_LEN as u64 + piece::overhead(self.sealer.is_some()) as u64;
        let len = self.root_position.saturating_sub(position);
        if len != expected {
            return Err(wrong(Damage::new(format!("{expected} bytes of digests"), len.to_string())));
        }
        let mut stored = vec![0; len as usize];
        self.file.read_exact_at(&mut stored, position).map_err(|e| read_failed(&self.path, position, e))?;
        let digests = piece::load(Kind::Digests, position, self.sealer.as_ref(), stored).map_err(wrong)?;
        self.read_bytes += len;
        let digest = |bytes: &[u8]| bytes.first_chunk::<DIGEST_LEN>().copied().unwrap_or_default();
        Ok(digests.chunks_exact(DIGEST_LEN).map(digest).collect())
    }

    pub(super) fn damaged(&self, page: usize, damage: Damage) -> KeyIndexError {
        let offset = self.root.pages.get(page).map_or(0, |page| page.position);
        KeyIndexError::Damaged { path: self.path.clone(), offset, damage }
    }
}

/// Goes through a page, all of it.
fn each_entry(page: &[u8], place: &PageRef, content: u64, mut each: impl FnMut(&IndexEntry)) -> Result<(), Damage> {
    let mut entries = Entries::new(page, content);
    let mut is_first = true;
    while let Some(entry) = entries.next()? {
        if is_first && (entry.db != place.db || !entry.key.starts_with(&place.from)) {
            return Err(Damage::new("the key with which the root says that the page begins", "another one"));
        }
        is_first = false;
        each(entry);
    }
    if is_first { Err(Damage::new("a key in the page", "none")) } else { Ok(()) }
}

fn read_failed(path: &Path, offset: u64, error: io::Error) -> KeyIndexError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            let damage = Damage::new("a piece that the root tells of", "the end of the file");
            KeyIndexError::Damaged { path: path.to_owned(), offset, damage }
        }
        _ => KeyIndexError::io("read", path)(error),
    }
}

/// Position and root, and the size of that.
fn read_root(
    path: &Path,
    file: &dyn StoredFile,
    sealer: Option<&Sealer>,
    snapshot: &SnapshotInfo,
) -> Result<(u64, (Root, u64)), KeyIndexError> {
    let damaged = |offset| move |damage| KeyIndexError::Damaged { path: path.to_owned(), offset, damage };
    let size = file.bytes().map_err(KeyIndexError::io("look at", path))?;
    let mut magic = [0; MAGIC.len()];
    let mut tail = [0; TAIL_LEN];
    if size < (magic.len() + tail.len()) as u64 {
        return Err(damaged(0)(Damage::new("magic and tail", format!("{size} bytes"))));
    }
    let at = size - TAIL_LEN as u64;
    file.read_exact_at(&mut magic, 0).map_err(|e| read_failed(path, 0, e))?;
    file.read_exact_at(&mut tail, at).map_err(|e| read_failed(path, at, e))?;
    if magic != *MAGIC {
        return Err(damaged(0)(Damage::new("the magic RTAPEKEY", format!("{magic:02x?}"))));
    }
    let tail = Tail::decode(&tail, size).map_err(damaged(at))?;
    let mut stored = vec![0; tail.len as usize];
    file.read_exact_at(&mut stored, tail.position).map_err(|e| read_failed(path, tail.position, e))?;
    let root = piece::load(Kind::Root, tail.position, sealer, stored);
    let root = root.and_then(|root| Root::decode(&root)).map_err(damaged(tail.position))?;
    if Identity::of(&snapshot.manifest).as_ref() != Some(&root.identity) {
        return Err(KeyIndexError::Foreign { path: path.to_owned() });
    }
    Ok((tail.position, (root, u64::from(tail.len))))
}

/// A stretch of the content.
struct ContentRange<'a> {
    index: &'a mut KeyIndex,
    at: u64,
    end: u64,
    /// Why it could not be read on: more than its reader hands on.
    failed: Option<KeyIndexError>,
}

impl Read for ContentRange<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let len = (room.len() as u64).min(self.end.saturating_sub(self.at)).min(DIGEST_BYTES);
        if len == 0 {
            return Ok(0);
        }
        let bytes = self.index.read(self.at, len).map_err(|error| {
            let said = error.to_string();
            self.failed = Some(error);
            io::Error::other(said)
        })?;
        room[..bytes.len()].copy_from_slice(&bytes);
        self.at += len;
        Ok(bytes.len())
    }
}
