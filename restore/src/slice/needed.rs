//! Which keys are needed at a position of the backward pass.
//!
//! For each database: a rest (no key, the selected ones, all of them), without those that are satisfied (what they held here does
//! not matter any more), and those added (a record that is kept needs them). Contents of databases change places with `SWAPDB`,
//! so what is said here of a database holds for its number at this position.
//!
//! Memory: [`SATISFIED_MAX`] hashes, [`ADDED_MAX`] keys of [`ADDED_BYTES_MAX`] bytes together. Beyond the first limit more is kept
//! than had to be; beyond the others everything before is.

use std::collections::{BTreeMap, HashSet};

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

/// Ranges of keys that are looked for in an index.
const RANGES_MAX: usize = 256;

/// Keys of a database (`None` = of any) that begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) db: Option<u32>,
    pub(crate) prefix: Vec<u8>,
}

/// Ranges that hold all needed keys but those beside them; and other keys, too.
#[derive(Debug)]
pub(crate) struct KeyRanges<'a> {
    pub(crate) ranges: Vec<KeyRange>,
    pub(crate) beside: Vec<(u32, &'a [u8])>,
}

/// The keys that are needed of a database beside those added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Rest {
    #[default]
    Nothing,
    /// Those that the selection wants by their name.
    Selected,
    Everything,
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
    /// Of all other databases.
    default: Rest,
    satisfied: usize,
    added: usize,
    added_bytes: usize,
}

impl Needed {
    /// At the restore point: what is selected.
    pub(crate) fn at_the_point(filter: &Filter) -> Self {
        let rest = if filter.has_key_patterns() { Rest::Selected } else { Rest::Everything };
        let mut needed = Self {
            filter: filter.clone(),
            hasher: KeyHasher::default(),
            databases: BTreeMap::new(),
            default: if filter.databases().is_empty() { rest } else { Rest::Nothing },
            satisfied: 0,
            added: 0,
            added_bytes: 0,
        };
        for db in filter.databases().iter().copied() {
            match filter.exact_keys() {
                Some(keys) => keys.iter().for_each(|key| needed.add(db, key)),
                None => needed.databases.entry(db).or_default().rest = rest,
            }
        }
        needed
    }

    fn database(&mut self, db: u32) -> &mut Database {
        let rest = self.default;
        self.databases.entry(db).or_insert_with(|| Database { rest, ..Database::default() })
    }

    /// Whether the database's rest covers a key.
    fn covered(&self, db: u32, key: &[u8]) -> bool {
        match self.databases.get(&db).map_or(self.default, |database| database.rest) {
            Rest::Nothing => false,
            Rest::Selected => self.filter.wants_key(key),
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
        self.default == Rest::Nothing && self.databases.values().all(Database::is_nothing)
    }

    /// Every key of every database is needed, or nearly so.
    pub(crate) fn is_everything(&self) -> bool {
        self.default == Rest::Everything && self.databases.values().all(|database| database.rest == Rest::Everything)
    }

    /// The keys, for key filters, if it can be said which they are.
    pub(crate) fn exact_keys(&self) -> Option<Vec<(u32, &[u8])>> {
        if self.default != Rest::Nothing || self.databases.values().any(|database| database.rest != Rest::Nothing) {
            return None;
        }
        Some(
            self.databases.iter().flat_map(|(db, database)| database.added.iter().map(|key| (*db, &key[..]))).collect(),
        )
    }

    /// Where the needed keys lie in an index. `None`: they may be anywhere, or are in too many ranges.
    pub(crate) fn ranges(&self) -> Option<KeyRanges<'_>> {
        let rests = || self.databases.values().map(|database| database.rest).chain([self.default]);
        if rests().any(|rest| rest == Rest::Everything) {
            return None;
        }
        let beside = self.databases.iter().flat_map(|(db, of)| of.added.iter().map(|key| (*db, &key[..]))).collect();
        if rests().all(|rest| rest == Rest::Nothing) {
            return Some(KeyRanges { ranges: Vec::new(), beside });
        }
        let prefixes = self.filter.prefixes()?;
        let selected = self.databases.iter().filter(|(_, database)| database.rest == Rest::Selected);
        let dbs: Vec<Option<u32>> =
            if self.default == Rest::Selected { vec![None] } else { selected.map(|(db, _)| Some(*db)).collect() };
        if dbs.len() * prefixes.len() > RANGES_MAX {
            return None;
        }
        let of_db = |db: Option<u32>| prefixes.iter().map(move |prefix| KeyRange { db, prefix: prefix.to_vec() });
        Some(KeyRanges { ranges: dbs.into_iter().flat_map(of_db).collect(), beside })
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
        self.default = Rest::Nothing;
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
        self.default = Rest::Everything;
        (self.satisfied, self.added, self.added_bytes) = (0, 0, 0);
    }

    fn forget(&mut self, database: &Database) {
        self.satisfied -= database.satisfied.len();
        self.added -= database.added.len();
        self.added_bytes -= database.added.iter().map(|key| key.len()).sum::<usize>();
    }
}

#[cfg(test)]
#[path = "needed_tests.rs"]
mod tests;
