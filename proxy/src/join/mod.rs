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
//! - a group waits at most [`HOLD`] for the reply that tells two equal requests apart.

mod bounds;
mod causes;
mod stamps;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bounds::Bounds;
pub(crate) use bounds::Probe;
pub(crate) use causes::says_no_effect;
use redtape_journal::{Micros, Origin, OriginKind, ReplOffset};
use redtape_wire::command::CommandTable;
use stamps::{Effects, Match, Stamps};

use crate::capture::effects::EffectGroup;
use crate::tee::{Identity, Name, Part, TeeMessage, describe, hash_arg};

/// Longest wait of a group for replies and probes, in µs.
pub(crate) const HOLD: i64 = 5_000;
/// Effects of a group that are looked at to find its origin.
const EFFECTS_MAX: usize = 32;
/// Arguments of an effect that are compared with a script's.
const WORDS_MAX: usize = 64;
/// Groups behind one that are looked through for a script's arguments.
const BEHIND_MAX: usize = 512;
/// Groups behind one that are looked at for a known answer.
const ANSWERED_MAX: usize = 8;
/// Scripts that are passed over for one group.
const WITHOUT_MAX: usize = 8;
/// Probes that are remembered for the beginning of a stream.
const RECENT_MAX: usize = 64;
/// Origins kept ready.
const ORIGINS_MAX: usize = 4096;
/// A stamp this much older than the predecessor's time means that the wall clock stepped, in µs.
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
    held: VecDeque<EffectGroup>,
    prev_ts: Micros,
    /// The next group certainly ran after this.
    not_before: Micros,
    processed: ReplOffset,
    /// Effects up to here may have been asked for through an earlier process: no origin is invented for them.
    unknown_until: ReplOffset,
    reaped: Reaped,
    newest_probe: Probe,
    want_probe: bool,
    lost: bool,
    lost_at: Option<Micros>,
    origins: HashMap<(usize, Name), (Arc<Identity>, Arc<Origin>)>,
    /// How often a stamp lay far before its predecessor: the wall clock stepped back.
    pub clock_steps: u64,
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
            prev_ts: Micros(0),
            not_before: Micros(0),
            processed: ReplOffset(0),
            unknown_until: ReplOffset(0),
            reaped: Reaped::default(),
            newest_probe: Probe::default(),
            want_probe: false,
            lost: false,
            lost_at: None,
            origins: HashMap::new(),
            clock_steps: 0,
        }
    }

    /// A stream begins or goes on: nothing is held, `ts` continues from `prev_ts`.
    pub(crate) fn stream_starts(&mut self, prev_ts: Micros, offset: ReplOffset) {
        self.held.clear();
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
            TeeMessage::Correct { id, who, db } => self.stamps.correct(id, who, db),
            TeeMessage::Replied { id, at, outcome } => self.stamps.reply(id, at, outcome),
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
        if std::mem::take(&mut self.lost) {
            self.unknown_until(probe.offset);
        }
        self.newest_probe = probe;
        self.want_probe = false;
        self.settle();
    }

    /// Takes a group from the tap.
    pub(crate) fn effect(&mut self, group: EffectGroup) {
        self.held.push_back(group);
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

    /// Stamps were dropped: until the next probe nobody can be called an outsider.
    pub(crate) fn stamps_were_lost(&mut self, now: Micros) {
        self.lost = true;
        // A reply may be among what was lost: its stamp would wait for ever.
        self.lost_at = Some(now);
    }

    /// End of the newest group that was taken in.
    pub(crate) fn end_of_last_group(&self) -> Option<ReplOffset> {
        self.held.back().map(|g| g.end_offset).or((self.processed.0 > 0).then_some(self.processed))
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
            if let Some(at) = self.lost_at.take_if(|at| *at < until) {
                self.stamps.forget_unreplied_before(at);
            }
            if self.held.is_empty() && until == self.newest_probe.sent {
                (self.reaped.expired, self.reaped.evicted) = (0, 0);
            }
        }
        self.bounds.settle(self.processed);
    }

    /// Lets the first group go, if it is clear who caused it or if it has waited long enough.
    pub(crate) fn next(&mut self, now: Micros) -> Option<Judged> {
        let group = self.held.front()?;
        let late = now.0 >= group.arrived.0 + HOLD;
        let parts = describe_group(&self.table, group);
        let (after, before) = self.bounds.of(group.end_offset);
        let latest = before.map_or(group.arrived, |b| b.min(group.arrived));
        let found = self.explain_best(group, &parts, (after, latest), late);
        let origin = match found {
            Some(m) if (m.replied && !m.weak) || late => self.origin_of(m, &parts),
            Some(_) => return None,
            None => Arc::new(Origin::of(self.unexplained(&parts, late)?)),
        };
        // What runs behind it and is answered already bounds the time of what nobody asked for.
        let followed = if found.is_none() { self.answered_behind() } else { latest };
        let group = self.held.pop_front()?;
        let stamped = found.and_then(|m| self.stamps.get(m.id)).map(|w| w.stamp.at);
        if let Some(m) = found {
            self.stamps.explain(m.id);
        }
        // It ran after what ran before it, and that ran after its own request was forwarded.
        self.not_before = self.not_before.max(after);
        if let Some(at) = stamped {
            self.clock_steps += u64::from(at.0 + CLOCK_STEP < self.prev_ts.0 && at > after);
            self.not_before = self.not_before.max(at.min(latest));
        }
        let best = if stamped.is_some() { self.not_before } else { latest.min(followed) };
        let ts = self.prev_ts.max(self.not_before).max(best);
        let slack = (ts.0 - self.not_before.0).unsigned_abs();
        self.prev_ts = ts;
        self.processed = group.end_offset;
        Some(Judged { group, ts, slack, origin, stamped })
    }

    /// The best explanation that is not needed more by a group behind this one: a script whose own
    /// arguments stand there did not cause this.
    fn explain_best(&self, group: &EffectGroup, parts: &[Part], ran: (Micros, Micros), late: bool) -> Option<Match> {
        let mut without = Vec::new();
        loop {
            let found = self.explain(group, parts, ran, late, &without)?;
            let values = self.stamps.get(found.id).map(|w| w.stamp.parts.iter().flat_map(|p| p.values.iter().copied()));
            let values: Vec<u64> = values.into_iter().flatten().collect();
            let behind =
                || self.held.iter().skip(1).take(BEHIND_MAX).any(|g| words_of(g).iter().any(|w| values.contains(w)));
            let elsewhere = || !found.replied || behind();
            if !found.weak || !late || without.len() >= WITHOUT_MAX || !elsewhere() {
                return Some(found);
            }
            without.push(found.id);
        }
    }

    /// When the next request behind the first group was answered, if that is known; else the end of time.
    fn answered_behind(&self) -> Micros {
        let answered = |group: &EffectGroup| {
            let parts = describe_group(&self.table, group);
            let found = self.explain(group, &parts, (Micros(0), group.arrived), false, &[])?;
            self.stamps.get(found.id).filter(|_| found.is_certain())?.replied
        };
        self.held.iter().skip(1).take(ANSWERED_MAX).find_map(answered).unwrap_or(Micros(i64::MAX))
    }

    fn explain(
        &self,
        group: &EffectGroup,
        parts: &[Part],
        ran: (Micros, Micros),
        late: bool,
        without: &[u64],
    ) -> Option<Match> {
        let known = |name: &[u8]| self.table.get(name).is_some();
        let mut words = None;
        let mut best: Option<Match> = None;
        for part in parts {
            let mut effect = Effects {
                part,
                atomic: group.atomic,
                ran,
                words: &mut || words.get_or_insert_with(|| words_of(group)).clone(),
            };
            if let Some(m) = self.stamps.best(&mut effect, late, without, known)
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
    fn unexplained(&mut self, parts: &[Part], late: bool) -> Option<OriginKind> {
        let removal = |p: &Part| matches!(&*p.name, b"del" | b"unlink" | b"hdel") && p.keys.len() == 1;
        let group = self.held.front()?;
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
        let known = self.has_tee && !self.lost && group.end_offset > self.unknown_until;
        Some(if known { OriginKind::Outside } else { OriginKind::Unknown })
    }

    fn origin_of(&mut self, m: Match, parts: &[Part]) -> Arc<Origin> {
        let Some(waiting) = self.stamps.get(m.id) else { return Arc::new(Origin::of(OriginKind::Unknown)) };
        let stamp = &waiting.stamp;
        let via = if stamp.transaction || parts.iter().any(|p| p.name == stamp.parts[0].name) {
            Name::new()
        } else {
            stamp.parts[0].name.clone()
        };
        let key = (Arc::as_ptr(&stamp.who) as usize, via.clone());
        if let Some((_, origin)) = self.origins.get(&key) {
            return origin.clone();
        }
        let who = stamp.who.clone();
        let origin = Arc::new(Origin {
            kind: OriginKind::Client,
            addr: who.addr.clone(),
            user: who.user.clone(),
            name: who.name.clone(),
            via: String::from_utf8_lossy(&via).into_owned(),
        });
        if self.origins.len() >= ORIGINS_MAX {
            self.origins.clear();
        }
        // The identity is kept beside its address, so that the address can't be given to another.
        self.origins.insert(key, (who, origin.clone()));
        origin
    }
}

/// Hashes of all arguments of a group: what a script was given appears among them.
fn words_of(group: &EffectGroup) -> Arc<[u64]> {
    let effects = group.effects.iter().take(EFFECTS_MAX);
    effects
        .flat_map(|e| e.with_args(|args| args.iter().skip(1).take(WORDS_MAX).map(|a| hash_arg(a)).collect::<Vec<_>>()))
        .collect()
}

fn describe_group(table: &CommandTable, group: &EffectGroup) -> Vec<Part> {
    let effects = group.effects.iter().take(EFFECTS_MAX);
    effects.map(|e| e.with_args(|args| describe(table, args, args.len(), e.db))).collect()
}
