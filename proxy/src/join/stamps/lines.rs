//! The stamps on one key, in the order in which they came: a *line*. Pure.
//!
//! A key may be hot: thousands of requests wait on one counter or queue, and each effect on it asks who of them was the
//! cause. So those that look alike are found together, without passing the others.
//!
//! ```text
//! all:    [ INCR n, EXPIRE n 60, a transaction, INCR n, … ]        by place
//! alike:  INCR n ─► [first, fourth, …]   EXPIRE n 60 ─► second     by place, each
//! ```
//!
//! Those who are *spent* (they had an effect already and may have more, or their client is gone) stand apart: the others come
//! first, and of them there may be many more.
//!
//! Invariants of a crowd: `all` and each list in `alike` are ordered by place. Who has left or is spent stays in `all` until
//! many have; `live` and `opaque` don't count him.

use std::collections::{BTreeMap, HashMap, VecDeque, hash_map};

use redtape_journal::Micros;

use super::search::{CANDIDATES_MAX, NEWER_MAX};
use super::{Place, less_room};

/// Those who have left that may stand in a line, beside a sixteenth of the others.
const LEFT_MAX: usize = 64;

/// The command and its arguments in one number: equal ones have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Looks(pub(super) u64);

/// A stamp, as far as its line knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) place: Place,
    /// `None` = like nobody else: several commands, or one of which not all is known.
    pub(super) looks: Option<Looks>,
    /// What it may cause is not told by its looks: a transaction, a script.
    pub(super) opaque: bool,
    pub(super) spent: bool,
    /// When it was forwarded.
    pub(super) at: Micros,
    /// Its reply, where equal ones answer in the order in which they ran: made so that it always grows.
    pub(super) number: Option<i64>,
}

/// The stamps on one key, oldest first. Most keys have one.
#[derive(Debug)]
pub(super) enum Line {
    One(Place),
    Many(Box<Crowd>),
}

impl Line {
    /// Another one comes; `entry` tells of one by its place.
    pub(super) fn add(&mut self, place: Place, entry: impl Fn(Place) -> Option<Entry>) {
        if let Self::One(first) = *self {
            let mut crowd = Crowd::default();
            if let Some(entry) = entry(first) {
                crowd.add(entry);
            }
            *self = Self::Many(Box::new(crowd));
        }
        if let Self::Many(crowd) = self
            && let Some(entry) = entry(place)
        {
            crowd.add(entry);
        }
    }

    /// One has left. True = nobody is there any more.
    pub(super) fn leave(&mut self, place: Place) -> bool {
        match self {
            Self::One(_) => true,
            Self::Many(crowd) => {
                crowd.leave(place);
                crowd.live == 0 && crowd.spent.is_empty()
            }
        }
    }

    /// Who stands here, oldest first, and how they look, where several do: of several, without those who are spent.
    pub(super) fn places(&self) -> impl Iterator<Item = (Place, Option<Looks>)> {
        let (one, crowd) = self.one_or_many();
        let there = crowd.into_iter().flat_map(|c| c.all.iter().filter(|s| !s.has_left));
        one.into_iter().chain(there.map(|s| (s.place, s.looks)))
    }

    /// Those who are spent, oldest first, or who may be, where one stands alone.
    pub(super) fn spent(&self) -> impl Iterator<Item = (Place, Option<Looks>)> {
        let (one, crowd) = self.one_or_many();
        one.into_iter().chain(crowd.into_iter().flat_map(|c| c.spent.iter().map(|(place, looks)| (*place, *looks))))
    }

    fn one_or_many(&self) -> (Option<(Place, Option<Looks>)>, Option<&Crowd>) {
        match self {
            Self::One(place) => (Some((*place, None)), None),
            Self::Many(crowd) => (None, Some(crowd)),
        }
    }
}

/// Who stands in a line, and by what he is found again.
#[derive(Debug)]
struct Standing {
    place: Place,
    looks: Option<Looks>,
    opaque: bool,
    has_left: bool,
}

impl Standing {
    /// Under which it is found in `alike`.
    fn plain(&self) -> Option<Looks> {
        self.looks.filter(|_| !self.opaque)
    }
}

/// Those that look alike. Most look like nobody else.
#[derive(Debug)]
enum Alike {
    One(Entry),
    Many(Twins),
}

impl Alike {
    fn add(&mut self, entry: Entry) {
        if let Self::One(first) = *self {
            *self = Self::Many(Twins::new(first));
        }
        if let Self::Many(twins) = self {
            twins.add(entry);
        }
    }

    /// True = nobody is left.
    fn leave(&mut self, place: Place) -> bool {
        let Self::Many(twins) = self else { return true };
        twins.leave(place);
        twins.all.is_empty()
    }

    fn answered(&mut self, place: Place, number: i64) {
        match self {
            Self::One(entry) if entry.place == place => entry.number = Some(number),
            Self::One(_) => {}
            Self::Many(twins) => twins.answered(place, number),
        }
    }
}

/// Those that look alike, oldest first.
#[derive(Debug)]
struct Twins {
    all: VecDeque<Entry>,
    /// So many of the oldest have their numbers, each not smaller than the one before: they ran in the order in which they came,
    /// as by one connection.
    in_order: usize,
}

impl Twins {
    fn new(first: Entry) -> Self {
        let mut twins = Self { all: VecDeque::from([first]), in_order: 0 };
        twins.put_in_order();
        twins
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
            if let Some(room) = less_room(self.all.capacity(), self.all.len()) {
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

    /// Who came first of those that were forwarded not after `before`.
    fn oldest(&self, before: Micros) -> Option<Place> {
        let old = |e: &&Entry| e.at <= before;
        self.all.iter().take(NEWER_MAX).find(old).map(|e| e.place)
    }

    /// Who ran first of those, by the numbers; `None` = not all have theirs.
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

/// Keeps the order of places: nearly all come last, but a stamp that was corrected is older than those before it.
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
pub(super) struct Crowd {
    all: VecDeque<Standing>,
    live: usize,
    alike: HashMap<Looks, Alike, foldhash::fast::FixedState>,
    opaque: usize,
    spent: BTreeMap<Place, Option<Looks>>,
}

impl Crowd {
    fn add(&mut self, entry: Entry) {
        if entry.spent {
            self.spent.insert(entry.place, entry.looks);
            return;
        }
        let standing = Standing { place: entry.place, looks: entry.looks, opaque: entry.opaque, has_left: false };
        let plain = standing.plain();
        self.live += 1;
        insert(&mut self.all, standing, |s| s.place);
        match plain.map(|looks| self.alike.entry(looks)) {
            None => self.opaque += 1,
            Some(hash_map::Entry::Vacant(alike)) => drop(alike.insert(Alike::One(entry))),
            Some(hash_map::Entry::Occupied(mut alike)) => alike.get_mut().add(entry),
        }
    }

    fn find(&mut self, place: Place) -> Option<&mut Standing> {
        let at = self.all.binary_search_by_key(&place, |s| s.place).ok()?;
        self.all.get_mut(at).filter(|s| !s.has_left)
    }

    fn leave(&mut self, place: Place) {
        let Some(standing) = self.find(place) else {
            self.spent.remove(&place);
            return;
        };
        standing.has_left = true;
        match standing.plain() {
            Some(looks) => self.no_more_alike(looks, place),
            None => self.opaque -= 1,
        }
        self.live -= 1;
        while self.all.front().is_some_and(|s| s.has_left) {
            self.all.pop_front();
        }
        // Whoever looks through the line passes those who have left.
        if self.all.len() > self.live + self.live / 16 + LEFT_MAX {
            self.all.retain(|s| !s.has_left);
        }
        if let Some(room) = less_room(self.all.capacity(), self.live) {
            self.all.shrink_to(room);
        }
        if let Some(room) = less_room(self.alike.capacity(), self.alike.len()) {
            self.alike.shrink_to(room);
        }
    }

    fn no_more_alike(&mut self, looks: Looks, place: Place) {
        if let hash_map::Entry::Occupied(mut alike) = self.alike.entry(looks)
            && alike.get_mut().leave(place)
        {
            alike.remove();
        }
    }

    /// Its reply was this number.
    pub(super) fn answered(&mut self, looks: Looks, place: Place, number: i64) {
        if let Some(alike) = self.alike.get_mut(&looks) {
            alike.answered(place, number);
        }
    }

    /// The others come first from now on.
    pub(super) fn spend(&mut self, place: Place) {
        if let Some(looks) = self.find(place).map(|s| s.looks) {
            self.leave(place);
            self.spent.insert(place, looks);
        }
    }

    /// Nobody here looks like this, or has to be looked at.
    pub(super) fn has_none_like(&self, looks: Option<Looks>) -> bool {
        self.opaque == 0 && looks.is_some_and(|looks| !self.alike.contains_key(&looks))
    }

    /// Who of those that look like this ran first, forwarded not after `before`: the oldest, or (`numbered`) the one
    /// with the smallest number. `None` = not told so easily.
    pub(super) fn first(&self, looks: Looks, numbered: bool, before: Micros) -> Option<Place> {
        match self.alike.get(&looks)? {
            Alike::One(entry) => (entry.at <= before).then_some(entry.place),
            Alike::Many(twins) if numbered => twins.smallest(before),
            Alike::Many(twins) => twins.oldest(before),
        }
    }

    /// Room that is taken, also by those who have left.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.all.len() + self.spent.len()
    }
}
