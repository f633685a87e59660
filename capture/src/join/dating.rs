//! When groups ran, once it is known what caused them. Pure.
//!
//! ```text
//! the time of a group that a request explains:  not before it was forwarded: known
//! of another:                                   … ≤ ts ≤ arrived, ≤ the replies to what ran behind it
//! ```
//!
//! So a group of the second kind waits until the causes of those behind it are known that were answered before it arrived. They follow
//! at once: the link is read once more, and the workers have told what they knew.
//!
//! Invariants: groups leave in the order in which they came; `ts` never goes back; the group certainly did not run before
//! `ts - slack`.

use std::collections::VecDeque;
use std::sync::Arc;

use redtape_journal::{Micros, Origin, ReplOffset};

use super::{Attributed, CLOCK_STEP, HELD_MAX, WAIT_MAX};
use crate::group::EffectGroup;

/// A group whose time is less certain than this, in µs, waits for what runs behind it.
const UNCERTAIN: i64 = 2_000;

/// What caused a group, and when it can have run.
#[derive(Debug)]
pub(super) struct Cause {
    pub(super) origin: Arc<Origin>,
    /// When the request was forwarded, if it was found.
    pub(super) stamped: Option<Micros>,
    /// It certainly ran after this.
    pub(super) after: Micros,
    /// When the first and the last of the requests that may be the cause were forwarded. It ran after the first; it is dated at the
    /// last, since slack only says how much earlier it may have run.
    pub(super) forwarded: (Micros, Micros),
    /// It ran before this, as far as is known. Where a request is named, this is when the last of those was forwarded.
    pub(super) to: Micros,
    /// What caused it was answered by then.
    pub(super) replied: Option<Micros>,
    /// There is hardly a doubt about the request: what comes behind ran after it was forwarded.
    pub(super) sure: bool,
}

impl Cause {
    /// It is clear which request it is, and so when it ran.
    fn is_exact(&self) -> bool {
        self.sure && self.stamped.is_some() && self.forwarded.0 == self.forwarded.1
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Dating {
    waiting: VecDeque<(EffectGroup, Cause)>,
    /// Number of the first that waits.
    first: u64,
    /// Numbers and replies of those that wait, each earlier than all behind it: the front is the earliest reply of all.
    replies: VecDeque<(u64, Micros)>,
    prev_ts: Micros,
    /// The next group certainly ran after this.
    not_before: Micros,
}

impl Dating {
    /// A stream begins or goes on: nothing waits, `ts` continues from `prev_ts`.
    pub(super) fn begins(&mut self, prev_ts: Micros) {
        self.waiting.clear();
        self.replies.clear();
        self.prev_ts = self.prev_ts.max(prev_ts);
    }

    /// What comes ran after this.
    pub(super) fn ran_after(&mut self, at: Micros) {
        self.not_before = self.not_before.max(at);
    }

    /// Times that are known are of another clock. `ts` goes on from where it is all the same.
    pub(super) fn clock_stepped_back(&mut self) {
        self.not_before = Micros(0);
    }

    /// Groups that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The end of the last group that waits.
    pub(super) fn last_end(&self) -> Option<ReplOffset> {
        self.waiting.back().map(|(group, _)| group.end_offset)
    }

    /// A group whose cause is known.
    pub(super) fn add(&mut self, group: EffectGroup, cause: Cause) {
        if let Some(replied) = cause.replied {
            while self.replies.back().is_some_and(|(_, earlier)| *earlier >= replied) {
                self.replies.pop_back();
            }
            self.replies.push_back((self.first + self.waiting.len() as u64, replied));
        }
        self.waiting.push_back((group, cause));
    }

    /// The first group, if a request says when it ran.
    pub(super) fn next_exact(&mut self) -> Option<Attributed> {
        let (_, cause) = self.waiting.front()?;
        let exact = cause.to <= self.not_before.max(self.prev_ts) || cause.is_exact();
        if exact { self.date() } else { None }
    }

    /// The first group, if its time will not become better known. All that could be read at `upto` was taken in;
    /// `all_causes_known`: no other group waits for its cause.
    pub(super) fn next(&mut self, upto: Micros, all_causes_known: bool) -> Option<Attributed> {
        let (group, cause) = self.waiting.front()?;
        let waited = upto.0 - group.arrived.0;
        // A clock that stepped back since would hold it until it is there again.
        let over = !(-CLOCK_STEP..WAIT_MAX).contains(&waited) || self.waiting.len() >= HELD_MAX;
        // Where it may have run long before it came, what runs behind it will tell more, and is hardly far behind.
        let since = self.prev_ts.max(self.not_before).max(cause.after).max(cause.forwarded.0);
        let uncertain = cause.to.0 - since.0 > UNCERTAIN;
        let known = all_causes_known && waited > 0 && (!uncertain || self.is_followed());
        if over || known { self.date() } else { None }
    }

    /// The reply to something that ran behind the first group is known.
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
