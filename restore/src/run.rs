//! One restore from request to report: all checks first, then the planned actions.
//!
//! ```text
//! prepare: point ─► target's facts ─► journal, backwards ─► base ─► plan      (changes nothing)
//! run:     by the plan's method ─► checks ─► report
//! ```

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use crate::error::RestoreError;
use crate::plan::{Facts, ForcedMethod, Method, Plan, choose, make};
use crate::point::RestorePoint;
use crate::progress::{Event, Observer};
use crate::request::Request;
use crate::source::{Located, Source};
use crate::target::cluster::{ClusterLook, ClusterTarget};
use crate::target::file::FileTarget;
use crate::target::repair::Outcome;
use crate::target::rights::Repairs;
use crate::target::server::{Looked, ServerTarget};
use crate::target::{FileAddress, ServerAddress, Target, WrittenFile};
use redtape_journal::query::Filter;

/// A restore that is ready to run.
pub struct Prepared {
    plan: Plan,
    source: Source,
    target: PreparedTarget,
}

/// A target that was examined.
#[allow(clippy::large_enum_variant, reason = "a restore has one")]
enum PreparedTarget {
    Server(ServerTarget, Option<Looked>),
    Cluster(ClusterTarget, ClusterLook),
    File(FileTarget),
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// Result of a restore.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The requested point in time, UTC.
    pub at: String,
    /// Writes at that time were left out.
    pub before: bool,
    /// The last record restored.
    pub lsn: u64,
    /// By which method.
    #[serde(rename = "via")]
    pub method: Method,
    /// Keys in each database.
    pub keys: BTreeMap<u32, u64>,
    /// Of these, keys that have expired since that time; `None` = the target does not allow counting them.
    pub expired: Option<u64>,
    /// Function libraries.
    pub functions: usize,
    /// Records replayed.
    pub records: u64,
    /// How long it took.
    pub seconds: f64,
    /// Comparisons and their results.
    pub checks: Vec<String>,
    /// Warnings.
    pub warnings: Vec<String>,
    /// Changes to keys of a target that holds others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<Outcome>,
    /// The file that was written, where the target is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<WrittenFile>,
}

/// Checks everything and makes the plan; changes nothing.
pub fn prepare(request: &Request, observer: &mut dyn Observer) -> Result<Prepared, RestoreError> {
    let prepared = match &request.to {
        Target::Server(address) => prepare_server(request, address, observer)?,
        Target::File(address) => prepare_file(request, address, observer)?,
        Target::Serve(_) | Target::Reader => return Err(RestoreError::Usage("a restore needs a target".to_owned())),
    };
    observer.on(&Event::Planned(&prepared.plan));
    Ok(prepared)
}

/// The file name is checked before the journal, since that is fast.
fn prepare_file(
    request: &Request,
    address: &FileAddress,
    observer: &mut dyn Observer,
) -> Result<Prepared, RestoreError> {
    let mut target = FileTarget::open(address, request)?;
    let located = Located::find(request)?;
    observer.on(&Event::Resolved(&located.point));
    let mut source = located.check(request, observer)?;
    let plan = target.plan(&mut source, request)?;
    Ok(Prepared { plan, source, target: PreparedTarget::File(target) })
}

fn prepare_server(
    request: &Request,
    address: &ServerAddress,
    observer: &mut dyn Observer,
) -> Result<Prepared, RestoreError> {
    let connector = address.connector()?;
    let located = Located::find(request)?;
    observer.on(&Event::Resolved(&located.point));
    let mut target = ServerTarget::open(connector, address.commands.clone(), request.into())?;
    if target.facts.cluster {
        return prepare_cluster(request, ClusterTarget::open(target, address, request)?, located, observer);
    }
    target.facts.compare_with(&located.catalog.timelines());
    let mut source = if request.replaces_all() && !request.filter.is_everything() {
        // Function libraries are wanted too, and these are in no selection.
        located.check(&Request { filter: Filter::default(), ..request.clone() }, observer)?
    } else {
        located.check(request, observer)?
    };
    target.look_up_commands(source.facts.commands.iter())?;
    // Only where the target could be sent the base itself.
    let whole_base = request.is_whole() && request.method != Some(ForcedMethod::Scratch);
    let base_highest_db = source.base_highest_db(whole_base && target.facts.contents().is_none(), observer)?;
    let facts = Facts {
        point: &source.point,
        rdb: source.rdb.version,
        range: &source.facts,
        target: &target.facts,
        base_memory: source.base_memory(),
        base_bytes: source.base_bytes(),
        base_highest_db,
        slice: source.slice.as_ref(),
        whole: request.is_whole(),
        filter: &request.filter,
        replaces_all: request.replaces_all(),
        repairs: request.repair.as_ref().map(Repairs::of).unwrap_or_default(),
        forced: request.method,
    };
    let (method, reason) = choose(&facts)?;
    let binary = match method {
        Method::Link | Method::Serve => None,
        Method::LinkFromScratch | Method::Scratch => {
            Some(source.find_binary(request.server_bin.as_deref(), target.facts.version)?)
        }
    };
    let mut plan = make(&facts, method, reason, binary.as_ref());
    source.binary = binary;
    let looked = if request.is_whole() { None } else { Some(target.look(&source, request, observer)?) };
    plan.repair = looked.as_ref().map(Looked::plan);
    Ok(Prepared { plan, source, target: PreparedTarget::Server(target, looked) })
}

/// Each node is a target of its own; the plan covers all of them.
fn prepare_cluster(
    request: &Request,
    mut target: ClusterTarget,
    located: Located,
    observer: &mut dyn Observer,
) -> Result<Prepared, RestoreError> {
    let mut source = located.check(request, observer)?;
    target.look_up_commands(&source.facts.commands.iter())?;
    let base_highest_db = source.base_highest_db(false, observer)?;
    let facts_of = |target| Facts {
        point: &source.point,
        rdb: source.rdb.version,
        range: &source.facts,
        target,
        base_memory: source.base_memory(),
        base_bytes: source.base_bytes(),
        base_highest_db,
        slice: source.slice.as_ref(),
        // Key by key, as into a server that holds others.
        whole: false,
        replaces_all: false,
        filter: &request.filter,
        repairs: request.repair.as_ref().map(Repairs::of).unwrap_or_default(),
        forced: request.method,
    };
    for node in target.each_facts() {
        choose(&facts_of(node))?;
    }
    let (method, reason) = choose(&facts_of(&target.facts))?;
    let binary = source.find_binary(request.server_bin.as_deref(), target.facts.version)?;
    let mut plan = make(&facts_of(&target.facts), method, reason, Some(&binary));
    source.binary = Some(binary);
    let looked = target.look(&source, request, observer)?;
    plan.repair = Some(looked.plan());
    Ok(Prepared { plan, source, target: PreparedTarget::Cluster(target, looked) })
}

impl Prepared {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The restore point.
    pub fn point(&self) -> &RestorePoint {
        &self.source.point
    }

    /// Keys are added to a server that holds others.
    pub fn target_holds_data(&self) -> bool {
        match &self.target {
            PreparedTarget::Server(target, _) => target.facts.contents().is_some(),
            PreparedTarget::Cluster(target, _) => target.facts.contents().is_some(),
            PreparedTarget::File(_) => false,
        }
    }

    /// Carries the plan out.
    pub fn run(self, observer: &mut dyn Observer) -> Result<Report, RestoreError> {
        let start = Instant::now();
        let Self { plan, source, target } = self;
        let restored = match target {
            PreparedTarget::Server(mut target, looked) => target.restore(&plan, &source, looked, observer)?,
            PreparedTarget::Cluster(mut target, looked) => target.restore(&plan, &source, looked, observer)?,
            PreparedTarget::File(target) => target.restore(&source, observer)?,
        };
        Ok(Report {
            at: plan.at,
            before: plan.before,
            lsn: plan.lsn.0,
            method: plan.method,
            keys: restored.keys,
            expired: restored.expired,
            functions: restored.functions,
            records: source.facts.records,
            seconds: (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
            checks: restored.checks,
            warnings: restored.warnings,
            repair: restored.outcome,
            file: restored.file,
        })
    }
}
