//! Where the sealed files of a journal are read from: segments and snapshots.
//!
//! ```text
//! catalog, query, verify, follow ─► Storage ─► LocalDirectory
//! ```
//!
//! A storage lists, looks at and opens files; an open file is read at positions. One call is made for each file or for each
//! block, never for a record, so that a storage may as well be far away.
//!
//! Invariants:
//! - A sealed file never changes. Another file may take its name: the packed copy of a segment. Who has opened a file goes on
//!   reading the one that was opened.
//! - What writes (the writer, compaction, repair, pruning) works on the local directory and does not go through here; nor do
//!   the small files beside the folders (`meta`, `marks`, `splices`, `server`, locks).

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::directory::Directory;
use crate::files::{self, FileKind};

/// The folders of sealed files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Folder {
    /// Segments, the unsealed one among them.
    Segments,
    /// Snapshots and their manifests.
    Snapshots,
}

/// Which file has a name, and how large it is. If it is another one, or has grown, the version differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    /// Tells files apart that have the same name one after the other.
    pub(crate) id: (u64, u64),
    /// Size of the file.
    pub(crate) bytes: u64,
}

/// What has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// Only a regular file can be opened.
    pub(crate) kind: FileKind,
    /// Which one it is.
    pub(crate) version: Version,
}

/// Lists and opens sealed files. Paths are those that [`Storage::list`] gives, or lie in [`Storage::folder`]; messages name
/// files by them.
pub(crate) trait Storage: fmt::Debug + Send + Sync {
    /// Where a folder is.
    fn folder(&self, folder: Folder) -> PathBuf;

    /// Everything in a folder, in any order; `None` = the folder is not there.
    fn list(&self, folder: Folder) -> io::Result<Option<Vec<PathBuf>>>;

    /// What is at a path; `None` = nothing.
    fn look_at(&self, path: &Path) -> io::Result<Option<Found>>;

    /// Opens a file; an error of the kind `NotFound` if there is none.
    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>>;

    /// Whether anything is at a path.
    fn has(&self, path: &Path) -> bool {
        matches!(self.look_at(path), Ok(Some(_)))
    }
}

/// A file that is open for reading.
pub(crate) trait StoredFile: fmt::Debug + Send + Sync {
    /// Which file it is, and its size at this moment: a segment that is not sealed may grow.
    fn version(&self) -> io::Result<Version>;

    /// Reads at most as many bytes as there is room for; 0 = the end of the file.
    fn read_at(&self, room: &mut [u8], at: u64) -> io::Result<usize>;

    /// Reads as many bytes as there is room for; an error of the kind `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, mut room: &mut [u8], mut at: u64) -> io::Result<()> {
        while !room.is_empty() {
            match self.read_at(room, at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => (room, at) = (&mut room[n..], at + n as u64),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Its size at this moment.
    fn bytes(&self) -> io::Result<u64> {
        self.version().map(|version| version.bytes)
    }

    /// All of a small file.
    fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut all = vec![0; self.bytes()? as usize];
        self.read_exact_at(&mut all, 0)?;
        Ok(all)
    }
}

/// A journal on a local file system. A symbolic link is not followed, and nothing but regular files is opened
/// ([`crate::files`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalDirectory(Directory);

impl LocalDirectory {
    pub(crate) fn new(dir: &Directory) -> Self {
        Self(dir.clone())
    }
}

impl Storage for LocalDirectory {
    fn folder(&self, folder: Folder) -> PathBuf {
        match folder {
            Folder::Segments => self.0.segments(),
            Folder::Snapshots => self.0.snapshots(),
        }
    }

    fn list(&self, folder: Folder) -> io::Result<Option<Vec<PathBuf>>> {
        let Some(entries) = files::read_folder(&self.folder(folder))? else { return Ok(None) };
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>().map(Some)
    }

    fn look_at(&self, path: &Path) -> io::Result<Option<Found>> {
        match std::fs::symlink_metadata(path) {
            Ok(metadata) => {
                Ok(Some(Found { kind: FileKind::of(metadata.file_type()), version: Version::of(&metadata) }))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        Ok(Box::new(files::open_read(path)?))
    }
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        Self { id: (metadata.dev(), metadata.ino()), bytes: metadata.len() }
    }
}

impl StoredFile for File {
    fn version(&self) -> io::Result<Version> {
        self.metadata().map(|metadata| Version::of(&metadata))
    }

    fn read_at(&self, room: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, room, at)
    }

    fn read_exact_at(&self, room: &mut [u8], at: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, room, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_file_is_listed_looked_at_and_read_as_it_was_opened() {
        let root = tempfile::tempdir().unwrap();
        let dir = Directory::new(root.path());
        let storage = LocalDirectory::new(&dir);
        assert_eq!(storage.list(Folder::Segments).unwrap(), None);
        std::fs::create_dir(dir.segments()).unwrap();
        assert_eq!(storage.list(Folder::Segments).unwrap(), Some(vec![]));
        let path = storage.folder(Folder::Segments).join("one");
        assert_eq!(storage.look_at(&path).unwrap(), None);
        assert_eq!(storage.open(&path).unwrap_err().kind(), io::ErrorKind::NotFound);

        std::fs::write(&path, "first").unwrap();
        assert_eq!(storage.list(Folder::Segments).unwrap(), Some(vec![path.clone()]));
        let file = storage.open(&path).unwrap();
        let found = storage.look_at(&path).unwrap().unwrap();
        assert_eq!((found.kind, found.version), (FileKind::Regular, file.version().unwrap()));
        let other = root.path().join("other");
        std::fs::write(&other, "another").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_ne!(storage.look_at(&path).unwrap().unwrap().version.id, file.version().unwrap().id);
        assert_eq!(file.read_all().unwrap(), b"first");
        let mut room = [0; 3];
        file.read_exact_at(&mut room, 2).unwrap();
        assert_eq!(&room, b"rst");
        assert_eq!(file.read_exact_at(&mut room, 3).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
