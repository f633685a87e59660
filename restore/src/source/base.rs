//! The base as it is: read through, or sent.

use std::io::{self, ErrorKind, Read};

use redtape_journal::{Catalog, KeyIndex, Keyring, OpenError, SnapshotInfo, SnapshotReader};
use redtape_wire::rdb::{Entry, RdbSummary, RdbVerifier, RdbVersion, Walker, read_entry_key};

use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::point::PointError;
use crate::progress::{Event, Observer, Unit};

/// Reads the base through: its digest, its checksum, its header.
pub(crate) fn check_base(
    catalog: &Catalog,
    base: &SnapshotInfo,
    keyring: &Keyring,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<RdbSummary, RestoreError> {
    const CHUNK_BYTES: usize = 1 << 20;
    let path = &base.path;
    let mut file = open_base(catalog, base, keyring)?;
    let damaged = |problem: String| RestoreError::Base { path: path.clone(), problem };
    observer.on(&Event::Step { name: "checking the base", total: base.manifest.bytes, unit: Unit::Bytes });
    let mut rdb = RdbVerifier::new();
    let mut chunk = vec![0u8; CHUNK_BYTES];
    let mut done = 0;
    loop {
        interrupt.check()?;
        let n = match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == ErrorKind::InvalidData => return Err(damaged(e.to_string())),
            Err(e) => return Err(RestoreError::Io { action: "read", path: path.clone(), source: e }),
        };
        rdb.update(&chunk[..n]);
        done += n as u64;
        observer.on(&Event::At(done));
    }
    observer.on(&Event::StepDone);
    if let Some(problem) = wrong_digest(&file, &base.manifest.blake3) {
        return Err(damaged(problem));
    }
    rdb.finish().map_err(|e| damaged(e.to_string()))
}

/// The highest database in which a base has keys; `None` = that cannot be seen. By its key index, or else read through.
pub(crate) fn highest_db(
    catalog: &Catalog,
    base: &SnapshotInfo,
    keyring: &Keyring,
    version: RdbVersion,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Option<u32>, RestoreError> {
    /// Keys between two looks at the interrupt.
    const LOOK_EVERY: u64 = 4096;
    let read_key = Box::new(move |entry: &mut dyn Read| read_entry_key(version, entry).map_err(io::Error::other));
    if let Ok(mut index) = KeyIndex::open(catalog, base, keyring, read_key)
        && let Ok(highest) = index.highest_db()
    {
        return Ok(Some(highest.unwrap_or(0)));
    }
    let Ok(mut walker) = Walker::new(open_base(catalog, base, keyring)?) else { return Ok(None) };
    observer.on(&Event::Step { name: "looking for the base's databases", total: 0, unit: Unit::Keys });
    let (mut highest, mut keys) = (0, 0);
    loop {
        match walker.next_entry() {
            Ok(None) => break,
            Ok(Some(Entry::Key(key))) => highest = highest.max(key.db),
            Ok(Some(_)) => {}
            // Its digest was compared: it is a kind of RDB that is not understood here.
            Err(_) => return Ok(None),
        }
        keys += 1;
        if keys % LOOK_EVERY == 0 {
            interrupt.check()?;
            observer.on(&Event::At(keys));
        }
    }
    observer.on(&Event::StepDone);
    Ok(Some(highest))
}

/// What is wrong with the digest of a base that was read to its end; `noted`: that of its manifest, empty if it has none.
pub(crate) fn wrong_digest(file: &SnapshotReader, noted: &str) -> Option<String> {
    let found = file.digest();
    (!noted.is_empty() && found != noted).then(|| format!("its digest is {found}, its manifest says {noted}"))
}

/// The base's content, from its beginning.
pub(crate) fn open_base(
    catalog: &Catalog,
    base: &SnapshotInfo,
    keyring: &Keyring,
) -> Result<SnapshotReader, RestoreError> {
    catalog.open_snapshot(base, keyring).map_err(|e| match e {
        OpenError::Io { path, source, .. } if source.kind() == ErrorKind::NotFound => {
            RestoreError::Point(PointError::BaseMissing(path))
        }
        OpenError::Io { action, path, source } => RestoreError::Io { action, path, source },
        other => RestoreError::Open(other),
    })
}
