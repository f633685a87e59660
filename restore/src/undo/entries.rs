//! Selects the entries to undo. Of several entries for one place, the last one that was not withdrawn counts: it
//! includes what came in between.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use redtape_journal::undo_file::{EntryNumber, UndoEntry, UndoFileError, UndoReader};

use crate::error::RestoreError;

/// Numbers of the counting entries, by a hash of their place. Memory: about 40 bytes each.
#[derive(Debug)]
pub(super) struct LastEntries {
    hashers: [RandomState; 2],
    last: HashMap<u128, EntryNumber>,
}

impl LastEntries {
    /// Reads a file twice, from its first entry to its end. `open` opens it.
    pub(super) fn read(mut open: impl FnMut() -> Result<UndoReader, UndoFileError>) -> Result<Self, RestoreError> {
        let mut reader = open()?;
        let mut taken_back = HashSet::new();
        while let Some(stored) = reader.next_entry()? {
            if let UndoEntry::NotWritten { entry } = stored.entry {
                taken_back.insert(entry);
            }
        }
        let mut found = Self { hashers: [RandomState::new(), RandomState::new()], last: HashMap::new() };
        let mut reader = open()?;
        while let Some(stored) = reader.next_entry()? {
            if let Some(place) = found.place(&stored.entry)
                && !taken_back.contains(&stored.number)
            {
                found.last.insert(place, stored.number);
            }
        }
        Ok(found)
    }

    /// Number of keys, elements and expiry times.
    pub(super) fn places(&self) -> u64 {
        self.last.len() as u64
    }

    /// Calls `take` with each counting entry.
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
