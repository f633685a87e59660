//! What a history is replayed without.

use redtape_journal::{Group, Lsn};

use crate::slice::Lsns;

/// Records that are left out of a history, and those of which it depends on that whether they happen.
#[derive(Debug, Default)]
pub(crate) struct LeftOut {
    /// These are not replayed, and what they overwrote is needed.
    pub(crate) records: Lsns,
    /// Keys and fields that the server removed because their time had come: it may be another one now. They are kept, and do not
    /// make what was there before irrelevant.
    pub(crate) removals: Lsns,
    /// The first record of the group that holds the first one that is left out.
    pub(crate) begins: Lsn,
}

impl LeftOut {
    /// Takes its records out of a group; `false` = nothing remains.
    pub(crate) fn take_out(&self, group: &mut Group) -> bool {
        if group.records.last().is_some_and(|record| record.lsn >= self.begins) {
            group.records.retain(|record| !self.records.contains(record.lsn));
        }
        !group.records.is_empty()
    }
}
