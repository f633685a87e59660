//! Finds the last write of a key at or before a cut, by reading the journal backwards and only where it may concern the
//! key.
//!
//! Uncertainty is reported: a command with unknown keys (a script of an old server, a module's command) *may* have
//! written the key, and a timeline begins with a base whose writers are unknown.

use std::sync::Arc;

use redtape_journal::{Catalog, Group, Lsn, Micros, Origin, Record};
use redtape_wire::effect::{KeyScope, is_only_read, key_scope};

use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::point::RestorePoint;
use crate::slice::Needed;

/// Limit of groups that may have written the key after the last certain one; at the limit the search ends.
const UNCERTAIN_MAX: u64 = 10_000;

/// The last write of a key, from the journal.
#[derive(Debug, Clone, Default)]
pub struct KeyHistory {
    /// The last certain write; `None` = none in this timeline, as far as its segments exist.
    pub last: Option<LastTouch>,
    /// The last write after it that may have concerned the key.
    pub uncertain: Option<LastTouch>,
    /// Number of groups that may have written the key.
    pub uncertain_groups: u64,
    /// Older groups were not examined: too many are uncertain, or they are unreadable.
    pub cut_short: bool,
    /// A write after the base concerned the key, or may have.
    pub since_base: bool,
}

/// A command that wrote a key.
#[derive(Debug, Clone)]
pub struct LastTouch {
    /// When it ran.
    pub ts: Micros,
    /// How many µs earlier it may have run.
    pub slack: u64,
    /// Its origin.
    pub origin: Arc<Origin>,
    /// It is part of a transaction or script.
    pub atomic: bool,
    /// The command.
    pub record: Record,
}

/// What a record did to a key, as far as known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Touch {
    No,
    Perhaps,
    Yes,
}

/// The search for a key's last write. The backward pass that collects what the key depends on sees nearly all needed
/// groups: while the key is needed, each group that writes it, or may. Earlier groups are read separately.
#[derive(Debug)]
pub(super) struct HistorySearch<'a> {
    history: KeyHistory,
    point: &'a RestorePoint,
    db: u32,
    key: &'a [u8],
    seen: Seen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// The pass continues and sees the needed groups.
    InPass,
    /// Everything after this LSN was seen.
    DownTo(Lsn),
    Enough,
}

impl<'a> HistorySearch<'a> {
    pub(super) fn new(point: &'a RestorePoint, db: u32, key: &'a [u8]) -> Self {
        Self { history: KeyHistory::default(), point, db, key, seen: Seen::InPass }
    }

    /// The pass has read a group.
    pub(super) fn watch(&mut self, group: &Group, needed: &Needed) {
        if self.seen != Seen::InPass {
            return;
        }
        if !self.add(group) {
            self.seen = Seen::Enough;
        } else if !needed.needs(self.db, self.key) {
            // From here on the pass may skip groups that write the key.
            let first = group.records.first().map_or(self.point.lsn, |record| record.lsn);
            self.seen = Seen::DownTo(Lsn(first.0.saturating_sub(1)));
        }
    }

    fn add(&mut self, group: &Group) -> bool {
        self.history.add(group, self.db, self.key, self.point.base.manifest.lsn)
    }

    /// The pass has ended.
    pub(super) fn finish(mut self, catalog: &Catalog, interrupt: &Interrupt) -> Result<KeyHistory, RestoreError> {
        let upto = match self.seen {
            Seen::Enough => return Ok(self.history),
            // It reached the base.
            Seen::InPass => self.point.base.manifest.lsn.min(self.point.lsn),
            Seen::DownTo(lsn) => lsn,
        };
        for group in catalog.groups_back_for_keys(upto, self.point.timeline, &[(self.db, self.key)]) {
            interrupt.check()?;
            // Records after the base are also read for the dataset, which reports their damage.
            let Ok(group) = group else {
                self.history.cut_short = true;
                break;
            };
            if !self.add(&group) {
                break;
            }
        }
        Ok(self.history)
    }
}

impl KeyHistory {
    /// `false` = the search is complete.
    fn add(&mut self, group: &Group, db: u32, key: &[u8], base: Lsn) -> bool {
        let mut perhaps = None;
        for record in group.records.iter().rev() {
            match touch(record, db, key) {
                Touch::No => {}
                Touch::Perhaps => perhaps = perhaps.or(Some(record)),
                Touch::Yes => {
                    self.note_uncertain(group, perhaps);
                    self.since_base |= record.lsn > base;
                    self.last = Some(LastTouch::of(group, record));
                    return false;
                }
            }
        }
        self.since_base |= perhaps.is_some_and(|record| record.lsn > base);
        self.note_uncertain(group, perhaps);
        self.cut_short |= self.uncertain_groups >= UNCERTAIN_MAX;
        !self.cut_short
    }

    fn note_uncertain(&mut self, group: &Group, perhaps: Option<&Record>) {
        if let Some(record) = perhaps {
            self.uncertain_groups += 1;
            self.uncertain.get_or_insert_with(|| LastTouch::of(group, record));
        }
    }
}

impl LastTouch {
    fn of(group: &Group, record: &Record) -> Self {
        let Group { ts, slack, origin, atomic, .. } = group;
        Self { ts: *ts, slack: *slack, origin: Arc::clone(origin), atomic: *atomic, record: record.clone() }
    }
}

fn touch(record: &Record, db: u32, key: &[u8]) -> Touch {
    let args: Vec<&[u8]> = record.args.iter().map(|arg| &arg[..]).collect();
    match key_scope(record.db, &args, record.keys.as_deref()) {
        KeyScope::Keys(keys) if !keys.iter().any(|(in_db, touched)| *in_db == db && *touched == key) => Touch::No,
        KeyScope::Keys(_) if is_only_read(record.db, &args, db, key) => Touch::No,
        KeyScope::Databases(dbs) if !dbs.contains(&db) => Touch::No,
        KeyScope::Keys(_) | KeyScope::Databases(_) | KeyScope::Everything => Touch::Yes,
        KeyScope::Unknown => Touch::Perhaps,
    }
}

#[cfg(test)]
mod tests {
    use redtape_journal::query::Filter;

    use super::*;
    use crate::source::journal_range::by_hand::group;

    fn with_keys(lsn: u64, db: u32, line: &str, keys: Option<&[usize]>) -> Group {
        let mut group = group(lsn, lsn as i64 * 10, false, &[(db, line)]);
        group.records[0].keys = keys.map(Into::into);
        group
    }

    #[test]
    fn what_touches_a_key() {
        for (db, line, keys, want) in [
            (0, "SET k v", Some(&[1][..]), Touch::Yes),
            (1, "SET k v", Some(&[1]), Touch::No),
            (0, "SET x v", Some(&[1]), Touch::No),
            (5, "FLUSHALL", None, Touch::Yes),
            (5, "FLUSHDB", None, Touch::No),
            (5, "SWAPDB 5 0", None, Touch::Yes),
            (0, "RENAME k a", Some(&[1, 2]), Touch::Yes),
            (0, "COPY k a", Some(&[1, 2]), Touch::No),
            (0, "COPY a k", Some(&[1, 2]), Touch::Yes),
            (1, "COPY k k DB 0", None, Touch::Yes),
            (0, "COPY k k DB 1", None, Touch::No),
            (3, "MOVE k 0", None, Touch::Yes),
            (0, "ZUNIONSTORE d 1 k", Some(&[1, 3]), Touch::No),
            (0, "ZUNIONSTORE k 1 a", Some(&[1, 3]), Touch::Yes),
            (0, "BITOP AND d k a", Some(&[2, 3, 4]), Touch::No),
            (0, "SORT k STORE d", Some(&[1, 3]), Touch::No),
            (0, "EVAL s 1 x", None, Touch::Perhaps),
            (0, "PUBLISH k m", Some(&[]), Touch::No),
        ] {
            let group = with_keys(1, db, line, keys);
            assert_eq!(touch(&group.records[0], 0, b"k"), want, "{line} in db {db}");
        }
    }

    #[test]
    fn the_last_certain_one_is_found_and_what_may_have_come_behind_is_counted() {
        let groups = [
            with_keys(1, 0, "SET k 1", Some(&[1])),
            with_keys(2, 0, "SET k 2", Some(&[1])),
            with_keys(3, 0, "EVAL s 0", None),
            with_keys(4, 0, "EVAL t 0", None),
        ];
        let find = |base: u64| {
            let mut history = KeyHistory::default();
            let _ = groups.iter().rev().all(|group| history.add(group, 0, b"k", Lsn(base)));
            history
        };
        let history = find(0);
        assert_eq!(history.last.map(|last| last.record.lsn), Some(Lsn(2)));
        assert_eq!((history.uncertain.map(|u| u.record.lsn), history.uncertain_groups), (Some(Lsn(4)), 2));
        assert!(history.since_base && !history.cut_short);
        assert!(!find(4).since_base && find(3).since_base && find(4).last.is_some());
    }

    #[test]
    fn the_search_looks_on_while_the_pass_sees_the_key() {
        let point = crate::get::tests::point(0);
        let needed = |key: &str| Needed::at_the_point(&Filter::new(&[key], &[], &[0]).expect("a key"));
        let (script, set) = (with_keys(7, 0, "EVAL s 0", None), with_keys(6, 0, "SET k 1", Some(&[1])));
        let mut search = HistorySearch::new(&point, 0, b"k");
        search.watch(&script, &needed("k"));
        assert_eq!((search.seen, search.history.uncertain_groups), (Seen::InPass, 1));
        // It does not matter that earlier state is not needed.
        search.watch(&set, &needed("other"));
        assert_eq!(search.seen, Seen::Enough);
        assert_eq!(search.history.last.map(|last| last.record.lsn), Some(Lsn(6)));

        // From here on the pass may skip needed groups.
        let mut search = HistorySearch::new(&point, 0, b"k");
        search.watch(&script, &needed("other"));
        search.watch(&set, &needed("other"));
        assert_eq!(search.seen, Seen::DownTo(Lsn(6)));
        assert!(search.history.last.is_none());
    }

    #[test]
    fn the_search_ends_where_nothing_is_certain() {
        let mut history = KeyHistory::default();
        let script = with_keys(1, 0, "EVAL s 0", None);
        let looked = (0..2 * UNCERTAIN_MAX).take_while(|_| history.add(&script, 0, b"k", Lsn(0))).count() as u64;
        assert_eq!((looked + 1, history.cut_short), (UNCERTAIN_MAX, true));
    }
}
