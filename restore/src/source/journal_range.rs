//! The groups to replay, and what is known of them before anything acts.
//!
//! What is replayed is read once for the plan: damage in it, a command that the target does not know, or a database that it does
//! not have stop a restore before it has changed anything.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use redtape_journal::{Catalog, Group, Lsn, ReadError, Record, TimelineId};
use redtape_wire::effect::{Dependence, dependence};

use super::left_out::LeftOut;

/// A stretch of a journal that can be read more than once.
pub trait ReplaySource {
    /// Its groups, from the start.
    fn groups(&self) -> Box<dyn Iterator<Item = Result<Group, ReadError>> + '_>;
}

/// The groups of a timeline behind `after`, up to and with `upto`.
#[derive(Debug)]
pub struct JournalRange {
    /// Where they are.
    pub catalog: Catalog,
    /// In which history.
    pub timeline: TimelineId,
    /// The base's LSN.
    pub after: Lsn,
    /// The cut's LSN.
    pub upto: Lsn,
    /// What of it is left out, if anything is.
    pub(crate) without: Option<Arc<LeftOut>>,
}

impl ReplaySource for JournalRange {
    fn groups(&self) -> Box<dyn Iterator<Item = Result<Group, ReadError>> + '_> {
        if self.after >= self.upto {
            return Box::new(std::iter::empty());
        }
        let mut groups = self.catalog.groups(self.after, self.timeline);
        let mut last = self.after;
        Box::new(std::iter::from_fn(move || {
            // What is behind the cut is not looked at: it may be damaged.
            while last < self.upto {
                let mut group = match groups.next()? {
                    Ok(group) => group,
                    Err(error) => return Some(Err(error)),
                };
                last = group.records.last().map_or(last, |r| r.lsn);
                if last > self.upto {
                    return None;
                }
                if self.without.as_ref().is_none_or(|without| without.take_out(&mut group)) {
                    return Some(Ok(group));
                }
            }
            None
        }))
    }
}

impl ReplaySource for Vec<Group> {
    fn groups(&self) -> Box<dyn Iterator<Item = Result<Group, ReadError>> + '_> {
        Box::new(self.iter().cloned().map(Ok))
    }
}

/// What a stretch holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeFacts {
    /// Groups.
    pub groups: u64,
    /// Records.
    pub records: u64,
    /// Bytes of all arguments.
    pub bytes: u64,
    /// Highest database number.
    pub max_db: u32,
    /// Names of the commands, upper case.
    pub commands: BTreeSet<Vec<u8>>,
    /// Holds commands that give fields of hashes a TTL, or take it away.
    pub field_ttl: bool,
    /// Holds whole scripts (Redis before 7.0), which see the clock of the server that replays them.
    pub scripts: bool,
}

/// Longest command name that is noted.
const NAME_LIMIT: usize = 64;

/// Commands that set a hash field's TTL, or take it away.
pub(crate) const FIELD_TTL: [&[u8]; 7] =
    [b"HEXPIRE", b"HPEXPIRE", b"HEXPIREAT", b"HPEXPIREAT", b"HPERSIST", b"HSETEX", b"HGETEX"];
/// Commands whose body is a script.
pub(crate) const SCRIPTS: [&[u8]; 3] = [b"EVAL", b"EVALSHA", b"FCALL"];

impl RangeFacts {
    /// Adds a plain `SET` that is kept; `bytes`: of its arguments.
    pub(crate) fn add_set(&mut self, db: u32, bytes: u64) {
        const NAME: &[u8] = b"SET";
        self.records += 1;
        self.bytes += bytes;
        self.max_db = self.max_db.max(db);
        if !self.commands.contains(NAME) {
            self.commands.insert(NAME.to_vec());
        }
    }

    /// Adds a record that is kept.
    pub(crate) fn add(&mut self, record: &Record, dependence: &Dependence<'_>) {
        self.records += 1;
        self.bytes += record.args.iter().map(|a| a.len() as u64).sum::<u64>();
        let also = match dependence {
            Dependence::SwapDb(a, b) => *a.max(b),
            other => other.touched().iter().map(|touched| touched.db).max().unwrap_or(0),
        };
        self.max_db = self.max_db.max(record.db).max(also);
        let Some(name) = record.args.first() else { return };
        let mut room = [0; NAME_LIMIT];
        let upper = &mut room[..name.len().min(NAME_LIMIT)];
        upper.copy_from_slice(&name[..upper.len()]);
        upper.make_ascii_uppercase();
        let upper = &*upper;
        if !self.commands.contains(upper) {
            self.field_ttl |= FIELD_TTL.contains(&upper);
            self.scripts |= SCRIPTS.contains(&upper);
            self.commands.insert(upper.to_vec());
        }
    }
}

/// Reads a stretch through; `on_progress` gets the records so far now and then, and may end it.
pub fn scan(
    range: &dyn ReplaySource,
    on_progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<RangeFacts, ReadError> {
    const EVERY: u64 = 65536;
    let mut facts = RangeFacts::default();
    for group in range.groups() {
        let group = group?;
        facts.groups += 1;
        for record in &group.records {
            facts.add(record, &dependence(record.db, &record.args, None));
        }
        if facts.groups % EVERY == 0 && on_progress(facts.records).is_break() {
            break;
        }
    }
    Ok(facts)
}

/// Groups made by hand, for tests.
#[cfg(test)]
pub(crate) mod by_hand {
    use std::sync::Arc;

    use redtape_journal::{Group, Lsn, Micros, Origin, OriginKind, Record, ReplOffset};

    /// One group: its time, whether atomic, and its commands (database, words).
    pub(crate) fn group(lsn: u64, ts: i64, atomic: bool, commands: &[(u32, &str)]) -> Group {
        let record = |(n, (db, line)): (usize, &(u32, &str))| Record {
            lsn: Lsn(lsn + n as u64),
            db: *db,
            args: line.split(' ').map(|w| bytes::Bytes::copy_from_slice(w.as_bytes())).collect(),
            keys: None,
        };
        Group {
            ts: Micros(ts),
            slack: 0,
            origin: Arc::new(Origin::of(OriginKind::Outside)),
            atomic,
            end_offset: ReplOffset(0),
            records: commands.iter().enumerate().map(record).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::by_hand::group;
    use super::*;

    #[test]
    fn scan_notes_what_decides() {
        let plain = vec![group(1, 1, false, &[(0, "SET a 1")]), group(2, 2, true, &[(3, "set b 1"), (0, "DEL a")])];
        let facts = scan(&plain, &mut |_| ControlFlow::Continue(())).expect("scan");
        assert_eq!((facts.groups, facts.records, facts.max_db), (2, 3, 3));
        assert_eq!(facts.bytes, 5 + 5 + 4);
        assert_eq!(facts.commands.len(), 2);
        assert!(!facts.field_ttl && !facts.scripts);
        let fields =
            vec![group(1, 1, false, &[(0, "hpexpireat h 5 FIELDS 1 f")]), group(2, 1, false, &[(0, "Eval x 0")])];
        let facts = scan(&fields, &mut |_| ControlFlow::Continue(())).expect("scan");
        assert!(facts.field_ttl && facts.scripts);
        // Databases that a command names count as well.
        for (line, max_db) in [("SWAPDB 9 2", 9), ("MOVE a 4", 4), ("COPY a b DB 5", 5), ("SET 9 9", 3)] {
            let facts =
                scan(&vec![group(1, 1, false, &[(3, line)])], &mut |_| ControlFlow::Continue(())).expect("scan");
            assert_eq!(facts.max_db, max_db, "{line}");
        }
    }
}
