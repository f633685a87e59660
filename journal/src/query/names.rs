//! Keys by name: exact ones, in any database or in one, and patterns.

use std::collections::{BTreeSet, HashMap, HashSet};

use regex::bytes::{RegexSet, RegexSetBuilder};

use super::glob::{literal, to_regex};

/// Upper bound of a compiled set of patterns.
const COMPILED_LIMIT_BYTES: usize = 64 << 20;

/// A set of keys: however many they are, a key costs one look. Memory: about 60 bytes for each beside its own.
type Keys = HashSet<Box<[u8]>>;

/// See the module. Of several names, any.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    /// In any database. Globs that match one key only are here, too.
    anywhere: Keys,
    /// In this database alone.
    in_db: HashMap<u32, Keys>,
    patterns: Option<RegexSet>,
}

impl Names {
    /// Compiles globs and regular expressions.
    pub(super) fn new<G: AsRef<[u8]>>(globs: &[G], regexes: &[String]) -> Result<Self, regex::Error> {
        let mut names = Self::default();
        let mut patterns = regexes.to_vec();
        for glob in globs.iter().map(AsRef::as_ref) {
            match literal(glob) {
                Some(key) => names.add(None, key.into()),
                None => patterns.push(to_regex(glob)),
            }
        }
        if !patterns.is_empty() {
            names.patterns = Some(RegexSetBuilder::new(&patterns).size_limit(COMPILED_LIMIT_BYTES).build()?);
        }
        Ok(names)
    }

    /// Adds a key: of this database alone, if one is named.
    pub(super) fn add(&mut self, db: Option<u32>, key: Box<[u8]>) {
        let keys = match db {
            None => &mut self.anywhere,
            Some(db) => self.in_db.entry(db).or_default(),
        };
        keys.insert(key);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.patterns.is_none() && self.anywhere.is_empty() && self.in_db.is_empty()
    }

    pub(super) fn has(&self, db: u32, key: &[u8]) -> bool {
        self.anywhere.contains(key)
            || self.in_db.get(&db).is_some_and(|keys| keys.contains(key))
            || self.patterns.as_ref().is_some_and(|patterns| patterns.is_match(key))
    }

    /// The databases in which a key can be named; `None` = in any.
    pub(super) fn databases(&self) -> Option<BTreeSet<u32>> {
        let anywhere = self.patterns.is_some() || !self.anywhere.is_empty();
        (!anywhere).then(|| self.in_db.keys().copied().collect())
    }

    /// A key of this database can be named.
    pub(super) fn may_be_in(&self, db: u32) -> bool {
        self.patterns.is_some() || !self.anywhere.is_empty() || self.in_db.contains_key(&db)
    }

    /// How many keys are named, those of several databases once for each.
    pub(super) fn count(&self) -> usize {
        self.anywhere.len() + self.in_db.values().map(HashSet::len).sum::<usize>()
    }

    pub(super) fn patterns(&self) -> usize {
        self.patterns.as_ref().map_or(0, RegexSet::len)
    }

    /// The keys of any database.
    pub(super) fn anywhere(&self) -> impl Iterator<Item = &[u8]> {
        self.anywhere.iter().map(|key| &key[..])
    }

    /// The keys of one database alone; those of any database are left out.
    pub(super) fn in_db(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let all = self.in_db.iter().flat_map(|(db, keys)| keys.iter().map(move |key| (*db, &key[..])));
        all.filter(|(_, key)| !self.anywhere.contains(*key))
    }

    /// Adds what is named to a digest, in an order of its own.
    pub(super) fn digest(&self, hasher: &mut blake3::Hasher) {
        let mut add = |kind: &str, db: u32, names: &mut Vec<&[u8]>| {
            names.sort_unstable();
            hasher.update(format!("{kind} {db} {}:", names.len()).as_bytes());
            for name in names {
                hasher.update(&(name.len() as u64).to_le_bytes()).update(name);
            }
        };
        add("anywhere", 0, &mut self.anywhere().collect());
        let dbs: BTreeSet<u32> = self.in_db.keys().copied().collect();
        for db in dbs {
            let keys = self.in_db.get(&db).into_iter().flatten();
            add("in db", db, &mut keys.map(|key| &key[..]).collect());
        }
        let patterns = self.patterns.iter().flat_map(RegexSet::patterns);
        add("patterns", 0, &mut patterns.map(String::as_bytes).collect());
    }
}
