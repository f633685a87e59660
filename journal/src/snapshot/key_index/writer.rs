//! Making a key index: the content is read once, keys come in any order, the index is written in their order.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;
use tempfile::NamedTempFile;

use super::digests::ContentDigests;
use super::error::KeyIndexError;
use super::pages::PageWriter;
use super::root::Identity;
use super::sort::{GoOn, Sorter};
use super::{LIMITS, Limits};
use crate::crypto::{Keyring, Sealer};
use crate::directory::Directory;
use crate::snapshot::store::create_locked;
use crate::snapshot::{KEY_INDEX, SnapshotInfo, SnapshotReader};
use crate::storage::{LocalDirectory, Storage};

/// Where an index is made.
#[derive(Debug, Clone)]
pub enum Workspace {
    /// In the journal, to be put beside its snapshot.
    Journal,
    /// In this folder, in a file without a name: it is removed when its last user closes it.
    Elsewhere(PathBuf),
}

/// The content of a snapshot, on its way to who finds the keys in it.
#[allow(missing_debug_implementations)]
pub struct ContentReader<'a> {
    reader: SnapshotReader,
    digests: ContentDigests,
    go_on: &'a GoOn<'a>,
    is_stopped: bool,
}

/// Takes the keys of a snapshot.
#[allow(missing_debug_implementations)]
pub struct KeyIndexWriter<'a> {
    dir: Directory,
    snapshot: SnapshotInfo,
    identity: Identity,
    sealer: Option<Sealer>,
    workspace: Workspace,
    sorter: Sorter<'a>,
    limits: Limits,
    keys: u64,
}

/// An index that was written, and is not in its place.
#[derive(Debug)]
pub struct KeyIndexFile {
    pub(super) dir: Directory,
    pub(super) snapshot: SnapshotInfo,
    pub(super) file: Written,
    bytes: u64,
}

#[derive(Debug)]
pub(super) enum Written {
    /// Its lock is held with it.
    Named(NamedTempFile),
    Unnamed(File),
}

impl Read for ContentReader<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(room)?;
        self.digests.update(&room[..n]);
        if !(self.go_on)(n as u64) {
            self.is_stopped = true;
            return Err(io::Error::other("stopped"));
        }
        Ok(n)
    }
}

impl ContentReader<'_> {
    /// It was told to stop: what its reader says is only a consequence.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }
}

impl<'a> KeyIndexWriter<'a> {
    /// Begins the index of a snapshot. All of the content is to be read from the [`ContentReader`].
    pub fn begin(
        snapshot: &SnapshotInfo,
        keyring: &Keyring,
        workspace: Workspace,
        go_on: &'a GoOn<'a>,
    ) -> Result<(Self, ContentReader<'a>), KeyIndexError> {
        Self::begin_with(snapshot, keyring, workspace, go_on, LIMITS)
    }

    pub(super) fn begin_with(
        snapshot: &SnapshotInfo,
        keyring: &Keyring,
        workspace: Workspace,
        go_on: &'a GoOn<'a>,
        limits: Limits,
    ) -> Result<(Self, ContentReader<'a>), KeyIndexError> {
        let path = &snapshot.path;
        let dir = snapshot.directory();
        let no_digest = || KeyIndexError::Base {
            path: path.clone(),
            offset: 0,
            what: "its manifest has no BLAKE3 of 64 hex digits".to_owned(),
        };
        let identity = Identity::of(&snapshot.manifest).ok_or_else(no_digest)?;
        let sealer = snapshot.sealer(keyring).map_err(KeyIndexError::of_open)?;
        let storage: &dyn Storage = &LocalDirectory::new(&dir);
        let file = storage.open(path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => KeyIndexError::Gone { path: path.clone() },
            _ => KeyIndexError::io("open", path)(e),
        })?;
        let reader = SnapshotReader::new(file, sealer.clone(), snapshot.manifest.bytes);
        let content = ContentReader { reader, digests: ContentDigests::default(), go_on, is_stopped: false };
        let folder = match &workspace {
            Workspace::Journal => dir.snapshots(),
            Workspace::Elsewhere(folder) => folder.clone(),
        };
        may_write(&folder).map_err(KeyIndexError::io("create a key index in", &folder))?;
        let sorter = Sorter::new(&folder, limits, sealer.is_some(), go_on)?;
        let snapshot = snapshot.clone();
        Ok((Self { dir, snapshot, identity, sealer, workspace, sorter, limits, keys: 0 }, content))
    }

    /// Adds a key: where its entry is in the content.
    pub fn add(&mut self, db: u32, key: &[u8], offset: u64, len: u64) -> Result<(), KeyIndexError> {
        self.keys += 1;
        self.sorter.add(db, key, offset, len)
    }

    /// Where the keys cannot be found: compares the content with the manifest. If it is another one, that is why.
    pub fn give_up(self, mut content: ContentReader<'_>) -> Result<(), KeyIndexError> {
        check_content(&self.snapshot, &mut content)
    }

    /// Compares the content with the manifest, and writes the index. What is left of the content is read.
    pub fn finish(self, mut content: ContentReader<'_>) -> Result<KeyIndexFile, KeyIndexError> {
        let Self { dir, snapshot, identity, sealer, workspace, sorter, limits, keys } = self;
        check_content(&snapshot, &mut content)?;
        sorter.check_room(limits.index_bytes)?;
        let (handle, file) = create(&dir, &workspace, &snapshot.path)?;
        let mut pages = PageWriter::begin(handle, sealer.as_ref(), limits, &snapshot.path)?;
        sorter.finish(&mut |entry| pages.add(entry))?;
        let bytes = pages.finish(keys, identity, content.digests)?;
        Ok(KeyIndexFile { dir, snapshot, file, bytes })
    }
}

/// Reads the rest, and compares the digest of all with that of the manifest.
fn check_content(snapshot: &SnapshotInfo, content: &mut ContentReader<'_>) -> Result<(), KeyIndexError> {
    let path = &snapshot.path;
    let damaged = |offset, what| KeyIndexError::Base { path: path.clone(), offset, what };
    match io::copy(content, &mut io::sink()) {
        Ok(_) => {}
        Err(_) if content.is_stopped => return Err(KeyIndexError::Stopped),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            return Err(damaged(content.reader.chunk_position(), e.to_string()));
        }
        Err(e) => return Err(KeyIndexError::io("read", path)(e)),
    }
    let (found, expected) = (content.reader.digest(), &snapshot.manifest.blake3);
    if found == *expected { Ok(()) } else { Err(damaged(0, format!("expected BLAKE3 {expected}, found {found}"))) }
}

/// Fails where no file can be created: before all of a snapshot is read in vain.
fn may_write(folder: &Path) -> io::Result<()> {
    match rustix::fs::accessat(CWD, folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        // Not every system can tell.
        Err(Errno::NOSYS | Errno::INVAL) | Ok(()) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// A file for the index of the snapshot at `path`, and a second handle of it.
fn create(dir: &Directory, workspace: &Workspace, path: &Path) -> Result<(File, Written), KeyIndexError> {
    if let Workspace::Elsewhere(folder) = workspace {
        let failed = || KeyIndexError::io("create a temporary file in", folder);
        let file = tempfile::tempfile_in(folder).map_err(failed())?;
        return Ok((file.try_clone().map_err(failed())?, Written::Unnamed(file)));
    }
    let folder = dir.snapshots();
    let create = || -> io::Result<(File, Written)> {
        let file = create_locked(dir, &format!(".{KEY_INDEX}"))?;
        give_to_owner_of(path, file.as_file());
        Ok((file.as_file().try_clone()?, Written::Named(file)))
    };
    create().map_err(KeyIndexError::io("create a key index in", folder))
}

/// An index that root has made is for those who use the snapshot, above all the daemon. Only root can change a file's owner.
fn give_to_owner_of(path: &Path, file: &File) {
    if let Ok(owner) = std::fs::metadata(path) {
        let _ = fchown(file, Some(owner.uid()), Some(owner.gid()));
    }
}

impl KeyIndexFile {
    /// Size of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}
