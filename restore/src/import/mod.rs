//! Imports a JSON lines file into a server of any version: `redtape restore --from FILE.jsonl --to URL`.
//!
//! ```text
//! target's facts ─► the file, once through (whole? what of it can the target hold? which keys does it have?) ─► plan
//! ─► the file, again: keys into the target ─► report
//! ```
//!
//! No scratch server is needed: values are encoded for the target's version, or built in pieces. No key is ever
//! overwritten: the target is empty, or its keys stay.
//!
//! # After a failure, a crash or a kill
//! The first pass writes nothing. After it the target holds some of the keys, each of them whole, and the marker of
//! [`crate::target::unfinished`]. The same command with existing keys skipped continues and removes the marker.

mod check;
mod plan;
mod write;

use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use redtape_journal::query::Filter;
use redtape_journal::undo_file::OperationId;
use redtape_wire::rdb::{Value, module_type};

use self::check::{Checked, check};
pub use self::plan::{ImportPlan, ImportReport};
use crate::client::Server;
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::limits::Limits;
use crate::plan::{may_copy, writable};
use crate::progress::Observer;
use crate::target::jsonl::reading::{Header, ReadKey, Reading};
use crate::target::preflight::TargetFacts;
use crate::target::rights::{By, Repairs};
use crate::target::{ServerAddress, unfinished};

/// Input of an import.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    /// The file.
    pub file: PathBuf,
    /// The target.
    pub to: ServerAddress,
    /// The selection.
    pub filter: Filter,
    /// What to do with existing keys.
    pub existing: Existing,
    /// Ends the import when it is set.
    pub interrupt: Interrupt,
    /// Time limits of the server.
    pub limits: Limits,
}

/// What to do with existing keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Without a selection the target must be empty; with one it must have none of the keys.
    NotExpected,
    /// Nothing is written if there are some; other keys may exist.
    Refused,
    /// They stay unchanged.
    Kept,
}

impl ImportRequest {
    /// No selection, into an empty target.
    fn is_whole(&self) -> bool {
        self.filter.is_everything() && self.existing == Existing::NotExpected
    }

    fn wants(&self, key: &ReadKey) -> bool {
        self.filter.wants(key.db, &key.key)
            && (!self.filter.looks_at_types() || self.filter.wants_type(&type_name(&key.value)))
    }
}

/// As returned by `TYPE`.
fn type_name(value: &Value) -> String {
    match value {
        Value::Module { id, .. } => module_type(*id).0,
        other => other.type_name().to_owned(),
    }
}

/// An import that is ready to run.
pub struct PreparedImport {
    request: ImportRequest,
    plan: ImportPlan,
    target: Server,
    facts: TargetFacts,
    /// Names its marker and its temporary keys: derived from file and target.
    id: OperationId,
}

impl fmt::Debug for PreparedImport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedImport").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// Reads the file once and examines the target; changes nothing.
pub fn prepare_import(request: ImportRequest, observer: &mut dyn Observer) -> Result<PreparedImport, RestoreError> {
    let connector = request.to.connector()?;
    // A file of another kind is refused before the server is contacted.
    let header = Reading::open(&request.file)?.header;
    let mut target = Server::open(connector, request.to.commands.clone())?;
    target.set_reply_limit(request.limits.reply)?;
    target.keep_alive()?;
    let facts = TargetFacts::read(&mut target)?;
    takes_it(&request, &facts)?;
    let Checked { keys, existing, functions, bytes, mut warnings } = check(&request, &facts, &mut target, observer)?;
    warnings.extend(facts.unfinished.iter().map(|unfinished| {
        format!("a restore into this target did not end: {} ({})", unfinished.what, unfinished.field)
    }));
    let selection = (!request.filter.is_everything()).then(|| request.filter.to_string());
    let id = operation(&header, &facts);
    let Header { at, before, lsn, journal, server, selection: file_selection } = header;
    let plan = ImportPlan {
        file: request.file.display().to_string(),
        bytes,
        at,
        before,
        lsn,
        journal,
        server,
        file_selection,
        selection,
        keys,
        existing,
        functions,
        target: facts.address.clone(),
        target_version: facts.version.to_string(),
        warnings,
    };
    Ok(PreparedImport { request, plan, target, facts, id })
}

fn operation(header: &Header, facts: &TargetFacts) -> OperationId {
    OperationId::derive(&[
        ("import of journal", header.journal.as_bytes()),
        ("lsn", &header.lsn.to_le_bytes()),
        ("target", facts.address.as_bytes()),
    ])
}

/// Obstacles that do not depend on the file.
fn takes_it(request: &ImportRequest, facts: &TargetFacts) -> Result<(), RestoreError> {
    /// Lowest version of the values' encoding: Redis 5.0.
    const OLDEST_RDB: u32 = 9;
    writable(facts)?;
    if facts.cluster {
        return Err(RestoreError::Unable(format!(
            "{} is a node of a cluster, into which JSON lines do not go: restore them to a server outside of it, or restore from the journal (--from DIR)",
            facts.address
        )));
    }
    if facts.version.writes().version < OLDEST_RDB {
        return Err(RestoreError::Unable(format!(
            "{} is {}: JSON lines go into Redis 5.0 and newer",
            facts.address, facts.version
        )));
    }
    if request.is_whole()
        && let Some(found) = facts.contents()
    {
        return Err(RestoreError::NotEmpty { address: facts.address.clone(), found });
    }
    may_copy(facts, if request.is_whole() { By::Copy } else { By::Repair(Repairs::default()) })
}

/// Whether values of modules may be tried. A server before Redis 7.0 without the module crashes when it receives one
/// (`rdbLoadObject`).
fn takes_modules(facts: &TargetFacts) -> bool {
    facts.version.has_redis(7, 0)
}

impl PreparedImport {
    /// The plan.
    pub fn plan(&self) -> &ImportPlan {
        &self.plan
    }

    /// True if keys are added to a server that holds others.
    pub fn target_holds_data(&self) -> bool {
        self.facts.contents().is_some()
    }

    /// Runs the import.
    pub fn run(self, observer: &mut dyn Observer) -> Result<ImportReport, RestoreError> {
        let start = Instant::now();
        let Self { request, plan, mut target, facts, id } = self;
        let job = write::Job { request: &request, plan: &plan, facts: &facts, id: &id };
        let written = write::write(&job, &mut target, observer)?;
        // The next restore need not wait until the server notices the end of our connection.
        let _ = target.clear_name();
        let checks = vec![format!(
            "each key was looked for in the target when it had been written; {} is gone",
            unfinished::KEY
        )];
        Ok(ImportReport {
            file: plan.file,
            bytes: plan.bytes,
            at: plan.at,
            before: plan.before,
            lsn: plan.lsn,
            keys: written.keys,
            existing: written.existing,
            expired: written.expired,
            functions: written.functions,
            seconds: (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
            checks,
            warnings: plan.warnings,
        })
    }
}
