//! From when to when.

use redtape_journal::query::{PointInTime, When, Zone};
use redtape_journal::{Catalog, Lsn, Micros, TimelineId, TimelineInfo};

use crate::exit::{Failure, USAGE};

/// Both ends inclusive; a mark lies between two groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// Nothing that ran before.
    pub(crate) since: Option<Micros>,
    /// Nothing that ends with this record or before.
    pub(crate) after: Lsn,
    /// Nothing that ran later.
    pub(crate) until: Option<Micros>,
    /// Nothing that ends behind this record.
    pub(crate) upto: Lsn,
}

impl Range {
    const ALL: Self = Self { since: None, after: Lsn(0), until: None, upto: Lsn(u64::MAX) };

    /// Resolves both ends, with times of this zone; `None` = there cannot be anything.
    pub(crate) fn of(
        since: Option<&When>,
        until: Option<&When>,
        zone: &Zone,
        catalog: &Catalog,
    ) -> anyhow::Result<Option<Self>> {
        let now = Micros::now();
        let resolve = |when: Option<&When>| {
            when.map(|when| when.resolve(now, zone).map_err(|e| Failure::new(USAGE, e))).transpose()
        };
        let mut range = Self::ALL;
        let mark = |name: String| -> anyhow::Result<(Lsn, Micros)> {
            let mark = catalog.marks().iter().rev().find(|m| m.name == name);
            let none = || Failure::new(USAGE, format!("there is no mark {name:?}; `redtape journal ls` lists them"));
            Ok(mark.map(|m| (m.lsn, m.ts)).ok_or_else(none)?)
        };
        let mut begins = None;
        match resolve(since)? {
            None => {}
            Some(PointInTime::At(ts)) => (range.since, begins) = (Some(ts), Some(ts)),
            Some(PointInTime::Lsn(lsn)) => range.after = Lsn(lsn.0.saturating_sub(1)),
            Some(PointInTime::Mark(name)) => {
                let (lsn, ts) = mark(name)?;
                (range.after, begins) = (lsn, Some(ts));
            }
            // Nothing comes after the end.
            Some(PointInTime::Latest) => return Ok(None),
        }
        let mut ends = None;
        match resolve(until)? {
            None | Some(PointInTime::Latest) => {}
            Some(PointInTime::At(ts)) => (range.until, ends) = (Some(ts), Some(ts)),
            Some(PointInTime::Lsn(lsn)) => range.upto = lsn,
            Some(PointInTime::Mark(name)) => {
                let (lsn, ts) = mark(name)?;
                (range.upto, ends) = (lsn, Some(ts));
            }
        }
        if let (Some(begins), Some(ends)) = (begins, ends)
            && begins > ends
        {
            return Err(Failure::new(USAGE, format!("--since {begins} is later than --until {ends}")).into());
        }
        if let (Some(When::Lsn(begins)), Some(When::Lsn(ends))) = (since, until)
            && begins > ends
        {
            return Err(Failure::new(USAGE, format!("--since lsn:{begins} lies after --until lsn:{ends}")).into());
        }
        Ok(Some(range))
    }

    /// Of a timeline: nothing that ends with the first record or before, nothing that ends behind the second one. `None` = nothing of it.
    pub(crate) fn within(&self, catalog: &Catalog, timeline: &TimelineInfo) -> anyhow::Result<Option<(Lsn, Lsn)>> {
        let (mut after, mut upto) = (self.after, self.upto);
        if let Some(since) = self.since {
            after = after.max(last_by(catalog, timeline.id, Micros(since.0.saturating_sub(1)))?);
        }
        if let Some(until) = self.until {
            upto = upto.min(last_by(catalog, timeline.id, until)?);
        }
        let is_empty = after >= upto || timeline.last_lsn <= after || timeline.first_lsn > upto;
        Ok((!is_empty).then_some((after, upto)))
    }
}

/// The last record that ran at this time or before.
pub(crate) fn last_by(catalog: &Catalog, timeline: TimelineId, at: Micros) -> anyhow::Result<Lsn> {
    Ok(catalog.find_cut_by_ts(timeline, at)?.lsn)
}
