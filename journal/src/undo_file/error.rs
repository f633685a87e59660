//! Why an undo file cannot be written or read: what failed, why, what to do.

use std::io;
use std::path::{Path, PathBuf};

use super::{MAX_ENTRIES, MAX_ENTRY_BYTES, MAX_MOVED, MAX_MOVED_BYTES};
use crate::crypto::KeyFault;
use crate::error::Damage;
use crate::error_kind::ErrorKind;
use crate::files::{Failure, FileKind};

/// Why an undo file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UndoFileError {
    /// There is no default for the directory.
    #[error("there is no place for undo files, as neither XDG_STATE_HOME nor HOME is set; give --state-dir DIR")]
    NoStateDir,
    /// The caller gave something that is no id.
    #[error("`{0}` is no journal id: it has 32 lower-case hex digits")]
    NotAJournalId(String),
    /// It is something else.
    #[error("{} is not an undo file: it begins with {found}", path.display())]
    NotAnUndoFile {
        /// The file.
        path: PathBuf,
        /// How it begins.
        found: String,
    },
    /// It was written by a newer version.
    #[error("{} has format {found} of undo files, this program reads up to {supported}; use a newer redtape", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that is read.
        supported: u32,
    },
    /// It is that of another operation.
    #[error(
        "{} is the undo file of another operation: {what} is {found}, not {expected}; it was renamed or moved here; give it its own name again",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is different.
        what: &'static str,
        /// As it must be.
        expected: String,
        /// As it is.
        found: String,
    },
    /// Bytes of it are not what was written.
    #[error(
        "the undo file {} is damaged at byte {offset}: {damage}; nothing was changed; keep a copy of it, and move it away to start the operation again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        damage: Damage,
    },
    /// It cannot be decrypted.
    #[error("cannot read the undo file {}: {fault}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        fault: KeyFault,
    },
    /// It is not encrypted, and the journal is by now.
    #[error(
        "the undo file {} was begun before the journal was encrypted, so values would be written to it in clear; bring back what it has changed with `redtape undo --file`, or move it away, and run the command again",
        path.display()
    )]
    InClear {
        /// The file.
        path: PathBuf,
    },
    /// Another process works on it.
    #[error("{} is in use by {}; wait until it ends, or stop it, and run the command again", path.display(), holder(*pid))]
    InUse {
        /// The file.
        path: PathBuf,
        /// Which process, if it is known.
        pid: Option<u32>,
    },
    /// What is there is no file or no directory.
    #[error("{} is {found}, not {wanted}; it is not followed: move it away, or choose another --state-dir", path.display())]
    WrongKind {
        /// What was named.
        path: PathBuf,
        /// What is there.
        found: FileKind,
        /// What must be there.
        wanted: FileKind,
    },
    /// Others could replace what is in the directory.
    #[error("{} {what}; undo files hold values of the database: {advice}", path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What helps.
        advice: String,
    },
    /// There is no room for it.
    #[error(
        "cannot write the undo file {}: {source}; nothing was overwritten that is not in it; make room there and run the same command again: it continues where it stopped",
        path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A sync failed: what was appended since the last one may be on no disk.
    #[error(
        "cannot sync the undo file {}: {source}; nothing was overwritten that is not in it; see to the disk, and run the same command again: it continues where it stopped",
        path.display()
    )]
    Sync {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// An append or a sync has failed before.
    #[error("the undo file {} is not written any more, as writing it has failed before", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
    },
    /// It says that all was done.
    #[error("the undo file {} is finished and is not written any more", path.display())]
    Finished {
        /// The file.
        path: PathBuf,
    },
    /// One key and value are too large.
    #[error("an entry of {bytes} bytes does not fit the undo file {}: {MAX_ENTRY_BYTES} bytes are the most for a key and its value", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Size of the entry.
        bytes: u64,
    },
    /// So many do not fit one file.
    #[error("the undo file {} has {MAX_ENTRIES} entries, which is the most; select fewer keys", path.display())]
    TooMany {
        /// The file.
        path: PathBuf,
    },
    /// So many values are moved aside.
    #[error(
        "more than {MAX_MOVED} values, or keys of {MAX_MOVED_BYTES} bytes, are moved aside in the target and not yet in the undo file {}",
        path.display()
    )]
    TooManyMoved {
        /// The file.
        path: PathBuf,
    },
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

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl UndoFileError {
    pub(super) fn damaged(path: &Path, offset: u64) -> impl FnOnce(Damage) -> Self {
        move |damage| Self::Damaged { path: path.to_owned(), offset, damage }
    }

    /// An error of the file system, by what it is.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| match Failure::from(error) {
            Failure::WrongKind { found, wanted } => Self::WrongKind { path, found, wanted },
            Failure::Sync(source) => Self::Sync { path, source },
            Failure::Io(source) => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                    Self::Full { path, source }
                }
                _ => Self::Io { action, path, source },
            },
        }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoStateDir
            | Self::NotAJournalId(_)
            | Self::InClear { .. }
            | Self::Finished { .. }
            | Self::TooLarge { .. }
            | Self::TooMany { .. }
            | Self::TooManyMoved { .. } => ErrorKind::Refused,
            Self::NotAnUndoFile { .. } | Self::NewerFormat { .. } => ErrorKind::NotAJournal,
            Self::Foreign { .. } | Self::Damaged { .. } | Self::WrongKind { .. } => ErrorKind::Damaged,
            Self::Unsafe { .. } => ErrorKind::Denied,
            Self::Key { fault, .. } => fault.into(),
            Self::InUse { .. } => ErrorKind::InUse,
            Self::Broken { .. } => ErrorKind::Io,
            Self::Full { source, .. } | Self::Sync { source, .. } | Self::Io { source, .. } => source.into(),
        }
    }
}
