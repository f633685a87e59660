//! The records that a slice keeps: few are held as they are, of many it is noted which they are, and they are read again.

use bytes::Bytes;
use redtape_journal::{Group, Lsn, ReadError, Record};

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
    /// The newest first, as long as they are few.
    held: Option<Vec<Group>>,
    held_bytes: usize,
}

impl Keeper {
    /// `hold`: there may be few.
    pub(super) fn new(hold: bool) -> Self {
        Self { lsns: Lsns::default(), held: hold.then(Vec::new), held_bytes: 0 }
    }

    /// Keeps these records of a group, the last one first.
    pub(super) fn keep(&mut self, group: &Group, backwards: &[usize]) {
        let records = || backwards.iter().filter_map(|at| group.records.get(*at));
        records().for_each(|record| self.lsns.add(record.lsn));
        let Some(held) = &mut self.held else { return };
        let bytes = |record: &Record| record.args.iter().map(Bytes::len).sum::<usize>() + RECORD_OVERHEAD;
        self.held_bytes += records().map(bytes).sum::<usize>();
        if self.held_bytes > HELD_BYTES_MAX {
            self.held = None;
            return;
        }
        // What is read shares its memory with the rest of its block.
        let own = |record: &Record| Record {
            args: record.args.iter().map(|arg| Bytes::copy_from_slice(arg)).collect(),
            ..record.clone()
        };
        let records = backwards.iter().rev().filter_map(|at| group.records.get(*at)).map(own).collect();
        held.push(Group { records, origin: group.origin.clone(), ..*group });
    }

    #[cfg(test)]
    pub(super) fn lsns(self) -> Lsns {
        self.lsns.finish()
    }

    pub(super) fn finish(self) -> Kept {
        match self.held {
            Some(mut held) => {
                held.reverse();
                Kept::Held(held)
            }
            None => Kept::Noted(self.lsns.finish()),
        }
    }
}

/// What was kept.
#[derive(Debug)]
pub(crate) enum Kept {
    Held(Vec<Group>),
    Noted(Lsns),
}

/// The kept records of a range, each in its group.
#[derive(Debug)]
pub(crate) struct KeptRange {
    /// Where they are.
    pub(crate) range: JournalRange,
    /// Which they are.
    pub(crate) kept: Kept,
}

impl ReplaySource for KeptRange {
    fn groups(&self) -> Box<dyn Iterator<Item = Result<Group, ReadError>> + '_> {
        let lsns = match &self.kept {
            Kept::Held(groups) => return Box::new(groups.iter().cloned().map(Ok)),
            Kept::Noted(lsns) => lsns,
        };
        let Some(end) = lsns.last() else { return Box::new(std::iter::empty()) };
        let JournalRange { catalog, timeline, after, .. } = &self.range;
        let within = lsns.clone();
        let mut groups = catalog.groups_within(*after, *timeline, move |first, last| within.any(first, last));
        let mut last = Lsn(0);
        Box::new(std::iter::from_fn(move || {
            // What is behind the last one is not looked at: it may be damaged.
            while last < end {
                let mut group = match groups.next()? {
                    Ok(group) => group,
                    Err(error) => return Some(Err(error)),
                };
                last = group.records.last().map_or(last, |record| record.lsn);
                group.records.retain(|record| lsns.contains(record.lsn));
                if !group.records.is_empty() {
                    return Some(Ok(group));
                }
            }
            None
        }))
    }
}
