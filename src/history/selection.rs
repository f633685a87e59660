//! Which writes are wanted: pure, over groups and records.
//!
//! A group is wanted when its origin is, and one of its records. A record is wanted by its command and by what it touches:
//! what touches every key (`FLUSHALL`, `SWAPDB`) touches the wanted one, and what may touch it (a script of an old server, a
//! module's command without known keys) is not hidden.

use std::collections::BTreeSet;

use redtape_journal::query::{Filter, NamePatterns, client_names};
use redtape_journal::{Group, Micros, Origin, OriginKind, Record};
use redtape_wire::effect::{KeyScope, key_scope};

use super::describe::{Cause, Change, change};
use crate::exit::{Failure, USAGE};
use crate::output::shown_key;

/// In these databases a key is searched if none is named: those that a server has by default.
const DATABASES: std::ops::Range<u32> = 0..16;

/// What is asked for; of each kind alternatives, and nothing = all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// Globs.
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) exact_keys: Vec<Vec<u8>>,
    pub(crate) dbs: BTreeSet<u32>,
    /// Patterns, as [`NamePatterns`] has them; those of clients and users as well.
    pub(crate) commands: Vec<String>,
    pub(crate) clients: Vec<String>,
    pub(crate) users: Vec<String>,
    pub(crate) origins: Vec<OriginKind>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Selection {
    wanted: Wanted,
    /// Keys alone.
    keys: Filter,
    commands: NamePatterns,
    clients: NamePatterns,
    users: NamePatterns,
}

/// What a record did to a wanted key; without a key, to all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyChange {
    pub(crate) db: Option<u32>,
    pub(crate) key: Option<Vec<u8>>,
    /// One of a fixed set of words.
    pub(crate) word: &'static str,
    /// The words for a person.
    pub(crate) what: String,
}

impl Selection {
    pub(crate) fn new(wanted: Wanted) -> anyhow::Result<Self> {
        let usage = |e| Failure::new(USAGE, e);
        let keys = Filter::new(&wanted.keys, &[], &[]).map_err(usage)?;
        let keys = keys.and_exact_keys(wanted.exact_keys.iter().cloned());
        let commands = NamePatterns::ignoring_case(&wanted.commands).map_err(usage)?;
        let clients = NamePatterns::new(&wanted.clients).map_err(usage)?;
        let users = NamePatterns::new(&wanted.users).map_err(usage)?;
        Ok(Self { wanted, keys, commands, clients, users })
    }

    /// Whether the group is wanted, for one of its records.
    pub(crate) fn wants(&self, group: &Group) -> bool {
        self.wants_origin(&group.origin) && group.records.iter().any(|record| self.wants_record(group, record))
    }

    /// Whether the record is wanted; its group's origin is.
    pub(crate) fn wants_record(&self, group: &Group, record: &Record) -> bool {
        self.wants_command(group, record) && self.wants_scope(record)
    }

    pub(crate) fn wants_origin(&self, origin: &Origin) -> bool {
        let origins = &self.wanted.origins;
        // What has no client has no name of one.
        let user = Some(origin.user.as_str()).filter(|user| !user.is_empty());
        (origins.is_empty() || origins.contains(&origin.kind))
            && self.users.wants(user.as_slice())
            && self.wants_client(origin)
    }

    fn wants_client(&self, origin: &Origin) -> bool {
        if self.clients.is_everything() {
            return true;
        }
        let names: Vec<&str> = client_names(&origin.addr, &origin.name).collect();
        self.clients.wants(&names)
    }

    /// As it took effect, or as the client sent it.
    fn wants_command(&self, group: &Group, record: &Record) -> bool {
        if self.commands.is_everything() {
            return true;
        }
        let name = record.args.first().map_or(&b""[..], |name| name);
        self.commands.wants(&[&String::from_utf8_lossy(name), &group.origin.via])
    }

    fn wants_scope(&self, record: &Record) -> bool {
        let dbs = &self.wanted.dbs;
        if !self.has_keys() && dbs.is_empty() {
            return true;
        }
        let args = arguments(record);
        let scope = key_scope(record.db, &args, record.keys.as_deref());
        match &scope {
            KeyScope::Keys(keys) => {
                let here = |(db, key): &(u32, &[u8])| self.wants_db(*db) && self.keys.wants_key(key);
                // What touches no key at all (PUBLISH) belongs to the database in which it ran.
                keys.iter().any(here) || keys.is_empty() && !self.has_keys() && self.wants_db(record.db)
            }
            _ => dbs.is_empty() || dbs.iter().any(|db| scope.may_be_in(*db)),
        }
    }

    fn wants_db(&self, db: u32) -> bool {
        self.wanted.dbs.is_empty() || self.wanted.dbs.contains(&db)
    }

    /// The keys to search for, if only certain ones are wanted.
    pub(crate) fn search(&self) -> Option<Vec<(u32, &[u8])>> {
        let keys = self.keys.exact_keys()?;
        let dbs: Vec<u32> =
            if self.wanted.dbs.is_empty() { DATABASES.collect() } else { self.wanted.dbs.iter().copied().collect() };
        Some(dbs.iter().flat_map(|db| keys.iter().map(|key| (*db, *key))).collect())
    }

    /// [`Self::search`] looks into the databases that a server has by default, and no others.
    pub(crate) fn search_is_limited(&self) -> bool {
        self.wanted.dbs.is_empty() && self.keys.exact_keys().is_some()
    }

    /// Only certain keys are wanted.
    pub(crate) fn has_keys(&self) -> bool {
        self.keys.has_key_patterns()
    }

    /// The one key that is wanted.
    pub(crate) fn only_key(&self) -> Option<&[u8]> {
        let [key] = self.keys.exact_keys()?[..] else { return None };
        Some(key)
    }

    /// What a wanted record did to the wanted keys.
    pub(crate) fn done(&self, group: &Group, record: &Record) -> Vec<KeyChange> {
        if !self.has_keys() {
            return Vec::new();
        }
        let args = arguments(record);
        let cause = match group.origin.kind {
            OriginKind::Expiry => Cause::Expiry,
            OriginKind::Eviction => Cause::Eviction,
            _ => Cause::Asked,
        };
        let one = |db: Option<u32>, key: Option<&[u8]>, change: &Change<'_>| KeyChange {
            db,
            key: key.map(<[u8]>::to_vec),
            word: change.word(),
            what: change.display(shown_key, |us| Micros(us).to_string()).to_string(),
        };
        let exact = self.keys.exact_keys();
        let all = |db: Option<u32>| {
            let change = change(cause, record.db, &args, db.unwrap_or(record.db), &[]);
            match &exact {
                Some(keys) => keys.iter().map(|key| one(db, Some(key), &change)).collect(),
                None => vec![one(db, None, &change)],
            }
        };
        match key_scope(record.db, &args, record.keys.as_deref()) {
            KeyScope::Keys(mut keys) => {
                keys.retain(|(db, key)| self.wants_db(*db) && self.keys.wants_key(key));
                let mut done: Vec<KeyChange> = Vec::new();
                for (db, key) in keys {
                    let next = one(Some(db), Some(key), &change(cause, record.db, &args, db, key));
                    if !done.contains(&next) {
                        done.push(next);
                    }
                }
                done
            }
            KeyScope::Databases(dbs) => {
                dbs.iter().filter(|db| self.wants_db(**db)).flat_map(|db| all(Some(*db))).collect()
            }
            KeyScope::Everything | KeyScope::Unknown => all(None),
        }
    }
}

fn arguments(record: &Record) -> Vec<&[u8]> {
    record.args.iter().map(|arg| &arg[..]).collect()
}

#[cfg(test)]
#[path = "selection_tests.rs"]
mod tests;
