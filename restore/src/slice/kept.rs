//! The records that a slice keeps. A few are kept in memory; of many only the LSNs are stored, and they are read again.
//! Records that can be folded are stored separately.

use std::sync::Arc;

use bytes::Bytes;
use redtape_journal::{Group, Lsn, ReadError, Record};

use super::fold::Fold;
use super::lsns::Lsns;
use crate::source::journal_range::{JournalRange, ReplaySource};

/// Bytes of records that are held rather than read again.
const HELD_BYTES_MAX: usize = 16 << 20;
/// What a record takes beside its arguments, about.
const RECORD_OVERHEAD: usize = 256;

/// Collects records, from the last one to the first.
#[derive(Debug)]
pub(super) struct Keeper {
    lsns: Lsns,
    /// Those of records that can stand in an RDB; not among `lsns`.
    folded: Lsns,
    /// The newest first, as long as they are few.
    held: Option<Vec<Group>>,
    held_bytes: usize,
}

impl Keeper {
    /// `hold`: there may be few.
    pub(super) fn new(hold: bool) -> Self {
        Self { lsns: Lsns::default(), folded: Lsns::default(), held: hold.then(Vec::new), held_bytes: 0 }
    }

    /// Keeps the record of a group that has no other; `folded`: it can stand in an RDB. None is held then.
    pub(super) fn keep_one(&mut self, lsn: Lsn, folded: bool) {
        self.held = None;
        let lsns = if folded { &mut self.folded } else { &mut self.lsns };
        lsns.add(lsn);
    }

    /// Keeps these records of a group, the last one first; with each, whether it can stand in an RDB.
    pub(super) fn keep(&mut self, group: &Group, backwards: &[(usize, bool)]) {
        let records = || backwards.iter().filter_map(|(at, folded)| Some((group.records.get(*at)?, *folded)));
        for (record, folded) in records() {
            let lsns = if folded { &mut self.folded } else { &mut self.lsns };
            lsns.add(record.lsn);
        }
        let records = || records().map(|(record, _)| record);
        let Some(held) = &mut self.held else { return };
        let bytes = |record: &Record| record.args.iter().map(Bytes::len).sum::<usize>() + RECORD_OVERHEAD;
        self.held_bytes += records().map(bytes).sum::<usize>();
        if self.held_bytes > HELD_BYTES_MAX {
            self.held = None;
            return;
        }
        // A copy, since what is read shares its memory with the rest of its block.
        let own = |record: &Record| Record {
            args: record.args.iter().map(|arg| Bytes::copy_from_slice(arg)).collect(),
            ..record.clone()
        };
        let mut records: Vec<_> = records().map(own).collect();
        records.reverse();
        held.push(Group { records, origin: group.origin.clone(), ..*group });
    }

    #[cfg(test)]
    pub(super) fn lsns(self) -> Lsns {
        self.lsns.finish().and(&self.folded.finish())
    }

    /// What was kept, and of that what can stand in an RDB.
    pub(super) fn finish(self) -> (Kept, Lsns) {
        let kept = match self.held {
            Some(mut held) => {
                held.reverse();
                Kept::Held(held)
            }
            None => Kept::Noted(self.lsns.finish()),
        };
        (kept, self.folded.finish())
    }
}

/// What was kept.
#[derive(Debug)]
pub(crate) enum Kept {
    Held(Vec<Group>),
    /// Without what can stand in an RDB.
    Noted(Lsns),
}

impl Kept {
    /// With what could stand in an RDB.
    pub(crate) fn unfolded(self, fold: &Fold) -> Self {
        match self {
            Self::Noted(lsns) => Self::Noted(lsns.and(fold.lsns())),
            // Of what is held nothing can.
            held @ Self::Held(_) => held,
        }
    }
}

/// The kept records of a range, each in its group.
#[derive(Debug)]
pub(crate) struct KeptRange {
    /// Where they are.
    pub(crate) range: JournalRange,
    /// Which they are.
    pub(crate) kept: Kept,
    /// Without those that stand in the RDB in front of them.
    pub(crate) fold: Option<Arc<Fold>>,
}

impl ReplaySource for KeptRange {
    fn groups(&self) -> Box<dyn Iterator<Item = Result<Group, ReadError>> + '_> {
        let lsns = match &self.kept {
            Kept::Held(groups) => return Box::new(groups.iter().cloned().map(Ok)),
            Kept::Noted(lsns) => lsns,
        };
        let fold = self.fold.as_ref().filter(|fold| fold.has_taken_out());
        let (first, second) = (lsns.clone(), fold.cloned());
        let Some(end) = lsns.last().max(fold.and_then(|fold| fold.lsns().last())) else {
            return Box::new(std::iter::empty());
        };
        let JournalRange { catalog, timeline, after, .. } = &self.range;
        let within =
            move |from, to| first.any(from, to) || second.as_ref().is_some_and(|fold| fold.lsns().any(from, to));
        let mut groups = catalog.groups_within(*after, *timeline, within);
        let mut last = Lsn(0);
        Box::new(std::iter::from_fn(move || {
            // Later records are not read: they may be damaged.
            while last < end {
                let mut group = match groups.next()? {
                    Ok(group) => group,
                    Err(error) => return Some(Err(error)),
                };
                last = group.records.last().map_or(last, |record| record.lsn);
                let taken_out = |record: &Record| fold.is_some_and(|fold| fold.takes_out(record));
                group.records.retain(|record| lsns.contains(record.lsn) || taken_out(record));
                if !group.records.is_empty() {
                    return Some(Ok(group));
                }
            }
            None
        }))
    }
}
