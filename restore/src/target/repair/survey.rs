//! Counts the differences between both sides before anything is written.

use redtape_journal::query::Filter;
use redtape_journal::undo_file::OperationId;
use redtape_wire::rdb::ReadError;

use super::absent::{Which, each_absent};
use super::datasets::{Datasets, expected_digests};
use super::decide::{Decision, Differences, MergedStream, decide};
use super::engine::Unwanted;
use super::judged::{Asked, seen_ttl};
use super::live;
use super::plan::Survey;
use super::policy::Policy;
use crate::client::Server;
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::judge::{Part, Question};
use crate::progress::{Event, Observer, Unit};
use crate::source::scratch::Scratch;
use crate::target::lookup::{select, show};
use crate::target::value_error::unreadable;
use crate::values::digest::{Digest, NOTHING};
use crate::values::image::Image;
use crate::values::merge::Difference;
use crate::values::saved::{SavedKey, Values};
use crate::version::ServerVersion;

/// Differing keys listed by name.
pub(crate) const NAMED_KEYS: usize = 5;
/// Keys read from the target at once.
const READ_KEYS: usize = 64;
/// Parts of keys whose last write is looked up in the journal.
pub(crate) const QUESTIONS_MAX: usize = 2_000_000;

/// The result of a survey.
pub(crate) struct Surveyed {
    pub(crate) survey: Survey,
    pub(crate) asked: Vec<Asked>,
    /// For each wanted key, in the order of the saved dataset, whether the target lacks it.
    pub(crate) new: Vec<bool>,
}

/// Inputs of a survey.
pub(crate) struct Look<'a> {
    pub(crate) datasets: &'a mut Datasets,
    pub(crate) target: &'a mut Server,
    pub(crate) filter: &'a Filter,
    pub(crate) policy: &'a Policy,
    /// The id of the restore.
    pub(crate) id: &'a OperationId,
    /// The restore point.
    pub(crate) at_ms: i64,
    /// The target's version.
    pub(crate) version: ServerVersion,
    /// Differences are judged by their last write (`--broken-by`).
    pub(crate) judge: bool,
    pub(crate) interrupt: &'a Interrupt,
}

/// Compares every wanted key on both sides; writes nothing.
pub(crate) fn survey(look: Look<'_>, observer: &mut dyn Observer) -> Result<Surveyed, RestoreError> {
    let Look { datasets, target, filter, policy, id, at_ms, version, judge, interrupt } = look;
    let total = datasets.wanted.server.info(Some("keyspace"))?.keyspace().values().sum();
    observer.on(&Event::Step { name: "comparing with the target", total, unit: Unit::Keys });
    let mut surveyor = Surveyor { target, policy, at_ms, version, judge, survey: Survey::default(), asked: Vec::new() };
    let mut seen = 0;
    let mut new = Vec::new();
    let (saved, mut expected) = datasets.parts();
    let mut values = saved.values()?;
    saved.each(filter, &mut |db, keys| {
        interrupt.check()?;
        seen += keys.len() as u64;
        surveyor.keys(db, keys, &mut values, expected.as_deref_mut(), &mut new)?;
        observer.on(&Event::At(seen));
        Ok(())
    })?;
    let Surveyor { target, mut survey, mut asked, .. } = surveyor;
    if policy.deletes() {
        // The scan uses the other connection.
        let mut judged_target = target.another()?;
        let id = id.to_string();
        let which = Which::of(policy, filter, &id);
        each_absent(datasets, target, &which, interrupt, &mut |db, keys| {
            survey.add_absent(db, keys.len());
            if judge {
                ask_of_unwanted(&mut judged_target, db, &keys, version, &mut asked)?;
            }
            check_questions(&asked)
        })?;
    }
    observer.on(&Event::StepDone);
    Ok(Surveyed { survey, asked, new })
}

fn check_questions(asked: &[Asked]) -> Result<(), RestoreError> {
    if asked.len() <= QUESTIONS_MAX {
        return Ok(());
    }
    Err(RestoreError::Unable(format!(
        "more than {QUESTIONS_MAX} keys and elements differ: with --broken-by, select fewer keys at once (--key, --db)"
    )))
}

struct Surveyor<'a> {
    target: &'a mut Server,
    policy: &'a Policy,
    at_ms: i64,
    version: ServerVersion,
    judge: bool,
    survey: Survey,
    asked: Vec<Asked>,
}

impl Surveyor<'_> {
    /// Compares some keys; values of keys that the target lacks are not read. `new` receives for each key whether it is
    /// missing.
    fn keys(
        &mut self,
        db: u32,
        keys: Vec<SavedKey>,
        values: &mut Values<'_>,
        expected: Option<&mut Scratch>,
        new: &mut Vec<bool>,
    ) -> Result<(), RestoreError> {
        *self.survey.wanted.entry(db).or_default() += keys.len() as u64;
        select(self.target, db)?;
        let names: Vec<&[u8]> = keys.iter().map(|saved| &saved.key[..]).collect();
        let there = live::exist_by_groups(self.target, &names)?;
        let digests = expected_digests(expected, db, &names)?;
        let now_ms = live::clock(self.target)?;
        new.extend(there.iter().map(|there| !there));
        let (mut present, mut absent) = (Vec::new(), Vec::new());
        for ((saved, there), expected) in keys.into_iter().zip(there).zip(digests) {
            let expires_ms = self.policy.ttl.apply(saved.expires_ms, self.at_ms, now_ms);
            if expires_ms != 0 && expires_ms <= now_ms {
                self.survey.expired += 1;
                if there && self.policy.replace_all {
                    self.survey.add_absent(db, 1);
                }
            } else if there {
                let image = Image { expires_ms, ..values.image(&saved)? };
                present.push((saved.key, image, expected, saved.expires_ms));
            } else {
                absent.push((saved.key, saved.expires_ms));
            }
        }
        self.survey.new += absent.len() as u64;
        if self.judge {
            for (key, expires_ms) in absent {
                let times = (time(expires_ms), None);
                self.asked.push(asked(db, &key, Part::Whole, times, NOTHING));
            }
        }
        for some in present.chunks(READ_KEYS) {
            let names: Vec<&[u8]> = some.iter().map(|(key, ..)| &key[..]).collect();
            let live = live::read(self.target, &names, self.version, false)?;
            for ((key, wanted, expected, was_ms), there) in some.iter().zip(&live.keys) {
                let unreadable = |e| unreadable(key, e);
                let decision =
                    decide(self.policy, wanted, there.as_ref(), live.now_ms, live.slack_ms).map_err(unreadable)?;
                let ttl_only = there.as_ref().is_some_and(|there| there.same_value(wanted).unwrap_or(false));
                if let Some(expected) = expected
                    && decision != Decision::Equal
                    && there.as_ref().map(Image::digest).transpose().map_err(unreadable)?.unwrap_or(NOTHING)
                        != *expected
                {
                    self.survey.changed += 1;
                }
                if let Some(there) = there
                    && let Decision::Merge(differences) = &decision
                {
                    self.ask((db, key), differences, (*was_ms, there)).map_err(unreadable)?;
                }
                if let (Some(there), Decision::MergeStream(merged)) = (there, &decision) {
                    let MergedStream { lacking, ttl, .. } = **merged;
                    if self.judge {
                        let whole = Differences { elements: None, ttl };
                        self.ask((db, key), &whole, (*was_ms, there)).map_err(unreadable)?;
                    } else {
                        self.survey.elements_lacking += lacking;
                    }
                }
                self.count(db, key, &decision, ttl_only);
            }
        }
        check_questions(&self.asked)
    }

    fn count(&mut self, db: u32, key: &[u8], decision: &Decision, ttl_only: bool) {
        let survey = &mut self.survey;
        match decision {
            Decision::Expired => {
                survey.expired += 1;
                if self.policy.replace_all {
                    survey.add_absent(db, 1);
                }
            }
            Decision::Create => survey.new += 1,
            Decision::Equal => survey.equal += 1,
            _ => {
                survey.different += 1;
                survey.ttl_only += u64::from(ttl_only);
                if survey.samples.len() < NAMED_KEYS {
                    survey.samples.push(format!("{} in db {db}", show(key)));
                }
            }
        }
    }

    /// Counts the differing elements, and adds questions about their last writes. `was_ms`: expiry time at the restore
    /// point.
    fn ask(
        &mut self,
        (db, key): (u32, &[u8]),
        differences: &Differences,
        (was_ms, there): (i64, &Image),
    ) -> Result<(), ReadError> {
        let judge = self.judge;
        let times = (time(was_ms), time(there.expires_ms));
        let (survey, all) = (&mut self.survey, &mut self.asked);
        let mut ask = |part, seen| {
            if judge {
                all.push(asked(db, key, part, times, seen));
            }
        };
        if differences.ttl {
            ask(Part::Ttl, seen_ttl(there.expires_ms));
        }
        let Some(elements) = &differences.elements else {
            ask(Part::Whole, there.digest()?);
            return Ok(());
        };
        for difference in elements {
            if matches!(difference, Difference::Lacking(_)) {
                survey.elements_lacking += 1;
            } else {
                survey.elements_different += 1;
            }
            ask(Part::Element(difference.name().to_vec()), difference.seen());
        }
        Ok(())
    }
}

fn time(expires_ms: i64) -> Option<i64> {
    (expires_ms != 0).then_some(expires_ms)
}

fn asked(
    db: u32,
    key: &[u8],
    part: Part,
    (expires_before, expires_after): (Option<i64>, Option<i64>),
    seen: Digest,
) -> Asked {
    let question = Question { db, key: key.to_vec(), part, expires_before, expires_after };
    Asked { question, seen }
}

/// Adds questions about the last writes of keys that did not exist.
fn ask_of_unwanted(
    target: &mut Server,
    db: u32,
    unwanted: &[Unwanted],
    version: ServerVersion,
    all: &mut Vec<Asked>,
) -> Result<(), RestoreError> {
    select(target, db)?;
    for some in unwanted.chunks(READ_KEYS) {
        let names: Vec<&[u8]> = some.iter().map(|unwanted| &unwanted.key[..]).collect();
        let live = live::read(target, &names, version, false)?;
        for (key, there) in names.into_iter().zip(live.keys) {
            let Some(there) = there else { continue };
            let unreadable = |e| unreadable(key, e);
            let seen = there.digest().map_err(unreadable)?;
            all.push(asked(db, key, Part::Whole, (None, time(there.expires_ms)), seen));
        }
    }
    Ok(())
}
