//! Computes the repair of each key, and counts all of them before the first write.

use std::collections::BTreeMap;

use super::datasets::Rebuilt;
use super::doubts;
use super::history::History;
use super::pairs::Pair;
use super::plan::Changes;
use super::repairs::{self, KeyRepair, Whole};
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::judge::Part;
use crate::progress::{Event, Observer, Unit};
use crate::target::lookup::show;
use crate::target::repair::{Listed, live};
use crate::target::server::ServerTarget;
use crate::target::value_error::unreadable;

/// Limit of listed differences that stay.
const LISTED_MAX: usize = 1000;

/// The differences between both datasets, counted.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) changes: Changes,
    pub(super) stays: Stays,
    /// For each key of the dataset without the writes, in order, whether it is created.
    pub(super) new: Vec<bool>,
    /// Keys of that dataset in each database.
    pub(super) wanted: BTreeMap<u32, u64>,
}

impl Survey {
    pub(super) fn take(
        rebuilt: &mut Rebuilt,
        history: &History,
        target: &mut ServerTarget,
        observer: &mut dyn Observer,
    ) -> Result<Self, RestoreError> {
        let mut survey = Self::default();
        observer.on(&Event::Step { name: "comparing", total: 0, unit: Unit::Keys });
        let mut seen = 0;
        let now_ms = live::clock(&mut target.server)?;
        each_repair(rebuilt, history, (now_ms, &target.interrupt()), &mut |repair, pair| {
            seen += 1;
            observer.on(&Event::At(seen));
            survey.count(&repair, &pair);
            Ok(())
        })?;
        observer.on(&Event::StepDone);
        Ok(survey)
    }

    fn count(&mut self, repair: &KeyRepair, pair: &Pair<'_>) {
        if pair.without.is_some() {
            self.new.push(repair.whole == Some(Whole::Create));
            *self.wanted.entry(pair.db).or_default() += 1;
        }
        let changes = &mut self.changes;
        match repair.whole {
            Some(Whole::Create) => changes.created += 1,
            Some(Whole::Replace) => changes.replaced += 1,
            Some(Whole::Delete) => changes.deleted += 1,
            None => {}
        }
        changes.merged += u64::from(!repair.elements.is_empty());
        changes.elements += repair.elements.len() as u64;
        changes.ttl_set += u64::from(repair.ttl.is_some());
        if repair.writes() {
            changes.sample(|| format!("{} in db {}", show(pair.key), pair.db));
        }
        self.stays.add((pair.db, pair.key), &repair.stays);
    }
}

/// Calls `take` with the repair of each key. `now_ms`: the target's clock.
pub(super) fn each_repair(
    rebuilt: &mut Rebuilt,
    history: &History,
    (now_ms, interrupt): (i64, &Interrupt),
    take: &mut dyn FnMut(KeyRepair, Pair<'_>) -> Result<(), RestoreError>,
) -> Result<(), RestoreError> {
    let Rebuilt { pairs, replayed } = rebuilt;
    pairs.each(&history.filter, interrupt, &mut |pair| {
        let doubt = |part: &_| doubts::of(history, replayed, (pair.db, pair.key), part);
        let repair = repairs::repair(pair.was.as_ref(), pair.without.as_ref(), (now_ms, pair.slack_ms), &doubt);
        let mut repair = repair.map_err(|error| unreadable(pair.key, error))?;
        if !repair.writes() && repair.stays.is_empty() {
            repair.stays.extend(doubts::of_equal(replayed, pair.db, pair.key).map(|why| (Part::Whole, why)));
        }
        take(repair, pair)
    })
}

/// Differences that stay: a count and a list.
#[derive(Debug, Default)]
pub(super) struct Stays {
    pub(super) count: u64,
    pub(super) listed: Vec<Listed>,
    /// Keys are examined again.
    pub(super) again: bool,
}

impl Stays {
    /// Adds the parts of a key that stay; listed ones are not counted again.
    pub(super) fn add(&mut self, (db, key): (u32, &[u8]), stays: &[(Part, String)]) {
        for (part, why) in stays {
            let listed = Listed { db, key: show(key), why: doubts::in_words(part, why) };
            if self.again && self.listed.contains(&listed) {
                continue;
            }
            self.count += 1;
            if self.listed.len() < LISTED_MAX {
                self.listed.push(listed);
            }
        }
    }
}
