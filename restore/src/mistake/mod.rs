//! What a mistake has touched: the selected writes, the keys that depend on them, and what others built on them.
//!
//! ```text
//! filter ─► one pass forward over the journal ─► selected writes │ affected keys │ dependents │ what cannot be judged
//!           (record: what one record does; databases: what is affected so far; selected: what is told of the mistake)
//! ```
//!
//! - **Selected**: records that are certainly meant and write a key that is meant. What the server removed as its time had come is
//!   none of them, unless `origin=expiry` asks for it by name: it is noted beside them ([`Mistake::expiries`]).
//! - **Affected**: the keys that are meant and were written by a selected record; and forward from there, every key that a later
//!   record has made of an affected one. A `FLUSHALL` affects every key that is meant.
//! - **Dependents**: later writes of others to affected keys that may have ended in another way without the mistake: their request
//!   read ([`redtape_wire::effect::reading()`]), or nobody knows their request. A blind overwrite behind them does not take them
//!   away: a part that is the same with and without the mistake is never asked about.
//! - **Not judged**: commands that may have read or written more than they say.
//!
//! Invariant: too much may be affected, and too much a dependent, never too little. Only differences are repaired, so an affected
//! key too many costs time alone.
//!
//! Not seen: requests that did nothing because of the mistake (they stand in no journal), what an application read before it wrote,
//! and what a script read without writing it.
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

/// Which writes are taken for the mistake.
#[derive(Debug, Clone, Copy)]
pub struct Meant<'a> {
    /// Those that are certainly meant.
    pub filter: &'a redtape_journal::query::WriteFilter,
    /// Those as well of which the origin is not known, and those of which only the time is in doubt.
    pub include_unknown: bool,
    /// What was undone before.
    pub earlier: &'a Earlier,
}

/// What was undone before: it is left out as well, with what redtape wrote for it.
#[derive(Debug, Default)]
pub struct Earlier {
    /// The records that were undone.
    pub records: Lsns,
    /// The first of them.
    pub first: Option<Lsn>,
    /// When redtape wrote for it, with the doubt of clocks.
    pub written: Vec<(Micros, Micros)>,
    /// Some of it reaches back behind what can be replayed, and is not left out.
    pub too_old: bool,
}

impl Earlier {
    /// Redtape wrote this for an earlier undo.
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
    /// Writes that may be meant, and are not selected.
    pub doubtful: Samples,
    /// The keys that depend on the selected writes, and what was built on them.
    pub affected: Affected,
    /// Commands that cannot be judged.
    pub not_judged: Samples,
    /// Records by which the server removed affected keys, or fields of them, as their time had come.
    pub expiries: Lsns,
    /// Records that an earlier undo concerns, and which are left out as well.
    pub earlier: Lsns,
    /// Records by which redtape itself has written affected keys: a restore, an undo, or what put one of these back.
    pub by_redtape: Lsns,
}

/// The selected writes.
#[derive(Debug, Default)]
pub struct Selected {
    /// Their records.
    pub lsns: Lsns,
    /// Of these, those that also write keys which are not meant.
    pub also_others: Lsns,
    /// The first ones.
    pub samples: Samples,
    /// The first and the last, with their times.
    pub span: Option<(At, At)>,
    /// How many each client wrote, most first.
    pub clients: Vec<(Writer, u64)>,
    /// Those of clients that were too many to be listed.
    pub by_other_clients: u64,
    /// Of all, those that are selected though their origin or their time is in doubt.
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

/// What there is to say of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// Its request reads.
    Reads,
    /// Its request may have had a condition that the server does not pass on.
    MayRead,
    /// What was sent between `MULTI` and `EXEC` is not known, nor what its client watched.
    Transaction,
    /// Its client is not known, so that its request is not either.
    NoClient,
    /// It stands in the journal as it was sent, and may read anything.
    ReadsAnything,
    /// A command of a module may touch more keys than it names.
    Module,
    /// It may be the server's, as the key's time had come.
    MayBeExpiry,
    /// It reads a key that is not meant, and the selected write which is left out may have written that, too.
    Partly,
    /// It changes libraries of functions.
    Functions,
}

/// A later write that may have ended in another way without the mistake.
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
