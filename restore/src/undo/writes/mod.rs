//! Undoes writes: computes the history without the mistake and applies the difference.
//!
//! ```text
//! filter ─► mistake: which writes, which keys, what was built on them     (one pass over the journal)
//!        ─► two datasets at the present: as it was, and without the writes (two scratch servers)
//!        ─► their difference, key by key and element by element            (pure: repairs)
//!        ─► the live server, each part only where it is still as it was    (engine of repairs)
//! ```
//!
//! - `request`: the input.
//! - `history`: the undone writes and the affected keys; `told`: their description.
//! - `datasets`: the two datasets.
//! - `earlier`: earlier undos, whose writes are left out too.
//! - `pairs`: the two datasets side by side.
//! - `repairs`: the repair of a key.
//! - `doubts`: differences that stay.
//! - `survey`: all repairs, counted before the first write.
//! - `deliver`: writes the repairs.
//! - `plan`: what will be done, and what was done.
//!
//! Later writes of others therefore stay, and each key returns to its state before its own bad write. Concurrent writes
//! of clients are never overwritten: such keys are examined again, at most `ATTEMPTS_MAX` times, and then left and
//! listed.
//!
//! An interrupted run leaves each key whole, in its old or its new state. The same command continues: what was written
//! is in the journal like any other write, so both datasets contain it.

mod datasets;
mod deliver;
mod doubts;
mod earlier;
mod history;
mod pairs;
mod plan;
mod repairs;
mod request;
mod survey;
mod told;

use std::path::Path;
use std::time::Instant;

use redtape_journal::Micros;
use redtape_journal::undo_file::OperationId;

pub use self::plan::{Changes, UndoWritesPlan, UndoWritesReport, WritesSeen};
pub use self::request::UndoWritesRequest;

pub(crate) use self::earlier::put_back;

use self::datasets::{Means, Rebuilt};
use self::deliver::{AnewLog, deliver};
use self::earlier::Undone;
use self::history::{History, Place};
use self::survey::{Stays, Survey, each_repair};
use crate::error::RestoreError;
use crate::progress::{Event, Observer, Unit};
use crate::target::pieces::leftovers;
use crate::target::repair::engine::{Engine, InFlight};
use crate::target::repair::{FileLog, How, Judged, OnConflict, Operation, Outcome, Policy, live};
use crate::target::rights::{By, Repairs};
use crate::target::server::{Marks, ServerTarget, check_repair, marker_or_note};
use crate::target::unfinished::Marker;
use crate::undo::collect::Collector;

/// Assumed duration of writing by an interrupted undo, in µs.
const INTERRUPTED_US: i64 = 3600 * 1_000_000;
/// Attempts for keys that clients write to meanwhile.
const ATTEMPTS_MAX: u32 = 6;
/// Subject of errors about a journal that does not reach the present.
const WHAT: &str = "an undo of writes";

/// An undo that is ready to run.
pub struct PreparedUndoWrites {
    plan: UndoWritesPlan,
    request: UndoWritesRequest,
    target: ServerTarget,
    operation: Operation,
    history: History,
    rebuilt: Rebuilt,
    survey: Survey,
}

impl std::fmt::Debug for PreparedUndoWrites {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparedUndoWrites").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// Reads the journal, rebuilds both datasets and compares them; changes nothing.
pub fn prepare_undo_writes(
    request: UndoWritesRequest,
    observer: &mut dyn Observer,
) -> Result<PreparedUndoWrites, RestoreError> {
    let mut target = datasets::open_target(&request)?;
    let history = History::read(&request, None, None, observer)?;
    target.filter = history.filter.clone();
    let (mut rebuilt, means) = Rebuilt::of(&history, &request, &mut target, observer)?;
    target.server.ensure_connected()?;
    let survey = Survey::take(&mut rebuilt, &history, &mut target, observer)?;
    let operation = operation(&request, &history, &target)?;
    let plan = plan_of(&request, &history, &survey, means, &operation, &target);
    Ok(PreparedUndoWrites { plan, request, target, operation, history, rebuilt, survey })
}

/// Undoing the same writes in the same server is the same operation.
fn operation(request: &UndoWritesRequest, history: &History, target: &ServerTarget) -> Result<Operation, RestoreError> {
    let selected = &history.mistake.selected;
    let (first, last) = selected.span.map_or((0, 0), |(first, last)| (first.lsn.0, last.lsn.0));
    let writes = format!("{:?} {}", request.writes, request.keys.canonical());
    let options = [u8::from(request.include_unknown), u8::from(request.include_dependent)];
    let described: [(&str, &[u8]); 8] = [
        ("undo of writes", writes.as_bytes()),
        ("journal", history.journal_id.as_bytes()),
        ("timeline", &history.timeline.0.to_le_bytes()),
        ("first", &first.to_le_bytes()),
        ("last", &last.to_le_bytes()),
        ("count", &selected.samples.count.to_le_bytes()),
        ("options", &options),
        ("target", target.facts.address.as_bytes()),
    ];
    let what = format!("undo of {} writes in {}", selected.samples.count, target.facts.address);
    let state_dir = request.state_dir.as_deref();
    Operation::new(&history.journal_id, &described, &target.facts, what, state_dir, &request.keyring)
}

fn plan_of(
    request: &UndoWritesRequest,
    history: &History,
    survey: &Survey,
    means: Means,
    operation: &Operation,
    target: &ServerTarget,
) -> UndoWritesPlan {
    let mistake = &history.mistake;
    UndoWritesPlan {
        selected: history.selected(),
        perhaps: told::seen(&mistake.doubtful),
        perhaps_included: request.include_unknown,
        changes: survey.changes.clone(),
        stay: survey.stays.count,
        stay_listed: survey.stays.listed.clone(),
        built_on: history.built_on(),
        not_judged: history.not_judged(),
        upto_lsn: history.upto.0,
        target: format!("{} ({})", target.facts.address, target.facts.version),
        scratch: means.scratch,
        limits: means.limits,
        undo_file: operation.undo_path().display().to_string(),
        warnings: means.warnings,
    }
}

impl PreparedUndoWrites {
    /// The plan.
    pub fn plan(&self) -> &UndoWritesPlan {
        &self.plan
    }

    /// True if nothing has to be written.
    pub fn is_nothing(&self) -> bool {
        self.plan.changes.keys() == 0
    }

    /// The report if nothing has to be written.
    fn nothing_done(self) -> UndoWritesReport {
        let Self { plan, survey, .. } = self;
        let Stays { count, listed, .. } = survey.stays;
        UndoWritesReport {
            selected: plan.selected.count,
            repair: Outcome { left: count, listed, ..Outcome::default() },
            perhaps: plan.perhaps_left(),
            not_judged: plan.not_judged,
            attempts: 0,
            upto_lsn: plan.upto_lsn,
            undo_file: None,
            seconds: 0.0,
            warnings: plan.warnings,
        }
    }

    /// Runs the undo.
    pub fn run(self, observer: &mut dyn Observer) -> Result<UndoWritesReport, RestoreError> {
        let start = Instant::now();
        if self.is_nothing() {
            // A later mistake may cover this one: without the record, undoing that one would bring this one back.
            let undone = Undone::of(self.history.timeline, &self.history.mistake.selected.lsns);
            let now = Micros::now();
            undone.store(&self.operation.undo_path(), (now, now))?;
            return Ok(self.nothing_done());
        }
        let Self { plan, request, mut target, operation, mut history, mut rebuilt, survey } = self;
        target.claim().map_err(RestoreError::before_the_target)?;
        let by = By::Repair(Repairs::UNDO);
        check_repair(&mut target, &mut rebuilt.pairs.datasets, (&survey.wanted, &survey.new), by, observer)
            .map_err(RestoreError::before_the_target)?;
        let mut log = operation.begin()?;
        let what = format!("{} of {}, begun at {}", plan.changes.keys(), request.from.display(), Micros::now());
        let what = format!("an undo of {} writes, keys that change: {what}", plan.selected.count);
        let marker = marker_or_note(Marker::put_some(&mut target.server, operation.id(), &what)?, observer);
        let marks = Marks::of(&target, (&request.from, &request.keyring), ("undo", log.path()));
        if !log.goes_on() {
            marks.set("before", observer);
        }
        let undo_file = log.path().display().to_string();
        let undone = Undone::of(history.timeline, &history.mistake.selected.lsns);
        let begun = Micros::now();
        // If interrupted, it is assumed to have written no longer than this.
        undone.clone().store(log.path(), (begun, Micros(begun.0 + INTERRUPTED_US)))?;
        let mut all = Outcome::default();
        let (mut attempts, mut stays) = (0, Stays::default());
        loop {
            attempts += 1;
            let done = write(&mut target, &mut rebuilt, &history, (&mut log, operation.id()), &mut stays, observer);
            let outcome = done.map_err(|cause| RestoreError::Undone {
                cause: Box::new(rebuilt.pairs.datasets.explain(cause)),
                aftermath: format!(
                    "Some keys may have been undone, each key and element completely. Run the same command again to continue; what was overwritten is in {undo_file}"
                ),
            })?;
            let left = add(&mut all, outcome);
            if left.is_empty() || attempts == ATTEMPTS_MAX {
                break;
            }
            // What clients have changed meanwhile is examined again.
            (all.left, all.listed) = (0, Vec::new());
            stays.again = true;
            drop(rebuilt);
            history = History::read(&request, Some(Path::new(&undo_file)), Some((&history, left)), observer)?;
            target.filter = history.filter.clone();
            rebuilt = Rebuilt::of(&history, &request, &mut target, observer)?.0;
            target.server.ensure_connected()?;
        }
        undone.store(log.path(), (begun, Micros::now()))?;
        finish(&mut target, log, marker, &marks, operation.id(), observer)?;
        all.left += stays.count;
        all.listed.extend(stays.listed);
        Ok(UndoWritesReport {
            selected: plan.selected.count,
            repair: all,
            perhaps: plan.perhaps_left(),
            not_judged: plan.not_judged,
            attempts,
            upto_lsn: history.upto.0,
            undo_file: Some(undo_file),
            seconds: (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
            warnings: plan.warnings,
        })
    }
}

/// Writes the differences.
fn write(
    target: &mut ServerTarget,
    rebuilt: &mut Rebuilt,
    history: &History,
    (log, id): (&mut FileLog, &OperationId),
    stays: &mut Stays,
    observer: &mut dyn Observer,
) -> Result<Outcome, RestoreError> {
    let policy = Policy { on_conflict: OnConflict::Replace, ..Policy::default() };
    let judged = Judged::default();
    let (version, interrupt) = (target.facts.version, target.interrupt());
    let how = How::find(&mut target.server)?;
    let now_ms = live::clock(&mut target.server)?;
    let moved = log.take_moved();
    let mut log = AnewLog(log);
    let engine = Engine {
        target: &mut target.server,
        policy: &policy,
        judged: &judged,
        log: &mut log,
        interrupt: &interrupt,
        at_ms: 0,
        id,
        version,
        how,
        outcome: Outcome::default(),
        in_flight: InFlight::default(),
        moved,
    };
    let mut collector = Collector::new(engine);
    observer.on(&Event::Step { name: "writing keys", total: 0, unit: Unit::Keys });
    let mut seen = 0;
    each_repair(rebuilt, history, (now_ms, &interrupt), &mut |repair, pair| {
        stays.add((pair.db, pair.key), &repair.stays);
        if repair.writes() {
            seen += 1;
            deliver(&mut collector, (pair.db, pair.key), repair, (pair.was, pair.without))?;
            observer.on(&Event::At(seen));
        }
        Ok(())
    })?;
    collector.flush()?;
    collector.engine.take_up_rest()?;
    observer.on(&Event::StepDone);
    Ok(collector.engine.outcome)
}

/// Adds an attempt's numbers; returns the keys that were left.
fn add(all: &mut Outcome, attempt: Outcome) -> Vec<Place> {
    let Outcome {
        created, replaced, merged, elements, ttl_set, deleted, equal, expired, left, listed, left_keys, ..
    } = attempt;
    all.created += created;
    all.replaced += replaced;
    all.merged += merged;
    all.elements += elements;
    all.ttl_set += ttl_set;
    all.deleted += deleted;
    all.equal += equal;
    all.expired += expired;
    all.left += left;
    all.listed.extend(listed);
    left_keys
}

fn finish(
    target: &mut ServerTarget,
    log: FileLog,
    marker: Option<Marker>,
    marks: &Marks,
    id: &OperationId,
    observer: &mut dyn Observer,
) -> Result<(), RestoreError> {
    if log.goes_on() {
        leftovers::remove_everywhere(&mut target.server, id)?;
    }
    marks.set("after", observer);
    if let Some(marker) = marker {
        marker.remove(&mut target.server)?;
    }
    log.finish()?;
    let _ = target.server.clear_name();
    Ok(())
}
