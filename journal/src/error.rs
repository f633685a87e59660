//! The errors of the journal: one enum for each operation that callers must tell apart.
//!
//! Damage always says file, offset, what was expected, what was found, and which LSNs and times are
//! affected ([`Span`]), so that a person can decide whether the rest is enough.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::crypto::KeyFault;
use crate::files::{Failure, FileKind};
use crate::types::{Lsn, Micros};

/// The LSNs and times that a piece of damage affects, as far as they are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First LSN affected.
    pub from_lsn: Lsn,
    /// Last LSN affected; `None` = not known.
    pub to_lsn: Option<Lsn>,
    /// Nothing before this time is affected.
    pub from_ts: Micros,
    /// Nothing after this time is affected; `None` = not known.
    pub to_ts: Option<Micros>,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LSN {} to ", self.from_lsn)?;
        match self.to_lsn {
            Some(lsn) => write!(f, "{lsn}")?,
            None => f.write_str("?")?,
        }
        // Before the first group of a journal there is no time.
        if self.from_ts == Micros(0) {
            f.write_str(", the beginning to ")?;
        } else {
            write!(f, ", {} to ", self.from_ts)?;
        }
        match self.to_ts {
            Some(ts) => write!(f, "{ts}"),
            None => f.write_str("?"),
        }
    }
}

/// Bytes that are not what the format says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found}")]
pub struct Damage {
    /// What the format asks for at this place.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl Damage {
    pub(crate) fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { expected: expected.into(), found: found.into() }
    }
}

/// Why a journal directory can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory holds something else.
    #[error(
        "{} is not a journal: it holds {found} but no `meta`; choose an empty or a new directory",
        dir.display()
    )]
    NotAJournal {
        /// The directory.
        dir: PathBuf,
        /// What is in it.
        found: String,
    },
    /// Nothing is there to be read.
    #[error("there is no journal at {}; give --from DIR", dir.display())]
    NoJournal {
        /// The directory, which is empty or does not exist.
        dir: PathBuf,
    },
    /// It was written by a newer version.
    #[error(
        "{} has journal format {found}, this program reads up to {supported}; use a newer redtape",
        file.display()
    )]
    NewerFormat {
        /// The file that says so.
        file: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest that this program knows.
        supported: u32,
    },
    /// Another process writes to it.
    #[error(
        "{} is in use by {}; stop that process or choose another directory",
        dir.display(),
        pid.map_or_else(|| "another process".to_owned(), |p| format!("process {p}"))
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The process, if it has written its id.
        pid: Option<u32>,
    },
    /// Damage that is not a torn tail. Nothing was changed.
    #[error(
        "{} is corrupt at offset {offset} ({span}): {damage}; `redtape journal verify` shows all damage, `redtape journal repair` saves what is left",
        file.display()
    )]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What it affects.
        span: Span,
        /// Expected and found.
        damage: Box<Damage>,
    },
    /// It can't be decrypted.
    #[error("cannot decrypt {}: {fault}", file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// Why.
        fault: KeyFault,
    },
    /// Something that is no file or folder of a journal has the name of one. It was not opened.
    #[error("{} is {found}, not {wanted}; move it away", file.display())]
    WrongKind {
        /// Its path.
        file: PathBuf,
        /// What it is.
        found: FileKind,
        /// What a journal has there.
        wanted: FileKind,
    },
    /// A sync failed. What was written before may be on no disk although it can be read, and a later sync may succeed
    /// without writing it: see [`OpenError::leaves_doubt`].
    #[error("cannot {action} {}: a sync failed: {source}", path.display())]
    Sync {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

impl OpenError {
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |error| match Failure::from(error) {
            Failure::WrongKind { found, wanted } => Self::WrongKind { file: path, found, wanted },
            Failure::Sync(source) => Self::Sync { action, path, source },
            Failure::Io(source) => Self::Io { action, path, source },
        }
    }

    /// After it, what can be read of the journal may be on no disk: a sync has failed. Nothing may be built on the end of
    /// the journal, even if the next opening succeeds.
    pub fn leaves_doubt(&self) -> bool {
        matches!(self, Self::Sync { .. })
    }
}

/// Why a group can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes are damaged.
    #[error("{} is corrupt at offset {offset} ({span}): {damage}", file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What it affects.
        span: Span,
        /// Expected and found.
        damage: Box<Damage>,
    },
    /// A block is stored in a way that this program doesn't know.
    #[error(
        "{} at offset {offset} (LSN {lsn}): block codec {codec} is unknown; use a newer redtape",
        file.display()
    )]
    UnknownCodec {
        /// The file.
        file: PathBuf,
        /// Where the block begins.
        offset: u64,
        /// First LSN in it.
        lsn: Lsn,
        /// The codec's number.
        codec: u8,
    },
    /// The file system refused.
    #[error("cannot read {} at offset {offset} (LSN {lsn}): {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// First LSN that was wanted.
        lsn: Lsn,
        /// The cause.
        source: std::io::Error,
    },
    /// It can't be decrypted.
    #[error("cannot decrypt {}: {fault}", file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// Why.
        fault: KeyFault,
    },
    /// The journal doesn't have this timeline.
    #[error("the journal has no timeline {0}")]
    NoTimeline(crate::types::TimelineId),
}

/// A group that the format can't hold, or that doesn't fit into the block any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a group of {bytes} bytes exceeds the limit of {limit}")]
pub struct GroupTooLarge {
    /// Its encoded size, or an upper bound of it.
    pub bytes: u64,
    /// What is possible.
    pub limit: u64,
}

/// Why the writer didn't take something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// More than `MAX_QUEUED_BYTES` are waiting; only from `try_submit`.
    #[error("the journal's queue is full")]
    Full,
    /// `close` was called.
    #[error("the journal is closed")]
    Closed,
    /// A write or sync failed earlier; the writer is finished until the journal is opened again.
    #[error("the journal writer has stopped: {0}")]
    Failed(String),
}

/// Why a mark or a snapshot couldn't be stored.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct StoreError {
    /// What was tried.
    pub action: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// The cause.
    pub source: std::io::Error,
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self { action, path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_the_first_group_there_is_no_time() {
        let span = Span { from_lsn: Lsn(1), ..Span::default() };
        assert_eq!(span.to_string(), "LSN 1 to ?, the beginning to ?");
        let span = Span { from_ts: Micros(1), ..span };
        assert_eq!(span.to_string(), "LSN 1 to ?, 1970-01-01T00:00:00.000001Z to ?");
    }
}
