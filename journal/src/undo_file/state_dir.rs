//! The directory of undo files: `<state-dir>/<journal id>/<operation id>.undo`.
//!
//! New directories have the mode 0700, new files 0600. The state directory itself may be reached by a symbolic link, as the journal's
//! directory may; nothing below it is followed.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::create::{self, Existing};
use super::error::UndoFileError;
use super::head::{self, Operation, UndoHead};
use super::lock::OperationLock;
use super::operation::OperationId;
use super::progress::Progress;
use super::reader::UndoReader;
use super::writer::UndoWriter;
use crate::crypto::{Keyring, Random, random};
use crate::files::{self, FileKind};

/// The directory's name below that of the user's state.
const OWN: &str = "redtape";
/// Where root's state is if no variable says it: where it is for a login of root.
const HOME_OF_ROOT: &str = "/root";
/// Anybody else may write to the directory.
const OTHERS_WRITE: u32 = 0o002;
/// Group or others may write to it.
const MORE_WRITE: u32 = 0o022;
/// Only the owner of a file may rename or remove it there.
const STICKY: u32 = 0o1000;

/// Where undo files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir(PathBuf);

/// A file that an operation writes to.
#[derive(Debug)]
pub struct Begun {
    /// Appends to it.
    pub writer: UndoWriter,
    /// What an interrupted run has done, if the file is one that such a run has left.
    pub progress: Option<Progress>,
}

impl StateDir {
    /// A directory that the operator has named. It is created when it is needed.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// `$XDG_STATE_HOME/redtape`, else `~/.local/state/redtape`. For root, a missing `HOME` is `/root`.
    pub fn by_default() -> Result<Self, UndoFileError> {
        Self::from_environment(|name| std::env::var_os(name), rustix::process::geteuid().is_root())
    }

    fn from_environment(variable: impl Fn(&str) -> Option<OsString>, is_root: bool) -> Result<Self, UndoFileError> {
        // A relative one is to be ignored, says the XDG Base Directory Specification.
        let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || absolute("HOME").or_else(|| is_root.then(|| PathBuf::from(HOME_OF_ROOT)));
        let state = absolute("XDG_STATE_HOME").or_else(|| home().map(|home| home.join(".local/state")));
        state.map(|state| Self(state.join(OWN))).ok_or(UndoFileError::NoStateDir)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The file of an operation that nothing is known of; later runs have `-2`, `-3`, … behind the id.
    pub fn first_file(&self, journal_id: &str, id: OperationId) -> PathBuf {
        self.0.join(journal_id).join(create::file_name(id, 1))
    }

    /// The file that [`StateDir::begin`] would write to, as it is now. Nothing is created, and what cannot be read is left to `begin`.
    pub fn next_file(&self, journal_id: &str, id: OperationId, keyring: &Keyring) -> PathBuf {
        let folder = self.0.join(journal_id);
        let Ok(Some(newest)) = create::newest_of(&folder, id) else { return self.first_file(journal_id, id) };
        let path = folder.join(create::file_name(id, newest));
        let is_finished = UndoReader::open(&path, keyring).and_then(|mut reader| reader.ends_as_finished());
        if let Ok(true) = is_finished { folder.join(create::file_name(id, newest.saturating_add(1))) } else { path }
    }

    /// Goes on in the file of an interrupted run of the same operation, or creates a file. No other process can write to a file of the operation
    /// until the writer is dropped. A new file is encrypted if `keyring` has a key to encrypt with.
    pub fn begin(&self, operation: &Operation, keyring: &Keyring) -> Result<Begun, UndoFileError> {
        self.begin_with(operation, keyring, random)
    }

    pub(crate) fn begin_with(
        &self,
        operation: &Operation,
        keyring: &Keyring,
        random: Random,
    ) -> Result<Begun, UndoFileError> {
        if !head::is_journal_id(&operation.journal_id) {
            return Err(UndoFileError::NotAJournalId(operation.journal_id.clone()));
        }
        let folder = self.0.join(&operation.journal_id);
        self.ensure(&folder)?;
        let lock = OperationLock::take(&folder, operation.id)?;
        let (number, lock) = match create::newest(&folder, operation.id)? {
            None => (1, lock),
            Some(number) => {
                let path = folder.join(create::file_name(operation.id, number));
                let wanted = UndoHead { operation: operation.clone(), number, key_id: None };
                match create::open_existing(&path, Some(&wanted), keyring, lock)? {
                    Existing::Interrupted(left) => {
                        let (writer, progress) = *left;
                        return Ok(Begun { writer, progress: Some(progress) });
                    }
                    Existing::Finished(lock) => (number.saturating_add(1), lock),
                }
            }
        };
        // A run that ended here may have created the folder and not synced its name.
        files::sync_dir(&self.0).map_err(UndoFileError::io("sync", &self.0))?;
        let writer = create::create(&folder, operation, number, keyring, random, lock)?;
        Ok(Begun { writer, progress: None })
    }

    /// Sees to it that both directories are there, and that no other user can replace what is in them.
    fn ensure(&self, folder: &Path) -> Result<(), UndoFileError> {
        create_folders(&self.0)?;
        check_rights(&self.0, OTHERS_WRITE, false)?;
        match files::kind_at(folder).map_err(UndoFileError::io("look at", folder))? {
            None => create_folders(folder)?,
            Some(FileKind::Directory) => {}
            Some(found) => {
                let (path, wanted) = (folder.to_owned(), FileKind::Directory);
                return Err(UndoFileError::WrongKind { path, found, wanted });
            }
        }
        check_rights(folder, MORE_WRITE, true)
    }
}

impl UndoWriter {
    /// Goes on in a file that is named by its path: to finish it when `redtape undo --file` has brought back what an interrupted run has
    /// changed, so that the next run begins anew. `None` = it is finished.
    pub fn reopen(path: &Path, keyring: &Keyring) -> Result<Option<Begun>, UndoFileError> {
        let id = UndoReader::open(path, keyring)?.head().operation.id;
        let lock = OperationLock::take(&create::folder_of(path), id)?;
        Ok(match create::open_existing(path, None, keyring, lock)? {
            Existing::Finished(_) => None,
            Existing::Interrupted(left) => {
                let (writer, progress) = *left;
                Some(Begun { writer, progress: Some(progress) })
            }
        })
    }
}

/// Creates a directory and those above it that are not there, and syncs their names.
fn create_folders(path: &Path) -> Result<(), UndoFileError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).collect();
    files::create_private_folders(path).map_err(UndoFileError::io("create", path))?;
    for created in missing {
        let above = create::folder_of(created);
        files::sync_dir(&above).map_err(UndoFileError::io("sync", &above))?;
    }
    Ok(())
}

fn check_rights(path: &Path, refused: u32, is_own: bool) -> Result<(), UndoFileError> {
    let found = std::fs::metadata(path).map_err(UndoFileError::io("look at", path))?;
    let unsafe_as = |what: String, advice: String| Err(UndoFileError::Unsafe { path: path.to_owned(), what, advice });
    if found.mode() & refused != 0 && found.mode() & STICKY == 0 {
        let what = format!("can be written to by others (mode {:03o})", found.mode() & 0o777);
        return unsafe_as(what, format!("run `chmod go-w {}`, or choose another --state-dir", path.display()));
    }
    let us = rustix::process::geteuid().as_raw();
    if is_own && found.uid() != us {
        let what = format!("belongs to the user with the id {}, and this process to {us}", found.uid());
        return unsafe_as(what, "run the command as that user, or choose another --state-dir".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_follows_the_environment() {
        let dir = |variables: &[(&str, &str)], is_root| {
            let variable = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            };
            StateDir::from_environment(variable, is_root).ok().map(|dir| dir.0.display().to_string())
        };
        let home = ("HOME", "/home/ops");
        assert_eq!(dir(&[home], false).unwrap(), "/home/ops/.local/state/redtape");
        assert_eq!(dir(&[home, ("XDG_STATE_HOME", "/var/state")], true).unwrap(), "/var/state/redtape");
        assert_eq!(dir(&[home, ("XDG_STATE_HOME", "relative")], false).unwrap(), "/home/ops/.local/state/redtape");
        assert_eq!(dir(&[home, ("XDG_STATE_HOME", "")], false).unwrap(), "/home/ops/.local/state/redtape");
        assert_eq!(dir(&[], true).unwrap(), "/root/.local/state/redtape");
        assert_eq!(dir(&[("HOME", "")], false), None);
    }
}
