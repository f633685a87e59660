//! Folding: a key that only one kept record writes, a plain `SET`, is not replayed as a command. It is added to the RDB
//! that is sent first, after the needed part of the base: loading it there costs a server little more than half of the
//! command.
//!
//! Invariant: what is replayed after that RDB neither reads nor changes such a key, and the base's own entry of it is
//! left out: a server crashes when an RDB holds a key twice (docs/redis-facts.md 4.6).
//!
//! The values are not kept in memory: separate threads read them again from the journal while the RDB is sent. The
//! RDB's length is known in advance, from the backward pass.

use std::collections::{BTreeMap, HashSet};
use std::io::{Error, ErrorKind};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use redtape_journal::{Group, PartJob, PartReader, ReadError, Record, RecordView, TakeRecords, in_order};
use redtape_wire::rdb::{StringEntry, put_database_size, put_select_db};

use super::hashed::KeyHasher;
use super::lsns::Lsns;
use super::plain_set;
use crate::source::journal_range::JournalRange;

/// Parts of which the values are ready and not yet sent.
const AHEAD: usize = 2;

/// Keys of a database, and what they take in an RDB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FoldedKeys {
    pub(super) keys: u64,
    pub(super) bytes: u64,
}

impl FoldedKeys {
    pub(super) fn add(&mut self, bytes: u32) {
        self.keys += 1;
        self.bytes += u64::from(bytes);
    }

    pub(super) fn remove(&mut self, bytes: u32) {
        self.keys -= 1;
        self.bytes -= u64::from(bytes);
    }
}

/// Databases and hashes of keys.
pub(super) type TakenOut = HashSet<(u32, u128)>;

/// What stands in the RDB.
#[derive(Debug)]
pub(crate) struct Fold {
    /// Of the records, with those of the keys that were taken out.
    pub(super) lsns: Lsns,
    /// Of each database that has such keys.
    pub(super) keys: BTreeMap<u32, FoldedKeys>,
    /// Those that are replayed after all.
    pub(super) taken_out: TakenOut,
    pub(super) hasher: KeyHasher,
}

impl Fold {
    /// There is no such key.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many records are not replayed.
    pub(crate) fn records(&self) -> u64 {
        self.keys.values().map(|keys| keys.keys).sum()
    }

    pub(super) fn lsns(&self) -> &Lsns {
        &self.lsns
    }

    pub(super) fn has_taken_out(&self) -> bool {
        !self.taken_out.is_empty()
    }

    fn is_taken_out(&self, db: u32, key: &[u8]) -> bool {
        self.has_taken_out() && self.taken_out.contains(&(db, self.hasher.hash(key)))
    }

    /// The record is among the LSNs, and is replayed all the same.
    pub(super) fn takes_out(&self, record: &Record) -> bool {
        self.lsns.contains(record.lsn)
            && plain_set::of_record(record).is_some_and(|(entry, _)| self.is_taken_out(record.db, entry.key))
    }

    /// Where keys of several databases come one after the other, each names its own.
    fn names_databases(&self) -> bool {
        self.keys.len() > 1
    }

    /// How many keys each database will have; `base`: how many it has of the base.
    fn front(&self, base: &BTreeMap<u32, u64>) -> Vec<u8> {
        let mut front = Vec::new();
        for (db, folded) in &self.keys {
            put_select_db(*db, &mut front);
            put_database_size(base.get(db).copied().unwrap_or(0) + folded.keys, &mut front);
        }
        front
    }

    /// Bytes of all of it in the RDB.
    pub(super) fn bytes(&self, base: &BTreeMap<u32, u64>) -> u64 {
        let select = |db: u32| {
            let mut bytes = Vec::new();
            put_select_db(db, &mut bytes);
            if self.names_databases() { bytes.len() as u64 } else { 0 }
        };
        let keys: u64 = self.keys.iter().map(|(db, folded)| folded.bytes + folded.keys * select(*db)).sum();
        self.front(base).len() as u64 + keys
    }

    /// What the keys take, about: to compare it with the size of a base.
    pub(crate) fn entry_bytes(&self) -> u64 {
        self.keys.values().map(|keys| keys.bytes).sum()
    }

    /// Begins to read the values.
    pub(super) fn values(self: &Arc<Self>, range: &JournalRange, base: &BTreeMap<u32, u64>) -> FoldedValues {
        let wanted = Arc::clone(self);
        let within = move |first, last| wanted.lsns.any(first, last);
        let reader = range.catalog.parts_within(range.after, range.upto, range.timeline, within);
        let (parts, ready) = sync_channel(AHEAD);
        let fold = Arc::clone(self);
        let thread = std::thread::spawn(move || {
            read_values(reader, &fold, |part| {
                if parts.send(part).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
        });
        FoldedValues {
            front: Some(self.front(base)),
            ready: Some(ready),
            thread: Some(thread),
            keys_left: self.records(),
            bytes_left: self.bytes(base),
        }
    }
}

fn read_values(mut reader: PartReader, fold: &Fold, to: impl FnMut(Result<PartValues, ReadError>) -> ControlFlow<()>) {
    let read = |job: Result<PartJob, ReadError>| {
        let mut values = ValueCollector { fold, part: PartValues::default() };
        job?.read(&mut values)?;
        Ok(values.part)
    };
    in_order(|| reader.next_job(None).transpose(), read, to);
}

/// The entries of a part.
#[derive(Debug, Default)]
struct PartValues {
    keys: u64,
    bytes: Vec<u8>,
}

struct ValueCollector<'a> {
    fold: &'a Fold,
    part: PartValues,
}

impl ValueCollector<'_> {
    fn put(&mut self, db: u32, entry: &StringEntry<'_>) {
        if self.fold.is_taken_out(db, entry.key) {
            return;
        }
        if self.fold.names_databases() {
            put_select_db(db, &mut self.part.bytes);
        }
        entry.put(&mut self.part.bytes);
        self.part.keys += 1;
    }
}

impl TakeRecords for ValueCollector<'_> {
    fn single(&mut self, record: &RecordView<'_>) -> bool {
        if self.fold.lsns.contains(record.lsn)
            && let Some((entry, _)) = plain_set::of_view(record)
        {
            self.put(record.db, &entry);
        }
        true
    }

    fn group(&mut self, group: Group) {
        for record in &group.records {
            if self.fold.lsns.contains(record.lsn)
                && let Some((entry, _)) = plain_set::of_record(record)
            {
                self.put(record.db, &entry);
            }
        }
    }
}

/// The values, as the RDB has them, piece by piece.
pub(super) struct FoldedValues {
    front: Option<Vec<u8>>,
    ready: Option<Receiver<Result<PartValues, ReadError>>>,
    thread: Option<JoinHandle<()>>,
    keys_left: u64,
    bytes_left: u64,
}

impl std::fmt::Debug for FoldedValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FoldedValues").field("keys_left", &self.keys_left).finish_non_exhaustive()
    }
}

impl FoldedValues {
    /// The next piece; `None` behind the last one.
    pub(super) fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let changed = || Error::new(ErrorKind::InvalidData, "the journal has changed since the plan was made");
        let piece = match self.front.take() {
            Some(front) => PartValues { keys: 0, bytes: front },
            None => match self.ready.as_ref().and_then(|ready| ready.recv().ok()) {
                Some(part) => part.map_err(Error::other)?,
                None if self.keys_left == 0 && self.bytes_left == 0 => return Ok(None),
                None => return Err(changed()),
            },
        };
        self.keys_left = self.keys_left.checked_sub(piece.keys).ok_or_else(changed)?;
        self.bytes_left = self.bytes_left.checked_sub(piece.bytes.len() as u64).ok_or_else(changed)?;
        Ok(Some(piece.bytes))
    }
}

impl Drop for FoldedValues {
    fn drop(&mut self) {
        // The thread ends when its receiver is gone.
        self.ready = None;
        if let Some(thread) = self.thread.take() {
            // A panicked thread has produced no part, which was noticed.
            let _ = thread.join();
        }
    }
}
