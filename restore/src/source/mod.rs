//! How the dataset of a restore point is rebuilt: from a base and the journal range behind it, sent as they are
//! (`Source::payload`) or replayed by a scratch server (`Source::rebuild`). Where it goes, it does not know.

pub mod binary;
mod child;
pub mod clock;
mod destructive;
pub mod journal_range;
pub mod scratch;

use std::io::{ErrorKind, Read as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use redtape_journal::{Catalog, Keyring, OpenError, SnapshotInfo, SnapshotReader};
use redtape_wire::rdb::{RdbSummary, RdbVerifier};

use self::binary::{Binary, BinaryNeeds, made_by};
use self::journal_range::{JournalRange, RangeFacts, scan};
use self::scratch::Scratch;
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::limits::Limits;
use crate::point::{PointError, RestorePoint, locate};
use crate::progress::{Event, Observer, Unit};
use crate::replica_link::{Delivered, Payload};
use crate::request::Request;
use crate::version::ServerVersion;

/// A restore point that was found; nothing of it has been read yet.
pub(crate) struct Located {
    pub(crate) catalog: Catalog,
    pub(crate) point: RestorePoint,
}

impl Located {
    /// Opens the journal and finds the point.
    pub(crate) fn find(request: &Request) -> Result<Self, RestoreError> {
        let catalog = Catalog::open_with(&request.from, &request.keyring)?;
        let located = locate(&request.as_of, request.now, &request.zone, &catalog);
        let mut point = located.map_err(|error| RestoreError::not_located(error, &catalog))?;
        point.warnings.extend(destructive::last_write(&catalog, &point));
        Ok(Self { catalog, point })
    }

    /// Reads everything through once: the base with its digest, and every record up to the cut.
    pub(crate) fn check(self, request: &Request, observer: &mut dyn Observer) -> Result<Source, RestoreError> {
        let Self { catalog, point } = self;
        let rdb = check_base(&catalog, &point.base, request, observer)?;
        let after = point.base.manifest.lsn;
        let range = JournalRange { catalog, timeline: point.timeline, after, upto: point.lsn };
        let total = point.lsn.0 - after.0;
        observer.on(&Event::Step { name: "reading the journal", total, unit: Unit::Records });
        let mut interrupted = Ok(());
        let mut on_progress = |records| {
            observer.on(&Event::At(records));
            interrupted = request.interrupt.check();
            if interrupted.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let facts = scan(&range, &mut on_progress).map_err(|error| RestoreError::unreadable(error, &range.catalog))?;
        interrupted?;
        observer.on(&Event::StepDone);
        Ok(Source {
            from: request.from.clone(),
            point,
            rdb,
            range,
            facts,
            binary: None,
            keyring: request.keyring.clone(),
            limits: request.limits,
            interrupt: request.interrupt.clone(),
        })
    }
}

/// A dataset at a restore point. All of it was read once and is sound.
pub(crate) struct Source {
    /// The journal's directory.
    pub(crate) from: PathBuf,
    pub(crate) point: RestorePoint,
    pub(crate) rdb: RdbSummary,
    pub(crate) facts: RangeFacts,
    /// The scratch server's program, where one is needed.
    pub(crate) binary: Option<Binary>,
    range: JournalRange,
    keyring: Keyring,
    limits: Limits,
    interrupt: Interrupt,
}

impl Source {
    /// Memory in use by the server that made the base, if the base says so.
    pub(crate) fn base_memory(&self) -> Option<u64> {
        self.rdb.aux.iter().find(|(name, _)| name == "used-mem").and_then(|(_, bytes)| bytes.parse().ok())
    }

    /// Finds a program that loads the base and whose values a `target` loads.
    pub(crate) fn find_binary(&self, named: Option<&Path>, target: ServerVersion) -> Result<Binary, RestoreError> {
        let made_by = made_by(&self.point.base.manifest.server_version);
        binary::find(named, BinaryNeeds { base: self.rdb.version, made_by, target: Some(target) }, self.limits)
    }

    /// Finds a program that loads the base.
    pub(crate) fn find_any_binary(&self, named: Option<&Path>) -> Result<Binary, RestoreError> {
        let made_by = made_by(&self.point.base.manifest.server_version);
        binary::find(named, BinaryNeeds { base: self.rdb.version, made_by, target: None }, self.limits)
    }

    /// About how much memory the dataset takes while it is rebuilt.
    pub(crate) fn dataset_bytes(&self) -> u64 {
        self.base_memory().unwrap_or(0).max(self.rdb.bytes).saturating_add(self.facts.bytes)
    }

    /// The base and what follows it, to be sent as they are.
    pub(crate) fn payload(&self) -> Result<Payload<'_>, RestoreError> {
        Ok(Payload {
            rdb: Box::new(open(&self.range.catalog, &self.point.base, &self.keyring)?),
            rdb_bytes: self.rdb.bytes,
            replay: &self.range,
            records: self.facts.records,
        })
    }

    /// The dataset in a scratch server, and what that server holds.
    pub(crate) fn rebuild(&self, observer: &mut dyn Observer) -> Result<(Scratch, Delivered), RestoreError> {
        let binary = self.binary.as_ref().ok_or_else(|| RestoreError::NoScratch("none was chosen".to_owned()))?;
        let mut scratch = Scratch::start(binary, self.facts.max_db + 1, self.limits, &self.interrupt)?;
        let delivered =
            scratch.load(self.payload()?, observer, &self.interrupt).map_err(RestoreError::before_the_target)?;
        Ok((scratch, delivered))
    }
}

/// Reads the base through: its digest, its checksum, its header.
fn check_base(
    catalog: &Catalog,
    base: &SnapshotInfo,
    request: &Request,
    observer: &mut dyn Observer,
) -> Result<RdbSummary, RestoreError> {
    const CHUNK_BYTES: usize = 1 << 20;
    let path = &base.path;
    let mut file = open(catalog, base, &request.keyring)?;
    let damaged = |problem: String| RestoreError::Base { path: path.clone(), problem };
    observer.on(&Event::Step { name: "checking the base", total: base.manifest.bytes, unit: Unit::Bytes });
    let mut rdb = RdbVerifier::new();
    let mut chunk = vec![0u8; CHUNK_BYTES];
    let mut done = 0;
    loop {
        request.interrupt.check()?;
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
    let found = file.digest();
    if !base.manifest.blake3.is_empty() && found != base.manifest.blake3 {
        return Err(damaged(format!("its digest is {found}, its manifest says {}", base.manifest.blake3)));
    }
    rdb.finish().map_err(|e| damaged(e.to_string()))
}

fn open(catalog: &Catalog, base: &SnapshotInfo, keyring: &Keyring) -> Result<SnapshotReader, RestoreError> {
    catalog.open_snapshot(base, keyring).map_err(|e| match e {
        OpenError::Io { path, source, .. } if source.kind() == ErrorKind::NotFound => {
            RestoreError::Point(PointError::BaseMissing(path))
        }
        OpenError::Io { action, path, source } => RestoreError::Io { action, path, source },
        other => RestoreError::Open(other),
    })
}
