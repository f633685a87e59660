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

use super::base::open_base;
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

    pub(crate) fn of_base(self, base: &SnapshotInfo) -> RestoreError {
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
    let _ = written.put_in_place(&|| false);
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
        None => {
            open_base(catalog, base, keyring)?.read_exact(&mut header).map_err(RestoreError::io("read", &base.path))?;
        }
    }
    parse_header(&header).map_err(|e| RestoreError::Base { path: base.path.clone(), problem: e.to_string() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use redtape_journal::{
        Journal, Lsn, Micros, OpenOptions, ReplOffset, SnapshotKind, SnapshotManifest, SnapshotWriter, TimelineId,
    };

    use super::*;

    fn journal(content: &[u8]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        drop(Journal::create_or_open(root.path(), OpenOptions::default()).expect("a journal"));
        let mut writer = SnapshotWriter::create(root.path()).expect("a snapshot");
        writer.write(content).expect("written");
        let manifest = SnapshotManifest {
            journal_id: String::new(),
            lsn: Lsn(0),
            timeline: TimelineId(1),
            source_id: "source".to_owned(),
            offset: ReplOffset(1),
            db: None,
            ts: Micros(1),
            kind: SnapshotKind::Base,
            bytes: 0,
            blake3: String::new(),
            // As if it had not been recorded.
            magic_version: String::new(),
            server_version: String::new(),
            checksum_present: true,
            encryption: None,
            command_table: None,
        };
        writer.commit(manifest).expect("a snapshot");
        root
    }

    fn opened(root: &Path, interrupt: &Interrupt) -> Result<KeyIndex, RestoreError> {
        let catalog = Catalog::open(root).expect("the journal");
        open_or_build(&catalog, &catalog.snapshots()[0], &Keyring::default(), interrupt)
    }

    fn files(root: &Path) -> usize {
        std::fs::read_dir(root.join("snapshots")).expect("the folder").count()
    }

    /// "k" -> "v" in database 2, and no checksum.
    const RDB: &[u8] = b"REDIS0009\xfe\x02\x00\x01k\x01v\xff\0\0\0\0\0\0\0\0";

    #[test]
    fn an_index_that_is_not_there_is_made_unless_somebody_interrupts() {
        let root = journal(RDB);
        let interrupt = Interrupt::default();
        interrupt.set();
        assert!(matches!(opened(root.path(), &interrupt), Err(RestoreError::Interrupted)));
        assert_eq!(files(root.path()), 2);
        for files_then in [3, 3] {
            let mut index = opened(root.path(), &Interrupt::default()).expect("an index");
            assert_eq!(index.find(2, b"k").expect("an answer"), Some((11, 5)));
            assert_eq!(index.find(0, b"k").expect("an answer"), None);
            assert_eq!(index.read(11, 5).expect("the entry"), b"\x00\x01k\x01v");
            assert_eq!(files(root.path()), files_then);
        }
    }

    #[test]
    fn what_is_no_rdb_is_told_from_what_is_damaged() {
        let root = journal(b"REDIS0009\xfe\x02\x00\x01k");
        let refused = opened(root.path(), &Interrupt::default()).expect_err("it ends too early").to_string();
        assert!(refused.contains("ends inside"), "{refused}");
        assert_eq!(files(root.path()), 2);

        let root = journal(RDB);
        let catalog = Catalog::open(root.path()).expect("the journal");
        let mut bytes = RDB.to_vec();
        // No opcode of this version.
        bytes[11] = 243;
        std::fs::write(&catalog.snapshots()[0].path, bytes).expect("written");
        let refused = opened(root.path(), &Interrupt::default()).expect_err("another digest").to_string();
        assert!(refused.contains("BLAKE3"), "{refused}");
        assert_eq!(files(root.path()), 2);
    }
}
