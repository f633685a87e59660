//! Which keys are needed at a position of the backward pass.
//!
//! For each database: a rest (no key, the selected ones, all of them), without those that are satisfied (what they held here does
//! not matter any more), and those added (a record that is kept needs them). Contents of databases change places with `SWAPDB`,
//! so what is said here of a database holds for its number at this position; what is selected of it is said of the number that it
//! has at the restore point.
//!
//! The selection is the filter's names, databases and exclusions: a key that is excluded is not needed for itself, and is added like
//! any other where a record that is kept needs it. Types do not count here: which type a value will have is known after the replay.
//!
//! Memory: [`SATISFIED_MAX`] hashes, [`ADDED_MAX`] keys of [`ADDED_BYTES_MAX`] bytes together. Beyond the first limit more is kept
//! than had to be; beyond the others everything before is.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use redtape_journal::WantedKeys;
use redtape_journal::query::Filter;
use redtape_wire::effect::{Touch, Touched};

use super::hashed::{HashSet128, KeyHasher};

/// Keys of which it is remembered that what they held does not matter: about 150 MB.
const SATISFIED_MAX: usize = if cfg!(test) { 50 } else { 7 << 20 };
/// Keys that are needed beside those that are selected.
const ADDED_MAX: usize = if cfg!(test) { 50 } else { 1 << 20 };
/// Their bytes.
const ADDED_BYTES_MAX: usize = if cfg!(test) { 1 << 10 } else { 64 << 20 };
/// Of the room for added keys, what selected ones may take: with more of them, they are not listed.
const LISTED_SHARE: usize = 2;

/// The keys that are needed of a database beside those added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Rest {
    #[default]
    Nothing,
    /// Those that the selection wants of the database with this number at the restore point.
    Selected(u32),
    Everything,
}

/// The same of each database of which nothing was said yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    Nothing,
    Selected,
    Everything,
}

impl Others {
    fn rest(self, db: u32) -> Rest {
        match self {
            Self::Nothing => Rest::Nothing,
            Self::Selected => Rest::Selected(db),
            Self::Everything => Rest::Everything,
        }
    }
}

#[derive(Debug, Default)]
struct Database {
    rest: Rest,
    /// Of the rest, those that are not needed.
    satisfied: HashSet128,
    /// Beside the rest.
    added: HashSet<Box<[u8]>>,
}

impl Database {
    fn is_nothing(&self) -> bool {
        self.rest == Rest::Nothing && self.added.is_empty()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Needed {
    filter: Filter,
    hasher: KeyHasher,
    databases: BTreeMap<u32, Database>,
    others: Others,
    satisfied: usize,
    added: usize,
    added_bytes: usize,
}

impl Needed {
    /// At the restore point: what is selected.
    pub(crate) fn at_the_point(filter: &Filter) -> Self {
        let selected = if filter.looks_at_names() { Others::Selected } else { Others::Everything };
        let databases = filter.databases();
        let mut needed = Self {
            filter: filter.clone(),
            hasher: KeyHasher::default(),
            databases: BTreeMap::new(),
            others: if databases.is_some() { Others::Nothing } else { selected },
            satisfied: 0,
            added: 0,
            added_bytes: 0,
        };
        let Some(databases) = databases else { return needed };
        match listed(filter, &databases) {
            Some(keys) => keys.into_iter().for_each(|(db, key)| needed.add(db, key)),
            None => databases.into_iter().for_each(|db| needed.database(db).rest = selected.rest(db)),
        }
        needed
    }

    fn database(&mut self, db: u32) -> &mut Database {
        let rest = self.others.rest(db);
        self.databases.entry(db).or_insert_with(|| Database { rest, ..Database::default() })
    }

    /// Whether the database's rest covers a key.
    fn covered(&self, db: u32, key: &[u8]) -> bool {
        match self.databases.get(&db).map_or_else(|| self.others.rest(db), |database| database.rest) {
            Rest::Nothing => false,
            Rest::Selected(at_the_point) => self.filter.wants(at_the_point, key),
            Rest::Everything => true,
        }
    }

    /// Whether this key is needed.
    pub(crate) fn needs(&self, db: u32, key: &[u8]) -> bool {
        let database = self.databases.get(&db);
        database.is_some_and(|database| database.added.contains(key))
            || self.covered(db, key)
                && database.is_none_or(|database| !database.satisfied.contains(&self.hasher.hash(key)))
    }

    /// No key is needed: nothing before this position matters.
    pub(crate) fn is_nothing(&self) -> bool {
        self.others == Others::Nothing && self.databases.values().all(Database::is_nothing)
    }

    /// Every key of every database is needed, or nearly so.
    pub(crate) fn is_everything(&self) -> bool {
        self.others == Others::Everything && self.databases.values().all(|database| database.rest == Rest::Everything)
    }

    /// The keys, for key filters, if it can be said which they are.
    pub(crate) fn exact_keys(&self) -> Option<Vec<(u32, &[u8])>> {
        if self.others != Others::Nothing || self.databases.values().any(|database| database.rest != Rest::Nothing) {
            return None;
        }
        Some(
            self.databases.iter().flat_map(|(db, database)| database.added.iter().map(|key| (*db, &key[..]))).collect(),
        )
    }

    /// The same as key filters know them; `None` also where asking them would cost more than it spares.
    pub(crate) fn wanted_keys(&self) -> Option<WantedKeys> {
        /// With more keys than this, nearly every part holds one.
        const ASKED_MAX: usize = 4096;
        if self.added > ASKED_MAX {
            return None;
        }
        self.exact_keys().map(|keys| keys.into_iter().collect())
    }

    /// More keys were added than can be remembered.
    pub(crate) fn is_full(&self) -> bool {
        self.added > ADDED_MAX || self.added_bytes > ADDED_BYTES_MAX
    }

    /// Goes back over an effect that touches these keys. Whether it has to be kept: it changes one that is needed.
    pub(crate) fn pass(&mut self, touched: &[Touched<'_>]) -> bool {
        if !touched.iter().any(|t| t.touch != Touch::Read && self.needs(t.db, t.key)) {
            return false;
        }
        // A key may be named twice, as read and as overwritten.
        for t in touched.iter().filter(|t| t.touch == Touch::Overwritten) {
            self.satisfy(t.db, t.key);
        }
        for t in touched.iter().filter(|t| t.touch != Touch::Overwritten) {
            self.add(t.db, t.key);
        }
        true
    }

    /// What the key held before this position does not matter.
    fn satisfy(&mut self, db: u32, key: &[u8]) {
        let room = self.satisfied < SATISFIED_MAX;
        let covered = self.covered(db, key);
        let hash = self.hasher.hash(key);
        let database = self.database(db);
        let removed = database.added.remove(key);
        let inserted = room && covered && database.satisfied.insert(hash);
        self.satisfied += usize::from(inserted);
        if removed {
            self.added -= 1;
            self.added_bytes -= key.len();
        }
    }

    /// The key is needed before this position.
    fn add(&mut self, db: u32, key: &[u8]) {
        let covered = self.covered(db, key);
        let hash = self.hasher.hash(key);
        let database = self.database(db);
        if covered {
            let removed = database.satisfied.remove(&hash);
            self.satisfied -= usize::from(removed);
        } else if database.added.insert(key.into()) {
            self.added += 1;
            self.added_bytes += key.len();
        }
    }

    /// Goes back over the emptying of a database. Whether it has to be kept.
    pub(crate) fn flush(&mut self, db: u32) -> bool {
        let flushed = std::mem::take(self.database(db));
        self.forget(&flushed);
        !flushed.is_nothing()
    }

    /// Goes back over the emptying of all. Whether it has to be kept.
    pub(crate) fn flush_all(&mut self) -> bool {
        let kept = !self.is_nothing();
        self.databases.clear();
        self.others = Others::Nothing;
        (self.satisfied, self.added, self.added_bytes) = (0, 0, 0);
        kept
    }

    /// Goes back over two databases changing places. Whether it has to be kept.
    pub(crate) fn swap(&mut self, a: u32, b: u32) -> bool {
        let (of_a, of_b) = (std::mem::take(self.database(a)), std::mem::take(self.database(b)));
        if a == b {
            // Taken once, nothing was left to be taken again.
            self.databases.insert(a, of_a);
            return false;
        }
        let kept = !of_a.is_nothing() || !of_b.is_nothing();
        self.databases.insert(a, of_b);
        self.databases.insert(b, of_a);
        kept
    }

    /// Everything is needed before this position.
    pub(crate) fn need_everything(&mut self) {
        self.databases.clear();
        self.others = Others::Everything;
        (self.satisfied, self.added, self.added_bytes) = (0, 0, 0);
    }

    fn forget(&mut self, database: &Database) {
        self.satisfied -= database.satisfied.len();
        self.added -= database.added.len();
        self.added_bytes -= database.added.iter().map(|key| key.len()).sum::<usize>();
    }
}

/// The selected keys of these databases, if they are not too many to be listed.
fn listed<'a>(filter: &'a Filter, databases: &BTreeSet<u32>) -> Option<Vec<(u32, &'a [u8])>> {
    let keys = filter.exact_keys(ADDED_MAX / LISTED_SHARE)?;
    let many = keys.anywhere.len().saturating_mul(databases.len()) > ADDED_MAX / LISTED_SHARE;
    let keys = if many { return None } else { keys.with_databases(databases.iter().copied()) };
    let bytes: usize = keys.iter().map(|(_, key)| key.len()).sum();
    (keys.len() <= ADDED_MAX / LISTED_SHARE && bytes <= ADDED_BYTES_MAX / LISTED_SHARE).then_some(keys)
}

#[cfg(test)]
#[path = "needed_tests.rs"]
mod tests;
