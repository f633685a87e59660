//! One process at a time for an operation, and for a file.
//!
//! The lock of an operation is a file beside its undo files, which holds the id of the process for people to read. It is held while
//! the process looks which file is the newest, creates another one, and writes. The undo file itself is locked too: exclusively by its
//! writer, shared by readers, so that nothing is brought back from a file that is still being written.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::UndoFileError;
use super::operation::OperationId;
use crate::files;

/// How often a file that was replaced meanwhile is opened again.
const TRIES: u32 = 10;

/// Held as long as an operation may be written.
#[derive(Debug)]
pub(super) struct OperationLock {
    _file: File,
}

fn path_of(folder: &Path, id: OperationId) -> PathBuf {
    folder.join(format!("{id}.lock"))
}

impl OperationLock {
    pub(super) fn take(folder: &Path, id: OperationId) -> Result<Self, UndoFileError> {
        let path = path_of(folder, id);
        for _ in 0..TRIES {
            let mut file = files::open_or_create_private(&path).map_err(UndoFileError::io("open", &path))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(UndoFileError::InUse { path, pid: holder(&mut file) }),
                Err(e) => return Err(UndoFileError::io("lock", &path)(e.into())),
            }
            // A person may have removed it since it was opened: then another process can have locked another file.
            let ours = file.metadata().map_err(UndoFileError::io("look at", &path))?;
            let named = std::fs::symlink_metadata(&path).ok();
            if named.is_some_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino())) {
                file.set_len(0)
                    .and_then(|()| writeln!(file, "{}", std::process::id()))
                    .map_err(UndoFileError::io("write", &path))?;
                return Ok(Self { _file: file });
            }
        }
        Err(UndoFileError::InUse { path, pid: None })
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Locks an undo file that is opened to be written.
pub(super) fn lock_to_write(path: &Path, file: &File) -> Result<(), UndoFileError> {
    lock(path, file, FlockOperation::NonBlockingLockExclusive)
}

/// Locks an undo file that is opened to be read.
pub(super) fn lock_to_read(path: &Path, file: &File) -> Result<(), UndoFileError> {
    lock(path, file, FlockOperation::NonBlockingLockShared)
}

fn lock(path: &Path, file: &File, how: FlockOperation) -> Result<(), UndoFileError> {
    match flock(file, how) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(UndoFileError::InUse { path: path.to_owned(), pid: writer_of(path) }),
        Err(e) => Err(UndoFileError::io("lock", path)(e.into())),
    }
}

/// The process that writes an undo file, as far as its name and the lock beside it tell.
fn writer_of(path: &Path) -> Option<u32> {
    let id = path.file_name()?.to_str()?.get(..32)?.parse().ok()?;
    let mut file = files::open_read(&path_of(path.parent()?, id)).ok()?;
    holder(&mut file)
}
