//! Which keys are wanted: by name, database, and type of value.
//!
//! Within one kind any is enough; between kinds all must hold; exclusions come last:
//!
//! ```text
//! wanted = (no names are given, or one fits) and (no databases, or one fits) and (no types, or one fits) and no exclusion fits
//! ```
//!
//! Exact keys, globs and regular expressions are one kind, the names. A key may be named in one database alone: then only that
//! pair fits. Globs follow Redis and match the whole key; a regular expression matches anywhere in it.
//!
//! The type of a value is not known where a journal is read: [`Filter::wants`] is about names and databases, and who has the value
//! asks [`Filter::wants_type`] as well.
//!
//! It stands in the journal, with its dependency on `regex`, as whatever reads a journal asks for keys in this way: the
//! log, a restore, and what else chooses a part of the history. A copy is cheap: the names are shared.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::names::{Names, hash_bytes, hash_sorted};

/// What is wanted; the default is everything.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    names: Arc<Names>,
    excluded: Arc<Names>,
    dbs: BTreeSet<u32>,
    /// In lower case.
    types: BTreeSet<String>,
}

/// Patterns that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option} cannot be used: {why}")]
pub struct FilterError {
    pub(super) option: &'static str,
    pub(super) why: String,
}

/// Keys that are wanted, each once, in the order of their bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExactKeys<'a> {
    /// In each database that is wanted.
    pub anywhere: Vec<&'a [u8]>,
    /// In this database alone.
    pub in_db: Vec<(u32, &'a [u8])>,
}

impl<'a> ExactKeys<'a> {
    /// Each with its database, where these are all databases that are wanted.
    pub fn with_databases(&self, dbs: impl IntoIterator<Item = u32>) -> Vec<(u32, &'a [u8])> {
        let anywhere = dbs.into_iter().flat_map(|db| self.anywhere.iter().map(move |key| (db, *key)));
        anywhere.chain(self.in_db.iter().copied()).collect()
    }
}

impl Filter {
    /// Compiles the patterns.
    pub fn new<G: AsRef<[u8]>>(globs: &[G], regexes: &[String], dbs: &[u32]) -> Result<Self, FilterError> {
        let option = if regexes.is_empty() { "--key" } else { "--key-regex" };
        let names = Names::new(globs, regexes).map_err(|e| FilterError { option, why: e.to_string() })?;
        Ok(Self { names: Arc::new(names), dbs: dbs.iter().copied().collect(), ..Self::default() })
    }

    /// Wants this key as well: in this database alone, if one is named.
    pub fn add_key(&mut self, db: Option<u32>, key: impl Into<Box<[u8]>>) {
        Arc::make_mut(&mut self.names).add(db, key.into());
    }

    /// Wants these keys as well, in whichever database.
    #[must_use]
    pub fn and_exact_keys<K: Into<Box<[u8]>>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        for key in keys {
            self.add_key(None, key);
        }
        self
    }

    /// Does not want keys that match one of these globs.
    pub fn excluding<G: AsRef<[u8]>>(mut self, globs: &[G]) -> Result<Self, FilterError> {
        let option = "--exclude-key";
        let excluded = Names::new(globs, &[]).map_err(|e| FilterError { option, why: e.to_string() })?;
        self.excluded = Arc::new(excluded);
        Ok(self)
    }

    /// Wants only values of these types, as `TYPE` names them, in any case.
    #[must_use]
    pub fn of_types<T: AsRef<str>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.types = types.into_iter().map(|name| name.as_ref().to_ascii_lowercase()).collect();
        self
    }

    /// Wants everything.
    pub fn is_everything(&self) -> bool {
        !self.looks_at_names() && self.dbs.is_empty() && self.types.is_empty()
    }

    /// Only keys of certain names are wanted.
    pub fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    /// Whether a key is wanted depends on its name.
    pub fn looks_at_names(&self) -> bool {
        self.has_names() || !self.excluded.is_empty()
    }

    /// Whether a key is wanted depends on the type of its value.
    pub fn looks_at_types(&self) -> bool {
        !self.types.is_empty()
    }

    /// All keys that are wanted; `None` where they cannot be listed, as a pattern may match any number of them, or they are not
    /// chosen by name, or more than `limit` are named.
    pub fn exact_keys(&self, limit: usize) -> Option<ExactKeys<'_>> {
        if !self.has_names() || self.names.patterns() > 0 || self.names.count() > limit {
            return None;
        }
        // An exclusion holds in every database.
        let mut anywhere: Vec<&[u8]> = self.names.anywhere().filter(|key| !self.excludes(key)).collect();
        let mut in_db: Vec<(u32, &[u8])> = self.names.in_db().filter(|(db, key)| self.wants(*db, key)).collect();
        anywhere.sort_unstable();
        in_db.sort_unstable();
        Some(ExactKeys { anywhere, in_db })
    }

    /// Beginnings of which each wanted key has one, in the order of their bytes, none of them the beginning of another; `None`
    /// where a wanted key may begin with anything, or more than `limit` names are given. An exact key is its own.
    pub fn prefixes(&self, limit: usize) -> Option<Vec<&[u8]>> {
        if self.has_names() { self.names.prefixes(limit) } else { None }
    }

    /// What is wanted, as a short text that is the same for the same names, databases, types and exclusions in any order, and
    /// another one for any other.
    pub fn canonical(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        self.names.hash(&mut hasher);
        self.excluded.hash(&mut hasher);
        hash_sorted(&mut hasher, self.dbs.iter(), |hasher, db| hash_bytes(hasher, &db.to_le_bytes()));
        hash_sorted(&mut hasher, self.types.iter(), |hasher, name| hash_bytes(hasher, name.as_bytes()));
        hasher.finalize().to_hex().to_string()
    }

    /// The databases of which keys are wanted; `None` = any.
    pub fn databases(&self) -> Option<BTreeSet<u32>> {
        let named = if self.has_names() { self.names.databases() } else { None };
        match named {
            Some(named) if self.dbs.is_empty() => Some(named),
            Some(named) => Some(&named & &self.dbs),
            None => (!self.dbs.is_empty()).then(|| self.dbs.clone()),
        }
    }

    /// A key of this database may be wanted.
    pub fn wants_db(&self, db: u32) -> bool {
        self.is_in_dbs(db) && (!self.has_names() || self.names.may_be_in(db))
    }

    /// Wants this key of this database, if the type of its value is wanted.
    pub fn wants(&self, db: u32, key: &[u8]) -> bool {
        self.is_in_dbs(db) && (!self.has_names() || self.names.has(db, key)) && !self.excludes(key)
    }

    /// Wants values of this type, as `TYPE` names it.
    pub fn wants_type(&self, name: &str) -> bool {
        self.types.is_empty() || self.types.contains(&name.to_ascii_lowercase())
    }

    fn is_in_dbs(&self, db: u32) -> bool {
        self.dbs.is_empty() || self.dbs.contains(&db)
    }

    fn excludes(&self, key: &[u8]) -> bool {
        // Exclusions are globs: they name no database.
        !self.excluded.is_empty() && self.excluded.has(0, key)
    }
}

/// What it asks for, without a key: `3 keys, 1 pattern; databases 0, 3; types hash, list (looked at after the replay)`.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.has_names() {
            parts.push(names(&self.names));
        }
        if !self.dbs.is_empty() {
            let dbs: Vec<String> = self.dbs.iter().map(u32::to_string).collect();
            parts.push(format!("{} {}", if dbs.len() == 1 { "database" } else { "databases" }, dbs.join(", ")));
        }
        if self.looks_at_types() {
            let types: Vec<&str> = self.types.iter().map(String::as_str).collect();
            let word = if types.len() == 1 { "type" } else { "types" };
            parts.push(format!("{word} {} (looked at after the replay)", types.join(", ")));
        }
        if !self.excluded.is_empty() {
            parts.push(format!("without {}", names(&self.excluded)));
        }
        f.write_str(if parts.is_empty() { "everything" } else { "" })?;
        f.write_str(&parts.join("; "))
    }
}

fn names(names: &Names) -> String {
    let count = |n: usize, what: &str| (n > 0).then(|| format!("{n} {what}{}", if n == 1 { "" } else { "s" }));
    let parts = [count(names.count(), "key"), count(names.patterns(), "pattern")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
