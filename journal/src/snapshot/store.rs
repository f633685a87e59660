//! Writing, listing and cleaning up snapshot files.
//!
//! | crash while | what is there | the next writable open |
//! | --- | --- | --- |
//! | writing | `.tmp-*` without lock | removes it |
//! | renaming | `<name>.rdb`, empty or whole, without manifest | moves it to the quarantine, or removes it if empty |
//! | writing the manifest | the same | the same |
//! | afterwards | both | keeps them |

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::chunks::ChunkWriter;
use super::{KEY_INDEX, SnapshotEncryption, SnapshotInfo, SnapshotManifest};
use crate::crypto::{KEY_LEN, Keyring, Random, Sealer, Wrapped, new_data_key, random};
use crate::directory::{Directory, TEMPORARY, write_atomically};
use crate::error::{OpenError, StoreError};
use crate::files;
use crate::files::{FILE_MODE, FileKind, is_there, kind_at, sync_dir};
use crate::hex::hex;
use crate::lease::{SnapshotStep, SnapshotsAtRest};
use crate::meta::Meta;
use crate::storage::{Folder, Found, LocalDirectory, Storage};
use crate::types::TimelineId;

/// What a manifest is renamed to before its snapshot is removed.
pub(crate) const RETIRED: &str = "removed";

/// Writes a snapshot into a temporary file; dropped without `commit`, it leaves nothing.
#[derive(Debug)]
pub struct SnapshotWriter {
    dir: Directory,
    file: tempfile::NamedTempFile,
    hasher: blake3::Hasher,
    bytes: u64,
    /// Size of the file.
    stored: u64,
    chunks: Option<ChunkWriter>,
    /// The data key, until it can be wrapped: that binds it to what only the manifest says.
    data_key: Option<([u8; KEY_LEN], Keyring)>,
}

impl SnapshotWriter {
    /// `dir` is the journal's directory.
    pub fn create(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::create_with(dir, &Keyring::default())
    }

    /// The same, encrypted if there are keys.
    pub fn create_with(dir: impl AsRef<Path>, keyring: &Keyring) -> Result<Self, StoreError> {
        Self::create_in(dir.as_ref(), keyring, random)
    }

    pub(crate) fn create_in(dir: &Path, keyring: &Keyring, random: Random) -> Result<Self, StoreError> {
        let dir = Directory::new(dir);
        let folder = dir.snapshots();
        let file = create_locked(&dir, ".rdb").map_err(StoreError::io("create a snapshot in", &folder))?;
        let mut data_key = None;
        if keyring.current().is_some() {
            let key = new_data_key(random).map_err(StoreError::io("draw a key for", file.path()))?;
            data_key = Some((key, keyring.clone()));
        }
        let chunks = data_key.as_ref().map(|(key, _)| ChunkWriter::new(Sealer::new(key)));
        Ok(Self { dir, file, hasher: blake3::Hasher::new(), bytes: 0, stored: 0, chunks, data_key })
    }

    /// Appends to the file.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes += bytes.len() as u64;
        let Some(chunks) = &mut self.chunks else { return self.store(bytes) };
        let mut sealed = Vec::new();
        chunks.write(bytes, &mut sealed);
        self.store(&sealed)
    }

    fn store(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(StoreError::io("write", self.file.path()))?;
        self.hasher.update(bytes);
        self.stored += bytes.len() as u64;
        Ok(())
    }

    /// Bytes written so far, as they were given.
    pub fn written_bytes(&self) -> u64 {
        self.bytes
    }

    /// Syncs the file, gives it its name, and puts the manifest in place with the file's size and
    /// digest. Returns the path of the file. A second snapshot of the same LSN gets a name of its
    /// own.
    pub fn commit(mut self, mut manifest: SnapshotManifest) -> Result<PathBuf, StoreError> {
        if let Some(chunks) = self.chunks.take() {
            let mut sealed = Vec::new();
            chunks.finish(&mut sealed);
            self.store(&sealed)?;
        }
        manifest.journal_id = journal_id(&self.dir).map_err(StoreError::io("read the id of", self.dir.root()))?;
        manifest.encryption = None;
        if let Some((data_key, keyring)) = &self.data_key {
            let wrapped = keyring.wrap(data_key, &manifest.place());
            manifest.encryption =
                wrapped.map(|Wrapped { key_id, bytes }| SnapshotEncryption { key_id, wrapped_key: hex(&bytes) });
        }
        manifest.bytes = self.stored;
        manifest.blake3 = self.hasher.finalize().to_hex().to_string();
        let temporary = self.file.path().to_owned();
        files::sync(self.file.as_file()).map_err(StoreError::io("sync", &temporary))?;
        // Until the manifest is there: neither the reserved name nor the manifest's temporary file has a lock of its own.
        let _step = SnapshotStep::begin(&self.dir).map_err(StoreError::io("lock", self.dir.snapshot_lock()))?;
        let path = reserve_name(&self.dir.snapshots(), &manifest).map_err(StoreError::io("name", &temporary))?;
        let beside = path.with_extension("json");
        let finish = || -> Result<(), StoreError> {
            // The lock moves with the file; `_file` holds it until the manifest is there.
            let _file = self.file.persist(&path).map_err(|e| StoreError::io("rename", &temporary)(e.error))?;
            let json = manifest.to_json().map_err(|e| StoreError::io("encode", &path)(io::Error::other(e)))?;
            sync_dir(&self.dir.snapshots()).map_err(StoreError::io("sync", self.dir.snapshots()))?;
            write_atomically(&beside, &json).map_err(StoreError::io("write", &beside))
        };
        if let Err(error) = finish() {
            if !matches!(kind_at(&beside), Ok(Some(FileKind::Regular))) {
                // It is unusable. What cannot be removed either is found by the next writable open.
                let _ = std::fs::remove_file(&path);
            }
            return Err(error);
        }
        Ok(path)
    }
}

/// Creates a temporary file in the snapshots' folder, and holds its lock, so that it is not cleaned up meanwhile.
pub(super) fn create_locked(dir: &Directory, suffix: &str) -> io::Result<tempfile::NamedTempFile> {
    let folder = dir.snapshots();
    files::ensure_folder(&folder)?;
    let _step = SnapshotStep::begin(dir)?;
    loop {
        let file = tempfile::Builder::new()
            .prefix(&format!("{TEMPORARY}{}-", std::process::id()))
            .suffix(suffix)
            .permissions(Permissions::from_mode(FILE_MODE))
            .tempfile_in(&folder)?;
        flock(file.as_file(), FlockOperation::LockExclusive)?;
        // Between creation and lock, another process may have cleaned it up.
        if file.path().exists() {
            return Ok(file);
        }
    }
}

/// The id of the journal in which a snapshot is; empty before there is one.
fn journal_id(dir: &Directory) -> io::Result<String> {
    let meta = Meta::load(dir).map_err(io::Error::other)?;
    Ok(meta.map_or_else(String::new, |meta| meta.journal_id))
}

/// Creates an empty file under the first free name, so that no two processes take the same.
fn reserve_name(folder: &Path, manifest: &SnapshotManifest) -> io::Result<PathBuf> {
    let stem = manifest.stem();
    let mut n = 1u64;
    loop {
        let name = if n == 1 { format!("{stem}.rdb") } else { format!("{stem}-{n}.rdb") };
        let path = folder.join(name);
        if is_there(&path.with_extension(RETIRED)) {
            // Its removal will take the file of that name along.
            n += 1;
            continue;
        }
        match files::create_new(&path) {
            Ok(_) => return Ok(path),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => n += 1,
            Err(e) => return Err(e),
        }
    }
}

/// Which one it is of those that have one LSN and timeline.
fn number_of(path: &Path) -> u64 {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem.splitn(3, '-').nth(2).and_then(|number| number.parse().ok()).unwrap_or(1)
}

/// What is in the snapshots' folder.
#[derive(Debug, Default)]
pub(crate) struct SnapshotFiles {
    /// Finished ones, oldest first: in the order of LSN and timeline; those of one place by their time, then by their number.
    pub(crate) whole: Vec<SnapshotInfo>,
    /// Manifests that cannot be used, and why.
    pub(crate) broken: Vec<(PathBuf, String)>,
    /// Files without manifest: unfinished, or being written.
    pub(crate) unfinished: Vec<PathBuf>,
    /// Manifests of snapshots whose removal was begun; what is there of their files is nothing any more.
    pub(crate) retired: Vec<PathBuf>,
    /// What does not belong here, and why.
    pub(crate) others: Vec<(PathBuf, String)>,
}

/// Lists the snapshots; a file counts only with its manifest and with the size that it says.
pub(crate) fn list_snapshots(dir: &Directory) -> Result<SnapshotFiles, OpenError> {
    let journal_id = Meta::load(dir)?.map_or_else(String::new, |meta| meta.journal_id);
    list_snapshots_of(&LocalDirectory::new(dir), &journal_id)
}

/// The same for who knows which journal it is.
pub(crate) fn list_snapshots_of(storage: &dyn Storage, journal_id: &str) -> Result<SnapshotFiles, OpenError> {
    let mut found = SnapshotFiles::default();
    let list = storage.list(Folder::Snapshots);
    let Some(paths) = list.map_err(|e| OpenError::io("list", storage.folder(Folder::Snapshots))(e))? else {
        return Ok(found);
    };
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let extension = path.extension().and_then(|e| e.to_str());
        if extension == Some("json") && !name.starts_with(TEMPORARY) {
            match load_snapshot(storage, &path, journal_id) {
                Ok(info) => found.whole.push(info),
                // A manifest goes before its file does: this snapshot was removed since it was listed.
                Err(_) if !storage.has(&path) => {}
                Err(what) => found.broken.push((path, what)),
            }
            continue;
        }
        let at = storage.look_at(&path).map_err(OpenError::io("look at", &path))?;
        if let Some(Found { kind, .. }) = at.filter(|at| at.kind != FileKind::Regular) {
            found.others.push((path, format!("{kind}, not a regular file")));
            continue;
        }
        match extension {
            _ if name.starts_with(TEMPORARY) => found.unfinished.push(path),
            Some(RETIRED) => found.retired.push(path),
            Some("rdb" | KEY_INDEX) => {
                if !storage.has(&path.with_extension("json")) && !storage.has(&path.with_extension(RETIRED)) {
                    found.unfinished.push(path);
                }
            }
            _ => found.others.push((path, "not a snapshot's name".to_owned())),
        }
    }
    found.whole.sort_by(|a, b| {
        let key = |s: &SnapshotInfo| (s.manifest.lsn, s.manifest.timeline, s.manifest.ts, number_of(&s.path));
        key(a).cmp(&key(b))
    });
    found.broken.sort_unstable();
    found.unfinished.sort_unstable();
    found.retired.sort_unstable();
    found.others.sort_unstable();
    Ok(found)
}

fn load_snapshot(storage: &dyn Storage, beside: &Path, journal_id: &str) -> Result<SnapshotInfo, String> {
    let json = storage.open(beside).and_then(|file| file.read_all()).map_err(|e| format!("cannot be read: {e}"))?;
    let manifest = SnapshotManifest::from_json(&json)?;
    if manifest.journal_id != journal_id {
        return Err(format!("belongs to journal {}, not to {journal_id}", manifest.journal_id));
    }
    let (stem, name) = (manifest.stem(), beside.file_stem().unwrap_or_default().to_string_lossy());
    let again = name.strip_prefix(&stem).map(|rest| rest.strip_prefix('-').unwrap_or(rest));
    if !again.is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("is that of {stem}"));
    }
    let path = beside.with_extension("rdb");
    let bytes = storage.open(&path).and_then(|file| file.bytes());
    let bytes = bytes.map_err(|e| format!("its file cannot be read: {e}"))?;
    if bytes != manifest.bytes {
        return Err(format!("its file has {bytes} bytes, not {}", manifest.bytes));
    }
    let index = storage.look_at(&path.with_extension(KEY_INDEX)).ok().flatten();
    let index = index.filter(|found| found.kind == FileKind::Regular);
    Ok(SnapshotInfo { path, manifest, key_index_bytes: index.map_or(0, |found| found.version.bytes) })
}

/// Removes what crashed writers left. Called under the journal's lock; writers of snapshots do not
/// hold that, but each holds the lock of its own file.
///
/// A base whose timeline never began (a crash or a full disk between the two) goes too: nothing can
/// be replayed behind it, and its number would be given again.
pub(crate) fn clean_snapshots(dir: &Directory, last: TimelineId) -> Result<Vec<String>, OpenError> {
    let mut notes = Vec::new();
    let mut changed = false;
    let listed = list_snapshots(dir)?;
    // Without any segment it is unknown which began: then all stay.
    let never_began = |s: &&SnapshotInfo| last > TimelineId(0) && s.manifest.timeline > last;
    for info in listed.whole.iter().filter(never_began) {
        let beside = [info.path.with_extension("json"), info.path.clone(), info.path.with_extension(KEY_INDEX)];
        for path in beside.into_iter().filter(|path| is_there(path)) {
            let to = dir.quarantine_path(&path.file_name().unwrap_or_default().to_string_lossy());
            std::fs::rename(&path, &to).map_err(OpenError::io("move to quarantine", &path))?;
        }
        notes.push(format!("moved {}, a base whose timeline never began, to quarantine", info.path.display()));
        changed = true;
    }
    let at_rest = SnapshotsAtRest::take(dir).map_err(OpenError::io("lock", dir.snapshot_lock()))?;
    // While another process is between two steps, they stay: the next opening checks again.
    for path in at_rest.iter().flat_map(|_| &listed.unfinished) {
        let file = match files::open_read(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(OpenError::io("open", path)(e)),
        };
        // Finished since it was listed, or held by a living writer: not ours.
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() || path.with_extension("json").exists() {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let len = file.metadata().map_err(OpenError::io("read", path))?.len();
        if name.starts_with(TEMPORARY) || len == 0 {
            remove(path)?;
            notes.push(format!("removed snapshots/{name}, which was never finished"));
        } else {
            let to = dir.quarantine_path(&name);
            std::fs::rename(path, &to).map_err(OpenError::io("move to quarantine", path))?;
            notes.push(format!("moved snapshots/{name}, which has no manifest, to quarantine"));
        }
        changed = true;
    }
    if changed {
        for folder in [dir.snapshots(), dir.quarantine()] {
            sync_dir(&folder).map_err(OpenError::io("sync", &folder))?;
        }
    }
    Ok(notes)
}

fn remove(path: &Path) -> Result<(), OpenError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(OpenError::io("remove", path)),
    }
}
