//! Collects differences that wait for the journal's answers, and passes them on in batches.
//!
//! Memory: [`QUESTIONS`] questions, [`BYTES`] of differences, and their last writes, truncated to what is displayed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use redtape_journal::{Group, Lsn, Record};

use super::compare::KeyDifference;
use super::last_write::LastWrite;
use crate::error::RestoreError;
use crate::get::LastTouch;
use crate::interrupt::Interrupt;
use crate::judge::{JudgedRange, Question, Verdict, Why, last_writes};
use crate::progress::{Event, Observer, Unit};
use crate::source::journal_range::JournalRange;

/// Questions of one pass over the journal.
const QUESTIONS: usize = 1 << 17;
/// Limit of collected differences, in bytes.
const BYTES: usize = 64 << 20;
/// Arguments of a write that are kept, and bytes of each.
const ARGS_KEPT: usize = 16;
const ARG_BYTES_KEPT: usize = 1024;

/// Numbers of what was passed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) created: u64,
    pub(super) deleted: u64,
    pub(super) changed: u64,
    pub(super) ttl_only: u64,
    /// Values of modules that are encoded differently but were not written.
    pub(super) equal: u64,
}

/// The collected differences.
pub(super) struct Pending<'a> {
    /// `None` = the writes between both points in time are unknown.
    journal: Option<&'a JournalRange>,
    interrupt: &'a Interrupt,
    take: &'a mut dyn FnMut(KeyDifference) -> Result<(), RestoreError>,
    waiting: Vec<KeyDifference>,
    questions: Vec<Question>,
    bytes: usize,
    pub(super) counts: Counts,
}

impl<'a> Pending<'a> {
    pub(super) fn new(
        journal: Option<&'a JournalRange>,
        interrupt: &'a Interrupt,
        take: &'a mut dyn FnMut(KeyDifference) -> Result<(), RestoreError>,
    ) -> Self {
        Self {
            journal,
            interrupt,
            take,
            waiting: Vec::new(),
            questions: Vec::new(),
            bytes: 0,
            counts: Counts::default(),
        }
    }

    pub(super) fn add(&mut self, difference: KeyDifference, observer: &mut dyn Observer) -> Result<(), RestoreError> {
        if self.journal.is_none() {
            return self.hand_over(difference);
        }
        let questions = difference.questions();
        self.bytes += difference.bytes() + questions.len() * difference.key.len();
        self.questions.extend(questions);
        self.waiting.push(difference);
        if self.questions.len() >= QUESTIONS || self.bytes >= BYTES { self.flush(observer) } else { Ok(()) }
    }

    /// Looks up the answers, and passes on what waits.
    pub(super) fn flush(&mut self, observer: &mut dyn Observer) -> Result<(), RestoreError> {
        let (waiting, questions) = (std::mem::take(&mut self.waiting), std::mem::take(&mut self.questions));
        self.bytes = 0;
        let Some(journal) = self.journal.filter(|_| !questions.is_empty()) else { return Ok(()) };
        let total = journal.upto.0.saturating_sub(journal.after.0);
        observer.on(&Event::Step { name: "looking for who wrote last", total, unit: Unit::Records });
        // One key may have more elements than one pass can look up.
        let mut answers = Vec::with_capacity(questions.len());
        for some in questions.chunks(crate::judge::QUESTIONS_MAX) {
            answers.extend(ask(journal, some, self.interrupt, observer)?);
        }
        observer.on(&Event::StepDone);
        let mut answers = answers.into_iter();
        for mut difference in waiting {
            difference.answer(&mut answers);
            self.hand_over(difference)?;
        }
        Ok(())
    }

    fn hand_over(&mut self, difference: KeyDifference) -> Result<(), RestoreError> {
        let counts = &mut self.counts;
        if difference.is_opaque() && difference.last_write == LastWrite::Nothing && !difference.ttl_differs {
            counts.equal += 1;
            return Ok(());
        }
        match (&difference.before, &difference.after) {
            (None, _) => counts.created += 1,
            (_, None) => counts.deleted += 1,
            _ => counts.changed += 1,
        }
        counts.ttl_only += u64::from(!difference.value_differs);
        (self.take)(difference)
    }
}

/// The last writes, in the order of the questions.
fn ask(
    journal: &JournalRange,
    questions: &[Question],
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Vec<LastWrite>, RestoreError> {
    let JournalRange { catalog, timeline, after, upto, .. } = journal;
    let range = JudgedRange { catalog, timeline: *timeline, after: *after, upto: *upto };
    let judged = last_writes(range, questions, interrupt, &mut |passed| observer.on(&Event::At(passed)))?;
    let writes = read(journal, judged.verdicts.iter().filter_map(lsn).collect(), interrupt)?;
    Ok(judged.verdicts.iter().map(|verdict| last_write(verdict, &writes)).collect())
}

fn lsn(verdict: &Verdict) -> Option<Lsn> {
    match verdict {
        Verdict::Selected { lsn } | Verdict::Other { lsn, .. } | Verdict::Uncertain { lsn, .. } => Some(*lsn),
        Verdict::NotWritten => None,
    }
}

fn last_write(verdict: &Verdict, writes: &HashMap<Lsn, Arc<LastTouch>>) -> LastWrite {
    match verdict {
        Verdict::NotWritten => LastWrite::Nothing,
        Verdict::Uncertain { lsn, why, .. } => {
            LastWrite::Uncertain { write: writes.get(lsn).map(Arc::clone), lsn: *lsn, why: *why }
        }
        Verdict::Selected { lsn } | Verdict::Other { lsn, .. } => match writes.get(lsn) {
            Some(write) => LastWrite::Certain(Arc::clone(write)),
            None => LastWrite::Uncertain { write: None, lsn: *lsn, why: Why::Unreadable },
        },
    }
}

/// Reads these records, and only the parts of the journal that hold them. Unreadable ones are left out.
fn read(
    journal: &JournalRange,
    lsns: BTreeSet<Lsn>,
    interrupt: &Interrupt,
) -> Result<HashMap<Lsn, Arc<LastTouch>>, RestoreError> {
    let JournalRange { catalog, timeline, after, .. } = journal;
    let mut found = HashMap::with_capacity(lsns.len());
    let Some(end) = lsns.last().copied() else { return Ok(found) };
    let lsns = Arc::new(lsns);
    let wanted = Arc::clone(&lsns);
    let within = move |first: Lsn, last: Lsn| first <= last && wanted.range(first..=last).next().is_some();
    for group in catalog.groups_within(*after, *timeline, within) {
        interrupt.check()?;
        let Ok(group) = group else { break };
        for record in group.records.iter().filter(|record| lsns.contains(&record.lsn)) {
            found.insert(record.lsn, Arc::new(touch(&group, record)));
        }
        if group.records.last().is_some_and(|record| record.lsn >= end) {
            break;
        }
    }
    Ok(found)
}

/// A copy of what is displayed, so that the rest of its block is released.
fn touch(group: &Group, record: &Record) -> LastTouch {
    let cut = |arg: &bytes::Bytes| bytes::Bytes::copy_from_slice(&arg[..arg.len().min(ARG_BYTES_KEPT)]);
    let record = Record { args: record.args.iter().take(ARGS_KEPT).map(cut).collect(), ..record.clone() };
    let Group { ts, slack, origin, atomic, .. } = group;
    LastTouch { ts: *ts, slack: *slack, origin: Arc::clone(origin), atomic: *atomic, record }
}
