//! Slicing: a restore reads and replays only the records on which the wanted keys depend.
//!
//! ```text
//! wanted keys at T ─► backwards through the journal: which records, and which keys are needed before them ─► needed keys of the base
//! ```
//!
//! - `needed`: which keys are needed at a position of the backward pass.
//! - `pass`: the backward pass over the journal.
//! - `part_records`: reads the parts of the journal for the pass, with several threads.
//! - `plain_set`: the most frequent record.
//! - `hashed`, `key_table`: notes on many keys.
//! - `kept`: the kept records, and how they are read again.
//! - `fold`: records whose keys are put into the RDB that is sent first, instead of being replayed.
//! - `lsns`: a set of LSNs.
//! - `base`: the needed keys of the base, as an RDB of their own.
//! - `indexed`: the same, with the base's key index.
//!
//! Invariant: the replay of the kept records on the kept keys leaves each wanted key exactly as the replay of
//! everything does. By induction, backwards: a kept record finds each key that it reads or modifies unchanged
//! ([`redtape_wire::effect::dependence()`]), so it has the same effect; a record that is left out changes no key that
//! is needed after it. If that is uncertain, everything before is kept ([`Forced`]).

pub(crate) mod base;
mod fold;
mod hashed;
pub(crate) mod indexed;
mod kept;
mod key_table;
mod lsns;
pub(crate) mod needed;
mod part_records;
mod pass;
mod plain_set;

use std::fmt;

use redtape_journal::Lsn;

pub(crate) use fold::Fold;
pub(crate) use kept::{Kept, KeptRange};
pub use lsns::Lsns;
pub(crate) use needed::Needed;
pub(crate) use pass::{Sliced, Watch, command_name, slice};
use serde::Serialize;

/// Why everything up to an LSN is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forced {
    /// Everything up to here is replayed, this record included.
    pub lsn: Lsn,
    /// Why, in words.
    pub reason: String,
}

/// Result of slicing, for the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SliceReport {
    /// Records between the base and the restore point.
    pub records_in_all: u64,
    /// Of these, records that are kept: replayed or folded.
    pub records_kept: u64,
    /// Of these, records that are not replayed: the RDB that is sent first contains their effect.
    pub records_folded: u64,
    /// Keys taken from the base; `None` = all.
    pub base_keys: Option<u64>,
    /// Why everything up to an LSN is kept, if it is.
    pub forced: Option<Forced>,
    /// Bytes of the journal read during slicing.
    pub journal_bytes_read: u64,
    /// Bytes of the journal that were not read.
    pub journal_bytes_skipped: u64,
    /// Bytes of the base that were read to find the keys; 0 = none of its keys is needed.
    pub base_bytes_read: u64,
    /// How the keys of the base were found; `None` = none of its keys is needed.
    pub base_search: Option<BaseSearch>,
}

/// How the needed keys of a base are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseSearch {
    /// Each is looked up in the key index.
    KeyIndex,
    /// The ranges of the key index in which they lie are read.
    KeyRanges,
    /// All of the base is read.
    WholeBase,
}

impl fmt::Display for SliceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} records", self.records_kept, self.records_in_all)?;
        if self.records_folded > 0 {
            write!(f, ", {} of them loaded as values", self.records_folded)?;
        }
        f.write_str("; ")?;
        match self.base_keys {
            None => f.write_str("the whole base")?,
            Some(1) => f.write_str("1 key of the base")?,
            Some(keys) => write!(f, "{keys} keys of the base")?,
        }
        match self.base_search.filter(|_| self.base_keys.is_some()) {
            None => {}
            Some(BaseSearch::KeyIndex) => f.write_str(", by its key index")?,
            Some(BaseSearch::KeyRanges) => f.write_str(", by ranges of its key index")?,
            Some(BaseSearch::WholeBase) => f.write_str(", by reading all of it")?,
        }
        let read = self.journal_bytes_read + self.base_bytes_read;
        write!(f, "; {read} bytes read to find that out, {} of the journal not read", self.journal_bytes_skipped)?;
        if let Some(Forced { lsn, reason }) = &self.forced {
            write!(f, "; everything up to LSN {lsn} is replayed: {reason}")?;
        }
        Ok(())
    }
}
