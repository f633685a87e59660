//! Keys that the target does not have.

use super::transaction::{encode_restore, not_taken};
use super::{CHANGED, Engine, Wanted, digest_of};
use crate::client::Reply;
use crate::error::RestoreError;
use crate::refusal::{Refusal, meaning};
use crate::target::repair::before::Before;
use crate::target::repair::digest::{Digest, NOTHING};
use crate::target::repair::judged::Part;
use crate::target::repair::operation::Doubt;

impl Engine<'_> {
    /// Creates keys that the target did not have; returns those that it has by now.
    pub(super) fn create(&mut self, db: u32, keys: Vec<Wanted>) -> Result<Vec<Wanted>, RestoreError> {
        let keys = self.may_create(db, keys);
        if keys.is_empty() {
            return Ok(keys);
        }
        let mut packed = Vec::new();
        let mut entries = Vec::with_capacity(keys.len());
        for Wanted { key, image, .. } in &keys {
            entries.push(self.log.add(db, &Before::Absent { key, written: digest_of(key, image)? })?);
            encode_restore(&mut packed, key, image, false);
        }
        self.log.sync()?;
        let replies = self.target.pipeline(&packed, keys.len())?;
        let mut exist = Vec::new();
        for ((wanted, entry), reply) in keys.into_iter().zip(entries).zip(replies) {
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
            _ => judged.stays(db, key, Part::Whole, true),
        };
        let mut may = |Wanted { key, expected, .. }: &Wanted| {
            let why = stays(key, *expected);
            why.iter().for_each(|why| outcome.leave(db, key, format!("is not there: {why}")));
            outcome.left_absent += u64::from(why.is_some());
            why.is_none()
        };
        keys.into_iter().filter(|wanted| may(wanted)).collect()
    }
}
