//! The join gives each group of effects its time and its origin.
//!
//! ```text
//! tee ──► stamps ─┐
//! probes ─────────┼─► [held groups, in stream order] ─► judged groups
//! tap ──► groups ─┘
//! ```
//!
//! Pure: time comes in with the messages. Invariants:
//! - groups leave in the order in which they came; nothing here can drop, change or reorder one,
//!   so a mistake costs an origin or microseconds, never a restore;
//! - `ts` never goes back;
//! - a group waits at most [`HOLD`] for the reply that tells two equal requests apart, and not at all
//!   while [`HELD_MAX`] wait.
//!
//! How late it is, is told by how far the link was read: replies may be known whose effects were not
//! read yet, and by the clock alone another's effect would be given to them.

mod behind;
mod bounds;
mod causes;
mod origins;
mod stamps;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::Arc;

use behind::Behind;
use bounds::Bounds;
pub(crate) use bounds::Probe;
pub(crate) use causes::says_no_effect;
use origins::Origins;
use redtape_journal::{Micros, Origin, OriginKind, ReplOffset};
use redtape_wire::command::CommandTable;
use smallvec::SmallVec;
use stamps::{Effects, Match, Place, Stamps, Waiting};

use crate::capture::effects::EffectGroup;
use crate::tee::{Part, TeeMessage, describe, hash_arg};

/// Longest wait of a group for replies and probes, in µs.
pub(crate) const HOLD: i64 = 5_000;
/// Effects of a group that are looked at to find its origin.
const EFFECTS_MAX: usize = 32;
/// Arguments of an effect that are compared with a script's.
const WORDS_MAX: usize = 64;
/// Groups that may wait.
const HELD_MAX: usize = 1 << 16;
/// Groups behind one that are looked at for a known answer.
const ANSWERED_MAX: usize = 8;
/// Scripts that are passed over for one group.
const WITHOUT_MAX: usize = 8;
/// Probes that are remembered for the beginning of a stream.
const RECENT_MAX: usize = 64;
/// So long after stamps were lost, their effects may still come, in µs.
const LOST_FOR: i64 = 1_000_000;
/// The wall clock never goes back by so much, in µs, unless it steps.
const CLOCK_STEP: i64 = 1_000_000;

/// A group with its time and origin, ready for the journal.
#[derive(Debug)]
pub(crate) struct Judged {
    /// What Redis did.
    pub group: EffectGroup,
    /// When it ran.
    pub ts: Micros,
    /// How many µs earlier it may have run; 0 where a stamp says when.
    pub slack: u64,
    /// Who caused it.
    pub origin: Arc<Origin>,
    /// When the request was forwarded, if it was found.
    pub stamped: Option<Micros>,
}

/// A group that waits, and what its effects look like.
#[derive(Debug)]
struct Held {
    group: EffectGroup,
    parts: Parts,
    words: OnceCell<Box<[u64]>>,
}

impl Held {
    /// Hashes of all arguments of the group: what a script was given appears among them.
    fn words(&self) -> &[u64] {
        let hashes = |args: &[&[u8]]| args.iter().skip(1).take(WORDS_MAX).map(|a| hash_arg(a)).collect::<Vec<_>>();
        let effects = self.group.effects.iter().take(EFFECTS_MAX);
        self.words.get_or_init(|| effects.flat_map(|e| e.with_args(hashes)).collect())
    }
}

type Parts = SmallVec<[Part; 1]>;

/// What is known of a group when it may go.
#[derive(Debug)]
struct Verdict {
    ts: Micros,
    slack: u64,
    origin: Arc<Origin>,
    stamped: Option<Micros>,
}

/// Deletions that the server says it made by itself and that were not yet seen in the stream.
#[derive(Debug, Default)]
struct Reaped {
    baseline: Option<(u64, u64)>,
    expired: u64,
    evicted: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Join {
    table: Arc<CommandTable>,
    has_tee: bool,
    stamps: Stamps,
    bounds: Bounds,
    recent: VecDeque<Probe>,
    held: VecDeque<Held>,
    behind: Behind,
    prev_ts: Micros,
    /// The next group certainly ran after this.
    not_before: Micros,
    processed: ReplOffset,
    /// Effects up to here may have been asked for through an earlier process: no origin is invented for them.
    unknown_until: ReplOffset,
    reaped: Reaped,
    newest_probe: Probe,
    want_probe: bool,
    /// When stamps were lost last; cleared once the effects of theirs must have run.
    lost: Option<Micros>,
    /// The same; cleared once the stamps whose replies may have been lost are gone.
    replies_lost: Option<Micros>,
    origins: Origins,
}

impl Join {
    /// Starts behind a group at `prev_ts`; `has_tee`: requests are stamped, so that what has no
    /// stamp came from outside.
    pub(crate) fn new(table: Arc<CommandTable>, has_tee: bool) -> Self {
        Self {
            table,
            has_tee,
            stamps: Stamps::default(),
            bounds: Bounds::default(),
            recent: VecDeque::new(),
            held: VecDeque::new(),
            behind: Behind::default(),
            prev_ts: Micros(0),
            not_before: Micros(0),
            processed: ReplOffset(0),
            unknown_until: ReplOffset(0),
            reaped: Reaped::default(),
            newest_probe: Probe::default(),
            want_probe: false,
            lost: None,
            replies_lost: None,
            origins: Origins::default(),
        }
    }

    /// A stream begins or goes on: nothing is held, `ts` continues from `prev_ts`.
    pub(crate) fn stream_starts(&mut self, prev_ts: Micros, offset: ReplOffset) {
        self.held.clear();
        self.behind.clear();
        self.bounds = Bounds::default();
        self.prev_ts = self.prev_ts.max(prev_ts);
        self.processed = offset;
        // What was answered before a probe that the copy contains is in the copy.
        if let Some(in_copy) = self.recent.iter().filter(|p| p.offset <= offset).map(|p| p.sent).max() {
            self.not_before = self.not_before.max(in_copy);
            self.stamps.forget_replied_before(in_copy);
        }
        self.recent.clear();
    }

    /// The stream goes on at `offset`, behind a group at `prev_ts`; what comes ran after `ran_after`.
    pub(crate) fn stream_resumes(&mut self, prev_ts: Micros, ran_after: Micros, offset: ReplOffset) {
        self.held.clear();
        self.behind.clear();
        self.prev_ts = self.prev_ts.max(prev_ts);
        self.not_before = self.not_before.max(ran_after);
        self.processed = offset;
    }

    /// Effects up to this offset get origin `unknown` where no stamp explains them.
    pub(crate) fn unknown_until(&mut self, offset: ReplOffset) {
        self.unknown_until = self.unknown_until.max(offset);
    }

    /// Takes what a session said.
    pub(crate) fn tee(&mut self, message: TeeMessage) {
        match message {
            TeeMessage::Stamp(stamp) => self.stamps.add(stamp),
            TeeMessage::Correct { id, count, who, db } => {
                (id..).take(count as usize).for_each(|id| self.stamps.correct(id, Arc::clone(&who), db));
            }
            TeeMessage::Replied { id, count, at, outcome } => {
                (id..).take(count as usize).for_each(|id| self.stamps.reply(id, at, outcome));
            }
        }
    }

    /// Takes a look at the server.
    pub(crate) fn probe(&mut self, probe: Probe) {
        self.bounds.add(probe);
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(probe);
        let (expired, evicted) = self.reaped.baseline.unwrap_or((probe.expired, probe.evicted));
        self.reaped.expired += probe.expired.saturating_sub(expired);
        self.reaped.evicted += probe.evicted.saturating_sub(evicted);
        self.reaped.baseline = Some((probe.expired, probe.evicted));
        if self.lost.take_if(|at| at.0 + LOST_FOR < probe.sent.0).is_some() {
            self.unknown_until(probe.offset);
        }
        self.newest_probe = probe;
        self.want_probe = false;
        self.settle();
    }

    /// Takes a group from the tap.
    pub(crate) fn effect(&mut self, group: EffectGroup) {
        let effects = group.effects.iter().take(EFFECTS_MAX);
        let parts = effects.map(|e| e.with_args(|args| describe(&self.table, args, args.len(), e.db))).collect();
        self.held.push_back(Held { group, parts, words: OnceCell::new() });
    }

    /// The tap has read up to `offset` (keep-alives included) and holds no unfinished group.
    pub(crate) fn reached(&mut self, offset: ReplOffset) {
        if self.held.is_empty() {
            self.processed = self.processed.max(offset);
            self.settle();
        }
    }

    /// Everything that ran before this time has left the join.
    pub(crate) fn complete_until(&self) -> Option<Micros> {
        self.bounds.complete_until(self.processed)
    }

    /// Stamps were dropped: until their effects have run nobody can be called an outsider.
    pub(crate) fn stamps_were_lost(&mut self, now: Micros) {
        self.lost = Some(now);
        // A reply may be among what was lost: its stamp would wait for ever.
        self.replies_lost = Some(now);
    }

    /// End of the newest group that was taken in.
    pub(crate) fn end_of_last_group(&self) -> Option<ReplOffset> {
        self.held.back().map(|h| h.group.end_offset).or((self.processed.0 > 0).then_some(self.processed))
    }

    /// Everything up to here has left the join.
    pub(crate) fn processed(&self) -> ReplOffset {
        self.processed
    }

    /// Groups that wait.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Stamps that wait, and how many were dropped because there were too many.
    pub(crate) fn stamps(&self) -> (usize, u64) {
        (self.stamps.len(), self.stamps.overflowed)
    }

    /// A fresh probe would let the first group go.
    pub(crate) fn wants_probe(&self) -> bool {
        self.want_probe
    }

    /// The newest look at the server.
    pub(crate) fn newest_probe(&self) -> Probe {
        self.newest_probe
    }

    fn settle(&mut self) {
        if let Some(until) = self.bounds.complete_until(self.processed) {
            self.stamps.forget_replied_before(until);
            if let Some(at) = self.replies_lost.take_if(|at| *at < until) {
                self.stamps.forget_unreplied_before(at);
            }
            if self.held.is_empty() && until == self.newest_probe.sent {
                (self.reaped.expired, self.reaped.evicted) = (0, 0);
            }
        }
        self.bounds.settle(self.processed);
    }

    /// Lets the first group go, if it is clear who caused it or if it has waited long enough. All that
    /// could be read at `heard` was taken in.
    pub(crate) fn next(&mut self, heard: Micros) -> Option<Judged> {
        let held = self.held.pop_front()?;
        let Some(Verdict { ts, slack, origin, stamped }) = self.judge(&held, heard) else {
            self.held.push_front(held);
            return None;
        };
        self.behind.left(&held);
        Some(Judged { group: held.group, ts, slack, origin, stamped })
    }

    /// Judges the group in front of those that are held; `None` = it waits.
    fn judge(&mut self, held: &Held, heard: Micros) -> Option<Verdict> {
        let Held { group, parts, .. } = held;
        // A clock that stepped back since would hold it until it is there again.
        let late =
            !(group.arrived.0 - CLOCK_STEP..group.arrived.0 + HOLD).contains(&heard.0) || self.held.len() >= HELD_MAX;
        let (after, before) = self.bounds.of(group.end_offset);
        let latest = before.map_or(group.arrived, |b| b.min(group.arrived));
        let certain = match &parts[..] {
            [part] if !group.atomic => self.stamps.certain(part, (after, latest)),
            _ => None,
        };
        let found = certain.or_else(|| self.explain_best(held, (after, latest), late.then_some(heard)));
        let waiting = found.and_then(|m| self.stamps.get(m.place));
        let stamped = waiting.map(|w| w.stamp.at);
        let origin = match (found, waiting) {
            (Some(m), Some(waiting)) if (m.replied && !m.weak) || late => self.origins.of(&waiting.stamp, parts),
            (Some(_), _) => return None,
            (None, _) => {
                let kind = self.unexplained(held, late)?;
                self.origins.nobody(kind)
            }
        };
        // What runs behind it and is answered already bounds the time of what nobody asked for.
        let followed = if found.is_none() { self.answered_behind() } else { latest };
        if let Some(m) = found {
            self.stamps.explain(m.place);
        }
        // It ran after what ran before it, and that ran after its own request was forwarded.
        self.not_before = self.not_before.max(after);
        if let Some(at) = stamped {
            self.not_before = self.not_before.max(at.min(latest));
        }
        let best = if stamped.is_some() { self.not_before } else { latest.min(followed) };
        let ts = self.prev_ts.max(self.not_before).max(best);
        let slack = (ts.0 - self.not_before.0).unsigned_abs();
        self.prev_ts = ts;
        self.processed = group.end_offset;
        Some(Verdict { ts, slack, origin, stamped })
    }

    /// The best explanation that is not needed more by a group behind this one: a script whose own
    /// arguments stand there did not cause this. `late`: up to when the link was read.
    fn explain_best(&mut self, held: &Held, ran: (Micros, Micros), late: Option<Micros>) -> Option<Match> {
        let mut without = Vec::new();
        loop {
            let found = self.explain(held, ran, late.is_some(), &without)?;
            let Some(heard) = late.filter(|_| found.weak && without.len() < WITHOUT_MAX) else { return Some(found) };
            let Waiting { stamp, replied, .. } = self.stamps.get(found.place)?;
            if let Some(replied) = replied.filter(|at| *at <= heard) {
                // Whether what it was given is found in what ran before its reply and behind this group.
                let given: SmallVec<[u64; 8]> = stamp.parts.iter().flat_map(Part::values).copied().collect();
                if !self.behind.has(&given, &self.held, self.bounds.end_before(replied)) {
                    return Some(found);
                }
            }
            without.push(found.place);
        }
    }

    /// When the next request behind the first group was answered, if that is known; else the end of time.
    fn answered_behind(&self) -> Micros {
        let answered = |held: &Held| {
            let found = self.explain(held, (Micros(0), held.group.arrived), false, &[])?;
            self.stamps.get(found.place).filter(|_| found.is_certain())?.replied
        };
        self.held.iter().take(ANSWERED_MAX).find_map(answered).unwrap_or(Micros(i64::MAX))
    }

    fn explain(&self, held: &Held, ran: (Micros, Micros), late: bool, without: &[Place]) -> Option<Match> {
        let known = |name: &[u8]| self.table.get_lower(name).is_some();
        let mut best: Option<Match> = None;
        for part in &held.parts {
            let effect = Effects { part, atomic: held.group.atomic, ran, words: &|| held.words() };
            if let Some(m) = self.stamps.best(&effect, late, without, known)
                && best.is_none_or(|b| m.beats(b, late))
            {
                best = Some(m);
                if m.is_certain() {
                    break;
                }
            }
        }
        best
    }

    /// The kind of a group without request; `None` = a fresh probe will tell.
    fn unexplained(&mut self, held: &Held, late: bool) -> Option<OriginKind> {
        let Held { group, parts, .. } = held;
        let removal = |p: &Part| matches!(p.name.name(), b"del" | b"unlink" | b"hdel") && p.keys().len() == 1;
        if parts.iter().all(removal) {
            let n = parts.len() as u64;
            if self.reaped.evicted >= n && self.reaped.evicted >= self.reaped.expired {
                self.reaped.evicted -= n;
                return Some(OriginKind::Eviction);
            }
            if self.reaped.expired > 0 {
                self.reaped.expired = self.reaped.expired.saturating_sub(n);
                return Some(OriginKind::Expiry);
            }
            if self.newest_probe.sent < group.arrived && !late {
                self.want_probe = true;
                return None;
            }
        }
        let known = self.has_tee && self.lost.is_none() && group.end_offset > self.unknown_until;
        Some(if known { OriginKind::Outside } else { OriginKind::Unknown })
    }
}
