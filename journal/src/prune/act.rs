//! Carrying a plan out, one file at a time, so that a crash at any step leaves a journal that
//! verifies and of which every window that is offered can be restored.
//!
//! Snapshots first, oldest first; each in three steps, with the directory synced behind every one:
//!
//! | crash behind | what is there | what it means |
//! | --- | --- | --- |
//! | nothing | `X.rdb`, `X.json` | a snapshot |
//! | 1. rename `X.json` to `X.removed` | `X.rdb`, `X.removed` | no snapshot any more; the next pruning goes on |
//! | 2. remove `X.keys`, if it is there, and `X.rdb` | `X.removed` | the same |
//! | 3. remove `X.removed` | nothing | done |
//!
//! A rename needs no space on a full disk. Then segments, oldest first, each synced before the next one
//! goes: the directory never shows a hole, which a writer would refuse to open. What remains begins with
//! a segment whose predecessor is gone; its header says all that a reader needs of what was before.
//!
//! Automatic marks that name nothing any more go last, in one step: the old file of marks or the new one is there. What is left by a
//! crash before goes with the next pruning.
//!
//! Every step is taken without readers ([`RemovalLease`]); between the steps readers may come in, find a
//! journal that is whole, and end the run with [`PruneError::InUse`].

use std::io::{self, Read};
use std::path::Path;

use super::PruneError;
use super::plan::{ItemKind, PruneItem, PrunePlan};
use crate::directory::Directory;
use crate::files::{is_there, open_read, sync_dir};
use crate::lease::RemovalLease;
use crate::marks::remove_marks;
use crate::snapshot::{KEY_INDEX, RETIRED, list_snapshots};

/// Read between two looks at whether to stop.
const CHUNK_BYTES: usize = 1 << 20;

/// The operations that change the directory; a test counts them, and ends them early.
pub(super) trait Files {
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&mut self, path: &Path) -> io::Result<()>;
    fn sync(&mut self, dir: &Path) -> io::Result<()>;
}

/// The file system.
pub(super) struct Disk;

impl Files for Disk {
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync(&mut self, dir: &Path) -> io::Result<()> {
        sync_dir(dir)
    }
}

/// Removes what was retired before a crash. Called under the lock of pruning.
pub(super) fn finish_interrupted(files: &mut dyn Files, dir: &Directory) -> Result<(), PruneError> {
    for path in list_snapshots(dir)?.retired {
        let _lease = nobody_reads(dir)?;
        remove_retired(files, dir, &path)?;
    }
    Ok(())
}

/// Removes everything that goes. Called under the lock of pruning, as the plan was made.
pub(super) fn remove(
    files: &mut dyn Files,
    dir: &Directory,
    plan: &PrunePlan,
    on_removed: &mut dyn FnMut(&PruneItem),
    stop: &dyn Fn() -> bool,
) -> Result<(), PruneError> {
    if !plan.is_empty() {
        remove_files(files, dir, plan, on_removed, stop)?;
    }
    if plan.removed_marks.is_empty() {
        return Ok(());
    }
    remove_marks(dir, &plan.removed_marks).map_err(PruneError::io("take automatic marks out of", dir.marks()))
}

fn remove_files(
    files: &mut dyn Files,
    dir: &Directory,
    plan: &PrunePlan,
    on_removed: &mut dyn FnMut(&PruneItem),
    stop: &dyn Fn() -> bool,
) -> Result<(), PruneError> {
    if let Some((path, blake3)) = &plan.base {
        check(path, blake3, stop)?;
    }
    let (segments, snapshots): (Vec<_>, Vec<_>) = plan.removed().partition(|i| i.kind == ItemKind::Segment);
    for item in snapshots.into_iter().chain(segments) {
        if stop() {
            return Err(PruneError::Stopped);
        }
        let _lease = nobody_reads(dir)?;
        if item.kind == ItemKind::Segment {
            remove_and_sync(files, &item.path, &dir.segments())?;
        } else {
            let manifest = item.path.with_extension("json");
            let retired = item.path.with_extension(RETIRED);
            files.rename(&manifest, &retired).map_err(PruneError::io("rename", &manifest))?;
            sync(files, &dir.snapshots())?;
            remove_retired(files, dir, &retired)?;
        }
        tracing::info!(file = %item.path.display(), bytes = item.bytes, why = %item.why, "removed from the journal");
        on_removed(item);
    }
    Ok(())
}

fn nobody_reads(dir: &Directory) -> Result<RemovalLease, PruneError> {
    let lease = RemovalLease::take(dir).map_err(PruneError::io("lock", dir.meta()))?;
    lease.ok_or_else(|| PruneError::InUse { dir: dir.root().to_owned() })
}

/// Steps 2 and 3.
fn remove_retired(files: &mut dyn Files, dir: &Directory, retired: &Path) -> Result<(), PruneError> {
    // A newer snapshot of the same name has files of its own.
    if !is_there(&retired.with_extension("json")) {
        let index = retired.with_extension(KEY_INDEX);
        if is_there(&index) {
            files.remove(&index).map_err(PruneError::io("remove", &index))?;
        }
        remove_and_sync(files, &retired.with_extension("rdb"), &dir.snapshots())?;
    }
    remove_and_sync(files, retired, &dir.snapshots())
}

fn remove_and_sync(files: &mut dyn Files, path: &Path, folder: &Path) -> Result<(), PruneError> {
    match files.remove(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(PruneError::io("remove", path)(e)),
        _ => {}
    }
    sync(files, folder)
}

fn sync(files: &mut dyn Files, folder: &Path) -> Result<(), PruneError> {
    files.sync(folder).map_err(PruneError::io("sync", folder))
}

/// Reads a snapshot through and compares its digest.
fn check(path: &Path, blake3: &str, stop: &dyn Fn() -> bool) -> Result<(), PruneError> {
    let mut file = open_read(path).map_err(PruneError::io("open", path))?;
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => hasher.update(&chunk[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(PruneError::io("read", path)(e)),
        };
        if stop() {
            return Err(PruneError::Stopped);
        }
    }
    let found = hasher.finalize();
    if found.to_hex().as_str() == blake3 {
        return Ok(());
    }
    let problem = format!("its digest is {found}, its manifest says {blake3}");
    Err(PruneError::Base { path: path.to_owned(), problem })
}
