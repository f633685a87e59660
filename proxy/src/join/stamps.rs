//! The stamps that wait for their effect, findable by database and key.
//!
//! ```text
//! by_id ──► place ◄── by_key, replied
//!             │
//! places:  [staying, by number] | [recent: one after the other, in the order of arrival]
//! ```
//!
//! A stamp leaves when its effect came, when its reply said that there is none, or when the stream
//! has passed the point up to which it must have come (see [`Stamps::forget_replied_before`]).
//! At most [`STAMPS_MAX`] wait; the oldest goes first.
//!
//! Invariant: places are numbered in the order of arrival and never given twice, so that what still
//! names the place of a stamp that has left finds nothing there.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use redtape_journal::Micros;
use smallvec::SmallVec;

use super::causes::{Fit, fit, is_exact, is_script, many_groups, replies_in_order};
use crate::tee::{Identity, Outcome, Part, Stamp};

/// Stamps that may wait. A first full sync of half a minute at 30,000 writes a second fits.
pub(super) const STAMPS_MAX: usize = 1 << 20;
/// Stamps on one key that may have caused an effect and are compared.
const CANDIDATES_MAX: usize = 256;
/// Stamps on one key that are looked at.
const SCANNED_MAX: usize = 4096;
/// Stamps one behind the other that came after the effect: those behind them did so too. They stand in
/// the order of arrival from several workers, which is nearly that of their times.
const NEWER_MAX: usize = 64;
/// Empty places that may stand beside twice the number of stamps.
const EMPTY_MAX: usize = 1024;
/// Room for so many is never given back.
const ROOM_MIN: usize = 1 << 14;

type Map<K, V> = HashMap<K, V, foldhash::fast::FixedState>;
/// Database and key hash in one.
type Slot = u64;
/// Where commands without keys wait, and scripts. Hashes of keys are odd.
const NO_KEY: Slot = 0;
/// Number of a stamp, in the order of arrival.
pub(super) type Place = u64;

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) stamp: Stamp,
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
    pub(super) place: Place,
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
    pub(super) words: &'a dyn Fn() -> &'a [u64],
    /// The group stood between MULTI and EXEC.
    pub(super) atomic: bool,
    /// It ran between these: a request that was forwarded later or answered earlier is not its cause.
    pub(super) ran: (Micros, Micros),
}

/// The stamps on one key, oldest first.
#[derive(Debug)]
enum Line {
    /// It waits.
    One(Place),
    Many(Box<Crowd>),
}

/// `all` may hold stamps that have left, `live` counts the others.
#[derive(Debug)]
struct Crowd {
    all: VecDeque<Place>,
    live: usize,
}

impl Line {
    fn add(&mut self, place: Place) {
        match self {
            Self::One(first) => *self = Self::Many(Box::new(Crowd { all: VecDeque::from([*first, place]), live: 2 })),
            Self::Many(crowd) => {
                crowd.all.push_back(place);
                crowd.live += 1;
            }
        }
    }

    fn places(&self) -> impl Iterator<Item = Place> {
        let (one, many) = match self {
            Self::One(place) => (Some(*place), None),
            Self::Many(crowd) => (None, Some(crowd.all.iter().copied())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

#[derive(Debug, Default)]
struct Places {
    /// The number of the first of `recent`.
    first: Place,
    recent: VecDeque<Option<Waiting>>,
    /// Stamps that stayed while nearly all round them left, so that they keep no room for those.
    staying: BTreeMap<Place, Waiting>,
    len: usize,
}

impl Places {
    fn add(&mut self, waiting: Waiting) -> Place {
        while let Some(front) = self.recent.front()
            && (front.is_none() || self.recent.len() > 2 * self.len + EMPTY_MAX)
        {
            if let Some(Some(stays)) = self.recent.pop_front() {
                self.staying.insert(self.first, stays);
            }
            self.first += 1;
        }
        self.recent.push_back(Some(waiting));
        self.len += 1;
        self.first + self.recent.len() as u64 - 1
    }

    #[inline]
    fn get(&self, place: Place) -> Option<&Waiting> {
        match place.checked_sub(self.first) {
            Some(at) => self.recent.get(at as usize)?.as_ref(),
            None => self.staying.get(&place),
        }
    }

    #[inline]
    fn get_mut(&mut self, place: Place) -> Option<&mut Waiting> {
        match place.checked_sub(self.first) {
            Some(at) => self.recent.get_mut(at as usize)?.as_mut(),
            None => self.staying.get_mut(&place),
        }
    }

    #[inline]
    fn remove(&mut self, place: Place) -> Option<Waiting> {
        let waiting = match place.checked_sub(self.first) {
            Some(at) => self.recent.get_mut(at as usize)?.take(),
            None => self.staying.remove(&place),
        };
        self.len -= usize::from(waiting.is_some());
        waiting
    }

    fn oldest(&self) -> Option<Place> {
        let staying = self.staying.first_key_value().map(|(place, _)| *place);
        staying.or_else(|| self.recent.iter().position(Option::is_some).map(|at| self.first + at as u64))
    }

    fn iter(&self) -> impl Iterator<Item = (Place, &Waiting)> {
        let recent = (self.first..).zip(&self.recent).filter_map(|(place, w)| Some((place, w.as_ref()?)));
        self.staying.iter().map(|(place, w)| (*place, w)).chain(recent)
    }
}

#[derive(Debug, Default)]
pub(super) struct Stamps {
    places: Places,
    by_id: Map<u64, Place>,
    by_key: Map<Slot, Line>,
    /// In the order of replies; stamps among them may have left.
    replied: VecDeque<(Micros, Place)>,
    pub(super) overflowed: u64,
}

fn slot(db: u32, key: u64) -> Slot {
    // An even number: where it is another database, another slot, and none is NO_KEY.
    key ^ u64::from(db).wrapping_mul(0x9e37_79b9_7f4a_7c16)
}

fn slots(stamp: &Stamp) -> SmallVec<[Slot; 4]> {
    let mut slots = SmallVec::new();
    for part in &stamp.parts {
        part_slots(part, &mut slots);
    }
    slots
}

#[inline]
fn part_slots(part: &Part, slots: &mut SmallVec<[Slot; 4]>) {
    let keys = part.keys();
    if (keys.is_empty() || is_script(part.name.name())) && !slots.contains(&NO_KEY) {
        slots.push(NO_KEY);
    }
    for key in keys {
        let slot = slot(part.db, *key);
        if !slots.contains(&slot) {
            slots.push(slot);
        }
    }
}

impl Stamps {
    pub(super) fn len(&self) -> usize {
        self.places.len
    }

    pub(super) fn get(&self, place: Place) -> Option<&Waiting> {
        self.places.get(place)
    }

    pub(super) fn add(&mut self, stamp: Stamp) {
        while self.places.len >= STAMPS_MAX
            && let Some(oldest) = self.places.oldest()
        {
            self.overflowed += u64::from(self.remove(oldest).is_some());
        }
        let (id, slots) = (stamp.id, slots(&stamp));
        let place = self.places.add(Waiting { stamp, replied: None, number: None, spent: false });
        self.by_id.insert(id, place);
        self.enter(place, &slots);
    }

    fn enter(&mut self, place: Place, slots: &[Slot]) {
        for slot in slots {
            match self.by_key.entry(*slot) {
                Entry::Vacant(slot) => {
                    slot.insert(Line::One(place));
                }
                Entry::Occupied(mut line) => line.get_mut().add(place),
            }
        }
    }

    pub(super) fn correct(&mut self, id: u64, who: Arc<Identity>, db: u32) {
        let Some(place) = self.by_id.get(&id).copied() else { return };
        let Some(waiting) = self.places.get_mut(place) else { return };
        waiting.stamp.who = who;
        if waiting.stamp.transaction {
            return;
        }
        let before = slots(&waiting.stamp);
        waiting.stamp.parts.iter_mut().for_each(|p| p.db = db);
        let after = slots(&waiting.stamp);
        for slot in &before {
            if let Some(Line::Many(crowd)) = self.by_key.get_mut(slot) {
                // It waits on, so that it would not be taken for one that has left.
                crowd.all.retain(|p| *p != place);
            }
            self.leave(*slot);
        }
        self.enter(place, &after);
    }

    pub(super) fn reply(&mut self, id: u64, at: Micros, outcome: Outcome) {
        let Some(place) = self.by_id.get(&id).copied() else { return };
        if outcome == Outcome::NoEffect {
            self.remove(place);
        } else if let Some(waiting) = self.places.get_mut(place) {
            waiting.replied = Some(at);
            waiting.spent |= outcome == Outcome::Gone;
            waiting.number = if let Outcome::Number(n) = outcome { Some(n) } else { None };
            // Those who have left go from the front as fast as others come.
            for _ in 0..2 {
                if self.replied.front().is_some_and(|(_, p)| self.places.get(*p).is_none()) {
                    self.replied.pop_front();
                }
            }
            self.replied.push_back((at, place));
        }
    }

    /// The stream holds everything that ran before `at`: whoever was replied to before that and is
    /// still here had no effect.
    pub(super) fn forget_replied_before(&mut self, at: Micros) {
        while let Some((replied, place)) = self.replied.front().copied()
            && replied < at
        {
            self.replied.pop_front();
            self.remove(place);
        }
        self.give_back_room();
    }

    /// What a full copy made pile up must not make everything slow afterwards.
    fn give_back_room(&mut self) {
        let len = self.places.len;
        let vast = |capacity: usize, used: usize| capacity > ROOM_MIN && used < capacity / 16;
        if vast(self.places.recent.capacity(), self.places.recent.len()) {
            self.places.recent.shrink_to(ROOM_MIN.max(2 * self.places.recent.len()));
        }
        if vast(self.replied.capacity(), self.replied.len()) {
            self.replied.shrink_to(ROOM_MIN.max(2 * self.replied.len()));
        }
        if vast(self.by_id.capacity(), len) {
            self.by_id.shrink_to(ROOM_MIN.max(2 * len));
        }
        if vast(self.by_key.capacity(), self.by_key.len()) {
            self.by_key.shrink_to(ROOM_MIN.max(2 * self.by_key.len()));
        }
    }

    /// Its effect came.
    pub(super) fn explain(&mut self, place: Place) {
        if let Some(waiting) = self.places.get_mut(place) {
            if waiting.stamp.parts.iter().any(|p| many_groups(p.name.name())) {
                waiting.spent = true;
            } else {
                self.remove(place);
            }
        }
    }

    /// Stamps without a reply that were left before `at`: theirs may have been lost.
    pub(super) fn forget_unreplied_before(&mut self, at: Micros) {
        let lost = |w: &Waiting| w.replied.is_none() && w.stamp.at < at;
        let places: Vec<Place> = self.places.iter().filter(|(_, w)| lost(w)).map(|(place, _)| place).collect();
        for place in places {
            self.remove(place);
        }
    }

    /// In amortised constant time: a place that was left stays in its lines until they are cleaned up.
    fn remove(&mut self, place: Place) -> Option<Waiting> {
        let waiting = self.places.remove(place)?;
        self.by_id.remove(&waiting.stamp.id);
        for slot in slots(&waiting.stamp) {
            self.leave(slot);
        }
        Some(waiting)
    }

    /// One who stood in this line has left.
    fn leave(&mut self, slot: Slot) {
        let Entry::Occupied(mut line) = self.by_key.entry(slot) else { return };
        let Line::Many(crowd) = line.get_mut() else {
            line.remove();
            return;
        };
        crowd.live = crowd.live.saturating_sub(1);
        if crowd.live == 0 {
            line.remove();
            return;
        }
        while crowd.all.front().is_some_and(|p| self.places.get(*p).is_none()) {
            crowd.all.pop_front();
        }
        if crowd.all.len() > 2 * crowd.live + 32 {
            crowd.all.retain(|p| self.places.get(*p).is_some());
        }
    }

    /// What [`Self::best`] would find where there is nothing to weigh: the oldest request on the
    /// effect's only key is the same command with the same arguments, it has its reply, and equal ones
    /// behind it can't have come first. Nearly all effects are of this kind.
    #[inline]
    pub(super) fn certain(&self, effect: &Part, (after, before): (Micros, Micros)) -> Option<Match> {
        let [key] = effect.keys() else { return None };
        let line = self.by_key.get(&slot(effect.db, *key))?;
        let place = line.places().find(|p| self.places.get(*p).is_some())?;
        let waiting = self.places.get(place)?;
        let [part] = &waiting.stamp.parts[..] else { return None };
        let in_time = waiting.stamp.at <= before && waiting.replied? >= after;
        let plain = !waiting.stamp.transaction && !waiting.spent;
        let same = is_exact(part, effect) && part.db == effect.db && part.keys().contains(key);
        let first = matches!(line, Line::One(_)) || replies_in_order(part) == 0;
        (in_time && plain && same && first && !is_script(part.name.name())).then_some(Match {
            place,
            fit: Fit::Exact,
            shape: true,
            words: 0,
            weak: false,
            replied: true,
            spent: false,
        })
    }

    /// The best explanation of an effect; see [`Match::beats`].
    pub(super) fn best(
        &self,
        effects: &Effects<'_>,
        prefer_replied: bool,
        without: &[Place],
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
            let places = self.by_key.get(&slot).map(Line::places).into_iter().flatten();
            let live = places.filter(|p| !without.contains(p)).filter_map(|p| Some((p, self.places.get(p)?)));
            let (mut fitting, mut newer) = (0, 0);
            for (place, waiting) in live.take(SCANNED_MAX) {
                let (after, before) = effects.ran;
                if waiting.stamp.at > before {
                    newer += 1;
                    if newer > NEWER_MAX {
                        break;
                    }
                    continue;
                }
                newer = 0;
                if waiting.replied.is_some_and(|at| at < after) {
                    continue;
                }
                let mut words = 0;
                let fits = waiting.stamp.parts.iter().filter_map(|p| {
                    let (name, keys) = (p.name.name(), p.keys());
                    let declared =
                        keys.is_empty() || (p.db == effect.db && keys.iter().any(|k| effect.keys().contains(k)));
                    if !is_script(name) {
                        return if declared { fit(p, effect, || known(name)) } else { None };
                    }
                    let group = (effects.words)();
                    words = p.values().iter().filter(|v| group.contains(v)).count();
                    if p.name == effect.name || declared {
                        return if words > 0 { Some(Fit::Value) } else { fit(p, effect, || true) };
                    }
                    // A script that did not declare this key, but wrote what it was given.
                    (words > 0 || (p.values().is_empty() && !matches!(effect.name.name(), b"del" | b"unlink")))
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
                    && waiting.stamp.parts.iter().any(|p| is_script(p.name.name()) && !p.values().is_empty());
                let shape = waiting.stamp.transaction == effects.atomic;
                let candidate =
                    Match { place, fit, shape, words, weak, replied: waiting.replied.is_some(), spent: waiting.spent };
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
    use redtape_wire::command::CommandTable;

    use super::*;
    use crate::tee::{describe, hash_arg};

    fn stamp(id: u64, key: u64) -> Stamp {
        let part = describe(&CommandTable::from_text("incr 2 write 1 1 1"), &[b"INCR", &key.to_le_bytes()], 2, 0);
        let who = Arc::new(Identity::default());
        Stamp { id, at: Micros(id as i64), who, parts: smallvec::smallvec![part], transaction: false }
    }

    #[test]
    fn one_stamp_that_stays_does_not_keep_the_places_of_the_others() {
        let mut stamps = Stamps::default();
        stamps.add(stamp(0, 7));
        for id in 1..50_000 {
            stamps.add(stamp(id, 7));
            stamps.reply(id, Micros(id as i64), Outcome::Ran);
        }
        stamps.forget_replied_before(Micros(i64::MAX));
        assert_eq!(stamps.len(), 1);
        let Some(Line::Many(crowd)) = stamps.by_key.get(&slot(0, hash_arg(&7u64.to_le_bytes()))) else {
            panic!("no line")
        };
        assert_eq!(crowd.live, 1);
        assert!(crowd.all.len() < 100, "{} places for one stamp", crowd.all.len());
        for id in 50_000..100_000 {
            stamps.add(stamp(id, id));
            stamps.reply(id, Micros(1), Outcome::NoEffect);
        }
        assert!(stamps.places.recent.len() <= EMPTY_MAX + 4, "{} places for one stamp", stamps.places.recent.len());
        assert_eq!(stamps.get(0).map(|w| w.stamp.id), Some(0));
        stamps.reply(0, Micros(5), Outcome::Number(3));
        assert_eq!(stamps.get(0).and_then(|w| w.replied), Some(Micros(5)));
        stamps.add(stamp(100_000, 8));
        stamps.forget_unreplied_before(Micros(100_001));
        assert_eq!((stamps.len(), stamps.by_key.len(), stamps.by_id.len()), (1, 1, 1));
        stamps.forget_replied_before(Micros(6));
        assert_eq!((stamps.len(), stamps.by_key.len(), stamps.by_id.len()), (0, 0, 0));
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let mut stamps = Stamps::default();
        for id in 0..STAMPS_MAX as u64 + 10 {
            stamps.add(stamp(id, id % 1000));
        }
        assert_eq!((stamps.len(), stamps.overflowed), (STAMPS_MAX, 10));
        assert!(stamps.get(9).is_none() && stamps.get(10).is_some());
        stamps.forget_unreplied_before(Micros(i64::MAX));
        assert_eq!((stamps.len(), stamps.by_key.len()), (0, 0));
        // The room goes with them.
        stamps.add(stamp(1, 1));
        stamps.forget_replied_before(Micros(1));
        assert!(stamps.places.recent.capacity() < 4 * ROOM_MIN && stamps.by_id.capacity() < 4 * ROOM_MIN);
    }

    #[test]
    fn a_corrected_stamp_waits_in_the_other_database_only() {
        let mut stamps = Stamps::default();
        (0..3).for_each(|id| stamps.add(stamp(id, 7)));
        stamps.correct(1, Arc::new(Identity::default()), 4);
        let key = hash_arg(&7u64.to_le_bytes());
        let places = |stamps: &Stamps, db| -> Vec<Place> {
            stamps.by_key.get(&slot(db, key)).map(|l| l.places().collect()).unwrap_or_default()
        };
        assert_eq!((places(&stamps, 0), places(&stamps, 4)), (vec![0, 2], vec![1]));
        stamps.correct(1, Arc::new(Identity::default()), 0);
        assert_eq!((places(&stamps, 0), places(&stamps, 4)), (vec![0, 2, 1], vec![]));
        (0..3).for_each(|id| stamps.reply(id, Micros(1), Outcome::NoEffect));
        assert_eq!((stamps.len(), stamps.by_key.len()), (0, 0));
    }
}
