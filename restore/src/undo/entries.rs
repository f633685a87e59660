//! Of several entries for one place, the last one counts: an earlier one was not followed by its write.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use redtape_journal::undo_file::{EntryNumber, UndoEntry, UndoReader};

use crate::error::RestoreError;

/// Numbers of the entries that count, by a hash of their place. Memory: about 40 bytes for each.
#[derive(Debug)]
pub(super) struct LastEntries {
    hashers: [RandomState; 2],
    last: HashMap<u128, EntryNumber>,
}

impl LastEntries {
    /// Reads a file from its first entry to its end.
    pub(super) fn read(reader: &mut UndoReader) -> Result<Self, RestoreError> {
        let mut found = Self { hashers: [RandomState::new(), RandomState::new()], last: HashMap::new() };
        while let Some(stored) = reader.next_entry()? {
            if let Some(place) = found.place(&stored.entry) {
                found.last.insert(place, stored.number);
            }
        }
        Ok(found)
    }

    /// Keys, elements and times of expiry.
    pub(super) fn places(&self) -> u64 {
        self.last.len() as u64
    }

    /// Calls `take` with each entry that counts.
    pub(super) fn each(
        &self,
        reader: &mut UndoReader,
        mut take: impl FnMut(UndoEntry<'_>) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        while let Some(stored) = reader.next_entry()? {
            let counts = self.place(&stored.entry).and_then(|place| self.last.get(&place)) == Some(&stored.number);
            if counts {
                take(stored.entry)?;
            }
        }
        Ok(())
    }

    fn place(&self, entry: &UndoEntry<'_>) -> Option<u128> {
        let place = (entry.place()?, matches!(entry, UndoEntry::Ttl { .. }));
        let [a, b] = &self.hashers;
        Some(u128::from(a.hash_one(place)) << 64 | u128::from(b.hash_one(place)))
    }
}
