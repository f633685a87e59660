//! Key queue: the stamps on one key, in the order of arrival. Pure.
//!
//! A key may be hot: thousands of requests wait on one counter or list, and each effect needs its cause among them.
//! Duplicates (the same command with the same arguments) are therefore found by hash, without scanning the others.
//!
//! ```text
//! all:        [ INCR n, EXPIRE n 60, a transaction, INCR n, … ]               by place
//! duplicates: INCR n ─► [first, fourth, …]   EXPIRE n 60 ─► second            by place, each
//! consumed:   had an effect already, or are unlikely to have one              by place
//! ```
//!
//! Invariants of a bucket: `all` and each list of duplicates are ordered by place. A stamp that has left or is consumed
//! stays in `all` until many have; `live` and `opaque` do not count it.

use std::collections::{BTreeMap, HashMap, VecDeque, hash_map};

use redtape_journal::Micros;

use super::{Place, shrunk_room};

/// Stamps on one key that may have caused an effect and are compared.
pub(super) const CANDIDATES_MAX: usize = 256;
/// After this many consecutive stamps forwarded later than the effect, the rest are assumed to be later too. Stamps of
/// several workers arrive nearly, not exactly, in time order.
pub(super) const NEWER_MAX: usize = 64;
/// Departed stamps that a bucket may hold, beside a sixteenth of the others.
const LEFT_MAX: usize = 64;

/// Hash of the command and its arguments: duplicates have equal fingerprints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint(pub(super) u64);

/// The facts about a stamp that its key queue stores.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) place: Place,
    /// `None` = unique: several commands, or one with unknown arguments.
    pub(super) fingerprint: Option<Fingerprint>,
    /// The fingerprint does not determine its effects: a transaction or a script.
    pub(super) opaque: bool,
    pub(super) consumed: bool,
    /// When and on which connection it was forwarded.
    pub(super) at: Micros,
    pub(super) connection: u64,
    /// Its numeric reply, if duplicates reply in execution order; normalised to grow.
    pub(super) number: Option<i64>,
}

/// What a search reads of a stamp before it reads the stamp itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) place: Place,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) connection: u64,
}

/// The stamps on one key, oldest first. Most keys have one.
#[derive(Debug)]
pub(super) enum KeyQueue {
    One(Place),
    Many(Box<Bucket>),
}

impl KeyQueue {
    /// Adds a stamp; `entry` returns the facts about one by its place.
    pub(super) fn add(&mut self, place: Place, entry: impl Fn(Place) -> Option<Entry>) {
        if let Self::One(first) = *self {
            let mut bucket = Bucket::default();
            if let Some(entry) = entry(first) {
                bucket.add(entry);
            }
            *self = Self::Many(Box::new(bucket));
        }
        if let Self::Many(bucket) = self
            && let Some(entry) = entry(place)
        {
            bucket.add(entry);
        }
    }

    /// Removes a stamp that has left. True = the queue is empty.
    pub(super) fn leave(&mut self, place: Place) -> bool {
        match self {
            Self::One(_) => true,
            Self::Many(bucket) => {
                bucket.leave(place);
                bucket.live == 0 && bucket.consumed.is_empty()
            }
        }
    }

    /// The stamps, oldest first; if there are several, without the consumed ones.
    pub(super) fn live(&self) -> impl Iterator<Item = Seen> {
        let (one, bucket) = self.one_or_many();
        one.into_iter().chain(bucket.into_iter().flat_map(Bucket::seen))
    }

    /// The consumed stamps, oldest first. A single stamp is always returned.
    pub(super) fn consumed(&self) -> impl Iterator<Item = Seen> {
        let (one, bucket) = self.one_or_many();
        one.into_iter().chain(bucket.into_iter().flat_map(|b| b.consumed.values().copied()))
    }

    fn one_or_many(&self) -> (Option<Seen>, Option<&Bucket>) {
        match self {
            Self::One(place) => (Some(Seen { place: *place, fingerprint: None, connection: 0 }), None),
            Self::Many(bucket) => (None, Some(bucket)),
        }
    }
}

/// A stamp in a bucket, and its lookup key.
#[derive(Debug)]
struct Member {
    seen: Seen,
    opaque: bool,
    has_left: bool,
}

impl Member {
    /// Its key among the duplicates.
    fn plain(&self) -> Option<Fingerprint> {
        self.seen.fingerprint.filter(|_| !self.opaque)
    }
}

/// Stamps with one fingerprint. Most have a fingerprint of their own.
#[derive(Debug)]
enum Same {
    One(Entry),
    Many(Duplicates),
}

impl Same {
    fn add(&mut self, entry: Entry) {
        if let Self::One(first) = *self {
            *self = Self::Many(Duplicates::new(first));
        }
        if let Self::Many(duplicates) = self {
            duplicates.add(entry);
        }
    }

    /// True = none is left.
    fn leave(&mut self, place: Place) -> bool {
        let Self::Many(duplicates) = self else { return true };
        duplicates.leave(place);
        duplicates.all.is_empty()
    }

    fn answered(&mut self, place: Place, number: i64) {
        match self {
            Self::One(entry) if entry.place == place => entry.number = Some(number),
            Self::One(_) => {}
            Self::Many(duplicates) => duplicates.answered(place, number),
        }
    }
}

/// Stamps with one fingerprint, oldest first.
#[derive(Debug)]
struct Duplicates {
    all: VecDeque<Entry>,
    /// This many of the oldest have ascending reply numbers: they ran in the order of arrival, as on one connection.
    in_order: usize,
}

impl Duplicates {
    fn new(first: Entry) -> Self {
        let mut duplicates = Self { all: VecDeque::from([first]), in_order: 0 };
        duplicates.put_in_order();
        duplicates
    }

    fn add(&mut self, entry: Entry) {
        let at = insert(&mut self.all, entry, |e| e.place);
        self.in_order = self.in_order.min(at);
        self.put_in_order();
    }

    fn leave(&mut self, place: Place) {
        if let Some(at) = self.find(place) {
            self.all.remove(at);
            self.in_order -= usize::from(at < self.in_order);
            self.put_in_order();
            if let Some(room) = shrunk_room(self.all.capacity(), self.all.len()) {
                self.all.shrink_to(room);
            }
        }
    }

    fn answered(&mut self, place: Place, number: i64) {
        if let Some(at) = self.find(place) {
            self.all[at].number = Some(number);
            self.in_order = self.in_order.min(at);
            self.put_in_order();
        }
    }

    fn find(&self, place: Place) -> Option<usize> {
        self.all.binary_search_by_key(&place, |e| e.place).ok()
    }

    fn put_in_order(&mut self) {
        while let Some(next) = self.all.get(self.in_order).and_then(|e| e.number)
            && self.in_order.checked_sub(1).is_none_or(|last| self.all[last].number <= Some(next))
        {
            self.in_order += 1;
        }
    }

    /// The oldest stamp forwarded at or before `before`, and whether there are others.
    fn oldest(&self, before: Micros) -> Option<(Place, bool)> {
        let mut old = self.all.iter().take(NEWER_MAX).filter(|e| e.at <= before);
        Some((old.next()?.place, old.next().is_some()))
    }

    /// The first that ran, by reply number; `None` = not all have one.
    fn smallest(&self, before: Micros) -> Option<Place> {
        let mut first = self.all.front().filter(|e| self.in_order > 0 && e.at <= before);
        let mut seen = if first.is_some() { self.in_order } else { 0 };
        let mut newer = 0;
        for entry in self.all.iter().skip(seen) {
            #[cfg(test)]
            super::LOOKED_AT.set(super::LOOKED_AT.get() + 1);
            if seen >= CANDIDATES_MAX || newer > NEWER_MAX {
                break;
            }
            if entry.at > before {
                newer += 1;
                continue;
            }
            newer = 0;
            seen += 1;
            if first.is_none_or(|least| entry.number < least.number) {
                first = Some(entry);
            }
            entry.number?;
        }
        first.map(|e| e.place)
    }
}

/// Inserts by place: nearly always at the end, but a corrected stamp may be older than others.
fn insert<T>(all: &mut VecDeque<T>, new: T, place: impl Fn(&T) -> Place) -> usize {
    if all.back().is_none_or(|last| place(last) < place(&new)) {
        all.push_back(new);
        return all.len() - 1;
    }
    let at = all.partition_point(|e| place(e) < place(&new));
    match all.get_mut(at) {
        // It was here before.
        Some(same) if place(same) == place(&new) => *same = new,
        _ => all.insert(at, new),
    }
    at
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    all: VecDeque<Member>,
    live: usize,
    same: HashMap<Fingerprint, Same, foldhash::fast::FixedState>,
    opaque: usize,
    consumed: BTreeMap<Place, Seen>,
    /// Connection of all waiting stamps; `None` = several connections, or none.
    connection: Option<u64>,
}

impl Bucket {
    fn add(&mut self, entry: Entry) {
        let seen = Seen { place: entry.place, fingerprint: entry.fingerprint, connection: entry.connection };
        if entry.consumed {
            self.consumed.insert(entry.place, seen);
            return;
        }
        let member = Member { seen, opaque: entry.opaque, has_left: false };
        let plain = member.plain();
        self.connection = Some(entry.connection).filter(|of| self.live == 0 || self.connection == Some(*of));
        self.live += 1;
        insert(&mut self.all, member, |m| m.seen.place);
        match plain.map(|fingerprint| self.same.entry(fingerprint)) {
            None => self.opaque += 1,
            Some(hash_map::Entry::Vacant(same)) => drop(same.insert(Same::One(entry))),
            Some(hash_map::Entry::Occupied(mut same)) => same.get_mut().add(entry),
        }
    }

    fn find(&mut self, place: Place) -> Option<&mut Member> {
        let at = self.all.binary_search_by_key(&place, |m| m.seen.place).ok()?;
        self.all.get_mut(at).filter(|m| !m.has_left)
    }

    fn leave(&mut self, place: Place) {
        let Some(member) = self.find(place) else {
            self.consumed.remove(&place);
            return;
        };
        member.has_left = true;
        match member.plain() {
            Some(fingerprint) => self.remove_same(fingerprint, place),
            None => self.opaque -= 1,
        }
        self.live -= 1;
        while self.all.front().is_some_and(|m| m.has_left) {
            self.all.pop_front();
        }
        // A search skips departed stamps.
        if self.all.len() > self.live + self.live / 16 + LEFT_MAX {
            self.all.retain(|m| !m.has_left);
        }
        if let Some(room) = shrunk_room(self.all.capacity(), self.live) {
            self.all.shrink_to(room);
        }
        if let Some(room) = shrunk_room(self.same.capacity(), self.same.len()) {
            self.same.shrink_to(room);
        }
    }

    fn remove_same(&mut self, fingerprint: Fingerprint, place: Place) {
        if let hash_map::Entry::Occupied(mut same) = self.same.entry(fingerprint)
            && same.get_mut().leave(place)
        {
            same.remove();
        }
    }

    /// Its reply was this number.
    pub(super) fn answered(&mut self, fingerprint: Fingerprint, place: Place, number: i64) {
        if let Some(same) = self.same.get_mut(&fingerprint) {
            same.answered(place, number);
        }
    }

    /// Later searches try the others first.
    pub(super) fn consume(&mut self, place: Place) {
        if let Some(seen) = self.find(place).map(|m| m.seen) {
            self.leave(place);
            self.consumed.insert(place, seen);
        }
    }

    /// The first that ran of the stamps with this fingerprint, forwarded at or before `before`: the oldest, or
    /// (`numbered`) the one with the smallest reply number. The flag says that only its age distinguishes it from
    /// others. `None` = the fingerprint does not decide.
    pub(super) fn first(&self, fingerprint: Fingerprint, numbered: bool, before: Micros) -> Option<(Place, bool)> {
        match self.same.get(&fingerprint)? {
            Same::One(entry) => (entry.at <= before).then_some((entry.place, false)),
            Same::Many(duplicates) if numbered => duplicates.smallest(before).map(|place| (place, false)),
            Same::Many(duplicates) => duplicates.oldest(before),
        }
    }

    /// True if no stamp has this fingerprint, and none is opaque.
    pub(super) fn has_no_duplicate_of(&self, fingerprint: Option<Fingerprint>) -> bool {
        self.opaque == 0 && fingerprint.is_some_and(|fingerprint| !self.same.contains_key(&fingerprint))
    }

    /// The waiting stamps, oldest first.
    pub(super) fn seen(&self) -> impl Iterator<Item = Seen> {
        self.all.iter().filter(|m| !m.has_left).map(|m| m.seen)
    }

    /// Number of waiting stamps.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Connection of all waiting stamps; `None` = several connections.
    pub(super) fn connection(&self) -> Option<u64> {
        self.connection
    }

    /// Allocated entries, including departed ones.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.all.len() + self.consumed.len()
    }
}
