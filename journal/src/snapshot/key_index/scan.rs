//! All keys of a database, or with a prefix, in order.

use std::collections::VecDeque;
use std::vec;

use super::error::KeyIndexError;
use super::page::IndexEntry;
use super::reader::KeyIndex;
use super::root::PageRef;
use super::{KEY_STORED_MAX, KeyPlace};

/// Gives keys; ends after the first error.
#[derive(Debug)]
pub struct Scan<'a> {
    index: &'a mut KeyIndex,
    db: Option<u32>,
    prefix: Vec<u8>,
    /// Pages that are still to be read.
    pages: vec::IntoIter<usize>,
    /// Pages that were read, and follow.
    loaded: VecDeque<(usize, Vec<u8>)>,
    entries: vec::IntoIter<IndexEntry>,
    is_over: bool,
}

impl KeyIndex {
    /// All keys of a database (`None` = of all) that begin with `prefix`, in the order of database and bytes; of keys that begin
    /// with the same 2048 bytes, in any order. Reads the pages that may hold them.
    pub fn scan(&mut self, db: Option<u32>, prefix: &[u8]) -> Scan<'_> {
        Scan::new(self, db, prefix)
    }

    /// The highest database that has a key; `None` = there is no key. Reads the last page.
    pub fn highest_db(&mut self) -> Result<Option<u32>, KeyIndexError> {
        let Some(last) = self.pages().len().checked_sub(1) else { return Ok(None) };
        let pages = self.read_pages(last, 1)?;
        let Some(page) = pages.first() else { return Ok(None) };
        Ok(self.entries_of(last, page)?.last().map(|entry| entry.db))
    }
}

impl<'a> Scan<'a> {
    pub(super) fn new(index: &'a mut KeyIndex, db: Option<u32>, prefix: &[u8]) -> Self {
        let stored = &prefix[..prefix.len().min(KEY_STORED_MAX)];
        let pages = index.pages();
        let may_hold = |number: &usize| may_hold(&pages[*number], pages.get(number + 1), db, stored);
        let pages: Vec<usize> = (0..pages.len()).filter(may_hold).collect();
        Self {
            index,
            db,
            prefix: prefix.to_vec(),
            pages: pages.into_iter(),
            loaded: VecDeque::new(),
            entries: Vec::new().into_iter(),
            is_over: false,
        }
    }

    /// Bytes of the content, verified, in the middle of the scan.
    pub fn read(&mut self, offset: u64, len: u64) -> Result<Vec<u8>, KeyIndexError> {
        self.index.read(offset, len)
    }

    /// The next entry of any page that may hold some.
    fn next_entry(&mut self) -> Result<Option<IndexEntry>, KeyIndexError> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Ok(Some(entry));
            }
            if self.loaded.is_empty() {
                self.load()?;
            }
            let Some((number, page)) = self.loaded.pop_front() else { return Ok(None) };
            self.entries = self.index.entries_of(number, &page)?.into_iter();
        }
    }

    /// Reads the next pages that follow each other.
    fn load(&mut self) -> Result<(), KeyIndexError> {
        let wanted = self.pages.as_slice();
        let Some(&first) = wanted.first() else { return Ok(()) };
        let count = wanted.iter().zip(first..).take_while(|(wanted, next)| **wanted == *next).count();
        for page in (first..).zip(self.index.read_pages(first, count)?) {
            self.pages.next();
            self.loaded.push_back(page);
        }
        Ok(())
    }

    fn next_place(&mut self) -> Result<Option<KeyPlace>, KeyIndexError> {
        let stored_len = self.prefix.len().min(KEY_STORED_MAX);
        while let Some(entry) = self.next_entry()? {
            if self.db.is_some_and(|db| db != entry.db) || !entry.key.starts_with(&self.prefix[..stored_len]) {
                continue;
            }
            // What has so many bytes may be the beginning of a longer one.
            let key = if entry.key.len() == KEY_STORED_MAX { self.index.whole_key(&entry)? } else { entry.key };
            if key.starts_with(&self.prefix) {
                return Ok(Some(KeyPlace { db: entry.db, key, offset: entry.offset, len: entry.len }));
            }
        }
        Ok(None)
    }
}

/// Whether a page may hold keys with this prefix. `next`: the page behind it.
fn may_hold(page: &PageRef, next: Option<&PageRef>, db: Option<u32>, prefix: &[u8]) -> bool {
    let db_fits = db.is_none_or(|db| page.db <= db && next.is_none_or(|next| db <= next.db));
    let in_one_db = next.is_some_and(|next| next.db == page.db);
    // All of its keys are at least `from`, and at most the next page's.
    let begins_behind = page.from[..] > *prefix && !page.from.starts_with(prefix);
    let ends_before = next.is_some_and(|next| next.from[..] < *prefix);
    db_fits && !(in_one_db && (begins_behind || ends_before))
}

impl Iterator for Scan<'_> {
    type Item = Result<KeyPlace, KeyIndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.next_place().transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}
