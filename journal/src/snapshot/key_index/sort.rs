//! Sorting more keys than memory holds: sorted runs in files, merged at the end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::error::KeyIndexError;
use super::page::IndexEntry;
use super::run::{Run, RunReader, RunWriter, unnamed_file};
use super::{KEY_STORED_MAX, Limits};
use crate::crypto::{Sealer, new_data_key, random};

/// So many times what is written must be free on the disk, so that it never takes the room that the journal's writer needs.
const ROOM: u64 = 4;
/// Entries between two looks at whether to go on.
const ENTRIES_A_LOOK: usize = 1 << 10;
/// What they count for as work: about what they take.
const BYTES_A_LOOK: u64 = 64 << 10;

/// An entry in memory.
#[derive(Debug, Clone, Copy)]
struct Held {
    db: u32,
    key_at: u32,
    key_len: u16,
    offset: u64,
    len: u64,
}

/// Takes entries in any order.
pub(super) struct Sorter<'a> {
    folder: PathBuf,
    go_on: &'a GoOn<'a>,
    limits: Limits,
    /// For the runs of an encrypted snapshot; kept nowhere.
    sealer: Option<Sealer>,
    keys: Vec<u8>,
    held: Vec<Held>,
    runs: Vec<Run>,
}

/// Takes the sorted entries, one by one.
pub(super) type Emit<'a> = &'a mut dyn FnMut(&IndexEntry) -> Result<(), KeyIndexError>;

/// Asked now and then, with the bytes that were worked on since; false ends the work. It may wait, so that others come first.
pub type GoOn<'a> = dyn Fn(u64) -> bool + 'a;

impl<'a> Sorter<'a> {
    pub(super) fn new(
        folder: &Path,
        limits: Limits,
        is_encrypted: bool,
        go_on: &'a GoOn<'a>,
    ) -> Result<Self, KeyIndexError> {
        let sealer = if is_encrypted {
            let key = new_data_key(random).map_err(KeyIndexError::io("draw a key for temporary files in", folder))?;
            Some(Sealer::new(&key))
        } else {
            None
        };
        let (keys, held, runs) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { folder: folder.to_owned(), go_on, limits, sealer, keys, held, runs })
    }

    pub(super) fn add(&mut self, db: u32, key: &[u8], offset: u64, len: u64) -> Result<(), KeyIndexError> {
        let key = &key[..key.len().min(KEY_STORED_MAX)];
        let held = Held { db, key_at: self.keys.len() as u32, key_len: key.len() as u16, offset, len };
        self.keys.extend_from_slice(key);
        self.held.push(held);
        if self.held_bytes() < self.limits.run_bytes {
            return Ok(());
        }
        self.spill()
    }

    fn held_bytes(&self) -> usize {
        self.keys.len() + self.held.len() * size_of::<Held>()
    }

    /// Fails if there is too little room for an index of all, which takes less than that, and at most `index_bytes`.
    pub(super) fn check_room(&self, index_bytes: u64) -> Result<(), KeyIndexError> {
        check_room(&self.folder, (self.held_bytes() as u64 + self.stored_bytes()).min(index_bytes))
    }

    /// Bytes on the disk.
    fn stored_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.bytes).sum()
    }

    fn sort(&mut self) {
        let keys = &self.keys;
        self.held.sort_unstable_by(|a, b| (a.db, key_of(keys, a), a.offset).cmp(&(b.db, key_of(keys, b), b.offset)));
    }

    /// Writes what is in memory as a run.
    fn spill(&mut self) -> Result<(), KeyIndexError> {
        self.sort();
        let file = self.new_file(self.held_bytes() as u64)?;
        let failed = || KeyIndexError::io("write a temporary file in", &self.folder);
        let mut writer = RunWriter::new(file, self.sealer.as_ref());
        for held in &self.held {
            writer.add(held.db, key_of(&self.keys, held), held.offset, held.len).map_err(failed())?;
        }
        let run = writer.finish().map_err(failed())?;
        self.runs.push(run);
        self.keys.clear();
        self.held.clear();
        if self.runs.len() >= self.limits.merge_runs {
            self.merge_into_one()?;
        }
        Ok(())
    }

    fn merge_into_one(&mut self) -> Result<(), KeyIndexError> {
        let file = self.new_file(self.stored_bytes())?;
        let runs = std::mem::take(&mut self.runs);
        let failed = || KeyIndexError::io("write a temporary file in", &self.folder);
        let mut writer = RunWriter::new(file, self.sealer.as_ref());
        let mut emit = |entry: &IndexEntry| writer.add(entry.db, &entry.key, entry.offset, entry.len).map_err(failed());
        merge(runs, self.sealer.as_ref(), &self.folder, &mut emit, self.go_on)?;
        let run = writer.finish().map_err(failed())?;
        self.runs.push(run);
        Ok(())
    }

    /// A file without a name, for so many bytes.
    fn new_file(&self, bytes: u64) -> Result<File, KeyIndexError> {
        let folder = &self.folder;
        let limit = self.limits.temporary_bytes;
        if self.stored_bytes().saturating_add(bytes) > limit {
            return Err(KeyIndexError::TooLarge { limit });
        }
        check_room(folder, bytes)?;
        unnamed_file(folder).map_err(KeyIndexError::io("create a temporary file in", folder))
    }

    /// Gives all entries in order.
    pub(super) fn finish(mut self, emit: Emit<'_>) -> Result<(), KeyIndexError> {
        if !self.runs.is_empty() {
            if !self.held.is_empty() {
                self.spill()?;
            }
            (self.keys, self.held) = (Vec::new(), Vec::new());
            return merge(std::mem::take(&mut self.runs), self.sealer.as_ref(), &self.folder, emit, self.go_on);
        }
        self.sort();
        let mut entry = IndexEntry::default();
        for (n, held) in self.held.iter().enumerate() {
            if n.is_multiple_of(ENTRIES_A_LOOK) && !(self.go_on)(BYTES_A_LOOK) {
                return Err(KeyIndexError::Stopped);
            }
            entry.key.clear();
            entry.key.extend_from_slice(key_of(&self.keys, held));
            (entry.db, entry.offset, entry.len) = (held.db, held.offset, held.len);
            emit(&entry)?;
        }
        Ok(())
    }
}

fn key_of<'k>(keys: &'k [u8], held: &Held) -> &'k [u8] {
    &keys[held.key_at as usize..][..usize::from(held.key_len)]
}

/// Fails if so many bytes would leave too little room.
fn check_room(folder: &Path, bytes: u64) -> Result<(), KeyIndexError> {
    let room = rustix::fs::statvfs(folder).map_err(|e| KeyIndexError::io("look at", folder)(e.into()))?;
    let wanted = bytes.saturating_mul(ROOM);
    if room.f_bavail.saturating_mul(room.f_frsize) < wanted {
        return Err(KeyIndexError::NoRoom { folder: folder.to_owned(), wanted });
    }
    Ok(())
}

/// Gives the entries of all runs in order.
fn merge(
    runs: Vec<Run>,
    sealer: Option<&Sealer>,
    folder: &Path,
    emit: Emit<'_>,
    go_on: &GoOn<'_>,
) -> Result<(), KeyIndexError> {
    let failed = || KeyIndexError::io("read a temporary file in", folder);
    let mut readers: Vec<RunReader<'_>> = runs.into_iter().map(|run| RunReader::new(run, sealer)).collect();
    let mut heap = BinaryHeap::with_capacity(readers.len());
    for (n, reader) in readers.iter_mut().enumerate() {
        let mut entry = IndexEntry::default();
        if reader.next_into(&mut entry).map_err(failed())? {
            heap.push(Reverse((entry, n)));
        }
    }
    let mut emitted = 0usize;
    while let Some(mut top) = heap.peek_mut() {
        if emitted.is_multiple_of(ENTRIES_A_LOOK) && !go_on(BYTES_A_LOOK) {
            return Err(KeyIndexError::Stopped);
        }
        emitted += 1;
        let Reverse((entry, n)) = &mut *top;
        emit(entry)?;
        if !readers[*n].next_into(entry).map_err(failed())? {
            PeekMut::pop(top);
        }
    }
    Ok(())
}
