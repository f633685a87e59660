//! Creates keys that the target does not have.

use redtape_journal::undo_file::EntryNumber;

use super::in_flight::Sent;
use super::transaction::encode_create;
use super::{CHANGED, Engine, Wanted};
use crate::error::RestoreError;
use crate::judge::Part;
use crate::target::repair::before::{Before, Doubt};
use crate::target::repair::new_keys::NewKeys;
use crate::values::digest::{Digest, NOTHING};

impl Engine<'_> {
    /// Creates keys that the target did not have; returns those that exist by now.
    pub(super) fn create(&mut self, db: u32, keys: Vec<Wanted>) -> Result<Vec<Wanted>, RestoreError> {
        let (large, small): (Vec<_>, Vec<_>) = keys.into_iter().partition(|wanted| wanted.large);
        let mut packed = NewKeys::default();
        for wanted in small {
            packed.push_wanted(&wanted);
        }
        let every = 0..packed.len();
        let sent = every.map(|at| (at, packed.get(at).2.expires_ms)).collect();
        self.send_those(db, packed, sent)?;
        self.receive_all()?;
        let mut exist = self.in_flight.take_existing();
        for wanted in large {
            self.interrupt.check()?;
            if !self.may_create(db, &wanted.key, wanted.expected) {
                continue;
            }
            let entry = self.log.add(db, &Before::Absent { key: &wanted.key, written: wanted.digest })?;
            self.log.sync()?;
            if self.create_one(&wanted.key, &wanted)? {
                self.outcome.created += 1;
            } else {
                self.log.not_written(entry)?;
                exist.push(wanted);
            }
        }
        Ok(exist)
    }

    /// Creates keys that the target did not have, without waiting for the replies.
    pub(super) fn send_new(&mut self, db: u32, keys: NewKeys) -> Result<(), RestoreError> {
        if !self.moved.is_empty() {
            // The next step queries the target.
            self.settle()?;
        }
        let now_ms = self.now_ms()?;
        let mut those = Vec::with_capacity(keys.len());
        for at in 0..keys.len() {
            let (key, _, about) = keys.get(at);
            let expires_ms = self.policy.ttl.apply(about.expires_ms, self.at_ms, now_ms);
            if self.log.is_done(db, key) || self.take_up(db, key)? {
                self.outcome.done_before += 1;
            } else if expires_ms != 0 && expires_ms <= now_ms {
                self.outcome.expired += 1;
            } else {
                those.push((at, expires_ms));
            }
        }
        self.send_those(db, keys, those)?;
        self.receive_some()
    }

    /// Sends some of the keys with their expiry times, once the undo log is durable.
    fn send_those(&mut self, db: u32, keys: NewKeys, those: Vec<(usize, i64)>) -> Result<(), RestoreError> {
        let mut packed = Vec::new();
        let mut sent: Vec<(usize, i64, EntryNumber)> = Vec::with_capacity(those.len());
        for (at, expires_ms) in those {
            let (key, dump, about) = keys.get(at);
            if !self.may_create(db, key, about.expected) {
                continue;
            }
            let entry = self.log.add(db, &Before::Absent { key, written: about.digest })?;
            encode_create(self.target, &mut packed, key, dump, expires_ms);
            sent.push((at, expires_ms, entry));
        }
        let Some(added) = self.log.take_added() else { return Ok(()) };
        self.log.sync()?;
        self.send(db, &mut packed, Sent { keys, those: sent, added })
    }

    /// True if an absent key may be written.
    fn may_create(&mut self, db: u32, key: &[u8], expected: Option<Digest>) -> bool {
        let why = match self.log.doubt(db, key) {
            Some(Doubt::Value(_)) => Some("was deleted after an interrupted run may have written it".to_owned()),
            _ if expected.is_some_and(|expected| expected != NOTHING) => Some(CHANGED.to_owned()),
            _ => self.judged.stays(db, key, Part::Whole, true, NOTHING),
        };
        let Some(why) = why else { return true };
        self.outcome.leave(db, key, format!("is not there: {why}"));
        self.outcome.left_absent += 1;
        false
    }
}
