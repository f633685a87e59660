//! Who may remove what others are reading: locks that keep readers and pruning apart.
//!
//! | lock | held by | as long as |
//! | --- | --- | --- |
//! | `meta`, shared | a reader of segments or snapshots: catalogs, verification, the opening of a writer | it reads |
//! | `meta`, exclusive | a process that removes | one file is being removed |
//! | `prune.lock`, exclusive | a process that removes | it plans and removes |
//! | | the writer | a packed copy takes the place of its segment |
//! | | the builder of a key index | it is put beside its snapshot |
//! | `snapshot.lock`, exclusive | a process that writes a snapshot | files of it are there that do not yet say whose they are |
//! | `snapshot.lock`, shared | a process that judges unfinished snapshots: verification, the opening of a writer | it judges |
//!
//! A process that follows a journal for ever ([`crate::follow`]) takes none of them, or nothing could ever be removed: it holds
//! the one file open that it reads, and says so when it comes too late for another.
//!
//! Nothing is pulled away under a reader; a reader that comes while something is removed waits for
//! that one file. `meta` is there in every journal and never replaced, so that a reader needs no right
//! to write. Each lock ends with its process.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::directory::Directory;
use crate::files;

/// How often a lock is tried for: most who hold it do so for a moment only.
const TRIES: u32 = 50;
/// How long it waits in between.
const PAUSE: Duration = Duration::from_millis(20);

/// Holds pruning off.
#[derive(Debug)]
pub(crate) struct ReadLease {
    _file: Option<File>,
}

impl ReadLease {
    /// Waits while a file is being removed. Where `meta` cannot be locked (a copy on a foreign file
    /// system), nobody can prune either.
    pub(crate) fn take(dir: &Directory) -> Self {
        let file = files::open_read(&dir.meta()).ok().filter(|file| {
            loop {
                match flock(file, FlockOperation::LockShared) {
                    Err(Errno::INTR) => {}
                    other => return other.is_ok(),
                }
            }
        });
        Self { _file: file }
    }
}

/// There are no readers.
#[derive(Debug)]
pub(crate) struct RemovalLease {
    _file: File,
}

impl RemovalLease {
    /// `None` while a process reads.
    pub(crate) fn take(dir: &Directory) -> io::Result<Option<Self>> {
        // For writing, as locks over a network ask for.
        let file = files::open_write(&dir.meta())?;
        Ok(exclusive(&file)?.then_some(Self { _file: file }))
    }
}

/// No other process removes files.
#[derive(Debug)]
pub(crate) struct PruneLock {
    _file: File,
}

impl PruneLock {
    /// Makes its file and that of [`SnapshotStep`], where they are not there: by the journal's writer, so that it can lock what another user has used before.
    pub(crate) fn prepare(dir: &Directory) -> io::Result<()> {
        for path in [dir.prune_lock(), dir.snapshot_lock()] {
            match files::create_new(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// `None` while another process holds it.
    pub(crate) fn take(dir: &Directory) -> io::Result<Option<Self>> {
        let path: PathBuf = dir.prune_lock();
        let file = files::open_or_create(&path)
            .map_err(|e| io::Error::new(e.kind(), format!("cannot open {}: {e}", path.display())))?;
        Ok(exclusive(&file)?.then_some(Self { _file: file }))
    }
}

/// A file of a snapshot may be there without a lock of its own, and without a manifest.
#[derive(Debug)]
pub(crate) struct SnapshotStep {
    _file: File,
}

impl SnapshotStep {
    /// For a process that is about to create such a file, until it has a lock of its own or a manifest. Waits while another
    /// one judges.
    pub(crate) fn begin(dir: &Directory) -> io::Result<Self> {
        let file = files::open_or_create(&dir.snapshot_lock())?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                other => return other.map(|()| Self { _file: file }).map_err(Into::into),
            }
        }
    }
}

/// No snapshot is between two steps: an unfinished file without a lock of its own will never be finished.
#[derive(Debug)]
pub(crate) struct SnapshotsAtRest {
    _file: Option<File>,
}

impl SnapshotsAtRest {
    /// `None` while a process is in such a step, for longer than such a step takes. Without the lock's file no process ever was.
    pub(crate) fn take(dir: &Directory) -> io::Result<Option<Self>> {
        let file = match files::open_read(&dir.snapshot_lock()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Some(Self { _file: None })),
            other => other?,
        };
        Ok(patiently(&file, FlockOperation::NonBlockingLockShared)?.then_some(Self { _file: Some(file) }))
    }
}

fn exclusive(file: &File) -> io::Result<bool> {
    patiently(file, FlockOperation::NonBlockingLockExclusive)
}

fn patiently(file: &File, lock: FlockOperation) -> io::Result<bool> {
    for n in 1..=TRIES {
        match flock(file, lock) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK | Errno::INTR) if n < TRIES => std::thread::sleep(PAUSE),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_share_and_a_remover_waits_for_all_of_them() {
        let root = tempfile::tempdir().unwrap();
        let dir = Directory::new(root.path());
        std::fs::write(dir.meta(), "{}").unwrap();
        let (one, two) = (ReadLease::take(&dir), ReadLease::take(&dir));
        assert!(RemovalLease::take(&dir).unwrap().is_none());
        drop(one);
        assert!(RemovalLease::take(&dir).unwrap().is_none());
        drop(two);
        let removal = RemovalLease::take(&dir).unwrap().unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| ReadLease::take(&dir));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!reader.is_finished(), "it waits");
            drop(removal);
            drop(reader.join().unwrap());
        });
    }

    #[test]
    fn one_removes_at_a_time_and_a_reader_needs_no_rights() {
        let root = tempfile::tempdir().unwrap();
        let dir = Directory::new(root.path());
        let first = PruneLock::take(&dir).unwrap().unwrap();
        assert!(PruneLock::take(&dir).unwrap().is_none());
        drop(first);
        assert!(PruneLock::take(&dir).unwrap().is_some());
        // Without `meta` there is nothing to hold, and nothing to remove.
        let _nothing = ReadLease::take(&dir);
        assert!(RemovalLease::take(&dir).is_err());
    }
}
