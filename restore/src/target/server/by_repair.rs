//! Wanted keys of a scratch server into a target that holds others: looked at before the plan, then written by
//! [`crate::target::repair`].

use redtape_journal::query::{AsOf, When};

use super::marks::Marks;
use super::{ServerTarget, blame, evicted_warning, full_warning, marker_or_note, room};
use crate::client::Server;
use crate::error::RestoreError;
use crate::plan::Plan;
use crate::progress::{Event, Observer, Unit};
use crate::request::Request;
use crate::source::scratch::Scratch;
use crate::source::{Located, Source};
use crate::target::copy::copy_functions;
use crate::target::lookup::{KeyCounts, recount};
use crate::target::memory::MemoryState;
use crate::target::repair::{
    Datasets, FileLog, Job, Judged, JudgedCounts, Look, OnConflict, Operation, Outcome, Policy, RepairPlan, Survey,
    Surveyed, repair, survey,
};
use crate::target::restored::Restored;
use crate::target::rights::{By, Repairs};
use crate::target::unfinished::{KEY, Marker};

/// The dataset in its scratch server, and what the target holds of it.
pub(crate) struct Looked {
    survey: Survey,
    new: Vec<bool>,
    operation: Operation,
    datasets: Datasets,
    policy: Policy,
    judged: Judged,
    at_ms: i64,
    rate: Option<u32>,
}

impl Looked {
    /// What the plan says of it.
    pub(crate) fn plan(&self) -> RepairPlan {
        RepairPlan {
            policy: self.policy.clone(),
            survey: self.survey.clone(),
            judged: self.judged.counts().map(|(go_back, stay)| JudgedCounts { go_back, stay }),
            undo_file: self.operation.undo_path().display().to_string(),
        }
    }
}

/// Rebuilds the dataset and compares it with the target; changes nothing.
pub(crate) fn look(
    target: &mut ServerTarget,
    source: &Source,
    request: &Request,
    observer: &mut dyn Observer,
) -> Result<Looked, RestoreError> {
    if request.broken_by.is_some() {
        blame::check(source, &target.facts)?;
    }
    let (mut scratch, _) = source.rebuild(observer)?;
    target.server.ensure_connected()?;
    // A marker that the recorded server itself had is not what was restored there.
    scratch.server.call(&["SELECT", "0"])?;
    scratch.server.call(&["DEL", KEY])?;
    let expected =
        request.unchanged_since.as_ref().map(|when| expected(source, request, when, observer)).transpose()?;
    let mut datasets = Datasets::new(scratch, expected)?;
    target.server.ensure_connected()?;
    let policy = request.repair.clone().unwrap_or_default();
    let at_ms = source.point.asked.0 / 1000;
    let operation = Operation::of_restore(request, source, &target.facts, &policy)?;
    let look = Look {
        id: operation.id(),
        datasets: &mut datasets,
        target: &mut target.server,
        filter: &target.filter,
        policy: &policy,
        at_ms,
        version: target.facts.version,
        judge: request.broken_by.is_some(),
        interrupt: &target.interrupt,
    };
    let Surveyed { survey, asked, new } = survey(look, observer).map_err(|e| datasets.explain(e))?;
    if survey.wanted.values().sum::<u64>() + survey.absent == 0 {
        return Err(RestoreError::NoKeys);
    }
    if policy.on_conflict == OnConflict::Fail && survey.different > 0 {
        let mut list = survey.samples.join(", ");
        if survey.different > survey.samples.len() as u64 {
            list.push_str(", …");
        }
        return Err(RestoreError::Conflict { address: target.server.address.clone(), count: survey.different, list });
    }
    let judged = match &request.broken_by {
        None => Judged::default(),
        Some(query) => blame::judged(asked, query, source, request, observer)?,
    };
    Ok(Looked { survey, new, operation, datasets, policy, judged, at_ms, rate: request.rate })
}

/// What the target is expected to hold, in a scratch server of its own.
pub(crate) fn expected(
    source: &Source,
    request: &Request,
    when: &When,
    observer: &mut dyn Observer,
) -> Result<Scratch, RestoreError> {
    let request = Request { as_of: AsOf::At(when.clone()), ..request.clone() };
    let mut expected = Located::find(&request)?.check(&request, observer)?;
    expected.binary.clone_from(&source.binary);
    Ok(expected.rebuild(observer)?.0)
}

/// Writes what the plan says.
pub(super) fn restore(
    target: &mut ServerTarget,
    plan: &Plan,
    source: &Source,
    looked: Looked,
    observer: &mut dyn Observer,
) -> Result<Restored, RestoreError> {
    let Looked { survey, new, operation, mut datasets, policy, judged, at_ms, rate } = looked;
    let about = format!("of {} as of {}, LSN {}", source.from.display(), plan.at, plan.lsn);
    let by = By::Repair(Repairs::of(&policy));
    room::check_repair(target, &mut datasets, (&survey.wanted, &new[..]), by, observer)
        .map_err(|e| datasets.explain(e).before_the_target())?;
    let (marker, mut log) =
        begin(target, &operation, &about, &survey.wanted, observer).map_err(RestoreError::before_the_target)?;
    let marks = Marks::of(target, (&source.from, source.keyring()), ("restore", log.path()));
    if !log.goes_on() {
        marks.set("before", observer);
    }
    let evicted_before = MemoryState::ask(&mut target.server)?.evicted;
    let total = survey.wanted.values().sum::<u64>() + survey.absent;
    observer.on(&Event::Step { name: "writing keys", total, unit: Unit::Keys });
    let job = Job {
        new: &new,
        datasets: &mut datasets,
        target: &mut target.server,
        filter: &target.filter,
        policy: &policy,
        judged: &judged,
        log: &mut log,
        id: operation.id(),
        at_ms,
        version: target.facts.version,
        interrupt: &target.interrupt,
        rate,
    };
    let repaired = repair(job, observer);
    let undo_file = log.path().display().to_string();
    observer.on(&Event::StepDone);
    let outcome = repaired.map_err(|cause| RestoreError::Undone {
        cause: Box::new(datasets.explain(cause)),
        aftermath: format!(
            "A part of the wanted keys may have been written, each of them whole. Run the same command again to go on; what was overwritten is in {undo_file}"
        ),
    })?;
    let memory = MemoryState::settled(&mut target.server)?;
    let mut warnings = Vec::from_iter(full_warning(&memory));
    let evicted = memory.evicted.saturating_sub(evicted_before);
    if evicted > 0 {
        match look_for_evicted(target, &mut datasets, &outcome, evicted, observer) {
            Ok(warning) => warnings.push(warning),
            Err(error) => {
                // What it says is done is not there: the same command begins anew.
                log.finish()?;
                return Err(error);
            }
        }
    }
    let functions =
        if target.filter.is_everything() { restore_functions(target, &mut datasets, &mut warnings)? } else { 0 };
    marks.set("after", observer);
    // The marker first: what an unfinished file says of a target without one is more than is true, never less.
    if let Some(marker) = marker {
        marker.remove(&mut target.server)?;
    }
    log.finish()?;
    let checks = vec![match evicted {
        0 => "the target has answered each write, and has evicted no keys".to_owned(),
        _ => "the target has answered each write".to_owned(),
    }];
    Ok(Restored {
        keys: survey.wanted,
        expired: Some(outcome.expired),
        functions,
        checks,
        warnings,
        outcome: Some(outcome),
        file: None,
    })
}

/// Functions go into a target that has none. Others stay: an undo file has no place for them.
pub(crate) fn restore_functions(
    target: &mut ServerTarget,
    datasets: &mut Datasets,
    warnings: &mut Vec<String>,
) -> Result<usize, RestoreError> {
    let scratch = &mut datasets.wanted.server;
    match (scratch.functions()?.unwrap_or(0), target.server.functions()?) {
        (0, _) => Ok(0),
        (_, Some(0)) => copy_functions(scratch, &mut target.server),
        (_, None) => {
            warnings.push("functions were left out: the target does not show its own (FUNCTION LIST)".to_owned());
            Ok(0)
        }
        (_, Some(_)) => {
            let dump = |server: &mut Server| server.call(&["FUNCTION", "DUMP"]);
            if dump(scratch)? != dump(&mut target.server)? {
                warnings.push("the target's functions are others than those of that moment; they stay".to_owned());
            }
            Ok(0)
        }
    }
}

/// Whether what the target has evicted meanwhile were wanted keys; says that it has evicted others.
fn look_for_evicted(
    target: &mut ServerTarget,
    datasets: &mut Datasets,
    outcome: &Outcome,
    evicted: u64,
    observer: &mut dyn Observer,
) -> Result<String, RestoreError> {
    let scratch = &mut datasets.wanted;
    let clock_ms = scratch.hold()?;
    let missing = recount(scratch, &mut target.server, &target.filter, observer, &target.interrupt, clock_ms)?;
    let memory = MemoryState::ask(&mut target.server)?;
    let gone = missing.gone.saturating_sub(outcome.left_absent);
    if gone > 0 && target.accept_eviction {
        return Ok(evicted_warning(&memory, evicted, gone));
    }
    if gone > 0 {
        let (address, meant) = (target.server.address.clone(), outcome.written());
        return Err(RestoreError::Lost { address, lost: gone, meant, why: memory.advice(evicted) });
    }
    Ok(format!("the target has evicted {evicted} other keys meanwhile (maxmemory-policy {})", memory.policy))
}

/// The marker in the target, and the undo file.
fn begin(
    target: &mut ServerTarget,
    operation: &Operation,
    about: &str,
    wanted: &KeyCounts,
    observer: &mut dyn Observer,
) -> Result<(Option<Marker>, FileLog), RestoreError> {
    target.claim()?;
    let log = operation.begin()?;
    let what = format!(
        "some keys ({} keys) {about}, begun at {}",
        wanted.values().sum::<u64>(),
        redtape_journal::Micros::now()
    );
    let marker = marker_or_note(Marker::put_some(&mut target.server, operation.id(), &what)?, observer);
    Ok((marker, log))
}
