//! Pairs the two datasets: each key as it was, and without the undone writes.

use redtape_journal::query::Filter;

use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::source::scratch::Scratch;
use crate::target::lookup::select;
use crate::target::repair::{Datasets, live};
use crate::target::unfinished::KEY;
use crate::values::image::Image;
use crate::values::saved::Saved;

/// Keys whose values are read at once.
const READ_KEYS: usize = 64;

/// Both datasets.
#[derive(Debug)]
pub(super) struct Pairs {
    /// Wanted: the dataset without the writes; expected: the dataset as it was.
    pub(super) datasets: Datasets,
    saved_was: Saved,
}

/// A key of one or both datasets.
#[derive(Debug)]
pub(super) struct Pair<'a> {
    pub(super) db: u32,
    pub(super) key: &'a [u8],
    pub(super) was: Option<Image>,
    pub(super) without: Option<Image>,
    /// Inaccuracy of expiry times.
    pub(super) slack_ms: i64,
}

impl Pairs {
    /// Saves both datasets to files.
    pub(super) fn new(mut without: Scratch, mut was: Scratch) -> Result<Self, RestoreError> {
        for scratch in [&mut without, &mut was] {
            // A marker key of the recorded server is not user data.
            scratch.server.call(&["SELECT", "0"])?;
            scratch.server.call(&["DEL", KEY])?;
        }
        was.hold()?;
        let saved_was = Saved::new(was.save()?);
        Ok(Self { datasets: Datasets::new(without, Some(was))?, saved_was })
    }

    /// Calls `take` with each selected key of either dataset: first the keys of the one without the writes, in its
    /// order.
    pub(super) fn each(
        &mut self,
        filter: &Filter,
        interrupt: &Interrupt,
        take: &mut dyn FnMut(Pair<'_>) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        let Self { datasets, saved_was } = self;
        let (saved, was) = datasets.parts();
        let Some(was) = was else { return Ok(()) };
        let mut values = saved.values()?;
        saved.each(filter, &mut |db, keys| {
            interrupt.check()?;
            select(&mut was.server, db)?;
            for some in keys.chunks(READ_KEYS) {
                let names: Vec<&[u8]> = some.iter().map(|saved| &saved.key[..]).collect();
                let held = live::read(&mut was.server, &names, was.version, false)?;
                let slack_ms = held.slack_ms;
                for (saved, was) in some.iter().zip(held.keys) {
                    let without = Some(values.image(saved)?);
                    take(Pair { db, key: &saved.key, was, without, slack_ms })?;
                }
            }
            Ok(())
        })?;
        let (_, without) = datasets.saved();
        let mut values = saved_was.values()?;
        saved_was.each(filter, &mut |db, keys| {
            interrupt.check()?;
            select(&mut without.server, db)?;
            let names: Vec<&[u8]> = keys.iter().map(|saved| &saved.key[..]).collect();
            let there = live::exist(&mut without.server, &names)?;
            for (saved, _) in keys.iter().zip(there).filter(|(_, there)| !there) {
                let was = Some(values.image(saved)?);
                take(Pair { db, key: &saved.key, was, without: None, slack_ms: 0 })?;
            }
            Ok(())
        })
    }
}
