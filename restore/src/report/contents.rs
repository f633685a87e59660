//! What is in a dataset: pure sums of its keys.

use std::collections::BTreeMap;

use super::Asked;
use super::biggest::{BigKey, Biggest};
use super::lives::Lives;
use super::prefixes::{Prefixes, Table};
use super::tally::{KeyFacts, Tally};

/// Databases that have a row of their own; a server has 16 unless it is told otherwise.
pub const DATABASES_MAX: usize = if cfg!(test) { 4 } else { 1 << 14 };
/// Types of modules that have a row of their own; behind them they are counted as `module`.
pub const MODULE_TYPES_MAX: usize = if cfg!(test) { 2 } else { 64 };

/// A type, and how its values are held.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Encoding {
    /// As `TYPE` gives it.
    pub type_name: String,
    /// As `OBJECT ENCODING` gives it; `module` of a module's value.
    pub encoding: &'static str,
}

/// Function libraries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Libraries {
    /// How many.
    pub count: u64,
    /// Their bytes in the RDB.
    pub serialized_bytes: u64,
}

/// What is in a dataset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// All wanted keys.
    pub all: Tally,
    /// By database.
    pub databases: BTreeMap<u32, Tally>,
    /// Keys of databases that have no row.
    pub other_databases: Tally,
    /// By type and encoding. What a type has in all is the sum of its rows.
    pub encodings: BTreeMap<Encoding, Tally>,
    /// By how long they live from the moment on.
    pub lives: Lives,
    /// By prefix.
    pub prefixes: Prefixes,
    /// The biggest keys, the biggest first.
    pub biggest: Vec<BigKey>,
    /// `None` = only some keys were asked for.
    pub libraries: Option<Libraries>,
}

impl Contents {
    /// By type, those with the most memory first.
    pub fn types(&self) -> Vec<(&str, Tally)> {
        let mut types: BTreeMap<&str, Tally> = BTreeMap::new();
        for (row, tally) in &self.encodings {
            types.entry(&row.type_name).or_default().add_all(tally);
        }
        let mut types: Vec<_> = types.into_iter().collect();
        types.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.memory_bytes));
        types
    }
}

/// Counts keys.
#[derive(Debug)]
pub(super) struct Counter {
    now_ms: i64,
    contents: Contents,
    biggest: Biggest,
    prefixes: Table,
    module_types: usize,
}

impl Counter {
    /// `now_ms`: the moment. `everything`: libraries belong to what was asked for.
    pub(super) fn new(asked: Asked, now_ms: i64, everything: bool) -> Self {
        let contents = Contents { libraries: everything.then(Libraries::default), ..Contents::default() };
        let prefixes = Table::new(asked.depth, asked.separator);
        Self { now_ms, contents, biggest: Biggest::new(asked.top), prefixes, module_types: 0 }
    }

    pub(super) fn add(&mut self, key: &KeyFacts<'_>) {
        self.contents.all.add(key);
        self.contents.lives.add(key, self.now_ms);
        self.biggest.add(key);
        self.prefixes.add(key);
        self.database(key.db).add(key);
        self.encoding(key).add(key);
    }

    pub(super) fn add_library(&mut self, serialized_bytes: u64) {
        if let Some(libraries) = &mut self.contents.libraries {
            libraries.count += 1;
            libraries.serialized_bytes += serialized_bytes;
        }
    }

    fn database(&mut self, db: u32) -> &mut Tally {
        let Contents { databases, other_databases, .. } = &mut self.contents;
        let full = databases.len() >= DATABASES_MAX;
        match databases.entry(db) {
            std::collections::btree_map::Entry::Vacant(_) if full => other_databases,
            entry => entry.or_default(),
        }
    }

    fn encoding(&mut self, key: &KeyFacts<'_>) -> &mut Tally {
        let name = |type_name: &str| Encoding { type_name: type_name.to_owned(), encoding: key.encoding };
        let mut row = name(key.type_name);
        if key.is_module && !self.contents.encodings.contains_key(&row) {
            if self.module_types < MODULE_TYPES_MAX {
                self.module_types += 1;
            } else {
                row = name("module");
            }
        }
        self.contents.encodings.entry(row).or_default()
    }

    pub(super) fn finish(self) -> Contents {
        Contents { biggest: self.biggest.finish(), prefixes: self.prefixes.finish(), ..self.contents }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tally::string;
    use super::*;

    fn counted(everything: bool, keys: &[KeyFacts<'_>]) -> Contents {
        let mut counter = Counter::new(Asked { top: 2, depth: 1, separator: b':' }, 1000, everything);
        for key in keys {
            counter.add(key);
        }
        counter.add_library(7);
        counter.finish()
    }

    #[test]
    fn every_key_is_in_each_sum() {
        let list = KeyFacts { type_name: "list", encoding: "quicklist", elements: Some(9), ..string(b"l", 50) };
        let short = KeyFacts { encoding: "embstr", expires_at_ms: Some(5000), ..string(b"a:1", 30) };
        let far = KeyFacts { db: 7, ..string(b"a:2", 100) };
        let found = counted(true, &[list, short, far]);
        let sum = Tally { keys: 3, with_ttl: 1, memory_bytes: 180, serialized_bytes: 90, elements: 9 };
        assert_eq!(found.all, sum);
        let dbs: Vec<_> = found.databases.iter().map(|(db, tally)| (*db, tally.keys)).collect();
        assert_eq!(dbs, [(0, 2), (7, 1)]);
        let types: Vec<_> = found.types().into_iter().map(|(name, tally)| (name, tally.memory_bytes)).collect();
        assert_eq!(types, [("string", 130), ("list", 50)]);
        assert_eq!((found.encodings.len(), found.lives.forever.keys, found.lives.classes[1].keys), (3, 2, 1));
        assert_eq!((found.prefixes.rows[0].tally.memory_bytes, found.prefixes.none.keys), (130, 1));
        assert_eq!(found.biggest.iter().map(|key| key.memory_bytes).collect::<Vec<_>>(), [100, 50]);
        assert_eq!(found.libraries, Some(Libraries { count: 1, serialized_bytes: 7 }));
        assert_eq!(counted(false, &[list]).libraries, None);
    }

    #[test]
    fn tables_that_are_full_count_the_rest_together() {
        let names = ["one------", "two------", "three----", "one------"];
        let keys: Vec<KeyFacts<'_>> = (0..names.len())
            .map(|n| KeyFacts {
                db: n as u32 * 2,
                type_name: names[n],
                is_module: true,
                encoding: "module",
                ..string(b"k", 1)
            })
            .collect();
        let found = counted(false, &keys);
        let types: Vec<_> = found.types().into_iter().map(|(name, tally)| (name, tally.keys)).collect();
        assert_eq!(types.len(), 3);
        assert!(types.contains(&("one------", 2)) && types.contains(&("module", 1)), "{types:?}");
        let more = [KeyFacts { db: 99, ..string(b"k", 1) }, KeyFacts { db: 0, ..string(b"k", 1) }];
        let found = counted(false, &[&keys[..], &more].concat());
        assert_eq!((found.databases.len(), found.other_databases.keys, found.databases[&0].keys), (4, 1, 2));
    }
}
