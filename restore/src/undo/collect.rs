//! Batches of keys of one database, to be written and deleted together.

use crate::error::RestoreError;
use crate::target::lookup::has_passed;
use crate::target::repair::engine::{Engine, Unwanted};
use crate::target::repair::{Batch, Wanted, live};

/// Keys written at once.
const BATCH_KEYS: usize = 1024;
/// Approximate size of their values in bytes.
const BATCH_BYTES: usize = 4 << 20;

/// Collects keys for one batch.
pub(super) struct Collector<'a> {
    pub(super) engine: Engine<'a>,
    batch: Batch,
    bytes: usize,
    unwanted: Vec<Unwanted>,
}

impl<'a> Collector<'a> {
    pub(super) fn new(engine: Engine<'a>) -> Self {
        Self { engine, batch: Batch::default(), bytes: 0, unwanted: Vec::new() }
    }

    /// Flushes, and switches to this database.
    pub(super) fn go_to(&mut self, db: u32) -> Result<(), RestoreError> {
        let full = self.batch.keys.len() + self.unwanted.len() >= BATCH_KEYS || self.bytes >= BATCH_BYTES;
        if full || db != self.batch.db {
            self.flush()?;
            self.batch.db = db;
        }
        Ok(())
    }

    /// Adds a key to write.
    pub(super) fn put(&mut self, wanted: Wanted) {
        self.bytes += wanted.image.dump.len();
        self.batch.keys.push(wanted);
    }

    /// Adds a key to delete.
    pub(super) fn remove(&mut self, unwanted: Unwanted) {
        self.unwanted.push(unwanted);
    }

    /// Writes and deletes the collected keys.
    pub(super) fn flush(&mut self) -> Result<(), RestoreError> {
        let db = self.batch.db;
        let keys = std::mem::take(&mut self.batch.keys);
        self.bytes = 0;
        // A key that would have expired by now is absent.
        let now_ms = if keys.is_empty() { 0 } else { live::clock(self.engine.target)? };
        let (gone, keys): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| has_passed(key.image.expires_ms, now_ms));
        self.unwanted.extend(gone.into_iter().map(|Wanted { key, expected, .. }| Unwanted {
            key,
            expected,
            of_type: None,
        }));
        if !keys.is_empty() {
            self.engine.batch(Batch { db, keys, ..Batch::default() })?;
        }
        let unwanted = std::mem::take(&mut self.unwanted);
        if unwanted.is_empty() { Ok(()) } else { self.engine.delete(db, unwanted) }
    }
}
