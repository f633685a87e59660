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
    /// With what keys begin that the globs among the patterns match.
    prefixes: Vec<Vec<u8>>,
    /// A pattern may match keys that begin with anything.
    is_unbounded: bool,
}

impl Names {
    /// Compiles globs and regular expressions.
    pub(super) fn new<G: AsRef<[u8]>>(globs: &[G], regexes: &[String]) -> Result<Self, regex::Error> {
        let mut names = Self { is_unbounded: !regexes.is_empty(), ..Self::default() };
        let mut patterns = regexes.to_vec();
        for glob in globs.iter().map(AsRef::as_ref) {
            match literal(glob) {
                (key, true) => names.add(None, key.into()),
                (prefix, false) => {
                    patterns.push(to_regex(glob));
                    names.is_unbounded |= prefix.is_empty();
                    names.prefixes.push(prefix);
                }
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

    /// Beginnings of which each named key has one, in the order of their bytes, none of them the beginning of another; `None`
    /// where a named key may begin with anything, or there are more than `limit` names. An exact key is its own.
    pub(super) fn prefixes(&self, limit: usize) -> Option<Vec<&[u8]>> {
        if self.is_unbounded || self.count().saturating_add(self.prefixes.len()) > limit {
            return None;
        }
        let exact = self.anywhere().chain(self.in_db().map(|(_, key)| key));
        let mut all: Vec<&[u8]> = self.prefixes.iter().map(Vec::as_slice).chain(exact).collect();
        all.sort_unstable();
        let mut prefixes: Vec<&[u8]> = Vec::with_capacity(all.len());
        for prefix in all {
            // Keys that begin alike stand side by side.
            if prefixes.last().is_none_or(|last| !prefix.starts_with(last)) {
                prefixes.push(prefix);
            }
        }
        // The key without a name begins every other one.
        (!prefixes.iter().any(|prefix| prefix.is_empty())).then_some(prefixes)
    }

    /// Hashes them, in an order that does not depend on that in which they were given.
    pub(super) fn hash(&self, hasher: &mut blake3::Hasher) {
        hash_sorted(hasher, self.anywhere(), hash_bytes);
        hash_sorted(hasher, self.in_db(), |hasher, (db, key)| {
            hasher.update(&db.to_le_bytes());
            hash_bytes(hasher, key);
        });
        let patterns = self.patterns.iter().flat_map(RegexSet::patterns);
        hash_sorted(hasher, patterns, |hasher, pattern| hash_bytes(hasher, pattern.as_bytes()));
    }
}

/// Hashes each of some things once, and how many they are.
pub(super) fn hash_sorted<T: Ord>(
    hasher: &mut blake3::Hasher,
    items: impl Iterator<Item = T>,
    hash: impl Fn(&mut blake3::Hasher, T),
) {
    let mut items: Vec<T> = items.collect();
    items.sort_unstable();
    items.dedup();
    hasher.update(&(items.len() as u64).to_le_bytes());
    for item in items {
        hash(hasher, item);
    }
}

/// Bytes with their length: no two lists of them give the same.
pub(super) fn hash_bytes(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}
