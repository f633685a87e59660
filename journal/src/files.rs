//! Opening, creating and syncing the journal's files: the only place where either is done.
//!
//! Invariants:
//! - A file of the journal is a regular file, and a folder a directory. A symbolic link is not followed, a FIFO or a
//!   device is not opened: opening one may wait for ever, or change another user's file. Both are refused with a
//!   typed error ([`Failure::WrongKind`]).
//! - A sync that failed stays recognizable, whatever it was part of ([`Failure::Sync`]): the kernel may have marked
//!   pages clean that never reached the disk, and the next sync then succeeds without writing them.

use std::fmt;
use std::fs::{DirBuilder, File, FileType, OpenOptions, ReadDir};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Rights of new files, before the umask: the journal holds everything that the database holds.
pub(crate) const FILE_MODE: u32 = 0o640;
/// Rights of new directories, before the umask.
pub(crate) const FOLDER_MODE: u32 = 0o750;

/// Rights of new private files and directories, before the umask: undo files.
const PRIVATE_FILE_MODE: u32 = 0o600;
const PRIVATE_FOLDER_MODE: u32 = 0o700;

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file, where a directory is wanted.
    Regular,
    /// A directory, where a file is wanted.
    Directory,
    /// A symbolic link, wherever it leads.
    SymbolicLink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A block or character device.
    Device,
}

impl FileKind {
    pub(crate) fn of(file_type: FileType) -> Self {
        match file_type {
            t if t.is_file() => Self::Regular,
            t if t.is_dir() => Self::Directory,
            t if t.is_symlink() => Self::SymbolicLink,
            t if t.is_fifo() => Self::Fifo,
            t if t.is_socket() => Self::Socket,
            _ => Self::Device,
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Regular => "a regular file",
            Self::Directory => "a directory",
            Self::SymbolicLink => "a symbolic link",
            Self::Fifo => "a FIFO (named pipe)",
            Self::Socket => "a socket",
            Self::Device => "a device",
        })
    }
}

/// Travels inside an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("it is {found}, not {wanted}")]
struct WrongKind {
    found: FileKind,
    wanted: FileKind,
}

/// Travels inside an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct SyncFailed(#[source] io::Error);

/// What an [`io::Error`] of this module is.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What is there is of another kind.
    WrongKind { found: FileKind, wanted: FileKind },
    /// A sync failed: what was written before may be on no disk, whatever a later sync says.
    Sync(io::Error),
    /// Anything else.
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if let Some(&WrongKind { found, wanted }) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
            return Self::WrongKind { found, wanted };
        }
        if !error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<SyncFailed>) {
            return Self::Io(error);
        }
        match error.into_inner().map(<dyn std::error::Error + Send + Sync>::downcast::<SyncFailed>) {
            Some(Ok(failed)) => Self::Sync(failed.0),
            Some(Err(other)) => Self::Io(io::Error::other(other)),
            None => Self::Io(io::ErrorKind::Other.into()),
        }
    }
}

fn wrong_kind(found: FileKind, wanted: FileKind) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, WrongKind { found, wanted })
}

/// The kind of what is at `path`; `None` = nothing. Symbolic links are not followed.
pub(crate) fn kind_at(path: &Path) -> io::Result<Option<FileKind>> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(FileKind::of(metadata.file_type()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether anything is at `path`, if only a symbolic link that leads nowhere.
pub(crate) fn is_there(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    open_with_mode(path, options, FILE_MODE)
}

fn open_with_mode(path: &Path, options: &mut OpenOptions, mode: u32) -> io::Result<File> {
    // A device is not even opened: that alone may do something.
    if let Some(kind) = kind_at(path)?.filter(|kind| *kind != FileKind::Regular) {
        return Err(wrong_kind(kind, FileKind::Regular));
    }
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = options.custom_flags(flags).mode(mode).open(path)?;
    // It may have been replaced in between.
    match FileKind::of(file.metadata()?.file_type()) {
        FileKind::Regular => Ok(file),
        kind => Err(wrong_kind(kind, FileKind::Regular)),
    }
}

/// Opens a file to read it.
pub(crate) fn open_read(path: &Path) -> io::Result<File> {
    open(path, File::options().read(true))
}

/// Reads a file that the operator has named, of at most `max` bytes. It may be reached by a symbolic link, as secrets are
/// that an orchestrator provides; what it leads to must be a regular file, or reading could wait for ever.
pub(crate) fn read_named(path: &Path, max: u64) -> io::Result<(File, Vec<u8>)> {
    let found = FileKind::of(std::fs::metadata(path)?.file_type());
    if found != FileKind::Regular {
        return Err(wrong_kind(found, FileKind::Regular));
    }
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    let opened = FileKind::of(file.metadata()?.file_type());
    if opened != FileKind::Regular {
        return Err(wrong_kind(opened, FileKind::Regular));
    }
    let mut bytes = Vec::new();
    if (&file).take(max + 1).read_to_end(&mut bytes)? as u64 > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {max} bytes")));
    }
    Ok((file, bytes))
}

/// Opens a file that is there, to read and write it.
pub(crate) fn open_write(path: &Path) -> io::Result<File> {
    open(path, File::options().read(true).write(true))
}

/// The same; an empty one is created where there is none.
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    open(path, File::options().read(true).write(true).create(true).truncate(false))
}

/// The same, of a private file.
pub(crate) fn open_or_create_private(path: &Path) -> io::Result<File> {
    open_with_mode(path, File::options().read(true).write(true).create(true).truncate(false), PRIVATE_FILE_MODE)
}

/// Opens a file to read it and to append to it; an empty one is created where there is none.
pub(crate) fn open_append(path: &Path) -> io::Result<File> {
    open(path, File::options().read(true).append(true).create(true))
}

/// Creates a file; `AlreadyExists` if anything is there, of whatever kind.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create_new(true).mode(FILE_MODE).open(path)
}

/// All bytes of a file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_read(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The entries of a folder; `None` = it is not there.
pub(crate) fn read_folder(path: &Path) -> io::Result<Option<ReadDir>> {
    match kind_at(path)? {
        None => Ok(None),
        Some(FileKind::Directory) => match std::fs::read_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        },
        Some(kind) => Err(wrong_kind(kind, FileKind::Directory)),
    }
}

/// Creates a directory and those above it that are not there.
pub(crate) fn create_folders(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)
}

/// Creates a private directory, and those above it that are not there.
pub(crate) fn create_private_folders(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER_MODE).create(path)
}

/// Sees to it that there is a folder of the journal.
pub(crate) fn ensure_folder(path: &Path) -> io::Result<()> {
    match kind_at(path)? {
        None => create_folders(path),
        Some(FileKind::Directory) => Ok(()),
        Some(kind) => Err(wrong_kind(kind, FileKind::Directory)),
    }
}

/// Creates a directory that is not there.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(FOLDER_MODE).create(path)
}

fn synced(result: io::Result<()>) -> io::Result<()> {
    result.map_err(|e| io::Error::new(e.kind(), SyncFailed(e)))
}

/// Makes a file durable, its size and times included.
pub(crate) fn sync(file: &File) -> io::Result<()> {
    synced(file.sync_all())
}

/// Makes the content of a file durable.
pub(crate) fn sync_data(file: &File) -> io::Result<()> {
    synced(file.sync_data())
}

/// Makes the names in a directory durable. The directory itself may be a symbolic link: it may be where the journal is.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    sync(&File::open(dir)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_that_failed_is_recognized_by_its_type_alone() {
        // Neither the text nor the kind of another error makes it one.
        let other = io::Error::other("cannot sync /srv/sync/journal");
        assert!(matches!(Failure::from(other), Failure::Io(_)));
        let failed = synced(Err(io::Error::from_raw_os_error(5))).unwrap_err();
        assert_eq!(failed.to_string(), io::Error::from_raw_os_error(5).to_string());
        match Failure::from(failed) {
            Failure::Sync(cause) => assert_eq!(cause.raw_os_error(), Some(5)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_regular_file_is_neither_opened_nor_followed() {
        let root = tempfile::tempdir().unwrap();
        let (target, path) = (root.path().join("target"), root.path().join("it"));
        std::fs::write(&target, "precious").unwrap();
        let make: [(&dyn Fn(), FileKind); 4] = [
            (&|| std::os::unix::fs::symlink(&target, &path).unwrap(), FileKind::SymbolicLink),
            (&|| std::os::unix::fs::symlink("/dev/null", &path).unwrap(), FileKind::SymbolicLink),
            (&|| std::fs::create_dir(&path).unwrap(), FileKind::Directory),
            (&|| make_fifo(&path), FileKind::Fifo),
        ];
        for (make, kind) in make {
            make();
            for open in [open_read, open_write, open_or_create, open_append] {
                let error = open(&path).unwrap_err();
                assert!(matches!(Failure::from(error), Failure::WrongKind { found, .. } if found == kind), "{kind}");
            }
            assert_eq!(create_new(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists, "{kind}");
            if kind == FileKind::Directory {
                ensure_folder(&path).unwrap();
                std::fs::remove_dir(&path).unwrap();
                continue;
            }
            let error = ensure_folder(&path).unwrap_err();
            assert!(matches!(Failure::from(error), Failure::WrongKind { .. }), "{kind}");
            std::fs::remove_file(&path).unwrap();
        }
        let error = open_read(Path::new("/dev/null")).unwrap_err();
        assert!(matches!(Failure::from(error), Failure::WrongKind { found: FileKind::Device, .. }));
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    }

    fn make_fifo(path: &Path) {
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    }

    #[test]
    fn directories_are_closed_to_others() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        create_folders(&root.path().join("a/b")).unwrap();
        for folder in ["a", "a/b"] {
            let mode = std::fs::metadata(root.path().join(folder)).unwrap().permissions().mode();
            assert_eq!(mode & 0o027, 0, "{folder}: {mode:o}");
        }
    }
}
