//! A cluster as the target: each key goes to the node that holds its slot.
//!
//! ```text
//! slots of each primary ─► repair of the keys in them (crate::target::repair), a node at a time ─► finished slots
//!        ▲                                │ MOVED, ASK, TRYAGAIN: a slot has moved meanwhile
//!        └────────────────────────────────┘ what is done is in the undo file, as after an interruption
//! ```
//!
//! - `topology`: what nodes say of each other.
//! - `nodes`: connections to the primaries, and their slots now.
//! - `rounds`: until all slots are finished; `deliver`: a restore.
//!
//! Invariants: a key is written only to the node that holds all of its slot; a slot that is on its way waits, no longer than
//! `nodes::MOVE_WAIT_MAX` without progress; one undo file has the keys of all nodes, so that the same command goes on after an interruption
//! and one undo brings all back. After a failover the cluster counts as another one that may have lost writes: nothing that is said to
//! be done is taken for granted.

mod deliver;
mod nodes;
mod rounds;
mod topology;

use redtape_journal::query::Filter;
use redtape_wire::slot::SlotSet;

pub(crate) use self::nodes::Primaries;
pub(crate) use self::rounds::{SlotWork, in_rounds};
use super::ServerAddress;
use super::preflight::{TargetFacts, contents};
use super::repair::{Datasets, Look, NAMED_KEYS, OnConflict, Operation, Policy, RepairPlan, Survey, Surveyed, survey};
use super::server::{ServerTarget, Wish, expected};
use super::unfinished::KEY;
use crate::client::Reply;
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::progress::Observer;
use crate::request::Request;
use crate::source::Source;

/// See the module.
pub(crate) struct ClusterTarget {
    primaries: Primaries,
    /// Of all nodes together, where that means something.
    pub(crate) facts: TargetFacts,
    filter: Filter,
    interrupt: Interrupt,
}

/// The dataset in its scratch server, and what the cluster holds of it.
pub(crate) struct ClusterLook {
    survey: Survey,
    operation: Operation,
    datasets: Datasets,
    policy: Policy,
    at_ms: i64,
    rate: Option<u32>,
}

impl ClusterLook {
    /// What the plan says of it.
    pub(crate) fn plan(&self) -> RepairPlan {
        RepairPlan {
            policy: self.policy.clone(),
            survey: self.survey.clone(),
            judged: None,
            libraries: None,
            target_keys: None,
            undo_room: None,
            undo_file: self.operation.undo_path().display().to_string(),
        }
    }
}

impl ClusterTarget {
    /// Connects to all primaries; changes nothing. `entry`: some node.
    pub(crate) fn open(
        mut entry: ServerTarget,
        address: &ServerAddress,
        request: &Request,
    ) -> Result<Self, RestoreError> {
        refuse_what_needs_one_server(request)?;
        let primaries = Primaries::open(&mut entry.server, address, Wish { whole: false, ..request.into() })?;
        let facts = together(&primaries, &entry.facts)?;
        Ok(Self { primaries, facts, filter: request.filter.clone(), interrupt: request.interrupt.clone() })
    }

    /// What is known of each node.
    pub(crate) fn each_facts(&self) -> impl Iterator<Item = &TargetFacts> {
        self.primaries.all.iter().map(|primary| &primary.target.facts)
    }

    /// Finds out which of the commands to replay the nodes do not know.
    pub(crate) fn look_up_commands<'a>(
        &mut self,
        names: &(impl Iterator<Item = &'a Vec<u8>> + Clone),
    ) -> Result<(), RestoreError> {
        self.primaries.all.iter_mut().try_for_each(|primary| primary.target.look_up_commands(names.clone()))
    }

    /// Rebuilds the dataset and compares it with what the nodes hold; changes nothing.
    pub(crate) fn look(
        &mut self,
        source: &Source,
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<ClusterLook, RestoreError> {
        let (mut scratch, _) = source.rebuild(observer)?;
        // A marker that the recorded server itself had is not what was restored there.
        scratch.server.call(&["SELECT", "0"])?;
        scratch.server.call(&["DEL", KEY])?;
        let expected =
            request.unchanged_since.as_ref().map(|when| expected(source, request, when, observer)).transpose()?;
        let mut datasets = Datasets::new(scratch, expected)?;
        let wanted = datasets.count(&self.filter)?;
        self.check_databases(wanted.keys().copied())?;
        let policy = request.repair.clone().unwrap_or_default();
        let at_ms = source.point.asked.0 / 1000;
        let operation = Operation::of_restore(request, source, &self.facts, &policy)?;
        let Self { primaries, filter, interrupt, .. } = &mut *self;
        let mut comparison = Comparison {
            datasets: &mut datasets,
            filter,
            policy: &policy,
            operation: &operation,
            at_ms,
            interrupt,
            found: Survey::default(),
        };
        let compared = in_rounds(primaries, interrupt, ("comparing with the nodes", &mut comparison), observer);
        let survey = comparison.found;
        datasets.see_only(None);
        compared.map_err(|e| datasets.explain(e))?;
        if survey.wanted.values().sum::<u64>() + survey.absent == 0 {
            return Err(RestoreError::NoKeys);
        }
        let address = self.facts.address.clone();
        if policy.on_conflict == OnConflict::Fail && survey.different > 0 {
            let list = survey.samples.join(", ");
            return Err(RestoreError::Conflict { address, count: survey.different, list });
        }
        let mut unfinished = self.each_facts().flat_map(|facts| &facts.unfinished);
        let goes_on = unfinished.any(|unfinished| unfinished.is_of(operation.id()));
        // What an interrupted run has left may be under temporary names.
        if request.is_whole() && !goes_on {
            self.refuse_others(&survey)?;
        }
        Ok(ClusterLook { survey, operation, datasets, policy, at_ms, rate: request.rate })
    }

    /// Everything is wanted, and the cluster holds other keys. Those that are wanted may be there: an interrupted run has written them.
    fn refuse_others(&self, survey: &Survey) -> Result<(), RestoreError> {
        let there: u64 = self.facts.keys.values().sum();
        let marker = u64::from(self.each_facts().any(|facts| !facts.unfinished.is_empty()));
        if there <= survey.equal + survey.different + marker {
            return Ok(());
        }
        let found = contents(&self.facts.keys, 0).unwrap_or_default();
        Err(RestoreError::NotEmpty { address: self.facts.address.clone(), found })
    }

    /// Clusters have database 0 alone, unless they are told otherwise (Valkey 9).
    fn check_databases(&mut self, wanted: impl Iterator<Item = u32>) -> Result<(), RestoreError> {
        let Some(highest) = wanted.max().filter(|db| *db > 0) else { return Ok(()) };
        for primary in &mut self.primaries.all {
            let server = &mut primary.target.server;
            let selected = server.try_call(&["SELECT", &highest.to_string()])?;
            server.call(&["SELECT", "0"])?;
            if let Reply::Error(error) = selected {
                return Err(RestoreError::Unable(format!(
                    "wanted keys are in database {highest}, which {} does not have ({}); nothing was written. Choose those of one that it has with --db 0, or restore to a server outside of a cluster",
                    server.address, error.text
                )));
            }
        }
        Ok(())
    }
}

/// Compares wanted keys of some slots with what their node holds.
struct Comparison<'a> {
    datasets: &'a mut Datasets,
    filter: &'a Filter,
    policy: &'a Policy,
    operation: &'a Operation,
    at_ms: i64,
    interrupt: &'a Interrupt,
    found: Survey,
}

impl SlotWork for Comparison<'_> {
    fn run(
        &mut self,
        target: &mut ServerTarget,
        slots: &SlotSet,
        observer: &mut dyn Observer,
    ) -> Result<(), RestoreError> {
        self.datasets.see_only(Some(slots.clone()));
        let look = Look {
            id: self.operation.id(),
            datasets: &mut *self.datasets,
            target: &mut target.server,
            filter: self.filter,
            policy: self.policy,
            at_ms: self.at_ms,
            version: target.facts.version,
            judge: false,
            interrupt: self.interrupt,
        };
        let Surveyed { survey, .. } = survey(look, observer)?;
        self.found.add(survey, NAMED_KEYS);
        Ok(())
    }

    /// Nothing was written.
    fn interrupted(&mut self) -> Result<(), RestoreError> {
        Ok(())
    }
}

/// Refuses what has no meaning where keys are spread over nodes.
fn refuse_what_needs_one_server(request: &Request) -> Result<(), RestoreError> {
    let policy = request.repair.as_ref();
    if request.broken_by.is_some() {
        return Err(RestoreError::Unable(
            "--broken-by needs the recorded server as the target, and a journal records one node of a cluster: leave it out"
                .to_owned(),
        ));
    }
    if request.replaces_all() {
        return Err(RestoreError::Unable(
            "--replace-all is not possible in a cluster: use --on-conflict replace --delete-absent, which removes selected keys that did not exist at that point in time"
                .to_owned(),
        ));
    }
    if policy.is_some_and(|policy| policy.on_conflict == OnConflict::Rename) {
        return Err(RestoreError::Unable(
            "--on-conflict rename is not possible in a cluster: the other name would be in another slot; use skip, replace or merge, or restore to a server outside of a cluster and look there"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Facts of all nodes in one. `entry`: those of the node whose address was given.
pub(crate) fn together(primaries: &Primaries, entry: &TargetFacts) -> Result<TargetFacts, RestoreError> {
    let mut keys = std::collections::BTreeMap::new();
    let mut ids: Vec<&str> = Vec::new();
    let (mut version, mut functions, mut unfinished) = (entry.version, 0, Vec::new());
    for primary in &primaries.all {
        let facts = &primary.target.facts;
        for (db, count) in &facts.keys {
            *keys.entry(*db).or_insert(0) += count;
        }
        ids.push(&facts.replid);
        version = if facts.version.number < version.number { facts.version } else { version };
        functions = functions.max(facts.functions);
        unfinished.extend(facts.unfinished.iter().cloned());
    }
    ids.sort_unstable();
    // The nodes' histories, of which each is another one after a failover.
    let replid = blake3::hash(ids.join(" ").as_bytes()).to_hex().chars().take(40).collect();
    let address = format!("the cluster of {}", entry.address);
    let first = primaries.all.first().ok_or_else(|| RestoreError::Unable(format!("{address} has no primaries")))?;
    let is_source = primaries.all.iter().any(|primary| primary.target.facts.is_source);
    let facts = first.target.facts.clone();
    Ok(TargetFacts { address, version, replid, is_source, unfinished, keys, functions, ..facts })
}
