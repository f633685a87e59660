//! Determines which keys are needed at a position of the backward pass.
//!
//! For each database: a general rule (no key, the selected ones, or all), minus the satisfied keys (whose earlier value
//! no longer matters), plus added keys (needed by a kept record). `SWAPDB` exchanges databases, so the state of a
//! database belongs to its number at this position, while the selection refers to the number at the restore point.
//!
//! The selection is the filter's names, databases and exclusions: an excluded key is not needed for itself, and is
//! added like any other if a kept record needs it. Types do not count here: a value's type is known only after the
//! replay.
//!
//! Without a selection, keys are also found that only one kept record touches, a plain `SET`: these can be put into the
//! RDB ([`super::fold`]). A database that is emptied or swapped, or a record with unknown keys, ends that.
//!
//! Memory: [`NOTED_MAX`] hashes, [`ADDED_MAX`] keys of [`ADDED_BYTES_MAX`] bytes together. Beyond the first limit, more
//! than necessary is kept; beyond the others, everything earlier.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use redtape_journal::WantedKeys;
use redtape_journal::query::Filter;
use redtape_wire::effect::{Touch, Touched};

use super::fold::{FoldedKeys, TakenOut};
use super::hashed::KeyHasher;
use super::key_table::KeyTable;

/// Keys of the rest of which something is noted: 128 MiB.
const NOTED_MAX: usize = if cfg!(test) { 48 } else { 6 << 20 };
/// Of these, keys of which it is noted only that a kept record modifies or reads them.
const TIED_MAX: usize = NOTED_MAX / 2;
/// Bytes that the keys take that go into the RDB: the target may have to hold it in a file.
const FOLDED_BYTES_MAX: u64 = if cfg!(test) { 1 << 10 } else { 4 << 30 };
/// Keys that were to go into the RDB, before another record that is kept was found to touch them.
const TAKEN_OUT_MAX: usize = if cfg!(test) { 20 } else { 1 << 20 };
/// Keys that are needed beside those that are selected.
const ADDED_MAX: usize = if cfg!(test) { 50 } else { 1 << 20 };
/// Their bytes.
const ADDED_BYTES_MAX: usize = if cfg!(test) { 1 << 10 } else { 64 << 20 };
/// Of the room for added keys, what selected ones may take: with more of them, they are not listed.
const LISTED_SHARE: usize = 2;

/// Noted of a key: it is needed before this position, and a record that is kept touches it.
const TIED: u32 = 0;
/// Noted of a key: what it held before this position does not matter.
const SATISFIED: u32 = 1;
/// From here on: the same, and the only record that is kept and touches it is a plain `SET`. The number is that of the bytes that
/// the key takes in an RDB, which are more.
const FOLDED: u32 = 2;

/// Ranges of keys that are looked for in an index.
const RANGES_MAX: usize = 256;
/// Names that are looked at to find these ranges.
const PREFIX_NAMES_MAX: usize = 1 << 16;

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
    /// Of keys of the rest.
    noted: KeyTable,
    folded: FoldedKeys,
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
    noted: usize,
    added: usize,
    added_bytes: usize,
    folding: Folding,
    /// Databases and hashes of keys that do not go into the RDB after all.
    taken_out: TakenOut,
}

/// Which keys may go into the RDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Folding {
    /// Those that are found from now on.
    Open,
    /// Those that were found: there is no room to note more.
    Closed,
    /// None.
    Off,
}

/// What becomes of a plain `SET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passed {
    LeftOut,
    Kept,
    /// It is kept, and as it seems up to here its key can go into the RDB.
    Folded,
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
            noted: 0,
            added: 0,
            added_bytes: 0,
            folding: if filter.is_everything() { Folding::Open } else { Folding::Off },
            taken_out: HashSet::new(),
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
                && database
                    .and_then(|database| database.noted.get(self.hasher.hash(key)))
                    .is_none_or(|note| note == TIED)
    }

    /// True if no key is needed: nothing before this position matters.
    pub(crate) fn is_nothing(&self) -> bool {
        self.others == Others::Nothing && self.databases.values().all(Database::is_nothing)
    }

    /// True if every key of every database, or nearly every one, is needed.
    pub(crate) fn is_everything(&self) -> bool {
        self.others == Others::Everything && self.databases.values().all(|database| database.rest == Rest::Everything)
    }

    /// The keys, for key filters, if they can be listed.
    pub(crate) fn exact_keys(&self) -> Option<Vec<(u32, &[u8])>> {
        if self.others != Others::Nothing || self.databases.values().any(|database| database.rest != Rest::Nothing) {
            return None;
        }
        Some(
            self.databases.iter().flat_map(|(db, database)| database.added.iter().map(|key| (*db, &key[..]))).collect(),
        )
    }

    /// Where the needed keys lie in an index. `None`: they may be anywhere, or are in too many ranges.
    pub(crate) fn ranges(&self) -> Option<KeyRanges<'_>> {
        let rests = || self.databases.values().map(|database| database.rest);
        if self.others == Others::Everything || rests().any(|rest| rest == Rest::Everything) {
            return None;
        }
        let beside = self.databases.iter().flat_map(|(db, of)| of.added.iter().map(|key| (*db, &key[..]))).collect();
        if self.others == Others::Nothing && rests().all(|rest| rest == Rest::Nothing) {
            return Some(KeyRanges { ranges: Vec::new(), beside });
        }
        let prefixes = self.filter.prefixes(PREFIX_NAMES_MAX)?;
        let selected = self.databases.iter().filter(|(_, database)| matches!(database.rest, Rest::Selected(_)));
        let dbs: Vec<Option<u32>> =
            if self.others == Others::Selected { vec![None] } else { selected.map(|(db, _)| Some(*db)).collect() };
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

    /// Hashes keys as they are noted.
    pub(super) fn hasher(&self) -> &KeyHasher {
        &self.hasher
    }

    /// Prepares a look at what is noted of a key.
    pub(super) fn touch(&self, db: u32, hash: u128) -> u64 {
        self.databases.get(&db).map_or(0, |database| database.noted.touch(hash))
    }

    /// Goes back over a plain `SET` of a key with this hash. `entry_bytes`: what the key takes in an RDB, if it may go there.
    pub(crate) fn pass_set(&mut self, db: u32, key: &[u8], hash: u128, entry_bytes: Option<u32>) -> Passed {
        if !self.covered(db, key) {
            let touched = [Touched { db, key, touch: Touch::Overwritten }];
            return if self.pass(&touched) { Passed::Kept } else { Passed::LeftOut };
        }
        let has_room = self.noted < NOTED_MAX;
        let folding = self.folding;
        let entry_bytes = entry_bytes.filter(|bytes| folding == Folding::Open && *bytes > FOLDED);
        let database = self.database(db);
        let room_in_rdb = FOLDED_BYTES_MAX.saturating_sub(database.folded.bytes);
        let entry_bytes = entry_bytes.filter(|bytes| u64::from(*bytes) <= room_in_rdb);
        let note = entry_bytes.unwrap_or(SATISFIED);
        match database.noted.get_or_note(hash, || has_room.then_some(note)) {
            Some(noted) if noted.get() == TIED => {
                noted.replace(SATISFIED);
                Passed::Kept
            }
            Some(_) => Passed::LeftOut,
            None if !has_room => {
                self.close_folding();
                Passed::Kept
            }
            None => {
                if let Some(bytes) = entry_bytes {
                    database.folded.add(bytes);
                }
                self.noted += 1;
                if entry_bytes.is_some() { Passed::Folded } else { Passed::Kept }
            }
        }
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

    /// What the key held before this position does not matter; a record that is kept touches it.
    fn satisfy(&mut self, db: u32, key: &[u8]) {
        if self.covered(db, key) {
            self.note(db, key, SATISFIED);
            return;
        }
        if self.database(db).added.remove(key) {
            self.added -= 1;
            self.added_bytes -= key.len();
        }
    }

    /// The key is needed before this position; a record that is kept touches it.
    fn add(&mut self, db: u32, key: &[u8]) {
        if self.covered(db, key) {
            self.note(db, key, TIED);
        } else if self.database(db).added.insert(key.into()) {
            self.added += 1;
            self.added_bytes += key.len();
        }
    }

    fn note(&mut self, db: u32, key: &[u8], note: u32) {
        let hash = self.hasher.hash(key);
        let wanted = note == SATISFIED || self.folding == Folding::Open;
        let has_room = self.noted < if note == SATISFIED { NOTED_MAX } else { TIED_MAX };
        let database = self.database(db);
        match database.noted.get_or_note(hash, || (wanted && has_room).then_some(note)) {
            Some(noted) => {
                let before = noted.replace(note);
                if before >= FOLDED {
                    database.folded.remove(before);
                    self.take_out(db, hash);
                }
            }
            None if wanted && has_room => self.noted += 1,
            None if wanted => self.close_folding(),
            None => {}
        }
    }

    /// The key does not go into the RDB after all.
    fn take_out(&mut self, db: u32, hash: u128) {
        if self.folding != Folding::Off {
            self.taken_out.insert((db, hash));
        }
        if self.taken_out.len() > TAKEN_OUT_MAX {
            self.stop_folding();
        }
    }

    /// No more keys go into the RDB: what is found out of them cannot be noted.
    fn close_folding(&mut self) {
        if self.folding == Folding::Open {
            self.folding = Folding::Closed;
        }
    }

    /// No key goes into the RDB.
    fn stop_folding(&mut self) {
        self.folding = Folding::Off;
        self.taken_out = HashSet::new();
    }

    /// What goes into the RDB, at the end of the pass: the keys of each database that has any, and those that do not after all.
    pub(super) fn folded(&mut self) -> (BTreeMap<u32, FoldedKeys>, TakenOut) {
        if self.folding == Folding::Off {
            return Default::default();
        }
        let keys = self.databases.iter().map(|(db, database)| (*db, database.folded));
        (keys.filter(|(_, folded)| folded.keys > 0).collect(), std::mem::take(&mut self.taken_out))
    }

    /// Goes back over the emptying of a database. Whether it has to be kept.
    pub(crate) fn flush(&mut self, db: u32) -> bool {
        let flushed = std::mem::take(self.database(db));
        self.forget(&flushed);
        let kept = !flushed.is_nothing();
        if kept {
            self.stop_folding();
        }
        kept
    }

    /// Goes back over the emptying of all. Whether it has to be kept.
    pub(crate) fn flush_all(&mut self) -> bool {
        let kept = !self.is_nothing();
        self.databases.clear();
        self.others = Others::Nothing;
        (self.noted, self.added, self.added_bytes) = (0, 0, 0);
        self.stop_folding();
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
        if kept {
            self.stop_folding();
        }
        kept
    }

    /// Everything is needed before this position.
    pub(crate) fn need_everything(&mut self) {
        self.databases.clear();
        self.others = Others::Everything;
        (self.noted, self.added, self.added_bytes) = (0, 0, 0);
        self.stop_folding();
    }

    fn forget(&mut self, database: &Database) {
        self.noted -= database.noted.len();
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
