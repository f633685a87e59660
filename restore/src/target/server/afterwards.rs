//! The target behind the last write of a repair.

use redtape_journal::undo_file::OperationId;

use super::{ServerTarget, evicted_warning};
use crate::error::RestoreError;
use crate::progress::Observer;
use crate::target::lookup::recount;
use crate::target::memory::MemoryState;
use crate::target::repair::{Datasets, Look, Outcome, Policy, Survey, survey};

/// Compares a target that is to hold what is wanted and nothing else with that once more: what clients have written meanwhile shows.
pub(super) fn look_again(
    target: &mut ServerTarget,
    datasets: &mut Datasets,
    policy: &Policy,
    (id, at_ms): (&OperationId, i64),
    observer: &mut dyn Observer,
) -> Result<String, RestoreError> {
    let look = Look {
        id,
        datasets,
        target: &mut target.server,
        filter: &target.filter,
        policy,
        at_ms,
        version: target.facts.version,
        judge: false,
        interrupt: &target.interrupt,
    };
    let Survey { new, equal, different, absent, .. } = survey(look, observer)?.survey;
    Ok(if new + different + absent == 0 {
        format!("the target was compared once more: it holds the {equal} wanted keys and no others")
    } else {
        format!(
            "the target was compared once more: {equal} keys are as wanted; {different} have other values, {new} are not there, and {absent} others are there: clients have written meanwhile, or what is left is listed"
        )
    })
}

/// Whether what the target has evicted meanwhile were wanted keys; says that it has evicted others.
pub(super) fn look_for_evicted(
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
