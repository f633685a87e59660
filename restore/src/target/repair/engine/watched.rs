//! Keys that the target has: watched, read, decided upon, written in one transaction.

use redtape_wire::resp::encode_command;

use super::transaction::{encode_expiry, encode_restore, exec_all, not_taken};
use super::{CHANGED, Engine, Wanted, digest_of, unreadable};
use crate::client::Reply;
use crate::error::RestoreError;
use crate::refusal::{Refusal, meaning};
use crate::target::lookup::show;
use crate::target::repair::before::Before;
use crate::target::repair::decide::{Decision, Differences, decide};
use crate::target::repair::digest::{Digest, NOTHING};
use crate::target::repair::image::Image;
use crate::target::repair::judged::Part;
use crate::target::repair::live::{self, Live};
use crate::target::repair::operation::Doubt;

impl Engine<'_> {
    /// Reads watched keys, decides, and writes them in one transaction; `false` = a client came in between, and nothing was done.
    pub(super) fn attempt(&mut self, db: u32, keys: &[Wanted]) -> Result<bool, RestoreError> {
        let names: Vec<&[u8]> = keys.iter().map(|wanted| &wanted.key[..]).collect();
        let live = live::read(self.target, &names, self.absolute, true)?;
        let mut decisions = Vec::with_capacity(keys.len());
        for (wanted, there) in keys.iter().zip(&live.keys) {
            decisions.push(self.decide(db, wanted, there.as_ref(), &live)?);
        }
        let mut packed = Vec::new();
        encode_command(&mut packed, &[b"MULTI"]);
        let mut entries = Vec::new();
        for ((Wanted { key, image: wanted, .. }, there), decision) in keys.iter().zip(&live.keys).zip(&decisions) {
            let written = match decision {
                Decision::Create | Decision::Replace => digest_of(key, wanted)?,
                Decision::SetTtl => Digest::default(),
                _ => continue,
            };
            let before = match (decision, there) {
                (Decision::SetTtl, Some(there)) => {
                    encode_expiry(&mut packed, key, wanted.expires_ms);
                    Before::Ttl { key, expires_ms: there.expires_ms, written_ms: wanted.expires_ms }
                }
                (_, Some(Image { dump, expires_ms })) => {
                    encode_restore(&mut packed, key, wanted, true);
                    Before::Value { key, expires_ms: *expires_ms, dump, written: Some(written) }
                }
                (_, None) => {
                    encode_restore(&mut packed, key, wanted, false);
                    Before::Absent { key, written }
                }
            };
            entries.push(self.log.add(db, &before)?);
        }
        if entries.is_empty() {
            self.target.call(&["UNWATCH"])?;
        } else {
            self.log.sync()?;
            encode_command(&mut packed, &[b"EXEC"]);
            if !exec_all(self.target, &packed, entries.len())? {
                entries.into_iter().try_for_each(|entry| self.log.not_written(entry))?;
                return Ok(false);
            }
        }
        for ((wanted, there), decision) in keys.iter().zip(&live.keys).zip(decisions) {
            self.finish(db, wanted, there.as_ref(), decision)?;
        }
        Ok(true)
    }

    /// What is done with a key: by its value, by who wrote it last, by what an interrupted run has left in doubt.
    fn decide(&self, db: u32, wanted: &Wanted, there: Option<&Image>, live: &Live) -> Result<Decision, RestoreError> {
        let key = &wanted.key;
        let decision = decide(self.policy, &wanted.image, there, live.now_ms, live.slack_ms);
        let decision = self.judge_whole(db, key, decision.map_err(|e| unreadable(key, &e))?, there.is_none());
        let may = match &decision {
            // Each element is compared before it is set.
            Decision::Merge(_) => is_expected(wanted, there)?,
            whole if whole.writes() => is_expected(wanted, there)? && self.is_as_found(db, key, there)?,
            _ => true,
        };
        Ok(if may { decision } else { Decision::Conflict })
    }

    /// Decisions on a key as a whole that depend on who wrote it last.
    fn judge_whole(&self, db: u32, key: &[u8], decision: Decision, absent: bool) -> Decision {
        let whole = match &decision {
            Decision::Create => true,
            Decision::Merge(Differences { elements: None, .. }) => false,
            _ => return decision,
        };
        match self.judged.stays(db, key, Part::Whole, whole && absent) {
            None if whole => Decision::Create,
            None => Decision::Replace,
            Some(_) => Decision::Conflict,
        }
    }

    /// What is in doubt since an interrupted run is written only if it is still as that run found it.
    fn is_as_found(&self, db: u32, key: &[u8], there: Option<&Image>) -> Result<bool, RestoreError> {
        Ok(match (self.log.doubt(db, key), there) {
            (None | Some(Doubt::Part), _) | (Some(Doubt::Absent), None) => true,
            (Some(Doubt::Value(dump)), Some(there)) => {
                let found = Image { dump: dump.clone(), expires_ms: 0 };
                there.same_value(&found).map_err(|e| unreadable(key, &e))?
            }
            (Some(Doubt::Absent), Some(_)) | (Some(Doubt::Value(_)), None) => false,
        })
    }

    /// Counts what was done in the transaction, and does what needs none.
    fn finish(
        &mut self,
        db: u32,
        wanted: &Wanted,
        there: Option<&Image>,
        decision: Decision,
    ) -> Result<(), RestoreError> {
        let Wanted { key, image, expected } = wanted;
        match decision {
            Decision::Expired => self.outcome.expired += 1,
            Decision::Equal => self.outcome.equal += 1,
            Decision::Create => self.outcome.created += 1,
            Decision::Skip => self.outcome.skipped += 1,
            Decision::Replace => self.outcome.replaced += 1,
            Decision::SetTtl => self.outcome.ttl_set += 1,
            Decision::Rename => self.rename(db, key, image)?,
            Decision::Merge(differences) => self.merge(db, wanted, there, differences)?,
            Decision::Conflict => {
                let judged = self.judged.stays(db, key, Part::Whole, there.is_none());
                let why = match (self.log.doubt(db, key), judged) {
                    (Some(_), _) => "was changed after an interrupted run may have written it".to_owned(),
                    (None, _) if expected.is_some() => CHANGED.to_owned(),
                    (None, Some(why)) => why,
                    (None, None) => "exists with another value".to_owned(),
                };
                self.outcome.leave(db, key, why);
            }
        }
        Ok(())
    }

    /// Stores the wanted value beside the target's.
    fn rename(&mut self, db: u32, key: &[u8], image: &Image) -> Result<(), RestoreError> {
        let name = self.policy.name_template.name(key, self.id);
        let entry = self.log.add(db, &Before::Absent { key: &name, written: digest_of(key, image)? })?;
        self.log.sync()?;
        let mut packed = Vec::new();
        encode_restore(&mut packed, &name, image, false);
        match self.target.pipeline(&packed, 1)?.pop() {
            Some(Reply::Error(e)) if meaning(&e.code) == Refusal::KeyExists => {
                self.log.not_written(entry)?;
                let there = live::read(self.target, &[&name], self.absolute, false)?.keys.pop().flatten();
                let same = match there {
                    Some(there) => image.same_value(&there).map_err(|e| unreadable(key, &e))?,
                    None => false,
                };
                if same {
                    self.outcome.equal += 1;
                } else {
                    let why = format!("exists with another value, and so does {}", show(&name));
                    self.outcome.leave(db, key, why);
                }
            }
            Some(Reply::Error(e)) => return Err(not_taken(self.target, key, &e)),
            _ => self.outcome.renamed += 1,
        }
        Ok(())
    }
}

/// Whether the target has what the person wants to replace.
fn is_expected(wanted: &Wanted, there: Option<&Image>) -> Result<bool, RestoreError> {
    let Some(expected) = wanted.expected else { return Ok(true) };
    let found = there.map(|there| digest_of(&wanted.key, there)).transpose()?;
    Ok(found.unwrap_or(NOTHING) == expected)
}
