//! The dataset as it was, the dataset without the undone writes, and the server that receives their difference.

use std::sync::Arc;

use redtape_journal::query::Filter;
use redtape_journal::{Catalog, Lsn, MarkError};

use super::history::History;
use super::pairs::Pairs;
use super::{UndoWritesRequest, WHAT};
use crate::error::RestoreError;
use crate::plan::{Facts, Limit, choose, what_it_takes};
use crate::progress::Observer;
use crate::source::left_out::LeftOut;
use crate::source::present::not_complete;
use crate::source::tail::Replayed;
use crate::source::{Located, Source};
use crate::target::preflight::TargetFacts;
use crate::target::rights::Repairs;
use crate::target::server::ServerTarget;

/// Connects to the server and examines it.
pub(super) fn open_target(request: &UndoWritesRequest) -> Result<ServerTarget, RestoreError> {
    let (connector, commands) = (request.to.connector()?, request.to.commands.clone());
    let mut target = ServerTarget::open(connector, commands, (&request.dataset(Filter::default(), Lsn(0))).into())?;
    let catalog = Catalog::open_with(&request.from, &request.keyring)?;
    if catalog.windows().is_empty() {
        return Err(not_complete(MarkError::NoBase, WHAT));
    }
    target.facts.compare_with(&catalog.timelines());
    check_server(request, &target.facts)?;
    Ok(target)
}

/// Refuses a server other than the recorded one.
fn check_server(request: &UndoWritesRequest, facts: &TargetFacts) -> Result<(), RestoreError> {
    if facts.is_source {
        return Ok(());
    }
    Err(RestoreError::Unable(format!(
        "{} is not the server that {} records (its replication id is {}), so what it holds was not made by these writes: choose the recorded server, or restore the state before them with redtape restore --before lsn:N --to URL",
        facts.address,
        request.from.display(),
        facts.replid
    )))
}

/// Facts about the operation, for the plan.
#[derive(Debug)]
pub(super) struct Means {
    /// The scratch servers' program.
    pub(super) scratch: String,
    /// The target's limits, and the required space.
    pub(super) limits: Vec<Limit>,
    /// Warnings.
    pub(super) warnings: Vec<String>,
}

/// Both datasets, and deviations in the one without the writes.
pub(super) struct Rebuilt {
    pub(super) pairs: Pairs,
    pub(super) replayed: Replayed,
}

impl Rebuilt {
    /// Rebuilds both in scratch servers, if the target can hold the result.
    pub(super) fn of(
        history: &History,
        request: &UndoWritesRequest,
        target: &mut ServerTarget,
        observer: &mut dyn Observer,
    ) -> Result<(Self, Means), RestoreError> {
        let begins = history.begins;
        let mut without = source(history, request, Lsn(begins.0.saturating_sub(1)), observer)?;
        let facts = Facts {
            replaces_all: false,
            point: &without.point,
            rdb: without.rdb.version,
            range: &without.facts,
            target: &target.facts,
            base_memory: without.base_memory(),
            base_bytes: without.base_bytes(),
            base_highest_db: None,
            slice: without.slice.as_ref(),
            whole: false,
            filter: &history.filter,
            repairs: Repairs::UNDO,
            forced: None,
        };
        let (method, _) = choose(&facts)?;
        let binary = without.find_binary(request.server_bin.as_deref(), target.facts.version)?;
        let (limits, warnings) = what_it_takes(&facts, method);
        let means = Means { scratch: binary.to_string(), limits, warnings };
        let mut was = source(history, request, history.upto, observer)?;
        was.binary = Some(binary.clone());
        without.binary = Some(binary);
        let (was, _) = was.rebuild(observer)?;
        let (without, replayed) = without.rebuild_without(observer)?;
        Ok((Self { pairs: Pairs::new(without, was)?, replayed }, means))
    }
}

/// One of the datasets at the end of the history, from a base no later than `base`. The writes are left out of the one
/// that ends before them.
fn source(
    history: &History,
    request: &UndoWritesRequest,
    base: Lsn,
    observer: &mut dyn Observer,
) -> Result<Source, RestoreError> {
    let dataset = request.dataset(history.filter.clone(), base);
    let mut located = Located::find(&dataset)?;
    if located.point.timeline != history.timeline {
        return Err(RestoreError::Unable(format!(
            "what was there before LSN {} lies in timeline {}, and the journal has lost writes between it and the present one ({}): redtape restore --before lsn:{} brings back what was there",
            base.0 + 1,
            located.point.timeline,
            history.timeline,
            base.0 + 1
        )));
    }
    // Warnings about that point do not concern the present.
    located.point.warnings.clear();
    if base < history.upto {
        located.point.lsn = history.upto;
        located.without = Some(Arc::new(LeftOut {
            records: history.mistake.selected.lsns.clone().and(&history.mistake.earlier),
            removals: history.mistake.expiries.clone(),
            begins: history.begins,
        }));
    }
    located.check(&dataset, observer)
}
