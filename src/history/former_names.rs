//! The names that keys had before (`--through-renames`).
//!
//! Backwards from the end of the range: at `RENAME a k` the value of `k` was that of `a`, so what was written to `a` up to there
//! was written to what `k` became. What is asked for stays wanted under its own name all the time, so that nothing is hidden
//! which is shown without the option.
//!
//! | passed backwards | wanted from there back |
//! | --- | --- |
//! | `RENAME`, `RENAMENX`, `COPY`, `MOVE` to a wanted key | its source |
//! | `SWAPDB` | each wanted key of both databases, in the other one |
//!
//! `RESTORE` brings a value from elsewhere, and results (`SUNIONSTORE`, `SORT … STORE`) are values of their own.

use std::collections::{BTreeSet, HashMap};

use redtape_journal::query::Filter;
use redtape_journal::{Lsn, Record};
use redtape_wire::command::{NAME_MAX, lower_name};
use redtape_wire::effect::{KeyScope, copied_to};

/// Former names that are followed; a chain that is longer is cut, and that is said.
const FORMER_NAMES_MAX: usize = 1024;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct FormerNames {
    /// What was asked for: names alone, each in any database or in one.
    asked: Filter,
    /// The databases of that; `None` = any.
    asked_dbs: Option<BTreeSet<u32>>,
    /// Databases and names, and the last record in which they are wanted.
    upto: HashMap<(u32, Vec<u8>), Lsn>,
    /// There were more than are followed.
    is_cut: bool,
}

impl FormerNames {
    /// None yet, of a filter that names at most so many keys; `None` = it asks for others, too.
    pub(super) fn of(keys: &Filter, limit: usize) -> Option<Self> {
        let exact = keys.exact_keys(limit)?;
        let dbs = keys.databases();
        let mut asked = Filter::default();
        for key in exact.anywhere {
            match &dbs {
                None => asked.add_key(None, key),
                Some(dbs) => dbs.iter().for_each(|db| asked.add_key(Some(*db), key)),
            }
        }
        for (db, key) in exact.in_db {
            asked.add_key(Some(db), key);
        }
        Some(Self { asked_dbs: asked.databases(), asked, upto: HashMap::new(), is_cut: false })
    }

    /// The keys under all their names.
    pub(super) fn filter(&self) -> Filter {
        let mut all = self.asked.clone();
        for (db, key) in self.upto.keys() {
            all.add_key(Some(*db), &key[..]);
        }
        all
    }

    /// Whether a key of [`Self::filter`] is wanted in this record.
    pub(super) fn is_wanted(&self, lsn: Lsn, db: u32, key: &[u8]) -> bool {
        self.asked.wants(db, key) || self.upto.get(&(db, key.to_vec())).is_some_and(|upto| lsn <= *upto)
    }

    /// Whether a record that touches whole databases touches a wanted key, or may do so.
    pub(super) fn may_concern(&self, lsn: Lsn, scope: &KeyScope<'_>) -> bool {
        self.asked_dbs.as_ref().is_none_or(|dbs| dbs.iter().any(|db| scope.may_be_in(*db)))
            || self.upto.iter().any(|((db, _), upto)| lsn <= *upto && scope.may_be_in(*db))
    }

    /// There were more names than are followed.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.upto.len()
    }

    /// Looks at a record; those behind it were looked at before.
    pub(super) fn pass(&mut self, record: &Record) {
        let args: Vec<&[u8]> = record.args.iter().map(|arg| &arg[..]).collect();
        let number = |at: usize| std::str::from_utf8(args.get(at)?).ok()?.parse::<u32>().ok();
        let (Some(name), Some(&first), Some(&second)) = (args.first(), args.get(1), args.get(2)) else { return };
        let (lsn, db, mut room) = (record.lsn, record.db, [0; NAME_MAX]);
        match lower_name(name, &mut room) {
            b"rename" | b"renamenx" => self.came_from(lsn, (db, first), (db, second)),
            b"copy" => {
                if let Some(to) = copied_to(db, &args) {
                    self.came_from(lsn, (db, first), (to, second));
                }
            }
            b"move" => {
                if let Some(to) = number(2) {
                    self.came_from(lsn, (db, first), (to, first));
                }
            }
            b"swapdb" => {
                if let (Some(a), Some(b)) = (number(1), number(2)) {
                    self.swapped(lsn, a, b);
                }
            }
            _ => {}
        }
    }

    /// The value of the second key was that of the first one.
    fn came_from(&mut self, lsn: Lsn, (from_db, from): (u32, &[u8]), (to_db, to): (u32, &[u8])) {
        if self.is_wanted(lsn, to_db, to) {
            self.add(lsn, from_db, from);
        }
    }

    fn swapped(&mut self, lsn: Lsn, a: u32, b: u32) {
        let wanted = self.filter();
        let Some(keys) = wanted.exact_keys(usize::MAX) else { return };
        for (db, key) in keys.in_db {
            let other = if db == a { b } else { a };
            if (db == a || db == b) && self.is_wanted(lsn, db, key) {
                self.add(lsn, other, key);
            }
        }
    }

    fn add(&mut self, lsn: Lsn, db: u32, key: &[u8]) {
        if self.is_wanted(lsn, db, key) {
            return;
        }
        if self.upto.len() < FORMER_NAMES_MAX {
            self.upto.insert((db, key.to_vec()), lsn);
        } else {
            self.is_cut = true;
        }
    }
}

#[cfg(test)]
#[path = "former_names_tests.rs"]
mod tests;
