//! State of the target before a write, kept before the write is sent.

use redtape_journal::undo_file::EntryNumber;

use crate::error::RestoreError;
use crate::values::digest::Digest;
use crate::values::merge::Element;

/// Earlier state of one part of the target. `written`: what the write stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Before<'a> {
    /// The key did not exist.
    Absent { key: &'a [u8], written: Digest },
    /// The key held this value.
    Value { key: &'a [u8], expires_ms: i64, dump: &'a [u8], written: Option<Digest> },
    /// The element did not exist.
    ElementAbsent { key: &'a [u8], written: &'a Element },
    /// The element had this value; `written` is `None` if it is removed.
    Element { key: &'a [u8], was: &'a Element, written: Option<&'a Element> },
    /// Only the expiry time changes.
    Ttl { key: &'a [u8], expires_ms: i64, written_ms: i64 },
    /// The function library had this code; `None` = it did not exist.
    Library { name: &'a [u8], code: Option<&'a [u8]>, written: Digest },
    /// The key is renamed to `temporary`; its value follows in a later entry. `written` is `None` if nothing replaces
    /// it.
    Moved { key: &'a [u8], temporary: &'a [u8], written: Option<Digest> },
}

/// The earlier state of a key for a write that may or may not have been made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Doubt {
    Absent,
    Value(Vec<u8>),
    /// Elements or the expiry time: each is compared before it is set.
    Part,
}

/// First and last number of consecutive entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Added {
    pub(crate) first: EntryNumber,
    pub(crate) last: EntryNumber,
}

/// Stores what was there before each write, so that a restore can be undone and resumed after an interruption.
pub(crate) trait UndoLog {
    /// Adds the earlier state of a part. It is durable only after [`Self::sync`].
    fn add(&mut self, db: u32, before: &Before<'_>) -> Result<EntryNumber, RestoreError>;
    /// Makes all added entries durable.
    fn sync(&mut self) -> Result<(), RestoreError>;
    /// The write was refused, or a client's write came first: the entry does not belong to this operation.
    fn not_written(&mut self, entry: EntryNumber) -> Result<(), RestoreError>;
    /// The entries added since the last call, or since [`Self::done`]. The caller reports later that they are done.
    fn take_added(&mut self) -> Option<Added>;
    /// The writes of these entries were confirmed by the target, or withdrawn with [`Self::not_written`].
    fn are_done(&mut self, added: Added) -> Result<(), RestoreError>;
    /// As [`Self::are_done`], for all added entries.
    fn done(&mut self) -> Result<(), RestoreError> {
        self.take_added().map_or(Ok(()), |added| self.are_done(added))
    }
    /// True if an interrupted run has written this key and seen it confirmed.
    fn is_done(&self, db: u32, key: &[u8]) -> bool;
    /// State of the key before a write of an interrupted run that may have been made.
    fn doubt(&self, db: u32, key: &[u8]) -> Option<&Doubt>;
}
