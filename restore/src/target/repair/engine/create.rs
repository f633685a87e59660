//! Keys that the target does not have.

use super::transaction::{encode_restore, not_taken};
use super::{CHANGED, Engine, Wanted, digest_of};
use crate::client::Reply;
use crate::error::RestoreError;
use crate::judge::Part;
use crate::refusal::{Refusal, meaning};
use crate::target::repair::before::Before;
use crate::target::repair::digest::{Digest, NOTHING};
use crate::target::repair::live;
use crate::target::repair::operation::Doubt;

impl Engine<'_> {
    /// Creates keys that the target did not have; returns those that it has by now.
    pub(super) fn create(&mut self, db: u32, keys: Vec<Wanted>) -> Result<Vec<Wanted>, RestoreError> {
        let keys = self.may_create(db, keys);
        if keys.is_empty() {
            return Ok(keys);
        }
        for Wanted { key, digest, .. } in &keys {
            self.log.add(db, &Before::Absent { key, written: *digest })?;
        }
        self.log.sync()?;
        let (large, small): (Vec<_>, Vec<_>) = keys.into_iter().partition(|wanted| wanted.large);
        let mut exist = self.create_small(small)?;
        for wanted in large {
            self.interrupt.check()?;
            if self.create_one(&wanted.key, &wanted)? {
                self.outcome.created += 1;
            } else {
                exist.push(wanted);
            }
        }
        exist.iter().try_for_each(|wanted| self.were_there(db, &wanted.key))?;
        Ok(exist)
    }

    /// Returns those that exist by now.
    fn create_small(&mut self, keys: Vec<Wanted>) -> Result<Vec<Wanted>, RestoreError> {
        let mut packed = Vec::new();
        let target = &*self.target;
        keys.iter().for_each(|wanted| encode_restore(target, &mut packed, &wanted.key, &wanted.image, false));
        let replies = self.target.pipeline(&packed, keys.len())?;
        let mut exist = Vec::new();
        for (wanted, reply) in keys.into_iter().zip(replies) {
            match reply {
                Reply::Value(_) => self.outcome.created += 1,
                Reply::Error(e) if meaning(&e.code) == Refusal::KeyExists => exist.push(wanted),
                Reply::Error(e) => return Err(not_taken(self.target, &wanted.key, &e)),
            }
        }
        Ok(exist)
    }

    /// Takes back what the undo log says of a key that was not created, as the target has it by now: of two entries the last counts.
    pub(super) fn were_there(&mut self, db: u32, key: &[u8]) -> Result<(), RestoreError> {
        let live = live::read(self.target, &[key], self.version, false)?;
        if let Some(Some(there)) = live.keys.first() {
            let (expires_ms, written) = (there.expires_ms, Some(digest_of(key, there)?));
            self.log.add(db, &Before::Value { key, expires_ms, dump: &there.dump, written })?;
        }
        Ok(())
    }

    /// Those of the absent keys that go back.
    fn may_create(&mut self, db: u32, keys: Vec<Wanted>) -> Vec<Wanted> {
        let (judged, outcome) = (self.judged, &mut self.outcome);
        let log = &*self.log;
        let stays = |key: &[u8], expected: Option<Digest>| match log.doubt(db, key) {
            Some(Doubt::Value(_)) => Some("was deleted after an interrupted run may have written it".to_owned()),
            _ if expected.is_some_and(|expected| expected != NOTHING) => Some(CHANGED.to_owned()),
            _ => judged.stays(db, key, Part::Whole, true, NOTHING),
        };
        let mut may = |Wanted { key, expected, .. }: &Wanted| {
            let why = stays(key, *expected);
            why.iter().for_each(|why| outcome.leave(db, key, format!("is not there: {why}")));
            why.is_none()
        };
        keys.into_iter().filter(|wanted| may(wanted)).collect()
    }
}
