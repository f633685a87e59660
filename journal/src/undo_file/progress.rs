//! How far an operation has come, from its undo file.
//!
//! Memory: 16 bytes for each entry of a write, and up to twice that while the file is read: 160 MB for 10 million keys, 320 MB meanwhile.
//! Keys are kept as keyed hashes of 128 bits. Of entries in doubt only their places in the file are kept, they are read again.

use super::MAX_ENTRIES;
use super::entry::{EntryNumber, UndoEntry, WrittenPlace};
use super::error::UndoFileError;
use super::moved::{MovedAside, MovedKeys};
use super::reader::{ReadPosition, TornTail, UndoReader};
use crate::crypto::{KEY_LEN, new_data_key, random};
use crate::error::Damage;

/// What an interrupted operation has done.
#[derive(Debug)]
pub struct Progress {
    hashes: KeyHashes,
    /// Sorted.
    done: Vec<u128>,
    /// In the order of their numbers.
    in_doubt: Vec<ReadPosition>,
    entries: u64,
    moved: MovedKeys,
    torn: Option<TornTail>,
    is_finished: bool,
}

/// Unpredictable hashes.
#[derive(Debug)]
struct KeyHashes([u8; KEY_LEN]);

impl KeyHashes {
    fn of(&self, WrittenPlace { db, key, element, is_library }: WrittenPlace<'_>) -> u128 {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&db.to_le_bytes()).update(&(key.len() as u64).to_le_bytes()).update(key);
        match element {
            None => hasher.update(&[if is_library { 2 } else { 0 }]),
            Some(element) => hasher.update(&[1]).update(element),
        };
        let mut hash = [0; 16];
        hasher.finalize_xof().fill(&mut hash);
        u128::from_le_bytes(hash)
    }
}

impl Progress {
    /// Reads a file from its first entry to its end.
    pub fn read(reader: &mut UndoReader) -> Result<Self, UndoFileError> {
        reader.go_to(ReadPosition { at: reader.whole_head().len, number: 0 });
        let path = reader.path().to_owned();
        let key = new_data_key(random).map_err(UndoFileError::io("draw random bytes for", &path))?;
        let (hashes, mut moved) = (KeyHashes(key), MovedKeys::default());
        let (mut done, mut pending) = (Vec::new(), Pending::default());
        let mut entries = 0;
        while let Some(stored) = reader.next_entry()? {
            let number = stored.number;
            let position = ReadPosition { at: stored.position, number: number.0 };
            moved.see(number, &stored.entry).map_err(|_| UndoFileError::TooManyMoved { path: path.clone() })?;
            entries += 1;
            if let Some(place) = stored.entry.place() {
                pending.push(position, hashes.of(place));
            }
            if entries > MAX_ENTRIES {
                return Err(UndoFileError::TooMany { path });
            }
            match stored.entry {
                UndoEntry::Done { first, last } => done.extend(pending.take(first, last)),
                UndoEntry::NotWritten { entry } => drop(pending.take(entry, entry)),
                UndoEntry::Finished => done.extend(pending.take(EntryNumber(0), number)),
                _ => {}
            }
        }
        let (in_doubt, doubtful) = pending.0.into_iter().unzip();
        Ok(Self {
            hashes,
            done: without(done, doubtful),
            in_doubt,
            entries,
            moved,
            torn: reader.torn().cloned(),
            is_finished: reader.is_finished(),
        })
    }

    /// Whether all writes of this key as a whole were seen in the target, and none is in doubt.
    pub fn is_key_done(&self, db: u32, key: &[u8]) -> bool {
        self.done.binary_search(&self.hashes.of(WrittenPlace { db, key, element: None, is_library: false })).is_ok()
    }

    /// The same of a function library.
    pub fn is_library_done(&self, name: &[u8]) -> bool {
        let place = WrittenPlace { db: 0, key: name, element: None, is_library: true };
        self.done.binary_search(&self.hashes.of(place)).is_ok()
    }

    /// The same of one element of a key.
    pub fn is_element_done(&self, db: u32, key: &[u8], element: &[u8]) -> bool {
        self.done
            .binary_search(&self.hashes.of(WrittenPlace { db, key, element: Some(element), is_library: false }))
            .is_ok()
    }

    /// How many entries of writes are in doubt: their writes may have been made or not.
    pub fn in_doubt(&self) -> u64 {
        self.in_doubt.len() as u64
    }

    /// Reads the entries in doubt, in full, one after the other. `reader` is of the same file ([`super::UndoWriter::read_back`]).
    pub fn each_in_doubt<E: From<UndoFileError>>(
        &self,
        reader: &mut UndoReader,
        mut each: impl FnMut(EntryNumber, UndoEntry<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for position in &self.in_doubt {
            reader.go_to(*position);
            let path = reader.path().to_owned();
            let Some(stored) = reader.next_entry()? else {
                let damage = Damage::new("an entry in doubt", "the end of the file");
                return Err(UndoFileError::damaged(&path, position.at)(damage).into());
            };
            each(stored.number, stored.entry)?;
        }
        Ok(())
    }

    /// Values that may be in the target under a temporary name: not stored in the file yet, or stored and perhaps not deleted there.
    pub fn moved(&self) -> Vec<MovedAside> {
        self.moved.list()
    }

    /// How many different keys and elements are done.
    pub fn done(&self) -> u64 {
        self.done.len() as u64
    }

    /// How many entries the file has, of all kinds.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// What was at the end and was no whole entry.
    pub fn torn(&self) -> Option<&TornTail> {
        self.torn.as_ref()
    }

    /// Whether all was done.
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// What a writer goes on with.
    pub(super) fn moved_keys(&self) -> MovedKeys {
        self.moved.clone()
    }
}

/// Entries of writes that were not spoken of yet, and hashes of their places, in the order of their numbers.
#[derive(Debug, Default)]
struct Pending(Vec<(ReadPosition, u128)>);

impl Pending {
    fn push(&mut self, position: ReadPosition, place: u128) {
        self.0.push((position, place));
    }

    /// Takes out those from `first` to `last`.
    fn take(&mut self, first: EntryNumber, last: EntryNumber) -> impl Iterator<Item = u128> {
        let begin = self.0.partition_point(|(position, _)| position.number < first.0);
        let end = self.0.partition_point(|(position, _)| position.number <= last.0);
        self.0.drain(begin..end.max(begin)).map(|(_, place)| place)
    }
}

/// Those that are not in `others`, sorted, each once.
fn without(mut all: Vec<u128>, mut others: Vec<u128>) -> Vec<u128> {
    others.sort_unstable();
    if !others.is_empty() {
        all.retain(|hash| others.binary_search(hash).is_err());
    }
    all.sort_unstable();
    all.dedup();
    all.shrink_to_fit();
    all
}
