//! A file that appears under its name when all of it is on the disk, and not before.
//!
//! ```text
//! look (nothing there, a folder that may be written to) ─► temporary file beside it, locked ─► written ─► synced ─► renamed ─► folder synced
//! ```
//!
//! The temporary file has a name of its own in the same folder ([`temporary`]), is this user's alone (0600), and is locked as long as it is
//! written. An existing file is never overwritten, also not one that appears meanwhile.
//!
//! # After a failure, a crash or a kill
//! A failure and Ctrl-C remove the temporary file. `kill -9` and a power cut leave it; the next run for the same name finds it without a
//! lock and begins anew in its place. Behind the rename the file is whole.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FlockOperation, OFlags, RenameFlags, accessat, flock, renameat_with};

use crate::error::RestoreError;

/// What stands behind the name of the temporary file.
const UNFINISHED: &str = ".redtape-unfinished";
/// Only this user reads a dataset.
pub(super) const MODE: u32 = 0o600;
/// Attempts to open the temporary file, while other runs remove theirs.
pub(super) const OPEN_TRIES: usize = 10;

/// A file under way; dropped, it leaves nothing.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    placed: bool,
}

/// Whether a file of this name could be made; nothing is changed.
pub(crate) fn look(path: &Path) -> Result<(), RestoreError> {
    if path.file_name().is_none() {
        return Err(RestoreError::Usage(format!("{} is no name for a file", path.display())));
    }
    match fs::symlink_metadata(path) {
        Ok(_) => return Err(exists(path)),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(cannot_write(path, e)),
    }
    let folder = parent(path);
    let found = fs::metadata(folder).map_err(|e| cannot_write(path, e))?;
    if !found.is_dir() {
        return Err(cannot_write(path, ErrorKind::NotADirectory.into()));
    }
    accessat(CWD, folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
        .map_err(|e| cannot_write(path, e.into()))
}

/// The name under which a file is written.
pub(super) fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(UNFINISHED);
    path.with_file_name(name)
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(super) fn exists(path: &Path) -> RestoreError {
    RestoreError::FileExists { path: path.to_owned() }
}

/// What is said of a file that cannot be written, and what to do.
pub(crate) fn cannot_write(path: &Path, source: io::Error) -> RestoreError {
    let advice = match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "make room there, or write to another disk"
        }
        ErrorKind::NotFound => "the folder is missing: make it first (mkdir), or choose another",
        ErrorKind::NotADirectory => "what should be its folder is none: choose another",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "choose a folder in which you may make files, or have the rights of this one changed"
        }
        _ => "see what the system says of that disk, and try again or choose another",
    };
    RestoreError::CannotWrite { path: path.to_owned(), source, advice }
}

impl NewFile {
    /// Begins one. What a killed run has left of it goes.
    pub(crate) fn create(path: &Path) -> Result<Self, RestoreError> {
        look(path)?;
        let temporary = temporary(path);
        for _ in 0..OPEN_TRIES {
            let mut options = OpenOptions::new();
            // Not truncated: it may be another run's, which is still at work.
            options.read(true).write(true).create(true).truncate(false).mode(MODE);
            options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
            let file = options.open(&temporary).map_err(|e| cannot_write(path, e))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(RestoreError::FileBusy { path: path.to_owned() }),
                Err(e) => return Err(cannot_write(path, e.into())),
            }
            // It may have been removed or renamed between the opening and the lock.
            let same = |there: fs::Metadata| {
                file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
            };
            if !fs::symlink_metadata(&temporary).is_ok_and(same) {
                continue;
            }
            let is_new = file.metadata().is_ok_and(|found| found.len() == 0 && found.mode() & 0o777 == MODE);
            if is_new {
                return Ok(Self { path: path.to_owned(), temporary, file, placed: false });
            }
            // A leftover, with whatever rights.
            fs::remove_file(&temporary).map_err(|e| cannot_write(path, e))?;
        }
        Err(RestoreError::FileBusy { path: path.to_owned() })
    }

    /// The file, and its name for messages.
    pub(crate) fn parts(&mut self) -> (&mut File, &Path) {
        (&mut self.file, &self.path)
    }

    /// Puts it on the disk and under its name.
    pub(crate) fn place(mut self) -> Result<(), RestoreError> {
        let path = self.path.clone();
        let failed = |e: io::Error| cannot_write(&path, e);
        self.file.sync_all().map_err(failed)?;
        match rename_new(&self.temporary, &self.path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(exists(&self.path)),
            renamed => renamed.map_err(failed)?,
        }
        self.placed = true;
        sync_parent(&self.path)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.placed {
            // What cannot be removed is left to the next run.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Behind this a power cut does not take the name away.
pub(super) fn sync_parent(path: &Path) -> Result<(), RestoreError> {
    let synced = File::open(parent(path)).and_then(|parent| parent.sync_all());
    synced.map_err(RestoreError::io("sync the folder that holds", path))
}

/// Renames without overwriting.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that does not know this. A folder has no second name; one that is not empty is not overwritten.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            if from.is_dir() {
                return if fs::symlink_metadata(to).is_ok() {
                    Err(ErrorKind::AlreadyExists.into())
                } else {
                    fs::rename(from, to)
                };
            }
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        done => Ok(done?),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("the folder").flatten();
        let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn it_has_its_name_when_it_is_whole() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("out.rdb");
        let mut file = NewFile::create(&path).expect("a file");
        file.parts().0.write_all(b"abc").expect("written");
        assert_eq!(names(dir.path()), [".out.rdb.redtape-unfinished"]);
        assert!(matches!(NewFile::create(&path), Err(RestoreError::FileBusy { .. })), "one at a time");
        file.place().expect("placed");
        assert_eq!(names(dir.path()), ["out.rdb"]);
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, MODE);
        assert!(matches!(NewFile::create(&path), Err(RestoreError::FileExists { .. })));
        assert_eq!(fs::read(&path).expect("a file"), b"abc");
    }

    #[test]
    fn a_failure_leaves_nothing_and_a_kill_what_the_next_run_replaces() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("out");
        drop(NewFile::create(&path).expect("a file"));
        assert!(names(dir.path()).is_empty());
        fs::write(dir.path().join(".out.redtape-unfinished"), "left by a kill").expect("a leftover");
        let file = NewFile::create(&path).expect("a file");
        file.place().expect("placed");
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn what_appears_meanwhile_stays() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("out");
        let file = NewFile::create(&path).expect("a file");
        fs::write(&path, "another's").expect("written");
        assert!(matches!(file.place(), Err(RestoreError::FileExists { .. })));
        assert_eq!(
            (names(dir.path()), fs::read(&path).expect("a file")),
            (vec!["out".to_owned()], b"another's".into())
        );
    }

    #[test]
    fn where_no_file_can_be_made_it_is_said_before() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| look(&dir.path().join(name)).expect_err(name).to_string();
        assert!(at("missing/out").contains("the folder is missing"), "{}", at("missing/out"));
        fs::write(dir.path().join("file"), "").expect("a file");
        assert!(at("file").contains("exists"));
        assert!(at("file/out").contains("is none"), "{}", at("file/out"));
        assert!(look(Path::new("/")).is_err() && look(Path::new("..")).is_err());
    }
}
