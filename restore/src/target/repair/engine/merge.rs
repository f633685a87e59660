//! Sets elements of containers, and expiry times, each after a comparison.

use super::transaction::{encode_expiry, exec_all};
use super::{Engine, Wanted};
use crate::client::Value;
use crate::error::RestoreError;
use crate::judge::Part;
use crate::target::lookup::show;
use crate::target::repair::before::Before;
use crate::target::repair::decide::{Decision, Differences, decide};
use crate::target::repair::elements::{self, How};
use crate::target::repair::judged::{Judged, WRITTEN_MEANWHILE, seen_ttl};
use crate::target::repair::live;
use crate::target::repair::policy::TtlPolicy;
use crate::target::value_error::unreadable;
use crate::values::image::Image;
use crate::values::merge::{Difference, removals_last};

/// Looks at the elements of one key.
const MERGE_TRIES: usize = 4;

impl Engine<'_> {
    /// Sets the elements that go back, each individually, and the expiry time. Without elements the value as a whole stays.
    pub(super) fn merge(
        &mut self,
        db: u32,
        Wanted { key, image: wanted, .. }: &Wanted,
        there: Option<&Image>,
        first: Differences,
    ) -> Result<(), RestoreError> {
        let (mut differences, mut live_ttl) = (first, there.map_or(0, |there| there.expires_ms));
        let (mut set, mut ttl_set) = (0, false);
        let left = self.outcome.left;
        let mut whole = self.why_whole_stays(db, key, there, &differences)?;
        for attempt in 1..=MERGE_TRIES {
            let stay = |part, lacking, live| self.judged.stays(db, key, part, lacking, live);
            let (mut goes, mut stays) = (Vec::new(), Vec::new());
            for difference in differences.elements.into_iter().flatten() {
                let lacking = matches!(difference, Difference::Lacking(_));
                // Without `--broken-by`, elements that only the live value has are no conflict.
                if matches!(difference, Difference::Extra(_)) && matches!(self.judged, Judged::NotAsked) {
                    continue;
                }
                match stay(Part::Element(difference.name().to_vec()), lacking, difference.seen()) {
                    None => goes.push(difference),
                    Some(why) => stays.push((difference, why)),
                }
            }
            removals_last(&mut goes);
            let ttl_stays = if differences.ttl { Some(stay(Part::Ttl, false, seen_ttl(live_ttl))) } else { None };
            let was_set = self.set_elements(db, key, &goes)?;
            set += was_set.iter().filter(|set| **set).count() as u64;
            let mut again = was_set.iter().any(|set| !set);
            if let Some(None) = ttl_stays {
                ttl_set = self.set_ttl(db, key, live_ttl, wanted.expires_ms)?;
                again |= !ttl_set;
            }
            if again && attempt < MERGE_TRIES {
                let live = live::read(self.target, &[key], self.version, false)?;
                let there = live.keys.into_iter().next().flatten();
                live_ttl = there.as_ref().map_or(0, |there| there.expires_ms);
                let decision = decide(self.policy, wanted, there.as_ref(), live.now_ms, live.slack_ms);
                match decision.map_err(|e| unreadable(key, e))? {
                    Decision::Merge(now) if now.elements.is_some() || whole.is_some() => {
                        whole = self.why_whole_stays(db, key, there.as_ref(), &now)?;
                        differences = now;
                        continue;
                    }
                    Decision::Equal => {}
                    _ => self.outcome.leave(db, key, "was deleted or overwritten while the restore ran"),
                }
            } else {
                self.leave_elements(db, key, (whole.take(), &stays), again, ttl_stays.flatten());
            }
            break;
        }
        self.outcome.elements += set;
        self.outcome.merged += u64::from(set > 0);
        self.outcome.ttl_set += u64::from(set == 0 && ttl_set);
        // Only the target has additional elements.
        self.outcome.equal += u64::from(set == 0 && !ttl_set && self.outcome.left == left);
        Ok(())
    }

    /// Why the value as a whole stays, if it has no elements that are judged one by one.
    fn why_whole_stays(
        &self,
        db: u32,
        key: &[u8],
        there: Option<&Image>,
        differences: &Differences,
    ) -> Result<Option<String>, RestoreError> {
        if differences.elements.is_some() {
            return Ok(None);
        }
        let why = self.whole_stays(db, key, there)?;
        Ok(Some(why.unwrap_or_else(|| WRITTEN_MEANWHILE.to_owned())))
    }

    fn leave_elements(
        &mut self,
        db: u32,
        key: &[u8],
        (whole, stays): (Option<String>, &[(Difference, String)]),
        again: bool,
        ttl: Option<String>,
    ) {
        let mut left: Vec<String> = whole.into_iter().collect();
        if let Some((difference, why)) = stays.first() {
            let more = if stays.len() > 1 { format!(" and {} more", stays.len() - 1) } else { String::new() };
            left.push(format!("element {}{more}: {why}", show(difference.name())));
        }
        left.extend(ttl.map(|why| format!("time of expiry: {why}")));
        if again {
            left.push("clients wrote to the same elements while the restore ran".to_owned());
        }
        if !left.is_empty() {
            self.outcome.leave(db, key, left.join("; "));
        }
    }

    pub(crate) fn set_elements(&mut self, db: u32, key: &[u8], goes: &[Difference]) -> Result<Vec<bool>, RestoreError> {
        if goes.is_empty() {
            return Ok(Vec::new());
        }
        let mut entries = Vec::with_capacity(goes.len());
        for difference in goes {
            let before = match difference {
                Difference::Lacking(wanted) => Before::ElementAbsent { key, written: wanted },
                Difference::Other { wanted, live } => Before::Element { key, was: live, written: Some(wanted) },
                Difference::Extra(live) => Before::Element { key, was: live, written: None },
            };
            entries.push(self.log.add(db, &before)?);
        }
        self.log.sync()?;
        let set = elements::set(self.target, self.how, key, goes)?;
        let not_set = entries.into_iter().zip(&set).filter(|(_, set)| !**set);
        not_set.map(|(entry, _)| entry).try_for_each(|entry| self.log.not_written(entry))?;
        Ok(set)
    }

    /// Sets an expiry time if it is still `seen_ms`; `false` = it is not.
    pub(crate) fn set_ttl(&mut self, db: u32, key: &[u8], seen_ms: i64, wanted_ms: i64) -> Result<bool, RestoreError> {
        let entry = self.log.add(db, &Before::Ttl { key, expires_ms: seen_ms, written_ms: wanted_ms })?;
        self.log.sync()?;
        let set = self.set_seen_ttl(key, seen_ms, wanted_ms)?;
        if !set {
            self.log.not_written(entry)?;
        }
        Ok(set)
    }

    fn set_seen_ttl(&mut self, key: &[u8], seen_ms: i64, wanted_ms: i64) -> Result<bool, RestoreError> {
        if self.how == How::Script && self.version.has_redis(7, 0) {
            let (seen, wanted) = (seen_or_never(seen_ms).to_string(), wanted_ms.to_string());
            let args: [&[u8]; 6] = [b"EVAL", TTL_SCRIPT.as_bytes(), b"1", key, seen.as_bytes(), wanted.as_bytes()];
            return Ok(self.target.call(&args)? == Value::Int(1));
        }
        let live = live::read(self.target, &[key], self.version, true)?;
        let there = live.keys.into_iter().next().flatten();
        if there.is_none_or(|there| !self.same_ttl(there.expires_ms, seen_ms)) {
            self.target.call(&["UNWATCH"])?;
            return Ok(false);
        }
        let mut packed = Vec::new();
        self.target.encode(&mut packed, &[b"MULTI"]);
        encode_expiry(self.target, &mut packed, key, wanted_ms);
        self.target.encode(&mut packed, &[b"EXEC"]);
        exec_all(self.target, &packed, 1)
    }
}

impl Engine<'_> {
    /// True if two expiry times reported by the target are the same within its slack.
    pub(crate) fn same_ttl(&self, one_ms: i64, other_ms: i64) -> bool {
        TtlPolicy::Absolute.same(one_ms, other_ms, if self.version.has_redis(7, 0) { 0 } else { TTL_JITTER_MS })
    }
}

/// `PEXPIRETIME` of a key that never expires.
fn seen_or_never(expires_ms: i64) -> i64 {
    if expires_ms == 0 { -1 } else { expires_ms }
}

/// Inaccuracy of an expiry time that was computed from `PTTL`, in ms.
const TTL_JITTER_MS: i64 = 50;

/// `ARGV`: the required `PEXPIRETIME`, and the new expiry time; 0 = never.
const TTL_SCRIPT: &str = r"
if redis.call('PEXPIRETIME', KEYS[1]) ~= tonumber(ARGV[1]) then return 0 end
if ARGV[2] == '0' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIREAT', KEYS[1], ARGV[2]) end
return 1";
