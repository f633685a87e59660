//! Keys that the target does not have.

use redtape_journal::undo_file::EntryNumber;

use super::transaction::encode_restore;
use super::{CHANGED, Engine, Wanted};
use crate::client::Reply;
use crate::error::RestoreError;
use crate::judge::Part;
use crate::refusal::{Refusal, meaning};
use crate::target::repair::before::Before;
use crate::target::repair::before::Doubt;
use crate::target::value_error::not_taken;
use crate::values::digest::{Digest, NOTHING};

impl Engine<'_> {
    /// Creates keys that the target did not have; returns those that it has by now.
    pub(super) fn create(&mut self, db: u32, keys: Vec<Wanted>) -> Result<Vec<Wanted>, RestoreError> {
        let keys = self.may_create(db, keys);
        if keys.is_empty() {
            return Ok(keys);
        }
        let mut logged = Vec::with_capacity(keys.len());
        for wanted in keys {
            let entry = self.log.add(db, &Before::Absent { key: &wanted.key, written: wanted.digest })?;
            logged.push((wanted, entry));
        }
        self.log.sync()?;
        let (large, small): (Vec<_>, Vec<_>) = logged.into_iter().partition(|(wanted, _)| wanted.large);
        let mut exist = self.create_small(small)?;
        for (wanted, entry) in large {
            self.interrupt.check()?;
            if self.create_one(&wanted.key, &wanted)? {
                self.outcome.created += 1;
            } else {
                self.log.not_written(entry)?;
                exist.push(wanted);
            }
        }
        Ok(exist)
    }

    /// Returns those that exist by now.
    fn create_small(&mut self, keys: Vec<(Wanted, EntryNumber)>) -> Result<Vec<Wanted>, RestoreError> {
        let mut packed = Vec::new();
        for (Wanted { key, image, .. }, _) in &keys {
            encode_restore(self.target, &mut packed, key, image, false);
        }
        let replies = self.target.pipeline(&packed, keys.len())?;
        let mut exist = Vec::new();
        for ((wanted, entry), reply) in keys.into_iter().zip(replies) {
            match reply {
                Reply::Value(_) => self.outcome.created += 1,
                Reply::Error(e) if meaning(&e.code) == Refusal::KeyExists => {
                    self.log.not_written(entry)?;
                    exist.push(wanted);
                }
                Reply::Error(e) => return Err(not_taken(self.target, &wanted.key, &e)),
            }
        }
        Ok(exist)
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
            let Some(why) = why else { return true };
            outcome.leave(db, key, format!("is not there: {why}"));
            outcome.left_absent += 1;
            false
        };
        keys.into_iter().filter(|wanted| may(wanted)).collect()
    }
}
