//! Old values that were moved aside in the target, and what has become of them.

use std::collections::HashMap;

use super::entry::{EntryNumber, UndoEntry, ValueDigest};
use super::{MAX_MOVED, MAX_MOVED_BYTES};

/// An old value that is, or may be, in the target under a temporary name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedAside {
    /// The entry that says so.
    pub number: EntryNumber,
    /// Database of the key.
    pub db: u32,
    /// The key whose value it was.
    pub key: Vec<u8>,
    /// Where it is now.
    pub temporary: Vec<u8>,
    /// What the key holds since, if it was moved.
    pub written: ValueDigest,
    /// That the key was moved was seen in the target. If not, the crash may have come before.
    pub is_done: bool,
    /// The entry that holds the old value. The temporary key may be there no longer, and is not needed.
    pub stored: Option<EntryNumber>,
}

/// Those that are not settled: not stored, or stored by an entry that is not done.
#[derive(Debug, Clone, Default)]
pub(super) struct MovedKeys {
    open: HashMap<(u32, Vec<u8>), Vec<MovedAside>>,
    count: usize,
    bytes: usize,
}

/// A limit was met.
#[derive(Debug)]
pub(super) struct TooManyMoved;

fn size(moved: &MovedAside) -> usize {
    2 * moved.key.len() + moved.temporary.len()
}

impl MovedKeys {
    /// Whether another one fits.
    pub(super) fn check(&self, entry: &UndoEntry<'_>) -> Result<(), TooManyMoved> {
        let UndoEntry::Moved { key, temporary, .. } = entry else { return Ok(()) };
        let bytes = self.bytes.saturating_add(2 * key.len() + temporary.len());
        if self.count >= MAX_MOVED || bytes > MAX_MOVED_BYTES { Err(TooManyMoved) } else { Ok(()) }
    }

    /// Takes note of the next entry.
    pub(super) fn see(&mut self, number: EntryNumber, entry: &UndoEntry<'_>) -> Result<(), TooManyMoved> {
        self.check(entry)?;
        match entry {
            UndoEntry::Moved { db, key, temporary, written } => {
                let (db, written, key) = (*db, *written, key.to_vec());
                let temporary = temporary.to_vec();
                let moved =
                    MovedAside { number, db, key: key.clone(), temporary, written, is_done: false, stored: None };
                self.count += 1;
                self.bytes += size(&moved);
                self.open.entry((db, key)).or_default().push(moved);
            }
            UndoEntry::Absent { db, key, .. } | UndoEntry::Value { db, key, .. } if self.count > 0 => {
                let of_key = self.open.get_mut(&(*db, key.to_vec()));
                for moved in of_key.into_iter().flatten() {
                    moved.stored.get_or_insert(number);
                }
            }
            UndoEntry::Done { first, last } if self.count > 0 => self.settle(*first, *last),
            UndoEntry::NotWritten { entry } if self.count > 0 => self.take_back(*entry),
            UndoEntry::Finished => *self = Self::default(),
            _ => {}
        }
        Ok(())
    }

    /// It was not moved.
    fn take_back(&mut self, entry: EntryNumber) {
        let (mut count, mut bytes) = (self.count, self.bytes);
        self.open.retain(|_, of_key| {
            of_key.retain(|moved| {
                let is_it = moved.number == entry;
                count -= usize::from(is_it);
                bytes -= if is_it { size(moved) } else { 0 };
                !is_it
            });
            !of_key.is_empty()
        });
        (self.count, self.bytes) = (count, bytes);
    }

    fn settle(&mut self, first: EntryNumber, last: EntryNumber) {
        let is_done = |number: EntryNumber| (first..=last).contains(&number);
        let (mut count, mut bytes) = (self.count, self.bytes);
        self.open.retain(|_, of_key| {
            of_key.retain_mut(|moved| {
                moved.is_done |= is_done(moved.number);
                let is_settled = moved.stored.is_some_and(is_done);
                if is_settled {
                    count -= 1;
                    bytes -= size(moved);
                }
                !is_settled
            });
            !of_key.is_empty()
        });
        (self.count, self.bytes) = (count, bytes);
    }

    /// In the order of their entries.
    pub(super) fn list(&self) -> Vec<MovedAside> {
        let mut all: Vec<MovedAside> = self.open.values().flatten().cloned().collect();
        all.sort_by_key(|moved| moved.number);
        all
    }
}
