//! Existing keys: watched, read, decided, and written in one transaction.

use redtape_wire::rdb::{Value, encode_dump};

use super::transaction::{encode_expiry, exec_all};
use super::{CHANGED, Engine, Wanted, digest_of};
use crate::error::RestoreError;
use crate::judge::Part;
use crate::target::lookup::show;
use crate::target::repair::before::Before;
use crate::target::repair::before::Doubt;
use crate::target::repair::decide::{Decision, Differences, decide};
use crate::target::repair::judged::{Judged, seen_ttl};
use crate::target::repair::live::{self, Live};
use crate::target::value_error::unreadable;
use crate::values::digest::{Digest, NOTHING};
use crate::values::image::Image;

impl Engine<'_> {
    /// One attempt with watched keys; `false` = a client's write came first, and nothing was done.
    pub(super) fn attempt(&mut self, db: u32, keys: &[Wanted]) -> Result<bool, RestoreError> {
        let names: Vec<&[u8]> = keys.iter().map(|wanted| &wanted.key[..]).collect();
        let live = live::read(self.target, &names, self.version, true)?;
        let mut decisions = Vec::with_capacity(keys.len());
        for (wanted, there) in keys.iter().zip(&live.keys) {
            decisions.push(self.decide(db, wanted, there.as_ref(), &live)?);
        }
        let mut packed = Vec::new();
        self.target.encode(&mut packed, &[b"MULTI"]);
        let merged = self.merged(keys, &live.keys, &decisions)?;
        let (mut commands, mut entries, mut built) = (0, Vec::new(), Vec::new());
        let puts = keys.iter().zip(&merged).map(|(wanted, merged)| merged.as_ref().unwrap_or(wanted));
        for ((wanted @ Wanted { key, image, digest, .. }, there), decision) in puts.zip(&live.keys).zip(&decisions) {
            let written = match decision {
                Decision::Create | Decision::Replace | Decision::MergeStream(_) => *digest,
                Decision::SetTtl => Digest::default(),
                _ => continue,
            };
            let before = match (decision, there) {
                (Decision::SetTtl, Some(there)) => {
                    encode_expiry(self.target, &mut packed, key, image.expires_ms);
                    commands += 1;
                    Before::Ttl { key, expires_ms: there.expires_ms, written_ms: image.expires_ms }
                }
                (_, Some(Image { dump, expires_ms })) => {
                    let (more, name) = self.encode_put(&mut packed, wanted, true)?;
                    commands += more;
                    built.extend(name);
                    Before::Value { key, expires_ms: *expires_ms, dump, written: Some(written) }
                }
                (_, None) => {
                    let (more, name) = self.encode_put(&mut packed, wanted, false)?;
                    commands += more;
                    built.extend(name);
                    Before::Absent { key, written }
                }
            };
            entries.push(self.log.add(db, &before)?);
        }
        if entries.is_empty() {
            self.target.call(&["UNWATCH"])?;
        } else {
            self.log.sync()?;
            self.target.encode(&mut packed, &[b"EXEC"]);
            let done = exec_all(self.target, &packed, commands);
            // A node that does not hold a key refuses the whole transaction.
            if let Ok(false) | Err(RestoreError::OtherNode { .. }) = done {
                entries.into_iter().try_for_each(|entry| self.log.not_written(entry))?;
                for name in built {
                    self.target.call(&[&b"UNLINK"[..], &name])?;
                }
            }
            if !done? {
                return Ok(false);
            }
        }
        for ((wanted, there), decision) in keys.iter().zip(&live.keys).zip(decisions) {
            self.finish(db, wanted, there.as_ref(), decision)?;
        }
        Ok(true)
    }

    /// The merged stream of each key that is rebuilt.
    fn merged(
        &self,
        keys: &[Wanted],
        live: &[Option<Image>],
        decisions: &[Decision],
    ) -> Result<Vec<Option<Wanted>>, RestoreError> {
        let all = keys.iter().zip(live).zip(decisions);
        let merged = all.map(|((Wanted { key, .. }, there), decision)| {
            let (Decision::MergeStream(merged), Some(there)) = (decision, there) else { return Ok(None) };
            let value = Value::Stream(Box::new(merged.stream.clone()));
            let dump = encode_dump(&value, self.version.writes()).map_err(|e| RestoreError::Unable(e.to_string()))?;
            Wanted::new(key.clone(), Image { dump, expires_ms: there.expires_ms }, None).map(Some)
        });
        merged.collect()
    }

    /// The decision on a key: from its value, its last write, and the doubts left by an interrupted run.
    fn decide(&self, db: u32, wanted: &Wanted, there: Option<&Image>, live: &Live) -> Result<Decision, RestoreError> {
        let key = &wanted.key;
        let decision = decide(self.policy, &wanted.image, there, live.now_ms, live.slack_ms);
        let decision = self.judge_whole(db, key, decision.map_err(|e| unreadable(key, e))?, there)?;
        let may = match &decision {
            // Each element is compared before it is set.
            Decision::Merge(_) => is_expected(wanted, there)?,
            whole if whole.writes() => is_expected(wanted, there)? && self.is_as_found(db, key, there)?,
            _ => true,
        };
        Ok(if may { decision } else { Decision::Conflict })
    }

    /// The decision on a whole key, where it depends on the last write.
    fn judge_whole(
        &self,
        db: u32,
        key: &[u8],
        decision: Decision,
        there: Option<&Image>,
    ) -> Result<Decision, RestoreError> {
        let (goes, ttl) = match &decision {
            Decision::Create => (Decision::Create, false),
            Decision::Merge(Differences { elements: None, ttl }) => (Decision::Replace, *ttl),
            Decision::MergeStream(merged) if !matches!(self.judged, Judged::NotAsked) => {
                (Decision::Replace, merged.ttl)
            }
            _ => return Ok(decision),
        };
        if self.whole_stays(db, key, there)?.is_none() {
            return Ok(goes);
        }
        // Another write may have set the expiry time, and that one may be named.
        let judged_alone = ttl && !matches!(self.judged, Judged::NotAsked);
        let only_ttl = Decision::Merge(Differences { elements: None, ttl });
        Ok(if judged_alone { only_ttl } else { Decision::Conflict })
    }

    /// Why a whole key stays, if that depends on its last write.
    pub(super) fn whole_stays(
        &self,
        db: u32,
        key: &[u8],
        there: Option<&Image>,
    ) -> Result<Option<String>, RestoreError> {
        let live = there.map(|there| digest_of(key, there)).transpose()?;
        Ok(self.judged.stays(db, key, Part::Whole, there.is_none(), live.unwrap_or(NOTHING)))
    }

    /// A key in doubt since an interrupted run is written only if it is still as that run found it.
    pub(super) fn is_as_found(&self, db: u32, key: &[u8], there: Option<&Image>) -> Result<bool, RestoreError> {
        Ok(match (self.log.doubt(db, key), there) {
            (None | Some(Doubt::Part), _) | (Some(Doubt::Absent), None) => true,
            (Some(Doubt::Value(dump)), Some(there)) => {
                let found = Image { dump: dump.clone(), expires_ms: 0 };
                there.same_value(&found).map_err(|e| unreadable(key, e))?
            }
            (Some(Doubt::Absent), Some(_)) | (Some(Doubt::Value(_)), None) => false,
        })
    }

    /// Counts what the transaction did, and performs the rest outside of it.
    fn finish(
        &mut self,
        db: u32,
        wanted: &Wanted,
        there: Option<&Image>,
        decision: Decision,
    ) -> Result<(), RestoreError> {
        let Wanted { key, expected, .. } = wanted;
        match decision {
            Decision::Expired => {
                self.outcome.expired += 1;
                self.delete_expired(db, vec![key.clone()])?;
            }
            Decision::Equal => self.outcome.equal += 1,
            Decision::Create => self.outcome.created += 1,
            Decision::Skip => self.outcome.skipped += 1,
            Decision::Replace => self.outcome.replaced += 1,
            Decision::SetTtl => self.outcome.ttl_set += 1,
            Decision::Rename => self.rename(db, wanted)?,
            Decision::Merge(differences) => self.merge(db, wanted, there, differences)?,
            Decision::MergeStream(merged) => {
                self.outcome.merged += 1;
                self.outcome.elements += merged.lacking;
                let ttl = there.filter(|_| merged.ttl);
                let ttl =
                    ttl.and_then(|there| self.judged.stays(db, key, Part::Ttl, false, seen_ttl(there.expires_ms)));
                if let Some(why) = ttl {
                    self.outcome.leave(db, key, format!("time of expiry: {why}"));
                }
            }
            Decision::Conflict => {
                let judged = self.whole_stays(db, key, there)?;
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

    /// Stores the wanted value beside the target's key.
    fn rename(&mut self, db: u32, wanted: &Wanted) -> Result<(), RestoreError> {
        let Wanted { key, image, digest, .. } = wanted;
        let name = self.policy.name_template.name(key, &self.id.to_string());
        let there = live::read(self.target, &[&name], self.version, false)?.keys.pop().flatten();
        let created = match there {
            Some(there) if image.same_value(&there).map_err(|e| unreadable(key, e))? => {
                self.outcome.equal += 1;
                return Ok(());
            }
            Some(_) => false,
            None => {
                let entry = self.log.add(db, &Before::Absent { key: &name, written: *digest })?;
                self.log.sync()?;
                let created = self.create_one(&name, wanted)?;
                if !created {
                    self.log.not_written(entry)?;
                }
                created
            }
        };
        if created {
            self.outcome.renamed += 1;
        } else {
            self.outcome.leave(db, key, format!("exists with another value, and so does {}", show(&name)));
        }
        Ok(())
    }
}

/// True if the target holds the value that may be replaced.
fn is_expected(wanted: &Wanted, there: Option<&Image>) -> Result<bool, RestoreError> {
    let Some(expected) = wanted.expected else { return Ok(true) };
    let found = there.map(|there| digest_of(&wanted.key, there)).transpose()?;
    Ok(found.unwrap_or(NOTHING) == expected)
}
