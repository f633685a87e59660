//! A restore into a cluster: each node is looked at, the keys are written in rounds, and each node is looked at again.

use redtape_journal::query::Filter;
use redtape_wire::slot::SlotSet;

use super::nodes::Primary;
use super::rounds::{SlotWork, in_rounds};
use super::{ClusterLook, ClusterTarget};
use crate::client::Server;
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::libraries;
use crate::plan::Plan;
use crate::progress::Observer;
use crate::source::Source;
use crate::target::copy::copy_functions;
use crate::target::memory::MemoryState;
use crate::target::repair::{Datasets, FileLog, Job, Judged, Operation, Outcome, Policy, repair};
use crate::target::rights::{By, Repairs};
use crate::target::server::{Marks, NOT_PERSISTENT, Restored, ServerTarget, check_repair, marker_or_note};
use crate::target::unfinished::{KEY, Marker};

impl ClusterTarget {
    /// Writes what the plan says.
    pub(crate) fn restore(
        &mut self,
        plan: &Plan,
        source: &Source,
        looked: ClusterLook,
        observer: &mut dyn Observer,
    ) -> Result<Restored, RestoreError> {
        let ClusterLook { survey, operation, mut datasets, policy, at_ms, rate } = looked;
        self.primaries.claim().map_err(RestoreError::before_the_target)?;
        self.check_room(&mut datasets, &policy, observer).map_err(RestoreError::before_the_target)?;
        let log = operation.begin().map_err(RestoreError::before_the_target)?;
        let undo_file = log.path().display().to_string();
        let what = format!(
            "some keys ({} keys) of {} as of {}, LSN {}, begun at {}",
            survey.wanted.values().sum::<u64>(),
            source.from.display(),
            plan.at,
            plan.lsn,
            redtape_journal::Micros::now()
        );
        let put = self.primaries.with_holder_of(KEY, &mut |server| Marker::put_some(server, operation.id(), &what));
        let marker = marker_or_note(put.map_err(RestoreError::before_the_target)?, observer);
        let marks = self.marks(source, &log);
        if let (Some(marks), false) = (&marks, log.goes_on()) {
            marks.set("before", observer);
        }
        let evicted_before = self.evicted()?;
        let Self { primaries, filter, interrupt, .. } = self;
        let mut delivery = Delivery {
            datasets: &mut datasets,
            policy: &policy,
            operation: &operation,
            filter,
            at_ms,
            rate,
            interrupt,
            log: Some(log),
            outcome: Outcome::default(),
        };
        let delivered = in_rounds(primaries, interrupt, ("writing keys", &mut delivery), observer);
        let Delivery { log, outcome, .. } = delivery;
        datasets.see_only(None);
        delivered.map_err(|cause| RestoreError::Undone {
            cause: Box::new(datasets.explain(cause)),
            aftermath: format!(
                "Some of the wanted keys may have been written, each of them completely. Run the same command again to continue; what was overwritten is in {undo_file}"
            ),
        })?;
        let mut warnings = match self.check_after(evicted_before, &undo_file) {
            Ok(warnings) => warnings,
            Err(error) => {
                // What it says is done may not be there: the same command begins anew.
                log.map(FileLog::finish).transpose()?;
                return Err(error);
            }
        };
        let mut functions = 0;
        if self.filter.is_everything() {
            for primary in &mut self.primaries.all {
                let (scratch, node) = (&mut datasets.wanted.server, &mut primary.target.server);
                functions = functions.max(bring_functions(scratch, node, &mut warnings)?);
            }
        }
        if let Some(marks) = &marks {
            marks.set("after", observer);
        }
        // The marker first: what an unfinished file says of a target without one is more than is true, never less.
        if let Some(marker) = marker {
            self.primaries.with_holder_of(KEY, &mut |server| marker.remove(server))?;
        }
        log.map(FileLog::finish).transpose()?;
        self.primaries.clear_names();
        warnings.dedup();
        Ok(Restored {
            keys: survey.wanted,
            expired: Some(outcome.expired),
            functions,
            checks: vec!["each node has answered each write, and has evicted no keys".to_owned()],
            warnings,
            outcome: Some(outcome),
            file: None,
        })
    }

    /// Each node has room for its part.
    fn check_room(
        &mut self,
        datasets: &mut Datasets,
        policy: &Policy,
        observer: &mut dyn Observer,
    ) -> Result<(), RestoreError> {
        let by = By::Repair(Repairs::of(policy));
        for Primary { target, slots, .. } in &mut self.primaries.all {
            datasets.see_only(Some(slots.clone()));
            let wanted = datasets.count(&self.filter)?;
            // What the node holds already counts as well: that is more than is needed, never less.
            let new = vec![true; wanted.values().sum::<u64>() as usize];
            check_repair(target, datasets, (&wanted, &new), by, observer).map_err(|e| datasets.explain(e))?;
        }
        datasets.see_only(None);
        Ok(())
    }

    fn marks(&self, source: &Source, log: &FileLog) -> Option<Marks> {
        let recorded = self.primaries.all.iter().find(|primary| primary.target.facts.is_source)?;
        Some(Marks::of(&recorded.target, (&source.from, source.keyring()), ("restore", log.path())))
    }

    /// Keys that each node has evicted since its start, in the order of the nodes.
    fn evicted(&mut self) -> Result<Vec<u64>, RestoreError> {
        let evicted = |primary: &mut Primary| Ok(MemoryState::ask(&mut primary.target.server)?.evicted);
        self.primaries.all.iter_mut().map(evicted).collect()
    }

    /// No node has evicted what was written.
    fn check_after(&mut self, before: Vec<u64>, undo_file: &str) -> Result<Vec<String>, RestoreError> {
        let mut warnings = Vec::new();
        let before = before.into_iter().chain(std::iter::repeat(0));
        for (primary, before) in self.primaries.all.iter_mut().zip(before) {
            let server = &mut primary.target.server;
            let memory = MemoryState::settled(server)?;
            let evicted = memory.evicted.saturating_sub(before);
            if evicted > 0 {
                return Err(RestoreError::Unable(format!(
                    "{}: {}. Restored keys may be among them; what was overwritten is in {undo_file}",
                    server.address,
                    memory.advice(evicted)
                )));
            }
            if primary.target.facts.limits.persists == Some(false) {
                warnings.push(NOT_PERSISTENT.to_owned());
            }
        }
        Ok(warnings)
    }
}

/// Function libraries go into a node that has none; how many. Others stay: one undo file has no place for those of several nodes.
fn bring_functions(scratch: &mut Server, node: &mut Server, warnings: &mut Vec<String>) -> Result<usize, RestoreError> {
    let Some(there) = libraries::read(node)? else {
        warnings.push(format!("functions were left out: {} does not show its own (FUNCTION LIST)", node.address));
        return Ok(0);
    };
    let wanted = libraries::read(scratch)?.unwrap_or_default();
    if wanted == there {
        return Ok(wanted.len());
    }
    if there.is_empty() {
        return copy_functions(scratch, node);
    }
    warnings.push(format!("the functions of {} differ from those of that point in time; they stay", node.address));
    Ok(0)
}

/// The keys of some slots, by [`crate::target::repair`].
struct Delivery<'a> {
    datasets: &'a mut Datasets,
    policy: &'a Policy,
    operation: &'a Operation,
    filter: &'a Filter,
    at_ms: i64,
    rate: Option<u32>,
    interrupt: &'a Interrupt,
    /// `None` only while it is opened anew.
    log: Option<FileLog>,
    outcome: Outcome,
}

impl SlotWork for Delivery<'_> {
    fn run(
        &mut self,
        target: &mut ServerTarget,
        slots: &SlotSet,
        observer: &mut dyn Observer,
    ) -> Result<(), RestoreError> {
        self.datasets.see_only(Some(slots.clone()));
        let log = match &mut self.log {
            Some(log) => log,
            none => none.insert(self.operation.begin()?),
        };
        let job = Job {
            new: None,
            datasets: &mut *self.datasets,
            target: &mut target.server,
            filter: self.filter,
            policy: self.policy,
            judged: &Judged::default(),
            log,
            id: self.operation.id(),
            at_ms: self.at_ms,
            version: target.facts.version,
            interrupt: self.interrupt,
            rate: self.rate,
        };
        self.outcome.add(repair(job, observer)?);
        Ok(())
    }

    fn interrupted(&mut self) -> Result<(), RestoreError> {
        // What was written is known from the file, as after any interruption. One at a time can have it.
        drop(self.log.take());
        self.log = Some(self.operation.begin()?);
        Ok(())
    }
}
