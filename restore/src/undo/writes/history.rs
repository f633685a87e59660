//! Determines which writes are undone and which keys they affect, from the journal up to the present.

use std::path::Path;

use redtape_journal::query::{Filter, Since, Until, WriteFilter};
use redtape_journal::{Catalog, Lsn, Micros, Present, TimelineId};

use super::earlier::{concerning, read_all};
use super::{UndoWritesRequest, WHAT};
use crate::error::RestoreError;
use crate::mistake::{Bounds, Earlier, Meant, Mistake, MistakeRange, find};
use crate::progress::{Event, Observer, Unit};
use crate::source::present::complete;
use crate::target::repair::{LEFT_KEYS_MAX, Operation};

/// A key, with its database.
pub(super) type Place = (u32, Vec<u8>);

/// The undone writes and the affected keys.
pub(super) struct History {
    pub(super) mistake: Mistake,
    pub(super) timeline: TimelineId,
    /// The last examined record.
    pub(super) upto: Lsn,
    /// The last record that may be undone.
    last: Lsn,
    pub(super) journal_id: String,
    /// Keys that may differ.
    pub(super) filter: Filter,
    pub(super) include_dependent: bool,
    /// The first record of the group that holds the first write.
    pub(super) begins: Lsn,
    /// An earlier undo reaches back before the records that can be replayed.
    pub(super) earlier_too_old: bool,
}

impl History {
    /// Reads the journal. `own`: the undo file of this undo, if it has begun. `again`: only these keys, for the same
    /// writes, up to the present.
    pub(super) fn read(
        request: &UndoWritesRequest,
        own: Option<&Path>,
        again: Option<(&Self, Vec<Place>)>,
        observer: &mut dyn Observer,
    ) -> Result<Self, RestoreError> {
        let present = complete(&request.from, &request.keyring, WHAT)?;
        let Present { timeline, lsn: upto, .. } = present;
        let catalog = Catalog::open_for_search(&request.from, &request.keyring)?;
        let filter = request.writes.resolve(request.now, &request.zone, catalog.marks());
        let mut filter = filter.map_err(|error| RestoreError::Usage(error.to_string()))?;
        filter.keys = request.keys.clone();
        let last = again.as_ref().map_or(upto, |(before, _)| before.last);
        let after = first_of(&filter, &catalog, timeline, last)?;
        // Selected writes made after the start are not part of the plan.
        filter.until = Some(match filter.until {
            Some(until @ (Until::Time(_) | Until::Upto(_))) => until,
            None => Until::Upto(last),
        });
        let total = upto.0.saturating_sub(after.0);
        observer.on(&Event::Step { name: "looking for the writes", total, unit: Unit::Records });
        let range = MistakeRange { catalog: &catalog, timeline, after, upto };
        let mut on_progress = |passed| observer.on(&Event::At(passed));
        let mut find_with = |earlier: &Earlier| {
            let meant = Meant { filter: &filter, include_unknown: request.include_unknown, earlier };
            let after = earlier.first.map_or(after, |first| after.min(Lsn(first.0 - 1)));
            let range = MistakeRange { after, ..range };
            find(range, meant, Bounds::default(), &request.interrupt, &mut on_progress)
        };
        let mut earlier = Earlier::default();
        let mut mistake = find_with(&earlier)?;
        if let Some((first, _)) = mistake.selected.span {
            let folder = Operation::folder(request.state_dir.as_deref(), &catalog.meta().journal_id)?;
            let begins = catalog.windows().iter().filter(|w| w.timeline == timeline).map(|w| w.from_lsn).min();
            let begins = Lsn(begins.unwrap_or_default().0.saturating_add(1));
            earlier = concerning(&read_all(&folder, timeline, own), (first.lsn, first.ts), begins);
            if earlier.first.is_some() || !earlier.written.is_empty() {
                mistake = find_with(&earlier)?;
            }
        }
        observer.on(&Event::StepDone);
        let (Some((first, _)), Some(affected)) = (mistake.selected.span, mistake.affected.filter()) else {
            return Err(nothing_selected(&mistake));
        };
        let affected = match again {
            Some((_, keys)) => only(keys, &affected),
            None => affected,
        };
        let first = earlier.first.map_or(first.lsn, |earlier| earlier.min(first.lsn));
        let before = catalog.find_cut_by_lsn(timeline, Lsn(first.0 - 1));
        let before = before.map_err(|error| RestoreError::unreadable(error, &catalog))?;
        Ok(Self {
            timeline,
            upto,
            last,
            journal_id: catalog.meta().journal_id.clone(),
            filter: affected,
            include_dependent: request.include_dependent,
            begins: Lsn(before.lsn.0 + 1),
            earlier_too_old: earlier.too_old,
            mistake,
        })
    }
}

/// The record after which the selected writes are searched.
fn first_of(filter: &WriteFilter, catalog: &Catalog, timeline: TimelineId, last: Lsn) -> Result<Lsn, RestoreError> {
    let unreadable = |error| RestoreError::unreadable(error, catalog);
    let since = match filter.since {
        None => Lsn(0),
        Some(Since::After(lsn)) => lsn,
        // Includes writes of this microsecond.
        Some(Since::Time(ts)) => catalog.find_cut_by_ts(timeline, Micros(ts.0 - 1)).map_err(unreadable)?.lsn,
    };
    let named = filter.lsns.iter().map(|range| Lsn(range.first.0.saturating_sub(1))).min().unwrap_or_default();
    let begins = catalog.timelines().iter().find(|info| info.id == timeline).map_or(Lsn(0), |info| info.first_lsn);
    let wanted = since.max(named);
    if !filter.lsns.is_empty() && wanted.0.saturating_add(1) < begins.0 {
        return Err(RestoreError::Unable(format!(
            "the history from LSN {} to now is not whole: the journal's present timeline begins at LSN {begins}, so what was built on those writes is not known. `redtape journal ls` shows the gap; redtape restore --before lsn:{} brings back what was there",
            wanted.0 + 1,
            wanted.0 + 1
        )));
    }
    Ok(wanted.max(Lsn(begins.0.saturating_sub(1))).min(last))
}

fn nothing_selected(mistake: &Mistake) -> RestoreError {
    let hint = match mistake.doubtful.count {
        0 if mistake.not_judged.count > 0 => {
            "functions are not undone: load the library again, or see redtape restore".to_owned()
        }
        0 => "look with redtape log and the same filters".to_owned(),
        n => format!("{n} writes of unknown origin may be meant: --include-unknown takes them in"),
    };
    RestoreError::Unable(format!("no write of the present timeline is selected, so there is nothing to undo; {hint}"))
}

/// Only these keys; all, if there are too many.
fn only(keys: Vec<Place>, all: &Filter) -> Filter {
    if keys.len() >= LEFT_KEYS_MAX {
        return all.clone();
    }
    let mut filter = Filter::default();
    for (db, key) in keys {
        filter.add_key(Some(db), key);
    }
    filter
}
