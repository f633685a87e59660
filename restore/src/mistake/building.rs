//! Records what a later write of others depends on.

use redtape_journal::{Group, Record};
use redtape_wire::command::{CommandTable, NAME_MAX, lower_name};
use redtape_wire::effect::{Elements, KeyWrite, Writes};

use super::dependents::{Number, Touches};
use super::selected::sample;
use super::{Affected, Bounds, Why};

/// The keys that a verbatim script declares.
pub(super) fn declared(record: &Record) -> Vec<&[u8]> {
    static TABLE: std::sync::LazyLock<CommandTable> = std::sync::LazyLock::new(CommandTable::builtin);
    let args: Vec<&[u8]> = record.args.iter().map(|arg| &arg[..]).collect();
    let Some(name) = args.first() else { return Vec::new() };
    let mut room = [0; NAME_MAX];
    let Some(spec) = TABLE.get_lower(lower_name(name, &mut room)) else { return Vec::new() };
    // The command table has the keys of scripts and of other commands with keys.
    spec.keys(&args, args.len()).iter().filter_map(|at| args.get(*at).copied()).collect()
}

/// Notes a dependent on the affected keys that it writes.
pub(super) struct Building<'s, 'g> {
    affected: &'s mut Affected,
    bounds: &'s Bounds,
    group: &'g Group,
    record: &'g Record,
    why: Why,
    /// Its number, once it has touched one of them.
    number: Option<Number>,
}

impl<'s, 'g> Building<'s, 'g> {
    pub(super) fn new(
        affected: &'s mut Affected,
        bounds: &'s Bounds,
        (group, record): (&'g Group, &'g Record),
        why: Why,
    ) -> Self {
        Self { affected, bounds, group, record, why, number: None }
    }

    pub(super) fn note(&mut self, writes: &Writes<'_>) {
        match writes {
            Writes::Nothing => {}
            Writes::Keys(keys) => keys.iter().for_each(|write| self.note_write(write)),
            Writes::UnknownOf { keys, .. } => {
                keys.iter().for_each(|(db, key)| self.touch(*db, key, &[Touches::Whole, Touches::Ttl]));
            }
            Writes::FlushDb => self.all(&[self.record.db]),
            Writes::SwapDb(a, b) => self.all(&[*a, *b]),
            Writes::FlushAll => {
                if let Some(number) = self.number() {
                    self.affected.note_everywhere(number);
                }
            }
            Writes::Unknown => {
                for key in declared(self.record) {
                    self.touch(self.record.db, key, &[Touches::Whole, Touches::Ttl]);
                }
            }
        }
    }

    fn note_write(&mut self, write: &KeyWrite<'_>) {
        let (db, key) = (write.db, write.key);
        match &write.elements {
            Elements::None => {}
            Elements::Listed(listed) => {
                listed.iter().for_each(|(element, _)| self.touch(db, key, &[Touches::Element(element)]));
            }
            Elements::Unlisted | Elements::Whole => self.touch(db, key, &[Touches::Whole]),
        }
        // With its last element the key may go, and its TTL: then the elements differ, too.
        if write.ttl.is_some_and(|ttl| !ttl.is_perhaps()) {
            self.touch(db, key, &[Touches::Ttl]);
        }
    }

    fn touch(&mut self, db: u32, key: &[u8], parts: &[Touches<'_>]) {
        if !self.affected.may_be(db, key) {
            return;
        }
        for touches in parts {
            if self.affected.is_noted(db, key, *touches) {
                continue;
            }
            let Some(number) = self.number() else { return };
            self.affected.note(db, key, *touches, number);
        }
    }

    fn all(&mut self, dbs: &[u32]) {
        let Some(number) = self.number() else { return };
        for db in dbs {
            self.affected.note_all(*db, number);
        }
    }

    fn number(&mut self) -> Option<Number> {
        if self.number.is_none() {
            let dependent = sample(self.group, self.record, Some(self.why), self.bounds);
            self.number = self.affected.dependents.add(dependent);
        }
        self.number
    }
}
