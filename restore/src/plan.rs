//! The plan: by which method, what, how long, and what to be aware of. Pure.
//!
//! | method | when |
//! | --- | --- |
//! | link | everything is wanted, the target is empty, may follow redtape, and its own clock makes no difference |
//! | link from scratch | the same, but TTLs of hash fields or whole scripts are (or may be) in play: a scratch server replays at the right times, the target then follows with what came out |
//! | scratch | some keys are wanted, or the target may not follow redtape |

use std::fmt;

use redtape_journal::Lsn;
use redtape_wire::rdb::RdbVersion;
use serde::Serialize;

use crate::error::RestoreError;
use crate::point::RestorePoint;
use crate::slice::SliceReport;
use crate::source::binary::{Binary, made_by};
use crate::source::journal_range::RangeFacts;
use crate::target::claim::OtherRestores;
use crate::target::preflight::TargetFacts;
use crate::target::repair::RepairPlan;
use crate::target::unfinished::KEY;
use crate::version::ServerVersion;

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
}

/// What the person insists on.
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
    /// The stretch to replay.
    pub range: &'a RangeFacts,
    /// The target.
    pub target: &'a TargetFacts,
    /// Memory in use by the server that made the base, if the base says so.
    pub base_memory: Option<u64>,
    /// Everything is wanted, in an empty target.
    pub whole: bool,
    /// Everything is wanted.
    pub everything: bool,
    /// Bytes of what is used of the base.
    pub base_bytes: u64,
    /// What slicing has found, if it was done.
    pub slice: Option<&'a SliceReport>,
    /// What the person insists on.
    pub forced: Option<ForcedMethod>,
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
    /// The asked point in time, UTC.
    pub at: String,
    /// The same in the zone of the request.
    pub at_local: String,
    /// That zone.
    pub zone: String,
    /// What ran at that time is left out.
    pub before: bool,
    /// What was asked for, for people.
    #[serde(skip)]
    echo: String,
    /// Time of the last group restored.
    pub last_write: String,
    /// The last record restored.
    pub lsn: Lsn,
    /// In which history.
    pub timeline: u32,
    /// By which method.
    #[serde(rename = "via")]
    pub method: Method,
    /// Why by that method.
    pub reason: String,
    /// The base.
    pub base: Base,
    /// What is left out of base and journal, and why not more; `None` = nothing is left out (`--no-slice`).
    pub slice: Option<SliceReport>,
    /// Groups to replay.
    pub replay_groups: u64,
    /// Records to replay.
    pub replay_records: u64,
    /// Bytes to replay.
    pub replay_bytes: u64,
    /// Where to.
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
    /// What to be aware of.
    pub warnings: Vec<String>,
}

/// The method, and the reason in words.
pub fn choose(facts: &Facts<'_>) -> Result<(Method, String), RestoreError> {
    let target = facts.target;
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
    if facts.whole
        && let Some(found) = target.contents()
    {
        let address = target.address.clone();
        // Beside another restore that is at work the marker is that one's.
        let unfinished = target.unfinished.iter().find(|u| u.whole && !matches!(target.others, OtherRestores::Seen(_)));
        return Err(match unfinished {
            Some(unfinished) => RestoreError::Unfinished { address, what: unfinished.what.clone(), found },
            None => RestoreError::NotEmpty { address, found },
        });
    }
    // By whatever way: values are dumped in the base's format, or in that of a newer server.
    loadable(facts)?;
    let no_link = why_no_link(facts);
    let method = match (facts.forced, no_link) {
        (Some(ForcedMethod::Link), Some(why)) => {
            return Err(RestoreError::Unable(format!(
                "--via link is not possible: {why}; leave --via out, or use --via scratch"
            )));
        }
        (Some(ForcedMethod::Scratch), _) => (Method::Scratch, "asked for with --via scratch".to_owned()),
        (None, Some(why)) => (Method::Scratch, why),
        (_, None) => match why_not_directly(facts) {
            Some(why) => (Method::LinkFromScratch, why),
            None => (
                Method::Link,
                "the target is empty, may follow redtape, and nothing in the journal depends on its clock".to_owned(),
            ),
        },
    };
    if !target.unknown_commands.is_empty() && method.0 == Method::Link {
        return Err(RestoreError::Unable(format!(
            "{} ({}) does not know {}, which the journal holds; restore to a newer server, or one with the same modules",
            target.address,
            target.version,
            target.unknown_commands.join(", ")
        )));
    }
    Ok(method)
}

/// The target can take any data at all.
fn able(target: &TargetFacts) -> Result<(), RestoreError> {
    let address = &target.address;
    if target.cluster {
        return Err(RestoreError::Unable(format!(
            "{address} is a node of a cluster (cluster_enabled:1), which holds only a part of the keys; restoring into clusters is not supported yet: choose a server outside of a cluster"
        )));
    }
    if target.loading {
        return Err(RestoreError::Unable(format!(
            "{address} is loading its data, so what it holds cannot be told; wait until it has (INFO persistence: loading:0)"
        )));
    }
    if let Some(why) = &target.disk_trouble {
        return Err(RestoreError::Unable(format!(
            "{address} takes no writes: {why}; make room or repair what its log names, run BGSAVE, and restore again (or CONFIG SET stop-writes-on-bgsave-error no)"
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
            "the target replicates over TLS (tls-replication yes), which redtape does not speak yet".to_owned(),
        );
    }
    if target.writable_replica {
        return Some("clients may write to the target while it follows redtape (replica-read-only no)".to_owned());
    }
    if let Some(why) = &target.replicaof_refused {
        return Some(format!("the target cannot follow redtape: {why}"));
    }
    if let Some(databases) = target.databases
        && databases <= facts.range.max_db
    {
        return Some(format!(
            "the target has {databases} databases, the journal writes to database {}",
            facts.range.max_db
        ));
    }
    None
}

/// Why a target that can follow should not replay the journal itself.
fn why_not_directly(facts: &Facts<'_>) -> Option<String> {
    /// What nearly every server has; a base of more databases than the target's would end the target.
    const USUAL_DATABASES: u32 = 16;
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
    if facts.target.databases.is_some_and(|d| d < USUAL_DATABASES) {
        return Some("the target has fewer databases than usual, and the base may hold more".to_owned());
    }
    None
}

/// Makes the plan.
pub fn make(facts: &Facts<'_>, method: Method, reason: String, scratch: Option<&Binary>) -> Plan {
    let (point, target, range) = (facts.point, facts.target, facts.range);
    let manifest = &point.base.manifest;
    let everything = facts.everything;
    let mut warnings = point.warnings.clone();
    if !everything {
        warnings.push("functions are left out: only some keys are wanted".to_owned());
    } else if target.functions_hidden {
        warnings.push(
            "the functions of the target cannot be seen (FUNCTION LIST is not allowed): over the link those that it has are replaced, and those restored are not counted"
                .to_owned(),
        );
    }
    warnings.extend(memory_warning(facts));
    warnings.extend(other_restores(target));
    if method != Method::Scratch {
        warnings.extend(followers(target));
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
            rdb: facts.rdb.to_string(),
            server_version: manifest.server_version.clone(),
        },
        slice: facts.slice.cloned(),
        replay_groups: range.groups,
        replay_records: range.records,
        replay_bytes: range.bytes,
        target: target.address.clone(),
        target_version: target.version.to_string(),
        scratch: scratch.map(|b| format!("{} ({})", b.path.display(), b.version)),
        functions: everything,
        estimate_seconds: estimate(facts.base_bytes, range, method),
        repair: None,
        warnings,
    }
}

/// Whether the data fits into the target, as far as it can be told.
fn memory_warning(facts: &Facts<'_>) -> Option<String> {
    let memory = &facts.target.memory;
    let limit = match memory.limit {
        None => {
            return Some(
                "whether the target has a memory limit is unknown: neither INFO nor CONFIG tells its maxmemory"
                    .to_owned(),
            );
        }
        Some(0) => return None,
        Some(limit) => limit,
    };
    let then = if memory.evicts() {
        "it evicts keys, and the restore fails"
    } else {
        "it refuses writes, and the restore fails"
    };
    let has = format!(
        "the target has a memory limit of {limit} bytes (maxmemory-policy {}), {} are in use",
        memory.policy, memory.used
    );
    Some(match facts.base_memory.filter(|_| facts.whole) {
        Some(need) if need > limit => {
            format!(
                "{has}: too small for the base alone, which took {need} bytes on the server that made it. Raise maxmemory first, else {then}"
            )
        }
        Some(need) => {
            format!("{has}; the base took {need} bytes on the server that made it. If the data does not fit, {then}")
        }
        None => format!("{has}; how much the data takes is not known before. If it does not fit, {then}"),
    })
}

/// Other restores of the same target.
fn other_restores(target: &TargetFacts) -> Vec<String> {
    let mut warnings = Vec::new();
    match &target.others {
        OtherRestores::Absent => {}
        OtherRestores::Seen(who) => {
            warnings.push(format!("another restore is at work on the target ({who}): this one cannot begin before its end"));
        }
        OtherRestores::Unknown(why) => warnings.push(format!(
            "whether another restore is at work on the target cannot be seen ({why}): make sure that there is none, or allow CLIENT ID, SETNAME and LIST"
        )),
    }
    if matches!(target.others, OtherRestores::Seen(_)) {
        return warnings;
    }
    warnings.extend(target.unfinished.iter().map(|unfinished| {
        format!(
            "a restore into this target did not end: {}. It may have left a part of its keys; when that is settled: HDEL {KEY} {}",
            unfinished.what, unfinished.field
        )
    }));
    warnings
}

/// What those notice who follow the target while it follows redtape.
fn followers(target: &TargetFacts) -> Vec<String> {
    let mut warnings = Vec::new();
    if target.is_source {
        warnings.push(
            "this is the server that the journal follows: clients get READONLY while it loads, and the journal begins a new timeline; writes from now until its new base cannot be restored. Stop the writers first"
                .to_owned(),
        );
    }
    // One of them is redtape itself.
    let others = target.replicas.saturating_sub(u64::from(target.is_source));
    match others {
        0 => {}
        1 => warnings.push("1 replica follows the target; it gets everything too".to_owned()),
        n => warnings.push(format!("{n} replicas follow the target; they get everything too")),
    }
    warnings
}

/// A rough guess from common speeds of one server.
fn estimate(base_bytes: u64, range: &RangeFacts, method: Method) -> f64 {
    const LOAD_BYTES_PER_S: f64 = 150e6;
    const RECORDS_PER_S: f64 = 500e3;
    const STREAM_BYTES_PER_S: f64 = 200e6;
    let load = base_bytes as f64 / LOAD_BYTES_PER_S;
    let replay = (range.records as f64 / RECORDS_PER_S).max(range.bytes as f64 / STREAM_BYTES_PER_S);
    let passes = match method {
        Method::Link => 0.0,
        Method::LinkFromScratch => 2.0,
        Method::Scratch => 4.0,
    };
    let seconds = 0.5 + load + replay + passes * (load + range.bytes as f64 / LOAD_BYTES_PER_S / 2.0);
    (seconds * 10.0).round() / 10.0
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
            Method::Scratch => "scratch server and copy",
        };
        writeln!(f, "restore to   {} ({})", self.target, self.target_version)?;
        writeln!(f, "point        {}, last write {}", self.echo, self.last_write)?;
        writeln!(f, "method       {method}: {}", self.reason)?;
        if let Some(scratch) = &self.scratch {
            writeln!(f, "scratch      {scratch}")?;
        }
        let Base { file, at, bytes, rdb, lsn, .. } = &self.base;
        writeln!(f, "base         {file} ({at}, LSN {lsn}, {bytes} bytes, {rdb})")?;
        match &self.slice {
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
#[path = "plan_tests.rs"]
mod tests;
