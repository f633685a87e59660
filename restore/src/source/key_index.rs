//! The key index of a base: made by walking its RDB, opened for those who want single keys.
//!
//! The journal stores it and verifies it; which bytes are a key, only the RDB says. An index that is missing, damaged or of
//! another base is made again when it is wanted; the daemon makes it before.

use std::io::{ErrorKind, Read as _};

use redtape_journal::{
    Catalog, ContentReader, GoOn, KeyIndex, KeyIndexError, KeyIndexFile, KeyIndexWriter, Keyring, OpenError, ReadKey,
    SnapshotInfo, Workspace,
};
use redtape_wire::rdb::{Entry, HEADER_LEN, RdbVersion, ReadError, Walker, parse_header, read_entry_key};

use crate::error::RestoreError;
use crate::interrupt::Interrupt;

/// Why no key index was made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The journal has no such index, or takes none.
    #[error(transparent)]
    Index(#[from] KeyIndexError),
    /// The base is what was stored, and is no RDB that is understood here.
    #[error("its keys cannot be found: {0}")]
    Rdb(ReadError),
}

impl BuildError {
    /// The folder of snapshots takes no file; another one may.
    fn is_of_the_folder(&self) -> bool {
        match self {
            Self::Index(KeyIndexError::NoRoom { .. }) => true,
            Self::Index(KeyIndexError::Io { source, .. }) => matches!(
                source.kind(),
                ErrorKind::PermissionDenied
                    | ErrorKind::ReadOnlyFilesystem
                    | ErrorKind::StorageFull
                    | ErrorKind::QuotaExceeded
            ),
            _ => false,
        }
    }

    fn of_base(self, base: &SnapshotInfo) -> RestoreError {
        match self {
            Self::Rdb(error) => RestoreError::Base { path: base.path.clone(), problem: error.to_string() },
            Self::Index(KeyIndexError::Base { path, what, .. }) => RestoreError::Base { path, problem: what },
            Self::Index(KeyIndexError::Key { file, fault }) => RestoreError::Open(OpenError::Key { file, fault }),
            Self::Index(KeyIndexError::Open(error)) => RestoreError::Open(error),
            Self::Index(KeyIndexError::Stopped) => RestoreError::Interrupted,
            Self::Index(error) => RestoreError::KeyIndex(error),
        }
    }
}

/// Reads a base through and writes its index; what it gives is not in its place. The base's digest was compared.
pub fn build(
    base: &SnapshotInfo,
    keyring: &Keyring,
    workspace: Workspace,
    go_on: &GoOn<'_>,
) -> Result<KeyIndexFile, BuildError> {
    let (mut writer, mut content) = KeyIndexWriter::begin(base, keyring, workspace, go_on)?;
    match walk(&mut writer, &mut content) {
        Ok(()) => Ok(writer.finish(content)?),
        Err(BuildError::Rdb(_)) if content.is_stopped() => Err(KeyIndexError::Stopped.into()),
        Err(BuildError::Rdb(error)) => {
            // Damage is told as such.
            writer.give_up(content)?;
            Err(BuildError::Rdb(error))
        }
        Err(error) => Err(error),
    }
}

fn walk(writer: &mut KeyIndexWriter<'_>, content: &mut ContentReader<'_>) -> Result<(), BuildError> {
    let mut walker = Walker::new(content).map_err(BuildError::Rdb)?;
    while let Some(entry) = walker.next_entry().map_err(BuildError::Rdb)? {
        if let Entry::Key(key) = entry {
            writer.add(key.db, key.key, key.entry.offset, key.entry.len)?;
        }
    }
    Ok(())
}

/// Opens the index of a base. Where that is not possible, makes it: in its place, if the journal can be written to, else for
/// this use alone.
pub fn open_or_build(
    catalog: &Catalog,
    base: &SnapshotInfo,
    keyring: &Keyring,
    interrupt: &Interrupt,
) -> Result<KeyIndex, RestoreError> {
    let version = version_of(catalog, base, keyring)?;
    match KeyIndex::open(catalog, base, keyring, key_reader(version)) {
        Ok(index) => Ok(index),
        Err(error) if error.is_made_again() => rebuild(catalog, base, keyring, interrupt),
        Err(error) => Err(BuildError::Index(error).of_base(base)),
    }
}

/// Makes the index of a base anew: for who has found it damaged ([`KeyIndexError::is_made_again`]).
pub fn rebuild(
    catalog: &Catalog,
    base: &SnapshotInfo,
    keyring: &Keyring,
    interrupt: &Interrupt,
) -> Result<KeyIndex, RestoreError> {
    let version = version_of(catalog, base, keyring)?;
    let go_on = |_| interrupt.check().is_ok();
    let written = match build(base, keyring, Workspace::Journal, &go_on) {
        Err(error) if error.is_of_the_folder() => {
            build(base, keyring, Workspace::Elsewhere(std::env::temp_dir()), &go_on)
        }
        other => other,
    };
    let written = written.map_err(|error| error.of_base(base))?;
    let index = KeyIndex::open_unplaced(catalog, &written, keyring, key_reader(version));
    // Without its place it serves this use; the next one makes it again.
    let _ = written.put_in_place();
    index.map_err(|error| BuildError::Index(error).of_base(base))
}

/// Reads the key at the front of an entry.
pub fn key_reader(version: RdbVersion) -> ReadKey {
    Box::new(move |entry| read_entry_key(version, entry).map_err(std::io::Error::other))
}

/// The version of a base's RDB.
fn version_of(catalog: &Catalog, base: &SnapshotInfo, keyring: &Keyring) -> Result<RdbVersion, RestoreError> {
    let mut header = [0; HEADER_LEN];
    match base.manifest.magic_version.as_bytes().first_chunk() {
        Some(said) => header = *said,
        None => super::open(catalog, base, keyring)?
            .read_exact(&mut header)
            .map_err(RestoreError::io("read", &base.path))?,
    }
    parse_header(&header).map_err(|e| RestoreError::Base { path: base.path.clone(), problem: e.to_string() })
}

/// Whether the index of a base can be opened, and all of it is sound.
pub fn check(catalog: &Catalog, base: &SnapshotInfo, keyring: &Keyring, go_on: &GoOn<'_>) -> Result<(), KeyIndexError> {
    // No key is looked up.
    let read_key: ReadKey = Box::new(|_| Err(ErrorKind::Unsupported.into()));
    KeyIndex::open(catalog, base, keyring, read_key)?.check(go_on)
}
