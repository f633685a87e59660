//! The affected keys and the writes that depend on them.

use std::collections::BTreeMap;

use redtape_journal::Lsn;
use redtape_journal::query::{Filter, WriteFilter};

use super::Dependent;
use super::bounds::{Bounds, Room};
use super::databases::{Database, OfKey};
use super::dependents::{Dependents, Number, Parts, Touches, first};

/// Affected keys by the numbers that the databases have at the end of the range.
#[derive(Debug)]
pub struct Affected {
    filter: WriteFilter,
    databases: BTreeMap<u32, Database>,
    /// For databases that are not listed: every selected key, since this record.
    everywhere: Option<Lsn>,
    room: Room,
    pub(super) dependents: Dependents,
}

impl Affected {
    pub(super) fn new(filter: &WriteFilter, bounds: Bounds) -> Self {
        Self {
            filter: filter.clone(),
            databases: BTreeMap::new(),
            everywhere: None,
            room: Room::new(bounds.keys, bounds.key_bytes),
            dependents: Dependents::new(bounds),
        }
    }

    /// No key is.
    pub fn is_empty(&self) -> bool {
        self.everywhere.is_none() && !self.databases.values().any(Database::is_affected)
    }

    /// Whether this key may be affected.
    pub fn may_be(&self, db: u32, key: &[u8]) -> bool {
        self.since(db, key).is_some()
    }

    /// The keys that are listed one by one, each with its database.
    pub fn listed(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.databases.iter().flat_map(|(db, database)| {
            let listed = database.keys.iter().filter(|(_, of_key)| of_key.since.is_some());
            listed.map(move |(key, _)| (*db, &**key))
        })
    }

    /// Databases of which more is affected than the keys that are listed; `None` = any database may be one.
    pub fn whole_databases(&self) -> Option<Vec<u32>> {
        let is_whole = |database: &Database| database.all.is_some() || !database.meant.is_empty();
        let whole = self.databases.iter().filter(|(_, database)| is_whole(database)).map(|(db, _)| *db);
        self.everywhere.is_none().then(|| whole.collect())
    }

    /// A selection that contains every affected key: exactly these, if all are listed. Otherwise it may contain more;
    /// then [`Self::may_be`] decides for each. `None` = no key is affected.
    pub fn filter(&self) -> Option<Filter> {
        if self.is_empty() {
            return None;
        }
        let whole = self.whole_databases();
        if whole.as_ref().is_some_and(Vec::is_empty) {
            let mut filter = Filter::default();
            self.listed().for_each(|(db, key)| filter.add_key(Some(db), key));
            return Some(filter);
        }
        let is_as_meant =
            |db: u32, database: &Database| database.all.is_none() && database.meant.keys().all(|at| *at == db);
        let as_meant = self.databases.iter().all(|(db, database)| is_as_meant(*db, database));
        // The selection holds all of it, plus what is listed.
        if as_meant && self.listed().all(|(db, key)| self.filter.keys.wants(db, key)) {
            return Some(self.filter.keys.clone());
        }
        if whole.is_none() {
            return Some(Filter::default());
        }
        let affected = self.databases.iter().filter(|(_, database)| database.is_affected());
        let dbs: Vec<u32> = affected.map(|(db, _)| *db).collect();
        Some(Filter::new::<&[u8]>(&[], &[], &dbs).unwrap_or_default())
    }

    /// The first later write of others that touched this element of an affected key and may have had another result
    /// without the mistake; without an element, any part of its value.
    pub fn depends(&self, db: u32, key: &[u8], element: Option<&[u8]>) -> Option<&Dependent> {
        self.dependent(db, key, |parts| parts.of_value(element))
    }

    /// The same of its TTL.
    pub fn depends_on_ttl(&self, db: u32, key: &[u8]) -> Option<&Dependent> {
        self.dependent(db, key, |parts| parts.ttl)
    }

    /// The dependents, oldest first: the first one for each part of a key.
    pub fn dependents(&self) -> &[Dependent] {
        self.dependents.list()
    }

    /// From this dependent on there were too many to distinguish: every part of every affected key counts as dependent.
    pub fn dependents_overflow(&self) -> Option<&Dependent> {
        self.dependents.overflow()
    }

    fn dependent(&self, db: u32, key: &[u8], of: impl Fn(&Parts) -> Option<Number>) -> Option<&Dependent> {
        let since = self.since(db, key)?;
        let database = self.databases.get(&db);
        let parts = database.and_then(|database| database.keys.get(key)?.parts.as_ref());
        let of_all = database.and_then(|database| database.last_of_all);
        let of_all = of_all.filter(|number| self.dependents.lsn(*number) > since);
        let found = first(parts.and_then(of), of_all);
        found.and_then(|number| self.dependents.get(number)).or(self.dependents.overflow())
    }

    fn since(&self, db: u32, key: &[u8]) -> Option<Lsn> {
        match self.databases.get(&db) {
            Some(database) => database.since(key, &self.filter),
            None => self.everywhere.filter(|_| self.filter.wants_key(db, key)),
        }
    }

    /// The database, mutable.
    fn database(&mut self, db: u32) -> &mut Database {
        let everywhere = self.everywhere;
        self.databases.entry(db).or_insert_with(|| {
            let meant = everywhere.map(|since| (db, since)).into_iter().collect();
            Database { meant, ..Database::default() }
        })
    }

    /// This key is affected.
    pub(super) fn add(&mut self, db: u32, key: &[u8], since: Lsn) {
        if self.may_be(db, key) {
            return;
        }
        if !self.room.take(key.len()) {
            for bytes in self.database(db).add_all(since) {
                self.room.give_back(bytes);
            }
            return;
        }
        match self.database(db).keys.get_mut(key) {
            Some(of_key) => of_key.since = Some(since),
            None => {
                self.database(db).keys.insert(key.into(), OfKey { since: Some(since), parts: None });
            }
        }
    }

    /// Every selected key of this database is affected.
    pub(super) fn add_meant(&mut self, db: u32, since: Lsn) {
        self.database(db).add_meant(db, since);
    }

    /// Every selected key is affected.
    pub(super) fn add_meant_everywhere(&mut self, since: Lsn) {
        self.everywhere.get_or_insert(since);
        for (db, database) in &mut self.databases {
            database.add_meant(*db, since);
        }
    }

    /// Two databases are swapped, with and without the mistake.
    pub(super) fn swap(&mut self, a: u32, b: u32) {
        if a == b {
            return;
        }
        let of_a = std::mem::take(self.database(a));
        let of_b = std::mem::replace(self.database(b), of_a);
        self.databases.insert(a, of_b);
    }

    /// They are swapped only with the mistake: keys affected in one are affected in both.
    pub(super) fn swap_by_mistake(&mut self, a: u32, b: u32, since: Lsn) {
        for (from, to) in [(a, b), (b, a)] {
            let from = self.database(from);
            let (meant, all, last_of_all) = (from.meant.clone(), from.all, from.last_of_all);
            let listed: Vec<_> = from
                .keys
                .iter()
                .map(|(key, of_key)| (key.clone(), of_key.since, of_key.parts.as_ref().and_then(Parts::any)))
                .collect();
            let into = self.database(to);
            for (db, since) in meant {
                into.add_meant(db, since);
            }
            into.all = into.all.into_iter().chain(all).min();
            into.last_of_all = into.last_of_all.into_iter().chain(last_of_all).max();
            for (key, listed, number) in listed {
                if let Some(since) = listed {
                    self.add(to, &key, since);
                }
                if let Some(number) = number {
                    self.note(to, &key, Touches::Whole, number);
                }
            }
        }
        self.add_meant(a, since);
        self.add_meant(b, since);
    }

    /// True if a dependent of this part is recorded: another one adds nothing.
    pub(super) fn is_noted(&self, db: u32, key: &[u8], touches: Touches<'_>) -> bool {
        let parts = self.databases.get(&db).and_then(|database| database.keys.get(key)?.parts.as_ref());
        parts.is_some_and(|parts| parts.has(touches))
    }

    /// A dependent has touched this part of an affected key.
    pub(super) fn note(&mut self, db: u32, key: &[u8], touches: Touches<'_>, number: Number) {
        let Some(parts) = self.parts(db, key, number) else { return };
        let mut taken = parts.take().unwrap_or_default();
        self.dependents.note(&mut taken, touches, number);
        if let Some(of_key) = self.database(db).keys.get_mut(key) {
            of_key.parts = Some(taken);
        }
    }

    /// The parts of a key, if there is room for them.
    fn parts(&mut self, db: u32, key: &[u8], number: Number) -> Option<&mut Option<Parts>> {
        if !self.database(db).keys.contains_key(key) {
            if !self.dependents.room_for_key(key, number) {
                return None;
            }
            self.database(db).keys.insert(key.into(), OfKey::default());
        }
        self.database(db).keys.get_mut(key).map(|of_key| &mut of_key.parts)
    }

    /// A dependent has touched all of a database.
    pub(super) fn note_all(&mut self, db: u32, number: Number) {
        self.database(db).last_of_all = Some(number);
    }

    /// A dependent has touched every database that is known.
    pub(super) fn note_everywhere(&mut self, number: Number) {
        self.databases.values_mut().for_each(|database| database.last_of_all = Some(number));
    }

    /// The first dependent of anything of this key.
    pub(super) fn first_of(&self, db: u32, key: &[u8]) -> Option<Number> {
        self.databases.get(&db)?.first_of(key)
    }
}
