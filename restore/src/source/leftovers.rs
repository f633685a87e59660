//! Folders that killed restores have left behind.
//!
//! A scratch server's folder holds a file that the restore keeps locked as long as it lives. So a folder whose file can be locked has
//! nobody any more: its server has ended with the restore. The next restore removes it.
//!
//! A folder that is removed in order gets another name first: killed in between, it may have lost the file, and would look like one that is
//! just being made.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

/// What the folders begin with.
const PREFIX: &str = "redtape-scratch-";
/// What the names of those begin with that are being removed.
const ENDED: &str = "redtape-scratch-ended-";
/// The file that is locked.
const LOCK: &str = "lock";
/// Its name before that.
const UNLOCKED: &str = "lock.new";
/// A folder without that file, which is younger, is one that is just being made.
const MAKING: Duration = Duration::from_mins(1);
/// Folders that are looked at in one go.
const LOOKED_AT_MAX: usize = 1000;

/// A folder of our own, removed when it is dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn create() -> io::Result<Self> {
        Ok(Self(tempfile::Builder::new().prefix(PREFIX).tempdir()?.keep()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// What cannot be removed is left to the next restore.
fn remove(dir: &Path) {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with(ENDED) {
        let _ = fs::remove_dir_all(dir);
        return;
    }
    let ended = dir.with_file_name(name.replacen(PREFIX, ENDED, 1));
    let renamed = fs::rename(dir, &ended).is_ok();
    let _ = fs::remove_dir_all(if renamed { ended.as_path() } else { dir });
}

/// Marks a folder as ours for as long as the file is open.
pub(super) fn hold(dir: &Path) -> io::Result<File> {
    // It gets its name when it is locked: in between, another restore would take the folder for one that nobody holds.
    let file = File::create_new(dir.join(UNLOCKED))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    fs::rename(dir.join(UNLOCKED), dir.join(LOCK))?;
    Ok(file)
}

/// Removes this user's folders that no process holds any more. What cannot be removed stays: a restore does not fail for that.
pub(super) fn remove_in(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    let ours = rustix::process::geteuid().as_raw();
    let named = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    for entry in named.take(LOOKED_AT_MAX) {
        // Of the entry itself, not of what it may point to.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() && metadata.uid() == ours && is_left(&entry.path(), metadata.modified().ok()) {
            remove(&entry.path());
        }
    }
}

fn is_left(dir: &Path, modified: Option<SystemTime>) -> bool {
    if dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(ENDED)) {
        return true;
    }
    match File::open(dir.join(LOCK)) {
        Ok(file) => flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            modified.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > MAKING)
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_made_while_others_look_for_leftovers() {
        let parent = tempfile::tempdir().expect("a folder");
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    remove_in(parent.path());
                }
            });
            for n in 0..2000 {
                let dir = parent.path().join(format!("{PREFIX}{n}"));
                fs::create_dir(&dir).expect("a folder");
                let lock = hold(&dir).expect("a lock");
                fs::write(dir.join("clock"), "x").unwrap_or_else(|e| panic!("folder {n} was removed: {e}"));
                drop(lock);
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            looking.join().expect("its end");
        });
    }

    #[test]
    fn a_folder_that_was_being_removed_is_removed() {
        let parent = tempfile::tempdir().expect("a folder");
        let ended = parent.path().join("redtape-scratch-ended-a");
        fs::create_dir(&ended).expect("a folder");
        fs::write(ended.join("conf"), "x").expect("a file");
        remove_in(parent.path());
        assert!(!ended.exists());
        let folder = Folder::create().expect("a folder");
        let (path, held) = (folder.path().to_owned(), hold(folder.path()).expect("a lock"));
        remove_in(path.parent().expect("its parent"));
        assert!(path.join(LOCK).exists());
        drop(held);
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn only_what_nobody_holds_is_removed() {
        let parent = tempfile::tempdir().expect("a folder");
        let make = |name: &str| {
            let dir = parent.path().join(name);
            fs::create_dir(&dir).expect("a folder");
            fs::write(dir.join("log"), "x").expect("a file");
            dir
        };
        let (held, left, young, other) =
            (make("redtape-scratch-a"), make("redtape-scratch-b"), make("redtape-scratch-c"), make("other"));
        let lock = hold(&held).expect("a lock");
        drop(hold(&left).expect("a lock"));
        std::os::unix::fs::symlink(&other, parent.path().join("redtape-scratch-d")).expect("a link");
        remove_in(parent.path());
        assert!(held.exists() && !left.exists() && young.exists() && other.join("log").exists());
        drop(lock);
        let old = SystemTime::now() - MAKING * 2;
        File::open(&young).and_then(|dir| dir.set_modified(old)).expect("an older folder");
        remove_in(parent.path());
        assert!(!held.exists() && !young.exists() && other.join("log").exists());
    }
}
