//! The base as it is: read through, or sent.

use std::io::{ErrorKind, Read as _};

use redtape_journal::{Catalog, Keyring, OpenError, SnapshotInfo, SnapshotReader};
use redtape_wire::rdb::{RdbSummary, RdbVerifier};

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
