//! The join gives each group of effects its time and its origin.
//!
//! ```text
//! tee ──► stamps ─┐ attribute            date
//! probes ─────────┼─► [held groups] ─► [causes known] ─► attributed groups
//! link ─► groups ─┘        in stream order throughout
//! ```
//!
//! First the cause of a group is found, then its time: the time of a group that no request explains is bounded by the replies to what
//! ran behind it.
//!
//! Pure: time comes in with the messages. Invariants:
//! - groups leave in the order in which they came; nothing here can drop, change or reorder one,
//!   so a mistake costs an origin or microseconds, never a restore;
//! - `ts` never goes back;
//! - a group waits at most [`HOLD`] for the replies that tell requests apart, [`WAIT_MAX`] in all, and one that only removes
//!   [`PROBE_WAIT_MAX`] for what the server says that it removed by itself; not at all while [`HELD_MAX`] wait;
//! - no client is named where another may as well have been the cause, nor is `outside` said then.
//!
//! Waiting is measured by how far the link was read and how much the workers have told, not by the clock: replies may be known whose
//! effects were not read yet, and another's effect would be given to them.

mod bounds;
mod causes;
mod dating;
mod lookahead;
mod origins;
mod stamps;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::Arc;

use bounds::Bounds;
pub use bounds::Probe;
pub use causes::outcome_of;
use causes::{Fit, is_removal};
use dating::{Cause, Dating};
use lookahead::Lookahead;
use origins::Origins;
use redtape_journal::{Micros, Origin, OriginKind, ReplOffset};
use redtape_wire::command::CommandTable;
use smallvec::SmallVec;
use stamps::{Candidates, Patience, Place, Stamps, State, Wanted};

use crate::group::EffectGroup;
use crate::tee::{Part, TeeMessage, describe, hash_arg};

/// Longest wait of a group for replies and probes, in µs.
pub(crate) const HOLD: i64 = 5_000;
/// Longest wait of a group in all, in µs, but for one that removes something and waits for a probe.
pub(crate) const WAIT_MAX: i64 = 2 * HOLD;
/// Longest wait for a probe that says whether the server removed something by itself, in µs. Far more than a probe takes: where the
/// machine is busy, thousands of keys that expired would be taken for an outsider's deletions.
const PROBE_WAIT_MAX: i64 = 1_000_000;
/// After so long, in µs, a request without a reply is taken for one that has not run.
const SETTLED: i64 = 2_000;
/// Effects of a group that are looked at to find its origin.
const EFFECTS_MAX: usize = 32;
/// Arguments of an effect that are compared with a script's.
const WORDS_MAX: usize = 64;
/// Groups that may wait.
const HELD_MAX: usize = 1 << 16;
/// Groups behind one that may be nobody's whose replies are looked at.
const BEHIND_MAX: usize = 8;
/// Scripts that are passed over for one group.
const WITHOUT_MAX: usize = 8;
/// Probes that are remembered for the beginning of a stream.
const RECENT_MAX: usize = 64;
/// So long after stamps were lost, their effects may still come, in µs.
const LOST_FOR: i64 = 1_000_000;
/// The wall clock never goes back by so much, in µs, unless it steps.
const CLOCK_STEP: i64 = 1_000_000;
/// After so long, in µs, an effect that did not come is asked for.
const DOUBT_AFTER: i64 = 8_000;
/// So long after a group that could not be attributed, in µs, it may be the cause of doubts.
const TIES_FOR: i64 = 50_000;
/// So long after a write that certainly came from outside, in µs, a script is not named for what it was not given.
const OUTSIDERS_FOR: i64 = 10_000_000;

/// A group with its time and origin, ready for the journal.
#[derive(Debug)]
pub(crate) struct Attributed {
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
    /// The link was found empty then, and the group had not come.
    quiet: Micros,
}

impl Held {
    /// Hashes of all arguments of the group, sorted: what a script was given appears among them.
    fn words(&self) -> &[u64] {
        let hashes = |args: &[&[u8]]| args.iter().skip(1).take(WORDS_MAX).map(|a| hash_arg(a)).collect::<Vec<_>>();
        let effects = self.group.effects.iter().take(EFFECTS_MAX);
        self.words.get_or_init(|| {
            let mut words: Box<[u64]> = effects.flat_map(|e| e.with_args(hashes)).collect();
            words.sort_unstable();
            words
        })
    }

    /// Whether it is on a key that one of these requests was given.
    fn has_key_of(&self, requests: &[Part]) -> bool {
        let given = |key: &u64| requests.iter().any(|r| r.keys().contains(key) || r.values().contains(key));
        self.parts.iter().any(|part| part.keys().iter().any(given))
    }

    /// Whether it takes nothing but single keys or fields away, as expiry and eviction do.
    fn only_removes(&self) -> bool {
        self.parts.iter().all(is_removal)
    }

    /// How long it has waited; all that could be read, and all that workers knew, at `upto` was taken in.
    fn patience(&self, upto: Micros) -> Patience {
        let waited = upto.0 - self.group.arrived.0;
        // A clock that stepped back since would hold it until it is there again.
        if !(-CLOCK_STEP..HOLD).contains(&waited) {
            Patience::Late
        } else if waited >= SETTLED {
            Patience::Settled
        } else {
            Patience::Fresh
        }
    }
}

type Parts = SmallVec<[Part; 1]>;

/// Deletions that the server says it made by itself and that were not yet seen in the stream.
#[derive(Debug, Default)]
struct ServerDeletions {
    baseline: Option<(u64, u64)>,
    expired: u64,
    evicted: u64,
}

impl ServerDeletions {
    /// Adds what was counted since the probe before.
    fn add(&mut self, probe: Probe) {
        let (expired, evicted) = self.baseline.unwrap_or((probe.expired, probe.evicted));
        // `CONFIG RESETSTAT` and a restart of the server begin at 0.
        let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        self.expired += since(probe.expired, expired);
        self.evicted += since(probe.evicted, evicted);
        self.baseline = Some((probe.expired, probe.evicted));
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Join {
    table: Arc<CommandTable>,
    /// Commands of which it is known how they stand in the stream.
    built_in: CommandTable,
    has_tee: bool,
    stamps: Stamps,
    bounds: Bounds,
    recent: VecDeque<Probe>,
    held: VecDeque<Held>,
    lookahead: Lookahead,
    dating: Dating,
    processed: ReplOffset,
    /// Effects up to here may have been asked for through an earlier process: no origin is invented for them.
    unknown_until: ReplOffset,
    server_deletions: ServerDeletions,
    newest_probe: Probe,
    /// All that workers knew then was taken in.
    told: Micros,
    want_probe: bool,
    /// When stamps were lost last; cleared once the effects of theirs must have run.
    lost: Option<Micros>,
    /// The same; cleared once the stamps whose replies may have been lost are gone.
    replies_lost: Option<Micros>,
    origins: Origins,
    /// Until when sessions may have written without stamps, if any has.
    unstamped_until: Option<Micros>,
    /// When a write that certainly came from outside arrived last.
    last_outside: Option<Micros>,
    /// When a group arrived last that several clients explain equally well.
    last_tie: Option<Micros>,
}

impl Join {
    /// Starts behind a group at `prev_ts`; `has_tee`: requests are stamped, so that what has no
    /// stamp came from outside.
    pub(crate) fn new(table: Arc<CommandTable>, has_tee: bool) -> Self {
        Self {
            table,
            built_in: CommandTable::builtin(),
            has_tee,
            stamps: Stamps::default(),
            bounds: Bounds::default(),
            recent: VecDeque::new(),
            held: VecDeque::new(),
            lookahead: Lookahead::default(),
            dating: Dating::default(),
            processed: ReplOffset(0),
            unknown_until: ReplOffset(0),
            server_deletions: ServerDeletions::default(),
            newest_probe: Probe::default(),
            told: Micros(0),
            want_probe: false,
            lost: None,
            replies_lost: None,
            origins: Origins::default(),
            unstamped_until: None,
            last_outside: None,
            last_tie: None,
        }
    }

    /// A stream begins or goes on: nothing is held, `ts` continues from `prev_ts`.
    pub(crate) fn stream_starts(&mut self, prev_ts: Micros, offset: ReplOffset) {
        self.held.clear();
        self.lookahead.clear();
        self.bounds = Bounds::default();
        self.dating.begins(prev_ts);
        self.processed = offset;
        // What was answered before a probe that the copy contains is in the copy.
        if let Some(in_copy) = self.recent.iter().filter(|p| p.offset <= offset).map(|p| p.sent).max() {
            self.dating.ran_after(in_copy);
            self.stamps.forget_replied_before(in_copy);
        }
        self.recent.clear();
    }

    /// The stream goes on at `offset`, behind a group at `prev_ts`; what comes ran after `ran_after`.
    pub(crate) fn stream_resumes(&mut self, prev_ts: Micros, ran_after: Micros, offset: ReplOffset) {
        self.held.clear();
        self.lookahead.clear();
        self.dating.begins(prev_ts);
        self.dating.ran_after(ran_after);
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

    /// All that workers knew at this time was taken in.
    pub(crate) fn workers_told(&mut self, at: Micros) {
        self.told = at;
    }

    /// Takes a look at the server.
    pub(crate) fn probe(&mut self, probe: Probe) {
        if probe.sent < self.newest_probe.sent {
            // The clock stepped back: what was known of times is of another clock. Until what ran before has been read, nobody can
            // be told by them.
            self.bounds = Bounds::default();
            self.dating.clock_stepped_back();
            self.unknown_until(probe.offset);
        }
        self.bounds.add(probe);
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(probe);
        self.server_deletions.add(probe);
        if self.lost.take_if(|at| at.0 + LOST_FOR < probe.sent.0).is_some() {
            self.unknown_until(probe.offset);
        }
        self.newest_probe = probe;
        self.want_probe = false;
        self.settle();
    }

    /// Takes a group from the link, which was found empty at `quiet`, before the group came.
    pub(crate) fn effect(&mut self, group: EffectGroup, quiet: Micros) {
        let effects = group.effects.iter().take(EFFECTS_MAX);
        let parts = effects.map(|e| e.with_args(|args| describe(&self.table, args, args.len(), e.db))).collect();
        self.held.push_back(Held { group, parts, words: OnceCell::new(), quiet });
    }

    /// The link was read up to `offset` (keep-alives included) and holds no unfinished group.
    pub(crate) fn reached(&mut self, offset: ReplOffset) {
        if self.held() == 0 {
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

    /// Until this time a session may have sent writes without stamps; they run within [`LOST_FOR`].
    pub(crate) fn unstamped_until(&mut self, until: Option<Micros>) {
        self.unstamped_until = until;
    }

    /// End of the newest group that was taken in.
    pub(crate) fn end_of_last_group(&self) -> Option<ReplOffset> {
        let last = self.held.back().map(|h| h.group.end_offset).or_else(|| self.dating.last_end());
        last.or((self.processed.0 > 0).then_some(self.processed))
    }

    /// Everything up to here has left the join.
    pub(crate) fn processed(&self) -> ReplOffset {
        self.processed
    }

    /// Groups that wait.
    pub(crate) fn held(&self) -> usize {
        self.held.len() + self.dating.len()
    }

    /// Stamps that wait, and how many were dropped because there were too many.
    pub(crate) fn stamps(&self) -> (usize, u64) {
        (self.stamps.len(), self.stamps.overflowed)
    }

    /// A fresh probe would let the first group go.
    pub(crate) fn wants_probe(&self) -> bool {
        self.want_probe
    }

    /// Some request was answered well before `now`, and whether it had an effect is not known: a probe will tell.
    pub(crate) fn has_doubts(&self, now: Micros) -> bool {
        self.stamps.oldest_reply().is_some_and(|at| at.0 < now.0 - DOUBT_AFTER)
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
            if self.held() == 0 && until == self.newest_probe.sent {
                (self.server_deletions.expired, self.server_deletions.evicted) = (0, 0);
            }
        }
        self.bounds.settle(self.processed);
    }

    /// Lets the first group go, if its cause and its time are clear or if it has waited long enough. All that could be read, and all
    /// that workers knew, at `upto` was taken in.
    pub(crate) fn next(&mut self, upto: Micros) -> Option<Attributed> {
        loop {
            if let Some(attributed) = self.dating.next_exact() {
                return Some(self.leaves(attributed));
            }
            let waits = self.held.pop_front().and_then(|held| match self.attribute(&held, upto) {
                Some(cause) => {
                    self.lookahead.left(&held);
                    self.dating.add(held.group, cause);
                    None
                }
                None => Some(held),
            });
            if let Some(held) = waits {
                self.held.push_front(held);
            } else if self.dating.len() > 0 && !self.held.is_empty() {
                continue;
            }
            let all_causes_known = self.held.is_empty() || !self.has_tee;
            let attributed = self.dating.next_exact().or_else(|| self.dating.next(upto, all_causes_known))?;
            return Some(self.leaves(attributed));
        }
    }

    fn leaves(&mut self, attributed: Attributed) -> Attributed {
        self.processed = attributed.group.end_offset;
        attributed
    }

    /// Finds the cause of the group in front of those that are held; `None` = it waits.
    fn attribute(&mut self, held: &Held, upto: Micros) -> Option<Cause> {
        let group = &held.group;
        let patience = if self.held() >= HELD_MAX { Patience::Late } else { held.patience(upto) };
        let (after, before) = self.bounds.of(group.end_offset);
        let mut latest = before.map_or(group.arrived, |b| b.min(group.arrived));
        if self.may_be_nobodys(held) {
            latest = latest.min(self.replies_behind().unwrap_or(latest)).max(after);
        }
        let certain = match &held.parts[..] {
            [part] if !group.atomic => self.stamps.certain(part, (after, latest)),
            _ => None,
        };
        if let Some(found) = certain {
            return Some(self.name(held, &found, (after, latest)));
        }
        let wanted = Wanted {
            parts: &held.parts,
            words: &|| held.words(),
            atomic: group.atomic,
            ran: (after, latest),
            quiet: held.quiet,
            patience,
        };
        let mut without = Vec::new();
        let Some(mut found) = self.explain(&wanted, upto, &mut without) else {
            let in_doubt = !without.is_empty() || self.stamps.has_many_on(&held.parts);
            let kind = if in_doubt { OriginKind::Unknown } else { self.unexplained(held, after, upto)? };
            return Some(self.nobody(kind, (after, latest)));
        };
        let may_be_told = !found.best.replied || (found.contested && !found.tie);
        // Where others write past the proxy, the group may be theirs, and the script's own be still on its way.
        let enough = if self.has_outsiders(held) { Patience::Late } else { Patience::Settled };
        let waits = may_be_told || (found.best.weak && patience < enough);
        if waits && patience < Patience::Late {
            return None;
        }
        if found.best.script && held.only_removes() && found.best.fit() < Fit::Exact {
            // A request explains it: what the server counted is not worth that all behind it waits for long.
            if patience < Patience::Late && self.is_unprobed(group) {
                self.want_probe = true;
                return None;
            }
            if let Some(kind) = self.server_deleted(held, &found) {
                return Some(self.nobody(kind, (after, latest)));
            }
        }
        if !found.tie && found.equals.len() > 1 && self.each_has_its_effect(held, &found) {
            found = self.stamps.oldest_of(found);
        }
        if found.tie || found.contested || self.is_doubtful(held, &found, after, upto) {
            if found.tie || found.contested {
                self.last_tie = Some(group.arrived);
                // Writes past the proxy do not say how many of these have had their effect.
                if found.best.fit() >= Fit::Value || !self.has_outsiders(held) {
                    self.stamps.doubt(&found.equals);
                }
            }
            return Some(self.nobody(OriginKind::Unknown, (after, latest)));
        }
        Some(self.name(held, &found, (after, latest)))
    }

    /// The best explanation that is not needed more by a group behind this one: a script whose own arguments stand there did not cause
    /// this. Those that are passed over for that are in `without` afterwards.
    fn explain(&mut self, wanted: &Wanted<'_>, upto: Micros, without: &mut Vec<Place>) -> Option<Candidates> {
        let Self { built_in, stamps, lookahead, held, bounds, .. } = self;
        let known = |name: &[u8]| built_in.get_lower(name).is_some();
        loop {
            let found = stamps.best(wanted, without, known)?;
            if !found.best.weak || wanted.patience == Patience::Fresh {
                return Some(found);
            }
            if without.len() >= WITHOUT_MAX {
                // There may be as many again.
                return None;
            }
            let waiting = stamps.get(found.best.place)?;
            let Some(replied) = waiting.replied.filter(|at| *at <= upto) else { return Some(found) };
            // Whether what it was given is found in what ran before its reply and behind this group.
            let given: SmallVec<[u64; 8]> = waiting.stamp.parts.iter().flat_map(Part::values).copied().collect();
            let ends = lookahead.find(&given, held, bounds.end_before(replied));
            let needed = ends.iter().any(|end| {
                let at = held.partition_point(|h| h.group.end_offset < *end);
                held.get(at).filter(|behind| behind.has_key_of(&waiting.stamp.parts)).is_some_and(|behind| {
                    let (ran, words) = ((Micros(0), behind.group.arrived), &|| behind.words());
                    let wanted = Wanted { parts: &behind.parts, words, atomic: behind.group.atomic, ran, ..*wanted };
                    stamps.explains_better(found.best.place, &wanted, known)
                })
            });
            if !needed {
                return Some(found);
            }
            without.push(found.best.place);
        }
    }

    /// Only calls of one command by one connection wait on the group's key, and as many groups stand behind it there as there are
    /// other calls: each call has its own group, in their order.
    fn each_has_its_effect(&mut self, held: &Held, found: &Candidates) -> bool {
        let Some((db, key)) = held.parts.first().and_then(|part| Some((part.db, *part.keys().first()?))) else {
            return false;
        };
        self.stamps.same_on(db, key, found).is_some_and(|waiting| {
            let others = waiting.saturating_sub(1);
            self.lookahead.count(key, &self.held, others) == others
        })
    }

    /// The cause is this request.
    fn name(&mut self, held: &Held, found: &Candidates, (after, latest): (Micros, Micros)) -> Cause {
        let place = found.best.place;
        let Some(waiting) = self.stamps.get(place) else {
            return self.nobody(OriginKind::Unknown, (after, latest));
        };
        let (origin, stamped) = (self.origins.of(&waiting.stamp, &held.parts), waiting.stamp.at);
        let sure = found.best.fit() >= Fit::Value && found.best.is_free();
        // One that may have changed nothing, or has no reply yet, may have been given the same effect of another: that does not say
        // that those before it on its connection have run.
        let certain = waiting.certain;
        let ran = sure && (certain || waiting.stamp.transaction || found.best.script);
        // A script may have had its effect among those that could not be told apart, and this may be that of another of its client:
        // of one before it, unless there is one behind it, or may be one that the worker has not told of.
        let may_be_another = !sure && found.best.script && self.is_near_tie(stamped.min(held.group.arrived));
        let may_be_later = may_be_another && (self.told < latest || self.stamps.has_later_of_its_client(place, latest));
        self.stamps.explain(place, ran);
        self.stamps.pass_before(place, &found.equals);
        let (mut first, mut last) = found.forwarded;
        if may_be_another {
            first = after;
        }
        if may_be_later {
            last = latest;
        }
        let forwarded = (after.max(first.min(latest)), after.max(last.min(latest)));
        // A script that only may be the cause may have had its effect before, and this be one that is not known yet: its reply
        // proves nothing about what ran before.
        let replied = found.replied.filter(|_| (certain || found.best.fit() >= Fit::Value) && !may_be_later);
        Cause { origin, stamped: Some(stamped), after, forwarded, to: forwarded.1, replied, sure }
    }

    /// No client is named: that those who may have caused it were answered says nothing, since it may have been another.
    fn nobody(&mut self, kind: OriginKind, (after, latest): (Micros, Micros)) -> Cause {
        let to = after.max(latest);
        let origin = self.origins.nobody(kind);
        Cause { origin, stamped: None, after, forwarded: (after, after), to, replied: None, sure: false }
    }

    /// Whether the request may as well not be the cause: then its client is not named.
    fn is_doubtful(&self, held: &Held, found: &Candidates, after: Micros, upto: Micros) -> bool {
        let best = &found.best;
        if best.fit() >= Fit::Value {
            return false;
        }
        let Some(waiting) = self.stamps.get(best.place) else { return true };
        let has_key = || held.has_key_of(&waiting.stamp.parts);
        // What it was given may stand in what was not read yet.
        let may_come = best.weak && waiting.replied.is_none_or(|at| at > upto);
        match waiting.state {
            State::Passed => true,
            State::Unseen => !has_key(),
            State::Open | State::Doubted | State::Consumed => {
                (self.may_be_unstamped(after) && !has_key())
                    || (best.fit() == Fit::Guess && (self.has_outsiders(held) || self.has_ties(held)))
                    || (may_come && self.has_outsiders(held))
            }
        }
    }

    /// Whether a group that ran after `after` may be of a session that writes without stamps.
    fn may_be_unstamped(&self, after: Micros) -> bool {
        self.unstamped_until.is_some_and(|until| after.0 <= until.0.saturating_add(LOST_FOR))
    }

    /// Not long before, clients could not be told apart: a request may have had its effect then.
    fn has_ties(&self, held: &Held) -> bool {
        self.is_near_tie(held.group.arrived)
    }

    /// The same of what arrived, or was forwarded, at this time. Where the link is read late, a request from before the tie may be
    /// named long after it.
    fn is_near_tie(&self, at: Micros) -> bool {
        self.last_tie.is_some_and(|tie| at.0 - tie.0 < TIES_FOR)
    }

    /// Somebody has written past the proxy not long before.
    fn has_outsiders(&self, held: &Held) -> bool {
        self.last_outside.is_some_and(|at| held.group.arrived.0 - at.0 < OUTSIDERS_FOR)
    }

    /// A script may have removed something, or found it expired: what the server's own counters say.
    fn server_deleted(&mut self, held: &Held, found: &Candidates) -> Option<OriginKind> {
        if self.server_deletions.expired == 0 && self.server_deletions.evicted == 0 {
            return None;
        }
        let said_nothing = self.stamps.get(found.best.place).is_none_or(|w| w.empty);
        if said_nothing {
            return self.counted(held.parts.len() as u64);
        }
        (found.best.fit() == Fit::Guess).then_some(OriginKind::Unknown)
    }

    /// So many deletions that the server counted as its own, if there are any.
    fn counted(&mut self, n: u64) -> Option<OriginKind> {
        let ServerDeletions { expired, evicted, .. } = &mut self.server_deletions;
        if *evicted >= n && evicted >= expired {
            *evicted -= n;
            return Some(OriginKind::Eviction);
        }
        if *expired > 0 {
            *expired = expired.saturating_sub(n);
            return Some(OriginKind::Expiry);
        }
        None
    }

    /// Perhaps no request caused it, and one that does the same came just behind it.
    fn may_be_nobodys(&self, held: &Held) -> bool {
        held.only_removes() || self.has_outsiders(held)
    }

    /// The first reply to a request whose effect certainly stands behind the group in front: what was forwarded later is not its cause.
    fn replies_behind(&self) -> Option<Micros> {
        let cause_of = |behind: &Held| match &behind.parts[..] {
            [part] if !behind.group.atomic => self.stamps.certain(part, (Micros(0), behind.group.arrived)),
            _ => None,
        };
        self.held.iter().take(BEHIND_MAX).filter_map(|behind| cause_of(behind)?.replied).min()
    }

    /// No probe was sent since this group arrived, and one is asked for and will come.
    fn waits_for_probe(&mut self, group: &EffectGroup, upto: Micros) -> bool {
        let waited = upto.0 - group.arrived.0;
        // A clock that stepped back since would hold it until it is there again.
        let waits =
            self.is_unprobed(group) && (-CLOCK_STEP..PROBE_WAIT_MAX).contains(&waited) && self.held() < HELD_MAX;
        self.want_probe |= waits;
        waits
    }

    /// What the server counted when this group ran is not known yet.
    fn is_unprobed(&self, group: &EffectGroup) -> bool {
        self.newest_probe.sent < group.arrived
    }

    /// The kind of a group without request, which ran after `after`; `None` = a fresh probe will tell.
    fn unexplained(&mut self, held: &Held, after: Micros, upto: Micros) -> Option<OriginKind> {
        let group = &held.group;
        if held.only_removes() {
            if let Some(kind) = self.counted(held.parts.len() as u64) {
                return Some(kind);
            }
            if self.waits_for_probe(group, upto) {
                return None;
            }
            if self.is_unprobed(group) {
                return Some(OriginKind::Unknown);
            }
        }
        let all_stamped = self.lost.is_none() && !self.may_be_unstamped(after);
        let known = self.has_tee && all_stamped && group.end_offset > self.unknown_until;
        if known {
            self.last_outside = Some(group.arrived);
        }
        Some(if known { OriginKind::Outside } else { OriginKind::Unknown })
    }
}
