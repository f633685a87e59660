//! One restore from request to report: everything is checked first, then the plan is carried out.
//!
//! ```text
//! prepare: point ─► base's digest ─► target's facts ─► scan of the journal ─► plan      (changes nothing)
//! run:     by the plan's method ─► checks ─► report
//! ```

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::time::Instant;

use redtape_journal::{Catalog, Keyring, Micros, OpenError, SnapshotInfo, SnapshotReader};
use redtape_wire::rdb::{RdbSummary, RdbVerifier};
use redtape_wire::url::RedisUrl;
use serde::Serialize;

use crate::client::{Server, text};
use crate::error::RestoreError;
use crate::filter::Filter;
use crate::interrupt::Interrupt;
use crate::limits::Limits;
use crate::plan::{Facts, ForcedMethod, Method, Plan, choose, make};
use crate::point::{PointError, RestorePoint, locate};
use crate::progress::{Event, Observer, Unit};
use crate::replica_link::{Delivered, Expected, Payload, Replica, deliver};
use crate::source::binary::{Binary, BinaryNeeds, find, made_by};
use crate::source::journal_range::{JournalRange, RangeFacts, ReplaySource, scan};
use crate::source::scratch::Scratch;
use crate::target::claim;
use crate::target::copy::{Copied, copy, gone};
use crate::target::lookup::{Missing, Wanted as Counted, check_conflicts, recount};
use crate::target::memory::MemoryState;
use crate::target::preflight::{TargetFacts, contents, unknown_commands};
use crate::target::unfinished::{KEY, Marker};
use crate::when::When;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The journal's directory.
    pub from: PathBuf,
    /// What it is encrypted with, if it is.
    pub keyring: Keyring,
    /// The moment.
    pub at: When,
    /// The target.
    pub to: RedisUrl,
    /// Which keys.
    pub filter: Filter,
    /// By which method, if the person insists.
    pub method: Option<ForcedMethod>,
    /// Which scratch server, if the person insists.
    pub server_bin: Option<PathBuf>,
    /// The present, for "ago".
    pub now: Micros,
    /// Ends the restore when it is set.
    pub interrupt: Interrupt,
    /// How long servers are waited for.
    pub limits: Limits,
}

/// A restore that could begin.
pub struct Prepared {
    plan: Plan,
    point: RestorePoint,
    range: JournalRange,
    range_facts: RangeFacts,
    rdb_bytes: u64,
    target_facts: TargetFacts,
    target: Server,
    filter: Filter,
    binary: Option<Binary>,
    interrupt: Interrupt,
    keyring: Keyring,
    limits: Limits,
    from: PathBuf,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The asked moment, UTC.
    pub at: String,
    /// The last record restored.
    pub lsn: u64,
    /// By which method.
    #[serde(rename = "via")]
    pub method: Method,
    /// Keys in each database.
    pub keys: BTreeMap<u32, u64>,
    /// Of these, keys whose TTL has passed since the moment, so that they are gone again; `None` = the target
    /// does not allow to count them.
    pub expired: Option<u64>,
    /// Function libraries.
    pub functions: usize,
    /// Records replayed.
    pub records: u64,
    /// How long it took.
    pub seconds: f64,
    /// What was compared, and with which result.
    pub checks: Vec<String>,
    /// What to be aware of.
    pub warnings: Vec<String>,
}

/// Checks everything and makes the plan; changes nothing.
pub fn prepare(request: &Request, observer: &mut dyn Observer) -> Result<Prepared, RestoreError> {
    if request.to.db != 0 {
        return Err(RestoreError::Usage(
            "the target's URL names a database; leave it out: keys go to the databases they come from (--db chooses some)"
                .to_owned(),
        ));
    }
    if request.to.tls {
        return Err(RestoreError::Tls);
    }
    let catalog = Catalog::open_with(&request.from, &request.keyring)?;
    let point =
        locate(&request.at, request.now, &catalog).map_err(|error| RestoreError::unreadable(error, &catalog))??;
    observer.on(&Event::Resolved(&point));
    let mut target = Server::connect(&request.to)?;
    target.set_reply_limit(request.limits.reply)?;
    let mut target_facts = TargetFacts::read(&mut target)?;
    target_facts.compare_with(&catalog.timelines());
    let rdb = check_base(&point.base, &request.keyring, observer)?;
    let range = JournalRange { catalog, timeline: point.timeline, after: point.base.manifest.lsn, upto: point.lsn };
    observer.on(&Event::Step {
        name: "reading the journal",
        total: point.lsn.0 - point.base.manifest.lsn.0,
        unit: Unit::Records,
    });
    let range_facts = scan(&range, &mut |records| observer.on(&Event::At(records)))
        .map_err(|error| RestoreError::unreadable(error, &range.catalog))?;
    observer.on(&Event::StepDone);
    target_facts.unknown_commands = unknown_commands(&mut target, range_facts.commands.iter())?;
    let facts = Facts {
        point: &point,
        rdb: rdb.version,
        range: &range_facts,
        target: &target_facts,
        base_memory: rdb.aux.iter().find(|(name, _)| name == "used-mem").and_then(|(_, bytes)| bytes.parse().ok()),
        filter: &request.filter,
        forced: request.method,
    };
    let (method, reason) = choose(&facts)?;
    let binary = if method == Method::Link {
        None
    } else {
        let made_by = made_by(&point.base.manifest.server_version);
        let wanted = BinaryNeeds { base: rdb.version, made_by, target: target_facts.version };
        Some(find(request.server_bin.as_deref(), wanted, request.limits)?)
    };
    let plan = make(&facts, method, reason, binary.as_ref());
    observer.on(&Event::Planned(&plan));
    Ok(Prepared {
        plan,
        point,
        range,
        range_facts,
        rdb_bytes: rdb.bytes,
        target_facts,
        target,
        filter: request.filter.clone(),
        binary,
        interrupt: request.interrupt.clone(),
        keyring: request.keyring.clone(),
        limits: request.limits,
        from: request.from.clone(),
    })
}

/// Reads the base through: its digest, its checksum, its header.
fn check_base(base: &SnapshotInfo, keyring: &Keyring, observer: &mut dyn Observer) -> Result<RdbSummary, RestoreError> {
    const CHUNK_BYTES: usize = 1 << 20;
    let path = &base.path;
    let mut file = open(base, keyring)?;
    let damaged = |problem: String| RestoreError::Base { path: path.clone(), problem };
    observer.on(&Event::Step { name: "checking the base", total: base.manifest.bytes, unit: Unit::Bytes });
    let mut rdb = RdbVerifier::new();
    let mut chunk = vec![0u8; CHUNK_BYTES];
    let mut done = 0;
    loop {
        let n = match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => return Err(damaged(e.to_string())),
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

impl Prepared {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The restore point.
    pub fn point(&self) -> &RestorePoint {
        &self.point
    }

    /// Keys are added to a server that holds others.
    pub fn target_holds_data(&self) -> bool {
        self.target_facts.contents().is_some()
    }

    /// Carries the plan out.
    pub fn run(mut self, observer: &mut dyn Observer) -> Result<Report, RestoreError> {
        let start = Instant::now();
        self.claim_target().map_err(RestoreError::before_the_target)?;
        let mut report = match self.plan.method {
            Method::Link => self.by_link(observer)?,
            Method::LinkFromScratch => self.by_link_from_scratch(observer)?,
            Method::Scratch => self.by_scratch(observer)?,
        };
        // The next one need not wait until the server sees the end of our connection.
        let _ = self.target.clear_name();
        report.seconds = (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        Ok(report)
    }

    /// Takes the target for this restore, and looks whether it is still what the plan was made for.
    ///
    /// Done again after the loading of a scratch server: the target was idle, it may have closed the connection, and with it
    /// went our name.
    fn claim_target(&mut self) -> Result<(), RestoreError> {
        self.target.ensure_connected()?;
        claim::take(&mut self.target, &self.interrupt)?;
        self.recheck_target()
    }

    /// The target may have changed since the plan was made: somebody was asked, or a scratch server was loaded.
    fn recheck_target(&mut self) -> Result<(), RestoreError> {
        let info = self.target.info(None)?;
        let address = self.target.address.clone();
        if info.get("role") != Some("master") {
            return Err(RestoreError::Unable(format!(
                "{address} has become a replica of {}:{} since the plan was made; nothing was changed",
                info.get("master_host").unwrap_or("?"),
                info.get("master_port").unwrap_or("?")
            )));
        }
        if self.filter.is_everything()
            && let Some(found) = contents(&info.keyspace(), self.target.functions()?.unwrap_or(0))
        {
            return Err(RestoreError::NotEmpty { address, found });
        }
        Ok(())
    }

    fn expected(&self) -> Expected {
        let port = self.target_facts.announced_port;
        Expected { port: (!self.target_facts.unix && port != 0).then_some(port), password: None }
    }

    fn report(&self, keys: BTreeMap<u32, u64>, functions: usize, checks: Vec<String>) -> Report {
        Report {
            at: self.plan.at.clone(),
            lsn: self.plan.lsn.0,
            method: self.plan.method,
            keys,
            expired: Some(0),
            functions,
            records: self.range_facts.records,
            seconds: 0.0,
            checks,
            warnings: Vec::new(),
        }
    }

    /// The report of a restore over the link, when the promoted target was looked at.
    fn report_promoted(&mut self, delivered: Delivered, mut checks: Vec<String>) -> Result<Report, RestoreError> {
        let warnings = self.check_promoted(&delivered).map_err(|cause| RestoreError::Undone {
            cause: Box::new(cause),
            aftermath: "The target was promoted before: it is a master, and what it holds is not sure".to_owned(),
        })?;
        checks.extend(link_checks(&delivered));
        let mut report = self.report(delivered.keys, delivered.functions, checks);
        (report.expired, report.warnings) = (delivered.expired, warnings);
        Ok(report)
    }

    /// Looks at a target after its promotion: the same run of the server, a master, and nothing evicted.
    fn check_promoted(&mut self, delivered: &Delivered) -> Result<Vec<String>, RestoreError> {
        let memory = MemoryState::settled(&mut self.target)?;
        let info = self.target.info(None)?;
        let address = self.target.address.clone();
        if info.get("run_id").unwrap_or_default() != delivered.run_id {
            return Err(RestoreError::Unable(format!(
                "{address} was started again just after its promotion: see in its log why"
            )));
        }
        if info.get("role") != Some("master") {
            return Err(RestoreError::Unable(format!("{address} was made a replica just after its promotion")));
        }
        let evicted = memory.evicted.saturating_sub(delivered.memory.evicted);
        if evicted > 0 {
            let meant = delivered.keys.values().sum();
            return Err(RestoreError::Lost { address, lost: evicted, meant, why: memory.advice(evicted) });
        }
        Ok(full_warning(&memory).into_iter().collect())
    }

    fn by_link(&mut self, observer: &mut dyn Observer) -> Result<Report, RestoreError> {
        let mut rdb = open(&self.point.base, &self.keyring)?;
        let mut load =
            Payload { rdb: &mut rdb, rdb_bytes: self.rdb_bytes, range: &self.range, records: self.range_facts.records };
        let expected = self.expected();
        let replica = Replica { server: &mut self.target, expected, clock: None, interrupt: &self.interrupt };
        let delivered =
            deliver(replica, &mut load, observer, &mut |_, _| Ok(())).map_err(RestoreError::before_the_target)?;
        self.report_promoted(delivered, Vec::new())
    }

    fn scratch(&mut self, observer: &mut dyn Observer) -> Result<(Scratch, Delivered), RestoreError> {
        let binary = self.binary.as_ref().ok_or_else(|| RestoreError::NoScratch("none was chosen".to_owned()))?;
        let mut scratch = Scratch::start(binary, self.range_facts.max_db + 1, self.limits)?;
        let mut rdb = open(&self.point.base, &self.keyring)?;
        let mut load =
            Payload { rdb: &mut rdb, rdb_bytes: self.rdb_bytes, range: &self.range, records: self.range_facts.records };
        let delivered = scratch.load(&mut load, observer, &self.interrupt).map_err(RestoreError::before_the_target)?;
        Ok((scratch, delivered))
    }

    fn by_link_from_scratch(&mut self, observer: &mut dyn Observer) -> Result<Report, RestoreError> {
        let (mut scratch, replayed) = self.scratch(observer)?;
        if let (Some(databases), Some((highest, _))) = (self.target_facts.databases, replayed.keys.last_key_value())
            && *highest >= databases
        {
            return Err(RestoreError::Unable(format!(
                "{} has {databases} databases, the data is in {}; raise its `databases` setting",
                self.target.address,
                highest + 1
            )));
        }
        self.report_memory_need(&mut scratch, observer)?;
        let file = scratch.save()?;
        self.claim_target()?;
        let rdb_bytes = std::fs::metadata(&file).map_err(RestoreError::io("read", &file))?.len();
        let mut rdb = std::fs::File::open(&file).map_err(RestoreError::io("open", &file))?;
        let nothing: Vec<redtape_journal::Group> = Vec::new();
        let range: &dyn ReplaySource = &nothing;
        let mut load = Payload { rdb: &mut rdb, rdb_bytes, range, records: 0 };
        let expected = self.expected();
        let replica = Replica { server: &mut self.target, expected, clock: None, interrupt: &self.interrupt };
        let mut checks = Vec::new();
        // Fields of hashes that have expired by the target's clock are not in its digest.
        let still = !self.target_facts.version.has_field_ttl();
        let mut compare = |target: &mut Server, delivered: &Delivered| {
            if delivered.keys != replayed.keys || delivered.functions != replayed.functions {
                return Err(RestoreError::Verify(format!(
                    "it holds {:?} keys and {} function libraries instead of {:?} and {}",
                    delivered.keys, delivered.functions, replayed.keys, replayed.functions
                )));
            }
            checks.push("keys in each database and functions equal those of the scratch server".to_owned());
            checks.push(compare_digests(&mut scratch.server, target, &delivered.keys, still)?);
            Ok(())
        };
        let delivered = deliver(replica, &mut load, observer, &mut compare).map_err(RestoreError::before_the_target)?;
        self.report_promoted(delivered, checks)
    }

    fn by_scratch(&mut self, observer: &mut dyn Observer) -> Result<Report, RestoreError> {
        let (mut scratch, _) = self.scratch(observer)?;
        self.report_memory_need(&mut scratch, observer)?;
        self.copy_all(&mut scratch, observer).map_err(|e| scratch.explain(e))
    }

    /// Says now, when it is known, whether the data fits.
    fn report_memory_need(&mut self, scratch: &mut Scratch, observer: &mut dyn Observer) -> Result<(), RestoreError> {
        let need = scratch.server.info(Some("memory"))?.number("used_memory_dataset").unwrap_or(0);
        let MemoryState { limit, used, .. } = self.target_facts.memory;
        if let Some(limit) = limit.filter(|limit| *limit > 0 && need + used > *limit)
            && self.filter.is_everything()
        {
            observer.on(&Event::Note(&format!(
                "the data takes about {need} bytes in the scratch server: more than the target's memory limit of {limit} bytes leaves"
            )));
        }
        Ok(())
    }

    /// What is wanted of the scratch server; nothing of it may be in the way in the target.
    fn wanted(&mut self, scratch: &mut Scratch, observer: &mut dyn Observer) -> Result<Counted, RestoreError> {
        // A marker that the recorded server itself had is not what was restored there.
        scratch.server.call(&["SELECT", "0"])?;
        scratch.server.call(&["DEL", KEY])?;
        self.claim_target()?;
        if self.filter.is_everything() {
            // Nothing can be in the way in an empty target; RESTORE itself refuses what comes in between.
            return Ok(scratch.server.info(Some("keyspace"))?.keyspace());
        }
        let wanted = check_conflicts(scratch, &mut self.target, &self.filter, observer, &self.interrupt)?;
        if wanted.is_empty() { Err(RestoreError::NoKeys) } else { Ok(wanted) }
    }

    /// Puts the marker up that a copy is under way; where that is not allowed, says so.
    fn put_marker(&mut self, wanted: &Counted, observer: &mut dyn Observer) -> Result<Option<Marker>, RestoreError> {
        let whole = self.filter.is_everything();
        let what = format!(
            "{} ({} keys) of {} as of {}, LSN {}, begun at {}",
            if whole { "everything" } else { "some keys" },
            wanted.values().sum::<u64>(),
            self.from.display(),
            self.plan.at,
            self.plan.lsn,
            redtape_journal::Micros::now()
        );
        Ok(match Marker::put(&mut self.target, whole, &what)? {
            Ok(marker) => Some(marker),
            Err(why) => {
                let note = format!(
                    "no marker of this restore can be left in the target ({why}): if it is killed, nothing there tells of it"
                );
                observer.on(&Event::Note(&note));
                None
            }
        })
    }

    fn copy_all(&mut self, scratch: &mut Scratch, observer: &mut dyn Observer) -> Result<Report, RestoreError> {
        let wanted = self.wanted(scratch, observer).map_err(RestoreError::before_the_target)?;
        let marker = self.put_marker(&wanted, observer).map_err(RestoreError::before_the_target)?;
        let evicted_before = MemoryState::ask(&mut self.target)?.evicted;
        let copied = match copy(scratch, &mut self.target, &self.filter, &wanted, observer, &self.interrupt) {
            Ok(copied) => copied,
            Err((cause, true)) => return Err(cause),
            Err((cause, false)) => {
                // Where it cannot be taken away, the marker says more than is true, never less.
                let _ = marker.map(|marker| marker.remove(&mut self.target));
                return Err(cause);
            }
        };
        let at_ms = scratch.hold()?;
        let missing = recount(scratch, &mut self.target, &self.filter, observer, &self.interrupt, at_ms)?;
        let warnings = self.check_copied(&copied, &missing, evicted_before, marker.is_some())?;
        if let Some(marker) = marker {
            marker.remove(&mut self.target).map_err(|cause| RestoreError::Undone {
                cause: Box::new(cause),
                aftermath: format!(
                    "Everything was restored; only the key {KEY} in db 0, which says that it was not, is left"
                ),
            })?;
        }
        let mut checks = vec!["all of them were looked for in the target at the end".to_owned()];
        let (restored, planned) = (copied.keys.values().sum::<u64>(), wanted.values().sum::<u64>());
        if copied.keys != wanted {
            // SCAN may count a key twice, never leave one out.
            checks.push(format!("{restored} keys restored of {planned} counted"));
        }
        if self.filter.is_everything() && missing.expired == 0 {
            let still = copied.volatile == 0;
            match compare_digests(&mut scratch.server, &mut self.target, &copied.keys, still) {
                Ok(check) => checks.push(check),
                Err(e) => {
                    self.put_marker(&wanted, observer)?;
                    return Err(e);
                }
            }
        }
        let mut report = self.report(copied.keys, copied.functions, checks);
        (report.expired, report.warnings) = (Some(missing.expired), warnings);
        Ok(report)
    }

    /// Whether what is in the target after a copy is what was meant; otherwise the marker stays.
    fn check_copied(
        &mut self,
        copied: &Copied,
        missing: &Missing,
        evicted_before: u64,
        marker: bool,
    ) -> Result<Vec<String>, RestoreError> {
        let restored: u64 = copied.keys.values().sum();
        let memory = MemoryState::settled(&mut self.target)?;
        let everything = self.filter.is_everything();
        if missing.gone > 0 && (everything || memory.evicted > evicted_before) {
            let named = missing.named.join(", ");
            return Err(gone(&mut self.target, evicted_before, missing.gone, restored, &named));
        }
        let mut warnings = Vec::from_iter(full_warning(&memory));
        if missing.gone > 0 {
            warnings.push(format!(
                "{} of the restored keys are not there any more ({}): other clients removed them",
                missing.gone,
                missing.named.join(", ")
            ));
        }
        if everything {
            let now: u64 = self.target.info(Some("keyspace"))?.keyspace().values().sum();
            let ours = restored - missing.expired + u64::from(marker);
            if now > ours {
                return Err(RestoreError::Joined { address: self.target.address.clone(), count: now - ours });
            }
        }
        Ok(warnings)
    }
}

/// A server that keeps what it has and takes no more.
fn full_warning(memory: &MemoryState) -> Option<String> {
    (memory.is_over() && !memory.evicts()).then(|| {
        format!(
            "everything is there, but the target uses {} bytes of its maxmemory of {}: it refuses writes until that is raised",
            memory.used,
            memory.limit.unwrap_or(0)
        )
    })
}

fn open(base: &SnapshotInfo, keyring: &Keyring) -> Result<SnapshotReader, RestoreError> {
    base.open(keyring).map_err(|e| match e {
        OpenError::Io { path, source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            RestoreError::Point(PointError::BaseMissing(path))
        }
        OpenError::Io { action, path, source } => RestoreError::Io { action, path, source },
        other => RestoreError::Open(other),
    })
}

fn link_checks(delivered: &Delivered) -> Vec<String> {
    vec![
        format!("the target acknowledged all {} bytes of the stream", delivered.stream_bytes),
        if delivered.errors_counted {
            "the target counted no error (unexpected_error_replies)".to_owned()
        } else {
            "errors could not be counted: the target is older than Redis 7.0".to_owned()
        },
    ]
}

/// Compares `DEBUG DIGEST` where both allow it and it is cheap. A difference is an error only if nothing
/// can have expired meanwhile (`still`).
fn compare_digests(
    scratch: &mut Server,
    target: &mut Server,
    keys: &BTreeMap<u32, u64>,
    still: bool,
) -> Result<String, RestoreError> {
    const CHEAP_KEYS: u64 = 100_000;
    const CHEAP_BYTES: u64 = 64 << 20;
    let memory = scratch.info(Some("memory"))?.number("used_memory").unwrap_or(u64::MAX);
    if keys.values().sum::<u64>() >= CHEAP_KEYS || memory >= CHEAP_BYTES {
        return Ok("digests not compared: it would take long, and DEBUG DIGEST holds a server up".to_owned());
    }
    let digest = |server: &mut Server| -> Result<Option<String>, RestoreError> {
        Ok(server.try_call(&["DEBUG", "DIGEST"])?.ok().as_ref().map(text))
    };
    match (digest(target)?, digest(scratch)?) {
        (Some(there), Some(here)) if there == here => {
            Ok("the digests of target and scratch server are equal".to_owned())
        }
        (Some(_), Some(_)) if !still => Ok("digests not compared: keys expire".to_owned()),
        (Some(there), Some(here)) => Err(RestoreError::Verify(format!(
            "its DEBUG DIGEST is {there}, the scratch server's {here} (if no other client has written to it meanwhile)"
        ))),
        _ => Ok("digests not compared: DEBUG is not allowed".to_owned()),
    }
}
