//! Classifies one record: selected, spreading the effect, or dependent on it.

use redtape_journal::query::Match;
use redtape_journal::{Group, Lsn, OriginKind, Record};
use redtape_wire::effect::{Dependence, Reading, Touch, TouchedKeys, Writes, dependence, reading, writes};
use redtape_wire::word;

use super::building::{Building, declared};
use super::dependents::{Touches, first};
use super::ends::{Ends, Remover};
use super::selected::{Collector, Facts};
use super::{Affected, Bounds, Meant, Mistake, Samples, Why};
use crate::slice::Lsns;
use crate::target::claim;

/// What was found up to a record.
pub(super) struct State<'a> {
    meant: Meant<'a>,
    bounds: Bounds,
    selected: Collector,
    doubtful: Samples,
    affected: Affected,
    not_judged: Samples,
    expiries: Lsns,
    by_redtape: Lsns,
    earlier: Lsns,
    /// Keys that a command of a module has touched are affected.
    modules: bool,
    ends: Ends,
    /// A selected record wrote keys that are not meant as well, and is left out with them.
    partly: bool,
}

/// Which written keys of a record are selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    None,
    Some,
    All,
}

impl Scope {
    fn of(wanted: usize, all: usize) -> Self {
        match wanted {
            0 => Self::None,
            wanted if wanted < all => Self::Some,
            _ => Self::All,
        }
    }
}

impl<'a> State<'a> {
    pub(super) fn new(meant: Meant<'a>, bounds: Bounds) -> Self {
        Self {
            meant,
            bounds,
            selected: Collector::default(),
            doubtful: Samples::default(),
            affected: Affected::new(meant.filter, bounds),
            not_judged: Samples::default(),
            expiries: Lsns::default(),
            by_redtape: Lsns::default(),
            earlier: Lsns::default(),
            modules: false,
            ends: Ends::default(),
            partly: false,
        }
    }

    pub(super) fn finish(self) -> Mistake {
        Mistake {
            selected: self.selected.finish(&self.bounds),
            doubtful: self.doubtful,
            affected: self.affected,
            not_judged: self.not_judged,
            expiries: self.expiries.finish(),
            by_redtape: self.by_redtape.finish(),
            earlier: self.earlier.finish(),
        }
    }

    pub(super) fn group(&mut self, group: &Group) {
        for record in &group.records {
            self.record(group, record);
        }
    }

    fn record(&mut self, group: &Group, record: &Record) {
        let is = self.is(group, record);
        let is_earlier = self.meant.earlier.records.contains(record.lsn) || self.meant.earlier.wrote(group);
        if is == Match::No && self.affected.is_empty() && !is_earlier {
            return;
        }
        let writes = writes(record.db, &record.args, record.keys.as_deref());
        if is != Match::No && matches!(writes, Writes::Nothing) && changes_functions(record) {
            self.not_judged.add(group, record, Some(Why::Functions), &self.bounds);
            return;
        }
        let scope = if is == Match::No { Scope::None } else { self.scope(record, &writes) };
        if scope != Scope::None {
            let in_doubt = is == Match::Perhaps;
            if !in_doubt || self.is_taken_in(group, record) {
                let facts = Facts { also_others: scope == Scope::Some, in_doubt };
                self.selected.add(group, record, facts, &self.bounds);
                self.partly |= scope == Scope::Some;
                self.select(group, record, &writes);
                self.ends.selected(group, record, &writes);
                return;
            }
            self.doubtful.add(group, record, None, &self.bounds);
        }
        if is_earlier {
            self.earlier.add(record.lsn);
            self.ends.selected(group, record, &writes);
            return;
        }
        if !self.affected.is_empty() {
            self.other(group, record, &writes);
            self.ends.other(record, &writes);
        }
    }

    /// Deletions of expired keys match only by origin.
    fn is(&self, group: &Group, record: &Record) -> Match {
        let Meant { filter, .. } = self.meant;
        if group.origin.kind == OriginKind::Expiry && !filter.names_origin(OriginKind::Expiry) {
            return Match::No;
        }
        filter.matches(group, record)
    }

    /// A write that may match: its origin is unknown, or only its time is uncertain.
    fn is_taken_in(&self, group: &Group, record: &Record) -> bool {
        let at_its_time = || Group { slack: 0, origin: group.origin.clone(), records: Vec::new(), ..*group };
        self.meant.include_unknown
            && (group.origin.kind == OriginKind::Unknown
                || self.meant.filter.matches(&at_its_time(), record) == Match::Yes)
    }

    fn scope(&self, record: &Record, writes: &Writes<'_>) -> Scope {
        let filter = self.meant.filter;
        let by_names = filter.keys.looks_at_names() || filter.excluded_keys.is_some();
        let databases = |dbs: &[u32]| {
            let wanted = dbs.iter().filter(|db| filter.keys.wants_db(**db)).count();
            match Scope::of(wanted, dbs.len()) {
                Scope::All if by_names => Scope::Some,
                scope => scope,
            }
        };
        let everything = if by_names || !filter.keys.is_everything() { Scope::Some } else { Scope::All };
        match writes {
            Writes::Nothing => Scope::None,
            Writes::Keys(keys) => {
                Scope::of(keys.iter().filter(|write| filter.wants_key(write.db, write.key)).count(), keys.len())
            }
            Writes::FlushDb => databases(&[record.db]),
            Writes::SwapDb(a, b) if a == b => Scope::None,
            Writes::SwapDb(a, b) => databases(&[*a, *b]),
            Writes::FlushAll | Writes::Unknown => everything,
            Writes::UnknownOf { keys, others } => {
                let wanted = keys.iter().filter(|(db, key)| filter.wants_key(*db, key)).count();
                match Scope::of(wanted, keys.len()) {
                    Scope::None if *others && !by_names => databases(&[record.db]),
                    scope => scope,
                }
            }
        }
    }

    /// A selected record: the selected keys that it writes are affected.
    fn select(&mut self, group: &Group, record: &Record, writes: &Writes<'_>) {
        let (filter, lsn) = (self.meant.filter, record.lsn);
        match writes {
            Writes::Nothing => {}
            Writes::Keys(keys) => {
                for write in keys.iter().filter(|write| filter.wants_key(write.db, write.key)) {
                    self.affected.add(write.db, write.key, lsn);
                }
            }
            Writes::FlushDb => self.affected.add_meant(record.db, lsn),
            Writes::FlushAll | Writes::Unknown => self.affected.add_meant_everywhere(lsn),
            Writes::SwapDb(a, b) => self.affected.swap_by_mistake(*a, *b, lsn),
            Writes::UnknownOf { keys, others } => {
                for (db, key) in keys.iter().filter(|(db, key)| filter.wants_key(*db, key)) {
                    self.affected.add(*db, key, lsn);
                }
                if *others {
                    self.modules = true;
                    self.not_judged.add(group, record, Some(Why::Module), &self.bounds);
                }
            }
        }
    }

    /// A record that is not selected.
    fn other(&mut self, group: &Group, record: &Record, writes: &Writes<'_>) {
        match group.origin.kind {
            OriginKind::Expiry | OriginKind::Eviction => {
                let expired = group.origin.kind == OriginKind::Expiry;
                if expired && self.writes_affected(writes) {
                    self.expiries.add(record.lsn);
                }
                return;
            }
            OriginKind::Client | OriginKind::Outside | OriginKind::Unknown => {}
        }
        if group.origin.kind == OriginKind::Client
            && group.origin.name.starts_with(claim::NAME)
            && self.writes_affected(writes)
        {
            self.by_redtape.add(record.lsn);
        }
        match self.ends.remover(group, record) {
            Remover::Client => {}
            Remover::Server => {
                self.expiries.add(record.lsn);
                return;
            }
            Remover::Either => {
                self.expiries.add(record.lsn);
                let note = (group, record);
                Building::new(&mut self.affected, &self.bounds, note, Why::MayBeExpiry).note(writes);
                return;
            }
        }
        if let Writes::SwapDb(a, b) = writes {
            self.affected.swap(*a, *b);
        }
        self.pass_on(group, record, writes);
        let partly = self.partly && self.reads_what_is_not_meant(record);
        if let Some(why) = if partly { Some(Why::Partly) } else { why(group, record) } {
            Building::new(&mut self.affected, &self.bounds, (group, record), why).note(writes);
        }
    }

    /// It reads a key outside the selection: an undone write may have written that as well, and is left out as a whole.
    fn reads_what_is_not_meant(&self, record: &Record) -> bool {
        match dependence(record.db, &record.args, record.keys.as_deref()) {
            Dependence::Keys(touched) | Dependence::ReadsOthers(touched) => touched.iter().any(|touched| {
                touched.touch != Touch::Overwritten && !self.meant.filter.wants_key(touched.db, touched.key)
            }),
            Dependence::SwapDb(..) => true,
            _ => false,
        }
    }

    fn writes_affected(&self, writes: &Writes<'_>) -> bool {
        match writes {
            Writes::Keys(keys) => keys.iter().any(|write| self.affected.may_be(write.db, write.key)),
            Writes::UnknownOf { keys, .. } => keys.iter().any(|(db, key)| self.affected.may_be(*db, key)),
            _ => false,
        }
    }

    /// Keys derived from an affected key are affected.
    fn pass_on(&mut self, group: &Group, record: &Record, writes: &Writes<'_>) {
        match dependence(record.db, &record.args, record.keys.as_deref()) {
            Dependence::Keys(touched) => self.pass_on_keys(&touched, false, record.lsn),
            Dependence::ReadsOthers(touched) => self.pass_on_keys(&touched, true, record.lsn),
            Dependence::Unknown => self.pass_on_unknown(group, record, writes),
            _ => {}
        }
    }

    fn pass_on_keys(&mut self, touched: &TouchedKeys<'_>, reads_others: bool, lsn: Lsn) {
        if touched.len() < 2 && !reads_others {
            return;
        }
        let read = |touch: Touch| touch != Touch::Overwritten;
        let sources: Vec<_> =
            touched.iter().filter(|t| read(t.touch) && self.affected.may_be(t.db, t.key)).copied().collect();
        if sources.is_empty() && !reads_others {
            return;
        }
        for to in touched.iter().filter(|t| t.touch != Touch::Read) {
            if sources.len() == 1 && (sources[0].db, sources[0].key) == (to.db, to.key) {
                continue;
            }
            self.affected.add(to.db, to.key, lsn);
            // What was built on the source is in it now.
            let others = sources.iter().filter(|from| (from.db, from.key) != (to.db, to.key));
            let built = others.fold(None, |built, from| first(built, self.affected.first_of(from.db, from.key)));
            if let Some(number) = built {
                self.affected.note(to.db, to.key, Touches::Whole, number);
                self.affected.note(to.db, to.key, Touches::Ttl, number);
            }
        }
    }

    fn pass_on_unknown(&mut self, group: &Group, record: &Record, writes: &Writes<'_>) {
        match writes {
            Writes::UnknownOf { keys, others } => {
                let affected = keys.iter().any(|(db, key)| self.affected.may_be(*db, key));
                if affected || *others && self.modules {
                    self.modules |= *others;
                    keys.iter().for_each(|(db, key)| self.affected.add(*db, key, record.lsn));
                    self.not_judged.add(group, record, Some(Why::Module), &self.bounds);
                }
            }
            Writes::Unknown => {
                for key in declared(record) {
                    self.affected.add(record.db, key, record.lsn);
                }
                self.not_judged.add(group, record, Some(Why::ReadsAnything), &self.bounds);
            }
            // It overwrites, whatever it reads.
            _ => {}
        }
    }
}

/// `FUNCTION LOAD` and the like.
fn changes_functions(record: &Record) -> bool {
    record.args.first().is_some_and(|name| word::is(name, "FUNCTION"))
}

/// Why a record outside the selection may have had another result without the mistake; `None` = it would not.
fn why(group: &Group, record: &Record) -> Option<Why> {
    let origin = &group.origin;
    if matches!(origin.kind, OriginKind::Outside | OriginKind::Unknown) {
        return Some(Why::NoClient);
    }
    match reading(&origin.via, &record.args) {
        Reading::Reads => Some(Why::Reads),
        _ if group.atomic && origin.via.is_empty() => Some(Why::Transaction),
        Reading::Perhaps => Some(Why::MayRead),
        Reading::Blind | Reading::Derives => None,
    }
}
