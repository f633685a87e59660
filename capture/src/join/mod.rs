//! The join gives each group of effects its time and its origin.
//!
//! ```text
//! tee ──► stamps ─┐ attribute            date
//! probes ─────────┼─► [held groups] ─► [causes known] ─► attributed groups
//! link ─► groups ─┘        in stream order throughout
//! ```
//!
//! The cause of a group is found first, then its time: a group that no request explains is bounded by the replies to
//! later requests.
//!
//! Pure: time comes in with the messages. Invariants:
//! - groups leave in the order of arrival; the join cannot drop, change or reorder one, so a mistake costs an origin or
//!   microseconds, never a restore;
//! - `ts` never goes back;
//! - a group waits at most [`HOLD`] for the replies that tell requests apart and [`WAIT_MAX`] in all; one that only
//!   removes waits up to [`PROBE_WAIT_MAX`] for the server's deletion counters; none waits while [`HELD_MAX`] are held;
//! - no client is named, and `outside` is not given, where another client may equally be the cause.
//!
//! Waiting is measured by how far the link and the tee were read, not by the clock: a reply may be known before its
//! effect is read, and its request would then explain an effect of another request.

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
/// Longest wait for a probe that shows whether the server removed something by itself, in µs. Far longer than a probe
/// takes: on a busy machine, thousands of expired keys would otherwise be attributed to `outside`.
const PROBE_WAIT_MAX: i64 = 1_000_000;
/// A request without a reply for this long, in µs, is assumed not to have run.
const SETTLED: i64 = 2_000;
/// Effects of a group that are compared to find its origin.
const EFFECTS_MAX: usize = 32;
/// Arguments of an effect that are compared with those of a script.
const WORDS_MAX: usize = 64;
/// Groups that may wait.
const HELD_MAX: usize = 1 << 16;
/// Groups behind a possibly unexplained one whose replies are examined.
const BEHIND_MAX: usize = 8;
/// Scripts that are passed over for one group.
const WITHOUT_MAX: usize = 8;
/// Probes kept for the start of a stream.
const RECENT_MAX: usize = 64;
/// After stamps were lost, their effects may still arrive for this long, in µs.
const LOST_FOR: i64 = 1_000_000;
/// Backward movement of the wall clock, in µs, that counts as a clock step.
const CLOCK_STEP: i64 = 1_000_000;
/// A probe is requested for an effect that is overdue by this long, in µs.
const DOUBT_AFTER: i64 = 8_000;
/// For this long after a group that could not be attributed, in µs, a request may have had its effect in that group.
const TIES_FOR: i64 = 50_000;
/// For this long after a write from outside, in µs, no script is named for keys that it did not declare.
const OUTSIDERS_FOR: i64 = 10_000_000;

/// A group with its time and origin, ready for the journal.
#[derive(Debug)]
pub(crate) struct Attributed {
    /// The effects.
    pub group: EffectGroup,
    /// When it ran.
    pub ts: Micros,
    /// How many µs earlier it may have run; 0 if a stamp gives the time.
    pub slack: u64,
    /// The cause.
    pub origin: Arc<Origin>,
    /// When the request was forwarded, if it was found.
    pub stamped: Option<Micros>,
}

/// A waiting group, and facts derived from its effects.
#[derive(Debug)]
struct Held {
    group: EffectGroup,
    parts: Parts,
    words: OnceCell<Box<[u64]>>,
    /// Time at which the link was last found empty before the group arrived.
    quiet: Micros,
}

impl Held {
    /// Sorted hashes of all arguments of the group, for comparison with the arguments of scripts.
    fn words(&self) -> &[u64] {
        let hashes = |args: &[&[u8]]| args.iter().skip(1).take(WORDS_MAX).map(|a| hash_arg(a)).collect::<Vec<_>>();
        let effects = self.group.effects.iter().take(EFFECTS_MAX);
        self.words.get_or_init(|| {
            let mut words: Box<[u64]> = effects.flat_map(|e| e.with_args(hashes)).collect();
            words.sort_unstable();
            words
        })
    }

    /// True if it is on a key of one of these requests.
    fn has_key_of(&self, requests: &[Part]) -> bool {
        let given = |key: &u64| requests.iter().any(|r| r.keys().contains(key) || r.values().contains(key));
        self.parts.iter().any(|part| part.keys().iter().any(given))
    }

    /// True if it only removes single keys or fields, as expiry and eviction do.
    fn only_removes(&self) -> bool {
        self.parts.iter().all(is_removal)
    }

    /// How long it has waited. Everything that could be read from the link and the tee at `upto` has been taken in.
    fn patience(&self, upto: Micros) -> Patience {
        let waited = upto.0 - self.group.arrived.0;
        // After a backward clock step the wait would otherwise last until the clock catches up.
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

/// Deletions that the server counted as its own and that have not appeared in the stream yet.
#[derive(Debug, Default)]
struct ServerDeletions {
    baseline: Option<(u64, u64)>,
    expired: u64,
    evicted: u64,
}

impl ServerDeletions {
    /// Adds the deletions counted since the previous probe.
    fn add(&mut self, probe: Probe) {
        let (expired, evicted) = self.baseline.unwrap_or((probe.expired, probe.evicted));
        // The counters restart at 0 after `CONFIG RESETSTAT` and a restart of the server.
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
    /// Commands whose form in the stream is documented.
    built_in: CommandTable,
    has_tee: bool,
    stamps: Stamps,
    bounds: Bounds,
    recent: VecDeque<Probe>,
    held: VecDeque<Held>,
    lookahead: Lookahead,
    dating: Dating,
    processed: ReplOffset,
    /// Effects up to here may belong to requests through an earlier process: they get origin `unknown`.
    unknown_until: ReplOffset,
    server_deletions: ServerDeletions,
    newest_probe: Probe,
    /// The tee was read completely up to this time.
    told: Micros,
    want_probe: bool,
    /// When stamps were last lost; cleared once their effects must have run.
    lost: Option<Micros>,
    /// As `lost`; cleared once the stamps whose replies may have been lost are gone.
    replies_lost: Option<Micros>,
    origins: Origins,
    /// Sessions may have written without stamps until this time; `None` = no session did.
    unstamped_until: Option<Micros>,
    /// Arrival of the last write from outside.
    last_outside: Option<Micros>,
    /// Arrival of the last group that several clients explain equally well.
    last_tie: Option<Micros>,
}

impl Join {
    /// Starts behind a group at `prev_ts`. `has_tee`: requests are stamped, so an effect without a stamp came from
    /// outside.
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

    /// A stream starts or resumes: nothing is held, `ts` continues from `prev_ts`.
    pub(crate) fn stream_starts(&mut self, prev_ts: Micros, offset: ReplOffset) {
        self.held.clear();
        self.lookahead.clear();
        self.bounds = Bounds::default();
        self.dating.begins(prev_ts);
        self.processed = offset;
        // Requests answered before a probe that the copy contains have their effects in the copy.
        if let Some(in_copy) = self.recent.iter().filter(|p| p.offset <= offset).map(|p| p.sent).max() {
            self.dating.ran_after(in_copy);
            self.stamps.forget_replied_before(in_copy);
        }
        self.recent.clear();
    }

    /// The stream resumes at `offset`, behind a group at `prev_ts`; later groups ran after `ran_after`.
    pub(crate) fn stream_resumes(&mut self, prev_ts: Micros, ran_after: Micros, offset: ReplOffset) {
        self.held.clear();
        self.lookahead.clear();
        self.dating.begins(prev_ts);
        self.dating.ran_after(ran_after);
        self.processed = offset;
    }

    /// Effects up to this offset get origin `unknown` if no stamp explains them.
    pub(crate) fn unknown_until(&mut self, offset: ReplOffset) {
        self.unknown_until = self.unknown_until.max(offset);
    }

    /// Takes a message from a session.
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

    /// The tee was read completely up to this time.
    pub(crate) fn workers_told(&mut self, at: Micros) {
        self.told = at;
    }

    /// Takes a probe.
    pub(crate) fn probe(&mut self, probe: Probe) {
        if probe.sent < self.newest_probe.sent {
            // After a backward clock step, the known times belong to the earlier clock. They cannot identify clients
            // until everything that ran before the step has been read.
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

    /// Takes a group from the link; `quiet` is when the link was last found empty before the group arrived.
    pub(crate) fn effect(&mut self, group: EffectGroup, quiet: Micros) {
        let effects = group.effects.iter().take(EFFECTS_MAX);
        let parts = effects.map(|e| e.with_args(|args| describe(&self.table, args, args.len(), e.db))).collect();
        self.held.push_back(Held { group, parts, words: OnceCell::new(), quiet });
    }

    /// The link was read up to `offset` (keep-alives included), without an unfinished group.
    pub(crate) fn reached(&mut self, offset: ReplOffset) {
        if self.held() == 0 {
            self.processed = self.processed.max(offset);
            self.settle();
        }
    }

    /// Every effect that ran before this time has left the join.
    pub(crate) fn complete_until(&self) -> Option<Micros> {
        self.bounds.complete_until(self.processed)
    }

    /// Stamps were dropped: origin `outside` is not given until their effects have run.
    pub(crate) fn stamps_were_lost(&mut self, now: Micros) {
        self.lost = Some(now);
        // A reply may be among the lost messages: its stamp would wait for ever.
        self.replies_lost = Some(now);
    }

    /// A session may have sent writes without stamps until this time; they run within [`LOST_FOR`].
    pub(crate) fn unstamped_until(&mut self, until: Option<Micros>) {
        self.unstamped_until = until;
    }

    /// End of the newest group taken in.
    pub(crate) fn end_of_last_group(&self) -> Option<ReplOffset> {
        let last = self.held.back().map(|h| h.group.end_offset).or_else(|| self.dating.last_end());
        last.or((self.processed.0 > 0).then_some(self.processed))
    }

    /// Every effect up to here has left the join.
    pub(crate) fn processed(&self) -> ReplOffset {
        self.processed
    }

    /// Number of held groups.
    pub(crate) fn held(&self) -> usize {
        self.held.len() + self.dating.len()
    }

    /// Number of waiting stamps, and how many were dropped because the limit was reached.
    pub(crate) fn stamps(&self) -> (usize, u64) {
        (self.stamps.len(), self.stamps.overflowed)
    }

    /// True if a fresh probe would release the first group.
    pub(crate) fn wants_probe(&self) -> bool {
        self.want_probe
    }

    /// True if a request was answered well before `now` and its effect is still unknown: a probe resolves it.
    pub(crate) fn has_doubts(&self, now: Micros) -> bool {
        self.stamps.oldest_reply().is_some_and(|at| at.0 < now.0 - DOUBT_AFTER)
    }

    /// The newest probe.
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

    /// Releases the first group if its cause and time are clear or it has waited long enough. Everything that could be
    /// read from the link and the tee at `upto` has been taken in.
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

    /// Finds the cause of the first held group; `None` = it waits.
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
        // Where others write past the proxy, the group may be theirs and the script's own effect still to come.
        let enough = if self.has_outsiders(held) { Patience::Late } else { Patience::Settled };
        let waits = may_be_told || (found.best.weak && patience < enough);
        if waits && patience < Patience::Late {
            return None;
        }
        if found.best.script && held.only_removes() && found.best.fit() < Fit::Exact {
            // A request explains it: the origin `expiry` or `eviction` is not worth delaying all later groups.
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
                // With writes past the proxy, the number of effects does not show how many of these requests had
                // theirs.
                if found.best.fit() >= Fit::Value || !self.has_outsiders(held) {
                    self.stamps.doubt(&found.equals);
                }
            }
            return Some(self.nobody(OriginKind::Unknown, (after, latest)));
        }
        Some(self.name(held, &found, (after, latest)))
    }

    /// The best explanation that no later group needs more: a script whose arguments appear in a later group did not
    /// cause this one. Scripts passed over for that reason are added to `without`.
    fn explain(&mut self, wanted: &Wanted<'_>, upto: Micros, without: &mut Vec<Place>) -> Option<Candidates> {
        let Self { built_in, stamps, lookahead, held, bounds, .. } = self;
        let known = |name: &[u8]| built_in.get_lower(name).is_some();
        loop {
            let found = stamps.best(wanted, without, known)?;
            if !found.best.weak || wanted.patience == Patience::Fresh {
                return Some(found);
            }
            if without.len() >= WITHOUT_MAX {
                // More such scripts may follow.
                return None;
            }
            let waiting = stamps.get(found.best.place)?;
            let Some(replied) = waiting.replied.filter(|at| *at <= upto) else { return Some(found) };
            // Whether the script's arguments appear in the groups behind this one that ran before its reply.
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

    /// True if only calls of one command by one connection wait on the group's key, and as many groups follow on that
    /// key as there are other calls: calls and groups then pair up in order.
    fn each_has_its_effect(&mut self, held: &Held, found: &Candidates) -> bool {
        let Some((db, key)) = held.parts.first().and_then(|part| Some((part.db, *part.keys().first()?))) else {
            return false;
        };
        self.stamps.same_on(db, key, found).is_some_and(|waiting| {
            let others = waiting.saturating_sub(1);
            self.lookahead.count(key, &self.held, others) == others
        })
    }

    /// Names this request as the cause.
    fn name(&mut self, held: &Held, found: &Candidates, (after, latest): (Micros, Micros)) -> Cause {
        let place = found.best.place;
        let Some(waiting) = self.stamps.get(place) else {
            return self.nobody(OriginKind::Unknown, (after, latest));
        };
        let (origin, stamped) = (self.origins.of(&waiting.stamp, &held.parts), waiting.stamp.at);
        let sure = found.best.fit() >= Fit::Value && found.best.is_free();
        // A request that may have changed nothing, or has no reply yet, may have been matched with an equal effect of
        // another request. It does not prove that earlier requests of its connection have run.
        let certain = waiting.certain;
        let ran = sure && (certain || waiting.stamp.transaction || found.best.script);
        // A script's effect may be among the groups that could not be attributed. This group may then belong to another
        // script of the same client: an earlier one, a later one, or one whose stamp is still to come.
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
        // An uncertain script may already have had its effect, and this group belong to a request not known yet. Its
        // reply then proves nothing about earlier requests.
        let replied = found.replied.filter(|_| (certain || found.best.fit() >= Fit::Value) && !may_be_later);
        Cause { origin, stamped: Some(stamped), after, forwarded, to: forwarded.1, replied, sure }
    }

    /// The cause without a client. The replies to the candidates prove nothing, since another request may be the cause.
    fn nobody(&mut self, kind: OriginKind, (after, latest): (Micros, Micros)) -> Cause {
        let to = after.max(latest);
        let origin = self.origins.nobody(kind);
        Cause { origin, stamped: None, after, forwarded: (after, after), to, replied: None, sure: false }
    }

    /// True if another cause is equally possible: then no client is named.
    fn is_doubtful(&self, held: &Held, found: &Candidates, after: Micros, upto: Micros) -> bool {
        let best = &found.best;
        if best.fit() >= Fit::Value {
            return false;
        }
        let Some(waiting) = self.stamps.get(best.place) else { return true };
        let has_key = || held.has_key_of(&waiting.stamp.parts);
        // Its arguments may appear in a group that was not read yet.
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

    /// True if a group that ran after `after` may belong to a session that writes without stamps.
    fn may_be_unstamped(&self, after: Micros) -> bool {
        self.unstamped_until.is_some_and(|until| after.0 <= until.0.saturating_add(LOST_FOR))
    }

    /// True if clients could not be told apart shortly before: a request may have had its effect then.
    fn has_ties(&self, held: &Held) -> bool {
        self.is_near_tie(held.group.arrived)
    }

    /// The same for something that arrived, or was forwarded, at `at`. If the link is read late, a request from before
    /// the tie may be named long after it.
    fn is_near_tie(&self, at: Micros) -> bool {
        self.last_tie.is_some_and(|tie| at.0 - tie.0 < TIES_FOR)
    }

    /// True if a client wrote past the proxy shortly before.
    fn has_outsiders(&self, held: &Held) -> bool {
        self.last_outside.is_some_and(|at| held.group.arrived.0 - at.0 < OUTSIDERS_FOR)
    }

    /// The deletions that a script, or an expiry during a script, may have caused, by the server's counters.
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

    /// Takes `n` deletions from the server's counters, if they hold any.
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

    /// True if the group may have no request, and an equal request follows it closely.
    fn may_be_nobodys(&self, held: &Held) -> bool {
        held.only_removes() || self.has_outsiders(held)
    }

    /// Earliest reply to a request whose effect stands behind the first group: requests forwarded later are not its
    /// cause.
    fn replies_behind(&self) -> Option<Micros> {
        let cause_of = |behind: &Held| match &behind.parts[..] {
            [part] if !behind.group.atomic => self.stamps.certain(part, (Micros(0), behind.group.arrived)),
            _ => None,
        };
        self.held.iter().take(BEHIND_MAX).filter_map(|behind| cause_of(behind)?.replied).min()
    }

    /// True if no probe was sent since this group arrived and one is on its way.
    fn waits_for_probe(&mut self, group: &EffectGroup, upto: Micros) -> bool {
        let waited = upto.0 - group.arrived.0;
        // After a backward clock step the wait would otherwise last until the clock catches up.
        let waits =
            self.is_unprobed(group) && (-CLOCK_STEP..PROBE_WAIT_MAX).contains(&waited) && self.held() < HELD_MAX;
        self.want_probe |= waits;
        waits
    }

    /// True while the server's counters at the time of this group are unknown.
    fn is_unprobed(&self, group: &EffectGroup) -> bool {
        self.newest_probe.sent < group.arrived
    }

    /// The kind of a group without a request, which ran after `after`; `None` = wait for a fresh probe.
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
