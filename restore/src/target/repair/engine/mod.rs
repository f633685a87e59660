//! Writes wanted keys into a live target, each atomically, while clients use it.
//!
//! For each batch, the engine asks which keys exist. Absent keys are created with `RESTORE`, which overwrites nothing
//! (`create`), while the target still works on earlier batches (`in_flight`). Existing keys are watched, read, and
//! written in one transaction (`watched`). After a conflicting write by a client, each is tried alone. A key that
//! clients write to constantly is renamed in the transaction that puts the wanted one in its place (`aside`); a stream
//! is merged with the entries added meanwhile (`hot_stream`). Elements are set one by one (`merge`), and unwanted keys
//! are deleted (`delete`).
//!
//! Order: before a write is sent, the earlier state is in the undo log, and the log is on the disk.

mod aside;
mod build;
mod create;
mod delete;
mod hot_stream;
mod in_flight;
mod merge;
mod transaction;
mod watched;

use std::collections::HashMap;

use redtape_journal::undo_file::{MovedAside, OperationId};

pub(crate) use self::build::rename_new;
pub(crate) use self::delete::Unwanted;
pub(crate) use self::in_flight::InFlight;
use self::transaction::transaction_len;
use super::before::UndoLog;
use super::datasets::Batch;
use super::elements::How;
use super::judged::Judged;
use super::live;
use super::outcome::Outcome;
use super::policy::{OnConflict, Policy};
use super::wanted::Wanted;
use crate::client::Server;
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::target::lookup::select;
use crate::target::value_error::unreadable;
use crate::values::digest::Digest;
use crate::values::image::Image;
use crate::version::ServerVersion;

/// As `ALONE_TRIES`, for a large value, which is built again each time.
const LARGE_TRIES: usize = 2;
/// Why a key stays that does not have the expected value (`--if-unchanged`).
const CHANGED: &str = "was changed since";
/// Attempts with one key before it is moved aside.
const ALONE_TRIES: usize = 8;

/// The engine of one repair.
pub(crate) struct Engine<'a> {
    pub(crate) target: &'a mut Server,
    pub(crate) policy: &'a Policy,
    pub(crate) judged: &'a Judged,
    pub(crate) log: &'a mut dyn UndoLog,
    pub(crate) interrupt: &'a Interrupt,
    /// The restore point.
    pub(crate) at_ms: i64,
    /// The id of this restore.
    pub(crate) id: &'a OperationId,
    /// The target's version.
    pub(crate) version: ServerVersion,
    pub(crate) how: How,
    pub(crate) outcome: Outcome,
    /// Keys that an interrupted run was moving aside.
    pub(crate) moved: HashMap<(u32, Vec<u8>), MovedAside>,
    /// Batches sent and not answered yet.
    pub(crate) in_flight: InFlight,
}

impl Engine<'_> {
    /// Writes a batch and waits for the replies.
    pub(crate) fn batch(&mut self, batch: Batch) -> Result<(), RestoreError> {
        self.begin(batch)?;
        self.settle()
    }

    /// Writes a batch. Replies for new keys may be read later, at the latest in [`Engine::settle`], which must precede
    /// any other use of the target.
    pub(crate) fn begin(&mut self, batch: Batch) -> Result<(), RestoreError> {
        self.interrupt.check()?;
        let Batch { db, keys, new } = batch;
        if !self.in_flight.is_in(db) {
            self.settle()?;
            select(self.target, db)?;
        }
        if !new.is_empty() {
            self.send_new(db, new)?;
        }
        if keys.is_empty() {
            return Ok(());
        }
        self.settle()?;
        self.known(db, keys)
    }

    /// Writes keys that may exist, and keys with large values.
    fn known(&mut self, db: u32, keys: Vec<Wanted>) -> Result<(), RestoreError> {
        let keys = self.not_yet_done(db, keys)?;
        let (mut absent, known): (Vec<_>, Vec<_>) = keys.into_iter().partition(|wanted| wanted.new);
        let names: Vec<&[u8]> = known.iter().map(|wanted| &wanted.key[..]).collect();
        let there = live::exist(self.target, &names)?;
        let mut present = Vec::new();
        for (wanted, there) in known.into_iter().zip(there) {
            if there { present.push(wanted) } else { absent.push(wanted) }
        }
        // Includes keys that a client has created meanwhile.
        present.extend(self.create(db, absent)?);
        self.present(db, &present)
    }

    /// Writes existing keys.
    fn present(&mut self, db: u32, keys: &[Wanted]) -> Result<(), RestoreError> {
        let mut left = keys;
        while !left.is_empty() {
            self.interrupt.check()?;
            let (now, rest) = left.split_at(transaction_len(self.target, left));
            left = rest;
            if !self.attempt(db, now)? {
                now.iter().try_for_each(|key| self.alone(db, key))?;
            }
        }
        self.log.done()
    }

    /// Omits keys that an interrupted run has written, and keys that have expired since the restore point.
    fn not_yet_done(&mut self, db: u32, keys: Vec<Wanted>) -> Result<Vec<Wanted>, RestoreError> {
        let now_ms = live::clock(self.target)?;
        let (mut left, mut gone) = (Vec::with_capacity(keys.len()), Vec::new());
        for mut wanted in keys {
            let image = &mut wanted.image;
            image.expires_ms = self.policy.ttl.apply(image.expires_ms, self.at_ms, now_ms);
            if self.log.is_done(db, &wanted.key) || self.take_up(db, &wanted.key)? {
                self.outcome.done_before += 1;
            } else if image.expires_ms != 0 && image.expires_ms <= now_ms {
                self.outcome.expired += 1;
                gone.push(wanted.key);
            } else {
                left.push(wanted);
            }
        }
        self.delete_expired(db, gone)?;
        Ok(left)
    }

    /// With `--replace-all`, wanted keys that have expired by now are deleted.
    fn delete_expired(&mut self, db: u32, keys: Vec<Vec<u8>>) -> Result<(), RestoreError> {
        if !self.policy.replace_all || keys.is_empty() {
            return Ok(());
        }
        self.delete(db, keys.into_iter().map(|key| Unwanted { key, expected: None, of_type: None }).collect())
    }

    /// Writes one key, however often clients write to it.
    fn alone(&mut self, db: u32, wanted: &Wanted) -> Result<(), RestoreError> {
        let tries = if wanted.large { LARGE_TRIES } else { ALONE_TRIES };
        for _ in 0..tries {
            if self.attempt(db, std::slice::from_ref(wanted))? {
                return Ok(());
            }
        }
        if self.policy.on_conflict == OnConflict::Replace {
            return self.move_aside(db, wanted);
        }
        if self.policy.on_conflict == OnConflict::Merge && self.merge_hot_stream(db, wanted)? {
            return Ok(());
        }
        self.outcome.leave(db, &wanted.key, "clients write to it all the time");
        Ok(())
    }
}

/// The digest of the written value.
pub(crate) fn digest_of(key: &[u8], image: &Image) -> Result<Digest, RestoreError> {
    image.digest().map_err(|e| unreadable(key, e))
}
