//! Which writes are wanted: pure, over groups and records.
//!
//! A group is wanted when its origin is, and one of its records. A record is wanted by its command and by what it touches:
//! what touches every key (`FLUSHALL`, `SWAPDB`) touches the wanted one, and what may touch it (a script of an old server, a
//! module's command without known keys) is not hidden. A key may be wanted under a former name, up to a point in time
//! ([`FormerNames`]).

use std::collections::BTreeSet;

use redtape_journal::query::{ExactKeys, Filter, LinePatterns, NamePatterns, OriginKinds, client_names};
use redtape_journal::{Group, Lsn, Micros, Origin, OriginKind, Record};
use redtape_wire::effect::{KeyScope, key_scope};

use super::command_line::matches_line;
use super::describe::{Cause, Change, change};
use super::fields::may_touch_fields;
use super::former_names::FormerNames;
use super::key_search::{SEARCHED_KEYS_MAX, search_pairs};
use crate::exit::{Failure, USAGE};
use crate::output::shown_key;

/// What is asked for; of each kind alternatives, and nothing = all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// Which keys; types of values are not known here.
    pub(crate) keys: Filter,
    /// Patterns, as [`NamePatterns`] has them; those of clients and users as well.
    pub(crate) commands: Vec<String>,
    pub(crate) clients: Vec<String>,
    pub(crate) users: Vec<String>,
    pub(crate) origins: Vec<String>,
    /// Regular expressions over commands with their arguments.
    pub(crate) lines: Vec<String>,
    /// Fields and members of the wanted keys.
    pub(crate) fields: Vec<Vec<u8>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Selection {
    wanted: Wanted,
    /// The databases of wanted keys; `None` = any.
    dbs: Option<BTreeSet<u32>>,
    /// The name of the only key that is wanted.
    only: Option<Vec<u8>>,
    commands: NamePatterns,
    clients: NamePatterns,
    users: NamePatterns,
    origins: OriginKinds,
    lines: Option<LinePatterns>,
    /// Of `wanted.keys`: these names only up to some record.
    former: Option<FormerNames>,
}

/// A key that a write touched; without a database, in whichever it was.
pub(crate) type TouchedKey<'a> = (Option<u32>, &'a [u8]);

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
        let commands = NamePatterns::ignoring_case(&wanted.commands).map_err(usage)?;
        let clients = NamePatterns::new(&wanted.clients).map_err(usage)?;
        let users = NamePatterns::new(&wanted.users).map_err(usage)?;
        let lines = LinePatterns::new(&wanted.lines).map_err(usage)?;
        let origins = OriginKinds::of_patterns(&wanted.origins).map_err(|e| Failure::new(USAGE, e))?;
        if !wanted.fields.is_empty() && !wanted.keys.has_names() {
            let why = "--field needs to know of which keys: add --key, --exact-key, --keys-from or --key-regex";
            return Err(Failure::new(USAGE, why).into());
        }
        let (dbs, only) = (wanted.keys.databases(), only_name(&wanted.keys));
        Ok(Self { wanted, dbs, only, commands, clients, users, origins, lines, former: None })
    }

    /// The same, with the names that the keys had before.
    pub(crate) fn with_former_names(mut self, former: FormerNames) -> Self {
        self.wanted.keys = former.filter();
        self.dbs = self.wanted.keys.databases();
        // Each write says which of the names it means.
        self.only = None;
        self.former = Some(former);
        self
    }

    /// The keys that are asked for, without a former name yet; `None` = not all of them are named.
    pub(crate) fn asked_keys(&self) -> Option<FormerNames> {
        FormerNames::of(&self.wanted.keys, SEARCHED_KEYS_MAX)
    }

    /// Whether the group is wanted, for one of its records.
    pub(crate) fn wants(&self, group: &Group) -> bool {
        self.wants_origin(&group.origin) && group.records.iter().any(|record| self.wants_record(group, record))
    }

    /// Whether the record is wanted; its group's origin is.
    pub(crate) fn wants_record(&self, group: &Group, record: &Record) -> bool {
        self.wants_command(group, record)
            && self.wants_scope(record)
            && (self.wanted.fields.is_empty() || self.wants_fields(record))
            && self.lines.as_ref().is_none_or(|lines| matches_line(lines, record))
    }

    pub(crate) fn wants_origin(&self, origin: &Origin) -> bool {
        // What has no client has no name of one.
        let user = Some(origin.user.as_str()).filter(|user| !user.is_empty());
        self.origins.wants(origin.kind) && self.users.wants(user.as_slice()) && self.wants_client(origin)
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
        let (name, via) = (String::from_utf8_lossy(name), group.origin.via.as_str());
        let names = [&*name, via];
        self.commands.wants(if via.is_empty() { &names[..1] } else { &names })
    }

    /// Whether a key is wanted, in this record.
    pub(super) fn wants_key(&self, lsn: Lsn, db: u32, key: &[u8]) -> bool {
        self.wanted.keys.wants(db, key) && self.former.as_ref().is_none_or(|former| former.is_wanted(lsn, db, key))
    }

    fn wants_fields(&self, record: &Record) -> bool {
        let wanted = |db: u32, key: &[u8]| self.wants_key(record.lsn, db, key);
        may_touch_fields(record, &self.wanted.fields, wanted)
    }

    fn wants_scope(&self, record: &Record) -> bool {
        let filter = &self.wanted.keys;
        if !filter.looks_at_names() && self.dbs.is_none() {
            return true;
        }
        let args = arguments(record);
        let scope = key_scope(record.db, &args, record.keys.as_deref());
        match &scope {
            KeyScope::Keys(keys) => {
                // What touches no key at all (PUBLISH) belongs to the database in which it ran.
                keys.iter().any(|(db, key)| self.wants_key(record.lsn, *db, key))
                    || keys.is_empty() && !self.has_keys() && filter.wants_db(record.db)
            }
            _ => match &self.former {
                Some(former) => former.may_concern(record.lsn, &scope),
                None => self.dbs.as_ref().is_none_or(|dbs| dbs.iter().any(|db| scope.may_be_in(*db))),
            },
        }
    }

    fn exact_keys(&self) -> Option<ExactKeys<'_>> {
        self.wanted.keys.exact_keys(SEARCHED_KEYS_MAX)
    }

    /// Those that are wanted in this record.
    fn exact_keys_at(&self, lsn: Lsn) -> Option<ExactKeys<'_>> {
        let mut keys = self.exact_keys()?;
        if let Some(former) = &self.former {
            keys.in_db.retain(|(db, key)| former.is_wanted(lsn, *db, key));
        }
        Some(keys)
    }

    /// The keys to search for, if only certain ones are wanted.
    pub(crate) fn search(&self) -> Option<Vec<(u32, &[u8])>> {
        search_pairs(&self.wanted.keys, SEARCHED_KEYS_MAX)
    }

    /// [`Self::search`] looks into the databases that a server has by default, and no others.
    pub(crate) fn search_is_limited(&self) -> bool {
        self.dbs.is_none() && self.exact_keys().is_some()
    }

    /// Only certain keys are wanted.
    pub(crate) fn has_keys(&self) -> bool {
        self.wanted.keys.has_names()
    }

    /// The one key that is wanted.
    pub(crate) fn only_key(&self) -> Option<&[u8]> {
        self.only.as_deref()
    }

    /// The wanted keys that a record touches, or may touch; `None` = they cannot be listed.
    pub(crate) fn touched<'a>(&'a self, record: &'a Record) -> Option<Vec<TouchedKey<'a>>> {
        let args: Vec<&[u8]> = arguments(record);
        match key_scope(record.db, &args, record.keys.as_deref()) {
            KeyScope::Keys(keys) => {
                let mut touched: Vec<TouchedKey<'_>> = Vec::new();
                for (db, key) in keys.into_iter().filter(|(db, key)| self.wants_key(record.lsn, *db, key)) {
                    touched.push((Some(db), key));
                }
                touched.sort_unstable();
                touched.dedup();
                Some(touched)
            }
            KeyScope::Databases(dbs) => {
                let keys = self.exact_keys_at(record.lsn)?;
                let dbs: Vec<u32> = dbs.into_iter().filter(|db| self.wanted.keys.wants_db(*db)).collect();
                let keys = keys.with_databases(dbs.iter().copied()).into_iter().filter(|(db, _)| dbs.contains(db));
                Some(keys.map(|(db, key)| (Some(db), key)).collect())
            }
            KeyScope::Everything | KeyScope::Unknown => {
                let keys = self.exact_keys_at(record.lsn)?;
                let in_db = keys.in_db.into_iter().map(|(db, key)| (Some(db), key));
                match &self.dbs {
                    None => Some(keys.anywhere.into_iter().map(|key| (None, key)).chain(in_db).collect()),
                    Some(dbs) => {
                        let each = dbs.iter().flat_map(|db| keys.anywhere.iter().map(|key| (Some(*db), *key)));
                        Some(each.chain(in_db).collect())
                    }
                }
            }
        }
    }

    /// The same of all wanted records of a group.
    pub(crate) fn touched_by<'a>(&'a self, group: &'a Group) -> Option<Vec<TouchedKey<'a>>> {
        let wanted = group.records.iter().filter(|record| self.wants_record(group, record));
        let keys: Option<Vec<_>> = wanted.map(|record| self.touched(record)).collect();
        let mut keys = keys?.concat();
        keys.sort_unstable();
        keys.dedup();
        Some(keys)
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
        let all = |db: Option<u32>| {
            let change = change(cause, record.db, &args, db.unwrap_or(record.db), &[]);
            let Some(keys) = self.exact_keys_at(record.lsn) else { return vec![one(db, None, &change)] };
            let anywhere = keys.anywhere.iter().map(|key| one(db, Some(key), &change));
            let here = keys.in_db.iter().filter(|(of, _)| db.is_none_or(|db| db == *of));
            anywhere.chain(here.map(|(of, key)| one(Some(*of), Some(key), &change))).collect()
        };
        match key_scope(record.db, &args, record.keys.as_deref()) {
            KeyScope::Keys(mut keys) => {
                keys.retain(|(db, key)| self.wants_key(record.lsn, *db, key));
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
                dbs.iter().filter(|db| self.wanted.keys.wants_db(**db)).flat_map(|db| all(Some(*db))).collect()
            }
            KeyScope::Everything | KeyScope::Unknown => all(None),
        }
    }
}

fn only_name(filter: &Filter) -> Option<Vec<u8>> {
    let keys = filter.exact_keys(SEARCHED_KEYS_MAX)?;
    let mut names = keys.anywhere.into_iter().chain(keys.in_db.into_iter().map(|(_, key)| key));
    let first = names.next()?;
    names.all(|key| key == first).then(|| first.to_vec())
}

fn arguments(record: &Record) -> Vec<&[u8]> {
    record.args.iter().map(|arg| &arg[..]).collect()
}

#[cfg(test)]
#[path = "selection_tests.rs"]
mod tests;
