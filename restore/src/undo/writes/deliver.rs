//! Writes the repairs to the live server: each key, element and expiry time only if it is still as recorded.

use redtape_journal::undo_file::EntryNumber;

use super::repairs::{KeyRepair, Whole};
use crate::error::RestoreError;
use crate::target::lookup::{select, show};
use crate::target::repair::engine::{Engine, Unwanted};
use crate::target::repair::{Added, Before, Doubt, FileLog, UndoLog, Wanted};
use crate::target::value_error::unreadable;
use crate::undo::collect::Collector;
use crate::values::digest::NOTHING;
use crate::values::image::Image;

/// Undo log of an operation that always starts from the present: the journal records what an interrupted run has
/// written, like any other write.
#[derive(Debug)]
pub(super) struct AnewLog<'a>(pub(super) &'a mut FileLog);

impl UndoLog for AnewLog<'_> {
    fn add(&mut self, db: u32, before: &Before<'_>) -> Result<EntryNumber, RestoreError> {
        self.0.add(db, before)
    }

    fn sync(&mut self) -> Result<(), RestoreError> {
        self.0.sync()
    }

    fn not_written(&mut self, entry: EntryNumber) -> Result<(), RestoreError> {
        self.0.not_written(entry)
    }

    fn take_added(&mut self) -> Option<Added> {
        self.0.take_added()
    }

    fn are_done(&mut self, added: Added) -> Result<(), RestoreError> {
        self.0.are_done(added)
    }

    fn is_done(&self, _db: u32, _key: &[u8]) -> bool {
        false
    }

    fn doubt(&self, _db: u32, _key: &[u8]) -> Option<&Doubt> {
        None
    }
}

/// Repairs one key; `was` and `without`: its two states.
pub(super) fn deliver(
    collector: &mut Collector<'_>,
    (db, key): (u32, &[u8]),
    repair: KeyRepair,
    (was, without): (Option<Image>, Option<Image>),
) -> Result<(), RestoreError> {
    collector.go_to(db)?;
    let digest =
        |image: Option<&Image>| image.map_or(Ok(NOTHING), Image::digest).map_err(|error| unreadable(key, error));
    match (repair.whole, without) {
        (None, _) => return parts(&mut collector.engine, (db, key), repair),
        (Some(Whole::Create), Some(without)) => {
            collector.put(Wanted::new(key.to_vec(), without, Some(NOTHING))?);
        }
        (Some(Whole::Replace), Some(without)) => {
            collector.put(Wanted::new(key.to_vec(), without, Some(digest(was.as_ref())?))?);
        }
        (Some(_), _) => {
            let expected = Some(digest(was.as_ref())?);
            collector.remove(Unwanted { key: key.to_vec(), expected, of_type: None });
        }
    }
    Ok(())
}

/// Elements and the expiry time.
fn parts(engine: &mut Engine<'_>, (db, key): (u32, &[u8]), repair: KeyRepair) -> Result<(), RestoreError> {
    let KeyRepair { elements, ttl, .. } = repair;
    select(engine.target, db)?;
    if !elements.is_empty() {
        let set = engine.set_elements(db, key, &elements)?;
        let done = set.iter().filter(|set| **set).count() as u64;
        engine.outcome.elements += done;
        engine.outcome.merged += u64::from(done > 0);
        if let Some((difference, _)) = elements.iter().zip(&set).find(|(_, set)| !**set) {
            engine.outcome.leave(db, key, format!("element {} was changed since", show(difference.name())));
        }
        engine.log.done()?;
    }
    match ttl {
        None => Ok(()),
        Some((was_ms, without_ms)) => engine.put_ttl_back(db, key, was_ms, without_ms, false),
    }
}
