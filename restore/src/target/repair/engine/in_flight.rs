//! Batches of new keys that are sent and not answered yet. While the target works on one, the undo entries of the next
//! are written and synced, and it is sent.
//!
//! Replies arrive in command order, so nothing else is sent on this connection while a batch is in flight.

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

/// Batches in flight while another one is prepared.
const BATCHES_MAX: usize = 3;

/// The batches in flight, and what their replies have shown.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    batches: VecDeque<Sent>,
    /// Database of the batches.
    db: u32,
    /// The target's clock in ms when last read, and the local time then.
    clock: Option<(i64, Instant)>,
    /// Keys that turned out to exist.
    existing: Vec<Wanted>,
}

/// A batch that was sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) keys: NewKeys,
    /// The sent keys: index, expiry time, and undo entry of each.
    pub(super) those: Vec<(usize, i64, EntryNumber)>,
    /// All these entries.
    pub(super) added: Added,
}

impl InFlight {
    /// True if something is in flight in this database.
    pub(super) fn is_in(&self, db: u32) -> bool {
        !self.batches.is_empty() && self.db == db
    }

    /// Number of keys in flight.
    pub(crate) fn keys(&self) -> u64 {
        self.batches.iter().map(|sent| sent.keys.len() as u64).sum()
    }

    /// Takes the keys that turned out to exist, of answered batches.
    pub(super) fn take_existing(&mut self) -> Vec<Wanted> {
        std::mem::take(&mut self.existing)
    }
}

impl Engine<'_> {
    /// The target's clock in ms. While batches are in flight, it is computed from the last reading.
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

    /// Sends a batch whose undo entries are durable, followed by a `TIME` command.
    pub(super) fn send(&mut self, db: u32, packed: &mut Vec<u8>, batch: Sent) -> Result<(), RestoreError> {
        self.target.encode(packed, &["TIME"]);
        let commands = batch.those.len() + 1;
        self.in_flight.db = db;
        self.in_flight.batches.push_back(batch);
        self.target.send(packed, commands)
    }

    /// Waits for all replies, and writes the keys that turned out to exist.
    pub(crate) fn settle(&mut self) -> Result<(), RestoreError> {
        self.receive_all()?;
        let existing = self.in_flight.take_existing();
        self.present(self.in_flight.db, &existing)
    }

    /// Waits until at most [`BATCHES_MAX`] batches are in flight.
    pub(super) fn receive_some(&mut self) -> Result<(), RestoreError> {
        while self.in_flight.batches.len() > BATCHES_MAX {
            self.receive()?;
        }
        // Existing keys are rare, and deciding on them needs the connection.
        if self.in_flight.existing.is_empty() { Ok(()) } else { self.settle() }
    }

    /// After a failure: waits for all replies, so that the next run has fewer doubtful keys and the connection is free.
    pub(crate) fn give_up(&mut self) {
        if self.receive_all().is_err() {
            // The first failure is the one that is reported.
            let _ = self.target.pass_over();
        }
    }

    /// Waits for all replies.
    pub(super) fn receive_all(&mut self) -> Result<(), RestoreError> {
        while !self.in_flight.batches.is_empty() {
            self.receive()?;
        }
        Ok(())
    }

    /// Waits for the replies to the oldest batch; after a refusal, for those to all batches.
    fn receive(&mut self) -> Result<(), RestoreError> {
        let Some(refused) = self.receive_batch()? else { return Ok(()) };
        // The results of the other batches are then in the undo log and not in doubt.
        while !self.in_flight.batches.is_empty() {
            self.receive_batch()?;
        }
        self.in_flight.existing.clear();
        Err(refused)
    }

    /// Processes the replies to the oldest batch; returns the first refusal.
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
