//! A whole repair: completes an interrupted run, then writes the wanted keys, then deletes unwanted ones.

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

/// Inputs of a repair.
pub(crate) struct Job<'a> {
    pub(crate) datasets: &'a mut Datasets,
    pub(crate) new: New<'a>,
    pub(crate) target: &'a mut Server,
    pub(crate) filter: &'a Filter,
    pub(crate) policy: &'a Policy,
    pub(crate) judged: &'a Judged,
    pub(crate) log: &'a mut FileLog,
    /// The operation's id.
    pub(crate) id: &'a OperationId,
    /// The restore point.
    pub(crate) at_ms: i64,
    /// The target's version.
    pub(crate) version: ServerVersion,
    pub(crate) interrupt: &'a Interrupt,
    /// Limit of keys written per second.
    pub(crate) rate: Option<u32>,
}

/// Runs the repair.
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
    // With `--replace-all`, deletions come first: the wanted keys may need the memory.
    if policy.replace_all {
        delete(&mut engine, (datasets, filter), (&mut pace, &mut seen), observer)?;
    }
    let packed = rate.is_none();
    let written = each_batch(datasets, filter, (new, packed), &mut |batch| {
        // While replies are due, no keep-alive can be sent on this connection.
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
        // The target is unreachable.
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

/// Deletes unwanted keys. `seen`: number of keys already processed.
fn delete(
    engine: &mut Engine<'_>,
    (datasets, filter): (&mut Datasets, &Filter),
    (pace, seen): (&mut Pace, &mut u64),
    observer: &mut dyn Observer,
) -> Result<(), RestoreError> {
    // The engine uses the other connection.
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
