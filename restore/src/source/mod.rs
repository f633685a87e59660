//! How the dataset of a restore point is rebuilt: from a base and the journal range behind it, or from what the wanted keys
//! need of them (`Located::slice`), sent as they are (`Source::payload`) or replayed by a scratch server (`Source::rebuild`).
//! Where it goes, it does not know.

pub(crate) mod base;
pub mod binary;
mod child;
pub mod clock;
mod destructive;
pub mod journal_range;
pub mod key_index;
pub(crate) mod left_out;
mod leftovers;
pub(crate) mod present;
mod reaper;
pub mod scratch;
pub(crate) mod tail;
pub(crate) mod without;

use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redtape_journal::{Catalog, Keyring, SnapshotInfo};
use redtape_wire::rdb::RdbSummary;

use self::base::{check_base, highest_db, open_base};
use self::binary::{Binary, BinaryNeeds, made_by};
use self::journal_range::{JournalRange, RangeFacts, ReplaySource, scan};
use self::left_out::LeftOut;
use self::scratch::Scratch;
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::limits::Limits;
use crate::point::{RestorePoint, locate};
use crate::progress::{Event, Observer, Unit};
use crate::replica_link::{Delivered, Payload};
use crate::request::Request;
use crate::slice::base::{SlicedBase, find};
use crate::slice::indexed::find_indexed;
use crate::slice::{BaseSearch, Fold, Forced, KeptRange, Needed, SliceReport, Sliced, Watch, slice};
use crate::version::ServerVersion;

/// With more keys than this, nearly every part of a journal holds one.
const SEARCHED_KEYS_MAX: usize = 4096;

/// A restore point that was found; nothing of it has been read yet.
pub(crate) struct Located {
    pub(crate) catalog: Catalog,
    pub(crate) point: RestorePoint,
    /// What of the history behind the base is left out, if anything is.
    pub(crate) without: Option<Arc<LeftOut>>,
}

impl Located {
    /// Opens the journal and finds the point.
    pub(crate) fn find(request: &Request) -> Result<Self, RestoreError> {
        // Key filters of the segment in use pay only where few keys are looked for.
        let few = request.filter.exact_keys(SEARCHED_KEYS_MAX).is_some();
        let search = request.slice && few && request.filter.databases().is_some();
        let open = if search { Catalog::open_for_search } else { Catalog::open_with };
        let catalog = open(&request.from, &request.keyring)?;
        let located = locate(&request.as_of, request.now, &request.zone, &catalog);
        let mut point = located.map_err(|error| RestoreError::not_located(error, &catalog))?;
        point.warnings.extend(destructive::last_write(&catalog, &point));
        Ok(Self { catalog, point, without: None })
    }

    /// Reads what the request needs once: of base and journal what the wanted keys depend on, or everything.
    pub(crate) fn check(self, request: &Request, observer: &mut dyn Observer) -> Result<Source, RestoreError> {
        if request.slices() { self.slice(request, &mut |_, _| (), observer) } else { self.read_all(request, observer) }
    }

    fn range(self) -> (RestorePoint, JournalRange) {
        let Self { catalog, point, without } = self;
        let (timeline, after, upto) = (point.timeline, point.base.manifest.lsn, point.lsn);
        (point, JournalRange { catalog, timeline, after, upto, without })
    }

    /// The base with its digest, and every record up to the cut.
    fn read_all(self, request: &Request, observer: &mut dyn Observer) -> Result<Source, RestoreError> {
        let rdb = check_base(&self.catalog, &self.point.base, &request.keyring, &request.interrupt, observer)?;
        let (point, range) = self.range();
        let facts = scan_all(&range, &request.interrupt, observer)?;
        let made = Made { rdb, base: BaseUse::Whole, replay: Replay::All(range), facts, slice: None };
        Ok(Source::new(point, made, request))
    }

    /// Only what the wanted keys depend on ([`mod@crate::slice`]). `watch` sees what of the journal is gone back over.
    pub(crate) fn slice(
        self,
        request: &Request,
        watch: &mut Watch<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Source, RestoreError> {
        let (point, range) = self.range();
        let total = range.upto.0.saturating_sub(range.after.0);
        observer.on(&Event::Step { name: "reading the journal", total, unit: Unit::Records });
        let mut on_progress = |passed| observer.on(&Event::At(passed));
        let sliced = slice(&range, &request.filter, &request.interrupt, watch, &mut on_progress)
            .map_err(|error| RestoreError::unreadable(error, &range.catalog))?;
        observer.on(&Event::StepDone);
        request.interrupt.check()?;
        let Sliced { mut kept, mut fold, mut facts, needed, mut forced, searched } = sliced;
        if let Some(unused) = fold.take_if(|fold| !folding_pays(fold, &point.base)) {
            kept = kept.unfolded(&unused);
        }
        let used = use_of_base((&point, &range), (&needed, fold.is_some()), request, observer)?;
        if let (Some(_), Some(unused)) = (used.whole_because, &fold) {
            kept = kept.unfolded(unused);
            fold = None;
        }
        let replay = match used.whole_because {
            // Of the keys that are wanted, too little is known.
            Some(reason) if !request.filter.is_everything() => {
                facts = scan_all(&range, &request.interrupt, observer)?;
                forced = Some(Forced { lsn: point.lsn, reason: reason.to_owned() });
                Replay::All(range)
            }
            // Where nothing is left out, nothing has to be looked up.
            _ if fold.is_none() && facts.records == total => Replay::All(range),
            _ => Replay::Kept(KeptRange { range, kept, fold: fold.map(Arc::new) }),
        };
        let slice = Some(SliceReport {
            records_in_all: total,
            records_kept: facts.records,
            records_folded: replay.fold().map_or(0, |fold| fold.records()),
            base_keys: match &used.base {
                BaseUse::Whole => None,
                BaseUse::Keys(keys) => Some(keys.keys),
            },
            forced,
            journal_bytes_read: searched.read_bytes,
            journal_bytes_skipped: searched.skipped_bytes,
            base_bytes_read: used.read_bytes,
            base_search: used.search,
        });
        Ok(Source::new(point, Made { rdb: used.rdb, base: used.base, replay, facts, slice }, request))
    }
}

/// Whether it costs less to look at each key of the base than it spares to replay what can be folded.
fn folding_pays(fold: &Fold, base: &SnapshotInfo) -> bool {
    /// A base that is read in no time.
    const SMALL_BASE_BYTES: u64 = 16 << 20;
    /// Looking at a key takes about half of what a folded one spares.
    const TIMES: u64 = 2;
    base.manifest.bytes <= SMALL_BASE_BYTES.max(fold.entry_bytes().saturating_mul(TIMES))
}

/// What is used of a base, and what was found out about it.
struct UsedBase {
    rdb: RdbSummary,
    base: BaseUse,
    read_bytes: u64,
    /// How the keys were found; `None` = none is needed.
    search: Option<BaseSearch>,
    /// Why the needed keys alone cannot be used, if they were to be.
    whole_because: Option<&'static str>,
}

/// Reads what is needed of the base.
fn use_of_base(
    (point, range): (&RestorePoint, &JournalRange),
    (needed, folded): (&Needed, bool),
    request: &Request,
    observer: &mut dyn Observer,
) -> Result<UsedBase, RestoreError> {
    let (base, keyring, interrupt) = (&point.base, &request.keyring, &request.interrupt);
    let everything = request.filter.is_everything();
    if !folded && (everything || needed.is_everything()) {
        let rdb = check_base(&range.catalog, base, keyring, interrupt, observer)?;
        let (read_bytes, search) = (base.manifest.bytes, Some(BaseSearch::WholeBase));
        return Ok(UsedBase { rdb, base: BaseUse::Whole, read_bytes, search, whole_because: None });
    }
    let found = match find_indexed(&range.catalog, base, keyring, needed, interrupt, observer)? {
        Some(found) => found,
        None => find(range, base, keyring, (needed, everything), interrupt, observer)?,
    };
    let (read_bytes, search) = (found.read_bytes, found.search);
    let (base, whole_because) = match found.keys {
        Ok(keys) => (BaseUse::Keys(keys), None),
        Err(reason) => (BaseUse::Whole, Some(reason)),
    };
    Ok(UsedBase { rdb: found.summary, base, read_bytes, search, whole_because })
}

/// Reads every record up to the cut.
fn scan_all(
    range: &JournalRange,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<RangeFacts, RestoreError> {
    let total = range.upto.0.saturating_sub(range.after.0);
    observer.on(&Event::Step { name: "reading the journal", total, unit: Unit::Records });
    let mut interrupted = Ok(());
    let mut on_progress = |records| {
        observer.on(&Event::At(records));
        interrupted = interrupt.check();
        if interrupted.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let facts = scan(range, &mut on_progress).map_err(|error| RestoreError::unreadable(error, &range.catalog))?;
    interrupted?;
    observer.on(&Event::StepDone);
    Ok(facts)
}

/// What is used of the base.
enum BaseUse {
    Whole,
    Keys(SlicedBase),
}

/// What is replayed behind the base.
enum Replay {
    All(JournalRange),
    Kept(KeptRange),
}

impl Replay {
    fn range(&self) -> &JournalRange {
        match self {
            Self::All(range) => range,
            Self::Kept(kept) => &kept.range,
        }
    }

    fn fold(&self) -> Option<&Arc<Fold>> {
        match self {
            Self::All(_) => None,
            Self::Kept(kept) => kept.fold.as_ref(),
        }
    }

    fn source(&self) -> &dyn ReplaySource {
        match self {
            Self::All(range) => range,
            Self::Kept(kept) => kept,
        }
    }
}

/// What a dataset is made of.
struct Made {
    rdb: RdbSummary,
    base: BaseUse,
    replay: Replay,
    facts: RangeFacts,
    slice: Option<SliceReport>,
}

/// A dataset at a restore point. What is used of base and journal was read once and is sound.
pub(crate) struct Source {
    /// The journal's directory.
    pub(crate) from: PathBuf,
    pub(crate) point: RestorePoint,
    pub(crate) rdb: RdbSummary,
    /// Of the records that are replayed.
    pub(crate) facts: RangeFacts,
    /// What slicing has found, if it was done.
    pub(crate) slice: Option<SliceReport>,
    /// The scratch server's program, where one is needed.
    pub(crate) binary: Option<Binary>,
    base: BaseUse,
    replay: Replay,
    keyring: Keyring,
    limits: Limits,
    interrupt: Interrupt,
}

impl Source {
    fn new(point: RestorePoint, made: Made, request: &Request) -> Self {
        let Made { rdb, base, replay, facts, slice } = made;
        Self {
            from: request.from.clone(),
            point,
            rdb,
            facts,
            slice,
            binary: None,
            base,
            replay,
            keyring: request.keyring.clone(),
            limits: request.limits,
            interrupt: request.interrupt.clone(),
        }
    }

    /// What the journal is encrypted with, if it is.
    pub(crate) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// The id of the journal.
    pub(crate) fn journal_id(&self) -> String {
        self.replay.range().catalog.meta().journal_id.clone()
    }

    /// The journal.
    pub(crate) fn catalog(&self) -> &Catalog {
        &self.replay.range().catalog
    }

    /// Bytes that are used of the base.
    pub(crate) fn base_bytes(&self) -> u64 {
        match &self.base {
            BaseUse::Whole => self.rdb.bytes,
            BaseUse::Keys(keys) => keys.bytes,
        }
    }

    /// The highest database in which what is used of the base has keys; `None` = not known. `whole`: a base that is used whole may
    /// be read for that.
    pub(crate) fn base_highest_db(
        &self,
        whole: bool,
        observer: &mut dyn Observer,
    ) -> Result<Option<u32>, RestoreError> {
        let catalog = self.catalog();
        match &self.base {
            BaseUse::Keys(keys) => Ok(keys.highest_db()),
            BaseUse::Whole if whole => {
                let version = self.rdb.version;
                highest_db(catalog, &self.point.base, &self.keyring, version, &self.interrupt, observer)
            }
            BaseUse::Whole => Ok(None),
        }
    }

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

    /// Finds a program that loads the base, and the one that saves an RDB: the same, or, where the named one does not load the base,
    /// another one beside it.
    pub(crate) fn find_saver(&self, named: Option<&Path>) -> Result<(Binary, Option<Binary>), RestoreError> {
        let made_by = made_by(&self.point.base.manifest.server_version);
        let needs = BinaryNeeds { base: self.rdb.version, made_by, target: None };
        match binary::find_named(named, self.limits)? {
            Some(named) if named.version.loads(needs.base, made_by) => Ok((named, None)),
            Some(named) => Ok((binary::find_on_path(needs, self.limits)?, Some(named))),
            None => Ok((binary::find_on_path(needs, self.limits)?, None)),
        }
    }

    /// How long servers are waited for.
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// How many databases what is rebuilt needs.
    pub(crate) fn databases(&self) -> u32 {
        self.facts.max_db + 1
    }

    /// About how much memory the dataset takes while it is rebuilt.
    pub(crate) fn dataset_bytes(&self) -> u64 {
        let base = match &self.base {
            BaseUse::Whole => self.base_memory().unwrap_or(0).max(self.rdb.bytes),
            BaseUse::Keys(keys) => keys.bytes,
        };
        base.saturating_add(self.facts.bytes)
    }

    /// What is used of the base and of what follows it, to be sent as it is.
    pub(crate) fn payload(&self) -> Result<Payload<'_>, RestoreError> {
        let (range, base, fold) = (self.replay.range(), &self.point.base, self.replay.fold());
        let (rdb, rdb_bytes): (Box<dyn Read + '_>, u64) = match &self.base {
            BaseUse::Whole => (Box::new(open_base(&range.catalog, base, &self.keyring)?), self.rdb.bytes),
            BaseUse::Keys(keys) => {
                (keys.open(base, &self.keyring, range, fold)?, keys.bytes_with(fold.map(|fold| &**fold)))
            }
        };
        let folded = fold.map_or(0, |fold| fold.records());
        Ok(Payload { rdb, rdb_bytes, replay: self.replay.source(), records: self.facts.records - folded })
    }

    /// The dataset in a scratch server, and what that server holds.
    pub(crate) fn rebuild(&self, observer: &mut dyn Observer) -> Result<(Scratch, Delivered), RestoreError> {
        let binary = self.binary.as_ref().ok_or_else(|| RestoreError::NoScratch("none was chosen".to_owned()))?;
        let mut scratch = Scratch::start(binary, self.databases(), self.limits, &self.interrupt)?;
        let delivered =
            scratch.load(self.payload()?, observer, &self.interrupt).map_err(RestoreError::before_the_target)?;
        Ok((scratch, delivered))
    }
}

/// What is read and replayed for a request; no server is started, and its target is not looked at.
pub fn examine(request: &Request, observer: &mut dyn Observer) -> Result<Option<SliceReport>, RestoreError> {
    Ok(Located::find(request)?.check(request, observer)?.slice)
}

/// Rebuilds the dataset of a request in a scratch server that holds nothing. Its target is not looked at.
pub fn rebuild_in(
    scratch: &mut Scratch,
    request: &Request,
    observer: &mut dyn Observer,
) -> Result<Option<SliceReport>, RestoreError> {
    let source = Located::find(request)?.check(request, observer)?;
    scratch.load(source.payload()?, observer, &request.interrupt)?;
    Ok(source.slice)
}
