//! Which writes are meant: by whom, with which command, when.
//!
//! Patterns of one kind are alternatives, all kinds must hold, and what a `!` excludes is taken off last. Groups of which the
//! cause is not known are neither certainly meant nor certainly not, where a client, a user or a command is asked for; so the
//! answer has three values. Only [`Match::Yes`] is a reason to act on a write.
//!
//! | cause of the group | client, user | command that was sent |
//! | --- | --- | --- |
//! | a client | known | known |
//! | `expiry`, `eviction` | none | none |
//! | `outside` | none: it is no client of the proxy | not known |
//! | `unknown`, with an address | the address alone is known | known |
//! | `unknown` | not known | not known |
//!
//! What has no client has no name: no `client=NAME` means it, and every `client=!NAME` does. Keys are asked about one by one
//! ([`WriteFilter::wants_key`]), as a write may touch several and the journal does not know which it touches without naming them.

use std::ops::Not;

use super::filter::Filter;
use super::name_patterns::{NamePatterns, client_names};
use crate::types::{Group, Lsn, Micros, Origin, OriginKind, Record};

/// Whether a write is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Match {
    /// It certainly is not.
    No,
    /// It cannot be told.
    Perhaps,
    /// It certainly is.
    Yes,
}

impl Match {
    /// Both must hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.min(other)
    }

    fn known(is: bool) -> Self {
        if is { Self::Yes } else { Self::No }
    }
}

impl Not for Match {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Perhaps => Self::Perhaps,
            Self::Yes => Self::No,
        }
    }
}

/// Records from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LsnRange {
    /// The first.
    pub first: Lsn,
    /// The last.
    pub last: Lsn,
}

/// The first point in time that is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// What ran at this time or later.
    Time(Micros),
    /// What stands behind this record.
    After(Lsn),
}

/// The last point in time that is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// What ran at this time or before.
    Time(Micros),
    /// What stands before this record, and the record.
    Upto(Lsn),
}

/// Causes; none wanted = all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginKinds {
    /// These, or no others.
    pub wanted: Vec<OriginKind>,
    /// Not these.
    pub unwanted: Vec<OriginKind>,
}

impl OriginKinds {
    /// Whether this cause is meant.
    pub fn wants(&self, kind: OriginKind) -> bool {
        (self.wanted.is_empty() || self.wanted.contains(&kind)) && !self.unwanted.contains(&kind)
    }
}

/// See the module. The default means every write.
#[derive(Debug, Clone, Default)]
pub struct WriteFilter {
    /// Addresses and names of clients.
    pub clients: NamePatterns,
    /// Names of users.
    pub users: NamePatterns,
    /// Commands, as they took effect or as they were sent.
    pub commands: NamePatterns,
    /// Causes.
    pub origins: OriginKinds,
    /// From when.
    pub since: Option<Since>,
    /// To when.
    pub until: Option<Until>,
    /// In one of these ranges; none = anywhere.
    pub lsns: Vec<LsnRange>,
    /// On these keys, in these databases.
    pub keys: Filter,
    /// Not on these; `None` = nothing is taken off.
    pub excluded_keys: Option<Filter>,
}

impl WriteFilter {
    /// Whether a record of a group is meant, whatever it touches.
    pub fn matches(&self, group: &Group, record: &Record) -> Match {
        self.matches_lsn(record.lsn).and(self.matches_group(group)).and(self.matches_command(group, record))
    }

    /// Whether writes to this key are meant.
    pub fn wants_key(&self, db: u32, key: &[u8]) -> bool {
        self.keys.wants(db, key) && self.excluded_keys.as_ref().is_none_or(|excluded| !excluded.wants(db, key))
    }

    /// It asks for this cause by its name.
    pub fn names_origin(&self, kind: OriginKind) -> bool {
        self.origins.wanted.contains(&kind)
    }

    /// Whether a group is meant, for the sake of its cause and its time.
    pub fn matches_group(&self, group: &Group) -> Match {
        let Group { origin, .. } = group;
        self.matches_origin(origin.kind)
            .and(self.matches_client(origin))
            .and(self.matches_user(origin))
            .and(self.matches_time(group))
    }

    fn matches_lsn(&self, lsn: Lsn) -> Match {
        let within = |range: &LsnRange| range.first <= lsn && lsn <= range.last;
        let since = !matches!(self.since, Some(Since::After(after)) if lsn <= after);
        let until = !matches!(self.until, Some(Until::Upto(upto)) if lsn > upto);
        Match::known(since && until && (self.lsns.is_empty() || self.lsns.iter().any(within)))
    }

    /// A group may have run up to its slack earlier than its time says.
    fn matches_time(&self, group: &Group) -> Match {
        let latest = group.ts;
        let earliest = Micros(latest.0.saturating_sub_unsigned(group.slack));
        let all_or_part = |all: bool, part: bool| match (all, part) {
            (true, _) => Match::Yes,
            (false, true) => Match::Perhaps,
            (false, false) => Match::No,
        };
        let since = match self.since {
            Some(Since::Time(since)) => all_or_part(earliest >= since, latest >= since),
            _ => Match::Yes,
        };
        let until = match self.until {
            Some(Until::Time(until)) => all_or_part(latest <= until, earliest <= until),
            _ => Match::Yes,
        };
        since.and(until)
    }

    fn matches_origin(&self, kind: OriginKind) -> Match {
        let OriginKinds { wanted, unwanted } = &self.origins;
        // What is not known may be of any other kind.
        if kind == OriginKind::Unknown {
            let asked = !wanted.is_empty() || !unwanted.is_empty();
            let taken_off = unwanted.contains(&kind);
            let named = wanted.contains(&kind);
            return Match::known(!taken_off).and(if asked && !named { Match::Perhaps } else { Match::Yes });
        }
        Match::known(self.origins.wants(kind))
    }

    fn matches_client(&self, origin: &Origin) -> Match {
        if self.clients.is_everything() {
            return Match::Yes;
        }
        let names: Vec<&str> = client_names(&origin.addr, &origin.name).collect();
        // Its own name may be another one, or there may be one.
        let known = origin.kind != OriginKind::Unknown;
        by_names(&self.clients, &names, known)
    }

    fn matches_user(&self, origin: &Origin) -> Match {
        if self.users.is_everything() {
            return Match::Yes;
        }
        let unknown = origin.kind == OriginKind::Unknown || origin.kind == OriginKind::Client && origin.user.is_empty();
        if unknown {
            return Match::Perhaps;
        }
        let names = [origin.user.as_str()];
        by_names(&self.users, if origin.user.is_empty() { &[] } else { &names }, true)
    }

    fn matches_command(&self, group: &Group, record: &Record) -> Match {
        if self.commands.is_everything() {
            return Match::Yes;
        }
        let Origin { kind, addr, via, .. } = &*group.origin;
        let name = record.args.first().map_or(&b""[..], |name| name);
        let name = String::from_utf8_lossy(name);
        let names = [&*name, via.as_str()];
        let names = if via.is_empty() { &names[..1] } else { &names };
        // Who sent it is not known, so that what was sent is not either.
        let sent_is_known = match kind {
            OriginKind::Client | OriginKind::Expiry | OriginKind::Eviction => true,
            OriginKind::Unknown => !addr.is_empty(),
            OriginKind::Outside => false,
        };
        by_names(&self.commands, names, sent_is_known)
    }
}

/// Whether something is meant that has these names; `all` = and certainly no others.
fn by_names(patterns: &NamePatterns, names: &[&str], all: bool) -> Match {
    if patterns.excludes(names) {
        return Match::No;
    }
    let included = patterns.includes(names);
    if all {
        return Match::known(included);
    }
    // Another name may be one that is taken off, or the one that is wanted.
    Match::known(included && !patterns.excludes_some()).max(Match::Perhaps)
}

#[cfg(test)]
#[path = "writes_tests.rs"]
mod tests;
