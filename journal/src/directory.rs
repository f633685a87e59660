//! The journal's directory: where its files are, and the few ways in which they are put in place.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::files::{FILE_MODE, is_there, sync, sync_dir};

/// How the names of temporary files begin.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// Paths inside a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directory {
    root: PathBuf,
}

impl Directory {
    pub(crate) fn new(root: impl AsRef<Path>) -> Self {
        Self { root: root.as_ref().to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn meta(&self) -> PathBuf {
        self.root.join("meta")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn prune_lock(&self) -> PathBuf {
        self.root.join("prune.lock")
    }

    pub(crate) fn snapshot_lock(&self) -> PathBuf {
        self.root.join("snapshot.lock")
    }

    pub(crate) fn marks(&self) -> PathBuf {
        self.root.join("marks")
    }

    pub(crate) fn server(&self) -> PathBuf {
        self.root.join("server")
    }

    pub(crate) fn splices(&self) -> PathBuf {
        self.root.join("splices")
    }

    pub(crate) fn filters(&self) -> PathBuf {
        self.root.join("filters")
    }

    pub(crate) fn segments(&self) -> PathBuf {
        self.root.join("segments")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    pub(crate) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// A path in the quarantine that does not exist yet: `name`, else `name.1`, `name.2`, …
    pub(crate) fn quarantine_path(&self, name: &str) -> PathBuf {
        let dir = self.quarantine();
        let first = dir.join(name);
        if !is_there(&first) {
            return first;
        }
        let mut more = (1..u64::MAX).map(|n| dir.join(format!("{name}.{n}")));
        more.find(|p| !is_there(p)).unwrap_or(first)
    }
}

/// The smallest part of a file that a disk writes as a whole.
const SECTOR: usize = 512;

/// Whether a sector of `bytes`, which lie at `offset` of a file, or the part of one at an edge, is all zeros: so reads a sector
/// that a power failure has kept from the disk. Values may hold as many zeros: ask only of bytes that are known to be wrong.
pub(crate) fn has_hole(bytes: &[u8], offset: u64) -> bool {
    let first = SECTOR - (offset % SECTOR as u64) as usize;
    let (first, rest) = bytes.split_at(first.min(bytes.len()));
    let zeros = |sector: &[u8]| !sector.is_empty() && sector.iter().all(|&b| b == 0);
    zeros(first) || rest.chunks(SECTOR).any(zeros)
}

/// Puts a file in place as a whole: temporary file, sync, rename, sync of the directory. After a
/// crash there is the old file or the new one, and perhaps a temporary one.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file =
        tempfile::Builder::new().prefix(TEMPORARY).permissions(Permissions::from_mode(FILE_MODE)).tempfile_in(dir)?;
    file.write_all(bytes)?;
    sync(file.as_file())?;
    file.persist(path).map_err(|e| e.error)?;
    sync_dir(dir)
}
