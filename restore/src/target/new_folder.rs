//! A folder that appears under its name when all files in it are on the disk: as [`super::new_file`], of which it takes names and rules.
//!
//! The temporary folder is locked as long as it is filled. A failure and Ctrl-C remove it; what `kill -9` leaves, the next run for the same
//! name replaces.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::new_file::{MODE, OPEN_TRIES, cannot_write, exists, look, rename_new, sync_parent, temporary};
use crate::error::RestoreError;

/// Only this user reads a dataset.
const FOLDER_MODE: u32 = 0o700;

/// A folder under way; dropped, it leaves nothing.
#[derive(Debug)]
pub(crate) struct NewFolder {
    path: PathBuf,
    temporary: PathBuf,
    /// Holds the lock.
    _held: File,
    placed: bool,
}

impl NewFolder {
    /// Begins one. What a killed run has left of it goes.
    pub(crate) fn create(path: &Path) -> Result<Self, RestoreError> {
        look(path)?;
        let temporary = temporary(path);
        for _ in 0..OPEN_TRIES {
            let made = match DirBuilder::new().mode(FOLDER_MODE).create(&temporary) {
                Ok(()) => true,
                Err(e) if e.kind() == ErrorKind::AlreadyExists => false,
                Err(e) => return Err(cannot_write(path, e)),
            };
            let flags = (OFlags::NOFOLLOW | OFlags::DIRECTORY).bits().cast_signed();
            let held = match OpenOptions::new().read(true).custom_flags(flags).open(&temporary) {
                Ok(held) => held,
                // Another run has removed its own.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(cannot_write(path, e)),
            };
            match flock(&held, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(RestoreError::FileBusy { path: path.to_owned() }),
                Err(e) => return Err(cannot_write(path, e.into())),
            }
            // Between the making and the lock another run may have taken it for a leftover.
            let same = |there: fs::Metadata| {
                held.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
            };
            let ours = fs::symlink_metadata(&temporary).is_ok_and(same);
            if made && ours {
                return Ok(Self { path: path.to_owned(), temporary, _held: held, placed: false });
            }
            if ours {
                fs::remove_dir_all(&temporary).map_err(|e| cannot_write(path, e))?;
            }
        }
        Err(RestoreError::FileBusy { path: path.to_owned() })
    }

    /// What it will be called.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder in it.
    pub(crate) fn folder(&self, name: &str) -> Result<(), RestoreError> {
        let made = DirBuilder::new().mode(FOLDER_MODE).create(self.temporary.join(name));
        made.map_err(|e| cannot_write(&self.path, e))
    }

    /// Makes a file in it, to be written and read again.
    pub(crate) fn file(&self, name: &str) -> Result<File, RestoreError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(MODE);
        options.open(self.temporary.join(name)).map_err(|e| cannot_write(&self.path, e))
    }

    /// Puts all of it on the disk and under its name.
    pub(crate) fn place(mut self) -> Result<(), RestoreError> {
        sync_all(&self.temporary).map_err(|e| cannot_write(&self.path, e))?;
        match rename_new(&self.temporary, &self.path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(exists(&self.path)),
            renamed => renamed.map_err(|e| cannot_write(&self.path, e))?,
        }
        self.placed = true;
        sync_parent(&self.path)
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        if !self.placed {
            // What cannot be removed is left to the next run.
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

/// Files first, then the folders that name them.
fn sync_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_has_its_name_when_it_is_whole() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("aof");
        drop(NewFolder::create(&path).expect("a folder"));
        assert_eq!(fs::read_dir(dir.path()).expect("the folder").count(), 0);
        let leftover = dir.path().join(".aof.redtape-unfinished");
        fs::create_dir_all(leftover.join("a")).expect("a leftover");
        let folder = NewFolder::create(&path).expect("a folder");
        folder.folder("b").expect("a folder in it");
        folder.file("b/c").and_then(|mut c| c.write_all(b"x").map_err(|e| cannot_write(&path, e))).expect("a file");
        assert!(matches!(NewFolder::create(&path), Err(RestoreError::FileBusy { .. })), "one at a time");
        assert!(!path.exists() && !leftover.join("a").exists());
        folder.place().expect("placed");
        assert_eq!(fs::read(path.join("b/c")).expect("a file"), b"x");
        assert_eq!(fs::metadata(&path).expect("a folder").permissions().mode() & 0o777, FOLDER_MODE);
        assert!(!leftover.exists() && matches!(NewFolder::create(&path), Err(RestoreError::FileExists { .. })));
    }

    #[test]
    fn what_appears_meanwhile_stays() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("aof");
        let folder = NewFolder::create(&path).expect("a folder");
        fs::create_dir(&path).expect("another's");
        assert!(matches!(folder.place(), Err(RestoreError::FileExists { .. })));
        assert_eq!(fs::read_dir(&path).expect("another's").count(), 0);
    }
}
