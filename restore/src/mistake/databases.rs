//! The affected keys of one database.
//!
//! It moves with the content when databases are swapped.

use std::collections::{BTreeMap, HashMap};

use redtape_journal::Lsn;
use redtape_journal::query::WriteFilter;

use super::dependents::{Number, Parts};

/// A key that is affected, or of which dependents are noted.
#[derive(Debug, Default)]
pub(super) struct OfKey {
    /// It is listed, as affected since this record.
    pub(super) since: Option<Lsn>,
    /// Dependents are noted.
    pub(super) parts: Option<Parts>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Database {
    pub(super) keys: HashMap<Box<[u8]>, OfKey>,
    /// Every selected key of this database number, since this record. There are several numbers if a selected write
    /// swapped databases.
    pub(super) meant: BTreeMap<u32, Lsn>,
    /// Every key, since this record.
    pub(super) all: Option<Lsn>,
    /// The last dependent that touched all of it.
    pub(super) last_of_all: Option<Number>,
}

impl Database {
    /// Since when a key is affected.
    pub(super) fn since(&self, key: &[u8], filter: &WriteFilter) -> Option<Lsn> {
        let listed = self.keys.get(key).and_then(|of_key| of_key.since);
        let meant = self.meant.iter().filter(|(db, _)| filter.wants_key(**db, key)).map(|(_, since)| *since);
        listed.into_iter().chain(self.all).chain(meant).min()
    }

    /// Something of it may be affected.
    pub(super) fn is_affected(&self) -> bool {
        self.all.is_some() || !self.meant.is_empty() || self.keys.values().any(|of_key| of_key.since.is_some())
    }

    pub(super) fn add_meant(&mut self, db: u32, since: Lsn) {
        self.meant.entry(db).or_insert(since);
    }

    /// Its keys are not listed any more; says how many bytes each name had that was.
    pub(super) fn add_all(&mut self, since: Lsn) -> Vec<usize> {
        let first = self.keys.values().filter_map(|of_key| of_key.since).chain([since]).min();
        self.all = self.all.into_iter().chain(first).min();
        let listed = self.keys.iter().filter(|(_, of_key)| of_key.since.is_some()).map(|(key, _)| key.len()).collect();
        self.keys.retain(|_, of_key| {
            of_key.since = None;
            of_key.parts.is_some()
        });
        listed
    }

    /// The first dependent that touched anything of a key.
    pub(super) fn first_of(&self, key: &[u8]) -> Option<Number> {
        self.keys.get(key)?.parts.as_ref()?.any()
    }
}
