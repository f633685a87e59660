//! Who caused an effect: the one of those who wait who explains it best.

use redtape_journal::Micros;
use smallvec::SmallVec;

use super::lines::{Line, Looks};
use super::{NO_KEY, Place, Slot, Stamps, Waiting, looks, part_slots, slot};
use crate::join::causes::{Fit, fit, is_exact, is_script, replies_in_order};
use crate::tee::Part;

/// Stamps on one key that may have caused an effect and are compared.
pub(super) const CANDIDATES_MAX: usize = 256;
/// Stamps on one key that are looked at.
const SCANNED_MAX: usize = 4096;
/// Stamps one behind the other that came after the effect: those behind them did so too. They stand in
/// the order of arrival from several workers, which is nearly that of their times.
pub(super) const NEWER_MAX: usize = 64;
/// Kinds of stamps on one key that are remembered while its line is looked through.
const LOOKS_MAX: usize = 8;

/// The best explanation of a group.
#[allow(clippy::struct_excessive_bools)] // Independent marks, compared one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::join) struct Match {
    pub(in crate::join) place: Place,
    pub(super) fit: Fit,
    /// A transaction for an atomic group, a single command for another.
    shape: bool,
    /// Arguments of a script that are found in the group.
    words: usize,
    /// A script that was given arguments, none of which is in the group.
    pub(in crate::join) weak: bool,
    pub(in crate::join) replied: bool,
    spent: bool,
}

impl Match {
    /// Fresh before spent, then the better fit, then (if asked for) who has its reply; the first
    /// of equals, which is the oldest, stands.
    pub(in crate::join) fn beats(self, other: Self, prefer_replied: bool) -> bool {
        let rank = |m: Self| (!m.spent, m.fit, m.shape, m.words, prefer_replied && m.replied);
        rank(self) > rank(other)
    }

    /// Nothing younger can beat it.
    pub(in crate::join) fn is_certain(self) -> bool {
        !self.spent && self.fit == Fit::Exact && self.shape && self.replied
    }

    /// Who fits no better and is younger can't beat it, nor a script that did not declare the key.
    fn stands(self, prefer_replied: bool) -> bool {
        !self.spent && self.fit > Fit::Guess && self.has_equals_beaten(prefer_replied)
    }

    /// Who looks the same and is younger can't beat it, if both are spent, or neither.
    fn has_equals_beaten(self, prefer_replied: bool) -> bool {
        self.replied || !prefer_replied
    }
}

/// One effect of a group, and (asked for only where a script may be the cause) the group's words.
pub(in crate::join) struct Effects<'a> {
    pub(in crate::join) part: &'a Part,
    pub(in crate::join) words: &'a dyn Fn() -> &'a [u64],
    /// The group stood between MULTI and EXEC.
    pub(in crate::join) atomic: bool,
    /// It ran between these: a request that was forwarded later or answered earlier is not its cause.
    pub(in crate::join) ran: (Micros, Micros),
}

impl Stamps {
    /// What [`Self::best`] would find where there is nothing to weigh: a request on the effect's only key is the same
    /// command with the same arguments, it has its reply, and among its equals it came first. Nearly all effects are of
    /// this kind, so their requests are found without looking at others.
    #[inline]
    pub(in crate::join) fn certain(&self, effect: &Part, (after, before): (Micros, Micros)) -> Option<Match> {
        let [key] = effect.keys() else { return None };
        let line = self.by_key.get(&slot(effect.db, *key))?;
        let place = match line {
            Line::One(place) => *place,
            Line::Many(crowd) => crowd.first(looks(effect)?, replies_in_order(effect) != 0, before)?,
        };
        let waiting = self.places.get(place)?;
        let [part] = &waiting.stamp.parts[..] else { return None };
        let in_time = waiting.stamp.at <= before && waiting.replied? >= after;
        let plain = !waiting.stamp.transaction && !waiting.spent;
        let same = is_exact(part, effect) && part.db == effect.db && part.keys().contains(key);
        (in_time && plain && same && !is_script(part.name.name())).then_some(Match {
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
    pub(in crate::join) fn best(
        &self,
        effects: &Effects<'_>,
        prefer_replied: bool,
        without: &[Place],
        known: impl Fn(&[u8]) -> bool,
    ) -> Option<Match> {
        Search::new(self, effects, prefer_replied, without, known).run()
    }
}

/// A search for the cause of one effect.
pub(super) struct Search<'a, 'g, K> {
    stamps: &'a Stamps,
    effects: &'a Effects<'g>,
    prefer_replied: bool,
    without: &'a [Place],
    /// Whether the server's table has a command.
    known: K,
    /// Who can't be beaten is not compared with the rest.
    pub(super) hurry: bool,
    pub(super) found: Option<Match>,
    /// The same command with the same arguments, where the numbers in their replies tell who ran first.
    twins: SmallVec<[(Option<i64>, Match); 4]>,
}

impl<'a, 'g, K: Fn(&[u8]) -> bool> Search<'a, 'g, K> {
    pub(super) fn new(
        stamps: &'a Stamps,
        effects: &'a Effects<'g>,
        prefer_replied: bool,
        without: &'a [Place],
        known: K,
    ) -> Self {
        Self { stamps, effects, prefer_replied, without, known, hurry: true, found: None, twins: SmallVec::new() }
    }

    pub(super) fn run(mut self) -> Option<Match> {
        let mut slots = SmallVec::new();
        part_slots(self.effects.part, &mut slots);
        // Scripts may touch keys that they did not declare: they also wait in the slot without key.
        if slots.first() != Some(&NO_KEY) {
            slots.push(NO_KEY);
        }
        let stamps = self.stamps;
        // Nothing waits that may concern any key, but scripts that declared theirs.
        let declared = self.hurry && stamps.keyless == 0 && slots.first() != Some(&NO_KEY);
        let enough = if declared { self.enough(&slots) } else { None };
        for slot in &slots {
            if declared && *slot == NO_KEY && self.found.is_some_and(|m| m.stands(self.prefer_replied)) {
                // There are only scripts that declared other keys, or were looked at already.
                break;
            }
            let Some(line) = stamps.by_key.get(slot) else { continue };
            if let Some(first) = self.look_through(line.places(), false, enough) {
                return Some(first);
            }
        }
        if let Some(first) = self.first_twin() {
            return Some(first);
        }
        if self.hurry && self.found.is_some_and(|m| !m.spent) {
            return self.found;
        }
        for line in slots.iter().filter_map(|slot| stamps.by_key.get(slot)) {
            self.look_through(line.spent(), true, None);
        }
        self.found
    }

    pub(super) fn first_twin(&self) -> Option<Match> {
        let unclear = self.twins.iter().any(|(number, _)| number.is_none());
        let first = self.twins.iter().min_by_key(|(number, _)| number.unwrap_or(i64::MAX)).map(|(_, m)| *m);
        // Until all have their replies, the group waits.
        first.filter(|_| self.twins.len() > 1).map(|m| Match { replied: m.replied && !unclear, ..m })
    }

    /// A fit that is not beaten by who comes behind: the best there can be where nothing waits on the effect's keys that has to
    /// be looked at, nor the same command with the same arguments.
    fn enough(&self, slots: &[Slot]) -> Option<Fit> {
        let looks = looks(self.effects.part);
        let none_like = |line: &Line| matches!(line, Line::Many(crowd) if crowd.has_none_like(looks));
        let mut lines = slots.iter().filter(|s| **s != NO_KEY).filter_map(|s| self.stamps.by_key.get(s));
        let best = if self.effects.part.values().is_empty() { Fit::Possible } else { Fit::Value };
        lines.all(none_like).then_some(best)
    }

    /// Compares those with what was found, if they are `spent`, or are not; gives one if nobody can be better.
    pub(super) fn look_through(
        &mut self,
        places: impl Iterator<Item = (Place, Option<Looks>)>,
        spent: bool,
        enough: Option<Fit>,
    ) -> Option<Match> {
        let (after, before) = self.effects.ran;
        let (mut fitting, mut newer) = (0, 0);
        let mut looked_at: SmallVec<[(Looks, bool); LOOKS_MAX]> = SmallVec::new();
        let without = self.without;
        for (place, looks) in places.filter(|(place, _)| !without.contains(place)).take(SCANNED_MAX) {
            #[cfg(test)]
            super::LOOKED_AT.set(super::LOOKED_AT.get() + 1);
            let like_it = |(known, _): &&(Looks, bool)| looks == Some(*known);
            if let Some((_, fits)) = looked_at.iter().find(like_it).filter(|_| self.hurry) {
                // One that is older fits as well, or as little.
                fitting += usize::from(*fits);
                if fitting > CANDIDATES_MAX {
                    break;
                }
                continue;
            }
            let Some(waiting) = self.stamps.places.get(place).filter(|w| w.spent == spent) else { continue };
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
            let candidate = self.compare(place, waiting);
            if let Some(looks) = looks.filter(|_| looked_at.len() < LOOKS_MAX)
                && candidate.is_none_or(|c| c.fit < Fit::Exact && c.has_equals_beaten(self.prefer_replied))
            {
                looked_at.push((looks, candidate.is_some()));
            }
            let Some(candidate) = candidate else { continue };
            // Who can't be the cause (a crowd that is blocked on the key), or is gone, does not count.
            fitting += usize::from(!waiting.spent);
            if fitting > CANDIDATES_MAX {
                break;
            }
            if self.found.is_none_or(|f| candidate.beats(f, self.prefer_replied)) {
                self.found = Some(candidate);
            }
            if enough.is_some_and(|enough| candidate.fit >= enough) && candidate.stands(self.prefer_replied) {
                return Some(candidate);
            }
            if candidate.fit == Fit::Exact && candidate.shape && !waiting.spent {
                if replies_in_order(&waiting.stamp.parts[0]) != 0 && !waiting.stamp.transaction {
                    self.twins.push((waiting.number, candidate));
                } else if candidate.has_equals_beaten(self.prefer_replied) {
                    // In the order of age: nothing behind can be better.
                    return Some(candidate);
                }
            }
        }
        None
    }

    /// How well one explains the effect; `None` = not at all.
    fn compare(&self, place: Place, waiting: &Waiting) -> Option<Match> {
        let effect = self.effects.part;
        let mut words = 0;
        let fits = waiting.stamp.parts.iter().filter_map(|p| {
            let (name, keys) = (p.name.name(), p.keys());
            let declared = keys.is_empty() || (p.db == effect.db && keys.iter().any(|k| effect.keys().contains(k)));
            if !is_script(name) {
                return if declared { fit(p, effect, || (self.known)(name)) } else { None };
            }
            let group = (self.effects.words)();
            words = p.values().iter().filter(|v| group.contains(v)).count();
            if p.name == effect.name || declared {
                return if words > 0 { Some(Fit::Value) } else { fit(p, effect, || true) };
            }
            // A script that did not declare this key, but wrote what it was given.
            (words > 0 || (p.values().is_empty() && !matches!(effect.name.name(), b"del" | b"unlink")))
                .then_some(Fit::Guess)
        });
        let fit = fits.max()?;
        let weak = fit < Fit::Exact
            && words == 0
            && waiting.stamp.parts.iter().any(|p| is_script(p.name.name()) && !p.values().is_empty());
        let shape = waiting.stamp.transaction == self.effects.atomic;
        Some(Match { place, fit, shape, words, weak, replied: waiting.replied.is_some(), spent: waiting.spent })
    }
}
