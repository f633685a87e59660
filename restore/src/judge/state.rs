//! State of one question during the backward pass: what was seen so far, and when it is answered.
//!
//! ```text
//! Looking ─► the last write is found ─► Selected, Other
//!    │
//!    ├─► Pending: a selected write that may have changed nothing (`DEL a b` where `a` was gone). The write before it tells.
//!    └─► Expired: the server removed the key because its time had come. The write that set that time tells.
//! ```
//!
//! Invariant: [`Verdict::Selected`] is given only if every write that can be the last one is selected, and the last one
//! has changed something. A write outside the selection ends the search: its result would also be there without the
//! selected ones.

use std::sync::Arc;

use redtape_journal::query::Match;
use redtape_wire::effect::{After, Write};

use super::expiry::{Cause, EndOfLife, Expired};
use super::seen::{Seen, by, uncertain};
use super::{Verdict, Why};

/// What a write leaves, as a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Absent,
    Present,
    /// A value, by its hash.
    Is([u8; 16]),
    /// The bits of a score.
    Score(u64),
    Until(i64),
    Changed,
    ChangedOrAbsent,
    /// Unknown.
    Any,
}

/// True if the earlier write left the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Same {
    No,
    Perhaps,
    Yes,
}

impl Outcome {
    pub(super) fn of(after: After<'_>) -> Self {
        match after {
            After::Absent => Self::Absent,
            After::Present => Self::Present,
            After::Is(value) => {
                let mut short = [0; 16];
                short.copy_from_slice(&blake3::hash(value).as_bytes()[..16]);
                Self::Is(short)
            }
            // Zero has two forms.
            After::Score(score) => Self::Score((score + 0.0).to_bits()),
            After::Until(ms) => Self::Until(ms),
            After::Changed => Self::Changed,
            After::ChangedOrAbsent => Self::ChangedOrAbsent,
            After::Any => Self::Any,
        }
    }

    /// True if an older write's result equals this one's.
    fn same_as(self, older: Self) -> Same {
        match (self, older) {
            (_, Self::Any) | (Self::Absent, Self::ChangedOrAbsent) => Same::Perhaps,
            (Self::Changed | Self::ChangedOrAbsent | Self::Any, _) => Same::No,
            (mine, older) if mine == older => Same::Yes,
            _ => Same::No,
        }
    }
}

/// A write and its effect on the part.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) seen: Seen,
    pub(super) outcome: Outcome,
    /// It certainly changed it.
    pub(super) certain: bool,
    /// It may have left it unchanged.
    pub(super) perhaps: bool,
}

impl Step {
    pub(super) fn new(seen: Seen, write: &Write<'_>) -> Self {
        Self { seen, outcome: Outcome::of(write.after), certain: write.certain, perhaps: write.is_perhaps() }
    }

    /// It removed it, if it existed.
    pub(super) fn gone(seen: Seen) -> Self {
        Self { seen, outcome: Outcome::Absent, certain: false, perhaps: false }
    }

    /// It replaced it with unknown content.
    pub(super) fn replaced(seen: Seen) -> Self {
        Self { seen, outcome: Outcome::Any, certain: true, perhaps: false }
    }
}

/// Writes that may be the last; the newest of each kind.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    selected: Option<(Seen, Why)>,
    other: Option<(Seen, Why)>,
    unsure: Option<(Seen, Why)>,
    /// There are several.
    several: bool,
}

impl Notes {
    pub(super) fn add(&mut self, seen: &Seen, why: Why) {
        self.several |= self.newest().is_some_and(|(noted, _)| noted.lsn != seen.lsn);
        let place = match seen.is {
            Match::Yes => &mut self.selected,
            Match::No => &mut self.other,
            Match::Perhaps => &mut self.unsure,
        };
        place.get_or_insert_with(|| (seen.clone(), why));
    }

    /// True if nothing can become certain any more.
    pub(super) fn is_undecided(&self) -> bool {
        self.unsure.is_some() || self.selected.is_some() && self.other.is_some()
    }

    /// The latest one.
    fn newest(&self) -> Option<&(Seen, Why)> {
        [&self.selected, &self.other, &self.unsure].into_iter().flatten().max_by_key(|(seen, _)| seen.lsn)
    }

    /// Objection to an answer for the selection.
    fn against_selected(&self, wanted: bool) -> Option<&(Seen, Why)> {
        let selected = self.selected.as_ref().filter(|_| !wanted);
        self.unsure.as_ref().or(self.other.as_ref()).or(selected)
    }

    /// Objection to an answer for others.
    fn against_other(&self, wanted: bool) -> Option<&(Seen, Why)> {
        if wanted { self.unsure.as_ref().or(self.selected.as_ref()) } else { None }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) enum Stage {
    #[default]
    Looking,
    /// A selected write that may have changed nothing, and its result.
    Pending(Seen, Outcome),
    Expired(Box<Expired>),
}

/// State of a question.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// Writes to this key can be selected.
    pub(super) wanted: bool,
    /// The question is which of all writes was the last.
    pub(super) any_writer: bool,
    pub(super) stage: Stage,
    pub(super) notes: Notes,
}

/// An answer, as far as certain writes are concerned.
pub(super) type Found = Option<Verdict>;

impl State {
    /// Applies an earlier write.
    pub(super) fn pass(&mut self, step: &Step) -> Found {
        match &self.stage {
            Stage::Looking => self.last(step),
            Stage::Pending(pending, outcome) => before(step, pending, *outcome),
            Stage::Expired(expired) if expired.proven => None,
            Stage::Expired(_) => self.before_expiry(step),
        }
    }

    /// The key was deleted, perhaps by the server: searches for the write that set its expiry time, unless a later
    /// selected write left something.
    pub(super) fn pass_removal(&mut self, expired: Expired) -> Found {
        match &self.stage {
            Stage::Pending(pending, outcome) if outcome.same_as(Outcome::Absent) == Same::No => {
                return Some(Verdict::Selected { lsn: pending.lsn });
            }
            Stage::Looking | Stage::Pending(..) => self.stage = Stage::Expired(Box::new(expired)),
            // Without an expiry time set in between, it is not the searched one.
            Stage::Expired(_) => return Some(uncertain(&expired.removal, Why::CauseOfExpiry)),
        }
        None
    }

    /// Applies an earlier write that set or removed the searched expiry time.
    pub(super) fn pass_end(&mut self, seen: &Seen, end: EndOfLife) -> Found {
        let Stage::Expired(expired) = &self.stage else { return None };
        match expired.set_by(seen, end) {
            Cause::Is(verdict) => Some(verdict),
            Cause::IfThere(seen) => {
                self.stage = Stage::Pending(seen, Outcome::Absent);
                None
            }
        }
    }

    /// Whether the part existed when the key expired.
    fn before_expiry(&mut self, step: &Step) -> Found {
        let Step { seen, outcome, perhaps, .. } = step;
        match Outcome::Absent.same_as(*outcome) {
            Same::No if *perhaps => {}
            Same::No => {
                if let Stage::Expired(expired) = &mut self.stage {
                    expired.proven = true;
                }
            }
            Same::Yes if !perhaps && seen.is == Match::Yes => {
                self.stage = Stage::Pending(seen.clone(), Outcome::Absent);
            }
            Same::Yes if !perhaps => return Some(by(seen)),
            _ => self.notes.add(seen, Why::MayHaveBeenSo),
        }
        None
    }

    /// No newer write is certain.
    fn last(&mut self, step: &Step) -> Found {
        let Step { seen, outcome, certain, perhaps } = step;
        if *perhaps {
            self.notes.add(seen, Why::MayHaveWritten);
            return self.notes.is_undecided().then(|| self.undecided());
        }
        match seen.is {
            // A value that is set does not depend on what was there before, so this write was the last one.
            Match::Yes if !(*certain || self.any_writer && matches!(outcome, Outcome::Is(_))) => {
                self.stage = Stage::Pending(seen.clone(), *outcome);
                None
            }
            _ => Some(by(seen)),
        }
    }

    /// There is nothing before.
    pub(super) fn end(&self) -> Verdict {
        match &self.stage {
            Stage::Looking => Verdict::NotWritten,
            Stage::Pending(pending, _) => Verdict::Selected { lsn: pending.lsn },
            Stage::Expired(expired) => expired.at_the_beginning(),
        }
    }

    fn undecided(&self) -> Verdict {
        settle(Verdict::NotWritten, self.wanted, &[&self.notes])
    }
}

/// A later selected write may have found the result of this one.
fn before(step: &Step, pending: &Seen, outcome: Outcome) -> Found {
    let Step { seen, certain, perhaps, .. } = step;
    match (outcome.same_as(step.outcome), seen.is) {
        (Same::No, _) if *perhaps => None,
        (Same::No, _) => Some(Verdict::Selected { lsn: pending.lsn }),
        (_, Match::Yes) if *perhaps => None,
        // One of the two has changed it.
        (Same::Perhaps, Match::Yes) => Some(Verdict::Selected { lsn: pending.lsn }),
        (Same::Yes, Match::Yes) => certain.then_some(Verdict::Selected { lsn: seen.lsn }),
        (Same::Yes, _) if !perhaps => Some(by(seen)),
        _ => Some(uncertain(seen, Why::MayHaveBeenSo)),
    }
}

/// An answer that takes possibly later writes into account.
pub(super) fn settle(found: Verdict, wanted: bool, notes: &[&Notes]) -> Verdict {
    let against_selected = notes.iter().find_map(|notes| notes.against_selected(wanted));
    let against_other = notes.iter().find_map(|notes| notes.against_other(wanted));
    let noted = |(seen, why): &(Seen, Why)| {
        let by_cause = seen.is == Match::Perhaps && *why != Why::UnknownCommand;
        uncertain(seen, if by_cause { Why::UnknownCause } else { *why })
    };
    match (found, against_selected, against_other) {
        (Verdict::Selected { .. }, Some(against), _)
        | (Verdict::Other { .. }, _, Some(against))
        | (Verdict::NotWritten, Some(against), Some(_)) => noted(against),
        (Verdict::NotWritten, Some((seen, _)), None) => Verdict::Other { lsn: seen.lsn, who: Arc::clone(&seen.who) },
        (Verdict::NotWritten, None, Some((seen, _))) => Verdict::Selected { lsn: seen.lsn },
        (found, ..) => found,
    }
}

/// An answer about all writes that takes possibly later writes than the found one into account.
pub(super) fn settle_any(found: Verdict, notes: &[&Notes]) -> Verdict {
    let Some((seen, why)) = notes.iter().filter_map(|notes| notes.newest()).max_by_key(|(seen, _)| seen.lsn) else {
        return found;
    };
    let is_one = notes.iter().all(|notes| !notes.several && notes.newest().is_none_or(|(one, _)| one.lsn == seen.lsn));
    match found {
        Verdict::Selected { lsn } | Verdict::Other { lsn, .. } | Verdict::Uncertain { lsn, .. } if lsn >= seen.lsn => {
            found
        }
        // Questions are about differences, and no other write was found.
        Verdict::NotWritten if is_one && seen.is == Match::Yes => Verdict::Selected { lsn: seen.lsn },
        _ => uncertain(seen, *why),
    }
}
