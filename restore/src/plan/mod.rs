//! The plan: the method, the content, an estimated duration, and warnings. Pure.
//!
//! | method | when |
//! | --- | --- |
//! | link | everything is wanted, the target is empty, may follow redtape, its own clock makes no difference, and it surely has the memory |
//! | link from scratch | the same, but TTLs of hash fields or whole scripts are (or may be) in play, or a `maxmemory`: a scratch server replays at the right times and shows the size, the target then follows with what came out |
//! | scratch | some keys are wanted, the target may not follow redtape, or it is a file (`file.rs`) |

mod file;
mod limits;
mod warnings;

use std::fmt;

use redtape_journal::Lsn;
use redtape_wire::rdb::RdbVersion;
use serde::Serialize;

pub use self::file::FilePlan;
pub(crate) use self::file::{FileFacts, make_for_file};
pub use self::limits::{Limit, LimitState};
use crate::error::RestoreError;
use crate::point::RestorePoint;
use crate::slice::SliceReport;
use crate::source::binary::{Binary, made_by};
use crate::source::journal_range::RangeFacts;
use crate::target::claim::OtherRestores;
use crate::target::preflight::TargetFacts;
use crate::target::repair::RepairPlan;
use crate::target::rights::{By, Repairs};
use crate::version::ServerVersion;
use redtape_journal::query::Filter;

/// How a restore is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// redtape is the target's master for a while.
    Link,
    /// A scratch server replays; redtape is the target's master with the result.
    LinkFromScratch,
    /// A scratch server replays; keys are copied.
    Scratch,
    /// A scratch server replays; it is what clients read.
    Serve,
}

/// A method chosen by the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForcedMethod {
    /// `--via link`
    Link,
    /// `--via scratch`
    Scratch,
}

/// What the plan is made from.
#[derive(Debug)]
pub struct Facts<'a> {
    /// From where to where.
    pub point: &'a RestorePoint,
    /// The base's header, read from the file.
    pub rdb: RdbVersion,
    /// The journal range to replay.
    pub range: &'a RangeFacts,
    /// The target.
    pub target: &'a TargetFacts,
    /// Memory in use by the server that made the base, if the base says so.
    pub base_memory: Option<u64>,
    /// Everything is wanted, in an empty target.
    pub whole: bool,
    /// What is wanted.
    pub filter: &'a Filter,
    /// What the target holds makes room: function libraries come as well, whatever is selected.
    pub replaces_all: bool,
    /// What may be done to keys of a target that holds others.
    pub repairs: Repairs,
    /// Bytes of what is used of the base.
    pub base_bytes: u64,
    /// The highest database in which it has keys; `None` = not known.
    pub base_highest_db: Option<u32>,
    /// What slicing has found, if it was done.
    pub slice: Option<&'a SliceReport>,
    /// The method chosen by the user.
    pub forced: Option<ForcedMethod>,
}

impl Facts<'_> {
    /// How data gets to the target by this method, as far as rights are concerned.
    fn by(&self, method: Method) -> By {
        match method {
            Method::Scratch if self.whole => By::Copy,
            Method::Scratch => By::Repair(self.repairs),
            Method::Link | Method::LinkFromScratch | Method::Serve => By::Link,
        }
    }
}

/// The base, as the plan shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Base {
    /// The file.
    pub file: String,
    /// Everything up to this LSN is in it.
    pub lsn: Lsn,
    /// The point in time that it shows.
    pub at: String,
    /// Its size.
    pub bytes: u64,
    /// Its format.
    pub rdb: String,
    /// Who made it.
    pub server_version: String,
}

/// What a restore will do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The requested point in time, UTC.
    pub at: String,
    /// The same in the request's zone.
    pub at_local: String,
    /// The request's zone.
    pub zone: String,
    /// Writes at that time are left out.
    pub before: bool,
    /// The request, as text.
    #[serde(skip)]
    echo: String,
    /// Time of the last group restored.
    pub last_write: String,
    /// The last record restored.
    pub lsn: Lsn,
    /// The timeline.
    pub timeline: u32,
    /// By which method.
    #[serde(rename = "via")]
    pub method: Method,
    /// Why by that method.
    pub reason: String,
    /// The base.
    pub base: Base,
    /// The selection as text; `None` = everything.
    pub selection: Option<String>,
    /// What is left out of base and journal, and the limits of that; `None` = nothing is left out (`--no-slice`).
    pub slice: Option<SliceReport>,
    /// Groups to replay, with those of which the records are loaded as values instead (`slice.records_folded`).
    pub replay_groups: u64,
    /// Their records.
    pub replay_records: u64,
    /// Their bytes.
    pub replay_bytes: u64,
    /// The target.
    pub target: String,
    /// Family and version of the target.
    pub target_version: String,
    /// The scratch server, where one is needed.
    pub scratch: Option<String>,
    /// Functions are restored too.
    pub functions: bool,
    /// A rough guess.
    pub estimate_seconds: f64,
    /// What is done in a target that holds others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<RepairPlan>,
    /// The file that is written, where the target is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FilePlan>,
    /// The target's limits and what is needed.
    pub limits: Vec<Limit>,
    /// Warnings.
    pub warnings: Vec<String>,
}

/// The method and the reason.
pub fn choose(facts: &Facts<'_>) -> Result<(Method, String), RestoreError> {
    let target = facts.target;
    writable(target)?;
    if facts.whole
        && let Some(found) = target.contents()
    {
        let address = target.address.clone();
        // During another restore, the marker belongs to that one.
        let unfinished = target.unfinished.iter().find(|u| u.whole && !matches!(target.others, OtherRestores::Seen(_)));
        return Err(match unfinished {
            Some(unfinished) => RestoreError::Unfinished { address, what: unfinished.what.clone(), found },
            None => RestoreError::NotEmpty { address, found },
        });
    }
    // By whatever method: values are dumped in the base's format, or in that of a newer server.
    loadable(facts)?;
    let no_link = why_no_link(facts);
    let method = match (facts.forced, no_link) {
        (Some(ForcedMethod::Link), Some(why)) => {
            return Err(RestoreError::Unable(format!(
                "--via link is not possible: {why}; leave --via out, or use --via scratch"
            )));
        }
        (Some(ForcedMethod::Scratch), _) => (Method::Scratch, "requested with --via scratch".to_owned()),
        (None, Some(why)) => (Method::Scratch, why),
        (_, None) => match why_not_directly(facts) {
            Some(why) => (Method::LinkFromScratch, why),
            None => (
                Method::Link,
                "the target is empty, may follow redtape, and nothing in the journal depends on its clock".to_owned(),
            ),
        },
    };
    if method.0 == Method::Scratch {
        may_copy(target, facts.by(method.0))?;
    }
    if !target.unknown_commands.is_empty() && method.0 == Method::Link {
        return Err(RestoreError::Unable(format!(
            "{} ({}) does not know {}, which the journal holds; restore to a newer server, or one with the same modules. If it has another name there (rename-command), give --target-command OLD=NEW",
            target.address,
            target.version,
            target.unknown_commands.join(", ")
        )));
    }
    Ok(method)
}

/// The target takes data from clients.
pub(crate) fn writable(target: &TargetFacts) -> Result<(), RestoreError> {
    able(target)?;
    if let Some((master, up)) = &target.follows {
        let (state, then) = if *up {
            ("up", "")
        } else {
            (
                "down",
                ". If a restore that was killed left it so, it holds only a part of the data: REPLICAOF NO ONE, then FLUSHALL, and restore again",
            )
        };
        return Err(RestoreError::Unable(format!(
            "{} is a replica of {master} (link {state}) and cannot be written to; restore to its master or to another server{then}",
            target.address
        )));
    }
    Ok(())
}

/// The target can accept data at all.
fn able(target: &TargetFacts) -> Result<(), RestoreError> {
    let address = &target.address;
    if target.loading {
        return Err(RestoreError::Unable(format!(
            "{address} is loading its data, so its content cannot be read yet; wait until it has finished (INFO persistence: loading:0)"
        )));
    }
    if let Some(why) = &target.disk_trouble {
        return Err(RestoreError::Unable(format!(
            "{address} takes no writes: {why}; make room or repair what its log names, run BGSAVE, and restore again (or CONFIG SET stop-writes-on-bgsave-error no)"
        )));
    }
    Ok(())
}

/// Keys can be copied to the target.
pub(crate) fn may_copy(target: &TargetFacts, by: By) -> Result<(), RestoreError> {
    if let Some((command, refused)) = target.rights.missing(by) {
        return Err(refused.error(&target.address, &command));
    }
    if let Some(why) = &target.limits.few_replicas {
        return Err(RestoreError::Unable(format!(
            "{} takes no writes: {why}; connect them, or CONFIG SET min-replicas-to-write 0",
            target.address
        )));
    }
    Ok(())
}

/// The target loads the base.
fn loadable(facts: &Facts<'_>) -> Result<(), RestoreError> {
    let target = facts.target;
    if target.version.loads(facts.rdb, made_by(&facts.point.base.manifest.server_version)) {
        return Ok(());
    }
    Err(RestoreError::Unable(format!(
        "{} is {}, which does not load the base's format {} (made by {}); restore to a server at least as new as the one that was recorded, and of its family",
        target.address, target.version, facts.rdb, facts.point.base.manifest.server_version
    )))
}

/// Why the target cannot follow redtape.
fn why_no_link(facts: &Facts<'_>) -> Option<String> {
    let target = facts.target;
    if target.cluster {
        return Some("each node of a cluster gets its own part of the keys".to_owned());
    }
    if target.is_source && facts.forced.is_none() {
        return Some("it is the server that the journal follows, and a copy continues its history".to_owned());
    }
    if !facts.whole {
        return Some("only some keys are wanted, or the target may hold others".to_owned());
    }
    if target.replica_evicts && target.memory.limit != Some(0) {
        return Some(
            "the target keeps to its maxmemory even while it follows redtape (replica-ignore-maxmemory no)".to_owned(),
        );
    }
    if target.tls_replication {
        return Some(
            "the target takes its data over TLS only (tls-replication yes), and the link is not encrypted".to_owned(),
        );
    }
    if target.tls {
        return Some(
            "the target is reached over TLS, and the link, which is not encrypted, would show the data to the network"
                .to_owned(),
        );
    }
    if target.writable_replica {
        return Some("clients may write to the target while it follows redtape (replica-read-only no)".to_owned());
    }
    if let Some((command, refused)) = target.rights.missing(By::Link) {
        return Some(format!("the target cannot follow redtape, which needs {command}: {}", refused.words(&command)));
    }
    if let Some(name) = IN_EACH_STREAM.into_iter().find(|name| target.renamed.contains(name.as_bytes())) {
        return Some(format!("the target has another name for {name}, which is part of every replication stream"));
    }
    match target.limits.databases {
        Some(databases) if databases <= facts.range.max_db => {
            Some(format!("the target has {databases} databases, the journal writes to database {}", facts.range.max_db))
        }
        None if facts.range.max_db > 0 || facts.base_highest_db != Some(0) => {
            Some("the target's number of databases is unknown".to_owned())
        }
        _ => None,
    }
}

/// Commands that a stream contains in any case.
const IN_EACH_STREAM: [&str; 5] = ["SELECT", "PING", "REPLCONF", "MULTI", "EXEC"];

/// Why a target that can follow should not replay the journal itself.
fn why_not_directly(facts: &Facts<'_>) -> Option<String> {
    let maker = &facts.point.base.manifest.server_version;
    let number = made_by(maker);
    let valkey = facts.rdb.family == redtape_wire::rdb::Family::Valkey;
    let knows_fields = number.is_some_and(|number| ServerVersion { valkey: false, number }.has_field_ttl());
    if facts.range.field_ttl {
        return Some(
            "the journal holds TTLs of hash fields, which a server whose clock is later would drop too early"
                .to_owned(),
        );
    }
    if valkey || (facts.rdb.version >= 12 && knows_fields) {
        return Some(format!("the base ({}, made by {maker}) may hold TTLs of hash fields", facts.rdb));
    }
    if facts.range.scripts {
        return Some(
            "the journal holds whole scripts, which depend on the clock of the server that runs them".to_owned(),
        );
    }
    if let Some(name) = facts.range.commands.iter().find(|name| facts.target.renamed.contains(*name)) {
        let name = String::from_utf8_lossy(name).into_owned();
        return Some(format!("the target has another name for {name}, which the journal holds"));
    }
    if may_not_fit(facts) {
        return Some("whether the data fits into the target's maxmemory shows in a scratch server first".to_owned());
    }
    // A server crashes when it receives a base with more databases than it has.
    match (facts.base_highest_db, facts.target.limits.databases) {
        (None, _) => Some("the databases with keys in the base are unknown".to_owned()),
        (Some(highest), Some(databases)) if highest >= databases => {
            Some(format!("the target has {databases} databases, and the base has keys in database {highest}"))
        }
        _ => None,
    }
}

/// True if the data may need more memory than the target has left.
fn may_not_fit(facts: &Facts<'_>) -> bool {
    let memory = &facts.target.memory;
    let Some(limit) = memory.limit.filter(|limit| *limit > 0) else { return false };
    // In memory, records take more room than in the journal.
    let Some(needed) = facts.base_memory.map(|base| base.saturating_add(facts.range.bytes.saturating_mul(4))) else {
        return true;
    };
    memory.used.saturating_add(needed) > limit
}

/// The target's limits, and warnings.
pub(crate) fn what_it_takes(facts: &Facts<'_>, method: Method) -> (Vec<Limit>, Vec<String>) {
    let target = facts.target;
    let mut warnings: Vec<String> = warnings::memory(facts).into_iter().collect();
    warnings.extend(warnings::other_restores(target));
    if method != Method::Scratch {
        warnings.extend(warnings::followers(target));
    }
    (limits::of(facts, method), warnings)
}

/// Makes the plan.
pub fn make(facts: &Facts<'_>, method: Method, reason: String, scratch: Option<&Binary>) -> Plan {
    let (target, everything) = (facts.target, facts.filter.is_everything());
    let (point, range, slice) = (facts.point, facts.range, facts.slice);
    let dataset = Dataset { point, rdb: facts.rdb, range, slice, filter: facts.filter, base_bytes: facts.base_bytes };
    let functions = everything || facts.replaces_all;
    let mut plan = dataset.plan((method, reason), functions, scratch);
    if functions && target.functions_hidden {
        plan.warnings.push(
            "the functions of the target cannot be seen (FUNCTION LIST is not allowed): over the link those that it has are replaced, and those restored are not counted"
                .to_owned(),
        );
    }
    let (limits, of_target) = what_it_takes(facts, method);
    plan.warnings.extend(of_target);
    Plan { target: target.address.clone(), target_version: target.version.to_string(), limits, ..plan }
}

/// What is rebuilt, wherever it goes.
pub(crate) struct Dataset<'a> {
    pub(crate) point: &'a RestorePoint,
    pub(crate) rdb: RdbVersion,
    pub(crate) range: &'a RangeFacts,
    pub(crate) slice: Option<&'a SliceReport>,
    pub(crate) filter: &'a Filter,
    pub(crate) base_bytes: u64,
}

impl Dataset<'_> {
    /// A plan without a target. `functions`: libraries are wanted.
    pub(crate) fn plan(&self, (method, reason): (Method, String), functions: bool, scratch: Option<&Binary>) -> Plan {
        let Self { point, rdb, range, slice, filter, .. } = *self;
        let (manifest, everything) = (&point.base.manifest, filter.is_everything());
        let mut warnings = point.warnings.clone();
        if !functions {
            warnings.push("functions are left out: only some keys are wanted".to_owned());
        }
        Plan {
            at: point.asked.to_string(),
            at_local: point.zone.show(point.asked),
            zone: point.zone.name().to_owned(),
            before: point.before,
            echo: point.echo(),
            last_write: point.ts.to_string(),
            lsn: point.lsn,
            timeline: point.timeline.0,
            method,
            reason,
            base: Base {
                file: point.base.path.display().to_string(),
                lsn: manifest.lsn,
                at: manifest.ts.to_string(),
                bytes: manifest.bytes,
                rdb: rdb.to_string(),
                server_version: manifest.server_version.clone(),
            },
            selection: (!everything).then(|| filter.to_string()),
            slice: slice.cloned(),
            replay_groups: range.groups,
            replay_records: range.records,
            replay_bytes: range.bytes,
            target: String::new(),
            target_version: String::new(),
            scratch: scratch.map(ToString::to_string),
            functions,
            estimate_seconds: self.estimate(method),
            limits: Vec::new(),
            repair: None,
            file: None,
            warnings,
        }
    }

    /// A rough guess from common speeds of one server.
    fn estimate(&self, method: Method) -> f64 {
        const LOAD_BYTES_PER_S: f64 = 150e6;
        const VALUES_PER_S: f64 = 1e6;
        const RECORDS_PER_S: f64 = 500e3;
        const STREAM_BYTES_PER_S: f64 = 200e6;
        let range = self.range;
        let folded = self.slice.map_or(0, |slice| slice.records_folded);
        let load = self.base_bytes as f64 / LOAD_BYTES_PER_S;
        let records = range.records.saturating_sub(folded) as f64 / RECORDS_PER_S + folded as f64 / VALUES_PER_S;
        let replay = records.max(range.bytes as f64 / STREAM_BYTES_PER_S);
        let passes = match method {
            Method::Link | Method::Serve => 0.0,
            Method::LinkFromScratch => 2.0,
            Method::Scratch => 4.0,
        };
        let seconds = 0.5 + load + replay + passes * (load + range.bytes as f64 / LOAD_BYTES_PER_S / 2.0);
        (seconds * 10.0).round() / 10.0
    }
}

/// `1 group`, `2 groups`.
fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match self.method {
            Method::Link => "link",
            Method::LinkFromScratch => "link from a scratch server",
            Method::Scratch if self.file.is_some() => "scratch server",
            Method::Scratch => "scratch server and copy",
            Method::Serve => "scratch server, read-only",
        };
        let to = if self.method == Method::Serve { "serve at     " } else { "restore to   " };
        writeln!(f, "{to}{} ({})", self.target, self.target_version)?;
        writeln!(f, "point        {}, last write {}", self.echo, self.last_write)?;
        writeln!(f, "method       {method}: {}", self.reason)?;
        if let Some(scratch) = &self.scratch {
            writeln!(f, "scratch      {scratch}")?;
        }
        if let Some(saved_by) = self.file.as_ref().and_then(|file| file.saved_by.as_ref()) {
            writeln!(f, "saved by     {saved_by}")?;
        }
        let Base { file, at, bytes, rdb, lsn, .. } = &self.base;
        writeln!(f, "base         {file} ({at}, LSN {lsn}, {bytes} bytes, {rdb})")?;
        if let Some(selection) = &self.selection {
            writeln!(f, "selection    {selection}")?;
        }
        match &self.slice {
            None if self.file.as_ref().is_some_and(|file| file.history) => {
                writeln!(f, "slice        none (--with-history): every record is kept")?;
            }
            None => writeln!(f, "slice        none (--no-slice): everything is read and replayed")?,
            Some(slice) => writeln!(f, "slice        {slice}")?,
        }
        write!(
            f,
            "replay       {} in {}, {}; about {} s",
            count(self.replay_records, "record"),
            count(self.replay_groups, "group"),
            count(self.replay_bytes, "byte"),
            self.estimate_seconds
        )?;
        if !self.limits.is_empty() {
            limits::show(&self.limits, f)?;
        }
        if let Some(repair) = &self.repair {
            write!(f, "{repair}")?;
        }
        for warning in &self.warnings {
            write!(f, "\nwarning      {warning}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
