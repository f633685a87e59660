//! Errors of a restore: one message each, with advice, and a kind that determines the exit code.

use std::path::PathBuf;

use redtape_journal::undo_file::UndoFileError;
use redtape_journal::{Catalog, KeyIndexError, Micros, OpenError, ReadError};

use crate::point::{LocateError, PointError};

/// The kind of a [`RestoreError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is invalid or was not confirmed.
    Usage,
    /// The point in time, or the keys, are not in the journal.
    NotInJournal,
    /// The journal or another file is unreadable.
    Storage(redtape_journal::ErrorKind),
    /// The target refuses the user or a command.
    Denied,
    /// A server is unreachable or unable.
    Unavailable,
    /// The operating system refused, such as an address that is in use.
    System,
    /// The target's content is in the way, or other clients wrote to it.
    Occupied,
    /// Another restore uses the target.
    Busy,
    /// The result differs from the plan: a defect.
    Mismatch,
    /// The restore was interrupted, and undone.
    Interrupted,
}

/// Why a restore failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RestoreError {
    #[error("{0}")]
    Usage(String),
    #[error("cannot open the journal: {0}")]
    Open(#[from] OpenError),
    #[error("{0}")]
    Point(#[from] PointError),
    #[error(
        "the journal cannot be read up to that point in time: {0}; `redtape journal verify` shows what is still sound"
    )]
    Read(ReadError),
    #[error("the journal cannot be read up to that point in time: {error}. {nearest}")]
    Damaged { error: ReadError, nearest: String },
    #[error(
        "the base {} is damaged: {problem}; choose a point in time after another base (`redtape snapshot ls`), or run `redtape journal repair`, which sets it aside: then an earlier one is used",
        path.display()
    )]
    Base { path: PathBuf, problem: String },
    #[error("{0}")]
    KeyIndex(KeyIndexError),
    #[error("{0}")]
    UndoFile(#[from] UndoFileError),
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("cannot write {}: {source}; {advice}. Nothing of it is left", path.display())]
    CannotWrite { path: PathBuf, source: std::io::Error, advice: &'static str },
    #[error("{}, line {line}: {what}", path.display())]
    BadLine { path: PathBuf, line: u64, what: String },
    #[error("{} exists, and is not overwritten: choose another name, or remove it first", path.display())]
    FileExists { path: PathBuf },
    #[error("another redtape is writing {}: wait until it has ended, or choose another name", path.display())]
    FileBusy { path: PathBuf },
    #[error("cannot reach {address}: {cause}; check the address, and that the server is up")]
    Unreachable { address: String, cause: String },
    #[error(
        "{address} is a node of a cluster and does not hold a key, or not alone ({cause}): its slot has moved, or is moving. Run the same command again"
    )]
    OtherNode { address: String, cause: String },
    #[error(
        "{address} refuses the login: {cause}; check user and password (in the URL, REDTAPE_TO_PASSWORD or --to-password-file)"
    )]
    Login { address: String, cause: String },
    #[error(
        "{address} does not allow {command}: {cause}; use a user that may run it (`ACL SETUSER`), or rights for everything: +@all ~*"
    )]
    Denied { address: String, command: String, cause: String },
    #[error("{address} answered {command} with an error: {cause}")]
    Refused { address: String, command: String, cause: String },
    /// The server knows the command and refuses it in its present state.
    #[error("{address} refuses {command}: {cause}; {advice}")]
    Unwilling { address: String, command: String, cause: String, advice: &'static str },
    #[error(
        "{address} has not answered for {seconds} s; see in its log whether it hangs, or what keeps it busy (`redis-cli SLOWLOG GET`), and restore again when it answers"
    )]
    Silent { address: String, seconds: u64 },
    #[error("another restore is at work on {address} ({who}): wait until it has ended. This one changed nothing")]
    Busy { address: String, who: String },
    #[error(
        "the target {address} holds only a part of a restore that did not end: {what}. It has {found} now; nothing was changed. Empty it (FLUSHALL; FUNCTION FLUSH) and restore again"
    )]
    Unfinished { address: String, what: String, found: String },
    #[error(
        "{address} cannot hold the data: with it {used} bytes are in use, and beyond its maxmemory of {limit} bytes it would evict keys (maxmemory-policy {policy}). Raise maxmemory above {used} bytes, or restore to a server with more"
    )]
    TooSmall { address: String, used: u64, limit: u64, policy: String },
    /// Detected before the first write.
    #[error(
        "{address} has no room for the data, which takes about {needed} bytes: its maxmemory is {limit} bytes, of which {used} are in use, and {then}. Nothing was written. Raise maxmemory to {raise_to} bytes or more (CONFIG SET maxmemory){or_else}, or restore to a server with more memory"
    )]
    NoRoom { address: String, needed: u64, used: u64, limit: u64, raise_to: u64, then: String, or_else: &'static str },
    #[error("{address} does not hold all that was restored: {lost} of {meant} keys are gone; {why}")]
    Lost { address: String, lost: u64, meant: u64, why: String },
    #[error(
        "{address} holds {count} keys more than were restored: other clients wrote to it meanwhile. Stop them, empty it (FLUSHALL; FUNCTION FLUSH) and restore again"
    )]
    Joined { address: String, count: u64 },
    #[error(
        "the target {address} is not empty ({found}); nothing was changed. Choose an empty server, empty this one (FLUSHALL; FUNCTION FLUSH), restore only some keys with --key, or replace all that it holds with --replace-all"
    )]
    NotEmpty { address: String, found: String },
    #[error(
        "{count} of the wanted keys exist in {address} already ({list}); nothing was changed. Delete or rename them there, or restore to another server"
    )]
    Conflict { address: String, count: u64, list: String },
    #[error("{0}")]
    Unable(String),
    #[error("cannot reach {address}: {cause}")]
    Tls { address: String, cause: String },
    #[error("cannot listen on {address}: {source}; choose another port, or 0 for a free one")]
    Listen { address: String, source: std::io::Error },
    #[error("no scratch server: {0}; install redis-server or valkey-server, or name one with --server-bin")]
    NoScratch(String),
    #[error("the scratch server {0}")]
    Scratch(String),
    #[error("{0}")]
    Link(String),
    #[error("not confirmed; nothing was changed")]
    NotConfirmed,
    #[error("no key matches; nothing was restored")]
    NoKeys,
    #[error("interrupted")]
    Interrupted,
    #[error("not done within {seconds} s; `redtape get` and `redtape restore` have no such limit")]
    TooLong { seconds: u64 },
    #[error("the target is not what was planned: {0}; do not use it, and please report this")]
    Verify(String),
    /// Any of the above, after which the restore was undone.
    #[error("{cause}. {aftermath}")]
    Undone { cause: Box<RestoreError>, aftermath: String },
}

impl From<ReadError> for RestoreError {
    fn from(error: ReadError) -> Self {
        match error {
            // Nothing is damaged then.
            ReadError::Key { file, fault } => Self::Open(OpenError::Key { file, fault }),
            other => Self::Read(other),
        }
    }
}

impl RestoreError {
    /// The kind of failure; for an undone restore, that of its cause.
    pub fn kind(&self) -> ErrorKind {
        use redtape_journal::ErrorKind::Damaged;
        match self {
            Self::Usage(_) | Self::NotConfirmed | Self::Point(PointError::When(_)) => ErrorKind::Usage,
            Self::Open(e) => ErrorKind::Storage(e.kind()),
            Self::Read(e) | Self::Damaged { error: e, .. } => ErrorKind::Storage(e.kind()),
            Self::KeyIndex(e) => ErrorKind::Storage(e.kind()),
            Self::UndoFile(e) => ErrorKind::Storage(e.kind()),
            Self::Io { source, .. } | Self::CannotWrite { source, .. } => ErrorKind::Storage(source.into()),
            Self::Point(PointError::Damaged { .. } | PointError::NewestLost { .. })
            | Self::Base { .. }
            | Self::BadLine { .. } => ErrorKind::Storage(Damaged),
            Self::Point(_) | Self::NoKeys => ErrorKind::NotInJournal,
            Self::Login { .. } | Self::Denied { .. } => ErrorKind::Denied,
            Self::NotEmpty { .. }
            | Self::Unfinished { .. }
            | Self::Conflict { .. }
            | Self::Joined { .. }
            | Self::FileExists { .. } => ErrorKind::Occupied,
            Self::Busy { .. } | Self::FileBusy { .. } => ErrorKind::Busy,
            Self::Unreachable { .. }
            | Self::OtherNode { .. }
            | Self::Silent { .. }
            | Self::Unwilling { .. }
            | Self::TooSmall { .. }
            | Self::Lost { .. }
            | Self::Refused { .. }
            | Self::Unable(_)
            | Self::Tls { .. }
            | Self::NoRoom { .. }
            | Self::NoScratch(_)
            | Self::Scratch(_)
            | Self::TooLong { .. }
            | Self::Link(_) => ErrorKind::Unavailable,
            Self::Listen { .. } => ErrorKind::System,
            Self::Verify(_) => ErrorKind::Mismatch,
            Self::Interrupted => ErrorKind::Interrupted,
            Self::Undone { cause, .. } => cause.kind(),
        }
    }

    /// The journal cannot be read up to the requested point; names the nearest possible restore points.
    pub(crate) fn unreadable(error: ReadError, catalog: &Catalog) -> Self {
        let ReadError::Corrupt { span, .. } = &error else { return error.into() };
        let snapshots: Vec<_> = catalog.snapshots().iter().map(|s| s.manifest.ts).collect();
        // Damage begins at this time.
        let whole = Micros(span.from_ts.0 - 1);
        let before = snapshots.iter().any(|ts| *ts <= whole).then_some(whole);
        let after = span.to_ts.and_then(|to| snapshots.iter().filter(|ts| **ts > to).min());
        let nearest = match (before, after) {
            (Some(before), Some(after)) => {
                format!("The nearest points in time that can be restored: --at {before} and --at {after}")
            }
            (Some(before), None) => format!("The nearest point in time that can be restored: --at {before}"),
            (None, Some(after)) => format!("The nearest point in time that can be restored: --at {after}"),
            (None, None) => "No point in time near it can be restored".to_owned(),
        };
        Self::Damaged {
            error,
            nearest: format!(
                "{nearest}. `redtape journal verify` shows all damage; `redtape journal repair` saves what is left"
            ),
        }
    }

    /// No restore point was found, for this reason.
    pub(crate) fn not_located(error: LocateError, catalog: &Catalog) -> Self {
        match error {
            LocateError::Point(error) => Self::Point(error),
            LocateError::Read(error) => Self::unreadable(error, catalog),
        }
    }

    /// States that an interrupted restore left nothing in the target.
    pub(crate) fn before_the_target(self) -> Self {
        match self {
            Self::Interrupted => {
                Self::Undone { cause: Box::new(self), aftermath: "Nothing was written to the target".to_owned() }
            }
            other => other,
        }
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
