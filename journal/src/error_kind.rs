//! What kind of failure an error is. Decisions (an exit code, whether to try again) are made by the kind, never by a
//! message.

use std::io;

use crate::crypto::{KeyFault, KeyringError};
use crate::error::{OpenError, ReadError, StoreError};
use crate::follow::FollowError;
use crate::prune::PruneError;

/// The kinds of failures of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Another process writes, reads or prunes the journal, or replaces the key file.
    InUse,
    /// What was asked for is not possible, whatever the state of the disk: a snapshot that is not there or has to stay, a key
    /// file that does not hold keys.
    Refused,
    /// Something is encrypted with a key that was not given.
    KeyMissing,
    /// The operating system denies access to a file.
    Denied,
    /// There is no journal, but something else, or a journal that only a newer version reads.
    NotAJournal,
    /// Bytes are not what they were when they were written, or cannot be decrypted with the key of that name.
    Damaged,
    /// Reading or writing failed.
    Io,
}

impl From<&io::Error> for ErrorKind {
    fn from(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::PermissionDenied { Self::Denied } else { Self::Io }
    }
}

impl From<&KeyFault> for ErrorKind {
    fn from(fault: &KeyFault) -> Self {
        match fault {
            KeyFault::Missing(_) => Self::KeyMissing,
            // A wrong key cannot be told from a damaged block.
            KeyFault::Wrong(_) => Self::Damaged,
        }
    }
}

impl OpenError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Locked { .. } | Self::Busy { .. } => ErrorKind::InUse,
            Self::Key { fault, .. } => fault.into(),
            Self::NotAJournal { .. } | Self::NoJournal { .. } | Self::NewerFormat { .. } => ErrorKind::NotAJournal,
            Self::Corrupt { .. } | Self::WrongKind { .. } => ErrorKind::Damaged,
            Self::Io { source, .. } | Self::Sync { source, .. } => source.into(),
        }
    }
}

impl ReadError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Key { fault, .. } => fault.into(),
            Self::UnknownCodec { .. } => ErrorKind::NotAJournal,
            Self::Corrupt { .. } | Self::NoTimeline(_) => ErrorKind::Damaged,
            Self::Io { source, .. } => source.into(),
        }
    }
}

impl StoreError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        (&self.source).into()
    }
}

impl FollowError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Open(error) => error.kind(),
            Self::Read(error) => error.kind(),
        }
    }
}

impl PruneError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Open(error) => error.kind(),
            Self::Busy { .. } | Self::InUse { .. } | Self::Stopped => ErrorKind::InUse,
            Self::Base { .. } => ErrorKind::Damaged,
            Self::NoSnapshot { .. } | Self::LastBase { .. } => ErrorKind::Refused,
            Self::Io { source, .. } => source.into(),
        }
    }
}

impl KeyringError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } | Self::Write { source, .. } => source.into(),
            Self::Busy { .. } => ErrorKind::InUse,
            _ => ErrorKind::Refused,
        }
    }
}
