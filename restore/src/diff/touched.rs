//! Determines which keys can differ: those written between the two points in time.
//!
//! A key without a write keeps its value, with one exception: its expiry time passes, and the server deletes it later.
//! So deletions within [`EXPIRY_LAG`] after the second point in time count as well.
//!
//! Memory: the keys, of which there are limits ([`KEYS_MAX`], [`BYTES_MAX`]).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use redtape_journal::query::Filter;
use redtape_journal::{Group, Micros, Record};
use redtape_wire::effect::{Elements, KeyWrite, Writes, writes};
use redtape_wire::word;

use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::source::journal_range::{JournalRange, ReplaySource as _};

/// Limit of recorded keys: beyond it, all selected keys are compared.
const KEYS_MAX: usize = 1 << 20;
/// Limit of the size of their names, in bytes.
const BYTES_MAX: usize = 64 << 20;
/// How long after the second point in time deletions count.
const EXPIRY_LAG: Duration = Duration::from_mins(1);
/// Groups between two checks for an interruption.
const LOOK_EVERY: u64 = 4096;

/// The keys that can differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Touched {
    /// These.
    Keys(Vec<(u32, Box<[u8]>)>),
    /// Any selected key, for this reason.
    Any(String),
}

/// Reads the writes between two points in time. `until`: the second one. `libraries`: function libraries are compared,
/// too.
pub(super) fn touched(
    range: &JournalRange,
    filter: &Filter,
    (until, libraries): (Micros, bool),
    interrupt: &Interrupt,
    on_progress: &mut dyn FnMut(u64),
) -> Result<Touched, RestoreError> {
    let mut collector = Collector::new(filter, libraries);
    for (number, group) in (0u64..).zip(range.groups()) {
        let group = group.map_err(|error| RestoreError::unreadable(error, &range.catalog))?;
        collector.group(&group);
        if collector.any.is_some() {
            break;
        }
        if number % LOOK_EVERY == 0 {
            interrupt.check()?;
            let last = group.records.last().map_or(range.after, |record| record.lsn);
            on_progress(last.0.saturating_sub(range.after.0));
        }
    }
    if collector.any.is_none() {
        collector.removals_behind(range, until, interrupt)?;
    }
    Ok(collector.finish())
}

struct Collector<'a> {
    filter: &'a Filter,
    libraries: bool,
    keys: HashMap<u32, HashSet<Box<[u8]>>>,
    count: usize,
    bytes: usize,
    any: Option<String>,
}

impl<'a> Collector<'a> {
    fn new(filter: &'a Filter, libraries: bool) -> Self {
        Self { filter, libraries, keys: HashMap::new(), count: 0, bytes: 0, any: None }
    }

    fn group(&mut self, group: &Group) {
        group.records.iter().for_each(|record| self.record(record));
    }

    fn record(&mut self, record: &Record) {
        match writes(record.db, &record.args, record.keys.as_deref()) {
            Writes::Keys(keys) => keys.iter().filter(|write| changes(write)).for_each(|w| self.key(w.db, w.key)),
            Writes::UnknownOf { keys, others: false } => keys.iter().for_each(|(db, key)| self.key(*db, key)),
            Writes::FlushDb if !self.filter.wants_db(record.db) => {}
            Writes::SwapDb(a, b) if !self.filter.wants_db(a) && !self.filter.wants_db(b) => {}
            Writes::Nothing if self.libraries && named(record, &["FUNCTION"]) => {
                self.all(record, "may have changed function libraries");
            }
            Writes::Nothing => {}
            Writes::FlushDb | Writes::FlushAll | Writes::SwapDb(..) => self.all(record, "touched all of them"),
            Writes::UnknownOf { .. } | Writes::Unknown => self.all(record, "may have touched any of them"),
        }
    }

    fn all(&mut self, record: &Record, what: &str) {
        let name = record.args.first().map(|name| name.to_ascii_uppercase().escape_ascii().to_string());
        let lsn = record.lsn;
        self.any.get_or_insert_with(|| format!("LSN {lsn}, {}, {what}", name.unwrap_or_default()));
    }

    fn key(&mut self, db: u32, key: &[u8]) {
        if self.any.is_some() || !self.filter.wants(db, key) {
            return;
        }
        let keys = self.keys.entry(db).or_default();
        if keys.contains(key) {
            return;
        }
        keys.insert(key.into());
        self.count += 1;
        self.bytes += key.len();
        if self.count > KEYS_MAX || self.bytes > BYTES_MAX {
            self.any = Some(format!("more than {} keys were written in between", self.count - 1));
        }
    }

    /// Deletions shortly after may concern keys that expired before. Unreadable records are ignored there.
    fn removals_behind(
        &mut self,
        range: &JournalRange,
        until: Micros,
        interrupt: &Interrupt,
    ) -> Result<(), RestoreError> {
        let end = until.0.saturating_add(i64::try_from(EXPIRY_LAG.as_micros()).unwrap_or(i64::MAX));
        let behind = range.catalog.groups(range.upto, range.timeline);
        for (number, group) in (0u64..).zip(behind) {
            let Ok(group) = group else { break };
            if group.ts.0 > end {
                break;
            }
            if number % LOOK_EVERY == 0 {
                interrupt.check()?;
            }
            for record in group.records.iter().filter(|record| named(record, &["DEL", "UNLINK", "HDEL"])) {
                self.record(record);
            }
        }
        Ok(())
    }

    fn finish(self) -> Touched {
        if let Some(why) = self.any {
            return Touched::Any(why);
        }
        let of_db = |(db, keys): (u32, HashSet<Box<[u8]>>)| keys.into_iter().map(move |key| (db, key));
        Touched::Keys(self.keys.into_iter().flat_map(of_db).collect())
    }
}

fn changes(write: &KeyWrite<'_>) -> bool {
    write.value.is_some() || write.ttl.is_some() || write.elements != Elements::None
}

fn named(record: &Record, names: &[&str]) -> bool {
    record.args.first().is_some_and(|name| word::is_one_of(name, names))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::journal_range::by_hand::group;

    fn of(filter: &Filter, libraries: bool, lines: &[(u32, &str)]) -> Touched {
        let mut collector = Collector::new(filter, libraries);
        for (line, lsn) in lines.iter().zip(1..) {
            collector.group(&group(lsn, 1, false, &[*line]));
        }
        match collector.finish() {
            Touched::Keys(mut keys) => {
                keys.sort();
                Touched::Keys(keys)
            }
            any @ Touched::Any(_) => any,
        }
    }

    fn keys(all: &[(u32, &str)]) -> Touched {
        Touched::Keys(all.iter().map(|(db, key)| (*db, key.as_bytes().into())).collect())
    }

    #[test]
    fn what_is_written_and_wanted() {
        let all = Filter::default();
        let lines = [(0, "SET a 1"), (0, "SET a 2"), (2, "RENAME b c"), (0, "COPY a d DB 3"), (0, "PEXPIREAT e 5")];
        assert_eq!(of(&all, true, &lines), keys(&[(0, "a"), (0, "e"), (2, "b"), (2, "c"), (3, "d")]));
        assert_eq!(of(&all, true, &[(0, "PUBLISH a b"), (0, "SCRIPT LOAD x")]), keys(&[]));
        let some = Filter::new(&["c*"], &[], &[2]).expect("a filter");
        assert_eq!(of(&some, false, &lines), keys(&[(2, "c")]));
        // Of another database.
        assert_eq!(of(&some, false, &[(0, "FLUSHDB"), (0, "SWAPDB 0 1"), (0, "FUNCTION LOAD x")]), keys(&[]));
    }

    #[test]
    fn where_it_cannot_be_said_all_are_compared() {
        let all = Filter::default();
        for (line, words) in [
            ("FLUSHALL", "LSN 2, FLUSHALL, touched all of them"),
            ("flushdb", "LSN 2, FLUSHDB, touched all of them"),
            ("SWAPDB 0 1", "touched all of them"),
            ("EVAL x 0", "may have touched any of them"),
            ("MODULE.SET x 0", "may have touched any of them"),
            ("FUNCTION LOAD x", "function libraries"),
        ] {
            let Touched::Any(why) = of(&all, true, &[(0, "SET a 1"), (0, line)]) else { panic!("{line}") };
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn what_is_noted_has_a_limit() {
        let all = Filter::default();
        let mut collector = Collector::new(&all, false);
        let key = |n: usize| format!("{n:0>1000}");
        (0..BYTES_MAX / 1000).for_each(|n| collector.key(0, key(n).as_bytes()));
        assert_eq!(collector.any, None);
        (0..2).for_each(|n| collector.key(1, key(n).as_bytes()));
        assert_eq!(collector.any, Some(format!("more than {} keys were written in between", BYTES_MAX / 1000)));
    }
}
