//! Adding a key to a key file.
//!
//! The file is replaced as a whole, so that a reader finds the old keys or all of them, and no crash costs a key. A process
//! that replaces it holds an exclusive `flock` on the file that is there; one that has waited for that lock looks whether
//! the file is still the one of that name, and begins again if it is not. Where there is no file, only one of several creates it.
//!
//! Invariant: a key that was said to be in the file stays in it, though other processes add keys at the same moment.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::Keyring;
use super::keyring::{KeyringError, MAX_FILE};
use crate::files::{self, FileKind};

/// How often it is tried; others hold the file for the time of two syncs.
const TRIES: u32 = 1000;
/// How long it waits in between.
const PAUSE: Duration = Duration::from_millis(10);
/// Rights of a key file.
const MODE: u32 = 0o600;

/// What became of a key file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedKey {
    /// Id of the new key.
    pub id: String,
    /// Id of the key that encrypted until now; `None` = there was none.
    pub before: Option<String>,
}

impl Keyring {
    /// Adds a key to a key file, or creates the file with it. `id` is asked for its id, with the keys that are there. The file is
    /// replaced as a whole; of several who add keys at once, one waits for the other, and none loses a key.
    pub fn add_to_file(path: &Path, id: impl Fn(&Self) -> String) -> Result<AddedKey, KeyringError> {
        add(path, id)
    }
}

fn add(path: &Path, id: impl Fn(&Keyring) -> String) -> Result<AddedKey, KeyringError> {
    let write = |source| KeyringError::Write { path: path.to_owned(), source };
    for _ in 0..TRIES {
        let held = hold(path)?;
        let (before, mut text) = match &held {
            Held::Nothing => (None, String::new()),
            Held::Busy => {
                std::thread::sleep(PAUSE);
                continue;
            }
            Held::File(_) => {
                let keyring = Keyring::from_file(path)?;
                let (_, bytes) = files::read_named(path, MAX_FILE).map_err(write)?;
                (Some(keyring), String::from_utf8_lossy(&bytes).into_owned())
            }
        };
        let id = id(&before.clone().unwrap_or_default());
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text += &Keyring::new_line(&id).map_err(write)?;
        // The id may be wrong, or be there; or another key may be marked as the one to use.
        let after = Keyring::parse(&text)?;
        if let Some(marked) = after.current().filter(|current| *current != id) {
            return Err(KeyringError::Marked { path: path.to_owned(), id: marked.to_owned() });
        }
        if store(path, &text, before.is_none()).map_err(write)? {
            return Ok(AddedKey { id, before: before.as_ref().and_then(Keyring::current).map(str::to_owned) });
        }
    }
    Err(KeyringError::Busy { path: path.to_owned() })
}

/// The file of a name, and whose it is.
enum Held {
    /// There is none.
    Nothing,
    /// It belongs to another user, or the name has changed.
    Busy,
    /// Ours, until it is dropped.
    File(#[expect(dead_code, reason = "its lock is what is wanted")] File),
}

fn hold(path: &Path) -> Result<Held, KeyringError> {
    let failed = |source| KeyringError::Io { path: path.to_owned(), source };
    match files::kind_at(path).map_err(failed)? {
        None => return Ok(Held::Nothing),
        Some(FileKind::Regular) => {}
        Some(found) => return Err(KeyringError::NotAFile { path: path.to_owned(), found }),
    }
    let file = match files::open_read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Held::Busy),
        other => other.map_err(failed)?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(Held::Busy),
        other => other.map_err(|e| failed(e.into()))?,
    }
    let (ours, named) = (file.metadata().map_err(failed)?, std::fs::symlink_metadata(path));
    match named {
        Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => Ok(Held::File(file)),
        _ => Ok(Held::Busy),
    }
}

/// Puts the file in place, with its rights from the first byte on. `false` = `new`, and another process has created it.
fn store(path: &Path, text: &str, new: bool) -> io::Result<bool> {
    let folder: PathBuf = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let mut temporary = tempfile::Builder::new().permissions(Permissions::from_mode(MODE)).tempfile_in(&folder)?;
    temporary.write_all(text.as_bytes())?;
    files::sync(temporary.as_file())?;
    let stored = if new { temporary.persist_noclobber(path) } else { temporary.persist(path) };
    match stored {
        Ok(_) => {}
        Err(e) if new && e.error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(e) => return Err(e.error),
    }
    files::sync_dir(&folder)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(taken: &Keyring) -> String {
        format!("key-{}", taken.ids().count())
    }

    #[test]
    fn of_many_who_add_a_key_at_once_none_loses_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("keys");
        let mut added: Vec<String> = std::thread::scope(|scope| {
            let adding: Vec<_> = (0..20).map(|_| scope.spawn(|| add(&path, free).unwrap().id)).collect();
            adding.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        added.sort();
        let keyring = Keyring::from_file(&path).unwrap();
        let mut there: Vec<&str> = keyring.ids().collect();
        there.sort_unstable();
        assert_eq!(there, added);
        assert_eq!(there.len(), 20);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn what_is_no_file_is_not_replaced_and_not_read() {
        let root = tempfile::tempdir().unwrap();
        let (path, target) = (root.path().join("keys"), root.path().join("target"));
        add(&target, free).unwrap();
        let before = std::fs::read(&target).unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(matches!(add(&path, free), Err(KeyringError::NotAFile { found: FileKind::SymbolicLink, .. })));
        assert_eq!(Keyring::from_file(&path).unwrap().current(), Some("key-0"), "it is read by its link");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(add(&path, free), Err(KeyringError::NotAFile { found: FileKind::Directory, .. })));
        assert!(Keyring::from_file(&path).unwrap_err().to_string().contains("it is a directory"));
        std::fs::remove_dir(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(matches!(add(&path, free), Err(KeyringError::NotAFile { found: FileKind::Fifo, .. })));
        assert!(Keyring::from_file(&path).unwrap_err().to_string().contains("it is a FIFO"));
        assert!(Keyring::from_file("/dev/zero").unwrap_err().to_string().contains("it is a device"));
        assert_eq!(std::fs::read(&target).unwrap(), before);
    }
}
