//! Putting an index beside its snapshot.

use std::io;
use std::path::Path;

use super::error::KeyIndexError;
use super::path_beside;
use super::writer::{KeyIndexFile, Written};
use crate::directory::Directory;
use crate::files::{self, sync_dir};
use crate::lease::PruneLock;
use crate::snapshot::{SnapshotInfo, SnapshotManifest};

impl KeyIndexFile {
    /// Puts it in place; an index that is there is replaced. While another process removes files, `wait` is asked about every
    /// second whether to go on waiting: a removal may take as long as reading a snapshot through.
    ///
    /// No index outlives its snapshot:
    /// - A process that removes or repairs holds `prune.lock` from its decision to the end. Under that lock the manifest is
    ///   there, so the removal, which looks for an index behind the renaming of the manifest, is still to come.
    /// - The opening of a writer moves away a base whose timeline never began, without that lock: manifest first, index last.
    ///   So the manifest is looked at once more, behind the renaming of the index: if it is there, the index will be found.
    /// - The manifest's name is made durable first: a power loss does not leave an index alone.
    ///
    /// What is there all the same, nobody uses: the index names its snapshot.
    pub fn put_in_place(self, wait: &dyn Fn() -> bool) -> Result<(), KeyIndexError> {
        let Self { dir, snapshot, file, .. } = self;
        let Written::Named(file) = file else { return Ok(()) };
        let (folder, path) = (dir.snapshots(), path_beside(&snapshot.path));
        let gone = || KeyIndexError::Gone { path: snapshot.path.clone() };
        let _lock = take_lock(&dir, wait)?;
        if !is_there(&snapshot)? {
            return Err(gone());
        }
        sync_dir(&folder).map_err(KeyIndexError::io("sync", &folder))?;
        // The lock moves with the file, and ends with it.
        let _file = file.persist(&path).map_err(|e| KeyIndexError::io("rename to", &path)(e.error))?;
        if !is_there(&snapshot)? {
            remove(&path)?;
            return Err(gone());
        }
        sync_dir(&folder).map_err(KeyIndexError::io("sync", &folder))
    }
}

fn take_lock(dir: &Directory, wait: &dyn Fn() -> bool) -> Result<PruneLock, KeyIndexError> {
    loop {
        match PruneLock::take(dir).map_err(KeyIndexError::io("lock", dir.prune_lock()))? {
            Some(lock) => return Ok(lock),
            None if wait() => {}
            None => return Err(KeyIndexError::Busy { dir: dir.root().to_owned() }),
        }
    }
}

/// Whether the snapshot of this manifest still has its name.
pub(super) fn is_there(snapshot: &SnapshotInfo) -> Result<bool, KeyIndexError> {
    let path = snapshot.path.with_extension("json");
    match files::read(&path) {
        Ok(json) => Ok(SnapshotManifest::from_json(&json).is_ok_and(|manifest| manifest == snapshot.manifest)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(KeyIndexError::io("read", &path)(e)),
    }
}

fn remove(path: &Path) -> Result<(), KeyIndexError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(KeyIndexError::io("remove", path)(e)),
        _ => Ok(()),
    }
}
