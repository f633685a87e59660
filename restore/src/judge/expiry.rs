//! Expiry: a deletion by the server counts as the write that set the expiry time.
//!
//! With origin `expiry` this is certain. In a transaction or a script, or with an unknown origin, a `DEL` of one key
//! may be a client's, or the server's that found the key expired. The expiry time decides: before it the server does
//! not delete the key, and after it a client finds no key to delete.

use redtape_journal::Group;
use redtape_journal::query::Match;
use redtape_wire::effect::After;

use super::seen::{Seen, by, uncertain};
use super::{Verdict, Why};

/// Tolerated difference between the clocks of the server and of redtape.
const SKEW_MS: i64 = 1000;

/// Time of a deletion by redtape's clock, in milliseconds since 1970.
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

    /// Whether a key with this expiry time had expired then; `None` = unknown.
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

/// A deletion whose cause is searched.
#[derive(Debug, Clone)]
pub(super) struct Expired {
    pub(super) removal: Seen,
    /// `None` = the server did it, as the key had expired.
    pub(super) at: Option<RemovedAt>,
    /// Expiry time at the beginning of the range, in milliseconds since 1970.
    pub(super) ends_before: Option<i64>,
    /// The key expired, not the field.
    pub(super) key: bool,
    /// The part certainly existed before.
    pub(super) proven: bool,
}

/// Effect of a write on the searched expiry time.
#[derive(Debug, Clone, Copy)]
pub(super) enum EndOfLife {
    /// It set it.
    Until(Option<i64>),
    /// It removed it.
    Removed,
    /// It set it if a condition was met.
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

/// An answer, or the next stage of the search.
pub(super) enum Cause {
    Is(Verdict),
    /// A selected write, if the part existed before.
    IfThere(Seen),
}

impl Expired {
    /// The write that set or removed the expiry time.
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

    /// It was not set since the beginning of the range.
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
