//! The backward pass: from the restore point to the base, each record is kept or left out.

use std::ops::ControlFlow;
use std::sync::Arc;

use redtape_journal::query::Filter;
use redtape_journal::{Group, Lsn, PartReader, ReadError, Record, Searched, in_order};
use redtape_wire::effect::{Dependence, Touch, dependence};
use smallvec::SmallVec;

use super::Forced;
use super::fold::Fold;
use super::kept::{Keeper, Kept};
use super::needed::{Needed, Passed};
use super::part_records::{Collector, PartRecords, SetRecord, entry_bytes};
use super::plain_set;
use crate::interrupt::Interrupt;
use crate::source::journal_range::{JournalRange, RangeFacts};
use crate::source::left_out::LeftOut;

/// Records of which the places in the table of keys are asked for together: memory answers them at the same time.
const TOGETHER: usize = 16;
/// Longest command name that is shown.
const NAME_SHOWN: usize = 40;

/// What the pass has found.
#[derive(Debug)]
pub(crate) struct Sliced {
    /// What is kept.
    pub(crate) kept: Kept,
    /// What of that can stand in an RDB, if anything can.
    pub(crate) fold: Option<Fold>,
    /// What is known of that.
    pub(crate) facts: RangeFacts,
    /// The keys that are needed of the base.
    pub(crate) needed: Needed,
    /// Why everything up to an LSN is kept, if it is.
    pub(crate) forced: Option<Forced>,
    /// What reading has cost.
    pub(crate) searched: Searched,
}

/// Sees each group that was gone back over, and which keys are needed before it. Where everything is wanted, plain `SET`s are not
/// made groups of, and not seen.
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
    let mut pass = Pass::new(filter, range.without.clone(), watch);
    let mut searched = Searched::default();
    if range.after < range.upto {
        let reader = range.catalog.parts_back(range.after, range.upto, range.timeline);
        let mut progress = |first: Lsn| on_progress(range.upto.0.saturating_sub(first.0.max(range.after.0)));
        searched = pass.run(reader, interrupt, &mut progress)?;
    }
    let Pass { mut needed, keeper, facts, forced, .. } = pass;
    let (mut kept, folded) = keeper.finish();
    let (keys, taken_out) = needed.folded();
    let mut fold = Some(Fold { lsns: folded, keys, taken_out, hasher: needed.hasher().clone() });
    if let Some(unused) = fold.take_if(|fold| fold.is_empty()) {
        kept = kept.unfolded(&unused);
    }
    Ok(Sliced { kept, fold, facts, needed, forced, searched })
}

struct Pass<'a> {
    watch: &'a mut Watch<'a>,
    needed: Needed,
    keeper: Keeper,
    facts: RangeFacts,
    forced: Option<Forced>,
    /// Functions and scripts are restored as well.
    libraries: bool,
    /// Plain `SET`s are told from the rest: there are many records, and none of them is held.
    tells_sets: bool,
    without: Option<Arc<LeftOut>>,
}

impl<'a> Pass<'a> {
    fn new(filter: &Filter, without: Option<Arc<LeftOut>>, watch: &'a mut Watch<'a>) -> Self {
        let everything = filter.is_everything();
        Self {
            watch,
            needed: Needed::at_the_point(filter),
            keeper: Keeper::new(!everything),
            facts: RangeFacts::default(),
            forced: None,
            libraries: everything,
            // What is left out is looked up record by record.
            tells_sets: everything && without.is_none(),
            without,
        }
    }

    fn run(
        &mut self,
        mut reader: PartReader,
        interrupt: &Interrupt,
        progress: &mut dyn FnMut(Lsn),
    ) -> Result<Searched, ReadError> {
        // As long as it can be said which keys are needed, each part is read for those that are needed then.
        while !self.is_done() && !interrupt.is_set() {
            let Some(wanted) = self.needed.wanted_keys() else { break };
            let Some(part) = reader.next_part(Some(&wanted))? else { return Ok(reader.searched()) };
            self.groups(&part);
            tell(part.first().and_then(|group| group.records.first()).map(|record| record.lsn), progress);
        }
        if self.is_done() || interrupt.is_set() {
            return Ok(reader.searched());
        }
        self.run_ahead(reader, interrupt, progress)
    }

    /// All parts: they are read and decoded by threads of their own.
    fn run_ahead(
        &mut self,
        mut reader: PartReader,
        interrupt: &Interrupt,
        progress: &mut dyn FnMut(Lsn),
    ) -> Result<Searched, ReadError> {
        let (hasher, tell_sets) = (self.needed.hasher().clone(), self.tells_sets);
        let read = |job: Result<redtape_journal::PartJob, ReadError>| {
            let mut collector = Collector { hasher: &hasher, tell_sets, part: PartRecords::default() };
            collector.part.read_bytes = job?.read(&mut collector)?;
            Ok::<_, ReadError>(collector.part)
        };
        let mut jobs_read = 0;
        let mut result = Ok(());
        in_order(
            || reader.next_job(None).transpose(),
            read,
            |part| {
                match part {
                    Ok(part) => {
                        jobs_read += part.read_bytes;
                        self.part(&part);
                        tell(part.first(), progress);
                    }
                    Err(error) => result = Err(error),
                }
                if result.is_err() || self.is_done() || interrupt.is_set() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            },
        );
        let mut searched = reader.searched();
        searched.read_bytes += jobs_read;
        result.map(|()| searched)
    }

    /// Nothing before this position can matter.
    fn is_done(&self) -> bool {
        self.forced.is_none() && !self.libraries && self.needed.is_nothing()
    }

    fn part(&mut self, part: &PartRecords) {
        let mut sets_left = part.sets.len();
        for (sets_before, group) in part.groups.iter().rev() {
            self.sets(part, &part.sets[*sets_before..sets_left]);
            sets_left = *sets_before;
            self.group(group);
        }
        self.sets(part, &part.sets[..sets_left]);
    }

    fn sets(&mut self, part: &PartRecords, sets: &[SetRecord]) {
        for together in sets.rchunks(TOGETHER) {
            let touched = together.iter().fold(0, |sum, set| sum ^ self.needed.touch(set.db, set.hash));
            std::hint::black_box(touched);
            for set in together.iter().rev() {
                let passed = if self.forced.is_some() {
                    Passed::Kept
                } else {
                    self.needed.pass_set(set.db, part.key(set), set.hash, set.entry_bytes)
                };
                if passed != Passed::LeftOut {
                    self.facts.add_set(set.db, set.args_bytes.into());
                    self.facts.groups += 1;
                    self.keeper.keep_one(set.lsn, passed == Passed::Folded);
                }
            }
        }
    }

    fn groups(&mut self, groups: &[Group]) {
        groups.iter().rev().for_each(|group| self.group(group));
    }

    fn group(&mut self, group: &Group) {
        let mut kept: SmallVec<[(usize, bool); 8]> = SmallVec::new();
        for (n, record) in group.records.iter().enumerate().rev() {
            if self.leaves_out(record) {
                continue;
            }
            if self.tells_sets
                && self.forced.is_none()
                && let Some((entry, bytes)) = plain_set::of_record(record)
            {
                let hash = self.needed.hasher().hash(entry.key);
                let passed = self.needed.pass_set(record.db, entry.key, hash, entry_bytes(&entry));
                if passed != Passed::LeftOut {
                    self.facts.add_set(record.db, bytes as u64);
                    kept.push((n, passed == Passed::Folded));
                }
                continue;
            }
            let mut dependence = dependence(record.db, &record.args, record.keys.as_deref());
            self.let_it_fail(group, record, &mut dependence);
            if self.forced.is_some() || self.keeps(record, &dependence) {
                self.facts.add(record, &dependence);
                kept.push((n, false));
            }
        }
        if !kept.is_empty() {
            self.facts.groups += 1;
            self.keeper.keep(group, &kept);
        }
        (self.watch)(group, &self.needed);
    }

    fn leaves_out(&self, record: &Record) -> bool {
        self.without.as_ref().is_some_and(|without| without.records.contains(record.lsn))
    }

    /// In a history without some records, a command may fail that needs what is there, or that was sent as another one; and what the
    /// server removed as its time had come may live on. Then what was there before matters after all.
    fn let_it_fail(&self, group: &Group, record: &Record, dependence: &mut Dependence<'_>) {
        let (Some(without), Dependence::Keys(touched) | Dependence::ReadsOthers(touched)) = (&self.without, dependence)
        else {
            return;
        };
        let needs_some = || touched.iter().any(|touched| touched.touch != Touch::Overwritten);
        let sent_as_another = || !group.origin.via.is_empty();
        if record.lsn >= without.begins && (without.removals.contains(record.lsn) || sent_as_another() || needs_some())
        {
            let overwritten = touched.iter_mut().filter(|touched| touched.touch == Touch::Overwritten);
            overwritten.for_each(|touched| touched.touch = Touch::Modified);
        }
    }

    fn keeps(&mut self, record: &Record, dependence: &Dependence<'_>) -> bool {
        let kept = match dependence {
            Dependence::Keys(touched) => self.needed.pass(touched),
            Dependence::ReadsOthers(touched) => {
                let kept = self.needed.pass(touched);
                if kept {
                    self.force(record.lsn, &format!("{} reads keys that it does not name", command_name(record)));
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
                    self.force(
                        record.lsn,
                        &format!("the keys that {} reads and writes are unknown", command_name(record)),
                    );
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

fn tell(first: Option<Lsn>, progress: &mut dyn FnMut(Lsn)) {
    if let Some(first) = first {
        progress(first);
    }
}

/// A command's name, as it can be shown.
pub(crate) fn command_name(record: &Record) -> String {
    let name = record.args.first().map_or(&b""[..], |name| &name[..name.len().min(NAME_SHOWN)]);
    name.to_ascii_uppercase().escape_ascii().to_string()
}

#[cfg(test)]
#[path = "pass_tests.rs"]
mod tests;
