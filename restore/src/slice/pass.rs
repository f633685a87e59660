//! The backward pass: from the restore point to the base, each record is kept or left out.

use std::sync::mpsc::{Receiver, sync_channel};

use redtape_journal::query::Filter;
use redtape_journal::{Group, Lsn, PartReader, ReadError, Record, Searched};
use redtape_wire::effect::{Dependence, dependence};
use smallvec::SmallVec;

use super::Forced;
use super::kept::{Keeper, Kept};
use super::needed::Needed;
use crate::interrupt::Interrupt;
use crate::source::journal_range::{JournalRange, RangeFacts};

/// Parts of the journal that are read ahead.
const AHEAD: usize = 2;
/// Longest command name that is shown.
const NAME_SHOWN: usize = 40;

/// What the pass has found.
#[derive(Debug)]
pub(crate) struct Sliced {
    /// What is replayed.
    pub(crate) kept: Kept,
    /// What is known of that.
    pub(crate) facts: RangeFacts,
    /// The keys that are needed of the base.
    pub(crate) needed: Needed,
    /// Why everything up to an LSN is kept, if it is.
    pub(crate) forced: Option<Forced>,
    /// What reading has cost.
    pub(crate) searched: Searched,
}

/// Sees each group that was gone back over, and which keys are needed before it.
pub(crate) type Watch<'a> = dyn FnMut(&Group, &Needed) + 'a;

/// Goes through a range backwards; `on_progress` gets how many of its records were passed, now and then. `watch` sees all groups
/// that touch a key for as long as that key is needed, and others.
pub(crate) fn slice(
    range: &JournalRange,
    filter: &Filter,
    interrupt: &Interrupt,
    watch: &mut Watch<'_>,
    on_progress: &mut dyn FnMut(u64),
) -> Result<Sliced, ReadError> {
    let mut pass = Pass::new(filter, watch);
    let mut searched = Searched::default();
    if range.after < range.upto {
        let reader = range.catalog.parts_back(range.after, range.upto, range.timeline);
        let mut progress = |group: &Group| {
            let first = group.records.first().map_or(range.upto, |record| record.lsn);
            on_progress(range.upto.0.saturating_sub(first.0.max(range.after.0)));
        };
        searched = pass.run(reader, interrupt, &mut progress)?;
    }
    let Pass { needed, keeper, facts, forced, .. } = pass;
    Ok(Sliced { kept: keeper.finish(), facts, needed, forced, searched })
}

struct Pass<'a> {
    watch: &'a mut Watch<'a>,
    needed: Needed,
    keeper: Keeper,
    facts: RangeFacts,
    forced: Option<Forced>,
    /// Functions and scripts are restored as well.
    libraries: bool,
}

impl<'a> Pass<'a> {
    fn new(filter: &Filter, watch: &'a mut Watch<'a>) -> Self {
        let everything = filter.is_everything();
        Self {
            watch,
            needed: Needed::at_the_point(filter),
            keeper: Keeper::new(!everything),
            facts: RangeFacts::default(),
            forced: None,
            libraries: everything,
        }
    }

    fn run(
        &mut self,
        mut reader: PartReader,
        interrupt: &Interrupt,
        progress: &mut dyn FnMut(&Group),
    ) -> Result<Searched, ReadError> {
        // As long as it can be said which keys are needed, each part is read for those that are needed then.
        while !self.is_done() && !interrupt.is_set() {
            let Some(wanted) = self.needed.wanted_keys() else { break };
            let Some(part) = reader.next_part(Some(&wanted))? else { return Ok(reader.searched()) };
            self.part(&part, progress);
        }
        if self.is_done() || interrupt.is_set() {
            return Ok(reader.searched());
        }
        self.run_ahead(reader, interrupt, progress)
    }

    /// All parts: they are read and decoded by a thread of their own.
    fn run_ahead(
        &mut self,
        mut reader: PartReader,
        interrupt: &Interrupt,
        progress: &mut dyn FnMut(&Group),
    ) -> Result<Searched, ReadError> {
        let (parts, read) = sync_channel(AHEAD);
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || {
                while let Some(part) = reader.next_part(None).transpose() {
                    let failed = part.is_err();
                    // Nobody listens any more: enough was read.
                    if parts.send(part).is_err() || failed {
                        break;
                    }
                }
                reader.searched()
            });
            let result = self.take_parts(&read, interrupt, progress);
            drop(read);
            let searched = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result.map(|()| searched)
        })
    }

    fn take_parts(
        &mut self,
        read: &Receiver<Result<Vec<Group>, ReadError>>,
        interrupt: &Interrupt,
        progress: &mut dyn FnMut(&Group),
    ) -> Result<(), ReadError> {
        for part in read {
            self.part(&part?, progress);
            if self.is_done() || interrupt.is_set() {
                break;
            }
        }
        Ok(())
    }

    /// Nothing before this position can matter.
    fn is_done(&self) -> bool {
        self.forced.is_none() && !self.libraries && self.needed.is_nothing()
    }

    fn part(&mut self, part: &[Group], progress: &mut dyn FnMut(&Group)) {
        for group in part.iter().rev() {
            self.group(group);
        }
        if let Some(first) = part.first() {
            progress(first);
        }
    }

    fn group(&mut self, group: &Group) {
        let mut kept: SmallVec<[usize; 8]> = SmallVec::new();
        for (n, record) in group.records.iter().enumerate().rev() {
            let dependence = dependence(record.db, &record.args, record.keys.as_deref());
            if self.forced.is_some() || self.keeps(record, &dependence) {
                self.facts.add(record, &dependence);
                kept.push(n);
            }
        }
        if !kept.is_empty() {
            self.facts.groups += 1;
            self.keeper.keep(group, &kept);
        }
        (self.watch)(group, &self.needed);
    }

    fn keeps(&mut self, record: &Record, dependence: &Dependence<'_>) -> bool {
        let kept = match dependence {
            Dependence::Keys(touched) => self.needed.pass(touched),
            Dependence::ReadsOthers(touched) => {
                let kept = self.needed.pass(touched);
                if kept {
                    self.force(record.lsn, &format!("{} reads keys that it does not name", name(record)));
                }
                kept
            }
            Dependence::FlushDb => self.needed.flush(record.db),
            Dependence::FlushAll => self.needed.flush_all(),
            Dependence::SwapDb(a, b) => self.needed.swap(*a, *b),
            Dependence::Libraries => self.libraries,
            Dependence::Nothing => false,
            Dependence::Unknown => {
                let kept = self.libraries || !self.needed.is_nothing();
                if kept {
                    self.force(record.lsn, &format!("what {} reads and writes is not known", name(record)));
                }
                kept
            }
        };
        if self.needed.is_full() {
            self.force(record.lsn, "more keys are needed than are kept apart");
        }
        kept
    }

    /// From here on back, all is kept.
    fn force(&mut self, lsn: Lsn, reason: &str) {
        self.needed.need_everything();
        self.forced = Some(Forced { lsn, reason: reason.to_owned() });
    }
}

/// A command's name, as it can be shown.
fn name(record: &Record) -> String {
    let name = record.args.first().map_or(&b""[..], |name| &name[..name.len().min(NAME_SHOWN)]);
    name.to_ascii_uppercase().escape_ascii().to_string()
}

#[cfg(test)]
#[path = "pass_tests.rs"]
mod tests;
