//! Why there is no key index, or no answer from it.

use std::io;
use std::path::{Path, PathBuf};

use crate::crypto::KeyFault;
use crate::error::{Damage, OpenError};
use crate::error_kind::ErrorKind;

/// Why a key index cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyIndexError {
    /// There is none.
    #[error("there is no key index {}", path.display())]
    Missing {
        /// Where it would be.
        path: PathBuf,
    },
    /// Bytes of it are not what was written.
    #[error("the key index {} is damaged at byte {offset}: {damage}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        damage: Damage,
    },
    /// It was made for another snapshot.
    #[error("the key index {} is that of another snapshot", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The snapshot is damaged: no index helps.
    #[error("{} is damaged at byte {offset}: {what}", path.display())]
    Base {
        /// The snapshot's file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// It cannot be decrypted.
    #[error("cannot read {}: {fault}", file.display())]
    Key {
        /// The snapshot's file.
        file: PathBuf,
        /// Why.
        fault: KeyFault,
    },
    /// The index would be larger than one may be.
    #[error("its key index, or what is needed to make it, would take more than {limit} bytes, so there is none")]
    TooLarge {
        /// The limit that was met.
        limit: u64,
    },
    /// The disk does not have the room to make it.
    #[error("there is no room to make a key index in {}: {wanted} bytes must be free", folder.display())]
    NoRoom {
        /// Where it is made.
        folder: PathBuf,
        /// Free bytes that it takes.
        wanted: u64,
    },
    /// The snapshot was removed.
    #[error("{} was removed", path.display())]
    Gone {
        /// The snapshot's file.
        path: PathBuf,
    },
    /// Another process removes files from the journal.
    #[error("another process is removing files from {}", dir.display())]
    Busy {
        /// The journal's directory.
        dir: PathBuf,
    },
    /// Asked to stop.
    #[error("stopped before the key index was made")]
    Stopped,
    /// An extent that the content does not have.
    #[error("{} has no {len} bytes at byte {offset} of its content", path.display())]
    Beyond {
        /// The snapshot's file.
        path: PathBuf,
        /// Where it begins.
        offset: u64,
        /// Its length.
        len: u64,
    },
    /// The journal cannot be read.
    #[error(transparent)]
    Open(OpenError),
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl KeyIndexError {
    pub(super) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// An error of the opening of `snapshot`, which may have been removed.
    pub(super) fn of_open(error: OpenError) -> Self {
        match error {
            OpenError::Key { file, fault } => Self::Key { file, fault },
            OpenError::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => Self::Gone { path },
            other => Self::Open(other),
        }
    }

    /// Making the index anew helps.
    pub fn is_made_again(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Damaged { .. } | Self::Foreign { .. })
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } | Self::Damaged { .. } | Self::Foreign { .. } | Self::Base { .. } => {
                ErrorKind::Damaged
            }
            Self::Key { fault, .. } => fault.into(),
            Self::TooLarge { .. } | Self::Beyond { .. } => ErrorKind::Refused,
            Self::Gone { .. } | Self::Busy { .. } | Self::Stopped => ErrorKind::InUse,
            Self::NoRoom { .. } => ErrorKind::Io,
            Self::Open(error) => error.kind(),
            Self::Io { source, .. } => source.into(),
        }
    }
}
