//! Who wrote what last: whether the last write of a key, of one of its elements or of its TTL is one of those that are selected.
//!
//! ```text
//! questions ─► one pass backwards over the journal, by its key filters ─► verdicts
//!              (index: which questions a record concerns; state: what each has seen so far)
//! ```
//!
//! - `state`: one question on its way back.
//! - `seen`: a write, as a question sees it.
//! - `expiry`: what the server removed counts as the write that set its end.
//! - `index`: the open questions by database, key and element.
//! - `pass`: the records, from the last one to the first.
//!
//! Asked is only about what differs from what it was at the beginning of the range: so it was written since.
//!
//! Invariant: nobody is blamed for what they did not write. [`Verdict::Selected`] means that without the selected writes
//! something else would be there. What has changed nothing (the `DEL` of a key that was gone, the value that a field had already)
//! is no write, and the one before it counts. Where a write may have done it or not, where its cause is not known, where the
//! journal cannot be read: [`Verdict::Uncertain`].
//!
//! - A command that replaces a key as a whole (`RENAME`, `COPY`, `MOVE`, `RESTORE`, `*STORE`) is the last write of all its elements.
//! - A command that empties or removes a key is the last write of the elements that were there.
//! - `SWAPDB`: the questions of both databases change places. Where the contents are not back in their places, it may have been
//!   the last write of everything.
//! - A command of a module may write anything of the keys that it names; other commands of modules may write that key, too, where
//!   it holds a module's value.
//! - A script that stands in the stream as it is (Redis before 7.0), and every command that is not known, may have written anything.
//!
//! Memory: the questions, which the caller holds, and about 400 bytes for each of at most [`QUESTIONS_MAX`].

mod expiry;
mod index;
mod pass;
mod seen;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use redtape_journal::query::WriteFilter;
use redtape_journal::{Catalog, Lsn, Origin, ReadError, Searched, TimelineId};

use crate::error::RestoreError;
use crate::interrupt::Interrupt;

/// Questions of one pass; with more, the caller asks in several.
pub const QUESTIONS_MAX: usize = if cfg!(test) { 1000 } else { 1 << 20 };

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// The value as a whole, whether there is a key at all.
    Whole,
    /// A field of a hash, a member of a set or of a sorted set.
    Element(Vec<u8>),
    /// The key's TTL.
    Ttl,
}

/// Which write was the last one of this?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Database, at the end of the range.
    pub db: u32,
    /// The key.
    pub key: Vec<u8>,
    /// What of it.
    pub part: Part,
    /// When the key was to expire at the beginning of the range, in milliseconds since 1970; `None` = it had no TTL, or was
    /// not there.
    pub expires_before: Option<i64>,
    /// The same at the end of the range.
    pub expires_after: Option<i64>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A selected write was the last one.
    Selected {
        /// The write that decided.
        lsn: Lsn,
    },
    /// Another write was.
    Other {
        /// The write that decided.
        lsn: Lsn,
        /// Whose it is.
        who: Arc<Origin>,
    },
    /// It cannot be told.
    Uncertain {
        /// The write that is in doubt.
        lsn: Lsn,
        /// Whose it is.
        who: Arc<Origin>,
        /// What is in doubt.
        why: Why,
    },
    /// Nothing has written it in this range.
    NotWritten,
}

/// Why a verdict is uncertain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// Who wrote it is not known, or when.
    UnknownCause,
    /// It is not said which elements it wrote.
    MayHaveWritten,
    /// What it writes is not known.
    UnknownCommand,
    /// It may have left already what a selected write left behind it.
    MayHaveBeenSo,
    /// Two databases changed places.
    Swapped,
    /// The key expired, or was deleted, and who set its TTL is not known.
    CauseOfExpiry,
    /// The journal cannot be read before this record.
    Unreadable,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownCause => "it is unknown whether this write is one of the selected ones",
            Self::MayHaveWritten => "this command may have written it, or other elements of the key",
            Self::UnknownCommand => "the keys that this command writes are unknown",
            Self::MayHaveBeenSo => "this command may have left it so before a write that is meant did",
            Self::Swapped => "this command exchanged two databases",
            Self::CauseOfExpiry => "the key may have expired here, and it is not certain whose TTL that was",
            Self::Unreadable => "the journal cannot be read before this record",
        })
    }
}

/// The answers.
#[derive(Debug)]
pub struct Judged {
    /// One for each question, in their order.
    pub verdicts: Vec<Verdict>,
    /// What reading has cost.
    pub searched: Searched,
    /// The journal could not be read farther back: what was open then is uncertain.
    pub damage: Option<ReadError>,
}

/// The range of the journal that is asked about.
#[derive(Debug, Clone, Copy)]
pub struct JudgedRange<'a> {
    /// The journal.
    pub catalog: &'a Catalog,
    /// In which history.
    pub timeline: TimelineId,
    /// The restore point.
    pub after: Lsn,
    /// The record up to which the live values hold everything.
    pub upto: Lsn,
}

/// Answers the questions. `on_progress` gets how many records were passed, now and then.
pub fn judge(
    range: JudgedRange<'_>,
    questions: &[Question],
    filter: &WriteFilter,
    interrupt: &Interrupt,
    on_progress: &mut dyn FnMut(u64),
) -> Result<Judged, RestoreError> {
    check_count(questions)?;
    pass::run(range, questions, &Meant { filter, any_writer: false }, interrupt, on_progress)
}

/// Answers them for all writes: [`Verdict::Selected`] names the write that was certainly the last one, of any client.
/// [`Verdict::Other`] names the server's own removal of what had expired, by a time that was set before the range.
pub fn last_writes(
    range: JudgedRange<'_>,
    questions: &[Question],
    interrupt: &Interrupt,
    on_progress: &mut dyn FnMut(u64),
) -> Result<Judged, RestoreError> {
    check_count(questions)?;
    let filter = WriteFilter::default();
    pass::run(range, questions, &Meant { filter: &filter, any_writer: true }, interrupt, on_progress)
}

/// Which writes a pass is about.
#[derive(Debug, Clone, Copy)]
struct Meant<'a> {
    filter: &'a WriteFilter,
    /// All are: asked is which of them was the last.
    any_writer: bool,
}

fn check_count(questions: &[Question]) -> Result<(), RestoreError> {
    if questions.len() > QUESTIONS_MAX {
        let count = questions.len();
        return Err(RestoreError::Unable(format!(
            "{count} parts of keys differ, and the last writes of {QUESTIONS_MAX} at most are looked for at once: choose fewer keys with --key"
        )));
    }
    Ok(())
}
