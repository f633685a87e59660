//! The stamps that wait for their effect, indexed by database and key.
//!
//! ```text
//! by_id ──► place ◄── by_key, connections, replied
//!             │
//! places:  [staying, by number] | [recent: one after the other, in the order of arrival]
//! ```
//!
//! A stamp leaves when its effect came, when its reply shows that there is none, or when the stream has passed the
//! point by which it must have come (see [`Stamps::forget_replied_before`]). At most [`STAMPS_MAX`] wait; the oldest is
//! dropped first.
//!
//! Invariant: places are numbered in the order of arrival and never reused, so a reference to a departed stamp finds
//! nothing.

mod connections;
mod key_queue;
mod known;
mod places;
mod search;

use std::collections::{HashMap, VecDeque, hash_map};
use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::FixedState;
use redtape_journal::Micros;
use redtape_wire::outcome::is_script;
use smallvec::SmallVec;

use self::connections::Connections;
use self::key_queue::{Bucket, Entry, Fingerprint, KeyQueue};
use self::places::Places;
use self::search::UNFIT_MAX;
pub(super) use self::search::{Candidates, Patience, Wanted};
use super::causes::{many_groups, replies_in_order};
use crate::tee::{Identity, Outcome, Part, Stamp};

/// Waiting stamps. Enough for a first full sync of half a minute at 30,000 writes a second.
pub(super) const STAMPS_MAX: usize = 1 << 20;
/// Departed stamps that the reply order or a connection may hold, beside twice the waiting ones.
const LEFT_MAX: usize = 1024;
/// Replies that are examined to find one whose stamp still waits.
const REPLIES_MAX: usize = 64;
/// Requests on one key that are compared for equality.
const SAME_MAX: usize = 64;
/// Capacity below which memory is not released.
const ROOM_MIN: usize = 1 << 14;

type Map<K, V> = HashMap<K, V, FixedState>;
/// Database and key hash combined.
type Slot = u64;
/// Slot of commands and scripts without keys. Hashes of keys are odd.
const NO_KEY: Slot = 0;
/// Additional slot of scripts that declare keys, since they may write others.
const SCRIPTS: Slot = 2;
/// Number of a stamp, in the order of arrival.
pub(super) type Place = u64;

/// What is known of a stamp's effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// None was seen.
    Open,
    /// None is certainly its own: it is one of several that explain a group equally well.
    Doubted,
    /// It had an effect and may have more: other candidates are preferred.
    Consumed,
    /// Its reply will not be seen, so it may not have run: other candidates are preferred.
    Unseen,
    /// A later request of its connection had its effect, so its own effect has passed or never existed: other
    /// candidates are preferred, and it is no certain cause.
    Passed,
}

impl State {
    /// True if its first effect may still come.
    fn is_live(self) -> bool {
        matches!(self, Self::Open | Self::Doubted)
    }
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) stamp: Stamp,
    /// When its reply was seen.
    pub(super) replied: Option<Micros>,
    /// The numeric reply, if duplicates reply in execution order; normalised to grow.
    number: Option<i64>,
    /// The reply shows that it had an effect.
    pub(super) certain: bool,
    /// The reply is one that scripts without effects usually give.
    pub(super) empty: bool,
    pub(super) state: State,
}

#[derive(Debug, Default)]
pub(super) struct Stamps {
    places: Places,
    by_id: Map<u64, Place>,
    by_key: Map<Slot, KeyQueue>,
    connections: Connections,
    /// In reply order; may contain departed stamps.
    replied: VecDeque<(Micros, Place)>,
    /// Stamps whose replies will not be seen. Kept apart since they may wait longer.
    unseen: VecDeque<(Micros, Place)>,
    pub(super) overflowed: u64,
}

fn slot(db: u32, key: u64) -> Slot {
    // The factor is even: the slot of an odd key hash stays odd and never equals NO_KEY or SCRIPTS.
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
    let mut add = |slot| {
        if !slots.contains(&slot) {
            slots.push(slot);
        }
    };
    if keys.is_empty() {
        add(NO_KEY);
    } else if is_script(part.name.name()) {
        add(SCRIPTS);
    }
    for key in keys {
        add(slot(part.db, *key));
    }
}

/// The capacity to shrink to, if a collection has far more than it uses.
fn shrunk_room(capacity: usize, used: usize) -> Option<usize> {
    (capacity > ROOM_MIN && used < capacity / 16).then(|| ROOM_MIN.max(2 * used))
}

/// The fingerprint of a single command; `None` = some arguments are unknown.
#[inline]
fn fingerprint(part: &Part) -> Option<Fingerprint> {
    const STATE: FixedState = FixedState::with_seed(0x7265_6474_6170_6532);
    (part.args_hash != 0).then(|| Fingerprint(STATE.hash_one((part.name, part.args_hash))))
}

/// The facts about a stamp for its key queue.
fn entry(place: Place, waiting: &Waiting) -> Entry {
    let Waiting { stamp, number, state, .. } = waiting;
    let single = match &stamp.parts[..] {
        [part] if !stamp.transaction => Some(part),
        _ => None,
    };
    let fingerprint = single.and_then(fingerprint);
    let opaque = fingerprint.is_none() || single.is_some_and(|part| is_script(part.name.name()));
    let (at, connection, consumed) = (stamp.at, stamp.connection, !state.is_live());
    Entry { place, fingerprint, opaque, consumed, at, connection, number: *number }
}

/// The reply number of a command whose duplicates reply in execution order, normalised to grow.
fn in_order(part: &Part, number: i64) -> Option<i64> {
    let order = replies_in_order(part);
    (order != 0).then(|| number.wrapping_mul(order))
}

impl Stamps {
    pub(super) fn len(&self) -> usize {
        self.places.len
    }

    /// Reply time of the oldest waiting stamp that may have had no effect.
    pub(super) fn oldest_reply(&self) -> Option<Micros> {
        self.replied.iter().take(REPLIES_MAX).find(|(_, place)| self.places.get(*place).is_some()).map(|(at, _)| *at)
    }

    pub(super) fn get(&self, place: Place) -> Option<&Waiting> {
        self.places.get(place)
    }

    /// True if a stamp still waits for its first effect.
    fn is_open(&self, place: Place) -> bool {
        self.places.get(place).is_some_and(|w| w.state == State::Open)
    }

    /// True if its client sent a later request that may have run by `until`.
    pub(super) fn has_later_of_its_client(&self, place: Place, until: Micros) -> bool {
        let Some(Waiting { stamp, .. }) = self.places.get(place) else { return true };
        self.connections.any_behind(stamp.connection, place, |other| {
            self.places.get(other).is_some_and(|w| w.stamp.at <= until && w.stamp.who.addr == stamp.who.addr)
        })
    }

    /// True if an earlier effect must come first on its connection.
    fn is_held_back(&self, place: Place, stamp: &Stamp) -> bool {
        self.connections.holds_back(stamp.connection, place, |before| self.is_open(before))
    }

    pub(super) fn add(&mut self, stamp: Stamp) {
        while self.places.len >= STAMPS_MAX
            && let Some(oldest) = self.places.oldest()
        {
            self.overflowed += u64::from(self.remove(oldest).is_some());
        }
        let (id, connection, slots) = (stamp.id, stamp.connection, slots(&stamp));
        let waiting = Waiting { stamp, replied: None, number: None, certain: false, empty: false, state: State::Open };
        let place = self.places.add(waiting);
        self.by_id.insert(id, place);
        let (limit, places) = (2 * self.places.len + LEFT_MAX, &self.places);
        self.connections.add(connection, place, limit, |other| places.get(other).is_some());
        self.enter(place, &slots);
    }

    fn enter(&mut self, place: Place, slots: &[Slot]) {
        let places = &self.places;
        let entry = |place| places.get(place).map(|waiting| entry(place, waiting));
        for slot in slots {
            match self.by_key.entry(*slot) {
                hash_map::Entry::Vacant(slot) => {
                    slot.insert(KeyQueue::One(place));
                }
                hash_map::Entry::Occupied(mut queue) => queue.get_mut().add(place, entry),
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
            self.leave(*slot, place);
        }
        self.enter(place, &after);
    }

    pub(super) fn reply(&mut self, id: u64, at: Micros, outcome: Outcome) {
        let Some(place) = self.by_id.get(&id).copied() else { return };
        let Some(waiting) = self.places.get_mut(place) else { return };
        let part = waiting.stamp.parts.first().filter(|_| !waiting.stamp.transaction);
        let set = part.filter(|part| part.name.name() == b"set");
        // A SET with NX or XX whose condition was not met.
        let unmet = outcome == Outcome::Empty && set.is_some_and(|set| !set.gets());
        // Valkey omits a SET with a past expiry time from the stream if the key did not exist.
        let may_have_passed = set.is_some_and(Part::is_until);
        if outcome == Outcome::NoEffect || unmet {
            self.remove(place);
            return;
        }
        waiting.replied = Some(at);
        waiting.certain = matches!(outcome, Outcome::Wrote | Outcome::Number(_)) && !may_have_passed;
        waiting.empty = outcome == Outcome::Empty;
        if outcome == Outcome::Gone && waiting.state.is_live() {
            waiting.state = State::Unseen;
        }
        let part = waiting.stamp.parts.first();
        waiting.number = if let Outcome::Number(n) = outcome { part.and_then(|p| in_order(p, n)) } else { None };
        let told = waiting.number.zip(part.and_then(fingerprint));
        let (certain, connection) = (waiting.certain, waiting.stamp.connection);
        let replies = if outcome == Outcome::Gone { &mut self.unseen } else { &mut self.replied };
        // Departed entries are removed at least as fast as new ones are added.
        for _ in 0..2 {
            if replies.front().is_some_and(|(_, p)| self.places.get(*p).is_none()) {
                replies.pop_front();
            }
        }
        replies.push_back((at, place));
        if replies.len() > 2 * self.places.len + LEFT_MAX {
            let places = &self.places;
            replies.retain(|(_, place)| places.get(*place).is_some());
        }
        if certain {
            self.connections.set_certain(connection, place);
        }
        if let Some((number, fingerprint)) = told {
            self.in_buckets(place, |bucket| bucket.answered(fingerprint, place, number));
        } else if outcome == Outcome::Gone {
            self.in_buckets(place, |bucket| bucket.consume(place));
        }
    }

    /// Calls `act` for each bucket that holds it.
    fn in_buckets(&mut self, place: Place, mut act: impl FnMut(&mut Bucket)) {
        for slot in self.places.get(place).map(|w| slots(&w.stamp)).unwrap_or_default() {
            if let Some(KeyQueue::Many(bucket)) = self.by_key.get_mut(&slot) {
                act(bucket);
            }
        }
    }

    /// The stream holds everything that ran before `at`: stamps answered before then that still wait had no effect.
    pub(super) fn forget_replied_before(&mut self, at: Micros) {
        let old = |(replied, _): &mut (Micros, Place)| *replied < at;
        while let Some((_, place)) = self.replied.pop_front_if(old).or_else(|| self.unseen.pop_front_if(old)) {
            self.remove(place);
        }
        self.give_back_room();
    }

    /// Releases the memory that accumulated during a full sync.
    fn give_back_room(&mut self) {
        let Self { places: Places { recent, len, .. }, replied, unseen, by_id, by_key, connections, .. } = self;
        if let Some(room) = shrunk_room(recent.capacity(), recent.len()) {
            recent.shrink_to(room);
        }
        for replies in [replied, unseen] {
            if let Some(room) = shrunk_room(replies.capacity(), replies.len()) {
                replies.shrink_to(room);
            }
        }
        if let Some(room) = shrunk_room(by_id.capacity(), *len) {
            by_id.shrink_to(room);
        }
        if let Some(room) = shrunk_room(by_key.capacity(), by_key.len()) {
            by_key.shrink_to(room);
        }
        connections.give_back_room();
    }

    /// Its effect came. `certainly`: earlier requests of its connection have run.
    pub(super) fn explain(&mut self, place: Place, certainly: bool) {
        let Some(waiting) = self.places.get(place) else { return };
        let (connection, again) =
            (waiting.stamp.connection, waiting.stamp.parts.iter().any(|p| many_groups(p.name.name())));
        if certainly {
            let mut passed: SmallVec<[Place; 8]> = SmallVec::new();
            self.connections.ran(connection, place, |before| passed.push(before));
            for before in passed {
                if self.places.get(before).is_some_and(|w| w.state.is_live()) {
                    self.set_aside(before, State::Passed);
                }
            }
        }
        if again {
            self.set_aside(place, State::Consumed);
        } else {
            self.remove(place);
        }
    }

    /// One of these had an effect, and it is unknown which. After as many effects as requests, all had one.
    pub(super) fn doubt(&mut self, equals: &[Place]) {
        let first = equals.iter().copied().filter(|place| self.is_open(*place)).min();
        if let Some(waiting) = first.and_then(|place| self.places.get_mut(place)) {
            waiting.state = State::Doubted;
        }
        if !equals.iter().any(|place| self.is_open(*place)) {
            for place in equals {
                self.remove(*place);
            }
        }
    }

    /// True if more stamps wait on a key of the group than are compared: finding no cause then proves nothing.
    pub(super) fn has_many_on(&self, parts: &[Part]) -> bool {
        let many = |slot: &Slot| {
            self.by_key.get(slot).is_some_and(|queue| matches!(queue, KeyQueue::Many(b) if b.live() > UNFIT_MAX))
        };
        parts.iter().any(|part| part.keys().iter().any(|key| many(&slot(part.db, *key))))
    }

    /// Number of stamps on this key, if all are the same command of one connection, and the reply of the candidate
    /// shows an effect.
    pub(super) fn same_on(&self, db: u32, key: u64, found: &Candidates) -> Option<usize> {
        let KeyQueue::Many(bucket) = self.by_key.get(&slot(db, key))? else { return Some(1) };
        bucket.connection()?;
        let name = |w: &Waiting| w.stamp.parts.first().filter(|_| !w.stamp.transaction).map(|part| part.name);
        let command = self.get(found.best.place).and_then(name)?;
        let same = |w: &Waiting| name(w) == Some(command) && !w.empty;
        let all = || bucket.seen().map(|seen| self.get(seen.place).is_some_and(same));
        (bucket.live() <= SAME_MAX && all().all(|same| same)).then(|| bucket.live())
    }

    /// Of these requests of one client, `place` had its effect: the earlier ones have run, too.
    pub(super) fn pass_before(&mut self, place: Place, equals: &[Place]) {
        for before in equals.iter().copied().filter(|before| *before < place) {
            self.set_aside(before, State::Passed);
        }
    }

    /// Later searches try other candidates first.
    fn set_aside(&mut self, place: Place, state: State) {
        if let Some(waiting) = self.places.get_mut(place) {
            waiting.state = state;
            self.in_buckets(place, |bucket| bucket.consume(place));
        }
    }

    /// Stamps left without a reply before `at`: the reply may have been lost.
    pub(super) fn forget_unreplied_before(&mut self, at: Micros) {
        let lost = |w: &Waiting| w.replied.is_none() && w.stamp.at < at;
        let places: Vec<Place> = self.places.iter().filter(|(_, w)| lost(w)).map(|(place, _)| place).collect();
        for place in places {
            self.remove(place);
        }
    }

    /// Amortised constant time: a departed place stays in its queues until they are cleaned up.
    fn remove(&mut self, place: Place) -> Option<Waiting> {
        let waiting = self.places.remove(place)?;
        self.by_id.remove(&waiting.stamp.id);
        let places = &self.places;
        self.connections.left(waiting.stamp.connection, place, |other| places.get(other).is_some());
        for slot in slots(&waiting.stamp) {
            self.leave(slot, place);
        }
        Some(waiting)
    }

    /// Removes a departed stamp from this key queue.
    fn leave(&mut self, slot: Slot, place: Place) {
        if let hash_map::Entry::Occupied(mut queue) = self.by_key.entry(slot)
            && queue.get_mut().leave(place)
        {
            queue.remove();
        }
    }
}

#[cfg(test)]
thread_local! {
    /// Number of stamps examined.
    static LOOKED_AT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}
/// Cost of comparing a stamp, relative to passing its entry in a key queue.
#[cfg(test)]
const COMPARED: u64 = 16;

#[cfg(test)]
mod shortcut_tests;

#[cfg(test)]
mod tests {
    use redtape_wire::command::CommandTable;

    use super::places::EMPTY_MAX;
    use super::*;
    use crate::tee::{describe, hash_arg};

    fn stamp(id: u64, key: u64) -> Stamp {
        let part = describe(&CommandTable::from_text("incr 2 write 1 1 1"), &[b"INCR", &key.to_le_bytes()], 2, 0);
        let who = Arc::new(Identity::default());
        Stamp {
            id,
            at: Micros(id as i64),
            who,
            connection: id % 3,
            parts: smallvec::smallvec![part],
            transaction: false,
        }
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
        let Some(KeyQueue::Many(bucket)) = stamps.by_key.get(&slot(0, hash_arg(&7u64.to_le_bytes()))) else {
            panic!("no bucket")
        };
        assert!(bucket.room() < 100, "{} places for one stamp", bucket.room());
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
        // Their memory is released with them.
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
            stamps
                .by_key
                .get(&slot(db, key))
                .map(|queue| queue.live().map(|seen| seen.place).collect())
                .unwrap_or_default()
        };
        assert_eq!((places(&stamps, 0), places(&stamps, 4)), (vec![0, 2], vec![1]));
        stamps.correct(1, Arc::new(Identity::default()), 0);
        assert_eq!((places(&stamps, 0), places(&stamps, 4)), (vec![0, 1, 2], vec![]));
        (0..3).for_each(|id| stamps.reply(id, Micros(1), Outcome::NoEffect));
        assert_eq!((stamps.len(), stamps.by_key.len()), (0, 0));
    }
}
