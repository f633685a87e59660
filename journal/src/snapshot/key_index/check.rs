//! Checking all of an index.

use std::io;

use super::digests::{ContentDigests, Digest};
use super::error::KeyIndexError;
use super::page::IndexEntry;
use super::reader::KeyIndex;
use super::sort::GoOn;
use super::{DIGEST_LEN, KEY_STORED_MAX, ReadKey};
use crate::crypto::Keyring;
use crate::error::Damage;
use crate::snapshot::SnapshotInfo;
use crate::storage::{LocalDirectory, Storage};

impl KeyIndex {
    /// Reads every page and the digests: checksums, the order of keys over all pages, that all lie in the content, and how
    /// many there are. `go_on` is asked after each piece, with its bytes.
    pub fn check(&mut self, go_on: &GoOn<'_>) -> Result<(), KeyIndexError> {
        let (mut keys, mut entry_bytes) = (0, 0u64);
        let mut last: Option<IndexEntry> = None;
        let mut number = 0;
        while number < self.pages().len() {
            let before = self.bytes_read();
            let pages = self.read_pages(number, self.pages().len() - number)?;
            for page in pages {
                let entries = self.entries_of(number, &page)?;
                if let (Some(last), Some(first)) = (&last, entries.first())
                    && !follows(last, first)
                {
                    return Err(self.damaged(number, Damage::new("keys behind those of the page before", "others")));
                }
                keys += entries.len() as u64;
                entry_bytes = entries.iter().fold(entry_bytes, |sum, entry| sum.saturating_add(entry.len));
                last = entries.into_iter().next_back();
                number += 1;
            }
            if !go_on(self.bytes_read() - before) {
                return Err(KeyIndexError::Stopped);
            }
        }
        let wrong = |what: &str, expected: u64, found: u64| {
            Err(self.damaged(number, Damage::new(format!("{expected} {what}"), found.to_string())))
        };
        if keys != self.keys() {
            return wrong("keys", self.keys(), keys);
        }
        // Entries do not overlap.
        if entry_bytes > self.content_bytes() {
            return wrong("bytes of entries at most", self.content_bytes(), entry_bytes);
        }
        self.read_digests().map(drop)
    }

    /// Compares the digests with those of a content that was read through.
    fn compare(&mut self, content: ContentDigests) -> Result<(), KeyIndexError> {
        let (bytes, found) = (content.bytes(), content.finish());
        let expected: Vec<Digest> = self.read_digests()?;
        if bytes == self.content_bytes() && expected.iter().eq(found.chunks_exact(DIGEST_LEN)) {
            return Ok(());
        }
        Err(self.damaged(self.pages().len(), Damage::new("the digests of the content", "others")))
    }
}

fn follows(last: &IndexEntry, next: &IndexEntry) -> bool {
    let (a, b) = ((last.db, &last.key), (next.db, &next.key));
    a < b || (a == b && last.key.len() == KEY_STORED_MAX && last.offset < next.offset)
}

/// Checks all of the index of a snapshot but whether it fits the content. Pruning is not held off: what is open is read to its
/// end.
pub fn check_key_index(snapshot: &SnapshotInfo, keyring: &Keyring, go_on: &GoOn<'_>) -> Result<(), KeyIndexError> {
    let storage = LocalDirectory::new(&snapshot.directory());
    KeyIndex::open_in(&storage, snapshot, keyring, no_key(), None)?.check(go_on)
}

/// No key is looked up.
fn no_key() -> ReadKey {
    Box::new(|_| Err(io::ErrorKind::Unsupported.into()))
}

/// Checks the index of a snapshot, also against its content if that was read through.
pub(crate) fn check_beside(
    storage: &dyn Storage,
    snapshot: &SnapshotInfo,
    keyring: &Keyring,
    content: Option<ContentDigests>,
) -> Result<(), KeyIndexError> {
    let mut index = KeyIndex::open_in(storage, snapshot, keyring, no_key(), None)?;
    index.check(&|_| true)?;
    content.map_or(Ok(()), |content| index.compare(content))
}
