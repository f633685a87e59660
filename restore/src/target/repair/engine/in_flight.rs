//! Batches of new keys that were sent and are not answered yet: while the target is at work on one, the undo entries of the next are
//! written and synced, and it is sent behind.
//!
//! Replies come in the order of the commands, so nothing else is asked of the target on this connection while a batch is under way.

use std::collections::VecDeque;
use std::time::Instant;

use redtape_journal::undo_file::EntryNumber;

use super::{Engine, Wanted};
use crate::client::Reply;
use crate::error::RestoreError;
use crate::refusal::{Refusal, meaning};
use crate::target::repair::before::Added;
use crate::target::repair::live;
use crate::target::repair::new_keys::NewKeys;
use crate::target::value_error::not_taken;

/// So many may be under way while another one is made.
const BATCHES_MAX: usize = 3;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    batches: VecDeque<Sent>,
    /// Theirs.
    db: u32,
    /// The target's clock in ms as it was told last, and when that was.
    clock: Option<(i64, Instant)>,
    /// Keys that the target had by then.
    existing: Vec<Wanted>,
}

/// A batch that was sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) keys: NewKeys,
    /// Those of the keys that were sent: which, with which time of expiry, and the undo entry of each.
    pub(super) those: Vec<(usize, i64, EntryNumber)>,
    /// All these entries.
    pub(super) added: Added,
}

impl InFlight {
    /// Something is, in this database.
    pub(super) fn is_in(&self, db: u32) -> bool {
        !self.batches.is_empty() && self.db == db
    }

    /// How many keys are.
    pub(crate) fn keys(&self) -> u64 {
        self.batches.iter().map(|sent| sent.keys.len() as u64).sum()
    }

    /// Those that the target had, of batches that are answered.
    pub(super) fn take_existing(&mut self) -> Vec<Wanted> {
        std::mem::take(&mut self.existing)
    }
}

impl Engine<'_> {
    /// The target's clock in ms. While something is under way it is not asked: what it said last, and what has passed since.
    pub(super) fn now_ms(&mut self) -> Result<i64, RestoreError> {
        match self.in_flight.clock {
            Some((told, at)) if !self.in_flight.batches.is_empty() => Ok(told + at.elapsed().as_millis() as i64),
            _ => {
                let told = live::clock(self.target)?;
                self.in_flight.clock = Some((told, Instant::now()));
                Ok(told)
            }
        }
    }

    /// Sends a batch whose undo entries are on the disk, and a question for the time.
    pub(super) fn send(&mut self, db: u32, packed: &mut Vec<u8>, batch: Sent) -> Result<(), RestoreError> {
        self.target.encode(packed, &["TIME"]);
        let commands = batch.those.len() + 1;
        self.in_flight.db = db;
        self.in_flight.batches.push_back(batch);
        self.target.send(packed, commands)
    }

    /// Waits until all is answered, and writes what the target had by then.
    pub(crate) fn settle(&mut self) -> Result<(), RestoreError> {
        self.receive_all()?;
        let existing = self.in_flight.take_existing();
        self.present(self.in_flight.db, &existing)
    }

    /// Waits until no more than the limit is under way.
    pub(super) fn receive_some(&mut self) -> Result<(), RestoreError> {
        while self.in_flight.batches.len() > BATCHES_MAX {
            self.receive()?;
        }
        // Few: what is decided upon them needs the connection.
        if self.in_flight.existing.is_empty() { Ok(()) } else { self.settle() }
    }

    /// Waits until all is answered, though something has failed: the next run has less in doubt, and the connection is free again.
    pub(crate) fn give_up(&mut self) {
        if self.receive_all().is_err() {
            // The first failure is the one that is told.
            let _ = self.target.pass_over();
        }
    }

    /// Waits until all is answered.
    pub(super) fn receive_all(&mut self) -> Result<(), RestoreError> {
        while !self.in_flight.batches.is_empty() {
            self.receive()?;
        }
        Ok(())
    }

    /// Waits for the replies to the oldest batch; after a refusal, for those to all that are under way.
    fn receive(&mut self) -> Result<(), RestoreError> {
        let Some(refused) = self.receive_batch()? else { return Ok(()) };
        // What has become of the others is in the undo log then, and not in doubt.
        while !self.in_flight.batches.is_empty() {
            self.receive_batch()?;
        }
        self.in_flight.existing.clear();
        Err(refused)
    }

    /// Takes note of the replies to the oldest batch; returns the first refusal.
    fn receive_batch(&mut self) -> Result<Option<RestoreError>, RestoreError> {
        let Some(Sent { keys, those, added }) = self.in_flight.batches.pop_front() else { return Ok(None) };
        let (mut left, mut refused) = (&those[..], None);
        loop {
            let (created, rest) = left.split_at(self.target.take_oks(left.len()));
            self.outcome.created += created.len() as u64;
            let Some(((at, expires_ms, entry), rest)) = rest.split_first() else { break };
            left = rest;
            match self.target.receive()? {
                Reply::Value(_) => self.outcome.created += 1,
                Reply::Error(e) => {
                    self.log.not_written(*entry)?;
                    if meaning(&e.code) == Refusal::KeyExists {
                        self.in_flight.existing.push(keys.wanted(*at, *expires_ms));
                    } else if refused.is_none() {
                        refused = Some(not_taken(self.target, keys.get(*at).0, &e));
                    }
                }
            }
        }
        self.in_flight.clock = Some((live::time(&self.target.receive()?), Instant::now()));
        self.log.are_done(added)?;
        Ok(refused)
    }
}
