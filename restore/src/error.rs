//! What can go wrong with a restore: one message each, with what to do, and an exit code of `sysexits`.

use std::path::PathBuf;

use redtape_journal::{Catalog, KeyFault, Micros, OpenError, ReadError};

use crate::point::PointError;

/// Exit codes of `sysexits.h`.
pub(crate) mod exit {
    /// The command was used wrongly.
    pub(crate) const USAGE: u8 = 64;
    /// Data is corrupt.
    pub(crate) const DATAERR: u8 = 65;
    /// What was asked for is not in the journal.
    pub(crate) const NOINPUT: u8 = 66;
    /// Something that is needed is not there or not able.
    pub(crate) const UNAVAILABLE: u8 = 69;
    /// The result is not what was planned.
    pub(crate) const SOFTWARE: u8 = 70;
    /// The target can't take the data.
    pub(crate) const CANTCREAT: u8 = 73;
    /// Reading or writing failed.
    pub(crate) const IOERR: u8 = 74;
    /// Another process is in the way.
    pub(crate) const TEMPFAIL: u8 = 75;
    /// Not allowed.
    pub(crate) const NOPERM: u8 = 77;
    /// Not one of `sysexits`: as shells have it, 128 + SIGINT.
    pub(crate) const INTERRUPTED: u8 = 130;
}

/// Why a restore was not done.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RestoreError {
    #[error("{0}")]
    Usage(String),
    #[error("cannot open the journal: {0}")]
    Open(#[from] OpenError),
    #[error("{0}")]
    Point(#[from] PointError),
    #[error("the journal cannot be read up to that moment: {0}; `redtape journal verify` shows what is still sound")]
    Read(ReadError),
    #[error("the journal cannot be read up to that moment: {error}. {nearest}")]
    Damaged { error: ReadError, nearest: String },
    #[error(
        "the base {} is damaged: {problem}; choose a moment after another base (`redtape snapshot ls`), or run `redtape journal repair`, which sets it aside: then an earlier one is used",
        path.display()
    )]
    Base { path: PathBuf, problem: String },
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("cannot reach {address}: {cause}; check the address, and that the server is up")]
    Unreachable { address: String, cause: String },
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
    /// The server understands the command and does not take it in the state that it is in.
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
    #[error("{address} does not hold all that was restored: {lost} of {meant} keys are gone; {why}")]
    Lost { address: String, lost: u64, meant: u64, why: String },
    #[error(
        "{address} holds {count} keys more than were restored: other clients wrote to it meanwhile. Stop them, empty it (FLUSHALL; FUNCTION FLUSH) and restore again"
    )]
    Joined { address: String, count: u64 },
    #[error(
        "the target {address} is not empty ({found}); nothing was changed. Choose an empty server, empty this one (FLUSHALL; FUNCTION FLUSH), or restore only some keys with --key"
    )]
    NotEmpty { address: String, found: String },
    #[error(
        "{count} of the wanted keys exist in {address} already ({list}); nothing was changed. Delete or rename them there, or restore to another server"
    )]
    Conflict { address: String, count: u64, list: String },
    #[error("{0}")]
    Unable(String),
    #[error("TLS (rediss://) is not supported yet; use a plain port or a unix socket of the target, or a TLS tunnel")]
    Tls,
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
    #[error("the target is not what was planned: {0}; do not use it, and please report this")]
    Verify(String),
    /// Any of the above, after which something had to be undone.
    #[error("{cause}. {aftermath}")]
    Undone { cause: Box<RestoreError>, aftermath: String },
}

impl From<ReadError> for RestoreError {
    fn from(error: ReadError) -> Self {
        match error {
            // Nothing is unsound then.
            ReadError::Key { file, fault } => Self::Open(OpenError::Key { file, fault }),
            other => Self::Read(other),
        }
    }
}

impl RestoreError {
    /// The exit code by `sysexits.h`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::NotConfirmed => exit::USAGE,
            Self::Open(e) => match e {
                OpenError::Io { source, .. } | OpenError::Sync { source, .. } => io_code(source),
                OpenError::Locked { .. } => exit::TEMPFAIL,
                OpenError::Key { fault: KeyFault::Missing(_), .. } => exit::NOPERM,
                _ => exit::DATAERR,
            },
            Self::Point(PointError::Damaged { .. } | PointError::NewestLost { .. }) => exit::DATAERR,
            Self::Point(_) | Self::NoKeys => exit::NOINPUT,
            Self::Read(ReadError::Io { source, .. }) | Self::Io { source, .. } => io_code(source),
            Self::Read(_) | Self::Damaged { .. } | Self::Base { .. } => exit::DATAERR,
            Self::Login { .. } | Self::Denied { .. } => exit::NOPERM,
            Self::NotEmpty { .. } | Self::Unfinished { .. } | Self::Conflict { .. } | Self::Joined { .. } => {
                exit::CANTCREAT
            }
            Self::Busy { .. } => exit::TEMPFAIL,
            Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::Unwilling { .. }
            | Self::TooSmall { .. }
            | Self::Lost { .. }
            | Self::Refused { .. }
            | Self::Unable(_)
            | Self::Tls
            | Self::NoScratch(_)
            | Self::Scratch(_)
            | Self::Link(_) => exit::UNAVAILABLE,
            Self::Verify(_) => exit::SOFTWARE,
            Self::Interrupted => exit::INTERRUPTED,
            Self::Undone { cause, .. } => cause.exit_code(),
        }
    }

    /// The journal can't be read up to the moment asked for; says which moments can be had instead.
    pub(crate) fn unreadable(error: ReadError, catalog: &Catalog) -> Self {
        let ReadError::Corrupt { span, .. } = &error else { return error.into() };
        let snapshots: Vec<_> = catalog.snapshots().iter().map(|s| s.manifest.ts).collect();
        // What is damaged begins with this time.
        let whole = Micros(span.from_ts.0 - 1);
        let before = snapshots.iter().any(|ts| *ts <= whole).then_some(whole);
        let after = span.to_ts.and_then(|to| snapshots.iter().filter(|ts| **ts > to).min());
        let nearest = match (before, after) {
            (Some(before), Some(after)) => {
                format!("The nearest moments that can be restored: --at {before} and --at {after}")
            }
            (Some(before), None) => format!("The nearest moment that can be restored: --at {before}"),
            (None, Some(after)) => format!("The nearest moment that can be restored: --at {after}"),
            (None, None) => "No moment near it can be restored".to_owned(),
        };
        Self::Damaged {
            error,
            nearest: format!(
                "{nearest}. `redtape journal verify` shows all damage; `redtape journal repair` saves what is left"
            ),
        }
    }

    /// Says of an interruption that the target has nothing of it.
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

fn io_code(error: &std::io::Error) -> u8 {
    if error.kind() == std::io::ErrorKind::PermissionDenied { exit::NOPERM } else { exit::IOERR }
}
