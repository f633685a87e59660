//! What a repair will find, counted before anything is written.

use serde::Serialize;

use super::absent::{Which, each_absent};
use super::decide::{Decision, decide};
use super::digest::NOTHING;
use super::image::Image;
use super::judged::Part;
use super::live;
use super::merge::Difference;
use super::policy::Policy;
use super::wanted::{Batch, Datasets, Wanted, each_batch};
use crate::client::Server;
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::progress::{Event, Observer, Unit};
use crate::target::lookup::{KeyCounts, select, show};
use redtape_journal::query::Filter;

/// Differing keys that are named.
const NAMED_KEYS: usize = 5;
/// Keys that are read from the target at once.
const READ_KEYS: usize = 64;
/// Parts of keys whose last write is looked for in the journal.
pub(crate) const QUESTIONS_MAX: usize = 2_000_000;

/// Numbers of keys, and some by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// Wanted keys in each database.
    pub wanted: KeyCounts,
    /// The target has none of that name.
    pub new: u64,
    /// The target has the same.
    pub equal: u64,
    /// The target has another value, or another time of expiry.
    pub different: u64,
    /// Of these, those where only the time of expiry is another one.
    pub ttl_only: u64,
    /// Of the differing keys, those that are not as they are expected to be (`--if-unchanged`): they stay.
    pub changed: u64,
    /// Their time of expiry has passed since the restore point.
    pub expired: u64,
    /// Selected keys of the target that did not exist at the restore point (`--delete-absent`).
    pub absent: u64,
    /// Elements that the target's keys lack (`--on-conflict merge`).
    pub elements_lacking: u64,
    /// Elements that differ, and those that only the target has.
    pub elements_different: u64,
    /// Some of the differing keys.
    pub samples: Vec<String>,
}

/// Parts of keys whose last write decides.
pub(crate) type Questions = Vec<(u32, Vec<u8>, Part)>;

/// Both sides, and what is asked of them.
pub(crate) struct Look<'a> {
    pub(crate) datasets: &'a mut Datasets,
    pub(crate) target: &'a mut Server,
    pub(crate) filter: &'a Filter,
    pub(crate) policy: &'a Policy,
    /// Of the restore.
    pub(crate) id: &'a str,
    /// The restore point.
    pub(crate) at_ms: i64,
    /// The target knows `PEXPIRETIME`.
    pub(crate) absolute: bool,
    /// Who wrote last decides.
    pub(crate) judge: bool,
    pub(crate) interrupt: &'a Interrupt,
}

/// Looks at every wanted key on both sides; writes nothing.
pub(crate) fn survey(look: Look<'_>, observer: &mut dyn Observer) -> Result<(Survey, Questions), RestoreError> {
    let Look { datasets, target, filter, policy, id, at_ms, absolute, judge, interrupt } = look;
    let total = datasets.wanted.server.info(Some("keyspace"))?.keyspace().values().sum();
    observer.on(&Event::Step { name: "comparing with the target", total, unit: Unit::Keys });
    let mut surveyor =
        Surveyor { target, policy, at_ms, absolute, judge, survey: Survey::default(), questions: Vec::new() };
    let mut seen = 0;
    each_batch(datasets, filter, &mut |batch| {
        interrupt.check()?;
        seen += batch.keys.len() as u64;
        surveyor.batch(batch)?;
        observer.on(&Event::At(seen));
        Ok(())
    })?;
    let Surveyor { target, mut survey, mut questions, .. } = surveyor;
    if policy.delete_absent {
        let which = Which { filter, own_names: policy.own_names(id) };
        each_absent(datasets, target, &which, interrupt, &mut |db, keys| {
            survey.absent += keys.len() as u64;
            if judge {
                questions.extend(keys.into_iter().map(|unwanted| (db, unwanted.key, Part::Whole)));
            }
            check_questions(&questions)
        })?;
    }
    observer.on(&Event::StepDone);
    Ok((survey, questions))
}

fn check_questions(questions: &Questions) -> Result<(), RestoreError> {
    if questions.len() <= QUESTIONS_MAX {
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
    absolute: bool,
    judge: bool,
    survey: Survey,
    questions: Questions,
}

impl Surveyor<'_> {
    fn batch(&mut self, batch: Batch) -> Result<(), RestoreError> {
        let Batch { db, keys } = batch;
        *self.survey.wanted.entry(db).or_default() += keys.len() as u64;
        if self.policy.on_conflict != super::OnConflict::Merge && !self.judge && keys.is_empty() {
            return Ok(());
        }
        select(self.target, db)?;
        let names: Vec<&[u8]> = keys.iter().map(|wanted| &wanted.key[..]).collect();
        let there = live::exist(self.target, &names)?;
        let now_ms = live::clock(self.target)?;
        let (mut present, mut absent) = (Vec::new(), Vec::new());
        for (mut wanted, there) in keys.into_iter().zip(there) {
            let image = &mut wanted.image;
            image.expires_ms = self.policy.ttl.apply(image.expires_ms, self.at_ms, now_ms);
            if image.expires_ms != 0 && image.expires_ms <= now_ms {
                self.survey.expired += 1;
            } else if there {
                present.push(wanted);
            } else {
                absent.push(wanted.key);
            }
        }
        self.survey.new += absent.len() as u64;
        if self.judge {
            self.questions.extend(absent.into_iter().map(|key| (db, key, Part::Whole)));
        }
        for some in present.chunks(READ_KEYS) {
            let names: Vec<&[u8]> = some.iter().map(|wanted| &wanted.key[..]).collect();
            let live = live::read(self.target, &names, self.absolute, false)?;
            for (Wanted { key, image: wanted, expected }, there) in some.iter().zip(&live.keys) {
                let unreadable = |e| RestoreError::Unable(format!("cannot read the value of {}: {e}", show(key)));
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
                self.count(db, key, decision, ttl_only);
            }
        }
        check_questions(&self.questions)
    }

    fn count(&mut self, db: u32, key: &[u8], decision: Decision, ttl_only: bool) {
        let survey = &mut self.survey;
        match decision {
            Decision::Expired => survey.expired += 1,
            Decision::Create => survey.new += 1,
            Decision::Equal => survey.equal += 1,
            differs => {
                survey.different += 1;
                survey.ttl_only += u64::from(ttl_only);
                if survey.samples.len() < NAMED_KEYS {
                    survey.samples.push(format!("{} in db {db}", show(key)));
                }
                if let Decision::Merge(differences) = differs {
                    self.ask(db, key, differences);
                }
            }
        }
    }

    fn ask(&mut self, db: u32, key: &[u8], differences: super::decide::Differences) {
        let mut ask = |part| {
            if self.judge {
                self.questions.push((db, key.to_vec(), part));
            }
        };
        if differences.ttl {
            ask(Part::Ttl);
        }
        let Some(elements) = differences.elements else { return ask(Part::Whole) };
        for difference in elements {
            if matches!(difference, Difference::Lacking(_)) {
                self.survey.elements_lacking += 1;
            } else {
                self.survey.elements_different += 1;
            }
            ask(Part::Element(difference.name().to_vec()));
        }
    }
}
