//! Undoes a repair: the values in its undo file are put back where the target still has what the repair wrote.
//!
//! ```text
//! undo file ─► last entry of each place ─► compare with the target ─► engine of repairs ─► target
//! ```
//!
//! Invariant: whatever was changed since the repair stays, and is listed, unless the user chooses to replace it. An
//! undo writes an undo file of its own.

mod collect;
mod elements;
mod entries;
mod libraries;
mod put_back;
pub mod writes;

use std::path::PathBuf;

use redtape_journal::query::Filter;
use redtape_journal::undo_file::{OperationId, Progress, UndoHead, UndoReader, UndoWriter};
use redtape_journal::{Keyring, Micros};
use serde::Serialize;

use self::entries::LastEntries;
use self::put_back::{UndoWork, open_file};
use crate::client::Server;
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::limits::Limits;
use crate::progress::Observer;
use crate::target::cluster::{Primaries, in_rounds, together};
use crate::target::preflight::TargetFacts;
use crate::target::repair::{FileLog, Operation, Outcome};
use crate::target::server::{ServerTarget, Wish};
use crate::target::{ServerAddress, claim, unfinished};
use crate::version::ServerVersion;

/// An undo request.
#[derive(Debug, Clone)]
pub struct UndoRequest {
    /// The undo file.
    pub file: PathBuf,
    /// The keys of an encrypted file.
    pub keyring: Keyring,
    /// The server that the repair wrote to.
    pub to: ServerAddress,
    /// Overwrite what was changed since the repair.
    pub replace: bool,
    /// Where the undo's own undo file goes; `None` = the usual place.
    pub state_dir: Option<PathBuf>,
    /// Ends the undo when it is set.
    pub interrupt: Interrupt,
    /// Time limits for the server.
    pub limits: Limits,
}

/// An undo that is ready to run.
#[derive(Debug)]
pub struct PreparedUndo {
    plan: UndoPlan,
    /// The operation to undo.
    undone: OperationId,
    request: UndoRequest,
    target: Target,
    operation: Operation,
}

/// The target of the repair.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "an undo has one")]
enum Target {
    Server(Server, ServerVersion),
    Cluster(Primaries),
}

/// What an undo will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UndoPlan {
    /// Path of the undo file.
    pub file: String,
    /// Id of the operation.
    pub id: String,
    /// Description of the operation.
    pub what: String,
    /// Start of the operation.
    pub created: String,
    /// The target.
    pub target: String,
    /// Keys and elements that the file holds.
    pub places: u64,
    /// The operation did not finish.
    pub unfinished: bool,
    /// Undo file of this undo.
    pub undo_file: String,
}

impl std::fmt::Display for UndoPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "undo         {}", self.what)?;
        writeln!(f, "begun        {}{}", self.created, if self.unfinished { ", not finished" } else { "" })?;
        writeln!(f, "target       {}", self.target)?;
        writeln!(f, "goes back    {} keys and elements, where they are as that wrote them", self.places)?;
        write!(f, "undo file    {}", self.undo_file)
    }
}

/// Reads the file and examines the target; changes nothing.
pub fn prepare_undo(request: UndoRequest) -> Result<PreparedUndo, RestoreError> {
    let mut reader = UndoReader::open(&request.file, &request.keyring)?;
    let head = reader.head().clone();
    let unfinished = !Progress::read(&mut reader)?.is_finished();
    drop(reader);
    let last = LastEntries::read(|| UndoReader::open(&request.file, &request.keyring))?;
    let (target, facts) = open(&request)?;
    check_target(&head, &facts)?;
    let number = head.number.to_string();
    let undone = head.operation.id;
    let undone_id = undone.to_string();
    let described: [(&str, &[u8]); 4] = [
        ("undo of", undone_id.as_bytes()),
        ("file", number.as_bytes()),
        ("replace", if request.replace { b"1" } else { b"0" }),
        ("target", facts.address.as_bytes()),
    ];
    let what = format!("undo of: {}", head.operation.what);
    let state_dir = request.state_dir.as_deref();
    let operation = Operation::new(&head.operation.journal_id, &described, &facts, what, state_dir, &request.keyring)?;
    let plan = UndoPlan {
        file: request.file.display().to_string(),
        id: undone_id,
        what: head.operation.what.clone(),
        created: head.operation.created.to_string(),
        target: format!("{} ({})", facts.address, facts.version),
        places: last.places(),
        unfinished,
        undo_file: operation.undo_path().display().to_string(),
    };
    Ok(PreparedUndo { plan, undone, request, target, operation })
}

/// Connects, and examines the target.
fn open(request: &UndoRequest) -> Result<(Target, TargetFacts), RestoreError> {
    let to = &request.to;
    let wish = Wish {
        filter: Filter::default(),
        whole: false,
        accept_eviction: false,
        replaces_all: false,
        interrupt: request.interrupt.clone(),
        reply_limit: request.limits.reply,
    };
    let ServerTarget { mut server, facts, .. } =
        ServerTarget::open(to.connector()?, to.commands.clone(), wish.clone())?;
    if facts.cluster {
        let primaries = Primaries::open(&mut server, to, wish)?;
        let facts = together(&primaries, &facts)?;
        return Ok((Target::Cluster(primaries), facts));
    }
    Ok((Target::Server(server, facts.version), facts))
}

/// Refuses a server other than the one that the repair wrote to.
fn check_target(head: &UndoHead, facts: &TargetFacts) -> Result<(), RestoreError> {
    let was = &head.operation.target;
    if was.address == facts.address || (!was.replication_id.is_empty() && was.replication_id == facts.replid) {
        return Ok(());
    }
    Err(RestoreError::Unable(format!(
        "{} is not the server that this undo file is of: that was {} (replication id {}), this one has {}. Give --to its address",
        facts.address, was.address, was.replication_id, facts.replid
    )))
}

impl PreparedUndo {
    /// The plan.
    pub fn plan(&self) -> &UndoPlan {
        &self.plan
    }

    /// Runs the undo.
    pub fn run(self, observer: &mut dyn Observer) -> Result<Outcome, RestoreError> {
        let Self { plan, undone, request, mut target, operation } = self;
        match &mut target {
            Target::Server(server, _) => {
                server.ensure_connected()?;
                claim::take(server, &request.interrupt)?;
            }
            Target::Cluster(primaries) => primaries.claim()?,
        }
        let begun = Micros::now();
        // The file is read again: the operation may have continued while the user was asked.
        let last = LastEntries::read(|| open_file(&request))?;
        let progress = Progress::read(&mut open_file(&request)?)?;
        let mut work = UndoWork {
            plan: &plan,
            request: &request,
            last: &last,
            progress: &progress,
            operation: &operation,
            log: Some(operation.begin()?),
            outcome: Outcome::default(),
        };
        match &mut target {
            Target::Server(server, version) => work.put_back((server, *version), None, observer)?,
            Target::Cluster(primaries) => {
                in_rounds(primaries, &request.interrupt, ("putting back", &mut work), observer)?;
            }
        }
        let UndoWork { log, outcome, .. } = work;
        if !progress.is_finished() {
            match &mut target {
                Target::Server(server, _) => unfinished::forget(server, &undone)?,
                Target::Cluster(primaries) => {
                    primaries.with_holder_of(unfinished::KEY, &mut |server| unfinished::forget(server, &undone))?;
                }
            }
            // The operation's entries no longer count as done: the same command starts over.
            if let Some(mut begun) = UndoWriter::reopen(&request.file, &request.keyring)? {
                begun.writer.finish()?;
            }
        }
        log.map(FileLog::finish).transpose()?;
        writes::put_back(&request.file, begun)?;
        match &mut target {
            Target::Server(server, _) => drop(server.clear_name()),
            Target::Cluster(primaries) => primaries.clear_names(),
        }
        Ok(outcome)
    }
}
