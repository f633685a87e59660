//! The errors of the journal: one enum for each operation that callers must tell apart.
//!
//! Damage always says file, offset, what was expected, what was found, and which LSNs and times are
//! affected ([`Span`]), so that a person can decide whether the rest is enough.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::crypto::KeyFault;
use crate::files::{Failure, FileKind};
use crate::types::{Lsn, Micros, TimelineId};

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

/// Why a journal directory cannot be opened.
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
    /// Another process reads the journal or prunes it, and what was asked for moves files.
    #[error("the journal {} is read or pruned by another process; end that (a restore, `journal tail`) and try again", dir.display())]
    Busy {
        /// The journal's directory.
        dir: PathBuf,
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
    /// It cannot be decrypted.
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

/// Why a group cannot be read.
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
    /// A block is stored in a way that this program does not know.
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
    /// It cannot be decrypted.
    #[error("cannot decrypt {}: {fault}", file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// Why.
        fault: KeyFault,
    },
    /// The journal does not have this timeline.
    #[error("the journal has no timeline {0}")]
    NoTimeline(TimelineId),
}

/// A group that the format cannot hold, or that does not fit into the block any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a group of {bytes} bytes exceeds the limit of {limit}")]
pub struct GroupTooLarge {
    /// Its encoded size, or an upper bound of it.
    pub bytes: u64,
    /// What is possible.
    pub limit: u64,
}

/// Why the writer cannot append, and so has stopped.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
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
    /// A sync failed: what was written before may be on no disk, whatever a later sync says.
    #[error("cannot {action} {}: a sync failed: {source}", path.display())]
    Sync {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Something that is no file or folder of a journal has the name of one.
    #[error("cannot {action} {}: it is {found}, not {wanted}", path.display())]
    WrongKind {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What it is.
        found: FileKind,
        /// What a journal has there.
        wanted: FileKind,
    },
    /// A block does not continue the history.
    #[error("a block was submitted out of order: {0}")]
    OutOfOrder(#[source] Damage),
    /// There is no timeline for the block or the source's id.
    #[error("a block was submitted before a timeline was begun")]
    NoTimeline,
    /// A timeline must have a greater number than the one before.
    #[error("timeline {new} was begun after timeline {current}")]
    TimelineBack {
        /// The timeline that was to begin.
        new: TimelineId,
        /// The timeline in use.
        current: TimelineId,
    },
    /// The writer never ran.
    #[error("cannot start the journal writer's thread: {0}")]
    NoThread(#[source] std::io::Error),
    /// A bug, in the writer or in the callback on its progress.
    #[error("the journal writer's thread panicked")]
    Panicked,
}

impl AppendError {
    /// Whether what was written before can no longer be relied upon. After a failed sync, the kernel may call pages clean that
    /// never reached the disk; and what does not follow on was made of something else than what is there.
    pub fn leaves_doubt(&self) -> bool {
        match self {
            // All that was reported as durable is on the disk.
            Self::Io { .. } | Self::WrongKind { .. } | Self::NoThread(_) | Self::Panicked => false,
            Self::Sync { .. } | Self::OutOfOrder(_) | Self::NoTimeline | Self::TimelineBack { .. } => true,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |error| match Failure::from(error) {
            Failure::Sync(source) => Self::Sync { action, path, source },
            Failure::Io(source) => Self::Io { action, path, source },
            Failure::WrongKind { found, wanted } => Self::WrongKind { action, path, found, wanted },
        }
    }

    /// The same as an error of the opening, during which the keys of the segment at `path` were to be changed.
    pub(crate) fn while_opening(self, path: &Path) -> OpenError {
        match self {
            Self::Io { action, path, source } => OpenError::Io { action, path, source },
            Self::Sync { action, path, source } => OpenError::Sync { action, path, source },
            Self::WrongKind { path, found, wanted, .. } => OpenError::WrongKind { file: path, found, wanted },
            other @ (Self::OutOfOrder(_)
            | Self::NoTimeline
            | Self::TimelineBack { .. }
            | Self::NoThread(_)
            | Self::Panicked) => OpenError::Io {
                action: "change the keys of",
                path: path.to_owned(),
                source: std::io::Error::other(other),
            },
        }
    }
}

/// Why the writer has stopped for good. Clones share the cause; two failures are equal if they are the same event.
#[derive(Debug, Clone)]
pub struct WriterFailure(Arc<AppendError>);

impl WriterFailure {
    pub(crate) fn new(cause: AppendError) -> Self {
        Self(Arc::new(cause))
    }

    /// What could not be appended, and why.
    pub fn cause(&self) -> &AppendError {
        &self.0
    }
}

impl PartialEq for WriterFailure {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for WriterFailure {}

impl fmt::Display for WriterFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for WriterFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// Why the writer did not take a block or a timeline.
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
    Failed(#[source] WriterFailure),
}

/// Why a mark or a snapshot could not be stored.
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
