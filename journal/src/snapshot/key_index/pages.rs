//! Writing an index: pages as they fill, then digests, root and tail.

use std::fs::File;
use std::path::Path;

use super::digests::ContentDigests;
use super::error::KeyIndexError;
use super::output::Output;
use super::page::{IndexEntry, common, put_entry};
use super::piece::{CHECK_BYTES, Kind, store};
use super::root::{Identity, MAGIC, PageRef, Root, Tail, page_entry_len};
use super::{KEY_STORED_MAX, Limits};
use crate::crypto::Sealer;

/// Takes sorted entries.
pub(super) struct PageWriter<'a> {
    output: Output,
    sealer: Option<&'a Sealer>,
    limits: Limits,
    /// The snapshot's file, for messages.
    path: &'a Path,
    /// Entries of the page that is not full.
    page: Vec<u8>,
    /// Database and beginning of its keys.
    from: (u32, Vec<u8>),
    last: Option<IndexEntry>,
    pages: Vec<PageRef>,
    root_bytes: u64,
}

impl<'a> PageWriter<'a> {
    pub(super) fn begin(
        file: File,
        sealer: Option<&'a Sealer>,
        limits: Limits,
        path: &'a Path,
    ) -> Result<Self, KeyIndexError> {
        let mut output = Output::new(file);
        output.write(MAGIC).map_err(KeyIndexError::io("write a key index for", path))?;
        let (page, from, last, pages) = (Vec::new(), (0, Vec::new()), None, Vec::new());
        Ok(Self { output, sealer, limits, path, page, from, last, pages, root_bytes: 0 })
    }

    pub(super) fn add(&mut self, entry: &IndexEntry) -> Result<(), KeyIndexError> {
        self.refuse_twice(entry)?;
        let before = self.page.len();
        let last = self.last.as_ref().filter(|_| before > 0);
        put_entry(&mut self.page, last.map(|last| (last.db, &last.key[..])), entry);
        if before == 0 {
            self.from = begin_of(self.last.as_ref(), entry);
        } else if self.page.len() > self.limits.page_bytes - CHECK_BYTES {
            self.page.truncate(before);
            self.end_page()?;
            self.from = begin_of(self.last.as_ref(), entry);
            put_entry(&mut self.page, None, entry);
        }
        let last = self.last.get_or_insert_default();
        last.key.clone_from(&entry.key);
        (last.db, last.offset, last.len) = (entry.db, entry.offset, entry.len);
        Ok(())
    }

    /// Two entries of one key: such an index would be refused by its readers, whenever it is made. Of long keys nobody knows here.
    fn refuse_twice(&self, entry: &IndexEntry) -> Result<(), KeyIndexError> {
        let Some(last) = &self.last else { return Ok(()) };
        if (last.db, &last.key) != (entry.db, &entry.key) || entry.key.len() == KEY_STORED_MAX {
            return Ok(());
        }
        let what = format!("a key of database {} stands there a second time", entry.db);
        Err(KeyIndexError::Base { path: self.path.to_owned(), offset: entry.offset, what })
    }

    fn end_page(&mut self) -> Result<(), KeyIndexError> {
        let position = self.output.position();
        let page = std::mem::take(&mut self.page);
        let len = self.write(Kind::Page, page)?;
        let (db, from) = std::mem::take(&mut self.from);
        let page = PageRef { position, len, db, from };
        self.root_bytes += page_entry_len(&page) as u64;
        self.pages.push(page);
        if self.root_bytes > self.limits.root_bytes {
            return Err(KeyIndexError::TooLarge { limit: self.limits.root_bytes });
        }
        Ok(())
    }

    /// Its length as it is stored.
    fn write(&mut self, kind: Kind, bytes: Vec<u8>) -> Result<u32, KeyIndexError> {
        let stored = store(kind, self.output.position(), self.sealer, bytes);
        if self.output.position() + stored.len() as u64 > self.limits.index_bytes {
            return Err(KeyIndexError::TooLarge { limit: self.limits.index_bytes });
        }
        self.output.write(&stored).map_err(KeyIndexError::io("write a key index for", self.path))?;
        Ok(stored.len() as u32)
    }

    /// The rest, synced. Returns the size of the file.
    pub(super) fn finish(
        mut self,
        keys: u64,
        identity: Identity,
        digests: ContentDigests,
    ) -> Result<u64, KeyIndexError> {
        if !self.page.is_empty() {
            self.end_page()?;
        }
        self.write(Kind::Digests, digests.finish())?;
        let position = self.output.position();
        let root = Root { keys, pages: std::mem::take(&mut self.pages), identity }.encode();
        let len = self.write(Kind::Root, root)?;
        if u64::from(len) > self.limits.root_bytes {
            return Err(KeyIndexError::TooLarge { limit: self.limits.root_bytes });
        }
        let Self { mut output, path, .. } = self;
        let failed = || KeyIndexError::io("write a key index for", path);
        output.write(&Tail { position, len }.encode()).map_err(failed())?;
        let bytes = output.position();
        output.finish().map_err(failed())?;
        Ok(bytes)
    }
}

/// With what the keys of a page begin at least: as little of its first key as makes it greater than all before it.
fn begin_of(last: Option<&IndexEntry>, first: &IndexEntry) -> (u32, Vec<u8>) {
    let len = match last {
        Some(last) if last.db == first.db => (common(&last.key, &first.key) + 1).min(first.key.len()),
        _ => 0,
    };
    (first.db, first.key[..len].to_vec())
}
