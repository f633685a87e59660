//! Reads the records from last to first, and passes each to the questions that it concerns.

use std::collections::HashSet;
use std::sync::Arc;

use redtape_journal::query::{Match, WriteFilter};
use redtape_journal::{Group, Lsn, Origin, OriginKind, ReadError, Record, Searched, WantedKeys};
use redtape_wire::effect::{After, Elements, KeyWrite, Writes, writes};
use redtape_wire::word;

use super::expiry::{EndOfLife, Expired, RemovedAt};
use super::index::{Asked, Index, OfKey};
use super::seen::{Seen, uncertain};
use super::state::{Notes, Stage, State, Step, settle, settle_any};
use super::{Judged, JudgedRange, Meant, Part, Question, Verdict, Why};
use crate::error::RestoreError;
use crate::interrupt::Interrupt;

/// With more keys than this, nearly every part of the journal holds one.
const ASKED_MAX: usize = 4096;

pub(super) fn run(
    range: JudgedRange<'_>,
    questions: &[Question],
    meant: &Meant<'_>,
    interrupt: &Interrupt,
    on_progress: &mut dyn FnMut(u64),
) -> Result<Judged, RestoreError> {
    let JudgedRange { catalog, timeline, after, upto } = range;
    let mut pass = Pass::new(questions, meant);
    if after >= upto {
        pass.finish(None);
        return Ok(pass.judged(Searched::default(), None));
    }
    let mut reader = catalog.parts_back(after, upto, timeline);
    let mut damage: Option<ReadError> = None;
    let mut reached = upto;
    while !pass.index.is_empty() {
        interrupt.check()?;
        let part = match reader.next_part(pass.wanted_keys().as_ref()) {
            Ok(Some(part)) => part,
            Ok(None) => break,
            Err(error) => {
                damage = Some(error);
                break;
            }
        };
        for group in part.iter().rev() {
            pass.group(group);
        }
        let first = part.first().and_then(|group| group.records.first()).map(|record| record.lsn);
        reached = first.unwrap_or(reached).max(Lsn(after.0.saturating_add(1)));
        on_progress(upto.0.saturating_sub(reached.0).saturating_add(1));
    }
    // Removed parts of the journal cannot be searched.
    let begins = catalog.timelines().iter().find(|info| info.id == timeline).map(|info| info.first_lsn);
    let is_whole = damage.is_none() && begins.is_some_and(|first| first.0 <= after.0.saturating_add(1));
    pass.finish((!is_whole).then_some(reached));
    Ok(pass.judged(reader.searched(), damage))
}

/// A record, and whether it is selected.
struct Passed<'g> {
    group: &'g Group,
    record: &'g Record,
    is: Match,
}

impl Passed<'_> {
    /// As a write to keys that can be selected.
    fn seen(&self) -> Seen {
        Seen { lsn: self.record.lsn, who: Arc::clone(&self.group.origin), is: self.is }
    }

    fn name_is(&self, names: &[&str]) -> bool {
        let name = self.record.args.first().map_or(&b""[..], |name| name);
        names.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
    }
}

/// It may be the server's deletion of an expired key.
#[derive(Debug, Clone, Copy)]
struct Removal {
    /// `None` = certainly the server.
    at: Option<RemovedAt>,
    /// The key, not a field.
    key: bool,
}

pub(super) struct Pass<'a> {
    questions: &'a [Question],
    filter: &'a WriteFilter,
    any_writer: bool,
    pub(super) index: Index<'a>,
    states: Vec<State>,
    verdicts: Vec<Option<Verdict>>,
    /// Commands with unknown effects.
    notes: Notes,
    /// Commands of modules.
    modules: Notes,
    /// The last swap of databases that was read.
    exchanged: Option<Seen>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(questions: &'a [Question], meant: &Meant<'a>) -> Self {
        let Meant { filter, any_writer } = *meant;
        let state = |question: &Question| State {
            wanted: filter.wants_key(question.db, &question.key),
            any_writer,
            ..State::default()
        };
        Self {
            questions,
            filter,
            any_writer,
            index: Index::new(questions),
            states: questions.iter().map(state).collect(),
            verdicts: vec![None; questions.len()],
            notes: Notes::default(),
            modules: Notes::default(),
            exchanged: None,
        }
    }

    fn wanted_keys(&self) -> Option<WantedKeys> {
        (self.index.keys_len() <= ASKED_MAX).then(|| self.index.keys().collect())
    }

    pub(super) fn group(&mut self, group: &Group) {
        for record in group.records.iter().rev() {
            if self.index.is_empty() {
                return;
            }
            self.record(group, record);
        }
    }

    fn record(&mut self, group: &Group, record: &Record) {
        let filter = self.filter;
        let passed = || Passed { group, record, is: filter.matches(group, record) };
        match writes(record.db, &record.args, record.keys.as_deref()) {
            Writes::Nothing => {}
            Writes::Keys(keys) => {
                // If a key is named twice, the last one counts.
                let mut named = HashSet::new();
                for write in keys.iter().rev() {
                    if self.index.key(write.db, write.key).is_some() && named.insert((write.db, write.key)) {
                        self.key(&passed(), write);
                    }
                }
            }
            Writes::FlushDb => self.flush(&passed(), record.db),
            Writes::FlushAll => {
                let places: Vec<u32> = self.index.places().map(|(_, at)| at).collect();
                for db in places {
                    self.flush(&passed(), db);
                }
            }
            Writes::SwapDb(a, b) => {
                let seen = passed().seen();
                self.index.swap(a, b, &seen);
                self.exchanged = self.exchanged.take().or_else(|| (a != b).then_some(seen));
            }
            Writes::UnknownOf { keys, others } => {
                let seen = passed().seen();
                if others {
                    self.modules.add(&seen, Why::UnknownCommand);
                }
                for (db, key) in keys {
                    self.unknown_of(db, key, &seen, others);
                }
            }
            Writes::Unknown => {
                // It may have swapped databases: then others' writes are in other places than they wrote to.
                let seen = passed().seen();
                let seen = Seen { is: seen.is.min(Match::Perhaps), ..seen };
                self.notes.add(&seen, Why::UnknownCommand);
                if self.notes.is_undecided() {
                    self.end(self.index.all());
                }
            }
        }
    }

    /// A command that may have written anything in a key.
    fn unknown_of(&mut self, db: u32, key: &[u8], seen: &Seen, of_module: bool) {
        let Some(of_key) = self.index.key(db, key) else { return };
        of_key.notes.add(seen, Why::UnknownCommand);
        of_key.of_module |= of_module;
        if of_key.notes.is_undecided() {
            let all = of_key.all().collect();
            self.end(all);
        }
    }

    fn flush(&mut self, passed: &Passed<'_>, db: u32) {
        let Some(database) = self.index.database(db) else { return };
        let is_selected = passed.is == Match::Yes;
        if is_selected && database.flushed {
            return;
        }
        database.flushed = is_selected;
        let all: Vec<u32> = database.keys.values().flat_map(OfKey::all).collect();
        let step = Step::gone(passed.seen());
        for number in all {
            self.step(number, &step, None);
            self.end_of_life(number, passed, EndOfLife::Removed);
        }
    }

    fn key(&mut self, passed: &Passed<'_>, write: &KeyWrite<'_>) {
        let seen = passed.seen();
        let removal = self.removal(passed, write);
        let Some(of_key) = self.index.key(write.db, write.key) else { return };
        let steps = steps(of_key, &seen, write);
        let has_expired = of_key.has_expired;
        let mut undecided = Vec::new();
        if write.elements == Elements::Unlisted && !of_key.elements.is_empty() {
            of_key.element_notes.add(&seen, Why::MayHaveWritten);
            if of_key.element_notes.is_undecided() {
                undecided.extend(of_key.elements.values().flatten());
            }
        }
        for (number, step) in steps {
            self.step(number, &step, removal);
        }
        self.end(undecided);
        if has_expired && removal.is_none() {
            self.ends_of_life(passed, write);
        }
    }

    /// True if it may be the server's deletion of the key or the field.
    fn removal(&self, passed: &Passed<'_>, write: &KeyWrite<'_>) -> Option<Removal> {
        let Passed { group, record, .. } = passed;
        let kind = group.origin.kind;
        let by_server = kind == OriginKind::Expiry && !self.filter.names_origin(kind);
        if by_server && passed.name_is(&["hdel"]) {
            return Some(Removal { at: None, key: false });
        }
        if write.elements != Elements::Whole || record.args.len() != 2 || !passed.name_is(&["del", "unlink"]) {
            return None;
        }
        // A DEL outside a transaction is its client's.
        let may_be = kind == OriginKind::Unknown
            || group.records.len() > 1 && matches!(kind, OriginKind::Client | OriginKind::Outside);
        (by_server || may_be).then(|| Removal { at: may_be.then(|| RemovedAt::of(group)), key: true })
    }

    /// For questions that search the writer of an expiry time: whether it is this write.
    fn ends_of_life(&mut self, passed: &Passed<'_>, write: &KeyWrite<'_>) {
        let Some(of_key) = self.index.key(write.db, write.key) else { return };
        let all: Vec<u32> = of_key.all().collect();
        for number in all {
            let Stage::Expired(expired) = &self.states[number as usize].stage else { continue };
            let end = match &self.questions[number as usize].part {
                Part::Element(field) if !expired.key => end_of_field(passed, write, field),
                _ => write.ttl.filter(|ttl| !ttl.is_perhaps()).map(|ttl| EndOfLife::of(ttl.after)),
            };
            if let Some(end) = end {
                self.end_of_life(number, passed, end);
            }
        }
    }

    fn end_of_life(&mut self, number: u32, passed: &Passed<'_>, end: EndOfLife) {
        if self.verdicts[number as usize].is_some() {
            return;
        }
        let state = &mut self.states[number as usize];
        let seen = of_wanted(passed.seen(), state.wanted);
        if let Some(verdict) = state.pass_end(&seen, end) {
            self.answer(number, verdict);
        }
    }

    fn step(&mut self, number: u32, step: &Step, removal: Option<Removal>) {
        let at = number as usize;
        if self.verdicts[at].is_some() {
            return;
        }
        let (question, state) = (&self.questions[at], &mut self.states[at]);
        let step = Step { seen: of_wanted(step.seen.clone(), state.wanted), ..step.clone() };
        let is_element = matches!(question.part, Part::Element(_));
        // With a TTL at the end, the key was not deleted since that was set.
        if question.part == Part::Ttl && step.perhaps && question.expires_after.is_some() {
            return;
        }
        let found = match removal.filter(|removal| removal.key || is_element) {
            None => state.pass(&step),
            Some(Removal { at, key }) => {
                if let Some(database) = self.index.asked_of(question) {
                    database.flushed = false;
                }
                if let Some(of_key) = self.index.of_mut(question) {
                    of_key.has_expired = true;
                }
                let ends_before = question.expires_before;
                // The key existed; its elements and TTL may not have.
                let proven = match question.part {
                    Part::Whole => true,
                    Part::Element(_) => !key,
                    Part::Ttl => at.is_none(),
                };
                state.pass_removal(Expired { removal: step.seen, at, ends_before, key, proven })
            }
        };
        if let Some(verdict) = found {
            self.answer(number, verdict);
        }
    }

    /// Answers a question from its state and the doubts recorded elsewhere.
    fn answer(&mut self, number: u32, found: Verdict) {
        let at = number as usize;
        if self.verdicts[at].is_some() {
            return;
        }
        let (question, state) = (&self.questions[at], &self.states[at]);
        let mut notes = vec![&state.notes, &self.notes];
        if let Some(of_key) = self.index.of(question) {
            notes.push(&of_key.notes);
            if matches!(question.part, Part::Element(_)) {
                notes.push(&of_key.element_notes);
            }
            if of_key.of_module {
                notes.push(&self.modules);
            }
        }
        notes.extend(self.index.swaps(question.db));
        let verdict = if self.any_writer { settle_any(found, &notes) } else { settle(found, state.wanted, &notes) };
        self.verdicts[at] = Some(match (&self.exchanged, verdict) {
            // Others' writes in between may now be in this database, and would be lost if this one were undone.
            (Some(seen), Verdict::Selected { .. }) => uncertain(seen, Why::Swapped),
            (_, verdict) => verdict,
        });
        self.index.remove(question, number);
    }

    /// Answers these questions: older records cannot make them certain.
    fn end(&mut self, numbers: Vec<u32>) {
        for number in numbers {
            let question = &self.questions[number as usize];
            let verdict = match &self.states[number as usize].stage {
                // The known beginning is that of another key.
                Stage::Expired(expired) if self.index.swaps(question.db).is_some() => {
                    uncertain(&expired.removal, Why::CauseOfExpiry)
                }
                _ => self.states[number as usize].end(),
            };
            self.answer(number, verdict);
        }
    }

    /// The pass has ended; `unreadable` = before this record, not at the beginning of the range.
    pub(super) fn finish(&mut self, unreadable: Option<Lsn>) {
        let open = self.index.all();
        match unreadable {
            None => self.end(open),
            Some(lsn) => {
                let who = Arc::new(Origin::of(OriginKind::Unknown));
                for number in open {
                    let who = Arc::clone(&who);
                    self.answer(number, Verdict::Uncertain { lsn, who, why: Why::Unreadable });
                }
            }
        }
    }

    /// The answers; each question has one.
    pub(super) fn judged(self, searched: Searched, damage: Option<ReadError>) -> Judged {
        let verdicts = self.verdicts.into_iter().map(|verdict| verdict.unwrap_or(Verdict::NotWritten)).collect();
        Judged { verdicts, searched, damage }
    }
}

/// Writes to a key outside the selection are not selected.
fn of_wanted(seen: Seen, wanted: bool) -> Seen {
    Seen { is: if wanted { seen.is } else { Match::No }, ..seen }
}

/// Applies a write to each of the questions of its key.
fn steps(of_key: &OfKey<'_>, seen: &Seen, write: &KeyWrite<'_>) -> Vec<(u32, Step)> {
    let mut steps: Vec<(u32, Step)> = Vec::new();
    let mut each = |asked: &Asked, step: &Step| steps.extend(asked.iter().map(|number| (*number, step.clone())));
    if let Some(value) = &write.value {
        each(&of_key.whole, &Step::new(seen.clone(), value));
    }
    if let Some(ttl) = &write.ttl {
        each(&of_key.ttl, &Step::new(seen.clone(), ttl));
    }
    match &write.elements {
        Elements::None | Elements::Unlisted => {}
        // Of one that is named twice, the last one counts.
        Elements::Listed(listed) => {
            let mut named = HashSet::new();
            for (element, write) in listed.iter().rev() {
                if let Some(asked) = of_key.elements.get(element).filter(|_| named.insert(*element)) {
                    each(asked, &Step::new(seen.clone(), write));
                }
            }
        }
        Elements::Whole => {
            let step = match write.value.map(|value| value.after) {
                // A string has no elements.
                Some(After::Absent | After::Is(_)) => Step::gone(seen.clone()),
                _ => Step::replaced(seen.clone()),
            };
            of_key.elements.values().for_each(|asked| each(asked, &step));
        }
    }
    steps
}

/// Effect of a write on a field's expiry time.
fn end_of_field(passed: &Passed<'_>, write: &KeyWrite<'_>, field: &[u8]) -> Option<EndOfLife> {
    match &write.elements {
        Elements::Listed(listed) => {
            listed.iter().find(|(listed, _)| *listed == field)?;
        }
        Elements::Whole => {
            let replaced = matches!(write.value.map(|value| value.after), Some(After::Any));
            return Some(if replaced { EndOfLife::Until(None) } else { EndOfLife::Removed });
        }
        Elements::None | Elements::Unlisted => return None,
    }
    // It keeps the expiry time.
    if passed.name_is(&["hincrby", "hincrbyfloat"]) {
        return None;
    }
    if passed.name_is(&["hexpire", "hpexpire", "hexpireat", "hpexpireat"]) {
        let condition = passed.record.args.get(3).is_some_and(|arg| word::is_one_of(arg, &["NX", "XX", "GT", "LT"]));
        return Some(if condition { EndOfLife::Perhaps } else { EndOfLife::Until(None) });
    }
    let may_set = passed.name_is(&["hsetex", "hgetex"]);
    Some(if may_set { EndOfLife::Until(None) } else { EndOfLife::Removed })
}
