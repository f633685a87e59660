//! Writing repairs into the live server: each key, each element and each time of expiry only where it is still as it was recorded.

use redtape_journal::undo_file::EntryNumber;

use super::repairs::{KeyRepair, Whole};
use crate::error::RestoreError;
use crate::target::lookup::{select, show};
use crate::target::repair::engine::{Engine, Unwanted};
use crate::target::repair::{Added, Batch, Before, Doubt, FileLog, UndoLog, Wanted};
use crate::target::value_error::unreadable;
use crate::values::digest::NOTHING;
use crate::values::image::Image;

/// Keys that are written at once.
const BATCH_KEYS: usize = 1024;
/// Bytes of their values, about.
const BATCH_BYTES: usize = 4 << 20;

/// The undo file of an operation that finds out anew what is to be done: the journal tells what an interrupted run has written, as
/// it tells what anybody has.
#[derive(Debug)]
pub(super) struct AnewLog<'a>(pub(super) &'a mut FileLog);

impl UndoLog for AnewLog<'_> {
    fn add(&mut self, db: u32, before: &Before<'_>) -> Result<EntryNumber, RestoreError> {
        self.0.add(db, before)
    }

    fn sync(&mut self) -> Result<(), RestoreError> {
        self.0.sync()
    }

    fn not_written(&mut self, entry: EntryNumber) -> Result<(), RestoreError> {
        self.0.not_written(entry)
    }

    fn take_added(&mut self) -> Option<Added> {
        self.0.take_added()
    }

    fn are_done(&mut self, added: Added) -> Result<(), RestoreError> {
        self.0.are_done(added)
    }

    fn is_done(&self, _db: u32, _key: &[u8]) -> bool {
        false
    }

    fn doubt(&self, _db: u32, _key: &[u8]) -> Option<&Doubt> {
        None
    }
}

/// Collects repairs of one database, and has them written.
pub(super) struct Delivery<'a> {
    pub(super) engine: Engine<'a>,
    batch: Batch,
    bytes: usize,
    unwanted: Vec<Unwanted>,
}

impl<'a> Delivery<'a> {
    pub(super) fn new(engine: Engine<'a>) -> Self {
        Self { engine, batch: Batch::default(), bytes: 0, unwanted: Vec::new() }
    }

    /// Adds a key's repair; `was` and `without`: as it was, and as it would be.
    pub(super) fn add(
        &mut self,
        (db, key): (u32, &[u8]),
        repair: KeyRepair,
        (was, without): (Option<Image>, Option<Image>),
    ) -> Result<(), RestoreError> {
        let full = self.batch.keys.len() + self.unwanted.len() >= BATCH_KEYS || self.bytes >= BATCH_BYTES;
        if full || db != self.batch.db {
            self.flush()?;
            self.batch.db = db;
        }
        let digest =
            |image: Option<&Image>| image.map_or(Ok(NOTHING), Image::digest).map_err(|error| unreadable(key, error));
        match (repair.whole, without) {
            (None, _) => return self.parts((db, key), repair),
            (Some(Whole::Create | Whole::Replace), Some(without)) => {
                let expected = match repair.whole {
                    Some(Whole::Replace) => digest(was.as_ref())?,
                    _ => NOTHING,
                };
                self.bytes += without.dump.len();
                self.batch.keys.push(Wanted::new(key.to_vec(), without, Some(expected))?);
            }
            (Some(_), _) => {
                let expected = Some(digest(was.as_ref())?);
                self.unwanted.push(Unwanted { key: key.to_vec(), expected, of_type: None });
            }
        }
        Ok(())
    }

    /// Elements and the time of expiry.
    fn parts(&mut self, (db, key): (u32, &[u8]), repair: KeyRepair) -> Result<(), RestoreError> {
        let KeyRepair { elements, ttl, .. } = repair;
        select(self.engine.target, db)?;
        if !elements.is_empty() {
            let set = self.engine.set_elements(db, key, &elements)?;
            let done = set.iter().filter(|set| **set).count() as u64;
            self.engine.outcome.elements += done;
            self.engine.outcome.merged += u64::from(done > 0);
            if let Some((difference, _)) = elements.iter().zip(&set).find(|(_, set)| !**set) {
                let why = format!("element {} was changed since", show(difference.name()));
                self.engine.outcome.leave(db, key, why);
            }
            self.engine.log.done()?;
        }
        match ttl {
            None => Ok(()),
            Some((was_ms, without_ms)) => self.engine.put_ttl_back(db, key, was_ms, without_ms, false),
        }
    }

    /// Writes what has come together.
    pub(super) fn flush(&mut self) -> Result<(), RestoreError> {
        let db = self.batch.db;
        let keys = std::mem::take(&mut self.batch.keys);
        self.bytes = 0;
        if !keys.is_empty() {
            self.engine.batch(Batch { db, keys, ..Batch::default() })?;
        }
        let unwanted = std::mem::take(&mut self.unwanted);
        if unwanted.is_empty() { Ok(()) } else { self.engine.delete(db, unwanted) }
    }
}
