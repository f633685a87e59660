//! The stamps that wait for their effect, findable by database and key.
//!
//! A stamp leaves when its effect came, when its reply said that there is none, or when the stream
//! has passed the point up to which it must have come (see [`Stamps::forget_replied_before`]).
//! At most [`STAMPS_MAX`] wait; the oldest goes first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use redtape_journal::Micros;
use smallvec::SmallVec;

use super::causes::{Fit, fit, is_script, many_groups, replies_in_order};
use crate::tee::{Identity, Outcome, Part, Stamp};

/// Stamps that may wait. A first full sync of half a minute at 30,000 writes a second fits.
pub(super) const STAMPS_MAX: usize = 1 << 20;
/// Stamps on one key that may have caused an effect and are compared.
const CANDIDATES_MAX: usize = 256;
/// Stamps on one key that are looked at.
const SCANNED_MAX: usize = 4096;

type Map<K, V> = HashMap<K, V, foldhash::fast::FixedState>;
/// Database and key hash.
type Slot = (u32, u64);
const NO_KEY: Slot = (u32::MAX, 0);

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) stamp: Box<Stamp>,
    /// When its reply was seen.
    pub(super) replied: Option<Micros>,
    /// The reply, if it was a number.
    number: Option<i64>,
    /// It already explained a group and may explain more, or its client is gone: others come first.
    pub(super) spent: bool,
}

/// The best explanation of a group.
#[allow(clippy::struct_excessive_bools)] // Independent marks, compared one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) id: u64,
    fit: Fit,
    /// A transaction for an atomic group, a single command for another.
    shape: bool,
    /// Arguments of a script that are found in the group.
    words: usize,
    /// A script that was given arguments, none of which is in the group.
    pub(super) weak: bool,
    pub(super) replied: bool,
    spent: bool,
}

impl Match {
    /// Fresh before spent, then the better fit, then (if asked for) who has its reply; the first
    /// of equals, which is the oldest, stands.
    pub(super) fn beats(self, other: Self, prefer_replied: bool) -> bool {
        let rank = |m: Self| (!m.spent, m.fit, m.shape, m.words, prefer_replied && m.replied);
        rank(self) > rank(other)
    }

    /// Nothing younger can beat it.
    pub(super) fn is_certain(self) -> bool {
        !self.spent && self.fit == Fit::Exact && self.shape && self.replied
    }
}

/// One effect of a group, and (asked for only where a script may be the cause) the group's words.
pub(super) struct Effects<'a> {
    pub(super) part: &'a Part,
    pub(super) words: &'a mut dyn FnMut() -> Arc<[u64]>,
    /// The group stood between MULTI and EXEC.
    pub(super) atomic: bool,
    /// It ran between these: a request that was forwarded later or answered earlier is not its cause.
    pub(super) ran: (Micros, Micros),
}

/// The stamps on one key, oldest first; `all` may hold ids that have left, `live` counts the others.
#[derive(Debug, Default)]
struct SlotIds {
    all: VecDeque<u64>,
    live: usize,
}

#[derive(Debug, Default)]
pub(super) struct Stamps {
    waiting: Map<u64, Waiting>,
    by_key: Map<Slot, SlotIds>,
    /// In the order of arrival, for the limit.
    order: VecDeque<u64>,
    /// Replied and not yet explained, in the order of replies.
    replied: VecDeque<(Micros, u64)>,
    pub(super) overflowed: u64,
}

fn slots(stamp: &Stamp) -> SmallVec<[Slot; 4]> {
    let mut slots = SmallVec::new();
    for part in &stamp.parts {
        part_slots(part, &mut slots);
    }
    slots
}

fn part_slots(part: &Part, slots: &mut SmallVec<[Slot; 4]>) {
    if part.keys.is_empty() || is_script(&part.name) {
        slots.push(NO_KEY);
    }
    for key in &part.keys {
        let slot = (part.db, *key);
        if !slots.contains(&slot) {
            slots.push(slot);
        }
    }
}

impl Stamps {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn get(&self, id: u64) -> Option<&Waiting> {
        self.waiting.get(&id)
    }

    pub(super) fn add(&mut self, stamp: Box<Stamp>) {
        while self.waiting.len() >= STAMPS_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            if self.remove(oldest).is_some() {
                self.overflowed += 1;
            }
        }
        // Ids of stamps that have left are dropped from the front, and all at once when they pile up.
        while self.order.front().is_some_and(|id| !self.waiting.contains_key(id)) {
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.waiting.len() + 1024 {
            let waiting = &self.waiting;
            self.order.retain(|id| waiting.contains_key(id));
        }
        for slot in slots(&stamp) {
            let ids = self.by_key.entry(slot).or_default();
            ids.all.push_back(stamp.id);
            ids.live += 1;
        }
        self.order.push_back(stamp.id);
        self.waiting.insert(stamp.id, Waiting { stamp, replied: None, number: None, spent: false });
    }

    pub(super) fn correct(&mut self, id: u64, who: Arc<Identity>, db: u32) {
        let Some(mut waiting) = self.remove(id) else { return };
        waiting.stamp.who = who;
        if !waiting.stamp.transaction {
            waiting.stamp.parts.iter_mut().for_each(|p| p.db = db);
        }
        let Waiting { stamp, replied, number, spent } = waiting;
        self.add(stamp);
        if let Some(waiting) = self.waiting.get_mut(&id) {
            (waiting.replied, waiting.number, waiting.spent) = (replied, number, spent);
        }
    }

    pub(super) fn reply(&mut self, id: u64, at: Micros, outcome: Outcome) {
        let Some(waiting) = self.waiting.get_mut(&id) else { return };
        if outcome == Outcome::NoEffect {
            self.remove(id);
        } else {
            waiting.replied = Some(at);
            waiting.spent |= outcome == Outcome::Gone;
            waiting.number = if let Outcome::Number(n) = outcome { Some(n) } else { None };
            self.replied.push_back((at, id));
        }
    }

    /// The stream holds everything that ran before `at`: whoever was replied to before that and is
    /// still here had no effect.
    pub(super) fn forget_replied_before(&mut self, at: Micros) {
        while let Some((replied, id)) = self.replied.front().copied()
            && replied < at
        {
            self.replied.pop_front();
            self.remove(id);
        }
    }

    /// Its effect came.
    pub(super) fn explain(&mut self, id: u64) {
        if let Some(waiting) = self.waiting.get_mut(&id) {
            if waiting.stamp.parts.iter().any(|p| many_groups(&p.name)) {
                waiting.spent = true;
            } else {
                self.remove(id);
            }
        }
    }

    /// Stamps without a reply that were left before `at`: theirs may have been lost.
    pub(super) fn forget_unreplied_before(&mut self, at: Micros) {
        let lost = |w: &Waiting| w.replied.is_none() && w.stamp.at < at;
        let ids: Vec<u64> = self.waiting.iter().filter(|(_, w)| lost(w)).map(|(id, _)| *id).collect();
        for id in ids {
            self.remove(id);
        }
    }

    /// In amortised constant time: an id that has left stays in its slots until they are cleaned up.
    fn remove(&mut self, id: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        for slot in slots(&waiting.stamp) {
            let Some(ids) = self.by_key.get_mut(&slot) else { continue };
            ids.live = ids.live.saturating_sub(1);
            if ids.live == 0 {
                self.by_key.remove(&slot);
                continue;
            }
            while ids.all.front().is_some_and(|id| !self.waiting.contains_key(id)) {
                ids.all.pop_front();
            }
            if ids.all.len() > 2 * ids.live + 32 {
                let still = &self.waiting;
                ids.all.retain(|id| still.contains_key(id));
            }
        }
        Some(waiting)
    }

    /// The best explanation of an effect; see [`Match::beats`].
    pub(super) fn best(
        &self,
        effects: &mut Effects<'_>,
        prefer_replied: bool,
        without: &[u64],
        known: impl Fn(&[u8]) -> bool,
    ) -> Option<Match> {
        let effect = effects.part;
        let mut found: Option<Match> = None;
        let mut twins: SmallVec<[(Option<i64>, Match); 4]> = SmallVec::new();
        let mut slots = SmallVec::new();
        part_slots(effect, &mut slots);
        // Scripts may touch keys that they did not declare: they also wait in the slot without key.
        if slots.first() != Some(&NO_KEY) {
            slots.push(NO_KEY);
        }
        for slot in slots {
            let ids = self.by_key.get(&slot).map(|ids| &ids.all).into_iter().flatten();
            let live = ids.filter(|id| !without.contains(id)).filter_map(|id| Some((id, self.waiting.get(id)?)));
            let mut fitting = 0;
            for (id, waiting) in live.take(SCANNED_MAX) {
                let (after, before) = effects.ran;
                if waiting.stamp.at > before || waiting.replied.is_some_and(|at| at < after) {
                    continue;
                }
                let mut words = 0;
                let fits = waiting.stamp.parts.iter().filter_map(|p| {
                    let declared =
                        p.keys.is_empty() || (p.db == effect.db && p.keys.iter().any(|k| effect.keys.contains(k)));
                    if !is_script(&p.name) {
                        return if declared { fit(p, effect, known(&p.name)) } else { None };
                    }
                    let group = (effects.words)();
                    words = p.values.iter().filter(|v| group.contains(v)).count();
                    if p.name == effect.name || declared {
                        return if words > 0 { Some(Fit::Value) } else { fit(p, effect, true) };
                    }
                    // A script that did not declare this key, but wrote what it was given.
                    (words > 0 || (p.values.is_empty() && !matches!(&*effect.name, b"del" | b"unlink")))
                        .then_some(Fit::Guess)
                });
                let Some(fit) = fits.max() else { continue };
                // Who can't be the cause (a crowd that is blocked on the key), or is gone, does not count.
                fitting += usize::from(!waiting.spent);
                if fitting > CANDIDATES_MAX {
                    break;
                }
                let weak = fit < Fit::Exact
                    && words == 0
                    && waiting.stamp.parts.iter().any(|p| is_script(&p.name) && !p.values.is_empty());
                let shape = waiting.stamp.transaction == effects.atomic;
                let candidate = Match {
                    id: *id,
                    fit,
                    shape,
                    words,
                    weak,
                    replied: waiting.replied.is_some(),
                    spent: waiting.spent,
                };
                if found.is_none_or(|f| candidate.beats(f, prefer_replied)) {
                    found = Some(candidate);
                }
                if fit == Fit::Exact && shape && !waiting.spent {
                    let order = replies_in_order(&waiting.stamp.parts[0]);
                    if order == 0 || waiting.stamp.transaction {
                        if candidate.replied || !prefer_replied {
                            // In the order of age: nothing behind can be better.
                            return Some(candidate);
                        }
                    } else {
                        twins.push((waiting.number.map(|n| n * order), candidate));
                    }
                }
            }
        }
        if twins.len() > 1 {
            let unclear = twins.iter().any(|(number, _)| number.is_none());
            let first = twins.iter().min_by_key(|(number, _)| number.unwrap_or(i64::MAX)).map(|(_, m)| *m);
            // Until all have their replies, the group waits.
            return first.map(|m| Match { replied: m.replied && !unclear, ..m });
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(id: u64, key: u64) -> Box<Stamp> {
        let part = Part {
            name: (*b"incr").into_iter().collect(),
            db: 0,
            keys: smallvec::smallvec![key],
            args_hash: 1,
            values: SmallVec::new(),
        };
        let who = Arc::new(Identity::default());
        Box::new(Stamp { id, at: Micros(id as i64), who, parts: smallvec::smallvec![part], transaction: false })
    }

    #[test]
    fn one_stamp_that_stays_does_not_keep_the_ids_of_the_others() {
        let mut stamps = Stamps::default();
        stamps.add(stamp(0, 7));
        for id in 1..50_000 {
            stamps.add(stamp(id, 7));
            stamps.reply(id, Micros(id as i64), Outcome::Ran);
        }
        stamps.forget_replied_before(Micros(i64::MAX));
        assert_eq!(stamps.len(), 1);
        let ids = &stamps.by_key[&(0, 7)];
        assert_eq!(ids.live, 1);
        assert!(ids.all.len() < 100, "{} ids for one stamp", ids.all.len());
        stamps.forget_unreplied_before(Micros(1));
        assert_eq!((stamps.len(), stamps.by_key.len()), (0, 0));
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let mut stamps = Stamps::default();
        for id in 0..STAMPS_MAX as u64 + 10 {
            stamps.add(stamp(id, id % 1000));
        }
        assert_eq!((stamps.len(), stamps.overflowed), (STAMPS_MAX, 10));
        assert!(stamps.get(9).is_none() && stamps.get(10).is_some());
    }
}
