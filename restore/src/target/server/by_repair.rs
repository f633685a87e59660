//! Wanted keys of a scratch server into a target that holds others: looked at before the plan, then written by
//! [`crate::target::repair`].

use redtape_journal::query::{AsOf, When};

use super::{Restored, ServerTarget, full_warning};
use crate::error::RestoreError;
use crate::plan::Plan;
use crate::progress::{Event, Observer, Unit};
use crate::request::Request;
use crate::source::scratch::Scratch;
use crate::source::{Located, Source};
use crate::target::lookup::{KeyCounts, recount};
use crate::target::memory::MemoryState;
use crate::target::repair::{
    Datasets, FileLog, Job, Judged, Look, OnConflict, Operation, Policy, RepairPlan, Survey, repair, survey,
};
use crate::target::unfinished::{KEY, Marker, PutMarker};

/// The dataset in its scratch server, and what the target holds of it.
pub(crate) struct Looked {
    survey: Survey,
    operation: Operation,
    datasets: Datasets,
    policy: Policy,
    judged: Judged,
    at_ms: i64,
}

impl Looked {
    /// What the plan says of it.
    pub(crate) fn plan(&self) -> RepairPlan {
        RepairPlan {
            policy: self.policy.clone(),
            survey: self.survey.clone(),
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
    let (mut scratch, _) = source.rebuild(observer)?;
    target.server.ensure_connected()?;
    // A marker that the recorded server itself had is not what was restored there.
    scratch.server.call(&["SELECT", "0"])?;
    scratch.server.call(&["DEL", KEY])?;
    let expected =
        request.unchanged_since.as_ref().map(|when| expected(source, request, when, observer)).transpose()?;
    let mut datasets = Datasets { wanted: scratch, expected };
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
        absolute: target.facts.version.has_redis(7, 0),
        judge: false,
        interrupt: &target.interrupt,
    };
    let (survey, _questions) = survey(look, observer).map_err(|e| datasets.explain(e))?;
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
    Ok(Looked { survey, operation, datasets, policy, judged: Judged::default(), at_ms })
}

/// What the target is expected to hold, in a scratch server of its own.
fn expected(
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
    let Looked { survey, operation, mut datasets, policy, judged, at_ms } = looked;
    let about = format!("of {} as of {}, LSN {}", source.from.display(), plan.at, plan.lsn);
    let (marker, mut log) =
        begin(target, &operation, &about, &survey.wanted, observer).map_err(RestoreError::before_the_target)?;
    let evicted_before = MemoryState::ask(&mut target.server)?.evicted;
    let total = survey.wanted.values().sum::<u64>() + survey.absent;
    observer.on(&Event::Step { name: "writing keys", total, unit: Unit::Keys });
    let job = Job {
        datasets: &mut datasets,
        target: &mut target.server,
        filter: &target.filter,
        policy: &policy,
        judged: &judged,
        log: &mut log,
        id: operation.id(),
        at_ms,
        absolute: target.facts.version.has_redis(7, 0),
        interrupt: &target.interrupt,
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
    let scratch = &mut datasets.wanted;
    let clock_ms = scratch.hold()?;
    let missing = recount(scratch, &mut target.server, &target.filter, observer, &target.interrupt, clock_ms)?;
    let memory = MemoryState::settled(&mut target.server)?;
    let mut warnings = Vec::from_iter(full_warning(&memory));
    let evicted = memory.evicted.saturating_sub(evicted_before);
    let gone = missing.gone.saturating_sub(outcome.left_absent);
    if gone > 0 && evicted > 0 {
        let meant = survey.wanted.values().sum();
        let address = target.server.address.clone();
        // What it says is done is not there: the same command begins anew.
        log.finish()?;
        return Err(RestoreError::Lost { address, lost: gone, meant, why: memory.advice(evicted) });
    }
    if evicted > 0 {
        warnings.push(format!(
            "the target has evicted {evicted} other keys meanwhile (maxmemory-policy {})",
            memory.policy
        ));
    }
    if gone > 0 {
        let named = missing.named.join(", ");
        warnings
            .push(format!("{gone} of the restored keys are not there any more ({named}): other clients removed them"));
    }
    // The marker first: what an unfinished file says of a target without one is more than is true, never less.
    if let Some(marker) = marker {
        marker.remove(&mut target.server)?;
    }
    log.finish()?;
    let checks = vec!["all of them were looked for in the target at the end".to_owned()];
    Ok(Restored {
        keys: survey.wanted,
        expired: Some(missing.expired),
        functions: 0,
        checks,
        warnings,
        outcome: Some(outcome),
    })
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
    let marker = match Marker::put_some(&mut target.server, operation.id(), &what)? {
        PutMarker::Written(marker) => Some(marker),
        PutMarker::NotAllowed(why) => {
            let note = format!(
                "no marker of this restore can be left in the target ({why}): if it is killed, nothing there tells of it"
            );
            observer.on(&Event::Note(&note));
            None
        }
    };
    Ok((marker, log))
}
