//! The wanted groups of a range, oldest or newest first, over all timelines.

use redtape_journal::{Catalog, Group, Lsn, Micros, ReadError, Searched, TimelineId};

use super::range::{Range, last_by};
use super::selection::Selection;

/// Takes a group; `false` = that is enough.
type Take<'a> = &'a mut dyn FnMut(TimelineId, &Group) -> anyhow::Result<bool>;

/// Oldest first; ends with the first damage.
pub(crate) fn forward(
    catalog: &Catalog,
    range: &Range,
    selection: &Selection,
    take: Take<'_>,
) -> anyhow::Result<Searched> {
    let mut searched = Searched::default();
    let keys = selection.search();
    for timeline in catalog.timelines() {
        if timeline.last_lsn <= range.after {
            continue;
        }
        let mut after = range.after;
        if let Some(since) = range.since {
            after = after.max(last_by(catalog, timeline.id, Micros(since.0.saturating_sub(1)))?);
        }
        let mut groups = match &keys {
            Some(keys) => catalog.groups_for_keys(after, timeline.id, keys),
            None => catalog.groups(after, timeline.id),
        };
        let goes_on = until_enough(&mut groups, |group| {
            let group = group?;
            let beyond = range.until.is_some_and(|until| group.ts > until) || last_lsn(&group) > range.upto;
            Ok(!beyond && (!selection.wants(&group) || take(timeline.id, &group)?))
        })?;
        add(&mut searched, groups.searched());
        if !goes_on {
            break;
        }
    }
    Ok(searched)
}

/// Newest first. What cannot be read is given to `on_damage`, and what is older follows.
pub(crate) fn backward(
    catalog: &Catalog,
    range: &Range,
    selection: &Selection,
    take: Take<'_>,
    on_damage: &mut dyn FnMut(ReadError),
) -> anyhow::Result<Searched> {
    let mut searched = Searched::default();
    let keys = selection.search();
    for timeline in catalog.timelines().iter().rev() {
        if timeline.first_lsn > range.upto {
            continue;
        }
        let mut upto = range.upto;
        if let Some(until) = range.until {
            upto = upto.min(last_by(catalog, timeline.id, until)?);
        }
        let mut groups = match &keys {
            Some(keys) => catalog.groups_back_for_keys(upto, timeline.id, keys),
            None => catalog.groups_back(upto, timeline.id),
        };
        let goes_on = until_enough(&mut groups, |group| {
            let group = match group {
                Ok(group) => group,
                Err(error) => {
                    on_damage(error);
                    return Ok(true);
                }
            };
            let beyond = range.since.is_some_and(|since| group.ts < since) || last_lsn(&group) <= range.after;
            Ok(!beyond && (!selection.wants(&group) || take(timeline.id, &group)?))
        })?;
        add(&mut searched, groups.searched());
        if !goes_on {
            break;
        }
    }
    Ok(searched)
}

/// Gives each group to `take`; false = it has enough.
fn until_enough(
    groups: impl Iterator<Item = Result<Group, ReadError>>,
    mut take: impl FnMut(Result<Group, ReadError>) -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    for group in groups {
        if !take(group)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn last_lsn(group: &Group) -> Lsn {
    group.records.last().map_or(Lsn(0), |r| r.lsn)
}

/// Adds up what reading has cost.
pub(crate) fn add(sum: &mut Searched, more: Searched) {
    sum.read_bytes += more.read_bytes;
    sum.skipped_bytes += more.skipped_bytes;
}
