//! Effects of a mistake: the selected writes, the keys that depend on them, and later writes that depend on those.
//!
//! ```text
//! filter ─► one pass forward over the journal ─► selected writes │ affected keys │ dependents │ what cannot be judged
//!           (record: what one record does; databases: what is affected so far; selected: what is told of the mistake)
//! ```
//!
//! - **Selected**: records that certainly match and write a selected key. Deletions of expired keys by the server do
//!   not count, unless `origin=expiry` selects them: they are recorded separately ([`Mistake::expiries`]).
//! - **Affected**: selected keys written by a selected record, and every key that a later record derived from an
//!   affected one. A `FLUSHALL` affects every selected key.
//! - **Dependents**: later writes of others to affected keys that may have had another result without the mistake:
//!   their request read ([`redtape_wire::effect::reading()`]), or is unknown. A later blind overwrite does not remove
//!   them: a part that is the same with and without the mistake is never looked up.
//! - **Not judged**: commands that may have read or written more than their arguments show.
//!
//! Invariant: the sets of affected keys and dependents may be too large, never too small. Only differences are
//! repaired, so an additional affected key costs only time.
//!
//! Not detected: requests that did nothing because of the mistake (they are not recorded), what an application read
//! before it wrote, and what a script read without writing it.
//!
//! Memory: bounded by [`Bounds`].

mod affected;
mod bounds;
mod building;
mod databases;
mod dependents;
mod ends;
mod pass;
mod record;
mod selected;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use redtape_journal::{Group, Lsn, Micros, Origin, OriginKind};

pub use affected::Affected;
pub use bounds::Bounds;
pub use pass::{MistakeRange, find};

use crate::slice::Lsns;
use crate::target::claim;

/// Which writes belong to the mistake.
#[derive(Debug, Clone, Copy)]
pub struct Meant<'a> {
    /// Those that certainly match.
    pub filter: &'a redtape_journal::query::WriteFilter,
    /// Also those with unknown origin or uncertain time.
    pub include_unknown: bool,
    /// Earlier undos.
    pub earlier: &'a Earlier,
}

/// Earlier undos: their records and redtape's own writes for them are left out too.
#[derive(Debug, Default)]
pub struct Earlier {
    /// The records that were undone.
    pub records: Lsns,
    /// The first of them.
    pub first: Option<Lsn>,
    /// Times of redtape's writes, widened by the clock uncertainty.
    pub written: Vec<(Micros, Micros)>,
    /// Some records are older than what can be replayed, and are not left out.
    pub too_old: bool,
}

impl Earlier {
    /// True if redtape wrote this for an earlier undo.
    fn wrote(&self, group: &Group) -> bool {
        let origin = &group.origin;
        origin.kind == OriginKind::Client
            && origin.name.starts_with(claim::NAME)
            && self.written.iter().any(|(from, until)| *from <= group.ts && group.ts <= *until)
    }
}

/// What was found.
#[derive(Debug)]
pub struct Mistake {
    /// The selected writes.
    pub selected: Selected,
    /// Writes that may match and are not selected.
    pub doubtful: Samples,
    /// The keys that depend on the selected writes, and what was built on them.
    pub affected: Affected,
    /// Commands that cannot be judged.
    pub not_judged: Samples,
    /// Records of the server's deletions of expired affected keys or fields.
    pub expiries: Lsns,
    /// Records of earlier undos, which are left out as well.
    pub earlier: Lsns,
    /// Records of redtape's own writes to affected keys: a restore, an undo, or the undo of an undo.
    pub by_redtape: Lsns,
}

/// The selected writes.
#[derive(Debug, Default)]
pub struct Selected {
    /// Their records.
    pub lsns: Lsns,
    /// Of these, those that also write keys outside the selection.
    pub also_others: Lsns,
    /// The first ones.
    pub samples: Samples,
    /// The first and the last, with their times.
    pub span: Option<(At, At)>,
    /// How many each client wrote, most first.
    pub clients: Vec<(Writer, u64)>,
    /// Writes of clients beyond the limit of the list.
    pub by_other_clients: u64,
    /// Of all, those selected despite uncertain origin or time.
    pub in_doubt: u64,
}

/// A place in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The record.
    pub lsn: Lsn,
    /// When it ran.
    pub ts: Micros,
}

/// A client, as the journal names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Writer {
    /// `ip:port`.
    pub addr: String,
    /// As it called itself.
    pub name: String,
    /// Its user.
    pub user: String,
}

/// Some records, for a person.
#[derive(Debug, Default)]
pub struct Samples {
    /// How many there are.
    pub count: u64,
    /// The first ones.
    pub first: Vec<Sample>,
}

/// A record, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Where it stands.
    pub at: At,
    /// Whose it is.
    pub who: Arc<Origin>,
    /// Its database.
    pub db: u32,
    /// What it did, shortened.
    pub command: String,
    /// What there is to say of it.
    pub why: Option<Why>,
}

/// Remarks about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// Its request reads.
    Reads,
    /// Its request may have had a condition that is not replicated.
    MayRead,
    /// The commands and watched keys of its transaction are unknown.
    Transaction,
    /// Its client, and so its request, is unknown.
    NoClient,
    /// It is replicated verbatim, and may read anything.
    ReadsAnything,
    /// A module's command may access more keys than it names.
    Module,
    /// It may be the server's deletion of an expired key.
    MayBeExpiry,
    /// It reads a key outside the selection, which the undone write may have written, too.
    Partly,
    /// It changes function libraries.
    Functions,
}

/// A later write that may have had another result without the mistake.
pub type Dependent = Sample;

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reads => "its request depends on what was there",
            Self::MayRead => "its request may have had a condition, which the server does not pass on",
            Self::Transaction => "the commands and watched keys of this transaction are unknown",
            Self::NoClient => "its client is unknown, and so is its request",
            Self::ReadsAnything => "it may have read and written anything",
            Self::Partly => "it reads a key that is not selected, whose wrong value stays",
            Self::Functions => "functions are not undone: load the library again, or see redtape restore",
            Self::Module => "a command of a module may touch more keys than it names",
            Self::MayBeExpiry => "it may be that the server removed the key as its time had come",
        })
    }
}
