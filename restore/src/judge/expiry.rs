//! What the server removed because its time had come counts as the write that set that time.
//!
//! Where the journal says `expiry`, that is so. In a transaction or a script, and where the cause is unknown, a `DEL` of one key
//! may be a client's, or the server's that found the key expired. The time that was set tells: before it, the server does
//! not remove a key, and behind it, a client finds no key to remove.

use redtape_journal::Group;
use redtape_journal::query::Match;
use redtape_wire::effect::After;

use super::seen::{Seen, by, uncertain};
use super::{Verdict, Why};

/// How far the clocks of the server and of redtape may differ.
const SKEW_MS: i64 = 1000;

/// When a removal happened, by redtape's clock, in milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct RemovedAt {
    earliest_ms: i64,
    latest_ms: i64,
}

impl RemovedAt {
    pub(super) fn of(group: &Group) -> Self {
        let latest = group.ts.0;
        Self {
            earliest_ms: latest.saturating_sub_unsigned(group.slack) / 1000 - SKEW_MS,
            latest_ms: latest / 1000 + SKEW_MS,
        }
    }

    /// Whether a key had expired then that lived until this time; `None` = it cannot be told.
    fn expired(self, until_ms: i64) -> Option<bool> {
        if until_ms <= self.earliest_ms {
            Some(true)
        } else if until_ms > self.latest_ms {
            Some(false)
        } else {
            None
        }
    }
}

/// A removal of which the cause is looked for.
#[derive(Debug, Clone)]
pub(super) struct Expired {
    pub(super) removal: Seen,
    /// `None` = the server did it, as its time had come.
    pub(super) at: Option<RemovedAt>,
    /// The end of the key's life at the beginning of the range, in milliseconds since 1970.
    pub(super) ends_before: Option<i64>,
    /// It is the key that expired, not the field.
    pub(super) key: bool,
    /// What is asked for was certainly there before.
    pub(super) proven: bool,
}

/// What a write did to the end of the life that is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum EndOfLife {
    /// It has been set.
    Until(Option<i64>),
    /// There is none then.
    Removed,
    /// It was set, if a condition was met.
    Perhaps,
}

impl EndOfLife {
    pub(super) fn of(after: After<'_>) -> Self {
        match after {
            After::Absent => Self::Removed,
            After::Until(ms) => Self::Until(Some(ms)),
            _ => Self::Until(None),
        }
    }
}

/// A verdict, or the stage in which the search goes on.
pub(super) enum Cause {
    Is(Verdict),
    /// A selected write, if what is asked for was there before.
    IfThere(Seen),
}

impl Expired {
    /// The write that set the end, or removed it.
    pub(super) fn set_by(&self, seen: &Seen, end: EndOfLife) -> Cause {
        let Some(at) = self.at else {
            return match end {
                EndOfLife::Until(_) => self.is(seen),
                EndOfLife::Removed => Cause::Is(uncertain(&self.removal, Why::CauseOfExpiry)),
                EndOfLife::Perhaps if seen.is == Match::No => self.is(seen),
                EndOfLife::Perhaps => Cause::Is(uncertain(seen, Why::CauseOfExpiry)),
            };
        };
        let expired = match end {
            EndOfLife::Until(Some(until)) => at.expired(until),
            EndOfLife::Until(None) | EndOfLife::Perhaps => None,
            EndOfLife::Removed => Some(false),
        };
        match expired {
            Some(true) => self.is(seen),
            Some(false) => self.is(&self.removal),
            // It was one of the two.
            None if seen.is == self.removal.is => self.is(seen),
            None => Cause::Is(uncertain(&self.removal, Why::CauseOfExpiry)),
        }
    }

    /// Nothing has set it since the beginning of the range.
    pub(super) fn at_the_beginning(&self) -> Verdict {
        let by_the_server = Verdict::Other { lsn: self.removal.lsn, who: self.removal.who.clone() };
        let Some(at) = self.at else { return by_the_server };
        match self.ends_before.map(|until| at.expired(until)) {
            None | Some(Some(false)) => by(&self.removal),
            Some(Some(true)) => by_the_server,
            Some(None) if self.removal.is == Match::No => by_the_server,
            Some(None) => uncertain(&self.removal, Why::CauseOfExpiry),
        }
    }

    fn is(&self, seen: &Seen) -> Cause {
        match seen.is {
            Match::Yes if !self.proven => Cause::IfThere(seen.clone()),
            _ => Cause::Is(by(seen)),
        }
    }
}
