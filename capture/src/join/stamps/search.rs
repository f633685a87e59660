//! Finds the waiting stamp that caused a group of effects.
//!
//! ```text
//! key queues of the group's keys ─► compare each stamp with the group ─► rank ─► leader, and equal candidates
//! ```
//! A rank says how well a request explains a group. Equal ranks are ordered by connection, reply numbers and reply
//! times. If two clients cannot be told apart, the result is a tie ([`Candidates::tie`]) and no client is named.

use std::collections::HashSet;
use std::sync::Arc;

use redtape_journal::Micros;
use redtape_wire::outcome::is_script;
use smallvec::SmallVec;

use super::key_queue::{CANDIDATES_MAX, KeyQueue, NEWER_MAX, Seen};
use super::known::{Known, Said};
use super::{NO_KEY, Place, SCRIPTS, Slot, Stamps, State, Waiting, fingerprint, part_slots, slot};
use crate::join::causes::{Fit, fit, fit_script, is_blocking, is_exact, is_removal, replies_in_order};
use crate::tee::{Part, Stamp, is_telling};

/// Stamps on one key that are compared without fitting.
pub(super) const UNFIT_MAX: usize = 1024;
/// Stamps on one key that are examined.
const SCANNED_MAX: usize = 4096;
/// Commands of a transaction that are compared.
const REQUEST_PARTS_MAX: usize = 64;
/// How far a reply may overtake its effect, in µs: the server writes both in one turn, but may be descheduled in
/// between. (62 ms were measured with six processes on two cores.)
const OVERTAKES: i64 = 200_000;

/// How long a group has waited for replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::join) enum Patience {
    /// Replies may still arrive.
    Fresh,
    /// A request without a reply has probably not run.
    Settled,
    /// No longer waits for replies.
    Late,
}

/// A group whose cause is searched.
pub(in crate::join) struct Wanted<'a> {
    /// Its effects.
    pub(in crate::join) parts: &'a [Part],
    /// Hashes of all its arguments; computed only if a script may be the cause.
    pub(in crate::join) words: &'a dyn Fn() -> &'a [u64],
    /// It stood between MULTI and EXEC.
    pub(in crate::join) atomic: bool,
    /// It ran between these times: a request forwarded later or answered earlier is not its cause.
    pub(in crate::join) ran: (Micros, Micros),
    /// Time at which the link was last found empty before the group arrived.
    pub(in crate::join) quiet: Micros,
    pub(in crate::join) patience: Patience,
}

/// How well a request explains a group; larger is better. Fields are compared in order.
#[allow(clippy::struct_excessive_bools)] // Independent criteria, compared in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Neither its effect nor that of a later request of its connection was seen.
    open: bool,
    /// Number of the group's effects that it may have caused.
    covered: usize,
    /// The fit, as far as it outweighs the order on its connection.
    evidence: Fit,
    /// No earlier effect must come on its connection.
    free: bool,
    fit: Fit,
    /// Not a script: a command has few possible effects, a script any.
    plain: bool,
    /// A transaction for an atomic group, a single command for another.
    shape: bool,
    /// Number of effects that equal its commands with arguments, and of effects on its declared keys.
    exact: usize,
    given: usize,
    /// Number of a script's arguments found in the group.
    words: usize,
}

/// One request that may have caused a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::join) struct Match {
    pub(in crate::join) place: Place,
    rank: Rank,
    /// A script with arguments, none of which is in the group.
    pub(in crate::join) weak: bool,
    /// It contains a script.
    pub(in crate::join) script: bool,
    pub(in crate::join) replied: bool,
}

impl Match {
    pub(in crate::join) fn fit(&self) -> Fit {
        self.rank.fit
    }

    /// True if the order on its connection does not rule it out.
    pub(in crate::join) fn is_free(&self) -> bool {
        self.rank.free
    }
}

/// The best explanation of a group, and the equally good ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::join) struct Candidates {
    pub(in crate::join) best: Match,
    /// Another client's request explains it equally well.
    pub(in crate::join) tie: bool,
    /// Another client's request explains it equally well and has no reply yet.
    pub(in crate::join) contested: bool,
    /// Forward times of the first and the last equally good request.
    pub(in crate::join) forwarded: (Micros, Micros),
    /// All equally good requests that were examined.
    pub(in crate::join) equals: SmallVec<[Place; 4]>,
    /// Reply time of the last of them; `None` = some have none.
    pub(in crate::join) replied: Option<Micros>,
}

impl Candidates {
    fn new(best: Match, waiting: &Waiting) -> Self {
        let at = waiting.stamp.at;
        let equals = smallvec::smallvec![best.place];
        Self { best, tie: false, contested: false, forwarded: (at, at), equals, replied: waiting.replied }
    }

    /// True if only a script without matching arguments was found.
    pub(super) fn is_a_scripts_guess(&self) -> bool {
        self.best.script && self.best.rank.fit < Fit::Value
    }

    /// Adds an equally good request.
    fn also(&mut self, place: Place, waiting: &Waiting) {
        let at = waiting.stamp.at;
        if !self.equals.contains(&place) && self.equals.len() < CANDIDATES_MAX {
            self.equals.push(place);
        }
        self.forwarded = (self.forwarded.0.min(at), self.forwarded.1.max(at));
        self.replied = self.replied.zip(waiting.replied).map(|(a, b)| a.max(b));
    }
}

/// Which of two equally good requests is the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Certain enough to name a client: the present leader (`Leader`) or the other request.
    Leader,
    Other,
    /// Both are of one client: the leader or the other, with the time uncertainty of both.
    SameClient {
        other_first: bool,
    },
    /// Decided as soon as both have replies.
    Open {
        other_first: bool,
    },
    /// The two clients cannot be told apart.
    Tie,
}

impl Stamps {
    /// The result of [`Self::best`] for the simple case: a request on the effect's only key is the same command with
    /// the same arguments, has its reply, and is the first of its duplicates. Nearly all effects are of this kind, so
    /// their requests are found without comparing others.
    #[inline]
    pub(in crate::join) fn certain(&self, effect: &Part, (after, before): (Micros, Micros)) -> Option<Candidates> {
        let [key] = effect.keys() else { return None };
        let (place, by_age) = match self.by_key.get(&slot(effect.db, *key))? {
            KeyQueue::One(place) => (*place, false),
            KeyQueue::Many(bucket) => bucket.first(fingerprint(effect)?, replies_in_order(effect) != 0, before)?,
        };
        let waiting = self.places.get(place)?;
        let [part] = &waiting.stamp.parts[..] else { return None };
        let in_time = waiting.stamp.at <= before && waiting.replied? >= after;
        let plain = !waiting.stamp.transaction && waiting.state == State::Open;
        let same = is_exact(part, effect) && part.db == effect.db && part.keys().contains(key);
        let told = (waiting.certain || !by_age) && !is_script(part.name.name());
        if !in_time || !plain || !same || !told || self.is_held_back(place, &waiting.stamp) {
            return None;
        }
        let rank = Rank {
            open: true,
            covered: 1,
            evidence: Fit::Value,
            free: true,
            fit: Fit::Exact,
            plain: true,
            shape: true,
            exact: 1,
            given: 1,
            words: 0,
        };
        Some(Candidates::new(Match { place, rank, weak: false, script: false, replied: true }, waiting))
    }

    /// The best explanation of a group. `without`: requests already ruled out; `known`: whether the server's command
    /// table has a command.
    pub(in crate::join) fn best(
        &self,
        wanted: &Wanted<'_>,
        without: &[Place],
        known: impl Fn(&[u8]) -> bool,
    ) -> Option<Candidates> {
        Search { stamps: self, wanted, without, known, hurry: true, compared: HashSet::new(), found: None }.run()
    }

    /// The same candidates, with the oldest as the cause.
    pub(in crate::join) fn oldest_of(&self, found: Candidates) -> Candidates {
        let oldest = found.equals.iter().min().copied();
        let Some((place, waiting)) = oldest.and_then(|place| Some((place, self.places.get(place)?))) else {
            return found;
        };
        let best = Match { place, replied: waiting.replied.is_some(), ..found.best };
        Candidates { contested: found.contested, ..Candidates::new(best, waiting) }
    }

    /// True if a script declared a key of the group and has another argument that appears in it.
    pub(in crate::join) fn explains_better(
        &self,
        place: Place,
        wanted: &Wanted<'_>,
        known: impl Fn(&[u8]) -> bool,
    ) -> bool {
        let compared = HashSet::new();
        let search = Search { stamps: self, wanted, without: &[], known, hurry: true, compared, found: None };
        let waiting = self.places.get(place).filter(|w| w.stamp.at <= wanted.ran.1);
        waiting.and_then(|w| search.compare(place, w)).is_some_and(|m| m.rank.fit >= Fit::Value)
    }
}

/// Facts about the stamps of a key queue that need no comparison.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attainable {
    /// Upper limit of the fit.
    fit: Fit,
    /// All are of one connection.
    one_connection: bool,
}

/// A search for the cause of one group.
pub(super) struct Search<'a, 'g, K> {
    pub(super) stamps: &'a Stamps,
    pub(super) wanted: &'a Wanted<'g>,
    pub(super) without: &'a [Place],
    /// Whether the server's command table has a command.
    pub(super) known: K,
    /// Candidates that cannot lead are not compared any further.
    pub(super) hurry: bool,
    /// For a group on several keys: stamps already compared on another key.
    pub(super) compared: HashSet<Place>,
    pub(super) found: Option<Candidates>,
}

impl<K: Fn(&[u8]) -> bool> Search<'_, '_, K> {
    fn run(mut self) -> Option<Candidates> {
        let stamps = self.stamps;
        let slots = wanted_slots(self.wanted);
        let of = |slot: &Slot| stamps.by_key.get(slot);
        let leads = |found: &Option<Candidates>, fit| {
            found.as_ref().is_some_and(|f| f.best.rank.open && f.best.rank.fit >= fit)
        };
        let attainable = self.attainable(&slots);
        for queue in slots.iter().filter_map(of) {
            if self.look_through(queue.live(), false, attainable) {
                return self.found;
            }
        }
        // Scripts may write keys that they did not declare.
        if !leads(&self.found, Fit::Value)
            && let Some(queue) = of(&NO_KEY).filter(|_| !slots.contains(&NO_KEY))
        {
            self.look_through(queue.live(), false, None);
        }
        if !leads(&self.found, Fit::Possible)
            && let Some(queue) = of(&SCRIPTS)
        {
            self.look_through(queue.live(), false, None);
        }
        if self.found.as_ref().is_none_or(Candidates::is_a_scripts_guess) {
            self.look_through_consumed(&slots);
        }
        self.found
    }

    /// Stamps that had an effect, or whose client is gone, are considered only if no other candidate, or only an
    /// uncertain script, was found.
    fn look_through_consumed(&mut self, slots: &[Slot]) {
        let live = self.found.take();
        let more: &[Slot] = if live.is_none() { &[NO_KEY, SCRIPTS] } else { &[] };
        for queue in slots.iter().chain(more).filter_map(|slot| self.stamps.by_key.get(slot)) {
            self.look_through(queue.consumed(), true, None);
        }
        if live.is_some() && self.found.as_ref().is_none_or(|found| found.best.rank.fit < Fit::Value) {
            self.found = live;
        }
    }

    /// The best possible fit for the stamps on the group's keys, if none is a script, a transaction, or a duplicate of
    /// the effect. `None` = each stamp must be compared.
    fn attainable(&self, slots: &[Slot]) -> Option<Attainable> {
        let [effect] = self.wanted.parts else { return None };
        let fit = if effect.values().is_empty() { Fit::Possible } else { Fit::Value };
        let wanted = fingerprint(effect);
        let mut connections = SmallVec::<[Option<u64>; 2]>::new();
        for slot in slots {
            match self.stamps.by_key.get(slot) {
                None => {}
                Some(KeyQueue::Many(bucket)) if *slot != NO_KEY && bucket.has_no_duplicate_of(wanted) => {
                    connections.push(bucket.connection());
                }
                Some(_) => return None,
            }
        }
        let one_connection = connections.first().is_some_and(|of| of.is_some() && connections.iter().all(|c| c == of));
        Some(Attainable { fit, one_connection })
    }

    /// Compares consumed stamps (or, with `consumed` false, the others) with the leader. `attainable`: upper limit of
    /// their fit. True = later stamps cannot change the leader or its certainty.
    pub(super) fn look_through(
        &mut self,
        stamps: impl Iterator<Item = Seen>,
        consumed: bool,
        attainable: Option<Attainable>,
    ) -> bool {
        let (after, before) = self.wanted.ran;
        let (mut compared, mut unfit, mut newer) = (0, 0, 0);
        let mut known = Known::default();
        let without = self.without;
        for seen in stamps.filter(|seen| !without.contains(&seen.place)).take(SCANNED_MAX) {
            #[cfg(test)]
            super::LOOKED_AT.set(super::LOOKED_AT.get() + 1);
            match known.of(seen) {
                Some(Said::Never) if self.hurry => continue,
                Some(said) if self.hurry || said == Said::Behind => {
                    compared += 1;
                    if compared > CANDIDATES_MAX {
                        break;
                    }
                    continue;
                }
                _ => {}
            }
            let Some(waiting) = self.stamps.places.get(seen.place) else { continue };
            if waiting.state.is_live() == consumed {
                continue;
            }
            #[cfg(test)]
            super::LOOKED_AT.set(super::LOOKED_AT.get() + super::COMPARED);
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
            if self.wanted.parts.len() > 1 && !self.compared.insert(seen.place) {
                // It waits on several of the group's keys.
                continue;
            }
            let candidate = self.compare(seen.place, waiting);
            known.note(seen, candidate.is_some(), waiting.certain);
            let Some(candidate) = candidate else {
                unfit += 1;
                if unfit > UNFIT_MAX {
                    break;
                }
                continue;
            };
            compared += 1;
            if compared > CANDIDATES_MAX {
                break;
            }
            self.weigh(candidate, waiting);
            if self.hurry && self.is_settled(candidate, waiting, attainable) {
                return true;
            }
        }
        false
    }

    /// True if the stamp just compared leads and no younger one can be better or equal.
    fn is_settled(&self, candidate: Match, waiting: &Waiting, attainable: Option<Attainable>) -> bool {
        let Some(found) = &self.found else { return false };
        let Rank { open, free, fit, shape, covered, .. } = found.best.rank;
        if !(open && free && shape && covered == 1 && self.wanted.parts.len() == 1) {
            return false;
        }
        let leads = found.best.place == candidate.place && waiting.certain && !waiting.stamp.transaction;
        if fit == Fit::Exact {
            return leads && waiting.number.is_none();
        }
        attainable.is_some_and(|most| fit >= most.fit && (found.tie || (leads && most.one_connection)))
    }

    /// Compares one candidate with the leader.
    fn weigh(&mut self, candidate: Match, waiting: &Waiting) {
        let Some(found) = &mut self.found else {
            self.found = Some(Candidates::new(candidate, waiting));
            return;
        };
        if candidate.place == found.best.place || candidate.rank < found.best.rank {
            return;
        }
        let Some(leader) = self.stamps.places.get(found.best.place).filter(|_| candidate.rank == found.best.rank)
        else {
            *found = Candidates::new(candidate, waiting);
            return;
        };
        let order = order((found.best.place, leader), (candidate.place, waiting), found.best, self.wanted);
        match order {
            Order::Leader => {}
            // Candidates equal to the previous leader are equal to the new one too.
            Order::Other => {
                let (tie, contested) = (found.tie, found.contested);
                *found = Candidates { tie, contested, ..Candidates::new(candidate, waiting) };
            }
            Order::SameClient { other_first } => {
                found.also(candidate.place, waiting);
                if other_first {
                    found.best = candidate;
                }
            }
            Order::Open { other_first } => {
                found.contested = true;
                found.also(candidate.place, waiting);
                if other_first {
                    found.best = candidate;
                }
            }
            Order::Tie => {
                found.tie = true;
                found.also(candidate.place, waiting);
            }
        }
    }

    /// How well a stamp explains the group; `None` = not at all.
    fn compare(&self, place: Place, waiting: &Waiting) -> Option<Match> {
        let stamp = &waiting.stamp;
        let (mut covered, mut exact, mut given, mut best) = (0, 0, 0, None);
        for (n, effect) in self.wanted.parts.iter().enumerate() {
            // Most transactions appear in the stream as they were sent.
            let as_sent = stamp.parts.get(n).filter(|p| is_exact(p, effect)).map(|_| Fit::Exact);
            let fits = || stamp.parts.iter().take(REQUEST_PARTS_MAX).filter_map(|p| self.fit(p, effect)).max();
            let Some(fit) = as_sent.or_else(fits) else {
                if is_anothers(stamp, effect) {
                    return None;
                }
                continue;
            };
            covered += 1;
            exact += usize::from(fit == Fit::Exact);
            given += usize::from(fit >= Fit::Possible);
            best = best.max(Some(fit));
        }
        let mut fit = best?;
        let scripts = || stamp.parts.iter().take(REQUEST_PARTS_MAX).filter(|p| is_script(p.name.name()));
        let script = scripts().next().is_some();
        let (mut words, mut weak) = (0, false);
        if script && fit < Fit::Exact {
            let group = (self.wanted.words)();
            // A short argument may match by chance, so it does not count unless the script declared the key.
            let tells = |v: &&u64| fit > Fit::Guess || is_telling(**v);
            words = scripts().flat_map(Part::values).filter(tells).filter(|v| group.binary_search(v).is_ok()).count();
            weak = words == 0 && scripts().any(|p| !p.values().is_empty());
            if words > 0 && fit == Fit::Possible {
                fit = Fit::Value;
            }
        }
        let rank = Rank {
            open: waiting.state.is_live(),
            covered,
            evidence: fit.min(Fit::Value),
            fit,
            free: !self.stamps.is_held_back(place, stamp),
            plain: !script,
            shape: stamp.transaction == self.wanted.atomic,
            exact,
            given,
            words,
        };
        Some(Match { place, rank, weak, script, replied: waiting.replied.is_some() })
    }

    fn fit(&self, request: &Part, effect: &Part) -> Option<Fit> {
        let (name, keys) = (request.name.name(), request.keys());
        if is_script(name) {
            return Some(fit_script(request, effect));
        }
        let given = keys.is_empty() || (request.db == effect.db && keys.iter().any(|k| effect.keys().contains(k)));
        if given { fit(request, effect, || (self.known)(name)) } else { None }
    }
}

/// True if `effect`, which no part of the request explains, shows that its group has another cause: no part has its
/// key, and it is no removal by expiry or eviction.
fn is_anothers(stamp: &Stamp, effect: &Part) -> bool {
    let all_compared = stamp.parts.len() <= REQUEST_PARTS_MAX;
    let given = |part: &Part| part.keys().iter().any(|key| effect.keys().contains(key));
    all_compared && !is_removal(effect) && !stamp.parts.iter().any(given)
}

/// Slots of the requests that have a key of the group.
fn wanted_slots(wanted: &Wanted<'_>) -> SmallVec<[Slot; 4]> {
    let mut slots = SmallVec::new();
    for part in wanted.parts {
        part_slots(part, &mut slots);
    }
    slots.retain(|slot| *slot != SCRIPTS);
    slots
}

/// Which of two equally good requests ran first, or ran at all.
fn order(leader: (Place, &Waiting), other: (Place, &Waiting), found: Match, wanted: &Wanted<'_>) -> Order {
    let patience = wanted.patience;
    let ((leader_at, leader), (other_at, other)) = (leader, other);
    let (a, b) = (&leader.stamp, &other.stamp);
    let other_is_older = other_at < leader_at;
    let older = if other_is_older { other } else { leader };
    if a.connection == b.connection && older.certain {
        return if other_is_older { Order::Other } else { Order::Leader };
    }
    let single = |w: &Waiting| w.stamp.parts.len() == 1 && !w.stamp.transaction;
    if found.rank.fit == Fit::Exact && single(leader) && single(other) && replies_in_order(&a.parts[0]) != 0 {
        return match (leader.number, other.number) {
            (Some(a), Some(b)) if b < a => Order::Other,
            (Some(_), Some(_)) => Order::Leader,
            (leads, _) => Order::Open { other_first: leads.is_none() && other_is_older },
        };
    }
    // A busy worker reads replies late, so weak evidence must wait longer.
    let needed = if found.rank.fit >= Fit::Value { Patience::Settled } else { Patience::Late };
    if Arc::ptr_eq(&a.who, &b.who) {
        return order_of_one_client(leader, other, other_is_older, (patience >= needed, wanted.quiet));
    }
    if found.rank.fit == Fit::Exact && older.certain {
        // It had this very effect. If the other one had the same effect, their order makes no difference.
        return if other_is_older { Order::Other } else { Order::Leader };
    }
    let has_not_run =
        |w: &Waiting| is_served_in_order(w) || (needed == Patience::Settled && patience >= Patience::Settled);
    match (leader.replied.is_some(), other.replied.is_some()) {
        (true, false) if has_not_run(other) => Order::Leader,
        (false, true) if has_not_run(leader) => Order::Other,
        (leads, replied) if patience < Patience::Late && !(leads && replied) => {
            Order::Open { other_first: replied || (!leads && other_is_older) }
        }
        _ => Order::Tie,
    }
}

/// The same for two requests of one client. The younger one has run only if the older one has. `waited`: a request that
/// has run also has its reply.
fn order_of_one_client(
    leader: &Waiting,
    other: &Waiting,
    other_is_older: bool,
    (waited, quiet): (bool, Micros),
) -> Order {
    let (older, younger) = if other_is_older { (other, leader) } else { (leader, other) };
    if younger.replied.is_some() && older.replied.is_some() {
        // A request answered long before the group came is hardly its cause. A script with a non-empty reply is more
        // likely to have had an effect.
        let recent = |w: &Waiting| w.replied.is_none_or(|at| at.0 >= quiet.0 - OVERTAKES);
        let likely = |w: &Waiting, is_older| (recent(w), w.state == State::Open, !w.empty, is_older);
        let other_first = likely(other, other_is_older) > likely(leader, !other_is_older);
        return Order::SameClient { other_first };
    }
    if older.replied.is_some() && !waited {
        return Order::Open { other_first: other_is_older };
    }
    if other_is_older { Order::Other } else { Order::Leader }
}

/// A blocked request, which is answered as soon as it has run.
fn is_served_in_order(waiting: &Waiting) -> bool {
    matches!(&waiting.stamp.parts[..], [part] if is_blocking(part.name.name()))
}
