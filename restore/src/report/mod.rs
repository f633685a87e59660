//! What a dataset consists of: its biggest keys, the memory of each type, database, encoding and prefix, and how long keys live. Writes
//! nothing anywhere.
//!
//! ```text
//! the newest base as it is ──────────────────────┐
//! point ─► scratch server, saved as an RDB ──────┴─► dataset (walk) ─► contents (biggest, prefixes, lives, tally; pure) ─► the caller
//! ```
//!
//! One pass over an RDB, key by key. Memory: the key in hand and one packed value of it, and tables of which each has a limit: the
//! biggest keys ([`TOP_MAX`], of each [`KEY_KEPT_BYTES`]), prefixes ([`PREFIXES_MAX`]), databases ([`DATABASES_MAX`]), modules'
//! types ([`MODULE_TYPES_MAX`]).

mod biggest;
mod contents;
mod dataset;
mod lives;
mod prefixes;
mod tally;

use std::path::PathBuf;

use redtape_journal::query::{AsOf, Filter, Zone};
use redtape_journal::{Catalog, Keyring, Micros};

pub use self::biggest::{BigKey, KEY_KEPT_BYTES, TOP_MAX};
pub use self::contents::{Contents, DATABASES_MAX, Encoding, Libraries, MODULE_TYPES_MAX};
pub use self::lives::{LIVES, Life, Lives};
pub use self::prefixes::{PREFIX_BYTES_MAX, PREFIXES_MAX, PrefixRow, Prefixes};
pub use self::tally::{KeyFacts, Tally};
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::limits::Limits;
use crate::point::{Facts, PointError, RestorePoint};
use crate::progress::{Event, Observer};
use crate::request::{Reading, Request};
use crate::source::Located;
use crate::values::saved::Saved;

/// Which dataset, and what of it.
#[derive(Debug, Clone)]
pub struct ReportRequest {
    /// The journal's directory.
    pub from: PathBuf,
    /// What it is encrypted with, if it is.
    pub keyring: Keyring,
    /// The point in time; `None` = that of the newest base.
    pub as_of: Option<AsOf>,
    /// The zone of times that do not say theirs.
    pub zone: Zone,
    /// The present, for "ago".
    pub now: Micros,
    /// Which keys.
    pub filter: Filter,
    /// What is counted.
    pub asked: Asked,
    /// Which scratch server, if the person insists.
    pub server_bin: Option<PathBuf>,
    /// Ends it when it is set.
    pub interrupt: Interrupt,
    /// How long a scratch server is waited for.
    pub limits: Limits,
}

/// What is counted beside the totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// So many of the biggest keys, at most [`TOP_MAX`].
    pub top: usize,
    /// Separators of a prefix.
    pub depth: usize,
    /// The separator.
    pub separator: u8,
}

/// What was found.
#[derive(Debug)]
pub struct Report {
    /// The point in time that it shows.
    pub point: RestorePoint,
    /// The base itself was read, as opposed to a dataset that was rebuilt.
    pub is_base: bool,
    /// The server of which the memory is estimated, such as `Redis 7.0.15`.
    pub server: String,
    /// Memory in use by the recorded server when it wrote the base, as it says itself; `None` where a dataset was rebuilt, or it does
    /// not say.
    pub used_memory: Option<u64>,
    /// Bytes of the RDB that was read.
    pub rdb_bytes: u64,
    /// What is in it.
    pub contents: Contents,
}

/// Reads a dataset; `take` gets each wanted key, in the order of the RDB.
pub fn report(
    request: &ReportRequest,
    take: &mut dyn FnMut(&KeyFacts<'_>) -> Result<(), RestoreError>,
    observer: &mut dyn Observer,
) -> Result<Report, RestoreError> {
    match &request.as_of {
        None => of_base(request, take, observer),
        Some(as_of) => of_moment(request, as_of, take, observer),
    }
}

fn of_base(
    request: &ReportRequest,
    take: &mut dyn FnMut(&KeyFacts<'_>) -> Result<(), RestoreError>,
    observer: &mut dyn Observer,
) -> Result<Report, RestoreError> {
    let catalog = Catalog::open_with(&request.from, &request.keyring)?;
    let snapshots = Facts::snapshots(&catalog);
    let newest = snapshots.into_iter().max_by_key(|s| (s.manifest.timeline, s.manifest.lsn, s.manifest.ts));
    let base = newest.ok_or(PointError::NoWindow)?;
    let (ts, timeline, lsn) = (base.manifest.ts, base.manifest.timeline, base.manifest.lsn);
    let zone = request.zone.clone();
    let (before, next_ts, warnings) = (false, None, Vec::new());
    let point = RestorePoint { timeline, lsn, ts, asked: ts, before, zone, clock: ts, base, next_ts, warnings };
    let pass = dataset::Pass::new(request, &point);
    let read = pass.base(&catalog, &point.base, take, observer)?;
    let dataset::Read { server, used_memory, rdb_bytes, contents } = read;
    Ok(Report { point, is_base: true, server, used_memory, rdb_bytes, contents })
}

fn of_moment(
    request: &ReportRequest,
    as_of: &AsOf,
    take: &mut dyn FnMut(&KeyFacts<'_>) -> Result<(), RestoreError>,
    observer: &mut dyn Observer,
) -> Result<Report, RestoreError> {
    let as_restore = request.as_restore(as_of);
    let located = Located::find(&as_restore)?;
    observer.on(&Event::Resolved(&located.point));
    let point = located.point.clone();
    let mut source = located.check(&as_restore, observer)?;
    source.binary = Some(source.find_any_binary(request.server_bin.as_deref())?);
    let (mut scratch, _) = source.rebuild(observer)?;
    let saved = Saved::of(&mut scratch)?;
    let pass = dataset::Pass::new(request, &point);
    let read = pass.saved(&saved, &source.rdb.aux, take, observer)?;
    let dataset::Read { server, rdb_bytes, contents, .. } = read;
    Ok(Report { point, is_base: false, server, used_memory: None, rdb_bytes, contents })
}

impl ReportRequest {
    /// A restore of this moment, up to where a target would come in.
    fn as_restore(&self, as_of: &AsOf) -> Request {
        Request::from(Reading {
            from: self.from.clone(),
            keyring: self.keyring.clone(),
            as_of: as_of.clone(),
            zone: self.zone.clone(),
            filter: self.filter.clone(),
            slice: true,
            server_bin: self.server_bin.clone(),
            now: self.now,
            interrupt: self.interrupt.clone(),
            limits: self.limits,
        })
    }
}
