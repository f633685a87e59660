//! Decides when each group ran, once its cause is known. Pure.
//!
//! ```text
//! group explained by a request:   not before the request was forwarded: known at once
//! other group:                    … ≤ ts ≤ arrival, ≤ the replies to requests that ran after it
//! ```
//!
//! A group of the second kind therefore waits until the causes of the later groups that were answered before it arrived
//! are known. This takes one more read of the link and of the tee.
//!
//! Invariants: groups leave in the order of arrival; `ts` never goes back; a group never ran before `ts - slack`.

use std::collections::VecDeque;
use std::sync::Arc;

use redtape_journal::{Micros, Origin, ReplOffset};

use super::{Attributed, CLOCK_STEP, HELD_MAX, WAIT_MAX};
use crate::group::EffectGroup;

/// A group whose time is less certain than this, in µs, waits for the groups behind it.
const UNCERTAIN: i64 = 2_000;

/// What caused a group, and when it can have run.
#[derive(Debug)]
pub(super) struct Cause {
    pub(super) origin: Arc<Origin>,
    /// When the request was forwarded, if it was found.
    pub(super) stamped: Option<Micros>,
    /// It certainly ran after this.
    pub(super) after: Micros,
    /// Forward times of the first and the last request that may be the cause. The group ran after the first. It is
    /// dated at the last, since slack only says how much earlier it may have run.
    pub(super) forwarded: (Micros, Micros),
    /// Latest time at which it can have run, as far as known. For a named request: the forward time of the last
    /// candidate.
    pub(super) to: Micros,
    /// When the cause was answered.
    pub(super) replied: Option<Micros>,
    /// The request is nearly certain, so later groups ran after it was forwarded.
    pub(super) sure: bool,
}

impl Cause {
    /// The request is known, and so the time.
    fn is_exact(&self) -> bool {
        self.sure && self.stamped.is_some() && self.forwarded.0 == self.forwarded.1
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Dating {
    waiting: VecDeque<(EffectGroup, Cause)>,
    /// Number of the first waiting group.
    first: u64,
    /// Numbers and replies of waiting groups, ascending by reply time: the front is the earliest reply.
    replies: VecDeque<(u64, Micros)>,
    prev_ts: Micros,
    /// The next group ran after this.
    not_before: Micros,
}

impl Dating {
    /// A stream starts or resumes: nothing waits, `ts` continues from `prev_ts`.
    pub(super) fn begins(&mut self, prev_ts: Micros) {
        self.waiting.clear();
        self.replies.clear();
        self.prev_ts = self.prev_ts.max(prev_ts);
    }

    /// Later groups ran after `at`.
    pub(super) fn ran_after(&mut self, at: Micros) {
        self.not_before = self.not_before.max(at);
    }

    /// The known times belong to the clock before the step. `ts` still continues from its last value.
    pub(super) fn clock_stepped_back(&mut self) {
        self.not_before = Micros(0);
    }

    /// Number of waiting groups.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// End of the last waiting group.
    pub(super) fn last_end(&self) -> Option<ReplOffset> {
        self.waiting.back().map(|(group, _)| group.end_offset)
    }

    /// Adds a group whose cause is known.
    pub(super) fn add(&mut self, group: EffectGroup, cause: Cause) {
        if let Some(replied) = cause.replied {
            while self.replies.back().is_some_and(|(_, earlier)| *earlier >= replied) {
                self.replies.pop_back();
            }
            self.replies.push_back((self.first + self.waiting.len() as u64, replied));
        }
        self.waiting.push_back((group, cause));
    }

    /// Takes the first group if a request gives its time.
    pub(super) fn next_exact(&mut self) -> Option<Attributed> {
        let (_, cause) = self.waiting.front()?;
        let exact = cause.to <= self.not_before.max(self.prev_ts) || cause.is_exact();
        if exact { self.date() } else { None }
    }

    /// Takes the first group if waiting cannot improve its time. Everything readable at `upto` has been taken in.
    /// `all_causes_known`: no other group waits for its cause.
    pub(super) fn next(&mut self, upto: Micros, all_causes_known: bool) -> Option<Attributed> {
        let (group, cause) = self.waiting.front()?;
        let waited = upto.0 - group.arrived.0;
        // After a backward clock step the wait would otherwise last until the clock catches up.
        let over = !(-CLOCK_STEP..WAIT_MAX).contains(&waited) || self.waiting.len() >= HELD_MAX;
        // The group may have run long before it arrived. Later groups narrow that down, and usually follow closely.
        let since = self.prev_ts.max(self.not_before).max(cause.after).max(cause.forwarded.0);
        let uncertain = cause.to.0 - since.0 > UNCERTAIN;
        let known = all_causes_known && waited > 0 && (!uncertain || self.is_followed());
        if over || known { self.date() } else { None }
    }

    /// True once the reply to a request that ran after the first group is known.
    fn is_followed(&self) -> bool {
        self.replies.back().is_some_and(|(of, _)| *of > self.first)
    }

    fn date(&mut self) -> Option<Attributed> {
        let (group, cause) = self.waiting.pop_front()?;
        let number = self.first;
        self.first += 1;
        while self.replies.front().is_some_and(|(of, _)| *of <= number) {
            self.replies.pop_front();
        }
        let is_exact = cause.is_exact();
        let Cause { origin, stamped, after, forwarded: (first, last), to, sure, .. } = cause;
        self.not_before = self.not_before.max(if sure { first } else { after });
        let followed = self.replies.front().map_or(Micros(i64::MAX), |(_, replied)| *replied);
        let latest = if is_exact { last } else { last.max(to).min(followed) };
        let ts = self.prev_ts.max(self.not_before).max(latest);
        let since = self.not_before.max(first).min(ts);
        self.prev_ts = ts;
        Some(Attributed { group, ts, slack: (ts.0 - since.0).unsigned_abs(), origin, stamped })
    }
}
