//! What a part of the journal holds, for the backward pass: of a plain `SET` only what the pass has to know, of the rest all.

use bytes::Bytes;
use redtape_journal::{Group, Lsn, RecordView, TakeRecords};
use redtape_wire::rdb::StringEntry;

use super::hashed::KeyHasher;
use super::key_table::NOTE_MAX;
use super::plain_set;

/// A plain `SET` that is a group of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct SetRecord {
    pub(super) hash: u128,
    pub(super) lsn: Lsn,
    pub(super) db: u32,
    /// Where its key is.
    block: u32,
    key: (u32, u32),
    /// Bytes of its arguments.
    pub(super) args_bytes: u32,
    /// Bytes that the key takes in an RDB; `None` = too many to be noted.
    pub(super) entry_bytes: Option<u32>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct PartRecords {
    /// In the order of the journal.
    pub(super) sets: Vec<SetRecord>,
    /// The groups that are none, each with the number of sets in front of it.
    pub(super) groups: Vec<(usize, Group)>,
    /// What it took to read them.
    pub(super) read_bytes: u64,
    blocks: Vec<Bytes>,
}

impl PartRecords {
    /// The key of a `SET`.
    pub(super) fn key(&self, set: &SetRecord) -> &[u8] {
        let (from, to) = set.key;
        self.blocks.get(set.block as usize).and_then(|block| block.get(from as usize..to as usize)).unwrap_or_default()
    }

    /// The first LSN.
    pub(super) fn first(&self) -> Option<Lsn> {
        let set = self.sets.first().map(|set| set.lsn);
        let group = self.groups.first().and_then(|(_, group)| group.records.first()).map(|record| record.lsn);
        set.into_iter().chain(group).min()
    }
}

/// How many bytes a key takes in an RDB, if it may be noted.
pub(super) fn entry_bytes(entry: &StringEntry<'_>) -> Option<u32> {
    u32::try_from(entry.size()).ok().filter(|bytes| *bytes <= NOTE_MAX)
}

/// Collects them.
#[derive(Debug)]
pub(super) struct Collector<'a> {
    pub(super) hasher: &'a KeyHasher,
    /// Whether plain `SET`s are to be told from the rest.
    pub(super) tell_sets: bool,
    pub(super) part: PartRecords,
}

impl TakeRecords for Collector<'_> {
    fn single(&mut self, record: &RecordView<'_>) -> bool {
        if !self.tell_sets {
            return false;
        }
        let Some((entry, args_bytes)) = plain_set::of_view(record) else { return false };
        let Some(place) = record.place(plain_set::KEY) else { return false };
        let (Ok(from), Ok(to), Ok(args_bytes)) =
            (u32::try_from(place.start), u32::try_from(place.end), u32::try_from(args_bytes))
        else {
            return false;
        };
        let block = record.block();
        if self.part.blocks.last().is_none_or(|last| last.as_ptr() != block.as_ptr()) {
            self.part.blocks.push(block.clone());
        }
        self.part.sets.push(SetRecord {
            hash: self.hasher.hash(entry.key),
            lsn: record.lsn,
            db: record.db,
            // There are fewer blocks than bytes of a part.
            block: (self.part.blocks.len() - 1) as u32,
            key: (from, to),
            args_bytes,
            entry_bytes: entry_bytes(&entry),
        });
        true
    }

    fn group(&mut self, group: Group) {
        self.part.groups.push((self.part.sets.len(), group));
    }
}
