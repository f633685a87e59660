//! Wanted keys of a scratch server into a target that holds others: looked at before the plan, then written by
//! [`crate::target::repair`].

use redtape_journal::query::{AsOf, When};

use super::afterwards::{look_again, look_for_evicted};
use super::functions::{library_changes, restore_functions};
use super::marks::Marks;
use super::{ServerTarget, blame, full_warning, marker_or_note, room};
use crate::error::RestoreError;
use crate::libraries::LibrariesPlan;
use crate::plan::Plan;
use crate::progress::{Event, Observer, Unit};
use crate::request::Request;
use crate::source::scratch::Scratch;
use crate::source::{Located, Source};
use crate::target::lookup::KeyCounts;
use crate::target::memory::MemoryState;
use crate::target::repair::{
    Datasets, FileLog, Job, Judged, JudgedCounts, Look, OnConflict, Operation, Policy, RepairPlan, Survey, Surveyed,
    UndoRoom, repair, survey,
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
    libraries: Option<LibrariesPlan>,
    /// With `--replace-all`: what the target holds.
    target_keys: Option<KeyCounts>,
    undo_room: Option<UndoRoom>,
}

impl Looked {
    /// What the plan says of it.
    pub(crate) fn plan(&self) -> RepairPlan {
        RepairPlan {
            policy: self.policy.clone(),
            survey: self.survey.clone(),
            libraries: self.libraries.clone(),
            target_keys: self.target_keys.clone(),
            judged: self.judged.counts().map(|(go_back, stay)| JudgedCounts { go_back, stay }),
            undo_file: self.operation.undo_path().display().to_string(),
            undo_room: self.undo_room,
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
    let wanted = survey.wanted.values().sum::<u64>();
    let is_nothing = if policy.replace_all { !target.filter.is_everything() } else { survey.absent == 0 };
    if wanted == 0 && is_nothing {
        return Err(RestoreError::NoKeys);
    }
    let libraries = library_changes(target, &mut datasets, &policy, &|_, _| None)?.map(|(_, changes)| changes.plan());
    check_conflicts(target, &policy, &survey, libraries.as_ref())?;
    let target_keys = policy.replace_all.then(|| target.facts.keys.clone());
    let judged = match &request.broken_by {
        None => Judged::default(),
        Some(query) => blame::judged(asked, query, source, request, observer)?,
    };
    let undo_room = if policy.replace_all { Some(undo_room(target, &operation)?) } else { None };
    let rate = request.rate;
    Ok(Looked { survey, new, operation, datasets, policy, judged, at_ms, rate, libraries, target_keys, undo_room })
}

/// What an undo file of all that the target holds may take, and what is free for it.
fn undo_room(target: &mut ServerTarget, operation: &Operation) -> Result<UndoRoom, RestoreError> {
    let path = operation.undo_path();
    // The directories below the first one that is there are made later.
    let there = path.ancestors().find(|folder| folder.exists());
    let free = there.and_then(|folder| rustix::fs::statvfs(folder).ok());
    let free_bytes = free.map(|free| free.f_bavail.saturating_mul(free.f_frsize));
    Ok(UndoRoom { most_bytes: room::data_bytes(&target.server.info(Some("all"))?), free_bytes })
}

/// Refuses what differs, where that is to be refused.
fn check_conflicts(
    target: &ServerTarget,
    policy: &Policy,
    survey: &Survey,
    libraries: Option<&LibrariesPlan>,
) -> Result<(), RestoreError> {
    let libraries = libraries.map(|libraries| &libraries.stay[..]).unwrap_or_default();
    let count = survey.different + libraries.len() as u64;
    if policy.on_conflict != OnConflict::Fail || count == 0 {
        return Ok(());
    }
    let mut list = survey.samples.clone();
    if survey.different > survey.samples.len() as u64 {
        list.push("…".to_owned());
    }
    list.extend(libraries.iter().map(|name| format!("function library {name}")));
    Err(RestoreError::Conflict { address: target.server.address.clone(), count, list: list.join(", ") })
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
    let Looked { survey, new, operation, mut datasets, policy, judged, at_ms, rate, .. } = looked;
    let about = format!("of {} as of {}, LSN {}", source.from.display(), plan.at, plan.lsn);
    let by = By::Repair(Repairs::of(&policy));
    room::check_repair(target, &mut datasets, (&survey.wanted, &new[..]), by, observer)
        .map_err(|e| datasets.explain(e).before_the_target())?;
    let (marker, mut log) = begin(target, &operation, (&about, policy.replace_all), &survey.wanted, observer)
        .map_err(RestoreError::before_the_target)?;
    let marks = Marks::of(target, (&source.from, source.keyring()), ("restore", log.path()));
    if !log.goes_on() {
        marks.set("before", observer);
    }
    let evicted_before = MemoryState::ask(&mut target.server)?.evicted;
    let total = survey.wanted.values().sum::<u64>() + survey.absent;
    observer.on(&Event::Step { name: "writing keys", total, unit: Unit::Keys });
    let job = Job {
        new: Some(&new),
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
    let mut outcome = repaired.map_err(|cause| RestoreError::Undone {
        cause: Box::new(datasets.explain(cause)),
        aftermath: format!(
            "{}. Run the same command again to continue; what was overwritten is in {undo_file}",
            if policy.replace_all {
                "The target may hold a part of what it held and a part of what is wanted, each key of them whole"
            } else {
                "A part of the wanted keys may have been written, each of them whole"
            }
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
    let functions = restore_functions(target, &mut datasets, &policy, (&mut log, &mut outcome), &mut warnings)?;
    let mut checks = vec![match evicted {
        0 => "the target has answered each write, and has evicted no keys".to_owned(),
        _ => "the target has answered each write".to_owned(),
    }];
    if policy.replace_all {
        checks.push(look_again(target, &mut datasets, &policy, (operation.id(), at_ms), observer)?);
    }
    marks.set("after", observer);
    // The marker first: what an unfinished file says of a target without one is more than is true, never less.
    if let Some(marker) = marker {
        marker.remove(&mut target.server)?;
    }
    log.finish()?;
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

/// The marker in the target, and the undo file.
fn begin(
    target: &mut ServerTarget,
    operation: &Operation,
    (about, replaces_all): (&str, bool),
    wanted: &KeyCounts,
    observer: &mut dyn Observer,
) -> Result<(Option<Marker>, FileLog), RestoreError> {
    target.claim()?;
    let log = operation.begin()?;
    let which = if replaces_all { "everything in the place of what was there" } else { "some keys" };
    let what =
        format!("{which} ({} keys) {about}, begun at {}", wanted.values().sum::<u64>(), redtape_journal::Micros::now());
    let marker = marker_or_note(Marker::put_some(&mut target.server, operation.id(), &what)?, observer);
    Ok((marker, log))
}
