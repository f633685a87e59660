//! Who wrote last what differs: asked of the journal that records the target.

use redtape_journal::query::WriteQuery;
use redtape_journal::{Catalog, Present};

use crate::error::RestoreError;
use crate::judge::{JudgedRange, judge};
use crate::progress::{Event, Observer, Unit};
use crate::request::Request;
use crate::source::Source;
use crate::source::present::complete;
use crate::target::preflight::TargetFacts;
use crate::target::repair::{Asked, Judged};

/// Refuses a target of which the journal does not know who wrote to it.
pub(crate) fn check(source: &Source, facts: &TargetFacts) -> Result<(), RestoreError> {
    if facts.is_source {
        return Ok(());
    }
    Err(RestoreError::Unable(format!(
        "{} is not the server that {} records (its replication id is {}), so its writers are unknown: leave --broken-by out, or choose the recorded server",
        facts.address,
        source.from.display(),
        facts.replid
    )))
}

/// Judges what was asked.
pub(crate) fn judged(
    asked: Vec<Asked>,
    query: &WriteQuery,
    source: &Source,
    request: &Request,
    observer: &mut dyn Observer,
) -> Result<Judged, RestoreError> {
    let Present { timeline, lsn, .. } = complete(&source.from, source.keyring(), "--broken-by")?;
    let point = &source.point;
    if timeline != point.timeline {
        return Err(RestoreError::Unable(format!(
            "the journal has lost writes between the restore point (timeline {}) and now (timeline {}), so the last writers are unknown: leave --broken-by out; `redtape journal ls` shows the gap",
            point.timeline.0, timeline.0
        )));
    }
    let catalog = Catalog::open_for_search(&source.from, source.keyring())?;
    let filter = query.resolve(request.now, &request.zone, catalog.marks());
    let filter = filter.map_err(|error| RestoreError::Usage(format!("--broken-by: {error}")))?;
    let total = lsn.0.saturating_sub(point.lsn.0);
    observer.on(&Event::Step { name: "looking for who wrote last", total, unit: Unit::Records });
    let range = JudgedRange { catalog: &catalog, timeline, after: point.lsn, upto: lsn };
    let questions: Vec<_> = asked.iter().map(|asked| asked.question.clone()).collect();
    let judged = judge(range, &questions, &filter, &request.interrupt, &mut |passed| observer.on(&Event::At(passed)))?;
    observer.on(&Event::StepDone);
    Ok(Judged::new(asked, &judged.verdicts))
}
