//! Finding the names that keys had before: one pass backwards, by the journal's key filters.

use redtape_journal::{Catalog, ReadError, Searched, WantedKeys};

use super::former_names::FormerNames;
use super::key_search::search_pairs;
use super::range::Range;
use super::read::add;

/// What the pass has found.
#[derive(Debug)]
pub(crate) struct FormerSearch {
    pub(crate) names: FormerNames,
    pub(crate) searched: Searched,
    /// Where it had to end: names from before are not known.
    pub(crate) unread: Option<ReadError>,
}

/// From the end of the range back to its beginning.
pub(crate) fn find_former_names(
    catalog: &Catalog,
    range: &Range,
    mut names: FormerNames,
) -> anyhow::Result<FormerSearch> {
    let mut searched = Searched::default();
    for timeline in catalog.timelines().iter().rev() {
        let Some((after, upto)) = range.within(catalog, timeline)? else { continue };
        let mut reader = catalog.parts_back(after, upto, timeline.id);
        let mut wanted = None;
        loop {
            let known = names.len();
            let wanted = match &mut wanted {
                Some((of, wanted)) if *of == known => wanted,
                outdated => &mut outdated.insert((known, wanted_keys(&names))).1,
            };
            match reader.next_part(Some(wanted)) {
                Ok(None) => break,
                Ok(Some(groups)) => {
                    let records = groups.iter().rev().flat_map(|group| group.records.iter().rev());
                    records.for_each(|record| names.pass(record));
                }
                Err(error) => return Ok(FormerSearch { names, searched, unread: Some(error) }),
            }
        }
        add(&mut searched, reader.searched());
    }
    Ok(FormerSearch { names, searched, unread: None })
}

fn wanted_keys(names: &FormerNames) -> WantedKeys {
    search_pairs(&names.filter(), usize::MAX).unwrap_or_default().into_iter().collect()
}
