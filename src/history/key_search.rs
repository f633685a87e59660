//! Which keys of which databases a search by the journal's key filters looks for.

use redtape_journal::query::Filter;

/// In these databases a key is searched if none is named: those that a server has by default.
const DATABASES: std::ops::Range<u32> = 0..16;
/// With more keys than this, nearly every part of a journal holds one, and all of it is read.
pub(super) const SEARCHED_KEYS_MAX: usize = 4096;

/// Each with its database; `None` = the filter does not name them, or more than so many.
pub(super) fn search_pairs(keys: &Filter, limit: usize) -> Option<Vec<(u32, &[u8])>> {
    let exact = keys.exact_keys(limit)?;
    Some(match keys.databases() {
        Some(dbs) => exact.with_databases(dbs),
        None => exact.with_databases(DATABASES),
    })
}
