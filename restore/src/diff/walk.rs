//! Iterates over both datasets: every key of the first, then the additional keys of the second.

use redtape_journal::query::Filter;

use super::compare::{KeyDifference, Listing, compare};
use super::side::{Side, seen};
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::progress::{Event, Observer, Unit};
use crate::target::value_error::unreadable;
use crate::values::image::{Image, type_name};

/// Which keys are compared, and the options.
pub(super) struct Which<'a> {
    /// By name and database.
    pub(super) filter: &'a Filter,
    /// By the type at one of the points in time.
    pub(super) types: &'a Filter,
    pub(super) listing: Listing,
    pub(super) interrupt: &'a Interrupt,
}

/// Called with each differing key.
pub(super) type Found<'a> = dyn FnMut(KeyDifference, &mut dyn Observer) -> Result<(), RestoreError> + 'a;

/// Returns the number of keys that are present at both points in time and equal.
pub(super) fn walk(
    before: &mut Side,
    after: &mut Side,
    which: &Which<'_>,
    found: &mut Found<'_>,
    observer: &mut dyn Observer,
) -> Result<u64, RestoreError> {
    let total = before.count(which.filter)? + after.count(which.filter)?;
    observer.on(&Event::Step { name: "comparing", total, unit: Unit::Keys });
    let mut walk = Walk { which, found, observer, equal: 0, passed: 0 };
    walk.first(before, after)?;
    walk.second(before, after)?;
    let Walk { equal, observer, .. } = walk;
    observer.on(&Event::StepDone);
    Ok(equal)
}

struct Walk<'a, 'b> {
    which: &'a Which<'a>,
    found: &'a mut Found<'b>,
    observer: &'a mut dyn Observer,
    equal: u64,
    passed: u64,
}

impl Walk<'_, '_> {
    /// Compares keys of the first dataset with the second.
    fn first(&mut self, before: &mut Side, after: &mut Side) -> Result<(), RestoreError> {
        let mut values = before.saved.values()?;
        let points = (&before.point, after.point.clone());
        before.saved.each(self.which.filter, &mut |db, keys| {
            self.step(keys.len())?;
            after.read(db, keys, &mut |saved, then| {
                let was = values.image(&saved)?;
                if then.as_ref().is_some_and(|then| self.is_same(&was, then)) {
                    self.equal += 1;
                    return Ok(());
                }
                let unreadable = |e| unreadable(&saved.key, e);
                let was = seen(points.0, &was).map_err(unreadable)?;
                let is = then.map(|then| seen(&points.1, &then)).transpose().map_err(unreadable)?.flatten();
                let (was_there, is_there) = (was.is_some(), is.is_some());
                if !self.is_of_type(&[&was, &is].map(|seen| seen.as_ref().map(|seen| &seen.type_name[..]))) {
                    return Ok(());
                }
                let Some(difference) = compare((db, &saved.key), was, is, self.which.listing) else {
                    self.equal += u64::from(was_there && is_there);
                    return Ok(());
                };
                (self.found)(difference, self.observer)
            })
        })
    }

    /// Keys that only the second dataset has.
    fn second(&mut self, before: &mut Side, after: &mut Side) -> Result<(), RestoreError> {
        let mut values = after.saved.values()?;
        after.saved.each(self.which.filter, &mut |db, keys| {
            self.step(keys.len())?;
            let names: Vec<&[u8]> = keys.iter().map(|saved| &saved.key[..]).collect();
            let there = before.exist(db, &names)?;
            for (saved, _) in keys.iter().zip(there).filter(|(_, there)| !there) {
                let image = values.image(saved)?;
                let is = seen(&after.point, &image).map_err(|e| unreadable(&saved.key, e))?;
                if !self.is_of_type(&[None, is.as_ref().map(|seen| &seen.type_name[..])]) {
                    continue;
                }
                if let Some(difference) = compare((db, &saved.key), None, is, self.which.listing) {
                    (self.found)(difference, self.observer)?;
                }
            }
            Ok(())
        })
    }

    fn step(&mut self, keys: usize) -> Result<(), RestoreError> {
        self.which.interrupt.check()?;
        self.observer.on(&Event::At(self.passed));
        self.passed += keys as u64;
        Ok(())
    }

    /// Compares without decoding: keys without expiry in the same encoding.
    fn is_same(&self, was: &Image, is: &Image) -> bool {
        was.expires_ms == 0
            && is.expires_ms == 0
            && was.dump == is.dump
            && !self.which.types.looks_at_types()
            && type_name(&was.dump).is_ok_and(|name| name != "hash")
    }

    fn is_of_type(&self, names: &[Option<&str>; 2]) -> bool {
        !self.which.types.looks_at_types() || names.iter().flatten().any(|name| self.which.types.wants_type(name))
    }
}
