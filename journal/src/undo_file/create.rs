//! Which file an operation writes to: a new one, or the one that an interrupted run has left.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::error::UndoFileError;
use super::head::{self, Operation, UndoHead};
use super::lock::{self, OperationLock};
use super::operation::OperationId;
use super::progress::Progress;
use super::reader::UndoReader;
use super::writer::UndoWriter;
use crate::crypto::{Keyring, Random};
use crate::directory::TEMPORARY;
use crate::files;

/// How an undo file's name ends.
const EXTENSION: &str = ".undo";
/// Rights of an undo file.
const MODE: u32 = 0o600;

/// The name of a file of an operation: `<id>.undo`, `<id>-2.undo`, …
pub(super) fn file_name(id: OperationId, number: u32) -> String {
    if number == 1 { format!("{id}{EXTENSION}") } else { format!("{id}-{number}{EXTENSION}") }
}

/// The number that a name says, if it is that of a file of the operation.
fn number_of(name: &str, id: OperationId) -> Option<u32> {
    let middle = name.strip_prefix(&id.to_string())?.strip_suffix(EXTENSION)?;
    if middle.is_empty() {
        return Some(1);
    }
    let number: u32 = middle.strip_prefix('-')?.parse().ok()?;
    // One number has one name.
    (number > 1 && file_name(id, number) == name).then_some(number)
}

/// The newest file of an operation; removes what an interrupted creation has left. Under the operation's lock.
pub(super) fn newest(folder: &Path, id: OperationId) -> Result<Option<u32>, UndoFileError> {
    let list = UndoFileError::io("list", folder);
    let names = || -> std::io::Result<Option<u32>> {
        let mut newest = None;
        for entry in files::read_folder(folder)?.into_iter().flatten() {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(&temporary(id)) {
                std::fs::remove_file(entry.path())?;
            }
            newest = newest.max(number_of(name, id));
        }
        Ok(newest)
    };
    names().map_err(list)
}

/// The same; changes nothing.
pub(super) fn newest_of(folder: &Path, id: OperationId) -> std::io::Result<Option<u32>> {
    let mut newest = None;
    for entry in files::read_folder(folder)?.into_iter().flatten() {
        newest = newest.max(entry?.file_name().to_str().and_then(|name| number_of(name, id)));
    }
    Ok(newest)
}

fn temporary(id: OperationId) -> String {
    format!("{TEMPORARY}{id}-")
}

/// Creates a file with its head: it has its name when that is synced, and its name is synced before anything else is written.
pub(super) fn create(
    folder: &Path,
    operation: &Operation,
    number: u32,
    keyring: &Keyring,
    random: Random,
    lock: OperationLock,
) -> Result<UndoWriter, UndoFileError> {
    let path = folder.join(file_name(operation.id, number));
    let (bytes, whole) =
        head::encode(operation, number, keyring, random).map_err(UndoFileError::io("create", &path))?;
    let file = put_in_place(folder, operation.id, &path, &bytes)?;
    Ok(UndoWriter::new(&path, file, whole, bytes.len() as u64, lock))
}

fn put_in_place(folder: &Path, id: OperationId, path: &Path, bytes: &[u8]) -> Result<File, UndoFileError> {
    let failed = |e| UndoFileError::io("create", path)(e);
    let mut file = tempfile::Builder::new()
        .prefix(&temporary(id))
        .permissions(Permissions::from_mode(MODE))
        .tempfile_in(folder)
        .map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    files::sync(file.as_file()).map_err(failed)?;
    lock::lock_to_write(path, file.as_file())?;
    // It never takes the place of another file.
    let file = file.persist_noclobber(path).map_err(|e| failed(e.error))?;
    files::sync_dir(folder).map_err(failed)?;
    Ok(file)
}

/// What is in a file that is there.
pub(super) enum Existing {
    /// The next run has another one.
    Finished(OperationLock),
    /// An interrupted run has left it.
    Interrupted(Box<(UndoWriter, Progress)>),
}

/// Opens a file that an earlier run has left. A torn tail is cut off; nothing else is changed.
pub(super) fn open_existing(
    path: &Path,
    wanted: Option<&UndoHead>,
    keyring: &Keyring,
    lock: OperationLock,
) -> Result<Existing, UndoFileError> {
    let file = files::open_write(path).map_err(UndoFileError::io("open", path))?;
    lock::lock_to_write(path, &file)?;
    let shared = file.try_clone().map_err(UndoFileError::io("open", path))?;
    let mut reader = UndoReader::of(path, Box::new(shared), keyring)?;
    if let Some(wanted) = wanted {
        check_same(path, wanted, reader.head())?;
    }
    if reader.ends_as_finished()? {
        return Ok(Existing::Finished(lock));
    }
    if keyring.current().is_some() && reader.head().key_id.is_none() {
        return Err(UndoFileError::InClear { path: path.to_owned() });
    }
    let progress = Progress::read(&mut reader)?;
    let end = reader.position();
    if progress.torn().is_some() {
        file.set_len(end.at).map_err(UndoFileError::io("cut", path))?;
    }
    // What is there was perhaps not synced yet.
    files::sync(&file).map_err(UndoFileError::io("sync", path))?;
    let writer = UndoWriter::new(path, file, reader.whole_head().clone(), end.at, lock);
    let writer = writer.behind(&progress, end.number);
    Ok(Existing::Interrupted(Box::new((writer, progress))))
}

/// Whether a file is that of the operation that its name says.
fn check_same(path: &Path, wanted: &UndoHead, found: &UndoHead) -> Result<(), UndoFileError> {
    let (a, b) = (&wanted.operation, &found.operation);
    let pairs = [
        ("the journal", a.journal_id.clone(), b.journal_id.clone()),
        ("the operation", a.id.to_string(), b.id.to_string()),
        ("the address of the target", a.target.address.clone(), b.target.address.clone()),
        ("the number", wanted.number.to_string(), found.number.to_string()),
    ];
    for (what, expected, found) in pairs {
        if expected != found {
            return Err(UndoFileError::Foreign { path: path.to_owned(), what, expected, found });
        }
    }
    Ok(())
}

/// The folder and file of a path.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}
