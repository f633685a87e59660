//! Finds last writes: whether the last write of a key, one of its elements or its TTL is a selected one.
//!
//! ```text
//! questions ─► one pass backwards over the journal, by its key filters ─► verdicts
//!              (index: which questions a record concerns; state: what each has seen so far)
//! ```
//!
//! - `state`: the state of one question.
//! - `seen`: a write that concerns a question.
//! - `expiry`: deletions by the server, which count as the write that set the expiry time.
//! - `index`: the open questions by database, key and element.
//! - `pass`: the records, from last to first.
//!
//! Questions are only about parts that differ from the beginning of the range, so they were written since.
//!
//! Invariant: a write is never attributed to the wrong client. [`Verdict::Selected`] means that without the selected
//! writes the part would be different. A write without effect (the `DEL` of an absent key, a value that a field already
//! had) does not count, and the one before it does. If it is unknown whether a write had the effect, or what caused it,
//! or if the journal is unreadable: [`Verdict::Uncertain`].
//!
//! - A command that replaces a key as a whole (`RENAME`, `COPY`, `MOVE`, `RESTORE`, `*STORE`) is the last write of all its elements.
//! - A command that empties or removes a key is the last write of the elements that were there.
//! - `SWAPDB`: the questions of both databases are exchanged. If the contents are not back in place at the end, the
//!   swap may be the last write of everything.
//! - A module's command may write anything in the keys that it names; other module commands may write that key, too, if
//!   it holds a module's value.
//! - A script that is replicated verbatim (Redis before 7.0), and every unknown command, may have written anything.
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

/// Limit of questions of one pass; a caller with more needs several passes.
pub const QUESTIONS_MAX: usize = if cfg!(test) { 1000 } else { 1 << 20 };

/// The part in a question.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// The whole value, or whether the key exists.
    Whole,
    /// A field of a hash, a member of a set or of a sorted set.
    Element(Vec<u8>),
    /// The key's TTL.
    Ttl,
}

/// A question: which write of this part was the last?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its database at the end of the range.
    pub db: u32,
    /// The key.
    pub key: Vec<u8>,
    /// The part.
    pub part: Part,
    /// Expiry time at the beginning of the range, in milliseconds since 1970; `None` = no TTL, or absent.
    pub expires_before: Option<i64>,
    /// Expiry time at the end of the range.
    pub expires_after: Option<i64>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The last write is a selected one.
    Selected {
        /// The deciding write.
        lsn: Lsn,
    },
    /// The last write is another one.
    Other {
        /// The deciding write.
        lsn: Lsn,
        /// Its origin.
        who: Arc<Origin>,
    },
    /// Unknown.
    Uncertain {
        /// The doubtful write.
        lsn: Lsn,
        /// Its origin.
        who: Arc<Origin>,
        /// The doubt.
        why: Why,
    },
    /// It was not written in this range.
    NotWritten,
}

/// Why an answer is uncertain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// The writer, or the time of the write, is unknown.
    UnknownCause,
    /// The elements that it wrote are unknown.
    MayHaveWritten,
    /// The command's effect is unknown.
    UnknownCommand,
    /// It may already have produced what a later selected write produced again.
    MayHaveBeenSo,
    /// Two databases were swapped.
    Swapped,
    /// The key expired or was deleted, and the writer of its TTL is unknown.
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
    /// One for each question, in order.
    pub verdicts: Vec<Verdict>,
    /// Cost of reading.
    pub searched: Searched,
    /// The journal was unreadable before this: questions open then are uncertain.
    pub damage: Option<ReadError>,
}

/// The range of the journal.
#[derive(Debug, Clone, Copy)]
pub struct JudgedRange<'a> {
    /// The journal.
    pub catalog: &'a Catalog,
    /// The timeline.
    pub timeline: TimelineId,
    /// The restore point.
    pub after: Lsn,
    /// The last record that the live values contain.
    pub upto: Lsn,
}

/// Answers the questions. `on_progress` receives the number of records read, from time to time.
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

/// Answers them without a selection: [`Verdict::Selected`] names the write that was certainly the last one, of any
/// client. [`Verdict::Other`] names the server's own deletion of an expired key, with an expiry time set before the
/// range.
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

/// The writes that a pass searches.
#[derive(Debug, Clone, Copy)]
struct Meant<'a> {
    filter: &'a WriteFilter,
    /// All: which write was the last?
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
