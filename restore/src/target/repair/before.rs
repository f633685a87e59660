//! What was there before a write: kept before the write is sent.

use redtape_journal::undo_file::EntryNumber;

use crate::error::RestoreError;
use crate::values::digest::Digest;
use crate::values::merge::Element;

/// One part of the target as it was. `written`: what the write puts there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Before<'a> {
    /// The key did not exist.
    Absent { key: &'a [u8], written: Digest },
    /// It held this.
    Value { key: &'a [u8], expires_ms: i64, dump: &'a [u8], written: Option<Digest> },
    /// An element of it did not exist.
    ElementAbsent { key: &'a [u8], written: &'a Element },
    /// It was this one; `written` is `None` where it is removed.
    Element { key: &'a [u8], was: &'a Element, written: Option<&'a Element> },
    /// Only the time of expiry was another one.
    Ttl { key: &'a [u8], expires_ms: i64, written_ms: i64 },
    /// The function library had this code; `None` = there was none.
    Library { name: &'a [u8], code: Option<&'a [u8]>, written: Digest },
    /// The key is renamed to this name, and what it holds will follow. `written` is `None` where nothing takes its place.
    Moved { key: &'a [u8], temporary: &'a [u8], written: Option<Digest> },
}

/// What a key was before a write of which it is not known whether it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Doubt {
    Absent,
    Value(Vec<u8>),
    /// Elements or the time of expiry: each is compared before it is set.
    Part,
}

/// Entries one behind the other: the first and the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Added {
    pub(crate) first: EntryNumber,
    pub(crate) last: EntryNumber,
}

/// Keeps what was there before, so that a restore can be undone, and goes on where it was interrupted.
pub(crate) trait UndoLog {
    /// Adds what was there in a database. Nothing is sure before [`Self::sync`].
    fn add(&mut self, db: u32, before: &Before<'_>) -> Result<EntryNumber, RestoreError>;
    /// All that was added is on the disk.
    fn sync(&mut self) -> Result<(), RestoreError>;
    /// The write was refused, or a client came in between: what was added for it is none of this operation's.
    fn not_written(&mut self, entry: EntryNumber) -> Result<(), RestoreError>;
    /// What was added since this was asked last, or since [`Self::done`]: the caller says later that it is done.
    fn take_added(&mut self) -> Option<Added>;
    /// The writes of all these were seen in the target, or [`Self::not_written`].
    fn are_done(&mut self, added: Added) -> Result<(), RestoreError>;
    /// The same of all that was added.
    fn done(&mut self) -> Result<(), RestoreError> {
        self.take_added().map_or(Ok(()), |added| self.are_done(added))
    }
    /// An interrupted run has written this key, and seen it in the target.
    fn is_done(&self, db: u32, key: &[u8]) -> bool;
    /// What the key was before a write of an interrupted run that may have been made.
    fn doubt(&self, db: u32, key: &[u8]) -> Option<&Doubt>;
}
