//! A whole repair: what an interrupted run has left, then the wanted keys, then those to be deleted.

use redtape_journal::query::Filter;
use redtape_journal::undo_file::OperationId;

use super::absent::{Which, each_absent};
use super::datasets::{Datasets, New, each_batch};
use super::elements::How;
use super::engine::{Engine, InFlight};
use super::judged::Judged;
use super::operation::FileLog;
use super::outcome::Outcome;
use super::pace::Pace;
use super::policy::Policy;
use crate::client::Server;
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::progress::{Event, Observer};
use crate::target::pieces::leftovers;
use crate::version::ServerVersion;

/// What is written, where to, and how.
pub(crate) struct Job<'a> {
    pub(crate) datasets: &'a mut Datasets,
    pub(crate) new: New<'a>,
    pub(crate) target: &'a mut Server,
    pub(crate) filter: &'a Filter,
    pub(crate) policy: &'a Policy,
    pub(crate) judged: &'a Judged,
    pub(crate) log: &'a mut FileLog,
    /// Of the operation.
    pub(crate) id: &'a OperationId,
    /// The restore point.
    pub(crate) at_ms: i64,
    /// Of the target.
    pub(crate) version: ServerVersion,
    pub(crate) interrupt: &'a Interrupt,
    /// Keys that are written in a second at most.
    pub(crate) rate: Option<u32>,
}

/// Does it.
pub(crate) fn repair(job: Job<'_>, observer: &mut dyn Observer) -> Result<Outcome, RestoreError> {
    let Job { new, datasets, target, filter, policy, judged, log, id, at_ms, version, interrupt, rate } = job;
    let how = How::find(target)?;
    let mut moved = log.take_moved();
    moved.retain(|(_, key), _| datasets.sees(key));
    let mut engine = Engine {
        target: &mut *target,
        policy,
        judged,
        log,
        interrupt,
        at_ms,
        id,
        version,
        how,
        outcome: Outcome::default(),
        moved,
        in_flight: InFlight::default(),
    };
    let (mut seen, mut pace) = (0, Pace::new(rate));
    // First what goes: the wanted keys may need its memory.
    if policy.replace_all {
        delete(&mut engine, (datasets, filter), (&mut pace, &mut seen), observer)?;
    }
    let packed = rate.is_none();
    let written = each_batch(datasets, filter, (new, packed), &mut |batch| {
        // The connection is not kept alive while it owes replies.
        let Some(batch) = batch else { return engine.settle() };
        for batch in pace.split(batch) {
            let keys = batch.keys.len() + batch.new.len();
            seen += keys as u64;
            pace.wait(keys, interrupt)?;
            engine.begin(batch)?;
            observer.on(&Event::At(seen - engine.in_flight.keys()));
        }
        Ok(())
    });
    match written {
        // Nobody answers.
        Err(e @ (RestoreError::Silent { .. } | RestoreError::Unreachable { .. })) => return Err(e),
        Err(e) => {
            engine.give_up();
            return Err(e);
        }
        Ok(()) => engine.settle()?,
    }
    observer.on(&Event::At(seen));
    if policy.delete_absent {
        delete(&mut engine, (datasets, filter), (&mut pace, &mut seen), observer)?;
    }
    engine.take_up_rest()?;
    let outcome = engine.outcome;
    if log.goes_on() {
        leftovers::remove_everywhere(target, id)?;
    }
    Ok(outcome)
}

/// Deletes what should not be there. `seen`: keys that were done with.
fn delete(
    engine: &mut Engine<'_>,
    (datasets, filter): (&mut Datasets, &Filter),
    (pace, seen): (&mut Pace, &mut u64),
    observer: &mut dyn Observer,
) -> Result<(), RestoreError> {
    // The engine has the only connection to the target.
    let mut scanner = engine.target.another()?;
    let (id, policy, interrupt) = (engine.id.to_string(), engine.policy, engine.interrupt);
    let which = Which::of(policy, filter, &id);
    each_absent(datasets, &mut scanner, &which, interrupt, &mut |db, keys| {
        *seen += keys.len() as u64;
        pace.wait(keys.len(), interrupt)?;
        engine.delete(db, keys)?;
        observer.on(&Event::At(*seen));
        Ok(())
    })
}
